//! Bodies: read under a limit, a budget for all of them together, and a time limit.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::Door;

/// How long a body may take in all.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a sender may send nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// The unit of the budget, in bytes.
const UNIT: u64 = 1024;
/// Memory that is taken at once for an announced body; a larger one grows as it comes.
const LARGEST_RESERVED: u64 = 1024 * 1024;
/// Bytes in flight for all requests together.
const BUDGET: u64 = 256 * 1024 * 1024;

/// Memory that bodies in flight may take together.
#[derive(Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(BUDGET / UNIT).unwrap_or(usize::MAX))))
    }
}

/// A body's share of the budget, given back when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    permit: Option<OwnedSemaphorePermit>,
    units: u64,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is over the limit.
    TooLarge,
    /// All bodies in flight together are over the budget.
    OverBudget,
    /// It took too long.
    TooSlow,
    /// The connection broke.
    Broken,
}

impl Unread {
    /// What the sender, and whoever owns the source, is told. `limit`: of one body, in bytes.
    pub(super) fn explain(self, limit: u64, headers: &HeaderMap) -> String {
        match self {
            Self::TooLarge => {
                let size = announced(headers).map(|size| format!("{size} bytes, ")).unwrap_or_default();
                format!("the body has {size}more than this gateway's `max_body` of {limit} bytes")
            }
            Self::OverBudget => "too many large bodies are in flight; try again".to_owned(),
            Self::TooSlow => "the body did not arrive in time".to_owned(),
            Self::Broken => "the body did not arrive whole".to_owned(),
        }
    }
}

impl Budget {
    /// How much of it is used, for metrics.
    pub(super) fn door(&self) -> Door {
        let free = (self.0.available_permits() as u64).saturating_mul(UNIT);
        Door { body_bytes: BUDGET.saturating_sub(free), body_bytes_limit: BUDGET }
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body, limit: u64) -> Result<(Bytes, Share), Unread> {
        match tokio::time::timeout(WHOLE_TIMEOUT, self.gather(announced(headers), body, limit)).await {
            Ok(read) => read,
            Err(_) => Err(Unread::TooSlow),
        }
    }

    async fn gather(&self, announced: Option<u64>, mut body: Body, limit: u64) -> Result<(Bytes, Share), Unread> {
        if announced.is_some_and(|length| length > limit) {
            return Err(Unread::TooLarge);
        }
        // Reserved as the bytes come: what is only announced takes no memory.
        let mut share = Share::default();
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        let mut length = 0u64;
        loop {
            let frame = match tokio::time::timeout(SILENCE_TIMEOUT, body.frame()).await {
                Err(_) => return Err(Unread::TooSlow),
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(Unread::Broken),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(chunk) = frame.into_data() else { continue };
            length += chunk.len() as u64;
            if length > limit {
                return Err(Unread::TooLarge);
            }
            self.reserve(&mut share, length)?;
            // Most bodies come in one chunk, which is kept as it is.
            match first.take() {
                None if rest.is_empty() => first = Some(chunk),
                None => rest.extend_from_slice(&chunk),
                Some(begun) => {
                    let expected = announced.unwrap_or(length).min(LARGEST_RESERVED);
                    rest.reserve(usize::try_from(expected).unwrap_or(0));
                    rest.extend_from_slice(&begun);
                    rest.extend_from_slice(&chunk);
                }
            }
        }
        Ok((first.unwrap_or_else(|| rest.freeze()), share))
    }

    /// Raises a share to `length` bytes.
    fn reserve(&self, share: &mut Share, length: u64) -> Result<(), Unread> {
        let wanted = length.div_ceil(UNIT);
        if wanted <= share.units {
            return Ok(());
        }
        let more = u32::try_from(wanted - share.units).map_err(|_| Unread::OverBudget)?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| Unread::OverBudget)?;
        match &mut share.permit {
            Some(permit) => permit.merge(more),
            None => share.permit = Some(more),
        }
        share.units = wanted;
        Ok(())
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: Vec<&'static [u8]>, limit: u64) -> Result<Bytes, Unread> {
        let frames = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
        let read = Budget::default().read(&HeaderMap::new(), Body::from_stream(frames), limit).await;
        read.map(|(bytes, _)| bytes)
    }

    #[tokio::test]
    async fn chunks_are_put_together_as_they_came() {
        assert_eq!(read(vec![], 10).await, Ok(Bytes::new()));
        assert_eq!(read(vec![b"abc"], 3).await, Ok(Bytes::from("abc")));
        assert_eq!(read(vec![b"", b"ab", b"", b"cd", b"e"], 5).await, Ok(Bytes::from("abcde")));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        assert_eq!(read(vec![b"abc", b"d"], 3).await, Err(Unread::TooLarge));
    }

    #[tokio::test]
    async fn bodies_in_flight_share_a_budget_and_give_it_back() {
        let budget = Budget(Arc::new(Semaphore::new(2)));
        let headers = HeaderMap::new();
        let first = budget.read(&headers, Body::from(vec![0; 1500]), 10_000).await;
        assert!(first.is_ok());
        assert_eq!(budget.read(&headers, Body::from("x"), 10_000).await.err(), Some(Unread::OverBudget));
        drop(first);
        assert!(budget.read(&headers, Body::from("x"), 10_000).await.is_ok());
    }
}
