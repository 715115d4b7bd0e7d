//! Requests that are to be carried out once, however often they are made.

use doorbell_core::time::Timestamp;

/// A request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceRequest {
    /// Whose key this is: the same one of somebody else is another.
    pub whose: String,
    /// The idempotency key.
    pub key: String,
    /// A digest of what is asked for.
    pub digest: Vec<u8>,
}

/// How a request stands that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is the first with its key, and is to be carried out.
    First,
    /// It was answered before.
    Answered(OnceAnswer),
    /// It was begun before, and nobody knows how it ended.
    Unknown,
    /// Its key was used for something else.
    Other,
}

/// The first answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceAnswer {
    /// Its HTTP status.
    pub status: u16,
    /// Its JSON, without secrets.
    pub body: String,
}

/// What became of a request that was begun: its answer; none: nothing was done, and it may be asked again.
#[derive(Debug, Clone)]
pub struct OnceEnd {
    /// Whose it is.
    pub whose: String,
    /// Its idempotency key.
    pub key: String,
    /// Its answer.
    pub answer: Option<OnceAnswer>,
    /// When.
    pub at: Timestamp,
}
