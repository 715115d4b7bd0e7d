//! Subscriptions of MCP Events, and what was delivered to them.

use doorbell_core::id::{KeyId, RunId, SubscriptionId};
use doorbell_core::time::Timestamp;

use super::{SealedSecret, StoredSecret};

/// Who wants the events of a source posted to a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its id. The agent of its runs is named by it.
    pub id: SubscriptionId,
    /// The key that made it: it lives no longer.
    pub key: KeyId,
    /// The source.
    pub source: String,
    /// Which of its events: JSON, always written the same way.
    pub arguments: String,
    /// Where they are posted.
    pub url: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its URL last proved that it wants them.
    pub verified_at: Timestamp,
    /// When it ends, unless it is refreshed.
    pub expires_at: Timestamp,
    /// The sequence of the last event that was held against it.
    pub position: i64,
}

/// A subscription with its secrets, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Subscription,
    /// Its secrets, the newest first.
    pub secrets: Vec<StoredSecret>,
}

/// What becomes of a subscription.
#[derive(Debug, Clone)]
pub struct SubscriptionChange {
    /// How it stands afterwards. The position of one that is there already stays, unless it was made at another time.
    pub subscription: Subscription,
    /// Its new secret, and until when the earlier ones sign, too.
    pub secret: Option<(SealedSecret, Timestamp)>,
    /// When.
    pub now: Timestamp,
}

/// Events that were held against a subscription.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The subscription.
    pub id: SubscriptionId,
    /// When it was made: another one of the same id is another one.
    pub created_at: Timestamp,
    /// The sequence of the last of them.
    pub position: i64,
    /// Those that it wants: their sequences, and the runs that deliver them.
    pub wanted: Vec<(i64, RunId)>,
    /// When.
    pub now: Timestamp,
}

/// Runs of an agent that are not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// How many.
    pub runs: usize,
    /// The sequence of the oldest of their events.
    pub oldest: Option<i64>,
}
