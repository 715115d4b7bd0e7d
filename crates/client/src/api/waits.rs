//! Runs that wait: for a time, an event, the end of another run, an answer. And what their steps came to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ShownLease;

/// A wish to go on at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSleep {
    /// The lease; not needed where it is the bearer token of the request.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub lease: Option<ShownLease>,
    /// When to go on, RFC 3339.
    pub until: String,
}

/// How long something may take: as in `15m`, or in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Patience {
    /// With its unit.
    Text(String),
    /// Seconds.
    Seconds(f64),
}

/// A wish to go on with an event, or with the end of a run: one of them must be said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewWait {
    /// The lease; not needed where it is the bearer token of the request.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub lease: Option<ShownLease>,
    /// The event: `issues`, `issues.opened` or `github.issues.opened`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Of this source; without it, of any that the agent listens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only if this CEL expression is true of it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A run that this one started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How long to wait at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Patience>,
}

/// A question to people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewQuestion {
    /// The lease; not needed where it is the bearer token of the request.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub lease: Option<ShownLease>,
    /// What is asked.
    pub question: String,
    /// The answers that there are; without them any is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// How long to wait at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Patience>,
}

/// What became of a wish to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenBack {
    /// The run.
    pub id: String,
    /// Its state now: mostly `waiting`; `running` if it is a command, which waits when it has ended.
    pub state: String,
    /// Until when it waits at most.
    pub due_at: Option<String>,
}

/// An answer to the question of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAnswer {
    /// A text, or any other JSON if the question names no answers.
    pub answer: Value,
}

/// What an answer did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The run.
    pub id: String,
    /// Its state now: mostly `queued`.
    pub state: String,
}

/// What a run waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitsFor {
    /// `sleep`, `event`, `run` or `answer`.
    pub kind: String,
    /// The event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Its source, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What must be true of it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The run whose end it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The answers that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What a wait was over by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumedBy {
    /// `sleep`, `timeout`, `event`, `run` or `answer`.
    pub kind: String,
    /// In one sentence.
    pub what: String,
    /// The event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// `{provider}.{event}[.{action}]` of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A step of a run, without its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its key.
    pub key: String,
    /// When its result was kept.
    pub at: String,
    /// Bytes of the result.
    pub bytes: u64,
}
