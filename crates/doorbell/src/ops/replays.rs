//! Replays: stored events that are carried out once more, one or all that a filter finds.
//!
//! A replay is a cause of its own: an event that says again what the other one said, and names it. Its delivery key is the
//! replay and that event, so that whatever is tried again starts nothing twice.

use std::collections::HashSet;
use std::sync::Arc;

use doorbell_client::api::{self, ReplayMode};
use doorbell_core::condition::Choice;
use doorbell_core::event::{Context, is_own};
use doorbell_core::flow::Flow;
use doorbell_core::id::{EventId, ReplayId};
use doorbell_core::trigger::{Candidate, Trigger};

use super::triggers::{LINE, facts_of};
use super::view::view_outcome;
use super::{Error, require_any_owner};
use crate::app::{App, Caller};
use crate::clock;
use crate::conditions;
use crate::dispatch::Dispatcher;
use crate::store::{self, Accepted, Admission, Body, NewEvent, Replay, Start, StoredEvent, Within};

mod many;

pub use many::{begin, cancel, get, list, preview, resume};

/// What one replay does with each of its events.
#[derive(Debug, Clone)]
struct Plan {
    id: ReplayId,
    mode: ReplayMode,
    /// Only these; empty: all.
    agents: Vec<String>,
    /// Whose replay it is, if that sees and starts only what is its own.
    within: Option<Within>,
}

impl Plan {
    /// Whether it may start this agent.
    fn wants(&self, agent: &str) -> bool {
        let is = |named: &String| named == agent;
        (self.agents.is_empty() || self.agents.iter().any(is))
            && self.within.as_ref().is_none_or(|own| own.agents.iter().any(is))
    }
}

/// Replays one event.
///
/// # Errors
/// If there is no such event, what it said is forgotten, an agent is not there or not the caller's, or the caller is no owner.
pub async fn one(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    id: &str,
    wish: api::ReplayWish,
) -> Result<api::Replayed, Error> {
    super::events::get(app, caller, id).await?;
    require_any_owner(caller)?;
    check_agents(app, caller, wish.mode, &wish.agents)?;
    let event: EventId = id.parse().map_err(|_| Error::NotFound("event"))?;
    let event = app.store.event(event).await?.ok_or(Error::NotFound("event"))?;
    let plan = Plan { id: clock::new_id(), mode: wish.mode, agents: wish.agents, within: caller.confined_to() };
    let body = app.store.body(event.id).await?;
    let body = body.ok_or_else(|| Error::Gone("forgotten", "what this event said was removed for good".to_owned()))?;
    let starts = starts_of(app, &event, &body, &plan).await?;
    let replayed = replay(dispatcher, app, &event, body, &plan, starts).await?;
    tracing::info!(event = %event.id, replay = %plan.id, by = caller.name(), "event.replayed");
    Ok(match replayed {
        Some(accepted) => api::Replayed {
            event_id: Some(accepted.event.to_string()),
            outcomes: accepted.outcomes.into_iter().map(view_outcome).collect(),
        },
        None => api::Replayed { event_id: None, outcomes: Vec::new() },
    })
}

fn check_agents(app: &App, caller: &Caller, mode: ReplayMode, agents: &[String]) -> Result<(), Error> {
    if mode == ReplayMode::Agent && agents.is_empty() {
        return Err(Error::Invalid("mode `agent` needs `agents`: the names of those to start".to_owned()));
    }
    let in_force = app.current();
    match agents.iter().find(|agent| !in_force.config.agents.contains_key(*agent) || !caller.may_see(agent)) {
        Some(agent) => Err(Error::Invalid(format!("there is no agent `{agent}`"))),
        None => Ok(()),
    }
}

/// What the event starts if it is replayed.
async fn starts_of(app: &App, event: &StoredEvent, body: &Body, plan: &Plan) -> Result<Vec<Start>, Error> {
    let in_force = app.current();
    let wanted = |agent: &str| plan.wants(agent);
    let start = |agent: &str, trigger: Option<usize>, key: Option<String>, failed: Option<String>| {
        let configured = in_force.config.agents.get(agent)?;
        // Without a trigger that wants it there is no flow control to keep to.
        let flow = match trigger {
            Some(trigger) => configured.flow(trigger),
            None => configured.flow_of_others(),
        };
        let trigger = trigger.unwrap_or_default();
        let admission = match failed {
            _ if configured.scale == 0 => Admission::Skip("the agent is disabled: `scale = 0`".to_owned()),
            Some(reason) => Admission::FilterError(reason),
            // Whoever replays wants all of it.
            None => Admission::Grow,
        };
        Some(Start { agent: agent.to_owned(), trigger, run: clock::new_id(), key, flow, admission })
    };
    let choices = choices_of(app, event, body, &wanted).await?;
    if plan.mode == ReplayMode::Agent {
        // Key and flow control come from the trigger that matches; an agent of which none does is started all the same.
        let of = plan.agents.iter().filter_map(|agent| {
            let matching = choices.iter().find(|choice| choice.agent == *agent);
            match matching.and_then(|choice| Some((choice.trigger, choice.result.clone().ok()?))) {
                Some((trigger, key)) => start(agent, Some(trigger), key, None),
                None => start(agent, None, None, None),
            }
        });
        return Ok(of.collect());
    }
    let mut starts: Vec<Start> = if is_own(&event.provider) {
        let outcomes = app.store.outcomes(event.id).await?;
        let wanted = outcomes.into_iter().filter(|outcome| wanted(&outcome.agent));
        wanted.filter_map(|outcome| start(&outcome.agent, None, None, None)).collect()
    } else {
        let of = choices.into_iter().filter_map(|choice| match choice.result {
            Ok(key) => start(&choice.agent, Some(choice.trigger), key, None),
            Err(reason) => start(&choice.agent, Some(choice.trigger), None, Some(reason)),
        });
        of.collect()
    };
    // The store decides; this keeps what is over from being read and shown as if it were to be started.
    if plan.mode == ReplayMode::Missing && !starts.is_empty() {
        let served = agents_with_runs(app, original(event)).await?;
        starts.retain(|start| !served.contains(&start.agent));
    }
    Ok(starts)
}

/// What the triggers in force say to the event; nothing, if no webhook brought it.
async fn choices_of(
    app: &App,
    event: &StoredEvent,
    body: &Body,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Choice>, Error> {
    if is_own(&event.provider) {
        return Ok(Vec::new());
    }
    let (in_force, context) = (app.current(), context_of(event)?);
    let candidate = Candidate { source: &event.source, handshake: event.handshake, context: &context };
    let mut found = in_force.matcher.find(candidate);
    found.retain(|trigger| wanted(&trigger.agent));
    let limit = in_force.config.gateway.condition_timeout;
    let facts = || facts_of(event, &context, body.clone());
    Ok(conditions::decide(&app.conditions, LINE, &found, facts, limit).await)
}

/// The event that is said again, if it is one that says another one again.
fn original(event: &StoredEvent) -> EventId {
    event.replay.map_or(event.id, |replay| replay.of)
}

fn context_of(event: &StoredEvent) -> Result<Context, store::Error> {
    let broken = |_| store::Error::Corrupt(format!("the context of {} cannot be read", event.id));
    serde_json::from_str(&event.context).map_err(broken)
}

/// Agents that have a run for the event, by itself or by an earlier replay.
async fn agents_with_runs(app: &App, event: EventId) -> Result<HashSet<String>, Error> {
    let mut served = HashSet::new();
    for event in std::iter::once(event).chain(app.store.replays_of(event).await?) {
        let outcomes = app.store.outcomes(event).await?;
        served.extend(outcomes.into_iter().filter(|outcome| outcome.run.is_some()).map(|outcome| outcome.agent));
    }
    Ok(served)
}

/// Stores the event once more with what it starts. None if that is nothing.
async fn replay(
    dispatcher: &Arc<Dispatcher>,
    app: &App,
    event: &StoredEvent,
    body: Body,
    plan: &Plan,
    starts: Vec<Start>,
) -> Result<Option<Accepted>, Error> {
    if starts.is_empty() {
        return Ok(None);
    }
    let of = original(event);
    let again = NewEvent {
        id: clock::new_id(),
        source: event.source.clone(),
        provider: event.provider.clone(),
        event: event.event.clone(),
        action: event.action.clone(),
        delivery_keys: vec![format!("replay:{}:{}", plan.id, event.id)],
        delivery_id: event.delivery_id.clone(),
        verified_by: event.verified_by.clone(),
        // The order of commits and the times of receipt go together.
        received_at: clock::now(),
        handshake: event.handshake,
        context: event.context.clone(),
        headers: body.headers,
        body: body.bytes,
        trigger_set: app.current().trigger_set,
        trace: None,
        replay: Some(Replay { id: plan.id, of }),
        only_missing: plan.mode == ReplayMode::Missing,
        room: None,
        paused: app.pauses.of_source(&event.source),
        starts,
    };
    Ok(dispatcher.begin(again).await?)
}

/// A trigger that wants every event of the source for which the condition is true.
fn asking(event: &StoredEvent, conditions: &doorbell_core::condition::Conditions) -> Trigger {
    Trigger {
        agent: "replay".to_owned(),
        position: 0,
        source: event.source.clone(),
        clauses: Vec::new(),
        conditions: conditions.clone(),
        flow: Flow::default(),
    }
}
