//! Flow control on the real gateway: bursts for one pull request, busy keys, limits, and what people see of it.

use std::collections::BTreeSet;

use doorbell_client::{EventQuery, api};
use doorbell_core::provider::Signed;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, sign, wait_until};

/// Deliveries of a burst.
const BURST: usize = 50;

/// A trigger for pull requests, each a key of its own, with this flow control.
fn trigger(flow: &str) -> String {
    format!(
        "scale = 4\n[[webhooks]]\nsource = \"acme\"\nevents = [\"pull_request\"]\n\
         key = 'event.context.repo + \"#\" + string(event.context.number)'\n{flow}\n"
    )
}

/// A push to pull request `number`.
fn push(number: u64, title: &str) -> Signed {
    let body = json!({
        "action": "synchronize", "number": number, "pull_request": {"number": number, "title": title},
        "repository": {"full_name": "acme/app"}, "sender": {"login": "ann"},
    });
    sign("pull_request.synchronize", body.to_string(), &fresh_id())
}

fn outcomes(events: &[api::Event]) -> Vec<(&str, &str)> {
    let outcomes = events.iter().flat_map(|event| &event.outcomes);
    outcomes.map(|outcome| (outcome.outcome.as_str(), outcome.run_id.as_deref().unwrap_or_default())).collect()
}

async fn events(gateway: &Gateway) -> Vec<api::Event> {
    let query = EventQuery { limit: Some(500), ..EventQuery::default() };
    gateway.client.events(&query).await.unwrap().events
}

#[tokio::test]
async fn a_queued_run_says_what_it_waits_for() {
    let project = Project::new(ONE_SOURCE);
    let wait = format!("until test -e {}; do sleep 0.01; done", project.path("over").display());
    project.agent("review", &trigger("when_busy = \"queue\""), &wait);
    project.agent("slow", &trigger("throttle = \"1/1h\""), "true");
    let gateway = project.serve();
    let by_agent = async |title: &str| {
        let receipt = gateway.ring(push(7, title)).await;
        let runs = join_all(receipt.runs.iter().map(|run| gateway.client.run(run))).await;
        let find = |name: &str| runs.iter().flatten().find(|run| run.run.agent == name).unwrap().run.id.clone();
        (find("review"), find("slow"))
    };
    let (busy, started) = by_agent("one").await;
    gateway.in_state(&busy, "running").await;
    gateway.finished(&started).await;
    let (behind, throttled) = by_agent("two").await;
    let why = async |run: &str| gateway.client.run(run).await.unwrap().run.reason;
    assert_eq!(why(&behind).await, Some(format!("waits for {busy}, which has its key")));
    assert!(why(&throttled).await.is_some_and(|why| why.starts_with("waits until 2") && why.ends_with("`throttle`")));
    let listed = project.run(&["runs", "--state", "queued"]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.contains(&format!("waits for {busy}")) && listed.contains("`throttle`"), "{listed}");
    std::fs::write(project.path("over"), "").unwrap();
    gateway.finished(&behind).await;
}

#[tokio::test]
async fn a_burst_for_one_pull_request_starts_one_run_with_all_its_events() {
    let project = Project::new(ONE_SOURCE);
    let flow = "debounce = { window = \"2s\", max_wait = \"60s\" }";
    project.agent("review", &trigger(flow), "cp \"$DOORBELL_EVENT_FILE\" \"$DOORBELL_OUTPUT_FILE\"");
    let gateway = project.serve();
    let receipts = join_all((0..BURST).map(|n| gateway.ring(push(7, &format!("push {n}"))))).await;
    let run = &receipts[0].runs[0];
    assert!(receipts.iter().all(|receipt| receipt.runs == [run.clone()]), "{receipts:?}");
    assert_eq!(gateway.client.run(run).await.unwrap().run.state, "waiting");
    let detail = gateway.finished(run).await;
    assert_eq!((detail.run.state.as_str(), gateway.runs().await.len()), ("succeeded", 1));
    assert_eq!((detail.run.key.as_deref(), detail.run.absorbed), (Some("acme/app#7"), BURST as u64 - 1));

    let stored = events(&gateway).await;
    let newest = &stored[0];
    assert_eq!((stored.len(), &detail.run.event_id), (BURST, &newest.id), "the newest is the run's own");
    let mut wanted = vec![("absorbed", run.as_str()); BURST];
    wanted[0] = ("started", run);
    assert_eq!(outcomes(&stored), wanted);

    let envelope = detail.run.result.unwrap();
    assert_eq!(envelope["event_id"], newest.id.as_str());
    let handed: Vec<&str> =
        envelope["events"].as_array().unwrap().iter().map(|e| e["event_id"].as_str().unwrap()).collect();
    let older: Vec<&str> = stored[1..].iter().rev().map(|event| event.id.as_str()).collect();
    assert_eq!(handed, older, "oldest first");
    assert_eq!(envelope["events"][0]["event_type"], "github.pull_request.synchronize");
    let titles =
        envelope["events"].as_array().unwrap().iter().chain([&envelope]).map(|e| e["context"]["title"].clone());
    let titles: BTreeSet<String> = titles.map(|title| title.as_str().unwrap().to_owned()).collect();
    assert_eq!(titles, (0..BURST).map(|n| format!("push {n}")).collect());

    let shown = String::from_utf8(project.run(&["runs", "show", run]).stdout).unwrap();
    assert!(shown.contains("and 49 more") && older.iter().all(|id| shown.contains(id)), "{shown}");
    let listed = project.json(&["events", "--outcome", "absorbed", "--limit", "100"]);
    assert_eq!(listed["events"].as_array().unwrap().len(), BURST - 1);
    let why = String::from_utf8(project.run(&["why", older[0]]).stdout).unwrap();
    assert!(why.contains("absorbed") && why.contains(run.as_str()), "{why}");
}

#[tokio::test]
async fn of_a_burst_that_replaces_one_runs_at_a_time_and_the_last_event_wins() {
    let project = Project::new(ONE_SOURCE);
    // The kernel gives the lock back when all processes of a run are gone, however they went.
    let script = "exec 9>lock; flock -n 9 || echo $DOORBELL_RUN_ID >> overlaps; \
                  grep -q the-last-one \"$DOORBELL_EVENT_FILE\" || exec sleep 1000";
    project.agent("review", &trigger("when_busy = \"replace\""), script);
    let config = project.read("agents/review/config.toml");
    project.write("agents/review/config.toml", &format!("{config}cwd = \".\"\n"));
    let gateway = project.serve();
    for wave in 0..5 {
        join_all((0..BURST / 5).map(|n| gateway.ring(push(7, &format!("push {wave}.{n}"))))).await;
        wait_until("the newest to run", async || {
            let runs = gateway.runs().await;
            let newest = runs.first().filter(|run| run.state == "running" && run.cancel_requested_by.is_none());
            newest.map(|_| ())
        })
        .await;
    }
    let last = gateway.ring(push(7, "the-last-one")).await;
    assert_eq!(gateway.finished(&last.runs[0]).await.run.state, "succeeded");
    let runs = gateway.runs().await;
    assert_eq!((runs.len(), runs[0].id.as_str()), (BURST + 1, last.runs[0].as_str()));
    for run in &runs[1..] {
        assert_eq!(run.state, "superseded", "{run:?}");
        assert!(run.reason.as_ref().unwrap().starts_with("replaced by run_"), "{run:?}");
    }
    assert!(!project.path("overlaps").exists(), "two ran at once: {}", project.read("overlaps"));
    // By the ledger, too: each begins when the one before it is over.
    let mut times: Vec<(&str, &str)> =
        runs.iter().filter_map(|run| Some((run.started_at.as_deref()?, run.finished_at.as_deref()?))).collect();
    times.sort_unstable();
    assert!(times.len() > 5 && times.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{times:?}");
}

#[tokio::test]
async fn a_busy_key_skips_or_attaches_and_says_so() {
    let project = Project::new(ONE_SOURCE);
    project.agent("skips", &trigger("when_busy = \"skip\""), "sleep 1000");
    let attaches = trigger("when_busy = \"attach\"").replace("scale = 4", "scale = 1");
    project.agent("attaches", &attaches, "sleep 1000");
    let gateway = project.serve();
    for title in ["first", "second", "third"] {
        let receipt = gateway.ring(push(7, title)).await;
        if title == "first" {
            for run in &receipt.runs {
                gateway.in_state(run, "running").await;
            }
        }
    }
    let stored = events(&gateway).await;
    let of = |agent: &str| -> Vec<&str> {
        let outcomes = stored.iter().flat_map(|event| &event.outcomes).filter(|outcome| outcome.agent == agent);
        outcomes.map(|outcome| outcome.outcome.as_str()).collect()
    };
    assert_eq!(
        (of("skips"), of("attaches")),
        (vec!["skipped", "skipped", "started"], vec!["absorbed", "started", "started"])
    );
    let why = String::from_utf8(project.run(&["why", &stored[0].id]).stdout).unwrap();
    assert!(why.contains("has its key and is not over") && why.contains("had not started"), "{why}");
    let stats = project.json(&["stat"]);
    let holders = |agent: &str| -> Value {
        let agents = stats["agents"].as_array().unwrap().iter();
        agents.clone().find(|row| row["name"] == agent).unwrap()["holders"][0]["key"].clone()
    };
    assert_eq!((holders("skips"), holders("attaches")), (json!("acme/app#7"), json!("acme/app#7")));
    let shown = String::from_utf8(project.run(&["stat"]).stdout).unwrap();
    assert!(shown.contains("KEY") && shown.contains("acme/app#7"), "{shown}");
}

#[tokio::test]
async fn a_burst_that_began_while_the_clock_was_ahead_does_not_wait_until_it_is_that_late() {
    let project = Project::new(ONE_SOURCE);
    project.agent("review", &trigger("debounce = { window = \"1h\", max_wait = \"2h\" }"), "true");
    let gateway = project.serve();
    let run = gateway.ring(push(7, "push")).await.runs.remove(0);
    gateway.kill();
    let database = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    let ahead = "UPDATE runs SET created_at = created_at + ?1, due = due + ?1, gathers_until = gathers_until + ?1";
    assert_eq!(database.execute(ahead, [365 * 24 * 60 * 60 * 1000_i64]).unwrap(), 1);
    drop(database);
    let gateway = project.serve();
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
}

#[tokio::test]
async fn a_loop_is_held_until_a_person_releases_it_and_a_throttle_says_until_when() {
    let project = Project::new(&format!("{ONE_SOURCE}[defaults]\nmax_per_key = \"2/1h\"\n"));
    project.agent("fixes", &trigger(""), "true");
    project.agent("slow", &trigger("throttle = \"1/1h\"\nmax_per_key = \"100/1h\""), "true");
    let gateway = project.serve();
    let mut runs = Vec::new();
    for title in ["first", "second", "third"] {
        runs.extend(gateway.ring(push(7, title)).await.runs);
    }
    let [fixes, slow] = ["fixes", "slow"].map(|agent| {
        let query = doorbell_client::RunQuery { agent: Some(agent.to_owned()), ..Default::default() };
        let client = &gateway.client;
        async move { client.runs(&query).await.unwrap().runs }
    });
    let (fixes, slow) = (fixes.await, slow.await);
    assert_eq!(fixes[0].state, "held");
    assert!(fixes[0].reason.as_ref().unwrap().contains("max_per_key"), "{fixes:?}");
    let output = project.run(&["runs", "release", &fixes[0].id]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(gateway.finished(&fixes[0].id).await.run.state, "succeeded");
    gateway.finished(&slow[2].id).await;
    let until = wait_until("the throttle to show", async || {
        let stats = gateway.client.stats().await.unwrap();
        stats.agents.into_iter().find(|agent| agent.name == "slow")?.throttled_until
    })
    .await;
    assert!(until > slow[0].created_at);
    assert_eq!(gateway.client.run(&slow[0].id).await.unwrap().run.state, "queued");
    let shown = String::from_utf8(project.run(&["stat"]).stdout).unwrap();
    assert!(shown.contains("slow is throttled until"), "{shown}");
    assert_eq!(runs.len(), 6);
}

#[tokio::test]
async fn a_pause_of_an_agent_ends_nothing_that_runs_and_nothing_is_dropped_when_it_is_over() {
    let project = Project::new(ONE_SOURCE);
    let settings = format!("work_queue_size = 1\n{}", trigger("when_busy = \"replace\""));
    project.agent("review", &settings, "until test -e go; do sleep 0.05; done");
    let config = project.read("agents/review/config.toml");
    project.write("agents/review/config.toml", &format!("{config}cwd = \".\"\n"));
    let gateway = project.serve();
    let first = gateway.ring(push(1, "first")).await.runs.remove(0);
    gateway.in_state(&first, "running").await;
    gateway.client.pause(Some("review"), &api::NewPause::default()).await.unwrap();
    let mut held = Vec::new();
    for number in [1, 2, 3, 4, 5, 1] {
        held.push(gateway.ring(push(number, "while it is paused")).await.runs.remove(0));
    }
    let running = gateway.client.run(&first).await.unwrap().run;
    assert_eq!((running.state.as_str(), running.cancel_requested_by), ("running", None));
    assert_eq!(gateway.client.run(&held[5]).await.unwrap().run.state, "held");
    gateway.client.resume(Some("review"), &api::NewResume::default()).await.unwrap();
    gateway.in_state(&held[0], "superseded").await;
    held.push(gateway.ring(push(6, "after it")).await.runs.remove(0));
    project.write("agents/review/go", "");
    project.write("go", "");
    for run in held[1..].iter().chain([&first]) {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
}
