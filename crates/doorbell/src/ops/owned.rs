//! What is the caller's, asked before anything else is: what is loaded of another's would take a time by which it is told from
//! what there is not.

use doorbell_core::id::{EventId, RunId};

use super::{Error, waits};
use crate::app::{App, Caller};

/// Refuses a run that is not the caller's, nor of those that the caller called.
///
/// # Errors
/// If there is none, or not for this caller.
pub(super) async fn require_run(app: &App, caller: &Caller, run: RunId) -> Result<(), Error> {
    if caller.sees_all() {
        return Ok(());
    }
    let owner = app.store.owner_of_run(run).await?.ok_or(Error::NotFound("run"))?;
    // Whoever called an agent sees how that goes.
    match caller.may_see(&owner.agent) || matches!(caller, Caller::Run { run, .. } if owner.is_called_by(*run)) {
        true => Ok(()),
        false => Err(Error::NotFound("run")),
    }
}

/// Refuses an event that came to no source of the caller's, that no agent of its has an outcome for, and that it does not go on by.
///
/// # Errors
/// If there is none, or not for this caller.
pub(super) async fn require_event(app: &App, caller: &Caller, event: EventId) -> Result<(), Error> {
    if caller.sees_all() {
        return Ok(());
    }
    let owner = app.store.owner_of_event(event).await?.ok_or(Error::NotFound("event"))?;
    let sees_it = caller.has_source(&owner.source) || owner.agents.iter().any(|agent| caller.may_see(agent));
    match sees_it || waits::goes_on_by(app, caller, event).await? {
        true => Ok(()),
        false => Err(Error::NotFound("event")),
    }
}
