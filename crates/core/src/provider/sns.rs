//! Amazon SNS: JSON sent as `text/plain`, signed with RSA by a certificate whose URL stands in it.
//!
//! Any AWS account can make SNS sign a message, so the signature alone proves nothing: the source's credential is the ARN of
//! the topic that it may be of, and a message of another one is refused before its certificate is fetched. So is a
//! certificate that is not at `https://sns.<region>.amazonaws.com[.cn]/SimpleNotificationService-….pem`. `SignatureVersion` 1
//! is RSA with SHA-1, 2 with SHA-256; the sender chooses, as the topic is set.
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>; aws-js-sns-message-validator 0.3.5,
//! which leaves `Token` out of what it checks of an `UnsubscribeConfirmation` and so refuses good ones.)
//!
//! SNS tries for an hour at most (<https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html>), and
//! `Timestamp` is when the message was published, so what is older than two hours was kept by somebody.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters};

use super::paths::{Found, Paths};
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    address, certificate, decode_base64, filter, json,
};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::{Rejection, RejectionCode};

mod reading;

/// Topics with an HTTP or HTTPS subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sns {
    /// How far the time of publication may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Sns {
    /// With twice the hour for which SNS tries.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(2 * 60 * 60) }
    }
}

static ALIASES: [Cow<'static, str>; 1] = [Cow::Borrowed("aws_sns")];

static FILTERS: [FilterField; 4] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("topics", &[Cow::Borrowed("topic"), Cow::Borrowed("topic_name")], &[]),
    filter("subjects", &[Cow::Borrowed("subject")], &[]),
];

macro_rules! sample {
    ($event:literal, $file:literal, $about:literal) => {
        Sample::new($event, $about, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/samples/sns/", $file, ".json")))
    };
}

static SAMPLES: [Sample; 5] = [
    sample!("notification", "text", "somebody published a line of text"),
    sample!("notification.ALARM", "alarm", "an alarm of CloudWatch went off"),
    sample!("notification.ObjectCreated:Put", "s3", "a file was put into a bucket"),
    sample!("notification.Bounce", "bounce", "a message bounced"),
    sample!("subscription_confirmation", "subscription_confirmation", "the subscription was just made"),
];

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/Type",
        "/MessageId",
        "/TopicArn",
        "/Subject",
        "/Message",
        "/Timestamp",
        "/SignatureVersion",
        "/Signature",
        "/SigningCertURL",
        "/SubscribeURL",
        "/Token",
    ])
});

impl Provider for Sns {
    fn name(&self) -> &str {
        "sns"
    }

    fn aliases(&self) -> &[Cow<'static, str>] {
        &ALIASES
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Amazon SNS"),
            setup: Cow::Borrowed(include_str!("../../guides/sns.md")),
            identity: Cow::Borrowed(
                "The message, its id, its topic and the time of publication are signed with Amazon's key; a message of a \
                 topic that is not the credential's is refused, and one that is further from now than `tolerance`. \
                 `MessageId` is the same when a message is sent again.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("sns_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        let arn = secret.expose_str().map(str::trim).unwrap_or_default();
        let parts: Vec<_> = arn.split(':').collect();
        match parts[..] {
            _ if secret.is_blank() => Err(InvalidKey::Blank),
            ["arn", _, "sns", _, _, topic] if !topic.is_empty() => Key::token(&Secret::new(arn)),
            _ => Err(InvalidKey::Malformed(
                "is not the ARN of a topic, as `arn:aws:sns:eu-central-1:123456789012:alarms` is".to_owned(),
            )),
        }
    }

    fn certificate_url(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<Option<String>, Rejection> {
        if keys.is_empty() {
            return Ok(None);
        }
        let claim = claim(keys, &found(delivery)?)?;
        proof::check_claimed_age("`Timestamp`", claim.sent, delivery.received_at, self.tolerance)?;
        Ok(Some(claim.certificate))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let Claim { index, algorithm, signature, text, sent, .. } = claim(keys, &found(delivery)?)?;
        let pem = delivery.certificate.as_deref();
        let pem = pem.ok_or_else(|| Rejection::mismatch("the certificate of the signature could not be fetched"))?;
        let key = certificate::key(pem, delivery.received_at, algorithm, |name| {
            name == "sns.amazonaws.com" || is_host(name)
        })?;
        key.verify_sig(text.as_bytes(), &signature).map_err(|_| {
            Rejection::mismatch("`Signature` was not made over this message with the key of its certificate")
        })?;
        proof::check_age("`Timestamp`", sent, delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        reading::read(delivery)
    }

    fn confirmation_url(&self, event: &Event) -> Option<String> {
        // Never of an UnsubscribeConfirmation: its SubscribeURL subscribes again what somebody ended. And only for a topic
        // of the source: one that takes everything would confirm anybody's.
        if event.name() != reading::SUBSCRIPTION || event.verified_by().is_none() {
            return None;
        }
        let found = found(event.delivery()).ok()?;
        let url = found.text("/SubscribeURL")?;
        let (host, path) = address::https(&url)?;
        let confirms = path.starts_with("/?Action=ConfirmSubscription&");
        (is_host(host) && confirms).then(|| url.into_owned())
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

    /// Unsigned: only Amazon has the key.
    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let mut body = proof::fresh(unsent.body, unsent.delivery_id);
        if let (Some(Key::Token(topic)), Ok(text)) = (key, std::str::from_utf8(&body)) {
            let topic = topic.expose_str().unwrap_or_default();
            body = text.replace(reading::SAMPLE_TOPIC, topic).into();
        }
        let told = PATHS.find(std::str::from_utf8(&body).unwrap_or_default()).ok().map(|found| {
            let header = |pointer: &str| found.text(pointer).filter(|text| text.is_ascii()).map(Cow::into_owned);
            [header("/Type"), header("/MessageId"), header("/TopicArn")]
        });
        let [kind, id, topic] = told.unwrap_or_default();
        let headers = [
            ("Content-Type", always("text/plain; charset=UTF-8")),
            ("User-Agent", always("Amazon Simple Notification Service Agent")),
            ("x-amz-sns-message-type", kind),
            ("x-amz-sns-message-id", id),
            ("x-amz-sns-topic-arn", topic),
        ];
        proof::sent(headers, body)
    }
}

/// What stands in a body, which may be anybody's.
fn found(delivery: &Delivery) -> Result<Found<'static, '_>, Rejection> {
    if delivery.header("x-amz-sns-rawdelivery") == Ok("true") {
        return Err(Rejection {
            code: RejectionCode::SignatureMissing,
            detail:
                "no signature: SNS does not sign raw messages, so switch raw message delivery of this subscription off"
                    .to_owned(),
        });
    }
    let text = json::text_of(&delivery.body).ok().filter(|text| proof::is_object(text));
    let found = text.and_then(|text| PATHS.find(text).ok()).filter(|found| found.text("/Signature").is_some());
    found.ok_or_else(|| Rejection::missing("`Signature` in the JSON of the body"))
}

/// What a message says of its signature.
struct Claim {
    /// The key whose topic it is of.
    index: usize,
    certificate: String,
    algorithm: &'static RsaParameters,
    signature: Vec<u8>,
    /// What is signed.
    text: String,
    sent: Timestamp,
}

/// All that can be checked without the certificate.
fn claim(keys: &[NamedKey], found: &Found<'_, '_>) -> Result<Claim, Rejection> {
    let index = meant_for(keys, found)?;
    let certificate = certificate_url(found)?;
    let algorithm = algorithm(found)?;
    let signature = found.text("/Signature").and_then(|text| decode_base64(&text));
    let signature = signature.ok_or_else(|| Rejection::mismatch("`Signature` is not the base64 of a signature"))?;
    let text = signed_text(found)?;
    let sent = found.text("/Timestamp").and_then(|time| time.parse().ok());
    let sent = sent.ok_or_else(|| Rejection::mismatch("`Timestamp` is not a time"))?;
    Ok(Claim { index, certificate, algorithm, signature, text, sent })
}

/// The key whose topic the message is of.
fn meant_for(keys: &[NamedKey], found: &Found<'_, '_>) -> Result<usize, Rejection> {
    let topic = found.text("/TopicArn").unwrap_or_default();
    keys.iter().position(|named| named.key.is_token(topic.as_bytes())).ok_or_else(|| {
        Rejection::mismatch(format!("the message is of the topic `{topic}`, which is not one of this source"))
    })
}

fn algorithm(found: &Found<'_, '_>) -> Result<&'static RsaParameters, Rejection> {
    match found.id("/SignatureVersion").as_deref() {
        Some("1") => Ok(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
        Some("2") => Ok(&RSA_PKCS1_2048_8192_SHA256),
        _ => Err(Rejection::mismatch("`SignatureVersion` is neither 1 nor 2")),
    }
}

/// The URL of the certificate, if it is Amazon's.
fn certificate_url(found: &Found<'_, '_>) -> Result<String, Rejection> {
    let url = found.text("/SigningCertURL").unwrap_or_default();
    let file = address::https(&url).filter(|(host, _)| is_host(host)).and_then(|(_, path)| {
        let name = path.strip_prefix("/SimpleNotificationService-")?.strip_suffix(".pem")?;
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then_some(())
    });
    match file {
        Some(()) => Ok(url.into_owned()),
        None => Err(Rejection::mismatch("`SigningCertURL` is not the URL of a certificate of SNS")),
    }
}

/// Whether a host is one of SNS: `sns.<region>.amazonaws.com`, in China with `.cn` behind it.
fn is_host(host: &str) -> bool {
    let global = host.strip_suffix(".cn").unwrap_or(host);
    let region = global.strip_prefix("sns.").and_then(|rest| rest.strip_suffix(".amazonaws.com"));
    region.is_some_and(|region| {
        region.len() >= 3 && region.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    })
}

/// What is signed: names and values, each on a line of its own.
fn signed_text(found: &Found<'_, '_>) -> Result<String, Rejection> {
    const NOTIFICATION: [&str; 6] = ["/Message", "/MessageId", "/Subject", "/Timestamp", "/TopicArn", "/Type"];
    const CONFIRMATION: [&str; 7] =
        ["/Message", "/MessageId", "/SubscribeURL", "/Timestamp", "/Token", "/TopicArn", "/Type"];
    let pointers: &[&str] = match found.text("/Type").as_deref() {
        Some("Notification") => &NOTIFICATION,
        Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => &CONFIRMATION,
        _ => return Err(Rejection::mismatch("`Type` is none of SNS")),
    };
    let mut text = String::new();
    for pointer in pointers {
        let value = match found.raw(pointer) {
            Some(r#""""#) => Cow::Borrowed(""),
            None | Some("null") if *pointer == "/Subject" => continue,
            _ => found
                .text(pointer)
                .ok_or_else(|| Rejection::mismatch(format!("`{}` is missing or no text", &pointer[1..])))?,
        };
        for part in [&pointer[1..], "\n", &value, "\n"] {
            text.push_str(part);
        }
    }
    Ok(text)
}
