//! Providers through the doors that the gateway uses: a source, `verify`, `Event::read`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::{Context, Event};
use doorbell_core::provider::{Provider, Signed, Unreadable, Unsent};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

mod certificates;
mod chat;
mod declared;
mod declared_format;
mod generic;
mod github;
mod github_contexts;
mod headers;
mod paid;
mod paid_hostile;
mod paid_protocols;
mod standard;
mod vectors;

const SECRET: &str = "a secret of the tests";
const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

/// A fact about a protocol: a request that must verify, or one that must not, and why.
#[derive(Deserialize)]
struct Fact {
    provider: String,
    scheme: String,
    secret: String,
    headers: BTreeMap<String, String>,
    body: String,
    valid: bool,
    why: String,
    /// When it arrives, in Unix seconds, where its time is signed.
    now: Option<i64>,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

/// A source of `provider` with these secrets, named `0`, `1`, ….
fn source(provider: impl Provider + 'static, secrets: &[&str]) -> Arc<Source> {
    let keys = secrets.iter().enumerate().map(|(index, secret)| NamedKey {
        instance: index.to_string(),
        key: provider.prepare(&Secret::new(*secret)).unwrap(),
    });
    let keys = keys.collect();
    Arc::new(Source::new("test", Arc::new(provider), keys, false, Dedup::Id).unwrap())
}

fn delivery<N: AsRef<str>, V: AsRef<[u8]>>(headers: &[(N, V)], body: impl Into<Bytes>) -> Arc<Delivery> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.as_ref().parse().unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
    }
    let url = "https://hooks.example.com/webhooks/test".to_owned();
    Arc::new(Delivery {
        method: Method::POST,
        url,
        headers: map,
        body: body.into(),
        received_at: NOW,
        certificate: None,
    })
}

fn refusal(source: &Arc<Source>, delivery: &Arc<Delivery>) -> RejectionCode {
    verify(source, delivery).unwrap_err().code
}

/// Signs `body` as the provider would, and changes the headers.
fn signed(source: &Source, event: &str, body: impl Into<Bytes>, change: impl FnOnce(&mut HeaderMap)) -> Arc<Delivery> {
    let key = source.keys().first().map(|named| &named.key);
    let Signed { headers, body } = source.provider().sign(key, Unsent::new(event, body, "delivery-1", NOW));
    let mut delivery = Arc::unwrap_or_clone(delivery(&headers, body));
    change(&mut delivery.headers);
    Arc::new(delivery)
}

/// What the delivery says, after it was verified.
fn read(source: &Arc<Source>, delivery: &Arc<Delivery>) -> Result<Event, Unreadable> {
    let mut events = Event::read(&verify(source, delivery).unwrap())?;
    assert_eq!(events.len(), 1);
    Ok(events.remove(0))
}

fn as_json(context: &Context) -> serde_json::Value {
    serde_json::to_value(context).unwrap()
}

/// The same body with one bit the other way round.
fn flipped(body: &[u8], bit: usize) -> Vec<u8> {
    let mut body = body.to_vec();
    let index = (bit / 8) % body.len();
    body[index] ^= 1 << (bit % 8);
    body
}
