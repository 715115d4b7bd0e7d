//! Queues as a whole: agents that stand still, runs that go on, and what flow control does to runs.

use doorbell_core::id::RunId;
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How an agent of the configuration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its runs go on.
    Active,
    /// Its runs are held, for this reason: it begins with [`PAUSED`].
    Paused(String),
    /// It was paused: what is held since then goes on little by little, by [`super::Store::give_back`].
    Resuming,
}

/// How the reason of runs begins that are held because somebody paused their agent.
pub const PAUSED: &str = "paused by ";

/// What runs are held with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Their agent.
    Agent(String),
    /// The source of their event.
    Source(String),
}

/// What [`super::Store::give_back`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// How many runs are held no longer.
    pub moved: usize,
    /// Agents that may have queued runs now.
    pub agents: Vec<String>,
    /// Those that ended instead, because a newer one of their key has taken their place.
    pub superseded: Vec<RunId>,
}

/// How a person had a run go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It was held, or waited.
    Released,
    /// It had ended badly.
    Retried,
}

impl How {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Retried => "retried",
        }
    }
}

/// That somebody had a run go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// How.
    pub how: How,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Calls of one run that are shown.
pub const MOST_CALLS: usize = 100;

/// A run that another one started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: String,
    /// Where it stands.
    pub state: State,
}

/// What [`super::Store::retry`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// It is queued for this agent.
    Queued(String),
    /// It is in this state, in which there is nothing to try again.
    NotFailed(State),
    /// This run of a newer event has taken its place.
    Overtaken(RunId),
    /// What its event said was removed for good.
    Forgotten,
    /// There is no such run.
    Unknown,
}

/// How the reason of an outcome begins whose run a replay started.
pub const BY_REPLAY: &str = "by a replay";

/// What kind of thing caused a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CauseKind {
    /// A delivery.
    Webhook,
    /// The clock.
    Schedule,
    /// A person.
    Manual,
    /// A run of another agent.
    Agent,
    /// A problem that the agent is told of.
    Notification,
    /// An event that says again what another one said.
    Replay,
}

impl CauseKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Webhook, Self::Schedule, Self::Manual, Self::Agent, Self::Notification, Self::Replay];

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Agent => "agent",
            Self::Notification => "notification",
            Self::Replay => "replay",
        }
    }
}

/// What flow control did to runs when an event came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Runs that are replaced before they ran.
    pub superseded: Vec<RunId>,
    /// Running runs whose end is asked for, because they are replaced; with whom to name as the cause.
    pub asked_to_end: Vec<(RunId, String)>,
    /// Agents for which a run is held because they are paused.
    pub held: Vec<String>,
    /// When the first run is due that gathers events.
    pub due: Option<Timestamp>,
}

/// What keeps a queued run from being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// This run of its key, of which one is carried out at a time.
    Behind(RunId),
    /// Its trigger's throttle, until then.
    Throttled(Timestamp),
}

/// What [`super::Store::cancel`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It is cancelled.
    Cancelled,
    /// It runs; its end is asked for.
    Requested,
    /// It had ended before.
    AlreadyFinal(State),
    /// There is no such run.
    Unknown,
}
