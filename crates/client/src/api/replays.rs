//! Stored events that are carried out once more.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;

/// That an event says again what another one said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayOf {
    /// `rpl_…`: the replay that made it.
    pub id: String,
    /// The other one.
    pub event: String,
}

/// Which agents a replay starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayMode {
    /// Those whose triggers match now.
    #[default]
    Now,
    /// Those of them that have no run for the event.
    Missing,
    /// Those that are named, whatever their triggers say.
    Agent,
}

/// How an event is to be replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayWish {
    /// Which agents.
    #[serde(default)]
    pub mode: ReplayMode,
    /// Only these; with mode `agent`: these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
}

/// What the replay of one event did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// The event that says it again; none: no agent is to be started.
    pub event_id: Option<String>,
    /// What it became for each agent.
    pub outcomes: Vec<Outcome>,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayFilter {
    /// Of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of this event: `issues`, `issues.opened` or `github.issues.opened`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// With such an outcome for some agent; `none`: no agent wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Received then or later, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Received before, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// For which this condition (CEL) is true.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// Many events to be replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewReplay {
    /// Which. At least one of them must be said.
    pub filter: ReplayFilter,
    /// Which agents.
    #[serde(default)]
    pub mode: ReplayMode,
    /// Only these; with mode `agent`: these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// How fast, e.g. `10/1s`; without it as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Only say what it would do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a replay would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayPreview {
    /// Events that were found.
    pub events: u64,
    /// Whether all were looked at: some thousands are, for some seconds.
    pub complete: bool,
    /// Runs it would start, by agent, as if there were no flow control.
    pub agents: std::collections::BTreeMap<String, u64>,
    /// What flow control makes of them: that there may be fewer, or one at a time.
    #[serde(default, skip_serializing_if = "std::collections::BTreeSet::is_empty")]
    pub notes: std::collections::BTreeSet<String>,
    /// Events of which nobody knows whether they would be replayed: what they said is forgotten or cannot be read, or the
    /// condition failed.
    #[serde(default)]
    pub failed: u64,
    /// The first of these, and why.
    #[serde(default)]
    pub failure: Option<String>,
}

/// A replay of many events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// `rpl_…`.
    pub id: String,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub at: String,
    /// `running`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// What it is to do.
    pub wish: NewReplay,
    /// Events that were looked at, of those that the filter without its condition finds.
    pub looked_at: u64,
    /// How many those are, counted when it began.
    pub of: u64,
    /// Events that were replayed.
    pub replayed: u64,
    /// Runs that were started.
    pub started: u64,
    /// Events that could not be replayed: what they said is forgotten or cannot be read, or the condition failed.
    pub failed: u64,
    /// What flow control made of the runs: that there are fewer, or one at a time.
    #[serde(default, skip_serializing_if = "std::collections::BTreeSet::is_empty")]
    pub notes: std::collections::BTreeSet<String>,
    /// Why it ended, if it failed.
    pub error: Option<String>,
}

/// Replays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayList {
    /// Newest first.
    pub replays: Vec<Replay>,
}
