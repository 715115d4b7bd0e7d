//! Errors as HTTP says them: `application/problem+json` (RFC 9457) with a stable code. The only map from errors to
//! statuses.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use doorbell_client::api::{FieldError, Problem};
use doorbell_core::provider::Unreadable;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::body::Unread;
use crate::config::Flaw;
use crate::ops;
use crate::store;

pub(super) mod codes;

/// An error answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<u32>,
    errors: Vec<FieldError>,
}

/// The code of an answer that is an error, for whoever passes it on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// Seconds after which a sender may try again.
const RETRY_SOON: u32 = 5;

/// The longest detail that is answered, logged and kept, in bytes: it may quote what somebody sent.
const LONGEST_DETAIL: usize = 500;

/// Things that are wrong with fields that are answered at most.
const MOST_ERRORS: usize = 50;

fn view_flaw(flaw: Flaw) -> FieldError {
    let short = |text: &str| brief(text).into_owned();
    FieldError { field: short(&flaw.field), detail: short(&flaw.message), help: flaw.help.as_deref().map(short) }
}

/// As much of a detail as is answered, logged and kept.
pub(super) fn brief(detail: &str) -> Cow<'_, str> {
    if detail.len() <= LONGEST_DETAIL {
        return Cow::Borrowed(detail);
    }
    Cow::Owned(format!("{}…", &detail[..detail.floor_char_boundary(LONGEST_DETAIL)]))
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(
            codes::find(code).is_some_and(|known| known.statuses.contains(&status.as_u16())),
            "{code} with {status} is not in the list of codes"
        );
        let detail = detail.into();
        let detail = if detail.len() > LONGEST_DETAIL { brief(&detail).into_owned() } else { detail };
        Self { status, code, detail, retry_after: None, errors: Vec::new() }
    }

    /// The same for everything that is not there or not the caller's.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    /// No delivery is taken any more.
    pub(super) fn closing() -> Self {
        let detail = "the gateway shuts down; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", detail).retry_later()
    }

    pub(super) fn retry_later(mut self) -> Self {
        self.retry_after = Some(RETRY_SOON);
        self
    }

    /// Something came too often.
    pub(super) fn too_many(code: &'static str, detail: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = u32::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail) }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether another delivery of the kind would be refused, too: it is not that the gateway has too much to do.
    pub(super) fn is_the_senders(&self) -> bool {
        self.status.is_client_error()
            && !matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("{}{}", codes::PAGES, self.code).into(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (self.status, Json(problem)).into_response();
        response.extensions_mut().insert(Code(self.code));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(super::document::PROBLEM));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED && matches!(self.code, "key_missing" | "key_expired") {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        tracing::error!(error = error.with_causes(), "store.failed");
        let detail = "the store did not take it; nothing was changed, try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail).retry_later()
    }
}

impl From<ops::Error> for Failure {
    fn from(error: ops::Error) -> Self {
        let (code, detail) = error.tell();
        match error {
            ops::Error::NotFound(_) => Self::not_found(),
            ops::Error::Absent(_) => Self::new(StatusCode::NOT_FOUND, code, detail),
            ops::Error::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, code, detail),
            ops::Error::NotAllowed(_) => Self::new(StatusCode::FORBIDDEN, code, detail),
            ops::Error::Conflict(..) => Self::new(StatusCode::CONFLICT, code, detail),
            ops::Error::Precondition(_) => Self::new(StatusCode::PRECONDITION_FAILED, code, detail),
            ops::Error::Flawed(flaws) => Self {
                errors: flaws.into_iter().take(MOST_ERRORS).map(view_flaw).collect(),
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
            },
            ops::Error::Gone(..) => Self::new(StatusCode::GONE, code, detail),
            ops::Error::Locked(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_later(),
            // (A delivery is not answered by this: its sender comes again.)
            ops::Error::Store(store::Error::Corrupt(_)) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail),
            ops::Error::Store(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_later(),
        }
    }
}

impl From<Unreadable> for Failure {
    fn from(unreadable: Unreadable) -> Self {
        if unreadable.wrong_type {
            Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", unreadable.detail)
        } else {
            Self::new(StatusCode::BAD_REQUEST, "body_unreadable", unreadable.detail)
        }
    }
}

/// Why a body was not read, and what is said of it.
impl From<(Unread, String)> for Failure {
    fn from((unread, detail): (Unread, String)) -> Self {
        match unread {
            Unread::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail),
            Unread::OverBudget => Self::new(StatusCode::SERVICE_UNAVAILABLE, "over_budget", detail).retry_later(),
            Unread::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail),
            Unread::Broken => Self::new(StatusCode::BAD_REQUEST, "body_broken", detail),
        }
    }
}

/// The answer to a path that is not there.
pub(super) async fn not_found() -> Failure {
    Failure::not_found()
}

/// The answer to a method that the path does not have.
pub(super) async fn method_not_allowed() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take that method")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_not_said_to_work_at_the_next_try() {
        let damaged = Failure::from(ops::Error::Store(store::Error::Corrupt("a row".to_owned())));
        assert_eq!((damaged.status().as_u16(), damaged.code()), (500, "store_damaged"));
        assert!(damaged.retry_after.is_none() && !damaged.detail.contains("a row"));
        let delivery = Failure::from(store::Error::Corrupt("a row".to_owned()));
        assert_eq!(delivery.status().as_u16(), 503, "senders come again");
    }

    #[test]
    fn a_detail_is_not_endless_whatever_it_quotes() {
        assert_eq!(brief("the body did not arrive whole"), "the body did not arrive whole");
        let long = "ä".repeat(5_000_000);
        assert_eq!(brief(&long), format!("{}…", "ä".repeat(250)));
        let odd = format!("x{long}");
        assert_eq!(brief(&odd), format!("x{}…", "ä".repeat(249)));
        let failure = Failure::new(StatusCode::BAD_REQUEST, "body_unreadable", long);
        assert_eq!(failure.detail.chars().count(), 251);
    }
}
