//! Requests that the gateway makes by itself to others than its users: a certificate, a confirmation, how a run ended.
//!
//! Nothing is sent along that would say who asks, redirects are not followed, and what comes back is bounded.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Method;

use crate::client::{connect, parse_url};

/// Bytes of an answer that are read where only its status matters.
const LARGEST_ANSWER: usize = 16 << 10;

/// Asks others. Its connections are made when the first is needed, and kept.
#[derive(Debug, Default)]
pub struct Outbound(OnceLock<reqwest::Client>);

/// What somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before the next try, if it says so in seconds.
    pub retry_after: Option<Duration>,
}

impl Outbound {
    /// Gets what an https URL has: `200`, and at most `limit` bytes.
    ///
    /// # Errors
    /// Why not, in words for the log: they name neither the URL nor what came.
    pub async fn fetch(&self, url: &str, limit: usize, patience: Duration) -> Result<Bytes, String> {
        if !url.starts_with("https://") {
            return Err("only https is asked".to_owned());
        }
        let response = self.send(&Method::GET, url, None, patience).await?;
        match response.status().as_u16() {
            200 => read(response, limit).await,
            status @ 300..=399 => Err(format!("{status}: redirects are not followed")),
            status => Err(format!("answered with {status}")),
        }
    }

    /// Sends a request, with JSON if there is some, and waits for the status of the answer.
    ///
    /// # Errors
    /// Why there is none, in words for the log, without the URL.
    pub async fn ask(
        &self,
        method: &Method,
        url: &str,
        json: Option<String>,
        patience: Duration,
    ) -> Result<Reply, String> {
        let response = self.send(method, url, json, patience).await?;
        let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|text| text.trim().parse::<f64>().ok());
        let retry_after = retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let status = response.status().as_u16();
        // So that the connection can be used again; what it says matters to nobody.
        let _ = read(response, LARGEST_ANSWER).await;
        Ok(Reply { status, retry_after })
    }

    async fn send(
        &self,
        method: &Method,
        url: &str,
        json: Option<String>,
        patience: Duration,
    ) -> Result<reqwest::Response, String> {
        let parsed = parse_url(url).map_err(|_| "its URL cannot be used".to_owned())?;
        let http = match parsed.scheme() {
            // What is on this machine is asked in another way: not through a proxy.
            "http" => connect(&parsed).map_err(|error| error.to_string())?,
            _ => match self.0.get() {
                Some(http) => http.clone(),
                None => {
                    let made = connect(&parsed).map_err(|error| error.to_string())?;
                    self.0.get_or_init(|| made).clone()
                }
            },
        };
        let mut request = http.request(method.clone(), parsed).timeout(patience);
        if let Some(json) = json {
            request = request.header("content-type", "application/json").body(json);
        }
        request.send().await.map_err(unreachable)
    }
}

async fn read(mut response: reqwest::Response, limit: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > limit {
            return Err(format!("its answer is larger than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Without the URL, which may be a secret.
fn unreachable(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SOON: Duration = Duration::from_secs(20);

    /// A server that answers one request with these bytes, and says what it was asked.
    async fn answering(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/there", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let length = socket.read(&mut bytes).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        });
        (url, asked)
    }

    #[tokio::test]
    async fn only_https_is_fetched() {
        let refused = Outbound::default().fetch("http://127.0.0.1:1/", 10, SOON).await;
        assert_eq!(refused, Err("only https is asked".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_says_its_status_and_when_to_come_again() {
        let (url, asked) =
            answering("HTTP/1.1 429 Too Many\r\nretry-after: 1.5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
        let reply = Outbound::default().ask(&Method::PATCH, &url, Some("{}".to_owned()), SOON).await.unwrap();
        assert_eq!(reply, Reply { status: 429, retry_after: Some(Duration::from_millis(1500)) });
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("PATCH /there ") && asked.contains("content-type: application/json"), "{asked}");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let (url, _) =
            answering("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(Outbound::default().ask(&Method::GET, &url, None, SOON).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_said_without_its_url() {
        let error = Outbound::default().ask(&Method::GET, "http://127.0.0.1:1/secret", None, SOON).await.unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
