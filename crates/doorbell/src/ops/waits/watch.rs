//! The watch: events are held against what runs wait for.
//!
//! It reads events from the store, in the order of commits, from where each wait has got to. So nothing is missed that was
//! answered, whoever was told of it; what ingest tells is a hint, and while no run waits, it tells nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::condition::Conditions;
use doorbell_core::event::{Context, event_type};
use doorbell_core::id::RunId;
use doorbell_core::trigger::{Candidate, Trigger, Verdict};
use doorbell_core::wait::{Resumed, Wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::triggers_of;
use crate::app::{App, Snapshot};
use crate::clock;
use crate::conditions::{self, Unanswered};
use crate::dispatch::Dispatcher;
use crate::ops::triggers::facts_of;
use crate::store::{Error, EventQuery, LogLine, Resume, StoredEvent, Stream, Waiting};

/// How often it is looked without being told to, while runs wait.
const LOOK: Duration = Duration::from_secs(5);
/// How long to wait before it is tried again when something is not available.
const AGAIN: Duration = Duration::from_millis(500);
/// Events that are read at once.
const STEP: usize = 500;
/// Conditions that are asked at once.
const TOGETHER: usize = 16;
/// Lines of a run's log that say why a condition failed, for each wait.
const MOST_LINES: usize = 10;
/// Who waits for conditions here, beside the sources (whose names have no space).
const LINE: &str = "runs that wait";

/// A wait that is watched.
struct Watched {
    waiting: Waiting,
    /// What an event must be like.
    triggers: Vec<Trigger>,
    /// The sequence up to which events were held against it.
    looked: i64,
    /// How often its condition failed.
    failed: usize,
}

/// Begins to watch, until `closing`.
pub fn start(app: Arc<App>, dispatcher: Arc<Dispatcher>, closing: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut watch = Watch { app, dispatcher, watched: HashMap::new(), any: true, in_force: None };
        // Some may wait since an earlier start.
        watch.app.waits.begin();
        closing.run_until_cancelled(watch.go_on()).await;
    })
}

struct Watch {
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
    watched: HashMap<RunId, Watched>,
    /// Whether any run waits for an event or for the end of another one.
    any: bool,
    /// The configuration that the triggers were made by.
    in_force: Option<Arc<Snapshot>>,
}

impl Watch {
    async fn go_on(&mut self) {
        let mut again = true;
        loop {
            let pause = match self.look(again).await {
                Ok(()) if !self.any => {
                    self.app.waits.told().await;
                    again = false;
                    continue;
                }
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::error!(error = error.with_causes(), "waits.look_failed");
                    // What is damaged stays so.
                    if matches!(error, Error::Corrupt(_)) { LOOK } else { AGAIN }
                }
            };
            again = tokio::time::timeout(pause, self.app.waits.told()).await.is_err();
        }
    }

    /// Holds what came against what runs wait for. `again`: also looks for those that wait no more.
    async fn look(&mut self, again: bool) -> Result<(), Error> {
        if self.app.waits.take_begun() || again {
            let waiting = self.app.store.waiting().await.inspect_err(|_| self.app.waits.begin())?;
            let for_run = waiting.iter().any(|one| matches!(one.run.wait, Some(Wait::Run { .. })));
            self.any = !waiting.is_empty();
            self.take_over(waiting);
            self.app.waits.set(!self.watched.is_empty(), for_run);
        }
        let in_force = self.app.current();
        if !self.in_force.as_ref().is_some_and(|before| Arc::ptr_eq(before, &in_force)) {
            for watched in self.watched.values_mut() {
                watched.triggers = triggers(&in_force, &watched.waiting);
            }
            self.in_force = Some(in_force);
        }
        while self.hold_page().await? {}
        Ok(())
    }

    /// Keeps those that are watched already where they are.
    fn take_over(&mut self, waiting: Vec<Waiting>) {
        let in_force = self.app.current();
        let mut before = std::mem::take(&mut self.watched);
        for waiting in waiting {
            if !matches!(waiting.run.wait, Some(Wait::Event { .. })) {
                continue;
            }
            let run = waiting.run.id;
            let same = before.remove(&run).filter(|watched| watched.waiting.run.attempt == waiting.run.attempt);
            let watched = same.unwrap_or_else(|| {
                let (triggers, looked) = (triggers(&in_force, &waiting), waiting.heard);
                Watched { waiting, triggers, looked, failed: 0 }
            });
            self.watched.insert(run, watched);
        }
    }

    /// Holds some events against the waits that are furthest behind, and some against those that are furthest, so that one
    /// that began long ago keeps no other from what comes now. Whether there may be more.
    async fn hold_page(&mut self) -> Result<bool, Error> {
        let looked = || self.watched.values().map(|watched| watched.looked);
        let (Some(first), Some(last)) = (looked().min(), looked().max()) else { return Ok(false) };
        let mut more = self.hold_after(first).await?;
        if last > first {
            more |= self.hold_after(last).await?;
        }
        Ok(more)
    }

    async fn hold_after(&mut self, after: i64) -> Result<bool, Error> {
        let query = EventQuery { after: Some(after), limit: STEP, ..EventQuery::default() };
        let events = self.app.store.events(query).await?;
        // Only those that have seen all before it: the others are led here step by step.
        let reached = |watched: &Watched, seq: i64| watched.looked >= after && watched.looked < seq;
        for event in &events {
            self.hold(event, reached).await?;
            for watched in self.watched.values_mut().filter(|watched| reached(watched, event.seq)) {
                watched.looked = event.seq;
            }
        }
        Ok(events.len() == STEP)
    }

    /// Holds one event against the waits that have not seen it.
    async fn hold(&mut self, event: &StoredEvent, reached: impl Fn(&Watched, i64) -> bool) -> Result<(), Error> {
        // What is said again is no news, and what is forgotten says nothing.
        if event.replay.is_some() || event.forgotten_at.is_some() {
            return Ok(());
        }
        let Ok(context) = serde_json::from_str::<Context>(&event.context) else { return Ok(()) };
        let candidate = Candidate { source: &event.source, handshake: event.handshake, context: &context };
        let mut matched: Vec<(RunId, Trigger)> = Vec::new();
        for (run, watched) in self.watched.iter().filter(|(_, watched)| reached(watched, event.seq)) {
            if let Some(trigger) = watched.triggers.iter().find(|trigger| trigger.matches(candidate)) {
                matched.push((*run, trigger.clone()));
            }
        }
        if matched.is_empty() {
            return Ok(());
        }
        for chunk in matched.chunks(TOGETHER) {
            let verdicts = self.ask(event, candidate, &context, chunk).await?;
            for ((run, _), verdict) in chunk.iter().zip(verdicts) {
                self.act(*run, event, &verdict).await?;
            }
        }
        Ok(())
    }

    /// What the conditions of those say whose filters passed.
    async fn ask(
        &self,
        event: &StoredEvent,
        candidate: Candidate<'_>,
        context: &Context,
        asked: &[(RunId, Trigger)],
    ) -> Result<Vec<Verdict>, Error> {
        let judged: Vec<_> =
            asked.iter().map(|(_, trigger)| (trigger.explain(candidate), trigger.conditions.clone())).collect();
        if judged.iter().all(|(_, conditions)| conditions.is_empty()) {
            return Ok(judged.into_iter().map(|(verdict, _)| verdict).collect());
        }
        loop {
            let body = match self.app.store.body(event.id).await {
                Ok(Some(body)) => body,
                // It may have been forgotten a moment ago.
                Ok(None) => return Ok(refused(judged, "what it said was removed for good")),
                Err(Error::Corrupt(_)) => return Ok(refused(judged, "`where` failed: its body cannot be read")),
                Err(error) => return Err(error),
            };
            let facts = facts_of(event, context, body);
            match conditions::explain_apart(&self.app.conditions, LINE, judged.clone(), facts).await {
                Ok(verdicts) => return Ok(verdicts),
                // Nothing may be missed because there was much to do.
                Err(Unanswered::Busy(_)) => tokio::time::sleep(AGAIN).await,
                Err(why) => return Ok(refused(judged, &format!("`where` failed: {why}"))),
            }
        }
    }

    async fn act(&mut self, run: RunId, event: &StoredEvent, verdict: &Verdict) -> Result<(), Error> {
        let Some(watched) = self.watched.get_mut(&run) else { return Ok(()) };
        if verdict.matched {
            let event_type = event_type(&event.provider, &event.event, event.action.as_deref());
            let by = Resumed::Event { event_id: event.id, event_type, timestamp: None, context: None };
            let (attempt, now) = (watched.waiting.run.attempt, clock::now());
            self.dispatcher.resume(Resume { run, attempt, by, heard: Some(event.seq), now }).await?;
            self.watched.remove(&run);
            return Ok(());
        }
        let said = "`where` failed";
        if verdict.reason.starts_with(said) && watched.failed < MOST_LINES {
            watched.failed += 1;
            let (attempt, text) =
                (watched.waiting.run.attempt, format!("it does not go on by {}: {}", event.id, verdict.reason));
            tracing::warn!(%run, event = %event.id, why = verdict.reason, "wait.filter_error");
            let line = LogLine { at: clock::now(), attempt, stream: Stream::System, text };
            self.app.store.append_log(run, vec![line]).await?;
        }
        Ok(())
    }
}

fn refused(judged: Vec<(Verdict, Conditions)>, why: &str) -> Vec<Verdict> {
    let refuse = |(mut verdict, _): (Verdict, Conditions)| {
        verdict.refuse(why.to_owned());
        verdict
    };
    judged.into_iter().map(refuse).collect()
}

/// None match, if its agent or its source is not there any more; they may come back.
fn triggers(in_force: &Arc<Snapshot>, waiting: &Waiting) -> Vec<Trigger> {
    let wait = waiting.run.wait.as_ref();
    wait.and_then(|wait| triggers_of(in_force, &waiting.run.agent, wait).ok()).unwrap_or_default()
}
