//! Runs that wait and go on, and what their steps came to.

use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use doorbell_core::wait::Resumed;

use super::{Lease, StoredRun};

/// Steps that one run keeps at most.
pub const MOST_STEPS: u64 = 1000;
/// Bytes that the steps of one run have together at most.
pub const LARGEST_STEPS: u64 = 8 * 1024 * 1024;

/// A run that waits for something, or is held meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The run.
    pub run: StoredRun,
    /// Events after this sequence are new to it.
    pub heard: i64,
}

/// That a run goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The run.
    pub run: RunId,
    /// The try after which it waits: it may wait for something else by now.
    pub attempt: u32,
    /// What it goes on by.
    pub by: Resumed,
    /// If that is an event: its sequence.
    pub heard: Option<i64>,
    /// Now.
    pub now: Timestamp,
}

/// The result of a step to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    /// The run.
    pub run: RunId,
    /// Its lease.
    pub lease: Lease,
    /// The step.
    pub key: String,
    /// Its result as JSON.
    pub value: String,
    /// Now.
    pub at: Timestamp,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKept {
    /// It is kept.
    Kept,
    /// There was one already, which stays: this one.
    There(String),
    /// The run has [`MOST_STEPS`] already, or they would be over [`LARGEST_STEPS`].
    Full,
    /// The lease is no longer the run's.
    Lost,
}

/// A step, without its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step.
    pub key: String,
    /// When its result was kept.
    pub at: Timestamp,
    /// Bytes of the result.
    pub bytes: u64,
}
