//! The slow end of a pause: what was held goes on at a rate, so that a week of it does not start at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::flow::Rate;
use tokio::time::Instant;

use super::{Dispatcher, POLL};
use crate::app::Paused;
use crate::clock;
use crate::store::{Error, GivenBack, Whose};

/// Runs given back in one transaction.
const STEP: usize = 500;

impl Dispatcher {
    /// Gives runs of agents that come back slowly their turn, until the gateway closes.
    pub(super) async fn resume_slowly(self: Arc<Self>) {
        let mut next: HashMap<(Whose, Rate), Instant> = HashMap::new();
        loop {
            let resuming = self.app.pauses.resuming();
            // One whose rate was changed begins anew.
            next.retain(|turn, _| resuming.contains(turn));
            for turn @ (whose, rate) in &resuming {
                let due = next.entry(turn.clone()).or_insert_with(Instant::now);
                if *due > Instant::now() {
                    continue;
                }
                let (most, pause) = step(*rate);
                *due = Instant::now() + pause;
                if let Err(error) = self.give_back(whose, most).await {
                    tracing::error!(?whose, error = error.with_causes(), "pause.resume_failed");
                }
            }
            let soonest = next.values().min().copied().unwrap_or_else(|| Instant::now() + POLL);
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.resumed.notified() => {}
                () = tokio::time::sleep_until(soonest) => {}
            }
        }
    }

    /// Lets up to `most` held runs go on; with the last of them the pause is over for good.
    async fn give_back(self: &Arc<Self>, whose: &Whose, most: usize) -> Result<(), Error> {
        let (pauses, paused) = (&self.app.pauses, Paused::from(whose));
        let Some(resuming) = pauses.get(&paused).filter(|pause| pause.resuming.is_some()) else { return Ok(()) };
        let given = self.app.store.give_back(whose.clone(), most, clock::now()).await?;
        // One that came meanwhile is another, and stays.
        if given.moved < most && pauses.remove_if(self.app.store.as_ref(), &paused, |pause| *pause == resuming).await? {
            tracing::info!(?whose, "pause.ended");
        }
        self.take_back(&given);
        Ok(())
    }

    /// Gives back what is held for sources that are not paused: also what was matched before its source was resumed, and
    /// stored after it.
    pub(super) async fn settle_sources(self: &Arc<Self>) -> Result<(), Error> {
        for source in self.app.store.held_sources().await? {
            // Asked anew before each step: it may be paused again.
            while self.app.pauses.get(&Paused::Source(source.clone())).is_none() {
                let whose = Whose::Source(source.clone());
                let given = self.app.store.give_back(whose, STEP, clock::now()).await?;
                self.take_back(&given);
                if given.moved < STEP {
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_back(self: &Arc<Self>, given: &GivenBack) {
        given.agents.iter().for_each(|agent| self.wake(agent));
        self.tell_of_all(&given.superseded);
        self.due.notify_one();
    }
}

/// How many at once, and how long after them the next ones: one at a time, unless that were too often to look.
fn step(rate: Rate) -> (usize, Duration) {
    const OFTEN: u64 = 100;
    let millis = u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX).max(1);
    let count = u64::from(rate.count.max(1));
    let together = (count * OFTEN).div_ceil(millis).clamp(1, count);
    (usize::try_from(together).unwrap_or(usize::MAX), Duration::from_millis(millis * together / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_in_small_steps() {
        let step = |count, millis| step(Rate { count, window: Duration::from_millis(millis) });
        assert_eq!(step(10, 60_000), (1, Duration::from_secs(6)));
        assert_eq!(step(1, 1000), (1, Duration::from_secs(1)));
        assert_eq!(step(1000, 1000), (100, Duration::from_millis(100)));
        assert_eq!(step(5, 1), (5, Duration::from_millis(1)));
    }
}
