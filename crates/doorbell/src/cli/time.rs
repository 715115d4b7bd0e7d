//! Times as people write and read them.

use std::time::Duration;

use doorbell_core::time::Timestamp;
use jiff::tz::TimeZone;

use crate::clock;
use crate::config::parse_duration;

/// A point in time as an option names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// RFC 3339.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl When {
    /// Reads RFC 3339, or a duration as the configuration spells it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let wrong = "neither a time like 2026-01-31T09:30:00Z nor how long ago, like 90s, 15m, 1h or 2d";
        text.parse::<Timestamp>().map(Self::At).map_err(|_| wrong.to_owned())
    }

    /// As the API takes it.
    pub(super) fn to_rfc3339(self, now: Timestamp) -> String {
        match self {
            Self::At(at) => at.to_string(),
            Self::Ago(ago) => now.before(ago).to_string(),
        }
    }
}

/// Shows the times of the API in the zone of this machine, without the day if it is today.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    now: Timestamp,
    zone: TimeZone,
}

impl Clock {
    /// With the time and the zone of this machine.
    pub(super) fn here() -> Self {
        Self { now: clock::now(), zone: TimeZone::system() }
    }

    /// The time, short.
    pub(super) fn show(&self, rfc3339: &str) -> String {
        let (Ok(at), Ok(now)) =
            (rfc3339.parse::<jiff::Timestamp>(), jiff::Timestamp::from_millisecond(self.now.as_millis()))
        else {
            return rfc3339.to_owned();
        };
        let (at, now) = (at.to_zoned(self.zone.clone()), now.to_zoned(self.zone.clone()));
        let format = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        at.strftime(format).to_string()
    }

    /// The time of day on this machine, without the day.
    pub(super) fn time_of_day(rfc3339: &str) -> String {
        match rfc3339.parse::<jiff::Timestamp>() {
            Ok(at) => at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string(),
            Err(_) => rfc3339.to_owned(),
        }
    }

    /// The time, or a dash.
    pub(super) fn show_some(&self, rfc3339: Option<&str>) -> String {
        rfc3339.map_or_else(|| "-".to_owned(), |at| self.show(at))
    }

    /// How long it took from one time to another, to now if there is no other.
    pub(super) fn between(&self, from: Option<&str>, to: Option<&str>) -> String {
        let parse = |text: &str| text.parse::<Timestamp>().ok();
        let Some(from) = from.and_then(parse) else { return "-".to_owned() };
        short(to.and_then(parse).unwrap_or(self.now).since(from))
    }

    #[cfg(test)]
    pub(super) fn fixed(now: &str) -> Self {
        Self { now: now.parse().unwrap_or_default(), zone: TimeZone::UTC }
    }
}

/// A span of time in its two largest units.
pub(super) fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{}.{}s", seconds, span.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_how_long_ago() {
        let now = Timestamp::from_seconds(1_000_000);
        let shown = |text| When::parse(text).map(|when| when.to_rfc3339(now));
        assert_eq!(shown("1h"), Ok(Timestamp::from_seconds(996_400).to_string()));
        assert_eq!(shown("2d"), Ok(Timestamp::from_seconds(827_200).to_string()));
        assert_eq!(shown("2026-01-31T09:30:00+01:00"), Ok("2026-01-31T08:30:00.000Z".to_owned()));
        for wrong in
            ["", "h", "1", "1y", "-1h", "1.5h", "+1h", "yesterday", "99999999999999999999h", "1 h", "2026-01-31"]
        {
            assert!(When::parse(wrong).is_err(), "{wrong}");
        }
        assert!(When::parse("9999999999999999s").map(|when| when.to_rfc3339(now)).is_ok(), "far away is no panic");
    }

    #[test]
    fn the_day_is_shown_unless_it_is_today() {
        let clock = Clock::fixed("2026-01-31T12:00:00Z");
        assert_eq!(clock.show("2026-01-31T09:30:05.123Z"), "09:30:05");
        assert_eq!(clock.show("2026-01-30T23:59:59.000Z"), "2026-01-30 23:59:59");
        assert_eq!(clock.show("soon"), "soon");
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in
            [(7, "7ms"), (1_450, "1.4s"), (61_000, "1m 01s"), (3_720_000, "1h 02m"), (90_000_000, "1d 01h")]
        {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
        let clock = Clock::fixed("2026-01-31T12:00:00Z");
        assert_eq!(clock.between(Some("2026-01-31T11:59:00Z"), None), "1m 00s");
        assert_eq!(clock.between(None, None), "-");
    }
}
