//! Slack, Discord and X: the facts about their protocols, and their samples.

use std::collections::HashSet;
use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::discord::Discord;
use doorbell_core::provider::slack::Slack;
use doorbell_core::provider::twitter::Twitter;
use doorbell_core::provider::{Greeting, Key, Provider, Unsent, encode_base64, encode_hex};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderMap, Method};
use serde::Deserialize;

use super::{Fact, NOW, SECRET, delivery};

mod discord;
mod hostile;
mod slack;
mod slack_replies;
mod twitter;
mod twitter_challenge;

const SEED: &str = "0707070707070707070707070707070707070707070707070707070707070707";
const OTHER_SEED: &str = "0808080808080808080808080808080808080808080808080808080808080808";
const FORM: &str = "application/x-www-form-urlencoded";

/// One of the senders, with a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Slack,
    Discord,
    Twitter,
}

const SENDERS: [Sender; 3] = [Sender::Slack, Sender::Discord, Sender::Twitter];

impl Sender {
    fn provider(self) -> Arc<dyn Provider> {
        match self {
            Self::Slack => Arc::new(Slack::default()),
            Self::Discord => Arc::new(Discord::default()),
            Self::Twitter => Arc::new(Twitter),
        }
    }

    fn signing_key(self, other: bool) -> Key {
        let secret = match (self, other) {
            (Self::Discord, false) => SEED,
            (Self::Discord, true) => OTHER_SEED,
            (_, false) => SECRET,
            (_, true) => "another secret",
        };
        self.provider().prepare_signing(&Secret::new(secret)).unwrap()
    }

    fn source(self) -> Arc<Source> {
        let key = self.signing_key(false);
        let key = match key.public() {
            Some(public) => self.provider().prepare(&Secret::new(encode_hex(public))).unwrap(),
            None => key,
        };
        let keys = vec![NamedKey { instance: "acme".to_owned(), key }];
        Arc::new(Source::new("test", self.provider(), keys, false, Dedup::Id).unwrap())
    }

    fn signature_header(self) -> &'static str {
        match self {
            Self::Slack => "x-slack-signature",
            Self::Discord => "x-signature-ed25519",
            Self::Twitter => "x-twitter-webhooks-signature",
        }
    }

    fn time_header(self) -> Option<&'static str> {
        match self {
            Self::Slack => Some("x-slack-request-timestamp"),
            Self::Discord => Some("x-signature-timestamp"),
            Self::Twitter => None,
        }
    }

    /// A body that says something.
    fn usual(self) -> &'static str {
        match self {
            Self::Slack => r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}"#,
            Self::Discord => r#"{"type":2,"id":"7","token":"t","application_id":"1","data":{"name":"deploy"}}"#,
            Self::Twitter => r#"{"for_user_id":"1","tweet_create_events":[{"id_str":"7","text":"hi"}]}"#,
        }
    }

    /// These bytes, signed at this time, as this content type.
    fn sends_at(self, key: &Key, time: &str, kind: &str, body: &[u8]) -> Arc<Delivery> {
        let signature = match self {
            Self::Slack => {
                let mac = key.signature(&[b"v0:", time.as_bytes(), b":", body]).unwrap();
                format!("v0={}", encode_hex(&mac))
            }
            Self::Discord => encode_hex(&key.signature(&[time.as_bytes(), body]).unwrap()),
            Self::Twitter => format!("sha256={}", encode_base64(&key.signature(&[body]).unwrap())),
        };
        let mut headers = vec![("content-type", kind.to_owned()), (self.signature_header(), signature)];
        headers.extend(self.time_header().map(|name| (name, time.to_owned())));
        delivery(&headers, body.to_vec())
    }

    fn sends(self, body: impl AsRef<[u8]>) -> Arc<Delivery> {
        let time = NOW.as_seconds().to_string();
        self.sends_at(&self.signing_key(false), &time, "application/json", body.as_ref())
    }

    fn sends_form(self, body: impl AsRef<[u8]>) -> Arc<Delivery> {
        let time = NOW.as_seconds().to_string();
        self.sends_at(&self.signing_key(false), &time, FORM, body.as_ref())
    }

    /// What a signed body says.
    fn says(self, body: impl AsRef<[u8]>) -> Vec<Event> {
        Event::read(&verify(&self.source(), &self.sends(body)).unwrap()).unwrap()
    }

    /// The first of it.
    fn event(self, body: impl AsRef<[u8]>) -> Event {
        self.says(body).remove(0)
    }

    /// One of its samples, as it would be sent.
    fn sample(self, event: &str, delivery_id: &str) -> Arc<Delivery> {
        let provider = self.provider();
        let sample = provider.samples().iter().find(|sample| sample.event == event).unwrap();
        let unsent = Unsent::new(event, sample.body.clone().into_owned(), delivery_id, NOW);
        let signed = provider.sign(Some(&self.signing_key(false)), unsent);
        delivery(&signed.headers, signed.body)
    }

    fn of_sample(self, event: &str) -> Event {
        Event::read(&verify(&self.source(), &self.sample(event, "delivery-1")).unwrap()).unwrap().remove(0)
    }

    /// Why a signed delivery cannot be read: whether its type is wrong, rather than its body broken.
    fn unreadable(self, delivery: &Arc<Delivery>) -> bool {
        Event::read(&verify(&self.source(), delivery).unwrap()).unwrap_err().wrong_type
    }
}

fn changed(delivery: &Arc<Delivery>, change: impl FnOnce(&mut HeaderMap)) -> Arc<Delivery> {
    let mut delivery = Delivery::clone(delivery);
    change(&mut delivery.headers);
    Arc::new(delivery)
}

#[derive(Deserialize)]
struct ChatFact {
    #[serde(flatten)]
    fact: Fact,
    method: Option<String>,
    url: Option<String>,
    response: Option<serde_json::Value>,
}

#[test]
fn every_fact_about_their_protocols_holds() {
    let facts: Vec<ChatFact> = serde_json::from_str(include_str!("../vectors/chat.json")).unwrap();
    assert_eq!(facts.len(), 21);
    for ChatFact { fact, method, url, response } in facts {
        let Fact { why, provider, .. } = &fact;
        let sender = match provider.as_str() {
            "slack" => Sender::Slack,
            "discord" => Sender::Discord,
            _ => Sender::Twitter,
        };
        let provider = sender.provider();
        let Ok(key) = provider.prepare(&Secret::new(fact.secret.as_str())) else {
            assert!(!fact.valid && (why.contains("empty_configured_secret") || why == "short_public_key"), "{why}");
            continue;
        };
        let keys = vec![NamedKey { instance: "acme".to_owned(), key }];
        let headers: Vec<_> = fact.headers.iter().collect();
        let mut request = Arc::unwrap_or_clone(delivery(&headers, fact.body.clone()));
        request.received_at = fact.now.map_or(NOW, Timestamp::from_seconds);
        request.url = url.unwrap_or(request.url);
        if method.as_deref() == Some("GET") {
            request.method = Method::GET;
            let Ok(Some(Greeting::Answer(answer))) = provider.greet(&keys, &request) else { panic!("{why}") };
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).ok(), response, "{why}");
            continue;
        }
        let source = Arc::new(Source::new("facts", provider, keys, false, Dedup::Id).unwrap());
        let outcome = verify(&source, &Arc::new(request));
        assert_eq!(outcome.is_ok(), fact.valid, "{sender:?}: {why}");
        let expected = match () {
            () if fact.valid => None,
            () if why.contains("missing") || why.contains("smuggled") => Some(RejectionCode::SignatureMissing),
            () if why.contains("stale") => Some(RejectionCode::TimestampOutOfRange),
            () => Some(RejectionCode::SignatureMismatch),
        };
        assert_eq!(outcome.err().map(|rejection| rejection.code), expected, "{sender:?}: {why}");
    }
}

#[test]
fn every_sample_comes_through_as_the_event_that_it_is_a_sample_of() {
    for sender in SENDERS {
        let provider = sender.provider();
        let events: HashSet<_> = provider.samples().iter().map(|sample| sample.event.as_ref()).collect();
        assert!(events.len() >= 5 && events.len() == provider.samples().len(), "{sender:?}");
        for sample in provider.samples() {
            let event = sender.of_sample(&sample.event);
            let prefix = format!("{}.", provider.name());
            assert_eq!(event.event_type().strip_prefix(&prefix), Some(sample.event.as_ref()), "{sender:?}");
            let fields = event.context().iter().count();
            assert!(fields >= if event.is_handshake() { 1 } else { 4 }, "{sender:?} {}: {fields}", sample.event);
            assert!(event.delivery_id().is_some_and(|id| !id.is_empty()), "{sender:?} {}", sample.event);
            assert_eq!(event.verified_by(), Some("acme"));
        }
    }
}

#[test]
fn a_sample_is_another_event_each_time_and_the_same_when_it_comes_again() {
    for sender in SENDERS {
        for sample in sender.provider().samples() {
            let id_of = |fresh: &str| {
                let verified = verify(&sender.source(), &sender.sample(&sample.event, fresh)).unwrap();
                Event::read(&verified).unwrap()[0].delivery_id().unwrap().to_owned()
            };
            assert_eq!(id_of("one"), id_of("one"), "{sender:?} {}", sample.event);
            if sample.event != "url_verification" {
                assert_ne!(id_of("one"), id_of("two"), "{sender:?} {}", sample.event);
            }
        }
    }
}

#[test]
fn the_guide_says_where_the_url_and_the_secret_go() {
    for sender in SENDERS {
        let guide = sender.provider().guide();
        assert!(guide.setup.starts_with("1. "), "{sender:?}");
        for part in ["{url}", "{secret}"] {
            assert!(guide.setup.contains(part), "{sender:?}: {part}");
        }
    }
}
