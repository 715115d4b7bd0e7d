//! Ingest: from a request to a stored event.
//!
//! limits → raw bytes → verified → read → matched → one transaction → 200. What a sender can send never gives 500, and
//! nothing here waits for an agent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use doorbell_client::api::{Receipt, SourceReceipt};
use doorbell_core::condition::Choice;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::visible_headers;
use doorbell_core::source::Source;
use doorbell_core::trigger::Candidate;
use doorbell_core::verify::{self, Verified};
use http::header::{ALLOW, CONTENT_ENCODING, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode};

use super::Shared;
use super::body::Share;
use super::error::{self, Failure, method_not_allowed};
use crate::app::{App, Notice, Snapshot};
use crate::clock;
use crate::conditions;
use crate::config::{Agent, WhenFull};
use crate::store::{Acceptance, Accepted, Admission, AgentOutcome, NewEvent, OutcomeKind, Rejection, Start};
use crate::telemetry::DeliveryTrace;

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
    let all = in_force.config.sources.values();
    let sources = all.filter(|source| source.provider().name() == provider).cloned().collect();
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
    let found = in_force.config.sources.get(&source);
    let sources = found.filter(|source| source.provider().name() == provider).cloned().into_iter().collect();
    receive(shared, sources, remote, request).await
}

async fn receive(shared: Shared, sources: Vec<Arc<Source>>, remote: SocketAddr, request: Request) -> Response {
    if sources.is_empty() {
        shared.app.metrics.count_without_source();
        return Failure::not_found().into_response();
    }
    if request.method() != Method::POST {
        let mut response = method_not_allowed().await.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    if shared.app.closing.load(Ordering::Relaxed) {
        let detail = "the gateway shuts down; try again";
        return Failure::new(StatusCode::SERVICE_UNAVAILABLE, "closing", detail).retry_later().into_response();
    }
    let names = sources.iter().map(|source| source.name());
    let mut trace = shared.app.traces.begin_delivery(request.headers(), names);
    match take(&shared, &sources, remote, request, &mut trace).await {
        Ok(receipt) => {
            trace.accepted(&receipt.delivery_id, &receipt.event, receipt.duplicate, receipt.runs.len());
            Json(receipt).into_response()
        }
        Err(failure) => {
            trace.refused(failure.status().as_u16(), failure.code());
            failure.into_response()
        }
    }
}

async fn take(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    request: Request,
    trace: &mut DeliveryTrace,
) -> Result<Receipt, Failure> {
    trace.step("receive");
    // The body's share of the budget is given back at the end.
    let (delivery, _share) = collect(shared, sources, remote, request).await?;
    let started = Instant::now();
    // The body may have taken its time: what is in force now counts, for the secrets as for the triggers.
    let in_force = shared.app.current();
    let sources: &[Arc<Source>] = &still_there(&in_force, sources);
    if sources.is_empty() {
        return Err(Failure::not_found());
    }
    trace.step("verify");
    let verified = match prove(sources, &delivery) {
        Ok(verified) => verified,
        Err(rejection) => {
            // The sender learns the code; what exactly was wrong is for the source's owner.
            let failure =
                Failure::new(StatusCode::UNAUTHORIZED, rejection.code.as_str(), "the signature was not accepted");
            return Err(refuse(shared, sources, remote, &delivery, failure, &rejection.detail, false).await);
        }
    };
    for (proved, key) in verified.iter().filter_map(|proved| Some((proved, proved.key()?))) {
        shared.app.secret_uses.count(proved.source().name(), &key.instance, delivery.received_at);
    }
    let taken: Vec<Arc<Source>> = verified.iter().map(|verified| Arc::clone(verified.source())).collect();
    trace.step("match");
    let events = match verified.iter().map(Event::read).collect::<Result<Vec<_>, _>>() {
        Ok(events) => events.concat(),
        Err(unreadable) => {
            let failure = Failure::from(unreadable.clone());
            return Err(refuse(shared, &taken, remote, &delivery, failure, &unreadable.detail, true).await);
        }
    };
    let mut new = new_events(&shared.app, &in_force, &events).await;
    new.iter_mut().for_each(|event| event.trace = trace.context());
    trace.step("store");
    let stored = shared.app.store.accept(new).await.map_err(|error| {
        let failure = Failure::from(error);
        taken.iter().for_each(|source| shared.app.metrics.count_rejected(source.name(), failure.code()));
        failure
    })?;
    match stored {
        Acceptance::Stored(accepted) => Ok(confirm(shared, &events, &accepted, started.elapsed())),
        Acceptance::QueueFull(agents) => {
            let detail = format!("the queue of {} is full; try again later", agents.join(", "));
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail.clone()).retry_later();
            Err(refuse(shared, &taken, remote, &delivery, failure, &detail, true).await)
        }
    }
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
) -> Result<(Arc<Delivery>, Share), Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let in_force = shared.app.current();
    let mut delivery = Delivery {
        method: parts.method,
        url: format!("{}{path}", shared.app.public_url(&in_force)),
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
            Ok((Arc::new(delivery), share))
        }
        Err(unread) => {
            let failure = Failure::from(unread);
            let detail = format!("the body was not read: {}", failure.code());
            Err(refuse(shared, sources, remote, &delivery, failure, &detail, false).await)
        }
    }
}

/// The delivery, proved for every source that can; or the most telling refusal.
fn prove(sources: &[Arc<Source>], delivery: &Arc<Delivery>) -> Result<Vec<Verified>, verify::Rejection> {
    let mut verified = Vec::new();
    let mut refused: Option<verify::Rejection> = None;
    for source in sources {
        match verify::verify(source, delivery) {
            Ok(proved) => verified.push(proved),
            Err(rejection) => {
                if refused.as_ref().is_none_or(|earlier| rejection.code > earlier.code) {
                    refused = Some(rejection);
                }
            }
        }
    }
    match refused {
        Some(rejection) if verified.is_empty() => Err(rejection),
        _ => Ok(verified),
    }
}

/// The events with what they start, matched against the triggers in force.
async fn new_events(app: &App, in_force: &Snapshot, events: &[Event]) -> Vec<NewEvent> {
    futures_util::future::join_all(events.iter().map(|event| new_event(app, in_force, event))).await
}

async fn new_event(app: &App, in_force: &Snapshot, event: &Event) -> NewEvent {
    let (source, delivery) = (event.source(), event.delivery());
    let candidate = Candidate { source: source.name(), handshake: event.is_handshake(), context: event.context() };
    let found = in_force.matcher.find(candidate);
    let limit = in_force.config.gateway.condition_timeout;
    let facts = || conditions::facts_of(event);
    let choices = conditions::decide(&app.conditions, source.name(), &found, facts, limit).await;
    let agents = &in_force.config.agents;
    let starts = choices.into_iter().filter_map(|choice| Some(start(agents.get(&choice.agent)?, choice)));
    let headers = visible_headers(source.provider(), &delivery.headers);
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
        headers: serde_json::to_string(&headers).unwrap_or_default(),
        body: delivery.body.clone(),
        trigger_set: in_force.trigger_set,
        trace: None,
        starts: starts.collect(),
    }
}

fn start(agent: &Agent, choice: Choice) -> Start {
    let (key, admission) = match choice.result {
        Ok(key) => (key, admission(agent)),
        // A disabled agent would not be started whatever its conditions say.
        Err(_) if agent.scale == 0 => (None, admission(agent)),
        Err(reason) => (None, Admission::FilterError(reason)),
    };
    Start { agent: choice.agent, trigger: choice.trigger, run: clock::new_id(), key, admission }
}

fn admission(agent: &Agent) -> Admission {
    if agent.scale == 0 {
        return Admission::Skip("the agent is disabled: `scale = 0`".to_owned());
    }
    match agent.when_full {
        WhenFull::DropOldest => Admission::DropOldest(agent.work_queue_size),
        WhenFull::Reject => Admission::Reject(agent.work_queue_size),
        WhenFull::Grow => Admission::Grow,
    }
}

/// Tells everybody, and answers the sender.
fn confirm(shared: &Shared, events: &[Event], accepted: &[Accepted], took: Duration) -> Receipt {
    let app = &shared.app;
    let mut receipts = Vec::with_capacity(accepted.len());
    for (event, accepted) in events.iter().zip(accepted) {
        accepted.queued.iter().for_each(|agent| shared.dispatcher.wake(agent));
        shared.dispatcher.tell_of_dropped(&accepted.dropped);
        let source = event.source().name();
        let event_type = event.event_type();
        let started = accepted.outcomes.iter().filter(|outcome| outcome.kind != OutcomeKind::Skipped);
        let runs: Vec<String> = started.filter_map(|outcome| outcome.run).map(|run| run.to_string()).collect();
        app.metrics.count_accepted(source, accepted.duplicate, &accepted.decided, took);
        app.signs.accepted(source, event.delivery().received_at);
        note_filter_errors(event, accepted);
        app.activity.tell(|| match accepted.duplicate {
            true => Notice::Duplicate(accepted.event),
            false => Notice::Event(accepted.event),
        });
        tracing::info!(event = %accepted.event, source, event_type, duplicate = accepted.duplicate,
            verified_by = event.verified_by(), delivery_id = event.delivery_id(), runs = runs.len(),
            body_bytes = event.delivery().body.len(), took_us = took.as_micros() as u64, "event.accepted");
        receipts.push(SourceReceipt {
            source: source.to_owned(),
            delivery_id: accepted.event.to_string(),
            event: event_type,
            runs,
            duplicate: accepted.duplicate,
        });
    }
    // There is an event for each source that verified, and at least one did.
    let first = receipts[0].clone();
    let deliveries = if receipts.len() > 1 { receipts } else { Vec::new() };
    Receipt {
        received: true,
        delivery_id: first.delivery_id,
        event: first.event,
        runs: first.runs,
        duplicate: first.duplicate,
        deliveries,
    }
}

/// Counts and logs the agents for which nobody knows whether they want the event.
fn note_filter_errors(event: &Event, accepted: &Accepted) {
    let now = event.delivery().received_at;
    let of_now = |outcome: &&AgentOutcome| outcome.kind == OutcomeKind::FilterError && outcome.at == now;
    for outcome in accepted.outcomes.iter().filter(of_now) {
        tracing::warn!(event = %accepted.event, agent = outcome.agent, trigger = outcome.trigger,
            reason = outcome.reason, "event.filter_error");
    }
}

/// Keeps a refusal with its cause, for each source that could have taken the delivery.
async fn refuse(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    delivery: &Delivery,
    failure: Failure,
    detail: &str,
    verified: bool,
) -> Failure {
    let detail = error::brief(detail);
    for source in sources {
        shared.app.metrics.count_rejected(source.name(), failure.code());
        if failure.is_the_senders() {
            shared.app.signs.refused(source.name(), failure.code());
        }
        let Some(suppressed) = shared.rejections.admit(source.name(), Instant::now()) else {
            shared.app.metrics.count_suppressed(source.name());
            continue;
        };
        tracing::warn!(source = source.name(), code = failure.code(), detail = &*detail, %remote, suppressed, "delivery.rejected");
        let headers = visible_headers(source.provider(), &delivery.headers);
        let rejection = Rejection {
            at: delivery.received_at,
            source: source.name().to_owned(),
            code: failure.code().to_owned(),
            detail: detail.to_string(),
            remote: remote.ip().to_canonical().to_string(),
            headers: serde_json::to_string(&headers).unwrap_or_default(),
            body: verified.then(|| delivery.body.clone()),
            suppressed,
        };
        shared.app.activity.tell(|| Notice::Rejected(Arc::new(rejection.clone())));
        if let Err(error) = shared.app.store.reject(rejection).await {
            tracing::error!(source = source.name(), error = error.with_causes(), "delivery.rejection_not_kept");
        }
    }
    failure
}

/// Lets so many rejections of each source through to the store, so that strangers cannot fill the disk.
#[derive(Debug, Default)]
pub(super) struct RejectionCap(Mutex<HashMap<String, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    suppressed: u64,
}

/// Rejections of one source that may come at once, and per second after that.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 5.0;

impl RejectionCap {
    /// Whether this one is kept; then how many were not since the last one that was.
    fn admit(&self, source: &str, now: Instant) -> Option<u64> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket =
            buckets.entry(source.to_owned()).or_insert_with(|| Bucket { tokens: BURST, filled: now, suppressed: 0 });
        let gained = now.duration_since(bucket.filled).as_secs_f64() * PER_SECOND;
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.tokens -= 1.0;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_of_one_source_are_capped_and_the_rest_counted() {
        let (cap, now) = (RejectionCap::default(), Instant::now());
        let kept = (0..200).filter(|_| cap.admit("a", now).is_some()).count();
        assert_eq!(kept, 50);
        assert_eq!(cap.admit("b", now), Some(0), "another source has its own");
        assert_eq!(cap.admit("a", now + Duration::from_secs(1)), Some(150));
    }
}
