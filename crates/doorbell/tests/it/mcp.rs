//! The MCP server: its protocol, its tools, who may do what; over HTTP and over standard input.

use doorbell_client::api::NewKey;
use serde_json::{Value, json};

use crate::support::{Gateway, ONE_SOURCE, Project, issue, sample, sign};

mod events;
mod judged;
mod protocol;
mod stdio;

const ANY: &str = "[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]\n";
const NEWEST: &str = "2026-07-28";

fn project(script: &str) -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, script);
    project
}

/// A message of a client of an older protocol.
fn message(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

/// Posts a message; the status and what came back.
async fn post(gateway: &Gateway, key: &str, message: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.post(format!("{}/mcp", gateway.url)).bearer_auth(key).json(message);
    request = request.header("accept", "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
}

/// The result of any request; null if it is refused.
pub(crate) async fn ask(gateway: &Gateway, key: &str, method: &str, params: Value) -> Value {
    post(gateway, key, &message(method, params), &[]).await.1["result"].clone()
}

/// What a tool answers: refusals, too.
pub(crate) async fn call_as(gateway: &Gateway, key: &str, tool: &str, arguments: Value) -> Value {
    let message = message("tools/call", json!({ "name": tool, "arguments": arguments }));
    let (status, answer) = post(gateway, key, &message, &[]).await;
    assert_eq!(status, 200, "{tool}: {answer}");
    answer["result"].clone()
}

/// What a tool answers that must not refuse.
async fn call(gateway: &Gateway, tool: &str, arguments: Value) -> Value {
    let result = call_as(gateway, &gateway.key, tool, arguments).await;
    assert_eq!(result["isError"], false, "{tool}: {result}");
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, result["structuredContent"], "{tool} says one thing twice");
    text
}

/// The code of a refusal, and the text that the agent reads.
async fn refusal(gateway: &Gateway, key: &str, tool: &str, arguments: Value) -> (String, String) {
    let result = call_as(gateway, key, tool, arguments).await;
    assert_eq!(result["isError"], true, "{tool}: {result}");
    assert!(result.get("structuredContent").is_none(), "clients hold it against the tool's schema: {result}");
    (code_of(&result), result["content"][0]["text"].as_str().unwrap().to_owned())
}

/// The code that a refusal begins with.
fn code_of(result: &Value) -> String {
    let text = result["content"][0]["text"].as_str().unwrap();
    text.split(": ").next().unwrap().to_owned()
}

async fn key(gateway: &Gateway, role: &str, agent: Option<&str>) -> String {
    let wish = NewKey {
        name: role.to_owned(),
        role: role.to_owned(),
        agent: agent.map(str::to_owned),
        expires: None,
        account: None,
    };
    gateway.client.create_key(&wish).await.unwrap().key
}

#[tokio::test]
async fn an_agent_finds_an_event_explains_it_replays_it_and_reads_the_run_and_its_log() {
    let project = project("echo looked at it; echo '{\"label\":\"bug\"}' > $DOORBELL_OUTPUT_FILE");
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await;
    gateway.ring(sample("push")).await;
    let found = call(&gateway, "events_list", json!({ "event": "github.issues.opened", "limit": 5 })).await;
    assert_eq!(found["events"].as_array().unwrap().len(), 1);
    let event = found["events"][0]["id"].as_str().unwrap();
    assert_eq!(event, first.delivery_id);
    let read = call(&gateway, "events_get", json!({ "id": event })).await;
    assert_eq!((&read["headers"]["x-github-event"], &read["bodyEncoding"]), (&json!("issues"), &json!("utf8")));
    assert!(read["body"]["text"].as_str().unwrap().contains("\"action\""), "{read}");
    let why = call(&gateway, "events_explain", json!({ "id": event, "agent": "triage" })).await;
    assert_eq!(why["verdicts"][0]["matched"], true, "{why}");
    assert_eq!(call(&gateway, "events_explain", json!({ "id": event, "agent": "x" })).await["verdicts"], json!([]));
    let again = call(&gateway, "events_replay", json!({ "id": event })).await;
    let run = again["outcomes"][0]["runId"].as_str().unwrap();
    gateway.finished(run).await;
    let read = call(&gateway, "runs_get", json!({ "id": run })).await;
    assert_eq!((&read["state"], &read["result"]), (&json!("succeeded"), &json!({ "label": "bug" })));
    let log = call(&gateway, "runs_logs", json!({ "id": run })).await;
    let lines: Vec<_> = log["lines"].as_array().unwrap().iter().map(|line| line["text"].clone()).collect();
    assert!(lines.contains(&json!("looked at it")) && log["over"] == true && log["earlier"] == false, "{log}");
    let runs =
        call(&gateway, "runs_list", json!({ "agent": "triage", "state": "succeeded", "event": again["eventId"] }))
            .await;
    assert_eq!((runs["runs"].as_array().unwrap().len(), &runs["runs"][0]["id"]), (1, &json!(run)));
}

#[tokio::test]
async fn agents_are_started_paused_and_resumed_and_runs_cancelled_and_retried() {
    let project = project("test -e $PWD/../never || exit 3");
    project.agent("slow", "", "exec sleep 60");
    project.write(
        "agents/slow/config.toml",
        &format!("schedule = \"0 0 1 1 *\"\n{}", project.read("agents/slow/config.toml")),
    );
    let gateway = project.serve();
    let names = call(&gateway, "agents_list", json!({})).await;
    assert_eq!((&names["agents"][0]["name"], &names["agents"][1]["name"]), (&json!("slow"), &json!("triage")));
    assert_eq!(call(&gateway, "agents_get", json!({ "agent": "slow" })).await["schedules"][0]["cron"], "0 0 1 1 *");
    let ask = json!({ "agent": "triage", "prompt": "look", "input": { "n": 7 }, "idempotencyKey": "once" });
    let started = call(&gateway, "agents_run", ask.clone()).await;
    let again = call(&gateway, "agents_run", ask).await;
    assert_eq!((&again["runId"], &again["duplicate"]), (&started["runId"], &json!(true)));
    let failed = started["runId"].as_str().unwrap();
    assert_eq!(gateway.finished(failed).await.run.state, "failed");
    assert_eq!(call(&gateway, "runs_list", json!({ "deadLetter": true })).await["runs"][0]["id"], *failed);
    let paused = call(&gateway, "agents_pause", json!({ "agent": "triage", "why": "deploying" })).await;
    assert_eq!(paused["why"], "deploying");
    let retried = call(&gateway, "runs_retry", json!({ "id": failed })).await;
    assert_eq!(retried["id"], *failed);
    gateway.in_state(failed, "held").await;
    assert_eq!(call(&gateway, "stats", json!({})).await["agents"][1]["held"], 1);
    assert_eq!(call(&gateway, "agents_resume", json!({ "agent": "triage" })).await["stillHeld"], Value::Null);
    assert_eq!(gateway.finished(failed).await.run.attempt, 2);
    let (code, text) = refusal(&gateway, &gateway.key, "agents_resume", json!({ "agent": "triage" })).await;
    assert_eq!((code.as_str(), text.as_str()), ("not_paused", "not_paused: `triage` is not paused"));
    let slow = call(&gateway, "agents_run", json!({ "agent": "slow" })).await["runId"].as_str().unwrap().to_owned();
    gateway.in_state(&slow, "running").await;
    call(&gateway, "runs_cancel", json!({ "id": slow })).await;
    assert_eq!(gateway.finished(&slow).await.run.state, "cancelled");
    assert_eq!(
        call(&gateway, "runs_cancel", json!({ "id": slow })).await["state"],
        "cancelled",
        "once more is no harm"
    );
}

#[tokio::test]
async fn triggers_are_tested_and_sources_listed() {
    let gateway_of = project("true");
    let gateway = gateway_of.serve();
    gateway.ring(sample("issues.opened")).await;
    gateway.ring(sample("push")).await;
    let trigger = json!({ "source": "acme", "events": ["issues"] });
    let tested = call(&gateway, "triggers_test", json!({ "trigger": trigger, "limit": 1 })).await;
    assert_eq!((&tested["scanned"], &tested["matched"], &tested["complete"]), (&json!(2), &json!(1), &json!(true)));
    let wrong = json!({ "trigger": { "source": "acme", "evnts": ["issues"] } });
    let (code, text) = refusal(&gateway, &gateway.key, "triggers_test", wrong).await;
    assert!(code == "invalid_request" && text.contains("evnts") && text.contains("events"), "{text}");
    let sources = call(&gateway, "sources_list", json!({})).await;
    assert_eq!((&sources["sources"][0]["name"], &sources["sources"][0]["signed"]), (&json!("acme"), &json!(true)));
}

#[tokio::test]
async fn long_things_are_read_in_parts() {
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; head -c 9000 /dev/zero | tr '\\0' y; echo; \
                  printf '\"' > $DOORBELL_OUTPUT_FILE; head -c 20000 /dev/zero | tr '\\0' z >> $DOORBELL_OUTPUT_FILE; printf '\"' >> $DOORBELL_OUTPUT_FILE";
    let project = project(script);
    let gateway = project.serve();
    let title = "ä".repeat(20_000);
    let receipt = gateway.ring(issue(&title)).await;
    let (mut body, mut offset) = (String::new(), json!(0));
    while !offset.is_null() {
        let wish = json!({ "id": receipt.delivery_id, "bodyOffset": offset, "bodyLimit": 16000 });
        let part = call(&gateway, "events_get", wish).await["body"].clone();
        assert!(part["text"].as_str().unwrap().len() <= 16_000);
        body.push_str(part["text"].as_str().unwrap());
        offset = part["nextOffset"].clone();
    }
    assert_eq!(body.as_bytes(), gateway.client.event_body(&receipt.delivery_id).await.unwrap());
    let without = call(&gateway, "events_get", json!({ "id": receipt.delivery_id, "bodyLimit": 0 })).await;
    assert!(without["body"].is_null() && without.to_string().len() < 5_000);
    let run = &receipt.runs[0];
    assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    let read = call(&gateway, "runs_get", json!({ "id": run })).await;
    assert_eq!((&read["result"], &read["resultText"]["total"]), (&Value::Null, &json!(20_002)));
    let rest = call(&gateway, "runs_get", json!({ "id": run, "resultOffset": 16_000 })).await["resultText"].clone();
    assert!(rest["text"].as_str().unwrap().ends_with("z\"") && rest["nextOffset"].is_null(), "{rest}");
    let end = call(&gateway, "runs_logs", json!({ "id": run, "limit": 3 })).await;
    assert_eq!((&end["lines"][0]["n"], &end["earlier"], &end["nextAfter"]), (&json!(2999), &json!(true), &json!(3001)));
    let last = end["lines"][2]["text"].as_str().unwrap();
    assert!(last.ends_with("y… [cut: 7000 more bytes]"), "{last}");
    let (mut after, mut seen) = (json!(0), 0);
    loop {
        let page = call(&gateway, "runs_logs", json!({ "id": run, "after": after, "limit": 1000 })).await;
        assert!(page.to_string().len() < 250_000);
        (after, seen) = (page["nextAfter"].clone(), seen + page["lines"].as_array().unwrap().len());
        if page["over"] == true {
            break;
        }
    }
    assert_eq!(seen, 3001);
}

#[tokio::test]
async fn a_body_that_is_no_text_is_read_in_base64() {
    let project = Project::new("[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n");
    let gateway = project.serve();
    let url = format!("{}/webhooks/generic", gateway.url);
    let sent = reqwest::Client::new()
        .post(url)
        .header("content-type", "application/octet-stream")
        .body(vec![0xff, 0, 0xfe])
        .send();
    assert_eq!(sent.await.unwrap().status(), 200);
    let event = call(&gateway, "events_list", json!({})).await["events"][0]["id"].clone();
    let read = call(&gateway, "events_get", json!({ "id": event })).await;
    assert_eq!((&read["bodyEncoding"], &read["body"]["text"]), (&json!("base64"), &json!("/wD+")));
}

#[tokio::test]
async fn lists_are_pages_with_an_end() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    for number in 0..25 {
        gateway.ring(sign("push", "{\"ref\":\"refs/heads/main\"}", &format!("delivery-{number}"))).await;
    }
    let first = call(&gateway, "events_list", json!({})).await;
    assert_eq!(first["events"].as_array().unwrap().len(), 20);
    let second = call(&gateway, "events_list", json!({ "cursor": first["nextCursor"] })).await;
    assert_eq!((second["events"].as_array().unwrap().len(), &second["nextCursor"]), (5, &Value::Null));
    for (limit, arguments) in
        [("limit", json!({ "limit": 101 })), ("limit", json!({ "limit": 0 })), ("cursor", json!({ "cursor": "x" }))]
    {
        let (code, text) = refusal(&gateway, &gateway.key, "events_list", arguments).await;
        assert!(code == "invalid_request" && text.contains(limit), "{text}");
    }
}

#[tokio::test]
async fn what_was_removed_for_good_is_not_read() {
    let project = project("true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    gateway.finished(&receipt.runs[0]).await;
    gateway.client.forget_event(&receipt.delivery_id, false).await.unwrap();
    let read = call(&gateway, "events_get", json!({ "id": receipt.delivery_id })).await;
    assert!(read["body"].is_null() && read["forgottenAt"].is_string(), "{read}");
    let (code, _) = refusal(&gateway, &gateway.key, "events_replay", json!({ "id": receipt.delivery_id })).await;
    assert_eq!(code, "forgotten");
}

#[tokio::test]
async fn each_key_sees_and_does_what_is_its() {
    let project = project("true");
    project.agent("other", ANY, "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    for run in &receipt.runs {
        gateway.finished(run).await;
    }
    let (viewer, own) = (key(&gateway, "viewer", None).await, key(&gateway, "agent", Some("triage")).await);
    let run_of =
        async |agent: &str| call(&gateway, "runs_list", json!({ "agent": agent })).await["runs"][0]["id"].clone();
    let (mine, others) = (run_of("triage").await, run_of("other").await);
    let code = async |key: &str, tool: &str, arguments: Value| refusal(&gateway, key, tool, arguments).await.0;

    assert_eq!(call_as(&gateway, &viewer, "runs_get", json!({ "id": others })).await["isError"], false);
    for (tool, arguments) in [
        ("events_replay", json!({ "id": receipt.delivery_id })),
        ("runs_cancel", json!({ "id": mine })),
        ("runs_retry", json!({ "id": mine })),
        ("agents_run", json!({ "agent": "triage" })),
        ("agents_pause", json!({ "agent": "triage" })),
        ("agents_resume", json!({ "agent": "triage" })),
    ] {
        assert_eq!(code(&viewer, tool, arguments).await, "not_allowed", "{tool}");
    }

    assert_eq!(code(&own, "runs_get", json!({ "id": others })).await, "not_found");
    assert_eq!(code(&own, "runs_logs", json!({ "id": others })).await, "not_found");
    assert_eq!(code(&own, "agents_get", json!({ "agent": "other" })).await, "not_found");
    assert_eq!(code(&own, "agents_run", json!({ "agent": "other" })).await, "not_found");
    assert_eq!(code(&own, "agents_pause", json!({ "agent": "other" })).await, "not_found");
    assert_eq!(code(&own, "events_replay", json!({ "id": receipt.delivery_id })).await, "not_allowed");
    assert_eq!(code(&own, "triggers_test", json!({ "trigger": { "source": "acme" } })).await, "not_allowed");
    let (_, text) = refusal(&gateway, &own, "runs_get", json!({ "id": "run_nonsense" })).await;
    assert_eq!(text, "not_found: there is no such run, or it is not yours: runs_list shows those that you can see");
    let seen = call_as(&gateway, &own, "events_get", json!({ "id": receipt.delivery_id })).await;
    assert_eq!(seen["structuredContent"]["outcomes"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(call_as(&gateway, &own, "runs_get", json!({ "id": mine })).await["isError"], false);
    assert_eq!(call_as(&gateway, &own, "agents_pause", json!({ "agent": "triage" })).await["isError"], false);
}

#[tokio::test]
async fn resources_are_read_by_their_uri() {
    let project = project("echo hello");
    project.agent("other", "schedule = \"0 0 1 1 *\"\n", "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    gateway.finished(&receipt.runs[0]).await;
    let read = async |key: &str, uri: &str| {
        post(&gateway, key, &message("resources/read", json!({ "uri": uri })), &[]).await.1
    };
    let (event, run) =
        (format!("doorbell://events/{}", receipt.delivery_id), format!("doorbell://runs/{}", receipt.runs[0]));
    for (uri, has) in [(&event, "\"body\":{"), (&run, "hello")] {
        let answer = read(&gateway.key, uri).await;
        let contents = &answer["result"]["contents"][0];
        assert_eq!((&contents["uri"], &contents["mimeType"]), (&json!(uri), &json!("application/json")));
        assert!(contents["text"].as_str().unwrap().contains(has), "{contents}");
    }
    let other = key(&gateway, "agent", Some("other")).await;
    for (key, uri) in [
        (&other, event.as_str()),
        (&other, &run),
        (&gateway.key, "doorbell://runs/"),
        (&gateway.key, "file:///etc/passwd"),
    ] {
        assert_eq!(read(key, uri).await["error"]["code"], -32002, "{uri}");
    }
    let (_, templates) = post(&gateway, &gateway.key, &message("resources/templates/list", json!({})), &[]).await;
    let uris: Vec<_> =
        templates["result"]["resourceTemplates"].as_array().unwrap().iter().map(|one| &one["uriTemplate"]).collect();
    assert_eq!(uris, ["doorbell://events/{id}", "doorbell://runs/{id}"]);
}

#[tokio::test]
async fn an_agent_makes_a_webhook_tries_it_changes_its_secret_and_takes_it_away() {
    let project = project("true");
    let gateway = project.serve();
    let own = key(&gateway, "agent", Some("triage")).await;
    let made =
        call_as(&gateway, &own, "webhooks_create", json!({ "agent": "triage", "name": "own", "provider": "github" }));
    let made = made.await["structuredContent"].clone();
    let (id, secret) = (made["webhookId"].clone(), made["signingSecret"].as_str().unwrap().to_owned());
    assert!(secret.len() >= 32 && made["createdBy"] == "agent", "{made}");
    let tested =
        call(&gateway, "webhooks_test", json!({ "agent": "triage", "id": id, "event": "issues.opened" })).await;
    assert_eq!((&tested["accepted"], tested["runs"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{tested}");
    let came = call(&gateway, "webhooks_deliveries", json!({ "agent": "triage", "id": id })).await;
    assert_eq!(came["deliveries"][0]["status"], "accepted", "{came}");
    let rotate = json!({ "agent": "triage", "id": id, "overlap": "0s" });
    let rotated = call(&gateway, "webhooks_rotate_secret", rotate).await;
    assert!(rotated["signingSecret"].as_str().is_some_and(|new| new != secret), "{rotated}");
    assert_eq!(call(&gateway, "webhooks_delete", json!({ "agent": "triage", "id": id })).await["active"], false);
    let list = call(&gateway, "webhooks_list", json!({ "agent": "triage" })).await;
    assert_eq!((&list["webhooks"][0]["webhookId"], &list["webhooks"][0]["active"]), (&id, &json!(false)));
    assert!(!list.to_string().contains("ecret"), "{list}");

    let viewer = key(&gateway, "viewer", None).await;
    let wish = json!({ "agent": "triage", "name": "more" });
    assert_eq!(refusal(&gateway, &viewer, "webhooks_create", wish).await.0, "not_allowed");
    let (code, said) = refusal(&gateway, &own, "webhooks_delete", json!({ "agent": "triage", "id": "whk_1" })).await;
    assert!(code == "not_found" && said.contains("webhooks_list"), "{said}");
}
