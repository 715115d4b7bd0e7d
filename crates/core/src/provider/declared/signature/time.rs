//! Signed times: how they are written, and how far they may be from the time of receipt.

use std::time::Duration;

use http::HeaderName;

use crate::provider::proof;
use crate::time::Timestamp;
use crate::verify::Rejection;

/// The time that is signed.
#[derive(Debug, Clone)]
pub(in super::super) struct Time {
    /// Its header; none if it stands beside the signature.
    pub(in super::super) header: Option<HeaderName>,
    pub(in super::super) unit: Unit,
    pub(in super::super) tolerance: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unit {
    Seconds,
    Milliseconds,
    Rfc3339,
}

impl Time {
    /// As the protocol writes it.
    pub(in super::super) fn write(&self, now: Timestamp) -> String {
        match self.unit {
            Unit::Seconds => now.as_seconds().to_string(),
            Unit::Milliseconds => now.as_millis().to_string(),
            Unit::Rfc3339 => Timestamp::from_seconds(now.as_seconds()).to_string().replace(".000Z", "Z"),
        }
    }

    fn read(&self, text: &str) -> Option<Timestamp> {
        match self.unit {
            Unit::Seconds => proof::digits(text).map(Timestamp::from_seconds),
            Unit::Milliseconds => proof::digits(text).map(Timestamp::from_millis),
            Unit::Rfc3339 => text.parse().ok(),
        }
    }

    /// A signed time that is too far from the time of receipt is that of a delivery that somebody kept.
    pub(super) fn check(
        &self,
        name: &HeaderName,
        text: &str,
        tolerance: Duration,
        received: Timestamp,
    ) -> Result<(), Rejection> {
        let signed = self.read(text).ok_or_else(|| {
            let unit = match self.unit {
                Unit::Seconds => "a number of seconds since 1970",
                Unit::Milliseconds => "a number of milliseconds since 1970",
                Unit::Rfc3339 => "a time as in 2026-09-21T14:13:20Z",
            };
            Rejection::mismatch(format!("the time in {name} is not {unit}"))
        })?;
        let received = match self.unit {
            Unit::Milliseconds => received,
            // Both in whole seconds.
            Unit::Seconds | Unit::Rfc3339 => Timestamp::from_seconds(received.as_seconds()),
        };
        proof::check_age(&format!("the time in {name}"), signed, received, tolerance)
    }
}
