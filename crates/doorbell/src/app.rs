//! What the parts of a running gateway share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use aws_lc_rs::digest;
use doorbell_client::Outbound;
use doorbell_core::id::{EventId, RunId};
use doorbell_core::provider::encode_hex;
use doorbell_core::time::Timestamp;
use tokio::sync::broadcast;

use crate::clock;
use crate::conditions::Pool;
use crate::config::Config;
use crate::store::{self, Change, Rejection, Store, StoredRun, Within};
use crate::telemetry::{Metrics, Traces};
use crate::vault::Vault;

mod access;
mod accounts;
mod challenges;
mod declared;
mod pauses;
mod replays;
mod secret_uses;
mod shares;
mod signs;
mod snapshot;
pub mod subscriptions;
mod untold;
mod waits;
pub mod webhooks;

pub use access::{Access, Known, RunToken, Unknown};
pub use accounts::{Account, Accounts};
pub use challenges::{Challenges, PROOF};
pub use declared::{load_declared, note_declared};
pub use pauses::{Pause, Paused, Pauses};
pub use replays::Replays;
pub use secret_uses::SecretUses;
pub use shares::{Share, Shares};
pub use signs::{Arrivals, Signs, Taken, Telling};
pub use snapshot::{InForce, Snapshot, Turn};
pub use subscriptions::Listeners;
pub use untold::Untold;
pub use waits::Waits;

/// The folder of a project that holds its state.
pub const STATE_FOLDER: &str = ".doorbell";

/// What the parts of a running gateway share.
#[derive(Debug)]
pub struct App {
    /// The project's folder, absolute.
    pub root: PathBuf,
    /// The folder of its state.
    pub state: PathBuf,
    /// The configuration, which may be replaced while the gateway runs.
    pub in_force: InForce,
    /// Everything durable.
    pub store: Arc<dyn Store>,
    /// The threads that evaluate conditions of triggers.
    pub conditions: Pool,
    /// What opens the secrets that are stored.
    pub vault: Vault,
    /// API keys and run tokens.
    pub access: Access,
    /// Which agents and sources are whose.
    pub accounts: Arc<Accounts>,
    /// Proofs for an authority that issues certificates.
    pub challenges: Challenges,
    /// Which secrets verify deliveries.
    pub secret_uses: SecretUses,
    /// What somebody paused.
    pub pauses: Pauses,
    /// Events that are carried out once more.
    pub replays: Replays,
    /// Whether runs wait for something.
    pub waits: Waits,
    /// Whether anybody subscribes to events.
    pub listeners: Listeners,
    /// Connections to receivers that somebody else than the operator chose, which are kept from one delivery to the next.
    pub public: Arc<Outbound>,
    /// Follow-ups that are being tried.
    pub untold: Untold,
    /// What happens, for those who watch.
    pub activity: Activity,
    /// What may be worth telling.
    pub signs: Signs,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Traces of deliveries and tries.
    pub traces: Traces,
    /// Where deliveries reach this gateway from this machine; set once it listens.
    pub local_url: OnceLock<String>,
    /// Where the API is reached from this machine, if that is elsewhere (`admin_listen`).
    pub admin_url: OnceLock<String>,
    /// What tells this start of this gateway from every other one; `/healthz` says it to anybody.
    pub instance: String,
    /// When the store was last seen to take writes, in milliseconds since the Unix epoch.
    pub seen_ready: AtomicI64,
    /// Whether something is stored that could not be put in force.
    pub is_behind: AtomicBool,
    /// Whether the gateway shuts down, and takes no more deliveries.
    pub closing: AtomicBool,
}

impl App {
    /// With a configuration that is put in force, and what the store remembers.
    ///
    /// # Errors
    /// If the store is unavailable, or threads cannot be started.
    pub async fn new(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let root = config.root.clone();
        let secret_uses = SecretUses::new(store.secret_uses().await?);
        let notes = store.notes("").await?;
        let accounts = Arc::new(Accounts::load(&notes));
        let access = Access::new(store.keys().await?, Arc::clone(&accounts));
        let pauses = Pauses::load(&notes);
        let config = config.with_declared(load_declared(&notes), |name| accounts.owner_of(name));
        for (agent, problem) in config.declared.iter().filter_map(|(name, declared)| Some((name, declared.problem()?)))
        {
            tracing::warn!(agent, problem, "agent.out_of_force: its runs are held");
        }
        let metrics = Metrics::new(clock::now());
        let traces = Traces::start(&config.telemetry, metrics.spans())?;
        let state = root.join(STATE_FOLDER);
        let vault = Vault::open(&state, config.origin.master_key().as_deref())?;
        if let Some(broken) = vault.broken() {
            tracing::error!(error = broken, "master_key.unreadable: it is not written over; put the right one there");
        }
        let public = Arc::new(Outbound::in_public());
        let snapshot = Snapshot::prepare(config, store.as_ref(), &vault, &public, 1).await?;
        snapshot.hooks.warn_of_locked();
        accounts.settle(store.as_ref(), &snapshot.config, &snapshot.hooks).await?;
        let in_force = InForce::new(snapshot);
        Ok(Self {
            state,
            root,
            in_force,
            store,
            conditions: Pool::start().context("cannot start the threads that evaluate conditions")?,
            vault,
            access,
            accounts,
            challenges: Challenges::default(),
            secret_uses,
            pauses,
            replays: Replays::default(),
            waits: Waits::default(),
            listeners: Listeners::default(),
            public,
            untold: Untold::default(),
            activity: Activity::default(),
            signs: Signs::default(),
            metrics,
            traces,
            local_url: OnceLock::new(),
            admin_url: OnceLock::new(),
            instance: encode_hex(&clock::random::<16>()),
            seen_ready: AtomicI64::new(0),
            is_behind: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        })
    }

    /// What is in force now. A request or step takes it once, and uses it throughout.
    pub fn current(&self) -> Arc<Snapshot> {
        self.in_force.current()
    }

    /// Notes in the audit log what saved files changed; they are in force whether that can be kept or not.
    pub async fn note_saved(&self, changes: String) {
        let change = Change::local(clock::now(), "saved files", "config reload", changes);
        if let Err(error) = store::note_done(self.store.as_ref(), change).await {
            tracing::error!(error = error.with_causes(), "audit.reload_not_kept");
        }
    }

    /// The URL that senders use by this snapshot: the public one, else the local one.
    pub fn public_url<'a>(&'a self, snapshot: &'a Snapshot) -> &'a str {
        match &snapshot.config.gateway.public_url {
            Some(url) => url,
            None => self.local_url(),
        }
    }

    /// The URL of this gateway on this machine, for deliveries.
    pub fn local_url(&self) -> &str {
        self.local_url.get().map_or("", String::as_str)
    }

    /// The URL of its API on this machine.
    pub fn api_url(&self) -> &str {
        self.admin_url.get().map_or_else(|| self.local_url(), String::as_str)
    }
}

/// Something that happened, as watchers are told. A hint: the store has the truth.
#[derive(Debug, Clone)]
pub enum Notice {
    /// An event was stored.
    Event(EventId),
    /// A stored event was delivered again.
    Duplicate(EventId),
    /// A delivery was refused.
    Rejected(Arc<Rejection>),
    /// A run changed its state.
    Run(Arc<StoredRun>),
    /// A run wrote so many lines after line number `after`. The store has them: a watcher that is slow holds none.
    Log {
        /// The run.
        run: RunId,
        /// The number of the line before the first of them.
        after: u64,
        /// How many.
        lines: usize,
    },
    /// A saved configuration was taken over, or refused.
    Config(Arc<Reload>),
}

/// What became of a saved configuration.
#[derive(Debug, Clone)]
pub struct Reload {
    /// The generation in force after it.
    pub generation: u64,
    /// When.
    pub at: Timestamp,
    /// What it changed, one sentence each.
    pub changes: Vec<String>,
    /// Everything that is wrong with it; then the old one stays.
    pub error: Option<String>,
}

/// What happens, for those who watch.
#[derive(Debug)]
pub struct Activity(broadcast::Sender<Notice>);

/// Notices that a slow watcher may be behind before it misses some.
const NOTICES_KEPT: usize = 4096;

impl Default for Activity {
    fn default() -> Self {
        Self(broadcast::channel(NOTICES_KEPT).0)
    }
}

impl Activity {
    /// Tells those who watch; `notice` is made only if somebody does.
    pub fn tell(&self, notice: impl FnOnce() -> Notice) {
        if self.is_watched() {
            let _ = self.0.send(notice());
        }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Begins to watch.
    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.0.subscribe()
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// May do everything.
    Owner {
        /// The key's id or what it is called by, for the record.
        name: String,
    },
    /// May look at everything.
    Viewer,
    /// May see what is an account's.
    Account {
        /// The account.
        account: Account,
        /// Whether it may change it, too.
        changes: bool,
        /// What its key is called by, for the record.
        name: String,
    },
    /// May see and change what is this agent's.
    Agent(String),
    /// A running attempt: may see what is its agent's.
    Run {
        /// The run.
        run: RunId,
        /// Its agent.
        agent: String,
    },
}

impl Caller {
    /// What it is confined to; none: it may see everything.
    pub fn confined_to(&self) -> Option<Within> {
        match self {
            Self::Owner { .. } | Self::Viewer => None,
            Self::Account { account, .. } => Some(account.within()),
            Self::Agent(agent) | Self::Run { agent, .. } => {
                Some(Within { agents: vec![agent.clone()], sources: Vec::new() })
            }
        }
    }

    /// Whether it may see everything.
    pub fn sees_all(&self) -> bool {
        matches!(self, Self::Owner { .. } | Self::Viewer)
    }

    /// Whether it may see this agent and what is its.
    pub fn may_see(&self, agent: &str) -> bool {
        match self {
            Self::Owner { .. } | Self::Viewer => true,
            Self::Account { account, .. } => account.has_agent(agent),
            Self::Agent(own) | Self::Run { agent: own, .. } => own == agent,
        }
    }

    /// Whether all that comes to this source is for it to see: agents see what they have an outcome for.
    pub fn has_source(&self, source: &str) -> bool {
        match self {
            Self::Owner { .. } | Self::Viewer => true,
            Self::Account { account, .. } => account.has_source(source),
            Self::Agent(_) | Self::Run { .. } => false,
        }
    }

    /// Whether it may change what it may see: it is a person's or an agent's key, and not one to look with or a run's token.
    pub fn changes(&self) -> bool {
        matches!(self, Self::Owner { .. } | Self::Account { changes: true, .. } | Self::Agent(_))
    }

    /// Whether it is the key of an owner: of the gateway, or of an account.
    pub fn is_owner(&self) -> bool {
        matches!(self, Self::Owner { .. } | Self::Account { changes: true, .. })
    }

    /// For the record: who did it.
    pub fn name(&self) -> String {
        match self {
            Self::Owner { name } => name.clone(),
            Self::Viewer | Self::Account { changes: false, .. } => "a viewer".to_owned(),
            Self::Account { name, .. } => name.clone(),
            Self::Agent(agent) => format!("agent {agent}"),
            Self::Run { run, .. } => run.to_string(),
        }
    }
}

/// A new key: a prefix and 256 random bits in hex.
pub fn make_key(prefix: &str) -> String {
    format!("{prefix}_{}", encode_hex(&clock::random::<32>()))
}

/// The SHA-256 of a key. A key has 256 random bits, so nothing slower is needed.
pub fn hash_key(key: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, key.as_bytes()).as_ref().to_vec()
}
