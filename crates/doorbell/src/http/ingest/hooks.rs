//! Webhooks that are made at run time: deliveries by the webhook's id, and requests to an agent's own webhook.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use doorbell_client::api::{Receipt, Success};
use doorbell_core::source::Source;
use doorbell_core::verify::Verified;
use http::StatusCode;
use tokio::sync::OwnedMutexGuard;

use super::super::Shared;
use super::super::error::Failure;
use super::{receive, receive_for};
use crate::app::Snapshot;
use crate::ops;

/// Requests to an agent's own webhook in [`WINDOW`], of those that prove themselves.
const MOST_REQUESTS: usize = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Runs that an agent's own webhook started and that are not over, at most.
const MOST_UNFINISHED: usize = 10;
/// When it is worth trying again, if so many are not over.
const RETRY_UNFINISHED: Duration = Duration::from_secs(10);

/// `…/v1/hooks/{webhookId}`: one webhook takes the event.
pub(in crate::http) async fn by_hook(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Ok(Path(id)) = path else { return Failure::not_found().into_response() };
    let in_force = shared.app.current();
    let sources = match in_force.hooks.get(&id) {
        Some(hook) if hook.webhook.own.is_none() => source_of(&in_force, &id),
        _ => Ok(Vec::new()),
    };
    match sources {
        Ok(sources) => receive(shared, sources, remote, request).await,
        Err(failure) => failure.into_response(),
    }
}

/// `POST /agents/{agent}/webhook`: the agent's own webhook, which answers in its own words.
pub(in crate::http) async fn by_agent(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Ok(Path(agent)) = path else { return Failure::not_found().into_response() };
    let in_force = shared.app.current();
    let sources = match in_force.hooks.own(&agent) {
        Some(hook) => source_of(&in_force, &hook.webhook.id.to_string()),
        None => Ok(Vec::new()),
    };
    match sources {
        Ok(sources) => {
            let app = Arc::clone(&shared.app);
            receive_for(shared, sources, remote, request, async move |receipt| started(&app, receipt).await).await
        }
        Err(failure) => failure.into_response(),
    }
}

/// What the sender hears of what was stored.
async fn started(app: &crate::app::App, receipt: Receipt) -> Response {
    let Some(run) = receipt.runs.first() else {
        let detail =
            format!("{} is stored and starts nothing: the agent is disabled, or its queue full", receipt.delivery_id);
        return Failure::new(StatusCode::CONFLICT, "not_started", detail).into_response();
    };
    Json(Success::new(ops::own_webhook::started(app, run).await)).into_response()
}

/// The source of a webhook that is in force; a refusal if none of its secrets can be used.
fn source_of(in_force: &Snapshot, name: &str) -> Result<Vec<Arc<Source>>, Failure> {
    match in_force.config.sources.get(name) {
        Some(source) => Ok(vec![Arc::clone(source)]),
        None => Err(locked()),
    }
}

fn locked() -> Failure {
    let detail = "the secret of this webhook cannot be used now; try again later";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "secret_unavailable", detail).retry_later()
}

/// Instead of a refusal, when a secret that cannot be used might have verified it: the owner's mistake, not the sender's.
pub(super) fn excuse(in_force: &Snapshot, sources: &[Arc<Source>]) -> Option<(Failure, String)> {
    let hooks = sources.iter().filter_map(|source| in_force.hooks.get(source.name()));
    hooks.filter_map(|hook| hook.locked.clone()).next().map(|why| (locked(), why))
}

/// How much agents' own webhooks take. Who may come in now holds the turn of the agent until its run is stored.
#[derive(Debug, Default)]
pub(crate) struct OwnLimits(Mutex<HashMap<String, Arc<tokio::sync::Mutex<VecDeque<Instant>>>>>);

/// The turn of one agent's own webhook.
pub(super) type Turn = OwnedMutexGuard<VecDeque<Instant>>;

impl OwnLimits {
    async fn turn(&self, source: &str) -> Turn {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(source.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// Lets a request to an agent's own webhook in, if it is one: not too many a minute, and not too many that are not over.
///
/// # Errors
/// If it has to wait.
pub(super) async fn admit(
    shared: &Shared,
    in_force: &Snapshot,
    verified: &[Verified],
) -> Result<Option<Turn>, (Failure, String)> {
    let own = verified.iter().find_map(|verified| {
        let hook = in_force.hooks.get(verified.source().name())?;
        hook.webhook.own.is_some().then_some((verified.source().name(), &hook.webhook.agent))
    });
    let Some((source, agent)) = own else { return Ok(None) };
    let mut turn = shared.own_limits.turn(source).await;
    let now = Instant::now();
    while turn.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
        turn.pop_front();
    }
    if let Some(first) = turn.front().filter(|_| turn.len() >= MOST_REQUESTS) {
        let detail = format!("more than {MOST_REQUESTS} requests a minute");
        let wait = WINDOW.saturating_sub(now.duration_since(*first));
        return Err((Failure::too_many("rate_limited", detail.clone(), wait), detail));
    }
    turn.push_back(now);
    let unfinished = shared.app.store.unfinished(agent.clone(), source.to_owned(), MOST_UNFINISHED).await;
    let unfinished = unfinished.map_err(|error| (Failure::from(error), "the store is unavailable".to_owned()))?;
    if unfinished >= MOST_UNFINISHED {
        let detail = format!("{MOST_UNFINISHED} executions are not over");
        return Err((Failure::too_many("too_many_executions", detail.clone(), RETRY_UNFINISHED), detail));
    }
    Ok(Some(turn))
}
