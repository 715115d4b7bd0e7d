//! Crashes: the gateway is killed at any moment, and keeps its word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use doorbell_client::{Answer, EventQuery, Sender, api};
use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;

use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, processes_of, sample_as, wait_for, wait_until};

const ANY: &str = "when_full = \"grow\"\n[[webhooks]]\nsource = \"acme\"";
const ROUNDS: usize = 20;
pub const CONNECTIONS: usize = 64;

/// Sends deliveries until told to stop; the ids with their receipts, or none where no 2xx came.
async fn send_on(
    sender: &Sender,
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
) -> Vec<(String, Option<api::Receipt>)> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = fresh_id();
        let signed = sample_as("issues.opened", &id);
        let receipt = match sender.post(&signed.headers, signed.body).await {
            Ok(sent) => match sent.answer {
                Answer::Receipt(receipt) => Some(receipt),
                other => panic!("a signed delivery is refused by nobody: {other:?}"),
            },
            Err(_) => None,
        };
        taken.fetch_add(usize::from(receipt.is_some()), Ordering::Relaxed);
        let broken = receipt.is_none();
        sent.push((id, receipt));
        if broken {
            break;
        }
    }
    sent
}

/// What is left of a run that ends slowly holds up nobody else's run.
#[tokio::test]
async fn a_stubborn_orphan_holds_up_only_its_own_run_after_a_crash() {
    let project = Project::new(ONE_SOURCE);
    let (pid, go) = (project.path("pid"), project.path("go"));
    let stubborn =
        format!("trap '' TERM; echo $$ > {}; while test ! -e {}; do sleep 0.05; done", pid.display(), go.display());
    project.agent("stubborn", ANY, &stubborn);
    project.agent("quick", ANY, &format!("until test -e {}; do sleep 0.01; done", go.display()));
    let gateway = project.serve();
    let runs = gateway.ring(sample_as("issues.opened", &fresh_id())).await.runs;
    for run in &runs {
        gateway.in_state(run, "running").await;
    }
    let of_stubborn = wait_for("its process", || std::fs::read_to_string(&pid).ok()?.trim().parse::<i32>().ok());
    gateway.kill();
    let gateway = project.serve();
    let still_there = std::path::Path::new(&format!("/proc/{of_stubborn}")).exists();
    let again = |run: String| {
        let client = gateway.client.clone();
        async move {
            wait_until("the second try", async || {
                let detail = client.run(&run).await.unwrap();
                (detail.attempts.len() > 1).then_some(detail)
            })
            .await
        }
    };
    let details = futures_util::future::join_all(runs.into_iter().map(again)).await;
    let of = |agent: &str| details.iter().find(|detail| detail.run.agent == agent).unwrap();
    let (quick, stubborn) =
        (&of("quick").attempts[1].started_at, of("stubborn").attempts[0].ended_at.as_ref().unwrap());
    // On a machine that is slow to start a gateway, nothing may be left by then.
    assert!(!still_there || quick < stubborn, "{quick} {stubborn}");
    std::fs::write(&go, "").unwrap();
}

/// Signed deliveries from 64 connections while the gateway is killed at a random moment, 20 times: what was answered
/// 2xx is there with exactly one outcome an agent, and sending everything again creates nothing that was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_answered_2xx_survives_any_kill() {
    let project = Project::new(ONE_SOURCE);
    for agent in ["one", "two"] {
        project.agent(agent, &format!("scale = 16\n{ANY}"), "true");
    }
    let known: Arc<Mutex<BTreeMap<String, Option<api::Receipt>>>> = Arc::default();
    for round in 0..ROUNDS {
        let gateway = project.serve();
        check(&gateway, &*known.lock().await).await;
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(AtomicUsize::new(0));
        let sender = gateway.sender("/webhooks/github");
        let lanes = (0..CONNECTIONS).map(|_| send_on(&sender, Arc::clone(&stop), Arc::clone(&taken)));
        let load = futures_util::future::join_all(lanes);
        // A random number of accepted deliveries, then a random moment within the handling of the next ones.
        let enough = usize::from(doorbell::clock::random::<1>()[0] / 4) + 1;
        let killing = async {
            wait_until("some deliveries", async || (taken.load(Ordering::Relaxed) >= enough).then_some(())).await;
            gateway.signal(nix::sys::signal::Signal::SIGKILL);
        };
        let (sent, ()) = futures_util::future::join(load, killing).await;
        stop.store(true, Ordering::Relaxed);
        gateway.kill();
        let mut known = known.lock().await;
        known.extend(sent.into_iter().flatten());
        assert!(known.values().flatten().count() > round, "deliveries were taken in round {round}");
    }
    let gateway = project.serve();
    let known = known.lock().await;
    check(&gateway, &known).await;
    redeliver(&gateway, &known).await;
    // Every event has a run an agent, and every run ends.
    all_ended(&gateway).await;
    let stats = gateway.client.stats().await.unwrap();
    assert_eq!(stats.events.unwrap(), known.len() as u64);
    for agent in &stats.agents {
        assert_eq!(agent.succeeded + agent.failed, stats.events.unwrap(), "{agent:?}");
    }
}

/// Waits until all runs have ended: as long as it takes, if they go on ending.
pub async fn all_ended(gateway: &Gateway) {
    let mut left = u64::MAX;
    while left > 0 {
        left = wait_until("another run to end", async || {
            let agents = gateway.client.stats().await.unwrap().agents;
            let now: u64 = agents.iter().map(|agent| agent.queued + agent.running + agent.waiting).sum();
            (now < left).then_some(now)
        })
        .await;
    }
}

/// Everything that was answered 2xx is there, with the outcomes that were answered.
pub async fn check(gateway: &Gateway, known: &BTreeMap<String, Option<api::Receipt>>) {
    let stored = all_events(gateway).await;
    let by_delivery: BTreeMap<&str, &api::Event> =
        stored.iter().map(|event| (event.delivery_id.as_deref().unwrap(), event)).collect();
    assert_eq!(by_delivery.len(), stored.len(), "no delivery is stored twice");
    for (delivery, receipt) in known {
        let Some(receipt) = receipt else { continue };
        let event =
            by_delivery.get(delivery.as_str()).unwrap_or_else(|| panic!("{delivery} was answered 2xx and is lost"));
        assert_eq!(event.id, receipt.delivery_id);
        let agents: Vec<_> = event.outcomes.iter().map(|outcome| outcome.agent.as_str()).collect();
        assert_eq!(agents, ["one", "two"], "one outcome an agent");
        let runs: Vec<_> = event.outcomes.iter().filter_map(|outcome| outcome.run_id.clone()).collect();
        assert_eq!(runs, receipt.runs);
    }
}

/// Sends everything again: what was there is recognised.
pub async fn redeliver(gateway: &Gateway, known: &BTreeMap<String, Option<api::Receipt>>) {
    let before: BTreeMap<String, String> =
        all_events(gateway).await.into_iter().map(|event| (event.delivery_id.unwrap(), event.id)).collect();
    let sender = gateway.sender("/webhooks/github");
    let again = stream::iter(known).for_each_concurrent(CONNECTIONS, async |(delivery, receipt)| {
        let signed = sample_as("issues.opened", delivery);
        let Answer::Receipt(again) = sender.post(&signed.headers, signed.body).await.unwrap().answer else {
            panic!("{delivery} is refused")
        };
        assert_eq!(again.duplicate, before.contains_key(delivery));
        if let Some(receipt) = receipt {
            assert_eq!((&again.delivery_id, &again.runs), (&receipt.delivery_id, &receipt.runs));
        }
    });
    again.await;
}

/// All stored events with their outcomes.
pub async fn all_events(gateway: &Gateway) -> Vec<api::Event> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page =
            gateway.client.events(&EventQuery { cursor, limit: Some(500), ..EventQuery::default() }).await.unwrap();
        all.extend(page.events);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn a_killed_gateway_takes_its_agents_with_it_and_starts_them_again() {
    let project = Project::new(ONE_SOURCE);
    let script = "echo try $DOORBELL_ATTEMPT; test $DOORBELL_ATTEMPT = 1 || exit 0; trap '' TERM; setsid sleep 1000 & sleep 1000";
    project.agent("triage", ANY, script);
    let gateway = project.serve();
    let run = gateway.ring(sample_as("issues.opened", &fresh_id())).await.runs.remove(0);
    wait_for("its processes", || (processes_of(&run).len() >= 3).then_some(()));
    gateway.kill();
    wait_for("the guard to end them", || processes_of(&run).is_empty().then_some(()));
    let gateway = project.serve();
    let done = gateway.finished(&run).await;
    let ended: Vec<_> = done.attempts.iter().map(|attempt| attempt.ended.clone().unwrap()).collect();
    assert_eq!((done.run.state.as_str(), ended), ("succeeded", vec!["lost".to_owned(), "succeeded".to_owned()]));
}

#[tokio::test]
async fn a_lost_run_fails_where_its_agent_says_so() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("{ANY}\n[retries]\non_lost = \"fail\""), "sleep 1000");
    let gateway = project.serve();
    let run = gateway.ring(sample_as("issues.opened", &fresh_id())).await.runs.remove(0);
    gateway.in_state(&run, "running").await;
    gateway.kill();
    let gateway = project.serve();
    let done = gateway.finished(&run).await.run;
    assert_eq!((done.state.as_str(), done.dead_letter), ("failed", true));
    assert!(done.reason.unwrap().contains("the gateway died"));
}
