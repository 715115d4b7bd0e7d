//! Times and sizes as people write them.

use std::time::Duration;

/// A duration such as `250ms`, `30s`, `15m`, `1h`, `2d`, `1w`.
///
/// # Errors
/// In a sentence for people, if it is no such thing or beyond all measure.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let form = || format!("{text:?} is not a duration: write a whole number and ms, s, m, h, d or w");
    let (number, unit) = split(text).ok_or_else(form)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return Err(form()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

/// A duration as [`parse_duration`] reads it, in the largest unit that goes into it without a rest, up to hours.
pub fn write_duration(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        millis if millis % 1000 != 0 => format!("{millis}ms"),
        millis if millis % 3_600_000 == 0 => format!("{}h", millis / 3_600_000),
        millis if millis % 60_000 == 0 => format!("{}m", millis / 60_000),
        millis => format!("{}s", millis / 1000),
    }
}

/// A size in bytes such as `512`, `1MB`, `25MiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let form = || format!("{text:?} is not a size: write a whole number and B, kB, MB, GB, KiB, MiB or GiB");
    let (number, unit) = split(text).ok_or_else(form)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(form()),
    };
    number.checked_mul(bytes).ok_or_else(|| format!("{text:?} is too large"))
}

/// The number and the unit behind it; numbers beyond `u64` count as the largest one.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits.parse().unwrap_or(u64::MAX), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for (text, millis) in [("0s", 0), ("1500ms", 1500), ("90s", 90_000), ("5m", 300_000), ("48h", 172_800_000)] {
            let duration = Duration::from_millis(millis);
            assert_eq!((write_duration(duration).as_str(), parse_duration(text)), (text, Ok(duration)));
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["250ms", "30s", "90s", "15m", "1h", "48h", "0s"] {
            assert_eq!(parse_duration(text).map(write_duration).as_deref(), Ok(text));
        }
        for text in ["", "15", "m", "1h30m", "-1s", "1.5h", "15 m", "1S", "1µs", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_perhaps_a_unit() {
        for (text, bytes) in [("512", 512), ("1MB", 1_000_000), ("25MiB", 26_214_400), ("1gib", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "MB", "1.5MB", "1 MB", "1M", "99999999999999999999GB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
