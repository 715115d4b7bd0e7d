//! Discord: interactions (commands, buttons, menus, modals) and the events of an application, both to a URL of the
//! application's settings and signed alike.
//!
//! `X-Signature-Ed25519` is the hex of a signature of `X-Signature-Timestamp` and the body, one directly after the other,
//! with the application's key
//! (<https://docs.discord.com/developers/interactions/overview#setting-up-an-endpoint-validating-security-request-headers>).
//! Discord sends wrong signatures on purpose, when the URL is saved and ever again, and takes the URL away unless the
//! answer is 401; so nothing, a PING neither, is looked at before the signature. Neither the form of the signed time nor
//! a window for it is documented (<https://github.com/discord/discord-api-docs/issues/6209>); it is in seconds. Fifteen
//! minutes are as long as an interaction can be answered, and longer than an event is sent again (ten minutes), so nothing
//! that is of use is refused.
//!
//! An interaction is answered within three seconds, in its own words
//! (<https://docs.discord.com/developers/interactions/receiving-and-responding>); an event with an empty 204
//! (<https://docs.discord.com/developers/events/webhook-events>). They are told apart by shape: an interaction has a
//! `token`, an event an `event`.
//!
//! The token lets its holder answer for fifteen minutes. It is in the body, because that is the protocol, but not in the
//! context, so that it is not in every prompt.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::identity::{number_for, with_values};
use super::proof::{self, always};
use super::{
    Answer, CredentialType, Ended, FilterField, FollowUp, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed,
    Unreadable, Unsent, decode_hex, encode_hex, filter,
};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

mod input;
mod reading;
mod replies;
mod shape;

const SIGNATURE: &str = "X-Signature-Ed25519";
const TIMESTAMP: &str = "X-Signature-Timestamp";

/// How long an interaction can be answered after it was sent.
const TOKEN_LIVES: Duration = Duration::from_secs(15 * 60);

/// A Discord application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discord {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Discord {
    /// With a window as long as an interaction can be answered.
    fn default() -> Self {
        Self { tolerance: TOKEN_LIVES }
    }
}

static FILTERS: [FilterField; 4] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("guilds", &[Cow::Borrowed("guild")], &[]),
    filter("channels", &[Cow::Borrowed("channel")], &[]),
    filter(
        "commands",
        &[Cow::Borrowed("command")],
        &[Cow::Borrowed("application_command"), Cow::Borrowed("autocomplete")],
    ),
];

static SAMPLES: [Sample; 8] = [
    sample!("discord", "application_command.deploy", "somebody used the command `/deploy` in a server"),
    sample!("discord", "application_command.Summarize", "somebody used an app command on a message"),
    sample!("discord", "message_component.approve", "somebody pressed a button"),
    sample!("discord", "modal_submit.incident", "somebody submitted a modal"),
    sample!("discord", "autocomplete.deploy", "somebody is typing an option of `/deploy`"),
    sample!("discord", "application_authorized", "somebody added the application to a server"),
    sample!("discord", "entitlement_create", "somebody bought something of the application"),
    sample!("discord", "ping", "the interactions endpoint was just saved"),
];

impl Provider for Discord {
    fn name(&self) -> &str {
        "discord"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Discord"),
            setup: Cow::Borrowed(include_str!("../../guides/discord.md")),
            identity: Cow::Borrowed(
                "The time and the body are signed together; a delivery whose time is further from now than `tolerance` is \
                 refused. An interaction's id, which stands in the body, tells deliveries apart. An event of an application \
                 has no id: the application and the event, with the time at which it happened, are the same when it is \
                 sent again.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("discord_bot"), field: Cow::Borrowed("public_key") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    /// Discord writes the events of an application in capitals, and people a command with its slash.
    fn spelling<'v>(&self, field: &str, value: &'v str) -> Cow<'v, str> {
        let shouted = |value: &str| value.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'_' | b'*'));
        match field {
            "events" if shouted(value) => Cow::Owned(value.to_ascii_lowercase()),
            "commands" => Cow::Borrowed(value.strip_prefix('/').filter(|name| !name.is_empty()).unwrap_or(value)),
            _ => Cow::Borrowed(value),
        }
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        let wrong = "is not the 64 hex digits of a public key: copy *Public Key* from the application's *General \
                     Information*; the bot's token is something else";
        Key::ed25519(&bytes_in(secret, wrong)?)
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let (header, timestamp) = (proof::header(delivery, SIGNATURE)?, proof::header(delivery, TIMESTAMP)?);
        let signature = decode_hex(header).filter(|signature| signature.len() == 64).ok_or_else(|| {
            Rejection::mismatch(format!("{SIGNATURE} is not the 128 hex digits of an Ed25519 signature"))
        })?;
        let parts = [timestamp.as_bytes(), &delivery.body];
        let index = proof::signer(keys, &parts, &signature).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{SIGNATURE} is not of this time and body with a key of this source. Discord sends such ones on purpose, \
                 to see that they are refused; if all are refused, the public key is that of another application, or \
                 bodies are changed on their way"
            ))
        })?;
        proof::check_seconds(TIMESTAMP, timestamp, delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        reading::read(delivery).map(|reading| vec![reading])
    }

    fn answer(&self, event: &Event, started: bool) -> Option<Answer> {
        Some(replies::at_once(event.delivery(), started))
    }

    fn follows_up(&self) -> bool {
        true
    }

    fn follow_up(&self, delivery: &Delivery, ended: &Ended<'_>) -> Option<FollowUp> {
        replies::later(delivery, ended)
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

    fn signing_field(&self) -> Option<&'static str> {
        Some("private_key")
    }

    fn prepare_signing(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        let wrong = "is not the 64 hex digits of a test key's seed (Discord keeps the real one to itself)";
        Key::ed25519_pair(&bytes_in(secret, wrong)?)
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let body = fresh(&unsent.body, unsent.delivery_id, unsent.now);
        let timestamp = unsent.now.as_seconds().to_string();
        let signature = key.and_then(|key| key.signature(&[timestamp.as_bytes(), &body]));
        let headers = [
            ("User-Agent", always("Discord-Interactions/1.0 (+https://discord.com)")),
            ("Content-Type", always("application/json")),
            (SIGNATURE, signature.map(|signature| encode_hex(&signature))),
            (TIMESTAMP, Some(timestamp)),
        ];
        proof::sent(headers, body)
    }
}

/// The bytes that the secret is the hex of.
fn bytes_in(secret: &Secret, wrong: &str) -> Result<Vec<u8>, InvalidKey> {
    if secret.is_blank() {
        return Err(InvalidKey::Blank);
    }
    let bytes = secret.expose_str().map(str::trim).and_then(decode_hex).filter(|bytes| bytes.len() == 32);
    bytes.ok_or_else(|| InvalidKey::Malformed(wrong.to_owned()))
}

/// A sample that is another one each time: an id of its own, or the time at which it happened.
fn fresh(body: &Bytes, delivery_id: &str, now: Timestamp) -> Bytes {
    let number = number_for(delivery_id);
    let happened = format!("{}{}", now.to_string().trim_end_matches('Z'), &number[16..]);
    with_values(&with_values(body, &["/id"], &number), &["/event/timestamp"], &happened)
}
