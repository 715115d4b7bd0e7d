//! What the store is asked about the past: what retention may remove, what is to be forgotten.

use doorbell_core::id::{EventId, RunId};
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use doorbell_core::wait::Wait;

/// Which events may be old enough to be removed.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Received before this, with runs that all ended before it.
    pub before: Timestamp,
    /// With a greater sequence; 0: from the oldest.
    pub after: i64,
}

/// A piece of the past, from its oldest end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// The places in the order of commits of those that may be removed, oldest first.
    pub events: Vec<i64>,
    /// Where to go on looking; none: what comes now is too young.
    pub next: Option<i64>,
}

/// What one step of a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many of the events it was given it came to, from the first on; the others are left to the next step.
    pub looked_at: usize,
    /// Events removed, with all that is theirs.
    pub events: u64,
    /// Runs removed. Their folders are still there.
    pub runs: Vec<RunId>,
}

/// What was removed beside events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemovedRecords {
    /// Rejections.
    pub rejections: u64,
    /// Trigger sets.
    pub trigger_sets: u64,
}

/// A sweep that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Events it removed.
    pub events: u64,
    /// Runs it removed.
    pub runs: u64,
    /// Rejections it removed.
    pub rejections: u64,
    /// Trigger sets it removed.
    pub trigger_sets: u64,
}

/// What retention has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// The greatest sequence of a removed event; 0 if none was. A reader who has seen less than this missed something.
    pub pruned_through: i64,
    /// The last sweep that ended.
    pub last: Option<Sweep>,
}

/// What became of the wish to forget an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgetting {
    /// It is forgotten, since then: now, or earlier.
    Forgotten(Timestamp),
    /// These runs of it are not over. Nothing was changed.
    Unfinished(Vec<RunId>),
    /// There is no such event.
    Unknown,
}

/// What letting a held run go on did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// It is queued for this agent, or waits until its time.
    Released(String),
    /// It is not held, but in this state. Nothing was changed.
    NotHeld(State),
    /// It waits for this, which nobody can hurry. Nothing was changed.
    Waits(Wait),
    /// There is no such run.
    Unknown,
}

/// A copy of the database that a gateway can be started on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// Runs that were not over, and are held in the copy.
    pub held: u64,
    /// The newest event in it, and when that was received.
    pub newest: Option<(EventId, Timestamp)>,
}
