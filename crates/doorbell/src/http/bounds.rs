//! How often something may happen, for each of many: token buckets that forget those that are full again.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use doorbell_core::flow::Rate;
use doorbell_core::source::Source;

use super::body::network;
use super::error::Failure;
use crate::config::Gateway;

/// How many are known apart at most. When there are more, those beyond it share one bucket: so memory has a bound, and
/// making up new names is of no use.
const MOST_KNOWN: usize = 16 * 1024;
/// How often those that are full again are looked for at most, while there are too many.
const LOOK: Duration = Duration::from_secs(1);

/// What is bounded at the door.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Verified deliveries of a source, by its name.
    sources: Bounds<String>,
    /// Requests with a key or token, by its hash.
    keys: Bounds<Vec<u8>>,
    /// Refused signatures and keys, by the address (of IPv6 the network) that showed them.
    failures: Bounds<IpAddr>,
}

impl Door {
    /// Lets a verified delivery of a source through, unless there were too many; `key` is what sets its limit. Only verified
    /// ones count: strangers must not be able to use up what its sender may.
    pub(super) fn admit_delivery(&self, source: &Source, key: impl Fn() -> &'static str) -> Result<(), Failure> {
        let Some(rate) = source.rate_limit() else { return Ok(()) };
        self.sources.admit(source.name().to_owned(), rate, Instant::now()).map(drop).map_err(|too_many| {
            let detail = format!("more deliveries came to `{}` than its `{}` lets through", source.name(), key());
            Failure::too_many("rate_limited", detail, too_many.retry_after)
        })
    }

    /// Lets a request with a key or token through, unless there were too many.
    pub(super) fn admit_request(&self, hash: Vec<u8>, gateway: &Gateway) -> Result<(), Failure> {
        let Some(rate) = gateway.key_rate_limit else { return Ok(()) };
        self.keys.admit(hash, rate, Instant::now()).map(drop).map_err(|too_many| {
            let detail = "more requests came with this key than `key_rate_limit` lets through";
            Failure::too_many("rate_limited", detail, too_many.retry_after)
        })
    }

    /// Counts a refused signature or key, and says what is answered to it: `refusal`, or 429 to an address that shows too
    /// many.
    ///
    /// Whoever shows a right one is never asked for this: senders share their addresses with others (GitHub's send for
    /// everybody, a tunnel's are those of all), so nobody may be locked out by what another one sends.
    pub(super) fn refuse(&self, address: IpAddr, gateway: &Gateway, refusal: Failure) -> Failure {
        let Some(rate) = gateway.failure_limit else { return refusal };
        match self.failures.admit(network(address), rate, Instant::now()) {
            Ok(_) => refusal,
            Err(too_many) => {
                let detail =
                    "too many signatures or keys from this address were refused; a right one is taken all the same";
                Failure::too_many("too_many_failures", detail, too_many.retry_after)
            }
        }
    }
}

/// Buckets, one for each `K`. A rate of `100/1m` lets 100 through at once, and then one each 0.6 s.
#[derive(Debug)]
pub(super) struct Bounds<K>(Mutex<Buckets<K>>);

#[derive(Debug)]
struct Buckets<K> {
    known: HashMap<K, Bucket>,
    /// Of all that are too many.
    rest: Option<Bucket>,
    most: usize,
    looked_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    refused: u64,
}

/// One too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When the next one is let through, if none comes before.
    pub(super) retry_after: Duration,
}

impl<K: Hash + Eq> Default for Bounds<K> {
    fn default() -> Self {
        Self::new(MOST_KNOWN)
    }
}

impl<K: Hash + Eq> Bounds<K> {
    fn new(most: usize) -> Self {
        Self(Mutex::new(Buckets { known: HashMap::new(), rest: None, most, looked_at: None }))
    }

    /// Lets one through, and answers how many were not since the last one that was.
    pub(super) fn admit(&self, key: K, rate: Rate, now: Instant) -> Result<u64, TooMany> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.of(key, rate, now);
        bucket.fill(rate, now);
        if bucket.tokens < 1.0 {
            bucket.refused += 1;
            let missing = (1.0 - bucket.tokens) * rate.window.as_secs_f64() / f64::from(rate.count);
            return Err(TooMany { retry_after: Duration::from_secs_f64(missing) });
        }
        bucket.tokens -= 1.0;
        Ok(std::mem::take(&mut bucket.refused))
    }
}

impl<K: Hash + Eq> Buckets<K> {
    fn of(&mut self, key: K, rate: Rate, now: Instant) -> &mut Bucket {
        let new = Bucket { tokens: f64::from(rate.count), filled: now, refused: 0 };
        if self.known.len() >= self.most && !self.known.contains_key(&key) {
            if self.looked_at.is_none_or(|at| now.duration_since(at) >= LOOK) {
                self.looked_at = Some(now);
                // One that is full again is as one that never was.
                self.known.retain(|_, bucket| now.duration_since(bucket.filled) < rate.window);
            }
            if self.known.len() >= self.most {
                return self.rest.get_or_insert(new);
            }
        }
        self.known.entry(key).or_insert(new)
    }
}

impl Bucket {
    fn fill(&mut self, rate: Rate, now: Instant) {
        let gained = now.duration_since(self.filled).as_secs_f64() * f64::from(rate.count) / rate.window.as_secs_f64();
        // The rate may be another one by now.
        self.tokens = (self.tokens + gained).min(f64::from(rate.count));
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate { count, window: Duration::from_secs(seconds) }
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn so_many_at_once_and_then_at_the_rate() {
        let (bounds, now, ten) = (Bounds::default(), Instant::now(), rate(10, 60));
        assert_eq!((0..20).filter(|_| bounds.admit("a", ten, now).is_ok()).count(), 10);
        assert_eq!(bounds.admit("a", ten, now), Err(TooMany { retry_after: after(6) }));
        assert_eq!(bounds.admit("b", ten, now), Ok(0), "another one has its own");
        assert_eq!(bounds.admit("a", ten, now + after(6)), Ok(11));
        assert!(bounds.admit("a", ten, now + after(6)).is_err());
        assert_eq!((0..20).filter(|_| bounds.admit("a", ten, now + after(600)).is_ok()).count(), 10);
    }

    #[test]
    fn another_rate_counts_at_once() {
        let (bounds, now) = (Bounds::default(), Instant::now());
        assert!(bounds.admit("a", rate(100, 60), now).is_ok());
        assert_eq!((0..20).filter(|_| bounds.admit("a", rate(5, 60), now).is_ok()).count(), 5);
        assert!(bounds.admit("a", rate(100, 1), now + after(1)).is_ok());
    }

    #[test]
    fn those_that_are_too_many_to_be_known_share_what_one_has() {
        let (bounds, now, two) = (Bounds::new(3), Instant::now(), rate(2, 60));
        for key in 0..3 {
            assert!(bounds.admit(key, two, now).is_ok());
        }
        assert_eq!((100..200).filter(|key| bounds.admit(*key, two, now).is_ok()).count(), 2);
        assert!(bounds.admit(0, two, now).is_ok(), "who was known before is not disturbed");
        // Once those are full again, there is room for others.
        assert!(bounds.admit(300, two, now + after(60)).is_ok());
        assert!(bounds.0.lock().unwrap_or_else(PoisonError::into_inner).known.contains_key(&300));
    }
}
