//! The desks: each agent has one, where its runs are taken under its `scale`, as it is configured at that moment.
//!
//! A desk stays when its agent is removed from the configuration, so that what still runs counts when it is back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_core::id::RunId;
use tokio::sync::Notify;

use super::breaker::{Breaker, Change, Leave, Sign};
use super::{Dispatcher, LEASE, POLL};
use crate::app::Snapshot;
use crate::clock;
use crate::config::{Agent, Runtime};
use crate::store::{Claim, Claimed, Error, Lease};

/// Runs taken in one go.
const MOST_CLAIMED: usize = 16;

/// The desks of all agents that there were since the start.
#[derive(Debug, Default)]
pub(super) struct Desks {
    open: Mutex<HashMap<String, Arc<Desk>>>,
    /// Runs may be queued for agents that are not in the configuration.
    unsettled: Notify,
}

#[derive(Debug, Default)]
struct Desk {
    bell: Notify,
    running: AtomicUsize,
    breaker: Breaker,
}

/// The place of a run at its desk, given back when it is dropped.
struct Place(Arc<Desk>);

impl Place {
    fn take(desk: &Arc<Desk>) -> Self {
        desk.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(desk))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.bell.notify_one();
    }
}

impl Desks {
    /// Tells that an agent has queued runs. Those of an agent that is paused or was removed meanwhile are to be held.
    pub(super) fn ring(&self, in_force: &Snapshot, agent: &str, is_paused: bool) {
        if !in_force.config.agents.contains_key(agent) || is_paused {
            self.unsettled.notify_one();
        }
        if let Some(desk) = self.open().get(agent) {
            desk.bell.notify_one();
        }
    }

    /// Why an agent's URL is not asked, if it is not.
    pub(super) fn breaker(&self, agent: &str) -> Option<String> {
        self.open().get(agent).and_then(|desk| desk.breaker.reason())
    }

    fn ring_all(&self) {
        self.open().values().for_each(|desk| desk.bell.notify_one());
    }

    /// A desk for an agent that has none yet.
    fn set_up(&self, agent: &str) -> Option<Arc<Desk>> {
        let mut open = self.open();
        if open.contains_key(agent) {
            return None;
        }
        let desk = Arc::<Desk>::default();
        open.insert(agent.to_owned(), Arc::clone(&desk));
        Some(desk)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Desk>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dispatcher {
    /// Opens a desk for each agent that there is, and holds the runs of those that are gone until they are back.
    pub(super) async fn follow_configuration(self: Arc<Self>) {
        let mut configuration = self.app.in_force.follow();
        loop {
            let in_force = Arc::clone(&configuration.borrow_and_update());
            for name in in_force.config.agents.keys() {
                if let Some(desk) = self.desks.set_up(name) {
                    let (this, name) = (Arc::clone(&self), name.clone());
                    self.takers.spawn(async move { this.serve_desk(name, desk).await });
                }
            }
            // Before the runs are settled: an agent that grew need not wait for that.
            self.desks.ring_all();
            // Sources first: what is given back may be of an agent that is paused.
            if let Err(error) = self.settle_sources().await {
                tracing::error!(error = error.with_causes(), "sources.settle_failed");
            }
            match self.settle_agents().await {
                Ok(superseded) => self.tell_of_all(&superseded),
                Err(error) => tracing::error!(error = error.with_causes(), "agents.settle_failed"),
            }
            self.desks.ring_all();
            self.bells.ring_all();
            drop(in_force);
            loop {
                tokio::select! {
                    () = self.closing.cancelled() => return,
                    // The sender lives as long as the app.
                    _ = configuration.changed() => break,
                    () = self.desks.unsettled.notified() => break,
                    () = tokio::time::sleep(POLL) => self.look_for_work().await,
                }
            }
        }
    }

    /// Has the pauses looked at: somebody changed them.
    pub fn settle_pauses(&self) {
        self.desks.unsettled.notify_one();
        self.resumed.notify_one();
    }

    /// Holds what waits for agents that are paused or not in the configuration, and gives back what waits for the others.
    /// Answers the runs that ended instead.
    pub(super) async fn settle_agents(&self) -> Result<Vec<RunId>, Error> {
        let in_force = self.app.current();
        let standing = |agent: &String| (agent.clone(), self.app.pauses.standing(agent));
        let agents = in_force.config.agents.keys().map(standing).collect();
        self.app.store.settle_agents(agents, clock::now()).await
    }

    /// Rings for the runs that are queued, in case nobody did: a sender may hang up before its delivery is answered, and the
    /// store may have failed when its agent's desk asked.
    async fn look_for_work(self: &Arc<Self>) {
        if let Err(error) = self.settle_sources().await {
            tracing::error!(error = error.with_causes(), "sources.settle_failed");
        }
        match self.app.store.agents_with_work().await {
            Ok(agents) => agents.iter().for_each(|agent| self.wake(agent)),
            Err(error) => tracing::error!(error = error.with_causes(), "runs.look_failed"),
        }
    }

    /// Takes this agent's runs, never more at once than its scale.
    async fn serve_desk(self: Arc<Self>, name: String, desk: Arc<Desk>) {
        while !self.closing.is_cancelled() {
            let agent = self.app.current().config.agents.get(&name).cloned();
            let running = desk.running.load(Ordering::Relaxed);
            let agent = agent.filter(|_| self.app.pauses.holds(&name).is_none());
            let free = agent.as_ref().map_or(0, |agent| (agent.scale as usize).saturating_sub(running));
            let leave = match &agent {
                Some(agent) if matches!(agent.runtime, Runtime::Http(_)) => desk.breaker.leave(clock::now()),
                _ => Leave::All,
            };
            let (free, pause) = match leave {
                Leave::All => (free, None),
                Leave::One => (free.min(1), None),
                Leave::None(pause) => (0, pause),
            };
            let claimed = match agent {
                Some(agent) if free > 0 && !agent.runtime.is_worker() => {
                    self.claim(agent, &desk, free.min(MOST_CLAIMED)).await
                }
                _ => 0,
            };
            if claimed == 0 {
                tokio::select! {
                    () = self.closing.cancelled() => {}
                    () = desk.bell.notified() => {}
                    () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                }
            }
        }
    }

    /// Notes how a request to an agent's URL ended, and what is to be told of that.
    fn heed_breaker(&self, agent: &str, breaker: &Breaker, sign: Sign) {
        match breaker.note(sign, clock::now()) {
            Change::None => {}
            Change::Reached => self.app.signs.breaker(agent, None),
            change @ (Change::Opened | Change::Lengthened) => {
                let why = breaker.reason();
                tracing::warn!(agent, why, "breaker.opened");
                if change == Change::Opened {
                    self.app.signs.breaker(agent, why);
                }
            }
        }
    }

    /// Takes up to so many runs and has them carried out. Answers how many it took.
    async fn claim(self: &Arc<Self>, agent: Arc<Agent>, desk: &Arc<Desk>, most: usize) -> usize {
        let now = clock::now();
        let leases = std::iter::repeat_with(|| Lease(clock::random())).take(most).collect();
        let claim = Claim {
            agent: agent.name.clone(),
            leases,
            until: now.after(LEASE),
            now,
            most_running: Some(agent.scale),
            worker: None,
        };
        let claimed: Vec<Claimed> = match self.app.store.claim(claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(agent = agent.name, error = error.with_causes(), "runs.claim_failed");
                Vec::new()
            }
        };
        let count = claimed.len();
        // What is throttled is queued and was not taken: somebody has to look when it may be.
        if count < most && agent.is_throttled() {
            self.due.notify_one();
        }
        for claimed in claimed {
            let (this, agent, place) = (Arc::clone(self), Arc::clone(&agent), Place::take(desk));
            desk.breaker.begin();
            self.carriers.spawn(async move {
                let is_behind_url = matches!(agent.runtime, Runtime::Http(_));
                let name = agent.name.clone();
                let sign = this.carry(agent, claimed).await;
                if is_behind_url {
                    this.heed_breaker(&name, &place.0.breaker, sign);
                }
                drop(place);
            });
        }
        count
    }
}
