//! Agents started by hand.

use std::sync::Arc;

use doorbell_client::api;
use doorbell_core::event::{AGENT, Context, MANUAL};
use doorbell_core::id::EventId;
use serde_json::json;

use super::{Error, calls};
use crate::app::{App, Caller};
use crate::clock;
use crate::dispatch::{Cause, Dispatcher, admission};
use crate::store::Admission;

/// Bytes of a prompt or an input at most.
const LONGEST: usize = 1 << 20;
/// Characters of an idempotency key at most.
const LONGEST_KEY: usize = 200;

/// That whoever asks again gets the same run.
#[derive(Debug, Clone, Copy)]
pub struct Once<'a> {
    /// Whose key it is: the same one of somebody else is another request.
    pub whose: &'a str,
    /// The idempotency key.
    pub key: &'a str,
}

/// Starts an agent by hand, once if that is asked for: the event, which names the key, is stored with the run.
///
/// # Errors
/// If there is no such agent, or not for this caller; if it is disabled, or its queue is full; if calls would go round or
/// too deep; if the same key was used for something else.
pub async fn run(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    agent: &str,
    wish: api::NewRun,
    once: Option<Once<'_>>,
) -> Result<api::StartedRun, Error> {
    let in_force = app.current();
    let configured = in_force.config.agents.get(agent).ok_or_else(|| match caller {
        Caller::Run { .. } => calls::not_named(agent),
        _ => Error::NotFound("agent"),
    })?;
    let (kind, body) = request(app, caller, agent, wish).await?;
    let admission = admission(configured);
    if let Admission::Skip(reason) = admission {
        return Err(Error::Conflict("agent_disabled", reason));
    }
    let text = body.to_string();
    if text.len() > LONGEST {
        return Err(Error::Invalid(format!("prompt and input may have {LONGEST} bytes together")));
    }
    let id = once.map(|once| read_key(once.key)).transpose()?;
    let key = id.clone().unwrap_or_else(|| clock::new_id::<doorbell_core::id::OfEvent>().to_string());
    let whose = once.map(|once| once.whose).unwrap_or_default();
    let cause = Cause {
        kind,
        event: if kind == AGENT { "call" } else { "run" }.to_owned(),
        action: None,
        key: format!("run:{agent}:{whose}:{key}"),
        id,
        context: Context::of_request(&body),
        body: text.into_bytes(),
        admission,
        attach: None,
    };
    let caused = dispatcher.start_agent(agent, cause).await?;
    let Some(caused) = caused else {
        return Err(Error::Conflict("queue_full", format!("the queue of `{agent}` is full; try again later")));
    };
    if caused.duplicate && !asks_the_same(app, caused.event, &body).await? {
        let detail =
            "the same `Idempotency-Key` was used with another `prompt` or `input`: use another key for another run";
        return Err(Error::Conflict("idempotency_mismatch", detail.to_owned()));
    }
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

/// An idempotency key, if it is one.
///
/// # Errors
/// If it is too long, or there is nothing.
pub fn read_key(key: &str) -> Result<String, Error> {
    match key.chars().count() {
        1..=LONGEST_KEY => Ok(key.to_owned()),
        _ => Err(Error::Invalid(format!("`Idempotency-Key` must have 1 to {LONGEST_KEY} characters"))),
    }
}

/// Whether the first request with the same key asked for the same. What was forgotten cannot be told from it.
async fn asks_the_same(app: &App, first: EventId, body: &serde_json::Value) -> Result<bool, Error> {
    let Some(stored) = app.store.body(first).await? else { return Ok(true) };
    let stored: serde_json::Value = serde_json::from_slice(&stored.bytes).unwrap_or_default();
    Ok(["prompt", "input"].iter().all(|field| stored[*field] == body[*field]))
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
        Caller::Agent(_) | Caller::Account { .. } if !caller.may_see(agent) => Err(Error::NotFound("agent")),
        Caller::Agent(_) | Caller::Account { changes: true, .. } => Ok((MANUAL, body)),
        Caller::Run { run, agent: own } => {
            let path = calls::check(app, *run, own, agent).await?;
            body["parent"] = json!(run.to_string());
            body["called_by"] = json!(own);
            body["path"] = json!(path);
            Ok((AGENT, body))
        }
        Caller::Viewer | Caller::Account { .. } => Err(Error::NotAllowed("this key may not start agents")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

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
