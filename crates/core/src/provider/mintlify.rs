//! Mintlify, as far as it is known: hex HMAC-SHA256 of the body in `X-Mintlify-Signature` or `Mintlify-Signature`.
//!
//! Mintlify documents no outgoing webhooks (mintlify/docs at 3bbce7aa1 of August 2026 has none). The shape is the one that
//! Action-Llama's receiver takes, and everything about it is optional. A body need not say which build it is about, so
//! two builds may have the very same one: such a delivery has no id, and is an event of its own each time.

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_lc_rs::hmac;

use super::paths::{Found, Paths};
use super::proof::{self, always};
use super::{
    CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_hex, encode_hex, filter, is_name,
};
use crate::delivery::Delivery;
use crate::event::Context;
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

const SIGNATURES: [&str; 2] = ["X-Mintlify-Signature", "Mintlify-Signature"];

/// Builds of documentation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mintlify;

static FILTERS: [FilterField; 4] = [
    filter("projects", &[Cow::Borrowed("project"), Cow::Borrowed("org")], &[]),
    filter("events", &[Cow::Borrowed("event")], &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("branches", &[Cow::Borrowed("branch")], &[]),
];

static SAMPLES: [Sample; 5] = [
    Sample::new(
        "build.failed",
        "a build failed on a broken link",
        r#"{"event":"build","action":"failed","id":"doorbell-sample","project":"acme-docs","branch":"main","title":"Build failed","error":"Broken link: /guides/instal in quickstart.mdx","url":"https://dashboard.example.com/acme/builds/311","commit":"4be1c0d9","user":{"email":"robin@example.com","name":"Robin Doe"},"timestamp":"2026-11-21T08:00:00Z"}"#,
    ),
    Sample::new(
        "build.succeeded",
        "a build went through",
        r#"{"event":"build","status":"succeeded","id":"doorbell-sample","project":"acme-docs","branch":"main","url":"https://dashboard.example.com/acme/builds/312","commit":"90c2f7aa","user":{"email":"robin@example.com"},"timestamp":"2026-11-21T08:20:00Z"}"#,
    ),
    Sample::new(
        "build.started",
        "a build began",
        r#"{"event":"build","status":"started","id":"doorbell-sample","project":"acme-docs","branch":"next","commit":"0aa7d3e1","timestamp":"2026-11-21T08:19:00Z"}"#,
    ),
    Sample::new(
        "preview.succeeded",
        "a preview of a pull request is ready",
        r#"{"event":"preview","status":"succeeded","id":"doorbell-sample","project":"acme-docs","branch":"fix/quickstart","url":"https://preview.example.com/acme-docs-fix-quickstart","timestamp":"2026-11-21T08:30:00Z"}"#,
    ),
    Sample::new(
        "preview.failed",
        "a preview of a pull request could not be built",
        r#"{"event":"preview","status":"failed","id":"doorbell-sample","project":"acme-docs","branch":"fix/tabs","message":"docs.json: unknown page `tabs/new`","timestamp":"2026-11-21T08:40:00Z"}"#,
    ),
];

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/id",
        "/event",
        "/action",
        "/status",
        "/project",
        "/organization",
        "/branch",
        "/git/branch",
        "/commit",
        "/title",
        "/message",
        "/error",
        "/description",
        "/url",
        "/build_url",
        "/logs_url",
        "/user/email",
        "/user/name",
        "/timestamp",
    ])
});

impl Provider for Mintlify {
    fn name(&self) -> &str {
        "mintlify"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Mintlify"),
            setup: Cow::Borrowed(include_str!("../../guides/mintlify.md")),
            identity: Cow::Borrowed(
                "The body is signed, without a time. Deliveries with the same body are the same event if the body has an `id`, a \
                 `commit` or a `timestamp`; one that has none of them is an event of its own each time it comes, because \
                 two builds may say the same.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("mintlify_webhook_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let there = SIGNATURES.iter().filter(|name| delivery.headers.contains_key(**name));
        let name = *match there.clone().count() {
            0 | 1 => there.clone().next().unwrap_or(&SIGNATURES[0]),
            _ => return Err(Rejection::mismatch("the signature is there in two headers")),
        };
        let signature = decode_hex(proof::header(delivery, name)?)
            .ok_or_else(|| Rejection::mismatch(format!("{name} is not the hex digits of a signature")))?;
        proof::signer(keys, &[&delivery.body], &signature).ok_or_else(|| proof::foreign(name))
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let found = proof::find(&PATHS, delivery)?;
        let told = ["/id", "/commit", "/timestamp"].iter().any(|pointer| found.id(pointer).is_some());
        let delivery_id = told.then(|| proof::content_id([&*delivery.body]));
        Ok(vec![Reading { context: describe(&found), delivery_id, handshake: false }])
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let mac = key.and_then(|key| key.mac(&[&body]));
        let headers =
            [("Content-Type", always("application/json")), (SIGNATURES[0], mac.map(|mac| encode_hex(mac.as_ref())))];
        proof::sent(headers, body)
    }
}

fn describe(found: &Found<'_, '_>) -> Context {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    let event = found.text("/event").filter(|event| is_name(event));
    let action = first(&["/action", "/status"]).filter(|action| is_name(action));
    let conclusion = action.as_deref().and_then(|action| match action {
        "failed" | "failure" => Some("failure"),
        "succeeded" | "success" => Some("success"),
        _ => None,
    });
    let mut context = Context::default();
    context.set("event", event.unwrap_or(Cow::Borrowed("build")));
    context.set_some("conclusion", conclusion);
    context.set_some("action", action);
    context.set_some("project", first(&["/project", "/organization"]));
    context.set_some("org", found.text("/organization"));
    context.set_some("title", found.text("/title"));
    context.set_some("body", first(&["/error", "/message", "/description"]));
    context.set_some("url", first(&["/url", "/build_url", "/logs_url"]));
    context.set_some("branch", first(&["/branch", "/git/branch"]));
    context.set_some("commit", found.text("/commit"));
    context.set_some("sender", first(&["/user/email", "/user/name"]));
    context
}
