//! The management API: who may see what, pages, streams.

use doorbell_client::{Client, Error, EventQuery, RunQuery, api};
use futures_util::StreamExt;

use crate::support::{Gateway, ONE_SOURCE, PATIENCE, Project, sample, sample_as, wait_until};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("one", ANY, "echo from one");
    project.agent("two", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "echo from two");
    project
}

async fn client_with(gateway: &Gateway, role: &str, agent: Option<&str>) -> Client {
    let wish = api::NewKey {
        name: role.to_owned(),
        role: role.to_owned(),
        agent: agent.map(str::to_owned),
        expires: None,
        account: None,
    };
    let created = gateway.client.create_key(&wish).await.unwrap();
    assert!(created.key.starts_with("dbk_") && created.key_id.starts_with("key_"));
    Client::new(&gateway.url, Some(&created.key)).unwrap()
}

fn problem(error: Error) -> (u16, String) {
    match error {
        Error::Api(problem) => (problem.status, problem.code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn nothing_is_managed_without_a_key_also_on_loopback() {
    let project = project();
    let gateway = project.serve();
    for path in ["events", "events/stream", "runs", "stats", "agents", "sources", "events/evt_1", "runs/run_1/logs"] {
        let url = format!("{}/v1/{path}", gateway.url);
        let response = reqwest::get(&url).await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let response = reqwest::Client::new().get(&url).bearer_auth("dbk_wrong").send().await.unwrap();
        assert_eq!(response.json::<api::Problem>().await.unwrap().code, "key_invalid", "{path}");
    }
    for path in ["healthz", "readyz", "metrics"] {
        assert_eq!(reqwest::get(format!("{}/{path}", gateway.url)).await.unwrap().status(), 200, "{path}");
    }
    let forwarded =
        reqwest::Client::new().get(format!("{}/metrics", gateway.url)).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(forwarded.send().await.unwrap().status(), 401, "a tunnel on this machine speaks for strangers");
}

#[tokio::test]
async fn what_is_not_ones_own_does_not_exist() {
    let project = project();
    let gateway = project.serve();
    let issue = gateway.ring(sample("issues.opened")).await;
    let push = gateway.ring(sample("push")).await;
    let two = client_with(&gateway, "agent", Some("two")).await;
    assert_eq!(two.agents().await.unwrap().agents.len(), 1);
    let events = two.events(&EventQuery::default()).await.unwrap().events;
    assert_eq!(events.len(), 1);
    assert!(events[0].outcomes.iter().all(|outcome| outcome.agent == "two"), "{events:?}");
    let runs = two.runs(&RunQuery::default()).await.unwrap().runs;
    assert_eq!((runs.len(), runs[0].agent.as_str()), (1, "two"));
    assert_eq!(two.event(&push.delivery_id).await.unwrap().event.outcomes.len(), 1, "only its own outcome");
    assert_eq!(two.explain(&push.delivery_id).await.unwrap().verdicts.len(), 1);
    let unknown = two.event("evt_00000000000000000000000000").await.unwrap_err().to_string();
    assert_eq!(two.event(&issue.delivery_id).await.unwrap_err().to_string(), unknown);
    assert_eq!(problem(two.event_body(&issue.delivery_id).await.unwrap_err()), (404, "not_found".to_owned()));
    assert_eq!(problem(two.run(&issue.runs[0]).await.unwrap_err()).0, 404);
    assert_eq!(problem(two.run_log(&issue.runs[0], 0).await.unwrap_err()).0, 404);
    assert_eq!(problem(two.cancel_run(&issue.runs[0]).await.unwrap_err()).0, 404);
    assert_eq!(problem(two.deliveries("acme", None).await.unwrap_err()).0, 404);
}

#[tokio::test]
async fn an_agents_key_is_told_no_counts_of_the_whole_project() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(sample("push")).await;
    gateway.finished(&receipt.runs[0]).await;
    let two = client_with(&gateway, "agent", Some("two")).await;
    let stats = two.stats().await.unwrap();
    assert_eq!((stats.events, stats.deliveries, stats.last_sweep, stats.config), (None, None, None, None));
    assert_eq!(stats.agents.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["two"]);
    let source = two.sources().await.unwrap().sources.remove(0);
    assert_eq!((source.credentials, source.credential_uses), (vec!["acme".to_owned()], vec![]));
    let whole = gateway.client.stats().await.unwrap();
    assert_eq!((whole.events, whole.deliveries.map(|counts| counts.accepted)), (Some(1), Some(1)));
}

#[tokio::test]
async fn a_name_that_is_not_text_is_not_found_as_every_other() {
    let project = project();
    let gateway = project.serve();
    for path in ["events/%ff", "events/%ff/body", "runs/%ff", "runs/%ff/logs", "sources/%ff/deliveries"] {
        let url = format!("{}/v1/{path}", gateway.url);
        let response = reqwest::Client::new().get(url).bearer_auth(&gateway.key).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        assert_eq!(response.json::<api::Problem>().await.unwrap().code, "not_found", "{path}");
    }
}

#[tokio::test]
async fn a_viewer_looks_and_touches_nothing() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let viewer = client_with(&gateway, "viewer", None).await;
    assert_eq!(viewer.events(&EventQuery::default()).await.unwrap().events.len(), 1);
    assert_eq!(problem(viewer.cancel_run(&receipt.runs[0]).await.unwrap_err()), (403, "not_allowed".to_owned()));
    let wish =
        api::NewKey { name: "x".to_owned(), role: "owner".to_owned(), agent: None, expires: None, account: None };
    assert_eq!(problem(viewer.create_key(&wish).await.unwrap_err()).0, 403);
}

#[tokio::test]
async fn a_wish_that_is_not_clear_is_refused_with_what_to_do() {
    let project = project();
    let gateway = project.serve();
    let http = reqwest::Client::new();
    for (path, says) in [
        ("events?since=yesterday", "RFC 3339"),
        ("events?limit=0", "1 to 500"),
        ("events?limit=501", "1 to 500"),
        ("events?cursor=x", "nextCursor"),
        ("events?colour=red", "colour"),
        ("events?outcome=x", "started"),
        ("runs?state=done", "succeeded"),
        ("runs?event=x", "event id"),
    ] {
        let response = http.get(format!("{}/v1/{path}", gateway.url)).bearer_auth(&gateway.key).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let problem: api::Problem = response.json().await.unwrap();
        assert!(problem.detail.contains(says), "{path}: {}", problem.detail);
    }
    let run = gateway.ring(sample_as("issues.opened", "one")).await.runs.remove(0);
    for path in ["events/stream".to_owned(), format!("runs/{run}/logs?follow=true")] {
        let request = http.get(format!("{}/v1/{path}", gateway.url)).bearer_auth(&gateway.key);
        let response = request.header("last-event-id", "x").send().await.unwrap();
        assert_eq!(response.status(), 400, "it does not mean from now on: {path}");
    }
    let keys = format!("{}/v1/keys", gateway.url);
    for body in [
        "",
        "{}",
        "{\"name\":\"\",\"role\":\"owner\"}",
        "{\"name\":\"x\",\"role\":\"king\"}",
        "{\"name\":\"x\",\"role\":\"agent\",\"agent\":\"nobody\"}",
    ] {
        let request = http.post(&keys).bearer_auth(&gateway.key).header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.unwrap().status(), 400, "{body}");
    }
}

#[tokio::test]
async fn pages_miss_nothing_and_show_nothing_twice() {
    let project = project();
    let gateway = project.serve();
    let mut sent = Vec::new();
    for _ in 0..7 {
        sent.push(gateway.ring(sample("issues.opened")).await.delivery_id);
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page =
            gateway.client.events(&EventQuery { cursor, limit: Some(3), ..EventQuery::default() }).await.unwrap();
        seen.extend(page.events.into_iter().map(|event| event.id));
        // What comes meanwhile does not shift the pages.
        gateway.ring(sample("push")).await;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    sent.reverse();
    assert_eq!(seen, sent);
    let query = EventQuery { event: Some("push".to_owned()), ..EventQuery::default() };
    assert!(gateway.client.events(&query).await.unwrap().events.iter().all(|event| event.event == "push"));
}

#[tokio::test]
async fn a_key_has_so_many_streams_open_and_another_one_has_its_own() {
    let project = project();
    let gateway = project.serve();
    let url = format!("{}/v1/events/stream", gateway.url);
    let http = reqwest::Client::new();
    let open = async |key: &str| http.get(&url).bearer_auth(key).send().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(open(&gateway.key).await);
    }
    assert!(streams.iter().all(|stream| stream.status() == 200));
    let refused = open(&gateway.key).await;
    assert!(refused.status() == 429 && refused.headers().contains_key("retry-after"), "{refused:?}");
    assert_eq!(refused.json::<api::Problem>().await.unwrap().code, "too_many_streams");
    let other = project.json(&["keys", "create", "--name", "other", "--role", "viewer"]);
    assert_eq!(open(other["key"].as_str().unwrap()).await.status(), 200);
    drop(streams);
    wait_until("a place", async || (open(&gateway.key).await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn the_stream_tells_what_happens_and_goes_on_where_it_ended() {
    let project = project();
    let gateway = project.serve();
    let mut stream = gateway.client.event_stream(None).await.unwrap();
    let receipt = gateway.ring(sample_as("issues.opened", "one")).await;
    let mut told = Vec::new();
    while let Some(Ok(activity)) = stream.next().await {
        let (what, over) = match &activity {
            api::Activity::Event { event } => (format!("event {}", event.id == receipt.delivery_id), false),
            api::Activity::Run { run } => (format!("run {}", run.state), run.finished_at.is_some()),
            api::Activity::Log { line, .. } => (format!("log {}", line.text), false),
            other => panic!("{other:?}"),
        };
        told.push(what);
        if over {
            break;
        }
    }
    told.sort();
    assert_eq!(told, ["event true", "log from one", "run running", "run succeeded"]);
    drop(stream);
    let first = gateway.client.event(&receipt.delivery_id).await.unwrap().event.seq;
    let missed = gateway.ring(sample("push")).await;
    let mut stream = gateway.client.event_stream(Some(first)).await.unwrap();
    let Some(Ok(api::Activity::Event { event })) = stream.next().await else { panic!("no event") };
    assert_eq!(event.id, missed.delivery_id);
}

#[tokio::test]
async fn the_stream_tells_of_runs_that_a_full_queue_drops() {
    let project = Project::new(ONE_SOURCE);
    let trigger = "[[webhooks]]\nsource = \"acme\"";
    let limits = "scale = 1\nwork_queue_size = 1\nwhen_full = \"drop_oldest\"";
    project.agent("triage", &format!("{limits}\n{trigger}"), "sleep 1000");
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&first, "running").await;
    let mut stream = gateway.client.event_stream(None).await.unwrap();
    let second = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.ring(sample("issues.opened")).await;
    let told = loop {
        match stream.next().await {
            Some(Ok(api::Activity::Run { run })) if run.state == "dropped" => break run,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told.id, second);
    assert!(told.reason.unwrap().contains("displaced by"), "it says why");
}

#[tokio::test]
async fn the_stream_misses_no_event_of_many_senders() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let mut stream = gateway.client.event_stream(None).await.unwrap();
    let senders = (0..64).map(async |_| {
        for _ in 0..5 {
            gateway.ring(sample("issues.opened")).await;
        }
    });
    let watch = async {
        let mut seqs = Vec::new();
        while seqs.len() < 320 {
            let Some(Ok(api::Activity::Event { event })) = stream.next().await else { panic!("no event") };
            seqs.push(event.seq);
        }
        seqs
    };
    let sending = futures_util::future::join_all(senders);
    let (_, seqs) = tokio::time::timeout(PATIENCE, futures_util::future::join(sending, watch)).await.unwrap();
    assert_eq!(seqs, (1..=320).collect::<Vec<_>>(), "all, in the order of commits");
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_its_run() {
    let project = Project::new(ONE_SOURCE);
    project.agent("one", ANY, "echo first; while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done; echo last");
    project.write("home/hold", "");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let mut log = gateway.client.follow_log(&run, 0).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap().text, "first", "while it runs");
    std::fs::remove_file(project.path("home/hold")).unwrap();
    assert_eq!(log.next().await.unwrap().unwrap().text, "last");
    assert!(log.next().await.is_none());
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(sample_as("issues.opened", "one")).await;
    gateway.ring(sample_as("issues.opened", "one")).await;
    gateway.finished(&receipt.runs[0]).await;
    let metrics = wait_until("the try to be counted", async || {
        let text = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
        text.contains("doorbell_attempts_ended_total{agent=\"one\",ended=\"succeeded\",state=\"succeeded\"} 1")
            .then_some(text)
    })
    .await;
    for line in [
        "doorbell_deliveries_total{source=\"acme\",outcome=\"accepted\",code=\"\"} 1",
        "doorbell_deliveries_total{source=\"acme\",outcome=\"duplicate\",code=\"\"} 1",
        "doorbell_accept_seconds_count{source=\"acme\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
}

#[tokio::test]
async fn a_removed_key_is_refused_at_once_and_what_it_has_open_ends() {
    let project = project();
    project.agent("slow", ANY, "sleep 1000");
    let gateway = project.serve();
    let wish =
        api::NewKey { name: "ops".to_owned(), role: "viewer".to_owned(), agent: None, expires: None, account: None };
    let created = gateway.client.create_key(&wish).await.unwrap();
    let client = Client::new(&gateway.url, Some(&created.key)).unwrap();
    let kept = client_with(&gateway, "viewer", None).await;
    let runs = gateway.ring(sample("issues.opened")).await.runs;
    let slow = gateway.runs().await.into_iter().find(|run| run.agent == "slow" && runs.contains(&run.id)).unwrap();
    let mut activity = client.event_stream(None).await.unwrap();
    let mut log = client.follow_log(&slow.id, 0).await.unwrap();
    let mut others = kept.event_stream(None).await.unwrap();
    gateway.client.remove_key(&created.key_id).await.unwrap();
    assert_eq!(problem(client.stats().await.unwrap_err()), (401, "key_invalid".to_owned()));
    tokio::time::timeout(PATIENCE, async {
        while activity.next().await.is_some() {}
        while let Some(Ok(_)) = log.next().await {}
    })
    .await
    .expect("its streams end");
    let missed = gateway.ring(sample("push")).await.delivery_id;
    tokio::time::timeout(PATIENCE, async {
        loop {
            match others.next().await {
                Some(Ok(api::Activity::Event { event })) if event.id == missed => break,
                Some(Ok(_)) => {}
                other => panic!("another key's stream goes on: {other:?}"),
            }
        }
    })
    .await
    .unwrap();
    let again = gateway.client.remove_key(&created.key_id).await.unwrap_err();
    assert_eq!(problem(again), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn keys_are_listed_and_removed_by_owners_only_and_never_shown_again() {
    let project = project();
    let gateway = project.serve();
    let viewer = client_with(&gateway, "viewer", None).await;
    let agent = client_with(&gateway, "agent", Some("one")).await;
    let list = gateway.client.keys().await.unwrap().keys;
    let shown: Vec<_> = list.iter().map(|key| (key.name.as_str(), key.role.as_str(), key.agent.as_deref())).collect();
    let wanted = [("local", "owner", None), ("viewer", "viewer", None), ("agent", "agent", Some("one"))];
    assert_eq!(shown, wanted);
    assert!(!serde_json::to_string(&list).unwrap().contains("dbk_"));
    for client in [&viewer, &agent] {
        assert_eq!(problem(client.keys().await.unwrap_err()).0, 403);
        assert_eq!(problem(client.remove_key(&list[0].key_id).await.unwrap_err()).0, 403);
    }
    for unknown in ["key_00000000000000000000000000", "nonsense"] {
        assert_eq!(problem(gateway.client.remove_key(unknown).await.unwrap_err()).0, 404, "{unknown}");
    }
}

#[tokio::test]
async fn events_are_found_by_the_name_that_they_are_shown_by() {
    let project = project();
    let gateway = project.serve();
    let issue = gateway.ring(sample("issues.opened")).await;
    let push = gateway.ring(sample("push")).await;
    for receipt in [issue, push] {
        let query = EventQuery { event: Some(receipt.event.clone()), ..EventQuery::default() };
        let found: Vec<_> = gateway.client.events(&query).await.unwrap().events.into_iter().map(|e| e.id).collect();
        assert_eq!(found, [receipt.delivery_id], "{}", receipt.event);
    }
}

#[tokio::test]
async fn no_page_of_another_origin_is_let_in() {
    let project = project();
    let gateway = project.serve();
    let http = reqwest::Client::new();
    for path in ["v1/events", "v1/agents", "openapi.json", "docs/errors", "healthz", "mcp"] {
        for method in ["OPTIONS", "GET", "POST"] {
            let asked =
                http.request(method.parse().unwrap(), format!("{}/{path}", gateway.url)).bearer_auth(&gateway.key);
            let asked =
                asked.header("origin", "https://elsewhere.example").header("access-control-request-method", "GET");
            let answer = asked.send().await.unwrap();
            let allowed = answer.headers().keys().find(|name| name.as_str().starts_with("access-control-"));
            assert!(allowed.is_none(), "{method} {path}: {allowed:?}");
            assert!(method != "OPTIONS" || !answer.status().is_success(), "{path}: {}", answer.status());
        }
    }
}

#[tokio::test]
async fn streams_go_on_after_the_last_message_that_was_seen() {
    let project = Project::new(ONE_SOURCE);
    project.agent("one", ANY, "echo first; echo second; echo third");
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await;
    let second = gateway.ring(sample("push")).await;
    gateway.finished(&first.runs[0]).await;
    let ask = async |path: &str, last: String| {
        let request = reqwest::Client::new().get(format!("{}/v1/{path}", gateway.url)).bearer_auth(&gateway.key);
        request.header("last-event-id", last).send().await.unwrap()
    };
    let lines = gateway.client.run_log(&first.runs[0], 0).await.unwrap().lines;
    let seen = lines.iter().find(|line| line.text == "second").unwrap().n;
    let log = ask(&format!("runs/{}/logs?follow=true", first.runs[0]), seen.to_string()).await.text().await.unwrap();
    assert!(log.contains("third") && !log.contains("second") && !log.contains("first"), "{log}");
    assert!(log.contains("event: end"), "{log}");
    let seen = gateway.client.event(&first.delivery_id).await.unwrap().event.seq;
    let mut stream = ask("events/stream", seen.to_string()).await;
    let mut said = String::new();
    while !said.contains(&second.delivery_id) {
        said.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    assert!(!said.contains(&format!("\"id\":\"{}\"", first.delivery_id)), "{said}");
}
