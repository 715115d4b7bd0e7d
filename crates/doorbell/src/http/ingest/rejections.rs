//! Refused deliveries: kept with their cause, so many of each source that strangers cannot fill the disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell_core::delivery::Delivery;
use doorbell_core::flow::Rate;
use doorbell_core::provider::visible_headers;
use doorbell_core::source::Source;

use super::super::Shared;
use super::super::bounds::Bounds;
use super::super::error::{self, Failure};
use crate::app::Notice;
use crate::store::Rejection;

/// Bytes of a refused body that are kept; of a longer one none are.
const MOST_KEPT: usize = 64 << 10;

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
    let remote = remote.ip().to_canonical();
    for source in sources {
        shared.app.metrics.count_rejected(source.name(), failure.code());
        if failure.is_the_senders() {
            shared.app.signs.refused(source.name(), failure.code());
        }
        let Some(suppressed) = shared.rejections.admit(source.name(), Instant::now()) else {
            shared.app.metrics.count_suppressed(source.name());
            continue;
        };
        tracing::warn!(source = source.name(), code = failure.code(), detail = &*detail, %remote,
            suppressed, "delivery.rejected");
        let headers = visible_headers(source.provider(), &delivery.headers);
        let rejection = Rejection {
            at: delivery.received_at,
            source: source.name().to_owned(),
            code: failure.code().to_owned(),
            detail: detail.to_string(),
            remote: remote.to_string(),
            headers: serde_json::to_string(&headers).unwrap_or_default(),
            body: Some(delivery.body.clone()).filter(|body| verified && body.len() <= MOST_KEPT),
            suppressed,
        };
        shared.app.activity.tell(|| Notice::Rejected(Arc::new(Rejection { body: None, ..rejection.clone() })));
        // Where nothing can be stored, only the log and who watches hear of it.
        if failure.code() == "store_unavailable" {
            continue;
        }
        if let Err(error) = shared.app.store.reject(rejection).await {
            tracing::error!(source = source.name(), error = error.with_causes(), "delivery.rejection_not_kept");
        }
    }
    failure
}

/// Lets so many rejections of each source through to the store, so that strangers cannot fill the disk.
#[derive(Debug, Default)]
pub(crate) struct RejectionCap(Bounds<String>);

/// Rejections of one source: 50 may come at once, and 5 a second after that.
const KEPT: Rate = Rate { count: 50, window: Duration::from_secs(10) };

impl RejectionCap {
    /// Whether this one is kept; then how many were not since the last one that was.
    pub(super) fn admit(&self, source: &str, now: Instant) -> Option<u64> {
        self.0.admit(source.to_owned(), KEPT, now).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_of_one_source_are_capped_and_the_rest_counted() {
        let (cap, now) = (RejectionCap::default(), Instant::now());
        let kept = (0..200).filter(|_| cap.admit("a", now).is_some()).count();
        assert_eq!(kept, 50);
        assert_eq!(cap.admit("b", now), Some(0), "another source has its own");
        assert_eq!(cap.admit("a", now + Duration::from_secs(1)), Some(150));
    }
}
