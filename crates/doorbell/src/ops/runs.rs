//! Runs: listed, shown, followed, cancelled.

use doorbell_client::api;
use doorbell_core::id::RunId;
use doorbell_core::run::State;
use doorbell_core::wait::Wait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::view::{view_attempt, view_companion, view_step};
use super::{Error, calls, delays, owned, page_size, parse_cursor, view_line, view_run};
use crate::app::{App, Caller};
use crate::dispatch::Dispatcher;
use crate::store::{Cancel, CauseKind, Release, Retry, RunQuery};

/// Which runs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    /// Of this agent.
    pub agent: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// Caused by this event.
    pub event: Option<String>,
    /// Only those that failed with all their tries used up.
    #[serde(default)]
    pub dead_letter: bool,
    /// About this.
    pub key: Option<String>,
    /// Of this kind of cause.
    pub trigger: Option<String>,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many; 50 if nothing is said.
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<usize>,
}

impl Query {
    /// The runs of a filter that are in this state.
    pub(super) fn of(wish: &api::ManyRuns, state: &str) -> Self {
        Self {
            agent: wish.agent.clone(),
            state: Some(state.to_owned()),
            event: wish.event.clone(),
            dead_letter: wish.dead_letter || wish.cause.is_some(),
            key: wish.key.clone(),
            limit: Some(super::LONGEST_PAGE),
            ..Self::default()
        }
    }
}

/// Runs, newest first.
///
/// # Errors
/// If the query cannot be understood or the store is unavailable.
pub async fn list(app: &App, caller: &Caller, query: Query) -> Result<api::RunPage, Error> {
    let before = parse_cursor(query.cursor.as_deref())?;
    let Some(query) = understand(caller, query)? else {
        return Ok(api::RunPage { runs: Vec::new(), next_cursor: None });
    };
    let limit = query.limit;
    let stored = app.store.runs(RunQuery { before, ..query }).await?;
    let next_cursor = (stored.len() == limit).then(|| stored.last().map(|run| run.seq.to_string())).flatten();
    Ok(api::RunPage { runs: stored.into_iter().map(view_run).collect(), next_cursor })
}

/// What the store is asked; none if it is for runs that the caller may not see.
pub(super) fn understand(caller: &Caller, query: Query) -> Result<Option<RunQuery>, Error> {
    let limit = page_size(query.limit)?;
    let trigger = query.trigger.map(|text| {
        let all = CauseKind::ALL.map(CauseKind::as_str).join(", ");
        let found = CauseKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| Error::Invalid(format!("`trigger` must be one of {all}")))
    });
    let state = query.state.map(|text| {
        let all = State::ALL.map(State::as_str).join(", ");
        State::parse(&text).ok_or_else(|| Error::Invalid(format!("`state` must be one of {all}")))
    });
    let event = query.event.map(|id| id.parse().map_err(|_| Error::Invalid("`event` must be an event id".to_owned())));
    let Some(agents) = agents_of(caller, query.agent) else { return Ok(None) };
    Ok(Some(RunQuery {
        agents,
        state: state.transpose()?,
        event: event.transpose()?,
        dead_letter: query.dead_letter,
        key: query.key,
        trigger: trigger.transpose()?,
        limit,
        ..RunQuery::default()
    }))
}

/// The agents whose runs are meant, of those that the caller may see: `Some(None)` is all that there are, and none is that the one
/// asked for is not the caller's.
#[allow(clippy::option_option)]
pub(super) fn agents_of(caller: &Caller, asked: Option<String>) -> Option<Option<Vec<String>>> {
    match asked {
        Some(asked) => caller.may_see(&asked).then(|| Some(vec![asked])),
        None => Some(caller.confined_to().map(|within| within.agents)),
    }
}

/// One run with its tries.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn get(app: &App, caller: &Caller, id: &str) -> Result<api::RunDetail, Error> {
    let id: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    owned::require_run(app, caller, id).await?;
    let (run, attempts) = app.store.run(id).await?.ok_or(Error::NotFound("run"))?;
    let events = if run.absorbed > 0 { app.store.companions(run.id).await? } else { Vec::new() };
    Ok(api::RunDetail {
        run: api::Run { follow_up_fails: app.untold.why(id), ..view_run(run) },
        attempts: attempts.into_iter().map(view_attempt).collect(),
        steps: app.store.steps(id).await?.into_iter().map(view_step).collect(),
        events: events.into_iter().map(view_companion).collect(),
        parent: None,
        children: Vec::new(),
    })
}

/// The same, and why those that are queued are not started.
///
/// # Errors
/// If the query cannot be understood or the store is unavailable.
pub async fn list_explained(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    query: Query,
) -> Result<api::RunPage, Error> {
    let mut page = list(app, caller, query).await?;
    delays::explain(app, dispatcher, &mut page.runs).await?;
    Ok(page)
}

/// One run with its tries and calls, why it is not started if it is queued, and why nobody is told how it ended where its event names a place for that.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn show(app: &App, dispatcher: &Dispatcher, caller: &Caller, id: &str) -> Result<api::RunDetail, Error> {
    let mut detail = get(app, caller, id).await?;
    let event = detail.run.event_id.parse().map_err(|_| Error::NotFound("event"))?;
    detail.run.follow_up_refused = dispatcher.follow_up_refused(event).await?;
    delays::explain(app, dispatcher, [&mut detail.run]).await?;
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    let parent = calls::parent_of(app, run).await?;
    // Files may let an agent call one of another account: whose run it was stays that one's.
    let is_hidden =
        |parent: &api::LinkedRun| matches!(caller, Caller::Account { .. }) && !caller.may_see(&parent.agent);
    detail.parent = parent.filter(|parent| !is_hidden(parent));
    detail.children = calls::children_of(app, run).await?;
    Ok(detail)
}

/// Lines in one answer at most.
const MOST_LINES: usize = 10_000;

/// Lines of a run's log after line `after`.
///
/// # Errors
/// If there is no such run, or not for this caller.
pub async fn log(app: &App, caller: &Caller, id: &str, after: u64, limit: usize) -> Result<Vec<api::LogLine>, Error> {
    get(app, caller, id).await?;
    let id: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    let lines = app.store.read_log(id, after, limit.min(MOST_LINES)).await?;
    Ok(lines.into_iter().map(|(n, line)| view_line(n, line)).collect())
}

/// The last lines of a run's log.
///
/// # Errors
/// If there is no such run, or not for this caller.
pub async fn log_end(app: &App, caller: &Caller, id: &str, lines: usize) -> Result<Vec<api::LogLine>, Error> {
    get(app, caller, id).await?;
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    // Lines are numbered without gaps, and any one of them is found fast: so the last one is looked for by halves.
    let is_there = async |n: u64| Ok::<_, Error>(!app.store.read_log(run, n - 1, 1).await?.is_empty());
    let (mut last, mut beyond) = (0, 1);
    while is_there(beyond).await? {
        (last, beyond) = (beyond, beyond * 2);
    }
    while last + 1 < beyond {
        let middle = last.midpoint(beyond);
        match is_there(middle).await? {
            true => last = middle,
            false => beyond = middle,
        }
    }
    log(app, caller, id, last.saturating_sub(lines as u64), lines).await
}

/// Cancels a run.
///
/// # Errors
/// If there is none, or the caller may not.
pub async fn cancel(app: &App, dispatcher: &Dispatcher, caller: &Caller, id: &str) -> Result<api::Cancelled, Error> {
    let state = match end(app, dispatcher, caller, id).await? {
        Cancel::Cancelled => State::Cancelled,
        Cancel::Requested => State::Running,
        Cancel::AlreadyFinal(state) => state,
        Cancel::Unknown => return Err(Error::NotFound("run")),
    };
    Ok(api::Cancelled { id: id.to_owned(), state: state.as_str().to_owned() })
}

/// Ends a run, if the caller may.
pub(super) async fn end(app: &App, dispatcher: &Dispatcher, caller: &Caller, id: &str) -> Result<Cancel, Error> {
    get(app, caller, id).await?;
    if !caller.changes() {
        return Err(Error::NotAllowed("this key may not cancel runs"));
    }
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    Ok(dispatcher.cancel(run, &caller.name()).await?)
}

/// Queues a run that ended badly once more: the same run, with all its tries.
///
/// # Errors
/// If there is none, it did not end badly, its event is forgotten, its agent is gone, or the caller may not.
pub async fn retry(app: &App, dispatcher: &Dispatcher, caller: &Caller, id: &str) -> Result<api::Retried, Error> {
    let detail = get(app, caller, id).await?;
    may_act(app, caller, &detail.run)?;
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    match dispatcher.retry(run, &caller.name()).await? {
        Retry::Queued(_) => {
            let now = get(app, caller, id).await?.run;
            Ok(api::Retried { id: now.id, state: now.state })
        }
        Retry::NotFailed(state) => {
            let detail = format!(
                "it is {}: only what failed, was cancelled, superseded or dropped is tried again",
                state.as_str()
            );
            Err(Error::Conflict("not_failed", detail))
        }
        Retry::Overtaken(by) => {
            Err(Error::Conflict("overtaken", format!("{by} is newer work of its key, which it would replace")))
        }
        Retry::Forgotten => Err(Error::Gone("forgotten", "what its event said was removed for good".to_owned())),
        Retry::Unknown => Err(Error::NotFound("run")),
    }
}

/// What a run waits for, and how it goes on.
fn goes_on(id: &str, wait: &Wait) -> String {
    match wait {
        Wait::Sleep => "it sleeps, and goes on when its time has come (`dueAt`)".to_owned(),
        Wait::Event { event, .. } => {
            format!("it waits for the event `{event}`, and goes on with it or when its time is up")
        }
        Wait::Run { run } => format!("it waits for the end of {run}, and goes on when that is over"),
        Wait::Answer { .. } => format!("it waits for an answer, and goes on with `doorbell runs answer {id} ANSWER`"),
    }
}

/// Whether the caller may have a run go on, and it can.
fn may_act(app: &App, caller: &Caller, run: &api::Run) -> Result<(), Error> {
    if !caller.changes() {
        return Err(Error::NotAllowed("this key may not release or retry runs"));
    }
    let agent = &run.agent;
    if app.current().agent(agent).is_none() {
        let detail = format!("its agent `{agent}` is not in the configuration: the run goes on when it is");
        return Err(Error::Conflict("agent_missing", detail));
    }
    Ok(())
}

/// Lets a held run go on, or one at once that waits for its next try or for further events.
///
/// # Errors
/// If there is none, it is not held, its agent is gone or paused, or the caller may not.
pub async fn release(app: &App, dispatcher: &Dispatcher, caller: &Caller, id: &str) -> Result<api::Released, Error> {
    let detail = get(app, caller, id).await?;
    may_act(app, caller, &detail.run)?;
    if let Some(pause) = app.pauses.holds(&detail.run.agent) {
        let detail = format!("its agent `{}` is {}: resume it", detail.run.agent, pause.reason());
        return Err(Error::Conflict("agent_paused", detail));
    }
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    match dispatcher.release(run, &caller.name()).await? {
        Release::Waits(wait) => {
            Err(Error::Conflict("not_held", format!("{}: it cannot be hurried", goes_on(id, &wait))))
        }
        Release::Released(_) => {
            tracing::info!(%run, by = caller.name(), "run.released");
            let now = get(app, caller, id).await?.run;
            Ok(api::Released { id: now.id, state: now.state })
        }
        Release::NotHeld(state) => {
            Err(Error::Conflict("not_held", format!("it is {}, not held: there is nothing to release", state.as_str())))
        }
        Release::Unknown => Err(Error::NotFound("run")),
    }
}
