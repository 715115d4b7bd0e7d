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
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::acme;
use crate::app::{Accounts, App};
use crate::config::{self, Config};
use crate::dispatch::Dispatcher;
use crate::files;
use crate::http::{self, Limits};
use crate::indexer;
use crate::notify::Notifier;
use crate::ops;
use crate::reload::Reloader;
use crate::runtime::{self, Guard};
use crate::schedules;
use crate::store::{self, Store};
use crate::sweep;

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

/// Where a gateway listens.
#[derive(Debug)]
struct Listeners {
    /// `listen`.
    senders: TcpListener,
    /// `admin_listen`.
    admin: Option<TcpListener>,
    /// Connections to `listen`.
    most: usize,
    /// Where plain HTTP is spoken on this machine in place of `listen`, if that speaks TLS: its certificate is for another
    /// name, and commands and agents of this machine need none.
    plain_senders: Option<TcpListener>,
    /// The same for `admin_listen`, which speaks plain HTTP itself if only this machine reaches it.
    plain_admin: Option<TcpListener>,
}

impl Listeners {
    fn open(gateway: &config::Gateway) -> anyhow::Result<Self> {
        let senders = listen(gateway.listen, "`--listen` or `[gateway] listen`")?;
        let admin = match gateway.admin_listen {
            Some(wanted) => Some(listen(wanted, "`[gateway] admin_listen`")?),
            None => None,
        };
        let (mut plain_senders, mut plain_admin) = (None, None);
        if gateway.tls.is_some() {
            let any = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
            plain_senders = Some(listen(any, "")?);
            if gateway.admin_listen.is_some_and(|address| !address.ip().is_loopback()) {
                plain_admin = Some(listen(any, "")?);
            }
        }
        Ok(Self { senders, admin, most: gateway.max_connections, plain_senders, plain_admin })
    }

    /// Tells the other parts where this machine reaches it.
    fn tell(&self, app: &App) -> anyhow::Result<()> {
        let url = |listener: &TcpListener| anyhow::Ok(local_url(listener.local_addr()?));
        let _ = app.local_url.set(url(self.plain_senders.as_ref().unwrap_or(&self.senders))?);
        if let Some(admin) = &self.admin {
            let _ = app.admin_url.set(url(self.plain_admin.as_ref().unwrap_or(admin))?);
        }
        Ok(())
    }

    fn serve(self, app: &Arc<App>, routers: http::Routers, accepting: &CancellationToken) -> Vec<JoinHandle<()>> {
        let serve = |listener: TcpListener, router, limits: Limits, speaks_tls: bool| {
            let service = http::service(app, router, limits, speaks_tls);
            tokio::spawn(http::serve(listener, service, accepting.clone()))
        };
        let few = Limits { connections: ADMIN_CONNECTIONS, ..Limits::default() };
        let mut servers =
            vec![serve(self.senders, routers.senders.clone(), limits(self.most), self.plain_senders.is_some())];
        servers.extend(self.plain_senders.map(|plain| serve(plain, routers.senders, few, false)));
        if let (Some(listener), Some(router)) = (self.admin, routers.admin) {
            servers.push(serve(listener, router.clone(), few, self.plain_admin.is_some()));
            servers.extend(self.plain_admin.map(|plain| serve(plain, router, few, false)));
        }
        servers
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

/// As many connections as there can be files, less those that the store and the agents' pipes need.
fn limits(connections: usize) -> Limits {
    let mut limits = Limits { connections, ..Limits::default() };
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = (limits.connections as u64 + FILES_KEPT).min(hard).max(soft);
        let files = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
        let left = usize::try_from(files.saturating_sub(FILES_KEPT)).unwrap_or(usize::MAX);
        limits.connections = limits.connections.min(left.max(64));
    }
    limits
}

/// Open files that are not connections of senders.
const FILES_KEPT: u64 = 512;

/// Connections to `admin_listen` at once: some of the files that are kept.
const ADMIN_CONNECTIONS: usize = 256;

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

/// Connections that may wait to be accepted, if the system allows as many: one for which there is no room tries again only
/// after a second. `TcpListener::bind` lets 128 wait, which a burst of senders fills.
const BACKLOG: u32 = 4096;

/// `key`: what chooses another address.
fn listen(wanted: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if wanted.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As `bind` does: an address that was in use a moment ago can be used again.
        socket.set_reuseaddr(true)?;
        socket.bind(wanted)?;
        socket.listen(BACKLOG)
    };
    bind().with_context(|| format!("cannot listen on {wanted}: choose another address with {key}"))
}

/// The URL of an address on this machine: all interfaces are reached by loopback.
fn local_url(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    format!("http://{address}")
}
