//! Providers: what is known about each kind of sender.
//!
//! A provider is a value behind one object-safe trait. `github` is a constant; `generic` and `standard` are built from
//! the keys of their source; a provider declared as data will be built from its file. ARCHITECTURE.md says how each
//! protocol of the field fits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::HeaderMap;

use crate::delivery::Delivery;
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

mod encoding;
pub mod generic;
pub mod github;
mod json;
pub mod standard;

pub use encoding::{decode_base64, decode_hex, encode_base64, encode_hex};

/// A signing key, prepared once per secret.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a source has few keys, and every verification reads one")]
pub enum Key {
    /// For HMAC of one algorithm.
    Hmac(hmac::Key),
    /// Compared as it is (bearer and shared tokens).
    Token(Secret),
}

impl Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "Key::Hmac(…)",
            Self::Token(_) => "Key::Token(…)",
        })
    }
}

impl Key {
    /// Whether `signature` is the HMAC of these parts, one after the other; compared in constant time.
    pub fn signs(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.mac(parts)
            .is_some_and(|mac| aws_lc_rs::constant_time::verify_slices_are_equal(mac.as_ref(), signature).is_ok())
    }

    /// The HMAC of these parts, one after the other; none if this is no key for HMAC.
    pub fn mac(&self, parts: &[&[u8]]) -> Option<hmac::Tag> {
        let Self::Hmac(key) = self else { return None };
        let mut context = hmac::Context::with_key(key);
        parts.iter().for_each(|part| context.update(part));
        Some(context.sign())
    }
}

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

/// The secret cannot be a key of this provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing, or white space.
    #[error("is empty: an empty secret would verify anybody's deliveries")]
    Blank,
    /// Of the wrong form.
    #[error("{0}")]
    Malformed(String),
}

/// What a provider reads in a delivery.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Name, action and everything that filters and prompts use.
    pub context: Context,
    /// The provider's id of the delivery, stable over its retries.
    pub delivery_id: Option<String>,
    /// Whether it is part of setting up the webhook (GitHub's `ping`): it starts only agents that name it.
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
    pub event: &'static str,
    /// One line on what it shows.
    pub about: &'static str,
    /// The body.
    pub body: &'static str,
}

/// A signed request, ready to be sent.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The headers of the protocol, content type included.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: bytes::Bytes,
}

/// One kind of sender: how to verify, read and (to ring a gateway) imitate it. All of it pure.
pub trait Provider: Debug + Send + Sync {
    /// Its type in `config.toml`, which also begins the names of its events.
    fn name(&self) -> &str;

    /// Where its secrets stand.
    fn credential(&self) -> CredentialType;

    /// The filter fields of its triggers.
    fn filters(&self) -> &[FilterField];

    /// Prepares a secret for verification.
    ///
    /// # Errors
    /// If the secret is blank or not of the form that the protocol asks for.
    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey>;

    /// The index of the key that made the delivery's signature. `keys` is never empty.
    ///
    /// # Errors
    /// If there is no signature, or none of the keys made it, or it is too old.
    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection>;

    /// What the delivery says. Called for verified deliveries only.
    ///
    /// # Errors
    /// If the body or the headers that name the event cannot be read.
    fn read(&self, delivery: &Delivery) -> Result<Reading, Unreadable>;

    /// Headers (in lower case) that carry a secret: never stored, shown or handed on. Authorization and cookies
    /// never are, whatever this says.
    fn secret_headers(&self) -> &[Cow<'static, str>] {
        &[]
    }

    /// How far from now the time that the protocol signs may be; none if it signs none, so that an old delivery can
    /// only be told by its id.
    fn tolerance(&self) -> Option<Duration> {
        None
    }

    /// Samples to ring with.
    fn samples(&self) -> &[Sample] {
        &[]
    }

    /// A request as this provider would send it for `event`, signed with `key` (`None`: unsigned).
    ///
    /// `delivery_id` is a fresh unique text for protocols that carry one.
    fn sign(&self, key: Option<&Key>, event: &str, body: bytes::Bytes, delivery_id: &str, now: Timestamp) -> Signed;
}

/// The longest name of an event or an action that is taken from outside, in bytes.
const LONGEST_NAME: usize = 200;

/// Headers that carry a secret whatever the provider is.
const ALWAYS_SECRET: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// The sample for `event`: the one of that name, else the first one of that event (`issues` for `issues.opened`).
pub fn find_sample<'a>(samples: &'a [Sample], event: &str) -> Option<&'a Sample> {
    let exact = samples.iter().find(|sample| sample.event == event);
    exact.or_else(|| samples.iter().find(|sample| sample.event.split('.').next() == Some(event)))
}

/// The headers that may be stored, shown and handed on: names in lower case, those with a secret left out, repeated
/// ones joined with `, `, bytes that are not UTF-8 replaced.
pub fn visible_headers(provider: &dyn Provider, headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut visible = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let name = name.as_str();
        if ALWAYS_SECRET.contains(&name) || provider.secret_headers().iter().any(|secret| secret == name) {
            continue;
        }
        // Nearly all are text, which this sees faster than the lossy way does.
        let value = value.to_str().map_or_else(|_| String::from_utf8_lossy(value.as_bytes()), Cow::Borrowed);
        match visible.get_mut(name) {
            Some(joined) => {
                joined.push_str(", ");
                joined.push_str(&value);
            }
            None => drop(visible.insert(name.to_owned(), value.into_owned())),
        }
    }
    visible
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
