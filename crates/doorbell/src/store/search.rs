//! Looking for events by what they say.

use std::time::Duration;

use doorbell_core::search::Search;
use doorbell_core::time::Timestamp;

use super::StoredEvent;

/// What events must say.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The words.
    pub search: Search,
    /// Whether they may stand in the body, too. Bodies have no index.
    pub bodies: bool,
    /// How long it may be looked for them.
    pub within: Duration,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Newest first.
    pub events: Vec<StoredEvent>,
    /// Where to go on ([`super::EventQuery::before`]); none: all were looked at.
    pub next: Option<i64>,
    /// How far back it was looked, if the time was over before there were as many as were asked for.
    pub back_to: Option<Timestamp>,
}
