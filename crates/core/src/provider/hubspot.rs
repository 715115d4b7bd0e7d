//! HubSpot: `X-HubSpot-Signature-v3`, base64 HMAC-SHA256 over method, URI, body and `X-HubSpot-Request-Timestamp`.
//!
//! v3 is required. Older signatures come beside it, and a delivery with a v3 that is wrong is never given a second
//! chance by them: v1 and v2 are bare SHA-256 over the secret and what follows, which can be made longer without the
//! secret, and they sign no time. One thing of v2 is taken: a `GET` without a body, where HubSpot's documentation has no other
//! signature: the URI stands last, and what SHA-256 would have to be made longer by (a byte 0x80, zeros) cannot stand in one.
//!
//! The documentation asks to percent-decode some characters of the URI before it is signed, HubSpot's SDK does not: either
//! way of writing it passes. (<https://developers.hubspot.com/docs/api/webhooks/validating-requests>,
//! `@hubspot/api-client` 13.5.) The SDK bounds the past only; here both sides are bound.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use http::Method;

use super::key::equal;
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    address, decode_base64, decode_hex, encode_base64, filter,
};
use crate::delivery::Delivery;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

mod reading;

const SIGNATURE: &str = "X-HubSpot-Signature-v3";
const OLD_SIGNATURE: &str = "X-HubSpot-Signature";
const OLD_VERSION: &str = "X-HubSpot-Signature-Version";
const SENT_AT: &str = "X-HubSpot-Request-Timestamp";

/// Webhooks of apps and workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hubspot {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Hubspot {
    /// With the window of the documentation: five minutes.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(5 * 60) }
    }
}

const PORTAL: &[Cow<'static, str>] = &[Cow::Borrowed("portal")];

static FILTERS: [FilterField; 6] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("portals", PORTAL, &[]),
    filter("accounts", PORTAL, &[]),
    filter("properties", &[Cow::Borrowed("property")], &[]),
    filter("apps", &[Cow::Borrowed("app")], &[]),
];

static SAMPLES: [Sample; 6] = [
    sample!("hubspot", "contact.creation", "two contacts were made"),
    sample!("hubspot", "contact.propertyChange", "a contact's e-mail address changed"),
    sample!("hubspot", "contact.deletion", "a contact was deleted"),
    sample!("hubspot", "deal.creation", "a deal was made"),
    sample!("hubspot", "deal.propertyChange", "a deal moved to another stage"),
    sample!("hubspot", "workflow_action", "a workflow runs a custom action"),
];

impl Provider for Hubspot {
    fn name(&self) -> &str {
        "hubspot"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("HubSpot"),
            setup: Cow::Borrowed(include_str!("../../guides/hubspot.md")),
            identity: Cow::Borrowed(
                "The method, the public URL, the body and the time are signed together; a delivery whose time is further from \
                 now than `tolerance` is refused. A body has up to a hundred events, and `eventId` is not promised to be \
                 unique: an event is known by all that it says, except for `attemptNumber`, which counts HubSpot's tries.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("hubspot_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        // As it is: v2 hashes it with the rest, and HMAC's own preparation is two blocks.
        match secret.is_blank() {
            true => Err(InvalidKey::Blank),
            false => Ok(Key::Token(secret.clone())),
        }
    }

    fn methods(&self) -> &[Method] {
        const METHODS: [Method; 2] = [Method::POST, Method::GET];
        &METHODS
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        if is_old(delivery) {
            return verify_old(keys, delivery);
        }
        let signature = decode_base64(proof::header(delivery, SIGNATURE)?)
            .ok_or_else(|| Rejection::mismatch(format!("{SIGNATURE} is not the base64 of a signature")))?;
        let time = proof::header(delivery, SENT_AT)?;
        let made = |url: &str| {
            let parts = [delivery.method.as_str().as_bytes(), url.as_bytes(), &delivery.body, time.as_bytes()];
            let by = |named: &NamedKey| mac(&named.key, &parts).is_some_and(|mac| equal(mac.as_ref(), &signature));
            keys.iter().position(by)
        };
        let index = made(&delivery.url).or_else(|| made(&decoded(&delivery.url)?));
        let index = index.ok_or_else(|| foreign(SIGNATURE, delivery))?;
        let millis = proof::digits(time)
            .ok_or_else(|| Rejection::mismatch(format!("{SENT_AT} is not a number of milliseconds since 1970")))?;
        proof::check_age(SENT_AT, Timestamp::from_millis(millis), delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        reading::read(delivery)
    }

    fn tolerance(&self) -> Option<Duration> {
        Some(self.tolerance)
    }

    fn with_tolerance(&self, tolerance: Duration) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(Self { tolerance }))
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let time = unsent.now.as_millis().to_string();
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let mac = key.and_then(|key| mac(key, &[b"POST", unsent.url.as_bytes(), &body, time.as_bytes()]));
        let headers = [
            ("Content-Type", always("application/json")),
            (
                "User-Agent",
                always("HubSpot Connect 2.0 (http://dev.hubspot.com/) (namespace: webhooks-nio-http-client)"),
            ),
            (OLD_VERSION, always("v1")),
            (SENT_AT, always(time)),
            (SIGNATURE, mac.map(|mac| encode_base64(mac.as_ref()))),
        ];
        proof::sent(headers, body)
    }
}

/// The HMAC of these parts with a secret that is kept as it is.
fn mac(key: &Key, parts: &[&[u8]]) -> Option<hmac::Tag> {
    let Key::Token(secret) = key else { return None };
    Key::hmac(hmac::HMAC_SHA256, secret).ok()?.mac(parts)
}

fn foreign(name: &str, delivery: &Delivery) -> Rejection {
    Rejection::mismatch(format!(
        "{name} was not made over {} `{}`, this body and time with a secret of this source: the secrets or the URLs differ \
         (is `public_url` the one that HubSpot was told?), or something was changed on its way",
        delivery.method,
        address::shown(&delivery.url)
    ))
}

/// Whether it is what only v2 is sent for: a `GET` without a body, and no v3 beside it.
fn is_old(delivery: &Delivery) -> bool {
    delivery.method == Method::GET
        && delivery.body.is_empty()
        && !delivery.headers.contains_key(SIGNATURE)
        && delivery.header(OLD_VERSION) == Ok("v2")
}

/// v2 of a request without a body: hex SHA-256 of secret, method and URI.
fn verify_old(keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
    let signature = decode_hex(proof::header(delivery, OLD_SIGNATURE)?)
        .ok_or_else(|| Rejection::mismatch(format!("{OLD_SIGNATURE} is not the hex digits of a signature")))?;
    let made = |named: &NamedKey| {
        let Key::Token(secret) = &named.key else { return false };
        let mut digest = digest::Context::new(&digest::SHA256);
        for part in [secret.expose(), delivery.method.as_str().as_bytes(), delivery.url.as_bytes()] {
            digest.update(part);
        }
        equal(digest.finish().as_ref(), &signature)
    };
    keys.iter().position(made).ok_or_else(|| foreign(OLD_SIGNATURE, delivery))
}

/// The URI as it is signed in HubSpot's documentation: what its spellings with one signature have in common.
fn signed_url(url: &str) -> Cow<'_, str> {
    decoded(url).map_or(Cow::Borrowed(url), Cow::Owned)
}

/// A URI in which the characters of the table in HubSpot's "Validating requests" are decoded; none if there are none.
fn decoded(url: &str) -> Option<String> {
    const TABLE: [(&str, char); 12] = [
        ("%3A", ':'),
        ("%2F", '/'),
        ("%3F", '?'),
        ("%40", '@'),
        ("%21", '!'),
        ("%24", '$'),
        ("%27", '\''),
        ("%28", '('),
        ("%29", ')'),
        ("%2A", '*'),
        ("%2C", ','),
        ("%3B", ';'),
    ];
    let mut text = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let known = rest.get(at..at + 3).and_then(|escape| {
            TABLE.iter().find(|(encoded, _)| encoded.eq_ignore_ascii_case(escape)).map(|(_, character)| *character)
        });
        text.push(known.unwrap_or('%'));
        rest = &rest[at + if known.is_some() { 3 } else { 1 }..];
    }
    text.push_str(rest);
    (text != url).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_characters_of_the_table_are_decoded() {
        let decoded = |url| decoded(url).unwrap_or_default();
        assert_eq!(decoded("https://a.example/%40b?c=%3a%20%26"), "https://a.example/@b?c=:%20%26");
        for same in ["https://a.example/", "%", "%4", "%é", "%%25", "%zz"] {
            assert_eq!(super::decoded(same), None, "{same}");
        }
        assert_eq!(decoded("%%40"), "%@");
    }
}
