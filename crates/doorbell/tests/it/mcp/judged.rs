//! The protocol's own clients as judges: what they see is what there is, and their checks of it pass.

use serde_json::{Value, json};

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
        assert_eq!(seen["tools"], 17);
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
