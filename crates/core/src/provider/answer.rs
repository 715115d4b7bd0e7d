//! What a protocol wants to hear: at once, and when a run has ended.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::secret::Secret;
use crate::time::Timestamp;

/// An answer in the words of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The type of the body; none without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// `200` with JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: Some("application/json"), body: body.into() }
    }

    /// A status without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, content_type: None, body: Bytes::new() }
    }
}

/// The answer to a request that is unsigned by protocol. No event comes of it.
#[derive(Debug, Clone)]
pub enum Greeting {
    /// Nothing but the answer.
    Answer(Answer),
    /// The sender shows once, here, the secret that it will sign with. It is kept and shown to the source's owner, who makes it
    /// the source's credential or does not: until then it verifies nothing.
    Secret {
        /// The secret.
        secret: Secret,
        /// The answer.
        answer: Answer,
    },
}

/// How a run ended, for those who wait where its event came from.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The agent.
    pub agent: &'a str,
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Its result as text, or why it failed.
    pub text: &'a str,
    /// Whether it is the first of the event's runs that is told of: where somebody was promised one message, it becomes this one.
    pub first: bool,
}

/// A request that tells how a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The method.
    pub method: Method,
    /// Where to. Checked to be the provider's.
    pub url: String,
    /// The JSON that is sent.
    pub body: String,
    /// Until when it is of use.
    pub until: Timestamp,
}
