//! Runs that are carried out elsewhere: what whoever has their lease tells of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The lease of a run, as it was handed out: whole, or its token alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedRun {
    /// The run.
    pub id: String,
    /// Its state now: `waiting` if another try follows.
    pub state: String,
}
