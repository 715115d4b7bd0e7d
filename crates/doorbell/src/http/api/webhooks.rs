//! Webhooks that are made at run time, agents' own webhooks, and the master key of their secrets.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use doorbell_client::api;
use http::StatusCode;

use super::body::{Sent, Wish};
use super::{Answer, DeliveriesQuery, Named, read_query};
use crate::http::Shared;
use crate::http::audit::Target;
use crate::http::auth::By;
use crate::http::error::Failure;
use crate::ops;

/// An agent and what is its, as a path names them. What is not UTF-8 names nothing.
type OfAgent = Result<Path<(String, String)>, PathRejection>;

fn names(path: OfAgent) -> Result<(String, String), Failure> {
    path.map(|Path(names)| names).map_err(|_| Failure::not_found())
}

pub(in crate::http) async fn create_webhook(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    Sent(wish): Sent<api::NewWebhook>,
) -> Result<(StatusCode, Extension<Target>, Json<api::CreatedWebhook>), Failure> {
    let created = ops::webhooks::create(&shared.app, &caller, &agent, wish).await?;
    let target = Target(format!("{agent}/{}", created.webhook_id));
    Ok((StatusCode::CREATED, Extension(target), Json(created)))
}

pub(in crate::http) async fn list_webhooks(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
) -> Answer<api::WebhookList> {
    Ok(Json(ops::webhooks::list(&shared.app, &caller, &agent).await?))
}

pub(in crate::http) async fn rotate_webhook(
    State(shared): State<Shared>,
    By(caller): By,
    path: OfAgent,
    Wish(wish): Wish<api::Rotation>,
) -> Answer<api::RotatedWebhook> {
    let (agent, id) = names(path)?;
    Ok(Json(ops::webhooks::rotate(&shared.app, &caller, &agent, &id, wish).await?))
}

pub(in crate::http) async fn delete_webhook(
    State(shared): State<Shared>,
    By(caller): By,
    path: OfAgent,
) -> Answer<api::Webhook> {
    let (agent, id) = names(path)?;
    Ok(Json(ops::webhooks::set_active(&shared.app, &caller, &agent, &id, false).await?))
}

pub(in crate::http) async fn activate_webhook(
    State(shared): State<Shared>,
    By(caller): By,
    path: OfAgent,
) -> Answer<api::Webhook> {
    let (agent, id) = names(path)?;
    Ok(Json(ops::webhooks::set_active(&shared.app, &caller, &agent, &id, true).await?))
}

pub(in crate::http) async fn webhook_deliveries(
    State(shared): State<Shared>,
    By(caller): By,
    path: OfAgent,
    query: Result<Query<DeliveriesQuery>, QueryRejection>,
) -> Answer<api::DeliveryList> {
    let (agent, id) = names(path)?;
    let limit = read_query(query)?.limit;
    Ok(Json(ops::webhooks::deliveries(&shared.app, &caller, &agent, &id, limit).await?))
}

pub(in crate::http) async fn test_webhook(
    State(shared): State<Shared>,
    By(caller): By,
    path: OfAgent,
    Wish(wish): Wish<api::WebhookTest>,
) -> Answer<api::WebhookTested> {
    let (agent, id) = names(path)?;
    Ok(Json(ops::webhooks::test(&shared.app, &caller, &agent, &id, wish).await?))
}

pub(in crate::http) async fn set_own_webhook(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    Sent(wish): Sent<api::OwnWebhookWish>,
) -> Answer<api::Success<api::OwnWebhook>> {
    let set = ops::own_webhook::set(&shared.app, &caller, &agent, wish).await?;
    Ok(Json(api::Success::new(set)))
}

pub(in crate::http) async fn show_execution(
    State(shared): State<Shared>,
    By(caller): By,
    path: OfAgent,
) -> Answer<api::Success<api::Execution>> {
    let (agent, id) = names(path)?;
    Ok(Json(api::Success::new(ops::own_webhook::execution(&shared.app, &caller, &agent, &id).await?)))
}

pub(in crate::http) async fn rekey(
    State(shared): State<Shared>,
    By(caller): By,
    Wish(wish): Wish<api::Rekey>,
) -> Answer<api::Rekeyed> {
    Ok(Json(ops::secrets::rekey(&shared.app, &caller, wish).await?))
}
