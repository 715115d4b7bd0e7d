//! What flow control makes visible: the events of a run, and who has which key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A further event of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Companion {
    /// `evt_…`.
    pub event_id: String,
    /// `{provider}.{event}[.{action}]`.
    pub event_type: String,
    /// When it was received first.
    pub received_at: String,
}

/// Runs of an agent that failed one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingStreak {
    /// How many since one succeeded.
    pub runs: u64,
    /// When the first of them ended.
    pub since: String,
}

/// A run that has a key and began: it runs, or waits for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The key.
    pub key: String,
    /// `run_…`.
    pub run_id: String,
    /// `running`, `waiting`, or `held` while it waits.
    #[serde(default)]
    pub state: String,
}
