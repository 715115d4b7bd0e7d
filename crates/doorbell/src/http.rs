//! HTTP: the accept loop, the routes, and who may come in.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio_rustls::rustls::server::ClientHello;

use crate::app::{App, PROOF};
use crate::dispatch::Dispatcher;
use crate::notify::Notifier;

mod api;
mod audit;
mod auth;
mod body;
mod bounds;
mod crowd;
mod described;
mod document;
mod error;
mod guard;
mod ingest;
mod known;
mod leases;
mod mcp;
mod once;
mod pages;
mod peer;
mod route;
mod server;
mod stream;
mod table;
mod waits;

pub use crowd::Allowance;
pub use server::{Certificates, Introduction, Limits, Service, serve};

/// The header in which `/healthz` says which start of which gateway answers.
pub const INSTANCE: &str = "x-doorbell-instance";

/// What handlers need. Each request has it several times, so that it is one reference to all of it.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Parts>);

impl Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What handlers need.
#[derive(Debug)]
pub struct Parts {
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
    notifier: Arc<Notifier>,
    budget: Arc<body::Budget>,
    door: Arc<bounds::Door>,
    rejections: Arc<ingest::RejectionCap>,
    /// Answers to handshakes that anybody can ask for, of which only so many are logged.
    greetings: Arc<ingest::RejectionCap>,
    /// Secrets that senders show, capped like rejections.
    captures: Arc<ingest::RejectionCap>,
    certificates: Arc<ingest::Certificates>,
    confirmations: ingest::Confirmations,
    own_limits: Arc<ingest::OwnLimits>,
    turns: Arc<once::Turns>,
    /// Places for streams of server-sent events.
    streams: Arc<crate::app::Shares>,
    /// Ends the streams when the gateway closes: they would hold it open.
    closing: tokio_util::sync::CancellationToken,
}

/// The routes of a gateway.
#[derive(Debug)]
pub struct Routers {
    /// For `listen`.
    pub senders: Router,
    /// For `admin_listen`, if there is one; else the first has these routes too.
    pub admin: Option<Router>,
}

/// What those who connect to one address of a gateway are served.
pub fn service(app: &Arc<App>, router: Router, limits: Limits, speaks_tls: bool) -> Service {
    let allowing = Arc::clone(app);
    // This machine and proxies speak for many.
    let allowance = move |address: IpAddr| {
        let in_force = allowing.current();
        let gateway = &in_force.config.gateway;
        let speaks_for_many =
            address.to_canonical().is_loopback() || peer::is_trusted(&gateway.trusted_proxies, address);
        (!speaks_for_many).then_some(gateway.max_connections_per_address)
    };
    let looking = Arc::clone(app);
    let introduce = move |request: &mut http::Request<hyper::body::Incoming>| {
        peer::note_sender(&looking.current().config.gateway.trusted_proxies, request);
    };
    let showing = Arc::clone(app);
    let certificates = move |hello: &ClientHello<'_>| {
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == PROOF)) {
            return showing.challenges.get(hello.server_name()?);
        }
        Some(Arc::clone(&showing.current().config.gateway.tls.as_ref()?.shown.as_ref()?.server))
    };
    Service {
        router,
        introduce: Arc::new(introduce),
        limits,
        open: app.metrics.connections(),
        allowance: Arc::new(allowance),
        refused: app.metrics.connections_refused(),
        tls: speaks_tls.then(|| Arc::new(certificates) as Certificates),
    }
}

/// All routes of a gateway. Streams end when `closing` is cancelled.
pub fn routers(
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
    notifier: Arc<Notifier>,
    closing: tokio_util::sync::CancellationToken,
) -> Routers {
    let is_split = app.current().config.gateway.admin_listen.is_some();
    let shared = Shared(Arc::new(Parts {
        app,
        dispatcher,
        notifier,
        budget: Arc::new(body::Budget::default()),
        door: Arc::new(bounds::Door::default()),
        rejections: Arc::new(ingest::RejectionCap::default()),
        greetings: Arc::new(ingest::RejectionCap::default()),
        captures: Arc::new(ingest::RejectionCap::default()),
        certificates: Arc::new(ingest::Certificates::default()),
        confirmations: ingest::Confirmations::default(),
        own_limits: Arc::new(ingest::OwnLimits::default()),
        turns: Arc::new(once::Turns::default()),
        streams: stream::places(),
        closing,
    }));
    // Whoever looks whether the gateway is well may do so under any name.
    let managed = |router: Router<Shared>| {
        let router = router.fallback(error::not_found).method_not_allowed_fallback(error::method_not_allowed);
        let router = router.layer(from_fn_with_state(shared.clone(), audit::note));
        let router = router.layer(from_fn_with_state(Arc::clone(&shared.app), guard::guard));
        router.merge(route::serve(table::ready()))
    };
    let finish = |router: Router<Shared>| {
        router.method_not_allowed_fallback(error::method_not_allowed).with_state(shared.clone())
    };
    let senders = route::serve(table::for_senders());
    let management = route::serve(table::for_management());
    if is_split {
        let admin = managed(management.merge(route::serve(table::metrics(true)))).merge(route::serve(table::open()));
        // Agents behind a URL tell there how a run ended.
        let senders = senders.merge(leases::by_token(&shared)).fallback(error::not_found);
        return Routers { senders: finish(senders), admin: Some(finish(admin)) };
    }
    let all = senders.merge(managed(management.merge(route::serve(table::metrics(false)))));
    Routers { senders: finish(all), admin: None }
}

/// The OpenAPI document of the API, as `docs/reference/openapi.json` has it.
pub fn openapi() -> serde_json::Value {
    document::of(&table::all())
}

/// The page that lists the codes of errors, as `docs/errors.md` has it.
pub fn errors_reference() -> String {
    pages::errors_reference()
}
