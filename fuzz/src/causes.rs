//! Causes: what an agent says of its failure, without what differs each time.

use doorbell_core::cause::{cause_id, cause_of};

/// Reads a reason.
pub(crate) fn causes(input: &[u8]) {
    let reason = String::from_utf8_lossy(input);
    let cause = cause_of(&reason);
    assert!(!cause.is_empty() && cause.chars().count() < 200, "{cause:?}");
    assert_eq!(cause_of(&cause), cause, "a cause is its own cause");
    assert_eq!(cause_id(&cause).len(), 8);
}
