//! Agents, and what was declared of them through the API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Pause, Schedule};

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// One line.
    pub description: Option<String>,
    /// `command`, `http`, `worker`.
    pub runtime: String,
    /// Runs at once; 0: disabled.
    pub scale: u32,
    /// How long a try may take, in seconds.
    pub timeout_seconds: u64,
    /// The sources it listens to.
    pub sources: Vec<String>,
    /// When the clock starts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// Its pause, or that of all agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Why its runs wait: its URL fails, or nothing can be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// That no worker asks for its runs, and since when, if it is one that workers carry out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
    /// How its own webhook is proved, if it is enabled: `bearer`, `hmac`, `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_webhook: Option<String>,
    /// Its account, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// `file`, or `api` if it was declared there.
    #[serde(default)]
    pub managed_by: String,
    /// Why what was declared of it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentList {
    /// By name.
    pub agents: Vec<Agent>,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentDetail {
    /// What the list says of it.
    #[serde(flatten)]
    pub agent: Agent,
    /// What was declared of it; none if it is a file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declaration: Option<Declaration>,
}

/// What was declared of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Declaration {
    /// As it was given.
    pub definition: Map<String, Value>,
    /// What `If-Match` takes: another one for every other definition.
    pub etag: String,
    /// Who declared it first.
    pub created_by: String,
    /// When.
    pub created_at: String,
    /// Who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: String,
    /// What was accepted and may not be what was meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An agent whose declaration was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedAgent {
    /// Its name.
    pub name: String,
    /// When.
    pub removed_at: String,
}

/// One thing that is wrong with what was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// The path of the value, e.g. `webhooks[0].events`; empty: all of it.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}
