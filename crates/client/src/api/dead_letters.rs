//! Dead letters by what they failed of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Dead letters by agent and cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterGroups {
    /// The largest first.
    pub groups: Vec<DeadLetterGroup>,
    /// Dead letters that were looked at, newest first.
    pub scanned: u64,
    /// Whether these were all; else there are older ones.
    pub complete: bool,
}

/// Dead letters of one agent that failed alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterGroup {
    /// The agent.
    pub agent: String,
    /// What they failed of, without what differs each time.
    pub cause: String,
    /// Its short name, for `cause` where runs are tried again.
    pub cause_id: String,
    /// How many.
    pub count: u64,
    /// When the first of them ended.
    pub first_at: String,
    /// When the last one ended.
    pub last_at: String,
    /// The last one.
    pub run_id: String,
    /// What it says itself.
    pub reason: Option<String>,
    /// The command that tries all of them again.
    pub retry: String,
}
