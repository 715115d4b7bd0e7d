//! What senders send: headers and a body, written as in HTTP (`Name: value` lines, an empty line, the body).

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::{Context, Event};
use doorbell_core::provider::generic::{Algorithm, Encoding, Generic, GenericOptions, Scheme};
use doorbell_core::provider::{Ended, Key, Provider, Unsent, built_in, encode_hex, visible_headers};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::verify::verify;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::prompts;

/// When everything here is received; signatures in the corpus are made for it.
const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

/// The secrets that signatures in the corpus are made with: a text, and the same for `standard`.
const SECRET: &str = "secret";
const STANDARD_SECRET: &str = "whsec_c2VjcmV0";

/// The seed of a key pair, for protocols that have one.
const SEED: &str = "0707070707070707070707070707070707070707070707070707070707070707";

/// Headers that a signature is over, or that are one.
const SIGNED: [&str; 8] = [
    "authorization",
    "svix-id",
    "svix-signature",
    "svix-timestamp",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-webhook-signature",
];

/// A source, and what signs for it.
struct Signed {
    source: Arc<Source>,
    key: Key,
}

/// A source of each kind of protocol that anybody but its maker can sign for.
static SOURCES: LazyLock<Vec<Signed>> = LazyLock::new(|| {
    let generic =
        |options| -> Arc<dyn Provider> { Arc::new(Generic::new(options).expect("the options are well-formed")) };
    let odd = GenericOptions {
        header: Some("X-Webhook-Signature".to_owned()),
        prefix: Some("v0=".to_owned()),
        encoding: Encoding::Base64,
        algorithm: Algorithm::Sha512,
        delivery_header: Some("X-Id".to_owned()),
        event_header: Some("X-Event".to_owned()),
        ..GenericOptions::default()
    };
    let bearer = GenericOptions { scheme: Scheme::Bearer, ..GenericOptions::default() };
    let generics = [generic(GenericOptions::default()), generic(odd), generic(bearer)];
    built_in().into_iter().chain(generics).filter_map(prepare).collect()
});

fn prepare(provider: Arc<dyn Provider>) -> Option<Signed> {
    let key_of = |secret: &str| provider.prepare(&Secret::new(secret)).ok();
    // The secrets of the corpus come first: a text for most, base64 for those who want it.
    let plain = key_of(SECRET).or_else(|| key_of(STANDARD_SECRET));
    let (verifies, signs) = match (plain, provider.name()) {
        (_, "standard") => (key_of(STANDARD_SECRET)?, key_of(STANDARD_SECRET)?),
        (Some(key), _) => (key.clone(), key),
        (None, _) => {
            let pair = provider.prepare_signing(&Secret::new(SEED)).ok()?;
            (key_of(&encode_hex(pair.public()?))?, pair)
        }
    };
    let keys = vec![NamedKey { instance: "acme".to_owned(), key: verifies }];
    let source = Source::new("acme", provider, keys, false, Dedup::IdOrBody).expect("it has a key");
    Some(Signed { source: Arc::new(source), key: signs })
}

/// Whatever the headers are, only a signature over these bytes verifies.
pub(crate) fn signatures(data: &[u8]) {
    let (headers, body) = split(data);
    let delivery = Arc::new(delivery(headers, body));
    for Signed { source, .. } in SOURCES.iter() {
        let _ = source.provider().greet(source.keys(), &delivery);
        let _ = source.provider().certificate_url(source.keys(), &delivery);
        let Ok(verified) = verify(source, &delivery) else { continue };
        let key = verified.key().expect("the source has keys");
        if matches!(key.key, Key::Token(_) | Key::Several(_)) {
            continue;
        }
        let mut changed = Delivery::clone(&delivery);
        changed.body = [&delivery.body[..], b" "].concat().into();
        assert!(verify(source, &Arc::new(changed)).is_err(), "a signature holds for another body, too");
    }
}

/// Whatever a signed delivery says, it is read or refused, and what comes of it keeps the promises of its types.
pub(crate) fn deliveries(data: &[u8]) {
    let (headers, body) = split(data);
    SOURCES.iter().for_each(|signed| read(signed, &headers, body));
}

/// The same for forms.
pub(crate) fn forms(data: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"));
    headers.insert("x-github-event", HeaderValue::from_static("issues"));
    SOURCES.iter().for_each(|signed| read(signed, &headers, data));
}

fn read(Signed { source, key }: &Signed, headers: &HeaderMap, body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let signed = source.provider().sign(Some(key), Unsent::new("issues.opened", body, "1", NOW));
    let mut all = HeaderMap::new();
    for (name, value) in signed.headers {
        let name: HeaderName = name.parse().expect("a provider signs with names of headers");
        all.insert(name, value.parse().expect("a provider signs with values of headers"));
    }
    let genuine = all.clone();
    for name in headers.keys().filter(|name| !SIGNED.contains(&name.as_str()) && !name.as_str().starts_with("x-hub-")) {
        all.remove(name);
        for value in headers.get_all(name) {
            all.append(name, value.clone());
        }
    }
    // Some headers are signed, and some bodies are not ones that the protocol signs.
    let verified = verify(source, &Arc::new(delivery(all, &signed.body)));
    let Ok(verified) = verified.or_else(|_| verify(source, &Arc::new(delivery(genuine, &signed.body)))) else { return };
    let visible = visible_headers(source.provider(), &verified.delivery().headers);
    assert!(!visible.contains_key("authorization") && !visible.contains_key("cookie"));
    let Ok(events) = Event::read(&verified) else { return };
    assert!(!events.is_empty());
    events.iter().for_each(|event| check(source, event));
}

fn check(source: &Source, event: &Event) {
    let name = event.name();
    assert!(!name.is_empty() && name.len() <= 200 && !name.contains(char::is_control), "{name:?}");
    assert!(event.action().is_none_or(|action| !action.is_empty()));
    assert!(event.event_type().starts_with(source.provider().name()));
    assert!(event.delivery_keys().iter().all(|key| key.len() <= 256), "{:?}", event.delivery_keys());
    let text = serde_json::to_string(event.context()).expect("a context is JSON");
    assert_eq!(serde_json::from_str::<Context>(&text).ok().as_ref(), Some(event.context()), "{text}");
    let _ = serde_json::to_string(&event.context().shortened()).expect("a context is JSON");
    let provider = source.provider();
    let _ = (provider.answer(event, true), provider.answer(event, false), provider.confirmation_url(event));
    let _ = provider.follow_up(event.delivery(), &Ended { agent: "a", succeeded: true, text: "done", first: true });
    prompts::show(event);
}

fn delivery(headers: HeaderMap, body: &[u8]) -> Delivery {
    let url = "https://hooks.example.com/webhooks/acme".to_owned();
    Delivery {
        method: Method::POST,
        url,
        headers,
        body: Bytes::copy_from_slice(body),
        received_at: NOW,
        certificate: None,
    }
}

/// Headers and body. A line that is no header is passed over.
fn split(data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}
