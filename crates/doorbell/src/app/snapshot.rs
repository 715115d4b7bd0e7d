//! What may change while the gateway runs, in one piece: a request or a step of the dispatcher takes the snapshot that
//! is in force and uses it throughout, so that it never sees half of a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_core::matcher::Matcher;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::store::Store;

/// A configuration with what follows from it.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration.
    pub config: Config,
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
    /// Keeps the trigger set, so that it is stored before any event is matched with it.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn prepare(config: Config, store: &dyn Store, generation: u64) -> anyhow::Result<Self> {
        let triggers: Vec<Trigger> = config.agents.values().flat_map(|agent| agent.triggers.clone()).collect();
        let now = clock::now();
        let trigger_set = store.keep_trigger_set(serde_json::to_string(&triggers)?, now).await?;
        Ok(Self { config, matcher: Matcher::new(triggers), trigger_set, generation, loaded_at: now })
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
