//! Many runs at once: all that a filter finds are cancelled, released or tried again.

use doorbell_client::api;

use super::{Error, dead_letters, parse_cursor, runs};
use crate::app::{App, Caller};
use crate::dispatch::Dispatcher;
use crate::store::{Cancel, RunQuery, StoredRun};

/// Runs in one answer: whoever wants more asks again from where it ended, and sees how far it is.
const MOST: usize = 1000;

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

/// Does it to up to a thousand runs, oldest first, or only counts them.
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
    if !caller.changes() {
        return Err(Error::NotAllowed("this key may not change runs"));
    }
    check(verb, &wish)?;
    let (found, next_cursor) = find(app, caller, verb, &wish).await?;
    let (matched, more) = (found.len() as u64, next_cursor.is_some());
    let mut done = api::ManyDone { matched, more, next_cursor, ..api::ManyDone::default() };
    if wish.dry_run {
        return Ok(done);
    }
    // One after the other: whoever goes on first has the turn in its lane.
    for id in found {
        let result = match verb {
            Verb::Cancel => cancel(app, dispatcher, caller, &id).await,
            Verb::Release => runs::release(app, dispatcher, caller, &id).await.map(|_| false),
            Verb::Retry => runs::retry(app, dispatcher, caller, &id).await.map(|_| false),
        };
        match result {
            Ok(asked) => {
                done.done += 1;
                done.asked += u64::from(asked);
            }
            Err(Error::Store(error)) => return Err(error.into()),
            // It moved on meanwhile, or cannot go on: said, and no reason to leave the others.
            Err(error) => done.refused.push(api::Refused { id, why: error.to_string() }),
        }
    }
    tracing::info!(?verb, done = done.done, refused = done.refused.len(), by = caller.name(), "runs.changed");
    Ok(done)
}

/// Ends one, which is refused if it is over already; whether it runs, and was asked to end.
async fn cancel(app: &App, dispatcher: &Dispatcher, caller: &Caller, id: &str) -> Result<bool, Error> {
    match runs::end(app, dispatcher, caller, id).await? {
        Cancel::AlreadyFinal(state) => Err(Error::Conflict("run_over", format!("it is {}, and over", state.as_str()))),
        done => Ok(done == Cancel::Requested),
    }
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

/// The oldest runs that the filter finds and to which this can be done, and from where there may be more.
async fn find(
    app: &App,
    caller: &Caller,
    verb: Verb,
    wish: &api::ManyRuns,
) -> Result<(Vec<String>, Option<String>), Error> {
    let states: Vec<&str> = match (verb, &wish.state) {
        (_, Some(state)) => vec![state.as_str()],
        (Verb::Retry, None) if wish.cause.is_some() => vec!["failed"],
        (Verb::Cancel, None) => vec!["held", "waiting", "queued", "running"],
        (Verb::Release, None) => vec!["held"],
        (Verb::Retry, None) => vec!["failed", "cancelled", "superseded", "dropped"],
    };
    let from = parse_cursor(wish.cursor.as_deref())?.unwrap_or(0);
    // What lies behind this was not looked at in every state, and may not be taken before what is older.
    let mut seen_through: Option<i64> = None;
    let mut found: Vec<(i64, String)> = Vec::new();
    for state in states {
        let Some(query) = runs::understand(caller, runs::Query::of(wish, state))? else { continue };
        let (mut after, mut taken, mut scanned) = (from, 0, 0);
        loop {
            let page = app.store.runs(RunQuery { after: Some(after), ..query.clone() }).await?;
            let is_last = page.len() < query.limit;
            after = page.last().map_or(after, |run| run.seq);
            scanned += page.len();
            let of_cause = |run: &StoredRun| {
                wish.cause.as_ref().is_none_or(|cause| dead_letters::failed_of(run.reason.as_deref(), cause))
            };
            let fitting = page.iter().filter(|run| of_cause(run)).map(|run| (run.seq, run.id.to_string()));
            let before = found.len();
            found.extend(fitting);
            taken += found.len() - before;
            if is_last {
                break;
            }
            if taken >= MOST || scanned >= dead_letters::MOST_SCANNED {
                seen_through = Some(seen_through.map_or(after, |through| through.min(after)));
                break;
            }
        }
    }
    found.sort_unstable();
    found.retain(|(seq, _)| seen_through.is_none_or(|through| *seq <= through));
    if found.len() > MOST {
        found.truncate(MOST);
        seen_through = found.last().map(|(seq, _)| *seq);
    }
    Ok((found.into_iter().map(|(_, id)| id).collect(), seen_through.map(|seq| seq.to_string())))
}
