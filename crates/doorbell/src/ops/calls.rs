//! Runs that start other agents: which they may, and what they see of them.

use doorbell_client::api;
use doorbell_core::event::AGENT;
use doorbell_core::id::RunId;
use serde_json::Value;

use super::Error;
use crate::app::App;
use crate::config::Agent;
use crate::store::{self, Called};

/// How many calls may stand one behind the other.
const DEEPEST: usize = 8;

/// Whether the run of `own` may call `agent`. Answers the agents that called each other up to and with `own`.
pub(super) async fn check(app: &App, run: RunId, own: &str, agent: &str) -> Result<Vec<String>, Error> {
    let in_force = app.current();
    let names = |own: &Agent| own.may_call.iter().any(|may| may == agent);
    // Files may name anybody's; an account declares what its own agents may start of its own.
    let is_within = |own: &Agent| {
        let account = own.account.as_ref().filter(|_| in_force.config.is_declared(&own.name));
        account.is_none_or(|account| app.accounts.of_agent(agent).as_ref() == Some(account))
    };
    let allowed = in_force.config.agents.get(own).is_some_and(|own| names(own) && is_within(own));
    if !allowed {
        return Err(not_named(agent));
    }
    let mut path = match called_by(app, run).await? {
        Some(body) => serde_json::from_value(body["path"].clone()).unwrap_or_default(),
        None => Vec::new(),
    };
    path.push(own.to_owned());
    if path.iter().any(|before| before == agent) {
        let detail = format!("calls would go round: {} → {agent}", path.join(" → "));
        return Err(Error::Conflict("call_cycle", detail));
    }
    // The first call has one agent before it.
    if path.len() > DEEPEST {
        let detail = format!("{DEEPEST} calls stand one behind the other: {}", path.join(" → "));
        return Err(Error::Conflict("call_too_deep", detail));
    }
    Ok(path)
}

/// That a run may not start an agent: the same whether there is one of this name or not.
pub(super) fn not_named(agent: &str) -> Error {
    Error::Absent(format!(
        "there is no agent `{agent}` that this run may start: its own agent names those in `may_call`"
    ))
}

/// Whether `parent` is the run that called this one.
pub(super) async fn is_parent(app: &App, parent: RunId, run: RunId) -> Result<bool, store::Error> {
    Ok(app.store.owner_of_run(run).await?.is_some_and(|owner| owner.is_called_by(parent)))
}

/// The run that started this one, if one did.
pub(super) async fn parent_of(app: &App, run: RunId) -> Result<Option<api::LinkedRun>, store::Error> {
    let Some(body) = called_by(app, run).await? else { return Ok(None) };
    let (Some(id), Some(agent)) = (body["parent"].as_str(), body["called_by"].as_str()) else { return Ok(None) };
    let parent = match id.parse() {
        Ok(id) => app.store.run(id).await?,
        Err(_) => None,
    };
    let state = parent.map(|(parent, _)| parent.state.as_str().to_owned());
    Ok(Some(api::LinkedRun { run_id: id.to_owned(), agent: agent.to_owned(), state }))
}

/// The runs that this one started.
pub(super) async fn children_of(app: &App, run: RunId) -> Result<Vec<api::LinkedRun>, store::Error> {
    let view = |called: Called| api::LinkedRun {
        run_id: called.run.to_string(),
        agent: called.agent,
        state: Some(called.state.as_str().to_owned()),
    };
    Ok(app.store.calls_of(run).await?.into_iter().map(view).collect())
}

/// The body of the call that started a run; none if no agent called it.
async fn called_by(app: &App, run: RunId) -> Result<Option<Value>, store::Error> {
    let Some((run, _)) = app.store.run(run).await? else { return Ok(None) };
    if !run.event_type.starts_with(&format!("{AGENT}.")) {
        return Ok(None);
    }
    let event = app.store.event(run.event).await?;
    let body = match event.filter(|event| event.provider == AGENT) {
        Some(event) => app.store.body(event.id).await?,
        None => None,
    };
    Ok(body.and_then(|body| serde_json::from_slice(&body.bytes).ok()))
}
