//! What was sent and answered, and what turned out not to hold.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use doorbell_client::api::Receipt;

/// A delivery that was answered 2xx.
#[derive(Debug, Clone)]
pub struct Answered {
    /// When it was sent first: it is received at that time or later, so it is kept at least this long after.
    pub sent: Instant,
    /// When it was answered.
    pub answered: Instant,
    pub kind: Kind,
    pub receipt: Receipt,
}

/// What a delivery says, and so whom it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Issue,
    Push,
    Job,
}

impl Kind {
    /// The agents that it always starts. `third` comes and goes.
    pub fn agents(self) -> &'static [&'static str] {
        match self {
            Self::Issue => &["one", "two"],
            Self::Push | Self::Job => &["busy"],
        }
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// By delivery id, as long as they must be there.
    pub known: Mutex<BTreeMap<String, Answered>>,
    findings: Mutex<Vec<String>>,
    pub accepted: AtomicU64,
    /// Sent again on purpose.
    pub again: AtomicU64,
    /// Attempts that got no 2xx: the gateway was gone, or said 503.
    pub unanswered: AtomicU64,
    /// Comparisons of an answered delivery with what is stored.
    pub audited: AtomicU64,
    /// The most events that were stored at once: how far the sweep is behind.
    pub most_events: AtomicU64,
    pub reloads: AtomicU64,
    pub backups: AtomicU64,
    pub gateways_killed: AtomicU64,
    pub agents_killed: AtomicU64,
}

impl Ledger {
    /// Notes what does not hold.
    pub fn find(&self, what: String) {
        let mut findings = self.findings.lock().unwrap();
        if findings.len() < 20 {
            println!("does not hold: {what}");
        }
        findings.push(what);
    }

    pub fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.find(what());
        }
    }

    pub fn findings(&self) -> usize {
        self.findings.lock().unwrap().len()
    }

    /// Those that were answered before `begun` and, at `ended`, are younger than what retention removes.
    pub fn due(&self, begun: Instant, ended: Instant, retention: Duration) -> BTreeMap<String, Answered> {
        let mut known = self.known.lock().unwrap();
        known.retain(|_, one| ended - one.sent < retention);
        known.iter().filter(|(_, one)| one.answered < begun).map(|(id, one)| (id.clone(), one.clone())).collect()
    }

    /// One of the younger ones.
    pub fn any(&self, younger: Duration) -> Option<(String, Answered)> {
        let known = self.known.lock().unwrap();
        let at = usize::from(u16::from_be_bytes(doorbell::clock::random())) % known.len().max(1);
        known.iter().nth(at).filter(|(_, one)| one.sent.elapsed() < younger).map(|(id, one)| (id.clone(), one.clone()))
    }
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
