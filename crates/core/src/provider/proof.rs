//! What proofs have in common: the header that a signature stands in, and how old a signed time may be.

use std::time::Duration;

use crate::delivery::{Delivery, HeaderFault};
use crate::time::Timestamp;
use crate::verify::{Rejection, RejectionCode};

/// The only value of a header without which there is no signature.
pub(super) fn header<'d>(delivery: &'d Delivery, name: &str) -> Result<&'d str, Rejection> {
    delivery.header(name).map_err(|fault| match fault {
        HeaderFault::Missing => Rejection::missing(&format!("the header {name}")),
        HeaderFault::Repeated | HeaderFault::NotText => Rejection::mismatch(format!("{name} {fault}")),
    })
}

/// Refuses a signed time (`text`, whole seconds since 1970, from the header `name`) that is further than `tolerance`
/// from the time of receipt, either way. To be asked after the signature only: strangers learn nothing about the clock.
pub(super) fn check_age(name: &str, text: &str, received: Timestamp, tolerance: Duration) -> Result<(), Rejection> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(seconds) = text.parse::<i64>().ok().filter(|_| digits) else {
        return Err(Rejection::mismatch(format!("{name} is not a number of seconds since 1970")));
    };
    let (signed, received) = (Timestamp::from_seconds(seconds), Timestamp::from_seconds(received.as_seconds()));
    let (early, late) = (received.since(signed), signed.since(received));
    if early.max(late) <= tolerance {
        return Ok(());
    }
    let (distance, direction) = if early > late { (early, "old") } else { (late, "ahead of this machine's clock") };
    Err(Rejection {
        code: RejectionCode::TimestampOutOfRange,
        detail: format!(
            "the signature is right, but {name} is {} seconds {direction}, and {} are tolerated: a delivery sent again \
             by somebody else, or a clock that is wrong",
            distance.as_secs(),
            tolerance.as_secs()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<RejectionCode> {
        let received = Timestamp::from_millis(1_000_999);
        check_age("X-Time", text, received, Duration::from_secs(300)).err().map(|rejection| rejection.code)
    }

    #[test]
    fn the_window_is_as_wide_on_both_sides_and_its_edges_belong_to_it() {
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
