//! What an account may do with what is its own, and what becomes of that when a name changes hands.

use doorbell_client::api;
use serde_json::{Value, json};

use super::{fill, names_of, operations, post, project, send, tells, two};
use crate::support::wait_until;

#[tokio::test]
async fn an_account_finds_all_that_is_its_own_and_its_owner_may_change_it() {
    let two = two().await;
    let (gateway, ours) = (&two.gateway, &two.ours);
    let owner = &ours["owner"];
    for (operation, method, path) in operations(gateway).await {
        let names = names_of(&path);
        if method == "GET" && !names.is_empty() && !["getStep", "getCapturedSecret"].contains(&operation.as_str()) {
            let (status, answer) =
                send(gateway, owner, "GET", &fill(&path, ours, |_, known| known.to_owned()), None).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
    }
    for (list, field, count) in
        [("agents", "agents", 3), ("events", "events", 1), ("sources", "sources", 2), ("keys", "keys", 3)]
    {
        let (_, answer) = send(gateway, owner, "GET", &format!("/v1/{list}"), None).await;
        assert_eq!(answer[field].as_array().map(Vec::len), Some(count), "{list}: {answer}");
    }
    let (_, audit) = send(gateway, owner, "GET", "/v1/audit", None).await;
    let entries = audit["entries"].as_array().unwrap();
    assert!(!entries.is_empty() && entries.iter().all(|entry| entry["account"] == "ours"), "{audit}");
    for (method, path, body, wanted) in [
        ("POST", format!("/v1/agents/{}/pause", ours["agent"]), None, 200),
        ("POST", format!("/v1/agents/{}/resume", ours["agent"]), None, 200),
        ("POST", format!("/v1/sources/{}/pause", ours["source"]), None, 200),
        ("POST", format!("/v1/sources/{}/resume", ours["source"]), None, 200),
        ("POST", format!("/v1/events/{}/replay", ours["event"]), None, 200),
        ("POST", format!("/v1/runs/{}/cancel", ours["run"]), None, 200),
        ("POST", "/v1/keys".to_owned(), Some(json!({ "name": "a", "role": "agent", "agent": ours["agent"] })), 201),
        ("POST", "/v1/keys".to_owned(), Some(json!({ "name": "v", "role": "viewer" })), 201),
        ("POST", "/v1/keys".to_owned(), Some(json!({ "name": "v", "role": "owner", "account": "theirs" })), 400),
        ("POST", "/v1/pause".to_owned(), None, 403),
        ("POST", "/v1/secrets/rekey".to_owned(), Some(json!({})), 403),
    ] {
        let (status, answer) = send(gateway, owner, method, &path, body.as_ref()).await;
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        assert_eq!(tells(&answer, &two.theirs, "").filter(|_| status < 400), None, "{answer}");
    }
}

#[tokio::test]
async fn an_account_declares_agents_for_itself_of_its_own_sources_and_for_nobody_else() {
    let two = two().await;
    let (gateway, owner) = (&two.gateway, &two.ours["owner"]);
    let declare = async |name: &str, definition: Value| {
        send(gateway, owner, "PUT", &format!("/v1/agents/{name}"), Some(&definition)).await
    };
    let worker = json!({ "type": "worker" });
    let (status, flaws) = declare(
        "spy",
        json!({ "runtime": worker, "webhooks": [{ "source": "theirs-hub" }], "mayCall": ["theirs-agent"] }),
    )
    .await;
    assert_eq!(status, 422, "{flaws}");
    let (unknown, other) = declare("spy", json!({ "runtime": worker, "webhooks": [{ "source": "theirs-huc" }] })).await;
    assert_eq!(unknown, 422);
    assert_eq!(flaws.to_string().replace("theirs-hub", ""), other.to_string().replace("theirs-huc", ""), "they differ");
    let (status, agent) =
        declare("ours-too", json!({ "runtime": worker, "webhooks": [{ "provider": "github" }] })).await;
    assert_eq!((status, &agent["sources"], &agent["account"]), (201, &json!(["ours-hub"]), &json!("ours")), "{agent}");
    let (status, answer) = declare("ours-too", json!({ "runtime": worker, "account": "theirs" })).await;
    assert_eq!(status, 422, "{answer}");
    // A credential of the gateway's is not for it, be there one or not.
    two.project.credential("http_agent_secret", "theirs", "whsec_c2VjcmV0");
    let http = |credential: &str| json!({ "runtime": { "type": "http", "url": "https://example.com/a", "credential": credential } });
    let ((_, there), (_, not)) = (declare("caller", http("theirs")).await, declare("caller", http("thairs")).await);
    assert_eq!(there.to_string(), not.to_string());
    two.project.credential("http_agent_secret", "ours", "whsec_c2VjcmV0");
    let (status, answer) = declare("caller", http("ours")).await;
    assert_eq!(status, 201, "{answer}");
    // What an agent of theirs did is not shown to whoever takes its name when it is gone.
    let theirs = &two.theirs["owner"];
    let path = format!("/v1/agents/{}", two.theirs["declared"]);
    assert_eq!(send(gateway, theirs, "DELETE", &path, None).await.0, 200);
    assert_eq!(declare(&two.theirs["declared"], json!({ "runtime": worker })).await.0, 404);
    assert_eq!(send(gateway, theirs, "PUT", &path, Some(&json!({ "runtime": worker }))).await.0, 201);
}

#[tokio::test]
async fn a_name_that_the_files_give_to_somebody_else_leaves_its_keys_webhooks_and_declaration_behind() {
    let two = two().await;
    let (gateway, ours) = (&two.gateway, &two.ours);
    let owner = &ours["owner"];
    let worker = json!({ "runtime": { "type": "worker" } });
    let path = format!("/v1/agents/{}", ours["declared"]);
    let wish = json!({ "name": "spy", "role": "agent", "agent": ours["declared"] });
    let spy = post(gateway, owner, "/v1/keys", wish).await;
    let key = spy["key"].as_str().unwrap();
    let hook = post(gateway, owner, &format!("{path}/webhooks"), json!({ "name": "spy" })).await;
    let open = json!({ "webhookEnabled": true, "webhookAuth": "none" });
    let own = format!("/agents/{}", ours["declared"]);
    assert_eq!(send(gateway, owner, "PATCH", &own, Some(&open)).await.0, 200);
    assert_eq!(send(gateway, key, "GET", &path, None).await.0, 200);
    // The operator writes an agent of that name, of no account.
    two.project.agent(&ours["declared"], "", "echo mine");
    let admin = &gateway.key;
    wait_until("the file to be in force", async || {
        let (_, agent) = send(gateway, admin, "GET", &path, None).await;
        (agent["managedBy"] == "file").then_some(())
    })
    .await;
    assert_eq!(send(gateway, key, "GET", &path, None).await.0, 401);
    assert_eq!(send(gateway, owner, "GET", &path, None).await.0, 404);
    for path in [format!("/v1/hooks/{}", hook["webhookId"].as_str().unwrap()), format!("{own}/webhook")] {
        assert_eq!(send(gateway, "x", "POST", &path, Some(&json!({ "a": 1 }))).await.0, 404, "{path}");
    }
    assert_eq!(send(gateway, owner, "POST", &format!("{path}/run"), Some(&json!({}))).await.0, 404);
    let started = post(gateway, admin, &format!("{path}/run"), json!({})).await;
    gateway.finished(started["runId"].as_str().unwrap()).await;
    // Its maker can take the key away, and the gateway's owner the webhook.
    let (_, keys) = send(gateway, owner, "GET", "/v1/keys", None).await;
    assert!(keys.to_string().contains(spy["keyId"].as_str().unwrap()), "{keys}");
    let (_, hooks) = send(gateway, admin, "GET", &format!("{path}/webhooks"), None).await;
    assert!(hooks["webhooks"][0]["problem"].as_str().unwrap().contains("`ours`"), "{hooks}");
    // With the folder gone, what was declared stays out of force: the account does not see what ran meanwhile.
    std::fs::remove_dir_all(two.project.path(&format!("agents/{}", ours["declared"]))).unwrap();
    wait_until("the file to be gone", async || {
        let (_, agent) = send(gateway, admin, "GET", &path, None).await;
        agent["problem"].as_str().is_some_and(|problem| problem.contains("given to somebody else")).then_some(())
    })
    .await;
    let run = format!("/v1/runs/{}", started["runId"].as_str().unwrap());
    assert_eq!(send(gateway, owner, "GET", &run, None).await.0, 404);
    assert_eq!(send(gateway, owner, "PUT", &path, Some(&worker)).await.0, 404);
}

#[tokio::test]
async fn a_run_of_an_account_waits_for_nothing_that_comes_to_a_shared_source() {
    let project = project();
    let config = project.read("config.toml");
    project.write("config.toml", &format!("{config}[webhooks.shared]\ntype = \"github\"\ncredential = \"acme\"\n"));
    let trigger =
        "account = \"ours\"\n[[webhooks]]\nsource = \"shared\"\nevents = [\"push\"]\n[runtime]\ntype = \"worker\"\n";
    project.write("agents/listens/config.toml", trigger);
    let gateway = project.serve();
    let started = post(&gateway, &gateway.key, "/v1/agents/listens/run", json!({})).await;
    let poll = api::Poll {
        agents: vec!["listens".to_owned()],
        max: Some(1),
        wait_seconds: Some(0),
        worker: None,
        lease_seconds: Some(600),
    };
    let handed = gateway.client.poll(&poll).await.unwrap().runs.remove(0);
    let wait = json!({ "lease": handed.lease.token, "event": "github.issues", "timeout": "1h" });
    let path = format!("/v1/runs/{}/wait", started["runId"].as_str().unwrap());
    let (status, answer) = send(&gateway, &gateway.key, "POST", &path, Some(&wait)).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid_request")), "{answer}");
}

#[tokio::test]
async fn a_stream_of_an_account_tells_what_is_its_own_and_an_agent_that_it_gains_meanwhile() {
    let two = two().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/events/stream?after=0", two.gateway.url);
    let mut stream = http.get(url).bearer_auth(&two.ours["owner"]).send().await.unwrap();
    let declared = json!({ "runtime": { "type": "worker" } });
    let (status, _) = send(&two.gateway, &two.ours["owner"], "PUT", "/v1/agents/late", Some(&declared)).await;
    assert_eq!(status, 201);
    // Theirs first, so that it would have been told before ours.
    post(&two.gateway, &two.theirs["owner"], &format!("/v1/agents/{}/run", two.theirs["declared"]), json!({})).await;
    let started = post(&two.gateway, &two.ours["owner"], "/v1/agents/late/run", json!({})).await;
    let mut text = String::new();
    wait_until("the run of the new agent", async || {
        text += &String::from_utf8_lossy(&stream.chunk().await.unwrap()?);
        text.contains(started["runId"].as_str()?).then_some(())
    })
    .await;
    assert!(text.contains(&two.ours["event"]) && !text.contains("theirs"), "{text}");
}
