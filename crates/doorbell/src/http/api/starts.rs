//! Agents started by hand, paused and resumed; sources paused and resumed.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use doorbell_client::api;
use http::{HeaderMap, StatusCode};

use super::body::Wish;
use super::{Answer, Named, read_query};
use crate::app::Paused;
use crate::http::Shared;
use crate::http::audit::Target;
use crate::http::auth::{By, Introduced};
use crate::http::error::Failure;
use crate::http::once::HEADER;
use crate::ops;
use crate::ops::bulk::Verb;
use crate::ops::starts::Once;

pub(in crate::http) async fn run_agent(
    State(shared): State<Shared>,
    introduced: Introduced,
    Named(agent): Named,
    headers: HeaderMap,
    Wish(wish): Wish<api::NewRun>,
) -> Result<(StatusCode, Extension<Target>, Json<api::StartedRun>), Failure> {
    let key = headers.get(HEADER).map(|key| key.to_str().unwrap_or_default());
    let (whose, caller) = (introduced.whose(), introduced.known.caller);
    let once = key.map(|key| Once { whose: &whose, key });
    let started = ops::starts::run(&shared.app, &shared.dispatcher, &caller, &agent, wish, once).await?;
    let target = Target(format!("{agent}: {}", started.run_id));
    Ok((StatusCode::ACCEPTED, Extension(target), Json(started)))
}

pub(in crate::http) async fn pause_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    Wish(wish): Wish<api::NewPause>,
) -> Answer<api::Pause> {
    Ok(Json(ops::pauses::pause(&shared.app, &shared.dispatcher, &caller, Paused::Agent(agent), wish).await?))
}

pub(in crate::http) async fn resume_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    Wish(wish): Wish<api::NewResume>,
) -> Answer<api::Resumed> {
    Ok(Json(ops::pauses::resume(&shared.app, &shared.dispatcher, &caller, Paused::Agent(agent), wish).await?))
}

pub(in crate::http) async fn pause_source(
    State(shared): State<Shared>,
    By(caller): By,
    Named(source): Named,
    Wish(wish): Wish<api::NewPause>,
) -> Answer<api::Pause> {
    Ok(Json(ops::pauses::pause(&shared.app, &shared.dispatcher, &caller, Paused::Source(source), wish).await?))
}

pub(in crate::http) async fn resume_source(
    State(shared): State<Shared>,
    By(caller): By,
    Named(source): Named,
    Wish(wish): Wish<api::NewResume>,
) -> Answer<api::Resumed> {
    Ok(Json(ops::pauses::resume(&shared.app, &shared.dispatcher, &caller, Paused::Source(source), wish).await?))
}

pub(in crate::http) async fn pause_all(
    State(shared): State<Shared>,
    By(caller): By,
    Wish(wish): Wish<api::NewPause>,
) -> Answer<api::Pause> {
    Ok(Json(ops::pauses::pause(&shared.app, &shared.dispatcher, &caller, Paused::Project, wish).await?))
}

pub(in crate::http) async fn resume_all(
    State(shared): State<Shared>,
    By(caller): By,
    Wish(wish): Wish<api::NewResume>,
) -> Answer<api::Resumed> {
    Ok(Json(ops::pauses::resume(&shared.app, &shared.dispatcher, &caller, Paused::Project, wish).await?))
}

pub(in crate::http) async fn list_dead_letters(
    State(shared): State<Shared>,
    By(caller): By,
    query: Result<Query<ops::dead_letters::Query>, QueryRejection>,
) -> Answer<api::DeadLetterGroups> {
    Ok(Json(ops::dead_letters::list(&shared.app, &caller, read_query(query)?).await?))
}

async fn change_runs(shared: Shared, By(caller): By, verb: Verb, Wish(wish): Many) -> Answer<api::ManyDone> {
    Ok(Json(ops::bulk::act(&shared.app, &shared.dispatcher, &caller, verb, wish).await?))
}

type Many = Wish<api::ManyRuns>;

pub(in crate::http) async fn cancel_runs(State(shared): State<Shared>, by: By, body: Many) -> Answer<api::ManyDone> {
    change_runs(shared, by, Verb::Cancel, body).await
}

pub(in crate::http) async fn release_runs(State(shared): State<Shared>, by: By, body: Many) -> Answer<api::ManyDone> {
    change_runs(shared, by, Verb::Release, body).await
}

pub(in crate::http) async fn retry_runs(State(shared): State<Shared>, by: By, body: Many) -> Answer<api::ManyDone> {
    change_runs(shared, by, Verb::Retry, body).await
}
