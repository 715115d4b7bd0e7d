//! Runs that are carried out elsewhere: what whoever has their lease tells of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The lease of a run, as it was handed out: whole, or its token alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ShownLease {
    /// The token.
    Token(String),
    /// The object that a worker was handed.
    Whole {
        /// The token.
        token: String,
    },
}

impl ShownLease {
    /// The token.
    pub fn token(&self) -> &str {
        match self {
            Self::Token(token) | Self::Whole { token } => token,
        }
    }
}

/// How a run ended, as whoever carried it out tells. With an `error` it failed, else it is done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunEnd {
    /// The lease; not needed where it is the bearer token of the request.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub lease: Option<ShownLease>,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed: a text, or an object with a `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// Whether another try is asked for, or would be of no use; else the agent's `[retries]` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    /// Seconds to wait before the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
}

/// What followed from a run's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedRun {
    /// The run.
    pub id: String,
    /// Its state now: `waiting` if another try follows.
    pub state: String,
}

/// What a worker wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Poll {
    /// Runs of these agents.
    pub agents: Vec<String>,
    /// At most so many, 1 to 64; 1 if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    /// How long to wait for the first, in seconds, up to 120; 30 if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
    /// What people know it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// How long a lease holds without a heartbeat, in seconds, 1 to 3600; 30 if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
}

/// Runs for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Polled<E = Value> {
    /// Oldest first of each agent; none if there were none in time.
    pub runs: Vec<HandedRun<E>>,
}

/// A run for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandedRun<E = Value> {
    /// The run.
    pub run_id: String,
    /// What proves that it is this worker's.
    pub lease: HandedLease,
    /// The event, as agents get it.
    pub envelope: E,
}

/// The lease of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandedLease {
    /// The token.
    pub token: String,
    /// Until when it holds without a heartbeat.
    pub expires_at: String,
    /// How much longer it holds after one, in seconds.
    pub lease_seconds: u64,
}

/// A sign of life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    /// The lease; not needed where it is the bearer token of the request.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub lease: Option<ShownLease>,
}

/// What a heartbeat did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// Until when the lease holds now.
    pub expires_at: String,
    /// Whether somebody wants the run's end: stop, and tell that it failed.
    pub cancel_requested: bool,
}

/// Lines for a run's log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunLines {
    /// The lease; not needed where it is the bearer token of the request.
    #[serde(default, alias = "token", skip_serializing_if = "Option::is_none")]
    pub lease: Option<ShownLease>,
    /// The lines, 1,000 at most.
    pub lines: Vec<RunLine>,
}

/// A line for a run's log: a text, or with the stream that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RunLine {
    /// Of standard output.
    Text(String),
    /// Of the stream that it says.
    Of {
        /// The text.
        text: String,
        /// `stdout` or `stderr`.
        stream: Option<String>,
    },
}

/// What became of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptLines {
    /// How many were kept: a log has its limit.
    pub kept: usize,
}
