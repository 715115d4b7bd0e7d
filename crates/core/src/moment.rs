//! When an id says that it was made: what senders call their deliveries by often begins with the time, or holds it.
//!
//! Nothing is decided by it, since an id may say anything. It puts ids that were made one after the other beside each other,
//! so that a database that keeps them in order writes one place and not one for each.

use crate::time::Timestamp;

/// The digits of a KSUID, in their order.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const KSUID_LENGTH: usize = 27;
/// Where the time of KSUIDs begins, in seconds since the Unix epoch.
const KSUID_EPOCH: i64 = 1_400_000_000;
/// The digits of a ULID that are its time; the rest is random.
const ULID_TIME: usize = 10;
const ULID_LENGTH: usize = 26;
const UUID_LENGTH: usize = 36;
/// From the beginning of the Gregorian calendar, where the time of UUIDs begins, to the Unix epoch, in milliseconds.
const GREGORIAN: i64 = 12_219_292_800_000;

/// When the id says that it was made, if it is of a shape that says so: a UUID of version 1 (GitHub's deliveries), 6 or 7, a
/// ULID or a KSUID (Standard Webhooks' `msg_…`), either behind a prefix that ends in `_`.
pub fn moment_of(id: &str) -> Option<Timestamp> {
    let bare = id.rsplit_once('_').map_or(id, |(_, bare)| bare).as_bytes();
    match bare.len() {
        UUID_LENGTH => of_uuid(bare),
        KSUID_LENGTH => of_ksuid(bare),
        ULID_LENGTH => of_ulid(bare),
        _ => None,
    }
}

/// RFC 9562, sections 5.1, 5.6 and 5.7.
fn of_uuid(id: &[u8]) -> Option<Timestamp> {
    let mut bits = 0u128;
    for (at, byte) in id.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            _ => bits = (bits << 4) | u128::from(char::from(*byte).to_digit(16)?),
        }
    }
    if (bits >> 62) & 3 != 2 {
        return None;
    }
    let part = |from: u32, width: u32| (bits >> from) & ((1 << width) - 1);
    let ticks = match part(76, 4) {
        1 => (part(64, 12) << 48) | (part(80, 16) << 32) | part(96, 32),
        6 => (part(80, 48) << 12) | part(64, 12),
        7 => return i64::try_from(part(80, 48)).ok().map(Timestamp::from_millis),
        _ => return None,
    };
    // Of 100 ns each, 60 bits of them.
    i64::try_from(ticks / 10_000).ok().map(|millis| Timestamp::from_millis(millis - GREGORIAN))
}

/// 48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (<https://github.com/ulid/spec>).
fn of_ulid(id: &[u8]) -> Option<Timestamp> {
    let mut values = id.iter().map(|digit| crate::id::digit(*digit));
    let mut millis = 0i64;
    for value in values.by_ref().take(ULID_TIME) {
        millis = (millis << 5) | i64::try_from(value?).ok()?;
    }
    values.all(|value| value.is_some()).then_some(Timestamp::from_millis(millis)).filter(|_| id[0] <= b'7')
}

/// 32 bits of seconds, then 128 random bits, in base 62 (<https://github.com/segmentio/ksuid>).
fn of_ksuid(id: &[u8]) -> Option<Timestamp> {
    // The highest word first.
    let mut words = [0u32; 5];
    for digit in id {
        let mut carry = BASE62.iter().position(|known| known == digit)? as u64;
        for word in words.iter_mut().rev() {
            carry += u64::from(*word) * 62;
            *word = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(Timestamp::from_seconds(KSUID_EPOCH + i64::from(words[0])))
}

/// A UUID of version 1, as GitHub names its deliveries: made at this time, `ticks` of 100 ns later; `rest`: which machine made
/// it, or something random.
pub fn uuid(at: Timestamp, ticks: u16, rest: u64) -> String {
    let millis = u64::try_from(at.as_millis().saturating_add(GREGORIAN)).unwrap_or(0);
    let time = millis.wrapping_mul(10_000).wrapping_add(u64::from(ticks % 10_000));
    let (low, mid, high) = (time & 0xFFFF_FFFF, (time >> 32) & 0xFFFF, (time >> 48) & 0xFFF);
    // 14 bits to tell those of one machine apart, behind the two that say how the rest is laid out.
    let (sequence, machine) = (0x8000 | (rest >> 50), rest & 0xFFFF_FFFF_FFFF);
    format!("{low:08x}-{mid:04x}-1{high:03x}-{sequence:04x}-{machine:012x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::EventId;

    fn at(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    #[test]
    fn ids_that_say_when_they_were_made_are_understood() {
        for (id, made) in [
            // From GitHub's documentation, RFC 9562 (appendix A), and the specifications of the others.
            ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "2014-04-25T12:52:24.582Z"),
            ("C232AB00-9414-11EC-B3C8-9F6BDECED846", "2022-02-22T19:22:22.000Z"),
            ("1EC9414C-232A-6B00-B3C8-9F6BDECED846", "2022-02-22T19:22:22.000Z"),
            ("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "2022-02-22T19:22:22.000Z"),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "2016-07-30T23:54:10.259Z"),
            ("0ujtsYcgvSTl8PAuAdqWYSMnLOv", "2017-10-10T04:00:47.000Z"),
            ("msg_0ujtsYcgvSTl8PAuAdqWYSMnLOv", "2017-10-10T04:00:47.000Z"),
        ] {
            assert_eq!(moment_of(id), at(made), "{id}");
        }
    }

    #[test]
    fn others_say_nothing() {
        for id in [
            "",
            "_",
            "1",
            "919108f7-52d1-4320-9bac-f847db4148a8",
            "72d3162e-cc78-11e3-c1ab-4c9367dc0958",
            "72d3162ecc78-11e3-81ab-4c9367dc0958-",
            "72d3162g-cc78-11e3-81ab-4c9367dc0958",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
            "aWgEPTl1tmebfsQzFP4bxwgy80W",
            "0ujtsYcgvSTl8PAuAdqWYSMnLO-",
            "🔔🔔🔔🔔🔔🔔🔔🔔🔔",
        ] {
            assert_eq!(moment_of(id), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text: String, shaped in "[a-z]{0,3}_?[0-9A-Za-z-]{25,37}", odd in "[🔔a]{6,36}", hex in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        ) {
            for id in [&text, &shaped, &odd, &hex] {
                prop_assert_eq!(moment_of(id), moment_of(id));
            }
        }

        #[test]
        fn a_delivery_of_github_says_when_it_was_made(millis in 0i64..1 << 40, ticks: u16, machine: u64) {
            let made = Timestamp::from_millis(millis);
            prop_assert_eq!(moment_of(&uuid(made, ticks, machine)), Some(made));
        }

        #[test]
        fn our_own_ids_say_when_they_were_made(millis in 0i64..1 << 48, random: [u8; 10]) {
            let made = Timestamp::from_millis(millis);
            prop_assert_eq!(moment_of(&EventId::new(made, random).to_string()), Some(made));
        }
    }
}
