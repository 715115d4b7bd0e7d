//! Flow control: what becomes of an event whose key is busy, and how much of a key, or of a trigger, may be started.
//!
//! The decision is made in the transaction that stores the event, so it sees every event before this one and none after
//! it: the order of commits is the only order there is.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Events that one run takes in beside its own. The next one starts another run, so that what a run is handed is bounded.
pub const MOST_ABSORBED: u64 = 1000;

/// The flow control of a trigger. The default one controls nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// What becomes of an event whose key has a run that is not over. With it, one run of a key is carried out at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_busy: Option<WhenBusy>,
    /// How long further events of the key are gathered before the run starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debounce: Option<Debounce>,
    /// Runs of one key; what is beyond it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_key: Option<Rate>,
    /// Starts of the trigger's runs; what is beyond it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Rate>,
    /// Runs with a higher one are taken first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// What becomes of an event whose key is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// Its run waits for its turn.
    Queue,
    /// Nothing is started for it.
    Skip,
    /// Its run replaces those before it: what waits is superseded, what runs is asked to end.
    Replace,
    /// It goes with the run of its key that has not started yet.
    Attach,
}

/// How events of a burst are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Debounce {
    /// How long no further event may come.
    pub window: Duration,
    /// How long the first one waits at most.
    pub max_wait: Duration,
}

/// So many in such a time, as in `10/1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// At most.
    pub count: u32,
    /// In any time of this length.
    pub window: Duration,
}

impl Display for Rate {
    /// The count, and the window in milliseconds: what [`Rate::from_str`] reads again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.window.as_millis())
    }
}

impl FromStr for Rate {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (count, millis) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { count: count.parse()?, window: Duration::from_millis(millis.parse()?) })
    }
}

impl Flow {
    /// Whether it controls anything.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether one run of a key is carried out at a time.
    pub fn is_alone(&self) -> bool {
        self.when_busy.is_some()
    }

    /// Whether events go with a run that is queued already, and not only with one that gathers them.
    pub fn attaches(&self) -> bool {
        self.when_busy == Some(WhenBusy::Attach)
    }
}

/// What is known of a key when an event of it comes.
pub trait Lane {
    /// Names a run.
    type Run: Display;
    /// Why something cannot be known.
    type Error;

    /// A run of the key whose event is newer than this one.
    fn newer(&mut self) -> Result<Option<Self::Run>, Self::Error>;
    /// A run of the key that never started and has room for a further event: one that gathers events, or is held;
    /// `queued`: also one that only waits for its turn; `full`: also one that is held because the key has too many.
    fn open(&mut self, queued: bool, full: bool) -> Result<Option<Self::Run>, Self::Error>;
    /// A run of the key that is not over.
    fn holder(&mut self) -> Result<Option<Self::Run>, Self::Error>;
    /// A run of the key that is held and goes on by itself: with its agent, or with the source of this event, which comes
    /// back little by little.
    fn coming_back(&mut self) -> Result<Option<Self::Run>, Self::Error>;
    /// When the run was made that, counted back from the newest, is number `n` of those of the key that were not held.
    fn made(&mut self, n: u32) -> Result<Option<Timestamp>, Self::Error>;
}

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move<R> {
    /// A run is queued.
    Queue,
    /// A run waits for further events.
    Gather {
        /// Until then, if none comes.
        due: Timestamp,
        /// Until then at most.
        ends: Timestamp,
    },
    /// A run is held until a person releases it, for this reason.
    Hold(String),
    /// A run is held until its agent or its source is resumed, for this reason.
    Pause(String),
    /// A run is held as this one is, which is older and goes on before it.
    Behind(R),
    /// It goes with this run.
    Absorb(R),
    /// Nothing is started, for this reason.
    Skip(String),
}

/// What becomes of an event that came at `now`. `paused`: why nothing is started for the time being. If that is because of its
/// source, the lane is one in which only what is held with it has room.
///
/// # Errors
/// If the lane cannot tell what it is asked.
pub fn decide<L: Lane>(
    flow: &Flow,
    lane: &mut L,
    paused: Option<&str>,
    now: Timestamp,
) -> Result<Move<L::Run>, L::Error> {
    if flow.when_busy == Some(WhenBusy::Replace)
        && let Some(run) = lane.newer()?
    {
        return Ok(Move::Skip(format!("{run} is of a newer event of its key, and `when_busy` is \"replace\"")));
    }
    // Once the key is below its limit again, what is held for that no longer stands for it.
    let full = match flow.max_per_key {
        Some(rate) => lane.made(rate.count)?.filter(|made| made.after(rate.window) > now).map(|_| rate),
        None => None,
    };
    if (flow.attaches() || flow.debounce.is_some())
        && let Some(run) = lane.open(flow.attaches(), full.is_some())?
    {
        return Ok(Move::Absorb(run));
    }
    if flow.when_busy == Some(WhenBusy::Skip)
        && let Some(run) = lane.holder()?
    {
        return Ok(Move::Skip(format!("{run} has its key and is not over, and `when_busy` is \"skip\"")));
    }
    if let Some(rate) = full {
        let why = format!("{} runs of its key were made within {:?}: `max_per_key`", rate.count, rate.window);
        return Ok(Move::Hold(format!("{why}; `doorbell runs release` lets it go on")));
    }
    if let Some(reason) = paused {
        return Ok(Move::Pause(reason.to_owned()));
    }
    if flow.when_busy == Some(WhenBusy::Queue)
        && let Some(run) = lane.coming_back()?
    {
        return Ok(Move::Behind(run));
    }
    Ok(match flow.debounce {
        Some(debounce) => {
            let ends = now.after(debounce.max_wait);
            Move::Gather { due: debounce.due(now, ends), ends }
        }
        None => Move::Queue,
    })
}

impl Debounce {
    /// Until when a run waits after an event that came at `now`, if it waits until `ends` at most.
    pub fn due(&self, now: Timestamp, ends: Timestamp) -> Timestamp {
        now.after(self.window).min(ends)
    }
}

/// How many more may be started now, and if none, when the next one may: `starts` are the newest first.
///
/// What is later than now does not count: the clock was set back, and nobody knows how long ago it was.
pub fn allowance(rate: Rate, starts: &[Timestamp], now: Timestamp) -> (u32, Option<Timestamp>) {
    let within = |start: &&Timestamp| **start <= now && start.after(rate.window) > now;
    let counted: Vec<Timestamp> = starts.iter().filter(within).copied().collect();
    let used = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    let left = rate.count.saturating_sub(used);
    // The start that has to be over for one more: with `count` of them, the oldest.
    let opens = (rate.count as usize).checked_sub(1).and_then(|last| counted.get(last));
    (left, if left == 0 { opens.map(|start| start.after(rate.window)) } else { None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1000);

    /// A key of which everything is known.
    #[derive(Debug, Clone, Copy, Default)]
    struct Known {
        newer: Option<&'static str>,
        gathering: Option<&'static str>,
        queued: Option<&'static str>,
        holder: Option<&'static str>,
        coming_back: Option<&'static str>,
        held: Option<&'static str>,
        made: Option<Timestamp>,
    }

    impl Lane for Known {
        type Run = &'static str;
        type Error = std::convert::Infallible;

        fn newer(&mut self) -> Result<Option<&'static str>, Self::Error> {
            Ok(self.newer)
        }

        fn open(&mut self, queued: bool, full: bool) -> Result<Option<&'static str>, Self::Error> {
            Ok(self.gathering.or(self.queued.filter(|_| queued)).or(self.held.filter(|_| full)))
        }

        fn holder(&mut self) -> Result<Option<&'static str>, Self::Error> {
            Ok(self.holder)
        }

        fn coming_back(&mut self) -> Result<Option<&'static str>, Self::Error> {
            Ok(self.coming_back)
        }

        fn made(&mut self, _: u32) -> Result<Option<Timestamp>, Self::Error> {
            Ok(self.made)
        }
    }

    fn busy(when_busy: WhenBusy) -> Flow {
        Flow { when_busy: Some(when_busy), ..Flow::default() }
    }

    fn decided(flow: Flow, mut lane: Known) -> Move<&'static str> {
        decide(&flow, &mut lane, None, NOW).unwrap()
    }

    const BUSY: Known = Known {
        newer: None,
        gathering: None,
        queued: Some("run_2"),
        holder: Some("run_1"),
        coming_back: None,
        held: None,
        made: None,
    };

    #[test]
    fn a_key_that_is_busy_queues_skips_replaces_or_attaches() {
        assert_eq!(decided(busy(WhenBusy::Queue), BUSY), Move::Queue);
        assert!(matches!(decided(busy(WhenBusy::Skip), BUSY), Move::Skip(why) if why.starts_with("run_1 has its key")));
        assert_eq!(decided(busy(WhenBusy::Replace), BUSY), Move::Queue);
        assert_eq!(decided(busy(WhenBusy::Attach), BUSY), Move::Absorb("run_2"));
        let running = Known { queued: None, ..BUSY };
        assert_eq!(decided(busy(WhenBusy::Attach), running), Move::Queue, "what runs has its events already");
    }

    #[test]
    fn what_comes_for_a_key_whose_older_runs_come_back_little_by_little_stays_behind_them() {
        let lane = Known { coming_back: Some("run_1"), ..BUSY };
        assert_eq!(decided(busy(WhenBusy::Queue), lane), Move::Behind("run_1"));
        assert_eq!(decided(busy(WhenBusy::Replace), lane), Move::Queue);
        assert_eq!(decided(Flow::default(), lane), Move::Queue);
    }

    #[test]
    fn an_older_event_never_replaces_newer_work() {
        let lane = Known { newer: Some("run_9"), ..BUSY };
        assert!(
            matches!(decided(busy(WhenBusy::Replace), lane), Move::Skip(why) if why.contains("run_9 is of a newer"))
        );
        assert_eq!(decided(busy(WhenBusy::Queue), lane), Move::Queue);
    }

    #[test]
    fn a_burst_is_gathered_until_it_is_quiet_or_has_waited_long_enough() {
        let debounce = Debounce { window: Duration::from_secs(30), max_wait: Duration::from_secs(40) };
        let flow = Flow { debounce: Some(debounce), ..Flow::default() };
        let first = Move::Gather { due: Timestamp::from_seconds(1030), ends: Timestamp::from_seconds(1040) };
        assert_eq!(decided(flow, Known::default()), first);
        let ends = Timestamp::from_seconds(1040);
        assert_eq!(debounce.due(Timestamp::from_seconds(1005), ends), Timestamp::from_seconds(1035));
        assert_eq!(debounce.due(Timestamp::from_seconds(1025), ends), ends);
        assert_eq!(decided(flow, Known { gathering: Some("run_3"), ..BUSY }), Move::Absorb("run_3"));
        assert_eq!(decided(flow, BUSY), first, "a burst that is over takes nothing in");
    }

    #[test]
    fn a_key_with_too_many_runs_is_held_until_they_are_old() {
        let rate = Rate { count: 2, window: Duration::from_secs(60) };
        let flow = Flow { max_per_key: Some(rate), ..Flow::default() };
        let made = |seconds| Known { made: Some(Timestamp::from_seconds(seconds)), ..Known::default() };
        assert!(matches!(decided(flow, made(941)), Move::Hold(why) if why.contains("2 runs of its key")));
        assert_eq!(decided(flow, made(940)), Move::Queue);
        assert_eq!(decided(flow, Known::default()), Move::Queue);
    }

    #[test]
    fn what_is_held_for_too_many_takes_events_in_only_while_there_are_too_many() {
        let max_per_key = Some(Rate { count: 2, window: Duration::from_secs(60) });
        let flow = Flow { max_per_key, ..busy(WhenBusy::Attach) };
        let lane =
            |seconds| Known { held: Some("run_3"), made: Some(Timestamp::from_seconds(seconds)), ..Known::default() };
        assert_eq!(decided(flow, lane(941)), Move::Absorb("run_3"));
        assert_eq!(decided(flow, lane(940)), Move::Queue);
    }

    #[test]
    fn what_comes_from_a_paused_source_is_held_unless_it_starts_nothing_anyway() {
        let decided = |flow: Flow, mut lane| decide(&flow, &mut lane, Some("paused"), NOW).unwrap();
        let held = Move::Pause("paused".to_owned());
        let debounce = Debounce { window: Duration::from_secs(30), max_wait: Duration::from_secs(40) };
        assert_eq!(decided(Flow::default(), Known::default()), held);
        assert_eq!(decided(Flow { debounce: Some(debounce), ..Flow::default() }, Known::default()), held);
        assert_eq!(decided(busy(WhenBusy::Replace), BUSY), held);
        assert!(matches!(decided(busy(WhenBusy::Skip), BUSY), Move::Skip(_)));
        assert_eq!(decided(busy(WhenBusy::Attach), BUSY), Move::Absorb("run_2"));
        let rate = Rate { count: 2, window: Duration::from_secs(60) };
        let full = Known { made: Some(Timestamp::from_seconds(941)), ..Known::default() };
        assert!(matches!(decided(Flow { max_per_key: Some(rate), ..Flow::default() }, full), Move::Hold(_)));
    }

    #[test]
    fn a_throttle_lets_so_many_start_in_any_window_and_says_when_the_next_may() {
        let rate = Rate { count: 2, window: Duration::from_secs(60) };
        let at = Timestamp::from_seconds;
        assert_eq!(allowance(rate, &[], NOW), (2, None));
        assert_eq!(allowance(rate, &[at(990)], NOW), (1, None));
        assert_eq!(allowance(rate, &[at(999), at(990), at(100)], NOW), (0, Some(at(1050))));
        assert_eq!(allowance(rate, &[at(2000), at(1999), at(940)], NOW), (2, None), "the clock was set back");
    }

    #[test]
    fn a_rate_reads_back_as_it_is_shown() {
        let rate = Rate { count: 30, window: Duration::from_secs(60) };
        assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
    }
}
