//! Agents that are declared.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use doorbell_client::api;
use http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use super::{Answer, Named, Sent};
use crate::app::Caller;
use crate::http::Shared;
use crate::http::auth::By;
use crate::http::error::Failure;
use crate::ops::declared::{self, Change};

type Body = Sent<Map<String, Value>>;

fn change<'a>(agent: &'a str, caller: &'a Caller, headers: &'a HeaderMap) -> Change<'a> {
    // What is not text is no etag.
    let said = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    Change { agent, caller, if_match: said(IF_MATCH), if_none_match: said(IF_NONE_MATCH) }
}

fn answer(status: StatusCode, detail: api::AgentDetail) -> Response {
    let etag = detail.declaration.as_ref().and_then(|declared| HeaderValue::from_str(&declared.etag).ok());
    let mut response = (status, Json(detail)).into_response();
    if let Some(etag) = etag {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

pub(in crate::http) async fn show_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
) -> Result<Response, Failure> {
    Ok(answer(StatusCode::OK, declared::show(&shared.app, &shared.dispatcher, &caller, &agent)?))
}

pub(in crate::http) async fn declare_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    headers: HeaderMap,
    Sent(definition): Body,
) -> Result<Response, Failure> {
    let change = change(&agent, &caller, &headers);
    let (detail, created) = declared::declare(&shared.app, &shared.dispatcher, change, definition).await?;
    Ok(answer(if created { StatusCode::CREATED } else { StatusCode::OK }, detail))
}

pub(in crate::http) async fn amend_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    headers: HeaderMap,
    Sent(definition): Body,
) -> Result<Response, Failure> {
    let change = change(&agent, &caller, &headers);
    Ok(answer(StatusCode::OK, declared::amend(&shared.app, &shared.dispatcher, change, definition).await?))
}

pub(in crate::http) async fn remove_agent(
    State(shared): State<Shared>,
    By(caller): By,
    Named(agent): Named,
    headers: HeaderMap,
) -> Answer<api::RemovedAgent> {
    Ok(Json(declared::remove(&shared.app, change(&agent, &caller, &headers)).await?))
}
