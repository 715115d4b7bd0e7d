//! What the store keeps for notifications.

use super::StoredRun;

/// A run that became a dead letter, and that nobody was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the order in which they became so.
    pub number: i64,
    /// The source of the event that caused it.
    pub source: String,
    /// The run.
    pub run: StoredRun,
}

/// What is to be remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The number of the last dead letter that is in it: those up to it are taken off.
    pub told: Option<i64>,
    /// Keys and their new values.
    pub kept: Vec<(String, String)>,
    /// Keys to forget.
    pub dropped: Vec<String>,
}
