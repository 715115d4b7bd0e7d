//! What a store tells about itself, for metrics.

use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// What the group commit does, counted since the store was opened. Clones count together.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Operations in each commit.
    pub operations: Histogram,
    /// Seconds of each transaction, from its begin to the end of its commit.
    pub commit_seconds: Histogram,
    /// Seconds that each commit needed to get what was written onto the disk.
    pub sync_seconds: Histogram,
    /// Seconds of each checkpoint.
    pub checkpoint_seconds: Histogram,
    /// Transactions that could not be opened or committed.
    pub failures: Counter,
}

/// Upper bounds of durations on the disk, in seconds: from a fast disk's fsync to one that hangs.
const DISK_SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Default for Figures {
    fn default() -> Self {
        Self {
            operations: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            commit_seconds: Histogram::new(DISK_SECONDS),
            sync_seconds: Histogram::new(DISK_SECONDS),
            checkpoint_seconds: Histogram::new(DISK_SECONDS),
            failures: Counter::default(),
        }
    }
}

/// How many runs there are, without counting them: the numbers are kept as runs change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Per agent and state that is not final: how many runs are in it now.
    pub runs: Vec<(String, State, u64)>,
    /// Per agent and final state: how many runs came to it since the store was opened.
    pub ended: Vec<(String, State, u64)>,
    /// Per agent: how many runs became dead letters since the store was opened.
    pub dead_letters: Vec<(String, u64)>,
    /// Per agent: when the oldest of its queued runs was made.
    pub oldest_queued: Vec<(String, Timestamp)>,
    /// Per agent and reason: how many runs are held for it.
    pub held: Vec<(String, HeldBy, u64)>,
    /// Per agent: how many of its queued runs have a throttle, whether it lets them start now or not.
    pub in_gates: Vec<(String, u64)>,
    /// Per agent with runs that are throttled: when the next one may start. It may be over.
    pub throttled: Vec<(String, Timestamp)>,
    /// Agents whose runs failed one after the other since one succeeded: how many, and when the first of them ended.
    pub streaks: Vec<(String, u64, Timestamp)>,
}

/// Why a run is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// Its agent, or all of them, are paused.
    AgentPaused,
    /// Its agent is in the configuration no more.
    AgentRemoved,
    /// Its key has too many runs.
    KeyLimit,
    /// Its source is paused.
    SourcePaused,
    /// Something else: it comes from a backup.
    Other,
}

impl HeldBy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::AgentPaused, Self::AgentRemoved, Self::KeyLimit, Self::SourcePaused, Self::Other];

    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentPaused => "agent_paused",
            Self::AgentRemoved => "agent_removed",
            Self::KeyLimit => "key_limit",
            Self::SourcePaused => "source_paused",
            Self::Other => "other",
        }
    }
}

/// What a store takes on the disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// The database.
    pub database: u64,
    /// What was committed and is not yet in the database: the write-ahead log.
    pub log: u64,
    /// What the file system still has for us.
    pub available: u64,
}
