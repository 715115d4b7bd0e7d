//! Playing a webhook sender.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Url;

use crate::api::{Problem, Receipt};
use crate::client::{self, TIMEOUT};
use crate::error::{Error, excerpt};

/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 1 << 20;

/// Posts deliveries, over connections that it keeps.
#[derive(Debug, Clone)]
pub struct Sender {
    http: reqwest::Client,
    url: Url,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The HTTP status.
    pub status: u16,
    /// The body of the answer.
    pub answer: Answer,
    /// From the first byte sent to the last byte received, connecting included where it was needed.
    pub latency: Duration,
}

/// The body of an answer to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was taken.
    Receipt(Receipt),
    /// It was refused.
    Problem(Problem),
    /// Neither: the beginning of it, as one line.
    Other(String),
}

impl Sender {
    /// A sender to one URL.
    ///
    /// # Errors
    /// If the URL is not an absolute http or https URL.
    pub fn new(url: &str) -> Result<Self, Error> {
        let url = client::parse_url(url)?;
        Ok(Self { http: client::connect(&url)?, url })
    }

    /// Posts one delivery and waits for the answer, whatever its status.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if there is no answer, [`Error::Unexpected`] if a header cannot be sent.
    pub async fn post(&self, headers: &[(String, String)], body: Bytes) -> Result<Sent, Error> {
        let mut request = self.http.post(self.url.clone()).timeout(TIMEOUT).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.build().map_err(|error| Error::Unexpected(format!("cannot be sent: {error}")))?;
        let begun = Instant::now();
        let response = self.http.execute(request).await.map_err(|error| client::unreachable(&self.url, error))?;
        let status = response.status();
        let body = self.read(response).await?;
        let latency = begun.elapsed();
        Ok(Sent { status: status.as_u16(), answer: answer(status.is_success(), &body), latency })
    }

    /// The body, as far as it is worth reading: who answers may not be trusted.
    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| client::unreachable(&self.url, error))? {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST_ANSWER {
                body.truncate(LARGEST_ANSWER);
                break;
            }
        }
        Ok(body)
    }
}

fn answer(taken: bool, body: &[u8]) -> Answer {
    let read = if taken {
        serde_json::from_slice(body).map(Answer::Receipt)
    } else {
        serde_json::from_slice(body).map(Answer::Problem)
    };
    read.unwrap_or_else(|_| Answer::Other(excerpt(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_status() {
        let receipt = br#"{"received":true,"deliveryId":"evt_1","event":"github.push","runs":[],"duplicate":false}"#;
        assert!(matches!(answer(true, receipt), Answer::Receipt(receipt) if receipt.delivery_id == "evt_1"));
        let problem = br#"{"status":401,"code":"signature_mismatch","title":"Unauthorized","detail":"no"}"#;
        assert!(matches!(answer(false, problem), Answer::Problem(problem) if problem.code == "signature_mismatch"));
        assert_eq!(answer(true, b"ok\n"), Answer::Other("ok".to_owned()), "other services answer as they like");
    }
}
