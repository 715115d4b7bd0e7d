//! Agents and sources, as they are configured, and what came to the sources.

use doorbell_client::api;
use doorbell_core::schedule::Schedule;
use doorbell_core::source::Source;

use super::{Error, page_size, view_rejection};
use crate::app::{App, Caller, Snapshot};
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::store::EventQuery;

/// The agents, by name.
pub fn list(app: &App, dispatcher: &Dispatcher, caller: &Caller) -> api::AgentList {
    let in_force = app.current();
    let visible = in_force.config.agents.values().filter(|agent| caller.may_see(&agent.name));
    let agents = visible.map(|agent| {
        let mut sources: Vec<String> = agent.triggers.iter().map(|trigger| trigger.source.clone()).collect();
        sources.sort();
        sources.dedup();
        api::Agent {
            name: agent.name.clone(),
            description: agent.description.clone(),
            runtime: agent.runtime.as_str().to_owned(),
            scale: agent.scale,
            timeout_seconds: agent.timeout.as_secs(),
            sources,
            schedules: agent.schedules.iter().map(|schedule| view_schedule(schedule, agent.scale > 0)).collect(),
            pause: super::starts::view_pauses(app, &agent.name),
            breaker: dispatcher.breaker(&agent.name),
        }
    });
    api::AgentList { agents: agents.collect() }
}

/// One agent.
///
/// # Errors
/// If there is none, or not for this caller.
pub fn get(app: &App, dispatcher: &Dispatcher, caller: &Caller, name: &str) -> Result<api::Agent, Error> {
    let found = list(app, dispatcher, caller).agents.into_iter().find(|agent| agent.name == name);
    found.ok_or(Error::NotFound("agent"))
}

fn view_schedule(schedule: &Schedule, enabled: bool) -> api::Schedule {
    api::Schedule {
        cron: schedule.text().to_owned(),
        timezone: schedule.zone_name().to_owned(),
        next_at: schedule.next_tick(clock::now()).filter(|_| enabled).map(|at| at.to_string()),
    }
}

/// The sources, by name. An agent sees those it listens to, and not how much comes to them.
pub fn sources(app: &App, caller: &Caller) -> api::SourceList {
    let in_force = app.current();
    let visible = in_force.config.sources.values().filter(|source| may_see_source(&in_force, caller, source.name()));
    let uses_of = |source: &Source| match caller.confined_to() {
        None => source.keys().iter().map(|key| credential_use(app, source.name(), &key.instance)).collect(),
        Some(_) => Vec::new(),
    };
    let sources = visible.map(|source| api::Source {
        name: source.name().to_owned(),
        provider: source.provider().name().to_owned(),
        url: format!("{}/v1/webhooks/{}/{}", app.public_url(&in_force), source.provider().name(), source.name()),
        signed: !source.keys().is_empty(),
        credentials: source.keys().iter().map(|key| key.instance.clone()).collect(),
        credential_uses: uses_of(source),
        secret_captured: matches!(caller, Caller::Owner { .. }) && super::captured::waits(app, source),
        ignored_senders: source.ignored_senders().to_vec(),
    });
    api::SourceList { sources: sources.collect() }
}

fn credential_use(app: &App, source: &str, credential: &str) -> api::CredentialUse {
    let tally = app.secret_uses.of(source, credential);
    api::CredentialUse {
        credential: credential.to_owned(),
        deliveries: tally.deliveries,
        last_verified_at: tally.last_at.map(|at| at.to_string()),
    }
}

fn may_see_source(in_force: &Snapshot, caller: &Caller, source: &str) -> bool {
    caller.confined_to().is_none_or(|agent| {
        let triggers = in_force.config.agents.get(agent).into_iter().flat_map(|agent| &agent.triggers);
        triggers.into_iter().any(|trigger| trigger.source == source)
    })
}

/// What came to a source, newest first: accepted and refused. For keys that see everything.
///
/// # Errors
/// If there is no such source, or not for this caller.
pub async fn deliveries(
    app: &App,
    caller: &Caller,
    source: &str,
    limit: Option<usize>,
) -> Result<api::DeliveryList, Error> {
    if caller.confined_to().is_some() || !app.current().config.sources.contains_key(source) {
        return Err(Error::NotFound("source"));
    }
    let limit = page_size(limit)?;
    let query = EventQuery { source: Some(source.to_owned()), limit, ..EventQuery::default() };
    let accepted = app.store.events(query).await?.into_iter().map(|event| api::Delivery {
        at: event.received_at.to_string(),
        source: event.source.clone(),
        status: "accepted".to_owned(),
        event_id: Some(event.id.to_string()),
        event_type: Some(doorbell_core::event::event_type(&event.provider, &event.event, event.action.as_deref())),
        repeated: event.duplicates,
        code: None,
        detail: None,
        remote: None,
    });
    let rejected = app.store.rejections(Some(source.to_owned()), limit).await?.into_iter().map(view_rejection);
    let mut deliveries: Vec<api::Delivery> = accepted.chain(rejected).collect();
    deliveries.sort_by(|a, b| b.at.cmp(&a.at));
    deliveries.truncate(limit);
    Ok(api::DeliveryList { deliveries })
}
