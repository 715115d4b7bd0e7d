//! Reload: takes saved changes over while the gateway runs, whole or not at all.
//!
//! What the system says about folders is a hint, like the dispatcher's bells: how the files stand is the truth, and is
//! looked at every few seconds anyway (network file systems tell nothing). What was saved is read when the files have
//! stood still for a moment, nobody has one of them open for writing, and they stand after the reading as they did
//! before. What cannot be taken over leaves everything as it was. SIGHUP asks for all this at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::app::{App, Notice, Reload, Snapshot};
use crate::clock;
use crate::config::{Config, Origin, Survey};

mod changes;
mod watcher;

use watcher::Watcher;

/// How long the files must have stood still: a save may take several steps.
const QUIET: Duration = Duration::from_millis(200);
/// How often the files are looked at without a hint.
const LOOK: Duration = Duration::from_secs(5);
/// The same if the system cannot give hints.
const LOOK_WITHOUT_HINTS: Duration = Duration::from_secs(1);
/// Readings in a row that are thrown away because something was saved meanwhile.
const MOST_READINGS: usize = 10;

/// Takes saved changes over.
#[derive(Debug)]
pub struct Reloader {
    app: Arc<App>,
    origin: Origin,
    /// How the files stood when they were last read.
    read: Survey,
    watcher: Watcher,
}

impl Reloader {
    /// Begins, beside whoever calls it.
    ///
    /// # Errors
    /// If SIGHUP cannot be listened to.
    pub fn start(app: Arc<App>) -> anyhow::Result<JoinHandle<()>> {
        let asked = signal(SignalKind::hangup()).context("cannot listen to SIGHUP")?;
        let in_force = app.current();
        let (origin, read) = (in_force.config.origin.clone(), in_force.config.survey.clone());
        let reloader = Self { origin, read, watcher: Watcher::new(&app.root), app };
        Ok(tokio::spawn(reloader.run(asked)))
    }

    async fn run(mut self, mut asked: Signal) {
        let mut at_once = false;
        loop {
            let watching = self.app.current().config.gateway.hot_reload;
            match watching {
                true if !self.watcher.hints() => self.watcher.watch(self.read.folders()),
                true => {}
                false => self.watcher.stop(),
            }
            if (at_once || watching) && self.saved(at_once, &mut asked).await {
                self.take_over().await;
            } else {
                // A file of somebody else beside ours may be written to all the time.
                tokio::time::sleep(QUIET).await;
            }
            at_once = tokio::select! {
                Some(()) = asked.recv() => true,
                () = self.watcher.hint() => false,
                () = tokio::time::sleep(if self.watcher.hints() { LOOK } else { LOOK_WITHOUT_HINTS }) => false,
            };
        }
    }

    /// Waits until what is being saved is saved. Whether there is something to read.
    async fn saved(&mut self, mut at_once: bool, asked: &mut Signal) -> bool {
        let mut seen = self.survey().await;
        while !at_once {
            if seen == self.read {
                return false;
            }
            self.watcher.watch(seen.folders());
            tokio::select! {
                Some(()) = asked.recv() => at_once = true,
                () = tokio::time::sleep(QUIET) => {}
            }
            let before = std::mem::replace(&mut seen, self.survey().await);
            if before == seen && !self.watcher.is_being_written(&seen) {
                // Of a folder that was removed and made again, what was still on its way from the old one may have ended the watch
                // over the new one.
                self.watcher.watch(seen.folders());
                return true;
            }
        }
        true
    }

    /// Reads what is saved and puts it in force, or says why not.
    async fn take_over(&mut self) {
        for _ in 0..MOST_READINGS {
            let origin = self.origin.clone();
            let reading = tokio::task::spawn_blocking(move || (origin.survey(), origin.load(), origin.survey())).await;
            let Ok((before, loaded, after)) = reading else {
                return self.refuse("reading the configuration panicked".to_owned());
            };
            if before == after {
                self.read = before;
                return match loaded {
                    Ok(config) => self.put_in_force(config).await,
                    // As `doorbell config` shows them.
                    Err(problems) => self.refuse(problems.render(false)),
                };
            }
            tokio::time::sleep(QUIET).await;
        }
        // Somebody saves all the time. The next look comes back to it.
    }

    async fn put_in_force(&mut self, mut config: Config) {
        let turn = self.app.in_force.turn().await;
        let old = self.app.current();
        let kept = changes::keep_what_needs_a_restart(&mut config, &old.base);
        // What was declared stays, and is read with what the files say now.
        let declarations = old.base.declarations();
        let accounts = Arc::clone(&self.app.accounts);
        let work = move || config.with_declared(declarations, |name| accounts.owner_of(name));
        let Ok(config) = tokio::task::spawn_blocking(work).await else {
            return self.refuse("reading what is declared panicked".to_owned());
        };
        let mut changes = changes::list(&old.base, &config);
        let warnings = config.warnings.iter().filter(|warning| !old.base.warnings.contains(warning));
        let warnings: Vec<String> = warnings.map(|warning| format!("warning: {warning}")).collect();
        warnings.iter().for_each(|warning| tracing::warn!("config.{warning}"));
        match self.app.prepare(config, &turn).await {
            Ok(snapshot) => {
                let snapshot = self.app.in_force.replace(snapshot);
                snapshot.hooks.warn_of_locked();
                let said = if changes.is_empty() { "nothing".to_owned() } else { changes.join("; ") };
                tracing::info!(generation = snapshot.generation, changed = %said, "config.reloaded");
                kept.iter().for_each(|sentence| tracing::warn!("config.needs_restart: {sentence}"));
                if !changes.is_empty() {
                    self.app.note_saved(said).await;
                }
                changes.extend(kept);
                changes.extend(warnings);
                self.tell(&snapshot, changes, None);
            }
            Err(error) => {
                // The files are as they should be, so the next look must come back to them.
                self.read = Survey::default();
                self.refuse(error.with_causes());
            }
        }
    }

    fn refuse(&self, error: String) {
        let old = self.app.current();
        tracing::warn!("config.refused: what was in force stays\n{error}");
        self.app.in_force.refuse(error.clone());
        self.tell(&old, Vec::new(), Some(error));
    }

    fn tell(&self, in_force: &Snapshot, changes: Vec<String>, error: Option<String>) {
        let at = clock::now();
        let generation = in_force.generation;
        self.app.signs.reloaded(error.clone().map_or(Ok(()), Err));
        self.app.activity.tell(|| Notice::Config(Arc::new(Reload { generation, at, changes, error })));
    }

    async fn survey(&self) -> Survey {
        let origin = self.origin.clone();
        tokio::task::spawn_blocking(move || origin.survey()).await.unwrap_or_default()
    }
}
