//! Carrying one run out: from its claim to what becomes of it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use doorbell_core::envelope::{Companion, Envelope, encode_body};
use doorbell_core::event::{AGENT, Context, MANUAL, event_type, is_own};
use doorbell_core::id::RunId;
use doorbell_core::run::{self, Outcome, State, Transition};
use doorbell_core::time::Timestamp;
use doorbell_core::wait::Wait;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};

use super::breaker::{LONGEST_START_PAUSE, Sign};
use super::subscribers::subscriber_of;
use super::waits::told;
use super::{Dispatcher, InFlight, delivery_of, journal};
use crate::app::{Notice, Pause, Paused, Snapshot};
use crate::clock;
use crate::config::{Agent, CommandRuntime, HttpRuntime, Runtime};
use crate::runtime::{self, Answered, Call, Ended, Job, Stop};
use crate::store::{Body, Claimed, Error, Finish, Lease, LogLine, Process, StoredEvent, StoredRun};
use crate::telemetry::AttemptTrace;

/// Lines of a log on their way to the store.
const LINES_ON_THE_WAY: usize = 4096;
/// Bodies larger than this are not read on the threads that carry requests.
const LARGE: usize = 128 * 1024;
/// The first and the longest wait before a run's end is stored again, when the store is unavailable.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How long it is tried when the gateway closes.
const LAST_RETRIES: Duration = Duration::from_secs(3);

/// Takes a run out of the register when its carrier ends, however it ends.
struct Registered<'a>(&'a Dispatcher, RunId, Lease);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.0.in_flight();
        // The next try of the run may be there already.
        if in_flight.get(&self.1).is_some_and(|flight| flight.lease == self.2) {
            in_flight.remove(&self.1);
        }
    }
}

impl Dispatcher {
    /// Carries a claimed run out and stores its end. Answers what that says about where it was carried out.
    pub(super) async fn carry(&self, agent: Arc<Agent>, claimed: Claimed) -> Sign {
        let Claimed { run, lease, event, body } = claimed;
        let (stop, stopped) = watch::channel(None);
        self.in_flight().insert(run.id, InFlight { lease, stop, wait: None });
        let _registered = Registered(self, run.id, lease);
        if self.handing_back.is_cancelled() {
            self.stop(run.id, None, Stop::Shutdown);
        }
        let subscriber = subscriber_of(&agent);
        let awaited = subscriber.is_none() && self.follow_ups.is_awaited(&event, &body);
        self.app.activity.tell(|| Notice::Run(Arc::new(run.clone())));
        tracing::info!(run = %run.id, agent = agent.name, event = %run.event, event_type = run.event_type,
            attempt = run.attempt, waited_ms = waited(&run).as_millis() as u64, "run.started");
        if run.attempt == 1 {
            self.app.metrics.count_first_start(&agent.name, waited(&run));
        }
        let started = clock::now();
        let trace = self.app.traces.begin_attempt(&run);
        let variables = trace.variable().into_iter().collect();
        let carried = async {
            if let Some(subscriber) = subscriber {
                return self.deliver(&agent, subscriber, &event, stopped).await;
            }
            match (self.envelope(&run, event, body).await, &agent.runtime) {
                (Ok(envelope), Runtime::Command(command)) => {
                    self.attempt((&agent, command), &run, lease, envelope, stopped, variables).await.into()
                }
                (Ok(envelope), Runtime::Http(http)) => {
                    self.call(&agent, Arc::clone(http), lease, envelope, stopped, variables).await
                }
                // Its desk takes no such run: workers fetch them.
                (Ok(_), Runtime::Worker) => Ended::without_process(Outcome::HandedBack).into(),
                (Err(error), _) => Ended::without_process(unreadable(&error)).into(),
            }
        };
        // The look goes on while the files of the try are written.
        let ((), answered) = tokio::join!(self.heed_cancel(run.id), carried);
        let took = clock::now().since(started);
        if answered.gone {
            self.pause_gone(&agent.name, run.id).await;
        }
        let sign = Sign::of(&answered);
        match answered.ended {
            Some(ended) => {
                let ended = self.heed_wait(run.id, lease, ended);
                let wait = self.heed_end(&agent, &run, &ended.outcome, started).or(answered.wait);
                self.finish(&agent, &run, lease, (ended, wait), took, trace).await;
            }
            None => {
                self.heed_start(&agent.name, Sign::Reached);
                self.leave(&agent, &run, lease).await;
                return sign;
            }
        }
        if awaited {
            self.follow_ups.consider(run.id);
        }
        sign
    }

    /// Notes what the end of a try that began at `started` says about starts. Answers how long a run waits that could not be started.
    fn heed_end(&self, agent: &Agent, run: &StoredRun, outcome: &Outcome, started: Timestamp) -> Option<Duration> {
        let pause = self.heed_start(&agent.name, start_of(agent, outcome))?;
        // The older it is, the less often: it may be what is too large, and each time its agent pauses.
        Some(pause.max(started.since(run.created_at).min(2 * LONGEST_START_PAUSE)))
    }

    /// A URL that says it is gone for good is not asked again until somebody resumes its agent.
    async fn pause_gone(&self, agent: &str, run: RunId) {
        let whose = Paused::Agent(agent.to_owned());
        let why = Some(format!("it answered {run} with 410 Gone"));
        let pause = Pause { by: "its URL".to_owned(), at: clock::now(), why, resuming: None };
        // Whoever paused it said why, and is the one to ask.
        let replaces = |was: Option<&Pause>| was.is_none_or(|was| was.resuming.is_some());
        match self.app.pauses.put_if(self.app.store.as_ref(), whose, pause, replaces).await {
            Ok(true) => {
                tracing::warn!(agent, %run, "agent.gone: its URL answered with 410, so it is paused");
                self.settle_pauses();
            }
            Ok(false) => tracing::warn!(agent, %run, "agent.gone: its URL answered with 410; it is paused already"),
            // The next run finds it gone again.
            Err(error) => tracing::error!(agent, error = error.with_causes(), "agent.not_paused"),
        }
    }

    /// A cancel that came between the claim and the register found nobody to tell.
    async fn heed_cancel(&self, run: RunId) {
        if let Ok(Some((run, _))) = self.app.store.run(run).await
            && let Some(by) = run.cancel_requested
        {
            self.stop(run.id, None, Stop::Cancel(by));
        }
    }

    async fn attempt(
        &self,
        (agent, command): (&Arc<Agent>, &Arc<CommandRuntime>),
        run: &StoredRun,
        lease: Lease,
        envelope: Envelope,
        stopped: watch::Receiver<Option<Stop>>,
        trace: Vec<(&'static str, String)>,
    ) -> Ended {
        let (lines, received) = mpsc::channel::<LogLine>(LINES_ON_THE_WAY);
        let journal = tokio::spawn(journal::keep(Arc::clone(&self.app), run.id, received, self.closing.clone()));
        let token = self.app.access.issue_token(run.id, &agent.name);
        let job = Job {
            agent: Arc::clone(agent),
            command: Arc::clone(command),
            envelope,
            folder: self.run_folder(run.id),
            url: self.app.api_url().to_owned(),
            token: token.secret().clone(),
            inherited: self.inherited.clone(),
            trace,
        };
        let mark = |process: Process| async move {
            self.heed_start(&agent.name, Sign::Reached);
            match self.app.store.mark_process(run.id, lease, process).await {
                Ok(_) => {}
                Err(error) => tracing::error!(run = %run.id, error = error.with_causes(), "run.mark_failed"),
            }
        };
        let ended = runtime::carry_out(job, &self.guard, mark, lines, stopped).await;
        if let Err(error) = journal.await {
            tracing::error!(run = %run.id, %error, "log.journal_failed");
        }
        ended
    }

    /// Asks the agent's URL.
    async fn call(
        &self,
        agent: &Agent,
        http: Arc<HttpRuntime>,
        lease: Lease,
        envelope: Envelope,
        stopped: watch::Receiver<Option<Stop>>,
        trace: Vec<(&'static str, String)>,
    ) -> Answered {
        let callback = self.callback_of(envelope.run_id, lease, agent.timeout);
        let call = Call { runtime: http, timeout: agent.timeout, envelope, callback, trace };
        runtime::call(call, &self.outbound, stopped).await
    }

    async fn finish(
        &self,
        agent: &Agent,
        run: &StoredRun,
        lease: Lease,
        (ended, wait): (Ended, Option<Duration>),
        took: Duration,
        trace: AttemptTrace,
    ) {
        let now = clock::now();
        let seed = u64::from_be_bytes(clock::random());
        let mut transition = run::next(&agent.retries, run.progress, ended.outcome, now, seed);
        if let Some(wait) = wait {
            transition = transition.tried_again_at(now.after(wait));
        }
        if let Some(why) = ended.ignored.filter(|_| transition.state == State::Succeeded) {
            transition.reason = format!("{}, but {why}", transition.reason);
        }
        let finish = Finish {
            run: run.id,
            lease,
            at: now,
            ended: ended.ended.to_owned(),
            exit_code: ended.exit_code,
            transition,
            result: ended.result,
            in_time: false,
        };
        let exit_code = ended.exit_code;
        let Some(finish) = self.store_end(run, &finish).await else {
            trace.ended(&finish);
            return;
        };
        tracing::info!(run = %run.id, agent = agent.name, attempt = run.attempt, ended = finish.ended,
            exit_code, took_ms = took.as_millis() as u64, state = finish.transition.state.as_str(),
            reason = finish.transition.reason, "run.finished");
        self.app.metrics.count_attempt(&agent.name, &finish.ended, finish.transition.state.as_str(), took);
        trace.ended(&finish);
    }

    /// Stores a run's end, as long as it takes (a few seconds once the gateway closes): until then the lease keeps anybody
    /// from starting it again. Answers the end as it is stored; none if it is not.
    pub(super) async fn store_end(&self, run: &StoredRun, finish: &Finish) -> Option<Finish> {
        let (mut pause, since) = (FIRST_RETRY, Instant::now());
        loop {
            match self.app.store.finish(finish.clone()).await {
                Ok(true) => break,
                Ok(false) => {
                    tracing::warn!(run = %run.id, "run.lease_lost: its end was not stored");
                    return None;
                }
                Err(error) => {
                    tracing::error!(run = %run.id, error = error.with_causes(), "run.finish_failed");
                    // The next start finds the run and takes it for lost; what is damaged stays so.
                    let given_up = since.elapsed() > LAST_RETRIES && self.closing.is_cancelled();
                    if given_up || matches!(error, Error::Corrupt(_)) {
                        return None;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
        }
        let finish = self.as_stored(finish.clone()).await;
        self.settle_end(run, &finish).await;
        Some(finish)
    }

    /// An end that was stored, as it was: whoever asked for the end of a run that would go on has it cancelled or replaced.
    pub(super) async fn as_stored(&self, mut finish: Finish) -> Finish {
        let may_differ = !matches!(finish.transition.state, State::Succeeded | State::Failed) || finish.ended == "lost";
        if may_differ
            && let Ok(Some((run, _))) = self.app.store.run(finish.run).await
            && matches!(run.state, State::Cancelled | State::Superseded)
        {
            let reason = run.reason.unwrap_or(finish.transition.reason);
            let progress = finish.transition.progress;
            finish.transition =
                Transition { state: run.state, reason, due: None, dead_letter: false, progress, wait: None };
        }
        finish
    }

    /// Does what follows from a run's end that is stored.
    pub(super) async fn settle_end(&self, run: &StoredRun, finish: &Finish) {
        self.log_room.lock().unwrap_or_else(PoisonError::into_inner).remove(&finish.lease);
        match finish.transition.state {
            State::Queued => self.wake(&run.agent),
            State::Waiting => {
                self.wake(&run.agent);
                self.due.notify_one();
            }
            _ => {}
        }
        if finish.transition.dead_letter {
            self.app.signs.ring();
        }
        self.tell_who_waits();
        if matches!(finish.transition.wait, Some(Wait::Event { .. } | Wait::Run { .. })) {
            self.app.waits.begin();
        }
        if finish.transition.wait.is_some() {
            // What it waits for may be over: only the store knows.
            self.tell_of(run.id).await;
            return;
        }
        self.app.activity.tell(|| {
            let mut run = run.clone();
            run.state = finish.transition.state;
            run.reason = Some(finish.transition.reason.clone());
            run.dead_letter = finish.transition.dead_letter;
            run.due = finish.transition.due;
            run.finished_at = run.state.is_final().then_some(finish.at);
            run.result = finish.result.clone();
            Notice::Run(Arc::new(run))
        });
    }

    /// The event as the agent gets it. A large one is read on a thread that may take its time.
    pub(super) async fn envelope(&self, run: &StoredRun, event: StoredEvent, body: Body) -> Result<Envelope, Error> {
        let in_force = self.app.current();
        let events = if run.absorbed > 0 { self.app.store.companions(run.id).await? } else { Vec::new() };
        let events: Vec<Companion> = events.iter().map(companion_of).collect();
        let resumed = told(&self.app, run.resumed.clone()).await?;
        if body.bytes.len() <= LARGE {
            return Ok(Envelope { events, resumed, ..envelope_of(&in_force, run, &event, &body) });
        }
        let run = run.clone();
        let made = tokio::task::spawn_blocking(move || envelope_of(&in_force, &run, &event, &body)).await;
        // It would panic again.
        let made = made.map_err(|error| Error::Corrupt(format!("its event cannot be read: {error}")))?;
        Ok(Envelope { events, resumed, ..made })
    }

    /// What becomes of a run whose try ended so, by what its agent says now.
    pub(super) fn next(&self, run: &StoredRun, outcome: Outcome) -> run::Transition {
        let policy = self.app.current().agent(&run.agent).map(|agent| agent.retries).unwrap_or_default();
        run::next(&policy, run.progress, outcome, clock::now(), u64::from_be_bytes(clock::random()))
    }
}

/// What the end of a try says about whether this machine can start runs. Of a command, the start itself said so, and its end may come
/// hours later.
fn start_of(agent: &Agent, outcome: &Outcome) -> Sign {
    match outcome {
        Outcome::NotStarted(why) => Sign::Failing(why.clone()),
        Outcome::Cancelled(_) | Outcome::HandedBack | Outcome::Lost(_) | Outcome::TryAgain(_) => Sign::Unknown,
        _ if matches!(agent.runtime, Runtime::Command(_)) => Sign::Unknown,
        _ => Sign::Reached,
    }
}

/// What a try comes to whose events cannot be read. What is damaged stays so; what is unavailable comes back.
pub(super) fn unreadable(error: &Error) -> Outcome {
    let why = format!("its events cannot be read: {}", error.with_causes());
    if matches!(error, Error::Corrupt(_)) { Outcome::TryAgain(why) } else { Outcome::NotStarted(why) }
}

fn envelope_of(in_force: &Snapshot, run: &StoredRun, event: &StoredEvent, body: &Body) -> Envelope {
    let headers: Map<String, Value> = serde_json::from_str(&body.headers).unwrap_or_default();
    let context = read_again(in_force, event, body);
    let (body, body_encoding) = encode_body(&body.bytes);
    Envelope {
        webhook: !is_own(&event.provider),
        source: event.provider.clone(),
        integration_id: event.source.clone(),
        event_type: run.event_type.clone(),
        idempotency_key: event.delivery_id.clone(),
        timestamp: event.received_at.as_seconds(),
        context,
        headers,
        body,
        body_encoding: body_encoding.to_owned(),
        event_id: event.id,
        run_id: run.id,
        attempt: run.attempt,
        agent: run.agent.clone(),
        events: Vec::new(),
        resumed: None,
    }
}

/// A further event of a run, as its agent gets it. Its body is fetched by its id, so long texts are cut as they are stored.
fn companion_of(event: &StoredEvent) -> Companion {
    Companion {
        event_id: event.id,
        event_type: event_type(&event.provider, &event.event, event.action.as_deref()),
        timestamp: event.received_at.as_seconds(),
        context: serde_json::from_str(&event.context).unwrap_or_default(),
    }
}

/// The whole context, read from the body again: the stored one has long texts cut. The stored one, if the source is no
/// longer configured.
fn read_again(in_force: &Snapshot, event: &StoredEvent, body: &Body) -> Context {
    if [MANUAL, AGENT].contains(&event.provider.as_str()) {
        return Context::of_request(&serde_json::from_slice(&body.bytes).unwrap_or_default());
    }
    let delivery = delivery_of(event, body);
    let source = in_force.config.sources.get(&event.source);
    let source = source.filter(|source| source.provider().name() == event.provider);
    let readings = source.and_then(|source| source.provider().read(&delivery).ok()).unwrap_or_default();
    let only = readings.len() == 1;
    let read = readings.into_iter().find(|reading| only || reading.delivery_id == event.delivery_id);
    read.map(|reading| reading.context).unwrap_or_else(|| serde_json::from_str(&event.context).unwrap_or_default())
}

fn waited(run: &StoredRun) -> Duration {
    run.started_at.map(|started| started.since(run.created_at)).unwrap_or_default()
}
