//! A provider of the tests that does whatever a protocol may do.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::hmac;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::{Context, Event};
use doorbell_core::provider::{
    Answer, CredentialType, Ended, FilterField, FollowUp, Greeting, Guide, InvalidKey, Key, Provider, Reading, Signed,
    Unreadable, Unsent, decode_hex, encode_hex,
};
use doorbell_core::secret::Secret;
use doorbell_core::source::NamedKey;
use doorbell_core::time::Timestamp;
use doorbell_core::verify::Rejection;
use http::{Method, StatusCode};
use serde_json::Value;

/// Reads everything in the body: `kind`, `id`, `batch`, `secret`, `confirm`, `tell`, `until`, `certificate`.
#[derive(Debug, Clone, Copy)]
pub struct Talkative;

pub fn shared() -> Arc<dyn Provider> {
    Arc::new(Talkative)
}

fn json(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.body).unwrap_or_default()
}

fn reading(value: &Value) -> Reading {
    let mut context = Context::default();
    context.set("event", value["kind"].as_str().unwrap_or("unknown"));
    for field in ["confirm", "tell"] {
        context.set_some(field, value[field].as_str());
    }
    let delivery_id = value["id"].as_str().map(str::to_owned);
    Reading { context, delivery_id, handshake: value["kind"] == "hello" }
}

impl Provider for Talkative {
    fn name(&self) -> &str {
        "talk"
    }

    fn guide(&self) -> Guide {
        Guide { title: Cow::Borrowed("Talk"), setup: Cow::Borrowed(""), identity: Cow::Borrowed("") }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("talk_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        const FILTERS: &[FilterField] = &[FilterField {
            name: Cow::Borrowed("events"),
            context: Cow::Borrowed(&[Cow::Borrowed("event")]),
            only_for: Cow::Borrowed(&[]),
        }];
        FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn methods(&self) -> &[Method] {
        const METHODS: [Method; 3] = [Method::POST, Method::GET, Method::HEAD];
        &METHODS
    }

    fn greet(&self, _keys: &[NamedKey], delivery: &Delivery) -> Result<Option<Greeting>, Rejection> {
        if let Some((_, challenge)) = delivery.url.split_once("?challenge=") {
            let body = challenge.to_owned().into();
            return Ok(Some(Greeting::Answer(Answer {
                status: StatusCode::OK,
                content_type: Some("text/plain"),
                body,
            })));
        }
        let shown = json(delivery)["secret"]
            .as_str()
            .map(|secret| Greeting::Secret { secret: Secret::new(secret), answer: Answer::empty(StatusCode::OK) });
        Ok(shown)
    }

    fn certificate_url(&self, _keys: &[NamedKey], delivery: &Delivery) -> Result<Option<String>, Rejection> {
        Ok(json(delivery)["certificate"].as_str().map(str::to_owned))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let header = delivery.header("x-talk").map_err(|_| Rejection::missing("x-talk"))?;
        let signature = decode_hex(header).ok_or_else(|| Rejection::mismatch("no hex"))?;
        let found = keys.iter().position(|named| named.key.signs(&[&delivery.body], &signature));
        found.ok_or_else(|| Rejection::mismatch("the secrets differ"))
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let value = json(delivery);
        Ok(match value["batch"].as_array() {
            Some(batch) => batch.iter().map(reading).collect(),
            None => vec![reading(&value)],
        })
    }

    fn answer(&self, event: &Event, started: bool) -> Option<Answer> {
        let body = format!("started: {started}").into();
        let answer = Answer { status: StatusCode::ACCEPTED, content_type: Some("text/plain"), body };
        (event.name() == "spoken").then_some(answer)
    }

    fn confirmation_url(&self, event: &Event) -> Option<String> {
        event.context().text("confirm").map(str::to_owned)
    }

    fn follows_up(&self) -> bool {
        true
    }

    fn follow_up(&self, delivery: &Delivery, ended: &Ended<'_>) -> Option<FollowUp> {
        let value = json(delivery);
        let until = value["until"].as_i64().map_or(Timestamp::from_seconds(4_000_000_000), Timestamp::from_seconds);
        let text = Value::from(ended.text);
        Some(FollowUp {
            method: Method::PATCH,
            url: value["tell"].as_str()?.to_owned(),
            body: format!(
                r#"{{"{}":{text},"ok":{}{}}}"#,
                ended.agent,
                ended.succeeded,
                if ended.first { "" } else { r#","later":true"# }
            ),
            until,
        })
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let signature = key.and_then(|key| key.mac(&[&unsent.body]));
        let headers = signature.map(|mac| ("x-talk".to_owned(), encode_hex(mac.as_ref())));
        Signed { headers: headers.into_iter().collect(), body: unsent.body }
    }
}
