//! Agents and sources, as they are configured, and what came to the sources.

use std::collections::BTreeSet;

use doorbell_client::api;
use doorbell_core::schedule::Schedule;
use doorbell_core::source::Source;

use super::pauses::may_see_source;
use super::{Error, page_size, view_rejection};
use crate::app::webhooks::Hook;
use crate::app::{App, Caller, Snapshot};
use crate::clock;
use crate::config::{ACCOUNT, Declared, origin_of};
use crate::dispatch::Dispatcher;
use crate::store::{EventQuery, Subscription};

/// The agents, by name: those in force, and those that were declared and are not.
pub fn list(app: &App, dispatcher: &Dispatcher, caller: &Caller) -> api::AgentList {
    let in_force = app.current();
    let names: BTreeSet<&String> = in_force.config.agents.keys().chain(in_force.config.declared.keys()).collect();
    let agents = names.into_iter().filter_map(|name| find(app, dispatcher, &in_force, caller, name));
    api::AgentList { agents: agents.collect() }
}

/// One of them, if the caller may see it.
pub(super) fn find(
    app: &App,
    dispatcher: &Dispatcher,
    in_force: &Snapshot,
    caller: &Caller,
    name: &str,
) -> Option<api::Agent> {
    let config = &in_force.config;
    let declared = config.declared.get(name).filter(|_| caller.may_see(name));
    let problem = declared.and_then(Declared::problem);
    let Some(agent) = config.agents.get(name).filter(|_| caller.may_see(name)) else {
        return declared.map(|declared| out_of_force(name, declared, problem));
    };
    let mut sources: Vec<String> = agent.triggers.iter().map(|trigger| trigger.source.clone()).collect();
    sources.sort();
    sources.dedup();
    Some(api::Agent {
        name: agent.name.clone(),
        description: agent.description.clone(),
        runtime: agent.runtime.as_str().to_owned(),
        scale: agent.scale,
        timeout_seconds: agent.timeout.as_secs(),
        sources,
        schedules: agent.schedules.iter().map(|schedule| view_schedule(schedule, agent.scale > 0)).collect(),
        pause: super::pauses::of_agent(app, &agent.name),
        breaker: dispatcher.breaker(&agent.name),
        unasked: dispatcher.unasked(&agent.name),
        own_webhook: in_force.hooks.own(name).and_then(|hook| hook.webhook.own.clone()),
        account: agent.account.clone(),
        managed_by: if config.is_declared(name) { "api" } else { "file" }.to_owned(),
        problem,
    })
}

/// What can be said of an agent that cannot be read as things stand.
fn out_of_force(name: &str, declared: &Declared, problem: Option<String>) -> api::Agent {
    let definition = &declared.declaration.definition;
    let text = |value: Option<&serde_json::Value>| value.and_then(|value| value.as_str()).map(str::to_owned);
    api::Agent {
        name: name.to_owned(),
        description: text(definition.get("description")),
        runtime: text(definition.get("runtime").and_then(|runtime| runtime.get("type"))).unwrap_or_default(),
        scale: 0,
        timeout_seconds: 0,
        sources: Vec::new(),
        schedules: Vec::new(),
        pause: None,
        breaker: None,
        unasked: None,
        own_webhook: None,
        account: text(definition.get(ACCOUNT)),
        managed_by: "api".to_owned(),
        problem,
    }
}

/// One agent.
///
/// # Errors
/// If there is none, or not for this caller.
pub fn get(app: &App, dispatcher: &Dispatcher, caller: &Caller, name: &str) -> Result<api::Agent, Error> {
    find(app, dispatcher, &app.current(), caller, name).ok_or(Error::NotFound("agent"))
}

fn view_schedule(schedule: &Schedule, enabled: bool) -> api::Schedule {
    api::Schedule {
        cron: schedule.text().to_owned(),
        timezone: schedule.zone_name().to_owned(),
        next_at: schedule.next_tick(clock::now()).filter(|_| enabled).map(|at| at.to_string()),
    }
}

/// The sources, by name. Who is confined sees its own, and those that its agents listen to, but not how much comes to these.
pub fn sources(app: &App, caller: &Caller) -> api::SourceList {
    let in_force = app.current();
    let visible = in_force.config.sources.values().filter(|source| may_see_source(&in_force, caller, source.name()));
    let uses_of = |source: &Source| match caller.has_source(source.name()) {
        true => source.keys().iter().map(|key| credential_use(app, source.name(), &key.instance)).collect(),
        false => Vec::new(),
    };
    let sources = visible.map(|source| api::Source {
        name: source.name().to_owned(),
        provider: source.provider().name().to_owned(),
        account: app.accounts.of_source(source.name()),
        url: format!("{}{}", app.public_url(&in_force), path_of(&in_force, source)),
        signed: !source.keys().is_empty(),
        credentials: source.keys().iter().map(|key| key.instance.clone()).collect(),
        credential_uses: uses_of(source),
        secret_captured: caller.is_owner() && caller.has_source(source.name()) && super::captured::waits(app, source),
        ignored_senders: source.ignored_senders().to_vec(),
        pause: super::pauses::of_source(app, source.name()),
        webhook: in_force.hooks.get(source.name()).map(view_hook),
        subscriptions: if caller.has_source(source.name()) { subscribed(&in_force, source.name()) } else { Vec::new() },
    });
    let closed = in_force.hooks.all().filter(|hook| caller.may_see(&hook.webhook.agent));
    let closed = closed.filter_map(|hook| closed_source(app, &in_force, hook));
    api::SourceList { sources: sources.chain(closed).collect() }
}

fn path_of(in_force: &Snapshot, source: &Source) -> String {
    match in_force.hooks.get(source.name()) {
        Some(hook) => hook.path(),
        None => format!("/v1/webhooks/{}/{}", source.provider().name(), source.name()),
    }
}

/// Who has the events of a source posted. The rest of a URL may be a secret.
fn subscribed(in_force: &Snapshot, source: &str) -> Vec<api::SourceSubscription> {
    let all = in_force.subscribers.all().map(|one| &one.subscription).filter(|one| one.source == source);
    let view = |one: &Subscription| api::SourceSubscription {
        id: one.id.to_string(),
        key_id: one.key.to_string(),
        to: one.url.parse().ok().and_then(|url| origin_of(&url)).unwrap_or_default(),
        arguments: one.arguments.clone(),
        expires_at: one.expires_at.to_string(),
    };
    all.map(view).collect()
}

fn view_hook(hook: &Hook) -> api::SourceWebhook {
    let webhook = &hook.webhook;
    api::SourceWebhook {
        agent: webhook.agent.clone(),
        name: webhook.name.clone(),
        own: webhook.own.is_some(),
        created_by: webhook.created_by.clone(),
        problem: hook.locked.clone(),
    }
}

/// A webhook none of whose secrets can be used: it takes nothing, and is there all the same.
fn closed_source(app: &App, in_force: &Snapshot, hook: &Hook) -> Option<api::Source> {
    let name = hook.webhook.id.to_string();
    (!in_force.config.sources.contains_key(&name)).then(|| api::Source {
        name,
        provider: hook.webhook.provider.clone(),
        account: app.accounts.of_agent(&hook.webhook.agent),
        url: format!("{}{}", app.public_url(in_force), hook.path()),
        signed: true,
        credentials: Vec::new(),
        credential_uses: Vec::new(),
        secret_captured: false,
        ignored_senders: Vec::new(),
        pause: super::pauses::of_source(app, &hook.webhook.id.to_string()),
        webhook: Some(view_hook(hook)),
        subscriptions: Vec::new(),
    })
}

fn credential_use(app: &App, source: &str, credential: &str) -> api::CredentialUse {
    let tally = app.secret_uses.of(source, credential);
    api::CredentialUse {
        credential: credential.to_owned(),
        deliveries: tally.deliveries,
        last_verified_at: tally.last_at.map(|at| at.to_string()),
    }
}

/// Whether there is such a source, and it is the caller's; webhooks that take nothing now are among them.
async fn has_source(app: &App, caller: &Caller, name: &str) -> Result<bool, Error> {
    if app.current().config.sources.contains_key(name) {
        return Ok(caller.has_source(name));
    }
    let Ok(id) = name.parse() else { return Ok(false) };
    let webhooks = app.store.webhooks().await?;
    let is_confined_to_agent = matches!(caller, Caller::Agent(_) | Caller::Run { .. });
    Ok(!is_confined_to_agent && webhooks.iter().any(|one| one.webhook.id == id && caller.may_see(&one.webhook.agent)))
}

/// What came to a source, newest first: accepted and refused. For keys that see all that comes to it.
///
/// # Errors
/// If there is no such source, or not for this caller.
pub async fn deliveries(
    app: &App,
    caller: &Caller,
    source: &str,
    limit: Option<usize>,
) -> Result<api::DeliveryList, Error> {
    if !has_source(app, caller, source).await? {
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
