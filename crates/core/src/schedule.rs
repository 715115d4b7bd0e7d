//! Schedules: when an agent is started by the clock.
//!
//! Cron expressions of five fields, or six with seconds first, in a time zone of the IANA database, which is part of the
//! program. Where clocks go forward, what stands in the skipped hour is due at its end; where they go back, a time that is
//! named is due once. Only what names every hour goes on through both.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

mod wall_clock;

use wall_clock::WallClock;

/// The most ticks that are made up for after downtime: the newest ones.
pub const MOST_MISSED: usize = 100;

/// Ticks that are counted after downtime.
const MOST_COUNTED: u32 = 20_000;

/// What happens to ticks whose time passed while nobody looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing.
    Skip,
    /// One run for all of them: for the last.
    #[default]
    Once,
    /// One run each, at most [`MOST_MISSED`].
    All,
}

/// When an agent is started.
#[derive(Clone, PartialEq)]
pub struct Schedule {
    text: String,
    cron: Cron,
    zone: TimeZone,
    zone_name: String,
    missed: Missed,
    jitter: Duration,
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { text, zone_name, missed, jitter, .. } = self;
        f.debug_tuple("Schedule").field(text).field(zone_name).field(missed).field(jitter).finish()
    }
}

/// A schedule cannot be one; in words for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchedule(String);

/// The ticks between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ticks {
    /// What is to be started now, oldest first: the tick, and how many before it were missed and are not started.
    pub due: Vec<(Timestamp, u64)>,
    /// How many were passed over.
    pub skipped: u64,
    /// The last tick that was looked at, due or not; none if there was none.
    pub through: Option<Timestamp>,
}

/// The time zone of this name in the IANA database.
///
/// # Errors
/// If there is none.
pub fn find_zone(name: &str) -> Result<TimeZone, InvalidSchedule> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| {
        InvalidSchedule(format!(
            "no time zone {name:?}: names are those of the IANA database, such as \"Europe/Berlin\""
        ))
    })
}

impl Schedule {
    /// Reads one. `now` is any moment: from it on the first tick is looked for.
    ///
    /// # Errors
    /// If the expression or the zone is none, or nothing is ever due.
    pub fn new(
        text: &str,
        zone_name: &str,
        missed: Missed,
        jitter: Duration,
        now: Timestamp,
    ) -> Result<Self, InvalidSchedule> {
        let fields = text.split_whitespace().count();
        let nickname = text.trim().starts_with('@');
        if !nickname && !(5..=6).contains(&fields) {
            return Err(InvalidSchedule(format!(
                "{text:?} has {fields} fields: write minute, hour, day, month and weekday, with seconds before them if they matter"
            )));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| InvalidSchedule(format!("{text:?} is no schedule: {error}")))?;
        let zone = find_zone(zone_name)?;
        let schedule = Self { text: text.to_owned(), cron, zone, zone_name: zone_name.to_owned(), missed, jitter };
        match schedule.next_tick(now) {
            Some(_) => Ok(schedule),
            None => Err(InvalidSchedule(format!("{text:?} never comes: there is no such date"))),
        }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of its time zone.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// What happens to ticks that were missed.
    pub fn missed(&self) -> Missed {
        self.missed
    }

    /// The longest that a tick's run is held back, by a part of it that is each tick's own.
    pub fn jitter(&self) -> Duration {
        self.jitter
    }

    /// What tells it from other schedules of the agent, and stays when only `missed` or `jitter` change.
    pub fn identity(&self) -> String {
        let fields: Vec<&str> = self.text.split_whitespace().collect();
        format!("{} {}", fields.join(" "), self.zone_name)
    }

    /// The first tick after a moment; none beyond the end of all calendars.
    pub fn next_tick(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?;
        let next = WallClock { cron: &self.cron, zone: &self.zone }.next_tick(after)?;
        Some(Timestamp::from_millis(next.as_millisecond()))
    }

    /// When a tick's run starts. `seed` is the agent's own, so that several agents do not start together.
    pub fn start_of(&self, tick: Timestamp, seed: u64) -> Timestamp {
        let most = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        let mixed = (tick.as_millis().cast_unsigned() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        tick.after(Duration::from_millis((mixed ^ (mixed >> 32)).checked_rem(most.saturating_add(1)).unwrap_or(0)))
    }

    /// What is due at `now` of the ticks after `since`. If one of them should have started more than `grace` ago, nobody looked for
    /// that long, and all of them were missed; else those that passed are only a little late, and none was.
    pub fn ticks(&self, since: Timestamp, now: Timestamp, grace: Duration, seed: u64) -> Ticks {
        let mut passed = Vec::new();
        let mut dropped = 0;
        let mut at = self.not_long_before(since, now);
        while let Some(tick) = self.next_tick(at) {
            if self.start_of(tick, seed) > now {
                break;
            }
            passed.push(tick);
            at = tick;
            // Only the newest are made up for.
            if passed.len() > 2 * MOST_MISSED {
                passed.drain(..MOST_MISSED);
                dropped += MOST_MISSED as u64;
            }
        }
        let is_missed = |tick: &Timestamp| self.start_of(*tick, seed).after(grace) < now;
        let (missed, in_time) = passed.split_at(if passed.iter().any(is_missed) { passed.len() } else { 0 });
        let made_up: Vec<Timestamp> = match self.missed {
            Missed::Skip => Vec::new(),
            Missed::Once => missed.last().copied().into_iter().collect(),
            Missed::All => missed[missed.len().saturating_sub(MOST_MISSED)..].to_vec(),
        };
        let skipped = dropped + (missed.len() - made_up.len()) as u64;
        let mut due: Vec<(Timestamp, u64)> =
            made_up.into_iter().chain(in_time.iter().copied()).map(|tick| (tick, 0)).collect();
        if let Some(first) = due.first_mut() {
            first.1 = skipped;
        }
        Ticks { due, skipped, through: passed.last().copied() }
    }

    /// `since`, unless the ticks from there on are so many that counting them would take seconds: then a moment that is
    /// far enough before `now`. What lies before it is not counted as skipped either.
    fn not_long_before(&self, since: Timestamp, now: Timestamp) -> Timestamp {
        let latest = (0..MOST_COUNTED).try_fold(since, |at, _| self.next_tick(at).filter(|tick| *tick <= now));
        let Some(reached) = latest else { return since };
        let rate = reached.since(since) / MOST_COUNTED;
        now.before(self.jitter.saturating_add(rate * MOST_COUNTED)).max(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(text: &str, zone: &str, missed: Missed) -> Schedule {
        Schedule::new(text, zone, missed, Duration::ZERO, at("2026-01-01T00:00:00Z")).unwrap()
    }

    fn ticks(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let (mut now, end) = (at(from), at(to));
        let mut found = Vec::new();
        while let Some(next) = schedule.next_tick(now).filter(|next| *next < end) {
            found.push(next.to_string());
            now = next;
        }
        found
    }

    #[test]
    fn a_daily_run_in_the_hour_that_is_skipped_comes_at_its_end_and_in_the_doubled_hour_once() {
        // 02:30 does not exist on 29 March in Berlin, on 8 March in New York, and comes twice in autumn.
        for (zone, spring, expected, autumn) in [
            ("Europe/Berlin", "2026-03-29", "01:00:00", "2026-10-25"),
            ("America/New_York", "2026-03-08", "07:00:00", "2026-11-01"),
            ("Australia/Sydney", "2026-10-04", "16:00:00", "2026-04-05"),
        ] {
            let daily = schedule("30 2 * * *", zone, Missed::Once);
            let day = |date: &str| {
                let midnight: jiff::civil::Date = date.parse().unwrap();
                let start = midnight.to_zoned(find_zone(zone).unwrap()).unwrap();
                let end = midnight.tomorrow().unwrap().to_zoned(find_zone(zone).unwrap()).unwrap();
                ticks(&daily, &start.timestamp().to_string(), &end.timestamp().to_string())
            };
            let in_spring = day(spring);
            assert!(in_spring.len() == 1 && in_spring[0].contains(expected), "{zone}: {in_spring:?}");
            assert_eq!(day(autumn).len(), 1, "{zone}");
        }
    }

    type Change = (&'static str, (&'static str, &'static str, &'static str), (&'static str, &'static str));

    /// Zones, each with a day that lacks some time, a daily schedule within it and when that is due instead; and a day that has
    /// some time twice, and a schedule within that. On Lord Howe Island it is half an hour.
    const CHANGES: [Change; 3] = [
        ("Europe/Berlin", ("2026-03-29", "30 2 * * *", "2026-03-29T01:00:00.000Z"), ("2026-10-25", "30 2 * * *")),
        ("America/New_York", ("2026-03-08", "30 2 * * *", "2026-03-08T07:00:00.000Z"), ("2026-11-01", "30 1 * * *")),
        ("Australia/Lord_Howe", ("2026-10-04", "15 2 * * *", "2026-10-03T15:30:00.000Z"), ("2026-04-05", "45 1 * * *")),
    ];

    /// Noon in a zone, so many days after a date.
    fn noon(zone: &str, date: &str, days: i64) -> Timestamp {
        let date: jiff::civil::Date = date.parse().unwrap();
        let noon = date.checked_add(jiff::Span::new().days(days)).unwrap().at(12, 0, 0, 0);
        Timestamp::from_millis(noon.to_zoned(find_zone(zone).unwrap()).unwrap().timestamp().as_millisecond())
    }

    #[test]
    fn the_day_of_a_change_has_its_one_tick_whether_it_is_looked_at_all_the_time_or_after_downtime() {
        for (zone, (short, skipped, instead), (long, doubled)) in CHANGES {
            for (day, text) in [(short, skipped), (long, doubled)] {
                let (before, after) = (noon(zone, day, -2), noon(zone, day, 1));
                let of = |missed| schedule(text, zone, missed);
                let expected = ticks(&of(Missed::All), &before.to_string(), &after.to_string());
                assert_eq!(expected.len(), 3, "{zone} {day}: {expected:?}");
                assert!(day != short || expected[1] == instead, "{zone}: {expected:?}");
                for missed in [Missed::Skip, Missed::Once, Missed::All] {
                    let (mut since, mut now, mut started) = (before, before, Vec::new());
                    while now < after {
                        now = now.after(Duration::from_secs(31 * 60));
                        let found = of(missed).ticks(since, now, Duration::from_secs(40 * 60), 0);
                        started.extend(found.due.iter().map(|(tick, _)| tick.to_string()));
                        since = found.through.unwrap_or(since);
                    }
                    assert_eq!(started, expected, "{zone} {day} {missed:?}");
                }
                let down = |missed| of(missed).ticks(before, after, GRACE, 0);
                let due = |missed| down(missed).due.into_iter().map(|(tick, _)| tick.to_string()).collect::<Vec<_>>();
                assert_eq!((due(Missed::Skip), down(Missed::Skip).skipped), (vec![], 3), "{zone} {day}");
                assert_eq!(
                    (due(Missed::Once), down(Missed::Once).skipped),
                    (expected[2..].to_vec(), 2),
                    "{zone} {day}"
                );
                assert_eq!((due(Missed::All), down(Missed::All).skipped), (expected, 0), "{zone} {day}");
            }
        }
    }

    #[test]
    fn a_year_of_days_has_a_tick_a_day_in_every_zone_and_steps_go_on_through_both_hours() {
        for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"] {
            let daily = schedule("30 2 * * *", zone, Missed::Once);
            assert_eq!(ticks(&daily, "2026-01-01T12:00:00Z", "2027-01-01T12:00:00Z").len(), 365, "{zone}");
        }
        let often = schedule("*/30 * * * *", "Europe/Berlin", Missed::Once);
        assert_eq!(ticks(&often, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z").len(), 49);
    }

    #[test]
    fn six_fields_begin_with_seconds() {
        let found =
            ticks(&schedule("*/20 * * * * *", "UTC", Missed::Skip), "2026-05-01T00:00:00Z", "2026-05-01T00:01:00Z");
        assert_eq!(found, ["2026-05-01T00:00:20.000Z", "2026-05-01T00:00:40.000Z"]);
    }

    #[test]
    fn what_is_no_schedule_says_what_to_write() {
        let refuse = |text: &str, zone: &str| {
            Schedule::new(text, zone, Missed::Once, Duration::ZERO, at("2026-01-01T00:00:00Z")).unwrap_err().to_string()
        };
        assert!(refuse("* * *", "UTC").contains("has 3 fields: write minute"));
        assert!(refuse("0 0 0 * * * 2026", "UTC").contains("has 7 fields"));
        assert!(refuse("61 * * * *", "UTC").contains("is no schedule"));
        assert!(refuse("0 0 30 2 *", "UTC").contains("never comes"));
        assert!(refuse("0 0 * * *", "Europe/Berln").contains("IANA"));
        assert!(refuse("", "UTC").contains("0 fields"));
    }

    #[test]
    fn after_downtime_missed_ticks_are_skipped_made_up_once_or_all() {
        let (since, now) = (at("2026-05-01T00:30:00Z"), at("2026-05-01T05:30:00Z"));
        let of = |missed| schedule("0 * * * *", "UTC", missed).ticks(since, now, GRACE, 0);
        assert_eq!(of(Missed::Skip), Ticks { due: vec![], skipped: 5, through: Some(at("2026-05-01T05:00:00Z")) });
        assert_eq!(of(Missed::Once).due, [(at("2026-05-01T05:00:00Z"), 4)]);
        let all = of(Missed::All);
        assert_eq!((all.due.len(), all.skipped), (5, 0));
        assert_eq!(all.due[0], (at("2026-05-01T01:00:00Z"), 0));
    }

    #[test]
    fn what_was_missed_over_a_moved_clock_is_counted_by_the_ticks_that_there_were() {
        // Both nights and the day after each: the skipped times are one tick at 03:00, the doubled ones four.
        for (since, now, ticks) in [
            ("2027-03-27T12:00:00Z", "2027-03-29T12:00:00Z", vec!["2027-03-28T01:00:00Z", "2027-03-29T00:00:00Z"]),
            ("2027-10-30T12:00:00Z", "2027-10-31T12:00:00Z", vec!["2027-10-31T00:00:00Z"]),
            // Nobody looked from between the two 02:30 on, or from the end of the skipped hour on.
            ("2027-10-31T00:50:00Z", "2027-10-31T12:00:00Z", vec![]),
            ("2027-03-28T01:00:00Z", "2027-03-28T12:00:00Z", vec![]),
        ] {
            let of = |missed| schedule("*/15 2 * * *", "Europe/Berlin", missed).ticks(at(since), at(now), GRACE, 0);
            let quarters = |first: &str| {
                let first = at(first);
                (0..4).map(move |n| first.after(n * Duration::from_secs(900)))
            };
            let expected: Vec<Timestamp> = match ticks[..] {
                [] => vec![],
                [one, next_day] => std::iter::once(at(one)).chain(quarters(next_day)).collect(),
                [first, ..] => quarters(first).collect(),
            };
            assert_eq!(of(Missed::All).due, expected.iter().map(|tick| (*tick, 0)).collect::<Vec<_>>(), "{since}");
            let passed_over = expected.len().saturating_sub(1) as u64;
            let last = expected.last().map(|tick| (*tick, passed_over));
            assert_eq!(of(Missed::Once).due, last.into_iter().collect::<Vec<_>>(), "{since}");
            assert_eq!((of(Missed::Skip).due, of(Missed::Skip).skipped), (vec![], expected.len() as u64), "{since}");
            assert_eq!(of(Missed::Skip).through, expected.last().copied(), "{since}");
        }
    }

    #[test]
    fn a_tick_of_a_moment_ago_was_not_missed() {
        let skip = schedule("0 * * * *", "UTC", Missed::Skip);
        let late = skip.ticks(at("2026-05-01T00:30:00Z"), at("2026-05-01T01:00:59Z"), GRACE, 0);
        assert_eq!((late.due, late.skipped), (vec![(at("2026-05-01T01:00:00Z"), 0)], 0));
    }

    #[test]
    fn ticks_of_the_last_minute_of_a_longer_downtime_were_missed_like_the_others() {
        let (since, now) = (at("2026-05-01T00:00:00Z"), at("2026-05-01T00:03:27Z"));
        let of = |missed, now| schedule("*/20 * * * * *", "UTC", missed).ticks(since, now, GRACE, 0);
        let last = at("2026-05-01T00:03:20Z");
        assert_eq!(of(Missed::Skip, now), Ticks { due: vec![], skipped: 10, through: Some(last) });
        assert_eq!(of(Missed::Once, now).due, [(last, 9)]);
        assert_eq!(of(Missed::All, now).due.len(), 10);
        // A short one: each tick is late, and none was missed.
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            assert_eq!(of(missed, at("2026-05-01T00:01:19Z")).due.len(), 3, "{missed:?}");
        }
    }

    #[test]
    fn a_month_of_missed_seconds_is_bounded() {
        let all = schedule("* * * * * *", "UTC", Missed::All);
        let (since, now) = (at("2026-05-01T00:00:00Z"), at("2026-05-01T05:00:00Z"));
        let found = all.ticks(since, now, Duration::ZERO, 0);
        assert_eq!(found.due.len(), MOST_MISSED);
        assert_eq!(found.skipped, 5 * 3600 - 100);
        let years = all.ticks(at("2020-05-01T00:00:00Z"), now, Duration::ZERO, 0);
        assert_eq!((years.due.len(), years.through), (MOST_MISSED, Some(now)));
        assert_eq!(found.due.last().unwrap().0, now);
    }

    #[test]
    fn jitter_holds_back_by_a_part_that_each_agent_and_tick_has_of_its_own() {
        let now = at("2026-05-01T00:00:00Z");
        let jittered = Schedule::new("0 * * * *", "UTC", Missed::Once, Duration::from_secs(600), now).unwrap();
        let starts: Vec<Timestamp> = (0..50).map(|seed| jittered.start_of(now, seed)).collect();
        assert!(starts.iter().all(|start| (now..=now.after(Duration::from_secs(600))).contains(start)));
        let distinct: std::collections::HashSet<&Timestamp> = starts.iter().collect();
        assert!(distinct.len() > 40);
        assert_eq!(jittered.start_of(now, 7), jittered.start_of(now, 7));
        let early = jittered.ticks(
            now.before(Duration::from_secs(1)),
            jittered.start_of(now, 7).before(Duration::from_millis(1)),
            GRACE,
            7,
        );
        assert_eq!(early, Ticks::default(), "it is not due before its start");
    }
}
