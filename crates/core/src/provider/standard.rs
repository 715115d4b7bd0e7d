//! Standard Webhooks (<https://www.standardwebhooks.com>, specification 1.0.0), and Svix, whose headers have other names
//! and nothing else: `{id}.{timestamp}.{body}` signed with HMAC-SHA256 (`v1`) or Ed25519 (`v1a`).
//!
//! A key verifies signatures of its own kind only, whatever the header says: everybody knows a public key (`whpk_`), so an
//! HMAC made with it is worth nothing. No official library verifies `v1a`; the form of its keys is the specification's,
//! and Svix's server makes signatures of it.
//!
//! Where the official libraries differ, this is as strict as the strictest of them about what a sender sends (whole
//! seconds, padded base64) and as lenient as the most lenient about the secret that an operator pastes (without its
//! prefix, without its padding). The id is signed, so that a redelivery cannot be passed off as another event; a
//! `webhook-event` header is not.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;

use super::encoding::{WHSEC, decode_secret};
use super::generic::body;
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_base64, encode_base64, filter, is_name,
};
use crate::delivery::Delivery;
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

/// A sender of the Standard Webhooks scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standard {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Standard {
    /// With the window that the official libraries have: five minutes.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(5 * 60) }
    }
}

/// The headers of one family.
struct Names {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

/// The specification's names, and the older ones of Svix.
const FAMILIES: [Names; 2] = [
    Names { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" },
    Names { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" },
];

const EVENT: &str = "webhook-event";
const PUBLIC_PREFIX: &str = "whpk_";
const PRIVATE_PREFIX: &str = "whsk_";

/// The most `v1a` signatures of one header that are looked at, each of which costs a pass over the body: a sender has one for
/// each of its keys.
const MOST_ASYMMETRIC: usize = 4;

static FILTERS: [FilterField; 1] = [filter("events", &[Cow::Borrowed("event")], &[])];

static SAMPLES: [Sample; 3] = [
    Sample::new(
        "invoice.paid",
        "a customer paid an invoice",
        r#"{"type":"invoice.paid","timestamp":"2026-11-21T08:00:00Z","data":{"id":"inv_4711","customer":"cus_0815","amount_due":0,"amount_paid":12900,"currency":"EUR"}}"#,
    ),
    Sample::new(
        "user.created",
        "somebody signed up",
        r#"{"type":"user.created","timestamp":"2026-11-21T08:05:00Z","data":{"id":"user_2fa1","email":"robin@example.com","name":"Robin Doe","plan":"trial"}}"#,
    ),
    Sample::new(
        "email.bounced",
        "a message could not be delivered",
        r#"{"type":"email.bounced","timestamp":"2026-11-21T08:10:00Z","data":{"id":"msg_77","to":"nobody@example.com","subject":"Your receipt","reason":"mailbox does not exist"}}"#,
    ),
];

impl Provider for Standard {
    fn name(&self) -> &str {
        "standard"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Standard Webhooks"),
            setup: Cow::Borrowed(include_str!("../../guides/standard.md")),
            identity: Cow::Borrowed(
                "The id, the time and the body are signed together. The id (`webhook-id`) is the same when a delivery is sent \
                 again; a delivery whose time is further from now than `tolerance` is refused.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("standard_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        if secret.is_blank() {
            return Err(InvalidKey::Blank);
        }
        let text = secret.expose_str().map(str::trim).unwrap_or_default();
        if text.starts_with(PRIVATE_PREFIX) {
            return Err(malformed(
                "is the sender's private key: only the public one, which begins with `whpk_`, verifies (for `ring`, a test \
                 key's private half stands in the field `signing_key`)",
            ));
        }
        if let Some(encoded) = text.strip_prefix(PUBLIC_PREFIX) {
            let public = decode_secret(encoded).ok_or_else(|| malformed("is not `whpk_` and base64: copy it whole"))?;
            return Key::ed25519(public.expose());
        }
        match decode_secret(text.strip_prefix(WHSEC).unwrap_or(text)) {
            Some(key) if key.expose().is_empty() => Err(InvalidKey::Blank),
            Some(key) => Ok(Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))),
            None => Err(malformed("is not `whsec_` and base64: copy it whole, as the sender shows it")),
        }
    }

    fn signing_field(&self) -> Option<&'static str> {
        Some("signing_key")
    }

    fn prepare_signing(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        let text = secret.expose_str().map(str::trim).unwrap_or_default();
        let Some(encoded) = text.strip_prefix(PRIVATE_PREFIX) else { return self.prepare(secret) };
        let bytes = decode_secret(encoded).ok_or_else(|| malformed("is not `whsk_` and base64: copy it whole"))?;
        let Some((seed, public)) = bytes.expose().split_at_checked(32).filter(|(_, public)| public.len() == 32) else {
            return Err(malformed("is not a key pair of 64 bytes: the seed, then the public key"));
        };
        let pair = Key::ed25519_pair(seed)?;
        match pair.public() == Some(public) {
            true => Ok(pair),
            false => Err(malformed("is not a key pair: its public half does not belong to its seed")),
        }
    }

    fn make_secret(&self, random: [u8; 32]) -> Option<Secret> {
        Some(Secret::new(format!("{WHSEC}{}", encode_base64(&random))))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let names = family(delivery);
        let text = |name: &str| proof::header(delivery, name);
        let (signature, id, timestamp) = (text(names.signature)?, text(names.id)?, text(names.timestamp)?);
        let signatures = Signatures::of(signature);
        if signatures.symmetric.is_empty() && signatures.asymmetric.is_empty() {
            let message =
                format!("{} has no `v1,` or `v1a,` with the base64 of a signature behind it", names.signature);
            return Err(Rejection::mismatch(message));
        }
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &delivery.body];
        let index = keys.iter().position(|named| signatures.has_one_of(&named.key, &parts)).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{} was not made over this id, timestamp and body with a secret of this source: the secrets differ, or \
                 something was changed on its way",
                names.signature
            ))
        })?;
        // Only after the signature: strangers learn nothing about the clock, and the time is the sender's own word.
        proof::check_seconds(names.timestamp, timestamp, delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let fields = body::fields(delivery);
        let in_header = delivery.header(EVENT).ok().filter(|event| is_name(event));
        let mut context = Context::default();
        context.set("event", in_header.or(fields.kind()).unwrap_or("event"));
        fields.describe(&mut context);
        Ok(vec![Reading {
            context,
            delivery_id: delivery.header(family(delivery).id).ok().map(str::to_owned),
            handshake: false,
        }])
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
        let Unsent { event, body, delivery_id, now, .. } = unsent;
        let (id, timestamp) = (format!("msg_{delivery_id}"), now.as_seconds().to_string());
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body];
        let version = if matches!(key, Some(Key::Hmac(_))) { "v1" } else { "v1a" };
        let signature = key.and_then(|key| key.signature(&parts));
        let names = &FAMILIES[0];
        let headers = [
            ("content-type", always("application/json")),
            (names.id, Some(id)),
            (names.timestamp, Some(timestamp)),
            // The body says it already, unless it is somebody's own.
            (EVENT, always(event)),
            (names.signature, signature.map(|one| format!("{version},{}", encode_base64(&one)))),
        ];
        proof::sent(headers, body)
    }
}

/// The headers that say, by this scheme, that a body of ours was sent by somebody who knows `secret` (the bytes of the key,
/// without prefix and base64).
pub fn sign_ours(secret: &Secret, id: &str, now: Timestamp, body: &[u8]) -> [(&'static str, String); 3] {
    let timestamp = now.as_seconds().to_string();
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()));
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    let names = &FAMILIES[0];
    [
        (names.id, id.to_owned()),
        (names.timestamp, timestamp),
        (names.signature, format!("v1,{}", encode_base64(context.sign().as_ref()))),
    ]
}

/// The family that the delivery is signed in: never a part of each.
fn family(delivery: &Delivery) -> &'static Names {
    let signed = FAMILIES.iter().find(|names| delivery.headers.contains_key(names.signature));
    signed.unwrap_or(&FAMILIES[0])
}

fn malformed(text: &str) -> InvalidKey {
    InvalidKey::Malformed(text.to_owned())
}

/// The signatures of a header, by kind; other kinds, and what cannot be one, are passed over.
#[derive(Default)]
struct Signatures {
    symmetric: Vec<Vec<u8>>,
    asymmetric: Vec<Vec<u8>>,
}

impl Signatures {
    fn of(header: &str) -> Self {
        let mut signatures = Self::default();
        for (version, text) in header.split(' ').filter_map(|part| part.split_once(',')) {
            match version {
                "v1" => signatures.symmetric.extend(decode_base64(text)),
                "v1a" if signatures.asymmetric.len() < MOST_ASYMMETRIC => {
                    signatures.asymmetric.extend(decode_base64(text).filter(|signature| signature.len() == 64));
                }
                _ => {}
            }
        }
        signatures
    }

    /// Whether one of them is the key's, and of the key's kind.
    fn has_one_of(&self, key: &Key, parts: &[&[u8]]) -> bool {
        match key {
            Key::Hmac(_) => {
                key.mac(parts).is_some_and(|mac| self.symmetric.iter().any(|one| super::key::equal(mac.as_ref(), one)))
            }
            Key::Ed25519(_) => self.asymmetric.iter().any(|one| key.signs(parts, one)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn what_we_sign_is_signed_by_the_scheme() {
        let secret = Secret::new(decode_base64("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap_or_default());
        let at = Timestamp::from_seconds(1_614_265_330);
        let headers = sign_ours(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(headers[0], ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()));
        let signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned();
        assert_eq!(headers[2], ("webhook-signature", signed));
    }
}
