//! Agents started by hand, paused and resumed.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use doorbell_client::api;
use http::{HeaderMap, StatusCode};

use super::{Answer, Named, read_json};
use crate::http::Shared;
use crate::http::audit::Target;
use crate::http::auth::By;
use crate::http::error::Failure;
use crate::ops;
use crate::ops::bulk::Verb;

/// What is asked for; nothing, if nothing is said.
pub(super) fn read_wish<T: Default>(json: Result<Json<T>, JsonRejection>) -> Result<T, Failure> {
    match json {
        Err(JsonRejection::MissingJsonContentType(_)) => Ok(T::default()),
        json => read_json(json),
    }
}

pub(in crate::http) async fn run_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    headers: HeaderMap,
    body: Result<Json<api::NewRun>, JsonRejection>,
) -> Result<(StatusCode, Extension<Target>, Json<api::StartedRun>), Failure> {
    let wish = read_wish(body)?;
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default());
    let started = ops::starts::run(&shared.app, &shared.dispatcher, &caller, &agent, wish, key).await?;
    let target = Target(format!("{agent}: {}", started.run_id));
    Ok((StatusCode::ACCEPTED, Extension(target), Json(started)))
}

pub(in crate::http) async fn pause_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    body: Result<Json<api::NewPause>, JsonRejection>,
) -> Answer<api::Pause> {
    let wish = read_wish(body)?;
    Ok(Json(ops::starts::pause(&shared.app, &shared.dispatcher, &caller, Some(&agent), wish).await?))
}

pub(in crate::http) async fn resume_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    body: Result<Json<api::NewResume>, JsonRejection>,
) -> Answer<api::Resumed> {
    let wish = read_wish(body)?;
    Ok(Json(ops::starts::resume(&shared.app, &shared.dispatcher, &caller, Some(&agent), wish).await?))
}

pub(in crate::http) async fn pause_all(
    State(shared): State<Shared>,
    By(caller): By,
    body: Result<Json<api::NewPause>, JsonRejection>,
) -> Answer<api::Pause> {
    let wish = read_wish(body)?;
    Ok(Json(ops::starts::pause(&shared.app, &shared.dispatcher, &caller, None, wish).await?))
}

pub(in crate::http) async fn resume_all(
    State(shared): State<Shared>,
    By(caller): By,
    body: Result<Json<api::NewResume>, JsonRejection>,
) -> Answer<api::Resumed> {
    let wish = read_wish(body)?;
    Ok(Json(ops::starts::resume(&shared.app, &shared.dispatcher, &caller, None, wish).await?))
}

async fn change_runs(shared: Shared, By(caller): By, verb: Verb, body: Many) -> Answer<api::ManyDone> {
    Ok(Json(ops::bulk::act(&shared.app, &shared.dispatcher, &caller, verb, read_wish(body)?).await?))
}

type Many = Result<Json<api::ManyRuns>, JsonRejection>;

pub(in crate::http) async fn cancel_runs(State(shared): State<Shared>, by: By, body: Many) -> Answer<api::ManyDone> {
    change_runs(shared, by, Verb::Cancel, body).await
}

pub(in crate::http) async fn release_runs(State(shared): State<Shared>, by: By, body: Many) -> Answer<api::ManyDone> {
    change_runs(shared, by, Verb::Release, body).await
}

pub(in crate::http) async fn retry_runs(State(shared): State<Shared>, by: By, body: Many) -> Answer<api::ManyDone> {
    change_runs(shared, by, Verb::Retry, body).await
}
