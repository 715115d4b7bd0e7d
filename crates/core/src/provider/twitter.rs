//! X, once Twitter: webhooks of Account Activity, X Activity and the filtered stream.
//!
//! `X-Twitter-Webhooks-Signature: sha256=<base64 HMAC-SHA256 of the body>` with the app's consumer secret, or the same in
//! `X-Twitter-Webhooks-Signature-OAuth2` with its OAuth 2.0 client secret; an app that has both may send both
//! (<https://docs.x.com/x-api/webhooks/introduction#signature-headers>). Either secret may be the credential, and a
//! signature of any of a source's secrets, in either header, proves the sender. No time is signed.
//!
//! By GET, X asks whether the secret is known, when a webhook is registered and every so often: the challenge-response
//! check (<https://docs.x.com/x-api/webhooks/quickstart#2-the-crc-check>). Its answer is the same HMAC, of a text that
//! whoever asks has chosen: without care, anybody could have any body signed. So texts and bodies are kept apart: what
//! starts like a JSON object is not answered, and what is not a JSON object is not an event.
//!
//! The three products are told apart by shape. The lists of Account Activity can hold several events
//! (<https://docs.x.com/x-api/account-activity/introduction>); each is an event of its own here, named by its list
//! (`tweet_create_events`), with the `type` of the element as its action (`follow_events.unfollow`).

use std::borrow::Cow;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::Method;

use super::identity::{number_for, with_values};
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Greeting, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable,
    Unsent, decode_base64, encode_base64, filter,
};
use crate::delivery::Delivery;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

mod account;
mod challenge;
mod reading;

const SIGNATURE: &str = "X-Twitter-Webhooks-Signature";
const OAUTH2_SIGNATURE: &str = "X-Twitter-Webhooks-Signature-OAuth2";
const PREFIX: &str = "sha256=";

/// An app of X.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Twitter;

static ALIASES: [Cow<'static, str>; 1] = [Cow::Borrowed("x")];

static FILTERS: [FilterField; 2] =
    [filter("events", &[Cow::Borrowed("event")], &[]), filter("users", &[Cow::Borrowed("user")], &[])];

static SAMPLES: [Sample; 9] = [
    sample!("twitter", "tweet_create_events", "somebody mentioned the account"),
    sample!("twitter", "favorite_events", "somebody liked a post of the account"),
    sample!("twitter", "follow_events.follow", "somebody followed the account"),
    sample!("twitter", "direct_message_events.message_create", "somebody sent the account a message"),
    sample!("twitter", "tweet_delete_events", "the account deleted a post"),
    sample!("twitter", "user_event.revoke", "the account took the app's permission away"),
    sample!("twitter", "post.create", "X Activity: an account posted"),
    sample!("twitter", "profile.update.bio", "X Activity: an account changed its profile"),
    sample!("twitter", "filtered_stream", "a post matched a rule of the filtered stream"),
];

/// What is another one in each delivery of a sample.
const IDS: [&str; 7] = [
    "/data/event_uuid",
    "/data/id",
    "/tweet_create_events/0/id",
    "/tweet_create_events/0/id_str",
    "/favorite_events/0/id",
    "/direct_message_events/0/id",
    "/tweet_delete_events/0/status/id",
];

/// Where there is no id, the time at which it happened is another one: in milliseconds, …
const MILLISECONDS: [&str; 1] = ["/follow_events/0/created_timestamp"];

/// … and in seconds, as RFC 3339.
const MOMENTS: [&str; 1] = ["/user_event/revoke/date_time"];

impl Provider for Twitter {
    fn name(&self) -> &str {
        "twitter"
    }

    fn aliases(&self) -> &[Cow<'static, str>] {
        &ALIASES
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("X (Twitter)"),
            setup: Cow::Borrowed(include_str!("../../guides/twitter.md")),
            identity: Cow::Borrowed(
                "The body is signed; no time is, so that an old delivery can only be told by its ids, which stand in the \
                 body. They are the `event_uuid` of X Activity, the post's id in the filtered stream, and in Account \
                 Activity the subscribed user, the list and the element's id; an element without one (follows, blocks, \
                 mutes, typing, reading) is known by who did it to whom and when.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("x_twitter_api"), field: Cow::Borrowed("consumer_secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn methods(&self) -> &[Method] {
        const BOTH: [Method; 2] = [Method::POST, Method::GET];
        &BOTH
    }

    fn greet(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<Option<Greeting>, Rejection> {
        match delivery.method {
            Method::GET => challenge::answer(keys, &delivery.url).map(Some),
            _ => Ok(None),
        }
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let mut signatures = Vec::new();
        for name in [OAUTH2_SIGNATURE, SIGNATURE] {
            if !delivery.headers.contains_key(name) {
                continue;
            }
            let signature = proof::header(delivery, name)?.strip_prefix(PREFIX).and_then(decode_base64);
            signatures.push(signature.ok_or_else(|| {
                Rejection::mismatch(format!("{name} is not `{PREFIX}` and the base64 of a signature"))
            })?);
        }
        if signatures.is_empty() {
            return Err(Rejection::missing(&format!("the header {SIGNATURE}")));
        }
        let made_one = |named: &NamedKey| signatures.iter().any(|one| named.key.signs(&[&delivery.body], one));
        keys.iter().position(made_one).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{SIGNATURE} was not made over this body with a secret of this source: the secrets differ (it is the \
                 app's consumer secret or its OAuth 2.0 client secret, not a token), or the body was changed on its way"
            ))
        })
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        reading::read(delivery)
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let body = fresh(&unsent.body, unsent.delivery_id, unsent.now);
        let mac = key.and_then(|key| key.mac(&[&body]));
        let headers = [
            ("User-Agent", always("TwitterBot/1.0")),
            ("Content-Type", always("application/json; charset=utf-8")),
            (SIGNATURE, mac.map(|mac| format!("{PREFIX}{}", encode_base64(mac.as_ref())))),
        ];
        proof::sent(headers, body)
    }
}

/// A sample that is another one each time: an id of its own, or a time within the last day.
fn fresh(body: &Bytes, delivery_id: &str, now: Timestamp) -> Bytes {
    let number = number_for(delivery_id);
    let ago = Duration::from_millis(number.parse::<u64>().unwrap_or_default() % 86_400_000);
    let happened = now.before(ago);
    let second = Timestamp::from_seconds(happened.as_seconds()).to_string().replace(".000Z", "+00:00");
    let body = with_values(body, &IDS, &number);
    let body = with_values(&body, &MILLISECONDS, &happened.as_millis().to_string());
    with_values(&body, &MOMENTS, &second)
}
