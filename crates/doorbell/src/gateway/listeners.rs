//! Where a gateway listens.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config;
use crate::http::{self, Limits};

/// Its sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    /// `listen`.
    pub(super) senders: TcpListener,
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
    /// Listens everywhere.
    pub(super) fn open(gateway: &config::Gateway) -> anyhow::Result<Self> {
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
    pub(super) fn tell(&self, app: &App) -> anyhow::Result<()> {
        let url = |listener: &TcpListener| anyhow::Ok(local_url(listener.local_addr()?));
        let _ = app.local_url.set(url(self.plain_senders.as_ref().unwrap_or(&self.senders))?);
        if let Some(admin) = &self.admin {
            let _ = app.admin_url.set(url(self.plain_admin.as_ref().unwrap_or(admin))?);
        }
        Ok(())
    }

    /// Serves until `accepting` is cancelled.
    pub(super) fn serve(
        self,
        app: &Arc<App>,
        routers: http::Routers,
        accepting: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
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
