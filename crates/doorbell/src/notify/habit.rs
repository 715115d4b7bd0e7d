//! What a source is used to, and when that is over: it is quiet for too long, or refuses too much.
//!
//! Both are held against the last 14 days. A time in which no gateway ran is nobody's silence.

use std::collections::BTreeMap;
use std::time::Duration;

use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app::Arrivals;
use crate::config::Topic;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Days that a habit is made of: two weekends.
const DAYS: i64 = 14;
/// No source is silent before this, whatever it is used to.
const SHORTEST_SILENCE: Duration = Duration::from_secs(60 * 60);
/// Deliveries in those days without which there is no habit.
const FEWEST: u64 = 4;
/// Refusals in a row that nobody is told of, whatever the source is used to.
const SHORTEST_STREAK: u64 = 5;
/// How long refusals are set against what was taken.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Refusals in that time without which their share means nothing.
const FEWEST_REFUSED: u64 = 20;
/// Their least share that is told, in percent.
const LEAST_SHARE: u64 = 20;

/// What one source is used to, and how it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Habit {
    /// From when on it is known, moved on by the times in which no gateway ran.
    since: Timestamp,
    /// When the last delivery was taken.
    last: Option<Timestamp>,
    /// The same, moved on by the times in which no gateway ran.
    quiet_from: Timestamp,
    days: BTreeMap<i64, Day>,
    /// Refusals since the last delivery that was taken.
    streak: u64,
    /// Whether its silence was told.
    silent: bool,
    /// Whether its refusals were told.
    refusing: Option<Refusing>,
    #[serde(skip)]
    window: Window,
}

/// One day of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    gap_seconds: u64,
    streak: u64,
    accepted: u64,
    refused: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Refusing {
    /// Everything.
    All,
    /// A part.
    Part,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Window {
    from: Timestamp,
    accepted: u64,
    refused: u64,
}

/// Something to tell about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) on: Topic,
    /// Whether it is over.
    pub(super) ended: bool,
    pub(super) text: String,
}

impl Habit {
    /// Of a source that is seen for the first time; `events` are the times of its newest events, newest first.
    pub(super) fn learn(events: &[Timestamp], now: Timestamp) -> Self {
        let oldest = events.last().copied().unwrap_or(now);
        let last = events.first().copied();
        let mut habit = Self { since: oldest, last, quiet_from: last.unwrap_or(now), ..Self::default() };
        for (i, at) in events.iter().enumerate() {
            let day = habit.days.entry(day_of(*at)).or_default();
            day.accepted += 1;
            if let Some(earlier) = events.get(i + 1) {
                day.gap_seconds = day.gap_seconds.max(at.since(*earlier).as_secs());
            }
        }
        habit.forget_old(now);
        habit
    }

    /// No gateway ran for so long.
    pub(super) fn was_unwatched(&mut self, time: Duration) {
        self.since = self.since.after(time);
        self.quiet_from = self.quiet_from.after(time);
    }

    /// Takes what came to `source` since the last look, and answers what there is to tell.
    pub(super) fn look(&mut self, source: &str, came: &Arrivals, now: Timestamp) -> Vec<Change> {
        self.forget_old(now);
        let mut changes = Vec::new();
        changes.extend(self.look_at_silence(source, came, now));
        changes.extend(self.look_at_refusals(source, came, now));
        changes
    }

    fn look_at_silence(&mut self, source: &str, came: &Arrivals, now: Timestamp) -> Option<Change> {
        let change = |ended, text| Some(Change { on: Topic::Silent, ended, text });
        if came.accepted > 0 {
            if self.last.is_some() {
                let gap = came.longest_gap.max(came.first.since(self.quiet_from)).as_secs();
                let today = self.days.entry(day_of(now)).or_default();
                today.gap_seconds = today.gap_seconds.max(gap);
            }
            self.last = Some(came.last);
            self.quiet_from = came.last;
            let told = std::mem::take(&mut self.silent);
            return if told { change(true, format!("Source `{source}` receives deliveries again")) } else { None };
        }
        if self.silent {
            return None;
        }
        let Some(last) = self.last else {
            self.silent = now.since(self.since) >= SHORTEST_SILENCE;
            let text = format!(
                "Source `{source}` has not received anything since it was set up: `doorbell sources` says which URL its \
                 sender needs, `doorbell sources deliveries {source}` what was refused"
            );
            return if self.silent { change(false, text) } else { None };
        };
        let usual = Duration::from_secs(self.days.values().map(|day| day.gap_seconds).max().unwrap_or(0));
        let quiet = now.since(self.quiet_from);
        let known = now.since(self.since) >= DAY && self.days.values().map(|day| day.accepted).sum::<u64>() >= FEWEST;
        self.silent = known && quiet > (usual * 3 / 2).max(SHORTEST_SILENCE);
        let text = format!(
            "Source `{source}` is silent: nothing for {}, and {} was the longest pause of the last {DAYS} days. The last \
             delivery was taken at {last}",
            in_words(quiet),
            in_words(usual)
        );
        if self.silent { change(false, text) } else { None }
    }

    fn look_at_refusals(&mut self, source: &str, came: &Arrivals, now: Timestamp) -> Option<Change> {
        let usual = self.days.values().map(|day| day.streak).max().unwrap_or(0);
        let longest = SHORTEST_STREAK.max(2 * usual + 1);
        if came.accepted > 0 {
            // What was told is learnt in part: strangers who knock every day are soon no news, and a secret that was
            // wrong for a day does not hide the next one.
            let streak = came.longest_streak.max(self.streak + came.refused_before).min(3 * longest);
            let today = self.days.entry(day_of(now)).or_default();
            today.streak = today.streak.max(streak);
            self.streak = came.streak;
        } else {
            self.streak += came.streak;
        }
        self.window.accepted += came.accepted;
        self.window.refused += came.refused;
        let closed = self.close_window(now);
        let change = |ended, text| Some(Change { on: Topic::Rejections, ended, text });
        let again = format!("Source `{source}` takes deliveries again");
        let (taken, share) = (self.window.accepted, self.window.share());
        match self.refusing {
            None if self.streak >= longest => {
                self.refusing = Some(Refusing::All);
                change(
                    false,
                    format!(
                        "Source `{source}` refuses everything: {} deliveries in a row{}",
                        self.streak,
                        hint(source, came)
                    ),
                )
            }
            None if self.window.refused >= FEWEST_REFUSED && share >= self.most_share() => {
                self.refusing = Some(Refusing::Part);
                let (refused, all) = (self.window.refused, taken + self.window.refused);
                change(false, format!("Source `{source}` refuses {refused} of {all} deliveries{}", hint(source, came)))
            }
            Some(Refusing::All) if came.accepted > 0 && self.streak < SHORTEST_STREAK => {
                (self.refusing, self.window) = (None, Window { from: now, ..Window::default() });
                change(true, again)
            }
            Some(Refusing::Part)
                if closed.is_some_and(|closed| closed.accepted > 0 && closed.share() < self.most_share() / 2) =>
            {
                self.refusing = None;
                change(true, again)
            }
            _ => None,
        }
    }

    /// Begins a new window if the old one is over, and answers that. It becomes habit unless its refusals were told.
    fn close_window(&mut self, now: Timestamp) -> Option<Window> {
        if self.window.from == Timestamp::default() {
            self.window.from = now;
        }
        if now.since(self.window.from) < WINDOW {
            return None;
        }
        let closed = std::mem::replace(&mut self.window, Window { from: now, ..Window::default() });
        if closed.accepted + closed.refused > 0 {
            let today = self.days.entry(day_of(now)).or_default();
            today.accepted += closed.accepted;
            today.refused += if self.refusing.is_some() { 0 } else { closed.refused };
        }
        Some(closed)
    }

    /// The share of refusals, in percent, that is more than this source is used to.
    fn most_share(&self) -> u64 {
        let (refused, accepted) = self
            .days
            .values()
            .fold((0, 0), |(refused, accepted), day| (refused + day.refused, accepted + day.accepted));
        (3 * Window { refused, accepted, ..Window::default() }.share()).max(LEAST_SHARE)
    }

    fn forget_old(&mut self, now: Timestamp) {
        let oldest = day_of(now) - DAYS;
        self.days.retain(|day, _| *day >= oldest);
    }
}

impl Window {
    /// Of what was refused, in percent.
    fn share(&self) -> u64 {
        (self.refused * 100).checked_div(self.refused + self.accepted).unwrap_or(0)
    }
}

fn hint(source: &str, came: &Arrivals) -> String {
    let code = if came.code.is_empty() { String::new() } else { format!(" (`{}`)", came.code) };
    format!(
        "{code}. `doorbell sources deliveries {source}` says why; if the secret was changed at the sender, change it here, too"
    )
}

fn day_of(at: Timestamp) -> i64 {
    at.as_seconds().div_euclid(DAY.as_secs().cast_signed())
}

/// A duration to the minute.
fn in_words(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests;
