//! Ingest: from a request to a stored event.
//!
//! limits → raw bytes → verified → read → matched → one transaction → 200. What a sender can send never gives 500, and
//! nothing here waits for an agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use doorbell_client::api::Receipt;
use doorbell_core::condition::Choice;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::{Answer, Unreadable, kept_headers_as_json};
use doorbell_core::source::Source;
use doorbell_core::trigger::Candidate;
use doorbell_core::verify::Verified;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode};

use self::proof::Unproved;
use self::rejections::refuse;
use super::Shared;
use super::error::{Failure, brief, method_not_allowed};
use super::peer;
use crate::app::{App, Snapshot};
use crate::clock;
use crate::conditions;
use crate::config::{Agent, is_named};
use crate::dispatch::admission;
use crate::store::{Acceptance, Admission, NewEvent, Room, Start};
use crate::telemetry::DeliveryTrace;

mod certificates;
mod hooks;
mod proof;
mod receipt;
mod rejections;

pub(super) use certificates::Certificates;
pub(super) use hooks::{OwnLimits, by_agent, by_hook};
pub(super) use receipt::Confirmations;
pub(super) use rejections::RejectionCap;

/// What a request became.
enum Taken {
    /// Events were stored; perhaps its protocol wants another answer than the receipt.
    Stored(Receipt, Option<Answer>),
    /// It set a webhook up, and all it gets is this.
    Greeted(Answer),
}

/// Bytes that the events of one delivery may take, if each is counted with the whole body: a batch is stored whole with
/// each of its events.
const MOST_STORED: usize = 256 << 20;

/// `POST /webhooks/{provider}`: every source of the provider whose secret verifies takes the event.
pub(super) async fn by_provider(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    // What is not UTF-8 names nothing.
    let Ok(Path(provider)) = path else { return Failure::not_found().into_response() };
    let in_force = shared.app.current();
    // Those that were made at run time have URLs of their own.
    let all = in_force.config.sources.values().filter(|source| in_force.hooks.get(source.name()).is_none());
    let sources = all.filter(|source| is_named(source.provider(), &provider)).cloned().collect();
    receive(shared, sources, remote, request).await
}

/// `POST /v1/webhooks/{provider}/{source}`: one source takes the event.
pub(super) async fn by_source(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let Ok(Path((provider, source))) = path else { return Failure::not_found().into_response() };
    let in_force = shared.app.current();
    let is_own = in_force.hooks.get(&source).is_some_and(|hook| hook.webhook.own.is_some());
    let found = in_force.config.sources.get(&source).filter(|_| !is_own);
    let sources = found.filter(|source| is_named(source.provider(), &provider)).cloned().into_iter().collect();
    receive(shared, sources, remote, request).await
}

async fn receive(shared: Shared, sources: Vec<Arc<Source>>, remote: SocketAddr, request: Request) -> Response {
    receive_for(shared, sources, remote, request, async |receipt| Json(receipt).into_response()).await
}

/// The same, with other words for what was stored.
async fn receive_for(
    shared: Shared,
    mut sources: Vec<Arc<Source>>,
    remote: SocketAddr,
    request: Request,
    said: impl AsyncFnOnce(Receipt) -> Response,
) -> Response {
    if sources.is_empty() {
        without_source(&shared, remote, request.uri().path());
        return Failure::not_found().into_response();
    }
    let takes = |source: &Arc<Source>| source.provider().methods().contains(request.method());
    if !sources.iter().any(takes) {
        let mut response = method_not_allowed().await.into_response();
        response.headers_mut().insert(ALLOW, methods(&sources));
        return response;
    }
    sources.retain(takes);
    if shared.app.closing.load(Ordering::Relaxed) {
        return Failure::closing().into_response();
    }
    let names = sources.iter().map(|source| source.name());
    let mut trace = shared.app.traces.begin_delivery(request.headers(), names);
    match take(&shared, &sources, remote, request, &mut trace).await {
        Ok(Taken::Stored(receipt, answer)) => {
            trace.accepted(&receipt.delivery_id, &receipt.event, receipt.duplicate, receipt.runs.len());
            match answer {
                Some(answer) => in_its_words(answer),
                None => said(receipt).await,
            }
        }
        Ok(Taken::Greeted(answer)) => {
            trace.greeted(answer.status.as_u16());
            in_its_words(answer)
        }
        Err(failure) => {
            trace.refused(failure.status().as_u16(), failure.code());
            failure.into_response()
        }
    }
}

/// Counts a request to a URL that no source has, and says so in the log: whoever set a webhook up may have misspelt it.
fn without_source(shared: &Shared, remote: SocketAddr, path: &str) {
    shared.app.metrics.count_without_source();
    // No source is named so. Strangers ask, too.
    if let Some(suppressed) = shared.rejections.admit("", Instant::now()) {
        tracing::warn!(path = &*brief(path), remote = %remote.ip().to_canonical(), suppressed, "delivery.without_source");
    }
}

/// What sources take, as `Allow` lists it.
fn methods(sources: &[Arc<Source>]) -> HeaderValue {
    let mut methods: Vec<&str> =
        sources.iter().flat_map(|source| source.provider().methods()).map(Method::as_str).collect();
    methods.sort_unstable();
    methods.dedup();
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("POST"))
}

/// An answer that a protocol asks for.
fn in_its_words(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body).into_response();
    match answer.content_type {
        Some(kind) => drop(response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind))),
        None => drop(response.headers_mut().remove(CONTENT_TYPE)),
    }
    response
}

async fn take(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    request: Request,
    trace: &mut DeliveryTrace,
) -> Result<Taken, Failure> {
    trace.step("receive");
    // The body's share of the budget is given back at the end, and not before the store is done with it.
    let (delivery, room) = collect(shared, sources, remote, request).await?;
    let started = Instant::now();
    // The body may have taken its time: what is in force now counts, for the secrets as for the triggers.
    let in_force = shared.app.current();
    let sources: &[Arc<Source>] = &still_there(&in_force, sources);
    if sources.is_empty() {
        return Err(Failure::not_found());
    }
    trace.step("verify");
    let verified = match proof::greet(shared, sources, remote, &delivery).await {
        Ok(Some(answer)) => return Ok(Taken::Greeted(answer)),
        Ok(None) => proof::prove(shared, sources, &delivery).await,
        Err(unproved) => Err(unproved),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(unproved) => {
            let (failure, detail) =
                hooks::excuse(&in_force, sources).unwrap_or_else(|| unanswered(shared, &in_force, remote, unproved));
            return Err(refuse(shared, sources, remote, &delivery, failure, &detail, false).await);
        }
    };
    count_uses(shared, &verified, &delivery);
    admit(shared, &in_force, &verified, remote, &delivery).await?;
    let taken: Vec<Arc<Source>> = verified.iter().map(|verified| Arc::clone(verified.source())).collect();
    trace.step("match");
    let (events, _turn) = match let_in(shared, &in_force, &verified).await {
        Ok(let_in) => let_in,
        Err((failure, detail)) => return Err(refuse(shared, &taken, remote, &delivery, failure, &detail, true).await),
    };
    let mut new = new_events(&shared.app, &in_force, &events).await;
    new.iter_mut().for_each(|event| (event.trace, event.room) = (trace.context(), Some(Room::clone(&room))));
    trace.step("store");
    let stored = match shared.app.store.accept(new).await {
        Ok(stored) => stored,
        Err(error) => return Err(unstored(shared, &taken, remote, &delivery, error).await),
    };
    match stored {
        Acceptance::Stored(accepted) => {
            let (receipt, answer) = receipt::confirm(shared, &events, &accepted, started.elapsed());
            Ok(Taken::Stored(receipt, answer))
        }
        Acceptance::QueueFull(agents) => {
            let detail = format!("the queue of {} is full; try again later", agents.join(", "));
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail.clone()).retry_later();
            Err(refuse(shared, &taken, remote, &delivery, failure, &detail, true).await)
        }
    }
}

/// What the sender of a delivery hears that could not be stored.
async fn unstored(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    delivery: &Delivery,
    error: crate::store::Error,
) -> Failure {
    let failure = Failure::from(error);
    let detail = failure.detail().to_owned();
    refuse(shared, sources, remote, delivery, failure, &detail, true).await
}

/// What a delivery says, and the turn of an agent's own webhook, which is given back at the end.
async fn let_in(
    shared: &Shared,
    in_force: &Snapshot,
    verified: &[Verified],
) -> Result<(Vec<Event>, Option<hooks::Turn>), (Failure, String)> {
    Ok((read(verified)?, hooks::admit(shared, in_force, verified).await?))
}

/// Counts which secrets are in use.
fn count_uses(shared: &Shared, verified: &[Verified], delivery: &Delivery) {
    for (proved, key) in verified.iter().filter_map(|proved| Some((proved, proved.key()?))) {
        shared.app.secret_uses.count(proved.source().name(), &key.instance, delivery.received_at);
    }
}

/// What the sender of a delivery that nobody proved hears, and what exactly was wrong.
fn unanswered(shared: &Shared, in_force: &Snapshot, remote: SocketAddr, unproved: Unproved) -> (Failure, String) {
    let refused = matches!(unproved, Unproved::Refused(_));
    let (failure, detail) = unproved.said();
    if !refused {
        return (failure, detail);
    }
    let code = failure.code();
    let failure = shared.door.refuse(remote.ip(), &in_force.config.gateway, failure);
    match failure.code() == code {
        true => (failure, detail),
        false => (failure, format!("too many from this address were refused; this one for {code}: {detail}")),
    }
}

/// Lets a delivery through, unless it is one too many for one of the sources that would take it. All or none: its sender
/// comes again only if none took it.
async fn admit(
    shared: &Shared,
    in_force: &Snapshot,
    verified: &[Verified],
    remote: SocketAddr,
    delivery: &Delivery,
) -> Result<(), Failure> {
    for proved in verified {
        let is_hook = || in_force.hooks.get(proved.source().name()).is_some();
        let key = || if is_hook() { "hook_rate_limit" } else { "rate_limit" };
        if let Err(failure) = shared.door.admit_delivery(proved.source(), key) {
            let (source, detail) = (Arc::clone(proved.source()), failure.detail().to_owned());
            return Err(refuse(shared, &[source], remote, delivery, failure, &detail, false).await);
        }
    }
    Ok(())
}

/// What a delivery says: for each source that took it at least one event.
fn read(verified: &[Verified]) -> Result<Vec<Event>, (Failure, String)> {
    let mut events = Vec::new();
    for proved in verified {
        let read = match Event::read(proved) {
            Ok(read) if read.is_empty() => Err(Unreadable::broken("there is no event in it")),
            read => read,
        };
        events.extend(read.map_err(|unreadable| (Failure::from(unreadable.clone()), unreadable.detail))?);
        if events.len().saturating_mul(proved.delivery().body.len()) > MOST_STORED && events.len() > verified.len() {
            let detail = "too many events in one body of this size";
            let failure = Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail);
            return Err((failure, detail.to_owned()));
        }
    }
    Ok(events)
}

/// The same sources as they are configured in this snapshot, without those that are gone.
fn still_there(in_force: &Snapshot, sources: &[Arc<Source>]) -> Vec<Arc<Source>> {
    let now = sources.iter().filter_map(|source| in_force.config.sources.get(source.name()).map(|now| (source, now)));
    let same = now.filter(|(before, now)| before.provider().name() == now.provider().name());
    same.map(|(_, now)| Arc::clone(now)).collect()
}

/// The whole delivery as it came, within the limits.
async fn collect(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    request: Request,
) -> Result<(Arc<Delivery>, Room), Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let in_force = shared.app.current();
    let url = peer::url_of(&shared.app, &in_force, &parts.extensions);
    let mut delivery = Delivery {
        method: parts.method,
        url: format!("{url}{path}"),
        headers: parts.headers,
        body: Bytes::new(),
        received_at: clock::now(),
        certificate: None,
    };
    let is_plain = |value: &HeaderValue, plain: &str| {
        value.is_empty() || value.as_bytes().trim_ascii().eq_ignore_ascii_case(plain.as_bytes())
    };
    let coded = |name, plain: &str| delivery.headers.get_all(name).iter().any(|value| !is_plain(value, plain));
    if coded(CONTENT_ENCODING, "identity") || coded(TRANSFER_ENCODING, "chunked") {
        let detail = "send the body without a coding (Content-Encoding, Transfer-Encoding): the signature is over the bytes as they are sent";
        let failure = Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", detail);
        return Err(refuse(shared, sources, remote, &delivery, failure, detail, false).await);
    }
    let limit = in_force.config.gateway.max_body;
    match shared.budget.read(remote.ip(), &delivery.headers, body, limit).await {
        Ok((bytes, share)) => {
            delivery.body = bytes;
            Ok((Arc::new(delivery), Arc::new(share)))
        }
        Err(unread) => {
            let detail = unread.explain(limit, &delivery.headers);
            let failure = Failure::from((unread, detail.clone()));
            Err(refuse(shared, sources, remote, &delivery, failure, &detail, false).await)
        }
    }
}

/// The events with what they start, matched against the triggers in force.
async fn new_events(app: &App, in_force: &Snapshot, events: &[Event]) -> Vec<NewEvent> {
    match events {
        // Nearly always.
        [event] => vec![new_event(app, in_force, event).await],
        events => futures_util::future::join_all(events.iter().map(|event| new_event(app, in_force, event))).await,
    }
}

async fn new_event(app: &App, in_force: &Snapshot, event: &Event) -> NewEvent {
    let (source, delivery) = (event.source(), event.delivery());
    let candidate = Candidate { source: source.name(), handshake: event.is_handshake(), context: event.context() };
    let found = in_force.matcher.find(candidate);
    let limit = in_force.config.gateway.condition_timeout;
    let facts = || conditions::facts_of(event);
    let choices = conditions::decide(&app.conditions, source.name(), &found, facts, limit).await;
    let agents = &in_force.config.agents;
    let ignored = source.ignored_sender(event.context());
    let ignored = ignored.map(|sender| format!("source `{}` ignores what `{sender}` causes", source.name()));
    let starts = choices.into_iter().filter_map(|choice| {
        let start = start(agents.get(&choice.agent)?, choice);
        Some(match &ignored {
            Some(reason) => Start { admission: Admission::Skip(reason.clone()), key: None, flow: None, ..start },
            None => start,
        })
    });
    let mut starts: Vec<Start> = starts.collect();
    app.pauses.hold(&mut starts);
    NewEvent {
        id: clock::new_id(),
        source: source.name().to_owned(),
        provider: source.provider().name().to_owned(),
        event: event.name().to_owned(),
        action: event.action().map(ToOwned::to_owned),
        delivery_keys: event.delivery_keys().to_vec(),
        delivery_id: event.delivery_id().map(ToOwned::to_owned),
        verified_by: event.verified_by().map(ToOwned::to_owned),
        received_at: delivery.received_at,
        handshake: event.is_handshake(),
        context: event.context().shortened(),
        headers: kept_headers_as_json(source.provider(), delivery),
        body: delivery.body.clone(),
        trigger_set: in_force.trigger_set,
        trace: None,
        replay: None,
        only_missing: false,
        room: None,
        paused: app.pauses.of_source(source.name()),
        starts,
    }
}

fn start(agent: &Agent, choice: Choice) -> Start {
    let (key, admission) = match choice.result {
        Ok(key) => (key, admission(agent)),
        // A disabled agent would not be started whatever its conditions say.
        Err(_) if agent.scale == 0 => (None, admission(agent)),
        Err(reason) => (None, Admission::FilterError(reason)),
    };
    let flow = agent.flow(choice.trigger);
    Start { agent: choice.agent, trigger: choice.trigger, run: clock::new_id(), key, flow, admission }
}
