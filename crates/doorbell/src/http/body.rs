//! Bodies: read under a limit, a budget for all of them together, and a time limit.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::telemetry::Door;

/// How long a body may take in all.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a sender may take for the next [`LEAST`] bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a sender has to bring in that time, in bytes: more, if it holds much already.
const LEAST: u64 = 4 * 1024;
/// The part of what it holds that it has to bring instead: a body that is large and slow costs others most.
const LEAST_PART: u64 = 64;
/// A body of which nobody knows how long it becomes grows as it comes up to this, in bytes. Beyond it, and where the length is
/// announced, there is room at once, so that it is not copied, which takes its size twice: what is not written yet takes none of the
/// machine's memory.
const GROWING: usize = 64 * 1024;
/// How much larger the room of a large body may be than it is already, and the least.
const AHEAD: usize = 4;
const LEAST_ROOM: usize = 32 * 1024 * 1024;
/// Bytes in flight for all requests together.
const BUDGET: u64 = 256 * 1024 * 1024;
/// A body up to this is small, in bytes: nearly all are, and they find room when large ones do not.
const SMALL: u64 = 256 * 1024;

/// Memory that bodies in flight may take together.
///
/// Nobody has to be known to send a body, so no address gets more than half of it, and a quarter is kept for small bodies
/// (of which one address gets half, on top of its own half).
#[derive(Debug)]
pub(super) struct Budget {
    total: u64,
    small: u64,
    patience: Duration,
    book: Arc<Mutex<Book>>,
}

/// Who holds how much.
#[derive(Debug, Default)]
struct Book {
    used: u64,
    /// By address; those that hold nothing are not in it.
    of: BTreeMap<IpAddr, u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BUDGET, SMALL, PATIENCE)
    }
}

/// A body's share of the budget, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    book: Arc<Mutex<Book>>,
    address: IpAddr,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.used = book.used.saturating_sub(self.bytes);
        if let Some(own) = book.of.get_mut(&self.address) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                book.of.remove(&self.address);
            }
        }
    }
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
    fn new(total: u64, small: u64, patience: Duration) -> Self {
        Self { total, small, patience, book: Arc::default() }
    }

    /// How much of it is used, for metrics.
    pub(super) fn door(&self) -> Door {
        let used = self.book.lock().unwrap_or_else(PoisonError::into_inner).used;
        Door { body_bytes: used, body_bytes_limit: self.total }
    }

    /// Reads a whole body of at most `limit` bytes that `remote` sends.
    pub(super) async fn read(
        &self,
        remote: IpAddr,
        headers: &HeaderMap,
        body: Body,
        limit: u64,
    ) -> Result<(Bytes, Share), Unread> {
        let share = Share { book: Arc::clone(&self.book), address: network(remote), bytes: 0 };
        match tokio::time::timeout(WHOLE_TIMEOUT, self.gather(share, announced(headers), body, limit)).await {
            Ok(read) => read,
            Err(_) => Err(Unread::TooSlow),
        }
    }

    async fn gather(
        &self,
        mut share: Share,
        announced: Option<u64>,
        mut body: Body,
        limit: u64,
    ) -> Result<(Bytes, Share), Unread> {
        if announced.is_some_and(|length| length > limit) {
            return Err(Unread::TooLarge);
        }
        // Reserved as the bytes come: what is only announced takes no memory.
        let mut first: Option<Bytes> = None;
        let mut rest = Vec::new();
        let mut length = 0u64;
        let (mut wanted, mut until) = (LEAST, Instant::now() + self.patience);
        loop {
            let frame = match tokio::time::timeout_at(until, body.frame()).await {
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
            self.reserve(&mut share, length, announced.unwrap_or(0))?;
            if length >= wanted {
                (wanted, until) = (length + LEAST.max(length / LEAST_PART), Instant::now() + self.patience);
            }
            // Most bodies come in one chunk, which is kept as it is.
            match first.take() {
                None if rest.is_empty() => first = Some(chunk),
                None => append(&mut rest, &chunk, announced, limit)?,
                Some(begun) => {
                    append(&mut rest, &begun, announced, limit)?;
                    append(&mut rest, &chunk, announced, limit)?;
                }
            }
        }
        Ok((first.unwrap_or_else(|| rest.into()), share))
    }

    /// Raises a share to `length` bytes of a body that may become `announced` bytes long.
    fn reserve(&self, share: &mut Share, length: u64, announced: u64) -> Result<(), Unread> {
        let more = length.saturating_sub(share.bytes);
        let (of_all, of_one) = match length.max(announced) <= self.small {
            true => (self.total, self.total / 2 + self.total / 8),
            false => (self.total - self.total / 4, self.total / 2),
        };
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let own = book.of.get(&share.address).copied().unwrap_or(0);
        if book.used + more > of_all || own + more > of_one {
            return Err(Unread::OverBudget);
        }
        if more > 0 {
            book.used += more;
            book.of.insert(share.address, own + more);
            share.bytes += more;
        }
        Ok(())
    }
}

/// Adds a piece to a body that becomes `announced` bytes long, or may become `limit` bytes long.
fn append(body: &mut Vec<u8>, piece: &[u8], announced: Option<u64>, limit: u64) -> Result<(), Unread> {
    let length = body.len() + piece.len();
    if length > body.capacity() && (announced.is_some() || length > GROWING) {
        let most = usize::try_from(announced.unwrap_or(limit))
            .unwrap_or(usize::MAX)
            .min(LEAST_ROOM.max(length.saturating_mul(AHEAD)));
        body.try_reserve_exact(most.max(length) - body.len()).map_err(|_| Unread::OverBudget)?;
    }
    body.extend_from_slice(piece);
    Ok(())
}

/// The address, or of IPv6 the network: who has one address there, has all of its network.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    async fn read(chunks: Vec<&'static [u8]>, limit: u64) -> Result<Bytes, Unread> {
        let frames = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
        let read = Budget::default().read(SENDER, &HeaderMap::new(), Body::from_stream(frames), limit).await;
        read.map(|(bytes, _)| bytes)
    }

    /// A budget of 8000 bytes, in which 100 are small.
    fn budget() -> Budget {
        Budget::new(8000, 100, PATIENCE)
    }

    /// Sends a body and keeps its share.
    async fn hold(budget: &Budget, from: IpAddr, length: usize) -> Result<Share, Unread> {
        let read = budget.read(from, &HeaderMap::new(), Body::from(vec![0; length]), 10_000).await;
        read.map(|(_, share)| share)
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
        let budget = budget();
        let (first, second) = (hold(&budget, SENDER, 4000).await, hold(&budget, OTHER, 2000).await);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(budget.door().body_bytes, 6000);
        assert_eq!(hold(&budget, OTHER, 101).await.err(), Some(Unread::OverBudget));
        drop((first, second));
        assert_eq!(budget.door().body_bytes, 0);
        assert!(budget.book.lock().unwrap().of.is_empty());
        assert!(hold(&budget, OTHER, 4000).await.is_ok());
    }

    #[tokio::test]
    async fn one_address_cannot_take_the_room_of_the_others() {
        let budget = budget();
        let _held = hold(&budget, SENDER, 4000).await.unwrap();
        assert_eq!(hold(&budget, SENDER, 101).await.err(), Some(Unread::OverBudget));
        let mut small = Vec::new();
        while let Ok(share) = hold(&budget, SENDER, 100).await {
            small.push(share);
        }
        assert_eq!(small.len(), 10, "its small ones have room of their own, and that has an end");
        assert!(hold(&budget, OTHER, 1000).await.is_ok());
    }

    #[tokio::test]
    async fn large_bodies_cannot_take_the_room_of_small_ones() {
        let budget = budget();
        let _held = [hold(&budget, SENDER, 4000).await.unwrap(), hold(&budget, OTHER, 2000).await.unwrap()];
        let third = IpAddr::from([192, 0, 2, 3]);
        assert_eq!(hold(&budget, third, 101).await.err(), Some(Unread::OverBudget));
        for from in [SENDER, OTHER, third] {
            assert!(hold(&budget, from, 100).await.is_ok());
        }
        // What is announced to become large is not small while it begins.
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 5000.into());
        assert_eq!(budget.read(third, &headers, Body::from("x"), 10_000).await.err(), Some(Unread::OverBudget));
    }

    #[tokio::test]
    async fn a_body_that_only_trickles_is_let_go_though_it_is_never_silent() {
        let budget = Budget::new(BUDGET, SMALL, Duration::from_millis(50));
        let ticks = tokio::time::interval(Duration::from_millis(1));
        let trickle = futures_util::stream::unfold(ticks, async |mut ticks| {
            ticks.tick().await;
            Some((Ok::<_, std::io::Error>(Bytes::from("x")), ticks))
        });
        let read = budget.read(SENDER, &HeaderMap::new(), Body::from_stream(trickle), 10_000_000).await;
        assert_eq!(read.err(), Some(Unread::TooSlow));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), SENDER);
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
