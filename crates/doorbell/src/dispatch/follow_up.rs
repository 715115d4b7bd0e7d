//! Follow-ups: those who wait where an event came from (Discord, Slack's commands) hear how its run ended.
//!
//! Beside everything else: a run's end waits for nobody, and a follow-up that cannot be sent changes nothing about its run.
//! It is sent once, as far as one process can know: should the gateway die between the answer and the note of it, the
//! next start sends it again. That start looks at what ended a short while before, because those who wait do not wait long.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use doorbell_client::Outbound;
use doorbell_core::id::{EventId, RunId};
use doorbell_core::provider::{Ended, FollowUp};
use doorbell_core::run::State;
use doorbell_core::source::Source;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Dispatcher, delivery_of};
use crate::app::App;
use crate::app::subscriptions::is_subscriber;
use crate::clock;
use crate::store::{Body, Error, FollowedUp, RunQuery, StoredEvent, StoredRun, Stream};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first and the longest pause before it is sent again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Follow-ups that are on their way at once, pauses included.
const MOST_BEGUN: usize = 1000;
/// Of these, how many are being sent or read.
const MOST_SENT_AT_ONCE: usize = 8;
/// How long ago a run may have ended whose follow-up the last start of the gateway did not send.
const LOOK_BACK: Duration = Duration::from_secs(30 * 60);
/// The newest runs that are looked at for that.
const MOST_LOOKED_AT: usize = 2000;
const PAGE: usize = 200;
/// How long those that are on their way may take when the gateway closes.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// The largest body, in bytes, of an event that somebody waits for.
const LARGEST_BODY: usize = 128 * 1024;
/// The longest text, in characters; what a protocol takes may be less.
const LONGEST_TEXT: usize = 8000;
/// Lines of the log that stand for a result.
const LINES: usize = 20;
/// Lines of a log that are read for them, and lines at once.
const MOST_LINES_READ: u64 = 50_000;
const LINES_AT_ONCE: usize = 1000;
/// How often it is tried to keep that one was sent.
const NOTING: usize = 5;

/// The follow-ups of a gateway.
#[derive(Debug)]
pub(super) struct FollowUps {
    app: Arc<App>,
    outbound: Outbound,
    begun: Mutex<HashSet<RunId>>,
    /// Of the runs of one event, one is told of after the other: what is said first may be another message.
    turns: Mutex<HashMap<EventId, Weak<tokio::sync::Mutex<()>>>>,
    places: Semaphore,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Dispatcher {
    /// Why nobody is told of what an event started, although it names a place for that.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn follow_up_refused(&self, event: EventId) -> Result<Option<String>, Error> {
        self.follow_ups.refused(event).await
    }
}

impl FollowUps {
    pub(super) fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self {
            app,
            outbound: Outbound::default(),
            begun: Mutex::default(),
            turns: Mutex::default(),
            places: Semaphore::new(MOST_SENT_AT_ONCE),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    /// Whether somebody waits for the end of what an event started: with most providers nobody does.
    pub(super) fn is_awaited(&self, event: &StoredEvent, body: &Body) -> bool {
        // Who waits sends a few kilobytes; what is large is not read on the threads that carry requests.
        body.bytes.len() <= LARGEST_BODY
            && self.follow_up(event, body, &Ended { agent: "", succeeded: true, text: "", first: true }).is_some()
    }

    /// Whether somebody may wait for the end of what comes to a source in force.
    pub(super) fn are_sent(&self) -> bool {
        self.app.current().config.sources.values().any(|source| source.provider().follows_up())
    }

    /// Whether somebody may wait for the end of this run.
    fn may_be_told_of(&self, run: &StoredRun) -> bool {
        let in_force = self.app.current();
        let provider = run.event_type.split('.').next();
        let mut providers = in_force.config.sources.values().map(|source| source.provider());
        is_told_of(run) && providers.any(|one| one.follows_up() && Some(one.name()) == provider)
    }

    /// Tells that a run that nobody carries out is over, if somebody waits for it.
    pub(super) async fn consider_dropped(self: &Arc<Self>, id: RunId) {
        match self.app.store.run(id).await {
            Ok(Some((run, _))) if self.may_be_told_of(&run) => self.consider(id),
            Ok(_) => {}
            Err(error) => tracing::error!(run = %id, error = error.with_causes(), "run.not_followed_up"),
        }
    }

    /// Looks for what the last start of the gateway left unsaid.
    pub(super) fn resume(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let looked = this.closing.run_until_cancelled(this.look_back()).await;
            if let Some(Err(error)) = looked {
                tracing::warn!(error = error.with_causes(), "follow_ups.not_resumed");
            }
        });
    }

    async fn look_back(self: &Arc<Self>) -> Result<(), Error> {
        let since = clock::now().before(LOOK_BACK);
        let (mut before, mut looked_at) = (None, 0);
        while looked_at < MOST_LOOKED_AT {
            let query = RunQuery { before, limit: PAGE, ..RunQuery::default() };
            let page = self.app.store.runs(query).await?;
            looked_at += PAGE;
            before = page.last().map(|run| run.seq);
            let ended = page.iter().filter(|run| run.finished_at.is_some_and(|at| at >= since));
            ended.filter(|run| self.may_be_told_of(run)).for_each(|run| self.consider(run.id));
            if page.len() < PAGE {
                break;
            }
        }
        Ok(())
    }

    /// Lets those that are on their way arrive, for a moment. The next start goes on with the others.
    pub(super) async fn close(&self) {
        self.tasks.close();
        if tokio::time::timeout(LAST_WAIT, self.tasks.wait()).await.is_err() {
            self.closing.cancel();
            self.tasks.wait().await;
        }
    }

    /// Tells how a run ended, if it did and somebody waits for it.
    pub(super) fn consider(self: &Arc<Self>, run: RunId) {
        {
            let mut begun = self.begun();
            if begun.len() >= MOST_BEGUN {
                tracing::error!(%run, "run.not_followed_up: too many are on their way");
                return;
            }
            if !begun.insert(run) {
                return;
            }
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let told = this.closing.run_until_cancelled(this.tell(run)).await;
            match told {
                // What was sent and could not be noted is never sent again by this process.
                Some(Ok(Told::Unnoted)) => return,
                Some(Err(error)) => tracing::error!(%run, error = error.with_causes(), "run.not_followed_up"),
                _ => {}
            }
            this.begun().remove(&run);
        });
    }

    async fn tell(&self, id: RunId) -> Result<Told, Error> {
        let Some(event) = self.event_of(id).await? else { return Ok(Told::Noted) };
        let turn = self.turn(event);
        let _turn = turn.lock().await;
        let Some((run, source, follow_up)) = self.prepare(id).await? else { return Ok(Told::Noted) };
        let result = self.send(&run, &source, &follow_up).await;
        self.app.untold.end(id);
        match &result {
            Ok(()) => tracing::info!(run = %id, agent = run.agent, "run.followed_up"),
            Err(error) => tracing::error!(run = %id, agent = run.agent, error, "run.not_followed_up"),
        }
        let note = FollowedUp { at: clock::now(), error: result.err() };
        for _ in 0..NOTING {
            match self.app.store.note_follow_up(id, note.clone()).await {
                Ok(()) => return Ok(Told::Noted),
                Err(error) => tracing::error!(run = %id, error = error.with_causes(), "run.follow_up_not_noted"),
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        Ok(Told::Unnoted)
    }

    async fn event_of(&self, id: RunId) -> Result<Option<EventId>, Error> {
        let Ok(_place) = self.places.acquire().await else { return Ok(None) };
        Ok(self.app.store.run(id).await?.map(|(run, _)| run.event))
    }

    fn turn(&self, event: EventId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.get(&event).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(event, Arc::downgrade(&turn));
        turn
    }

    /// Whether nobody was told of another run of the event.
    async fn is_first(&self, run: &StoredRun) -> Result<bool, Error> {
        let query = RunQuery { event: Some(run.event), limit: PAGE, ..RunQuery::default() };
        let told = |other: &StoredRun| other.follow_up.as_ref().is_some_and(|told| told.error.is_none());
        Ok(!self.app.store.runs(query).await?.iter().any(|other| other.id != run.id && told(other)))
    }

    /// The run, if it is over and nobody was told, with its event's source and what is to be sent.
    async fn prepare(&self, id: RunId) -> Result<Option<(StoredRun, String, FollowUp)>, Error> {
        let Ok(_place) = self.places.acquire().await else { return Ok(None) };
        let store = &self.app.store;
        let Some((run, _)) = store.run(id).await?.filter(|(run, _)| is_told_of(run)) else { return Ok(None) };
        let Some(event) = store.event(run.event).await?.filter(|event| event.forgotten_at.is_none()) else {
            return Ok(None);
        };
        let Some(body) = store.body(run.event).await? else { return Ok(None) };
        if !self.is_awaited(&event, &body) {
            return Ok(None);
        }
        let text = shorten(match (run.state, &run.result) {
            (State::Succeeded, Some(result)) => text_of(result),
            (State::Succeeded, None) => self.last_lines(&run).await?,
            // Why is for those who may see the run: it may say what is inside.
            (State::Cancelled, _) => format!("It was cancelled ({id})."),
            (State::Dropped, _) => format!("It was not started: too much waits already ({id})."),
            (State::Superseded, _) => format!("A newer one took its place ({id})."),
            _ => format!("It failed ({id})."),
        });
        let (succeeded, first) = (run.state == State::Succeeded, self.is_first(&run).await?);
        let ended = Ended { agent: &run.agent, succeeded, text: &text, first };
        let follow_up = self.follow_up(&event, &body, &ended);
        Ok(follow_up.map(|follow_up| (run, event.source, follow_up)))
    }

    /// Why nobody is told of what an event started, although it names a place for that.
    async fn refused(&self, event: EventId) -> Result<Option<String>, Error> {
        let in_force = self.app.current();
        let Some(event) = self.app.store.event(event).await? else { return Ok(None) };
        let source = in_force.config.sources.get(&event.source);
        let source = source.filter(|source| source.provider().name() == event.provider);
        let Some(source) = source.filter(|source| source.provider().follows_up()) else { return Ok(None) };
        if event.body_size > LARGEST_BODY as u64 {
            return Ok(None);
        }
        let Some(body) = self.app.store.body(event.id).await? else { return Ok(None) };
        Ok(source.provider().follow_up_refused(&delivery_of(&event, &body)))
    }

    /// What the event's provider wants to be told.
    fn follow_up(&self, event: &StoredEvent, body: &Body, ended: &Ended<'_>) -> Option<FollowUp> {
        // Who is not proved does not say where a result goes.
        event.verified_by.as_ref()?;
        let in_force = self.app.current();
        let source: Option<&Arc<Source>> = in_force.config.sources.get(&event.source);
        let source = source.filter(|source| source.provider().name() == event.provider)?;
        source.provider().follow_up(&delivery_of(event, body), ended)
    }

    /// The last lines of what the run printed, where it left no result.
    async fn last_lines(&self, run: &StoredRun) -> Result<String, Error> {
        let (mut after, mut kept) = (0, std::collections::VecDeque::with_capacity(LINES));
        while after < MOST_LINES_READ {
            let page = self.app.store.read_log(run.id, after, LINES_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (_, line) in page {
                if line.stream == Stream::Stdout && line.attempt == run.attempt {
                    if kept.len() == LINES {
                        kept.pop_front();
                    }
                    kept.push_back(line.text);
                }
            }
        }
        let text = Vec::from(kept).join("\n");
        Ok(if text.trim().is_empty() { "Done.".to_owned() } else { text.trim().to_owned() })
    }

    async fn send(&self, run: &StoredRun, source: &str, follow_up: &FollowUp) -> Result<(), String> {
        let FollowUp { method, url, body, until } = follow_up;
        let mut pause = FIRST_PAUSE;
        let mut said = "nobody waits for it any more".to_owned();
        loop {
            if clock::now() > *until {
                return Err(format!("too late: {said}"));
            }
            let reply = {
                let Ok(_place) = self.places.acquire().await else { return Err("the gateway closes".to_owned()) };
                self.outbound.ask(method, url, Some(body.clone()), PATIENCE).await
            };
            let wanted = match reply {
                Ok(reply) if (200..300).contains(&reply.status) => return Ok(()),
                Ok(reply) if reply.status == 429 || reply.status >= 500 => {
                    said = format!("answered with {}", reply.status);
                    reply.retry_after
                }
                Ok(reply) => return Err(format!("answered with {}", reply.status)),
                Err(error) => {
                    said = error;
                    None
                }
            };
            let wait = wanted.unwrap_or(pause);
            if clock::now().after(wait) > *until {
                return Err(format!("{said}, until it was too late"));
            }
            tracing::warn!(run = %run.id, agent = run.agent, source, said, again_in_ms = wait.as_millis() as u64,
                "follow_up.not_sent");
            self.app.untold.note(run.id, &said);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn begun(&self) -> MutexGuard<'_, HashSet<RunId>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is stored what became of a follow-up.
enum Told {
    Noted,
    Unnoted,
}

fn is_told_of(run: &StoredRun) -> bool {
    run.state.is_final() && run.follow_up.is_none() && !is_subscriber(&run.agent)
}

/// A result as people read it.
fn text_of(result: &str) -> String {
    match serde_json::from_str(result) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(fields)) => {
            let text = ["text", "message", "summary"].iter().find_map(|field| fields.get(*field)?.as_str());
            text.map_or_else(|| Value::Object(fields.clone()).to_string(), str::to_owned)
        }
        Ok(other) => other.to_string(),
        Err(_) => result.to_owned(),
    }
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_said_as_people_read_it() {
        for (result, text) in [
            (r#""A bug.""#, "A bug."),
            (r#"{"cost":1,"text":"A bug."}"#, "A bug."),
            (r#"{"message":"first","summary":"second"}"#, "first"),
            (r#"{"text":7}"#, r#"{"text":7}"#),
            ("[1, 2]", "[1,2]"),
            ("null", "null"),
            ("no JSON", "no JSON"),
        ] {
            assert_eq!(text_of(result), text);
        }
        assert_eq!(shorten("ä".repeat(LONGEST_TEXT + 1)).chars().count(), LONGEST_TEXT + 1);
    }
}
