//! HTTP: the accept loop, the routes, and who may come in.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, delete, get, patch, post};
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
mod error;
mod guard;
mod ingest;
mod leases;
mod mcp;
mod peer;
mod server;
mod stream;
mod waits;

pub use crowd::Allowance;
pub use server::{Certificates, Introduction, Limits, Service, serve};

/// The header in which `/healthz` says which start of which gateway answers.
pub const INSTANCE: &str = "x-doorbell-instance";

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Shared {
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

/// What is done with agents and their runs.
fn run_routes() -> Router<Shared> {
    Router::new()
        .route("/v1/runs", get(api::list_runs))
        .route("/v1/runs/{id}", get(api::show_run))
        .route("/v1/runs/dead-letters", get(api::list_dead_letters))
        .route("/v1/runs/cancel", post(api::cancel_runs))
        .route("/v1/runs/release", post(api::release_runs))
        .route("/v1/runs/retry", post(api::retry_runs))
        .route("/v1/runs/{id}/logs", get(stream::run_log))
        .route("/v1/runs/{id}/cancel", post(api::cancel_run))
        .route("/v1/runs/{id}/release", post(api::release_run))
        .route("/v1/runs/{id}/retry", post(api::retry_run))
        .route("/v1/runs/{id}/answer", post(waits::answer))
        .route("/v1/agents", get(api::list_agents))
        .route(
            "/v1/agents/{name}",
            get(api::show_agent).put(api::declare_agent).patch(api::amend_agent).delete(api::remove_agent),
        )
        .route("/v1/agents/{name}/run", post(api::run_agent))
        .route("/v1/agents/{name}/pause", post(api::pause_agent))
        .route("/v1/agents/{name}/resume", post(api::resume_agent))
        .route("/v1/events/{id}/replay", post(api::replay_event))
        .route("/v1/replays", get(api::list_replays).post(api::replay_events))
        .route("/v1/replays/{id}", get(api::show_replay))
        .route("/v1/replays/{id}/cancel", post(api::cancel_replay))
        .route("/v1/sources/{name}/pause", post(api::pause_source))
        .route("/v1/sources/{name}/resume", post(api::resume_source))
        .route("/v1/pause", post(api::pause_all))
        .route("/v1/resume", post(api::resume_all))
}

/// Webhooks that are made at run time.
fn webhook_routes() -> Router<Shared> {
    Router::new()
        .route("/v1/agents/{name}/webhooks", get(api::list_webhooks).post(api::create_webhook))
        .route("/v1/agents/{name}/webhooks/{id}", delete(api::delete_webhook))
        .route("/v1/agents/{name}/webhooks/{id}/rotate", post(api::rotate_webhook))
        .route("/v1/agents/{name}/webhooks/{id}/activate", post(api::activate_webhook))
        .route("/v1/agents/{name}/webhooks/{id}/deliveries", get(api::webhook_deliveries))
        .route("/v1/agents/{name}/webhooks/{id}/test", post(api::test_webhook))
        .route("/v1/secrets/rekey", post(api::rekey))
        .route("/agents/{name}", patch(api::set_own_webhook))
        .route("/agents/{name}/executions/{id}", get(api::show_execution))
}

/// What is known of events.
fn event_routes() -> Router<Shared> {
    Router::new()
        .route("/v1/events", get(api::list_events))
        .route("/v1/events/stream", get(stream::stream_activity))
        .route("/v1/events/{id}", get(api::show_event).delete(api::forget_event))
        .route("/v1/events/{id}/body", get(api::event_body))
        .route("/v1/events/{id}/explain", get(api::explain_event))
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
        door: Arc::new(bounds::Door::default()),
        rejections: Arc::new(ingest::RejectionCap::default()),
        greetings: Arc::new(ingest::RejectionCap::default()),
        captures: Arc::new(ingest::RejectionCap::default()),
        certificates: Arc::new(ingest::Certificates::default()),
        confirmations: ingest::Confirmations::default(),
        own_limits: Arc::new(ingest::OwnLimits::default()),
        closing,
    };
    let management = Router::new()
        .route("/v1/backup", post(api::copy_store))
        .route("/v1/sources", get(api::list_sources))
        .route("/v1/sources/{name}/deliveries", get(api::list_deliveries))
        .route("/v1/sources/{name}/captured", get(api::captured_secret).delete(api::forget_captured_secret))
        .route("/v1/stats", get(api::stats))
        .route("/v1/notifications/test", post(api::test_notifications))
        .route("/v1/triggers/test", post(api::test_trigger))
        .route("/v1/audit", get(audit::list))
        .route("/v1/audit/export", get(audit::export))
        .route("/mcp", any(mcp::answer))
        .route("/v1/keys", get(api::list_keys).post(api::create_key))
        .route("/v1/keys/{id}", delete(api::remove_key));
    let management =
        management.merge(event_routes()).merge(run_routes()).merge(webhook_routes()).merge(leases::routes());
    let senders = Router::new()
        .route("/webhooks/{provider}", any(ingest::by_provider))
        .route("/v1/webhooks/{provider}/{source}", any(ingest::by_source))
        .route("/v1/hooks/{id}", any(ingest::by_hook))
        .route("/agents/{name}/webhook", any(ingest::by_agent))
        .route("/healthz", get(api::healthz));
    // Whoever looks whether the gateway is well may do so under any name.
    let managed = |router: Router<Shared>| {
        let router = router.fallback(error::not_found).method_not_allowed_fallback(error::method_not_allowed);
        let router = router.layer(from_fn_with_state(shared.clone(), audit::note));
        let router = router.layer(from_fn_with_state(Arc::clone(&shared.app), guard::guard));
        router.route("/readyz", get(api::readyz))
    };
    let finish = |router: Router<Shared>| {
        router.method_not_allowed_fallback(error::method_not_allowed).with_state(shared.clone())
    };
    if is_split {
        let admin = managed(management.route("/metrics", get(api::metrics_for_all)));
        let admin = admin.route("/healthz", get(api::healthz));
        // Agents behind a URL tell there how a run ended.
        let senders = senders.merge(leases::by_token(&shared)).fallback(error::not_found);
        return Routers { senders: finish(senders), admin: Some(finish(admin)) };
    }
    let all = senders.merge(managed(management.route("/metrics", get(api::metrics))));
    Routers { senders: finish(all), admin: None }
}
