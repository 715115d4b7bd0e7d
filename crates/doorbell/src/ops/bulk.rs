//! Many runs at once: all that a filter finds are cancelled, released or tried again.

use doorbell_client::api;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Error;
use super::runs::{self, Query};
use crate::app::{App, Caller};
use crate::dispatch::Dispatcher;

/// Runs in one answer: whoever wants more asks again, and sees how far it is.
const MOST: usize = 5000;
/// Asked of the store at once, which brings them to the disk together.
const TOGETHER: usize = 64;

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Ends those that are not over.
    Cancel,
    /// Lets those that are held go on.
    Release,
    /// Queues those that ended badly once more.
    Retry,
}

/// Does it to some thousands of runs, oldest first among those that are found, or only counts them.
///
/// # Errors
/// If the filter says nothing or cannot be understood, or the caller may not.
pub async fn act(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    verb: Verb,
    wish: api::ManyRuns,
) -> Result<api::ManyDone, Error> {
    if !matches!(caller, Caller::Owner { .. } | Caller::Agent(_)) {
        return Err(Error::NotAllowed("this key may not change runs"));
    }
    if wish.agent.is_none() && wish.state.is_none() && wish.key.is_none() && wish.event.is_none() && !wish.dead_letter {
        let detail = "say which runs: `agent`, `state`, `key`, `event` or `deadLetter`";
        return Err(Error::Invalid(detail.to_owned()));
    }
    let (found, more) = find(app, caller, verb, &wish).await?;
    let mut done = api::ManyDone { matched: found.len() as u64, more, ..api::ManyDone::default() };
    if wish.dry_run {
        return Ok(done);
    }
    let act = |id: String| async move {
        let result = match verb {
            Verb::Cancel => runs::cancel(app, dispatcher, caller, &id).await.map(drop),
            Verb::Release => runs::release(app, dispatcher, caller, &id).await.map(drop),
            Verb::Retry => runs::retry(app, dispatcher, caller, &id).await.map(drop),
        };
        (id, result)
    };
    let mut results = stream::iter(found.into_iter().map(act)).buffered(TOGETHER);
    while let Some((id, result)) = results.next().await {
        match result {
            Ok(()) => done.done += 1,
            Err(Error::Store(error)) => return Err(error.into()),
            // It moved on meanwhile, or cannot go on: said, and no reason to leave the others.
            Err(error) => done.refused.push(api::Refused { id, why: error.to_string() }),
        }
    }
    tracing::info!(?verb, done = done.done, refused = done.refused.len(), by = caller.name(), "runs.changed");
    Ok(done)
}

/// The runs that the filter finds and to which this can be done. Whether there are more.
async fn find(app: &App, caller: &Caller, verb: Verb, wish: &api::ManyRuns) -> Result<(Vec<String>, bool), Error> {
    let states: Vec<&str> = match (verb, &wish.state) {
        (_, Some(state)) => vec![state.as_str()],
        (Verb::Cancel, None) => vec!["held", "waiting", "queued", "running"],
        (Verb::Release, None) => vec!["held"],
        (Verb::Retry, None) => vec!["failed", "cancelled", "superseded", "dropped"],
    };
    let mut found = Vec::new();
    for state in states {
        let mut cursor = None;
        loop {
            let page = runs::list(app, caller, Query::of(wish, state, cursor)).await?;
            found.extend(page.runs.into_iter().map(|run| run.id));
            if found.len() >= MOST {
                found.truncate(MOST);
                return Ok((found, true));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
    }
    // Ids are in the order of time, and so should the runs go on.
    found.sort();
    Ok((found, false))
}
