//! What may change while the gateway runs, in one piece: a request or a step of the dispatcher takes the snapshot that
//! is in force and uses it throughout, so that it never sees half of a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_core::matcher::Matcher;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::store::{Error, Store};

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
    pub async fn prepare(config: Config, store: &dyn Store, generation: u64) -> Result<Self, Error> {
        let triggers: Vec<Trigger> = config.agents.values().flat_map(|agent| agent.triggers.clone()).collect();
        let now = clock::now();
        let text = serde_json::to_string(&triggers).map_err(|error| Error::Unavailable(Box::new(error)))?;
        let trigger_set = store.keep_trigger_set(text, now).await?;
        Ok(Self { config, matcher: Matcher::new(triggers), trigger_set, generation, loaded_at: now })
    }
}

/// The snapshot in force, and why the newest try to replace it failed.
#[derive(Debug)]
pub struct InForce {
    snapshot: watch::Sender<Arc<Snapshot>>,
    refused: Mutex<Option<String>>,
    turn: tokio::sync::Mutex<()>,
}

impl InForce {
    /// Begins with this one.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: watch::Sender::new(Arc::new(snapshot)),
            refused: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The turn of whoever makes another snapshot of the one in force: held until it is replaced, so that no change is lost.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The snapshot in force, and those that follow it.
    pub fn follow(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Puts another one in force: what is saved now.
    pub fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let mut refused = self.refused();
        *refused = None;
        self.amend(snapshot)
    }

    /// Puts another one of the same files in force: whether what is saved now could be taken over is as it was.
    pub fn amend(&self, snapshot: Snapshot) -> Arc<Snapshot> {
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
