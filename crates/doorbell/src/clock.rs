//! Time and chance: the only place that reads the clock or asks for random bytes.

use std::cell::RefCell;
use std::time::Duration;

use doorbell_core::id::Id;
use doorbell_core::time::Timestamp;

/// By how much the clock may be set back without anything being done about it: what waits then waits so much longer.
pub const SLACK: Duration = Duration::from_secs(60);

/// Now.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes, fit for secrets.
///
/// # Panics
/// If the system has no randomness to give: nothing secret can be made then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Ids whose random bytes are asked for at once: asking costs far more than using.
const IDS: usize = 64;

thread_local! {
    static FOR_IDS: RefCell<Vec<[u8; 10]>> = const { RefCell::new(Vec::new()) };
}

/// A new id of any kind.
///
/// # Panics
/// As [`random`].
pub fn new_id<K>() -> Id<K> {
    let bytes = FOR_IDS.with_borrow_mut(|left| {
        if left.is_empty() {
            left.extend_from_slice(random::<{ 10 * IDS }>().as_chunks().0);
        }
        left.pop()
    });
    Id::new(now(), bytes.unwrap_or_else(random))
}
