//! Runs that wait, what they are answered, and what their steps came to.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bytes::Bytes;
use doorbell_client::api;
use serde_json::Value;

use super::Shared;
use super::api::{Answer, Named, Sent};
use super::auth::By;
use super::error::Failure;
use super::leases::Speaking;
use crate::ops::{steps, waits};

pub(super) async fn sleep(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    Sent(wish): Sent<api::NewSleep>,
) -> Answer<api::GivenBack> {
    let speaker = speaking.or_lease(wish.lease.as_ref())?;
    Ok(Json(waits::sleep(&shared.app, &shared.dispatcher, &speaker, &id, wish).await?))
}

pub(super) async fn wait(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    Sent(wish): Sent<api::NewWait>,
) -> Answer<api::GivenBack> {
    let speaker = speaking.or_lease(wish.lease.as_ref())?;
    Ok(Json(waits::wait(&shared.app, &shared.dispatcher, &speaker, &id, wish).await?))
}

pub(super) async fn ask(
    State(shared): State<Shared>,
    speaking: Speaking,
    Named(id): Named,
    Sent(wish): Sent<api::NewQuestion>,
) -> Answer<api::GivenBack> {
    let speaker = speaking.or_lease(wish.lease.as_ref())?;
    Ok(Json(waits::ask(&shared.app, &shared.dispatcher, &speaker, &id, wish).await?))
}

pub(super) async fn answer(
    State(shared): State<Shared>,
    By(caller): By,
    Named(id): Named,
    Sent(wish): Sent<api::NewAnswer>,
) -> Answer<api::Answered> {
    Ok(Json(waits::answer(&shared.app, &shared.dispatcher, &caller, &id, wish).await?))
}

type Step = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn show_step(State(shared): State<Shared>, speaking: Speaking, step: Step) -> Answer<Value> {
    // What is not UTF-8 names nothing.
    let Ok(Path((id, key))) = step else { return Err(Failure::not_found()) };
    Ok(Json(steps::get(&shared.app, &speaking.or_lease(None)?, &id, &key).await?))
}

pub(super) async fn put_step(
    State(shared): State<Shared>,
    speaking: Speaking,
    step: Step,
    body: Bytes,
) -> Answer<Value> {
    let Ok(Path((id, key))) = step else { return Err(Failure::not_found()) };
    Ok(Json(steps::put(&shared.app, &speaking.or_lease(None)?, &id, &key, &body).await?))
}
