//! What the proofs of many protocols have in common: one header, one signature over these bytes, an id made of content.

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;

use super::paths::{Found, Paths};
use super::{NotJson, Signed, Unreadable, encode_hex, json};
use crate::delivery::{Delivery, HeaderFault};
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::{Rejection, RejectionCode};

/// Stands in samples where a provider writes the id of the event: each ring has one of its own.
pub(super) const SAMPLE_ID: &str = "doorbell-sample";

/// The only value of a header that a signature needs.
pub(super) fn header<'d>(delivery: &'d Delivery, name: &str) -> Result<&'d str, Rejection> {
    delivery.header(name).map_err(|fault| match fault {
        HeaderFault::Missing => Rejection::missing(&format!("the header {name}")),
        fault => Rejection::mismatch(format!("{name} {fault}")),
    })
}

/// The first key that made `signature` over these parts, one after the other.
pub(super) fn signer(keys: &[NamedKey], parts: &[&[u8]], signature: &[u8]) -> Option<usize> {
    keys.iter().position(|named| named.key.signs(parts, signature))
}

/// No key of the source made what stands in `place`.
pub(super) fn foreign(place: &str) -> Rejection {
    Rejection::mismatch(format!(
        "{place} was not made over this request with a secret of this source: the secrets differ, or something was \
         changed on its way"
    ))
}

/// A point in time that is written as whole digits.
pub(super) fn digits(text: &str) -> Option<i64> {
    let all = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

/// Whole seconds since 1970 that were signed, against the time of receipt in whole seconds.
pub(super) fn check_seconds(name: &str, text: &str, received: Timestamp, tolerance: Duration) -> Result<(), Rejection> {
    let seconds =
        digits(text).ok_or_else(|| Rejection::mismatch(format!("{name} is not a number of seconds since 1970")))?;
    check_age(name, Timestamp::from_seconds(seconds), Timestamp::from_seconds(received.as_seconds()), tolerance)
}

/// A signed time that is too far from the time of receipt is that of a delivery that somebody kept. To be asked only once
/// the signature is known to be right: strangers learn nothing about the clock, and the time is the sender's own word.
pub(super) fn check_age(
    name: &str,
    signed: Timestamp,
    received: Timestamp,
    tolerance: Duration,
) -> Result<(), Rejection> {
    too_far(signed, received, tolerance).map_or(Ok(()), |distance| {
        let detail = format!(
            "the signature is right, but {name} is {distance}: a delivery sent again by somebody else, or a clock that is wrong"
        );
        Err(Rejection { code: RejectionCode::TimestampOutOfRange, detail })
    })
}

/// The same for a time that would be refused whatever the signature is: for protocols in which more than arithmetic would be
/// needed to know the signature to be right.
pub(super) fn check_claimed_age(
    name: &str,
    claimed: Timestamp,
    received: Timestamp,
    tolerance: Duration,
) -> Result<(), Rejection> {
    too_far(claimed, received, tolerance).map_or(Ok(()), |distance| {
        let detail = format!("{name} is {distance}, so the certificate of the signature was not fetched");
        Err(Rejection { code: RejectionCode::TimestampOutOfRange, detail })
    })
}

/// How far a signed time is from the time of receipt, in words, if that is too far.
fn too_far(signed: Timestamp, received: Timestamp, tolerance: Duration) -> Option<String> {
    let (early, late) = (received.since(signed), signed.since(received));
    let (distance, direction) = if early > late { (early, "old") } else { (late, "ahead of this machine's clock") };
    (distance > tolerance)
        .then(|| format!("{} seconds {direction}, and {} are tolerated", distance.as_secs(), tolerance.as_secs()))
}

/// The id of an event that has none: a digest of what identifies it. The parts cannot run into each other.
pub(super) fn content_id<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mut digest = digest::Context::new(&digest::SHA256);
    for part in parts {
        digest.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    format!("sha256:{}", encode_hex(digest.finish().as_ref()))
}

/// The text of a body that must be JSON.
pub(super) fn text_of(delivery: &Delivery) -> Result<&str, Unreadable> {
    json::text_of(&delivery.body).map_err(|error| Unreadable::broken(format!("the body is not UTF-8: {error}")))
}

/// What is said of a body that is no JSON.
pub(super) fn not_json(error: NotJson) -> Unreadable {
    Unreadable::broken(format!("the body is not JSON: {error}"))
}

/// The text of a body that must be one JSON object.
pub(super) fn object_text(delivery: &Delivery) -> Result<&str, Unreadable> {
    if delivery.is_form() {
        return Err(Unreadable::wrong_type("the content type is a form; this provider sends JSON"));
    }
    let text = text_of(delivery)?;
    match is_object(text) {
        true => Ok(text),
        false => Err(Unreadable::broken("the body is not a JSON object")),
    }
}

/// Whether a text that is JSON is an object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Finds `paths` in a body that must be one JSON object.
pub(super) fn find<'d>(paths: &'static Paths, delivery: &'d Delivery) -> Result<Found<'static, 'd>, Unreadable> {
    find_in(paths, object_text(delivery)?)
}

/// Finds `paths` in a text that must be JSON.
pub(super) fn find_in<'t>(paths: &'static Paths, text: &'t str) -> Result<Found<'static, 't>, Unreadable> {
    paths.find(text).map_err(not_json)
}

/// The event and the action of a name that is both: `invoice.paid`.
pub(super) fn split_name(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('.') {
        Some((event, action)) if !event.is_empty() && !action.is_empty() => (event, Some(action)),
        _ => (name, None),
    }
}

/// A body with an id of its own, where it is a sample.
pub(super) fn fresh(body: Bytes, delivery_id: &str) -> Bytes {
    match std::str::from_utf8(&body) {
        Ok(text) if text.contains(SAMPLE_ID) => Bytes::from(text.replace(SAMPLE_ID, delivery_id)),
        _ => body,
    }
}

/// A request with these headers.
pub(super) fn sent<const N: usize>(headers: [(&str, Option<String>); N], body: Bytes) -> Signed {
    let there = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Signed { headers: there.collect(), body }
}

/// The value of a header that is always there.
pub(super) fn always(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_id_do_not_run_into_each_other() {
        let id = |parts: [&str; 2]| content_id(parts.map(str::as_bytes));
        assert_ne!(id(["ab", "c"]), id(["a", "bc"]));
        assert_eq!(id(["ab", "c"]), id(["ab", "c"]));
    }

    #[test]
    fn a_name_is_split_at_its_last_dot() {
        assert_eq!(split_name("a.b.c"), ("a.b", Some("c")));
        for whole in ["a", "a.", ".a", ""] {
            assert_eq!(split_name(whole), (whole, None));
        }
    }

    #[test]
    fn only_digits_are_a_time() {
        assert_eq!(digits("17"), Some(17));
        for bad in ["", "+1", "-1", "1.0", " 1", "99999999999999999999", "١"] {
            assert_eq!(digits(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_window_is_as_wide_on_both_sides_and_its_edges_belong_to_it() {
        let received = Timestamp::from_millis(1_000_999);
        let code = |text: &str| {
            let checked = check_seconds("X-Time", text, received, Duration::from_secs(300));
            checked.err().map(|rejection| rejection.code)
        };
        for good in ["700", "1000", "1300", "0001000"] {
            assert_eq!(code(good), None, "{good}");
        }
        for outside in ["699", "1301", "0", "9223372036854775807"] {
            assert_eq!(code(outside), Some(RejectionCode::TimestampOutOfRange), "{outside}");
        }
        for odd in ["", "+1000", "-1000", "1000.0", "1e3", "9223372036854775808", " 1000"] {
            assert_eq!(code(odd), Some(RejectionCode::SignatureMismatch), "{odd}");
        }
    }
}
