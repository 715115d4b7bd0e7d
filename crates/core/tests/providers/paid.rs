//! Providers that money, issues and calls hang on: facts about their protocols, and their own samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::hubspot::Hubspot;
use doorbell_core::provider::linear::Linear;
use doorbell_core::provider::mintlify::Mintlify;
use doorbell_core::provider::paypal::Paypal;
use doorbell_core::provider::sentry::Sentry;
use doorbell_core::provider::sns::Sns;
use doorbell_core::provider::standard::Standard;
use doorbell_core::provider::stripe::Stripe;
use doorbell_core::provider::twilio::Twilio;
use doorbell_core::provider::{InvalidKey, Provider, Sample, Signed, Unsent};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{Rejection, RejectionCode, Verified, verify};
use http::Method;
use serde::Deserialize;

use super::{NOW, delivery};

pub(super) const URL: &str = "https://hooks.example.com/webhooks/test?source=a%40b";
pub(super) const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:alarms";
pub(super) const WEBHOOK: &str = "9XL90610J3647323C";

/// A fact about a protocol, as in the other tables, with what these protocols sign besides.
#[derive(Deserialize)]
struct Fact {
    provider: String,
    scheme: String,
    secret: String,
    headers: BTreeMap<String, String>,
    body: String,
    valid: bool,
    why: String,
    now: Option<i64>,
    url: Option<String>,
    method: Option<String>,
    cert_pem: Option<String>,
    webhook_id: Option<String>,
}

pub(super) fn provider(name: &str) -> Arc<dyn Provider> {
    match name {
        "stripe" | "stripe_thin" => Arc::new(Stripe::default()),
        "linear" => Arc::new(Linear::default()),
        "sentry" => Arc::new(Sentry),
        "mintlify" => Arc::new(Mintlify),
        "standardwebhooks" | "standard" => Arc::new(Standard::default()),
        "twilio" => Arc::new(Twilio),
        "hubspot" => Arc::new(Hubspot::default()),
        "aws_sns" | "sns" => Arc::new(Sns::default()),
        "paypal" => Arc::new(Paypal::default()),
        other => panic!("{other} is none of these"),
    }
}

pub(super) fn source_of(provider: Arc<dyn Provider>, secrets: &[&str]) -> Arc<Source> {
    let key = |(index, secret): (usize, &&str)| NamedKey {
        instance: index.to_string(),
        key: provider.prepare(&Secret::new(*secret)).unwrap(),
    };
    let keys = secrets.iter().enumerate().map(key).collect();
    Arc::new(Source::new("test", provider, keys, secrets.is_empty(), Dedup::Id).unwrap())
}

/// As the gateway does it: the certificate is fetched only where it may be.
pub(super) fn take(source: &Arc<Source>, delivery: &Delivery, pem: Option<&str>) -> Result<Verified, Rejection> {
    let url = source.provider().certificate_url(source.keys(), delivery)?;
    let certificate = url.and(pem).map(|pem| Bytes::from(pem.to_owned()));
    verify(source, &Arc::new(Delivery { certificate, ..delivery.clone() }))
}

/// What `provider` would send to [`URL`].
pub(super) fn sent(source: &Source, event: &str, body: impl Into<Bytes>) -> Delivery {
    let unsent = Unsent { url: URL, ..Unsent::new(event, body, "delivery-1", NOW) };
    let Signed { headers, body } = source.provider().sign(source.keys().first().map(|named| &named.key), unsent);
    Delivery { url: URL.to_owned(), ..Arc::unwrap_or_clone(delivery(&headers, body)) }
}

pub(super) fn events_of(source: &Arc<Source>, delivery: Delivery) -> Vec<Event> {
    Event::read(&verify(source, &Arc::new(delivery)).unwrap()).unwrap()
}

#[test]
fn every_fact_holds() {
    let facts: Vec<Fact> = serde_json::from_str(include_str!("../vectors/paid.json")).unwrap();
    assert_eq!(facts.len(), 68);
    for fact in facts {
        let what = format!("{} {}: {}", fact.provider, fact.scheme, fact.why);
        let provider = provider(&fact.provider);
        let key = provider.prepare(&Secret::new(fact.secret.as_str()));
        if fact.secret.is_empty() {
            assert!(matches!(key, Err(InvalidKey::Blank)) && !fact.valid, "{what}");
            continue;
        }
        assert!(fact.webhook_id.is_none_or(|id| id == fact.secret), "{what}");
        let source = source_of(provider, &[&fact.secret]);
        let headers: Vec<_> = fact.headers.iter().collect();
        let delivery = Delivery {
            method: fact.method.map_or(Method::POST, |method| method.parse().unwrap()),
            url: fact.url.unwrap_or_default(),
            received_at: fact.now.map_or(NOW, Timestamp::from_seconds),
            ..Arc::unwrap_or_clone(delivery(&headers, fact.body))
        };
        let outcome = take(&source, &delivery, fact.cert_pem.as_deref());
        let missing = ["missing_signature", "signature_missing", "missing_timestamp"].contains(&&*fact.why);
        let expected = match () {
            () if fact.valid => None,
            () if missing => Some(RejectionCode::SignatureMissing),
            () if fact.why.starts_with("stale") || fact.why.ends_with("timestamp_in_seconds") => {
                Some(RejectionCode::TimestampOutOfRange)
            }
            () => Some(RejectionCode::SignatureMismatch),
        };
        assert_eq!(outcome.as_ref().err().map(|rejection| rejection.code), expected, "{what}: {outcome:?}");
        if let Ok(verified) = outcome {
            let events = Event::read(&verified).unwrap();
            assert!(events.iter().all(|event| event.delivery_id().is_some() || fact.scheme.contains("UNCONFIRMED")));
        }
    }
}

/// The providers that can be imitated, with a secret each.
pub(super) const SIGNING: [(&str, &str); 7] = [
    ("stripe", "whsec_test_secret"),
    ("linear", "lin_wh_secret"),
    ("sentry", "a client secret"),
    ("mintlify", "a mintlify secret"),
    ("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("twilio", "0123456789abcdef0123456789abcdef"),
    ("hubspot", "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"),
];

fn is_told(source: &Arc<Source>, sample: &Sample, events: &[Event]) {
    let what = format!("{} {}", source.provider().name(), sample.event);
    let wanted = format!("{}.{}", source.provider().name(), sample.event);
    assert!(events.iter().all(|event| event.event_type() == wanted), "{what}: {}", events[0].event_type());
    for event in events {
        assert!(event.context().iter().count() >= 3, "{what}: {:?}", event.context());
        assert!(event.delivery_id().is_some_and(|id| !id.is_empty()), "{what}");
    }
}

#[test]
fn every_sample_signs_verifies_and_reads_as_its_event() {
    for (name, secret) in SIGNING {
        let source = source_of(provider(name), &[secret]);
        let samples = source.provider().samples();
        assert!(samples.len() >= 5 || name == "standard", "{name}");
        for sample in samples {
            let first = sent(&source, &sample.event, sample.body.to_string());
            let events = events_of(&source, first.clone());
            is_told(&source, sample, &events);
            let again = events_of(&source, first);
            assert_eq!(events[0].delivery_keys(), again[0].delivery_keys(), "{name} {}", sample.event);
        }
    }
}

#[test]
fn two_rings_of_one_sample_are_two_events() {
    for (name, secret) in SIGNING {
        let source = source_of(provider(name), &[secret]);
        for sample in source.provider().samples() {
            let key = source.keys().first().map(|named| &named.key);
            let ids = ["ring-1", "ring-2"].map(|id| {
                let unsent = Unsent { url: URL, ..Unsent::new(&sample.event, sample.body.to_string(), id, NOW) };
                let Signed { headers, body } = source.provider().sign(key, unsent);
                let sent = Delivery { url: URL.to_owned(), ..Arc::unwrap_or_clone(delivery(&headers, body)) };
                events_of(&source, sent)[0].delivery_id().unwrap().to_owned()
            });
            assert_ne!(ids[0], ids[1], "{name} {}", sample.event);
        }
    }
}

#[test]
fn samples_that_only_their_makers_can_sign_are_refused_and_still_say_what_they_are() {
    for (name, credential) in [("sns", TOPIC), ("paypal", WEBHOOK)] {
        let source = source_of(provider(name), &[credential]);
        let open = source_of(provider(name), &[]);
        assert!(source.provider().samples().len() >= 5, "{name}");
        for sample in source.provider().samples() {
            let delivery = sent(&source, &sample.event, sample.body.to_string());
            assert!(take(&source, &delivery, None).is_err(), "{name} {}", sample.event);
            is_told(&source, sample, &events_of(&open, delivery));
        }
    }
}

#[test]
fn every_guide_names_the_url_and_the_credential() {
    for provider in doorbell_core::provider::built_in() {
        let guide = provider.guide();
        assert!(guide.setup.contains("{url}") && guide.setup.contains("{secret}"), "{}", provider.name());
        assert!(!guide.identity.is_empty() && !guide.title.is_empty(), "{}", provider.name());
        for field in provider.filters() {
            assert!(!field.context.is_empty(), "{} {}", provider.name(), field.name);
        }
    }
}
