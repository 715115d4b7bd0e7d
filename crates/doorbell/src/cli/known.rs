//! Names in filters: a list that is empty because nothing is called so is a typing error, and no answer.

use doorbell_client::{Client, EventQuery, RunQuery};
use doorbell_core::event::is_own;

use super::failure::{Exit, Failure};
use crate::config::nearest;

/// Refuses the name of a source that there is not. One that was removed counts as long as events of it are stored.
pub(super) async fn check_source(client: &Client, name: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = name.filter(|name| !is_own(name)) else { return Ok(()) };
    let sources = client.sources().await?.sources;
    let known: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let query = EventQuery { source: Some(name.to_owned()), limit: Some(1), ..EventQuery::default() };
    if known.contains(&name) || !client.events(&query).await?.events.is_empty() {
        return Ok(());
    }
    Err(unknown("source", name, &known, "doorbell sources").into())
}

/// The same for an agent, which counts as long as runs of it are stored.
pub(super) async fn check_agent(client: &Client, name: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = name else { return Ok(()) };
    let agents = client.agents().await?.agents;
    let known: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
    let query = RunQuery { agent: Some(name.to_owned()), limit: Some(1), ..RunQuery::default() };
    if known.contains(&name) || !client.runs(&query).await?.runs.is_empty() {
        return Ok(());
    }
    Err(unknown("agent", name, &known, "doorbell agents").into())
}

fn unknown(what: &str, name: &str, known: &[&str], list: &str) -> Failure {
    let failure = Failure::new(Exit::NotFound, format!("there is no {what} `{name}` (`{list}` lists them)"));
    match nearest(name, known.iter().copied()) {
        Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
        None => failure,
    }
}
