//! Runs: the states of a piece of work, and what follows from how a try of it ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retry::Backoff;
use crate::time::Timestamp;
use crate::wait::Wait;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Kept back until a person, or the agent's return, releases it.
    Held,
    /// Until a time: of its next try, or for what it waits for.
    Waiting,
    /// Ready to be started.
    Queued,
    /// Being carried out, under a lease.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly, with no try left.
    Failed,
    /// Ended by a person.
    Cancelled,
    /// Replaced by a newer run of its key.
    Superseded,
    /// Never started: the queue was full.
    Dropped,
}

impl State {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Held,
        Self::Waiting,
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Dropped,
    ];

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Dropped => "dropped",
        }
    }

    /// The state that the API spells so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing more will happen to it by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Held | Self::Waiting | Self::Queued | Self::Running)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to do with a run whose gateway or worker died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// Start it again, at most [`MOST_LOSSES`] times; these do not count as tries.
    #[default]
    Retry,
    /// It failed.
    Fail,
}

/// How often a lost run is started again.
pub const MOST_LOSSES: u32 = 2;

/// How an agent's runs are tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Tries in all, at least 1. With 1, an agent that asks for another try gets it all the same.
    pub attempts: u32,
    /// For lost runs.
    pub on_lost: OnLost,
    /// Between tries.
    pub backoff: Backoff,
}

impl Default for Policy {
    fn default() -> Self {
        Self { attempts: 1, on_lost: OnLost::Retry, backoff: Backoff::default() }
    }
}

/// How one try of a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// Badly: with a reason for people.
    Failed(String),
    /// Badly, and another try would end the same way: there is none, whatever the policy says. With a reason for people.
    Refused(String),
    /// It could not be done now, and another try is asked for; with a reason for people. Granted up to the policy's
    /// tries, or up to [`TRIES_WHEN_ASKED`] if it has one only.
    TryAgain(String),
    /// It could not be started, since whoever was to carry it out is short of something (disk, descriptors, memory): it is tried
    /// again later, as often as it takes, and no try is used up. With a reason for people.
    NotStarted(String),
    /// A person asked for its end; with who.
    Cancelled(String),
    /// The gateway or the worker that carried it out died; with what is known.
    Lost(String),
    /// The gateway shuts down and gives the run back unfinished.
    HandedBack,
    /// It gave the run back to go on later: this is no try that was used up.
    Waits {
        /// What for.
        wait: Wait,
        /// Until then at most.
        until: Timestamp,
    },
}

/// Tries that an agent which asks for another one gets in all, if its policy says nothing of further ones.
pub const TRIES_WHEN_ASKED: u32 = 5;

/// When a run that could not be started is tried again, unless whoever could not start it says another time.
pub const START_AGAIN: Duration = Duration::from_secs(5);

/// What a run has behind it, the ending try included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tries that ended by themselves and failed, before this one.
    pub failures: u32,
    /// Tries that were lost, before this one.
    pub losses: u32,
}

/// What follows from a try's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub state: State,
    /// When it may start again, if it waits.
    pub due: Option<Timestamp>,
    /// Whether it stays as a dead letter: failed with all tries used up.
    pub dead_letter: bool,
    /// What it has behind it now.
    pub progress: Progress,
    /// Why, in one sentence for people.
    pub reason: String,
    /// What it waits for, if it gave the run back to wait.
    pub wait: Option<Wait>,
}

impl Transition {
    /// The same, with the next try, if one follows, at a time that whoever carried this one out asked for.
    #[must_use]
    pub fn tried_again_at(self, at: Timestamp) -> Self {
        match self.state {
            State::Waiting => Self { due: Some(at), ..self },
            _ => self,
        }
    }
}

/// What becomes of a run whose try ended. `seed`: random bits, which decide the jitter of a wait.
pub fn next(policy: &Policy, behind: Progress, outcome: Outcome, now: Timestamp, seed: u64) -> Transition {
    let end = |state, dead_letter, progress, reason| Transition {
        state,
        due: None,
        dead_letter,
        progress,
        reason,
        wait: None,
    };
    match outcome {
        Outcome::Succeeded => end(State::Succeeded, false, behind, "succeeded".to_owned()),
        Outcome::Cancelled(by) => end(State::Cancelled, false, behind, format!("cancelled by {by}")),
        Outcome::HandedBack => {
            end(State::Queued, false, behind, "handed back unfinished when the gateway shut down".to_owned())
        }
        Outcome::Waits { wait, until } => {
            let reason = wait.describe(Some(until));
            let waits = end(State::Waiting, false, behind, reason);
            Transition { due: Some(until), wait: Some(wait), ..waits }
        }
        Outcome::Failed(reason) => fail(policy, policy.attempts, behind, reason, now, seed),
        Outcome::Refused(reason) => fail(policy, 0, behind, reason, now, seed),
        Outcome::TryAgain(reason) => {
            let tries = if policy.attempts > 1 { policy.attempts } else { TRIES_WHEN_ASKED };
            fail(policy, tries, behind, reason, now, seed)
        }
        Outcome::NotStarted(reason) => {
            let reason = format!("not started: {reason}; it is tried again until it can be, and no try is used up");
            Transition { due: Some(now.after(START_AGAIN)), ..end(State::Waiting, false, behind, reason) }
        }
        Outcome::Lost(what) => {
            let progress = Progress { losses: behind.losses + 1, ..behind };
            match policy.on_lost {
                OnLost::Fail => end(State::Failed, true, progress, format!("{what}; `on_lost = \"fail\"`")),
                OnLost::Retry if progress.losses > MOST_LOSSES => end(
                    State::Failed,
                    true,
                    progress,
                    format!("{what}; lost {} times, so it is not tried again", progress.losses),
                ),
                OnLost::Retry => end(State::Queued, false, progress, format!("{what}; started again")),
            }
        }
    }
}

/// What becomes of a run whose try failed, when it gets `tries` in all.
fn fail(policy: &Policy, tries: u32, behind: Progress, reason: String, now: Timestamp, seed: u64) -> Transition {
    let progress = Progress { failures: behind.failures + 1, ..behind };
    if progress.failures >= tries {
        return Transition { state: State::Failed, due: None, dead_letter: true, progress, reason, wait: None };
    }
    let due = now.after(policy.backoff.wait(progress.failures, seed));
    let uncounted = if progress.losses > 0 { ", lost ones not counted" } else { "" };
    let reason = format!("{reason}; try {} of {tries} follows{uncounted}", progress.failures + 1);
    Transition { state: State::Waiting, due: Some(due), dead_letter: false, progress, reason, wait: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1000);

    fn after(policy: Policy, behind: Progress, outcome: Outcome) -> Transition {
        next(&policy, behind, outcome, NOW, 7)
    }

    #[test]
    fn a_failure_with_tries_left_waits_and_the_last_one_is_a_dead_letter() {
        let policy = Policy { attempts: 2, ..Policy::default() };
        let first = after(policy, Progress::default(), Outcome::Failed("exit 1".to_owned()));
        assert_eq!((first.state, first.dead_letter), (State::Waiting, false));
        assert!(first.due > Some(NOW));
        let second = after(policy, first.progress, Outcome::Failed("exit 1".to_owned()));
        assert_eq!((second.state, second.dead_letter, second.due), (State::Failed, true, None));
    }

    #[test]
    fn an_agent_that_asks_for_another_try_gets_one_even_if_its_policy_has_none() {
        let ask = || Outcome::TryAgain("asked for a retry (exit 75)".to_owned());
        let mut behind = Progress::default();
        for _ in 1..TRIES_WHEN_ASKED {
            let asked = after(Policy::default(), behind, ask());
            assert_eq!((asked.state, asked.dead_letter), (State::Waiting, false));
            assert!(asked.due > Some(NOW));
            behind = asked.progress;
        }
        let last = after(Policy::default(), behind, ask());
        assert_eq!((last.state, last.dead_letter, last.due), (State::Failed, true, None));
        assert_eq!(last.progress.failures, TRIES_WHEN_ASKED);
    }

    #[test]
    fn an_agent_that_asks_for_another_try_gets_as_many_as_its_policy_allows() {
        let policy = Policy { attempts: TRIES_WHEN_ASKED + 1, ..Policy::default() };
        let behind = Progress { failures: TRIES_WHEN_ASKED - 1, losses: 0 };
        let asked = after(policy, behind, Outcome::TryAgain("busy".to_owned()));
        assert_eq!((asked.state, asked.reason.as_str()), (State::Waiting, "busy; try 6 of 6 follows"));
    }

    #[test]
    fn an_agent_that_asks_for_another_try_gets_no_more_than_its_policy_allows() {
        let policy = Policy { attempts: 3, ..Policy::default() };
        let ask = |failures| after(policy, Progress { failures, losses: 0 }, Outcome::TryAgain("busy".to_owned()));
        assert_eq!((ask(1).state, ask(1).reason.as_str()), (State::Waiting, "busy; try 3 of 3 follows"));
        assert_eq!((ask(2).state, ask(2).dead_letter), (State::Failed, true));
    }

    #[test]
    fn a_failure_after_a_try_that_was_asked_for_counts_as_usual() {
        let asked = after(Policy::default(), Progress::default(), Outcome::TryAgain("busy".to_owned()));
        let failed = after(Policy::default(), asked.progress, Outcome::Failed("exited with code 1".to_owned()));
        assert_eq!((failed.state, failed.dead_letter), (State::Failed, true));
    }

    #[test]
    fn what_would_end_the_same_way_is_not_tried_again() {
        let policy = Policy { attempts: 5, ..Policy::default() };
        let refused = after(policy, Progress::default(), Outcome::Refused("answered with 400".to_owned()));
        assert_eq!((refused.state, refused.dead_letter, refused.due), (State::Failed, true, None));
        assert_eq!(refused.reason, "answered with 400");
    }

    #[test]
    fn the_next_try_is_when_it_was_asked_for_and_only_if_there_is_one() {
        let policy = Policy { attempts: 2, ..Policy::default() };
        let at = NOW.after(Duration::from_secs(1));
        let first = after(policy, Progress::default(), Outcome::Failed("busy".to_owned())).tried_again_at(at);
        assert_eq!((first.state, first.due), (State::Waiting, Some(at)));
        let last = after(policy, first.progress, Outcome::Failed("busy".to_owned())).tried_again_at(at);
        assert_eq!((last.state, last.due), (State::Failed, None));
    }

    #[test]
    fn a_lost_run_is_started_again_twice_and_no_more() {
        let mut behind = Progress::default();
        for _ in 0..MOST_LOSSES {
            let lost = after(Policy::default(), behind, Outcome::Lost("the gateway died".to_owned()));
            assert_eq!(lost.state, State::Queued);
            behind = lost.progress;
        }
        let last = after(Policy::default(), behind, Outcome::Lost("the gateway died".to_owned()));
        assert_eq!((last.state, last.dead_letter), (State::Failed, true));
    }

    #[test]
    fn losses_and_shutdowns_do_not_use_up_tries() {
        let lost = after(Policy::default(), Progress::default(), Outcome::Lost("it died".to_owned()));
        assert_eq!(lost.progress.failures, 0);
        let back = after(Policy::default(), lost.progress, Outcome::HandedBack);
        assert_eq!((back.state, back.progress), (State::Queued, lost.progress));
    }

    #[test]
    fn what_could_not_be_started_waits_as_often_as_it_takes() {
        let behind = Progress { failures: 4, losses: 2 };
        let waits = after(Policy::default(), behind, Outcome::NotStarted("no space left".to_owned()));
        assert_eq!((waits.state, waits.due, waits.progress), (State::Waiting, Some(NOW.after(START_AGAIN)), behind));
        let later = NOW.after(Duration::from_secs(60));
        assert_eq!(waits.tried_again_at(later).due, Some(later));
    }

    #[test]
    fn a_wait_uses_up_no_try_and_is_over_at_its_time_at_the_latest() {
        let behind = Progress { failures: 1, losses: 1 };
        let until = NOW.after(Duration::from_secs(60));
        let waits = after(Policy::default(), behind, Outcome::Waits { wait: Wait::Sleep, until });
        assert_eq!((waits.state, waits.due, waits.progress), (State::Waiting, Some(until), behind));
        assert_eq!((waits.wait, waits.dead_letter), (Some(Wait::Sleep), false));
    }

    #[test]
    fn on_lost_fail_does_not_try_again() {
        let policy = Policy { on_lost: OnLost::Fail, ..Policy::default() };
        assert_eq!(after(policy, Progress::default(), Outcome::Lost("it died".to_owned())).state, State::Failed);
    }

    #[test]
    fn states_read_back_from_their_names() {
        assert!(State::ALL.into_iter().all(|state| State::parse(state.as_str()) == Some(state)));
    }
}
