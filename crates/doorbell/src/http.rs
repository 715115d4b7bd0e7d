//! HTTP: the accept loop, the routes, and who may come in.

use std::sync::Arc;

use axum::Router;

use crate::app::App;
use crate::dispatch::Dispatcher;
use crate::notify::Notifier;

mod api;
mod auth;
mod body;
mod described;
mod document;
mod error;
mod ingest;
mod known;
mod leases;
mod mcp;
mod once;
mod pages;
mod route;
mod server;
mod stream;
mod table;
mod waits;

pub use server::{Limits, serve};

/// The header in which `/healthz` says which start of which gateway answers.
pub const INSTANCE: &str = "x-doorbell-instance";

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Shared {
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
    notifier: Arc<Notifier>,
    budget: Arc<body::Budget>,
    rejections: Arc<ingest::RejectionCap>,
    /// Answers to handshakes that anybody can ask for, of which only so many are logged.
    greetings: Arc<ingest::RejectionCap>,
    /// Secrets that senders show, capped like rejections.
    captures: Arc<ingest::RejectionCap>,
    certificates: Arc<ingest::Certificates>,
    confirmations: ingest::Confirmations,
    own_limits: Arc<ingest::OwnLimits>,
    turns: Arc<once::Turns>,
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

/// All routes of a gateway. Streams end when `closing` is cancelled.
pub fn routers(
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
    notifier: Arc<Notifier>,
    closing: tokio_util::sync::CancellationToken,
) -> Routers {
    let is_split = app.current().config.gateway.admin_listen.is_some();
    let shared = Shared {
        app,
        dispatcher,
        notifier,
        budget: Arc::new(body::Budget::default()),
        rejections: Arc::new(ingest::RejectionCap::default()),
        greetings: Arc::new(ingest::RejectionCap::default()),
        captures: Arc::new(ingest::RejectionCap::default()),
        certificates: Arc::new(ingest::Certificates::default()),
        confirmations: ingest::Confirmations::default(),
        own_limits: Arc::new(ingest::OwnLimits::default()),
        turns: Arc::new(once::Turns::default()),
        closing,
    };
    let finish = |router: Router<Shared>| {
        let router = router.fallback(error::not_found).method_not_allowed_fallback(error::method_not_allowed);
        router.with_state(shared.clone())
    };
    let senders = route::serve(table::for_senders());
    let management = route::serve(table::for_management());
    if is_split {
        let admin = management.merge(route::serve(table::open())).merge(route::serve(table::metrics(true)));
        // Agents behind a URL tell there how a run ended.
        return Routers { senders: finish(senders.merge(leases::by_token())), admin: Some(finish(admin)) };
    }
    let all = senders.merge(management).merge(route::serve(table::metrics(false)));
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
