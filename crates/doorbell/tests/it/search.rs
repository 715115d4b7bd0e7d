//! Search, from outside: by the API, the command line and MCP.

use doorbell_client::{Error, EventQuery, api};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, issue, sample, sign, wait_until};

fn asking(question: &str) -> EventQuery {
    EventQuery { q: Some(question.to_owned()), ..EventQuery::default() }
}

async fn titles(gateway: &Gateway, query: &EventQuery) -> Vec<String> {
    let page = gateway.client.events(query).await.unwrap();
    page.events.iter().map(|event| event.context["title"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn an_event_is_found_by_what_it_says_as_soon_as_it_is_answered() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    gateway.ring(issue("Login bug: Größe is wrong")).await;
    gateway.ring(issue("Crash on start")).await;
    gateway.ring(sample("push")).await;
    let newest = gateway.client.events(&EventQuery::default()).await.unwrap().events.remove(0);
    for (question, wanted) in [
        ("login bug", &["Login bug: Größe is wrong"][..]),
        ("BUG grö", &["Login bug: Größe is wrong"]),
        ("\"on start\"", &["Crash on start"]),
        ("\"start on\"", &[]),
        ("issues.op crash", &["Crash on start"]),
        ("crash nonsense", &[]),
    ] {
        assert_eq!(titles(&gateway, &asking(question)).await, wanted, "{question}");
    }
    let found = gateway.client.events(&asking(newest.delivery_id.as_deref().unwrap())).await.unwrap();
    assert_eq!(found.events[0].id, newest.id, "by the provider's id of the delivery");
    let narrowed = EventQuery { event: Some("push".to_owned()), ..asking("acme") };
    assert!(gateway.client.events(&narrowed).await.unwrap().events.iter().all(|event| event.event == "push"));
}

#[tokio::test]
async fn a_body_is_looked_into_when_that_is_asked_for() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let body = json!({"hidden": "a needle \u{fc}ber all", "repository": {"full_name": "acme/app"}}).to_string();
    let hidden = gateway.ring(sign("push", body, &fresh_id())).await;
    assert!(gateway.client.events(&asking("needle")).await.unwrap().events.is_empty());
    let page = gateway.client.events(&EventQuery { bodies: Some(true), ..asking("needle über") }).await.unwrap();
    assert_eq!(page.events.iter().map(|event| &event.id).collect::<Vec<_>>(), [&hidden.delivery_id]);
    assert_eq!((page.next_cursor, page.searched_back_to), (None, None), "all was looked at");
    let shown = project.run(&["events", "--q", "needle", "--bodies"]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains(&hidden.delivery_id));
}

#[tokio::test]
async fn odd_questions_are_answered_and_long_ones_refused() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    gateway.ring(issue("Login")).await;
    for question in ["\"", "*", "login*", "a:b", "-login", "NOT login", "\0", "🚀", "(", "title MATCH 'x'", "", "%"] {
        gateway.client.events(&asking(question)).await.unwrap();
    }
    for question in ["x".repeat(201), "ü ".repeat(5000)] {
        match gateway.client.events(&asking(&question)).await.unwrap_err() {
            Error::Api(problem) => assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_request")),
            other => panic!("{other}"),
        }
    }
    let nothing = gateway.client.events(&EventQuery { bodies: Some(true), ..EventQuery::default() }).await;
    assert_eq!(nothing.unwrap_err().status(), Some(400));
}

#[tokio::test]
async fn who_is_confined_to_an_agent_finds_only_what_it_may_see() {
    let project = Project::new(ONE_SOURCE);
    for (agent, event) in [("triage", "issues"), ("deploy", "push")] {
        project.agent(agent, &format!("[[webhooks]]\nsource = \"acme\"\nevents = [\"{event}\"]"), "true");
    }
    let gateway = project.serve();
    gateway.ring(issue("Login bug")).await;
    gateway.ring(sample("push")).await;
    let key = project.json(&["keys", "create", "--name", "one", "--role", "agent", "--agent", "triage"]);
    let confined = doorbell_client::Client::new(&gateway.url, key["key"].as_str()).unwrap();
    let names = |page: api::EventPage| page.events.into_iter().map(|event| event.event).collect::<Vec<_>>();
    assert_eq!(names(gateway.client.events(&asking("github")).await.unwrap()), ["push", "issues"]);
    assert_eq!(names(confined.events(&asking("github")).await.unwrap()), ["issues"]);
    // (The body of the issue says `pushed_at`.)
    let asked = EventQuery { bodies: Some(true), ..asking("refs/heads/main") };
    assert_eq!(names(gateway.client.events(&asked).await.unwrap()), ["push"]);
    assert!(confined.events(&asked).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn a_tool_of_mcp_and_a_command_find_it_too() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let found = gateway.ring(issue("Login bug")).await;
    gateway.ring(issue("Crash")).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "events_list", "arguments": {"q": "login"}}});
    let asked = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{}/mcp", gateway.url))
        .bearer_auth(&gateway.key)
        .body(call.to_string());
    let asked =
        asked.header("content-type", "application/json").header("accept", "application/json, text/event-stream");
    let answer: Value = serde_json::from_str(&asked.send().await.unwrap().text().await.unwrap()).unwrap();
    let events = answer["result"]["structuredContent"]["events"].as_array().unwrap();
    assert_eq!(events.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>(), [&found.delivery_id]);
    for flag in ["--q", "--search"] {
        let listed = project.json(&["events", flag, "login bug"]);
        assert_eq!(listed["events"].as_array().unwrap().len(), 1);
        assert_eq!(listed["events"][0]["id"], found.delivery_id);
    }
}

/// More events than are left to be looked at themselves: the gateway indexes them, is killed, and goes on.
#[tokio::test]
async fn what_a_killed_gateway_had_indexed_or_not_is_found_by_the_next_one() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    gateway.ring(issue("the first needle")).await;
    for _ in 0..45 {
        let rung = (0..50).map(|n| gateway.ring(issue(&format!("hay {n}"))));
        futures_util::future::join_all(rung).await;
    }
    gateway.signal(Signal::SIGKILL);
    gateway.ended();
    let gateway = project.serve();
    assert_eq!(titles(&gateway, &asking("needle")).await, ["the first needle"]);
    gateway.ring(issue("the last needle")).await;
    wait_until("it to be found in both ways", async || {
        let found = titles(&gateway, &asking("needle")).await;
        assert_eq!(found, ["the last needle", "the first needle"], "at any time");
        let log = project.read("gateway.log");
        assert!(!log.contains("index.failed"), "{log}");
        indexed(&project).then_some(())
    })
    .await;
    let first = gateway.client.events(&asking("\"first needle\"")).await.unwrap().events.remove(0);
    gateway.client.forget_event(&first.id, false).await.unwrap();
    assert_eq!(titles(&gateway, &asking("needle")).await, ["the last needle"]);
}

/// Whether a group of events is in the index.
fn indexed(project: &Project) -> bool {
    let database = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    database.query_row("SELECT count(*) FROM search_groups", (), |row| row.get::<_, i64>(0)).unwrap() > 0
}
