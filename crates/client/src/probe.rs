//! Looking at a URL from outside, to say what is in the way: for `doctor`.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use crate::client::{connect, parse_url};
use crate::error::{Error, excerpt};

/// What answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The HTTP status.
    pub status: u16,
    /// The header `Date`.
    pub date: Option<String>,
    /// The header that was asked for.
    pub header: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// The beginning of the body, as one line.
    pub body: String,
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The name of the host leads nowhere.
    Name,
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// There is no encryption that can be trusted.
    Tls,
    /// Something else.
    Other,
}

/// Bytes of a body that are read: whoever answers may send without end.
const MOST_READ: usize = 16 * 1024;

/// Asks for a URL once, without a key and without following redirects, and answers what came back within `limit`;
/// `header` is the header of it that is wanted.
///
/// # Errors
/// What is in the way, and what exactly was said about it.
pub async fn probe(url: &str, header: &str, limit: Duration) -> Result<Seen, (Obstacle, String)> {
    let wrong = |error: Error| (Obstacle::Other, error.to_string());
    let parsed = parse_url(url).map_err(wrong)?;
    let http = connect(&parsed).map_err(wrong)?;
    let asked = async {
        let mut response = http.get(parsed).timeout(limit).send().await?;
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (date, header, location) = (text("date"), text(header), text("location"));
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while body.len() < MOST_READ
            && let Some(piece) = response.chunk().await?
        {
            body.extend_from_slice(&piece[..piece.len().min(MOST_READ - body.len())]);
        }
        Ok(Seen { status, date, header, location, body: excerpt(&body) })
    };
    asked.await.map_err(|error: reqwest::Error| explain(error.without_url()))
}

fn explain(error: reqwest::Error) -> (Obstacle, String) {
    let causes: Vec<&(dyn std::error::Error + 'static)> =
        std::iter::successors(error.source(), |error| (*error).source()).collect();
    let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // Some repeat what is below them.
    let mut texts: Vec<String> = Vec::new();
    for text in causes.iter().map(ToString::to_string) {
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    let said = if texts.is_empty() { error.to_string() } else { texts.join(": ") };
    // The TLS library's errors come as text from here.
    let obstacle = if error.is_timeout() || io == Some(io::ErrorKind::TimedOut) {
        Obstacle::Timeout
    } else if io == Some(io::ErrorKind::ConnectionRefused) {
        Obstacle::Refused
    } else if said.contains("dns error") {
        Obstacle::Name
    } else if ["certificate", "fatal alert", "corrupt message", "peer "].iter().any(|word| said.contains(word)) {
        Obstacle::Tls
    } else {
        Obstacle::Other
    };
    (obstacle, said)
}
