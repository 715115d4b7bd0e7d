//! Schedules: starts agents by the clock, beside everything else.
//!
//! A tick is an event whose delivery key is its time, so it is claimed in the store: however often a gateway dies between
//! its parts, or comes back, each tick starts its agent once. How far each schedule has been looked at is kept too; what
//! lies between that and now was missed, and the schedule says what becomes of it. A paused agent's ticks make a run that is
//! held, and those that follow go with it, unless each is to be made up for; those of a disabled agent are stored, and start
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use doorbell_core::event::{Context, SCHEDULE};
use doorbell_core::schedule::{Missed, Schedule};
use doorbell_core::time::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Snapshot};
use crate::clock;
use crate::config::Agent;
use crate::dispatch::{Cause, Dispatcher, admission};
use crate::store::{Admission, Error, Notes};

/// How late a tick may start without having been missed.
const GRACE: Duration = Duration::from_secs(60);
/// How often the clock is looked at at least: it may have been set.
const LOOK: Duration = Duration::from_secs(15);
/// The pause after the store failed.
const RETRY: Duration = Duration::from_secs(1);
/// How the keys begin among the notes.
const PREFIX: &str = "schedule/";

/// Starts agents by the clock until `closing` is cancelled.
pub fn start(app: Arc<App>, dispatcher: Arc<Dispatcher>, closing: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let clock = Clock { app, dispatcher };
        tokio::select! {
            () = closing.cancelled() => {}
            () = clock.serve() => {}
        }
    })
}

struct Clock {
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
}

/// How far each schedule was looked at, by its key among the notes.
type Seen = HashMap<String, Timestamp>;

impl Clock {
    async fn serve(&self) {
        let mut configuration = self.app.in_force.follow();
        let mut seen = None;
        loop {
            let in_force = Arc::clone(&configuration.borrow_and_update());
            let pause = match self.look(&in_force, &mut seen).await {
                Ok(next) => next.map_or(LOOK, |next| next.since(clock::now()).min(LOOK)),
                Err(error) => {
                    tracing::error!(error = error.with_causes(), "schedules.failed: they are looked at again");
                    RETRY
                }
            };
            tokio::select! {
                _ = configuration.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts what is due. Answers when the next tick will be.
    async fn look(&self, in_force: &Snapshot, seen: &mut Option<Seen>) -> Result<Option<Timestamp>, Error> {
        if seen.is_none() {
            *seen = Some(read(&self.app.store.notes(PREFIX).await?));
        }
        let Some(seen) = seen else { return Ok(None) };
        self.keep(in_force, seen).await?;
        let mut next = None;
        for agent in in_force.config.agents.values() {
            for schedule in &agent.schedules {
                let due = self.start_due(agent, schedule, seen).await?;
                next = [next, due].into_iter().flatten().min();
            }
        }
        Ok(next)
    }

    /// Has each schedule begin now that was not there before, and forgets those that are gone. Those of an agent that is declared and
    /// not in force, which a repaired file brings back, are not.
    ///
    /// One that was looked at in the future goes on from now too: the clock was ahead then, and without this no tick would
    /// come until it is that late again. A tick that was started meanwhile is due once more when its time really comes, but
    /// its delivery key is taken: it counts as a duplicate of the event that there is, and starts nothing.
    async fn keep(&self, in_force: &Snapshot, seen: &mut Seen) -> Result<(), Error> {
        let agents = in_force.config.agents.values();
        let keys = agents.flat_map(|agent| agent.schedules.iter().map(|schedule| key(agent, schedule)));
        let now = clock::now();
        let is_past = |at: &Timestamp| *at <= now.after(clock::SLACK);
        let wanted: BTreeMap<String, Timestamp> =
            keys.map(|key| (key.clone(), seen.get(&key).copied().filter(is_past).unwrap_or(now))).collect();
        let kept: Vec<_> = wanted.iter().filter(|(key, at)| seen.get(*key) != Some(*at)).map(note).collect();
        for (schedule, until) in seen.iter().filter(|(key, at)| wanted.contains_key(*key) && !is_past(at)) {
            tracing::warn!(schedule, %until, "schedule.clock_set_back: its ticks go on from now");
        }
        let stays = |key: &String| wanted.contains_key(key) || may_come_back(in_force, key);
        let dropped: Vec<String> = seen.keys().filter(|key| !stays(key)).cloned().collect();
        if !kept.is_empty() || !dropped.is_empty() {
            self.app.store.note(Notes { kept, dropped, ..Notes::default() }).await?;
            seen.retain(|key, _| stays(key));
            seen.extend(wanted);
        }
        Ok(())
    }

    async fn start_due(&self, agent: &Agent, schedule: &Schedule, seen: &mut Seen) -> Result<Option<Timestamp>, Error> {
        let (key, seed) = (key(agent, schedule), seed(agent));
        let now = clock::now();
        let since = seen.get(&key).copied().unwrap_or(now);
        let ticks = schedule.ticks(since, now, GRACE, seed);
        if ticks.skipped > 0 {
            tracing::warn!(agent = agent.name, schedule = schedule.text(), ticks = ticks.skipped, "schedule.missed");
        }
        for (tick, missed) in &ticks.due {
            self.start_tick(agent, schedule, *tick, *missed).await?;
        }
        if let Some(through) = ticks.through {
            self.app.store.note(Notes { kept: vec![note((&key, &through))], ..Notes::default() }).await?;
            seen.insert(key, through);
        }
        Ok(schedule.next_tick(ticks.through.unwrap_or(since)).map(|tick| schedule.start_of(tick, seed)))
    }

    /// Whether ticks gather in one run: else a pause of a week would start a week's runs at once when it is over.
    fn gathers(&self, agent: &Agent, schedule: &Schedule) -> bool {
        schedule.missed() != Missed::All && self.app.pauses.holds(&agent.name).is_some()
    }

    async fn start_tick(&self, agent: &Agent, schedule: &Schedule, tick: Timestamp, missed: u64) -> Result<(), Error> {
        let mut context = Context::default();
        context.set("event", "tick");
        context.set("schedule", schedule.text());
        context.set("timezone", schedule.zone_name());
        context.set("scheduled_for", tick.to_string());
        if missed > 0 {
            context.set("missed", i64::try_from(missed).unwrap_or(i64::MAX));
        }
        let body = json!({ "schedule": schedule.text(), "timezone": schedule.zone_name(),
            "scheduled_for": tick.to_string(), "missed": missed });
        let cause = Cause {
            kind: SCHEDULE,
            event: "tick".to_owned(),
            action: None,
            key: format!("tick:{}:{}:{}", agent.name, schedule.identity(), tick.as_millis()),
            id: None,
            context,
            body: body.to_string().into_bytes(),
            admission: admission(agent),
            attach: self.gathers(agent, schedule).then(|| format!("schedule {}", schedule.identity())),
        };
        if self.dispatcher.start_agent(&agent.name, cause.clone()).await?.is_none() {
            let admission = Admission::Skip("its queue was full, and rejects".to_owned());
            self.dispatcher.start_agent(&agent.name, Cause { admission, ..cause }).await?;
        }
        tracing::info!(agent = agent.name, schedule = schedule.text(), tick = %tick, missed, "schedule.tick");
        Ok(())
    }
}

fn key(agent: &Agent, schedule: &Schedule) -> String {
    format!("{PREFIX}{}/{}", agent.name, schedule.identity())
}

/// The same at every start and in every release: jitter must not move when the gateway starts again.
fn seed(agent: &Agent) -> u64 {
    let digest = digest::digest(&digest::SHA256, agent.name.as_bytes());
    digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Whether a schedule is of an agent that is declared, and not in force.
fn may_come_back(in_force: &Snapshot, key: &str) -> bool {
    let agent = key.strip_prefix(PREFIX).and_then(|key| key.split_once('/')).map(|(agent, _)| agent);
    let declared = agent.and_then(|agent| in_force.config.declared.get(agent));
    declared.is_some_and(|declared| !declared.is_in_force())
}

fn note((key, at): (&String, &Timestamp)) -> (String, String) {
    (key.clone(), at.as_millis().to_string())
}

fn read(notes: &[(String, String)]) -> Seen {
    let of = notes.iter().filter(|(key, _)| key.starts_with(PREFIX));
    of.filter_map(|(key, at)| Some((key.clone(), Timestamp::from_millis(at.parse().ok()?)))).collect()
}
