//! Breakers: where one try after the other fails for a reason that is not the run's own, nothing is tried for a while, then one run
//! is, and what it meets decides. Runs wait meanwhile and use up no tries.
//!
//! An endpoint that agents are behind has one, which they share; an agent whose URL changed has another. And each desk has one for
//! starts, as this machine may be short of what they take: disk, descriptors, memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::run::{Outcome, START_AGAIN};
use doorbell_core::time::Timestamp;

use crate::app::Snapshot;
use crate::clock::SLACK;
use crate::config::{Agent, Runtime};
use crate::runtime::Answered;

/// The longest pause of starts.
pub(super) const LONGEST_START_PAUSE: Duration = Duration::from_secs(60);

/// What a breaker guards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Guarded {
    /// What is behind a URL.
    #[default]
    Endpoint,
    /// The start of an agent's runs on this machine.
    Starts,
}

impl Guarded {
    /// Failures in a row that open it.
    fn failures(self) -> u32 {
        match self {
            Self::Endpoint => 5,
            Self::Starts => 1,
        }
    }

    /// How long it stays open the first time, and at most; each failed trial doubles it.
    fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::Endpoint => (Duration::from_secs(10), Duration::from_secs(5 * 60)),
            Self::Starts => (START_AGAIN, LONGEST_START_PAUSE),
        }
    }
}

/// What a try says about what is guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// Somebody answers there, whatever they said; it was started.
    Reached,
    /// Nobody does, or nobody can now; it could not be started: why.
    Failing(String),
    /// It was not asked, or not to the end; it was not tried.
    Unknown,
}

impl Sign {
    /// What an answer says.
    pub(super) fn of(answered: &Answered) -> Self {
        match answered.ended.as_ref().map(|ended| &ended.outcome) {
            None | Some(Outcome::Succeeded | Outcome::Refused(_) | Outcome::Waits { .. }) => Self::Reached,
            Some(Outcome::Failed(why)) => Self::Failing(why.clone()),
            // Of a URL's runs, only one whose event cannot be read is to be tried again: it was not asked.
            Some(
                Outcome::Cancelled(_)
                | Outcome::Lost(_)
                | Outcome::HandedBack
                | Outcome::NotStarted(_)
                | Outcome::TryAgain(_),
            ) => Self::Unknown,
        }
    }
}

/// What the end of a run changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It opened.
    Opened,
    /// A trial failed, so it stays open for longer.
    Lengthened,
    /// It was reached and is closed.
    Closed,
}

/// The breakers of the endpoints that are asked.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<HashMap<String, Arc<Breaker>>>);

impl Breakers {
    /// That of an agent; none if it is behind no URL.
    pub(super) fn of(&self, agent: &Agent) -> Option<Arc<Breaker>> {
        let endpoint = endpoint(agent)?;
        Some(Arc::clone(self.all().entry(endpoint.to_owned()).or_default()))
    }

    /// Forgets those that no agent is behind any more.
    pub(super) fn keep_configured(&self, in_force: &Snapshot) {
        let asked: BTreeSet<&str> = in_force.all_agents().filter_map(|agent| endpoint(agent)).collect();
        self.all().retain(|endpoint, _| asked.contains(endpoint.as_str()));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Breaker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an agent is behind: its URL, without what is asked of it there. It may be a secret.
fn endpoint(agent: &Agent) -> Option<&str> {
    match &agent.runtime {
        Runtime::Http(http) => http.url.split(['?', '#']).next(),
        _ => None,
    }
}

/// The agents that are behind the same endpoint, this one among them.
pub(super) fn beside<'a>(in_force: &'a Snapshot, agent: &'a Agent) -> BTreeSet<&'a str> {
    let all = in_force.all_agents().map(AsRef::as_ref);
    let same = all.filter(|other| endpoint(other).is_some() && endpoint(other) == endpoint(agent));
    same.chain([agent]).map(|agent| agent.name.as_str()).collect()
}

/// A breaker; closed at first.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    guarded: Guarded,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Timestamp,
    pause: Duration,
    /// Whether a run is on its way to find out.
    trying: bool,
    why: String,
}

impl Open {
    /// When its pause is over; none if it is. A clock that was set back does not make it longer.
    fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.since.after(self.pause);
        (self.since <= now.after(SLACK) && now < until).then_some(until)
    }
}

/// How many runs may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Any number.
    All,
    /// One, to find out.
    One,
    /// None, for so long; none for as long as another one is on its way.
    None(Option<Duration>),
}

impl Leave {
    /// What two breakers together allow.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None(one), Self::None(other)) => Self::None(one.zip(other).map(|(one, other)| one.max(other))),
            (none @ Self::None(_), _) | (_, none @ Self::None(_)) => none,
            (Self::All, Self::All) => Self::All,
            _ => Self::One,
        }
    }
}

impl Breaker {
    /// One for the starts of an agent's runs.
    pub(super) fn of_starts() -> Self {
        Self { guarded: Guarded::Starts, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many runs may start now.
    pub(super) fn leave(&self, now: Timestamp) -> Leave {
        match &self.state().open {
            None => Leave::All,
            Some(open) if open.trying => Leave::None(None),
            Some(open) => open.until(now).map_or(Leave::One, |until| Leave::None(Some(until.since(now)))),
        }
    }

    /// A run starts.
    pub(super) fn begin(&self) {
        if let Some(open) = &mut self.state().open {
            open.trying = true;
        }
    }

    /// A run that started has ended so.
    pub(super) fn note(&self, sign: Sign, now: Timestamp) -> Change {
        let mut state = self.state();
        match sign {
            Sign::Unknown => state.open.iter_mut().for_each(|open| open.trying = false),
            Sign::Reached => {
                let was_open = std::mem::take(&mut *state).open.is_some();
                return if was_open { Change::Closed } else { Change::None };
            }
            Sign::Failing(why) => {
                state.failures += 1;
                let (first, longest) = self.guarded.pauses();
                let pause = match &state.open {
                    // Those that were on their way when it opened say nothing new.
                    Some(open) if !open.trying => return Change::None,
                    Some(open) => (open.pause * 2).min(longest),
                    None if state.failures < self.guarded.failures() => return Change::None,
                    None => first,
                };
                let change = if state.open.is_some() { Change::Lengthened } else { Change::Opened };
                state.open = Some(Open { since: now, pause, trying: false, why });
                return change;
            }
        }
        Change::None
    }

    /// Why nothing is tried, or one run only, if it is open: in one sentence for people.
    pub(super) fn reason(&self, now: Timestamp) -> Option<String> {
        let state = self.state();
        let open = state.open.as_ref()?;
        let (failures, why) = (state.failures, &open.why);
        let until = open.until(now).filter(|_| !open.trying);
        Some(match self.guarded {
            Guarded::Endpoint => {
                let next = match until {
                    Some(until) => format!("and is not asked until {until}"),
                    None if open.trying => "and one run is asking it whether it is back".to_owned(),
                    None => "and the next run asks it whether it is back".to_owned(),
                };
                format!("its URL failed {failures} times in a row {next}: {why}")
            }
            Guarded::Starts => {
                let next = match until {
                    Some(until) => format!("nothing of it is started until {until}"),
                    None if open.trying => "one run of it is tried now".to_owned(),
                    None => "the next run is tried again".to_owned(),
                };
                format!("this machine cannot start it, and {next}: {why}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Ended;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn failing() -> Sign {
        Sign::Failing("answered with 503".to_owned())
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        for n in 1..=5 {
            assert_eq!(breaker.leave(at(0)), Leave::All);
            breaker.begin();
            let change = if n == 5 { Change::Opened } else { Change::None };
            assert_eq!(breaker.note(failing(), at(0)), change);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_in_between_does_not_let_them() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            for _ in 1..5 {
                assert_eq!(breaker.note(failing(), at(0)), Change::None);
            }
            assert_eq!(breaker.note(Sign::Reached, at(0)), Change::None, "it was not open");
        }
        assert_eq!((breaker.leave(at(0)), breaker.reason(at(0))), (Leave::All, None));
        let opened = opened();
        assert_eq!(opened.leave(at(4)), Leave::None(Some(Duration::from_secs(6))));
        let why = opened.reason(at(4)).unwrap_or_default();
        assert!(
            why.starts_with("its URL failed 5 times in a row and is not asked until") && why.ends_with("503"),
            "{why}"
        );
    }

    #[test]
    fn a_pause_of_the_breaker_that_is_over_is_not_said_to_go_on() {
        let breaker = opened();
        let says = |now, what: &str| breaker.reason(at(now)).is_some_and(|why| why.contains(what));
        assert!(says(9, "is not asked until 1970-01-01T00:00:10"));
        assert!(says(10, "the next run asks it whether it is back") && !says(10, "until"));
        breaker.begin();
        assert!(says(11, "one run is asking it"));
        breaker.note(failing(), at(12));
        assert!(says(13, "is not asked until 1970-01-01T00:00:32"));
    }

    #[test]
    fn one_run_finds_out_whether_it_closes() {
        let breaker = opened();
        assert_eq!(breaker.leave(at(10)), Leave::One);
        breaker.begin();
        assert_eq!(breaker.leave(at(10)), Leave::None(None));
        assert_eq!(breaker.note(failing(), at(11)), Change::Lengthened);
        assert_eq!(breaker.leave(at(11)), Leave::None(Some(Duration::from_secs(20))), "twice as long");
        assert_eq!(breaker.leave(at(31)), Leave::One);
        breaker.begin();
        assert_eq!(breaker.note(Sign::Reached, at(32)), Change::Closed);
        assert_eq!(breaker.leave(at(32)), Leave::All);
    }

    #[test]
    fn a_trial_that_finds_nothing_out_is_followed_by_another_one() {
        let breaker = opened();
        breaker.begin();
        breaker.note(Sign::Unknown, at(10));
        assert_eq!(breaker.leave(at(10)), Leave::One);
    }

    #[test]
    fn a_machine_that_cannot_start_one_run_is_asked_with_one_at_a_time_and_less_and_less_often() {
        let breaker = Breaker::of_starts();
        let full = || Sign::Failing("no space left".to_owned());
        assert_eq!(breaker.note(full(), at(0)), Change::Opened);
        // Those that were tried at the same time, and those that ended meanwhile.
        assert_eq!((breaker.note(full(), at(0)), breaker.note(Sign::Unknown, at(1))), (Change::None, Change::None));
        assert_eq!(breaker.leave(at(2)), Leave::None(Some(Duration::from_secs(3))));
        let mut now = 5_i64;
        for pause in [10_i64, 20, 40, 60, 60] {
            assert_eq!(breaker.leave(at(now)), Leave::One);
            breaker.begin();
            assert_eq!(breaker.note(full(), at(now)), Change::Lengthened);
            assert_eq!(breaker.leave(at(now)), Leave::None(Some(Duration::from_secs(pause.unsigned_abs()))));
            now += pause;
        }
        breaker.begin();
        assert_eq!((breaker.note(Sign::Reached, at(now)), breaker.leave(at(now))), (Change::Closed, Leave::All));
    }

    #[test]
    fn a_clock_that_was_set_back_ends_the_pause() {
        let breaker = Breaker::of_starts();
        breaker.note(failing(), at(100_000));
        assert_eq!(breaker.leave(at(10)), Leave::One);
    }

    #[test]
    fn two_breakers_allow_what_both_do() {
        let pause = |seconds| Leave::None(Some(Duration::from_secs(seconds)));
        assert_eq!((Leave::All.and(Leave::One), Leave::One.and(pause(1))), (Leave::One, pause(1)));
        assert_eq!((pause(1).and(pause(2)), pause(1).and(Leave::None(None))), (pause(2), Leave::None(None)));
    }

    #[test]
    fn those_that_were_on_their_way_do_not_lengthen_the_pause() {
        let breaker = opened();
        assert_eq!(breaker.note(failing(), at(5)), Change::None);
        assert_eq!(breaker.leave(at(10)), Leave::One);
    }

    #[test]
    fn what_is_said_of_starts_is_what_happens() {
        let breaker = Breaker::of_starts();
        breaker.begin();
        breaker.note(Sign::Failing("no space".to_owned()), at(0));
        let says = |now, what: &str| breaker.reason(at(now)).is_some_and(|why| why.contains(what));
        assert!(says(0, "nothing of it is started until"));
        assert!(says(100, "the next run is tried again"), "nothing is tried yet");
        breaker.begin();
        assert!(says(101, "one run of it is tried now"));
    }

    #[test]
    fn a_run_whose_event_cannot_be_read_says_nothing_about_its_url() {
        let unread = Ended::without_process(Outcome::TryAgain("its events cannot be read".to_owned()));
        assert_eq!(Sign::of(&unread.into()), Sign::Unknown);
    }
}
