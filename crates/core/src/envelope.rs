//! The envelope: an event as agents get it. snake_case, as its users know it (see the contract's section 3).

use base64::Engine;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Context;
use crate::id::{EventId, RunId};
use crate::wait::Resumed;

/// What a run is handed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(with = "String")]
    pub event_id: EventId,
    /// The run's id: the idempotency key for what the agent does.
    #[schemars(with = "String")]
    pub run_id: RunId,
    /// The try, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent: String,
    /// What filters and prompts use.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub context: Context,
    /// The other events of the run, oldest first.
    pub events: Vec<Companion>,
    /// What it goes on by, if it waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
}

/// A further event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EnvelopeEvent")]
pub struct Companion {
    /// Its id.
    #[schemars(with = "String")]
    pub event_id: EventId,
    /// Its type.
    pub event_type: String,
    /// When it was received, in Unix seconds.
    pub timestamp: i64,
    /// What filters and prompts use.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub context: Context,
}

/// A raw body as JSON can carry it: the text and its encoding.
pub fn encode_body(body: &Bytes) -> (String, &'static str) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), "utf8"),
        Err(_) => (base64::engine::general_purpose::STANDARD.encode(body), "base64"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::time::Timestamp;

    fn envelope(body: &Bytes) -> Envelope {
        let (body, body_encoding) = encode_body(body);
        let mut context = Context::default();
        context.set("event", "issues");
        context.set("number", 7);
        Envelope {
            webhook: true,
            source: "github".to_owned(),
            integration_id: "acme-github".to_owned(),
            event_type: "github.issues".to_owned(),
            idempotency_key: None,
            timestamp: 1_733_337_600,
            headers: serde_json::Map::new(),
            body,
            body_encoding: body_encoding.to_owned(),
            event_id: EventId::new(Timestamp::from_seconds(1), [1; 10]),
            run_id: RunId::new(Timestamp::from_seconds(1), [2; 10]),
            attempt: 1,
            agent: "triage".to_owned(),
            context,
            events: Vec::new(),
            resumed: None,
        }
    }

    #[test]
    fn a_body_of_text_is_carried_as_it_is() {
        let body = Bytes::from_static("{\"title\":\"grüße\"}\n".as_bytes());
        assert_eq!(encode_body(&body), ("{\"title\":\"grüße\"}\n".to_owned(), "utf8"));
        assert_eq!(encode_body(&Bytes::new()), (String::new(), "utf8"));
    }

    #[test]
    fn a_body_that_is_no_text_is_carried_in_base64() {
        assert_eq!(encode_body(&Bytes::from_static(&[0xff, 0x00, 0xfe])), ("/wD+".to_owned(), "base64"));
    }

    #[test]
    fn an_envelope_says_so_if_a_webhook_caused_it_and_leaves_out_what_there_is_not() {
        let json = serde_json::to_value(envelope(&Bytes::from_static(b"\xff"))).unwrap();
        assert_eq!(json["_webhook"], true);
        assert_eq!(json["body_encoding"], "base64");
        assert_eq!(json["context"]["number"], 7);
        assert!(json.get("idempotency_key").is_none());
    }

    #[test]
    fn an_envelope_reads_back_as_it_was_written() {
        let written = envelope(&Bytes::from_static(b"{}"));
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), written);
    }
}
