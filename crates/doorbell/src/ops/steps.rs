//! Steps: what parts of a run came to, so that its later tries need not do them again.

use doorbell_core::id::RunId;
use serde_json::Value;

use super::leases::{Speaker, carried_out, lost};
use super::{Error, owned};
use crate::app::{App, Caller};
use crate::clock;
use crate::store::{LARGEST_STEPS, MOST_STEPS, NewStep, Running, StepKept};

/// Characters of a key at most.
const LONGEST_KEY: usize = 200;
/// Bytes of a result at most.
const LARGEST: usize = 256 * 1024;

/// Keeps the result of a step, once.
///
/// # Errors
/// If the run is not the caller's to carry out, its lease is another one by now, another result is there, or it is too large.
pub async fn put(app: &App, speaker: &Speaker, id: &str, key: &str, body: &[u8]) -> Result<Value, Error> {
    let running = own(app, speaker, id).await?;
    if key.is_empty() || key.chars().count() > LONGEST_KEY || key.chars().any(char::is_control) {
        let detail = format!("the key of a step must have 1 to {LONGEST_KEY} characters, and no control ones");
        return Err(Error::Invalid(detail));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Error::Invalid(format!("the result of a step must be JSON: {error}")))?;
    let text = value.to_string();
    if text.len() > LARGEST {
        return Err(Error::Invalid(format!("the result of a step may have {LARGEST} bytes: keep where it is instead")));
    }
    let step = NewStep {
        run: running.run.id,
        lease: running.lease,
        key: key.to_owned(),
        value: text.clone(),
        at: clock::now(),
    };
    match app.store.keep_step(step).await? {
        StepKept::Kept => Ok(value),
        StepKept::There(there) if there == text => Ok(value),
        StepKept::There(_) => {
            let detail = format!("step `{key}` has another result already, which stays: GET it, and go on with that");
            Err(Error::Conflict("step_differs", detail))
        }
        StepKept::Full => {
            let detail = format!("a run keeps {MOST_STEPS} steps, and {LARGEST_STEPS} bytes of results, at most");
            Err(Error::Conflict("steps_full", detail))
        }
        StepKept::Lost => Err(lost()),
    }
}

/// The result of a step.
///
/// # Errors
/// If there is none, or the run is not the caller's.
pub async fn get(app: &App, speaker: &Speaker, id: &str, key: &str) -> Result<Value, Error> {
    let run = match speaker {
        Speaker::Lease(_) | Speaker::Key(Caller::Run { .. }) => own(app, speaker, id).await?.run.id,
        Speaker::Key(caller) => seen(app, caller, id).await?,
    };
    let found = app.store.step(run, key.to_owned()).await?.ok_or(Error::NotFound("step"))?;
    serde_json::from_str(&found)
        .map_err(|error| crate::store::Error::Corrupt(format!("step {key:?} of {run} cannot be read: {error}")).into())
}

/// The run that is spoken of, if it is the speaker's to carry out.
async fn own(app: &App, speaker: &Speaker, id: &str) -> Result<Running, Error> {
    match speaker {
        Speaker::Lease(_) | Speaker::Key(Caller::Run { .. }) => carried_out(app, speaker, id, None).await,
        Speaker::Key(caller) => {
            seen(app, caller, id).await?;
            let what = "steps are kept by whoever carries the run out: show its lease as the bearer token";
            Err(Error::NotAllowed(what))
        }
    }
}

async fn seen(app: &App, caller: &Caller, id: &str) -> Result<RunId, Error> {
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    owned::require_run(app, caller, run).await?;
    let (stored, _) = app.store.run(run).await?.ok_or(Error::NotFound("run"))?;
    if caller.may_see(&stored.agent) { Ok(run) } else { Err(Error::NotFound("run")) }
}
