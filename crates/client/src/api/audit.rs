//! The audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes that were asked for, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// Where the next page begins; none: this is the last one.
    pub next_cursor: Option<String>,
}

/// A change that was asked for through the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    pub at: String,
    /// Whose key (`key_…`), or which run's token (`run_…`).
    pub who: String,
    /// The key's label, or the run's agent.
    pub name: String,
    /// `owner`, `viewer`, `agent` or `run`.
    pub role: String,
    /// The account of whoever asked; none: the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The call, e.g. `POST /v1/agents/{name}/pause`.
    pub operation: String,
    /// What it was about, e.g. the agent's name.
    pub target: String,
    /// The address that it came from.
    pub remote: String,
    /// `done`, `refused`, or `unknown`: the gateway ended before it was over.
    pub result: String,
    /// The status that was answered.
    pub status: Option<u16>,
    /// The code of a refusal.
    pub code: Option<String>,
}
