//! All events that a filter finds, beside everything else: with a preview, a rate, progress, and an end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell_client::api::{self, ReplayFilter};
use doorbell_core::condition::{Conditions, Expression};
use doorbell_core::event::is_own;
use doorbell_core::flow::{Rate, WhenBusy};
use doorbell_core::id::ReplayId;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Plan, asking, check_agents, context_of, replay, starts_of};
use crate::app::{App, Caller};
use crate::clock;
use crate::conditions;
use crate::dispatch::Dispatcher;
use crate::ops::events::{self, newest};
use crate::ops::triggers::{LINE, LONGEST_SCAN, MOST_SCANNED, facts_of};
use crate::ops::{Error, parse_time, pauses, require_any_owner};
use crate::store::{Admission, EventQuery, Notes, OutcomeKind, Start, StoredEvent};

/// How the keys of replays begin among the notes.
const PREFIX: &str = "replay/";
/// Replays that are remembered.
const KEPT: usize = 50;
/// Events read at once.
const STEP: usize = 100;
/// How often progress is kept; whatever was done since is found done when it is tried again.
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// How long whoever ends a replay waits until that is kept.
const LONGEST_END: Duration = Duration::from_secs(10);
/// The pause after the store failed.
const RETRY: Duration = Duration::from_secs(1);

/// A replay as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    replay: api::Replay,
    /// The sequence of the last event that was looked at, and of the last one to be looked at.
    cursor: i64,
    last: i64,
    /// The account whose replay it is; none: it is the gateway's.
    #[serde(default)]
    account: Option<String>,
}

/// What a replay would do: the events that were found, and the runs of each agent.
///
/// # Errors
/// If the filter says nothing or cannot be understood, or the caller is no owner.
pub async fn preview(app: &App, caller: &Caller, wish: &api::NewReplay) -> Result<api::ReplayPreview, Error> {
    let Checked { plan, conditions, query } = check(app, caller, wish).await?;
    let last = newest(app).await?;
    let mut found = api::ReplayPreview { complete: true, ..api::ReplayPreview::default() };
    let (begun, mut cursor, mut scanned) = (Instant::now(), 0, 0);
    loop {
        let events = page(app, &query, cursor, last).await?;
        let Some(end) = events.last().map(|event| event.seq) else { return Ok(found) };
        for event in &events {
            scanned += 1;
            if scanned > MOST_SCANNED || begun.elapsed() > LONGEST_SCAN {
                found.complete = false;
                return Ok(found);
            }
            let starts = match decide(app, event, &plan, &conditions, &wish.filter).await {
                Ok(Some((starts, _))) => starts,
                Ok(None) => continue,
                Err(Error::Store(error @ crate::store::Error::Unavailable(_))) => return Err(error.into()),
                Err(error) => {
                    found.failed += 1;
                    found.failure.get_or_insert_with(|| format!("{}: {error}", event.id));
                    continue;
                }
            };
            found.events += 1;
            found.notes.extend(starts.iter().flat_map(notes_of));
            for start in starts.iter().filter(|start| start.admission == Admission::Grow) {
                *found.agents.entry(start.agent.clone()).or_default() += 1;
            }
        }
        cursor = end;
    }
}

/// Begins a replay. It goes on through restarts.
///
/// # Errors
/// If the filter says nothing or cannot be understood, or the caller is no owner.
pub async fn begin(
    app: &Arc<App>,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    wish: api::NewReplay,
) -> Result<api::Replay, Error> {
    let Checked { plan, query, .. } = check(app, caller, &wish).await?;
    let last = newest(app).await?;
    let of = app.store.count_events(EventQuery { after: Some(0), before: Some(last + 1), ..query }).await?;
    let replay = api::Replay {
        id: plan.id.to_string(),
        by: caller.name(),
        at: clock::now().to_string(),
        state: "running".to_owned(),
        wish,
        looked_at: 0,
        of,
        replayed: 0,
        started: 0,
        failed: 0,
        notes: BTreeSet::new(),
        error: None,
    };
    let job = Job { replay: replay.clone(), cursor: 0, last, account: account_of(caller).map(str::to_owned) };
    // First what may fail and change nothing: what is kept is carried out, whatever the caller is told.
    forget_oldest(app).await?;
    keep(app, &job).await?;
    tracing::info!(replay = replay.id, by = replay.by, events = of, "replay.started");
    go_on(app, dispatcher, plan.id, job);
    Ok(replay)
}

/// Goes on with what an earlier process left.
///
/// # Errors
/// If the store is unavailable.
pub async fn resume(app: &Arc<App>, dispatcher: &Arc<Dispatcher>) -> Result<(), crate::store::Error> {
    for job in jobs(app, "").await? {
        if job.replay.state == "running"
            && let Ok(id) = job.replay.id.parse()
        {
            go_on(app, dispatcher, id, job);
        }
    }
    Ok(())
}

/// The newest replays first.
///
/// # Errors
/// If the caller is no owner or the store is unavailable.
pub async fn list(app: &App, caller: &Caller) -> Result<api::ReplayList, Error> {
    require_any_owner(caller)?;
    let seen = jobs(app, "").await?.into_iter().filter(|job| is_of(job, caller));
    let mut replays: Vec<api::Replay> = seen.map(|job| job.replay).collect();
    replays.reverse();
    Ok(api::ReplayList { replays })
}

/// The account that a caller is confined to.
fn account_of(caller: &Caller) -> Option<&str> {
    match caller {
        Caller::Account { account, .. } => Some(&account.name),
        _ => None,
    }
}

/// Whether a replay is one that the caller may see.
fn is_of(job: &Job, caller: &Caller) -> bool {
    account_of(caller).is_none_or(|own| job.account.as_deref() == Some(own))
}

/// How a replay stands.
///
/// # Errors
/// If there is none, or the caller is no owner.
pub async fn get(app: &App, caller: &Caller, id: &str) -> Result<api::Replay, Error> {
    require_any_owner(caller)?;
    let found = jobs(app, id).await?.into_iter().find(|job| job.replay.id == id && is_of(job, caller));
    found.map(|job| job.replay).ok_or(Error::NotFound("replay"))
}

/// Ends a replay. What it started goes on.
///
/// # Errors
/// If there is none, it is over, or the caller is no owner.
pub async fn cancel(app: &App, caller: &Caller, id: &str) -> Result<api::Replay, Error> {
    let found = get(app, caller, id).await?;
    let parsed: ReplayId = id.parse().map_err(|_| Error::NotFound("replay"))?;
    if found.state != "running" {
        return Err(Error::Conflict("replay_over", format!("it is {}", found.state)));
    }
    // Whoever is told that it is cancelled must not see it go on after a crash, so that is kept before it is said.
    let kept = tokio::time::timeout(LONGEST_END, app.replays.end(parsed)).await;
    let now = get(app, caller, id).await?;
    match now.state.as_str() {
        "cancelled" => {
            tracing::info!(replay = id, by = caller.name(), "replay.cancelled");
            Ok(now)
        }
        "running" => {
            let why = match kept {
                Err(_) => "it is asked to end, and the store has not kept that yet: ask again",
                Ok(_) => "the gateway closes: ask again when it is back",
            };
            Err(crate::store::Error::Unavailable(why.into()).into())
        }
        state => Err(Error::Conflict("replay_over", format!("it is {state}"))),
    }
}

/// What is asked for, found to mean something.
struct Checked {
    plan: Plan,
    conditions: Conditions,
    query: EventQuery,
}

async fn check(app: &App, caller: &Caller, wish: &api::NewReplay) -> Result<Checked, Error> {
    require_any_owner(caller)?;
    if wish.filter == ReplayFilter::default() {
        let detail = "say which events: `source`, `event`, `outcome`, `since`, `until` or `where`";
        return Err(Error::Invalid(detail.to_owned()));
    }
    check_agents(app, caller, wish.mode, &wish.agents)?;
    wish.rate.as_deref().map(pauses::parse_rate).transpose()?;
    let within = caller.confined_to();
    let query = EventQuery { within: within.clone(), ..query(&wish.filter)? };
    check_source(app, caller, wish.filter.source.as_deref()).await?;
    let condition = wish.filter.condition.as_deref().map(Expression::condition).transpose();
    let condition = condition.map_err(|flaw| Error::Invalid(format!("`where`: {}", flaw.message)))?;
    let plan = Plan { id: clock::new_id(), mode: wish.mode, agents: wish.agents.clone(), within };
    Ok(Checked { plan, conditions: Conditions { condition, key: None }, query })
}

/// Refuses a source that neither the configuration nor any stored event names.
async fn check_source(app: &App, caller: &Caller, source: Option<&str>) -> Result<(), Error> {
    let Some(source) = source.filter(|source| !is_own(source)) else { return Ok(()) };
    let in_force = app.current();
    if in_force.config.sources.contains_key(source) && pauses::may_see_source(&in_force, caller, source) {
        return Ok(());
    }
    let within = caller.confined_to();
    let query = EventQuery { source: Some(source.to_owned()), within, limit: 1, ..EventQuery::default() };
    match app.store.events(query).await?.is_empty() {
        true => Err(Error::Invalid(format!("there is no source `{source}`, and no event is of one"))),
        false => Ok(()),
    }
}

fn query(filter: &ReplayFilter) -> Result<EventQuery, Error> {
    events::check_outcome(filter.outcome.as_deref())?;
    Ok(EventQuery {
        source: filter.source.clone(),
        event: filter.event.clone(),
        outcome: filter.outcome.clone(),
        since: parse_time("since", filter.since.as_deref())?,
        until: parse_time("until", filter.until.as_deref())?,
        limit: STEP,
        ..EventQuery::default()
    })
}

/// The next events, oldest first, up to `last`.
async fn page(app: &App, query: &EventQuery, cursor: i64, last: i64) -> Result<Vec<StoredEvent>, Error> {
    let query = EventQuery { after: Some(cursor), before: Some(last.saturating_add(1)), ..query.clone() };
    Ok(app.store.events(query).await?)
}

/// What the event starts, with its body; none if it is not to be replayed.
async fn decide(
    app: &App,
    event: &StoredEvent,
    plan: &Plan,
    conditions: &Conditions,
    filter: &ReplayFilter,
) -> Result<Option<(Vec<crate::store::Start>, crate::store::Body)>, Error> {
    // What says something again, or nobody sent, is replayed if it is asked for by name.
    if event.replay.is_some() || (is_own(&event.provider) && filter.source.is_none()) {
        return Ok(None);
    }
    let Some(body) = app.store.body(event.id).await? else {
        return Err(Error::Gone("forgotten", "what this event said was removed for good".to_owned()));
    };
    if !conditions.is_empty() {
        let (trigger, context) = (asking(event, conditions), context_of(event)?);
        let facts = || facts_of(event, &context, body.clone());
        let limit = app.current().config.gateway.condition_timeout;
        match conditions::decide(&app.conditions, LINE, &[&trigger], facts, limit).await.pop() {
            None => return Ok(None),
            Some(choice) => drop(choice.result.map_err(Error::Invalid)?),
        }
    }
    let starts = starts_of(app, event, &body, plan).await?;
    Ok(Some((starts, body)))
}

fn go_on(app: &Arc<App>, dispatcher: &Arc<Dispatcher>, id: ReplayId, job: Job) {
    let (this, dispatcher) = (Arc::clone(app), Arc::clone(dispatcher));
    app.replays.begin(id, |ended| async move { carry_out(&this, &dispatcher, id, job, ended).await });
}

async fn carry_out(app: &App, dispatcher: &Arc<Dispatcher>, id: ReplayId, mut job: Job, ended: CancellationToken) {
    let wish = job.replay.wish.clone();
    let condition = wish.filter.condition.as_deref().and_then(|text| Expression::condition(text).ok());
    let within = job.account.as_deref().map(|account| app.accounts.within(account));
    let plan = Plan { id, mode: wish.mode, agents: wish.agents.clone(), within };
    let work = Work { app, dispatcher, plan, conditions: Conditions { condition, key: None } };
    loop {
        let done = ended.run_until_cancelled(work.go_on(&mut job)).await;
        let state = match done {
            None => "cancelled",
            Some(Ok(())) => "done",
            Some(Err(Error::Store(error @ crate::store::Error::Unavailable(_)))) => {
                tracing::warn!(replay = %id, error = error.with_causes(), "replay.waits");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Some(Err(error)) => {
                job.replay.error = Some(error.to_string());
                "failed"
            }
        };
        state.clone_into(&mut job.replay.state);
        break;
    }
    let api::Replay { state, replayed, started, failed, .. } = &job.replay;
    tracing::info!(replay = %id, state, replayed, started, failed, "replay.ended");
    while let Err(error) = keep(app, &job).await {
        tracing::warn!(replay = %id, error = error.with_causes(), "replay.not_kept");
        tokio::time::sleep(RETRY).await;
    }
}

struct Work<'a> {
    app: &'a App,
    dispatcher: &'a Arc<Dispatcher>,
    plan: Plan,
    conditions: Conditions,
}

impl Work<'_> {
    async fn go_on(&self, job: &mut Job) -> Result<(), Error> {
        let filter = job.replay.wish.filter.clone();
        let query = EventQuery { within: self.plan.within.clone(), ..query(&filter)? };
        let pause = job.replay.wish.rate.as_deref().map(pauses::parse_rate).transpose()?.map(pause_of);
        let mut kept = Instant::now();
        loop {
            let events = page(self.app, &query, job.cursor, job.last).await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in events {
                let began = Instant::now();
                let started = self.replay(&event, &filter, job).await?;
                job.cursor = event.seq;
                job.replay.looked_at += 1;
                let pause = pause.filter(|_| started);
                if kept.elapsed() > KEEP_EVERY || pause.is_some_and(|pause| pause > KEEP_EVERY) {
                    keep(self.app, job).await?;
                    kept = Instant::now();
                }
                if let Some(pause) = pause {
                    tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
                }
            }
        }
    }

    /// Replays one event; whether it started anything.
    async fn replay(&self, event: &StoredEvent, filter: &ReplayFilter, job: &mut Job) -> Result<bool, Error> {
        let decided = match decide(self.app, event, &self.plan, &self.conditions, filter).await {
            Ok(None) => return Ok(false),
            Ok(Some(decided)) => decided,
            Err(Error::Store(error @ crate::store::Error::Unavailable(_))) => return Err(error.into()),
            // What cannot be read keeps nobody else from being replayed.
            Err(error) => {
                tracing::warn!(replay = job.replay.id, event = %event.id, %error, "replay.passed_over");
                job.replay.failed += 1;
                return Ok(false);
            }
        };
        let (starts, body) = decided;
        job.replay.notes.extend(starts.iter().flat_map(notes_of));
        let Some(accepted) = replay(self.dispatcher, self.app, event, body, &self.plan, starts).await? else {
            return Ok(false);
        };
        job.replay.replayed += 1;
        job.replay.started += match accepted.duplicate {
            // It was stored before the gateway was killed, and nobody counted it.
            true => accepted.outcomes.iter().filter(|outcome| outcome.kind == OutcomeKind::Started).count(),
            false => accepted.decided.iter().filter(|(_, kind)| *kind == OutcomeKind::Started).count(),
        } as u64;
        // What gathers or is held is work, too, and must not come all at once.
        Ok(accepted.decided.iter().any(|(_, kind)| matches!(kind, OutcomeKind::Started | OutcomeKind::Absorbed)))
    }
}

/// What flow control makes of a run that would be started, so that nobody counts on as many, or all at once.
fn notes_of(start: &Start) -> Vec<String> {
    let starts = start.admission == Admission::Grow;
    let Some(flow) = start.flow.as_ref().filter(|_| starts) else { return Vec::new() };
    let mut notes = Vec::new();
    let mut note = |text: &str| notes.push(format!("{}: {text}", start.agent));
    if flow.debounce.is_some() {
        note("`debounce` gathers events of a key, so there may be fewer runs");
    }
    match flow.when_busy {
        Some(WhenBusy::Attach) => {
            note("with `when_busy = \"attach\"` events of a key go together, so there may be fewer runs")
        }
        Some(WhenBusy::Skip) => {
            note("with `when_busy = \"skip\"` events of a busy key start nothing, so there may be fewer runs")
        }
        Some(WhenBusy::Replace) => note(
            "a replay replaces nothing, also with `when_busy = \"replace\"`: runs of a key are carried out one after the other",
        ),
        Some(WhenBusy::Queue) | None => {}
    }
    if flow.max_per_key.is_some() {
        note("runs of a key beyond `max_per_key` are held");
    }
    notes
}

fn pause_of(rate: Rate) -> Duration {
    rate.window / rate.count.max(1)
}

/// Those whose ids begin so, oldest first.
async fn jobs(app: &App, id: &str) -> Result<Vec<Job>, crate::store::Error> {
    let notes = app.store.notes(&format!("{PREFIX}{id}")).await?;
    Ok(notes.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect())
}

async fn keep(app: &App, job: &Job) -> Result<(), crate::store::Error> {
    // Nothing in it can fail to be JSON.
    let text = serde_json::to_string(job).unwrap_or_default();
    let kept = vec![(format!("{PREFIX}{}", job.replay.id), text)];
    app.store.note(Notes { kept, ..Notes::default() }).await
}

async fn forget_oldest(app: &App) -> Result<(), Error> {
    let over: Vec<Job> = jobs(app, "").await?.into_iter().filter(|job| job.replay.state != "running").collect();
    let surplus = over.len().saturating_sub(KEPT);
    let dropped = over.iter().take(surplus).map(|job| format!("{PREFIX}{}", job.replay.id)).collect();
    Ok(app.store.note(Notes { dropped, ..Notes::default() }).await?)
}
