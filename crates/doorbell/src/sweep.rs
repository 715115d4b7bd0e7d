//! The sweep: removes what is older than the project keeps, beside everything else.
//!
//! It takes small steps with pauses between them, so that deliveries never wait for it. A run's rows go before its folder,
//! because only the writer knows whether the run has come to life again. With the rows it notes that the folder is left:
//! whenever the gateway dies between the two, the next sweep goes on where this one was.

use std::path::{Path, PathBuf};
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
use crate::store::{Error, Expiry, Sweep};

/// The longest and the shortest time from the end of a sweep to the next one; in between, a twentieth of what is kept.
const RAREST: Duration = Duration::from_secs(60 * 60);
const MOST_OFTEN: Duration = Duration::from_secs(1);
/// A clock that says at the start that the last sweep is longer ago than this may be wrong, and what is removed is gone.
const LEAP: Duration = Duration::from_secs(24 * 60 * 60);
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
        if self.is_after_a_leap().await {
            let waits_s = RAREST.as_secs();
            tracing::warn!(
                waits_s,
                "sweep.waits: by the clock the last one is more than a day ago; if the clock is wrong, set it now"
            );
            tokio::time::sleep(RAREST).await;
        }
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

    async fn is_after_a_leap(&self) -> bool {
        let last = self.app.store.swept().await.ok().and_then(|swept| swept.last);
        last.is_some_and(|last| clock::now().since(last.ended_at) > LEAP)
    }

    /// Removes what is older than `kept`, and of the audit log what is older than `audit`; without `kept`, only what an earlier
    /// sweep left, and notes which trigger set is in force.
    async fn sweep(&self, kept: Option<Duration>, audit: Option<Duration>) -> Result<(), Error> {
        let started_at = clock::now();
        let store = &self.app.store;
        if let Some(audit) = audit {
            store.remove_changes(started_at.before(audit)).await?;
        }
        let mut stay = Stay::default();
        self.remove_folders(store.runs_with_folders_left().await?, &mut stay).await?;
        let Some(kept) = kept else {
            stay.warn();
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
            let runs = self.remove(found.events, before, &mut sweep).await?;
            self.remove_folders(runs, &mut stay).await?;
            after = found.next;
        }
        stay.warn();
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

    /// Removes those of the events that still may go; answers the runs that went with them.
    async fn remove(&self, events: Vec<i64>, before: Timestamp, sweep: &mut Sweep) -> Result<Vec<RunId>, Error> {
        let (mut left, mut runs) = (events, Vec::new());
        while !left.is_empty() {
            let begun = Instant::now();
            let removed = self.app.store.remove(left.clone(), before).await?;
            sweep.events += removed.events;
            sweep.runs += removed.runs.len() as u64;
            runs.extend(removed.runs);
            left.drain(..removed.looked_at.min(left.len()));
            tokio::time::sleep(begun.elapsed() * PAUSE).await;
        }
        Ok(runs)
    }

    /// Removes the folders of runs that are gone. Those that cannot be removed are tried again by the next sweep.
    async fn remove_folders(&self, runs: Vec<RunId>, stay: &mut Stay) -> Result<(), Error> {
        if runs.is_empty() {
            return Ok(());
        }
        let dispatcher = Arc::clone(&self.dispatcher);
        let work = move || -> (Vec<RunId>, Stay) {
            let mut stay = Stay::default();
            let gone = |run: &RunId| stay.remove(&dispatcher.run_folder(*run));
            (runs.into_iter().filter(gone).collect(), stay)
        };
        let (gone, stayed) = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Unavailable(Box::new(e)))?;
        stay.add(stayed);
        self.app.store.note_folders_gone(gone).await
    }
}

/// Folders that could not be removed.
#[derive(Debug, Default)]
struct Stay {
    count: u64,
    /// The first of them, and why.
    first: Option<(PathBuf, std::io::Error)>,
}

impl Stay {
    /// Removes a folder. Whether it is gone.
    fn remove(&mut self, folder: &Path) -> bool {
        let removed = files::remove_folder(folder);
        let gone = removed.is_ok();
        if let Err(error) = removed {
            self.add(Self { count: 1, first: Some((folder.to_owned(), error)) });
        }
        gone
    }

    fn add(&mut self, further: Self) {
        self.count += further.count;
        self.first = self.first.take().or(further.first);
    }

    fn warn(self) {
        if let Some((folder, error)) = self.first {
            tracing::warn!(count = self.count, folder = %folder.display(), %error,
                "sweep.folders_stay: what is in them cannot be removed; each sweep tries again");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn folders_that_stay_are_counted_and_one_is_named() {
        let home = tempfile::tempdir().unwrap();
        let mut stay = Stay::default();
        assert!(stay.remove(&home.path().join("missing")), "it is gone already");
        for name in ["a", "b"] {
            std::fs::write(home.path().join(name), "a file, which is no folder").unwrap();
            assert!(!stay.remove(&home.path().join(name)));
        }
        assert_eq!((stay.count, stay.first.unwrap().0), (2, home.path().join("a")));
    }
}
