//! Dispatch: takes queued runs under each agent's limit, has them carried out, and moves them on.
//!
//! Each agent has a desk, with a task of its own, so that a slow agent never holds up another. A wake-up is a hint: the
//! table of runs is the truth, and is looked at every few seconds anyway. Leases are extended while a run is in flight; a run
//! whose lease ran out without us is lost, and goes on by its agent's policy after its old processes are ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_client::Outbound;
use doorbell_core::delivery::Delivery;
use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use doorbell_core::wait::Wait;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Notice};
use crate::clock;
use crate::runtime::{Guard, Stop};
use crate::store::{Body, Cancel, Effects, Error, Lease, Release, Released, Retry, StoredEvent};

mod breaker;
mod carry;
mod desks;
mod follow_up;
mod journal;
mod outside;
mod own;
mod recovery;
mod resume;
mod subscribers;
#[cfg(test)]
mod tests;
mod waits;
mod workers;

pub use own::{Cause, Caused, admission};

use desks::Desks;
use follow_up::FollowUps;
use workers::Bells;

pub use outside::Told;
pub use subscribers::fault_of;
pub use waits::Waited;
pub use workers::{HandedOut, Wish};

/// How long a lease holds. Extended at a third of it.
const LEASE: Duration = Duration::from_secs(30);
/// How often the table is looked at without being told to.
const POLL: Duration = Duration::from_secs(5);

/// The dispatcher of a gateway.
#[derive(Debug)]
pub struct Dispatcher {
    app: Arc<App>,
    guard: Arc<Guard>,
    /// The folder that holds the runs' own folders.
    runs_folder: PathBuf,
    /// The allow-listed environment that commands inherit.
    inherited: Vec<(String, OsString)>,
    desks: Desks,
    /// Those of workers that wait for runs.
    bells: Bells,
    /// Bytes that are left in the logs of tries that workers carry out.
    log_room: Mutex<HashMap<Lease, usize>>,
    follow_ups: Arc<FollowUps>,
    /// Asks agents that are behind a URL.
    outbound: Outbound,
    due: Notify,
    /// An agent comes back slowly.
    resumed: Notify,
    in_flight: Mutex<HashMap<RunId, InFlight>>,
    /// Lost runs whose processes are being ended.
    recovering: Mutex<HashSet<RunId>>,
    /// When the leases are looked at next.
    next_look: watch::Sender<Timestamp>,
    closing: CancellationToken,
    /// What still runs is to end now.
    handing_back: CancellationToken,
    takers: TaskTracker,
    carriers: TaskTracker,
    keepers: TaskTracker,
}

/// A delivery as its provider reads it again, made of what was stored.
fn delivery_of(event: &StoredEvent, body: &Body) -> Delivery {
    let kept: BTreeMap<String, String> = serde_json::from_str(&body.headers).unwrap_or_default();
    Delivery::stored(&kept, body.bytes.clone(), event.received_at)
}

#[derive(Debug)]
struct InFlight {
    lease: Lease,
    stop: watch::Sender<Option<Stop>>,
    /// What its command asked to wait for when it has ended, and until when.
    wait: Option<(Wait, Timestamp)>,
}

impl Dispatcher {
    /// A dispatcher that does nothing yet.
    pub fn new(
        app: Arc<App>,
        guard: Arc<Guard>,
        runs_folder: PathBuf,
        inherited: Vec<(String, OsString)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            follow_ups: FollowUps::new(Arc::clone(&app)),
            app,
            guard,
            runs_folder,
            inherited,
            desks: Desks::default(),
            bells: Bells::default(),
            log_room: Mutex::default(),
            outbound: Outbound::default(),
            due: Notify::new(),
            resumed: Notify::new(),
            in_flight: Mutex::default(),
            recovering: Mutex::default(),
            next_look: watch::Sender::default(),
            closing: CancellationToken::new(),
            handing_back: CancellationToken::new(),
            takers: TaskTracker::new(),
            carriers: TaskTracker::new(),
            keepers: TaskTracker::new(),
        })
    }

    /// Begins, beside whoever calls it: first what an earlier process left running is ended and moved on, then each
    /// agent's runs are taken.
    pub fn start(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.takers.spawn(async move {
            while let Err(error) = this.prepare().await {
                tracing::error!(error = error.with_causes(), "runs.recover_failed");
                tokio::select! {
                    () = this.closing.cancelled() => return,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
            this.follow_ups.resume();
            let following = Arc::clone(&this);
            this.takers.spawn(async move { following.follow_configuration().await });
            let releasing = Arc::clone(&this);
            this.takers.spawn(async move { releasing.release_due_runs().await });
            let resuming = Arc::clone(&this);
            this.takers.spawn(async move { resuming.resume_slowly().await });
            let watching = Arc::clone(&this);
            this.takers.spawn(async move { watching.watch_leases().await });
            let keeping = Arc::clone(&this);
            this.keepers.spawn(async move { keeping.keep_leases().await });
        });
    }

    /// Moves on what an earlier process left behind.
    async fn prepare(self: &Arc<Self>) -> Result<(), Error> {
        self.give_time_to_be_heard().await?;
        self.recover_lost(None).await?;
        self.settle_agents().await.map(drop)
    }

    /// The folder of a run.
    pub fn run_folder(&self, run: RunId) -> PathBuf {
        self.runs_folder.join(run.to_string())
    }

    /// Tells that an agent has queued runs.
    pub fn wake(&self, agent: &str) {
        self.desks.ring(&self.app.current(), agent, self.app.pauses.holds(agent).is_some());
        self.bells.ring(agent);
    }

    /// Why an agent's runs wait, if its URL fails so often that it is not asked for a while, or this machine cannot start them.
    pub fn breaker(&self, agent: &str) -> Option<String> {
        self.desks.breaker(&self.app.current(), agent, clock::now())
    }

    /// That no worker asks for an agent's runs, if it is one that workers carry out.
    pub fn unasked(&self, agent: &str) -> Option<String> {
        let in_force = self.app.current();
        in_force.config.agents.get(agent).filter(|agent| agent.runtime.is_worker())?;
        self.bells.unasked(agent, clock::now())
    }

    /// Cancels a run: at once if it does not run, else by ending its processes.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn cancel(&self, run: RunId, by: &str) -> Result<Cancel, Error> {
        let done = self.app.store.cancel(run, by.to_owned(), clock::now()).await?;
        match done {
            // One that was claimed a moment ago sees the request when it enters the register.
            Cancel::Requested => {
                self.stop(run, None, Stop::Cancel(by.to_owned()));
                self.cancel_awaited(run).await?;
            }
            Cancel::Cancelled => {
                tracing::info!(%run, by, "run.cancelled");
                self.follow_ups.consider(run);
                self.tell_of(run).await;
                // Another one of its key may have its turn now.
                if let Ok(Some((run, _))) = self.app.store.run(run).await {
                    self.wake(&run.agent);
                }
                self.tell_who_waits();
            }
            Cancel::AlreadyFinal(_) | Cancel::Unknown => {}
        }
        Ok(done)
    }

    /// Lets a held run go on.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn release(&self, run: RunId, by: &str) -> Result<Release, Error> {
        let done = self.app.store.release(run, by.to_owned(), clock::now()).await?;
        if let Release::Released(agent) = &done {
            self.wake(agent);
            self.due.notify_one();
            self.tell_of(run).await;
        }
        Ok(done)
    }

    /// Queues a run that ended badly once more.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn retry(&self, run: RunId, by: &str) -> Result<Retry, Error> {
        let done = self.app.store.retry(run, by.to_owned(), clock::now()).await?;
        if let Retry::Queued(agent) = &done {
            tracing::info!(%run, by, "run.retried");
            self.wake(agent);
            self.tell_of(run).await;
        }
        Ok(done)
    }

    /// How many runs are carried out here at the moment.
    pub fn running(&self) -> usize {
        self.in_flight().len()
    }

    /// Stops taking runs, lets those that run end within `limit`, then ends the rest and hands them back.
    pub async fn close(&self, limit: Duration) {
        self.closing.cancel();
        // First those that could still start a carrier.
        self.takers.close();
        self.takers.wait().await;
        self.carriers.close();
        if tokio::time::timeout(limit, self.carriers.wait()).await.is_err() {
            // Before the look: a carrier that is not in the register yet looks at this once it is.
            self.handing_back.cancel();
            let left: Vec<RunId> = self.in_flight().keys().copied().collect();
            tracing::warn!(runs = left.len(), "shutdown.handing_back");
            left.into_iter().for_each(|run| self.stop(run, None, Stop::Shutdown));
            self.carriers.wait().await;
        }
        self.follow_ups.close().await;
        self.keepers.close();
        self.keepers.wait().await;
    }

    fn in_flight(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it looked at who waits for the end of a run, as one has ended.
    fn tell_who_waits(&self) {
        if self.app.waits.for_run() {
            self.due.notify_one();
        }
    }

    /// Tells watchers how a run stands now.
    pub async fn tell_of(&self, run: RunId) {
        if let Ok(Some((run, _))) = self.app.store.run(run).await {
            self.app.activity.tell(|| Notice::Run(Arc::new(run)));
        }
    }

    /// Tells watchers, and who waits for them, of runs that a full queue dropped, without keeping the caller.
    pub fn tell_of_dropped(self: &Arc<Self>, runs: &[RunId]) {
        if runs.is_empty() {
            return;
        }
        tracing::warn!(runs = ?runs.iter().map(ToString::to_string).collect::<Vec<_>>(), "runs.dropped");
        self.tell_of_all(runs);
    }

    /// Tells watchers, and who waits for them, of runs that ended before they ran, without keeping the caller.
    fn tell_of_all(self: &Arc<Self>, runs: &[RunId]) {
        if !runs.is_empty() {
            self.tell_who_waits();
        }
        let (watched, followed_up) = (self.app.activity.is_watched(), self.follow_ups.are_sent());
        if !runs.is_empty() && (watched || followed_up) {
            let (this, runs) = (Arc::clone(self), runs.to_vec());
            tokio::spawn(async move {
                for run in runs {
                    if watched {
                        this.tell_of(run).await;
                    }
                    if followed_up {
                        this.follow_ups.consider_dropped(run).await;
                    }
                }
            });
        }
    }

    /// Does what flow control asks for: ends runs that are replaced, and looks when what gathers events is due.
    pub fn follow_flow(self: &Arc<Self>, effects: &Effects) {
        for (run, by) in &effects.asked_to_end {
            tracing::info!(%run, by, "run.replaced");
            self.stop(*run, None, Stop::Cancel(by.clone()));
        }
        if !effects.asked_to_end.is_empty() {
            let (this, runs) = (Arc::clone(self), effects.asked_to_end.clone());
            tokio::spawn(async move {
                for (run, _) in runs {
                    // If it fails, the next look at the leases finds the run.
                    if let Err(error) = this.cancel_awaited(run).await {
                        tracing::error!(%run, error = error.with_causes(), "run.cancel_failed");
                    }
                }
            });
        }
        if effects.due.is_some() {
            self.due.notify_one();
        }
        // One that was resumed meanwhile has its runs given back already, and this one came after them.
        if effects.held.iter().any(|agent| self.app.pauses.holds(agent).is_none()) {
            self.settle_pauses();
        }
        self.tell_of_all(&effects.superseded);
    }

    /// Has a run's attempt ended: that under this lease, or whichever is in flight.
    fn stop(&self, run: RunId, lease: Option<Lease>, why: Stop) {
        if let Some(in_flight) = self.in_flight().get(&run)
            && lease.is_none_or(|lease| lease == in_flight.lease)
        {
            in_flight.stop.send_if_modified(|stop| {
                let first = stop.is_none();
                stop.get_or_insert(why);
                first
            });
        }
    }

    async fn release_due(&self, now: Timestamp, was_set_back: bool) -> Result<Released, Error> {
        if was_set_back {
            let ended = self.app.store.end_waits(now.after(clock::SLACK), now).await?;
            if ended > 0 {
                tracing::warn!(runs = ended, "runs.clock_set_back: what began to wait in the future is due now");
            }
        }
        self.app.store.release_due(now).await
    }

    /// Queues waiting runs when they are due.
    async fn release_due_runs(self: Arc<Self>) {
        // Whether the clock was set back while no gateway ran is not known.
        let mut looked_at = None;
        loop {
            let now = clock::now();
            let was_set_back = looked_at.is_none_or(|last| now.after(clock::SLACK) < last);
            let next = match self.release_due(now, was_set_back).await {
                Ok(released) => {
                    looked_at = Some(now);
                    released.agents.iter().for_each(|agent| self.wake(agent));
                    released.next
                }
                Err(error) => {
                    tracing::error!(error = error.with_causes(), "runs.release_failed");
                    None
                }
            };
            let pause = next.map_or(POLL, |next: Timestamp| next.since(clock::now()).min(POLL));
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.due.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Extends the leases of what is in flight, until the last of it has ended.
    async fn keep_leases(self: Arc<Self>) {
        let closed = async {
            self.closing.cancelled().await;
            self.carriers.wait().await;
        };
        tokio::pin!(closed);
        loop {
            tokio::select! {
                () = &mut closed => return,
                () = tokio::time::sleep(LEASE / 3) => {}
            }
            let leases: HashMap<RunId, Lease> =
                self.in_flight().iter().map(|(run, flight)| (*run, flight.lease)).collect();
            let kept = if leases.is_empty() {
                Ok(Vec::new())
            } else {
                self.app.store.extend(leases.clone().into_iter().collect(), clock::now().after(LEASE), None).await
            };
            match kept {
                Ok(lost) => lost.iter().for_each(|run| self.stop(*run, leases.get(run).copied(), Stop::Shutdown)),
                Err(error) => tracing::error!(error = error.with_causes(), "leases.extend_failed"),
            }
        }
    }
}
