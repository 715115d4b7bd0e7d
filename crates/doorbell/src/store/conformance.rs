//! What every store guarantees, written once against the trait and run against each store.
//!
//! A guarantee is an `async fn` whose name says it. `every_store_keeps` makes a test of it for each store; one that is
//! not handed to it is never used, and so does not compile without a warning.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::id::{EventId, RunId};
use doorbell_core::run::{Progress, State, Transition};
use doorbell_core::time::Timestamp;

use super::{
    Acceptance, Accepted, Admission, AgentOutcome, Claim, Claimed, Effects, Finish, Lease, NewEvent, OutcomeKind,
    RunQuery, SqliteStore, Standing, Start, Store, StoredRun,
};

/// Makes a test of each guarantee for each store.
macro_rules! every_store_keeps {
    ($($guarantee:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $guarantee() {
                    crate::store::conformance::on_sqlite(super::$guarantee).await;
                }
            )+
        }
    };
}

mod accepting;
mod duplicates;
mod flow;
mod gathering;
mod going_on;
mod history;
mod missing;
mod once;
mod paused;
mod put_back;
mod queues;
mod rates;
mod records;
mod running;
mod search;
mod subscriptions;
mod waits;
mod webhooks;

async fn on_sqlite<F: Future<Output = ()>>(guarantee: impl FnOnce(Arc<dyn Store>) -> F) {
    let folder = tempfile::tempdir().unwrap();
    guarantee(Arc::new(SqliteStore::open(&folder.path().join("doorbell.db")).await.unwrap())).await;
}

/// When the tests take place.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

/// The id of event `n`, or of run `n`.
pub(super) fn event_id(n: u32) -> EventId {
    EventId::new(at(0), numbered(n))
}

pub(super) fn run_id(n: u32) -> RunId {
    RunId::new(at(0), numbered(n))
}

fn numbered(n: u32) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[6..].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(super) fn lease(n: u8) -> Lease {
    Lease([n; 16])
}

/// Event `n`, which starts nothing: a delivery of its own, at second `n`.
pub(super) fn event(n: u32) -> NewEvent {
    NewEvent {
        id: event_id(n),
        source: "acme-github".to_owned(),
        provider: "github".to_owned(),
        event: "issues".to_owned(),
        action: Some("opened".to_owned()),
        delivery_keys: vec![format!("delivery-{n}")],
        delivery_id: Some(format!("delivery-{n}")),
        verified_by: Some("acme".to_owned()),
        received_at: at(i64::from(n)),
        handshake: false,
        context: r#"{"title":"it broke"}"#.to_owned(),
        headers: r#"{"x-github-event":"issues"}"#.to_owned(),
        body: Bytes::from(format!("body {n}")),
        trigger_set: 1,
        trace: None,
        replay: None,
        only_missing: false,
        room: None,
        paused: None,
        starts: Vec::new(),
    }
}

/// Agents of the configuration whose runs go on.
pub(super) fn active(agents: &[&str]) -> Vec<(String, Standing)> {
    agents.iter().map(|agent| ((*agent).to_owned(), Standing::Active)).collect()
}

/// That `agent` is to be started with run `n`.
pub(super) fn start(agent: &str, n: u32, admission: Admission) -> Start {
    Start { agent: agent.to_owned(), trigger: 0, run: run_id(n), key: None, flow: None, admission }
}

/// Event `n`, which starts `agent` with run `n`.
pub(super) fn starting(agent: &str, n: u32) -> NewEvent {
    NewEvent { starts: vec![start(agent, n, Admission::Grow)], ..event(n) }
}

pub(super) async fn accept(store: &dyn Store, event: NewEvent) -> Accepted {
    accept_all(store, vec![event]).await.remove(0)
}

pub(super) async fn accept_all(store: &dyn Store, events: Vec<NewEvent>) -> Vec<Accepted> {
    match store.accept(events).await.unwrap() {
        Acceptance::Stored(accepted) => accepted,
        Acceptance::QueueFull(agents) => panic!("refused by {agents:?}"),
    }
}

/// Claims as many runs as there are leases, for ten minutes.
pub(super) async fn claim(store: &dyn Store, agent: &str, leases: &[Lease]) -> Vec<Claimed> {
    let claim = Claim {
        agent: agent.to_owned(),
        leases: leases.to_vec(),
        until: at(600),
        now: at(100),
        most_running: None,
        worker: None,
    };
    store.claim(claim).await.unwrap().claimed
}

/// Ends a try; the run goes to `state`, and if it waits, until second 300.
pub(super) fn finish(run: RunId, lease: Lease, state: State) -> Finish {
    Finish {
        run,
        lease,
        at: at(200),
        ended: "failed".to_owned(),
        exit_code: Some(1),
        transition: Transition {
            state,
            due: (state == State::Waiting).then(|| at(300)),
            dead_letter: state == State::Failed,
            progress: Progress { failures: 1, losses: 0 },
            reason: "exit 1".to_owned(),
            wait: None,
        },
        result: None,
        in_time: false,
    }
}

pub(super) async fn run(store: &dyn Store, n: u32) -> StoredRun {
    store.run(run_id(n)).await.unwrap().unwrap().0
}

pub(super) async fn state(store: &dyn Store, n: u32) -> State {
    run(store, n).await.state
}

/// Agent, kind and run of outcomes.
pub(super) fn brief(outcomes: &[AgentOutcome]) -> Vec<(&str, OutcomeKind, Option<RunId>)> {
    outcomes.iter().map(|outcome| (outcome.agent.as_str(), outcome.kind, outcome.run)).collect()
}
