//! The envelope: an event as agents get it. snake_case, as its users know it (see the contract's section 3).

use base64::Engine;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::Context;
use crate::id::{EventId, RunId};

/// What a run is handed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Whether a webhook caused the run.
    #[serde(rename = "_webhook")]
    pub webhook: bool,
    /// The provider, e.g. `github`.
    pub source: String,
    /// The source's name, e.g. `acme-github`.
    pub integration_id: String,
    /// `{provider}.{event}[.{action}]`.
    pub event_type: String,
    /// The provider's id of the delivery, where it sends one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// When it was received, in Unix seconds.
    pub timestamp: i64,
    /// The visible headers, lower-cased.
    pub headers: serde_json::Map<String, serde_json::Value>,
    /// The raw body: as text, or in base64 where it is not UTF-8.
    pub body: String,
    /// `utf8` or `base64`.
    pub body_encoding: String,
    /// The event's id.
    pub event_id: EventId,
    /// The run's id: the idempotency key for what the agent does.
    pub run_id: RunId,
    /// The try, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent: String,
    /// What filters and prompts use.
    pub context: Context,
    /// The other events of the run, oldest first.
    pub events: Vec<Companion>,
}

/// A further event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Companion {
    /// Its id.
    pub event_id: EventId,
    /// Its type.
    pub event_type: String,
    /// When it was received, in Unix seconds.
    pub timestamp: i64,
    /// What filters and prompts use.
    pub context: Context,
}

/// A raw body as JSON can carry it: the text and its encoding.
pub fn encode_body(body: &Bytes) -> (String, &'static str) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), "utf8"),
        Err(_) => (base64::engine::general_purpose::STANDARD.encode(body), "base64"),
    }
}
