//! Whoever asks for a change through the API is noted: before the change is made, so that none is missing.
//!
//! Every call that could change something is noted unless it is named here, so that no new one can be forgotten.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, MatchedPath, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use doorbell_client::api;
use http::Method;

use super::Shared;
use super::api::{Answer, read_query};
use super::auth::{self, By};
use super::error::{Code, Failure};
use crate::clock;
use crate::ops;
use crate::store::{Change, ChangeEnd};

/// Calls that change nothing, and those by which whoever carries a run out tells of it: with a lease, which says who that
/// is, and noted in the run. A worker makes many of them.
const NOT_NOTED: [&str; 7] = [
    "/v1/runs/{id}",
    "/v1/runs/{id}/complete",
    "/v1/runs/{id}/fail",
    "/v1/runs/{id}/heartbeat",
    "/v1/runs/{id}/logs",
    "/v1/triggers/test",
    "/v1/worker/poll",
];

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
    let (mut parts, body) = request.into_parts();
    // Strangers are not noted: they change nothing, and could fill the disk.
    let known = match auth::identify(&mut parts, &shared).await {
        Ok(known) => known,
        Err(failure) => return failure.into_response(),
    };
    let remote = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let change = Change {
        at: clock::now(),
        role: known.role().to_owned(),
        who: known.id,
        name: known.name,
        operation: format!("{} {path}", parts.method),
        target: target(&path, parts.uri.path()),
        remote: remote.map(|ConnectInfo(remote)| remote.ip().to_canonical().to_string()).unwrap_or_default(),
    };
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
