//! The desks: each agent has one, where its runs are taken under its `scale`, as it is configured at that moment.
//!
//! A desk stays when its agent is removed from the configuration, so that what still runs counts when it is back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use tokio::sync::Notify;

use super::breaker::{Breaker, Breakers, Change, Leave, Sign, beside};
use super::{Dispatcher, LEASE, POLL};
use crate::app::Snapshot;
use crate::app::subscriptions::is_subscriber;
use crate::clock;
use crate::config::Agent;
use crate::store::{Claim, Error, Lease, Taken};

/// Runs taken in one go.
const MOST_CLAIMED: usize = 16;

/// The desks of all agents that there were since the start.
#[derive(Debug, Default)]
pub(super) struct Desks {
    open: Mutex<HashMap<String, Arc<Desk>>>,
    breakers: Breakers,
    /// Runs may be queued for agents that are not in the configuration.
    unsettled: Notify,
}

#[derive(Debug)]
struct Desk {
    bell: Notify,
    running: AtomicUsize,
    /// Whether its agent's endpoint was reached, or a run of it started, since it was last told that it cannot be.
    reached: AtomicBool,
    /// Whether this machine can start its runs.
    starts: Breaker,
}

impl Default for Desk {
    fn default() -> Self {
        let (bell, running, reached) = Default::default();
        Self { bell, running, reached, starts: Breaker::of_starts() }
    }
}

/// The place of a run at its desk, given back when it is dropped, and the breaker of its endpoint.
struct Place {
    desk: Arc<Desk>,
    breaker: Option<Arc<Breaker>>,
}

impl Place {
    /// Takes one, for a run that starts.
    fn take(desk: &Arc<Desk>, breaker: Option<&Arc<Breaker>>) -> Self {
        desk.running.fetch_add(1, Ordering::Relaxed);
        let place = Self { desk: Arc::clone(desk), breaker: breaker.cloned() };
        place.breakers().for_each(Breaker::begin);
        place
    }

    fn breakers(&self) -> impl Iterator<Item = &Breaker> {
        self.breaker.iter().map(AsRef::as_ref).chain([&self.desk.starts])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nobody says then what came of it: a trial is over that found nothing out.
        if std::thread::panicking() {
            self.breakers().for_each(|breaker| _ = breaker.note(Sign::Unknown, clock::now()));
        }
        self.desk.running.fetch_sub(1, Ordering::Relaxed);
        self.desk.bell.notify_one();
    }
}

impl Desks {
    /// Tells that an agent has queued runs. Those of an agent that is paused or was removed meanwhile are to be held.
    pub(super) fn ring(&self, in_force: &Snapshot, agent: &str, is_paused: bool) {
        if in_force.agent(agent).is_none() || is_paused {
            self.unsettled.notify_one();
        }
        if let Some(desk) = self.open().get(agent) {
            desk.bell.notify_one();
        }
    }

    /// Why an agent's URL is not asked, or nothing of it is started on this machine, if that is so.
    pub(super) fn breaker(&self, in_force: &Snapshot, agent: &str, now: Timestamp) -> Option<String> {
        let url = self.breakers.of(in_force.agent(agent)?).and_then(|breaker| breaker.reason(now));
        url.or_else(|| self.desk(agent)?.starts.reason(now))
    }

    /// The open desk of an agent.
    fn desk(&self, agent: &str) -> Option<Arc<Desk>> {
        self.open().get(agent).cloned()
    }

    /// Closes the desk of a subscription that is over: they come and go, and each would leave one.
    fn close(&self, agent: &str) {
        self.open().remove(agent);
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
            for name in in_force.all_agents().map(|agent| &agent.name) {
                if let Some(desk) = self.desks.set_up(name) {
                    let (this, name) = (Arc::clone(&self), name.clone());
                    self.takers.spawn(async move { this.serve_desk(name, desk).await });
                }
            }
            self.desks.breakers.keep_configured(&in_force);
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
        let standing = |agent: &Arc<Agent>| (agent.name.clone(), self.app.pauses.standing(&agent.name));
        let agents = in_force.all_agents().map(standing).collect();
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
    async fn serve_desk(self: Arc<Self>, name: String, mut desk: Arc<Desk>) {
        while !self.closing.is_cancelled() {
            let agent = self.app.current().agent(&name).cloned();
            let running = desk.running.load(Ordering::Relaxed);
            if agent.is_none() && running == 0 && is_subscriber(&name) {
                self.desks.close(&name);
                // It may have come back meanwhile: whoever opened its desk then found this one still open.
                let back = self.app.current().agent(&name).is_some();
                match back.then(|| self.desks.set_up(&name)).flatten() {
                    Some(opened) => desk = opened,
                    None => return,
                }
                continue;
            }
            let agent = agent.filter(|_| self.app.pauses.holds(&name).is_none());
            let free = agent.as_ref().map_or(0, |agent| (agent.scale as usize).saturating_sub(running));
            let breaker = agent.as_ref().and_then(|agent| self.desks.breakers.of(agent));
            let now = clock::now();
            let leave = breaker.as_ref().map_or(Leave::All, |breaker| breaker.leave(now)).and(desk.starts.leave(now));
            let (free, pause) = match leave {
                Leave::All => (free, None),
                Leave::One => (free.min(1), None),
                Leave::None(pause) => (0, pause),
            };
            let claimed = match agent {
                Some(agent) if free > 0 && !agent.runtime.is_worker() => {
                    self.claim(agent, &desk, breaker, free.min(MOST_CLAIMED)).await
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

    /// Notes how a request to an agent's endpoint ended, and what is to be told of that to all who are behind it.
    fn heed_breaker(&self, agent: &Agent, breaker: &Breaker, sign: Sign) {
        let reached = sign == Sign::Reached;
        let now = clock::now();
        let change = breaker.note(sign, now);
        let in_force = self.app.current();
        match change {
            Change::None if reached => self.tell_reached(&agent.name),
            Change::None => {}
            Change::Closed => beside(&in_force, agent).into_iter().for_each(|name| self.tell_reached(name)),
            Change::Opened | Change::Lengthened => {
                let why = breaker.reason(now);
                tracing::warn!(agent = agent.name, why, "breaker.opened");
                for name in beside(&in_force, agent).into_iter().filter(|_| change == Change::Opened) {
                    if let Some(desk) = self.desks.desk(name) {
                        desk.reached.store(false, Ordering::Relaxed);
                    }
                    self.app.signs.breaker(name, why.clone());
                }
            }
        }
        // Others may wait for what one run finds out.
        for name in beside(&in_force, agent) {
            if let Some(desk) =
                self.desks.desk(name).filter(|_| breaker.reason(now).is_some() || change != Change::None)
            {
                desk.bell.notify_one();
            }
        }
    }

    /// Notes whether a run of an agent could be started. Answers when one that could not is tried again.
    pub(super) fn heed_start(&self, agent: &str, sign: Sign) -> Option<Duration> {
        let (desk, now) = (self.desks.desk(agent)?, clock::now());
        let reached = sign == Sign::Reached;
        let failed = matches!(sign, Sign::Failing(_));
        match desk.starts.note(sign, now) {
            Change::None if reached => self.tell_reached(agent),
            Change::None => {}
            Change::Closed => {
                tracing::info!(agent, "agent.starts_again");
                self.tell_reached(agent);
                desk.bell.notify_one();
            }
            change @ (Change::Opened | Change::Lengthened) => {
                let why = desk.starts.reason(now);
                tracing::warn!(agent, why, "agent.cannot_start");
                if change == Change::Opened {
                    desk.reached.store(false, Ordering::Relaxed);
                    self.app.signs.breaker(agent, why);
                }
            }
        }
        match desk.starts.leave(now) {
            // After the pause another one has its turn: this one may be what is too large.
            Leave::None(Some(pause)) if failed => Some(pause * 2),
            _ => None,
        }
    }

    /// An agent's endpoint is reached, or a run of it started. That is told once: it may have been told before a restart that it is not.
    fn tell_reached(&self, agent: &str) {
        let waits = || self.desks.breaker(&self.app.current(), agent, clock::now()).is_some();
        if let Some(desk) = self.desks.desk(agent)
            && !desk.reached.load(Ordering::Relaxed)
            // What the one breaker allows, the other may not.
            && !waits()
            && !desk.reached.swap(true, Ordering::Relaxed)
        {
            self.app.signs.breaker(agent, None);
        }
    }

    /// Takes up to so many runs and has them carried out. Answers how many it took, or ended.
    async fn claim(
        self: &Arc<Self>,
        agent: Arc<Agent>,
        desk: &Arc<Desk>,
        breaker: Option<Arc<Breaker>>,
        most: usize,
    ) -> usize {
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
        let Taken { claimed, superseded } = match self.app.store.claim(claim).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(agent = agent.name, error = error.with_causes(), "runs.claim_failed");
                Taken::default()
            }
        };
        self.tell_of_all(&superseded);
        let count = claimed.len();
        // What is throttled is queued and was not taken: somebody has to look when it may be.
        if count < most && agent.is_throttled() {
            self.due.notify_one();
        }
        for claimed in claimed {
            let (this, agent, place) = (Arc::clone(self), Arc::clone(&agent), Place::take(desk, breaker.as_ref()));
            self.carriers.spawn(async move {
                let sign = this.carry(Arc::clone(&agent), claimed).await;
                if let Some(breaker) = &place.breaker {
                    this.heed_breaker(&agent, breaker, sign);
                }
                drop(place);
            });
        }
        // Where only such were found as ended, those behind them may have their turn.
        count + superseded.len()
    }
}
