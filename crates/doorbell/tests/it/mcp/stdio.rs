//! `doorbell mcp`: the same server, for clients that start a program.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::{ANY, NEWEST, code_of, message, project};
use crate::support::{ONE_SOURCE, PROGRAM, Project, sample};

/// A client of `doorbell mcp`.
struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        input.write_all(b"\n").unwrap();
    }

    /// The next line, which must be a message.
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let heard: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_eq!(heard["jsonrpc"], "2.0", "{line}");
        heard
    }

    fn ask(&mut self, message: &Value) -> Value {
        self.say(&message.to_string());
        self.hear()
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask(&message("tools/call", json!({ "name": tool, "arguments": arguments })))["result"].clone()
    }

    /// Ends it as clients do; whatever else it printed.
    fn end(mut self) -> Vec<String> {
        drop(self.input.take());
        let rest = self.output.by_ref().lines().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_client_speaks_with_the_gateway_and_nothing_but_messages_is_printed() {
    let project = project("echo hello");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let mut talk = Talk::start(project.doorbell(&["mcp"]));
    let hello =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    assert_eq!(talk.ask(&message("initialize", hello))["result"]["protocolVersion"], "2025-06-18");
    talk.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    talk.say("");
    let seen = talk.call("events_get", json!({ "id": receipt.delivery_id }));
    assert_eq!(seen["structuredContent"]["id"], receipt.delivery_id);
    assert_eq!(seen.get("resultType"), None, "it says which version was agreed on");
    assert_eq!(code_of(&talk.call("events_get", json!({ "id": "evt_x" }))), "not_found");
    let uri = format!("doorbell://runs/{}", receipt.runs[0]);
    assert!(talk.ask(&message("resources/read", json!({ "uri": uri })))["result"]["contents"].is_array());
    assert_eq!(talk.ask(&message("tools/burn", json!({})))["error"]["code"], -32601);
    assert_eq!(talk.end(), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_of_the_newest_version_is_understood() {
    let project = project("echo hello");
    let _gateway = project.serve();
    let mut talk = Talk::start(project.doorbell(&["mcp"]));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let found = talk.ask(&message("server/discover", json!({ "_meta": meta })));
    assert!(found["result"]["supportedVersions"].as_array().unwrap().contains(&json!(NEWEST)), "{found}");
    let answer = talk.ask(&message("tools/call", json!({ "_meta": meta, "name": "stats" })));
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    let odd = talk.ask(&message("tools/call", json!({ "_meta": meta, "name": "ünknown\n" })));
    assert_eq!(odd["error"]["code"], -32602, "{odd}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_the_talk_goes_on() {
    let project = project("true");
    let _gateway = project.serve();
    let mut talk = Talk::start(project.doorbell(&["mcp"]));
    talk.say("{");
    assert_eq!(talk.hear()["error"]["code"], -32700);
    talk.say("[]");
    assert_eq!(talk.hear()["error"]["code"], -32600);
    talk.say(&"x".repeat(5 << 20));
    assert_eq!(talk.hear()["error"]["data"]["code"], "too_large");
    let large = talk.ask(&message(
        "tools/call",
        json!({ "name": "agents_run", "arguments": { "agent": "triage", "prompt": "x".repeat(1_500_000) } }),
    ));
    assert_eq!(code_of(&large["result"]), "invalid_request");
    assert_eq!(talk.call("stats", json!({}))["isError"], false);
    for id in 0..40 {
        talk.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }).to_string());
    }
    let mut heard: Vec<i64> = (0..40).map(|_| talk.hear()["id"].as_i64().unwrap()).collect();
    heard.sort_unstable();
    assert_eq!(heard, (0..40).collect::<Vec<_>>(), "each is answered, in whichever order");
}

#[tokio::test]
async fn a_gateway_that_is_started_later_or_again_is_found() {
    let project = project("true");
    let mut talk = Talk::start(project.doorbell(&["mcp"]));
    let nobody = talk.ask(&message("ping", json!({})));
    assert_eq!(nobody["error"]["data"]["code"], "unreachable");
    assert!(nobody["error"]["message"].as_str().unwrap().contains("doorbell serve"), "{nobody}");
    for _ in 0..2 {
        let gateway = project.serve();
        assert_eq!(talk.call("stats", json!({}))["isError"], false);
        gateway.kill();
    }
    assert_eq!(talk.ask(&message("ping", json!({})))["error"]["data"]["code"], "unreachable");
}

#[tokio::test]
async fn a_key_that_is_none_is_said() {
    let project = project("true");
    let gateway = project.serve();
    let mut command = project.doorbell(&["mcp", "--url", &gateway.url]);
    command.env("DOORBELL_TOKEN", "dbk_wrong");
    let refused = Talk::start(command).ask(&message("tools/list", json!({})));
    assert_eq!(refused["error"]["data"]["code"], "key_invalid", "{refused}");
    assert!(!refused.to_string().contains("dbk_wrong"));
    let nowhere = Command::new(PROGRAM)
        .args(["mcp"])
        .current_dir("/")
        .env_remove("DOORBELL_URL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!((nowhere.status.code(), nowhere.stdout.len()), (Some(2), 0), "{nowhere:?}");
}

/// What an agent may with its run's token, and what not.
#[tokio::test]
async fn a_run_finds_it_ready_and_may_what_its_token_may() {
    let project = Project::new(ONE_SOURCE);
    let ask = |tool: &str, arguments: &str| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":\"{tool}\",\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\"arguments\":{arguments}}}}}"
        )
    };
    let asked = [
        ask("events_list", "{}"),
        ask("runs_list", "{}"),
        ask("runs_get", "{\"id\":\"'$DOORBELL_RUN_ID'\"}"),
        ask("agents_list", "{}"),
        ask("stats", "{}"),
        ask("runs_cancel", "{\"id\":\"'$DOORBELL_RUN_ID'\"}"),
        ask("agents_pause", "{\"agent\":\"triage\"}"),
        ask("triggers_test", "{\"trigger\":{\"source\":\"acme\"}}"),
        ask("agents_run", "{\"agent\":\"helper\",\"prompt\":\"help\"}"),
    ];
    let script = format!("printf '%s\\n' '{}' | '{PROGRAM}' mcp", asked.join("' '"));
    project.agent("triage", &format!("may_call = [\"helper\"]\n{ANY}"), &script);
    project.agent("helper", "schedule = \"0 0 1 1 *\"\n", "true");
    project.agent("other", ANY, "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let runs = gateway.runs().await;
    let run = &runs.iter().find(|run| run.agent == "triage").unwrap().id;
    assert_eq!(gateway.finished(run).await.run.state, "succeeded", "{}", gateway.lines(run, "stderr").await);
    let said = gateway.stdout(run).await;
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), asked.len(), "{said}");
    let result = |tool: &str| answers.iter().find(|answer| answer["id"] == tool).unwrap()["result"].clone();
    let of = |tool: &str| result(tool)["structuredContent"].clone();
    assert_eq!(of("events_list")["events"][0]["id"], receipt.delivery_id);
    assert_eq!(of("events_list")["events"][0]["outcomes"].as_array().unwrap().len(), 1, "its own only");
    assert_eq!(of("runs_list")["runs"].as_array().unwrap().iter().filter(|run| run["agent"] != "triage").count(), 0);
    assert_eq!(of("runs_get")["state"], "running");
    assert_eq!(of("agents_list")["agents"].as_array().unwrap().len(), 1);
    assert_eq!(of("stats")["events"], Value::Null);
    for tool in ["runs_cancel", "agents_pause", "triggers_test"] {
        assert_eq!(code_of(&result(tool)), "not_allowed", "{tool}");
    }
    let helped = of("agents_run")["runId"].as_str().unwrap().to_owned();
    assert_eq!(gateway.finished(&helped).await.run.agent, "helper");
}

#[tokio::test]
async fn a_stream_goes_on_beside_other_requests_until_it_is_cancelled() {
    let project = project("true");
    let gateway = project.serve();
    let mut talk = Talk::start(project.doorbell(&["mcp"]));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let asked = |id: &str, method: &str, mut params: Value| {
        params["_meta"] = meta.clone();
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    };
    let wish = json!({ "name": "acme", "cursor": null });
    assert_eq!(talk.ask(&asked("s", "events/stream", wish))["method"], "notifications/events/active");
    let polled = talk.ask(&asked("p", "events/poll", json!({ "name": "acme", "cursor": null })));
    assert_eq!((&polled["id"], &polled["result"]["events"]), (&json!("p"), &json!([])));
    let receipt = gateway.ring(sample("issues.opened")).await;
    let heard = talk.hear();
    assert_eq!(heard["params"]["eventId"], json!(receipt.delivery_id), "{heard}");
    talk.say(
        &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "s" } }).to_string(),
    );
    talk.ask(&asked("l", "events/list", json!({})));
    gateway.ring(sample("issues.opened")).await;
    assert_eq!(talk.ask(&asked("e", "events/list", json!({})))["id"], "e", "nothing comes between");
    let unknown = talk.ask(&asked("u", "events/stream", json!({ "name": "nobody", "cursor": null })));
    assert_eq!((&unknown["id"], &unknown["error"]["code"]), (&json!("u"), &json!(-32011)));
    assert_eq!(talk.end(), Vec::<String>::new());
}
