//! Agents and sources paused and resumed.

use doorbell_client::api;
use doorbell_core::flow::Rate;

use super::{Error, require_owner, require_source_owner};
use crate::app::{App, Caller, Pause, Paused, Snapshot};
use crate::clock;
use crate::config::{parse_duration, write_duration};
use crate::dispatch::Dispatcher;
use crate::store::Standing;

/// Characters of a reason at most.
const LONGEST_WHY: usize = 500;

/// Holds what an agent has to do, what all have to do, or what comes from a source: nothing is lost, nothing starts.
///
/// # Errors
/// If there is no such agent or source, or the caller may not.
pub async fn pause(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    paused: Paused,
    wish: api::NewPause,
) -> Result<api::Pause, Error> {
    may_pause(app, caller, &paused)?;
    if wish.why.as_ref().is_some_and(|why| why.chars().count() > LONGEST_WHY) {
        return Err(Error::Invalid(format!("`why` may have {LONGEST_WHY} characters")));
    }
    let pause = Pause { by: caller.name(), at: clock::now(), why: wish.why, resuming: None };
    app.pauses.put(app.store.as_ref(), paused.clone(), pause.clone()).await?;
    dispatcher.settle_pauses();
    tracing::info!(?paused, by = pause.by, why = pause.why, "paused");
    Ok(view(&paused, &pause))
}

/// Ends a pause: what was held goes on, all at once or at a rate.
///
/// # Errors
/// If there is no such agent or source, it is not paused, or the caller may not.
pub async fn resume(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    paused: Paused,
    wish: api::NewResume,
) -> Result<api::Resumed, Error> {
    may_pause(app, caller, &paused)?;
    let rate = wish.rate.as_deref().map(parse_rate).transpose()?;
    let Some(pause) = app.pauses.get(&paused) else {
        return Err(Error::Conflict(
            "not_paused",
            match &paused {
                Paused::Project => "nothing is paused as a whole".to_owned(),
                Paused::Agent(name) | Paused::Source(name) => format!("`{name}` is not paused"),
            },
        ));
    };
    match (rate, &paused) {
        (Some(_), Paused::Project) => {
            return Err(Error::Invalid("`rate` is for one agent: resume each at its own".to_owned()));
        }
        (Some(rate), _) => {
            app.pauses.put(app.store.as_ref(), paused.clone(), Pause { resuming: Some(rate), ..pause }).await?;
        }
        (None, _) => app.pauses.remove(app.store.as_ref(), &paused).await.map(drop)?,
    }
    dispatcher.settle_pauses();
    tracing::info!(?paused, by = caller.name(), rate = wish.rate, "resuming");
    let (agent, source) = names(&paused);
    Ok(api::Resumed { agent, source, rate: wish.rate, still_held: still_held(app, &paused) })
}

/// Why runs stay held all the same: another pause holds them.
fn still_held(app: &App, paused: &Paused) -> Option<String> {
    match paused {
        Paused::Project => None,
        Paused::Agent(agent) => match app.pauses.standing(agent) {
            Standing::Paused(reason) => Some(reason),
            Standing::Active | Standing::Resuming => None,
        },
        Paused::Source(source) => {
            let in_force = app.current();
            let agents = in_force.config.agents.values().filter(|agent| agent.listens_to(source));
            let held = agents.filter_map(|agent| Some((&agent.name, app.pauses.holds(&agent.name)?)));
            let held: Vec<String> = held.map(|(agent, pause)| format!("`{agent}` is {}", pause.reason())).collect();
            (!held.is_empty()).then(|| held.join("; "))
        }
    }
}

/// The pause of an agent: its own, or that of all.
pub fn of_agent(app: &App, agent: &str) -> Option<api::Pause> {
    let own = Paused::Agent(agent.to_owned());
    [own, Paused::Project].iter().find_map(|paused| Some(view(paused, &app.pauses.get(paused)?)))
}

/// The pause of a source.
pub fn of_source(app: &App, source: &str) -> Option<api::Pause> {
    let paused = Paused::Source(source.to_owned());
    app.pauses.get(&paused).map(|pause| view(&paused, &pause))
}

/// A pause, as the API shows it.
pub(super) fn view(paused: &Paused, pause: &Pause) -> api::Pause {
    let (agent, source) = names(paused);
    let (by, at, why) = (pause.by.clone(), pause.at.to_string(), pause.why.clone());
    let rate = pause.resuming.map(write_rate);
    api::Pause { agent, source, by, at, why, resuming: rate.is_some(), rate }
}

fn names(paused: &Paused) -> (Option<String>, Option<String>) {
    match paused {
        Paused::Project => (None, None),
        Paused::Agent(agent) => (Some(agent.clone()), None),
        Paused::Source(source) => (None, Some(source.clone())),
    }
}

/// Whether there is such a thing for the caller, and it may be paused by them.
fn may_pause(app: &App, caller: &Caller, paused: &Paused) -> Result<(), Error> {
    let in_force = app.current();
    // What is gone may still be paused, and must be resumed.
    let is_paused = app.pauses.get(paused).is_some();
    match paused {
        Paused::Project => require_owner(caller),
        Paused::Agent(agent) => {
            let known = in_force.config.agents.contains_key(agent) || is_paused;
            if !known || !caller.may_see(agent) {
                return Err(Error::NotFound("agent"));
            }
            match caller.changes() {
                true => Ok(()),
                false => Err(Error::NotAllowed("this key may not pause agents")),
            }
        }
        Paused::Source(source) => {
            let known = in_force.config.sources.contains_key(source) || is_paused;
            if !known || !may_see_source(&in_force, caller, source) {
                return Err(Error::NotFound("source"));
            }
            // Others may listen to it too.
            require_source_owner(caller, source)
        }
    }
}

/// Whether the caller may see a source: its own ones, and those that its agents listen to.
pub(super) fn may_see_source(in_force: &Snapshot, caller: &Caller, source: &str) -> bool {
    let listens = || in_force.config.agents.values().any(|one| caller.may_see(&one.name) && one.listens_to(source));
    caller.has_source(source) || listens()
}

/// A rate such as `10/1m`.
pub(super) fn parse_rate(text: &str) -> Result<Rate, Error> {
    let read = || {
        let (count, time) = text.split_once('/')?;
        let rate = Rate { count: count.parse().ok()?, window: parse_duration(time).ok()? };
        (rate.count > 0 && !rate.window.is_zero()).then_some(rate)
    };
    read()
        .ok_or_else(|| Error::Invalid(format!("{text:?} is no rate: write how many in which time, such as \"10/1m\"")))
}

/// The same, written.
pub(super) fn write_rate(rate: Rate) -> String {
    format!("{}/{}", rate.count, write_duration(rate.window))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_so_many_in_a_time() {
        assert_eq!(parse_rate("10/1m").ok(), Some(Rate { count: 10, window: Duration::from_secs(60) }));
        for text in ["", "10", "10/", "/1m", "0/1m", "1/0s", "-1/1m", "1/1m/2", "99999999999/1s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
