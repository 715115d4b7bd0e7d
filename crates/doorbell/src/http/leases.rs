//! Runs that are carried out elsewhere: what whoever has their lease tells of them.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use doorbell_client::api::{self, ShownLease};
use doorbell_core::delivery::bearer_token;
use doorbell_core::envelope::Envelope;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::Shared;
use super::api::{self as handlers, Answer, Named, Sent};
use super::audit;
use super::auth::{By, KeyRemoved};
use super::error::Failure;
use super::waits;
use crate::ops::leases::{self, Ending, Speaker};
use crate::ops::workers;
use crate::store::Lease;

/// Who speaks of a run; none if no header says.
#[derive(Debug)]
pub(super) struct Speaking(Option<Speaker>);

impl FromRequestParts<Shared> for Speaking {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self(None));
        }
        if let Some(lease) = shown_lease(&parts.headers) {
            return Ok(Self(Some(Speaker::Lease(lease))));
        }
        let By(caller) = By::from_request_parts(parts, shared).await?;
        Ok(Self(Some(Speaker::Key(caller))))
    }
}

impl Speaking {
    /// Who it is. Without a header, the lease in the body is the proof.
    pub(super) fn or_lease(self, shown: Option<&ShownLease>) -> Result<Speaker, Failure> {
        let shown = || shown.and_then(|shown| Lease::from_token(shown.token())).map(Speaker::Lease);
        self.0.or_else(shown).ok_or_else(|| {
            let detail = "send the run's token as `Authorization: Bearer dbl_…`, or a key and the lease in the body";
            Failure::new(http::StatusCode::UNAUTHORIZED, "key_missing", detail)
        })
    }
}

pub(super) fn shown_lease(headers: &HeaderMap) -> Option<Lease> {
    Lease::from_token(headers.get(AUTHORIZATION)?.to_str().ok().and_then(bearer_token)?)
}

/// The routes of workers, and of agents behind a URL that took a run.
pub(super) fn routes() -> Router<Shared> {
    told().route("/v1/worker/poll", post(poll))
}

/// The same for agents behind a URL alone, with what else their token reaches, on the address for senders, because such an
/// agent may be anywhere.
pub(super) fn by_token(shared: &Shared) -> Router<Shared> {
    let reached = Router::new()
        .route("/v1/runs/{id}", get(handlers::show_run))
        .route("/v1/events/{id}", get(handlers::show_event))
        .route("/v1/events/{id}/body", get(handlers::event_body))
        .route("/v1/agents/{name}/run", post(handlers::run_agent));
    let noted = from_fn_with_state(shared.clone(), audit::note);
    told().merge(reached).route_layer(noted).route_layer(from_fn(tokens_only))
}

fn told() -> Router<Shared> {
    Router::new()
        .route("/v1/runs/{id}", post(end_run))
        .route("/v1/runs/{id}/complete", post(complete_run))
        .route("/v1/runs/{id}/fail", post(fail_run))
        .route("/v1/runs/{id}/heartbeat", post(heartbeat))
        .route("/v1/runs/{id}/logs", post(append_lines))
        .merge(waits::told())
}

/// Lets through only who shows a run's token: keys are of no use on an address that is for senders.
async fn tokens_only(request: Request, next: Next) -> Response {
    match request.headers().contains_key(AUTHORIZATION) && shown_lease(request.headers()).is_none() {
        true => Failure::not_found().into_response(),
        false => next.run(request).await,
    }
}

type Body = Sent<api::RunEnd>;

async fn end(shared: Shared, speaking: Speaking, id: &str, ending: Ending, Sent(end): Body) -> Answer<api::EndedRun> {
    let speaker = speaking.or_lease(end.lease.as_ref())?;
    Ok(Json(leases::end(&shared.app, &shared.dispatcher, &speaker, id, ending, end).await?))
}

pub(super) async fn end_run(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    body: Body,
) -> Answer<api::EndedRun> {
    end(shared, speaking, &id, Ending::Either, body).await
}

pub(super) async fn complete_run(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    body: Body,
) -> Answer<api::EndedRun> {
    end(shared, speaking, &id, Ending::Complete, body).await
}

pub(super) async fn fail_run(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    body: Body,
) -> Answer<api::EndedRun> {
    end(shared, speaking, &id, Ending::Fail, body).await
}

/// Waits for runs of a worker's agents; not after its key is removed.
pub(super) async fn poll(
    State(shared): State<Shared>,
    By(caller): By,
    KeyRemoved(removed): KeyRemoved,
    Sent(poll): Sent<api::Poll>,
) -> Answer<api::Polled<Envelope>> {
    tokio::select! {
        polled = workers::poll(&shared.app, &shared.dispatcher, &caller, poll) => Ok(Json(polled?)),
        () = removed.cancelled() => Ok(Json(api::Polled { runs: Vec::new() })),
    }
}

pub(super) async fn heartbeat(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    Sent(heartbeat): Sent<api::Heartbeat>,
) -> Answer<api::Heard> {
    let speaker = speaking.or_lease(heartbeat.lease.as_ref())?;
    Ok(Json(workers::heartbeat(&shared.app, &shared.dispatcher, &speaker, &id, heartbeat).await?))
}

pub(super) async fn append_lines(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    Sent(lines): Sent<api::RunLines>,
) -> Answer<api::KeptLines> {
    let speaker = speaking.or_lease(lines.lease.as_ref())?;
    Ok(Json(workers::log(&shared.app, &shared.dispatcher, &speaker, &id, lines).await?))
}
