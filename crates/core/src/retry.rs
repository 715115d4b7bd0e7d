//! When to try again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The waiting times between the tries of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Before the second try.
    pub initial: Duration,
    /// How much longer each further wait is.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// Whether to take a random part of each wait (between half and all of it), so that runs that failed together do
    /// not come back together.
    pub jitter: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(10), factor: 2.0, max: Duration::from_secs(600), jitter: true }
    }
}

impl Backoff {
    /// The wait after `failures` failed tries (from 1). `seed`: random bits, which decide the jitter.
    pub fn wait(&self, failures: u32, seed: u64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let capped = grown.min(self.max.as_secs_f64()).max(0.0);
        let share = if self.jitter { 0.5 + 0.5 * (seed as f64 / u64::MAX as f64) } else { 1.0 };
        Duration::from_secs_f64(capped * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_grow_to_the_longest_one() {
        let backoff = Backoff { jitter: false, ..Backoff::default() };
        let waits: Vec<u64> = (1..=9).map(|n| backoff.wait(n, 0).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_longest(failures: u32, seed: u64, initial in 0u64..10_000, factor in 0.0f64..1e9) {
            let backoff = Backoff { initial: Duration::from_millis(initial), factor, ..Backoff::default() };
            prop_assert!(backoff.wait(failures, seed) <= backoff.max);
        }
    }
}
