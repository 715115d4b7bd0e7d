//! MCP Events (SEP-3415): each source is a type of events that a client lists, polls, streams, or has posted to a URL.
//!
//! What the text of the extension leaves open is decided in docs/mcp.md.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_core::occurrence;
use doorbell_core::secret::Secret;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use rmcp::model::{CustomRequest, CustomResult, ErrorCode, ErrorData, ExtensionCapabilities, JsonObject};
use rmcp::service::{RequestContext, RoleServer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Desk;
use super::bounds::brief;
use super::tool::told;
use crate::app::subscriptions::{FORBIDDEN, occurrence_of};
use crate::ops::subscriptions::reading::Scope;
use crate::ops::subscriptions::{self, Status, Who, Wish};
use crate::ops::{self, Error, audit, to_its_end};

mod stream;

/// What the extension is called.
const EXTENSION: &str = "io.modelcontextprotocol/events";
/// What its prototype is called: clients that were made by that look for it beside `extensions`.
const PROTOTYPE: &str = "events";

/// What went wrong, in numbers. Those of the drafts differ; what a client needs to know is in the data.
const NOT_FOUND: i32 = -32011;
const RESOURCE_EXHAUSTED: i32 = -32013;
const UNSUPPORTED: i32 = -32014;
const CALLBACK_ENDPOINT: i32 = -32015;

/// Types on one page.
const PAGE: usize = 100;
/// When to poll next: at once if there is more, and else when it may be worth while.
const POLL_SOON: u64 = 1000;
const POLL_LATER: u64 = 5000;

/// What is said of it where clients ask what there is.
pub(super) fn capabilities() -> ExtensionCapabilities {
    ExtensionCapabilities::from([(EXTENSION.to_owned(), JsonObject::new())])
}

/// Whether the answer to a request may say what there is.
pub(super) fn may_greet<B>(request: &Request<B>) -> bool {
    let method = request.headers().get("mcp-method");
    method.is_none_or(|method| method == "server/discover" || method == "initialize")
}

/// Says of events where the prototype says it, too: the library knows no such capability.
pub(super) async fn greet(response: Response<BoxBody<Bytes, Infallible>>) -> Response<BoxBody<Bytes, Infallible>> {
    let is_json = |headers: &HeaderMap| {
        headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
    };
    if !is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let mut bytes = body.to_bytes();
    // Few answers have it; the others are not read.
    if bytes.windows(EXTENSION.len()).any(|part| part == EXTENSION.as_bytes())
        && let Ok(mut answer) = serde_json::from_slice::<Value>(&bytes)
        && answer["result"]["capabilities"]["extensions"][EXTENSION].is_object()
    {
        answer["result"]["capabilities"][PROTOTYPE] = json!({});
        bytes = Bytes::from(answer.to_string());
        parts.headers.remove(CONTENT_LENGTH);
    }
    Response::from_parts(parts, Full::new(bytes).boxed())
}

/// Answers a request of the extension, or says that there is no such method.
pub(super) async fn answer(
    desk: &Desk,
    request: CustomRequest,
    context: RequestContext<RoleServer>,
) -> Result<CustomResult, ErrorData> {
    let params = request.params.unwrap_or_default();
    let said = match request.method.as_str() {
        "events/list" => list(desk, read(params)?),
        "events/subscribe" => {
            let wish: Subscribe = read(params)?;
            let (name, this) = (wish.name.clone(), desk.clone());
            noted(desk, "MCP events/subscribe", name, async move { subscribe(&this, wish).await }).await?
        }
        "events/unsubscribe" => {
            let wish: Unsubscribe = read(params)?;
            let (name, this) = (wish.name.clone(), desk.clone());
            noted(desk, "MCP events/unsubscribe", name, async move { unsubscribe(&this, wish).await }).await?
        }
        "events/poll" => poll(desk, read(params)?).await?,
        "events/stream" => stream::stream(desk, read(params)?, context).await?,
        method => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, brief(method).into_owned(), None)),
    };
    Ok(CustomResult::new(complete(said)))
}

/// Does it, and notes it in the audit log, before it is done: of which source, and then which subscription. It is brought to its end,
/// also when the caller hangs up.
async fn noted(
    desk: &Desk,
    operation: &str,
    source: String,
    work: impl Future<Output = Result<Value, ErrorData>> + Send + 'static,
) -> Result<Value, ErrorData> {
    let (app, change) = (Arc::clone(&desk.app), desk.author.change(operation.to_owned(), source.clone()));
    let whole = async move {
        let store = app.store.as_ref();
        let seq = audit::begin(store, change).await.map_err(|error| refused(error.into()))?;
        let done = work.await;
        let code = done.as_ref().err().map(|error| error.code.0.to_string());
        let made = done.as_ref().ok().and_then(|said| Some(format!("{source}/{}", said["id"].as_str()?)));
        audit::end_of_tool(store, seq, code.as_deref(), made).await;
        done
    };
    let done = to_its_end(whole).await;
    done.unwrap_or_else(|| Err(ErrorData::internal_error("the gateway shuts down", None)))
}

/// A result, with what each result has.
fn complete(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    let server = json!({ "name": "doorbell", "version": env!("CARGO_PKG_VERSION") });
    result["_meta"]["io.modelcontextprotocol/serverInfo"] = server;
    result
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, ErrorData> {
    let params = if params.is_null() { json!({}) } else { params };
    serde_json::from_value(params).map_err(|error| invalid(brief(&error.to_string()).into_owned()))
}

fn invalid(detail: String) -> ErrorData {
    ErrorData::invalid_params(detail, None)
}

fn refuse(code: i32, detail: impl Into<String>, data: Value) -> ErrorData {
    ErrorData::new(ErrorCode(code), detail.into(), Some(data))
}

/// What a client is told of a refusal.
fn refused(error: Error) -> ErrorData {
    let (code, detail) = told(&error);
    match error {
        Error::NotFound(_) => refuse(NOT_FOUND, "there is no such event type for this key", json!({ "kind": "event" })),
        Error::NotAllowed(why) => refuse(FORBIDDEN, detail, json!({ "reason": why })),
        Error::Conflict("callback_failed", reason) => {
            let detail = format!("the URL does not prove that it wants these events: {reason}");
            refuse(CALLBACK_ENDPOINT, detail, json!({ "reason": reason }))
        }
        Error::Conflict("too_many_subscriptions", _) => {
            let data = json!({ "limit": "subscriptions", "max": subscriptions::MOST_OF_KEY });
            refuse(RESOURCE_EXHAUSTED, detail, data)
        }
        Error::Conflict("too_many_challenges", _) => {
            refuse(RESOURCE_EXHAUSTED, detail, json!({ "limit": "challenges" }))
        }
        Error::Store(_) | Error::Locked(_) => ErrorData::internal_error(detail, Some(json!({ "code": code }))),
        _ => ErrorData::invalid_params(detail, Some(json!({ "code": code }))),
    }
}

fn who(desk: &Desk) -> Who {
    Who { caller: desk.caller.clone(), key: desk.author.known.id.parse().ok() }
}

#[derive(Deserialize)]
struct List {
    cursor: Option<String>,
}

fn list(desk: &Desk, wish: List) -> Value {
    let after = wish.cursor.unwrap_or_default();
    let mut types = subscriptions::types(&desk.app, &who(desk));
    types.retain(|one| one.name > after);
    let next = (types.len() > PAGE).then(|| types[PAGE - 1].name.clone());
    let payload = occurrence::schema();
    let events = types.into_iter().take(PAGE).map(|one| {
        let webhook = if one.may_subscribe { &["webhook"][..] } else { &[] };
        let delivery = [&["poll", "push"][..], webhook].concat();
        json!({
            "name": one.name,
            "description": one.description,
            "delivery": delivery,
            "inputSchema": one.arguments,
            "payloadSchema": payload,
        })
    });
    let mut said = json!({ "events": events.collect::<Vec<_>>() });
    if let Some(next) = next {
        said["nextCursor"] = json!(next);
    }
    said
}

/// A time in milliseconds, whatever a client thinks of: none is refused.
fn millis(said: Option<f64>) -> Option<Duration> {
    said.map(|said| Duration::try_from_secs_f64(said.max(0.0) / 1000.0).unwrap_or(Duration::from_secs(u32::MAX.into())))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe {
    name: String,
    arguments: Option<Map<String, Value>>,
    delivery: Delivery,
    cursor: Option<String>,
    max_age_ms: Option<f64>,
    ttl_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Delivery {
    mode: Option<String>,
    url: Option<String>,
    secret: Option<String>,
}

async fn subscribe(desk: &Desk, wish: Subscribe) -> Result<Value, ErrorData> {
    let Delivery { mode, url, secret } = wish.delivery;
    match mode.as_deref() {
        Some("webhook") => {}
        None => return Err(invalid("`delivery.mode` is missing: it must be \"webhook\"".to_owned())),
        Some(other) => {
            let data = json!({ "feature": "deliveryMode", "value": brief(other) });
            return Err(refuse(UNSUPPORTED, "only \"webhook\" can be subscribed to", data));
        }
    }
    let missing = |what: &str| invalid(format!("`delivery.{what}` is missing"));
    let wish = Wish {
        source: wish.name,
        arguments: wish.arguments.unwrap_or_default(),
        url: url.ok_or_else(|| missing("url"))?,
        secret: Secret::new(secret.ok_or_else(|| missing("secret"))?),
        cursor: wish.cursor,
        max_age: millis(wish.max_age_ms),
        ttl: millis(wish.ttl_ms),
    };
    let subscribed = subscriptions::subscribe(&desk.app, &desk.dispatcher, &who(desk), wish).await.map_err(refused)?;
    let mut said = json!({
        "id": subscribed.id,
        "refreshBefore": subscribed.refresh_before.to_string(),
        "cursor": subscribed.cursor.to_string(),
        "truncated": subscribed.truncated,
    });
    if let Some(Status { active, last_delivery_at, last_error }) = subscribed.status {
        let last_delivery_at = last_delivery_at.map(|at| at.to_string());
        said["deliveryStatus"] =
            json!({ "active": active, "lastDeliveryAt": last_delivery_at, "lastError": last_error });
    }
    Ok(said)
}

#[derive(Deserialize)]
struct Unsubscribe {
    name: String,
    arguments: Option<Map<String, Value>>,
    delivery: Delivery,
}

async fn unsubscribe(desk: &Desk, wish: Unsubscribe) -> Result<Value, ErrorData> {
    let url = wish.delivery.url.ok_or_else(|| invalid("`delivery.url` is missing".to_owned()))?;
    let arguments = wish.arguments.unwrap_or_default();
    let ended = subscriptions::unsubscribe(&desk.app, &who(desk), &wish.name, &arguments, &url).await;
    // One that is not there is ended: whoever asks again, or late, has what they want.
    ended.map_err(refused)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Behind {
    name: String,
    arguments: Option<Map<String, Value>>,
    cursor: Option<String>,
    max_age_ms: Option<f64>,
    max_events: Option<f64>,
}

impl Behind {
    fn scope(&self, desk: &Desk) -> Result<Scope, ErrorData> {
        let arguments = self.arguments.clone().unwrap_or_default();
        Scope::of(&desk.app, &desk.caller, &self.name, &arguments).map_err(refused)
    }
}

async fn poll(desk: &Desk, wish: Behind) -> Result<Value, ErrorData> {
    let scope = wish.scope(desk)?;
    // A number that is too large, or none at all, becomes the nearest that there is.
    let most = wish.max_events.map(|most| most as usize);
    let polled = scope.poll(&desk.app, wish.cursor.as_deref(), millis(wish.max_age_ms), most);
    let ops::subscriptions::reading::Polled { page, truncated } = polled.await.map_err(refused)?;
    Ok(json!({
        "events": page.events.iter().map(occurrence_of).collect::<Vec<_>>(),
        "cursor": page.reached.to_string(),
        "truncated": truncated,
        "hasMore": page.more,
        "nextPollMs": if page.more { POLL_SOON } else { POLL_LATER },
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_time_is_refused() {
        assert_eq!(millis(None), None);
        assert_eq!(millis(Some(1500.0)), Some(Duration::from_millis(1500)));
        assert_eq!(millis(Some(-1.0)), Some(Duration::ZERO));
        assert!(millis(Some(f64::MAX)).unwrap() > Duration::from_secs(1 << 30));
    }

    #[tokio::test]
    async fn the_prototype_is_told_of_where_it_is_looked_for_and_nothing_else_is_changed() {
        let json = |text: &str| {
            let response = Response::builder().header("content-type", "application/json").header("content-length", 1);
            response.body(Full::new(Bytes::from(text.to_owned())).boxed()).unwrap()
        };
        let said = |response: Response<BoxBody<Bytes, Infallible>>| async {
            let Ok(body) = response.into_body().collect().await;
            String::from_utf8(body.to_bytes().to_vec()).unwrap()
        };
        let known = json!({ "result": { "capabilities": { "extensions": { EXTENSION: {} } } } }).to_string();
        let greeted = greet(json(&known)).await;
        assert_eq!(greeted.headers().get("content-length"), None);
        let greeted: Value = serde_json::from_str(&said(greeted).await).unwrap();
        assert_eq!(greeted["result"]["capabilities"][PROTOTYPE], json!({}));
        let other = json!({ "result": { "text": EXTENSION } }).to_string();
        assert_eq!(said(greet(json(&other)).await).await, other);
    }
}
