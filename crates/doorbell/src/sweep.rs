//! The sweep: removes what is older than the project keeps, beside everything else.
//!
//! It takes small steps with pauses between them, so that deliveries never wait for it. A run's folder goes before its
//! rows: whenever the gateway dies between the two, the rows still name the folder, and the next sweep goes on where
//! this one was. The other way round, a folder without rows would stay for good, unseen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::files;
use crate::store::{Error, ExpiredEvent, Expiry, Sweep};

/// The longest and the shortest time from the end of a sweep to the next one; in between, a twentieth of what is kept.
const RAREST: Duration = Duration::from_secs(60 * 60);
const MOST_OFTEN: Duration = Duration::from_secs(1);
/// How many times as long as a step the pause after it is.
const PAUSE: u32 = 4;

/// Sweeps a gateway's store until `closing` is cancelled.
pub fn start(app: Arc<App>, dispatcher: Arc<Dispatcher>, closing: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let sweeper = Sweeper { app, dispatcher };
        tokio::select! {
            () = closing.cancelled() => {}
            () = sweeper.serve() => {}
        }
    })
}

struct Sweeper {
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
}

impl Sweeper {
    async fn serve(&self) {
        let mut configuration = self.app.in_force.follow();
        loop {
            let (kept, audit) = {
                let config = &configuration.borrow_and_update().config;
                (config.retention, config.audit_retention)
            };
            if let Err(error) = self.sweep(kept, audit).await {
                tracing::error!(error = error.with_causes(), "sweep.failed: it goes on later");
            }
            let shortest = kept.into_iter().chain(audit).min();
            let pause = shortest.map_or(RAREST, |kept| (kept / 20).clamp(MOST_OFTEN, RAREST));
            // Whoever keeps less from now on need not wait for the end of the earlier pause.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(_) = configuration.wait_for(|now| (now.config.retention, now.config.audit_retention) != (kept, audit)) => {}
            }
        }
    }

    /// Removes what is older than `kept`, and of the audit log what is older than `audit`; without `kept`, it only notes
    /// which trigger set is in force.
    async fn sweep(&self, kept: Option<Duration>, audit: Option<Duration>) -> Result<(), Error> {
        let started_at = clock::now();
        let store = &self.app.store;
        if let Some(audit) = audit {
            store.remove_changes(started_at.before(audit)).await?;
        }
        let Some(kept) = kept else {
            let never = Timestamp::from_millis(i64::MIN);
            return store.remove_records(never, self.app.current().trigger_set, started_at).await.map(drop);
        };
        let before = started_at.before(kept);
        let mut sweep = Sweep { started_at, ..Sweep::default() };
        let mut after = Some(0);
        while let Some(from) = after {
            let begun = Instant::now();
            let found = store.expired(Expiry { before, after: from }).await?;
            tokio::time::sleep(begun.elapsed() * PAUSE).await;
            self.remove(found.events, before, &mut sweep).await?;
            after = found.next;
        }
        let records = store.remove_records(before, self.app.current().trigger_set, started_at).await?;
        sweep.rejections = records.rejections;
        sweep.trigger_sets = records.trigger_sets;
        sweep.ended_at = clock::now();
        store.end_sweep(sweep).await?;
        let Sweep { events, runs, rejections, trigger_sets, .. } = sweep;
        if events + rejections + trigger_sets > 0 {
            let took_ms = sweep.ended_at.since(started_at).as_millis() as u64;
            tracing::info!(events, runs, rejections, trigger_sets, took_ms, "sweep.ended");
        }
        Ok(())
    }

    async fn remove(&self, events: Vec<ExpiredEvent>, before: Timestamp, sweep: &mut Sweep) -> Result<(), Error> {
        let mut left = self.remove_folders(events).await;
        while !left.is_empty() {
            let begun = Instant::now();
            let removed = self.app.store.remove(left.clone(), before).await?;
            sweep.events += removed.events;
            sweep.runs += removed.runs;
            left.drain(..removed.looked_at.min(left.len()));
            tokio::time::sleep(begun.elapsed() * PAUSE).await;
        }
        Ok(())
    }

    /// Removes the folders of the events' runs. Answers the events of which no folder is left; the others stay whole,
    /// and are tried again.
    async fn remove_folders(&self, events: Vec<ExpiredEvent>) -> Vec<i64> {
        let dispatcher = Arc::clone(&self.dispatcher);
        let gone = |run: &RunId, dispatcher: &Dispatcher| {
            let folder = dispatcher.run_folder(*run);
            let removed = files::remove_folder(&folder);
            if let Err(error) = &removed {
                tracing::warn!(%run, folder = %folder.display(), %error,
                    "sweep.folder_stays: what is in it cannot be removed, so its run stays too");
            }
            removed.is_ok()
        };
        let work = move || {
            let removed = |event: &ExpiredEvent| event.runs.iter().all(|run| gone(run, &dispatcher));
            events.into_iter().filter(removed).map(|event| event.seq).collect()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }
}
