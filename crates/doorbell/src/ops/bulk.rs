//! Many runs at once: all that a filter finds are cancelled, released or tried again.

use doorbell_client::api;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::runs::{self, Query};
use super::{Error, dead_letters};
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
    check(verb, &wish)?;
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

/// Whether the filter says something, and something that fits.
fn check(verb: Verb, wish: &api::ManyRuns) -> Result<(), Error> {
    let says_one = [&wish.agent, &wish.state, &wish.key, &wish.event, &wish.cause].iter().any(|said| said.is_some());
    if !says_one && !wish.dead_letter {
        let detail = "say which runs: `agent`, `state`, `key`, `event`, `deadLetter` or `cause`";
        return Err(Error::Invalid(detail.to_owned()));
    }
    if wish.cause.is_some() && verb != Verb::Retry {
        return Err(Error::Invalid("`cause` is of dead letters, which can only be tried again".to_owned()));
    }
    Ok(())
}

/// The runs that the filter finds and to which this can be done. Whether there are more.
async fn find(app: &App, caller: &Caller, verb: Verb, wish: &api::ManyRuns) -> Result<(Vec<String>, bool), Error> {
    let states: Vec<&str> = match (verb, &wish.state) {
        (_, Some(state)) => vec![state.as_str()],
        (Verb::Retry, None) if wish.cause.is_some() => vec!["failed"],
        (Verb::Cancel, None) => vec!["held", "waiting", "queued", "running"],
        (Verb::Release, None) => vec!["held"],
        (Verb::Retry, None) => vec!["failed", "cancelled", "superseded", "dropped"],
    };
    let (mut found, mut scanned) = (Vec::new(), 0);
    for state in states {
        let mut cursor = None;
        loop {
            let page = runs::list(app, caller, Query::of(wish, state, cursor)).await?;
            scanned += page.runs.len();
            let of_cause = |run: &api::Run| {
                wish.cause.as_ref().is_none_or(|cause| dead_letters::failed_of(run.reason.as_deref(), cause))
            };
            found.extend(page.runs.into_iter().filter(of_cause).map(|run| run.id));
            if found.len() >= MOST || (scanned >= dead_letters::MOST_SCANNED && page.next_cursor.is_some()) {
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
