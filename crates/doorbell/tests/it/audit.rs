//! The audit log: every change that is asked for through the API is in it; and keys that end by themselves.

use std::collections::BTreeSet;

use doorbell_client::{AuditQuery, Client, Error, api};
use reqwest::Method;
use serde_json::json;

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_until};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

/// Calls that are not noted: they change nothing, or carry a run out and are noted in it.
const NOT_NOTED: [&str; 11] = [
    "POST /v1/runs/{id}",
    "POST /v1/runs/{id}/ask",
    "POST /v1/runs/{id}/complete",
    "POST /v1/runs/{id}/fail",
    "POST /v1/runs/{id}/heartbeat",
    "POST /v1/runs/{id}/logs",
    "POST /v1/runs/{id}/sleep",
    "POST /v1/runs/{id}/wait",
    "POST /v1/triggers/test",
    "POST /v1/worker/poll",
    "PUT /v1/runs/{id}/steps/{key}",
];

async fn entries(gateway: &Gateway) -> Vec<api::AuditEntry> {
    let query = AuditQuery { limit: Some(500), ..AuditQuery::default() };
    gateway.client.audit(&query).await.unwrap().entries
}

/// Every call of the API that could change something, as its document says, which is made of the routes. What tools
/// change is noted by themselves, and senders change nothing of how the gateway is set up.
async fn changing_calls(gateway: &Gateway) -> BTreeSet<String> {
    let document = reqwest::get(format!("{}/openapi.json", gateway.url)).await.unwrap();
    let document: serde_json::Value = document.json().await.unwrap();
    let mut calls = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if method != "get" && operation["tags"][0] != "deliveries" && path != "/mcp" {
                calls.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    calls
}

#[tokio::test]
async fn every_call_that_could_change_something_is_in_it() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let calls = changing_calls(&gateway).await;
    assert!(calls.len() > 20, "{calls:?}");
    for call in [
        "POST /v1/keys",
        "DELETE /v1/keys/{id}",
        "DELETE /v1/events/{id}",
        "POST /v1/agents/{name}/pause",
        "PUT /v1/agents/{name}",
        "PATCH /v1/agents/{name}",
        "DELETE /v1/agents/{name}",
        "POST /v1/sources/{name}/pause",
        "POST /v1/sources/{name}/resume",
        "POST /v1/runs/{id}/answer",
        "POST /v1/runs/cancel",
        "POST /v1/replays",
        "POST /v1/events/{id}/replay",
        "POST /v1/agents/{name}/webhooks",
        "DELETE /v1/agents/{name}/webhooks/{id}",
        "POST /v1/agents/{name}/webhooks/{id}/rotate",
        "POST /v1/agents/{name}/webhooks/{id}/activate",
        "POST /v1/agents/{name}/webhooks/{id}/test",
        "PATCH /agents/{name}",
        "POST /v1/secrets/rekey",
    ] {
        assert!(calls.contains(call), "{call} is not seen in {calls:?}");
    }
    let http = reqwest::Client::new();
    for call in &calls {
        let (method, path) = call.split_once(' ').unwrap();
        let path: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part }).collect();
        let asked = http.request(Method::try_from(method).unwrap(), format!("{}{}", gateway.url, path.join("/")));
        asked.bearer_auth(&gateway.key).json(&json!({})).send().await.unwrap();
    }
    let noted: BTreeSet<String> = entries(&gateway).await.into_iter().map(|entry| entry.operation).collect();
    let missing: Vec<_> = calls.iter().filter(|call| !noted.contains(*call)).collect();
    assert_eq!(missing, NOT_NOTED, "a call that changes nothing is named in http/audit.rs and here");
}

#[tokio::test]
async fn what_tools_change_is_in_it_and_what_they_only_read_is_not() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let http = reqwest::Client::new();
    let ask = async |method: &str, params: serde_json::Value| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let asked = http.post(format!("{}/mcp", gateway.url)).bearer_auth(&gateway.key);
        let asked = asked.header("accept", "application/json, text/event-stream").json(&message);
        asked.send().await.unwrap().json::<serde_json::Value>().await.unwrap()
    };
    let listed = ask("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    let mut changing = BTreeSet::new();
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        if tool["annotations"]["readOnlyHint"] == false {
            changing.insert(format!("MCP {name}"));
        }
        ask("tools/call", json!({ "name": name, "arguments": {} })).await;
    }
    ask("tools/call", json!({ "name": "agents_pause", "arguments": { "agent": "triage" } })).await;
    let seen = entries(&gateway).await;
    let noted: BTreeSet<String> = seen.iter().map(|entry| entry.operation.clone()).collect();
    for tool in
        ["agents_run", "runs_cancel", "webhooks_create", "webhooks_rotate_secret", "webhooks_delete", "webhooks_test"]
    {
        assert!(changing.contains(&format!("MCP {tool}")), "{tool}: {changing:?}");
    }
    assert_eq!(noted, changing);
    let ended = |entry: &api::AuditEntry| (entry.result.clone(), entry.target.clone(), entry.code.clone());
    assert_eq!(ended(&seen[0]), ("done".to_owned(), "triage".to_owned(), None));
    assert_eq!(ended(&seen[1]), ("refused".to_owned(), String::new(), Some("invalid_request".to_owned())));
    assert_eq!((seen[0].name.as_str(), seen[0].remote.as_str()), ("local", "127.0.0.1"));
}

#[tokio::test]
async fn who_did_what_from_where_and_how_it_ended_is_told_to_owners() {
    let project = Project::new(&format!("trusted_proxies = [\"127.0.0.1\"]\n{ONE_SOURCE}"));
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let wish = api::NewKey { name: "looker".to_owned(), role: "viewer".to_owned(), ..api::NewKey::default() };
    let made = gateway.client.create_key(&wish).await.unwrap();
    gateway.client.pause(Some("triage"), &api::NewPause::default()).await.unwrap();
    let http = reqwest::Client::new();
    let refused = http.post(format!("{}/v1/agents/triage/pause", gateway.url)).bearer_auth(&made.key);
    assert_eq!(refused.header("x-forwarded-for", "203.0.113.9").send().await.unwrap().status(), 403);
    // Strangers are not noted, nor is what only looks.
    assert_eq!(
        http.post(format!("{}/v1/pause", gateway.url)).bearer_auth("dbk_no").send().await.unwrap().status(),
        401
    );
    gateway.client.stats().await.unwrap();
    let seen = entries(&gateway).await;
    let said: Vec<_> = seen
        .iter()
        .map(|one| [&one.name, &one.role, &one.operation, &one.target, &one.remote, &one.result].map(String::as_str))
        .collect();
    assert_eq!(said[0], ["looker", "viewer", "POST /v1/agents/{name}/pause", "triage", "203.0.113.9", "refused"]);
    assert_eq!(said[1], ["local", "owner", "POST /v1/agents/{name}/pause", "triage", "127.0.0.1", "done"]);
    assert_eq!(said[2], ["local", "owner", "POST /v1/keys", &made.key_id, "127.0.0.1", "done"]);
    assert_eq!(said.len(), 3);
    assert_eq!((seen[0].who.as_str(), seen[0].status), (made.key_id.as_str(), Some(403)));
    assert_eq!(seen[0].code.as_deref(), Some("not_allowed"));
    let text = serde_json::to_string(&seen).unwrap();
    assert!(!text.contains(&made.key) && !text.contains(&gateway.key), "{text}");
    let looker = Client::new(&gateway.url, Some(&made.key)).unwrap();
    assert_eq!(looker.audit(&AuditQuery::default()).await.unwrap_err().status(), Some(403));
    // Pages, filters, and a restart.
    drop(gateway);
    let gateway = project.serve();
    let first = AuditQuery { limit: Some(2), ..AuditQuery::default() };
    let page = gateway.client.audit(&first).await.unwrap();
    assert_eq!(page.entries, seen[..2]);
    let next = gateway.client.audit(&AuditQuery { cursor: page.next_cursor, ..first }).await.unwrap();
    assert_eq!((next.entries.as_slice(), next.next_cursor), (&seen[2..], None));
    let of = |who: &str| AuditQuery { who: Some(who.to_owned()), ..AuditQuery::default() };
    assert_eq!(gateway.client.audit(&of("looker")).await.unwrap().entries, seen[..1]);
    let later = AuditQuery { since: Some("2999-01-01T00:00:00Z".to_owned()), ..AuditQuery::default() };
    assert!(gateway.client.audit(&later).await.unwrap().entries.is_empty());
    let all = project.json(&["audit", "--all"]);
    assert_eq!(all["entries"].as_array().unwrap().len(), 3);
    let shown = String::from_utf8(project.run(&["audit", "--who", "looker"]).stdout).unwrap();
    assert!(shown.contains("403 not_allowed") && shown.contains("203.0.113.9"), "{shown}");
}

/// What tells an entry from others: whose, the call, what it was about and how it ended.
fn said(entry: &api::AuditEntry) -> [&str; 4] {
    [&entry.name, &entry.operation, &entry.target, &entry.result].map(String::as_str)
}

#[tokio::test]
async fn every_change_of_a_webhook_is_in_it_without_its_secrets() {
    let project = Project::new("");
    let create = "curl -s -H \"Authorization: Bearer $DOORBELL_TOKEN\" -H 'Content-Type: application/json' \
                  -d '{\"name\":\"mine\"}' $DOORBELL_URL/v1/agents/triage/webhooks";
    project.agent("triage", "", create);
    project.secrets.expect("webhook", "the agent prints what its call of the API answers into its log");
    let gateway = project.serve();
    let wish = api::NewKey { name: "ci".to_owned(), role: "agent".to_owned(), ..api::NewKey::default() };
    let wish = api::NewKey { agent: Some("triage".to_owned()), ..wish };
    let key = gateway.client.create_key(&wish).await.unwrap().key;
    let client = Client::new(&gateway.url, Some(&key)).unwrap();
    let hook = api::NewWebhook { name: "pushes".to_owned(), provider: Some("github".to_owned()), secret: None };
    let made = client.create_webhook("triage", &hook).await.unwrap();
    let id = made.webhook_id.as_str();
    let rotated = client.rotate_webhook("triage", id, &api::Rotation::default()).await.unwrap();
    client.test_webhook("triage", id, &api::WebhookTest::default()).await.unwrap();
    client.delete_webhook("triage", id).await.unwrap();
    client.activate_webhook("triage", id).await.unwrap();
    let own = api::OwnWebhookWish { webhook_enabled: Some(true), ..api::OwnWebhookWish::default() };
    let own = client.own_webhook("triage", &own).await.unwrap();
    assert_eq!(client.rekey(&api::Rekey { lost: false }).await.unwrap_err().status(), Some(403));
    gateway.client.rekey(&api::Rekey { lost: false }).await.unwrap();
    // The test of the webhook started the agent.
    let seen: Vec<_> = entries(&gateway).await.into_iter().filter(|one| one.role != "run").collect();
    let of = format!("triage/{id}");
    let hooks = "/v1/agents/{name}/webhooks";
    let calls = ["", "/{id}/rotate", "/{id}/test"].map(|rest| format!("POST {hooks}{rest}"));
    let (delete, activate) = (format!("DELETE {hooks}/{{id}}"), format!("POST {hooks}/{{id}}/activate"));
    let expected = [
        ["local", "POST /v1/secrets/rekey", "", "done"],
        ["ci", "POST /v1/secrets/rekey", "", "refused"],
        ["ci", "PATCH /agents/{name}", "triage", "done"],
        ["ci", &activate, &of, "done"],
        ["ci", &delete, &of, "done"],
        ["ci", &calls[2], &of, "done"],
        ["ci", &calls[1], &of, "done"],
        ["ci", &calls[0], &of, "done"],
    ];
    assert_eq!(seen.iter().take(8).map(said).collect::<Vec<_>>(), expected);
    assert!(seen[..8].iter().all(|one| one.remote == "127.0.0.1" && (one.who.starts_with("key_"))), "{seen:?}");

    // An agent that makes one of its own, in a run.
    let started = gateway.client.run_agent("triage", &api::NewRun::default(), None).await.unwrap();
    gateway.finished(&started.run_id).await;
    let noted = wait_until("its webhook", async || {
        let noted = entries(&gateway).await.into_iter().find(|one| one.who == started.run_id)?;
        (noted.result == "done").then_some(noted)
    })
    .await;
    assert_eq!((noted.role.as_str(), noted.operation.as_str()), ("run", calls[0].as_str()));
    assert!(noted.target.starts_with("triage/whk_"), "{noted:?}");

    let text = serde_json::to_string(&entries(&gateway).await).unwrap();
    for secret in [made.signing_secret, rotated.signing_secret, own.webhook_secret] {
        assert!(!text.contains(&secret.unwrap()), "{text}");
    }
    drop(gateway);
    project.json(&["secrets", "rekey"]);
    let seen = entries(&project.serve()).await;
    assert_eq!(said(&seen[0]), ["command line, without a gateway", "POST /v1/secrets/rekey", "", "done"]);
}

#[tokio::test]
async fn what_a_tool_makes_is_named_as_the_api_names_it() {
    let project = Project::new("");
    project.agent("triage", "", "true");
    let gateway = project.serve();
    let call = async |name: &str, arguments: serde_json::Value| {
        let params = json!({ "name": name, "arguments": arguments });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let asked = reqwest::Client::new().post(format!("{}/mcp", gateway.url)).bearer_auth(&gateway.key);
        let asked = asked.header("accept", "application/json, text/event-stream").json(&message);
        asked.send().await.unwrap().json::<serde_json::Value>().await.unwrap()["result"]["structuredContent"].clone()
    };
    let made = call("webhooks_create", json!({ "agent": "triage", "name": "pushes" })).await;
    let id = made["webhookId"].as_str().unwrap();
    call("webhooks_rotate_secret", json!({ "agent": "triage", "id": id })).await;
    let run = call("agents_run", json!({ "agent": "triage" })).await;
    let seen = entries(&gateway).await;
    let (of, run) = (format!("triage/{id}"), format!("triage: {}", run["runId"].as_str().unwrap()));
    let expected = [
        ["local", "MCP agents_run", &run, "done"],
        ["local", "MCP webhooks_rotate_secret", &of, "done"],
        ["local", "MCP webhooks_create", &of, "done"],
    ];
    assert_eq!(seen.iter().map(said).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn all_of_it_is_exported_line_by_line() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    // More than a page.
    for _ in 0..251 {
        gateway.client.pause(None, &api::NewPause::default()).await.unwrap();
        gateway.client.resume(None, &api::NewResume::default()).await.unwrap();
    }
    let ask = async |query: &str, key: &str| {
        let asked = reqwest::Client::new().get(format!("{}/v1/audit/export{query}", gateway.url));
        asked.bearer_auth(key).send().await.unwrap()
    };
    let read =
        |text: &str| -> Vec<api::AuditEntry> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let answer = ask("", &gateway.key).await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let all = read(&answer.text().await.unwrap());
    assert_eq!(all.len(), 502);
    assert_eq!(all[..500], entries(&gateway).await);
    assert_eq!(read(&String::from_utf8(project.run(&["audit", "--export"]).stdout).unwrap()), all);
    let since = format!("?since={}", all[9].at);
    assert!(read(&ask(&since, &gateway.key).await.text().await.unwrap()).len() < 502);
    assert_eq!(ask("?who=nobody", &gateway.key).await.text().await.unwrap(), "");
    assert_eq!(ask("?since=soon", &gateway.key).await.status(), 400);
    let wish = api::NewKey { name: "looker".to_owned(), role: "viewer".to_owned(), ..api::NewKey::default() };
    let looker = gateway.client.create_key(&wish).await.unwrap().key;
    assert_eq!(ask("", &looker).await.status(), 403);
}

#[tokio::test]
async fn what_saved_files_change_is_in_it() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    project.agent("triage", ANY, "true");
    let is_over = |entry: &api::AuditEntry| entry.result != "unknown";
    let noted = wait_until("the agent", async || entries(&gateway).await.into_iter().find(is_over)).await;
    assert_eq!(said(&noted), ["saved files", "config reload", "agent triage added", "done"]);
    assert_eq!((noted.who.as_str(), noted.remote.as_str()), ("local", "local"));
}

#[tokio::test]
async fn what_a_run_does_with_its_token_and_what_is_done_without_a_gateway_is_noted_too() {
    let project = Project::new(ONE_SOURCE);
    project.agent("other", &format!("{ANY}\nevents = [\"push\"]"), "true");
    let url = "curl -s -X POST -H \"Authorization: Bearer $DOORBELL_TOKEN\" $DOORBELL_URL/v1/agents/other/run";
    project.agent("caller", &format!("may_call = [\"other\"]\n{ANY}\nevents = [\"issues\"]"), url);
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.finished(&run).await;
    let noted = entries(&gateway).await.remove(0);
    assert_eq!((noted.who.as_str(), noted.name.as_str(), noted.role.as_str()), (run.as_str(), "caller", "run"));
    assert!(noted.target.starts_with("other: run_"), "{noted:?}");
    assert_eq!(gateway.terminate(), Some(0));
    let made = project.json(&["keys", "create", "--name", "x", "--role", "viewer"]);
    let id = made["keyId"].as_str().unwrap();
    project.json(&["keys", "rm", id]);
    let seen = entries(&project.serve()).await;
    let said: Vec<_> = seen.iter().map(|one| (one.who.as_str(), one.operation.as_str(), one.target.as_str())).collect();
    assert_eq!(said[..2], [("local", "DELETE /v1/keys/{id}", id), ("local", "POST /v1/keys", id)]);
}

#[tokio::test]
async fn a_live_key_in_the_place_of_an_id_is_not_in_it() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    assert_eq!(gateway.client.remove_key(&gateway.key).await.unwrap_err().status(), Some(404));
    let arguments = json!({ "agent": "triage", "id": gateway.key });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "webhooks_delete", "arguments": arguments } });
    let asked = reqwest::Client::new().post(format!("{}/mcp", gateway.url)).bearer_auth(&gateway.key);
    asked.header("accept", "application/json, text/event-stream").json(&message).send().await.unwrap();
    let seen = entries(&gateway).await;
    let said: Vec<_> = seen.iter().map(|one| (one.operation.as_str(), one.target.as_str())).collect();
    assert_eq!(said[..2], [("MCP webhooks_delete", "triage/dbk_…"), ("DELETE /v1/keys/{id}", "dbk_…")]);
    assert!(!serde_json::to_string(&seen).unwrap().contains(&gateway.key));
}

#[tokio::test]
async fn it_is_kept_for_its_own_time() {
    let project = Project::new(&format!("[store]\nretention = \"off\"\naudit_retention = \"1s\"\n{ONE_SOURCE}"));
    let gateway = project.serve();
    gateway.client.pause(None, &api::NewPause::default()).await.unwrap();
    wait_until("the entry to go", async || entries(&gateway).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_key_ends_by_itself_and_says_so() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let made = project.json(&["keys", "create", "--name", "brief", "--role", "viewer", "--expires", "5s"]);
    let key = made["key"].as_str().unwrap();
    let brief = Client::new(&gateway.url, Some(key)).unwrap();
    let stream = reqwest::Client::new().get(format!("{}/v1/events/stream", gateway.url)).bearer_auth(key);
    let mut stream = stream.send().await.unwrap();
    project.agent("silent", "", "exec sleep 1000");
    let silent =
        wait_until("the agent", async || gateway.client.run_agent("silent", &api::NewRun::default(), None).await.ok());
    let log = format!("{}/v1/runs/{}/logs?follow=true", gateway.url, silent.await.run_id);
    let mut log = reqwest::Client::new().get(log).bearer_auth(key).send().await.unwrap();
    let refused = wait_until("it to end", async || brief.stats().await.err()).await;
    let Error::Api(problem) = &refused else { panic!("{refused:?}") };
    assert_eq!((problem.status, problem.code.as_str()), (401, "key_expired"));
    assert!(problem.detail.contains("ended on"), "{problem:?}");
    // What it had open ends with it, at the latest when something is to be said.
    let ended = async {
        loop {
            gateway.ring(sample("issues.opened")).await;
            let heard = tokio::time::timeout(std::time::Duration::from_millis(50), stream.chunk()).await;
            if let Ok(Ok(None) | Err(_)) = heard {
                return;
            }
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, ended).await.expect("the stream stays open");
    let ended = async { while let Ok(Some(_)) = log.chunk().await {} };
    tokio::time::timeout(crate::support::PATIENCE, ended).await.expect("the log stays open, where nothing is written");
    for wrong in ["0s", "soon", "9999999d"] {
        let args = ["keys", "create", "--name", "x", "--role", "viewer", "--expires", wrong];
        assert!(!project.run(&args).status.success(), "{wrong}");
    }
    let listed = project.json(&["keys", "ls"]);
    let brief = listed["keys"].as_array().unwrap().iter().find(|key| key["name"] == "brief").unwrap();
    assert!(brief["expiresAt"].is_string());
}

#[tokio::test]
async fn when_a_key_was_used_last_is_known_and_outlives_the_gateway() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let made = project.json(&["keys", "create", "--name", "ci", "--role", "viewer"]);
    let used = |listed: serde_json::Value| {
        let keys = listed["keys"].as_array().unwrap().clone();
        keys.into_iter().find(|key| key["name"] == "ci").unwrap()["lastUsedAt"].clone()
    };
    assert!(used(project.json(&["keys", "ls"])).is_null());
    let ci = Client::new(&gateway.url, made["key"].as_str()).unwrap();
    ci.stats().await.unwrap();
    let before = used(project.json(&["keys", "ls"]));
    assert!(before.is_string());
    assert_eq!(gateway.terminate(), Some(0));
    assert_eq!(used(project.json(&["keys", "ls"])), before, "without a gateway");
    let _gateway = project.serve();
    assert_eq!(used(project.json(&["keys", "ls"])), before);
    let table = String::from_utf8(project.run(&["keys", "ls"]).stdout).unwrap();
    assert!(table.contains("LAST USED") && table.contains("EXPIRES"), "{table}");
}
