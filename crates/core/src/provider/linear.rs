//! Linear: `Linear-Signature`, hex HMAC-SHA256 of the body, whose `webhookTimestamp` says when it was sent.
//!
//! The time in the signed body must be there and be near (Linear's SDK 98 asks the same); `Linear-Timestamp`,
//! `Linear-Event` and `Linear-Delivery` are headers beside the signature, and nothing here follows them. Linear sends a
//! delivery again after a minute, an hour and six hours, unless the answer is exactly 200, which is the gateway's own
//! for every event that it took (<https://linear.app/developers/webhooks>).
//!
//! Events are named as an older receiver of agents has them: `issues`, `issue_comment`, else the type in snake case.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::hmac;

use super::identity::with_values;
use super::paths::Paths;
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_hex, encode_hex, filter, is_name, json,
};
use crate::delivery::Delivery;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::time::Timestamp;
use crate::verify::Rejection;

mod reading;

const SIGNATURE: &str = "Linear-Signature";
const SENT_AT: &str = "/webhookTimestamp";

/// Webhooks of a workspace or of an OAuth application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// How far the signed time may be from the time of receipt, either way.
    pub tolerance: Duration,
}

impl Default for Linear {
    /// With the window that Linear's SDK has: one minute.
    fn default() -> Self {
        Self { tolerance: Duration::from_secs(60) }
    }
}

type Names = &'static [Cow<'static, str>];

const ORGANIZATION: Names = &[Cow::Borrowed("org"), Cow::Borrowed("workspace")];
const ASSIGNEE: Names = &[Cow::Borrowed("assignee"), Cow::Borrowed("assignee_name"), Cow::Borrowed("assignee_id")];
const AUTHOR: Names = &[Cow::Borrowed("author"), Cow::Borrowed("author_name"), Cow::Borrowed("author_id")];

static FILTERS: [FilterField; 6] = [
    filter("organizations", ORGANIZATION, &[]),
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("labels", &[Cow::Borrowed("labels")], &[]),
    filter("assignee", ASSIGNEE, &[]),
    filter("author", AUTHOR, &[]),
];

static SAMPLES: [Sample; 6] = [
    sample!("linear", "issues.create", "somebody filed an issue, labelled `bug`"),
    sample!("linear", "issues.update", "an issue was assigned and moved to another state"),
    sample!("linear", "issue_comment.create", "somebody commented on an issue"),
    sample!("linear", "issue_label.create", "a label was made"),
    sample!("linear", "project.update", "a project was moved to another date"),
    sample!("linear", "agent_session_event.created", "somebody delegated an issue to an agent"),
];

static TIME: LazyLock<Paths> = LazyLock::new(|| Paths::known(&[SENT_AT]));

impl Provider for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Linear"),
            setup: Cow::Borrowed(include_str!("../../guides/linear.md")),
            identity: Cow::Borrowed(
                "The body is signed, and the time in it (`webhookTimestamp`); a delivery whose time is further from now than \
                 `tolerance` is refused. `Linear-Delivery` is a header beside the signature, so a delivery is known by its \
                 body without that time, which is the same when it is sent again.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("linear_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn spelling<'v>(&self, field: &str, value: &'v str) -> Cow<'v, str> {
        let action = |action: &'v str| if action == "delete" { "remove" } else { action };
        match field {
            "actions" => Cow::Borrowed(action(value)),
            "events" => match value.split_once('.') {
                Some((event, of_event)) => Cow::Owned(format!("{}.{}", event_named(event), action(of_event))),
                None => event_named(value),
            },
            _ => Cow::Borrowed(value),
        }
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let signature = decode_hex(proof::header(delivery, SIGNATURE)?)
            .ok_or_else(|| Rejection::mismatch(format!("{SIGNATURE} is not the hex digits of a signature")))?;
        let index = proof::signer(keys, &[&delivery.body], &signature).ok_or_else(|| proof::foreign(SIGNATURE))?;
        self.check_age(delivery)?;
        Ok(index)
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let text = proof::object_text(delivery)?;
        let found = proof::find_in(&reading::PATHS, text)?;
        let kind = found.text("/type").filter(|kind| is_name(kind));
        let kind = kind.ok_or_else(|| Unreadable::broken("the body has no `type`: it is not an event of Linear"))?;
        let context = reading::describe(&event_named(&kind), &found);
        let delivery_id = reading::id_of(text).map_err(|error| Unreadable::broken(error.to_string()))?;
        Ok(vec![Reading { context, delivery_id: Some(delivery_id), handshake: false }])
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
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let body = with_values(&body, &[SENT_AT], &unsent.now.as_millis().to_string());
        let kind = json::text_of(&body).ok().and_then(|text| {
            let found = reading::PATHS.find(text).ok()?;
            found.text("/type").map(Cow::into_owned)
        });
        let mac = key.and_then(|key| key.mac(&[&body]));
        let headers = [
            ("Content-Type", always("application/json; charset=utf-8")),
            ("User-Agent", always("Linear-Webhook")),
            ("Linear-Delivery", always(unsent.delivery_id)),
            ("Linear-Event", kind.filter(|kind| is_name(kind) && kind.is_ascii())),
            ("Linear-Timestamp", always(unsent.now.as_millis().to_string())),
            (SIGNATURE, mac.map(|mac| encode_hex(mac.as_ref()))),
        ];
        proof::sent(headers, body)
    }
}

impl Linear {
    /// The time in the body, which is known to be Linear's. What is no object cannot have one, and is no event either.
    fn check_age(self, delivery: &Delivery) -> Result<(), Rejection> {
        let Some(text) = json::text_of(&delivery.body).ok().filter(|text| proof::is_object(text)) else {
            return Ok(());
        };
        let Ok(found) = TIME.find(text) else { return Ok(()) };
        let millis = found.number(SENT_AT).ok_or_else(|| {
            Rejection::mismatch("the body has no `webhookTimestamp` with the milliseconds at which it was sent")
        })?;
        let sent = Timestamp::from_millis(millis);
        proof::check_age("`webhookTimestamp`", sent, delivery.received_at, self.tolerance)
    }
}

/// The name that events of a type have: `issues`, `issue_comment`, else in snake case, with `SLA` as one word.
fn event_named(kind: &str) -> Cow<'_, str> {
    match kind {
        "Issue" => Cow::Borrowed("issues"),
        "Comment" => Cow::Borrowed("issue_comment"),
        "oauth_app" => Cow::Borrowed("o_auth_app"),
        _ if kind.bytes().all(|byte| !byte.is_ascii_uppercase()) => Cow::Borrowed(kind),
        _ => Cow::Owned(in_snake_case(kind)),
    }
}

fn in_snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(index + 1);
        let begins = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)
            });
        if begins {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_as_the_older_receiver_has_them() {
        for (kind, event) in [
            ("Issue", "issues"),
            ("Comment", "issue_comment"),
            ("IssueLabel", "issue_label"),
            ("IssueSLA", "issue_sla"),
            ("ProjectUpdate", "project_update"),
            ("AgentSessionEvent", "agent_session_event"),
            ("OAuthApp", "o_auth_app"),
            ("oauth_app", "o_auth_app"),
            ("issues", "issues"),
        ] {
            assert_eq!(event_named(kind), event);
        }
    }
}
