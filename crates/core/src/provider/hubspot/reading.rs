//! What HubSpot's bodies say: a list of events, one object of a workflow, or a query.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::signed_url;
use crate::delivery::Delivery;
use crate::event::Context;
use crate::provider::paths::{self, Found, Paths};
use crate::provider::{Reading, Unreadable, address, is_name, json, proof};

/// HubSpot puts at most a hundred into one body.
const MOST_EVENTS: usize = 1_000;

static EVENT: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/subscriptionType",
        "/eventType",
        "/eventId",
        "/portalId",
        "/appId",
        "/objectId",
        "/objectTypeId",
        "/propertyName",
        "/propertyValue",
        "/changeSource",
        "/changeFlag",
        "/sourceId",
        "/fromObjectId",
        "/toObjectId",
        "/associationType",
        "/messageId",
        "/callbackId",
        "/origin/portalId",
        "/origin/actionDefinitionId",
        "/object/objectId",
        "/object/objectType",
        "/portal-id",
        "/hs_object_id",
        "/vid",
    ])
});

/// Reads a delivery.
pub(super) fn read(delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
    if delivery.body.is_empty() && delivery.method == http::Method::GET {
        return Ok(vec![of_query(delivery)]);
    }
    if delivery.is_form() {
        return Err(Unreadable::wrong_type("the content type is a form; HubSpot sends JSON"));
    }
    let text = proof::text_of(delivery)?;
    match text.trim_start().chars().next() {
        Some('[') => several(&paths::elements(text).map_err(proof::not_json)?),
        Some('{') => {
            let found = proof::find_in(&EVENT, text)?;
            let id = match found.text("/callbackId") {
                Some(id) => id.into_owned(),
                None => proof::content_id([signed_url(&delivery.url).as_bytes(), &*delivery.body]),
            };
            Ok(vec![Reading { context: of_workflow(&found), delivery_id: Some(id), handshake: false }])
        }
        _ => Err(Unreadable::broken("the body is neither a list of events nor an object of a workflow")),
    }
}

fn several(texts: &[&str]) -> Result<Vec<Reading>, Unreadable> {
    if texts.is_empty() || texts.len() > MOST_EVENTS {
        return Err(Unreadable::broken(format!("the body has {} events, not 1 to {MOST_EVENTS}", texts.len())));
    }
    let mut readings: Vec<Reading> = Vec::with_capacity(texts.len());
    let mut known = std::collections::HashSet::with_capacity(texts.len());
    for text in texts {
        if !proof::is_object(text) {
            return Err(Unreadable::broken("an event in the body is not a JSON object"));
        }
        let broken =
            |error: crate::provider::json::NotJson| Unreadable::broken(format!("an event in the body: {error}"));
        let found = EVENT.find(text).map_err(broken)?;
        let kind = found.text("/subscriptionType").or_else(|| found.text("/eventType")).filter(|kind| is_name(kind));
        let kind = kind.ok_or_else(|| Unreadable::broken("an event in the body has no `subscriptionType`"))?;
        let Lasting(parts) = json::read(text).map_err(broken)?;
        let delivery_id = proof::content_id(parts.iter().flat_map(|(name, raw)| [name.as_bytes(), raw.as_bytes()]));
        if known.insert(delivery_id.clone()) {
            let context = of_event(&kind, &found);
            readings.push(Reading { context, delivery_id: Some(delivery_id), handshake: false });
        }
    }
    Ok(readings)
}

/// Everything of an event that stays the same when it is sent again.
#[derive(Default)]
struct Lasting<'a>(Vec<(String, &'a str)>);

impl<'de> json::Object<'de> for Lasting<'de> {
    fn field(&mut self, name: &str, value: &mut json::Cursor<'de>) -> Result<(), json::Stop> {
        match name {
            "attemptNumber" => json::skip(value)?,
            _ => self.0.push((name.to_owned(), json::raw(value)?)),
        }
        Ok(())
    }
}

fn of_event(kind: &str, found: &Found<'_, '_>) -> Context {
    let (event, action) = proof::split_name(kind);
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", action);
    for (field, pointer) in [
        ("portal", "/portalId"),
        ("app", "/appId"),
        ("object", "/objectId"),
        ("object_type", "/objectTypeId"),
        ("property", "/propertyName"),
        ("value", "/propertyValue"),
        ("from", "/fromObjectId"),
        ("to", "/toObjectId"),
        ("association", "/associationType"),
        ("message", "/messageId"),
        ("change", "/changeFlag"),
        ("source", "/changeSource"),
        ("sender", "/sourceId"),
        ("event_id", "/eventId"),
    ] {
        context.set_some(field, found.id(pointer));
    }
    context
}

fn of_workflow(found: &Found<'_, '_>) -> Context {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let mut context = Context::default();
    context.set("event", if found.has("/callbackId") { "workflow_action" } else { "workflow" });
    context.set_some("portal", first(&["/origin/portalId", "/portalId", "/portal-id"]));
    context.set_some("object", first(&["/object/objectId", "/objectId", "/hs_object_id", "/vid"]));
    context.set_some("object_type", first(&["/object/objectType", "/objectTypeId"]));
    context.set_some("definition", first(&["/origin/actionDefinitionId"]));
    context.set_some("callback", first(&["/callbackId"]));
    context
}

/// A `GET` says everything in its query. Whoever saw one can escape characters of its URL without another signature, so it is
/// read and known as it is signed.
fn of_query(delivery: &Delivery) -> Reading {
    let url = signed_url(&delivery.url);
    let field = |wanted: &[&str]| {
        address::query(&url)
            .find(|(name, value)| wanted.contains(&&**name) && !value.is_empty())
            .map(|(_, value)| value)
    };
    let mut context = Context::default();
    context.set("event", "request");
    context.set_some("portal", field(&["portalId"]));
    context.set_some("object", field(&["associatedObjectId", "objectId", "hs_object_id"]));
    context.set_some("object_type", field(&["associatedObjectType", "objectType"]));
    context.set_some("sender", field(&["userEmail", "userId"]).map(Cow::into_owned));
    Reading { context, delivery_id: Some(proof::content_id([url.as_bytes()])), handshake: false }
}
