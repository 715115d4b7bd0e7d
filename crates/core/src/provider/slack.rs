//! Slack: the Events API, slash commands and interactivity, all signed with the app's signing secret.
//!
//! `X-Slack-Signature: v0=<hex HMAC-SHA256>` over `v0:{X-Slack-Request-Timestamp}:{body}`
//! (<https://docs.slack.dev/authentication/verifying-requests-from-slack>); the official SDKs tolerate five minutes. The
//! body is JSON for events, a form for commands, and a form with JSON in `payload` for interactions; what is signed is
//! the text as it was sent. `url_verification` is signed like any other request
//! (<https://docs.slack.dev/reference/events/url_verification>); the probe with `ssl_check=1`, which checks the
//! certificate of a command's URL, is not (<https://docs.slack.dev/interactivity/implementing-slash-commands>), so
//! nothing but 200 ever comes of it, whatever else stands in the form.
//!
//! An event is delivered again with the same `event_id`
//! (<https://docs.slack.dev/apis/events-api#retries>: up to three times, said in `X-Slack-Retry-Num`, which is kept
//! with the headers). Commands and interactions are not sent again; their `trigger_id` is unique.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::identity::{number_for, with_values};
use super::proof::{self, always};
use super::{
    Answer, CredentialType, Ended, FilterField, FollowUp, Greeting, Guide, InvalidKey, Key, Provider, Reading, Sample,
    Signed, Unreadable, Unsent, decode_hex, encode_hex, filter,
};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

mod events;
mod interactions;
mod product;
mod replies;

use product::Product;

const SIGNATURE: &str = "X-Slack-Signature";
const TIMESTAMP: &str = "X-Slack-Request-Timestamp";
const VERSION: &str = "v0";

/// The event of a slash command: Slack has no name for it.
const COMMAND: &str = "slash_command";

/// A Slack app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slack {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Slack {
    /// With the window that Slack's documentation and SDKs have: five minutes.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(5 * 60) }
    }
}

static FILTERS: [FilterField; 4] = [
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("channels", &[Cow::Borrowed("channel"), Cow::Borrowed("channel_name")], &[]),
    filter("team_ids", &[Cow::Borrowed("team")], &[]),
    filter("commands", &[Cow::Borrowed("command")], &[]),
];

static SAMPLES: [Sample; 9] = [
    sample!("slack", "app_mention", "somebody mentioned the app in a channel"),
    sample!("slack", "message", "somebody wrote to the app"),
    sample!("slack", "message.message_changed", "somebody edited a message"),
    sample!("slack", "reaction_added", "somebody reacted to a message with :eyes:"),
    sample!("slack", "member_joined_channel", "somebody joined a channel"),
    sample!("slack", "slash_command.deploy", "somebody typed `/deploy staging`"),
    sample!("slack", "block_actions.approve_deploy", "somebody pressed a button"),
    sample!("slack", "view_submission.incident_form", "somebody submitted a modal"),
    sample!("slack", "url_verification", "the request URL was just saved"),
];

/// Kinds of interactions, which are sent as a form with JSON in it.
const INTERACTIONS: [&str; 10] = [
    "block_actions",
    "block_suggestion",
    "dialog_cancellation",
    "dialog_submission",
    "dialog_suggestion",
    "interactive_message",
    "message_action",
    "shortcut",
    "view_closed",
    "view_submission",
];

impl Provider for Slack {
    fn name(&self) -> &str {
        "slack"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Slack"),
            setup: Cow::Borrowed(include_str!("../../guides/slack.md")),
            identity: Cow::Borrowed(
                "The time and the body are signed together; a delivery whose time is further from now than `tolerance` is \
                 refused. An event's `event_id`, and the `trigger_id` of a command or an interaction, tells deliveries \
                 apart; both stand in the body. An interaction without one is known by its whole body.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("slack_signing_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    /// A command is written with its slash or without.
    fn spelling<'v>(&self, field: &str, value: &'v str) -> Cow<'v, str> {
        match field {
            "commands" if !value.is_empty() && !value.starts_with('/') => Cow::Owned(format!("/{value}")),
            _ => Cow::Borrowed(value),
        }
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn greet(&self, _: &[NamedKey], delivery: &Delivery) -> Result<Option<Greeting>, Rejection> {
        let is_probe = |body: &[u8]| body.split(|byte| *byte == b'&').any(|pair| pair == b"ssl_check=1");
        let probe = delivery.method == Method::POST && delivery.is_form() && is_probe(&delivery.body);
        Ok(probe.then(|| Greeting::Answer(Answer::empty(StatusCode::OK))))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let (header, timestamp) = (proof::header(delivery, SIGNATURE)?, proof::header(delivery, TIMESTAMP)?);
        let digits = header.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('='));
        let signature = digits.and_then(decode_hex).ok_or_else(|| {
            Rejection::mismatch(format!("{SIGNATURE} is not `{VERSION}=` and the hex digits of a signature"))
        })?;
        let parts = signed_parts(timestamp, &delivery.body);
        let index = proof::signer(keys, &parts, &signature).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{SIGNATURE} was not made over this time and body with a secret of this source: the secrets differ (it is \
                 the app's signing secret, not a token), or the body was changed on its way"
            ))
        })?;
        proof::check_seconds(TIMESTAMP, timestamp, delivery.received_at, self.tolerance)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let reading = match Product::of(delivery)? {
            Product::Event(text) => events::read(text)?,
            Product::Command(form) => interactions::read_command(&form, &delivery.body),
            Product::Interaction(text) => interactions::read(&text)?,
        };
        Ok(vec![reading])
    }

    fn answer(&self, event: &Event, started: bool) -> Option<Answer> {
        Some(replies::at_once(event.delivery(), started))
    }

    fn retried(&self, delivery: &Delivery) -> Option<String> {
        let number = delivery.header("X-Slack-Retry-Num").ok()?;
        // It is not signed: a word for the log, and no more.
        let words = [Some(number), delivery.header("X-Slack-Retry-Reason").ok()];
        let is_plain = |word: &&str| {
            word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        let words: Vec<&str> = words.into_iter().flatten().filter(is_plain).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    fn follows_up(&self) -> bool {
        true
    }

    fn follow_up_refused(&self, delivery: &Delivery) -> Option<String> {
        replies::refused(delivery)
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

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let (kind, body) = as_sent(&unsent);
        let timestamp = unsent.now.as_seconds().to_string();
        let mac = key.and_then(|key| key.mac(&signed_parts(&timestamp, &body)));
        let headers = [
            ("User-Agent", always("Slackbot 1.0 (+https://api.slack.com/robots)")),
            ("Accept", always("*/*")),
            ("Content-Type", always(kind)),
            (SIGNATURE, mac.map(|mac| format!("{VERSION}={}", encode_hex(mac.as_ref())))),
            (TIMESTAMP, Some(timestamp)),
        ];
        proof::sent(headers, body)
    }
}

fn signed_parts<'p>(timestamp: &'p str, body: &'p [u8]) -> [&'p [u8]; 5] {
    [VERSION.as_bytes(), b":", timestamp.as_bytes(), b":", body]
}

/// The body as Slack sends it, with its content type: commands and interactions are forms. A body that is a form
/// already stays one.
fn as_sent(unsent: &Unsent<'_>) -> (&'static str, Bytes) {
    const FORM: &str = "application/x-www-form-urlencoded";
    let kind = unsent.event.split('.').next().unwrap_or_default();
    let number = number_for(unsent.delivery_id);
    let trigger = format!("{}.{}.{number}", &number[..12], &number[8..]);
    let mut form = form_urlencoded::Serializer::new(String::new());
    if kind == COMMAND {
        let body = with_values(&unsent.body, &["/trigger_id"], &trigger);
        return match serde_json::from_slice::<std::collections::BTreeMap<String, String>>(&body) {
            Ok(fields) => (FORM, form.extend_pairs(fields).finish().into()),
            Err(_) => (FORM, body),
        };
    }
    if INTERACTIONS.contains(&kind) {
        let body = with_values(&unsent.body, &["/trigger_id"], &trigger);
        return match std::str::from_utf8(&body) {
            Ok(payload) if payload.trim_start().starts_with('{') => {
                (FORM, form.append_pair("payload", payload).finish().into())
            }
            _ => (FORM, body),
        };
    }
    ("application/json", with_values(&unsent.body, &["/event_id"], &format!("Ev{number}")))
}
