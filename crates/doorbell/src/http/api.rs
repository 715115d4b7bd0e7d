//! The management API: each handler is one operation.

use std::sync::atomic::Ordering;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use doorbell_client::api;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Shared;
use super::audit::Target;
use super::auth::{By, LocalOrKnown};
use super::error::Failure;
use crate::ops;

mod body;
mod declared;
mod replays;
mod starts;
mod webhooks;

pub(super) use body::{Sent, Wish, whole};
pub(super) use declared::{amend_agent, declare_agent, remove_agent, show_agent};
pub(super) use replays::{cancel_replay, list_replays, replay_event, replay_events, show_replay};
pub(super) use starts::{
    cancel_runs, list_dead_letters, pause_agent, pause_all, pause_source, release_runs, resume_agent, resume_all,
    resume_source, retry_runs, run_agent,
};

pub(super) use webhooks::{
    activate_webhook, create_webhook, delete_webhook, list_webhooks, rekey, rotate_webhook, set_own_webhook,
    show_execution, test_webhook, webhook_deliveries,
};

pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// What a path names. What is not UTF-8 names nothing.
#[derive(Debug)]
pub(super) struct Named(pub(super) String);

impl FromRequestParts<Shared> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let path = Path::<String>::from_request_parts(parts, shared).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Failure::not_found())
    }
}

/// The parameters, or what is wrong with them.
pub(super) fn read_query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(Failure::new(StatusCode::BAD_REQUEST, "invalid_request", body::plain(&error.body_text()))),
    }
}

pub(super) async fn list_events(
    State(shared): State<Shared>,
    By(caller): By,
    query: Result<Query<ops::events::Query>, QueryRejection>,
) -> Answer<api::EventPage> {
    Ok(Json(ops::events::list(&shared.app, &caller, read_query(query)?).await?))
}

pub(super) async fn show_event(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::EventDetail> {
    Ok(Json(ops::events::show(&shared.app, &caller, &id).await?))
}

pub(super) async fn event_body(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Result<Response, Failure> {
    let bytes = ops::events::body(&shared.app, &caller, &id).await?;
    // Whatever it is, no browser shall take it for a page.
    Ok(([(CONTENT_TYPE, "application/octet-stream"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], bytes).into_response())
}

pub(super) async fn explain_event(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::Explanation> {
    Ok(Json(ops::events::explain(&shared.app, &caller, &id).await?))
}

pub(super) async fn list_runs(
    State(shared): State<Shared>,
    By(caller): By,
    query: Result<Query<ops::runs::Query>, QueryRejection>,
) -> Answer<api::RunPage> {
    Ok(Json(ops::runs::list_explained(&shared.app, &shared.dispatcher, &caller, read_query(query)?).await?))
}

pub(super) async fn show_run(State(shared): State<Shared>, By(caller): By, Named(id): Named) -> Answer<api::RunDetail> {
    Ok(Json(ops::runs::show(&shared.app, &shared.dispatcher, &caller, &id).await?))
}

pub(super) async fn cancel_run(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::Cancelled> {
    Ok(Json(ops::runs::cancel(&shared.app, &shared.dispatcher, &caller, &id).await?))
}

pub(super) async fn release_run(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::Released> {
    Ok(Json(ops::runs::release(&shared.app, &shared.dispatcher, &caller, &id).await?))
}

pub(super) async fn retry_run(State(shared): State<Shared>, By(caller): By, Named(id): Named) -> Answer<api::Retried> {
    Ok(Json(ops::runs::retry(&shared.app, &shared.dispatcher, &caller, &id).await?))
}

pub(super) async fn forget_event(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
    query: Result<Query<ops::forget::Query>, QueryRejection>,
) -> Answer<api::Forgotten> {
    Ok(Json(ops::forget::forget(&shared.app, &shared.dispatcher, &caller, &id, read_query(query)?).await?))
}

pub(super) async fn copy_store(
    State(shared): State<Shared>,
    By(caller): By,
    Sent(wish): Sent<api::NewCopy>,
) -> Answer<api::Copied> {
    Ok(Json(ops::backup::copy(&shared.app, &caller, wish).await?))
}

pub(super) async fn list_agents(State(shared): State<Shared>, By(caller): By) -> Json<api::AgentList> {
    Json(ops::agents::list(&shared.app, &shared.dispatcher, &caller))
}

pub(super) async fn list_sources(State(shared): State<Shared>, By(caller): By) -> Json<api::SourceList> {
    Json(ops::agents::sources(&shared.app, &caller))
}

/// How many deliveries.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveriesQuery {
    /// How many.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
}

pub(super) async fn list_deliveries(
    State(shared): State<Shared>,
    By(caller): By,
    Named(source): Named,
    query: Result<Query<DeliveriesQuery>, QueryRejection>,
) -> Answer<api::DeliveryList> {
    Ok(Json(ops::agents::deliveries(&shared.app, &caller, &source, read_query(query)?.limit).await?))
}

pub(super) async fn captured_secret(
    State(shared): State<Shared>,
    By(caller): By,
    Named(source): Named,
) -> Answer<api::CapturedSecret> {
    Ok(Json(ops::captured::show(&shared.app, &caller, &source).await?))
}

pub(super) async fn forget_captured_secret(
    State(shared): State<Shared>,
    By(caller): By,
    Named(source): Named,
) -> Result<StatusCode, Failure> {
    ops::captured::forget(&shared.app, &caller, &source).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stats(State(shared): State<Shared>, By(caller): By) -> Answer<api::Stats> {
    Ok(Json(ops::stats::get(&shared.app, &shared.dispatcher, &caller).await?))
}

pub(super) async fn test_notifications(
    State(shared): State<Shared>,
    By(caller): By,
    Sent(wish): Sent<api::NotificationTest>,
) -> Answer<api::NotificationAnswers> {
    Ok(Json(ops::notifications::test(&shared.notifier, &caller, wish).await?))
}

pub(super) async fn test_trigger(
    State(shared): State<Shared>,
    By(caller): By,
    Sent(wish): Sent<api::TriggerTest>,
) -> Answer<api::TriggerTestResult> {
    Ok(Json(ops::triggers::test(&shared.app, &caller, wish).await?))
}

pub(super) async fn create_key(
    State(shared): State<Shared>,
    By(caller): By,
    Sent(wish): Sent<api::NewKey>,
) -> Result<(StatusCode, Extension<Target>, Json<api::CreatedKey>), Failure> {
    let created = ops::keys::create(&shared.app, &caller, wish).await?;
    Ok((StatusCode::CREATED, Extension(Target(created.key_id.clone())), Json(created)))
}

pub(super) async fn list_keys(State(shared): State<Shared>, By(caller): By) -> Answer<api::KeyList> {
    Ok(Json(ops::keys::list(&shared.app, &caller).await?))
}

pub(super) async fn remove_key(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::RemovedKey> {
    Ok(Json(ops::keys::remove(&shared.app, &caller, &id).await?))
}

/// Says which gateway it is, so that `doctor` knows whether a public URL leads here.
pub(super) async fn healthz(State(shared): State<Shared>) -> ([(HeaderName, String); 1], &'static str) {
    ([(HeaderName::from_static(super::INSTANCE), shared.app.instance.clone())], "ok\n")
}

pub(super) async fn readyz(State(shared): State<Shared>) -> Result<&'static str, Failure> {
    if shared.app.closing.load(Ordering::Relaxed) {
        return Err(Failure::closing());
    }
    ops::stats::ready(&shared.app).await?;
    Ok("ready\n")
}

pub(super) async fn metrics(state: State<Shared>, _known: LocalOrKnown) -> Response {
    metrics_for_all(state).await
}

/// On an address that is not for the world.
pub(super) async fn metrics_for_all(State(shared): State<Shared>) -> Response {
    let text = ops::stats::metrics(&shared.app, shared.budget.door()).await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text).into_response()
}
