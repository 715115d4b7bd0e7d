//! Agents that are declared from code: what is taken, what is refused and why, who may, and what outlives what.

use std::net::TcpListener;

use doorbell_client::{Client, Error, api};
use serde_json::{Map, Value, json};

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_until};

fn project() -> Project {
    let project = Project::new(&format!("{ONE_SOURCE}[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n"));
    project.agent("filed", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    project
}

fn worker() -> Map<String, Value> {
    object(json!({
        "description": "Triages",
        "instructions": "Look at {{ event.context.title }}.",
        "webhooks": [{ "source": "acme", "events": ["issues"], "where": "event.context.number > 0", "whenBusy": "queue" }],
        "runtime": { "type": "worker" },
        "scale": 3,
        "timeout": "5m",
        "workQueueSize": 7,
        "retries": { "attempts": 2, "onLost": "fail" },
    }))
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The same with other keys.
fn with(mut definition: Map<String, Value>, keys: Value) -> Map<String, Value> {
    definition.extend(object(keys));
    definition
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> api::Problem {
    match answer {
        Err(Error::Api(problem)) => problem,
        other => panic!("it was not refused: {other:?}"),
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> (u16, String) {
    let problem = refused(answer);
    (problem.status, problem.code)
}

fn fields(problem: &api::Problem) -> Vec<&str> {
    problem.errors.iter().map(|error| error.field.as_str()).collect()
}

async fn declare(gateway: &Gateway, name: &str, definition: &Map<String, Value>) -> api::AgentDetail {
    gateway.client.declare_agent(name, definition, None).await.unwrap()
}

async fn client_with(gateway: &Gateway, role: &str, agent: Option<&str>) -> Client {
    let wish = api::NewKey {
        name: role.to_owned(),
        role: role.to_owned(),
        agent: agent.map(str::to_owned),
        expires: None,
        account: None,
    };
    Client::new(&gateway.url, Some(&gateway.client.create_key(&wish).await.unwrap().key)).unwrap()
}

async fn fetch(client: &Client, agent: &str) -> Vec<api::HandedRun> {
    let wish = api::Poll {
        agents: vec![agent.to_owned()],
        max: Some(8),
        wait_seconds: Some(0),
        worker: Some("host-1".to_owned()),
        lease_seconds: Some(60),
    };
    client.poll(&wish).await.unwrap().runs
}

async fn started(gateway: &Gateway) -> String {
    let receipt = gateway.ring(sample("issues.opened")).await;
    assert_eq!(receipt.runs.len(), 1, "{receipt:?}");
    receipt.runs[0].clone()
}

async fn set_in_force(gateway: &Gateway) -> i64 {
    let event = gateway.ring(sample("issues.opened")).await.delivery_id;
    gateway.client.explain(&event).await.unwrap().trigger_set
}

#[tokio::test]
async fn a_declared_worker_gets_its_runs_and_looks_like_any_other_agent() {
    let project = project();
    let gateway = project.serve();
    let detail = declare(&gateway, "triage", &worker()).await;
    assert_eq!((detail.agent.managed_by.as_str(), detail.agent.problem.as_deref()), ("api", None));
    assert_eq!((detail.agent.scale, detail.agent.timeout_seconds), (3, 300));
    let run = started(&gateway).await;
    let handed = fetch(&gateway.client, "triage").await.remove(0);
    assert_eq!(handed.run_id, run);
    let lease = Some(api::ShownLease::Token(handed.lease.token));
    gateway.client.end_run(&run, &api::RunEnd { lease, ..api::RunEnd::default() }).await.unwrap();
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
    let agents = gateway.client.agents().await.unwrap().agents;
    let managed: Vec<_> = agents.iter().map(|agent| (agent.name.as_str(), agent.managed_by.as_str())).collect();
    assert_eq!(managed, [("filed", "file"), ("triage", "api")]);
    let run = gateway.client.run(&run).await.unwrap().run;
    let explained = gateway.client.explain(&run.event_id).await.unwrap();
    assert!(explained.verdicts.iter().any(|verdict| verdict.agent == "triage" && verdict.matched), "{explained:?}");
    gateway.client.pause(Some("triage"), &api::NewPause::default()).await.unwrap();
    let waits = started(&gateway).await;
    gateway.in_state(&waits, "held").await;
    let stats = gateway.client.stats().await.unwrap();
    assert!(stats.agents.iter().any(|agent| agent.name == "triage" && agent.held == 1), "{stats:?}");
    assert!(gateway.client.agent("triage").await.unwrap().agent.pause.is_some());
}

#[tokio::test]
async fn the_command_line_declares_shows_and_removes() {
    let project = project();
    let _gateway = project.serve();
    project.write("agent.json", &Value::Object(worker()).to_string());
    let declared = project.json(&["agents", "declare", "triage", "--file", "agent.json"]);
    assert_eq!(declared["declaration"]["definition"]["workQueueSize"], 7);
    let text = |args: &[&str]| {
        let output = project.run(args);
        (
            output.status.code(),
            [output.stdout, output.stderr].concat().iter().map(|byte| *byte as char).collect::<String>(),
        )
    };
    let (_, shown) = text(&["agents", "show", "triage"]);
    assert!(shown.contains("Declared by") && shown.contains("\"workQueueSize\": 7"), "{shown}");
    let (_, shown) = text(&["agents", "show", "filed"]);
    assert!(shown.contains("agents/filed/"), "{shown}");
    assert!(text(&["agents"]).1.contains("triage"));
    project.write("bad.json", "{\"runtime\":{\"type\":\"worker\"},\"scale\":-1,\"timeuot\":\"5m\"}");
    let (exit, said) = text(&["agents", "declare", "triage", "--file", "bad.json"]);
    assert!(said.contains("scale: -1") && said.contains("did you mean `timeout`?"), "{said}");
    assert_eq!(exit, Some(1));
    project.write("bad.json", "[]");
    assert_eq!(text(&["agents", "declare", "triage", "--file", "bad.json"]).0, Some(2));
    assert_eq!(text(&["agents", "rm", "triage"]).0, Some(0));
    assert_eq!(text(&["agents", "rm", "triage"]).0, Some(3));
    assert_eq!(text(&["agents", "show", "triage"]).0, Some(3));
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once_by_its_field() {
    let project = project();
    let gateway = project.serve();
    let definition = object(json!({
        "colour": "red",
        "instructions": "{{ unclosed",
        "workQueueSise": 1,
        "scale": "two",
        "webhooks": [
            { "source": "acmee", "events": ["issues"] },
            { "source": "acme", "event": ["issues"], "where": "event.", "throttle": "often" },
            { "events": ["issues"] },
            { "provider": "githup" },
        ],
        "schedules": [{ "cron": "soon" }],
        "retries": { "attempts": 0 },
        "runtime": { "type": "command", "command": ["true"] },
        "params": { "a": [null] },
    }));
    let problem = refused(gateway.client.declare_agent("triage", &definition, None).await);
    assert_eq!((problem.status, problem.code.as_str()), (422, "invalid_agent"));
    let mut found = fields(&problem);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "colour",
            "instructions",
            "params.a[0]",
            "retries.attempts",
            "runtime.type",
            "scale",
            "schedules[0].cron",
            "webhooks[0].source",
            "webhooks[1].event",
            "webhooks[1].throttle",
            "webhooks[1].where",
            "webhooks[2]",
            "webhooks[3].provider",
            "workQueueSise",
        ]
    );
    let help = |field: &str| {
        problem.errors.iter().find(|error| error.field == field).unwrap().help.clone().unwrap_or_default()
    };
    assert_eq!(help("workQueueSise"), "did you mean `workQueueSize`?");
    assert_eq!(help("webhooks[0].source"), "did you mean `acme`?");
    assert_eq!(help("webhooks[1].event"), "did you mean `events`?");
    assert_eq!(help("webhooks[3].provider"), "did you mean `github`?");
    for (definition, field) in [
        (json!({}), "runtime"),
        (json!({"runtime": {}}), "runtime"),
        (json!({"runtime": "worker"}), "runtime"),
        (json!({"runtime": {"type": "worker", "command": ["true"]}}), "runtime.command"),
        (json!({"runtime": {"preset": "claude"}}), "runtime.preset"),
        (json!({"runtime": {"type": "worker"}, "name": "x"}), "name"),
        (json!({"runtime": {"type": "worker"}, "scale": 1, "whenFull": "grow", "when_full": "grow"}), "when_full"),
        (json!({"runtime": {"type": "worker"}, "description": "x".repeat(300_000)}), ""),
    ] {
        let problem = refused(gateway.client.declare_agent("triage", &object(definition.clone()), None).await);
        assert!(problem.status == 422 && fields(&problem).contains(&field), "{field}: {problem:?}");
    }
    let bare = object(json!({"runtime": {"type": "worker"}}));
    assert_eq!(code(gateway.client.declare_agent("No Name", &bare, None).await).0, 422);
    assert_eq!(code(gateway.client.declare_agent("filed", &bare, None).await), (409, "managed_by_file".to_owned()));
    assert_eq!(code(gateway.client.amend_agent("filed", &bare, None).await), (409, "managed_by_file".to_owned()));
    assert_eq!(code(gateway.client.remove_agent("filed", None).await), (409, "managed_by_file".to_owned()));
    assert_eq!(code(gateway.client.amend_agent("nobody", &bare, None).await).0, 404);
    assert_eq!(code(gateway.client.remove_agent("nobody", None).await).0, 404);
    assert_eq!(code(gateway.client.agent("nobody").await).0, 404);
    assert_eq!(gateway.client.agents().await.unwrap().agents.len(), 1);
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_an_etag_keeps_from_changing_what_was_not_seen() {
    let project = project();
    let gateway = project.serve();
    let url = format!("{}/v1/agents/triage", gateway.url);
    let put = async |definition: &Map<String, Value>| {
        let request = reqwest::Client::new().put(&url).bearer_auth(&gateway.key).json(definition);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned()))
    };
    let (status, etag) = put(&worker()).await;
    assert_eq!(status, 201);
    let before = (set_in_force(&gateway).await, gateway.client.stats().await.unwrap().config.unwrap().generation);
    assert_eq!(put(&worker()).await, (200, etag.clone()));
    assert_eq!(put(&with(worker(), json!({"params": null}))).await, (200, etag.clone()));
    let after = (set_in_force(&gateway).await, gateway.client.stats().await.unwrap().config.unwrap().generation);
    assert_eq!(before, after);
    let shown = gateway.client.agent("triage").await.unwrap().declaration.unwrap();
    let etag = etag.unwrap();
    assert_eq!((&shown.etag, &shown.definition), (&etag, &worker()));
    let changes = object(json!({"scale": 5, "description": null, "retries": {"attempts": 3}}));
    let amended = gateway.client.amend_agent("triage", &changes, Some(&etag)).await.unwrap();
    let definition = amended.declaration.unwrap().definition;
    assert_eq!((amended.agent.scale, amended.agent.description), (5, None));
    assert_eq!(definition["retries"], json!({"attempts": 3, "onLost": "fail"}));
    let stale = (412, "precondition_failed".to_owned());
    assert_eq!(code(gateway.client.declare_agent("triage", &worker(), Some(&etag)).await), stale);
    assert_eq!(code(gateway.client.amend_agent("triage", &changes, Some("nonsense")).await), stale);
    assert_eq!(code(gateway.client.remove_agent("triage", Some(&etag)).await), stale);
    assert_eq!(code(gateway.client.declare_agent("other", &worker(), Some("*")).await), stale);
    assert_eq!(set_in_force(&gateway).await, before.0, "no trigger changed");
    gateway.client.remove_agent("triage", Some("*")).await.unwrap();
    assert_eq!(put(&worker()).await, (201, Some(etag)));
    assert_eq!(set_in_force(&gateway).await, before.0, "the set is one that there was");
}

#[tokio::test]
async fn who_wants_to_declare_only_what_is_not_there_changes_nothing_that_is() {
    let project = project();
    let gateway = project.serve();
    let put = async |wanted: &str, definition: &Map<String, Value>| {
        let request = reqwest::Client::new().put(format!("{}/v1/agents/triage", gateway.url)).bearer_auth(&gateway.key);
        let answer = request.header("if-none-match", wanted).json(definition).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].clone())
    };
    assert_eq!(put("*", &worker()).await, (201, Value::Null));
    let other = with(worker(), json!({"scale": 7}));
    assert_eq!(put("*", &other).await, (412, json!("precondition_failed")));
    let shown = gateway.client.agent("triage").await.unwrap().declaration.unwrap();
    assert_eq!(shown.definition, worker());
    assert_eq!(put(&shown.etag, &other).await, (412, json!("precondition_failed")));
    assert_eq!(put("\"another\"", &other).await, (200, Value::Null));
}

#[tokio::test]
async fn a_body_that_is_huge_or_no_object_is_refused() {
    let project = project();
    let gateway = project.serve();
    let put = async |body: Vec<u8>| {
        let request = reqwest::Client::new().put(format!("{}/v1/agents/triage", gateway.url)).bearer_auth(&gateway.key);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        answer.json::<api::Problem>().await.unwrap()
    };
    let problem = put(format!("{{\"description\":\"{}\"}}", "x".repeat(3 << 20)).into_bytes()).await;
    assert_eq!((problem.status, problem.code.as_str()), (413, "body_too_large"));
    for body in ["[]", "\"x\"", "{", "", "{\"a\":\"\u{0}\"}"] {
        assert_eq!(put(body.as_bytes().to_vec()).await.status, 400, "{body:?}");
    }
    assert_eq!(put(format!("{{\"params\":{}", "{\"a\":".repeat(100_000)).into_bytes()).await.status, 400);
    let many: Vec<Value> = (0..10_000).map(|_| json!({})).collect();
    let problem = refused(
        gateway
            .client
            .declare_agent("triage", &object(json!({"webhooks": many, "runtime": {"type": "worker"}})), None)
            .await,
    );
    assert!(problem.status == 422 && problem.errors.len() <= 50, "{}", problem.errors.len());
}

#[tokio::test]
async fn a_declared_agent_outlives_a_kill_and_reloads() {
    let project = project();
    let gateway = project.serve();
    declare(&gateway, "triage", &worker()).await;
    let waits = started(&gateway).await;
    gateway.kill();
    let gateway = project.serve();
    let shown = gateway.client.agent("triage").await.unwrap();
    assert_eq!(shown.declaration.unwrap().definition, worker());
    assert_eq!(fetch(&gateway.client, "triage").await[0].run_id, waits);
    project.agent("another", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    wait_until("the reload", async || gateway.client.agent("another").await.ok()).await;
    started(&gateway).await;
    project.write("config.toml", "nonsense");
    let error = async || gateway.client.stats().await.unwrap().config.unwrap().error;
    wait_until("the refusal", error).await;
    declare(&gateway, "triage", &with(worker(), json!({"scale": 9}))).await;
    assert!(error().await.is_some(), "what is saved is as wrong as before");
    started(&gateway).await;
}

#[tokio::test]
async fn an_agent_whose_source_is_gone_waits_until_it_is_back_and_says_so() {
    let project = project();
    let config = project.read("config.toml");
    let gateway = project.serve();
    declare(&gateway, "triage", &worker()).await;
    let waits = started(&gateway).await;
    project.write(
        "agents/filed/config.toml",
        "schedule = \"0 0 1 1 *\"\n[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n",
    );
    project.write("config.toml", &config.replace("webhooks.acme", "webhooks.renamed"));
    let agent = wait_until("its problem", async || {
        let agents = gateway.client.agents().await.unwrap().agents;
        agents.into_iter().find(|agent| agent.name == "triage" && agent.problem.is_some())
    });
    let problem = agent.await.problem.unwrap();
    assert!(problem.starts_with("webhooks[0].source: no source \"acme\""), "{problem}");
    let held = gateway.in_state(&waits, "held").await.run;
    assert_eq!(held.reason.as_deref(), Some("its agent was removed from the configuration"));
    project.log_with("the declared agent triage is out of force");
    let wish = api::Poll { agents: vec!["triage".to_owned()], ..api::Poll::default() };
    assert_eq!(code(gateway.client.poll(&wish).await), (409, "agent_out_of_force".to_owned()));
    let said = String::from_utf8(project.run(&["agents"]).stderr).unwrap();
    assert!(said.contains("triage: what was declared is not in force"), "{said}");
    gateway.kill();
    let gateway = project.serve();
    assert!(gateway.client.agent("triage").await.unwrap().agent.problem.is_some());
    project.write("config.toml", &config);
    gateway.in_state(&waits, "queued").await;
    assert_eq!(fetch(&gateway.client, "triage").await[0].run_id, waits);
}

#[tokio::test]
async fn a_file_that_takes_the_name_is_in_force_until_it_is_gone() {
    let project = project();
    let gateway = project.serve();
    declare(&gateway, "triage", &worker()).await;
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]", "echo from the file");
    wait_until("the reload", async || {
        (gateway.client.agent("triage").await.unwrap().agent.managed_by == "file").then_some(())
    })
    .await;
    let run = started(&gateway).await;
    gateway.finished(&run).await;
    assert_eq!(gateway.stdout(&run).await, "from the file");
    assert_eq!(
        code(gateway.client.declare_agent("triage", &worker(), None).await),
        (409, "managed_by_file".to_owned())
    );
    assert!(gateway.client.agent("triage").await.unwrap().agent.problem.is_some());
    std::fs::remove_dir_all(project.path("agents/triage")).unwrap();
    wait_until("the declaration", async || {
        (gateway.client.agent("triage").await.unwrap().agent.managed_by == "api").then_some(())
    })
    .await;
    let run = started(&gateway).await;
    assert_eq!(fetch(&gateway.client, "triage").await[0].run_id, run);
}

#[tokio::test]
async fn what_waits_for_a_removed_declaration_is_held_until_it_is_declared_again() {
    let project = project();
    let gateway = project.serve();
    declare(&gateway, "triage", &worker()).await;
    let waits = started(&gateway).await;
    gateway.client.remove_agent("triage", None).await.unwrap();
    gateway.in_state(&waits, "held").await;
    assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty());
    declare(&gateway, "triage", &worker()).await;
    gateway.in_state(&waits, "queued").await;
    assert_eq!(fetch(&gateway.client, "triage").await[0].run_id, waits);
}

#[tokio::test]
async fn a_trigger_may_name_a_provider_and_hears_all_its_sources() {
    let project = project();
    project.write(
        "config.toml",
        &format!("{}[webhooks.second]\ntype = \"github\"\ncredential = \"acme\"\n", project.read("config.toml")),
    );
    let gateway = project.serve();
    for trigger in
        [json!({"provider": "github", "events": ["issues"]}), json!({"source": "github", "events": ["issues"]})]
    {
        let definition = object(json!({"webhooks": [trigger], "runtime": {"type": "worker"}}));
        let detail = declare(&gateway, "triage", &definition).await;
        assert_eq!(detail.agent.sources, ["acme", "second"]);
        for source in ["acme", "second"] {
            let sent = gateway.send(&format!("/v1/webhooks/github/{source}"), sample("issues.opened")).await;
            let doorbell_client::Answer::Receipt(receipt) = sent else { panic!("{sent:?}") };
            assert_eq!(receipt.runs.len(), 1, "{source}");
        }
    }
    let both = object(json!({"webhooks": [{"provider": "github", "source": "acme"}], "runtime": {"type": "worker"}}));
    assert_eq!(fields(&refused(gateway.client.declare_agent("triage", &both, None).await)), ["webhooks[0].provider"]);
}

#[tokio::test]
async fn the_clock_starts_a_declared_agent() {
    let project = project();
    let gateway = project.serve();
    let definition = object(json!({"schedule": "* * * * * *", "runtime": {"type": "worker"}}));
    declare(&gateway, "ticks", &definition).await;
    let run = wait_until("a tick", async || fetch(&gateway.client, "ticks").await.into_iter().next()).await;
    assert_eq!(run.envelope["event_type"], "schedule.tick");
}

#[tokio::test]
async fn a_key_of_an_agent_tunes_its_own_and_widens_nothing() {
    let project = project();
    let gateway = project.serve();
    declare(&gateway, "triage", &worker()).await;
    let own = client_with(&gateway, "agent", Some("triage")).await;
    let viewer = client_with(&gateway, "viewer", None).await;
    let not_allowed = (403, "not_allowed".to_owned());
    assert_eq!(own.declare_agent("triage", &with(worker(), json!({"scale": 4})), None).await.unwrap().agent.scale, 4);
    own.amend_agent("triage", &object(json!({"schedule": "0 9 * * *"})), None).await.unwrap();
    for wider in [
        json!({"webhooks": [{"source": "acme"}]}),
        json!({"webhooks": [{"source": "lab"}]}),
        json!({"webhooks": null}),
        json!({"mayCall": ["filed"]}),
        json!({"may_call": ["filed"]}),
        json!({"runtime": {"type": "http", "url": "https://example.com", "credential": "x"}}),
    ] {
        assert_eq!(code(own.amend_agent("triage", &object(wider.clone()), None).await), not_allowed, "{wider}");
    }
    assert_eq!(code(own.remove_agent("triage", None).await), not_allowed);
    assert_eq!(code(own.declare_agent("other", &worker(), None).await), (404, "not_found".to_owned()));
    assert_eq!(code(own.agent("filed").await), (404, "not_found".to_owned()));
    assert_eq!(code(own.declare_agent("filed", &worker(), None).await), (404, "not_found".to_owned()));
    assert_eq!(code(viewer.declare_agent("triage", &worker(), None).await), not_allowed);
    assert_eq!(code(viewer.remove_agent("triage", None).await), not_allowed);
    assert!(viewer.agent("triage").await.is_ok());
    let shown = own.agent("triage").await.unwrap().declaration.unwrap();
    assert_eq!((shown.created_by.as_str(), shown.updated_by.as_str()), ("local", "agent triage"));
    gateway.client.remove_agent("triage", None).await.unwrap();
    assert_eq!(code(own.declare_agent("triage", &worker(), None).await), not_allowed, "what it heard of is gone");
    own.declare_agent("triage", &object(json!({"runtime": {"type": "worker"}})), None).await.unwrap();
}

#[tokio::test]
async fn of_many_who_declare_at_once_all_are_kept_and_of_those_with_one_etag_one_wins() {
    let project = project();
    let gateway = project.serve();
    let puts = (0..16).map(|n| {
        let (client, definition) = (gateway.client.clone(), worker());
        tokio::spawn(async move { client.declare_agent(&format!("agent-{n}"), &definition, None).await.unwrap() })
    });
    futures_util::future::join_all(puts).await.into_iter().for_each(|put| drop(put.unwrap()));
    assert_eq!(gateway.client.agents().await.unwrap().agents.len(), 17);
    let etag = gateway.client.agent("agent-0").await.unwrap().declaration.unwrap().etag;
    let puts = (0..8).map(|n| {
        let (client, etag) = (gateway.client.clone(), etag.clone());
        let definition = with(worker(), json!({"scale": 10 + n}));
        tokio::spawn(async move { client.declare_agent("agent-0", &definition, Some(&etag)).await.is_ok() })
    });
    let won = futures_util::future::join_all(puts).await.into_iter().filter(|put| *put.as_ref().unwrap()).count();
    assert_eq!(won, 1);
    gateway.kill();
    let gateway = project.serve();
    assert_eq!(gateway.client.agents().await.unwrap().agents.len(), 17);
}

#[tokio::test]
async fn a_url_that_was_declared_reaches_nothing_of_this_machine_or_its_network() {
    let project = project();
    project.credential("http_agent_secret", "acme", "a secret").credential("github_token", "acme", "another");
    let gateway = project.serve();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = |url: &str| {
        object(json!({
            "webhooks": [{ "source": "acme", "events": ["issues"] }],
            "runtime": { "type": "http", "url": url, "credential": "acme" },
        }))
    };
    for url in [
        &format!("http://127.0.0.1:{port}/secret-path"),
        "http://127.1/",
        "http://2130706433/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "https://example.com:25/",
        "https://me:secret-path@example.com/",
        "ftp://example.com/",
        "not a url",
    ] {
        let problem = refused(gateway.client.declare_agent("remote", &to(url), None).await);
        assert_eq!(fields(&problem), ["runtime.url"], "{url}");
        assert!(!format!("{problem:?}").contains("secret-path"), "{problem:?}");
    }
    declare(&gateway, "remote", &to(&format!("http://localhost:{port}/secret-path"))).await;
    let run = gateway.finished(&started(&gateway).await).await;
    assert_eq!((run.run.state.as_str(), run.attempts.len()), ("failed", 1), "no other try is of use");
    let reason = run.run.reason.unwrap();
    assert!(reason.contains("no address of the public internet"), "{reason}");
    assert!(listener.accept().is_err(), "nothing was connected");
    let viewer = client_with(&gateway, "viewer", None).await.agent("remote").await.unwrap().declaration.unwrap();
    assert_eq!(viewer.definition["runtime"]["url"], format!("http://localhost:{port}"));
    assert_eq!(gateway.terminate(), Some(0));
    let said = [project.read("gateway.log"), reason].concat();
    assert!(!said.contains("secret-path"), "{said}");
}

#[tokio::test]
async fn a_declaration_holds_no_secret_and_sends_none_that_is_not_for_agents() {
    let project = project();
    project.credential("http_agent_secret", "acme", "a secret").credential("agent_token", "acme", "for agents");
    let gateway = project.serve();
    let to = |keys: Value| {
        let runtime = with(object(json!({"type": "http", "url": "https://example.com/", "credential": "acme"})), keys);
        object(json!({ "runtime": runtime }))
    };
    let headers = json!({"headers": {"X-Team": "platform", "Authorization": {"credential": "agent_token:acme", "prefix": "Bearer "}}});
    declare(&gateway, "remote", &to(headers)).await;
    for (keys, field) in [
        (json!({"credential": "github_webhook_secret:acme"}), "runtime.credential"),
        (json!({"headers": {"X-Api-Key": "hunter2"}}), "runtime.headers.X-Api-Key"),
        (json!({"headers": {"X": {"credential": "github_webhook_secret:acme"}}}), "runtime.headers.X.credential"),
        (json!({"credential": "nobody"}), "runtime.credential"),
        (json!({"clientCertificate": "nobody"}), "runtime.clientCertificate"),
    ] {
        let problem = refused(gateway.client.declare_agent("remote", &to(keys), None).await);
        assert!(fields(&problem).contains(&field), "{field}: {problem:?}");
        assert!(!format!("{problem:?}").contains("hunter2"));
    }
}
