//! Workers: who fetches runs instead of being started. A poller waits for a bell of its agents, which is rung wherever a
//! desk's is; what it is handed is claimed under the agent's `scale`, oldest first, as a desk would.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_core::envelope::Envelope;
use doorbell_core::id::RunId;
use doorbell_core::run::Outcome;
use doorbell_core::time::Timestamp;
use futures_util::future::select_all;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};

use super::Dispatcher;
use super::carry::unreadable;
use super::outside::Close;
use crate::app::Notice;
use crate::clock;
use crate::config::{Agent, Runtime};
use crate::runtime::Ended;
use crate::store::{Claim, Claimed, Error, Lease, Taken, WorkerLease};

/// Runs claimed in one go.
const MOST_CLAIMED: usize = 8;
/// Bytes of bodies after which no more is handed out at once.
const ENOUGH: usize = 8 * 1024 * 1024;

/// How long after the last poll somebody is still taken to be there.
const BETWEEN_POLLS: Duration = Duration::from_secs(60);

/// The bells of pollers, by agent.
#[derive(Debug, Default)]
pub(super) struct Bells {
    bells: Mutex<HashMap<String, Bell>>,
    /// Turns of pollers, so that each begins with another one of its agents.
    turns: AtomicUsize,
}

/// One agent's.
#[derive(Debug, Default)]
struct Bell {
    rung: Arc<Notify>,
    /// Polls that are open now.
    waiting: usize,
    /// When the last one ended.
    asked: Option<Timestamp>,
}

/// A poll that is open; dropped when it is over, or its poller hung up.
struct Asking<'a> {
    bells: &'a Bells,
    agents: &'a [String],
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let (mut bells, now) = (self.bells.bells(), clock::now());
        for agent in self.agents {
            if let Some(bell) = bells.get_mut(agent) {
                bell.waiting = bell.waiting.saturating_sub(1);
                bell.asked = Some(now);
            }
        }
    }
}

impl Bells {
    /// Notes who asks, for as long as the answer lives.
    fn ask<'a>(&'a self, agents: &'a [String]) -> Asking<'a> {
        let mut bells = self.bells();
        agents.iter().for_each(|agent| bells.entry(agent.clone()).or_default().waiting += 1);
        Asking { bells: self, agents }
    }

    /// That nobody asks for an agent's runs: in one sentence for people.
    pub(super) fn unasked(&self, agent: &str, now: Timestamp) -> Option<String> {
        let bells = self.bells();
        match bells.get(agent).map(|bell| (bell.waiting, bell.asked)) {
            None | Some((0, None)) => Some("no worker asked for its runs since the gateway started".to_owned()),
            Some((0, Some(asked))) if now.since(asked) > BETWEEN_POLLS => {
                Some(format!("no worker asks for its runs; the last one did at {asked}"))
            }
            Some(_) => None,
        }
    }

    /// Wakes one poller, if somebody waits for this agent's runs.
    pub(super) fn ring(&self, agent: &str) {
        if let Some(bell) = self.bells().get(agent) {
            bell.rung.notify_one();
        }
    }

    /// The same for all agents.
    pub(super) fn ring_all(&self) {
        self.bells().values().for_each(|bell| bell.rung.notify_one());
    }

    /// Comes back when it is rung from now on.
    fn listen(&self, agent: &str) -> Pin<Box<OwnedNotified>> {
        let bell = Arc::clone(&self.bells().entry(agent.to_owned()).or_default().rung);
        let mut rung = Box::pin(bell.notified_owned());
        rung.as_mut().enable();
        rung
    }

    fn bells(&self) -> std::sync::MutexGuard<'_, HashMap<String, Bell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a poller wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Runs of these agents.
    pub agents: Vec<String>,
    /// At most so many.
    pub most: usize,
    /// How long to wait for the first.
    pub wait: Duration,
    /// Who it is, and how long its leases are.
    pub worker: WorkerLease,
}

/// A run that is handed to a worker.
#[derive(Debug)]
pub struct HandedOut {
    /// The run.
    pub run: RunId,
    /// Its lease.
    pub lease: Lease,
    /// Until when the lease holds.
    pub until: Timestamp,
    /// What it is handed.
    pub envelope: Envelope,
}

/// Runs on their way to a worker. If they are not taken, because it hung up, they are queued again.
#[derive(Debug)]
struct Batch {
    dispatcher: Arc<Dispatcher>,
    runs: Vec<HandedOut>,
}

impl Batch {
    /// The runs: from here on they are the worker's.
    fn take(mut self) -> Vec<HandedOut> {
        std::mem::take(&mut self.runs)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.runs.is_empty() {
            return;
        }
        let runs: Vec<(RunId, Lease)> = self.runs.iter().map(|handed| (handed.run, handed.lease)).collect();
        let dispatcher = Arc::clone(&self.dispatcher);
        self.dispatcher.carriers.spawn(async move {
            for (run, lease) in runs {
                dispatcher.hand_back(run, lease).await;
            }
        });
    }
}

impl Dispatcher {
    /// Waits for runs, and hands them out: none if there are none in time, or the gateway closes.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn poll(self: &Arc<Self>, wish: Wish) -> Result<Vec<HandedOut>, Error> {
        let over = tokio::time::sleep(wish.wait);
        let wish = Arc::new(wish);
        let _asking = self.bells.ask(&wish.agents);
        tokio::pin!(over);
        loop {
            // Before the look, so that nothing is missed in between.
            let bells: Vec<_> = wish.agents.iter().map(|agent| self.bells.listen(agent)).collect();
            let batch = self.fetch(&wish).await?;
            if !batch.runs.is_empty() || wish.wait.is_zero() {
                return Ok(batch.take());
            }
            tokio::select! {
                _ = select_all(bells) => {}
                () = &mut over => return Ok(Vec::new()),
                () = self.closing.cancelled() => return Ok(Vec::new()),
            }
        }
    }

    /// Claims what there is. In a task of its own: whoever asked may be gone at any moment, and a claim may not be
    /// forgotten.
    async fn fetch(self: &Arc<Self>, wish: &Arc<Wish>) -> Result<Batch, Error> {
        let nothing = || Batch { dispatcher: Arc::clone(self), runs: Vec::new() };
        if self.closing.is_cancelled() {
            return Ok(nothing());
        }
        let (sender, fetched) = oneshot::channel();
        let (this, wish) = (Arc::clone(self), Arc::clone(wish));
        self.carriers.spawn(async move {
            let _ = sender.send(this.hand_out(&wish).await);
        });
        fetched.await.unwrap_or_else(|_| Ok(nothing()))
    }

    async fn hand_out(self: &Arc<Self>, wish: &Wish) -> Result<Batch, Error> {
        let mut batch = Batch { dispatcher: Arc::clone(self), runs: Vec::new() };
        let (mut bytes, mut unfinished) = (0, Vec::new());
        let turn = self.bells.turns.fetch_add(1, Ordering::Relaxed) % wish.agents.len().max(1);
        for name in wish.agents[turn..].iter().chain(&wish.agents[..turn]) {
            loop {
                let want = wish.most.saturating_sub(batch.runs.len()).min(MOST_CLAIMED);
                if want == 0 || bytes >= ENOUGH {
                    unfinished.push(name);
                    break;
                }
                let agent = self.app.current().config.agents.get(name).cloned();
                let Some(agent) = agent.filter(|agent| matches!(agent.runtime, Runtime::Worker)) else { break };
                if self.app.pauses.holds(name).is_some() {
                    break;
                }
                let claimed = self.claim_for(&agent, want, &wish.worker).await?;
                let count = claimed.len();
                for (claimed, until) in claimed {
                    bytes += claimed.body.bytes.len();
                    // In a box, because most looks find nothing, and thousands may be under way.
                    batch.runs.extend(Box::pin(self.hand(&agent, claimed, until, &wish.worker.worker)).await);
                }
                if count < want {
                    break;
                }
            }
        }
        // What is left is another one's to fetch.
        unfinished.into_iter().for_each(|name| self.bells.ring(name));
        Ok(batch)
    }

    async fn claim_for(
        self: &Arc<Self>,
        agent: &Agent,
        most: usize,
        worker: &WorkerLease,
    ) -> Result<Vec<(Claimed, Timestamp)>, Error> {
        let now = clock::now();
        let until = now.after(worker.lease.min(agent.timeout));
        let leases = std::iter::repeat_with(|| Lease(clock::random())).take(most).collect();
        let (name, most_running) = (agent.name.clone(), Some(agent.scale));
        let claim = Claim { agent: name, leases, until, now, most_running, worker: Some(worker.clone()) };
        let Taken { claimed, superseded } = self.app.store.claim(claim).await?;
        self.tell_of_all(&superseded);
        // Where many ended, those behind them may have their turn.
        if claimed.is_empty() && !superseded.is_empty() {
            self.bells.ring(&agent.name);
        }
        if !claimed.is_empty() {
            self.look_at(until);
        }
        Ok(claimed.into_iter().map(|claimed| (claimed, until)).collect())
    }

    /// One claimed run, as it is handed out; none, and the try is over, if its events cannot be read.
    async fn hand(&self, agent: &Agent, claimed: Claimed, until: Timestamp, worker: &str) -> Option<HandedOut> {
        let Claimed { run, lease, event, body } = claimed;
        self.app.activity.tell(|| Notice::Run(Arc::new(run.clone())));
        let waited = run.started_at.map(|started| started.since(run.created_at)).unwrap_or_default();
        tracing::info!(run = %run.id, agent = agent.name, event = %run.event, event_type = run.event_type,
            attempt = run.attempt, worker, waited_ms = waited.as_millis() as u64, "run.started");
        if run.attempt == 1 {
            self.app.metrics.count_first_start(&agent.name, waited);
        }
        match self.envelope(&run, event, body).await {
            Ok(envelope) => Some(HandedOut { run: run.id, lease, until, envelope }),
            Err(error) => {
                let Ended { outcome, ended, .. } = Ended::without_process(unreadable(&error));
                self.end_handed(run.id, lease, outcome, ended).await;
                None
            }
        }
    }

    /// Queues a run again that its worker never got.
    async fn hand_back(&self, run: RunId, lease: Lease) {
        self.end_handed(run, lease, Outcome::HandedBack, "handed_back").await;
    }

    /// If it cannot be stored, the lease ends, and the run is lost.
    async fn end_handed(&self, run: RunId, lease: Lease, outcome: Outcome, ended: &'static str) {
        let done = async {
            match self.app.store.running_run(run).await? {
                Some(running) if running.lease == lease => {
                    self.close_try(&running, outcome, ended, Close::default()).await.map(drop)
                }
                _ => Ok(()),
            }
        };
        if let Err(error) = done.await {
            tracing::error!(%run, error = error.with_causes(), "run.not_handed_back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_whose_runs_no_worker_asks_for_says_so_and_since_when() {
        let (bells, agents) = (Bells::default(), ["triage".to_owned()]);
        let now = clock::now();
        let of = |agent: &str, now| bells.unasked(agent, now);
        assert!(of("triage", now).is_some_and(|why| why.ends_with("since the gateway started")));
        let asking = bells.ask(&agents);
        assert_eq!(of("triage", now.after(BETWEEN_POLLS * 2)), None, "it waits");
        drop(asking);
        assert_eq!(of("triage", now), None, "it works on what it got");
        assert!(of("triage", now.after(BETWEEN_POLLS * 2)).is_some_and(|why| why.contains("the last one did at")));
        assert!(of("other", now).is_some());
    }
}
