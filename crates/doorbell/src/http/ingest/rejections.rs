//! Refused deliveries: kept with their cause, so many of each source that strangers cannot fill the disk.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use doorbell_core::delivery::Delivery;
use doorbell_core::provider::visible_headers;
use doorbell_core::source::Source;

use super::super::Shared;
use super::super::error::{self, Failure};
use crate::app::Notice;
use crate::store::Rejection;

/// Keeps a refusal with its cause, for each source that could have taken the delivery.
pub(super) async fn refuse(
    shared: &Shared,
    sources: &[Arc<Source>],
    remote: SocketAddr,
    delivery: &Delivery,
    failure: Failure,
    detail: &str,
    verified: bool,
) -> Failure {
    let detail = error::brief(detail);
    for source in sources {
        shared.app.metrics.count_rejected(source.name(), failure.code());
        if failure.is_the_senders() {
            shared.app.signs.refused(source.name(), failure.code());
        }
        let Some(suppressed) = shared.rejections.admit(source.name(), Instant::now()) else {
            shared.app.metrics.count_suppressed(source.name());
            continue;
        };
        tracing::warn!(source = source.name(), code = failure.code(), detail = &*detail, %remote, suppressed, "delivery.rejected");
        let headers = visible_headers(source.provider(), &delivery.headers);
        let rejection = Rejection {
            at: delivery.received_at,
            source: source.name().to_owned(),
            code: failure.code().to_owned(),
            detail: detail.to_string(),
            remote: remote.ip().to_canonical().to_string(),
            headers: serde_json::to_string(&headers).unwrap_or_default(),
            body: verified.then(|| delivery.body.clone()),
            suppressed,
        };
        shared.app.activity.tell(|| Notice::Rejected(Arc::new(rejection.clone())));
        if let Err(error) = shared.app.store.reject(rejection).await {
            tracing::error!(source = source.name(), error = error.with_causes(), "delivery.rejection_not_kept");
        }
    }
    failure
}

/// Lets so many rejections of each source through to the store, so that strangers cannot fill the disk.
#[derive(Debug, Default)]
pub(crate) struct RejectionCap(Mutex<HashMap<String, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    suppressed: u64,
}

/// Rejections of one source that may come at once, and per second after that.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 5.0;

impl RejectionCap {
    /// Whether this one is kept; then how many were not since the last one that was.
    pub(super) fn admit(&self, source: &str, now: Instant) -> Option<u64> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket =
            buckets.entry(source.to_owned()).or_insert_with(|| Bucket { tokens: BURST, filled: now, suppressed: 0 });
        let gained = now.duration_since(bucket.filled).as_secs_f64() * PER_SECOND;
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.tokens -= 1.0;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rejections_of_one_source_are_capped_and_the_rest_counted() {
        let (cap, now) = (RejectionCap::default(), Instant::now());
        let kept = (0..200).filter(|_| cap.admit("a", now).is_some()).count();
        assert_eq!(kept, 50);
        assert_eq!(cap.admit("b", now), Some(0), "another source has its own");
        assert_eq!(cap.admit("a", now + Duration::from_secs(1)), Some(150));
    }
}
