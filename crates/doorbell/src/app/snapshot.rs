//! What may change while the gateway runs, in one piece: a request or a step of the dispatcher takes the snapshot that
//! is in force and uses it throughout, so that it never sees half of a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_core::matcher::Matcher;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;
use tokio::sync::watch;

use super::App;
use super::webhooks::{self, Hooks};
use crate::clock;
use crate::config::Config;
use crate::store::Store;
use crate::vault::Vault;

/// A configuration with what follows from it.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration as the files have it.
    pub files: Config,
    /// The same with what is stored beside it: webhooks that were made at run time, as sources and triggers.
    pub config: Config,
    /// Those webhooks.
    pub hooks: Hooks,
    /// Its triggers.
    pub matcher: Matcher,
    /// The version under which the store keeps them.
    pub trigger_set: i64,
    /// 1 for the configuration that the gateway started with, and one more for each that was taken over since.
    pub generation: u64,
    /// When it was taken over.
    pub loaded_at: Timestamp,
}

impl Snapshot {
    /// What is in force by these files and by what is stored. Keeps the trigger set, so that it is stored before any event
    /// is matched with it; what a webhook of the store starts is told by the store itself, and not kept in it.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub(super) async fn prepare(
        files: Config,
        store: &dyn Store,
        vault: &Vault,
        generation: u64,
    ) -> anyhow::Result<Self> {
        let now = clock::now();
        let mut config = files.clone();
        let hooks = webhooks::lay_over(&mut config, store.webhooks().await?, vault, now);
        let triggers: Vec<Trigger> = config.agents.values().flat_map(|agent| agent.triggers.clone()).collect();
        let kept: Vec<&Trigger> = triggers.iter().filter(|trigger| hooks.get(&trigger.source).is_none()).collect();
        let trigger_set = store.keep_trigger_set(serde_json::to_string(&kept)?, now).await?;
        Ok(Self { files, config, hooks, matcher: Matcher::new(triggers), trigger_set, generation, loaded_at: now })
    }
}

impl App {
    /// Puts the configuration of the files in force, with what is stored beside it.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn put_in_force(&self, files: Config) -> anyhow::Result<Arc<Snapshot>> {
        let _one_at_a_time = self.changing.lock().await;
        let generation = self.current().generation + 1;
        let snapshot = Snapshot::prepare(files, self.store.as_ref(), &self.vault, generation).await?;
        snapshot.hooks.warn_of_locked();
        Ok(self.in_force.replace(snapshot))
    }

    /// Puts what is stored now in force, beside the same files. `changing`: the caller holds [`App::changing`], so that what
    /// it stored is not put in force in another order than it was stored.
    ///
    /// # Errors
    /// If the store is unavailable; then what was in force stays.
    pub async fn renew(&self, _changing: &tokio::sync::MutexGuard<'_, ()>) -> anyhow::Result<Arc<Snapshot>> {
        let old = self.current();
        let snapshot = Snapshot::prepare(old.files.clone(), self.store.as_ref(), &self.vault, old.generation).await?;
        Ok(self.in_force.renew(Snapshot { loaded_at: old.loaded_at, ..snapshot }))
    }
}

/// The snapshot in force, and why the newest try to replace it failed.
#[derive(Debug)]
pub struct InForce {
    snapshot: watch::Sender<Arc<Snapshot>>,
    refused: Mutex<Option<String>>,
}

impl InForce {
    /// Begins with this one.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: watch::Sender::new(Arc::new(snapshot)), refused: Mutex::default() }
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The snapshot in force, and those that follow it.
    pub fn follow(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Puts another one in force.
    pub fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        let mut refused = self.refused();
        self.snapshot.send_replace(Arc::clone(&snapshot));
        *refused = None;
        snapshot
    }

    /// Puts another one in force that the same files make.
    pub(super) fn renew(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        self.snapshot.send_replace(Arc::clone(&snapshot));
        snapshot
    }

    /// Notes that what is saved now could not be taken over.
    pub fn refuse(&self, error: String) {
        *self.refused() = Some(error);
    }

    /// The snapshot in force, and why what is saved now is not; none if it is.
    pub fn state(&self) -> (Arc<Snapshot>, Option<String>) {
        let refused = self.refused();
        (self.current(), refused.clone())
    }

    fn refused(&self) -> MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
