//! Which secrets are in use, so that an old one can be taken away when nobody signs with it any more.
//!
//! Deliveries are counted in memory and the counts kept once a second, so that counting costs a delivery no write. A
//! crash loses what was counted in its last second; which secret verified an event is stored with the event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use doorbell_core::time::Timestamp;

use crate::store::{Error, SecretUse, Store};

/// Counts by source and credential.
#[derive(Debug, Default)]
pub struct SecretUses(Mutex<BTreeMap<String, BTreeMap<String, Tally>>>);

/// What one credential of a source verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries, redeliveries too, and those that were refused for another reason.
    pub deliveries: u64,
    /// When the newest of them was received.
    pub last_at: Option<Timestamp>,
    /// How many of them are not kept yet.
    unkept: u64,
}

impl SecretUses {
    /// With what was kept before.
    pub fn new(kept: Vec<SecretUse>) -> Self {
        let mut all: BTreeMap<String, BTreeMap<String, Tally>> = BTreeMap::new();
        for SecretUse { source, credential, deliveries, last_at } in kept {
            let tally = Tally { deliveries, last_at: Some(last_at), unkept: 0 };
            all.entry(source).or_default().insert(credential, tally);
        }
        Self(Mutex::new(all))
    }

    /// Counts a delivery that a credential of a source verified.
    pub fn count(&self, source: &str, credential: &str, at: Timestamp) {
        self.change(source, credential, |tally| {
            tally.deliveries += 1;
            tally.unkept += 1;
            tally.last_at = tally.last_at.max(Some(at));
        });
    }

    /// What a credential of a source verified so far.
    pub fn of(&self, source: &str, credential: &str) -> Tally {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(source).and_then(|credentials| credentials.get(credential)).copied().unwrap_or_default()
    }

    /// Forgets a source that is gone for good; the store has forgotten it.
    pub fn forget(&self, source: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(source);
    }

    /// Keeps what was counted since the last time; without anything, the store is not asked.
    ///
    /// # Errors
    /// If the store is unavailable; the next call tries again.
    pub async fn keep(&self, store: &dyn Store) -> Result<(), Error> {
        let uses = self.take_unkept();
        if uses.is_empty() {
            return Ok(());
        }
        let kept = store.add_secret_uses(uses.clone()).await;
        if kept.is_err() {
            for SecretUse { source, credential, deliveries, .. } in uses {
                self.change(&source, &credential, |tally| tally.unkept += deliveries);
            }
        }
        kept
    }

    fn take_unkept(&self) -> Vec<SecretUse> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut uses = Vec::new();
        for (source, credentials) in all.iter_mut() {
            for (credential, tally) in credentials.iter_mut().filter(|(_, tally)| tally.unkept > 0) {
                let Some(last_at) = tally.last_at else { continue };
                let deliveries = std::mem::take(&mut tally.unkept);
                uses.push(SecretUse { source: source.clone(), credential: credential.clone(), deliveries, last_at });
            }
        }
        uses
    }

    fn change(&self, source: &str, credential: &str, change: impl FnOnce(&mut Tally)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = all.get_mut(source).and_then(|credentials| credentials.get_mut(credential)) {
            return change(tally);
        }
        change(all.entry(source.to_owned()).or_default().entry(credential.to_owned()).or_default());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[tokio::test]
    async fn what_is_counted_is_kept_once_and_goes_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::open("sqlite:doorbell.db", folder.path()).await.unwrap();
        let uses = SecretUses::new(store.secret_uses().await.unwrap());
        for second in [3, 1] {
            uses.count("acme", "new", at(second));
        }
        uses.count("acme", "old", at(2));
        for _ in 0..2 {
            uses.keep(store.as_ref()).await.unwrap();
        }
        uses.count("acme", "new", at(5));
        uses.keep(store.as_ref()).await.unwrap();
        let again = SecretUses::new(store.secret_uses().await.unwrap());
        let seen = |credential| {
            let Tally { deliveries, last_at, .. } = again.of("acme", credential);
            (deliveries, last_at)
        };
        assert_eq!(seen("new"), (3, Some(at(5))));
        assert_eq!(seen("old"), (1, Some(at(2))));
        assert_eq!(seen("never"), (0, None));
    }
}
