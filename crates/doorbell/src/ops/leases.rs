//! Runs that are carried out elsewhere, as whoever has their lease speaks of them.

use std::time::Duration;

use doorbell_client::api::{self, RunEnd, ShownLease};
use doorbell_core::id::{EventId, RunId};
use doorbell_core::wait::Resumed;
use serde_json::Value;

use super::{Error, calls};
use crate::app::{App, Caller, Known};
use crate::clock;
use crate::dispatch::{Dispatcher, Told};
use crate::store::{Holder, Lease, Running, StoredRun};

/// The largest result in bytes.
const LARGEST_RESULT: usize = 1024 * 1024;
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 1000;
/// The longest wait before another try that can be asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Who speaks of a run.
#[derive(Debug, Clone)]
pub enum Speaker {
    /// Somebody with a key, who shows the lease beside it.
    Key(Caller),
    /// An agent that was told to call back: the lease is its proof.
    Lease(Lease),
}

/// How a request means a run to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Well.
    Complete,
    /// Badly.
    Fail,
    /// As it says.
    Either,
}

/// Ends a run, as whoever carried it out tells.
///
/// # Errors
/// If it is not the caller's, its lease is another one by now, or what is told cannot be understood.
pub async fn end(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    id: &str,
    ending: Ending,
    end: RunEnd,
) -> Result<api::EndedRun, Error> {
    let running = find(app, speaker, id, end.lease.as_ref()).await?;
    let run = running.run.id;
    let told = understand(ending, end)?;
    if !dispatcher.end_outside(&running, told).await? {
        return Err(lost());
    }
    let state = app.store.run(run).await?.map(|(run, _)| run.state.as_str().to_owned());
    Ok(api::EndedRun { id: run.to_string(), state: state.unwrap_or_default() })
}

/// The run that is spoken of, for whoever carries it out elsewhere: no command's token will do, and a worker shows its key too.
pub(super) async fn find(app: &App, speaker: &Speaker, id: &str, shown: Option<&ShownLease>) -> Result<Running, Error> {
    let running = carried_out(app, speaker, id, shown).await?;
    match speaker {
        // So that a removed key ends what was done with it.
        Speaker::Lease(_) if matches!(running.holder, Holder::Worker(_)) => {
            Err(Error::NotAllowed("this run was handed to a worker: show the worker's key, and the lease beside it"))
        }
        Speaker::Lease(_) => Ok(running),
        Speaker::Key(caller) => may_carry_out(caller).map(|()| running),
    }
}

/// The run that is spoken of, if it is the speaker's to carry out: they show its lease, and that has not ended. A command shows
/// its token, which is as good as the lease.
pub(super) async fn carried_out(
    app: &App,
    speaker: &Speaker,
    id: &str,
    shown: Option<&ShownLease>,
) -> Result<Running, Error> {
    let id: Option<RunId> = id.parse().ok();
    let running = match id {
        Some(id) => app.store.running_run(id).await?,
        None => None,
    };
    let shown = match speaker {
        Speaker::Lease(lease) => Some(*lease),
        Speaker::Key(Caller::Run { run, .. }) if id != Some(*run) => return Err(Error::NotFound("run")),
        Speaker::Key(Caller::Run { .. }) => running.as_ref().map(|running| running.lease),
        Speaker::Key(caller) => {
            let agent = match (&running, id) {
                (Some(running), _) => Some(running.run.agent.clone()),
                (None, Some(id)) => app.store.run(id).await?.map(|(run, _)| run.agent),
                (None, None) => None,
            };
            if !agent.is_some_and(|agent| caller.may_see(&agent)) {
                return Err(Error::NotFound("run"));
            }
            may_carry_out(caller)?;
            let shown =
                shown.ok_or_else(|| Error::Invalid("`lease` must be the lease that came with it".to_owned()))?;
            Lease::from_token(shown.token())
        }
    };
    under(shown, running)
}

/// The run, if this is its lease and has not ended.
fn under(lease: Option<Lease>, running: Option<Running>) -> Result<Running, Error> {
    running.filter(|running| lease.is_some_and(|lease| lease.is(running.lease)) && holds(running)).ok_or_else(lost)
}

/// Whoever shows a lease as the bearer token, if that reaches what is asked for (the segments of a path): what the token
/// of a command may do for its run. It starts the agents that its own may call, and sees its run, the runs that this started,
/// and its events.
///
/// # Errors
/// If the lease is over, or reaches no such thing.
pub async fn reach(app: &App, lease: Lease, is_get: bool, path: &[&str]) -> Result<Known, Error> {
    let may_reach = matches!(
        (is_get, path),
        (false, ["v1", "agents", _, "run"])
            | (true, ["v1", "runs", _] | ["v1", "events", _] | ["v1", "events", _, "body"])
    );
    if !may_reach {
        return Err(Error::NotFound("path"));
    }
    let run = under(Some(lease), app.store.running_by_lease(lease).await?)?.run;
    let caller = Caller::Run { run: run.id, agent: run.agent.clone() };
    let reaches = match (is_get, path) {
        (false, ["v1", "agents", _, "run"]) => true,
        (true, ["v1", "runs", id]) => match id.parse() {
            Ok(id) if run.id == id => true,
            Ok(id) => calls::is_parent(app, run.id, id).await?,
            Err(_) => false,
        },
        (true, ["v1", "events", id] | ["v1", "events", id, "body"]) => match id.parse() {
            Ok(id) => is_of(app, &run, id).await?,
            Err(_) => false,
        },
        _ => false,
    };
    let account = app.accounts.of_agent(&run.agent);
    let known = Known { caller, id: run.id.to_string(), name: run.agent, account };
    if reaches { Ok(known) } else { Err(Error::NotFound("path")) }
}

/// Whether its lease has not ended. A gateway that is late does not lose its own: it is told by nobody when that ends.
fn holds(running: &Running) -> bool {
    running.holder == Holder::Gateway || running.until >= clock::now()
}

/// Whether an event is one that the run was handed.
async fn is_of(app: &App, run: &StoredRun, event: EventId) -> Result<bool, Error> {
    let by = matches!(&run.resumed, Some(Resumed::Event { event_id, .. }) if *event_id == event);
    if by || run.event == event || run.absorbed == 0 {
        return Ok(by || run.event == event);
    }
    Ok(app.store.companions(run.id).await?.iter().any(|companion| companion.id == event))
}

/// Refuses keys that carry nothing out.
pub(super) fn may_carry_out(caller: &Caller) -> Result<(), Error> {
    match caller.changes() {
        true => Ok(()),
        false => Err(Error::NotAllowed("this key may not carry runs out")),
    }
}

pub(super) fn lost() -> Error {
    let detail = "this lease is over: the run has ended, or is tried again under another lease. Stop working on it";
    Error::Conflict("lease_lost", detail.to_owned())
}

/// What a run's end means.
///
/// # Errors
/// If it cannot be understood.
pub fn understand(ending: Ending, end: RunEnd) -> Result<Told, Error> {
    let invalid = |detail: &str| Err(Error::Invalid(detail.to_owned()));
    let failed = ending == Ending::Fail || (ending == Ending::Either && end.error.is_some());
    if !failed {
        if end.error.is_some() || end.retry.is_some() || end.retry_after.is_some() {
            return invalid("`error`, `retry` and `retryAfter` are for a run that failed: POST …/fail");
        }
        let result = end.result.map(|result| result.to_string());
        return match result {
            Some(result) if result.len() > LARGEST_RESULT => invalid("`result` is larger than 1 MiB"),
            result => Ok(Told::Completed(result)),
        };
    }
    if end.result.is_some() {
        return invalid("`result` is for a run that is done: POST …/complete");
    }
    let after = match end.retry_after.map(Duration::try_from_secs_f64) {
        None => None,
        Some(Ok(wait)) if wait <= LONGEST_WAIT => Some(wait),
        Some(_) => return invalid("`retryAfter` must be seconds, 30 days at most"),
    };
    // Who says when to try again wants another try.
    let retry = end.retry.or(after.map(|_| true));
    Ok(Told::Failed { reason: reason(end.error), retry, after })
}

/// An error as one sentence.
fn reason(error: Option<Value>) -> String {
    let text = match error {
        None | Some(Value::Null) => "failed, and did not say why".to_owned(),
        Some(Value::String(text)) => text,
        Some(Value::Object(fields)) => match fields.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => Value::Object(fields).to_string(),
        },
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn told(ending: Ending, end: Value) -> Result<Told, String> {
        understand(ending, serde_json::from_value(end).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_end_is_told_in_one_of_two_ways() {
        assert_eq!(told(Ending::Complete, json!({})), Ok(Told::Completed(None)));
        assert_eq!(told(Ending::Either, json!({"result": [1]})), Ok(Told::Completed(Some("[1]".to_owned()))));
        let failed = Told::Failed { reason: "no".to_owned(), retry: None, after: None };
        assert_eq!(told(Ending::Either, json!({"error": "no"})), Ok(failed.clone()));
        assert_eq!(told(Ending::Fail, json!({"error": {"message": "no", "code": 7}})), Ok(failed));
        assert!(told(Ending::Complete, json!({"error": "no"})).unwrap_err().contains("/fail"));
        assert!(told(Ending::Fail, json!({"result": 1})).unwrap_err().contains("/complete"));
    }

    #[test]
    fn who_says_when_to_try_again_gets_another_try() {
        let busy = told(Ending::Fail, json!({"error": "busy", "retryAfter": 90})).unwrap();
        let after = Some(Duration::from_secs(90));
        assert_eq!(busy, Told::Failed { reason: "busy".to_owned(), retry: Some(true), after });
        for wait in [json!(-1), json!(1e9)] {
            assert!(told(Ending::Fail, json!({"retryAfter": wait})).unwrap_err().contains("retryAfter"), "{wait}");
        }
    }

    #[test]
    fn what_is_told_is_not_endless() {
        assert!(told(Ending::Complete, json!({"result": "x".repeat(LARGEST_RESULT)})).is_err());
        assert_eq!(reason(Some(json!("ä".repeat(5000)))).chars().count(), LONGEST_ERROR + 1);
    }
}
