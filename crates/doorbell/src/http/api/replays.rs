//! Stored events that are carried out once more.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use doorbell_client::api;
use http::StatusCode;

use super::body::{Object, Sent, Wish};
use super::{Answer, Named};
use crate::http::Shared;
use crate::http::audit::Target;
use crate::http::auth::By;
use crate::http::error::Failure;
use crate::ops;

pub(in crate::http) async fn replay_event(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
    Wish(wish): Wish<api::ReplayWish>,
) -> Answer<api::Replayed> {
    Ok(Json(ops::replays::one(&shared.app, &shared.dispatcher, &caller, &id, wish).await?))
}

pub(in crate::http) async fn replay_events(
    State(shared): State<Shared>,
    By(caller): By,
    Sent(Object(wish)): Sent<Object<api::NewReplay>>,
) -> Result<Response, Failure> {
    if wish.dry_run {
        return Ok(Json(ops::replays::preview(&shared.app, &caller, &wish).await?).into_response());
    }
    let begun = ops::replays::begin(&shared.app, &shared.dispatcher, &caller, wish).await?;
    let target = Target(begun.id.clone());
    Ok((StatusCode::ACCEPTED, Extension(target), Json(begun)).into_response())
}

pub(in crate::http) async fn list_replays(State(shared): State<Shared>, By(caller): By) -> Answer<api::ReplayList> {
    Ok(Json(ops::replays::list(&shared.app, &caller).await?))
}

pub(in crate::http) async fn show_replay(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::Replay> {
    Ok(Json(ops::replays::get(&shared.app, &caller, &id).await?))
}

pub(in crate::http) async fn cancel_replay(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
) -> Answer<api::Replay> {
    Ok(Json(ops::replays::cancel(&shared.app, &caller, &id).await?))
}
