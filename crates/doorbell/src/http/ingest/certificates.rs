//! Certificates that signatures are checked with, where a protocol keeps them at a URL (SNS, PayPal).
//!
//! Whoever sends a delivery names the URL, and the provider only lets its maker's hosts pass. So strangers can make the
//! gateway ask there: each URL is asked for once at a time, what came is kept, what did not come is not asked for again
//! for a while, and all in all only so many are asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use doorbell_client::Outbound;

use super::rejections::RejectionCap;

/// How long a certificate may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one, at most.
const LARGEST: usize = 64 << 10;
/// URLs that are remembered.
const MOST_KEPT: usize = 64;
/// How long one that came is used.
const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one that did not come is not asked for again.
const BAD_FOR: Duration = Duration::from_secs(60);
/// What every certificate in PEM begins with, white space aside.
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The certificates of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    outbound: Outbound,
    slots: Mutex<HashMap<String, Slot>>,
    asked: RejectionCap,
}

#[derive(Debug, Clone)]
struct Slot {
    used: Instant,
    /// Whoever asks holds it, so that others wait for the answer instead of asking, too.
    found: Arc<tokio::sync::Mutex<Option<Found>>>,
    good: bool,
}

#[derive(Debug, Clone)]
struct Found {
    until: Instant,
    what: Result<Bytes, String>,
}

impl Certificates {
    /// The certificate at this URL.
    ///
    /// # Errors
    /// Why there is none, for the source's owner.
    pub(super) async fn get(&self, url: &str) -> Result<Bytes, String> {
        self.get_with(url, async |url| self.outbound.fetch(url, LARGEST, PATIENCE).await).await
    }

    async fn get_with(
        &self,
        url: &str,
        fetch: impl AsyncFnOnce(&str) -> Result<Bytes, String>,
    ) -> Result<Bytes, String> {
        let slot = self.slot(url);
        let mut found = slot.lock().await;
        if let Some(found) = found.as_ref().filter(|found| Instant::now() < found.until) {
            return found.what.clone();
        }
        // One bucket for all URLs of a maker: they are strangers' words, and must not keep another maker's out.
        if self.asked.admit(maker(url), Instant::now()).is_none() {
            return Err("too many certificates were asked for in a short time".to_owned());
        }
        let what = fetch(url).await.and_then(|bytes| match bytes.trim_ascii_start().starts_with(PEM) {
            true => Ok(bytes),
            false => Err("what is there is no certificate in PEM".to_owned()),
        });
        let keep = if what.is_ok() { GOOD_FOR } else { BAD_FOR };
        if let Err(error) = &what {
            tracing::warn!(url, error, "certificate.not_fetched");
        }
        *found = Some(Found { until: Instant::now() + keep, what: what.clone() });
        drop(found);
        if let Some(slot) = self.slots().get_mut(url) {
            slot.good = what.is_ok();
        }
        what
    }

    /// Where the certificate of a URL is kept; the longest unused one makes room, bad ones first, so that made-up URLs
    /// never push out a certificate that is in use.
    fn slot(&self, url: &str) -> Arc<tokio::sync::Mutex<Option<Found>>> {
        let (mut slots, now) = (self.slots(), Instant::now());
        if let Some(slot) = slots.get_mut(url) {
            slot.used = now;
            return Arc::clone(&slot.found);
        }
        if slots.len() >= MOST_KEPT {
            let oldest = slots.iter().min_by_key(|(_, slot)| (slot.good, slot.used)).map(|(url, _)| url.clone());
            oldest.map(|url| slots.remove(&url));
        }
        let slot = Slot { used: now, found: Arc::default(), good: false };
        let found = Arc::clone(&slot.found);
        slots.insert(url.to_owned(), slot);
        found
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last two labels of a URL's host. Providers take certificates of few hosts only, so there are few of these.
fn maker(url: &str) -> &str {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let at = host.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    &host[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nx";

    async fn ask(certificates: &Certificates, url: &str, count: &AtomicUsize, good: bool) -> Result<Bytes, String> {
        let fetch = async |_: &str| {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if good { Ok(Bytes::from(CERTIFICATE)) } else { Err("gone".to_owned()) }
        };
        certificates.get_with(url, fetch).await
    }

    #[tokio::test]
    async fn a_certificate_is_asked_for_once_however_many_wait_for_it() {
        let (certificates, count) = (Certificates::default(), AtomicUsize::new(0));
        let all = futures_util::future::join_all((0..20).map(|_| ask(&certificates, "a", &count, true))).await;
        assert!(all.iter().all(|one| one.as_deref() == Ok(CERTIFICATE.as_bytes())));
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_did_not_come_is_not_asked_for_again_at_once() {
        let (certificates, count) = (Certificates::default(), AtomicUsize::new(0));
        for _ in 0..20 {
            assert_eq!(ask(&certificates, "a", &count, false).await, Err("gone".to_owned()));
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn made_up_urls_neither_push_a_good_one_out_nor_are_asked_without_end() {
        let (certificates, count) = (Certificates::default(), AtomicUsize::new(0));
        ask(&certificates, "good", &count, true).await.unwrap_or_default();
        for n in 0..1000 {
            assert!(ask(&certificates, &format!("bad{n}"), &count, false).await.is_err());
        }
        assert!(count.load(Ordering::Relaxed) < 500, "{count:?}");
        assert!(certificates.slots().len() <= MOST_KEPT);
        let before = count.load(Ordering::Relaxed);
        assert!(ask(&certificates, "good", &count, true).await.is_ok());
        assert_eq!(count.load(Ordering::Relaxed), before, "it is still there");
    }

    #[tokio::test]
    async fn a_page_is_no_certificate() {
        let page = async |_: &str| Ok(Bytes::from("<html>"));
        assert!(Certificates::default().get_with("a", page).await.is_err());
    }

    #[tokio::test]
    async fn only_https_is_asked() {
        let refused = Certificates::default().get("http://127.0.0.1:1/cert.pem").await;
        assert_eq!(refused, Err("only https is asked".to_owned()));
    }
}
