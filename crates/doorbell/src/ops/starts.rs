//! Agents started by hand, paused and resumed.

use std::sync::Arc;

use doorbell_client::api;
use doorbell_core::event::{AGENT, Context, MANUAL};
use doorbell_core::flow::Rate;
use serde_json::json;

use super::{Error, calls, require_owner};
use crate::app::{App, Caller, Pause, Paused};
use crate::clock;
use crate::config::parse_duration;
use crate::dispatch::{Cause, Dispatcher, admission};
use crate::store::{Admission, Standing};

/// Bytes of a prompt or an input at most.
const LONGEST: usize = 1 << 20;
/// Characters of an idempotency key at most.
const LONGEST_KEY: usize = 200;

/// Starts an agent by hand. `idempotency_key`: whoever asks again with the same one gets the same run.
///
/// # Errors
/// If there is no such agent, or not for this caller; if it is disabled, or its queue is full; if calls would go round or
/// too deep.
pub async fn run(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    agent: &str,
    wish: api::NewRun,
    idempotency_key: Option<&str>,
) -> Result<api::StartedRun, Error> {
    let in_force = app.current();
    let configured = in_force.config.agents.get(agent).ok_or(Error::NotFound("agent"))?;
    let (kind, body) = request(app, caller, agent, wish).await?;
    let admission = admission(configured);
    if let Admission::Skip(reason) = admission {
        return Err(Error::Conflict("agent_disabled", reason));
    }
    let text = body.to_string();
    if text.len() > LONGEST {
        return Err(Error::Invalid(format!("prompt and input may have {LONGEST} bytes together")));
    }
    let id = idempotency_key.map(|key| match key.chars().count() {
        1..=LONGEST_KEY => Ok(key.to_owned()),
        _ => Err(Error::Invalid(format!("`Idempotency-Key` must have 1 to {LONGEST_KEY} characters"))),
    });
    let id = id.transpose()?;
    let key = id.clone().unwrap_or_else(|| clock::new_id::<doorbell_core::id::OfEvent>().to_string());
    let caller_key = match caller {
        // The same key of another run is another request.
        Caller::Run { run, .. } => format!("{run}:"),
        _ => String::new(),
    };
    let cause = Cause {
        kind,
        event: if kind == AGENT { "call" } else { "run" }.to_owned(),
        action: None,
        key: format!("run:{agent}:{caller_key}{key}"),
        id,
        context: Context::of_request(&body),
        body: text.into_bytes(),
        admission,
    };
    let caused = dispatcher.start_agent(agent, cause).await?;
    let Some(caused) = caused else {
        return Err(Error::Conflict("queue_full", format!("the queue of `{agent}` is full; try again later")));
    };
    let run = caused.outcome.and_then(|outcome| outcome.run);
    let run = run.ok_or_else(|| Error::Conflict("not_started", "it was not started: its queue is full".to_owned()))?;
    tracing::info!(%run, agent, by = caller.name(), duplicate = caused.duplicate, "run.asked_for");
    let state = app.store.run(run).await?.map(|(run, _)| run.state.as_str().to_owned()).unwrap_or_default();
    Ok(api::StartedRun {
        run_id: run.to_string(),
        event_id: caused.event.to_string(),
        state,
        duplicate: caused.duplicate,
    })
}

/// What is asked, as the event says it, and by whom.
async fn request(
    app: &App,
    caller: &Caller,
    agent: &str,
    wish: api::NewRun,
) -> Result<(&'static str, serde_json::Value), Error> {
    let mut body = json!({ "prompt": wish.prompt, "input": wish.input, "by": caller.name() });
    match caller {
        Caller::Owner { .. } => Ok((MANUAL, body)),
        Caller::Agent(own) if own == agent => Ok((MANUAL, body)),
        Caller::Run { run, agent: own } => {
            let path = calls::check(app, *run, own, agent).await?;
            body["parent"] = json!(run.to_string());
            body["called_by"] = json!(own);
            body["path"] = json!(path);
            Ok((AGENT, body))
        }
        Caller::Agent(_) => Err(Error::NotFound("agent")),
        Caller::Viewer => Err(Error::NotAllowed("this key may not start agents")),
    }
}

/// Holds what an agent has to do, or all agents without a name: nothing is lost, nothing starts.
///
/// # Errors
/// If there is no such agent, or the caller may not.
pub async fn pause(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    agent: Option<&str>,
    wish: api::NewPause,
) -> Result<api::Pause, Error> {
    let paused = may_pause(app, caller, agent)?;
    if wish.why.as_ref().is_some_and(|why| why.chars().count() > 500) {
        return Err(Error::Invalid("`why` may have 500 characters".to_owned()));
    }
    let pause = Pause { by: caller.name(), at: clock::now(), why: wish.why, resuming: None };
    app.pauses.put(app.store.as_ref(), paused, pause.clone()).await?;
    dispatcher.settle_pauses();
    tracing::info!(agent, by = pause.by, why = pause.why, "agent.paused");
    Ok(view_pause(agent, &pause))
}

/// Ends a pause: what was held goes on, all at once or at a rate.
///
/// # Errors
/// If there is no such agent, it is not paused, or the caller may not.
pub async fn resume(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    agent: Option<&str>,
    wish: api::NewResume,
) -> Result<api::Resumed, Error> {
    let paused = may_pause(app, caller, agent)?;
    let rate = wish.rate.as_deref().map(parse_rate).transpose()?;
    let Some(pause) = app.pauses.get(&paused) else {
        let what =
            agent.map_or_else(|| "nothing is paused as a whole".to_owned(), |agent| format!("`{agent}` is not paused"));
        return Err(Error::Conflict("not_paused", what));
    };
    match (rate, &paused) {
        (Some(_), Paused::Project) => {
            return Err(Error::Invalid("`rate` is for one agent: resume each at its own".to_owned()));
        }
        (Some(rate), _) => app.pauses.put(app.store.as_ref(), paused, Pause { resuming: Some(rate), ..pause }).await?,
        (None, _) => app.pauses.remove(app.store.as_ref(), &paused).await.map(drop)?,
    }
    dispatcher.settle_pauses();
    tracing::info!(agent, by = caller.name(), rate = wish.rate, "agent.resuming");
    let still = agent.and_then(|agent| match app.pauses.standing(agent) {
        Standing::Paused(reason) => Some(reason),
        _ => None,
    });
    Ok(api::Resumed { agent: agent.map(str::to_owned), rate: wish.rate, still_held: still })
}

/// Everything that is paused, for keys that see it.
pub fn view_pauses(app: &App, agent: &str) -> Option<api::Pause> {
    let of_all = app.pauses.get(&Paused::Project).map(|pause| view_pause(None, &pause));
    app.pauses.get(&Paused::Agent(agent.to_owned())).map(|pause| view_pause(Some(agent), &pause)).or(of_all)
}

fn view_pause(agent: Option<&str>, pause: &Pause) -> api::Pause {
    api::Pause {
        agent: agent.map(str::to_owned),
        by: pause.by.clone(),
        at: pause.at.to_string(),
        why: pause.why.clone(),
        resuming: pause.resuming.is_some(),
    }
}

fn may_pause(app: &App, caller: &Caller, agent: Option<&str>) -> Result<Paused, Error> {
    let Some(agent) = agent else {
        require_owner(caller)?;
        return Ok(Paused::Project);
    };
    // One that is gone may still be paused, and must be resumed.
    let known =
        app.current().config.agents.contains_key(agent) || app.pauses.get(&Paused::Agent(agent.to_owned())).is_some();
    if !known || !caller.may_see(agent) {
        return Err(Error::NotFound("agent"));
    }
    match caller {
        Caller::Owner { .. } | Caller::Agent(_) => Ok(Paused::Agent(agent.to_owned())),
        _ => Err(Error::NotAllowed("this key may not pause agents")),
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use serde_json::Value;

    #[test]
    fn rates_are_so_many_in_a_time() {
        assert_eq!(parse_rate("10/1m").ok(), Some(Rate { count: 10, window: Duration::from_secs(60) }));
        for text in ["", "10", "10/", "/1m", "0/1m", "1/0s", "-1/1m", "1/1m/2", "99999999999/1s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_is_read_back_from_its_body() {
        let body = json!({ "prompt": "look", "input": { "n": 1 }, "by": "ann" });
        let context = Context::of_request(&body);
        assert_eq!(
            (context.text("prompt"), context.text("input"), context.text("by")),
            (Some("look"), Some("{\"n\":1}"), Some("ann"))
        );
        assert_eq!(Context::of_request(&Value::Null).text("prompt"), None);
    }
}
