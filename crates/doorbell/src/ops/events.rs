//! Events: listed, shown, explained.

use bytes::Bytes;
use doorbell_client::api;
use doorbell_core::event::Context;
use doorbell_core::id::EventId;
use doorbell_core::trigger::{Candidate, Trigger};
use serde::Deserialize;

use super::view::parse_object;
use super::{Error, page_size, parse_cursor, parse_time, view_event};
use crate::app::{App, Caller};
use crate::store::{self, EventQuery, StoredEvent};

/// Which events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    source: Option<String>,
    event: Option<String>,
    outcome: Option<String>,
    since: Option<String>,
    until: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Events, newest first.
///
/// # Errors
/// If the query cannot be understood or the store is unavailable.
pub async fn list(app: &App, caller: &Caller, query: Query) -> Result<api::EventPage, Error> {
    let limit = page_size(query.limit)?;
    if let Some(outcome) = &query.outcome
        && !["started", "absorbed", "skipped", "dropped", "none"].contains(&outcome.as_str())
    {
        return Err(Error::Invalid("`outcome` must be started, absorbed, skipped, dropped or none".to_owned()));
    }
    let stored = app.store.events(EventQuery {
        source: query.source,
        event: query.event,
        agent: caller.confined_to().map(ToOwned::to_owned),
        outcome: query.outcome,
        since: parse_time("since", query.since.as_deref())?,
        until: parse_time("until", query.until.as_deref())?,
        before: parse_cursor(query.cursor.as_deref())?,
        after: None,
        limit,
    });
    let stored = stored.await?;
    let next_cursor = (stored.len() == limit).then(|| stored.last().map(|event| event.seq.to_string())).flatten();
    Ok(api::EventPage { events: with_outcomes(app, caller, stored).await?, next_cursor })
}

/// Events that came after a place in the order of commits, oldest first.
///
/// # Errors
/// If the store is unavailable.
pub async fn since(app: &App, caller: &Caller, seq: i64, limit: usize) -> Result<Vec<api::Event>, Error> {
    let agent = caller.confined_to().map(ToOwned::to_owned);
    let stored = app.store.events(EventQuery { after: Some(seq), agent, limit, ..EventQuery::default() }).await?;
    with_outcomes(app, caller, stored).await
}

/// Refuses to go on after a place behind which events were removed: whoever goes on there would miss them. After 0 means
/// from the oldest there is.
///
/// # Errors
/// If events were removed there, or the store is unavailable.
pub async fn check_place(app: &App, after: i64) -> Result<(), Error> {
    if after > 0 && after < app.store.swept().await?.pruned_through {
        let detail = "events after this place were removed: they were older than the gateway keeps (`[store] retention`). \
                      Begin anew, from `after=0` with the oldest that is there, or without a place with what comes now";
        return Err(Error::Gone("cursor_pruned", detail.to_owned()));
    }
    Ok(())
}

/// The place of the newest event in the order of commits; 0 if there is none.
///
/// # Errors
/// If the store is unavailable.
pub async fn newest(app: &App) -> Result<i64, Error> {
    let newest = app.store.events(EventQuery { limit: 1, ..EventQuery::default() }).await?;
    Ok(newest.first().map_or(0, |event| event.seq))
}

/// The events with the outcomes that the caller may see.
async fn with_outcomes(app: &App, caller: &Caller, stored: Vec<StoredEvent>) -> Result<Vec<api::Event>, Error> {
    let mut events = Vec::with_capacity(stored.len());
    for event in stored {
        let mut outcomes = app.store.outcomes(event.id).await?;
        outcomes.retain(|outcome| caller.may_see(&outcome.agent));
        events.push(view_event(event, outcomes));
    }
    Ok(events)
}

/// One event.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn get(app: &App, caller: &Caller, id: &str) -> Result<api::Event, Error> {
    let id: EventId = id.parse().map_err(|_| Error::NotFound("event"))?;
    let event = app.store.event(id).await?.ok_or(Error::NotFound("event"))?;
    let outcomes = app.store.outcomes(id).await?;
    if let Some(agent) = caller.confined_to()
        && !outcomes.iter().any(|outcome| outcome.agent == agent)
    {
        return Err(Error::NotFound("event"));
    }
    let mut event = view_event(event, outcomes);
    if let Some(agent) = caller.confined_to() {
        event.outcomes.retain(|outcome| outcome.agent == agent);
    }
    Ok(event)
}

/// One event with its headers.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn show(app: &App, caller: &Caller, id: &str) -> Result<api::EventDetail, Error> {
    let event = get(app, caller, id).await?;
    if event.forgotten_at.is_some() {
        return Ok(api::EventDetail { event, headers: serde_json::Map::new() });
    }
    let body = load_body(app, &event).await?;
    Ok(api::EventDetail { event, headers: parse_object(&body.headers) })
}

/// The raw body of an event, byte for byte.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn body(app: &App, caller: &Caller, id: &str) -> Result<Bytes, Error> {
    let event = get(app, caller, id).await?;
    if let Some(at) = &event.forgotten_at {
        return Err(Error::Gone("forgotten", format!("what this event said was removed for good at {at}")));
    }
    Ok(load_body(app, &event).await?.bytes)
}

async fn load_body(app: &App, event: &api::Event) -> Result<crate::store::Body, Error> {
    let id = event.id.parse().map_err(|_| Error::NotFound("event"))?;
    app.store.body(id).await?.ok_or(Error::NotFound("event"))
}

/// What every trigger of the set that was in force says to an event, and what became of it.
///
/// # Errors
/// If there is no such event, or not for this caller.
pub async fn explain(app: &App, caller: &Caller, id: &str) -> Result<api::Explanation, Error> {
    let event = get(app, caller, id).await?;
    let stored = app.store.event(event.id.parse().map_err(|_| Error::NotFound("event"))?).await?;
    let stored = stored.ok_or(Error::NotFound("event"))?;
    if event.forgotten_at.is_some() {
        // Filters have nothing left to be held against.
        return Ok(api::Explanation { event, trigger_set: stored.trigger_set, verdicts: Vec::new() });
    }
    let triggers = app.store.trigger_set(stored.trigger_set).await?;
    let damaged =
        |what: &str| Error::Store(store::Error::Corrupt(format!("the {what} of {} cannot be read", stored.id)));
    let triggers = triggers.ok_or_else(|| damaged("trigger set"))?;
    let triggers: Vec<Trigger> = serde_json::from_str(&triggers).map_err(|_| damaged("trigger set"))?;
    let context: Context = serde_json::from_str(&stored.context).map_err(|_| damaged("context"))?;
    let candidate = Candidate { source: &stored.source, handshake: stored.handshake, context: &context };
    let visible = triggers.iter().filter(|trigger| caller.may_see(&trigger.agent));
    let mut verdicts: Vec<api::Verdict> = visible.map(|trigger| view_verdict(trigger.explain(candidate))).collect();
    // A redelivery starts agents whose triggers came later; they are explained by what those are now.
    let unexplained = |outcome: &&api::Outcome| !verdicts.iter().any(|v| v.matched && v.agent == outcome.agent);
    let late = event.outcomes.iter().filter(unexplained).filter_map(|outcome| app.config.agents.get(&outcome.agent));
    let late: Vec<api::Verdict> = late
        .flat_map(|agent| &agent.triggers)
        .map(|trigger| {
            let mut verdict = view_verdict(trigger.explain(candidate));
            verdict.reason = format!("added since the event was stored: {}", verdict.reason);
            verdict
        })
        .collect();
    verdicts.extend(late);
    Ok(api::Explanation { event, trigger_set: stored.trigger_set, verdicts })
}

fn view_verdict(verdict: doorbell_core::trigger::Verdict) -> api::Verdict {
    let clauses = verdict.clauses.into_iter().map(|clause| api::ClauseVerdict {
        field: clause.field,
        wanted: clause.wanted,
        actual: clause.actual.and_then(|value| serde_json::to_value(value).ok()),
        passed: clause.passed,
    });
    api::Verdict {
        agent: verdict.agent,
        trigger: verdict.trigger,
        matched: verdict.matched,
        reason: verdict.reason,
        clauses: clauses.collect(),
    }
}
