//! Triggers: held against stored events, whether they are in force or only an idea.

use std::time::{Duration, Instant};

use doorbell_client::api;
use doorbell_core::condition::{Body, Conditions, Facts};
use doorbell_core::event::{Context, event_type};
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::{Candidate, Trigger, Verdict};

use super::events::view_clauses;
use super::{Error, page_size, parse_time};
use crate::app::{App, Caller};
use crate::conditions;
use crate::store::{self, EventQuery, StoredEvent};

/// Events that one test looks at, at most.
pub const MOST_SCANNED: usize = 10_000;

/// How long one test looks on.
pub(super) const LONGEST_SCAN: Duration = Duration::from_secs(15);

/// Events that are read at once.
const STEP: usize = 500;

/// Events that did not match, or whose conditions failed, that are shown as examples.
const EXAMPLES: usize = 5;

/// Who waits for conditions here, beside the sources (whose names have no space).
pub(super) const LINE: &str = "a person";

/// Completes the verdicts of triggers with what their conditions say to a stored event.
///
/// # Errors
/// If the store is unavailable.
pub(super) async fn complete(
    app: &App,
    event: &StoredEvent,
    context: &Context,
    verdicts: Vec<(Verdict, Conditions)>,
) -> Result<Vec<Verdict>, Error> {
    let asked = |(verdict, conditions): &(Verdict, Conditions)| verdict.matched && !conditions.is_empty();
    if !verdicts.iter().any(asked) {
        return Ok(verdicts.into_iter().map(|(verdict, _)| verdict).collect());
    }
    let body = app.store.body(event.id).await?.ok_or(Error::NotFound("event"))?;
    let facts = facts_of(event, context, body);
    match conditions::explain(&app.conditions, LINE, verdicts.clone(), facts).await {
        Ok(verdicts) => Ok(verdicts),
        Err(why) => {
            let unanswered = |(mut verdict, conditions): (Verdict, Conditions)| {
                if verdict.matched && !conditions.is_empty() {
                    conditions.leave_unanswered(&mut verdict, &why.to_string());
                }
                verdict
            };
            Ok(verdicts.into_iter().map(unanswered).collect())
        }
    }
}

/// What conditions are asked about a stored event.
pub(super) fn facts_of(event: &StoredEvent, context: &Context, body: store::Body) -> Facts {
    let headers: serde_json::Value = serde_json::from_str(&body.headers).unwrap_or_default();
    let content_type = headers.get("content-type").and_then(|value| value.as_str());
    Facts {
        source: event.provider.clone(),
        integration_id: event.source.clone(),
        event_type: event_type(&event.provider, &event.event, event.action.as_deref()),
        idempotency_key: event.delivery_id.clone(),
        timestamp: event.received_at.as_seconds(),
        body: Body::new(body.bytes, content_type),
        context: serde_json::to_value(context).unwrap_or_default(),
        headers,
    }
}

/// Holds a trigger against the stored events of its source, newest first: up to [`MOST_SCANNED`] of them.
///
/// # Errors
/// If the caller may not see all events, the trigger or a parameter is wrong, or the store is unavailable.
pub async fn test(app: &App, caller: &Caller, wish: api::TriggerTest) -> Result<api::TriggerTestResult, Error> {
    if matches!(caller, Caller::Agent(_) | Caller::Run { .. }) {
        return Err(Error::NotAllowed("this needs a key with role `owner` or `viewer`: it looks at all events"));
    }
    let limit = page_size(wish.limit)?;
    let since = parse_time("since", wish.since.as_deref())?;
    let trigger = app.current().config.read_trigger(&wish.trigger, |source| caller.has_source(source));
    let trigger = trigger.map_err(Error::Invalid)?;
    let mut tested = Tested { limit, ..Tested::default() };
    let begun = Instant::now();
    let mut before = None;
    loop {
        let step = STEP.min(MOST_SCANNED - tested.result.scanned);
        let query =
            EventQuery { source: Some(trigger.source.clone()), since, before, limit: step, ..EventQuery::default() };
        let events = app.store.events(query).await?;
        let last = events.len() < step;
        before = events.last().map(|event| event.seq);
        for event in events {
            tested.add(app, &trigger, event).await?;
            if begun.elapsed() > LONGEST_SCAN {
                return Ok(tested.result);
            }
        }
        tested.result.complete = last;
        if last || tested.result.scanned >= MOST_SCANNED {
            return Ok(tested.result);
        }
    }
}

/// What a test has seen.
#[derive(Default)]
struct Tested {
    /// Events that matched and are shown, at most.
    limit: usize,
    result: api::TriggerTestResult,
}

impl Tested {
    async fn add(&mut self, app: &App, trigger: &Trigger, event: StoredEvent) -> Result<(), Error> {
        let context: Context = serde_json::from_str(&event.context)
            .map_err(|_| store::Error::Corrupt(format!("the context of {} cannot be read", event.id)))?;
        let candidate = Candidate { source: &event.source, handshake: event.handshake, context: &context };
        let verdict = vec![(trigger.explain(candidate), trigger.conditions.clone())];
        let verdict = complete(app, &event, &context, verdict).await?;
        let result = &mut self.result;
        result.scanned += 1;
        result.oldest_at = Some(event.received_at.to_string());
        for verdict in verdict {
            let failed = verdict.clauses.iter().any(|clause| clause.error.is_some());
            let (count, list, most) = match (verdict.matched, failed) {
                (true, _) => (&mut result.matched, &mut result.events, self.limit),
                (false, true) => (&mut result.failed, &mut result.failures, EXAMPLES),
                (false, false) => (&mut result.not_matched, &mut result.misses, EXAMPLES),
            };
            *count += 1;
            if list.len() < most {
                list.push(view(&event, verdict));
            }
        }
        Ok(())
    }
}

fn view(event: &StoredEvent, verdict: Verdict) -> api::TestedEvent {
    api::TestedEvent {
        id: event.id.to_string(),
        event_type: event_type(&event.provider, &event.event, event.action.as_deref()),
        received_at: Timestamp::to_string(&event.received_at),
        key: verdict.key,
        reason: verdict.reason,
        clauses: view_clauses(verdict.clauses),
    }
}
