//! The group commit against a model that does one thing after the other: whatever shares a commit, and whatever fails
//! in it, everybody sees what they would have seen alone; also after the store was closed and opened again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use doorbell_core::id::RunId;
use doorbell_core::run::State;
use futures_util::future::{LocalBoxFuture, join_all};
use proptest::collection::vec;
use proptest::prelude::*;

use rusqlite::ffi;

use super::Place;
use crate::store::conformance::{at, brief, event, event_id, finish, lease, run_id, start};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::fault::Fault;
use crate::store::{Acceptance, Admission, Cancel, Claim, NewEvent, OutcomeKind, Store};

const AGENTS: [&str; 3] = ["drops", "grows", "rejects"];

fn admission(agent: &str) -> Admission {
    match agent {
        "drops" => Admission::DropOldest(2),
        "rejects" => Admission::Reject(2),
        _ => Admission::Grow,
    }
}

/// What somebody asks for; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Ask {
    Accept {
        key: u8,
        agents: Vec<usize>,
    },
    /// An event whose id is taken, which fails.
    Clash {
        key: u8,
    },
    Claim {
        agent: usize,
        count: u8,
    },
    Finish {
        run: usize,
        next: State,
        stale: bool,
    },
    Cancel {
        run: usize,
    },
    Release,
    /// An operation that changes everything and then fails.
    Fail(How),
}

/// How an operation fails after it began.
#[derive(Debug, Clone, Copy)]
enum How {
    /// A row is not what it should be.
    Corrupt,
    /// It panics.
    Panic,
    /// The disk does not answer, which costs the connection.
    Disk,
}

fn asks() -> impl Strategy<Value = Ask> {
    let next = prop_oneof![Just(State::Succeeded), Just(State::Queued), Just(State::Waiting), Just(State::Failed)];
    let agents = proptest::sample::subsequence(vec![0usize, 1, 2], 0..=3);
    prop_oneof![
        6 => (0u8..12, agents).prop_map(|(key, agents)| Ask::Accept { key, agents }),
        1 => (0u8..12).prop_map(|key| Ask::Clash { key }),
        3 => (0usize..3, 0u8..4).prop_map(|(agent, count)| Ask::Claim { agent, count }),
        3 => (any::<usize>(), next, any::<bool>()).prop_map(|(run, next, stale)| Ask::Finish { run, next, stale }),
        1 => any::<usize>().prop_map(|run| Ask::Cancel { run }),
        1 => Just(Ask::Release),
        1 => prop_oneof![Just(How::Corrupt), Just(How::Panic), Just(How::Disk)].prop_map(Ask::Fail),
    ]
}

/// What was answered.
#[derive(Debug, PartialEq)]
enum Seen {
    Stored { event: u32, duplicate: bool, outcomes: Vec<(String, OutcomeKind, Option<RunId>)>, queued: Vec<String> },
    Full(Vec<String>),
    Failed,
    Claimed(Vec<RunId>),
    Finished(bool),
    Cancelled(Cancel),
    Released(Vec<String>),
}

#[derive(Debug)]
struct Run {
    agent: &'static str,
    event: u32,
    state: State,
    attempt: u32,
    lease: u8,
    cancel: bool,
}

/// Runs are numbered by their ids, in the order in which they were made; events likewise.
#[derive(Debug, Default)]
struct Model {
    keys: HashMap<u8, u32>,
    outcomes: BTreeMap<u32, BTreeMap<&'static str, (OutcomeKind, Option<u32>)>>,
    runs: BTreeMap<u32, Run>,
    numbers: u32,
    leases: u8,
}

impl Model {
    fn queued(&self, agent: &str, fresh_only: bool) -> Vec<u32> {
        let queued = |run: &Run| run.agent == agent && run.state == State::Queued && !(fresh_only && run.attempt > 0);
        self.runs.iter().filter(|(_, run)| queued(run)).map(|(n, _)| *n).collect()
    }

    fn accept(&mut self, key: u8, agents: &[usize], first: u32) -> Seen {
        let known = self.keys.get(&key).copied();
        let event = known.unwrap_or(first);
        let outcomes = self.outcomes.get(&event).cloned().unwrap_or_default();
        let wanted: Vec<(&str, u32)> = agents
            .iter()
            .zip(first..)
            .map(|(i, n)| (AGENTS[*i], n))
            .filter(|(a, _)| !outcomes.contains_key(a))
            .collect();
        let refuses = |agent: &str| agent == "rejects" && self.queued(agent, true).len() >= 2;
        if !wanted.is_empty() && wanted.iter().all(|(agent, _)| refuses(agent)) {
            return Seen::Full(wanted.into_iter().map(|(agent, _)| agent.to_owned()).collect());
        }
        self.keys.insert(key, event);
        self.outcomes.entry(event).or_default();
        let mut queued = Vec::new();
        for (agent, n) in wanted {
            let refused = agent == "rejects" && self.queued(agent, true).len() >= 2;
            let outcome = if refused { (OutcomeKind::Dropped, None) } else { (OutcomeKind::Started, Some(n)) };
            self.outcomes.entry(event).or_default().insert(agent, outcome);
            if refused {
                continue;
            }
            queued.push(agent.to_owned());
            self.runs.insert(n, Run { agent, event, state: State::Queued, attempt: 0, lease: 0, cancel: false });
            if agent == "drops" {
                self.drop_beyond_two(agent);
            }
        }
        Seen::Stored { event, duplicate: known.is_some(), outcomes: self.seen_outcomes(event), queued }
    }

    fn drop_beyond_two(&mut self, agent: &'static str) {
        let queued = self.queued(agent, true);
        for n in &queued[..queued.len().saturating_sub(2)] {
            if let Some(run) = self.runs.get_mut(n) {
                run.state = State::Dropped;
                let of_event = self.outcomes.entry(run.event).or_default();
                of_event.insert(agent, (OutcomeKind::Dropped, Some(*n)));
            }
        }
    }

    fn seen_outcomes(&self, event: u32) -> Vec<(String, OutcomeKind, Option<RunId>)> {
        let seen =
            |(agent, (kind, run)): (&&str, &(OutcomeKind, Option<u32>))| ((*agent).to_owned(), *kind, run.map(run_id));
        self.outcomes[&event].iter().map(seen).collect()
    }

    /// What is asked for in the end, and what must be seen.
    fn step<'a>(&mut self, ask: &Ask, store: &'a SqliteStore) -> (LocalBoxFuture<'a, Seen>, Seen) {
        match ask {
            Ask::Accept { key, agents } => {
                let first = self.numbers + 1;
                self.numbers += 3;
                let starts = agents.iter().zip(first..).map(|(i, n)| start(AGENTS[*i], n, admission(AGENTS[*i])));
                let starts = starts.collect();
                let new = NewEvent { delivery_keys: vec![format!("key {key}")], starts, ..event(first) };
                (Box::pin(accepted(store, new)), self.accept(*key, agents, first))
            }
            Ask::Clash { key } => {
                let taken = self.outcomes.keys().next().copied();
                self.numbers += 3;
                let n = taken.unwrap_or(self.numbers);
                let new = NewEvent { delivery_keys: vec![format!("key {key}")], id: event_id(n), ..event(n) };
                let fails = taken.is_some() && !self.keys.contains_key(key);
                let seen = if fails { Seen::Failed } else { self.accept(*key, &[], n) };
                (Box::pin(accepted(store, new)), seen)
            }
            Ask::Claim { agent, count } => self.claim(AGENTS[*agent], *count, store),
            Ask::Finish { run, next, stale } => self.finish(*run, *next, *stale, store),
            Ask::Cancel { run } => {
                let n = self.pick(*run);
                let seen = self.cancel(n);
                (
                    Box::pin(async move {
                        Seen::Cancelled(store.cancel(run_id(n), "ann".to_owned(), at(1)).await.unwrap())
                    }),
                    seen,
                )
            }
            Ask::Release => {
                let waiting = self.runs.values_mut().filter(|run| run.state == State::Waiting);
                let agents: BTreeSet<&str> = waiting
                    .map(|run| {
                        run.state = State::Queued;
                        run.agent
                    })
                    .collect();
                let seen = Seen::Released(agents.into_iter().map(str::to_owned).collect());
                (Box::pin(async move { Seen::Released(store.release_due(at(1000)).await.unwrap().agents) }), seen)
            }
            Ask::Fail(how) => (Box::pin(fail(store, *how)), Seen::Failed),
        }
    }

    /// Some run, or one that is not there.
    fn pick(&self, choice: usize) -> u32 {
        let runs: Vec<u32> = self.runs.keys().copied().collect();
        if runs.is_empty() { 0 } else { runs[choice % runs.len()] }
    }

    fn claim<'a>(&mut self, agent: &'static str, count: u8, store: &'a dyn Store) -> (LocalBoxFuture<'a, Seen>, Seen) {
        let leases: Vec<u8> = (0..count).map(|k| self.leases.wrapping_add(k + 1)).collect();
        self.leases = self.leases.wrapping_add(count);
        let mut seen = Vec::new();
        for (n, lease) in self.queued(agent, false).into_iter().zip(&leases) {
            if let Some(run) = self.runs.get_mut(&n) {
                (run.state, run.attempt, run.lease) = (State::Running, run.attempt + 1, *lease);
            }
            seen.push(run_id(n));
        }
        let leases = leases.into_iter().map(lease).collect();
        let claim =
            Claim { agent: agent.to_owned(), leases, until: at(600), now: at(100), most_running: None, worker: None };
        let claimed = async move {
            let taken = store.claim(claim).await.unwrap();
            Seen::Claimed(taken.claimed.into_iter().map(|claimed| claimed.run.id).collect())
        };
        (Box::pin(claimed), Seen::Claimed(seen))
    }

    fn finish<'a>(
        &mut self,
        choice: usize,
        next: State,
        stale: bool,
        store: &'a dyn Store,
    ) -> (LocalBoxFuture<'a, Seen>, Seen) {
        let n = self.pick(choice);
        let held = self.runs.get(&n).map_or(0, |run| run.lease).wrapping_add(u8::from(stale));
        let mut done = false;
        if let Some(run) = self.runs.get_mut(&n)
            && run.state == State::Running
            && !stale
        {
            run.state = if run.cancel && !next.is_final() { State::Cancelled } else { next };
            done = true;
        }
        let finish = finish(run_id(n), lease(held), next);
        (Box::pin(async move { Seen::Finished(store.finish(finish).await.unwrap()) }), Seen::Finished(done))
    }

    fn cancel(&mut self, n: u32) -> Seen {
        Seen::Cancelled(match self.runs.get_mut(&n) {
            None => Cancel::Unknown,
            Some(run) if run.state.is_final() => Cancel::AlreadyFinal(run.state),
            Some(run) if run.state == State::Running => {
                run.cancel = true;
                Cancel::Requested
            }
            Some(run) => {
                run.state = State::Cancelled;
                Cancel::Cancelled
            }
        })
    }
}

/// Does what no transaction may leave behind, and fails.
async fn fail(store: &SqliteStore, how: How) -> Seen {
    let failed = store.writer.write(move |work| {
        work.sql.execute_batch(
            "DELETE FROM events; DELETE FROM runs; UPDATE outcomes SET kind = 2, run_seq = NULL; \
             DELETE FROM claimed_keys;",
        )?;
        (work.memory.next_event, work.memory.next_run) = (Some(1), Some(1));
        work.memory.fresh.insert("rejects".to_owned(), 99);
        match how {
            How::Corrupt => Err::<(), _>(Fault::Corrupt("a row".to_owned())),
            // Without the message that a panic has.
            How::Panic => std::panic::resume_unwind(Box::new("in the middle")),
            How::Disk => Err(Fault::Sql(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None))),
        }
    });
    if failed.await.is_err() { Seen::Failed } else { Seen::Finished(true) }
}

async fn accepted(store: &dyn Store, new: NewEvent) -> Seen {
    match store.accept(vec![new]).await {
        Err(_) => Seen::Failed,
        Ok(Acceptance::QueueFull(agents)) => Seen::Full(agents),
        Ok(Acceptance::Stored(mut accepted)) => {
            let accepted = accepted.remove(0);
            let outcomes =
                brief(&accepted.outcomes).into_iter().map(|(agent, kind, run)| (agent.to_owned(), kind, run));
            let event = (0..).find(|n| event_id(*n) == accepted.event).unwrap();
            Seen::Stored { event, duplicate: accepted.duplicate, outcomes: outcomes.collect(), queued: accepted.queued }
        }
    }
}

/// Runs by agent and state, counted one by one: those that are not over, and those that are.
async fn counted(store: &dyn Store) -> (Vec<Counted>, Vec<Counted>) {
    let runs = sorted(store.stats().await.unwrap().runs);
    runs.into_iter().partition(|(_, state, _)| !state.is_final())
}

type Counted = (String, State, u64);

fn sorted(mut counts: Vec<Counted>) -> Vec<Counted> {
    counts.sort_by_key(|(agent, state, _)| (agent.clone(), state.as_str()));
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn whatever_shares_a_commit_is_as_if_alone(bursts in vec((vec(asks(), 1..20), any::<bool>()), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let mut store = place.open().await;
            let mut model = Model::default();
            for (burst, reopen) in &bursts {
                let (asked, expected): (Vec<_>, Vec<_>) = burst.iter().map(|ask| model.step(ask, &store)).unzip();
                // Handed in one after the other, committed together as it happens.
                prop_assert_eq!(join_all(asked).await, expected);
                if *reopen {
                    drop(store);
                    store = place.open().await;
                }
            }
            let (now, ended) = counted(&store).await;
            let tallies = store.tallies().await.unwrap();
            prop_assert_eq!(sorted(tallies.runs), now.clone());
            // What ended is counted since the connection was opened, and one that could not write is opened again.
            let breaks = |ask: &Ask| matches!(ask, Ask::Fail(How::Disk));
            if bursts.iter().all(|(burst, reopen)| !reopen && !burst.iter().any(breaks)) {
                prop_assert_eq!(sorted(tallies.ended), ended);
            }
            drop(store);
            let store = place.open().await;
            let again = store.tallies().await.unwrap();
            prop_assert_eq!((sorted(again.runs), again.ended), (now, Vec::new()), "counted anew");
            for (n, run) in &model.runs {
                let stored = store.run(run_id(*n)).await.unwrap().unwrap().0;
                let expected = (run.state, run.attempt, event_id(run.event));
                prop_assert_eq!((stored.state, stored.attempt, stored.event), expected);
            }
            for event in model.outcomes.keys() {
                let stored = store.outcomes(event_id(*event)).await.unwrap();
                let stored = brief(&stored).into_iter().map(|(agent, kind, run)| (agent.to_owned(), kind, run));
                prop_assert_eq!(stored.collect::<Vec<_>>(), model.seen_outcomes(*event));
            }
            Ok(())
        })?;
    }
}
