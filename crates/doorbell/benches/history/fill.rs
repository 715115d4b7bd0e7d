//! Fills a database with a history: events of the last 60 days, their runs over, logs and results kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell::clock;
use doorbell::store::{self, Acceptance, Admission, Claim, Finish, Lease, LogLine, NewEvent, Start, Store, Stream};
use doorbell_core::id::{EventId, RunId};
use doorbell_core::provider::Provider;
use doorbell_core::provider::github::Github;
use doorbell_core::run::{Progress, State, Transition};
use doorbell_core::time::Timestamp;
use serde_json::{Value, json};

/// How far back it goes.
pub const DAYS: u32 = 60;
/// Bytes of a body.
const BODY: usize = 8 * 1024;
/// Events stored together.
const WAVE: usize = 512;
/// Newest runs that are left to wait.
const WAITING: u64 = 1000;
const ID: &str = "@DELIVERY@";
/// What happens, and which agent it starts; every tenth event starts none.
pub const KINDS: [(&str, &str, &str); 3] =
    [("issues", "opened", "triage"), ("pull_request", "opened", "review"), ("push", "", "deploy")];

/// Stores so many events through the store's own verbs, in batches as many senders at once make them, and ends their
/// runs. HTTP and signatures are left out: they would take most of the time and leave nothing behind.
pub async fn fill(root: &Path, events: u64, mut progress: impl FnMut(u64)) {
    let store = store::open("sqlite:.doorbell/doorbell.db", root).await.unwrap();
    let bodies = bodies();
    let (now, span) = (clock::now(), Duration::from_secs(u64::from(DAYS) * 24 * 60 * 60));
    let mut made = 0;
    while made < events {
        let count = WAVE.min(usize::try_from(events - made).unwrap());
        let wave: Vec<NewEvent> = (0..count as u64)
            .map(|n| {
                let age = span.mul_f64((events - made - n) as f64 / events as f64);
                event(made + n, now.before(age), &bodies)
            })
            .collect();
        let runs: Vec<RunId> = wave.iter().flat_map(|event| &event.starts).map(|start| start.run).collect();
        let at = wave[0].received_at;
        let stored = wave.into_iter().map(|event| store.accept(vec![event]));
        for answer in futures_util::future::join_all(stored).await {
            assert!(matches!(answer.unwrap(), Acceptance::Stored(accepted) if !accepted[0].duplicate));
        }
        made += count as u64;
        if made + WAITING < events {
            end(&store, runs.len(), at).await;
        }
        progress(made);
    }
}

/// 8 KiB bodies as GitHub sends them, of each kind.
fn bodies() -> Vec<Vec<String>> {
    let text = "Steps to reproduce, what was expected and what came instead, as people write them. ";
    let body = |name: &str, number: u32| {
        let named = |sample: &&doorbell_core::provider::Sample| sample.event.split('.').next() == Some(name);
        let sample = Github.samples().iter().find(named).unwrap_or(&Github.samples()[0]);
        let mut body: Value = serde_json::from_str(&sample.body).unwrap();
        body["delivered"] = json!(ID);
        body["number"] = json!(number + 1000);
        let missing = BODY.saturating_sub(body.to_string().len());
        body["text"] = json!(text.repeat(1 + missing / text.len())[..missing.max(1)].to_owned());
        body.to_string()
    };
    KINDS.iter().map(|(name, ..)| (0..256).map(|number| body(name, number)).collect()).collect()
}

fn event(n: u64, received_at: Timestamp, bodies: &[Vec<String>]) -> NewEvent {
    let kind = usize::try_from(n % KINDS.len() as u64).unwrap();
    let (name, action, agent) = KINDS[kind];
    let id = EventId::new(received_at, clock::random());
    let delivery = id.to_string();
    let body = bodies[kind][usize::try_from(n / 3 % 256).unwrap()].replace(ID, &delivery);
    let run = RunId::new(received_at, clock::random());
    let start = Start { agent: agent.to_owned(), trigger: 0, run, key: None, flow: None, admission: Admission::Grow };
    let context = json!({"event": name, "action": action, "repo": "acme/app", "owner": "acme", "number": n,
        "title": format!("Report {n}: it fails on the {n}th try"), "author": "octocat", "sender": "octocat",
        "labels": ["bug", "area-api"], "url": format!("https://github.com/acme/app/issues/{n}")});
    NewEvent {
        trace: None,
        replay: None,
        only_missing: false,
        room: None,
        paused: None,
        id,
        source: "bench".to_owned(),
        provider: "github".to_owned(),
        event: name.to_owned(),
        action: (!action.is_empty()).then(|| action.to_owned()),
        delivery_keys: vec![format!("id:{delivery}")],
        headers: json!({"x-github-event": name, "x-github-delivery": delivery, "content-type": "application/json",
            "user-agent": "GitHub-Hookshot/0123456", "accept": "*/*"})
        .to_string(),
        delivery_id: Some(delivery),
        verified_by: Some("bench".to_owned()),
        received_at,
        handshake: false,
        context: context.to_string(),
        body: Bytes::from(body),
        trigger_set: 1,
        starts: if n % 10 == 9 { Vec::new() } else { vec![start] },
    }
}

/// Carries out what is queued, as agents would: a try, some lines, an end; one in twenty fails.
async fn end(store: &Arc<dyn Store>, runs: usize, now: Timestamp) {
    for (_, _, agent) in KINDS {
        let leases = (0..runs).map(|_| Lease(clock::random())).collect();
        let claim = Claim {
            agent: agent.to_owned(),
            leases,
            until: now.after(Duration::from_secs(30)),
            now,
            most_running: None,
            worker: None,
        };
        let claimed = store.claim(claim).await.unwrap().claimed;
        let ends = claimed.into_iter().map(|claimed| async move {
            let line = |n: u32| LogLine {
                at: now,
                attempt: 1,
                stream: Stream::Stdout,
                text: format!("step {n}: looked at what was reported and wrote down what is missing"),
            };
            store.append_log(claimed.run.id, (0..8).map(line).collect()).await.unwrap();
            let failed = claimed.run.seq % 20 == 0;
            let transition = Transition {
                state: if failed { State::Failed } else { State::Succeeded },
                due: None,
                dead_letter: failed,
                progress: Progress { failures: u32::from(failed), losses: 0 },
                reason: if failed { "exit code 1".to_owned() } else { "exit code 0".to_owned() },
                wait: None,
            };
            let finish = Finish {
                run: claimed.run.id,
                lease: claimed.lease,
                at: now.after(Duration::from_secs(20)),
                ended: if failed { "failed" } else { "succeeded" }.to_owned(),
                exit_code: Some(i32::from(failed)),
                transition,
                result: Some(json!({"labels": ["bug"], "comment": "asked for the version"}).to_string()),
                in_time: false,
            };
            assert!(store.finish(finish).await.unwrap());
        });
        futures_util::future::join_all(ends).await;
    }
}
