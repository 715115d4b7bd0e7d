//! Agents started by hand, paused and resumed; runs that somebody ended or had go on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A run to be started by hand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRun {
    /// What is asked of the agent, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Data for it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
}

/// A run that was started by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartedRun {
    /// The run.
    pub run_id: String,
    /// The event that caused it.
    pub event_id: String,
    /// Its state now.
    pub state: String,
    /// Whether it was asked for before, with the same idempotency key.
    pub duplicate: bool,
}

/// A pause to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewPause {
    /// Why, for those who wonder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The end of a pause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewResume {
    /// How fast what was held goes on, e.g. `10/1m`; without it all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
}

/// Something that is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// The agent; none, and no source: all of them.
    pub agent: Option<String>,
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who paused it.
    pub by: String,
    /// When.
    pub at: String,
    /// Why.
    pub why: Option<String>,
    /// Whether it is over, and what was held goes on little by little.
    pub resuming: bool,
    /// How fast, e.g. `10/1m`, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
}

/// A source that is paused, or for which runs are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PausedSource {
    /// Its name.
    pub name: String,
    /// Whether the configuration has it.
    pub configured: bool,
    /// Its pause; none: it is over, and the last of what was held is about to go on.
    pub pause: Option<Pause>,
    /// Runs that are held for it.
    pub held: u64,
}

/// What the end of a pause did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    /// The agent; none, and no source: all of them.
    pub agent: Option<String>,
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How fast what was held goes on; none: all at once.
    pub rate: Option<String>,
    /// Why its runs are held all the same: all agents are paused; or, of a source, one that listens to it is.
    pub still_held: Option<String>,
}

/// A run that is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retried {
    /// The run.
    pub id: String,
    /// Its state now.
    pub state: String,
}

/// What a cancel did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    /// The run.
    pub id: String,
    /// Its state now; `running` if it was asked to end and has not yet.
    pub state: String,
}

/// What a release did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// The run.
    pub id: String,
    /// Its state now: `queued`, or `waiting` if its time has not come.
    pub state: String,
}

/// That somebody had a run go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovedOn {
    /// `released` or `retried`.
    pub how: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: String,
}

/// A run that called an agent, or that was started by a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkedRun {
    /// `run_…`.
    pub run_id: String,
    /// Its agent.
    pub agent: String,
    /// Its state now; none if it is not kept any more.
    pub state: Option<String>,
}

/// When the clock starts an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// The cron expression.
    pub cron: String,
    /// The time zone it is read in.
    pub timezone: String,
    /// When its next tick is; none while the agent is disabled.
    pub next_at: Option<String>,
}

/// Which runs are to be changed together. At least one of them must be said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManyRuns {
    /// Of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// About this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Caused by this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Only those that failed with all their tries used up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead_letter: bool,
    /// Only dead letters that failed of this: the `causeId` of a group of them, or a reason. To be tried again only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Only say how many there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The `nextCursor` of the answer before: go on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What was done to many runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManyDone {
    /// Runs that were found: at most some thousands at once.
    pub matched: u64,
    /// Those to which it was done.
    pub done: u64,
    /// Of these, those that ran and were asked to end, and may not have ended yet.
    #[serde(default)]
    pub asked: u64,
    /// Those to which it could not be done.
    pub refused: Vec<Refused>,
    /// Whether there may be more: ask again, from `nextCursor`.
    pub more: bool,
    /// Behind the last one that was looked at.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A run to which it could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The run.
    pub id: String,
    /// Why.
    pub why: String,
}
