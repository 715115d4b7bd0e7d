//! Twilio: `X-Twilio-Signature`, base64 HMAC of the public URL and the form's fields, sorted and put together.
//!
//! The signature covers the URL that Twilio was told, so `public_url` must be right behind a proxy; like Twilio's libraries,
//! the URL is tried with and without the default port. A body that is no form is covered by `bodySHA256` in the URL, and
//! refused without one, whatever the content type (which is not signed) says.
//!
//! The hash belongs to the key: an Auth Token (hex digits) signs with SHA-1, the secret of a shared key with SHA-256.
//! `X-Twilio-Webhooks-Signature-Settings` names one, too, but is not signed, so nobody asks it. Written before the
//! secret, `HMAC_SHA1:` or `HMAC_SHA256:` says it aloud. (<https://www.twilio.com/docs/usage/security>, and the source of
//! twilio-node 6.2 and twilio-python 9.13.)
//!
//! Names and values of fields are signed without anything between them, so whoever saw a signed form can move letters
//! from a name into its value. What is signed is then still the same text, and so the same event.

use std::borrow::Cow;

use aws_lc_rs::{digest, hmac};
use http::Method;

use super::proof::{self, always};
use super::{
    Answer, CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    address, decode_base64, decode_hex, encode_base64, filter,
};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

mod reading;

const SIGNATURE: &str = "X-Twilio-Signature";
const BODY_DIGEST: &str = "bodySHA256";

/// The most fields of a form; Twilio sends a few dozen.
const MOST_FIELDS: usize = 2_000;

/// Messages, calls and what else Twilio posts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Twilio;

static FILTERS: [FilterField; 6] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("accounts", &[Cow::Borrowed("account")], &[]),
    filter("from", &[Cow::Borrowed("from")], &[]),
    filter("to", &[Cow::Borrowed("to")], &[]),
    filter("directions", &[Cow::Borrowed("direction")], &[]),
];

macro_rules! sample {
    ($event:literal, $about:literal) => {
        Sample::new(
            $event,
            $about,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/samples/twilio/", $event, ".form")),
        )
    };
}

static SAMPLES: [Sample; 6] = [
    sample!("message.received", "somebody sent a text message"),
    sample!("message.delivered", "a message was delivered"),
    sample!("message.undelivered", "a message could not be delivered"),
    sample!("call.ringing", "somebody calls"),
    sample!("call.completed", "a call ended"),
    sample!("recording.completed", "a recording is ready"),
];

impl Provider for Twilio {
    fn name(&self) -> &str {
        "twilio"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Twilio"),
            setup: Cow::Borrowed(include_str!("../../guides/twilio.md")),
            identity: Cow::Borrowed(
                "The public URL and the fields of the form are signed, or the URL with a digest of the body in it; no time is. \
                 Deliveries with the same signed text are the same event: `I-Twilio-Idempotency-Token` is a header beside the \
                 signature. An event of an event stream is known by its `id`.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("twilio_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        let text = secret.expose();
        let (algorithm, secret) = match () {
            () if text.starts_with(b"HMAC_SHA256:") => (hmac::HMAC_SHA256, &text[12..]),
            () if text.starts_with(b"HMAC_SHA1:") => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &text[10..]),
            () if text.iter().all(u8::is_ascii_hexdigit) => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, text),
            () => (hmac::HMAC_SHA256, text),
        };
        Key::hmac(algorithm, &Secret::new(secret))
    }

    fn methods(&self) -> &[Method] {
        const METHODS: [Method; 2] = [Method::POST, Method::GET];
        &METHODS
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let signature = decode_base64(proof::header(delivery, SIGNATURE)?)
            .ok_or_else(|| Rejection::mismatch(format!("{SIGNATURE} is not the base64 of a signature")))?;
        let fields = signed_fields(delivery)?;
        let made = |url: &str| proof::signer(keys, &[url.as_bytes(), fields.as_bytes()], &signature);
        let index = made(&delivery.url).or_else(|| made(&other_port(&delivery.url)?));
        index.ok_or_else(|| {
            Rejection::mismatch(format!(
                "{SIGNATURE} was not made over `{}` and these fields with a secret of this source: the secrets or the \
                 URLs differ (is `public_url` the one that Twilio was told?), or something was changed on its way",
                address::shown(&delivery.url)
            ))
        })
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        reading::read(delivery, || {
            let fields = signed_fields(delivery).unwrap_or_default();
            proof::content_id([delivery.url.as_bytes(), fields.as_bytes()])
        })
    }

    fn answer(&self, _: &Event, _: bool) -> Option<Answer> {
        // The answer is carried out as TwiML: one without verbs does nothing.
        Some(Answer {
            content_type: Some("text/xml"),
            ..Answer::json("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response></Response>")
        })
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let is_json = matches!(body.first(), Some(b'{' | b'['));
        let fields = if is_json { String::new() } else { put_together(&body).unwrap_or_default() };
        let mac = key.and_then(|key| key.mac(&[unsent.url.as_bytes(), fields.as_bytes()]));
        let kind = if is_json { "application/json" } else { "application/x-www-form-urlencoded; charset=UTF-8" };
        let headers = [
            ("Content-Type", always(kind)),
            ("User-Agent", always("TwilioProxy/1.1")),
            ("I-Twilio-Idempotency-Token", always(unsent.delivery_id)),
            (SIGNATURE, mac.map(|mac| encode_base64(mac.as_ref()))),
        ];
        proof::sent(headers, body)
    }
}

/// What is signed behind the URL: nothing if the URL has the digest of the body.
fn signed_fields(delivery: &Delivery) -> Result<String, Rejection> {
    let digests: Vec<_> = address::query(&delivery.url).filter(|(name, _)| name == BODY_DIGEST).collect();
    let body = &delivery.body;
    match &digests[..] {
        [] if delivery.is_form() => {
            put_together(body).ok_or_else(|| Rejection::mismatch("the form has more fields than Twilio ever sends"))
        }
        [] if body.is_empty() => Ok(String::new()),
        [] => Err(Rejection::mismatch(format!(
            "the body is no form, and the URL has no `{BODY_DIGEST}`, so that nothing says that it is Twilio's"
        ))),
        [(_, told)] => {
            let digest = digest::digest(&digest::SHA256, body);
            match decode_hex(told).is_some_and(|told| super::key::equal(&told, digest.as_ref())) {
                true => Ok(String::new()),
                false => Err(Rejection::mismatch(format!("`{BODY_DIGEST}` in the URL is not the digest of the body"))),
            }
        }
        _ => Err(Rejection::mismatch(format!("the URL has more than one `{BODY_DIGEST}`"))),
    }
}

/// The fields of a form by name; of one that is there several times, each value once, in their order. None if there are
/// more than Twilio ever sends: strangers do not have us sort them.
fn put_together(form: &[u8]) -> Option<String> {
    let mut fields: Vec<_> = form_urlencoded::parse(form).take(MOST_FIELDS + 1).collect();
    if fields.len() > MOST_FIELDS {
        return None;
    }
    fields.sort_unstable();
    fields.dedup();
    let mut text = String::with_capacity(form.len());
    for (name, value) in &fields {
        text.push_str(name);
        text.push_str(value);
    }
    Some(text)
}

/// The same URL with the default port that it leaves out, or without the one that it has.
fn other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match host.strip_suffix(port) {
        Some(bare) => Some(format!("{scheme}://{bare}{path}")),
        // An address in brackets has colons, too.
        None if host.rsplit(']').next().is_some_and(|end| end.contains(':')) => None,
        None => Some(format!("{scheme}://{host}{port}{path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_port_comes_and_goes() {
        let other = |url| other_port(url).unwrap_or_default();
        assert_eq!(other("https://a.example/b?c=d"), "https://a.example:443/b?c=d");
        assert_eq!(other("https://a.example:443/b"), "https://a.example/b");
        assert_eq!(other("http://a.example:80?x=:80/"), "http://a.example?x=:80/");
        assert_eq!(other("https://[::1]/"), "https://[::1]:443/");
        for none in ["https://a.example:8443/", "ftp://a.example/", "a.example", ""] {
            assert_eq!(other_port(none), None, "{none}");
        }
    }

    #[test]
    fn fields_are_sorted_and_the_same_value_counts_once() {
        assert_eq!(put_together(b"b=2&a=z&a=1&a=z&c=").as_deref(), Some("a1azb2c"));
        assert_eq!(put_together("a&".repeat(MOST_FIELDS + 1).as_bytes()), None);
    }
}
