//! The desks: each agent has one, where its runs are taken under its `scale`, as it is configured at that moment.
//!
//! A desk stays when its agent is removed from the configuration, so that what still runs counts when it is back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::id::RunId;
use doorbell_core::run::{Outcome, START_AGAIN};
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
/// The longest pause of a desk whose runs cannot be started.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The desks of all agents that there were since the start.
#[derive(Debug, Default)]
pub(super) struct Desks {
    open: Mutex<HashMap<String, Arc<Desk>>>,
    breakers: Breakers,
    /// Runs may be queued for agents that are not in the configuration.
    unsettled: Notify,
}

#[derive(Debug, Default)]
struct Desk {
    bell: Notify,
    running: AtomicUsize,
    /// Whether its agent's endpoint was reached since it was last told that it is not.
    reached: AtomicBool,
    /// Since this machine could not start its runs; none while it can.
    rest: Mutex<Option<Rest>>,
}

/// A pause of a desk, so that a machine that is short of something is not asked all the time.
#[derive(Debug)]
struct Rest {
    until: Timestamp,
    length: Duration,
    why: String,
}

impl Desk {
    fn rest(&self) -> MutexGuard<'_, Option<Rest>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run could not be started. Answers when it is tried again: after twice as long as the last time.
    fn begin_rest(&self, why: &str, now: Timestamp) -> Duration {
        let mut rest = self.rest();
        match rest.as_ref() {
            // One that was tried at the same time.
            Some(rest) if now < rest.until => return rest.until.since(now),
            last => {
                let length = last.map_or(START_AGAIN, |rest| (rest.length * 2).min(LONGEST_REST));
                *rest = Some(Rest { until: now.after(length), length, why: why.to_owned() });
                length
            }
        }
    }

    /// How long nothing is started.
    fn rest_left(&self, now: Timestamp) -> Option<Duration> {
        self.rest().as_ref().filter(|rest| now < rest.until).map(|rest| rest.until.since(now))
    }
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
        if in_force.agent(agent).is_none() || is_paused {
            self.unsettled.notify_one();
        }
        if let Some(desk) = self.open().get(agent) {
            desk.bell.notify_one();
        }
    }

    /// Why an agent's URL is not asked, if it is not.
    pub(super) fn breaker(&self, in_force: &Snapshot, agent: &str, now: Timestamp) -> Option<String> {
        self.breakers.of(in_force.agent(agent)?)?.reason(now)
    }

    /// Why nothing of an agent is started at the moment, and until when, if this machine is short of something.
    pub(super) fn resting(&self, agent: &str, now: Timestamp) -> Option<String> {
        let desk = self.desk(agent)?;
        let rest = desk.rest();
        let rest = rest.as_ref().filter(|rest| now < rest.until)?;
        Some(format!("nothing is started until {}: {}", rest.until, rest.why))
    }

    /// Notes how a try of an agent's run ended. If it could not even be started: how long its desk pauses.
    pub(super) fn heed_start(&self, agent: &str, outcome: &Outcome, now: Timestamp) -> Option<Duration> {
        let desk = self.desk(agent)?;
        if let Outcome::NotStarted(why) = outcome {
            return Some(desk.begin_rest(why, now));
        }
        *desk.rest() = None;
        None
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
            let leave = breaker.as_ref().map_or(Leave::All, |breaker| breaker.leave(clock::now()));
            let rest = desk.rest_left(clock::now());
            let (free, pause) = match leave {
                _ if rest.is_some() => (0, rest),
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

    /// An agent's endpoint is reached. That is told once: it may have been told before a restart that it is not.
    fn tell_reached(&self, agent: &str) {
        if let Some(desk) = self.desks.desk(agent)
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
            let (this, agent, place) = (Arc::clone(self), Arc::clone(&agent), Place::take(desk));
            let breaker = breaker.clone();
            breaker.iter().for_each(|breaker| breaker.begin());
            self.carriers.spawn(async move {
                let sign = this.carry(Arc::clone(&agent), claimed).await;
                if let Some(breaker) = breaker {
                    this.heed_breaker(&agent, &breaker, sign);
                }
                drop(place);
            });
        }
        // Where only such were found as ended, those behind them may have their turn.
        count + superseded.len()
    }
}
