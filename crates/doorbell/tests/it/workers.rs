//! Workers over real HTTP: what they are handed, what they tell, and what becomes of those that fall silent.

use std::collections::BTreeSet;
use std::time::Duration;

use doorbell_client::api::{self, HandedRun, ShownLease};
use doorbell_client::{Client, Error};
use doorbell_core::time::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::docs::{blocks, read};
use crate::support::{Background, Gateway, ONE_SOURCE, Project, sample, wait_for, wait_until};

fn project(config: &str) -> Project {
    let project = Project::new(ONE_SOURCE);
    let file = format!("{config}\n[[webhooks]]\nsource = \"acme\"\n[runtime]\ntype = \"worker\"\n");
    project.write("agents/triage/config.toml", &file);
    project
}

fn wish(worker: &str, max: usize, wait: u64) -> api::Poll {
    api::Poll {
        agents: vec!["triage".to_owned()],
        max: Some(max),
        wait_seconds: Some(wait),
        worker: Some(worker.to_owned()),
        lease_seconds: Some(60),
    }
}

async fn fetch(client: &Client, worker: &str, max: usize) -> Vec<HandedRun> {
    client.poll(&wish(worker, max, 0)).await.unwrap().runs
}

async fn ring(gateway: &Gateway) -> String {
    gateway.ring(sample("issues.opened")).await.runs.remove(0)
}

fn shown(run: &HandedRun) -> Option<ShownLease> {
    Some(ShownLease::Token(run.lease.token.clone()))
}

fn done(run: &HandedRun, result: Option<serde_json::Value>) -> api::RunEnd {
    api::RunEnd { lease: shown(run), result, ..api::RunEnd::default() }
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Api(problem)) => problem.code,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_worker_that_waits_is_handed_a_run_logs_it_and_tells_its_result() {
    let project = project("");
    let gateway = project.serve();
    let client = gateway.client.clone();
    let waiting = tokio::spawn(async move { client.poll(&wish("host-1", 8, 60)).await.unwrap().runs });
    let id = ring(&gateway).await;
    let run = waiting.await.unwrap().remove(0);
    assert_eq!((&run.run_id, run.lease.lease_seconds), (&id, 60));
    let envelope = &run.envelope;
    assert_eq!((&envelope["event_type"], &envelope["run_id"]), (&json!("github.issues.opened"), &json!(id)));
    assert_eq!((&envelope["attempt"], &envelope["agent"]), (&json!(1), &json!("triage")));
    let show = String::from_utf8(project.run(&["runs", "show", &id]).stdout).unwrap();
    assert!(show.contains("With worker") && show.contains("host-1"), "{show}");
    let lines = vec![
        api::RunLine::Text("reading".to_owned()),
        api::RunLine::Of { text: "a warning".to_owned(), stream: Some("stderr".to_owned()) },
    ];
    let kept = gateway.client.append_lines(&id, &api::RunLines { lease: shown(&run), lines }).await.unwrap();
    assert_eq!(kept.kept, 2);
    let ended = gateway.client.end_run(&id, &done(&run, Some(json!({"labels": ["bug"]})))).await.unwrap();
    assert_eq!(ended.state, "succeeded");
    let run = gateway.finished(&id).await;
    assert_eq!((run.run.result, run.attempts[0].worker.as_deref()), (Some(json!({"labels": ["bug"]})), Some("host-1")));
    assert_eq!((gateway.stdout(&id).await, gateway.lines(&id, "stderr").await), ("reading".into(), "a warning".into()));
    assert_eq!(gateway.client.agents().await.unwrap().agents[0].runtime, "worker");
}

#[tokio::test]
async fn no_more_runs_are_out_than_the_scale_also_after_a_kill_and_they_come_in_order() {
    let project = project("scale = 2");
    let gateway = project.serve();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(ring(&gateway).await);
    }
    let first = fetch(&gateway.client, "host-1", 8).await;
    assert_eq!(first.iter().map(|run| &run.run_id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert!(fetch(&gateway.client, "host-2", 8).await.is_empty());
    gateway.kill();
    let gateway = project.serve();
    assert!(fetch(&gateway.client, "host-2", 8).await.is_empty(), "the first two are still out");
    let heartbeat = api::Heartbeat { lease: shown(&first[1]) };
    assert!(!gateway.client.heartbeat(&ids[1], &heartbeat).await.unwrap().cancel_requested);
    let client = gateway.client.clone();
    let waiting = tokio::spawn(async move { client.poll(&wish("host-2", 8, 60)).await.unwrap().runs });
    gateway.client.end_run(&ids[0], &done(&first[0], None)).await.unwrap();
    let next = waiting.await.unwrap();
    assert_eq!(next.iter().map(|run| &run.run_id).collect::<Vec<_>>(), [&ids[2]]);
    assert_eq!(gateway.client.run(&ids[0]).await.unwrap().run.state, "succeeded");
}

#[tokio::test]
async fn a_lease_that_has_ended_ends_no_run_and_is_not_kept() {
    let project = project("[retries]\non_lost = \"fail\"");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let short = api::Poll { lease_seconds: Some(1), ..wish("host-1", 1, 0) };
    let run = gateway.client.poll(&short).await.unwrap().runs.remove(0);
    let over: Timestamp = run.lease.expires_at.parse().unwrap();
    wait_for("the lease to end", || (now() > over).then_some(()));
    let heartbeat = api::Heartbeat { lease: shown(&run) };
    assert_eq!(code(gateway.client.heartbeat(&id, &heartbeat).await), "lease_lost");
    assert_eq!(code(gateway.client.end_run(&id, &done(&run, None)).await), "lease_lost");
    let ended = gateway.finished(&id).await;
    assert_eq!((ended.run.state.as_str(), ended.attempts[0].ended.as_deref()), ("failed", Some("lost")));
    let late = ended.run.finished_at.unwrap().parse::<Timestamp>().unwrap().since(over);
    assert!(late < Duration::from_secs(3), "it is looked at when it ends, not when somebody looks by chance: {late:?}");
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

#[tokio::test]
async fn two_workers_never_get_one_run_and_all_get_done() {
    let project = project("scale = 10");
    let gateway = project.serve();
    for _ in 0..40 {
        ring(&gateway).await;
    }
    let workers = (0..4).map(|n| {
        let client = gateway.client.clone();
        tokio::spawn(async move {
            let mut had = Vec::new();
            loop {
                let runs = client.poll(&wish(&format!("host-{n}"), 3, 1)).await.unwrap().runs;
                if runs.is_empty() {
                    return had;
                }
                for run in runs {
                    client.end_run(&run.run_id, &done(&run, None)).await.unwrap();
                    had.push(run.run_id);
                }
            }
        })
    });
    let had: Vec<String> = futures_util::future::join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!((had.len(), had.iter().collect::<BTreeSet<_>>().len()), (40, 40));
    for run in gateway.runs().await {
        assert_eq!((run.state.as_str(), run.attempt), ("succeeded", 1));
    }
}

#[tokio::test]
async fn a_worker_that_falls_silent_loses_its_run_to_another_one() {
    let project = project("");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let silent = api::Poll { lease_seconds: Some(1), ..wish("host-1", 1, 0) };
    let lost = gateway.client.poll(&silent).await.unwrap().runs.remove(0);
    let again = gateway.client.poll(&wish("host-2", 1, 60)).await.unwrap().runs.remove(0);
    assert_eq!((&again.run_id, &again.envelope["attempt"]), (&id, &json!(2)));
    let heartbeat = api::Heartbeat { lease: shown(&lost) };
    assert_eq!(code(gateway.client.heartbeat(&id, &heartbeat).await), "lease_lost");
    assert_eq!(code(gateway.client.end_run(&id, &done(&lost, Some(json!(1)))).await), "lease_lost");
    let lines = api::RunLines { lease: shown(&lost), lines: vec![api::RunLine::Text("late".to_owned())] };
    assert_eq!(code(gateway.client.append_lines(&id, &lines).await), "lease_lost");
    gateway.client.end_run(&id, &done(&again, Some(json!(2)))).await.unwrap();
    let run = gateway.finished(&id).await;
    assert_eq!(run.run.result, Some(json!(2)));
    assert_eq!(run.attempts[0].ended.as_deref(), Some("lost"));
    assert!(run.attempts[0].reason.as_deref().unwrap().starts_with("worker `host-1` was not heard of for 1 s"));
}

#[tokio::test]
async fn a_worker_is_told_of_a_cancel_when_it_says_that_it_lives() {
    let project = project("");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client, "host-1", 1).await.remove(0);
    let heartbeat = api::Heartbeat { lease: shown(&run) };
    assert!(!gateway.client.heartbeat(&id, &heartbeat).await.unwrap().cancel_requested);
    assert_eq!(gateway.client.cancel_run(&id).await.unwrap().state, "running");
    assert!(gateway.client.heartbeat(&id, &heartbeat).await.unwrap().cancel_requested);
    let end = api::RunEnd { error: Some(json!("stopped")), ..done(&run, None) };
    assert_eq!(gateway.client.end_run(&id, &end).await.unwrap().state, "cancelled");
}

#[tokio::test]
async fn a_worker_says_whether_another_try_is_of_use_and_when() {
    let project = project("[retries]\nattempts = 2\nbackoff = { initial = \"10m\" }");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client, "host-1", 1).await.remove(0);
    let busy = api::RunEnd { error: Some(json!("busy")), retry_after: Some(0.05), ..done(&run, None) };
    assert_eq!(gateway.client.end_run(&id, &busy).await.unwrap().state, "waiting");
    let run = gateway.client.poll(&wish("host-1", 1, 60)).await.unwrap().runs.remove(0);
    assert_eq!((&run.run_id, &run.envelope["attempt"]), (&id, &json!(2)));
    let other = ring(&gateway).await;
    let never =
        api::RunEnd { error: Some(json!({"message": "no such label"})), retry: Some(false), ..done(&run, None) };
    assert_eq!(gateway.client.end_run(&id, &never).await.unwrap().state, "failed");
    let run = fetch(&gateway.client, "host-1", 1).await.remove(0);
    let never = api::RunEnd { lease: shown(&run), ..never };
    assert_eq!(gateway.client.end_run(&other, &never).await.unwrap().state, "failed");
    let run = gateway.finished(&other).await;
    assert_eq!((run.attempts.len(), run.run.reason.as_deref()), (1, Some("no such label")));
}

#[tokio::test]
async fn a_try_does_not_outlive_its_agents_timeout_however_alive_its_worker_is() {
    let project = project("timeout = \"1s\"");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client, "host-1", 1).await.remove(0);
    let heard = gateway.client.heartbeat(&id, &api::Heartbeat { lease: shown(&run) }).await.unwrap();
    assert_eq!(heard.expires_at, run.lease.expires_at);
    assert_eq!(gateway.finished(&id).await.attempts[0].ended.as_deref(), Some("timed_out"));
}

#[tokio::test]
async fn a_key_fetches_the_runs_of_its_own_agent_only() {
    let project = project("");
    project.agent("other", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    let gateway = project.serve();
    let key = |role: &str, agent: Option<&str>| {
        let wish = api::NewKey {
            name: "w".to_owned(),
            role: role.to_owned(),
            agent: agent.map(str::to_owned),
            expires: None,
            account: None,
        };
        let (client, url) = (gateway.client.clone(), gateway.url.clone());
        async move { Client::new(&url, Some(&client.create_key(&wish).await.unwrap().key)).unwrap() }
    };
    let (own, other, viewer) =
        (key("agent", Some("triage")).await, key("agent", Some("other")).await, key("viewer", None).await);
    let id = ring(&gateway).await;
    assert_eq!(code(other.poll(&wish("w", 1, 0)).await), "not_found");
    assert_eq!(code(viewer.poll(&wish("w", 1, 0)).await), "not_allowed");
    let of_command = api::Poll { agents: vec!["other".to_owned()], ..wish("w", 1, 0) };
    assert_eq!(code(other.poll(&of_command).await), "no_workers");
    let nobodys = api::Poll { agents: vec!["nobody".to_owned()], ..wish("w", 1, 0) };
    assert_eq!(code(gateway.client.poll(&nobodys).await), "not_found");
    assert_eq!(code(own.poll(&api::Poll { max: Some(0), ..wish("w", 1, 0) }).await), "invalid_request");
    let run = fetch(&own, "w", 1).await.remove(0);
    assert_eq!(code(other.end_run(&id, &done(&run, None)).await), "not_found");
    let bearer = Client::new(&gateway.url, Some(&run.lease.token)).unwrap();
    assert_eq!(code(bearer.end_run(&id, &api::RunEnd::default()).await), "not_allowed", "a worker shows its key");
    own.end_run(&id, &done(&run, None)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_dropped_while_no_worker_is_there() {
    let project = project("scale = 200");
    let gateway = project.serve();
    let mut ids = Vec::new();
    for _ in 0..110 {
        ids.push(ring(&gateway).await);
    }
    let mut had = Vec::new();
    while had.len() < ids.len() {
        let runs = fetch(&gateway.client, "host-1", 64).await;
        assert!(!runs.is_empty());
        had.extend(runs.into_iter().map(|run| run.run_id));
    }
    assert_eq!(had, ids);
}

#[tokio::test]
async fn a_paused_agent_hands_nothing_to_its_workers_until_it_is_resumed() {
    let project = project("");
    let gateway = project.serve();
    gateway.client.pause(Some("triage"), &api::NewPause::default()).await.unwrap();
    let id = ring(&gateway).await;
    assert!(fetch(&gateway.client, "host-1", 8).await.is_empty());
    gateway.in_state(&id, "held").await;
    let client = gateway.client.clone();
    let waiting = tokio::spawn(async move { client.poll(&wish("host-1", 8, 60)).await.unwrap().runs });
    gateway.client.resume(Some("triage"), &api::NewResume::default()).await.unwrap();
    assert_eq!(waiting.await.unwrap()[0].run_id, id);
}

#[tokio::test]
async fn a_worker_that_hung_up_while_it_waited_takes_no_run_with_it() {
    let project = project("");
    let gateway = project.serve();
    for _ in 0..20 {
        let client = gateway.client.clone();
        let gone = tokio::spawn(async move { client.poll(&wish("host-1", 1, 60)).await });
        tokio::task::yield_now().await;
        gone.abort();
    }
    let short = |wait| api::Poll { lease_seconds: Some(1), ..wish("host-2", 1, wait) };
    let id = ring(&gateway).await;
    let run = gateway.client.poll(&short(60)).await.unwrap().runs.remove(0);
    assert_eq!(run.run_id, id);
}

/// Kilobytes of memory that the gateway holds.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_workers_wait_for_little_memory_and_each_run_wakes_one_of_them() {
    const WAITING: usize = 1000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let project = project("scale = 100");
    let gateway = project.serve();
    let before = memory(&gateway);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..WAITING {
        let client = gateway.client.clone();
        waiting.spawn(async move { client.poll(&wish(&format!("host-{n}"), 1, 120)).await.unwrap().runs });
    }
    wait_until("all of them to wait", async || {
        let sockets = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
        (sockets >= WAITING).then_some(())
    })
    .await;
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        ids.insert(ring(&gateway).await);
    }
    let mut had = BTreeSet::new();
    for _ in 0..10 {
        let runs = waiting.join_next().await.unwrap().unwrap();
        assert_eq!(runs.len(), 1);
        had.extend(runs.into_iter().map(|run| run.run_id));
    }
    assert_eq!(had, ids);
    let each = memory(&gateway).saturating_sub(before) / WAITING as u64;
    assert!(each < 64, "{each} KiB each");
    waiting.abort_all();
}

#[tokio::test]
async fn the_worker_of_the_documentation_works_as_it_is_written() {
    let project = project("");
    let gateway = project.serve();
    let wish = api::NewKey {
        name: "worker".to_owned(),
        role: "agent".to_owned(),
        agent: Some("triage".to_owned()),
        expires: None,
        account: None,
    };
    let key = gateway.client.create_key(&wish).await.unwrap().key;
    project.write("worker.py", &blocks(&read("docs/workers.md"), "python")[0]);
    let mut command = project.prepare("python3", &["worker.py"]);
    command.env("DOORBELL_URL", &gateway.url).env("DOORBELL_TOKEN", key);
    let _running = Background::start(command);
    for _ in 0..2 {
        let id = ring(&gateway).await;
        let run = gateway.finished(&id).await;
        assert_eq!((run.run.state.as_str(), run.attempts.len()), ("succeeded", 1), "{run:?}");
        assert!(run.run.result.unwrap()["title"].is_string());
        assert!(gateway.stdout(&id).await.starts_with("looking at "));
    }
}

#[tokio::test]
async fn the_worker_of_the_documentation_declares_its_agent_itself() {
    let project = Project::new(&ONE_SOURCE.replace("webhooks.acme", "webhooks.acme-github"));
    let gateway = project.serve();
    let examples = blocks(&read("docs/workers.md"), "python");
    let (head, rest) = examples[0].split_once("while True:").unwrap();
    project.write("worker.py", &format!("{head}\n{}\n\nwhile True:{rest}", examples[1]));
    for _ in 0..2 {
        let mut command = project.prepare("python3", &["worker.py"]);
        command.env("DOORBELL_URL", &gateway.url).env("DOORBELL_TOKEN", &gateway.key);
        let _running = Background::start(command);
        wait_until("the declaration", async || gateway.client.agent("triage").await.ok()).await;
        let sent = gateway.send("/v1/webhooks/github/acme-github", sample("issues.opened")).await;
        let doorbell_client::Answer::Receipt(receipt) = sent else { panic!("{sent:?}") };
        assert_eq!(gateway.finished(&receipt.runs[0]).await.run.state, "succeeded");
    }
}

#[tokio::test]
async fn a_gateway_that_closes_does_not_wait_for_those_who_wait() {
    let project = project("");
    let gateway = project.serve();
    let client = gateway.client.clone();
    let waiting = tokio::spawn(async move { client.poll(&wish("host-1", 1, 120)).await });
    wait_until("it to wait", async || (gateway.client.stats().await.unwrap().agents.len() == 1).then_some(())).await;
    let begun = std::time::Instant::now();
    assert_eq!(gateway.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let _ = waiting.await.unwrap();
}
