//! A running gateway: everything put together, started and closed in order.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use doorbell_client::api::NewKey;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::listeners::Listeners;
use crate::acme;
use crate::app::{Accounts, App};
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::files;
use crate::http;
use crate::indexer;
use crate::notify::Notifier;
use crate::ops;
use crate::reload::Reloader;
use crate::runtime::{self, Guard};
use crate::schedules;
use crate::store::{self, Store};
use crate::sweep;

mod listeners;

pub use crate::app::STATE_FOLDER;

/// Where a running gateway can be found: the content of `.doorbell/gateway.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The URL of its API on this machine.
    pub url: String,
    /// Where deliveries reach it on this machine, if that is elsewhere (`admin_listen`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<String>,
    /// Its process.
    pub pid: u32,
    /// Its database, as `store.url` names it.
    #[serde(default)]
    pub store: String,
    /// What its `/healthz` says in the header [`http::INSTANCE`].
    #[serde(default)]
    pub instance: String,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
    /// The `PATH` that commands get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The file that tells where the gateway of a project runs.
pub fn address_file(root: &Path) -> PathBuf {
    root.join(STATE_FOLDER).join("gateway.json")
}

/// The file that holds the local owner's key.
pub fn key_file(root: &Path) -> PathBuf {
    root.join(STATE_FOLDER).join("key")
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// What its parts share.
    pub app: Arc<App>,
    /// Where it listens.
    pub address: SocketAddr,
    dispatcher: Arc<Dispatcher>,
    notifier: Arc<Notifier>,
    accepting: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    _reaper: AbortOnDropHandle<()>,
    /// Held until everything is closed.
    _project: Flock<File>,
    keeper: JoinHandle<()>,
    reloading: JoinHandle<()>,
    _acme: Option<AbortOnDropHandle<()>>,
    sweeping: CancellationToken,
    sweeper: JoinHandle<()>,
    scheduler: JoinHandle<()>,
    watcher: JoinHandle<()>,
    readers: [JoinHandle<()>; 2],
}

impl Gateway {
    /// Opens the store, listens, and begins to carry runs out.
    ///
    /// `program` is this program's own file (it watches over the agents' processes), `inherited` the environment that
    /// commands get.
    ///
    /// # Errors
    /// If another gateway runs for the project, the address is taken, or the store cannot be opened.
    pub async fn start(config: Config, program: &Path, inherited: Vec<(String, OsString)>) -> anyhow::Result<Self> {
        let root = config.root.clone();
        let state = root.join(STATE_FOLDER);
        let path = inherited.iter().find(|(name, _)| name == "PATH").and_then(|(_, value)| value.to_str());
        let path = path.map(str::to_owned);
        let project = take_project(&state).await?;
        let mut commands = config.agents.values().filter_map(|agent| agent.runtime.command());
        let passable = commands.any(|command| command.run_as.is_some());
        runtime::keep_state(&state, passable)
            .with_context(|| format!("cannot set the modes of {}", state.display()))?;
        let store = store::open(&config.store_url, &root).await?;
        let listeners = Listeners::open(&config.gateway)?;
        let address = listeners.senders.local_addr()?;
        ensure_local_key(store.as_ref(), &root).await?;
        let app = Arc::new(App::new(config, store).await?);
        listeners.tell(&app)?;
        let reaper = runtime::adopt();
        let guard = Arc::new(Guard::start(program).context("cannot start the process that watches over the agents")?);
        let dispatcher = Dispatcher::new(Arc::clone(&app), Arc::clone(&guard), state.join("runs"), inherited.clone());
        dispatcher.start();
        let notifier = Notifier::new(Arc::clone(&app), Arc::clone(&dispatcher), guard, inherited);
        notifier.start();
        let sweeping = CancellationToken::new();
        let sweeper = sweep::start(Arc::clone(&app), Arc::clone(&dispatcher), sweeping.clone());
        let scheduler = schedules::start(Arc::clone(&app), Arc::clone(&dispatcher), sweeping.clone());
        let watcher = ops::waits::start(Arc::clone(&app), Arc::clone(&dispatcher), sweeping.clone());
        let follower = ops::subscriptions::start(Arc::clone(&app), Arc::clone(&dispatcher), sweeping.clone());
        let readers = [follower, indexer::start(Arc::clone(&app), sweeping.clone())];
        let accepting = CancellationToken::new();
        let routers =
            http::routers(Arc::clone(&app), Arc::clone(&dispatcher), Arc::clone(&notifier), accepting.clone());
        let servers = listeners.serve(&app, routers, &accepting);
        let keeper = tokio::spawn(keep_uses(Arc::clone(&app), accepting.clone()));
        files::write_private(&address_file(&root), serde_json::to_string(&found_at(&app, path))?.as_bytes())?;
        ops::replays::resume(&app, &dispatcher).await?;
        let reloading = Reloader::start(Arc::clone(&app))?;
        let in_force = app.current();
        tracing::info!(%address, project = %root.display(), sources = in_force.config.sources.len(),
            agents = in_force.config.agents.len(), "gateway.started");
        Ok(Self {
            address,
            dispatcher,
            notifier,
            accepting,
            servers,
            keeper,
            reloading,
            _acme: acme::start(&app),
            app,
            sweeping,
            sweeper,
            scheduler,
            watcher,
            readers,
            _reaper: reaper,
            _project: project,
        })
    }

    /// How many agents it runs at the moment.
    pub fn running(&self) -> usize {
        self.dispatcher.running()
    }

    /// Stops accepting, lets running agents end within `limit`, ends and hands back the rest.
    pub async fn close(self, limit: Duration) {
        tracing::info!(limit_ms = limit.as_millis() as u64, "gateway.closing");
        self.reloading.abort();
        // No more deliveries; but agents and people reach the API until the last run is over.
        self.app.closing.store(true, Ordering::Relaxed);
        self.sweeping.cancel();
        self.app.replays.close().await;
        let _ = self.sweeper.await;
        let _ = self.scheduler.await;
        let _ = self.watcher.await;
        for reader in self.readers {
            let _ = reader.await;
        }
        self.dispatcher.close(limit).await;
        self.notifier.close().await;
        forget_address(&self.app);
        self.accepting.cancel();
        for server in self.servers {
            let _ = server.await;
        }
        let _ = self.keeper.await;
        // Deliveries that were still under way when it ended.
        keep_secret_uses_now(&self.app).await;
        keep_key_uses_now(&self.app).await;
        self.app.traces.close().await;
        tracing::info!("gateway.closed");
    }
}

/// How long what was counted may wait to be kept.
const KEPT_EVERY: Duration = Duration::from_secs(1);

/// The same of what may be a little older.
const KEPT_RARELY: Duration = Duration::from_secs(60);

/// Rounds of keeping from one look at what is gone to the next.
const FORGOTTEN_EVERY: u64 = 10;

/// Puts in force what was stored when the store did not let it.
async fn catch_up(app: &App) {
    if app.is_behind.swap(false, Ordering::Relaxed) {
        let turn = app.in_force.turn().await;
        match app.renew(&turn).await {
            Ok(_) => tracing::info!("change.in_force"),
            Err(_) => app.is_behind.store(true, Ordering::Relaxed),
        }
    }
}

/// Keeps which secrets and keys are in use, until the gateway accepts no more, and forgets now and then what there is no
/// source or agent for any more.
async fn keep_uses(app: Arc<App>, accepting: CancellationToken) {
    let mut keys_kept = Instant::now();
    for round in 1u64.. {
        if accepting.run_until_cancelled(tokio::time::sleep(KEPT_EVERY)).await.is_none() {
            return;
        }
        keep_secret_uses_now(&app).await;
        catch_up(&app).await;
        if round.is_multiple_of(FORGOTTEN_EVERY) {
            let config = &app.current().config;
            app.metrics.forget_gone(|name| config.sources.contains_key(name), |name| config.agents.contains_key(name));
        }
        if keys_kept.elapsed() >= KEPT_RARELY {
            keys_kept = Instant::now();
            keep_key_uses_now(&app).await;
        }
    }
}

async fn keep_key_uses_now(app: &App) {
    if let Err(error) = app.access.keep_uses(app.store.as_ref()).await {
        tracing::debug!(error = error.with_causes(), "key_uses.not_kept");
    }
}

async fn keep_secret_uses_now(app: &App) {
    if let Err(error) = app.secret_uses.keep(app.store.as_ref()).await {
        tracing::debug!(error = error.with_causes(), "secret_uses.not_kept");
    }
}

/// The first start makes one owner's key, readable by the local user only.
async fn ensure_local_key(store: &dyn Store, root: &Path) -> anyhow::Result<()> {
    let file = key_file(root);
    let known = match std::fs::read_to_string(&file) {
        Ok(text) => {
            let hash = crate::app::hash_key(text.trim());
            store.keys().await?.iter().any(|key| key.hash == hash)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    if !known {
        let wish = NewKey { name: "local".to_owned(), role: "owner".to_owned(), ..NewKey::default() };
        let (_, created) = ops::keys::make(store, wish, &[], &Accounts::default()).await?;
        files::write_private(&file, created.key.as_bytes())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Another gateway uses the project.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Taken(pub String);

/// Takes the project for this process: the files in its folder are one gateway's.
/// Before anything in the folder is written: another one with a database of its own is in the way, too.
async fn take_project(state: &Path) -> anyhow::Result<Flock<File>> {
    files::make_private_folder(state).with_context(|| format!("cannot make {}", state.display()))?;
    let path = state.join("gateway.lock");
    let begun = Instant::now();
    loop {
        if let Some(lock) = files::take_lock(&path, FlockArg::LockExclusiveNonblock)? {
            return Ok(lock);
        }
        if begun.elapsed() > GRACE {
            let (state, lock) = (state.display(), path.display());
            let message = format!("another gateway uses {state}: stop it first (`fuser {lock}` shows its process)");
            return Err(Taken(message).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How long a gateway that was killed may seem to live: a process that it was about to start holds its files until then.
const GRACE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// Takes the address away that was written, unless somebody put another one there.
fn forget_address(app: &App) {
    let file = address_file(&app.root);
    let written = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Address>(&text).ok());
    if written.is_some_and(|address| address.instance == app.instance) {
        let _ = std::fs::remove_file(file);
    }
}

/// What tells the commands of this project where the gateway is.
fn found_at(app: &App, path: Option<String>) -> Address {
    Address {
        url: app.api_url().to_owned(),
        ingest: app.admin_url.get().map(|_| app.local_url().to_owned()),
        pid: std::process::id(),
        store: app.current().config.store_url.clone(),
        instance: app.instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        path,
    }
}
