//! Two accounts on one gateway: every operation of the document, every tool and every command that names something is tried with
//! every key of one of them on what is the other's. What is not one's own does not exist.

use std::collections::BTreeMap;

use doorbell_client::{Client, api};
use serde_json::{Value, json};

use crate::support::{Gateway, Project, fresh_id, sample, wait_for};

mod owners;

/// Where the table is kept.
const PAGE: &str = "docs/reference/outsiders.md";

/// Two accounts, each with a source, an agent that runs, a worker and all that comes of them; and what is the gateway's.
struct Two {
    project: Project,
    gateway: Gateway,
    /// By role, what `ours` shows.
    keys: Vec<(&'static str, String)>,
    /// What is theirs, by the word that stands for it.
    theirs: BTreeMap<&'static str, String>,
    ours: BTreeMap<&'static str, String>,
}

fn project() -> Project {
    let source =
        |name: &str| format!("[webhooks.{name}-hub]\ntype = \"github\"\ncredential = \"acme\"\naccount = \"{name}\"\n");
    let project = Project::new(&format!("{}{}", source("ours"), source("theirs")));
    for name in ["ours", "theirs"] {
        let root = project.root().display();
        let script = format!(
            "printf %s \"$DOORBELL_TOKEN\" > {root}/{name}.new && mv {root}/{name}.new {root}/{name}.token; \
             while [ ! -e {root}/end ]; do sleep 0.05; done"
        );
        let head = format!("account = \"{name}\"\n[[webhooks]]\nsource = \"{name}-hub\"\n");
        project.agent(&format!("{name}-agent"), &head, &script);
        let worker = format!("{head}\n[runtime]\ntype = \"worker\"\n");
        project.write(&format!("agents/{name}-worker/config.toml"), &worker);
    }
    project
}

async fn key(client: &Client, role: &str, agent: Option<&str>, account: Option<&str>) -> api::CreatedKey {
    let (agent, account) = (agent.map(str::to_owned), account.map(str::to_owned));
    let wish = api::NewKey { name: format!("{role} here"), role: role.to_owned(), agent, account, expires: None };
    client.create_key(&wish).await.unwrap()
}

/// Everything that an account has.
async fn settle(gateway: &Gateway, name: &'static str) -> (Client, BTreeMap<&'static str, String>) {
    let owner = key(&gateway.client, "owner", None, Some(name)).await;
    let client = Client::new(&gateway.url, Some(&owner.key)).unwrap();
    let (agent, worker) = (format!("{name}-agent"), format!("{name}-worker"));
    let path = format!("/v1/webhooks/github/{name}-hub");
    let doorbell_client::Answer::Receipt(receipt) = gateway.send(&path, sample("issues.opened")).await else {
        panic!("not accepted")
    };
    let runs = receipt.runs.iter();
    let mut of = BTreeMap::new();
    for id in runs {
        let run = client.run(id).await.unwrap().run;
        of.insert(if run.agent == worker { "worker-run" } else { "run" }, id.clone());
    }
    gateway.in_state(&of["run"], "running").await;
    let poll = api::Poll {
        agents: vec![worker.clone()],
        max: Some(1),
        wait_seconds: Some(0),
        worker: None,
        lease_seconds: Some(600),
    };
    let lease = client.poll(&poll).await.unwrap().runs.remove(0).lease.token;
    let hook: Value =
        post(gateway, &owner.key, &format!("/v1/agents/{agent}/webhooks"), json!({ "name": "hers" })).await;
    let declared = format!("{name}-declared");
    let definition = json!({ "runtime": { "type": "worker" }, "webhooks": [{ "source": format!("{name}-hub") }] });
    let (status, _) = send(gateway, &owner.key, "PUT", &format!("/v1/agents/{declared}"), Some(&definition)).await;
    assert_eq!(status, 201);
    let wish = json!({ "filter": { "source": format!("{name}-hub"), "until": "2001-01-01T00:00:00Z" } });
    let replay = post(gateway, &owner.key, "/v1/replays", wish).await;
    of.extend([
        ("owner", owner.key),
        ("key", owner.key_id),
        ("agent", agent),
        ("worker", worker),
        ("declared", declared),
        ("source", format!("{name}-hub")),
        ("event", receipt.delivery_id),
        ("lease", lease),
        ("webhook", hook["webhookId"].as_str().unwrap().to_owned()),
        ("replay", replay["id"].as_str().unwrap().to_owned()),
    ]);
    (client, of)
}

async fn two() -> Two {
    let project = project();
    let gateway = project.serve();
    let (_, ours) = settle(&gateway, "ours").await;
    let (_, theirs) = settle(&gateway, "theirs").await;
    let viewer = key(&gateway.client, "viewer", None, Some("ours")).await.key;
    let agent = key(&gateway.client, "agent", Some("ours-agent"), None).await.key;
    let token = wait_for("the run's token", || std::fs::read_to_string(project.path("ours.token")).ok());
    let keys = vec![("owner", ours["owner"].clone()), ("viewer", viewer), ("agent", agent), ("run", token)];
    Two { project, gateway, keys, theirs, ours }
}

async fn send(gateway: &Gateway, key: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.request(method.parse().unwrap(), format!("{}{path}", gateway.url)).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}

async fn post(gateway: &Gateway, key: &str, path: &str, body: Value) -> Value {
    let (status, answer) = send(gateway, key, "POST", path, Some(&body)).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

/// The words that stand for what a path names: by the group that it is in.
fn names_of(path: &str) -> Vec<&'static str> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if !path.contains('{') {
        return Vec::new();
    }
    match parts.as_slice() {
        ["v1", "agents", "{name}"] => vec!["declared"],
        ["v1" | "agents", ..] if path.contains("/webhooks/{id}") => vec!["agent", "webhook"],
        ["agents", "{name}", "executions", "{id}"] => vec!["agent", "run"],
        ["v1", "agents", ..] | ["agents", ..] => vec!["agent"],
        ["v1", "events", "{id}", ..] => vec!["event"],
        ["v1", "runs", "{id}", "steps", ..] => vec!["worker-run", "step"],
        ["v1", "runs", "{id}", "complete" | "fail" | "heartbeat" | "sleep" | "wait" | "ask"] => vec!["worker-run"],
        ["v1", "runs", "{id}", ..] => vec!["run"],
        ["v1", "replays", "{id}", ..] => vec!["replay"],
        ["v1", "sources", ..] => vec!["source"],
        ["v1", "keys", "{id}"] => vec!["key"],
        _ => Vec::new(),
    }
}

/// What is sent: fit to be taken, if it were one's own.
fn body_of(operation: &str, of: &BTreeMap<&'static str, String>) -> Option<Value> {
    let lease = &of["lease"];
    Some(match operation {
        "setOwnWebhook" => json!({ "webhookEnabled": true }),
        "amendAgent" => json!({ "scale": 2 }),
        "declareAgent" => json!({ "runtime": { "type": "worker" } }),
        "createWebhook" => json!({ "name": "mine" }),
        "answerRun" => json!({ "answer": "yes" }),
        "appendLog" => json!({ "lease": lease, "lines": ["x"] }),
        "endRun" | "completeRun" => json!({ "lease": lease, "result": 1 }),
        "failRun" => json!({ "lease": lease, "error": "x" }),
        "heartbeat" => json!({ "lease": lease }),
        "askRun" => json!({ "lease": lease, "question": "may I?" }),
        "sleepRun" => json!({ "lease": lease, "until": "2100-01-01T00:00:00Z" }),
        "waitRun" => json!({ "lease": lease, "event": "github.issues", "timeout": "1h" }),
        "putStep" => json!({ "done": true }),
        "pollRuns" => json!({ "agents": [of["worker"]], "waitSeconds": 0 }),
        "testTrigger" => json!({ "trigger": { "source": of["source"] } }),
        "createKey" => json!({ "name": "x", "role": "agent", "agent": of["agent"] }),
        "startReplay" => json!({ "filter": { "source": of["source"] }, "dryRun": true }),
        "cancelRuns" | "releaseRuns" | "retryRuns" => json!({ "agent": of["agent"], "dryRun": true }),
        "testNotifications" => json!({}),
        "copyStore" => json!({ "file": "/tmp/nowhere.part" }),
        _ => return None,
    })
}

fn fill(path: &str, of: &BTreeMap<&'static str, String>, ids: impl Fn(&str, &str) -> String) -> String {
    let mut filled = path.to_owned();
    for word in names_of(path) {
        let value = ids(word, of.get(word).map_or("first", String::as_str));
        let (from, to) = (filled.find('{').unwrap(), filled.find('}').unwrap());
        filled.replace_range(from..=to, &value);
    }
    assert!(!filled.contains('{'), "{path} names what this test does not know: {filled}");
    filled
}

/// Like what there is, and not there.
fn unknown(word: &str, known: &str) -> String {
    let id = |prefix: &str| format!("{prefix}_01KB0000000000000000000000");
    match word {
        "event" => id("evt"),
        "run" | "worker-run" => id("run"),
        "webhook" => id("whk"),
        "replay" => id("rpl"),
        "key" => id("key"),
        "step" => known.to_owned(),
        // Of its own each time: an owner may declare it.
        _ => format!("nobodys-{}", fresh_id().to_lowercase().replace("evt_", "")),
    }
}

/// Operations for those who have a key, without those that go on for ever.
async fn operations(gateway: &Gateway) -> Vec<(String, String, String)> {
    let document: Value = reqwest::get(format!("{}/openapi.json", gateway.url)).await.unwrap().json().await.unwrap();
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let with_key =
                operation["security"].as_array().is_some_and(|all| all.iter().any(|one| one.get("key").is_some()));
            let id = operation["operationId"].as_str().unwrap();
            if with_key && !["mcp", "streamActivity", "getMetrics"].contains(&id) {
                found.push((id.to_owned(), method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

/// Whether something of theirs is in an answer that was not in what it was asked.
fn tells(answer: &Value, theirs: &BTreeMap<&'static str, String>, asked: &str) -> Option<String> {
    let text = answer.to_string();
    let words = ["theirs".to_owned()];
    let mut words = theirs.values().chain(&words).filter(|word| !asked.contains(word.as_str()));
    words.find(|word| text.contains(word.as_str())).cloned()
}

#[tokio::test]
async fn what_is_another_accounts_does_not_exist_whatever_the_operation_the_tool_the_command_and_the_key() {
    let two = two().await;
    let mut table = String::from(HEAD);
    let mut wrong = Vec::new();
    let mut count = 0;
    for (operation, method, path) in operations(&two.gateway).await {
        let mut row = format!("| `{method} {path}` |");
        let names = names_of(&path);
        for (role, key) in &two.keys {
            let body = body_of(&operation, &two.theirs);
            let foreign = fill(&path, &two.theirs, |_, known| known.to_owned());
            let (status, answer) = send(&two.gateway, key, &method, &foreign, body.as_ref()).await;
            count += 1;
            if names.is_empty() {
                // What they were asked about by name may be said again, as the audit log does.
                let asked = body.as_ref().map(Value::to_string).unwrap_or_default();
                let told = tells(&answer, &two.theirs, &asked).filter(|_| !path.starts_with("/v1/audit"));
                if let Some(word) = told {
                    wrong.push(format!("{role}: {method} {path} tells of {word}: {answer}"));
                }
                // How many were found is as good as a name.
                if answer["matched"].as_u64().or(answer["events"].as_u64()).is_some_and(|found| found > 0) {
                    wrong.push(format!("{role}: {method} {path} finds some: {answer}"));
                }
                row += if status == 403 { " 403 |" } else { " own only |" };
                continue;
            }
            row += &format!(" {status} |");
            let absent = fill(&path, &two.theirs, unknown);
            let (other, unknown) = send(&two.gateway, key, &method, &absent, body.as_ref()).await;
            let declares = operation == "declareAgent" && *role == "owner";
            if !matches!(status, 403 | 404)
                || (status == 404 && !declares && (other, said(&unknown, &absent)) != (status, said(&answer, &foreign)))
            {
                wrong.push(format!("{role}: {method} {foreign}: {status} {answer}; an unknown one: {other} {unknown}"));
            }
            // A refusal of the role is the same whatever is named.
            if status == 403 && (other, &unknown) != (403, &answer) {
                wrong.push(format!(
                    "{role}: {method} {foreign} is {status} and an unknown one {other}: {answer} {unknown}"
                ));
            }
        }
        table += &row;
        table.push('\n');
    }
    assert!(wrong.is_empty(), "{count} tried, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 250, "{count}");
    table += &tools_and_commands(&two).await;
    nothing_of_theirs_changed(&two).await;
    crate::docs::check(PAGE, &table);
}

/// A refusal without what it was asked about.
fn said(answer: &Value, path: &str) -> String {
    path.split('/').filter(|part| part.len() > 8).fold(answer.to_string(), |text, part| text.replace(part, "…"))
}

async fn nothing_of_theirs_changed(two: &Two) {
    let (gateway, theirs) = (&two.gateway, &two.theirs);
    let client = Client::new(&gateway.url, Some(&theirs["owner"])).unwrap();
    assert_eq!(client.run(&theirs["run"]).await.unwrap().run.state, "running");
    assert_eq!(client.run(&theirs["worker-run"]).await.unwrap().run.state, "running");
    assert!(client.event(&theirs["event"]).await.unwrap().event.forgotten_at.is_none());
    let (status, hooks) =
        send(gateway, &theirs["owner"], "GET", &format!("/v1/agents/{}/webhooks", theirs["agent"]), None).await;
    assert_eq!(
        (status, hooks["webhooks"][0]["active"].clone(), hooks["webhooks"].as_array().unwrap().len()),
        (200, json!(true), 1)
    );
    let (_, agent) = send(gateway, &theirs["owner"], "GET", &format!("/v1/agents/{}", theirs["declared"]), None).await;
    assert_eq!((&agent["scale"], &agent["account"], &agent["pause"]), (&json!(1), &json!("theirs"), &Value::Null));
}

/// The same of the tools of MCP and of the commands, as further rows of the table.
async fn tools_and_commands(two: &Two) -> String {
    let (gateway, theirs) = (&two.gateway, &two.theirs);
    let mut table = String::new();
    let (agent, event, run, hook) = (&theirs["agent"], &theirs["event"], &theirs["run"], &theirs["webhook"]);
    let tools = [
        ("agents_get", json!({ "agent": agent })),
        ("agents_run", json!({ "agent": agent })),
        ("agents_pause", json!({ "agent": agent })),
        ("agents_resume", json!({ "agent": agent })),
        ("events_get", json!({ "id": event })),
        ("events_explain", json!({ "id": event })),
        ("events_replay", json!({ "id": event })),
        ("runs_get", json!({ "id": run })),
        ("runs_logs", json!({ "id": run })),
        ("runs_cancel", json!({ "id": run })),
        ("runs_retry", json!({ "id": run })),
        ("webhooks_create", json!({ "agent": agent, "name": "x" })),
        ("webhooks_list", json!({ "agent": agent })),
        ("webhooks_rotate_secret", json!({ "agent": agent, "id": hook })),
        ("webhooks_delete", json!({ "agent": agent, "id": hook })),
        ("webhooks_deliveries", json!({ "agent": agent, "id": hook })),
        ("webhooks_test", json!({ "agent": agent, "id": hook })),
    ];
    for (tool, arguments) in &tools {
        table += &format!("| `{tool}` |");
        for (role, key) in &two.keys {
            let answer = crate::mcp::call_as(gateway, key, tool, arguments.clone()).await;
            let text = answer["content"][0]["text"].as_str().unwrap_or_default().to_owned();
            let code = text.split(':').next().unwrap_or_default();
            assert!(answer["isError"] == true && code == "not_found", "{role} {tool}: {answer}");
            table += &format!(" {code} |");
        }
        table.push('\n');
    }
    let lists = ["agents_list", "events_list", "runs_list", "sources_list", "stats"];
    for list in lists {
        for (role, key) in &two.keys {
            let answer = crate::mcp::call_as(gateway, key, list, json!({})).await;
            assert_eq!(tells(&answer, theirs, ""), None, "{role} {list}: {answer}");
        }
        table += &format!("| `{list}` |{}\n", " own only |".repeat(two.keys.len()));
    }
    for (role, key) in &two.keys {
        let backtest = json!({ "trigger": { "source": theirs["source"] } });
        let answer = crate::mcp::call_as(gateway, key, "triggers_test", backtest).await;
        assert_eq!(answer["isError"], true, "{role}: {answer}");
        let listed = crate::mcp::ask(gateway, key, "tools/list", json!({})).await;
        for tool in listed["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()) {
            let tried = tools.iter().any(|(name, _)| *name == tool) || lists.contains(&tool) || tool == "triggers_test";
            assert!(tried, "{tool} is not tried here");
        }
        for (kind, id) in [("events", event), ("runs", run)] {
            let read = json!({ "uri": format!("doorbell://{kind}/{id}") });
            let answer = crate::mcp::ask(gateway, key, "resources/read", read).await;
            assert!(answer.is_null(), "{role} reads {kind}: {answer}");
        }
    }
    let commands: [&[&str]; 14] = [
        &["events", "show", event],
        &["why", event],
        &["events", "rm", event, "--yes"],
        &["replay", event],
        &["runs", "show", run],
        &["runs", "cancel", run],
        &["runs", "retry", run],
        &["logs", run],
        &["run", agent],
        &["pause", agent],
        &["webhooks", "list", agent],
        &["webhooks", "rotate", agent, hook],
        &["webhooks", "deliveries", agent, hook],
        &["keys", "rm", &theirs["key"]],
    ];
    for args in commands {
        let named: Vec<&str> =
            args.iter().map(|arg| if theirs.values().any(|one| one == arg) { "…" } else { arg }).collect();
        table += &format!("| `doorbell {}` |", named.join(" "));
        for (role, key) in &two.keys {
            let output = two.project.run(&[args, &["--url", &gateway.url, "--key", key]].concat());
            let code = output.status.code().unwrap();
            assert!(code == 3 || (code == 4 && args[0] == "keys" && *role != "owner"), "{role} {args:?}: {output:?}");
            table += &format!(" exit {code} |");
        }
        table.push('\n');
    }
    table
}

/// What a run's token may change or start of its own agent's (interface, section 4): all else is for keys.
const OF_RUNS: [&str; 17] = [
    "setOwnWebhook",
    "createWebhook",
    "deactivateWebhook",
    "activateWebhook",
    "rotateWebhook",
    "testWebhook",
    "endRun",
    "completeRun",
    "failRun",
    "heartbeat",
    "appendLog",
    "sleepRun",
    "waitRun",
    "askRun",
    "getStep",
    "putStep",
    "pollRuns",
];

#[tokio::test]
async fn a_runs_token_is_refused_whatever_is_not_in_its_scopes_also_of_its_own_agent() {
    let two = two().await;
    let token = &two.keys.iter().find(|(role, _)| *role == "run").unwrap().1;
    let reads = ["/v1/keys", "/v1/audit", "/v1/audit/export", "/v1/replays", "/v1/replays/{id}"];
    let mut tried = 0;
    for (operation, method, path) in operations(&two.gateway).await {
        let in_scope = if method == "GET" {
            !reads.contains(&path.as_str()) && !path.starts_with("/v1/sources/")
        } else {
            OF_RUNS.contains(&operation.as_str())
        };
        if in_scope {
            continue;
        }
        let body = body_of(&operation, &two.ours);
        let own = fill(&path, &two.ours, |_, known| known.to_owned());
        let (status, answer) = send(&two.gateway, token, &method, &own, body.as_ref()).await;
        assert!(matches!(status, 403 | 404), "{method} {path}: {status} {answer}");
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
    // A worker's run of another agent is none that it carries out, nor may it fetch any.
    let poll = json!({ "agents": [two.ours["worker"]], "waitSeconds": 0 });
    assert_eq!(send(&two.gateway, token, "POST", "/v1/worker/poll", Some(&poll)).await.0, 404);
    let run = Client::new(&two.gateway.url, Some(&two.ours["owner"])).unwrap().run(&two.ours["run"]).await.unwrap();
    assert_eq!(run.run.state, "running");
}

const HEAD: &str = "# Who is not let in

Generated by the test that tries it: two accounts on one gateway, and every operation that takes a key, every tool of MCP and the commands,
asked with each kind of key of one of them about what is the other's. `404`, `not_found`, `exit 3`: the same answer as for what there is
not. `403`, `exit 4`: this kind of key may not do it, whatever it names. *own only*: it names nothing, and answers or does what is the caller's own.

| operation | owner | viewer | agent | run |
|---|---|---|---|---|
";
