//! Providers: what is known about each kind of sender.
//!
//! A provider is a value behind one object-safe trait. Most are built in ([`built_in`]): as code, or ([`declared`]) from a text,
//! as a project's own are; `generic` is built from the keys of its source. ARCHITECTURE.md says how each protocol of the field
//! fits.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::delivery::Delivery;
use crate::event::{Context, Event};
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

/// A sample whose body stands in `samples/<folder>/<event>.json`.
macro_rules! sample {
    ($folder:literal, $event:literal, $about:literal) => {
        $crate::provider::Sample::new(
            $event,
            $about,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/samples/", $folder, "/", $event, ".json")),
        )
    };
}

mod address;
mod answer;
mod certificate;
pub mod declared;
pub mod discord;
mod encoding;
pub mod generic;
pub mod github;
mod headers;
pub mod hubspot;
mod identity;
mod json;
mod key;
pub mod linear;
pub mod mintlify;
pub mod paths;
pub mod paypal;
mod proof;
mod registry;
pub mod sentry;
pub mod slack;
pub mod sns;
pub mod standard;
pub mod stripe;
pub mod twilio;
pub mod twitter;
mod words;

pub use answer::{Answer, Ended, FollowUp, Greeting};
pub use encoding::{decode_base64, decode_hex, encode_base64, encode_hex};
pub(crate) use headers::kept_target;
pub use headers::{kept_headers, kept_headers_as_json, visible_headers};
pub use json::NotJson;
pub use key::{InvalidKey, Key};
pub use registry::built_in;

/// Where a provider's secret stands among the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialType {
    /// The type, e.g. `github_webhook_secret`.
    pub name: Cow<'static, str>,
    /// The field that holds the signing secret, e.g. `secret`.
    pub field: Cow<'static, str>,
}

/// A filter field that a trigger may have for events of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterField {
    /// As a trigger spells it, e.g. `repos`.
    pub name: Cow<'static, str>,
    /// The fields of the context that it is held against; any of them may pass. `event` is held against the event
    /// and against event and action (`issues.opened`).
    pub context: Cow<'static, [Cow<'static, str>]>,
    /// The events it restricts; other events pass it. Empty: it restricts all.
    pub only_for: Cow<'static, [Cow<'static, str>]>,
}

/// What a provider reads in a delivery.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Name, action and everything that filters and prompts use.
    pub context: Context,
    /// The provider's id of the delivery, stable over its retries.
    pub delivery_id: Option<String>,
    /// Whether all it wants is an answer at once: it is part of setting up the webhook (GitHub's `ping`), or asks for
    /// suggestions while somebody types (Discord's `autocomplete`). It starts only agents that name it.
    pub handshake: bool,
}

/// The delivery cannot be read although its signature is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unreadable {
    /// What is wrong, and what the sender can do.
    pub detail: String,
    /// Whether it is of a content type that the provider does not send (415), rather than broken (400).
    pub wrong_type: bool,
}

impl Unreadable {
    /// The body, or what names the event, is broken.
    pub fn broken(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), wrong_type: false }
    }

    /// The content type is none that the provider sends.
    pub fn wrong_type(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), wrong_type: true }
    }
}

/// A realistic delivery of the project's own making, to ring a gateway with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The event, as `ring` takes it: `issues`, or with an action `issues.opened`.
    pub event: Cow<'static, str>,
    /// One line on what it shows.
    pub about: Cow<'static, str>,
    /// The body.
    pub body: Cow<'static, str>,
}

impl Sample {
    /// A sample as a constant.
    pub const fn new(event: &'static str, about: &'static str, body: &'static str) -> Self {
        Self { event: Cow::Borrowed(event), about: Cow::Borrowed(about), body: Cow::Borrowed(body) }
    }
}

/// What a provider is about to send, for [`Provider::sign`].
#[derive(Debug, Clone)]
pub struct Unsent<'a> {
    /// The event, as its sample spells it: `issues`, `issues.opened`.
    pub event: &'a str,
    /// The body.
    pub body: bytes::Bytes,
    /// A fresh unique text, for protocols that carry an id of the delivery.
    pub delivery_id: &'a str,
    /// When it is sent.
    pub now: Timestamp,
    /// The public URL that it is sent to, for protocols that sign it.
    pub url: &'a str,
}

impl<'a> Unsent<'a> {
    /// An event that is sent to nowhere in particular.
    pub fn new(event: &'a str, body: impl Into<bytes::Bytes>, delivery_id: &'a str, now: Timestamp) -> Self {
        Self { event, body: body.into(), delivery_id, now, url: "" }
    }
}

/// What a person needs to know to set a provider up, in Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guide {
    /// The name as its makers write it, e.g. `GitHub`.
    pub title: Cow<'static, str>,
    /// The steps: where to click at the provider, which URL, which secret. A numbered list in which `{url}` stands for
    /// the source's public URL and `{secret}` for its credential (`github_webhook_secret:acme`).
    pub setup: Cow<'static, str>,
    /// What is signed, and what makes two deliveries the same event, in whole sentences.
    pub identity: Cow<'static, str>,
}

/// A signed request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The headers of the protocol, content type included.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: bytes::Bytes,
}

/// One kind of sender: how to verify, read, answer and (to ring a gateway) imitate it. All of it pure.
pub trait Provider: Debug + Send + Sync {
    /// Its type in `config.toml`, which also begins the names of its events.
    fn name(&self) -> &str;

    /// Other names of its type.
    fn aliases(&self) -> &[Cow<'static, str>] {
        &[]
    }

    /// How it is set up.
    fn guide(&self) -> Guide;

    /// Where its secrets stand.
    fn credential(&self) -> CredentialType;

    /// How its maker writes the name of the event that a delivery is, where Doorbell knows: events are spelled alike here,
    /// whoever sends them.
    fn makers_name(&self, delivery: &Delivery) -> Option<String> {
        let _ = delivery;
        None
    }

    /// What the headers say of an earlier try of the same delivery, where its protocol says so (Slack).
    fn retried(&self, delivery: &Delivery) -> Option<String> {
        let _ = delivery;
        None
    }

    /// The names of its events, where they are known; there may be others.
    fn events(&self) -> &[&'static str] {
        &[]
    }

    /// What may have happened to what its events are about, where that is known; there may be more.
    fn actions(&self) -> &[&'static str] {
        &[]
    }

    /// The filter fields of its triggers.
    fn filters(&self) -> &[FilterField];

    /// Other spellings of values of the filter `field`, each with the one that events have (Linear's `Issue` for `issues`).
    fn spelling<'v>(&self, field: &str, value: &'v str) -> Cow<'v, str> {
        let _ = field;
        Cow::Borrowed(value)
    }

    /// Whether the sender of an event is the one that `ignore_senders` calls `ignored`.
    fn is_sender(&self, ignored: &str, sender: &str) -> bool {
        ignored == sender
    }

    /// Prepares a secret for verification.
    ///
    /// # Errors
    /// If the secret is blank or not of the form that the protocol asks for.
    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey>;

    /// A new secret made of these random bytes, where whoever sets the webhook up chooses it; none where the sender makes it.
    fn make_secret(&self, random: [u8; 32]) -> Option<Secret> {
        let _ = random;
        None
    }

    /// The methods that its deliveries and handshakes come by.
    fn methods(&self) -> &[Method] {
        const POST: [Method; 1] = [Method::POST];
        &POST
    }

    /// Answers a request that sets a webhook up and is unsigned by protocol (X's CRC, Slack's `ssl_check`, Notion's
    /// first token); none for every other request, which is then verified. All that can come of it is the answer.
    ///
    /// # Errors
    /// If it is such a request, and nobody may be given the answer to it.
    fn greet(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<Option<Greeting>, Rejection> {
        let _ = (keys, delivery);
        Ok(None)
    }

    /// The URL of the certificate that the delivery's signature is checked with, where the protocol has one: it is
    /// fetched and handed to [`Provider::verify`] as [`Delivery::certificate`]. All that can be checked without it (shape,
    /// host, topic, algorithm, age) is checked before, so that strangers do not have us fetch for nothing.
    ///
    /// # Errors
    /// If nothing may be fetched for this delivery.
    fn certificate_url(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<Option<String>, Rejection> {
        let _ = (keys, delivery);
        Ok(None)
    }

    /// The index of the key that made the delivery's signature. `keys` is never empty.
    ///
    /// # Errors
    /// If there is no signature, or none of the keys made it, or it is too old.
    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection>;

    /// What the delivery says: at least one event, several where the protocol batches them (then each has a
    /// `delivery_id` of its own). Called for verified deliveries only, and again for their stored bodies and headers.
    ///
    /// # Errors
    /// If the body or the headers that name the event cannot be read.
    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable>;

    /// The body that its protocol wants for a stored event, where it wants one of its own. `started`: whether an agent
    /// will do something about it.
    fn answer(&self, event: &Event, started: bool) -> Option<Answer> {
        let _ = (event, started);
        None
    }

    /// A URL to ask once, without an answer that matters, to confirm what a verified handshake set up (SNS).
    fn confirmation_url(&self, event: &Event) -> Option<String> {
        let _ = event;
        None
    }

    /// Whether [`Provider::follow_up`] ever tells anybody.
    fn follows_up(&self) -> bool {
        false
    }

    /// Why nobody is told by [`Provider::follow_up`], although the delivery names a place for it.
    fn follow_up_refused(&self, delivery: &Delivery) -> Option<String> {
        let _ = delivery;
        None
    }

    /// Tells those who wait where the event came from how its run ended (Discord, Slack's commands). `delivery` is made
    /// of what was stored.
    fn follow_up(&self, delivery: &Delivery, ended: &Ended<'_>) -> Option<FollowUp> {
        let _ = (delivery, ended);
        None
    }

    /// Headers (in lower case) that carry a secret: never stored, shown or handed on. Authorization, cookies and whatever
    /// is named like a token, password or key to something never are, whatever this says.
    fn secret_headers(&self) -> &[Cow<'static, str>] {
        &[]
    }

    /// How far from now the time that the protocol signs may be; none if it signs none, so that an old delivery can
    /// only be told by its id.
    fn tolerance(&self) -> Option<Duration> {
        None
    }

    /// The same provider with another [`Provider::tolerance`]; none if it signs no time.
    fn with_tolerance(&self, tolerance: Duration) -> Option<Arc<dyn Provider>> {
        let _ = tolerance;
        None
    }

    /// Samples to ring with.
    fn samples(&self) -> &[Sample] {
        &[]
    }

    /// The field of the credential that holds the private half of a test key, where [`Provider::prepare`] makes keys that
    /// can only verify: with it, `ring` can sign.
    fn signing_field(&self) -> Option<&'static str> {
        None
    }

    /// Prepares what stands in [`Provider::signing_field`] to sign with.
    ///
    /// # Errors
    /// If it is not of the form that the protocol asks for.
    fn prepare_signing(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        self.prepare(secret)
    }

    /// A request as this provider would send it, signed with `key` (`None`, or a key that can only verify: unsigned).
    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed;
}

/// The longest name of an event or an action that is taken from outside, in bytes.
const LONGEST_NAME: usize = 200;

/// The sample for `event`: the one of that name, else the first one of that event (`issues` for `issues.opened`).
pub fn find_sample<'a>(samples: &'a [Sample], event: &str) -> Option<&'a Sample> {
    let exact = samples.iter().find(|sample| sample.event == event);
    exact.or_else(|| samples.iter().find(|sample| sample.event.split('.').next() == Some(event)))
}

/// Whether a text from outside can name an event or an action: not empty, not endless, no control characters.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control)
}

/// A filter field as a constant.
const fn filter(
    name: &'static str,
    context: &'static [Cow<'static, str>],
    only_for: &'static [Cow<'static, str>],
) -> FilterField {
    FilterField { name: Cow::Borrowed(name), context: Cow::Borrowed(context), only_for: Cow::Borrowed(only_for) }
}
