//! Forgetting: what an event and its runs said is removed for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell_client::api;
use doorbell_core::event::is_own;
use doorbell_core::id::{EventId, RunId};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Error, events, require_any_owner};
use crate::app::{App, Caller};
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::files;
use crate::store::{self, Forgetting, RunQuery};

/// How to forget.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    /// End its runs first, if they are not over.
    #[serde(default)]
    cancel: bool,
}

/// How long runs that are cancelled have to end: longer than their processes get.
const ENDING: Duration = Duration::from_secs(20);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Runs that an answer names.
const NAMED: usize = 5;

/// Removes headers, body and context of an event, logs, results and folders of its runs. Its id, its keys and what became
/// of it for each agent stay, so that a redelivery starts nothing.
///
/// # Errors
/// If there is no such event, or the caller is no owner, or a run of it is not over.
pub async fn forget(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    id: &str,
    query: Query,
) -> Result<api::Forgotten, Error> {
    let found = events::get(app, caller, id).await?;
    require_any_owner(caller)?;
    if !caller.has_source(&found.source) && !is_all_of(app, caller, &found).await? {
        return Err(Error::NotAllowed("its source belongs to somebody else, who may forget it"));
    }
    let event: EventId = id.parse().map_err(|_| Error::NotFound("event"))?;
    // What replays it says the same.
    for replay in app.store.replays_of(event).await? {
        forget_one(app, dispatcher, caller, replay, query.cancel).await?;
    }
    forget_one(app, dispatcher, caller, event, query.cancel).await
}

/// Whether an event that Doorbell made itself concerns nobody but the caller.
async fn is_all_of(app: &App, caller: &Caller, event: &api::Event) -> Result<bool, Error> {
    if !is_own(&event.provider) {
        return Ok(false);
    }
    let id: EventId = event.id.parse().map_err(|_| Error::NotFound("event"))?;
    Ok(app.store.outcomes(id).await?.iter().all(|outcome| caller.may_see(&outcome.agent)))
}

async fn forget_one(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    event: EventId,
    cancels: bool,
) -> Result<api::Forgotten, Error> {
    if cancels {
        cancel(app, dispatcher, caller, event).await?;
    }
    let (runs, unfinished) = runs_of(app, event).await?;
    if !unfinished.is_empty() {
        return Err(not_over(&unfinished, cancels));
    }
    // Before the rows: until those say that it is forgotten, it can be asked for again.
    remove_folders(dispatcher, runs).await?;
    match app.store.forget(event, clock::now()).await? {
        Forgetting::Forgotten(at) => {
            tracing::info!(%event, by = caller.name(), "event.forgotten");
            Ok(api::Forgotten { id: event.to_string(), forgotten_at: at.to_string() })
        }
        Forgetting::Unfinished(unfinished) => Err(not_over(&unfinished, cancels)),
        Forgetting::Unknown => Err(Error::NotFound("event")),
    }
}

/// The runs of an event, and those among them that are not over.
async fn runs_of(app: &App, event: EventId) -> Result<(Vec<RunId>, Vec<RunId>), store::Error> {
    let query = RunQuery { event: Some(event), limit: usize::MAX, ..RunQuery::default() };
    let runs = app.store.runs(query).await?;
    let unfinished = runs.iter().filter(|run| !run.state.is_final()).map(|run| run.id).collect();
    Ok((runs.into_iter().map(|run| run.id).collect(), unfinished))
}

/// Cancels what is not over, and waits until it is, or has had its time.
async fn cancel(app: &App, dispatcher: &Dispatcher, caller: &Caller, event: EventId) -> Result<(), Error> {
    let (_, mut unfinished) = runs_of(app, event).await?;
    for run in &unfinished {
        dispatcher.cancel(*run, &caller.name()).await?;
    }
    let since = Instant::now();
    while !unfinished.is_empty() && since.elapsed() < ENDING {
        tokio::time::sleep(LOOK).await;
        (_, unfinished) = runs_of(app, event).await?;
    }
    Ok(())
}

fn not_over(runs: &[RunId], asked: bool) -> Error {
    let named = runs.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = if runs.len() > NAMED { format!(" and {} more", runs.len() - NAMED) } else { String::new() };
    let what = match asked {
        true => "they were asked to end and have not yet: try again in a moment",
        false => "wait until they are, or cancel them: `cancel=true`, on the command line `--cancel`",
    };
    Error::Conflict("runs_unfinished", format!("runs of this event are not over ({named}{more}); {what}"))
}

async fn remove_folders(dispatcher: &Arc<Dispatcher>, runs: Vec<RunId>) -> Result<(), Error> {
    let dispatcher = Arc::clone(dispatcher);
    let work = move || {
        runs.into_iter().try_for_each(|run| {
            let folder = dispatcher.run_folder(run);
            files::remove_folder(&folder).map_err(|error| {
                let detail = format!("{} cannot be removed: {error}. The event is still there", folder.display());
                Error::Conflict("folder_stays", detail)
            })
        })
    };
    let broken = |error| Error::Store(store::Error::Unavailable(Box::new(error)));
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}
