//! MCP over HTTP: whoever has a key asks, and is answered without a session.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE};

use super::Shared;
use super::audit::Asks;
use super::auth::{Introduced, KeyRemoved};
use super::error::Failure;
use crate::mcp::{self, Desk};

/// Bytes of a refusal, which is one line.
const LONGEST_LINE: usize = 4096;

pub(super) async fn answer(
    State(shared): State<Shared>,
    Asks(author): Asks,
    introduced: Introduced,
    KeyRemoved(removed): KeyRemoved,
    request: Request,
) -> Response {
    let (whose, shown) = (introduced.whose(), introduced.hash);
    let caller = introduced.known.caller;
    let (app, dispatcher, closing) = (Arc::clone(&shared.app), Arc::clone(&shared.dispatcher), shared.closing.clone());
    let desk = Desk { app, dispatcher, caller, whose, author, shown, removed, closing };
    let response = mcp::answer(desk, request).await.map(Body::new);
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    // What is refused as JSON-RPC stays so; a refusal before that is said as everywhere.
    match (response.status(), is_json) {
        (status, false) if status.is_client_error() || status.is_server_error() => refuse(response).await,
        _ => response,
    }
}

async fn refuse(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let line = to_bytes(body, LONGEST_LINE).await.unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let (code, detail) = match parts.status {
        StatusCode::FORBIDDEN => {
            ("not_from_here", "no web page may ask, but those of `[gateway] public_url`".to_owned())
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method_not_allowed", "there are no sessions and no streams here: POST each message".to_owned())
        }
        StatusCode::NOT_ACCEPTABLE => ("not_acceptable", line),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", line),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("content_type", line),
        StatusCode::INTERNAL_SERVER_ERROR => {
            tracing::error!(error = line, "mcp.failed");
            ("mcp_failed", "the gateway did not answer; its log says more".to_owned())
        }
        _ => ("invalid_request", line),
    };
    let mut refused = Failure::new(parts.status, code, detail).into_response();
    if let Some(allow) = parts.headers.get(ALLOW) {
        refused.headers_mut().insert(ALLOW, allow.clone());
    }
    refused
}
