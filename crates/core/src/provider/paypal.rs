//! PayPal: RSA with SHA-256 over `<transmission id>|<time>|<webhook id>|<CRC-32 of the body>`, by a certificate whose URL
//! stands in a header.
//!
//! The webhook's id is the credential: it is what makes the signature this webhook's. The certificate's URL is checked
//! before anything is fetched (PayPal's older SDK fetches first). (paypalrestsdk's `WebhookEvent.verify`;
//! <https://developer.paypal.com/api/rest/webhooks/rest/>.)
//!
//! What a CRC-32 binds is little: whoever holds one signed delivery can make another body with the same checksum. The
//! signed time limits how long such a delivery is of use to them; it must be longer than the three days for which PayPal
//! tries. Who wants more asks PayPal for the event by its id, as the guide says.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;

use super::paths::{Found, Paths};
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    address, certificate, decode_base64, filter, is_name,
};
use crate::delivery::Delivery;
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

const SIGNATURE: &str = "PAYPAL-TRANSMISSION-SIG";
const ID: &str = "PAYPAL-TRANSMISSION-ID";
const SENT_AT: &str = "PAYPAL-TRANSMISSION-TIME";
const CERTIFICATE: &str = "PAYPAL-CERT-URL";
const ALGORITHM: &str = "PAYPAL-AUTH-ALGO";

/// Webhooks of REST apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paypal {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Paypal {
    /// With a day more than the three for which PayPal tries.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(4 * 24 * 60 * 60) }
    }
}

static FILTERS: [FilterField; 3] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("resources", &[Cow::Borrowed("resource_type")], &[]),
];

static SAMPLES: [Sample; 5] = [
    sample!("paypal", "PAYMENT.CAPTURE.COMPLETED", "a payment was captured"),
    sample!("paypal", "PAYMENT.CAPTURE.REFUNDED", "a payment was refunded"),
    sample!("paypal", "CHECKOUT.ORDER.APPROVED", "a buyer approved an order"),
    sample!("paypal", "BILLING.SUBSCRIPTION.CANCELLED", "somebody cancelled a subscription"),
    sample!("paypal", "CUSTOMER.DISPUTE.CREATED", "a buyer opened a dispute"),
];

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/id",
        "/event_type",
        "/resource_type",
        "/summary",
        "/resource/id",
        "/resource/dispute_id",
        "/resource/merchant_id",
        "/resource/payee/merchant_id",
        "/resource/status",
        "/resource/state",
        "/resource/reason",
        "/resource/amount/value",
        "/resource/amount/total",
        "/resource/amount/currency_code",
        "/resource/amount/currency",
        "/resource/dispute_amount/value",
        "/resource/dispute_amount/currency_code",
        "/resource/payer/email_address",
        "/resource/subscriber/email_address",
        "/resource/custom_id",
        "/resource/custom",
        "/resource/invoice_id",
        "/resource/links/0/href",
    ])
});

impl Provider for Paypal {
    fn name(&self) -> &str {
        "paypal"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("PayPal"),
            setup: Cow::Borrowed(include_str!("../../guides/paypal.md")),
            identity: Cow::Borrowed(
                "The transmission's id and time, the webhook's id and a CRC-32 of the body are signed with PayPal's key. A \
                 checksum does not bind a body: somebody who holds a signed delivery could make another one that fits, as \
                 long as its time is within `tolerance`. The event's `id` in the body is the same when it is sent again.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("paypal_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        let id = Secret::new(secret.expose().trim_ascii());
        match id.expose().iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
            true => Key::token(&id),
            false => Err(InvalidKey::Malformed("is not the id of a webhook, as `9XL90610J3647323C` is".to_owned())),
        }
    }

    fn certificate_url(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<Option<String>, Rejection> {
        if keys.is_empty() {
            return Ok(None);
        }
        let claim = claim(delivery)?;
        proof::check_claimed_age(SENT_AT, claim.sent, delivery.received_at, self.tolerance)?;
        Ok(Some(claim.certificate.to_owned()))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let Claim { signature, id, time, sent, .. } = claim(delivery)?;
        let pem = delivery.certificate.as_deref();
        let pem = pem.ok_or_else(|| Rejection::mismatch("the certificate of the signature could not be fetched"))?;
        let key = certificate::key(pem, delivery.received_at, &RSA_PKCS1_2048_8192_SHA256, is_host)?;
        let checksum = crc32(&delivery.body);
        let made = |named: &NamedKey| {
            let Key::Token(webhook) = &named.key else { return false };
            let webhook = webhook.expose_str().unwrap_or_default();
            let text = format!("{id}|{time}|{webhook}|{checksum}");
            key.verify_sig(text.as_bytes(), &signature).is_ok()
        };
        let index = keys.iter().position(made).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{SIGNATURE} was not made over this body for a webhook of this source: its id differs, or something was \
                 changed on its way"
            ))
        })?;
        proof::check_age(SENT_AT, sent, delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let found = proof::find(&PATHS, delivery)?;
        let kind = found.text("/event_type").filter(|kind| is_name(kind));
        let kind =
            kind.ok_or_else(|| Unreadable::broken("the body has no `event_type`: it is not an event of PayPal"))?;
        let delivery_id = found.text("/id").map(Cow::into_owned);
        let delivery_id = delivery_id.unwrap_or_else(|| proof::content_id([&*delivery.body]));
        Ok(vec![Reading { context: describe(&kind, &found), delivery_id: Some(delivery_id), handshake: false }])
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

    /// Unsigned: only PayPal has the key.
    fn sign(&self, _: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let time = Timestamp::from_seconds(unsent.now.as_seconds()).to_string().replace(".000Z", "Z");
        let headers = [
            ("Content-Type", always("application/json")),
            ("User-Agent", always("PayPal/AUHR-214.0-58853929")),
            (ID, always(unsent.delivery_id)),
            (SENT_AT, always(time)),
            ("PAYPAL-AUTH-VERSION", always("v2")),
            (ALGORITHM, always("SHA256withRSA")),
        ];
        proof::sent(headers, body)
    }
}

/// What a delivery says of its signature.
struct Claim<'d> {
    signature: Vec<u8>,
    id: &'d str,
    time: &'d str,
    sent: Timestamp,
    certificate: &'d str,
}

/// All that can be checked without the certificate.
fn claim(delivery: &Delivery) -> Result<Claim<'_>, Rejection> {
    let signature = decode_base64(proof::header(delivery, SIGNATURE)?)
        .ok_or_else(|| Rejection::mismatch(format!("{SIGNATURE} is not the base64 of a signature")))?;
    let (id, time) = (proof::header(delivery, ID)?, proof::header(delivery, SENT_AT)?);
    let certificate = certificate_url(delivery)?;
    if proof::header(delivery, ALGORITHM)? != "SHA256withRSA" {
        return Err(Rejection::mismatch(format!("{ALGORITHM} is not SHA256withRSA")));
    }
    let sent = time.parse().map_err(|_| Rejection::mismatch(format!("{SENT_AT} is not a time")))?;
    Ok(Claim { signature, id, time, sent, certificate })
}

/// The URL of the certificate, if it is PayPal's.
fn certificate_url(delivery: &Delivery) -> Result<&str, Rejection> {
    let url = proof::header(delivery, CERTIFICATE)?;
    // No chain is checked: this host and this path are what makes the certificate PayPal's.
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_path = |path: &str| path.strip_prefix("/v1/notifications/certs/").is_some_and(is_name);
    match address::https(url).is_some_and(|(host, path)| CERTIFICATE_HOSTS.contains(&host) && is_path(path)) {
        true => Ok(url),
        false => Err(Rejection::mismatch(format!("{CERTIFICATE} is not the URL of a certificate of PayPal"))),
    }
}

/// The hosts that give certificates out: live and sandbox.
const CERTIFICATE_HOSTS: [&str; 4] =
    ["api.paypal.com", "api.sandbox.paypal.com", "api-m.paypal.com", "api-m.sandbox.paypal.com"];

/// Whether a name in a certificate is one of PayPal.
fn is_host(name: &str) -> bool {
    name.strip_suffix(".paypal.com").is_some_and(|part| !part.is_empty())
}

fn describe(kind: &str, found: &Found<'_, '_>) -> Context {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let (event, action) = proof::split_name(kind);
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", action);
    context.set("type", kind);
    context.set_some("resource_type", found.text("/resource_type"));
    context.set_some("resource", first(&["/resource/id", "/resource/dispute_id"]));
    context.set_some("title", found.text("/summary"));
    context.set_some("state", first(&["/resource/status", "/resource/state"]));
    context.set_some("reason", first(&["/resource/reason"]));
    let value = ["/resource/amount/value", "/resource/amount/total", "/resource/dispute_amount/value"];
    context.set_some("amount", first(&value));
    let currency = ["/resource/amount/currency_code", "/resource/amount/currency"];
    context.set_some("currency", first(&currency).or_else(|| first(&["/resource/dispute_amount/currency_code"])));
    context.set_some("account", first(&["/resource/merchant_id", "/resource/payee/merchant_id"]));
    context.set_some("email", first(&["/resource/payer/email_address", "/resource/subscriber/email_address"]));
    context.set_some("custom", first(&["/resource/custom_id", "/resource/custom"]));
    context.set_some("invoice", first(&["/resource/invoice_id"]));
    context.set_some("url", first(&["/resource/links/0/href"]));
    context
}

/// CRC-32 as in IEEE 802.3 and zlib.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8;
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
