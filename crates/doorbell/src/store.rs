//! The store: everything durable, behind one object-safe trait.
//!
//! Each verb is one transaction and says what it guarantees; callers never see a transaction, SQL or a connection.
//! Every store passes the suite in `conformance`.
// tidy: allow long file: a table, one entry for each verb of the store

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::flow::Flow;
use doorbell_core::id::{EventId, KeyId, ReplayId, RunId, SubscriptionId};
use doorbell_core::run::{Progress, State, Transition};
use doorbell_core::time::Timestamp;
use doorbell_core::wait::{Resumed, Wait};
use serde::{Deserialize, Serialize};

mod audit;
#[cfg(test)]
mod conformance;
mod figures;
mod history;
mod inspection;
mod lease;
mod notes;
mod once;
mod queues;
mod search;
mod sqlite;
mod subscriptions;
mod waits;
mod webhooks;

pub use audit::{Change, ChangeEnd, ChangeQuery, StoredChange, note_done};
pub use figures::{Figures, HeldBy, Space, Tallies};
pub use history::{Copied, Expired, Expiry, Forgetting, Release, Removed, RemovedRecords, Sweep, Swept};
pub use inspection::{Growth, Inspection, Soundness, inspect};
pub use lease::{Holder, Lease, WorkerLease};
pub use notes::{DeadLetter, Notes};
pub use once::{Begun, OnceAnswer, OnceEnd, OnceRequest};
pub use queues::{
    BY_REPLAY, Called, Cancel, CauseKind, Delay, Effects, GivenBack, How, MOST_CALLS, Moved, PAUSED, Retry, Standing,
    Whose,
};
pub use search::{Found, Wanted};
pub use sqlite::{SqliteStore, copy_unused, seal_copy};
pub use subscriptions::{Followed, Pending, StoredSubscription, Subscription, SubscriptionChange};
pub use waits::{LARGEST_STEPS, MOST_STEPS, NewStep, Resume, Step, StepKept, Waiting};
pub use webhooks::{Resealed, SealedSecret, StoredSecret, StoredWebhook, Webhook, WebhookChange};

/// What a verb answers.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was changed, and the same call may succeed later: the disk is full, the database locked, the store
    /// closed.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database does not hold what it should.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// A copy cannot be written to where it is to be: where, and why. Nothing is wrong with the store.
    #[error("{0}")]
    Target(String),
}

impl Error {
    /// The error with its causes, for a log line.
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}

/// Whose a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOwner {
    /// The agent that it is of.
    pub agent: String,
    /// The run that called it, if one did.
    pub parent: Option<String>,
}

impl RunOwner {
    /// Whether this run called it.
    pub fn is_called_by(&self, run: RunId) -> bool {
        self.parent.as_deref() == Some(run.to_string().as_str())
    }
}

/// Whose an event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventOwner {
    /// The source that it came to.
    pub source: String,
    /// The agents that it has outcomes for.
    pub agents: Vec<String>,
}

/// Everything durable. All times are handed in, so that a store never reads a clock.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Stores the events of one delivery with their outcomes and runs: all or nothing, durable when it answers. There is one
    /// a source that took it; where its body holds several, as many of each source, in the same order.
    ///
    /// An event whose delivery key the source already has is a duplicate: it is counted, and acts only for agents that
    /// have no outcome for the stored event yet, or only [`OutcomeKind::FilterError`]. An agent that several sources would
    /// start for the same event of the body is started by the first of them; for the others it is absorbed into that run.
    fn accept(&self, events: Vec<NewEvent>) -> Answer<'_, Acceptance>;

    /// Keeps a refused delivery. The store keeps the newest [`MOST_REJECTIONS`] of each source and drops older ones.
    fn reject(&self, rejection: Rejection) -> Answer<'_, ()>;

    /// Takes up to as many queued runs of an agent as there are leases, makes them running under one each, and opens an
    /// attempt for each: the oldest first, or where there is flow control, those whose turn it is. One whose event cannot
    /// be read fails instead, so that it does not block the others. So does one end, for good, that replaces what is older and
    /// would follow newer work of its key.
    fn claim(&self, claim: Claim) -> Answer<'_, Taken>;

    /// Remembers the process that carries an attempt out. False if the lease is no longer the run's.
    fn mark_process(&self, run: RunId, lease: Lease, process: Process) -> Answer<'_, bool>;

    /// Leaves a running run to whoever was given its lease, until `until`: it tells later how it ended. False if the lease is
    /// no longer the run's.
    fn hand_over(&self, run: RunId, lease: Lease, until: Timestamp) -> Answer<'_, bool>;

    /// Moves the leases' ends to `until`, unless they are later; with `now`, only of those that have not ended by then. Answers
    /// the runs whose lease was lost.
    fn extend(&self, leases: Vec<(RunId, Lease)>, until: Timestamp, now: Option<Timestamp>) -> Answer<'_, Vec<RunId>>;

    /// Ends the running attempt and moves the run on. False, and nothing changed, if the lease is no longer the run's, or has
    /// ended where that matters ([`Finish::in_time`]).
    ///
    /// If the run's end was asked for ([`Store::cancel`]) and the transition is not to a final state, the run is
    /// cancelled instead: the request may have come too late for whoever decided the transition.
    /// Likewise one that is being replaced is superseded, unless it came to its own end.
    ///
    /// With a transition to a wait, the run waits until it is due, [`Store::resume`]d or ends, and keeps its key meanwhile. If
    /// it waits for the end of a run, it is due as soon as that is over; if it was over before, the run is queued.
    fn finish(&self, finish: Finish) -> Answer<'_, bool>;

    /// Queues the waiting runs that are due, and answers their agents and when the next one will be due. Many are
    /// queued in several transactions, so that events need not wait for them.
    fn release_due(&self, now: Timestamp) -> Answer<'_, Released>;

    /// Has the waiting runs be due whose wait began after `began`: the clock was ahead then, and nobody knows by how much, so
    /// when they are due says nothing. Answers how many.
    fn end_waits(&self, began: Timestamp, now: Timestamp) -> Answer<'_, usize>;

    /// All running runs, whoever holds their lease.
    fn running(&self) -> Answer<'_, Vec<Running>>;

    /// A run, if it is running.
    fn running_run(&self, run: RunId) -> Answer<'_, Option<Running>>;

    /// The running run that has this lease.
    fn running_by_lease(&self, lease: Lease) -> Answer<'_, Option<Running>>;

    /// The runs that wait for an event or for the end of another run, or are held meanwhile.
    fn waiting(&self) -> Answer<'_, Vec<Waiting>>;

    /// Queues a run that waits, or has it go on when it is held no more. Answers its agent; none, and nothing changed, if it
    /// does not wait any more, or for something else.
    fn resume(&self, resume: Resume) -> Answer<'_, Option<String>>;

    /// Keeps the result of a run's step, if there is none yet, for as long as the run is kept.
    fn keep_step(&self, step: NewStep) -> Answer<'_, StepKept>;

    /// The result of a run's step.
    fn step(&self, run: RunId, key: String) -> Answer<'_, Option<String>>;

    /// The steps of a run, oldest first.
    fn steps(&self, run: RunId) -> Answer<'_, Vec<Step>>;

    /// Agents that have queued runs.
    fn agents_with_work(&self) -> Answer<'_, Vec<String>>;

    /// Holds the queued and waiting runs of agents that are paused, or not among `agents`, and queues those that were
    /// held so and whose agent is back and active; those that waited for a time that has not come go on waiting. Many are
    /// moved in several transactions. Answers those that ended instead: see [`Store::give_back`].
    fn settle_agents(&self, agents: Vec<(String, Standing)>, now: Timestamp) -> Answer<'_, Vec<RunId>>;

    /// The same for up to `most` runs that are held because their agent was gone or paused, or because the source of their
    /// event was paused: the oldest first. One that replaces what is older and would follow newer work of its key ends instead.
    fn give_back(&self, whose: Whose, most: usize, now: Timestamp) -> Answer<'_, GivenBack>;

    /// Sources for which runs are held ([`NewEvent::paused`]).
    fn held_sources(&self) -> Answer<'_, Vec<String>>;

    /// Cancels a run that does not run, at once; notes the request for one that does.
    fn cancel(&self, run: RunId, by: String, now: Timestamp) -> Answer<'_, Cancel>;

    /// Adds lines to the end of a run's log and answers the number of the last line. Numbers count from 1 over all
    /// attempts of the run. Lines of a run that is not there are dropped, and 0 answered.
    fn append_log(&self, run: RunId, lines: Vec<LogLine>) -> Answer<'_, u64>;

    /// Up to `limit` lines of a run's log after line number `after` (0: from the start), with their numbers.
    fn read_log(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<(u64, LogLine)>>;

    /// Events, newest first, or oldest first from `after` on.
    fn events(&self, query: EventQuery) -> Answer<'_, Vec<StoredEvent>>;

    /// Events that the query admits and that say what is wanted: in their name, source, delivery id or context, and if that is
    /// wanted, in their body. Newest first. What was stored is found at once, what is removed or forgotten no more, whether it
    /// is indexed or not. Where the time is over before all is looked at, the answer says where to go on.
    fn search(&self, query: EventQuery, wanted: Wanted) -> Answer<'_, Found>;

    /// Goes on with the index that makes [`Store::search`] fast, by one step of bounded size. Whether there was something to do.
    fn index(&self) -> Answer<'_, bool>;

    /// How many events there are of a query, whatever its limit.
    fn count_events(&self, query: EventQuery) -> Answer<'_, u64>;

    /// One event.
    fn event(&self, id: EventId) -> Answer<'_, Option<StoredEvent>>;

    /// The headers (JSON) and the raw body of an event; none, too, if it is forgotten.
    fn body(&self, id: EventId) -> Answer<'_, Option<Body>>;

    /// The headers (JSON) of an event. However large its body is, this costs little.
    fn headers(&self, id: EventId) -> Answer<'_, Option<String>>;

    /// The outcomes of an event, one an agent, by agent name.
    fn outcomes(&self, id: EventId) -> Answer<'_, Vec<AgentOutcome>>;

    /// The same of many events at once, by the events' sequence. Those without an outcome are not in the answer.
    fn outcomes_of(&self, seqs: Vec<i64>) -> Answer<'_, HashMap<i64, Vec<AgentOutcome>>>;

    /// Runs, newest first.
    fn runs(&self, query: RunQuery) -> Answer<'_, Vec<StoredRun>>;

    /// What flow control keeps these runs from, of those that are queued and kept by it.
    fn delays(&self, runs: Vec<RunId>, now: Timestamp) -> Answer<'_, Vec<(RunId, Delay)>>;

    /// The events that a run has beside its own, oldest first: those that were gathered before its own one came, or were
    /// added to it while it was queued.
    fn companions(&self, run: RunId) -> Answer<'_, Vec<StoredEvent>>;

    /// Whose a run is: as little as there is to ask, so that the time it takes hardly tells whether there is one.
    fn owner_of_run(&self, id: RunId) -> Answer<'_, Option<RunOwner>>;

    /// Whose an event is, in the same way.
    fn owner_of_event(&self, id: EventId) -> Answer<'_, Option<EventOwner>>;

    /// One run with its attempts.
    fn run(&self, id: RunId) -> Answer<'_, Option<(StoredRun, Vec<Attempt>)>>;

    /// Refused deliveries, newest first; of one source or of all.
    fn rejections(&self, source: Option<String>, limit: usize) -> Answer<'_, Vec<Rejection>>;

    /// The version under which this trigger set (canonical JSON) is kept; a new one if it was not. It counts as in force
    /// at `now`.
    fn keep_trigger_set(&self, triggers: String, now: Timestamp) -> Answer<'_, i64>;

    /// The trigger set of a version, as it was kept.
    fn trigger_set(&self, version: i64) -> Answer<'_, Option<String>>;

    /// Keeps an API key, in place of one with the same id.
    fn put_key(&self, key: ApiKey) -> Answer<'_, ()>;

    /// Removes an API key, and the subscriptions that it made; whether there was one.
    fn remove_key(&self, key: KeyId) -> Answer<'_, bool>;

    /// All API keys, oldest first.
    fn keys(&self) -> Answer<'_, Vec<ApiKey>>;

    /// Notes when API keys were used last, unless something later is noted already.
    fn mark_keys_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()>;

    /// Notes a change that is about to be made, and answers its sequence.
    fn begin_change(&self, change: Change) -> Answer<'_, i64>;

    /// Notes how a change ended.
    fn end_change(&self, seq: i64, end: ChangeEnd) -> Answer<'_, ()>;

    /// Changes, newest first.
    fn changes(&self, query: ChangeQuery) -> Answer<'_, Vec<StoredChange>>;

    /// Removes changes from before `before`. Several transactions.
    fn remove_changes(&self, before: Timestamp) -> Answer<'_, ()>;

    /// Adds to what credentials of sources verified; the later of the last times holds.
    fn add_secret_uses(&self, uses: Vec<SecretUse>) -> Answer<'_, ()>;

    /// What every credential of every source verified so far, by name.
    fn secret_uses(&self) -> Answer<'_, Vec<SecretUse>>;

    /// All webhooks that were made at run time, oldest first, each with its secrets.
    fn webhooks(&self) -> Answer<'_, Vec<StoredWebhook>>;

    /// Makes a webhook, or brings it to how it is to stand, with a new secret if there is one: all or nothing. Secrets that
    /// do not verify any more go.
    fn put_webhook(&self, change: WebhookChange) -> Answer<'_, ()>;

    /// Replaces secrets of webhooks by the same ones, sealed with another master key: all or nothing. One that was changed
    /// meanwhile stays as it is. Answers how many were replaced.
    fn reseal_secrets(&self, secrets: Vec<Resealed>) -> Answer<'_, usize>;

    /// How many runs of an agent that deliveries to a source started are not over, counted up to `most`.
    fn unfinished(&self, agent: String, source: String, most: usize) -> Answer<'_, usize>;

    /// Notes that a request is begun that is to be carried out once; or says how it stands, if one with its key was.
    fn begin_once(&self, request: OnceRequest, at: Timestamp) -> Answer<'_, Begun>;

    /// Keeps what became of a request that was begun.
    fn end_once(&self, end: OnceEnd) -> Answer<'_, ()>;

    /// All subscriptions, oldest first, each with its secrets: also those whose time is over and that nobody removed yet.
    fn subscriptions(&self) -> Answer<'_, Vec<StoredSubscription>>;

    /// Makes a subscription, or brings it to how it is to stand, with a new secret if there is one: all or nothing. False, and
    /// nothing changed, if its key is gone.
    fn put_subscription(&self, change: SubscriptionChange) -> Answer<'_, bool>;

    /// Removes subscriptions with their secrets. Answers how many there were.
    fn remove_subscriptions(&self, ids: Vec<SubscriptionId>) -> Answer<'_, usize>;

    /// Moves a subscription on behind events that were held against it, and makes the runs of those that it wants: all or
    /// nothing. An event that has an outcome for it since it was made makes none, nor does one that is gone or forgotten. False, and nothing
    /// changed, if the subscription is gone or another one, or as far already.
    fn follow(&self, followed: Followed) -> Answer<'_, bool>;

    /// The runs of an agent that are not over.
    fn pending(&self, agent: String) -> Answer<'_, Pending>;

    /// Counts for people and metrics.
    fn stats(&self) -> Answer<'_, Stats>;

    /// Whether events can be stored now: tried by writing.
    fn health(&self, now: Timestamp) -> Answer<'_, ()>;

    /// Notes what became of telling, where its event came from, how a run ended.
    fn note_follow_up(&self, run: RunId, note: FollowedUp) -> Answer<'_, ()>;

    /// Up to `limit` dead letters that were not taken off by [`Store::note`], oldest first: each run that became one is
    /// there, durable with its end.
    fn untold(&self, limit: usize) -> Answer<'_, Vec<DeadLetter>>;

    /// Keeps what notifications remember, and takes off the dead letters that are in it: all or nothing.
    fn note(&self, notes: Notes) -> Answer<'_, ()>;

    /// What is remembered under keys that begin with `prefix`: keys and values, by key.
    fn notes(&self, prefix: &str) -> Answer<'_, Vec<(String, String)>>;

    /// How many runs there are in which state: cheap, however many there are.
    fn tallies(&self) -> Answer<'_, Tallies>;

    /// What the store takes on the disk.
    fn space(&self) -> Answer<'_, Space>;

    /// What the group commit does, as histograms.
    fn figures(&self) -> Figures;

    /// Events that retention may remove, from the oldest on; a piece of bounded size. Never one of which a run is not
    /// over, and never the newest.
    fn expired(&self, expiry: Expiry) -> Answer<'_, Expired>;

    /// Removes those of `events` (their sequences) that may still go at `before`, with bodies, keys, outcomes, runs,
    /// attempts, results and logs. One short transaction: it does the first of them, and as many more as it has time
    /// for.
    fn remove(&self, events: Vec<i64>, before: Timestamp) -> Answer<'_, Removed>;

    /// The runs that were removed and whose folders are not known to be gone: each is there from its removal on.
    fn runs_with_folders_left(&self) -> Answer<'_, Vec<RunId>>;

    /// The folders of these removed runs are gone.
    fn note_folders_gone(&self, runs: Vec<RunId>) -> Answer<'_, ()>;

    /// Removes rejections and requests that were to be carried out once from before `before`, and trigger sets that were last in force before it and that no event
    /// names. `in_force` is in force at `now`, and stays. Several transactions.
    fn remove_records(&self, before: Timestamp, in_force: i64, now: Timestamp) -> Answer<'_, RemovedRecords>;

    /// Remembers a sweep that ended.
    fn end_sweep(&self, sweep: Sweep) -> Answer<'_, ()>;

    /// What retention has done so far.
    fn swept(&self) -> Answer<'_, Swept>;

    /// Removes for good what an event and its runs said: headers, body, context, logs, results, reasons, keys of runs, and
    /// refusals of its source that kept the same body or delivery id. Its row, its delivery keys and its outcomes stay, so
    /// that a redelivery starts nothing, not even agents that have no outcome for it.
    fn forget(&self, event: EventId, now: Timestamp) -> Answer<'_, Forgetting>;

    /// The events that say again what this one said, oldest first.
    fn replays_of(&self, event: EventId) -> Answer<'_, Vec<EventId>>;

    /// Lets a held run go on: queues it, or has it wait for its time. One that waits for its next try, or gathers events, is
    /// queued now.
    fn release(&self, run: RunId, by: String, now: Timestamp) -> Answer<'_, Release>;

    /// Queues a run that failed, was cancelled, superseded or dropped once more, as the same run with all its tries.
    fn retry(&self, run: RunId, by: String, now: Timestamp) -> Answer<'_, Retry>;

    /// The runs of other agents that a run started by calls, oldest first, up to [`MOST_CALLS`].
    fn calls_of(&self, run: RunId) -> Answer<'_, Vec<Called>>;

    /// Copies everything, as it is when the copy is finished, to a file that is there and empty. Events are stored
    /// meanwhile. The copy is not durable before [`seal_copy`]. It ends early when the answer is dropped.
    fn copy(&self, file: PathBuf) -> Answer<'_, ()>;
}

/// How many rejections of one source are kept.
pub const MOST_REJECTIONS: usize = 1000;

/// An event to be stored, with what it starts.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its id, if it is new.
    pub id: EventId,
    /// The source's name.
    pub source: String,
    /// The provider's name.
    pub provider: String,
    /// The provider's event.
    pub event: String,
    /// The action, where there is one.
    pub action: Option<String>,
    /// The keys no other event of the source may have.
    pub delivery_keys: Vec<String>,
    /// The provider's id of the delivery.
    pub delivery_id: Option<String>,
    /// The credential instance that verified it; none: unsigned.
    pub verified_by: Option<String>,
    /// When it was received.
    pub received_at: Timestamp,
    /// Whether it only wants an answer (it sets the webhook up, or asks for suggestions).
    pub handshake: bool,
    /// The context as JSON, long texts cut.
    pub context: String,
    /// Visible headers as a JSON object.
    pub headers: String,
    /// The raw body.
    pub body: Bytes,
    /// The version of the trigger set it was matched with.
    pub trigger_set: i64,
    /// The trace that its runs go on with (a `traceparent` of W3C Trace Context); none while nothing is traced.
    pub trace: Option<String>,
    /// What it says again, if it does.
    pub replay: Option<Replay>,
    /// Whether it is only for agents that have no run for what it says again: the outcome of others stays as it is, and if it is for
    /// no other agent, it is not stored. A run that it starts counts for that event, too, so that a redelivery starts no other one.
    pub only_missing: bool,
    /// Why its runs are held until its source is resumed; none: they are not. They end nothing, and nothing that is not held
    /// with them takes them in.
    pub paused: Option<String>,
    /// What it means to each agent that a trigger matched, one entry an agent.
    pub starts: Vec<Start>,
    /// What is held until the store is done with it, also if nobody waits for the answer any more.
    pub room: Option<Room>,
}

/// The room that a body takes, given back when this is dropped.
pub type Room = Arc<dyn Any + Send + Sync>;

/// That an event says again what another one said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The replay that made it.
    pub id: ReplayId,
    /// The other one.
    pub of: EventId,
}

/// What an event means to one agent.
#[derive(Debug, Clone)]
pub struct Start {
    /// The agent.
    pub agent: String,
    /// The first of its triggers that matched.
    pub trigger: usize,
    /// The id of the run, if one is started.
    pub run: RunId,
    /// What the run is about: the value of the trigger's `key`.
    pub key: Option<String>,
    /// Its flow control; none if the agent has none at all, which costs nothing then.
    pub flow: Option<Flow>,
    /// How much may wait, and what happens beyond it; or why nothing is started.
    pub admission: Admission,
}

/// Whether a run may be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Always.
    Grow,
    /// Up to this many runs that wait and never started; beyond it the one of the lowest priority is dropped, and of these
    /// the oldest. Runs that somebody put back take no place.
    DropOldest(u64),
    /// Up to this many; beyond it the delivery is refused if every agent it would start refuses, else this agent's
    /// outcome is `dropped`.
    Reject(u64),
    /// Always, and it is held until its agent is resumed: for this reason, which begins with [`PAUSED`]. It ends nothing.
    Hold(String),
    /// Nothing is started, for this reason.
    Skip(String),
    /// Whether it is to be started could not be found out, for this reason.
    FilterError(String),
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is stored; one answer per event, in order. No answer, and nothing was stored, if it is only for agents that miss it
    /// ([`NewEvent::only_missing`]), and none does.
    Stored(Vec<Accepted>),
    /// Nothing was stored: every agent it would start has a full queue that rejects.
    QueueFull(Vec<String>),
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id: of the first delivery, if this is a duplicate.
    pub event: EventId,
    /// Whether the source had it already.
    pub duplicate: bool,
    /// Its outcomes, of earlier deliveries too, by agent name.
    pub outcomes: Vec<AgentOutcome>,
    /// Agents for which this call queued a run.
    pub queued: Vec<String>,
    /// What this call decided: agents that had no outcome before, and which they got.
    pub decided: Vec<(String, OutcomeKind)>,
    /// Runs that this call dropped, because a queue was full.
    pub dropped: Vec<RunId>,
    /// What flow control did to runs.
    pub effects: Effects,
}

/// What became of one event for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOutcome {
    /// The agent.
    pub agent: String,
    /// What became of it.
    pub kind: OutcomeKind,
    /// The run that was started or that absorbed it; none if it was skipped, or dropped before it had one.
    pub run: Option<RunId>,
    /// The trigger that matched first.
    pub trigger: usize,
    /// Why, where it did not simply start.
    pub reason: Option<String>,
    /// When it was decided.
    pub at: Timestamp,
    /// The version of the trigger set it was decided by: the event's, or that of the redelivery.
    pub trigger_set: i64,
}

/// The kinds of outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// A run was started.
    Started,
    /// Another run has it.
    Absorbed,
    /// Nothing was to be done.
    Skipped,
    /// The queue was full.
    Dropped,
    /// A condition failed, so that nobody knows whether the agent wants it. A redelivery may replace this one.
    FilterError,
}

impl OutcomeKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Started, Self::Absorbed, Self::Skipped, Self::Dropped, Self::FilterError];

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Absorbed => "absorbed",
            Self::Skipped => "skipped",
            Self::Dropped => "dropped",
            Self::FilterError => "filter_error",
        }
    }
}

/// A refused delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// When.
    pub at: Timestamp,
    /// The source. Where several could have taken it, each has one of its own.
    pub source: String,
    /// The stable code.
    pub code: String,
    /// What was wrong.
    pub detail: String,
    /// The sender's address.
    pub remote: String,
    /// Visible headers as a JSON object.
    pub headers: String,
    /// The body, kept only if the delivery was verified, and in no list.
    pub body: Option<Bytes>,
    /// How many further ones were not kept since the last one that was.
    pub suppressed: u64,
}

/// A wish for work.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Of this agent.
    pub agent: String,
    /// One fresh lease for each run that is wanted.
    pub leases: Vec<Lease>,
    /// Until when the leases hold.
    pub until: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// So many runs of the agent may be running then, whoever carries them out; none: any number.
    pub most_running: Option<u32>,
    /// The worker that fetches them; none: the gateway carries them out.
    pub worker: Option<WorkerLease>,
}

/// A run taken to be carried out.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The run, already running.
    pub run: StoredRun,
    /// Its lease.
    pub lease: Lease,
    /// The event that caused it.
    pub event: StoredEvent,
    /// Its headers and body.
    pub body: Body,
}

/// What [`Store::claim`] took.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// The runs to be carried out.
    pub claimed: Vec<Claimed>,
    /// Those that ended instead, because a newer one of their key is before them.
    pub superseded: Vec<RunId>,
}

/// A process, named so that another one with the same number is not mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number, which is also that of its group.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The run.
    pub run: RunId,
    /// Its lease.
    pub lease: Lease,
    /// When it ended.
    pub at: Timestamp,
    /// How the attempt ended: `succeeded`, `failed`, `timed_out`, `cancelled`, `lost`, `handed_back`, `not_started`, `waits`.
    pub ended: String,
    /// The exit code, if the process had one.
    pub exit_code: Option<i32>,
    /// What becomes of the run.
    pub transition: Transition,
    /// The run's result as JSON.
    pub result: Option<String>,
    /// Whether the lease must not have ended by then: so it is for who may be taken for dead when it has.
    pub in_time: bool,
}

/// What [`Store::release_due`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Agents that have queued runs now.
    pub agents: Vec<String>,
    /// When the next waiting run is due.
    pub next: Option<Timestamp>,
}

/// A running run.
#[derive(Debug, Clone)]
pub struct Running {
    /// The run.
    pub run: StoredRun,
    /// Its lease.
    pub lease: Lease,
    /// Until when the lease holds.
    pub until: Timestamp,
    /// The process that carries it out, if it was marked.
    pub process: Option<Process>,
    /// Who carries it out.
    pub holder: Holder,
    /// The worker that its try was handed to.
    pub worker: Option<String>,
}

/// Where a log line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The agent's standard output.
    Stdout,
    /// The agent's standard error.
    Stderr,
    /// Doorbell.
    System,
}

/// A line of a run's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it came.
    pub at: Timestamp,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// Where it came from.
    pub stream: Stream,
    /// The text, without the line's end.
    pub text: String,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Of this source.
    pub source: Option<String>,
    /// Of this event (`issues`), or event and action (`issues.opened`), also with the provider before it
    /// (`github.issues.opened`).
    pub event: Option<String>,
    /// Only what these may see.
    pub within: Option<Within>,
    /// With an outcome of this kind for some agent; `none` for those without any.
    pub outcome: Option<String>,
    /// Received at or after. Exact as long as clocks were set back, and events took to be stored, less than an hour.
    pub since: Option<Timestamp>,
    /// Received before.
    pub until: Option<Timestamp>,
    /// With a smaller sequence: the next page of newest first.
    pub before: Option<i64>,
    /// With a greater sequence, oldest first: what came since.
    pub after: Option<i64>,
    /// At most.
    pub limit: usize,
}

/// What somebody may see: events of their sources, and those with an outcome for one of their agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Within {
    /// By name.
    pub agents: Vec<String>,
    /// By name.
    pub sources: Vec<String>,
}

/// An event as it is stored, without headers and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the order of commits.
    pub seq: i64,
    /// Its id.
    pub id: EventId,
    /// The source's name.
    pub source: String,
    /// The provider's name.
    pub provider: String,
    /// The provider's event.
    pub event: String,
    /// The action, where there is one.
    pub action: Option<String>,
    /// The provider's id of the delivery.
    pub delivery_id: Option<String>,
    /// The credential instance that verified it.
    pub verified_by: Option<String>,
    /// When it was received first.
    pub received_at: Timestamp,
    /// Whether it only wants an answer (it sets the webhook up, or asks for suggestions).
    pub handshake: bool,
    /// The context as JSON, long texts cut.
    pub context: String,
    /// The version of the trigger set it was matched with.
    pub trigger_set: i64,
    /// Bytes of the raw body.
    pub body_size: u64,
    /// How many further deliveries of it came.
    pub duplicates: u64,
    /// When what it said was removed for good, by wish: headers, body and context, logs and results of its runs.
    pub forgotten_at: Option<Timestamp>,
    /// What it says again, if it does.
    pub replay: Option<Replay>,
}

/// Headers and raw body of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Visible headers as a JSON object.
    pub headers: String,
    /// As received.
    pub bytes: Bytes,
}

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Of these agents; none: of any.
    pub agents: Option<Vec<String>>,
    /// In this state.
    pub state: Option<State>,
    /// Caused by this event.
    pub event: Option<EventId>,
    /// Only dead letters.
    pub dead_letter: bool,
    /// With this key.
    pub key: Option<String>,
    /// By a cause of this kind.
    pub trigger: Option<CauseKind>,
    /// With a smaller sequence: the next page.
    pub before: Option<i64>,
    /// With a greater sequence, oldest first.
    pub after: Option<i64>,
    /// At most.
    pub limit: usize,
}

/// A run as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Its place in the order of commits.
    pub seq: i64,
    /// Its id.
    pub id: RunId,
    /// The agent.
    pub agent: String,
    /// The event that caused it.
    pub event: EventId,
    /// `{provider}.{event}[.{action}]` of that event.
    pub event_type: String,
    /// What it is about: the value of its trigger's `key`.
    pub key: Option<String>,
    /// How many events it took in beside its own.
    pub absorbed: u64,
    /// Where it stands.
    pub state: State,
    /// Why it stands there, in one sentence.
    pub reason: Option<String>,
    /// Whether it is a dead letter.
    pub dead_letter: bool,
    /// Attempts so far, the running one included.
    pub attempt: u32,
    /// What it has behind it.
    pub progress: Progress,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the newest attempt started.
    pub started_at: Option<Timestamp>,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
    /// When it may start again, if it waits.
    pub due: Option<Timestamp>,
    /// Who asked for its end.
    pub cancel_requested: Option<String>,
    /// The trace that its tries go on with, if its delivery was traced.
    pub trace: Option<String>,
    /// Whether it was told where its event came from how it ended.
    pub follow_up: Option<FollowedUp>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// What its last wait was over by.
    pub resumed: Option<Resumed>,
    /// Who had it go on last, if somebody did.
    pub moved: Option<Moved>,
    /// Its result as JSON. It may be large, so only [`Store::run`] reads it.
    pub result: Option<String>,
}

/// What became of telling, where an event came from, how its run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedUp {
    /// When it was sent, or given up.
    pub at: Timestamp,
    /// Why it was given up.
    pub error: Option<String>,
}

/// One try of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub ended: Option<String>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// The exit code, if the process had one.
    pub exit_code: Option<i32>,
    /// The worker that it was handed to.
    pub worker: Option<String>,
    /// What it goes on by, if the run waited before.
    pub resumed: Option<Resumed>,
}

/// An API key, without the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public id.
    pub id: KeyId,
    /// A label.
    pub name: String,
    /// `owner`, `viewer` or `agent`.
    pub role: String,
    /// The agent, for role `agent`.
    pub agent: Option<String>,
    /// The account, for the other roles; none: it is the gateway's.
    pub account: Option<String>,
    /// SHA-256 of the key.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was used last, as far as that was kept.
    pub last_used_at: Option<Timestamp>,
}

/// What one credential of a source verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// The source's name.
    pub source: String,
    /// The credential's instance.
    pub credential: String,
    /// How many deliveries.
    pub deliveries: u64,
    /// When the newest of them was received.
    pub last_at: Timestamp,
}

/// Counts for people and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events stored.
    pub events: u64,
    /// Per agent and state: how many runs.
    pub runs: Vec<(String, State, u64)>,
    /// Per agent: when its oldest queued run was made.
    pub oldest_queued: Vec<(String, Timestamp)>,
    /// Per agent with runs that are throttled: when the next one may start. It may be over.
    pub throttled: Vec<(String, Timestamp)>,
    /// Per source: runs that are held until it is resumed.
    pub held_with_source: Vec<(String, u64)>,
    /// Agents whose runs failed one after the other since one succeeded: how many, and when the first of them ended.
    pub streaks: Vec<(String, u64, Timestamp)>,
    /// Runs that have a key, and run or wait for something: agent, key, run and state.
    pub holders: Vec<(String, String, RunId, State)>,
}

/// Opens the store of a URL: `sqlite:PATH`, relative to `root`.
///
/// # Errors
/// If the URL is of no known kind, or the database cannot be opened, is in use by another gateway, or is newer than
/// this program.
pub async fn open(url: &str, root: &Path) -> anyhow::Result<Arc<dyn Store>> {
    Ok(Arc::new(SqliteStore::open(&database_file(url, root)?).await?))
}

/// The file of a store: `sqlite:PATH`, relative to `root`.
///
/// # Errors
/// If the URL is of no known kind.
pub fn database_file(url: &str, root: &Path) -> anyhow::Result<PathBuf> {
    match url.strip_prefix("sqlite:") {
        Some(path) => Ok(root.join(path)),
        None => anyhow::bail!("store url `{url}` is not supported yet: use `sqlite:PATH`"),
    }
}
