//! The protocol's own clients as judges: what they see is what there is, and their checks of it pass.

use serde_json::{Value, json};

use super::events::{KEY, Receiver, secret};
use super::project;
use crate::judges::ask;
use crate::support::{PROGRAM, sample};

#[tokio::test]
async fn the_official_clients_find_explain_replay_and_read() {
    let project = project("echo hello");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    gateway.finished(&receipt.runs[0]).await;
    let (url, root) = (format!("{}/mcp", gateway.url), project.root().to_str().unwrap().to_owned());
    let environment =
        [("MCP_URL", url.as_str()), ("MCP_KEY", &gateway.key), ("MCP_PROGRAM", PROGRAM), ("MCP_PROJECT", &root)];
    let clients = [
        ask("node", &["--input-type=module", "-"], include_str!("../../judges/mcp.mjs"), &environment),
        ask("python3", &["-"], include_str!("../../judges/mcp.py"), &environment),
    ];
    let seen: Vec<Value> =
        clients.iter().flat_map(|said| serde_json::from_slice::<Vec<Value>>(said).unwrap()).collect();
    assert_eq!(seen.len(), 2 + 6, "over HTTP and standard input, by one version and by three ways of agreeing on one");
    for seen in seen {
        assert_eq!(seen["tools"], 23);
        assert_eq!(
            (&seen["matched"], &seen["state"], &seen["resource"]),
            (&json!(true), &json!("succeeded"), &json!(true))
        );
        assert!(seen["lines"].as_array().unwrap().contains(&json!("hello")), "{seen}");
        assert_eq!(seen["templates"], 2);
        assert!(
            seen["refused"].as_str().unwrap().starts_with("invalid_request: the arguments cannot be read"),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn the_official_clients_see_to_a_webhook_of_their_own_and_subscribe_to_a_source() {
    let judges: [(&str, &[&str], &str); 2] = [
        ("node", &["--input-type=module", "-"], include_str!("../../judges/mcp_webhooks.mjs")),
        ("python3", &["-"], include_str!("../../judges/mcp_webhooks.py")),
    ];
    for (program, args, script) in judges {
        let receiver = Receiver::start(&["200"]);
        let project = receiver.project("");
        let gateway = project.serve();
        let (url, secret) = (format!("{}/mcp", gateway.url), secret(KEY));
        let environment = [
            ("MCP_URL", url.as_str()),
            ("MCP_KEY", &gateway.key),
            ("MCP_CALLBACK", &receiver.url),
            ("MCP_SECRET", &secret),
        ];
        let seen: Value = serde_json::from_slice(&ask(program, args, script, &environment)).unwrap();
        assert!(seen["subscription"].is_string(), "{program}: {seen}");
        let rest = json!({
            "shownOnce": true, "found": true, "matched": true, "replayed": 1, "statuses": [200, 401, 200, 404],
            "subscription": seen["subscription"],
        });
        assert_eq!(seen, rest, "{program}");
        let receipt = gateway.ring(sample("issues.opened")).await;
        let sent = receiver.was_sent(1).remove(0);
        assert!(sent.is_signed_with(KEY), "{program}: {sent:?}");
        assert!(sent.body.to_string().contains(&receipt.delivery_id), "{program}: {sent:?}");
    }
}
