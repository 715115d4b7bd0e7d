//! Providers as data: a TOML text says how a sender proves itself, where its events are named, and what else its deliveries say.
//!
//! Most of the providers that the program knows are such texts (`crates/core/providers`), and a project can have its own
//! (`providers/<name>.toml`). The format is documented in full in `docs/own-providers.md`; in short:
//!
//! | table | what it says |
//! |---|---|
//! | (top) | `name`, `title`, `aliases`, `methods` |
//! | `[credential]` | `type` and `field` of the secret; `<name>_webhook_secret` and `secret` if it is not there |
//! | `[[signature]]` | one way to prove the sender: `scheme` (`hmac`, `ed25519`, `token`, `bearer`, `basic`), `header`, …; the first one whose header is there decides |
//! | `[event]`, `[action]` | `from` places, `names`, `strip_prefix`, `strip_suffix`, `spelling`, and `split` |
//! | `[delivery]` | `id` (the first place that has one), else the `digest` of what identifies the event, else of the body |
//! | `[context]` | field = places, the first one that has a value |
//! | `[filters]` | filter = fields of the context; `events` and `actions` are always there |
//! | `[[handshake]]`, `[answer]` | what sets a webhook up, and what senders want to hear |
//! | `[headers]`, `[[sample]]` | what the sender sends, to ring a gateway with |
//! | `[guide]` | `setup` and `identity`, for people |
//!
//! A place is a JSON pointer (`/issue/title`, `/labels/*/name`, `/(message|edited_message)/text`), a header
//! (`header:X-Event`), or a text with those in braces (`{/owner}/{/name}`).
//!
//! What the format cannot say is code: signatures over the URL (Twilio, HubSpot), certificates (SNS, PayPal), several events in one
//! body, forms, answers that depend on what an agent does, follow-ups.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::{
    Answer, CredentialType, FilterField, Greeting, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed,
    Unreadable, Unsent,
};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::{Rejection, RejectionCode};

/// How long a text that a sender shows as its secret is, in bytes: what is shorter protects nothing.
const SECRET_LENGTHS: std::ops::RangeInclusive<usize> = 8..=4096;

mod definition;
mod handshake;
mod place;
mod reading;
mod request;
mod section;
mod shipped;
mod signature;

pub use definition::Definition;
pub use section::InvalidDefinition;
pub(super) use shipped::providers;
pub use shipped::shipped;

use place::Said;
use signature::{Kind, Scheme};

/// A provider that is declared as data.
#[derive(Debug, Clone)]
pub struct Declared {
    definition: Arc<Definition>,
    /// In place of those of its signatures.
    tolerance: Option<Duration>,
}

impl Declared {
    /// The provider that a definition describes.
    pub fn new(definition: Definition) -> Self {
        Self { definition: Arc::new(definition), tolerance: None }
    }

    /// Looks a signed delivery over again, to answer it.
    fn answer_to(&self, event: &Event) -> Option<Answer> {
        let delivery = event.delivery();
        let found = reading::text_of(delivery).ok().and_then(|text| self.definition.paths.find(text).ok());
        let said = Said { delivery, found };
        let handshake = self.definition.handshake(&said, event.name(), event.action());
        let answer = handshake.and_then(|handshake| handshake.answer.as_ref()).or(self.definition.answer.as_ref());
        answer.and_then(|answer| answer.fill(&said))
    }

    fn tolerances(&self) -> impl Iterator<Item = Duration> {
        let times = self.definition.schemes.iter().filter_map(|scheme| scheme.signature()?.time.as_ref());
        times.map(|time| time.tolerance)
    }
}

impl Provider for Declared {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn aliases(&self) -> &[Cow<'static, str>] {
        &self.definition.aliases
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Owned(self.definition.title.clone()),
            setup: Cow::Owned(self.definition.setup.clone()),
            identity: Cow::Owned(self.definition.identity_text.clone()),
        }
    }

    fn credential(&self) -> CredentialType {
        self.definition.credential.clone()
    }

    fn filters(&self) -> &[FilterField] {
        &self.definition.filters
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        signature::prepare(&self.definition.schemes, secret)
    }

    fn methods(&self) -> &[Method] {
        &self.definition.methods
    }

    fn greet(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<Option<Greeting>, Rejection> {
        let greeting = self.definition.handshakes.iter().find_map(|handshake| handshake.greet(delivery));
        let Some(Greeting::Secret { secret, answer }) = greeting else { return Ok(greeting) };
        let text = secret.expose();
        if !SECRET_LENGTHS.contains(&text.len()) || !text.iter().all(u8::is_ascii_graphic) {
            return Err(Rejection::mismatch("what is shown as a secret is none"));
        }
        if !keys.is_empty() && self.verify(keys, delivery).is_ok() {
            // It is the source's already.
            return Ok(Some(Greeting::Answer(answer)));
        }
        let key =
            self.prepare(&secret).map_err(|error| Rejection::mismatch(format!("the secret that is shown {error}")))?;
        let shown = [NamedKey { instance: String::new(), key }];
        // The sender has it, and may sign with it already. Anybody can show a secret and sign with it: this only drops what
        // contradicts itself.
        match self.verify(&shown, delivery) {
            Err(rejection) if rejection.code != RejectionCode::SignatureMissing => return Err(rejection),
            _ => {}
        }
        Ok(Some(Greeting::Secret { secret, answer }))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        signature::verify(&self.definition.schemes, self.tolerance, keys, delivery)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        reading::read(&self.definition, delivery).map(|reading| vec![reading])
    }

    fn makers_name(&self, delivery: &Delivery) -> Option<String> {
        reading::makers_name(&self.definition, delivery)
    }

    fn answer(&self, event: &Event, _started: bool) -> Option<Answer> {
        let answers = self.definition.answer.is_some() || event.is_handshake();
        answers.then(|| self.answer_to(event)).flatten()
    }

    fn secret_headers(&self) -> &[Cow<'static, str>] {
        &self.definition.secret_headers
    }

    fn tolerance(&self) -> Option<Duration> {
        let own = self.tolerances().next();
        own.map(|own| self.tolerance.unwrap_or(own))
    }

    fn with_tolerance(&self, tolerance: Duration) -> Option<Arc<dyn Provider>> {
        self.tolerances().next()?;
        Some(Arc::new(Self { definition: Arc::clone(&self.definition), tolerance: Some(tolerance) }))
    }

    fn samples(&self) -> &[Sample] {
        &self.definition.samples
    }

    fn signing_field(&self) -> Option<&'static str> {
        self.definition.schemes.iter().any(|scheme| Scheme::kind(scheme) == Kind::Ed25519).then_some("private_key")
    }

    fn prepare_signing(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        signature::prepare_signing(&self.definition.schemes, secret)
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        request::sign(&self.definition, key, &unsent)
    }
}
