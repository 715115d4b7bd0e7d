//! Whoever asks for a change through the API is noted: before the change is made, so that none is missing.
//!
//! Every call that could change something is noted unless it is named here, so that no new one can be forgotten.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use doorbell_client::api;
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, StatusCode};

use super::Shared;
use super::api::{Answer, read_query};
use super::auth::{By, Introduced};
use super::error::{Code, Failure};
use crate::ops::{self, audit::Author};
use crate::store::ChangeEnd;

/// Calls that change nothing, and those by which whoever carries a run out tells of it: with a lease, which says who that
/// is, and noted in the run. A worker makes many of them. What tools at `/mcp` change is noted by themselves.
const NOT_NOTED: [&str; 12] = [
    "/mcp",
    "/v1/runs/{id}",
    "/v1/runs/{id}/ask",
    "/v1/runs/{id}/complete",
    "/v1/runs/{id}/fail",
    "/v1/runs/{id}/heartbeat",
    "/v1/runs/{id}/logs",
    "/v1/runs/{id}/sleep",
    "/v1/runs/{id}/steps/{key}",
    "/v1/runs/{id}/wait",
    "/v1/triggers/test",
    "/v1/worker/poll",
];

/// Calls that end when their caller hangs up, and leave nothing behind.
const HANG_UP: [&str; 1] = ["/v1/backup"];

/// Who asks, as the audit log says it.
#[derive(Debug)]
pub(super) struct Asks(pub(super) Author);

impl FromRequestParts<Shared> for Asks {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let Introduced { known, .. } = Introduced::from_request_parts(parts, shared).await?;
        let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let remote = remote.map(|ConnectInfo(remote)| remote.ip().to_canonical().to_string()).unwrap_or_default();
        Ok(Self(Author { known, remote }))
    }
}

/// What a change turned out to be about, as its answer says it to the audit log.
#[derive(Debug, Clone)]
pub(super) struct Target(pub(super) String);

/// Notes a request that could change something, and how it ended.
pub(super) async fn note(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let Some(path) = path.filter(|path| !reads && !NOT_NOTED.contains(&path.as_str())) else {
        return next.run(request).await;
    };
    if HANG_UP.contains(&path.as_str()) {
        return noted(shared, path, request, next).await;
    }
    let response = ops::to_its_end(noted(shared, path, request, next)).await;
    response.unwrap_or_else(|| {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the gateway shuts down").into_response()
    })
}

async fn noted(shared: Shared, path: String, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    // Strangers are not noted: they change nothing, and could fill the disk.
    let author = match Asks::from_request_parts(&mut parts, &shared).await {
        Ok(Asks(author)) => author,
        Err(failure) => return failure.into_response(),
    };
    let change = author.change(format!("{} {path}", parts.method), target(&path, parts.uri.path()));
    let store = shared.app.store.as_ref();
    let seq = match ops::audit::begin(store, change).await {
        Ok(seq) => seq,
        Err(error) => return Failure::from(error).into_response(),
    };
    let response = next.run(Request::from_parts(parts, body)).await;
    let end = ChangeEnd {
        status: response.status().as_u16(),
        code: response.extensions().get::<Code>().map(|Code(code)| (*code).to_owned()),
        target: response.extensions().get::<Target>().map(|Target(target)| target.clone()),
    };
    ops::audit::end(store, seq, end).await;
    response
}

/// What stands in a path for its parameters.
fn target(template: &str, path: &str) -> String {
    let named = template.split('/').zip(path.split('/')).filter(|(part, _)| part.starts_with('{'));
    named.map(|(_, value)| value).collect::<Vec<_>>().join("/")
}

/// `GET /v1/audit`.
pub(super) async fn list(
    State(shared): State<Shared>,
    By(caller): By,
    query: Result<Query<ops::audit::Query>, QueryRejection>,
) -> Answer<api::AuditPage> {
    Ok(Json(ops::audit::list(&shared.app, &caller, read_query(query)?).await?))
}

/// `GET /v1/audit/export`: all of them, each as JSON on a line of its own.
pub(super) async fn export(
    State(shared): State<Shared>,
    By(caller): By,
    query: Result<Query<ops::audit::Query>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = read_query(query)?;
    // Whatever is to be refused is refused before the answer begins; a store that fails later breaks it off.
    let first = ops::audit::list(&shared.app, &caller, query.clone().in_large_pages(None)).await?;
    let lines = stream::try_unfold(Some(first), move |page| {
        let (app, caller, query) = (Arc::clone(&shared.app), caller.clone(), query.clone());
        async move {
            let Some(page) = page else { return Ok(None) };
            let lines = lines(&page.entries)?;
            let next = match page.next_cursor {
                Some(cursor) => Some(ops::audit::list(&app, &caller, query.in_large_pages(Some(cursor))).await?),
                None => None,
            };
            Ok::<_, anyhow::Error>(Some((lines, next)))
        }
    });
    let said = [(CONTENT_TYPE, "application/x-ndjson"), (CONTENT_DISPOSITION, "attachment; filename=\"audit.ndjson\"")];
    Ok((said, Body::from_stream(lines)).into_response())
}

fn lines(entries: &[api::AuditEntry]) -> serde_json::Result<String> {
    let mut lines = String::new();
    for entry in entries {
        lines.push_str(&serde_json::to_string(entry)?);
        lines.push('\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_target_is_what_the_path_names() {
        assert_eq!(target("/v1/agents/{name}/pause", "/v1/agents/triage/pause"), "triage");
        assert_eq!(target("/v1/a/{b}/c/{d}", "/v1/a/1/c/2"), "1/2");
        assert_eq!(target("/v1/pause", "/v1/pause"), "");
    }
}
