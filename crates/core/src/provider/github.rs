//! GitHub: `X-Hub-Signature-256`, an event in `X-GitHub-Event`, a payload as JSON or as a form that carries it.
//!
//! The event's name and the delivery's id are headers, and GitHub signs the body only: whoever saw a signed delivery
//! can send it again under another name or id. `dedup = "id_or_body"` is the answer to that.

use std::borrow::Cow;

use aws_lc_rs::{digest, hmac};

use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_hex, encode_hex, filter, json,
};
use crate::delivery::Delivery;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

mod names;
mod payload;
mod reading;

const SIGNATURE: &str = "X-Hub-Signature-256";
const EVENT: &str = "X-GitHub-Event";
const DELIVERY: &str = "X-GitHub-Delivery";
const LONGEST_EVENT: usize = 100;

/// Webhooks of repositories, organisations and GitHub Apps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Github;

type Names = &'static [Cow<'static, str>];

const ORG: Names = &[Cow::Borrowed("org")];
const ASSIGNEES: Names = &[Cow::Borrowed("assignee"), Cow::Borrowed("assignees")];
const BRANCHES: Names = &[Cow::Borrowed("branch"), Cow::Borrowed("branches")];
const CONCLUDED: Names = &[
    Cow::Borrowed("workflow_run"),
    Cow::Borrowed("workflow_job"),
    Cow::Borrowed("check_run"),
    Cow::Borrowed("check_suite"),
];

static FILTERS: [FilterField; 10] = [
    filter("repos", &[Cow::Borrowed("repo")], &[]),
    filter("orgs", ORG, &[]),
    filter("org", ORG, &[]),
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("labels", &[Cow::Borrowed("labels")], &[]),
    filter("assignee", ASSIGNEES, &[]),
    filter("author", &[Cow::Borrowed("author")], &[]),
    filter("branches", BRANCHES, &[]),
    filter("conclusions", &[Cow::Borrowed("conclusion")], CONCLUDED),
];

static SAMPLES: [Sample; 9] = [
    sample!("github", "issues.opened", "somebody opened an issue, labelled `bug`"),
    sample!("github", "issues.labeled", "a maintainer labelled an issue `help wanted`"),
    sample!("github", "issue_comment.created", "somebody commented on another one's issue"),
    sample!("github", "pull_request.opened", "somebody opened a pull request"),
    sample!("github", "pull_request_review.submitted", "a reviewer asked for changes"),
    sample!("github", "push", "a commit was pushed to `main`"),
    sample!("github", "workflow_run.completed", "a workflow failed on a pull request's branch"),
    sample!("github", "release.published", "a version was released"),
    sample!("github", "ping", "the webhook was just created"),
];

impl Provider for Github {
    fn name(&self) -> &str {
        "github"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("GitHub"),
            setup: Cow::Borrowed(include_str!("../../guides/github.md")),
            identity: Cow::Borrowed(
                "The body is signed. The event's name and the delivery's id are headers beside it: the id \
                 (`X-GitHub-Delivery`, the same when a delivery is sent again) tells redeliveries, and \
                 `dedup = \"id_or_body\"` also the same body under another id.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("github_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn events(&self) -> &[&'static str] {
        names::EVENTS
    }

    fn actions(&self) -> &[&'static str] {
        names::ACTIONS
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    /// Logins have no case, and the account of an app is its name with `[bot]` behind it.
    fn is_sender(&self, ignored: &str, sender: &str) -> bool {
        let rest = sender.split_at_checked(ignored.len()).filter(|(name, _)| name.eq_ignore_ascii_case(ignored));
        rest.is_some_and(|(_, rest)| rest.is_empty() || rest.eq_ignore_ascii_case("[bot]"))
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn make_secret(&self, random: [u8; 32]) -> Option<Secret> {
        Some(Secret::new(encode_hex(&random)))
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        // Never the SHA-1 beside it: whoever can forge that one would choose it.
        let header = proof::header(delivery, SIGNATURE)?;
        let signature = header.strip_prefix("sha256=").and_then(decode_hex).ok_or_else(|| {
            Rejection::mismatch(format!("{SIGNATURE} is not `sha256=` and the hex digits of a signature"))
        })?;
        proof::signer(keys, &[&delivery.body], &signature).ok_or_else(|| {
            Rejection::mismatch(format!(
                "{SIGNATURE} was not made over this body with a secret of this source: the secrets differ, or the body \
                 was changed on its way"
            ))
        })
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let event = event_of(delivery)?;
        let text = payload_of(delivery)?;
        let payload = json::read(&text).map_err(|error| Unreadable::broken(format!("the payload: {error}")))?;
        Ok(vec![Reading {
            context: reading::describe(event, &payload),
            delivery_id: Some(delivery_id(delivery, event)),
            handshake: event == "ping",
        }])
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let Unsent { event, body, delivery_id, .. } = unsent;
        let name = event.split('.').next().unwrap_or(event);
        let mac = key.and_then(|key| key.mac(&[&body]));
        let headers = [
            ("User-Agent", always("GitHub-Hookshot/0d00be1")),
            ("Accept", always("*/*")),
            ("Content-Type", always("application/json")),
            (EVENT, always(name)),
            (DELIVERY, always(delivery_id)),
            ("X-GitHub-Hook-ID", always("510000001")),
            ("X-GitHub-Hook-Installation-Target-ID", always("810000001")),
            ("X-GitHub-Hook-Installation-Target-Type", always("repository")),
            (SIGNATURE, mac.map(|mac| format!("sha256={}", encode_hex(mac.as_ref())))),
        ];
        proof::sent(headers, body)
    }
}

fn event_of(delivery: &Delivery) -> Result<&str, Unreadable> {
    let event = delivery.header(EVENT).map_err(|fault| {
        Unreadable::broken(format!(
            "{EVENT} {fault}: GitHub sends the event's name in it, once; a proxy may have changed it"
        ))
    })?;
    let spelled = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if event.len() > LONGEST_EVENT || !event.bytes().all(spelled) {
        return Err(Unreadable::broken(format!(
            "{EVENT} is not an event's name: at most {LONGEST_EVENT} of `a-z`, `0-9` and `_`, as in `pull_request`"
        )));
    }
    Ok(event)
}

fn payload_of(delivery: &Delivery) -> Result<Cow<'_, str>, Unreadable> {
    if delivery.is_form() {
        let payload = form_urlencoded::parse(&delivery.body).find(|(field, _)| field == "payload");
        let (_, text) = payload.ok_or_else(|| Unreadable::broken("the form has no field `payload`"))?;
        return Ok(match text.strip_prefix('\u{feff}') {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => text,
        });
    }
    let kind = delivery.content_type();
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/json") {
        return Err(Unreadable::wrong_type(
            "the content type is neither application/json nor application/x-www-form-urlencoded: choose one of them in \
             the webhook's settings",
        ));
    }
    json::text_of(&delivery.body)
        .map(Cow::Borrowed)
        .map_err(|error| Unreadable::broken(format!("the payload is not UTF-8: {error}")))
}

/// GitHub repeats the id when it sends a delivery again. Where it was lost on the way, the same event with the same
/// body is the same delivery.
fn delivery_id(delivery: &Delivery, event: &str) -> String {
    if let Ok(id) = delivery.header(DELIVERY) {
        return id.to_owned();
    }
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(event.as_bytes());
    digest.update(b"\n");
    digest.update(&delivery.body);
    format!("sha256:{}", encode_hex(digest.finish().as_ref()))
}
