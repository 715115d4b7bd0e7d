//! What may change while the gateway runs, in one piece: a request or a step of the dispatcher takes the snapshot that
//! is in force and uses it throughout, so that it never sees half of a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_client::Outbound;
use doorbell_core::matcher::Matcher;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;
use tokio::sync::watch;

use super::App;
use super::subscriptions::{self, Subscribers};
use super::webhooks::{self, Hooks};
use crate::clock;
use crate::config::{Agent, Config};
use crate::store::{Error, Store};
use crate::vault::Vault;

/// A configuration with what follows from it.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration as files and declarations have it: what the next one is made of.
    pub base: Config,
    /// The same with the webhooks that were made at run time laid over it, as sources and triggers.
    pub config: Config,
    /// Those webhooks.
    pub hooks: Hooks,
    /// The subscriptions of MCP Events.
    pub subscribers: Subscribers,
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
    /// What is in force by this configuration and by what is stored. Keeps the trigger set, so that it is stored before any
    /// event is matched with it; what a webhook of the store starts is told by the store itself, and not kept in it.
    pub(super) async fn prepare(
        base: Config,
        store: &dyn Store,
        vault: &Vault,
        public: &Arc<Outbound>,
        generation: u64,
    ) -> Result<Self, Error> {
        let now = clock::now();
        let mut config = base.clone();
        let hooks = webhooks::lay_over(&mut config, store.webhooks().await?, vault, now);
        let triggers: Vec<Trigger> = config.agents.values().flat_map(|agent| agent.triggers.clone()).collect();
        let kept: Vec<&Trigger> = triggers.iter().filter(|trigger| hooks.get(&trigger.source).is_none()).collect();
        let text = serde_json::to_string(&kept).map_err(|error| Error::Unavailable(Box::new(error)))?;
        let trigger_set = store.keep_trigger_set(text, now).await?;
        let stored = store.subscriptions().await?;
        let subscribers = subscriptions::put_in_force(&config, stored, vault, public, now);
        let matcher = Matcher::new(triggers);
        Ok(Self { base, config, hooks, subscribers, matcher, trigger_set, generation, loaded_at: now })
    }

    /// Whoever carries out the runs of this name: an agent, or a subscription.
    pub fn agent(&self, name: &str) -> Option<&Arc<Agent>> {
        let subscriber = || self.subscribers.get(name)?.agent.as_ref();
        self.config.agents.get(name).or_else(subscriber)
    }

    /// All of them.
    pub fn all_agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.config.agents.values().chain(self.subscribers.agents())
    }
}

impl App {
    /// Makes the next snapshot of another configuration and of the webhooks that are stored. The caller puts it in force.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn prepare(&self, base: Config, _turn: &Turn<'_>) -> Result<Snapshot, Error> {
        let generation = self.current().generation + 1;
        let (store, vault) = (self.store.as_ref(), &self.vault);
        let snapshot = Snapshot::prepare(base, store, vault, &self.public, generation).await?;
        self.accounts.settle(self.store.as_ref(), &snapshot.config, &snapshot.hooks).await?;
        Ok(snapshot)
    }

    /// Puts the webhooks and subscriptions in force that are stored now, beside the same configuration.
    ///
    /// # Errors
    /// If the store is unavailable; then what was in force stays.
    pub async fn renew(&self, _turn: &Turn<'_>) -> Result<Arc<Snapshot>, Error> {
        let old = self.current();
        let (store, vault) = (self.store.as_ref(), &self.vault);
        let snapshot = Snapshot::prepare(old.base.clone(), store, vault, &self.public, old.generation).await?;
        self.accounts.settle(self.store.as_ref(), &snapshot.config, &snapshot.hooks).await?;
        Ok(self.in_force.amend(Snapshot { loaded_at: old.loaded_at, ..snapshot }))
    }
}

/// The turn of whoever stores a change and puts it in force.
pub type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

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

    /// The turn of whoever makes another snapshot of the one in force: held until it is replaced, so that no change is lost,
    /// and none is put in force in another order than it was stored.
    pub async fn turn(&self) -> Turn<'_> {
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
