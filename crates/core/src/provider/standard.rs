//! Standard Webhooks (<https://www.standardwebhooks.com>, specification 1.0.0), and Svix, whose headers have other names
//! and nothing else: `{id}.{timestamp}.{body}` signed with HMAC-SHA256.
//!
//! Where the official libraries differ, this is as strict as the strictest of them about what a sender sends (whole
//! seconds, padded base64) and as lenient as the most lenient about the secret that an operator pastes (without its
//! prefix, without its padding). The id is signed, so that a redelivery cannot be passed off as another event; a
//! `webhook-event` header is not.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::generic::body;
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_base64, encode_base64, filter, is_name,
};
use crate::delivery::{Delivery, HeaderFault};
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::{Rejection, RejectionCode};

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
const SECRET_PREFIX: &str = "whsec_";

/// Padding or not: both are in use for secrets.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
        let malformed = |text: &str| InvalidKey::Malformed(text.to_owned());
        let text = secret.expose_str().map(str::trim).unwrap_or_default();
        if text.starts_with("whpk_") || text.starts_with("whsk_") {
            // HMAC with a public key would verify whatever anybody signs.
            return Err(malformed(
                "is a key for `v1a` signatures, which are not supported: take the secret that begins with `whsec_`",
            ));
        }
        let encoded = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
        match LENIENT.decode(encoded).map(Secret::new) {
            Ok(key) if key.expose().is_empty() => Err(InvalidKey::Blank),
            Ok(key) => Ok(Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))),
            Err(_) => Err(malformed("is not `whsec_` and base64: copy it whole, as the sender shows it")),
        }
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let names = family(delivery);
        let text = |name: &str| match delivery.header(name) {
            Ok(text) => Ok(text),
            Err(HeaderFault::Missing) => Err(Rejection::missing(&format!("the header {name}"))),
            Err(fault) => Err(Rejection::mismatch(format!("{name} {fault}"))),
        };
        let (signature, id, timestamp) = (text(names.signature)?, text(names.id)?, text(names.timestamp)?);
        let signatures = signatures_in(signature);
        if signatures.is_empty() {
            let message = format!("{} has no `v1,` with the base64 of a signature behind it", names.signature);
            return Err(Rejection::mismatch(message));
        }
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &delivery.body];
        let made_one = |named: &NamedKey| {
            named.key.mac(&parts).is_some_and(|mac| {
                signatures.iter().any(|one| constant_time::verify_slices_are_equal(mac.as_ref(), one).is_ok())
            })
        };
        let index = keys.iter().position(made_one).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{} was not made over this id, timestamp and body with a secret of this source: the secrets differ, or \
                 something was changed on its way",
                names.signature
            ))
        })?;
        // Only after the signature: strangers learn nothing about the clock, and the time is the sender's own word.
        self.check_age(names.timestamp, timestamp, delivery.received_at)?;
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
        let mac = key.and_then(|key| key.mac(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", &body]));
        let names = &FAMILIES[0];
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            (names.id, id),
            (names.timestamp, timestamp),
            // The body says it already, unless it is somebody's own.
            (EVENT, event.to_owned()),
        ];
        headers.extend(mac.map(|mac| (names.signature, format!("v1,{}", encode_base64(mac.as_ref())))));
        Signed { headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), body }
    }
}

impl Standard {
    /// A signed time that is too far from the time of receipt is that of a delivery that somebody kept.
    fn check_age(self, name: &str, timestamp: &str, received: Timestamp) -> Result<(), Rejection> {
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let Some(seconds) = timestamp.parse::<i64>().ok().filter(|_| digits) else {
            return Err(Rejection::mismatch(format!("{name} is not a number of seconds since 1970")));
        };
        // Both in whole seconds, as the official libraries compare them.
        let (signed, received) = (Timestamp::from_seconds(seconds), Timestamp::from_seconds(received.as_seconds()));
        let (early, late) = (received.since(signed), signed.since(received));
        if early.max(late) <= self.tolerance {
            return Ok(());
        }
        let (distance, direction) = if early > late { (early, "old") } else { (late, "ahead of this machine's clock") };
        Err(Rejection {
            code: RejectionCode::TimestampOutOfRange,
            detail: format!(
                "the signature is right, but {name} is {} seconds {direction}, and {} are tolerated: a delivery sent \
                 again by somebody else, or a clock that is wrong",
                distance.as_secs(),
                self.tolerance.as_secs()
            ),
        })
    }
}

/// The family that the delivery is signed in: never a part of each.
fn family(delivery: &Delivery) -> &'static Names {
    let signed = FAMILIES.iter().find(|names| delivery.headers.contains_key(names.signature));
    signed.unwrap_or(&FAMILIES[0])
}

/// The `v1` signatures of a header; other kinds, and what cannot be one, are passed over.
fn signatures_in(header: &str) -> Vec<Vec<u8>> {
    let versioned = header.split(' ').filter_map(|part| part.split_once(','));
    versioned.filter(|(version, _)| *version == "v1").filter_map(|(_, text)| decode_base64(text)).collect()
}
