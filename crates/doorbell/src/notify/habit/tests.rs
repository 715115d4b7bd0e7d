//! Habits over days, without waiting for them.

use super::*;

const HOUR: i64 = 3600;
/// Midnight of some day.
const START: i64 = 20_000 * 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(START + seconds)
}

fn taken(at: Timestamp) -> Arrivals {
    Arrivals { accepted: 1, first: at, last: at, ..Arrivals::default() }
}

fn refused(count: u64) -> Arrivals {
    Arrivals { refused: count, streak: count, code: "signature_mismatch", ..Arrivals::default() }
}

/// Of a source that gets a delivery each hour from 8 to 18 o'clock, for `days` days that end at [`START`].
fn by_day(days: i64) -> Habit {
    let hours = (-days..0).flat_map(|day| (8..=18).map(move |hour| at(day * 24 * HOUR + hour * HOUR)));
    let mut events: Vec<_> = hours.collect();
    events.reverse();
    Habit::learn(&events, at(0))
}

fn told(changes: &[Change]) -> Vec<(Topic, bool)> {
    changes.iter().map(|change| (change.on, change.ended)).collect()
}

#[test]
fn nights_are_no_silence_and_a_missing_day_is_one_that_is_told_once_and_ends() {
    let mut habit = by_day(10);
    let nothing = Arrivals::default();
    // The last delivery was at 18 o'clock, six hours before; the nights have 14 hours, so 21 are too many.
    assert_eq!(habit.look("a", &nothing, at(8 * HOUR)), []);
    assert_eq!(habit.look("a", &nothing, at(15 * HOUR)), []);
    let changes = habit.look("a", &nothing, at(15 * HOUR + 60));
    assert_eq!(told(&changes), [(Topic::Silent, false)]);
    assert!(changes[0].text.contains("nothing for 21h 1m") && changes[0].text.contains("14h 0m"), "{changes:?}");
    assert_eq!(habit.look("a", &nothing, at(20 * HOUR)), []);
    assert_eq!(told(&habit.look("a", &taken(at(21 * HOUR)), at(21 * HOUR))), [(Topic::Silent, true)]);
}

#[test]
fn a_time_without_a_gateway_is_nobodys_silence() {
    let mut habit = by_day(10);
    habit.was_unwatched(Duration::from_secs(100 * 3600));
    assert_eq!(habit.look("a", &Arrivals::default(), at(100 * HOUR)), []);
}

#[test]
fn a_source_without_a_habit_is_not_called_silent() {
    let month_ago = at(-30 * 24 * HOUR);
    assert_eq!(Habit::learn(&[month_ago], at(0)).look("a", &Arrivals::default(), at(0)), []);
    let burst: Vec<_> = (0..50).map(|second| at(-second)).collect();
    let mut young = Habit::learn(&burst, at(0));
    assert_eq!(young.look("a", &Arrivals::default(), at(20 * HOUR)), [], "it has not seen a night yet");
}

#[test]
fn a_source_that_never_received_anything_is_told_once_after_an_hour() {
    let mut habit = Habit::learn(&[], at(0));
    assert_eq!(habit.look("a", &Arrivals::default(), at(HOUR - 1)), []);
    assert_eq!(told(&habit.look("a", &Arrivals::default(), at(HOUR))), [(Topic::Silent, false)]);
    assert_eq!(habit.look("a", &Arrivals::default(), at(100 * HOUR)), []);
}

#[test]
fn a_wrong_secret_is_told_and_so_is_its_end() {
    let mut habit = by_day(10);
    assert_eq!(habit.look("a", &refused(4), at(1)), []);
    let changes = habit.look("a", &refused(1), at(2));
    assert_eq!(told(&changes), [(Topic::Rejections, false)]);
    assert!(changes[0].text.contains("5 deliveries in a row (`signature_mismatch`)"), "{changes:?}");
    assert_eq!(habit.look("a", &refused(500), at(3)), []);
    assert_eq!(told(&habit.look("a", &taken(at(4)), at(4))), [(Topic::Rejections, true)]);
    // It taught little: the next one is found, too.
    assert_eq!(told(&habit.look("a", &refused(31), at(5))), [(Topic::Rejections, false)]);
}

#[test]
fn strangers_who_knock_every_day_are_soon_no_news() {
    let mut habit = by_day(10);
    let mut day = |n: i64| {
        let before = habit.look("a", &refused(12), at(n * 24 * HOUR));
        habit.look("a", &taken(at(n * 24 * HOUR + 60)), at(n * 24 * HOUR + 60));
        before.iter().filter(|change| change.on == Topic::Rejections).count()
    };
    assert_eq!([day(0), day(1), day(2), day(3)], [1, 0, 0, 0]);
}

#[test]
fn one_of_two_senders_with_a_wrong_secret_is_found_by_the_share() {
    let mut habit = by_day(10);
    let half = |n: i64| Arrivals { accepted: 4, refused: 4, longest_streak: 1, ..taken(at(n)) };
    let changes: Vec<_> = (0..6).flat_map(|n| habit.look("a", &half(n), at(n))).collect();
    assert_eq!(told(&changes), [(Topic::Rejections, false)]);
    assert!(changes[0].text.contains("refuses 20 of 40"), "{changes:?}");
    let good = Arrivals { accepted: 50, ..taken(at(700)) };
    assert_eq!(habit.look("a", &good, at(700)), [], "the window with the refusals ends");
    assert_eq!(told(&habit.look("a", &good, at(1400))), [(Topic::Rejections, true)]);
}

#[test]
fn a_habit_reads_back() {
    let mut habit = by_day(3);
    habit.look("a", &refused(9), at(1));
    habit.window = Window::default();
    let text = serde_json::to_string(&habit).unwrap_or_default();
    assert_eq!(serde_json::from_str::<Habit>(&text).ok(), Some(habit));
}
