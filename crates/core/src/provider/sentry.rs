//! Sentry's integration platform: `Sentry-Hook-Signature`, hex HMAC-SHA256 of the body with the integration's client secret,
//! and the event in `Sentry-Hook-Resource`.
//!
//! Only the body is signed. The resource, `Request-ID` and `Sentry-Hook-Timestamp` are headers beside it that whoever saw a
//! delivery can change, so that the time protects from nothing and is not looked at. `Request-ID` is made anew when
//! Sentry tries again (getsentry/sentry, `AppPlatformEvent`), so a delivery is known by its content.
//!
//! Requests of UI components (issue links, alert actions, choices of a field) have the same signature in
//! `Sentry-App-Signature`, no resource, and some an empty body, whose signature is always the same one. They are
//! handshakes here: nothing starts unless a trigger names `ui_component`.

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use http::Method;

use super::paths::{Found, Paths};
use super::proof::{self, always};
use super::{
    Answer, CredentialType, FilterField, Guide, InvalidKey, Key, Provider, Reading, Sample, Signed, Unreadable, Unsent,
    decode_hex, encode_hex, filter, is_name,
};
use crate::delivery::{Delivery, HeaderFault};
use crate::event::{Context, Event};
use crate::secret::Secret;
use crate::source::NamedKey;
use crate::verify::Rejection;

const SIGNATURE: &str = "Sentry-Hook-Signature";
const APP_SIGNATURE: &str = "Sentry-App-Signature";
const RESOURCE: &str = "Sentry-Hook-Resource";
const UI_COMPONENT: &str = "ui_component";

/// Internal and public integrations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sentry;

const EVENT: &[Cow<'static, str>] = &[Cow::Borrowed("event")];
const PROJECTS: &[Cow<'static, str>] =
    &[Cow::Borrowed("project"), Cow::Borrowed("project_id"), Cow::Borrowed("projects")];

static FILTERS: [FilterField; 4] = [
    filter("resources", EVENT, &[]),
    filter("events", EVENT, &[]),
    filter("actions", &[Cow::Borrowed("action")], &[]),
    filter("projects", PROJECTS, &[]),
];

static SAMPLES: [Sample; 6] = [
    sample!("sentry", "issue.created", "a new kind of error was seen"),
    sample!("sentry", "issue.resolved", "somebody resolved an issue"),
    sample!("sentry", "event_alert.triggered", "an alert rule found an error"),
    sample!("sentry", "metric_alert.critical", "a measure went over its critical threshold"),
    sample!("sentry", "error.created", "an error was recorded"),
    sample!("sentry", "comment.created", "somebody commented on an issue"),
];

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/action",
        "/installation/uuid",
        "/actor/type",
        "/actor/id",
        "/actor/name",
        "/data/installation/organization/slug",
        "/data/organizationSlug",
        "/data/project_slug",
        "/data/projectSlug",
        "/data/issue_id",
        "/data/comment_id",
        "/data/comment",
        "/data/timestamp",
        "/data/triggered_rule",
        "/data/description_title",
        "/data/description_text",
        "/data/web_url",
        "/data/metric_alert/projects/*",
        "/data/metric_alert/title",
        "/data/issue/id",
        "/data/issue/shortId",
        "/data/issue/title",
        "/data/issue/culprit",
        "/data/issue/web_url",
        "/data/issue/permalink",
        "/data/issue/level",
        "/data/issue/status",
        "/data/issue/project/slug",
        "/data/issue/project/id",
        "/data/issue/assignedTo/name",
        "/data/issue/assignedTo/email",
        "/data/event/event_id",
        "/data/event/title",
        "/data/event/web_url",
        "/data/event/url",
        "/data/event/project",
        "/data/event/level",
        "/data/event/environment",
        "/data/event/release",
        "/data/event/issue_id",
        "/data/error/event_id",
        "/data/error/title",
        "/data/error/web_url",
        "/data/error/url",
        "/data/error/project",
        "/data/error/level",
        "/data/error/environment",
        "/data/error/release",
        "/data/error/issue_id",
        "/project/slug",
        "/project/id",
        "/issueId",
        "/webUrl",
    ])
});

impl Provider for Sentry {
    fn name(&self) -> &str {
        "sentry"
    }

    fn guide(&self) -> Guide {
        Guide {
            title: Cow::Borrowed("Sentry"),
            setup: Cow::Borrowed(include_str!("../../guides/sentry.md")),
            identity: Cow::Borrowed(
                "Only the body is signed. The resource, the time and `Request-ID` are headers beside it, and the last one changes \
                 when Sentry tries again: an error is known by its `event_id` with the action and the rule, a comment by its \
                 id with action and time, everything else by its whole body. The time gives no safety from a delivery that \
                 somebody kept: it is the same event for as long as events are kept.",
            ),
        }
    }

    fn credential(&self) -> CredentialType {
        CredentialType { name: Cow::Borrowed("sentry_client_secret"), field: Cow::Borrowed("secret") }
    }

    fn filters(&self) -> &[FilterField] {
        &FILTERS
    }

    fn prepare(&self, secret: &Secret) -> Result<Key, InvalidKey> {
        Key::hmac(hmac::HMAC_SHA256, secret)
    }

    fn methods(&self) -> &[Method] {
        // The choices of a UI component's field are asked for with GET.
        const METHODS: [Method; 2] = [Method::POST, Method::GET];
        &METHODS
    }

    fn verify(&self, keys: &[NamedKey], delivery: &Delivery) -> Result<usize, Rejection> {
        let name = if is_of_component(delivery) { APP_SIGNATURE } else { SIGNATURE };
        let signature = decode_hex(proof::header(delivery, name)?)
            .ok_or_else(|| Rejection::mismatch(format!("{name} is not the hex digits of a signature")))?;
        proof::signer(keys, &[&delivery.body], &signature).ok_or_else(|| proof::foreign(name))
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
        let component = is_of_component(delivery);
        if component && delivery.body.is_empty() {
            let mut context = Context::default();
            context.set("event", UI_COMPONENT);
            return Ok(vec![Reading { context, delivery_id: Some(proof::content_id([])), handshake: true }]);
        }
        let found = proof::find(&PATHS, delivery)?;
        let event = if component { UI_COMPONENT } else { resource_of(delivery)? };
        Ok(vec![Reading {
            context: describe(event, &found),
            delivery_id: Some(delivery_id(&found, &delivery.body)),
            handshake: component,
        }])
    }

    fn answer(&self, event: &Event, _: bool) -> Option<Answer> {
        // A field without choices.
        (event.name() == UI_COMPONENT && event.delivery().body.is_empty()).then(|| Answer::json("[]"))
    }

    fn samples(&self) -> &[Sample] {
        &SAMPLES
    }

    fn sign(&self, key: Option<&Key>, unsent: Unsent<'_>) -> Signed {
        let resource = unsent.event.split('.').next().unwrap_or(unsent.event);
        let body = proof::fresh(unsent.body, unsent.delivery_id);
        let mac = key.and_then(|key| key.mac(&[&body]));
        let headers = [
            ("Content-Type", always("application/json")),
            ("User-Agent", always("sentry-webhooks/1.0")),
            ("Request-ID", always(unsent.delivery_id.replace('-', ""))),
            (RESOURCE, always(resource)),
            ("Sentry-Hook-Timestamp", always(unsent.now.as_seconds().to_string())),
            (SIGNATURE, mac.map(|mac| encode_hex(mac.as_ref()))),
        ];
        proof::sent(headers, body)
    }
}

/// Whether it is a request of a UI component: signed as one, and not as an event.
fn is_of_component(delivery: &Delivery) -> bool {
    delivery.headers.contains_key(APP_SIGNATURE) && delivery.header(SIGNATURE) == Err(HeaderFault::Missing)
}

fn resource_of(delivery: &Delivery) -> Result<&str, Unreadable> {
    let resource = delivery.header(RESOURCE).map_err(|fault| {
        Unreadable::broken(format!(
            "{RESOURCE} {fault}: Sentry names the event in it, once; a proxy may have changed it"
        ))
    })?;
    let spelled = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    match is_name(resource) && resource != UI_COMPONENT && resource.bytes().all(spelled) {
        true => Ok(resource),
        false => Err(Unreadable::broken(format!("{RESOURCE} is not a resource of Sentry, as `event_alert` is"))),
    }
}

/// What an error event and an event of an alert have alike.
fn occurrence<'f>(found: &'f Found<'_, '_>, field: &str) -> Option<Cow<'f, str>> {
    found.id(&format!("/data/event/{field}")).or_else(|| found.id(&format!("/data/error/{field}")))
}

fn delivery_id(found: &Found<'_, '_>, body: &[u8]) -> String {
    let action = found.text("/action").unwrap_or_default();
    let installation = found.text("/installation/uuid").unwrap_or_default();
    let told = |id: Cow<'_, str>, more: Cow<'_, str>| {
        proof::content_id([installation.as_bytes(), action.as_bytes(), id.as_bytes(), more.as_bytes()])
    };
    if let Some(event) = occurrence(found, "event_id") {
        return told(event, found.text("/data/triggered_rule").unwrap_or_default());
    }
    if let Some(comment) = found.id("/data/comment_id") {
        return told(comment, found.id("/data/timestamp").unwrap_or_default());
    }
    proof::content_id([body])
}

fn describe(event: &str, found: &Found<'_, '_>) -> Context {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", found.text("/action").filter(|action| is_name(action)));
    let api_url = occurrence(found, "url");
    let place = api_url.as_deref().and_then(place_in);
    let org = first(&["/data/installation/organization/slug", "/data/organizationSlug"]);
    context.set_some("org", org.or(place.map(|(org, _)| Cow::Borrowed(org))));
    let project = first(&["/data/issue/project/slug", "/data/project_slug", "/data/projectSlug", "/project/slug"]);
    context.set_some("project", project.or(place.map(|(_, project)| Cow::Borrowed(project))));
    let project_id = first(&["/data/issue/project/id", "/project/id"]);
    context.set_some("project_id", project_id.or_else(|| occurrence(found, "project")));
    let projects = found.texts("/data/metric_alert/projects/*");
    context.set_some("projects", (!projects.is_empty()).then_some(projects));
    let title = first(&["/data/issue/title", "/data/description_title", "/data/metric_alert/title"]);
    context.set_some("title", title.or_else(|| occurrence(found, "title")));
    context.set_some("body", first(&["/data/issue/culprit", "/data/description_text"]));
    let url = first(&["/data/issue/web_url", "/data/issue/permalink", "/data/web_url", "/webUrl"]);
    context.set_some("url", url.or_else(|| occurrence(found, "web_url")));
    let issue = first(&["/data/issue/id", "/data/issue_id", "/issueId"]);
    context.set_some("issue", issue.or_else(|| occurrence(found, "issue_id")));
    context.set_some("short_id", found.text("/data/issue/shortId"));
    context.set_some("event_id", occurrence(found, "event_id"));
    context.set_some("level", found.text("/data/issue/level").or_else(|| occurrence(found, "level")));
    context.set_some("environment", occurrence(found, "environment"));
    context.set_some("release", occurrence(found, "release"));
    context.set_some("state", found.text("/data/issue/status"));
    context.set_some("assignee", first(&["/data/issue/assignedTo/email", "/data/issue/assignedTo/name"]));
    context.set_some("comment", found.text("/data/comment"));
    context.set_some("rule", found.text("/data/triggered_rule"));
    context.set_some("sender", first(&["/actor/name", "/actor/id"]));
    context.set_some("sender_type", found.text("/actor/type"));
    context
}

/// The organisation and the project in an API URL: `https://sentry.io/api/0/projects/acme/shop/events/…`.
fn place_in(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("/api/0/projects/")?;
    let mut parts = rest.split('/');
    let (org, project) = (parts.next()?, parts.next()?);
    (!org.is_empty() && !project.is_empty()).then_some((org, project))
}
