//! Connections of one address, so that it cannot take those of all; and what is said to one that is refused.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::body::network;

/// Refusals that are said at once; a further one is only closed.
const MOST_REFUSALS: usize = 64;
/// How long a refusal may take to be heard.
const PATIENCE: Duration = Duration::from_secs(1);

/// To an address that has too many connections.
const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\n\
    retry-after: 5\r\nconnection: close\r\ncontent-length: 136\r\n\r\n\
    {\"status\":429,\"code\":\"too_many_connections\",\"title\":\"Too Many Requests\",\
    \"detail\":\"this address has as many connections as one may have\"}";

/// To whoever speaks plain HTTP where TLS is spoken.
const NOT_TLS: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\
    connection: close\r\ncontent-length: 106\r\n\r\n\
    {\"status\":400,\"code\":\"tls_required\",\"title\":\"Bad Request\",\"detail\":\"this port speaks HTTPS: use https://\"}";

/// How many connections an address may have; none: any number.
pub type Allowance = Arc<dyn Fn(IpAddr) -> Option<usize> + Send + Sync>;

/// Connections, by address.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Who is connected, by address (of IPv6: by network).
#[derive(Clone)]
pub(super) struct Crowd {
    of: Counts,
    allowance: Allowance,
    refusals: Arc<Semaphore>,
    refused: Counter,
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crowd").finish_non_exhaustive()
    }
}

/// A connection of an address, for as long as this lives; nothing, if its address has no limit.
pub(super) struct Place(Option<(Counts, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((of, address)) = self.0.take() else { return };
        let mut of = of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of.remove(&address);
            }
        }
    }
}

impl Crowd {
    /// Nobody; counts those that are refused.
    pub(super) fn new(allowance: Allowance, refused: Counter) -> Self {
        Self { of: Arc::default(), allowance, refusals: Arc::new(Semaphore::new(MOST_REFUSALS)), refused }
    }

    /// Lets a connection of an address in; none if it has too many.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let Some(most) = (self.allowance)(address) else { return Some(Place(None)) };
        let address = network(address);
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of.entry(address).or_insert(0);
        if *count >= most {
            self.refused.inc();
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(&self.of), address))))
    }

    /// Tells a connection that it is one too many, beside everything else.
    pub(super) fn turn_away(&self, stream: TcpStream) {
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            tokio::spawn(async move {
                say(stream, TOO_MANY).await;
                drop(permit);
            });
        }
    }
}

/// Tells whoever speaks plain HTTP that it is the wrong port for it.
pub(super) async fn ask_for_tls(stream: TcpStream) {
    say(stream, NOT_TLS).await;
}

async fn say(mut stream: TcpStream, text: &str) {
    let said = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        // A connection that is closed with something unread is reset, and what was said is lost.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(PATIENCE, said).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_has_the_length_that_it_says() {
        for text in [TOO_MANY, NOT_TLS] {
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{} {head}", body.len());
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }

    #[test]
    fn each_address_has_its_own_places_and_gives_them_back() {
        let one = |text: &str| text.parse::<IpAddr>().expect("an address");
        let allowance = |address: IpAddr| (!address.is_loopback()).then_some(2);
        let crowd = Crowd::new(Arc::new(allowance), Counter::default());
        let held: Vec<_> = (0..3).map(|_| crowd.enter(one("192.0.2.1"))).collect();
        assert_eq!(held.iter().filter(|place| place.is_some()).count(), 2);
        assert!(crowd.enter(one("192.0.2.2")).is_some());
        assert!((0..9).all(|_| crowd.enter(one("127.0.0.1")).is_some()));
        let held6: Vec<_> = (0..3).map(|n| crowd.enter(one(&format!("2001:db8::{n}")))).collect();
        assert!(held6[2].is_none(), "one IPv6 network is one address");
        assert_eq!(crowd.refused.get(), 2);
        drop((held, held6));
        assert!(crowd.of.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
    }
}
