//! Runs that wait: what they wait for is checked at once, and people answer what they ask.

use std::sync::Arc;
use std::time::Duration;

use doorbell_client::api;
use doorbell_core::condition::Expression;
use doorbell_core::id::{EventId, RunId};
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;
use doorbell_core::wait::{Resumed, Wait};
use serde_json::{Value, json};

use super::leases::{Speaker, carried_out, find, lost};
use super::{Error, calls, owned, require_any_owner};
use crate::app::{App, Caller, Snapshot};
use crate::clock;
use crate::config::parse_duration;
use crate::dispatch::{Dispatcher, Waited};
use crate::store::{Resume, Running};

mod watch;

pub use watch::start;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How long is waited if nobody says.
const PATIENCE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Characters of the name of an event at most.
const LONGEST_EVENT: usize = 200;
/// Characters of a question, and of each of its options, at most; and how many options.
const LONGEST_QUESTION: usize = 2000;
const LONGEST_OPTION: usize = 200;
const MOST_OPTIONS: usize = 20;
/// Bytes of an answer at most.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Has a run give its lease back until a time.
///
/// # Errors
/// If it is not the caller's, its lease is another one by now, or the time cannot be understood.
pub async fn sleep(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    id: &str,
    wish: api::NewSleep,
) -> Result<api::GivenBack, Error> {
    let running = waiting(app, speaker, id, wish.lease.as_ref()).await?;
    let until = super::parse_time("until", Some(&wish.until))?.unwrap_or_default();
    if until > clock::now().after(LONGEST) {
        return Err(Error::Invalid("`until` may be 366 days from now at most".to_owned()));
    }
    give_back(app, dispatcher, speaker, &running, Wait::Sleep, until).await
}

/// Has a run give its lease back until an event comes, also one that came since it began, or a run that it started is over.
///
/// # Errors
/// If it is not the caller's, its lease is another one by now, or the wish cannot be understood.
pub async fn wait(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    id: &str,
    wish: api::NewWait,
) -> Result<api::GivenBack, Error> {
    let running = waiting(app, speaker, id, wish.lease.as_ref()).await?;
    let until = patience(wish.timeout)?;
    let api::NewWait { event, source, condition, run, .. } = wish;
    let wait = match (event, run) {
        (Some(event), None) => {
            let wait = Wait::Event { event, source, condition };
            // What can never match is no wait.
            triggers_of(&app.current(), &running.run.agent, &wait)?;
            wait
        }
        (None, Some(child)) if source.is_none() && condition.is_none() => child_of(app, &running, &child).await?,
        (None, Some(_)) => {
            return Err(Error::Invalid("`source` and `where` are for an `event`, not for a `run`".to_owned()));
        }
        _ => return Err(Error::Invalid("say what is waited for: `event`, or `run`".to_owned())),
    };
    give_back(app, dispatcher, speaker, &running, wait, until).await
}

/// Has a run give its lease back until somebody answers.
///
/// # Errors
/// If it is not the caller's, its lease is another one by now, or the question cannot be understood.
pub async fn ask(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    id: &str,
    wish: api::NewQuestion,
) -> Result<api::GivenBack, Error> {
    let running = waiting(app, speaker, id, wish.lease.as_ref()).await?;
    let until = patience(wish.timeout)?;
    let api::NewQuestion { question, options, .. } = wish;
    if question.trim().is_empty() || question.chars().count() > LONGEST_QUESTION {
        return Err(Error::Invalid(format!("`question` must have 1 to {LONGEST_QUESTION} characters")));
    }
    let is_wrong = |option: &String| option.trim().is_empty() || option.chars().count() > LONGEST_OPTION;
    if options.len() > MOST_OPTIONS || options.iter().any(is_wrong) {
        let detail = format!("`options` may be {MOST_OPTIONS}, with 1 to {LONGEST_OPTION} characters each");
        return Err(Error::Invalid(detail));
    }
    give_back(app, dispatcher, speaker, &running, Wait::Answer { question, options }, until).await
}

/// Answers the question of a run.
///
/// # Errors
/// If the caller is no owner, there is no such run, it asks nothing, or it takes no such answer.
pub async fn answer(
    app: &App,
    dispatcher: &Dispatcher,
    caller: &Caller,
    id: &str,
    wish: api::NewAnswer,
) -> Result<api::Answered, Error> {
    let run: RunId = id.parse().map_err(|_| Error::NotFound("run"))?;
    owned::require_run(app, caller, run).await?;
    let (stored, _) = app.store.run(run).await?.ok_or(Error::NotFound("run"))?;
    if !caller.may_see(&stored.agent) {
        return Err(Error::NotFound("run"));
    }
    require_any_owner(caller)?;
    let asks_nothing = |state: State| Error::Conflict("not_asking", format!("it is {state}, and asks nothing"));
    let Some(Wait::Answer { options, .. }) = &stored.wait else { return Err(asks_nothing(stored.state)) };
    if !options.is_empty() && !wish.answer.as_str().is_some_and(|text| options.iter().any(|option| option == text)) {
        return Err(Error::Invalid(format!("`answer` must be one of: {}", options.join(", "))));
    }
    if wish.answer.is_null() || wish.answer.to_string().len() > LARGEST_ANSWER {
        return Err(Error::Invalid(format!("`answer` must be said, with {LARGEST_ANSWER} bytes at most")));
    }
    let by = Resumed::Answer { answer: wish.answer, by: caller.name() };
    let resume = Resume { run, attempt: stored.attempt, by, heard: None, now: clock::now() };
    if !dispatcher.resume(resume).await? {
        return Err(Error::Conflict("not_asking", "somebody was faster, or its time has come".to_owned()));
    }
    let state = app.store.run(run).await?.map_or(State::Queued, |(run, _)| run.state);
    Ok(api::Answered { id: run.to_string(), state: state.to_string() })
}

/// The run that is to wait: commands may ask for it, too.
async fn waiting(app: &App, speaker: &Speaker, id: &str, shown: Option<&api::ShownLease>) -> Result<Running, Error> {
    match speaker {
        Speaker::Key(Caller::Run { .. }) => carried_out(app, speaker, id, None).await,
        _ => find(app, speaker, id, shown).await,
    }
}

async fn give_back(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    running: &Running,
    wait: Wait,
    until: Timestamp,
) -> Result<api::GivenBack, Error> {
    let (run, by_command) = (running.run.id, matches!(speaker, Speaker::Key(Caller::Run { .. })));
    match dispatcher.wait(running, by_command, wait, until).await? {
        Waited::Now => {}
        Waited::AtItsEnd => {
            let (id, state) = (run.to_string(), State::Running.to_string());
            return Ok(api::GivenBack { id, state, due_at: Some(until.to_string()) });
        }
        Waited::Lost => return Err(lost()),
    }
    let (stored, _) = app.store.run(run).await?.ok_or(Error::NotFound("run"))?;
    let due_at = stored.due.map(|due| due.to_string());
    Ok(api::GivenBack { id: run.to_string(), state: stored.state.to_string(), due_at })
}

fn patience(wish: Option<api::Patience>) -> Result<Timestamp, Error> {
    let form = || "`timeout` must be a time such as \"15m\", or seconds; 366 days at most".to_owned();
    let wait = match wish {
        None => Some(PATIENCE),
        Some(api::Patience::Text(text)) => parse_duration(&text).ok(),
        Some(api::Patience::Seconds(seconds)) => Duration::try_from_secs_f64(seconds).ok(),
    };
    let wait = wait.filter(|wait| *wait <= LONGEST).ok_or_else(|| Error::Invalid(form()))?;
    Ok(clock::now().after(wait))
}

/// A run that this one started.
async fn child_of(app: &App, running: &Running, child: &str) -> Result<Wait, Error> {
    let not_its = || Error::Invalid("`run` must be a run that this one started".to_owned());
    let run: RunId = child.parse().map_err(|_| not_its())?;
    match calls::is_parent(app, running.run.id, run).await? {
        true => Ok(Wait::Run { run }),
        false => Err(not_its()),
    }
}

/// What an event must be like that a run waits for: a trigger for each source that its agent listens to. An agent sees no
/// other ones.
///
/// # Errors
/// If there is no such source, or nothing can ever match.
fn triggers_of(in_force: &Arc<Snapshot>, agent: &str, wait: &Wait) -> Result<Vec<Trigger>, Error> {
    let Wait::Event { event, source, condition } = wait else { return Ok(Vec::new()) };
    let invalid = |detail: String| Error::Invalid(detail);
    if event.trim().is_empty() || event.chars().count() > LONGEST_EVENT {
        return Err(invalid(format!("`event` must have 1 to {LONGEST_EVENT} characters, such as \"issues.opened\"")));
    }
    if let Some(condition) = condition {
        Expression::condition(condition).map_err(|flaw| match &flaw.help {
            Some(help) => invalid(format!("`where`: {flaw}; {help}")),
            None => invalid(format!("`where`: {flaw}")),
        })?;
    }
    let agent_now = in_force.config.agents.get(agent).ok_or_else(|| {
        Error::Conflict("agent_missing", format!("its agent `{agent}` is not in the configuration any more"))
    })?;
    let mut sources: Vec<&str> = agent_now.triggers.iter().map(|trigger| trigger.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    if let Some(only) = source {
        sources.retain(|name| name == only);
    }
    // What comes to a source that is not its account's is for it only as far as its triggers say.
    if let Some(account) = &agent_now.account {
        let of = |name: &str| in_force.config.sources.get(name).is_some_and(|one| one.account() == Some(account));
        sources.retain(|name| in_force.hooks.get(name).is_some() || of(name));
    }
    if sources.is_empty() {
        let which = source.as_ref().map_or("no source".to_owned(), |source| format!("no source `{source}`"));
        return Err(invalid(format!(
            "agent `{agent}` listens to {which}: an agent waits for events of its own sources"
        )));
    }
    let read = |source: &str| {
        let provider = in_force.config.sources.get(source).map(|source| source.provider().name().to_owned());
        let bare = provider.and_then(|provider| event.strip_prefix(&format!("{provider}.")).map(str::to_owned));
        let names: Vec<String> = [event.clone()].into_iter().chain(bare).collect();
        let mut trigger =
            serde_json::Map::from_iter([("source".to_owned(), json!(source)), ("events".to_owned(), json!(names))]);
        trigger.extend(condition.iter().map(|condition| ("where".to_owned(), Value::from(condition.as_str()))));
        in_force.config.read_trigger(&trigger, |_| true).map_err(invalid)
    };
    sources.into_iter().map(read).collect()
}

/// Whether a run goes on by this event, which it may see then.
pub(super) async fn goes_on_by(app: &App, caller: &Caller, event: EventId) -> Result<bool, Error> {
    let Caller::Run { run, .. } = caller else { return Ok(false) };
    let run = app.store.run(*run).await?;
    let by = run.and_then(|(run, _)| run.resumed);
    Ok(matches!(by, Some(Resumed::Event { event_id, .. }) if event_id == event))
}
