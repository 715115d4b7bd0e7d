//! The JSON of the REST API, as the gateway writes it and the client reads it. camelCase; times are RFC 3339 UTC.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod agents;
mod audit;
mod backup;
mod dead_letters;
mod flow;
mod keys;
mod leases;
mod notifications;
mod replays;
mod sources;
mod starts;
mod waits;
mod webhooks;

pub use agents::{Agent, AgentDetail, AgentList, Declaration, FieldError, RemovedAgent};
pub use audit::{AuditEntry, AuditPage};
pub use backup::{Copied, NewCopy};
pub use dead_letters::{DeadLetterGroup, DeadLetterGroups};
pub use flow::{Companion, FailingStreak, Holder};
pub use keys::{CreatedKey, Key, KeyList, NewKey, RemovedKey};
pub use leases::{
    EndedRun, HandedLease, HandedRun, Heard, Heartbeat, KeptLines, Poll, Polled, RunEnd, RunLine, RunLines, ShownLease,
};
pub use notifications::{NotificationAnswer, NotificationAnswers, NotificationTest};
pub use replays::{
    NewReplay, Replay, ReplayFilter, ReplayList, ReplayMode, ReplayOf, ReplayPreview, ReplayWish, Replayed,
};
pub use sources::{
    CapturedSecret, CredentialUse, Delivery, DeliveryList, LaterSecret, Source, SourceList, SourceSubscription,
    SourceWebhook,
};
pub use starts::{
    Cancelled, LinkedRun, ManyDone, ManyRuns, MovedOn, NewPause, NewResume, NewRun, Pause, PausedSource, Refused,
    Released, Resumed, Retried, Schedule, StartedRun,
};
pub use waits::{Answered, GivenBack, NewAnswer, NewQuestion, NewSleep, NewWait, Patience, ResumedBy, Step, WaitsFor};
pub use webhooks::{
    CreatedWebhook, Execution, NewWebhook, OwnWebhook, OwnWebhookWish, Rekey, Rekeyed, RotatedWebhook, Rotation,
    StartedExecution, Success, Webhook, WebhookList, WebhookTest, WebhookTested,
};

/// An error: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Where the gateway says more of the code: the path of its page.
    #[serde(rename = "type", default)]
    pub kind: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// The stable code, e.g. `not_found`.
    pub code: String,
    /// The status in words.
    pub title: String,
    /// What happened, and what to do.
    pub detail: String,
    /// Everything that is wrong with what was given, where it has fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// The answer to a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Always true.
    pub received: bool,
    /// The event's id: of its first delivery, if this is a duplicate.
    pub delivery_id: String,
    /// `{provider}.{event}[.{action}]`.
    pub event: String,
    /// The runs it started, now or at an earlier delivery.
    pub runs: Vec<String>,
    /// Whether the source had it already.
    pub duplicate: bool,
    /// One entry a source, where several took the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<SourceReceipt>,
}

/// What one of several sources made of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceReceipt {
    /// The source.
    pub source: String,
    /// The event's id.
    pub delivery_id: String,
    /// `{provider}.{event}[.{action}]`.
    pub event: String,
    /// The runs it started or is part of.
    pub runs: Vec<String>,
    /// Whether the source had it already.
    pub duplicate: bool,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `evt_…`.
    pub id: String,
    /// Its place in the order of commits: the cursor of lists and streams.
    pub seq: i64,
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// `{provider}.{event}[.{action}]`.
    pub event_type: String,
    /// The provider's event.
    pub event: String,
    /// The action.
    pub action: Option<String>,
    /// When it was received first.
    pub received_at: String,
    /// The provider's id of the delivery.
    pub delivery_id: Option<String>,
    /// The credential instance whose secret verified it; none: the source takes unsigned deliveries.
    pub verified_by: Option<String>,
    /// Whether it only wants an answer (it sets the webhook up, or asks for suggestions).
    pub handshake: bool,
    /// How many further deliveries of it came.
    pub duplicates: u64,
    /// Bytes of the body.
    pub body_size: u64,
    /// What filters and prompts use.
    pub context: Map<String, Value>,
    /// What became of it, one an agent that wanted it.
    pub outcomes: Vec<Outcome>,
    /// When what it said was removed for good: headers, body and context, logs and results of its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten_at: Option<String>,
    /// What it says again, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayOf>,
}

/// What a `DELETE` of an event did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// The event.
    pub id: String,
    /// Since when it is forgotten: now, or earlier.
    pub forgotten_at: String,
}

/// What became of an event for one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The agent.
    pub agent: String,
    /// `started`, `absorbed`, `skipped`, `dropped`, `filter_error`.
    pub outcome: String,
    /// The run.
    pub run_id: Option<String>,
    /// The trigger that matched first, from 0.
    pub trigger: usize,
    /// Why, where it did not simply start.
    pub reason: Option<String>,
    /// When it was decided.
    pub at: String,
    /// The version of the trigger set that decided it: the event's, or that of a redelivery.
    #[serde(default)]
    pub trigger_set: i64,
}

/// An event with its headers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventDetail {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// The headers it came with, lower-cased, without those that carry a secret.
    pub headers: Map<String, Value>,
    /// What its headers said of an earlier try of the same delivery, where its protocol says so (Slack). Not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<String>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<Event>,
    /// For `cursor`, to get the next page; none: this is the last one.
    pub next_cursor: Option<String>,
    /// How far back a search got whose time was over before the page was full. It goes on with `nextCursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_back_to: Option<String>,
}

/// Why an event started what it started, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The event with its outcomes.
    pub event: Event,
    /// The version of the trigger set that was in force.
    pub trigger_set: i64,
    /// What each trigger of that set says.
    pub verdicts: Vec<Verdict>,
}

/// Whether one trigger matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The agent.
    pub agent: String,
    /// Its place among the agent's triggers, from 0.
    pub trigger: usize,
    /// Whether it matched.
    pub matched: bool,
    /// In one sentence.
    pub reason: String,
    /// All filters as they are written; the first that failed decides.
    pub clauses: Vec<ClauseVerdict>,
    /// The value of the trigger's `key`, if it has one and matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How one filter went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClauseVerdict {
    /// The filter field, e.g. `repos`, or `where` or `key`.
    pub field: String,
    /// What it wants; of `where` and `key`, the expression.
    pub wanted: Vec<String>,
    /// What the event has; null if it does not carry the field. Of `where` and `key`, the values that they read, each
    /// as `event.body.issue.comments = 5`.
    pub actual: Option<Value>,
    /// Whether it passed.
    pub passed: bool,
    /// Why it has no answer, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// `run_…`.
    pub id: String,
    /// Its place in the order of commits.
    pub seq: i64,
    /// The agent.
    pub agent: String,
    /// The event that caused it.
    pub event_id: String,
    /// `{provider}.{event}[.{action}]` of that event.
    pub event_type: String,
    /// What it is about: the value of its trigger's `key`, if that has one.
    #[serde(default)]
    pub key: Option<String>,
    /// How many events it took in beside its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub absorbed: u64,
    /// `held`, `waiting`, `queued`, `running`, `succeeded`, `failed`, `cancelled`, `superseded`, `dropped`.
    pub state: String,
    /// Why it stands there.
    pub reason: Option<String>,
    /// Whether it failed with all its tries used up.
    pub dead_letter: bool,
    /// Tries so far, the running one included.
    pub attempt: u32,
    /// When it was made.
    pub created_at: String,
    /// When the newest try started.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// When it may start again, if it waits.
    pub due_at: Option<String>,
    /// Who asked for its end.
    pub cancel_requested_by: Option<String>,
    /// What became of telling, where its event came from, how it ended: none if nobody waits there, or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<FollowUp>,
    /// Why it could not be told yet, while it is being tried again. Only of one run that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up_fails: Option<String>,
    /// What it waits for, if it gave its lease back to go on later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// What its last wait was over by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_by: Option<ResumedBy>,
    /// Who had it go on last, if somebody did: a release, or another try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_on: Option<MovedOn>,
    /// Why nobody is told, although its event names a place for it. Only of one run that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_up_refused: Option<String>,
    /// Its result, as the agent wrote it.
    pub result: Option<Value>,
}

/// What became of telling, where an event came from, how its run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FollowUp {
    /// When it was sent, or given up.
    pub at: String,
    /// Why it was given up; none: it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A run with its tries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// Its tries, first one first.
    pub attempts: Vec<Attempt>,
    /// What its steps came to, oldest first, without the results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The events that it has beside its own, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Companion>,
    /// The run that started it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<LinkedRun>,
    /// The runs of other agents that it started, oldest first: up to 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<LinkedRun>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One try of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it started.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// `succeeded`, `failed`, `timed_out`, `cancelled`, `lost`, `handed_back`, `not_started`, `waits`.
    pub ended: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The exit code, if the process had one.
    pub exit_code: Option<i32>,
    /// The worker that it was handed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// What it went on by, if the run waited before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_by: Option<ResumedBy>,
}

/// A page of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunPage {
    /// Newest first.
    pub runs: Vec<Run>,
    /// For `cursor`, to get the next page; none: this is the last one.
    pub next_cursor: Option<String>,
}

/// A line of a run's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Its number, from 1, over all tries of the run.
    pub n: u64,
    /// When it came.
    pub at: String,
    /// The try it belongs to.
    pub attempt: u32,
    /// `stdout`, `stderr`, `system`.
    pub stream: String,
    /// The text.
    pub text: String,
}

/// A run's log so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The lines.
    pub lines: Vec<LogLine>,
}

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Events stored; for keys that see everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Deliveries since the start: accepted, duplicate, rejected; for keys that see everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<DeliveryCounts>,
    /// By name.
    pub agents: Vec<AgentStats>,
    /// The sources that are paused, or for which runs are held, by name; for keys that see everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused_sources: Vec<PausedSource>,
    /// Who is told of problems; empty for callers who see one agent only.
    #[serde(default)]
    pub notifications: Vec<ReceiverStats>,
    /// How the configuration stands; for keys that see everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigState>,
    /// The last removal of what was older than the gateway keeps; none: there was none yet, or the key does not see
    /// everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sweep: Option<Sweep>,
}

/// How telling one receiver goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverStats {
    /// What it is known by, e.g. `url https://ops.example.com`.
    pub receiver: String,
    /// Messages that it took since the gateway started.
    pub delivered: u64,
    /// Tries that failed since the gateway started.
    pub failed: u64,
    /// Messages that are on their way, or wait for their next try.
    pub waiting: u64,
    /// Why the newest try failed; none if it did not.
    pub error: Option<String>,
}

/// How the configuration stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigState {
    /// 1 at the start, and one more for each time that saved changes were taken over.
    pub generation: u64,
    /// When the one in force was loaded.
    pub loaded_at: String,
    /// Everything that is wrong with what is saved now, so that an earlier one is in force; null if nothing is.
    pub error: Option<String>,
}

/// What became of saved changes of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reload {
    /// The generation in force after it.
    pub generation: u64,
    /// When.
    pub at: String,
    /// What changed, one sentence each.
    pub changes: Vec<String>,
    /// Everything that is wrong with them; then the configuration in force stays. Null if they were taken over.
    pub error: Option<String>,
}

/// A removal of what was older than the gateway keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub ended_at: String,
    /// Events removed.
    pub events: u64,
    /// Runs removed, with their logs, results and folders.
    pub runs: u64,
    /// Refused deliveries removed.
    pub rejections: u64,
    /// Versions of the triggers removed, that no event names any more.
    pub trigger_sets: u64,
}

/// Deliveries since the gateway started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// New events.
    pub accepted: u64,
    /// Redeliveries.
    pub duplicate: u64,
    /// Refused.
    pub rejected: u64,
}

/// What is going on with one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStats {
    /// Its name.
    pub name: String,
    /// Whether the configuration has it.
    pub configured: bool,
    /// Runs at once.
    pub scale: u32,
    /// Runs that are held.
    pub held: u64,
    /// Runs that wait for a time.
    pub waiting: u64,
    /// Runs that are queued.
    pub queued: u64,
    /// Runs that run.
    pub running: u64,
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Runs that a newer one of their key replaced.
    #[serde(default)]
    pub superseded: u64,
    /// Runs that were dropped.
    pub dropped: u64,
    /// When the oldest queued run was made.
    pub oldest_queued_at: Option<String>,
    /// Its pause, or that of all agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Why its runs wait, if its URL fails all the time or nothing can be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// That no worker asks for its runs, and since when, if some are queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
    /// That its runs fail one after the other; none: the last one that ended by itself succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingStreak>,
    /// When the next of its runs may start, if they are throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_until: Option<String>,
    /// Which of its runs that run, or wait for something, have which key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

/// A trigger to be held against stored events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TriggerTest {
    /// As in `[[webhooks]]` of an agent: `source`, filters, `where`, `key`.
    pub trigger: Map<String, Value>,
    /// Only events that were received then or later, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How many events that match are listed, 1 to 500; they are all counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What a trigger says to stored events of its source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerTestResult {
    /// Events that were looked at, newest first.
    pub scanned: usize,
    /// Whether these were all; else there are older ones.
    pub complete: bool,
    /// When the oldest of them was received.
    pub oldest_at: Option<String>,
    /// How many of them match.
    pub matched: usize,
    /// How many do not.
    pub not_matched: usize,
    /// For how many `where` or `key` failed.
    pub failed: usize,
    /// The newest that match.
    pub events: Vec<TestedEvent>,
    /// A few that do not match.
    pub misses: Vec<TestedEvent>,
    /// A few for which a condition failed.
    pub failures: Vec<TestedEvent>,
}

/// What a trigger says to one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestedEvent {
    /// `evt_…`.
    pub id: String,
    /// `{provider}.{event}[.{action}]`.
    pub event_type: String,
    /// When it was received first.
    pub received_at: String,
    /// The value of `key`, if the trigger has one and matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// In one sentence.
    pub reason: String,
    /// All filters as they are written; the first that failed decides.
    pub clauses: Vec<ClauseVerdict>,
}

/// Something that happened, from `/v1/events/stream`. The SSE event's name is the tag.
#[allow(clippy::large_enum_variant, reason = "they come one at a time and are not kept")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Activity {
    /// An event was stored. Its SSE id is the event's `seq`.
    Event {
        /// The event with its outcomes.
        event: Event,
    },
    /// A stored event was delivered again.
    Duplicate {
        /// The event with its outcomes.
        event: Event,
    },
    /// A delivery was refused.
    Rejected {
        /// The delivery.
        delivery: Delivery,
    },
    /// A run changed its state.
    Run {
        /// The run.
        run: Run,
    },
    /// Saved changes of the configuration were taken over, or refused.
    Config {
        /// Which changes, or why not.
        reload: Reload,
    },
    /// A run wrote to its log.
    Log {
        /// The run's id.
        #[serde(rename = "runId")]
        run_id: String,
        /// The line.
        line: LogLine,
    },
}
