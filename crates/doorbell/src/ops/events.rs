//! Events: listed, shown, explained.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use doorbell_client::api;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::{AGENT, Context, MANUAL, SCHEDULE, is_own};
use doorbell_core::id::{EventId, WebhookId};
use doorbell_core::search::Search;
use doorbell_core::trigger::{Candidate, ClauseVerdict, Trigger, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;

use super::triggers::complete;
use super::view::parse_object;
use super::{Error, owned, page_size, parse_cursor, parse_time, view_event};
use crate::app::subscriptions::is_subscriber;
use crate::app::webhooks::trigger;
use crate::app::{App, Caller};
use crate::clock;
use crate::store::{self, EventQuery, Found, StoredEvent, Wanted};

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    /// Of this source.
    pub source: Option<String>,
    /// Of this event: `issues`, `issues.opened` or `github.issues.opened`.
    pub event: Option<String>,
    /// With such an outcome; `none`: no agent wanted it.
    pub outcome: Option<String>,
    /// Received then or later, RFC 3339.
    pub since: Option<String>,
    /// Received before, RFC 3339.
    pub until: Option<String>,
    /// That say this in their name, source, delivery id or context: words that must all be there, by their beginnings, in any
    /// order; a "phrase" as it stands. Up to 200 characters.
    pub q: Option<String>,
    /// Whether what `q` says may stand in their bodies, too. Those have no index: a page looks at some thousand events.
    pub bodies: Option<bool>,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many; 50 if nothing is said.
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<usize>,
}

/// How long a page is looked for.
const LOOKS: Duration = Duration::from_millis(150);

/// Events, newest first.
///
/// # Errors
/// If the query cannot be understood or the store is unavailable.
pub async fn list(app: &App, caller: &Caller, query: Query) -> Result<api::EventPage, Error> {
    let limit = page_size(query.limit)?;
    check_outcome(query.outcome.as_deref())?;
    let wanted = wanted(query.q.as_deref(), query.bodies)?;
    let query = EventQuery {
        source: query.source,
        event: query.event,
        within: caller.confined_to(),
        outcome: query.outcome,
        since: parse_time("since", query.since.as_deref())?,
        until: parse_time("until", query.until.as_deref())?,
        before: parse_cursor(query.cursor.as_deref())?,
        after: None,
        limit,
    };
    let found = match wanted {
        Some(wanted) => app.store.search(query, wanted).await?,
        None => {
            let events = app.store.events(query).await?;
            let next = events.last().filter(|_| events.len() == limit).map(|event| event.seq);
            Found { events, next, back_to: None }
        }
    };
    Ok(api::EventPage {
        events: with_outcomes(app, caller, found.events).await?,
        next_cursor: found.next.map(|seq| seq.to_string()),
        searched_back_to: found.back_to.map(|at| at.to_string()),
    })
}

/// What is looked for; none if nothing is.
fn wanted(question: Option<&str>, bodies: Option<bool>) -> Result<Option<Wanted>, Error> {
    let Some(question) = question else {
        return match bodies {
            Some(true) => Err(Error::Invalid("`bodies` says where to look for `q`, which is missing".to_owned())),
            _ => Ok(None),
        };
    };
    let search = Search::parse(question).map_err(|error| Error::Invalid(format!("`q`: {error}")))?;
    let wanted = Wanted { search, bodies: bodies.unwrap_or_default(), within: LOOKS };
    Ok(Some(wanted).filter(|wanted| !wanted.search.is_empty()))
}

/// Refuses outcomes that there are not.
pub(super) fn check_outcome(outcome: Option<&str>) -> Result<(), Error> {
    const ALL: [&str; 6] = ["started", "absorbed", "skipped", "dropped", "filter_error", "none"];
    match outcome.is_none_or(|outcome| ALL.contains(&outcome)) {
        true => Ok(()),
        false => {
            let detail = "`outcome` must be started, absorbed, skipped, dropped, filter_error or none";
            Err(Error::Invalid(detail.to_owned()))
        }
    }
}

/// Events that came after a place in the order of commits, oldest first.
///
/// # Errors
/// If the store is unavailable.
pub async fn since(app: &App, caller: &Caller, seq: i64, limit: usize) -> Result<Vec<api::Event>, Error> {
    let within = caller.confined_to();
    let stored = app.store.events(EventQuery { after: Some(seq), within, limit, ..EventQuery::default() }).await?;
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
    if after > newest(app).await? {
        let detail = "this place is of another database than the one that is there now, such as before an older one was restored: begin anew, \
                      from `after=0` with the oldest that is there, or without a place with what comes now";
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
    let mut outcomes = app.store.outcomes_of(stored.iter().map(|event| event.seq).collect()).await?;
    let events = stored.into_iter().map(|event| {
        let mut of_event = outcomes.remove(&event.seq).unwrap_or_default();
        of_event.retain(|outcome| caller.may_see(&outcome.agent));
        view_event(event, of_event)
    });
    Ok(events.collect())
}

/// One event.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn get(app: &App, caller: &Caller, id: &str) -> Result<api::Event, Error> {
    let id = parse_id(id)?;
    owned::require_event(app, caller, id).await?;
    let event = app.store.event(id).await?.ok_or(Error::NotFound("event"))?;
    let mut outcomes = app.store.outcomes(id).await?;
    outcomes.retain(|outcome| caller.may_see(&outcome.agent));
    Ok(view_event(event, outcomes))
}

/// One event with its headers.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn show(app: &App, caller: &Caller, id: &str) -> Result<api::EventDetail, Error> {
    let event = get(app, caller, id).await?;
    if event.forgotten_at.is_some() {
        return Ok(api::EventDetail { event, headers: serde_json::Map::new(), retried: None });
    }
    let headers = app.store.headers(parse_id(&event.id)?).await?.ok_or(Error::NotFound("event"))?;
    let retried = retried(app, &event, &headers);
    Ok(api::EventDetail { event, headers: parse_object(&headers), retried })
}

/// What the headers say of an earlier try of the same delivery.
fn retried(app: &App, event: &api::Event, headers: &str) -> Option<String> {
    let in_force = app.current();
    let source = in_force.config.sources.get(&event.source)?;
    let kept: BTreeMap<String, String> = serde_json::from_str(headers).ok()?;
    let delivery = Delivery::stored(&kept, Bytes::new(), clock::now());
    source.provider().retried(&delivery).filter(|_| source.provider().name() == event.provider)
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
    Ok(app.store.body(parse_id(&event.id)?).await?.ok_or(Error::NotFound("event"))?.bytes)
}

fn parse_id(id: &str) -> Result<EventId, Error> {
    id.parse().map_err(|_| Error::NotFound("event"))
}

/// What every trigger of the set that was in force says to an event, and what became of it. Agents that a redelivery
/// started are explained by the set of that redelivery.
///
/// # Errors
/// If there is no such event, or not for this caller.
pub async fn explain(app: &App, caller: &Caller, id: &str) -> Result<api::Explanation, Error> {
    let event = get(app, caller, id).await?;
    let stored = app.store.event(parse_id(&event.id)?).await?.ok_or(Error::NotFound("event"))?;
    if event.forgotten_at.is_some() {
        // Filters have nothing left to be held against.
        return Ok(api::Explanation { event, trigger_set: stored.trigger_set, verdicts: Vec::new() });
    }
    if is_own(&stored.provider) {
        let verdicts = event.outcomes.iter().map(|outcome| named(outcome, &stored.provider)).collect();
        return Ok(api::Explanation { event, trigger_set: stored.trigger_set, verdicts });
    }
    let mut verdicts = explain_by(app, &stored, stored.trigger_set, |agent| caller.may_see(agent)).await?;
    let sets: BTreeSet<i64> = event.outcomes.iter().map(|outcome| outcome.trigger_set).collect();
    for set in sets.into_iter().filter(|set| *set != stored.trigger_set) {
        let of_set = |agent: &str| event.outcomes.iter().any(|one| one.trigger_set == set && one.agent == agent);
        for mut verdict in explain_by(app, &stored, set, of_set).await? {
            let again = if is_replayed(&event, &verdict.agent) { "replayed" } else { "delivered again" };
            verdict.reason = format!("when it was {again}: {}", verdict.reason);
            verdicts.push(verdict);
        }
    }
    verdicts.extend(event.outcomes.iter().filter(|outcome| is_subscriber(&outcome.agent)).map(subscribed));
    if event.replay.is_some() {
        verdicts.iter_mut().for_each(|verdict| say_if_named(verdict, &event.outcomes));
    }
    Ok(api::Explanation { event, trigger_set: stored.trigger_set, verdicts })
}

/// Whether the agent has the event by a replay of it.
fn is_replayed(event: &api::Event, agent: &str) -> bool {
    let reason =
        event.outcomes.iter().find(|outcome| outcome.agent == agent).and_then(|outcome| outcome.reason.as_ref());
    reason.is_some_and(|reason| reason.starts_with(store::BY_REPLAY))
}

/// A replay may name an agent whose triggers want nothing of the event.
fn say_if_named(verdict: &mut api::Verdict, outcomes: &[api::Outcome]) {
    let started =
        outcomes.iter().any(|one| one.agent == verdict.agent && one.trigger == verdict.trigger && one.run_id.is_some());
    if started && !verdict.matched {
        verdict.matched = true;
        verdict.reason = format!("the replay names it; else: {}", verdict.reason);
    }
}

/// Why an event is delivered to a subscription: no trigger says so.
fn subscribed(outcome: &api::Outcome) -> api::Verdict {
    let reason = "a subscription of MCP Events asks for it".to_owned();
    api::Verdict { reason, ..named(outcome, "") }
}

/// Why an event that Doorbell made itself started its agent: no trigger did.
fn named(outcome: &api::Outcome, kind: &str) -> api::Verdict {
    let reason = match kind {
        SCHEDULE => "its schedule names this time",
        MANUAL => "it was asked for by hand",
        AGENT => "the run of another agent called it",
        _ => "[[notifications]] of config.toml names it",
    };
    api::Verdict {
        agent: outcome.agent.clone(),
        trigger: 0,
        matched: true,
        reason: reason.to_owned(),
        key: None,
        clauses: Vec::new(),
    }
}

/// What a webhook that was made at run time means to its agent: it stands in no trigger set.
async fn of_webhook(app: &App, stored: &StoredEvent) -> Result<Option<Trigger>, Error> {
    let Ok(id) = stored.source.parse::<WebhookId>() else { return Ok(None) };
    let webhooks = app.store.webhooks().await?;
    let Some(found) = webhooks.iter().find(|one| one.webhook.id == id) else { return Ok(None) };
    let agent = &found.webhook.agent;
    let outcomes = app.store.outcomes(stored.id).await?;
    let position = match outcomes.iter().find(|outcome| outcome.agent == *agent) {
        Some(outcome) => outcome.trigger,
        None => app.current().base.agents.get(agent).map_or(0, |agent| agent.triggers.len()),
    };
    Ok(Some(trigger(agent, &stored.source, position)))
}

/// What the triggers of one set say to an event: those of the agents in question.
async fn explain_by(
    app: &App,
    stored: &StoredEvent,
    set: i64,
    of_agent: impl Fn(&str) -> bool,
) -> Result<Vec<api::Verdict>, Error> {
    let damaged =
        |what: &str| Error::Store(store::Error::Corrupt(format!("the {what} of {} cannot be read", stored.id)));
    let triggers = app.store.trigger_set(set).await?.ok_or_else(|| damaged("trigger set"))?;
    let triggers: Vec<Trigger> = serde_json::from_str(&triggers).map_err(|_| damaged("trigger set"))?;
    let context: Context = serde_json::from_str(&stored.context).map_err(|_| damaged("context"))?;
    let candidate = Candidate { source: &stored.source, handshake: stored.handshake, context: &context };
    let mut triggers = triggers;
    triggers.extend(of_webhook(app, stored).await?);
    let judge = |trigger: &Trigger| (trigger.explain(candidate), trigger.conditions.clone());
    // All of them, because they share what the conditions of an event may take.
    let verdicts = complete(app, stored, &context, triggers.iter().map(judge).collect()).await?;
    Ok(verdicts.into_iter().filter(|verdict| of_agent(&verdict.agent)).map(view_verdict).collect())
}

fn view_verdict(verdict: Verdict) -> api::Verdict {
    api::Verdict {
        agent: verdict.agent,
        trigger: verdict.trigger,
        matched: verdict.matched,
        reason: verdict.reason,
        clauses: view_clauses(verdict.clauses),
        key: verdict.key,
    }
}

pub(super) fn view_clauses(clauses: Vec<ClauseVerdict>) -> Vec<api::ClauseVerdict> {
    let clauses = clauses.into_iter().map(|clause| api::ClauseVerdict {
        field: clause.field,
        wanted: clause.wanted,
        actual: clause.actual.and_then(|value| serde_json::to_value(value).ok()),
        passed: clause.passed,
        error: clause.error,
    });
    clauses.collect()
}
