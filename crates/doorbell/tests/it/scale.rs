//! Scale: very many queued runs of one agent, never more of them at once than it says, and a kill in the middle.
//!
//! `DOORBELL_SCALE_RUNS=10000` plays so many (the tests fewer).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use doorbell_client::{RunQuery, api};
use futures_util::{StreamExt, stream};

use crate::support::{Gateway, ONE_SOURCE, Project, environment_of, pids, sample, wait_for, wait_until};

/// Runs that every test run plays, and of how many of them a lost try is not made up for.
const RUNS: usize = 400;
const ONE_IN: usize = 10;
/// Senders at once.
const SENDERS: usize = 32;
const SCALE: usize = 50;
const FEW: usize = 5;
/// What stands in the journal where everything that had begun is over, also what was killed before it could say so.
const OVER: &str = "=";

/// Two agents whose processes say when they begin and end, in one file: what is written to its end comes in the order in
/// which it happened. One of them is tried again when it is lost, the other one not. Those that begin while there is a file
/// `hold` stay until they are killed: however slow the machine is, so many are there at once.
fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    let [file, hold] = ["journal", "hold"].map(|name| project.path(name).display().to_string());
    // The shell's own `echo` is one write. The end is told on SIGTERM too, which is how a killed gateway's guard ends it.
    let script = format!(
        "me=\"$DOORBELL_AGENT $DOORBELL_RUN_ID $DOORBELL_ATTEMPT\"; trap 'echo \"- $me\" >> {file}; exit 1' TERM\n\
         echo \"+ $me\" >> {file}; if [ -e {hold} ]; then sleep 600; else sleep 0.1; fi; trap '' TERM; echo \"- $me\" >> {file}"
    );
    let config = |event: &str, scale: usize, on_lost: &str| {
        format!(
            "scale = {scale}\nwhen_full = \"grow\"\n[[webhooks]]\nsource = \"acme\"\nevents = [\"{event}\"]\n\
             [retries]\non_lost = \"{on_lost}\""
        )
    };
    project.agent("again", &config("issues", SCALE, "retry"), &script);
    project.agent("once", &config("pull_request", FEW, "fail"), &script);
    project
}

/// How many runs of an agent had begun and not ended, at most, and the tries of each that began.
fn most_at_once(project: &Project, agent: &str) -> (usize, BTreeMap<String, BTreeSet<String>>) {
    let journal = project.read("journal");
    let (mut live, mut most, mut tries) = (BTreeSet::new(), 0, BTreeMap::<_, BTreeSet<_>>::new());
    for line in journal.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [sign, of, run, attempt] = words[..] else { panic!("{line:?}") };
        if sign == OVER {
            live.clear();
        }
        if of != agent {
            continue;
        }
        if sign == "-" {
            live.remove(run);
            continue;
        }
        // A further try begins when nothing of the one before is left.
        live.insert(run);
        let first = tries.entry(run.to_owned()).or_default().insert(attempt.to_owned());
        assert!(first, "attempt {attempt} of {run} began twice");
        most = most.max(live.len());
    }
    (most, tries)
}

/// Runs of an agent of this project that have a process now.
fn running_now(root: &Path, agent: &str) -> usize {
    let (of_agent, here) = (format!("DOORBELL_AGENT={agent}"), root.display().to_string());
    let runs = pids().filter_map(|pid| {
        let environment = environment_of(pid);
        let find = |prefix: &str| {
            let entry = environment.iter().find(|entry| entry.starts_with(prefix.as_bytes()))?;
            Some(String::from_utf8_lossy(entry).into_owned())
        };
        let is_here = find("DOORBELL_EVENT_FILE=")?.contains(&here) && find("DOORBELL_AGENT=")? == of_agent;
        if is_here { find("DOORBELL_RUN_ID=") } else { None }
    });
    runs.collect::<BTreeSet<_>>().len()
}

/// Ends a watch, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts processes all the time, as anybody else could, until it is told that it is over. The most there were at once.
fn watch(root: &Path, over: &AtomicBool) -> usize {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        most = most.max(running_now(root, "again"));
        std::thread::sleep(std::time::Duration::from_millis(100)); // tidy: allow sleep: between two looks
    }
    most
}

async fn runs_of(gateway: &Gateway, agent: &str) -> Vec<api::Run> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let query = RunQuery { agent: Some(agent.to_owned()), cursor, limit: Some(500), ..RunQuery::default() };
        let page = gateway.client.runs(&query).await.unwrap();
        found.extend(page.runs);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

async fn finished(gateway: &Gateway) -> usize {
    let agents = gateway.client.stats().await.unwrap().agents;
    agents.iter().map(|agent| (agent.succeeded + agent.failed) as usize).sum()
}

async fn unfinished(gateway: &Gateway) -> usize {
    let agents = gateway.client.stats().await.unwrap().agents;
    agents.iter().map(|agent| (agent.queued + agent.waiting + agent.running) as usize).sum()
}

/// Waits until nothing is left, for each further step as long as for anything else: however many there are.
async fn go_on_until(what: &str, left: impl AsyncFn() -> usize) {
    let mut before = left().await;
    while before > 0 {
        before = wait_until(what, async || Some(left().await).filter(|now| *now < before)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queued_runs_end_under_the_scale_and_a_kill_loses_none_and_repeats_no_more_than_what_ran() {
    #[expect(clippy::disallowed_methods, reason = "whoever starts the tests says how many")]
    let given = std::env::var("DOORBELL_SCALE_RUNS").ok().and_then(|runs| runs.parse().ok());
    let count: usize = given.unwrap_or(RUNS);
    let project = project();
    let gateway = project.serve();
    let answered = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let (receipts, gateway, most_seen) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(project.root(), &over));
        let over = Over(&over);
        let played = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let deliver = |n| {
                    let event = if n % ONE_IN == 0 { "pull_request.opened" } else { "issues.opened" };
                    let answer = gateway.ring(sample(event));
                    async {
                        let receipt = answer.await;
                        answered.fetch_add(1, Ordering::Relaxed);
                        receipt
                    }
                };
                let deliver_all =
                    async |these| stream::iter(these).map(deliver).buffer_unordered(SENDERS).collect::<Vec<_>>().await;
                // In the middle: some are done, as many as may be run, most of them wait. The second half comes when those that
                // begin stay, so that there are as many, however late this is seen.
                let middle = async {
                    go_on_until("a third to be done", async || (count / 3).saturating_sub(finished(&gateway).await))
                        .await;
                    project.write("hold", "");
                };
                let (mut receipts, ()) = tokio::join!(deliver_all(0..count / 2), middle);
                receipts.extend(deliver_all(count / 2..count).await);
                wait_for("as many as may to run", || (running_now(project.root(), "again") == SCALE).then_some(()));
                std::fs::remove_file(project.path("hold")).unwrap();
                gateway.kill();
                let left = || running_now(project.root(), "again") + running_now(project.root(), "once");
                wait_for("the guard to end what runs", || (left() == 0).then_some(()));
                project.write("journal", &format!("{}{OVER} all 0 0\n", project.read("journal")));
                let gateway = project.serve();
                go_on_until("all to end", async || unfinished(&gateway).await).await;
                (receipts, gateway)
            })
        });
        drop(over);
        (played.0, played.1, watching.join().unwrap())
    });
    assert_eq!(answered.load(Ordering::Relaxed), count);
    check(&project, &gateway, &receipts, most_seen).await;
}

async fn check(project: &Project, gateway: &Gateway, receipts: &[api::Receipt], most_seen: usize) {
    let answered: BTreeSet<&String> = receipts.iter().flat_map(|receipt| &receipt.runs).collect();
    assert_eq!(answered.len(), receipts.len(), "each delivery started one run");
    let (again, once) = (runs_of(gateway, "again").await, runs_of(gateway, "once").await);
    let stored: BTreeSet<&String> = again.iter().chain(&once).map(|run| &run.id).collect();
    assert_eq!(stored, answered, "none is lost, and none is there that nobody was told of");

    let (most, tries) = most_at_once(project, "again");
    assert_eq!((most, most_seen <= SCALE), (SCALE, true), "never more than {SCALE}; {most_seen} were seen");
    let mut repeated = 0;
    for run in &again {
        assert_eq!(run.state, "succeeded", "{run:?}");
        let begun = tries.get(&run.id).map_or(0, BTreeSet::len);
        // A try may have been lost before its process could say that it began.
        assert!(begun >= 1 && begun <= run.attempt as usize && run.attempt <= 2, "{begun}: {run:?}");
        repeated += usize::from(run.attempt > 1);
    }
    assert!((1..=SCALE).contains(&repeated), "{repeated} were tried again");

    let (most, tries) = most_at_once(project, "once");
    assert!(most <= FEW, "{most}");
    let mut lost = 0;
    for run in &once {
        assert_eq!(run.attempt, 1, "what is not to be tried again is tried once: {run:?}");
        assert!(tries.get(&run.id).map_or(0, BTreeSet::len) <= 1);
        match run.state.as_str() {
            "succeeded" => assert!(tries.contains_key(&run.id)),
            "failed" => lost += 1,
            other => panic!("{other}: {run:?}"),
        }
    }
    assert!(lost <= FEW, "{lost} were lost");
}
