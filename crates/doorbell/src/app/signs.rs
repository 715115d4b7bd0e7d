//! Signs: what may be worth telling somebody, noted where it happens and looked at by whoever tells.
//!
//! Noting is cheap and never waits. Nothing here grows with what happens: it is one entry a configured source or agent, and
//! one a receiver.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::time::Timestamp;
use tokio::sync::Notify;

/// What happened since somebody looked.
#[derive(Debug, Default)]
pub struct Signs {
    taken: Mutex<Taken>,
    telling: Mutex<Vec<Telling>>,
    bell: Notify,
}

/// What happened between two looks.
#[derive(Debug, Default)]
pub struct Taken {
    /// By source.
    pub arrivals: BTreeMap<String, Arrivals>,
    /// What became of the newest saved configuration: nothing, or what is wrong with it.
    pub reload: Option<Result<(), String>>,
    /// By agent: why its URL is not asked for a while; none: it was reached.
    pub breakers: BTreeMap<String, Option<String>>,
}

/// What came to one source between two looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Deliveries that were taken, redeliveries too.
    pub accepted: u64,
    /// Deliveries that were refused.
    pub refused: u64,
    /// When the first and the last one was taken.
    pub first: Timestamp,
    /// See `first`.
    pub last: Timestamp,
    /// The longest time between two that were taken.
    pub longest_gap: Duration,
    /// How many were refused before the first that was taken.
    pub refused_before: u64,
    /// The most that were refused in a row between two that were taken.
    pub longest_streak: u64,
    /// How many were refused since the last that was taken.
    pub streak: u64,
    /// The code of the last refusal.
    pub code: &'static str,
}

/// How telling one receiver goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telling {
    /// What it is known by.
    pub receiver: String,
    /// Messages that it took since the start.
    pub delivered: u64,
    /// Tries that failed since the start.
    pub failed: u64,
    /// Messages that are on their way, wait for their next try, or gather until `every` is over.
    pub waiting: u64,
    /// Why the newest try failed; none if it did not.
    pub error: Option<String>,
}

impl Signs {
    /// A source took a delivery.
    pub fn accepted(&self, source: &str, at: Timestamp) {
        self.note(source, |arrivals| {
            if arrivals.accepted == 0 {
                (arrivals.first, arrivals.last) = (at, at);
                arrivals.refused_before = arrivals.streak;
            } else {
                arrivals.longest_gap = arrivals.longest_gap.max(at.since(arrivals.last));
                arrivals.last = arrivals.last.max(at);
                arrivals.longest_streak = arrivals.longest_streak.max(arrivals.streak);
            }
            arrivals.accepted += 1;
            arrivals.streak = 0;
        });
    }

    /// A source refused a delivery for what it is.
    pub fn refused(&self, source: &str, code: &'static str) {
        self.note(source, |arrivals| {
            arrivals.refused += 1;
            arrivals.streak += 1;
            arrivals.code = code;
        });
    }

    fn note(&self, source: &str, change: impl FnOnce(&mut Arrivals)) {
        let mut taken = self.taken();
        match taken.arrivals.get_mut(source) {
            Some(arrivals) => change(arrivals),
            None => change(taken.arrivals.entry(source.to_owned()).or_default()),
        }
    }

    /// A saved configuration was taken over, or refused for these reasons.
    pub fn reloaded(&self, outcome: Result<(), String>) {
        self.taken().reload = Some(outcome);
        self.ring();
    }

    /// An agent's URL is not asked for a while, for this reason; none: it was reached.
    pub fn breaker(&self, agent: &str, why: Option<String>) {
        self.taken().breakers.insert(agent.to_owned(), why);
        self.ring();
    }

    /// There is something to look at, now.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until there is something to look at.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes what happened.
    pub fn take(&self) -> Taken {
        std::mem::take(&mut *self.taken())
    }

    /// How telling goes, one entry a receiver.
    pub fn telling(&self) -> Vec<Telling> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how telling goes.
    pub fn set_telling(&self, telling: Vec<Telling>) {
        *self.telling.lock().unwrap_or_else(PoisonError::into_inner) = telling;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_in_a_row_and_gaps_between_what_was_taken() {
        let (signs, at) = (Signs::default(), Timestamp::from_seconds);
        signs.refused("a", "signature_missing");
        signs.accepted("a", at(10));
        (0..3).for_each(|_| signs.refused("a", "signature_mismatch"));
        signs.accepted("a", at(70));
        signs.refused("a", "signature_mismatch");
        let found = signs.take().arrivals.remove("a").unwrap_or_default();
        assert_eq!((found.accepted, found.refused), (2, 5));
        assert_eq!((found.refused_before, found.longest_streak, found.streak), (1, 3, 1));
        assert_eq!((found.first, found.last, found.longest_gap), (at(10), at(70), Duration::from_secs(60)));
        assert!(signs.take().arrivals.is_empty(), "it was taken");
    }
}
