//! Tests of the module above: against what a clock shows minute by minute, and for the expressions that went wrong.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::schedule::{Missed, Schedule, find_zone};

/// Zones, and days before whose end the clock is moved: also by half an hour, at midnight, and never.
const CHANGES: [(&str, &str); 14] = [
    ("Europe/Berlin", "2027-03-28"),
    ("Europe/Berlin", "2027-10-31"),
    ("America/New_York", "2027-03-14"),
    ("America/New_York", "2027-11-07"),
    ("Australia/Lord_Howe", "2027-10-03"),
    ("Australia/Lord_Howe", "2027-04-04"),
    ("America/Santiago", "2027-09-05"),
    ("America/Santiago", "2027-04-03"),
    ("Africa/Cairo", "2027-04-30"),
    ("Africa/Cairo", "2027-10-28"),
    ("Africa/Casablanca", "2027-02-07"),
    ("Africa/Casablanca", "2027-03-14"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Tokyo", "2027-03-28"),
];

fn schedule(text: &str, zone: &str) -> Schedule {
    let now = "2011-01-01T00:00:00Z".parse().unwrap();
    Schedule::new(text, zone, Missed::All, Duration::ZERO, now).unwrap()
}

fn ours(at: Timestamp) -> crate::time::Timestamp {
    crate::time::Timestamp::from_millis(at.as_millisecond())
}

fn ticks(schedule: &Schedule, after: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let next = |at: &Timestamp| {
        let tick = schedule.next_tick(ours(*at))?;
        Some(Timestamp::from_millisecond(tick.as_millis()).unwrap()).filter(|tick| *tick <= to)
    };
    std::iter::successors(next(&after), next).collect()
}

/// One field: how it is written, and what it names.
type Field = (String, Vec<i8>);

fn step(from: i8, to: i8, by: i8) -> Vec<i8> {
    (from..=to).step_by(usize::try_from(by).unwrap()).collect()
}

/// Numbers, lists, ranges and steps in these bounds.
fn named(least: i8, most: i8) -> impl Strategy<Value = Field> {
    let range = move || (least..=most, least..=most).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        (least..=most).prop_map(|one| (one.to_string(), vec![one])),
        proptest::collection::btree_set(least..=most, 2..4).prop_map(|set| {
            let texts: Vec<String> = set.iter().map(i8::to_string).collect();
            (texts.join(","), set.into_iter().collect())
        }),
        range().prop_map(|(from, to)| (format!("{from}-{to}"), step(from, to, 1))),
        (range(), 1..8i8).prop_map(|((from, to), by)| (format!("{from}-{to}/{by}"), step(from, to, by))),
    ]
}

/// The same or all of them, or a step over all.
fn field(most: i8) -> impl Strategy<Value = Field> {
    prop_oneof![
        4 => named(0, most),
        1 => (1..=most).prop_map(move |by| (format!("*/{by}"), step(0, most, by))),
        1 => Just(("*".to_owned(), step(0, most, 1))),
    ]
}

/// Hours, often those near which clocks are moved.
fn hours() -> impl Strategy<Value = Field> {
    prop_oneof![
        field(23),
        named(0, 3),
        proptest::sample::select(vec!["*", "*/1", "0-23"]).prop_map(|text| (text.to_owned(), step(0, 23, 1))),
    ]
}

fn seconds() -> impl Strategy<Value = Option<Field>> {
    proptest::option::of(prop_oneof![
        (0..60i8).prop_map(|one| (one.to_string(), vec![one])),
        Just(("*/20".to_owned(), vec![0, 20, 40])),
        Just(("0,59".to_owned(), vec![0, 59])),
    ])
}

/// Day, month and weekday, and whether they name a day.
fn days() -> impl Strategy<Value = (&'static str, fn(Date) -> bool)> {
    proptest::sample::select(vec![
        ("* * *", (|_| true) as fn(Date) -> bool),
        ("* * 0", |day| day.weekday().to_sunday_zero_offset() == 0),
        ("* * 5,6", |day| day.weekday().to_sunday_zero_offset() >= 5),
        ("28-31 * *", |day| day.day() >= 28),
        ("*/2 3-4,9-12 *", |day| day.day() % 2 == 1 && [3, 4, 9, 10, 11, 12].contains(&day.month())),
        ("5 * 0", |day| day.day() == 5 || day.weekday().to_sunday_zero_offset() == 0),
    ])
}

/// What the clock of a zone shows in each minute of two days and a half, in order.
fn shown(zone: &str, day: &str) -> Vec<(Timestamp, DateTime)> {
    let zone = find_zone(zone).unwrap();
    let noon = day.parse::<Date>().unwrap().yesterday().unwrap().at(12, 0, 0, 0);
    let first = zone.to_ambiguous_timestamp(noon).compatible().unwrap();
    let minutes = (0..48 * 60).map(|minute| first + SignedDuration::from_mins(minute));
    minutes.map(|at| (at, zone.to_datetime(at))).collect()
}

fn with_seconds(minutes: impl IntoIterator<Item = Timestamp>, seconds: &[i8]) -> BTreeSet<Timestamp> {
    let each = |minute: Timestamp| seconds.iter().map(move |s| minute + SignedDuration::from_secs((*s).into()));
    minutes.into_iter().flat_map(each).collect()
}

/// The ticks by the rule, without asking the zone where its clock is moved.
fn expected(
    shown: &[(Timestamp, DateTime)],
    hours: &[i8],
    seconds: &[i8],
    named: impl Fn(DateTime) -> bool,
) -> BTreeSet<Timestamp> {
    if hours.len() == 24 {
        return with_seconds(shown.iter().filter(|(_, local)| named(*local)).map(|(at, _)| *at), seconds);
    }
    let mut first: BTreeMap<DateTime, Timestamp> = BTreeMap::new();
    for (at, local) in shown {
        first.entry(*local).or_insert(*at);
    }
    let (from, to) = (*first.keys().next().unwrap(), *first.keys().last().unwrap());
    let minute = |at: &DateTime| Some(*at + SignedDuration::from_mins(1)).filter(|at| *at <= to);
    let mut found = BTreeSet::new();
    for local in std::iter::successors(Some(from), minute).filter(|local| named(*local)) {
        match first.get(&local) {
            Some(at) => found.extend(with_seconds([*at], seconds)),
            // It is skipped: the first moment that shows something later.
            None => drop(found.insert(*first.range(local..).next().unwrap().1)),
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_named_time_has_one_tick_wherever_clocks_are_moved(
        (zone, day) in proptest::sample::select(CHANGES.to_vec()),
        (seconds, minutes, hours) in (seconds(), field(59), hours()),
        (days, is_day) in days(),
        probe in 0..(48 * 60 * 60 * 1000i64),
    ) {
        let before = seconds.as_ref().map_or(String::new(), |(text, _)| format!("{text} "));
        let text = format!("{before}{} {} {days}", minutes.0, hours.0);
        let seconds = seconds.map_or(vec![0], |(_, seconds)| seconds);
        let shown = shown(zone, day);
        let named = |local: DateTime| {
            minutes.1.contains(&local.minute()) && hours.1.contains(&local.hour()) && is_day(local.date())
        };
        let expected = expected(&shown, &hours.1, &seconds, named);
        let start = shown[0].0 - SignedDuration::from_millis(1);
        let end = shown[shown.len() - 1].0 + SignedDuration::from_secs(59);
        let schedule = schedule(&text, zone);
        let found = ticks(&schedule, start, end);
        prop_assert!(found.is_sorted_by(|a, b| a < b), "{text} in {zone}: {found:?}");
        prop_assert_eq!(&found, &expected.iter().copied().collect::<Vec<_>>(), "{} in {}", text, zone);
        // From any moment on, not only from tick to tick.
        let probe = shown[0].0 + SignedDuration::from_millis(probe);
        let next = schedule.next_tick(ours(probe)).filter(|tick| *tick <= ours(end));
        prop_assert_eq!(next, expected.range(probe + SignedDuration::from_millis(1)..).next().map(|at| ours(*at)));
    }
}

/// The ticks between 01:00 and the first 04:00 or so on the days on which Berlin's clock is moved, as moments of UTC.
fn in_berlin(text: &str) -> (Vec<String>, Vec<String>) {
    let night = |from: &str, to: &str| {
        let found = ticks(&schedule(text, "Europe/Berlin"), from.parse().unwrap(), to.parse().unwrap());
        found.iter().map(|at| at.strftime("%H:%M").to_string()).collect()
    };
    let spring = night("2027-03-27T23:59:59Z", "2027-03-28T02:59:59Z");
    (spring, night("2027-10-30T22:59:59Z", "2027-10-31T02:59:59Z"))
}

#[test]
fn lists_ranges_and_steps_of_named_times_lose_and_double_nothing_where_clocks_are_moved() {
    // 02:00 is 01:00 UTC in spring, and 00:00 and 01:00 in autumn; 03:00 is 01:00 in spring, and 02:00.
    for (text, spring, autumn) in [
        ("30 2 * * *", vec!["01:00"], vec!["00:30"]),
        ("30 2,14 * * *", vec!["01:00"], vec!["00:30"]),
        ("15,45 2 * * *", vec!["01:00"], vec!["00:15", "00:45"]),
        ("*/15 2 * * *", vec!["01:00"], vec!["00:00", "00:15", "00:30", "00:45"]),
        ("0 2,3 * * *", vec!["01:00"], vec!["00:00", "02:00"]),
        ("30 1-2 * * *", vec!["00:30", "01:00"], vec!["23:30", "00:30"]),
        ("10 2,3 * * *", vec!["01:00", "01:10"], vec!["00:10", "02:10"]),
    ] {
        assert_eq!(
            in_berlin(text),
            (spring.iter().map(|t| (*t).to_owned()).collect(), autumn.iter().map(|t| (*t).to_owned()).collect()),
            "{text}"
        );
    }
}

#[test]
fn what_names_every_hour_runs_in_both_doubled_hours_and_nothing_is_made_up_for_the_skipped_one() {
    for text in ["30 * * * *", "30 */1 * * *", "30 0-23 * * *", "30 0-11,12-23 * * *"] {
        let (spring, autumn) = in_berlin(text);
        assert_eq!(spring, ["00:30", "01:30", "02:30"], "{text}");
        assert_eq!(autumn, ["23:30", "00:30", "01:30", "02:30"], "{text}");
    }
    let (spring, autumn) = in_berlin("@hourly");
    assert_eq!((spring.len(), autumn.len()), (3, 4));
}

#[test]
fn a_date_that_never_comes_ends_at_once_in_every_zone() {
    let now = "2027-01-01T00:00:00Z".parse().unwrap();
    for (zone, _) in CHANGES {
        for text in ["0 0 30 2 *", "* * 31 4,6 *", "* * * 30 2 *"] {
            let error = Schedule::new(text, zone, Missed::All, Duration::ZERO, now).unwrap_err();
            assert!(error.to_string().contains("never comes"), "{text} in {zone}: {error}");
        }
    }
}

#[test]
fn ticks_go_on_through_every_change_of_every_zone() {
    let (from, to) = ("2026-12-01T00:00:00Z".parse().unwrap(), "2028-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    let hour = SignedDuration::from_hours(3);
    for name in jiff::tz::TimeZoneDatabase::bundled().available() {
        let zone = find_zone(name.as_str()).unwrap();
        for change in zone.following(from).take_while(|change| change.timestamp() < to) {
            for text in ["*/20 * * * *", "*/20 0-22 * * *"] {
                let at = change.timestamp();
                let found = ticks(&schedule(text, name.as_str()), at - hour, at + hour);
                assert!(
                    found.is_sorted_by(|a, b| a < b) && (9..=19).contains(&found.len()),
                    "{text} in {name}: {found:?}"
                );
            }
        }
    }
}
