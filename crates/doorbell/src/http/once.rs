//! `Idempotency-Key`: a request that makes something is carried out once, however often it is made, and answered as the first time.
//!
//! Before it is carried out, the store notes that it is begun; afterwards the answer, without what is secret in it. It goes on to its end
//! when the caller hangs up, and others with the same key wait for it meanwhile. One that was begun by a gateway that is gone is never
//! carried out again: nobody knows whether it was done.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aws_lc_rs::digest;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::Shared;
use super::api::whole;
use super::auth::Introduced;
use super::document::{DescribedHandler, Sketch};
use super::error::Failure;
use crate::clock;
use crate::ops::starts::read_key;
use crate::store::{Begun, OnceAnswer, OnceEnd, OnceRequest};

/// The header with the key.
pub(super) const HEADER: &str = "idempotency-key";
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What the document says of it.
pub(super) const SAID: &str = "1 to 200 characters: whoever asks again with the same one is answered as the first time, and nothing is done twice.";

/// A handler that makes something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Once<H> {
    handler: H,
    /// The fields of its answer that are shown once.
    secrets: &'static [&'static str],
}

/// Has a handler heed the header. Fields that are `secrets` are null where it answers again.
pub(super) fn once<H>(handler: H, secrets: &'static [&'static str]) -> Once<H> {
    Once { handler, secrets }
}

impl<H, D> DescribedHandler<D> for Once<H>
where
    H: DescribedHandler<D>,
{
    fn describe(sketch: &mut Sketch<'_>) {
        H::describe(sketch);
        sketch.header("Idempotency-Key", SAID);
        ["invalid_request", "idempotency_mismatch", "idempotency_unknown"].iter().for_each(|code| sketch.refuses(code));
    }
}

impl<H, T> Handler<T, Shared> for Once<H>
where
    H: Handler<T, Shared> + Sync,
    T: 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, shared: Shared) -> Self::Future {
        let Some(key) = request.headers().get(HEADER) else { return Box::pin(self.handler.call(request, shared)) };
        let key = read_key(key.to_str().unwrap_or_default());
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let whose = match Introduced::from_request_parts(&mut parts, &shared).await {
                Ok(introduced) => introduced.whose(),
                Err(failure) => return failure.into_response(),
            };
            let answer = match key {
                Ok(key) => self.answer(Request::from_parts(parts, body), shared, whose, key).await,
                Err(error) => Err(error.into()),
            };
            answer.unwrap_or_else(IntoResponse::into_response)
        })
    }
}

impl<H> Once<H> {
    async fn answer<T>(self, request: Request, shared: Shared, whose: String, key: String) -> Result<Response, Failure>
    where
        H: Handler<T, Shared> + Sync,
        T: 'static,
    {
        let (parts, body) = request.into_parts();
        let bytes = whole(Request::from_parts(parts.clone(), body), &shared).await?;
        let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |path| path.as_str());
        let asked = OnceRequest { digest: digest_of(&[parts.method.as_str(), path], &bytes), whose, key };
        let request = Request::from_parts(parts, Body::from(bytes));
        // In a task of its own: what is begun is brought to its end, also when the caller hangs up.
        let done = tokio::spawn(async move {
            let turn = shared.turns.of(&asked);
            let _turn = turn.lock().await;
            match shared.app.store.begin_once(asked.clone(), clock::now()).await? {
                Begun::First => Ok(self.carry_out(request, shared, asked).await),
                Begun::Answered(answer) => Ok(again(answer)),
                Begun::Other => {
                    let detail =
                        "the same `Idempotency-Key` was used for something else: use another key for another wish";
                    Err(Failure::new(StatusCode::CONFLICT, "idempotency_mismatch", detail))
                }
                Begun::Unknown => Err(unknown()),
            }
        });
        done.await.unwrap_or_else(|_| Err(unknown()))
    }

    async fn carry_out<T>(self, request: Request, shared: Shared, asked: OnceRequest) -> Response
    where
        H: Handler<T, Shared> + Sync,
        T: 'static,
    {
        let (parts, body) = self.handler.call(request, shared.clone()).await.into_parts();
        // The answers of our own handlers are whole already.
        let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let answer = parts
            .status
            .is_success()
            .then(|| OnceAnswer { status: parts.status.as_u16(), body: without(&bytes, self.secrets) });
        let OnceRequest { whose, key, .. } = asked;
        if let Err(error) = shared.app.store.end_once(OnceEnd { whose, key, answer, at: clock::now() }).await {
            // It was done: so it is said. Whoever asks again hears that nobody knows.
            tracing::error!(error = error.with_causes(), "once.not_kept");
        }
        Response::from_parts(parts, Body::from(bytes))
    }
}

fn unknown() -> Failure {
    let detail = "the first request with this `Idempotency-Key` was begun, and nobody knows whether it was done: look, and ask with another key";
    Failure::new(StatusCode::CONFLICT, "idempotency_unknown", detail)
}

fn again(answer: OnceAnswer) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    (status, headers, answer.body).into_response()
}

/// A digest of what is asked for. The same JSON is the same wish, however it is written.
fn digest_of(words: &[&str], body: &Bytes) -> Vec<u8> {
    let body = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(wish)) => Value::Object(wish).to_string().into(),
        _ if body.is_empty() => Bytes::from_static(b"{}"),
        _ => body.clone(),
    };
    let mut context = digest::Context::new(&digest::SHA256);
    for part in words.iter().map(|word| word.as_bytes()).chain([body.as_ref()]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// An answer without what is shown once.
fn without(answer: &[u8], secrets: &[&str]) -> String {
    let Ok(mut answer) = serde_json::from_slice::<Value>(answer) else { return "null".to_owned() };
    for secret in secrets {
        if let Some(field) = answer.get_mut(*secret) {
            *field = Value::Null;
        }
    }
    answer.to_string()
}

type Turn = tokio::sync::Mutex<()>;

/// Whose turn it is, of requests with the same key that are made at once.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<(String, String), Weak<Turn>>>);

impl Turns {
    fn of(&self, asked: &OnceRequest) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let place = turns.entry((asked.whose.clone(), asked.key.clone())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let turn = Arc::new(Turn::default());
            *place = Arc::downgrade(&turn);
            turn
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_wish_is_the_same_however_it_is_written_and_another_is_not() {
        let of = |path: &str, body: &'static str| digest_of(&["POST", path], &Bytes::from_static(body.as_bytes()));
        let first = of("/v1/keys", r#"{"name":"a","role":"owner"}"#);
        assert_eq!(of("/v1/keys", "{ \"role\": \"owner\",\n \"name\": \"a\" }"), first);
        assert_ne!(of("/v1/keys", r#"{"name":"b","role":"owner"}"#), first);
        assert_ne!(of("/v1/key", r#"s{"name":"a","role":"owner"}"#), first);
        assert_eq!(of("/v1/x", ""), of("/v1/x", "{}"));
    }

    #[test]
    fn what_is_kept_of_an_answer_has_no_secret() {
        assert_eq!(without(br#"{"key":"dbk_1","keyId":"key_1"}"#, &["key"]), r#"{"key":null,"keyId":"key_1"}"#);
        assert_eq!(without(b"not JSON: dbk_1", &["key"]), "null");
    }
}
