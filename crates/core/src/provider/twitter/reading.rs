//! What a delivery of X says.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::account;
use crate::delivery::Delivery;
use crate::event::Context;
use crate::provider::paths::{Found, Paths, names};
use crate::provider::proof::content_id;
use crate::provider::{Reading, Unreadable, is_name, json};

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/for_user_id",
        "/user_event",
        "/user_event/revoke/date_time",
        "/user_event/revoke/source/user_id",
        "/user_event/revoke/target/app_id",
        "/data/event_type",
        "/data/event_uuid",
        "/data/tag",
        "/data/filter/user_id",
        "/data/filter/keyword",
        "/data/payload/id",
        "/data/payload/text",
        "/data/payload/author_id",
        "/data/payload/sender_id",
        "/data/payload/source/id",
        "/data/payload/target/id",
        "/data/payload/before",
        "/data/payload/after",
        "/data/id",
        "/data/text",
        "/data/author_id",
        "/data/lang",
        "/includes/users/0/username",
        "/matching_rules/*/tag",
        "/replay_job_status/job_id",
        "/replay_job_status/job_state",
    ])
});

/// Reads a delivery. A body that is not a JSON object never is an event: a signature of it could be the answer to a
/// challenge-response check.
pub(super) fn read(delivery: &Delivery) -> Result<Vec<Reading>, Unreadable> {
    let kind = delivery.content_type();
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/json") {
        return Err(Unreadable::wrong_type("the content type is not application/json, which is all that X sends"));
    }
    let broken = |error: &dyn std::fmt::Display| Unreadable::broken(format!("the body is not a JSON object: {error}"));
    let text = json::text_of(&delivery.body).map_err(|error| broken(&error))?;
    let names = names(text).map_err(|error| broken(&error))?;
    let lists: Vec<&str> = names.iter().map(Cow::as_ref).filter(|name| name.ends_with("_events")).collect();
    if !lists.is_empty() {
        return account::read(text, &lists);
    }
    let found = PATHS.find(text).map_err(|error| broken(&error))?;
    Ok(vec![match () {
        () if found.has("/data/event_type") => activity(text, &found),
        () if found.has("/data/id") => post(&found),
        () if found.has("/user_event") => user_event(text, &found),
        () => other(text, &found, &names),
    }])
}

/// X Activity: `{ "data": { "event_type": "profile.update.bio", … } }` (<https://docs.x.com/x-api/activity/introduction>).
fn activity(text: &str, found: &Found<'_, '_>) -> Reading {
    let mut context = Context::default();
    let kind = found.text("/data/event_type").filter(|kind| is_name(kind));
    match kind.as_deref().and_then(|kind| kind.split_once('.')) {
        Some((event, action)) if !event.is_empty() && !action.is_empty() => {
            context.set("event", event);
            context.set("action", action);
        }
        _ => context.set("event", kind.as_deref().unwrap_or("event")),
    }
    let user = found.id("/data/filter/user_id");
    let who = ["/data/payload/author_id", "/data/payload/sender_id", "/data/payload/source/id"];
    // What an account does to itself names nobody else; a follow or a message could be anybody's.
    let own = context.text("event").is_some_and(|event| matches!(event, "profile" | "post" | "spaces"));
    let sender = who.iter().find_map(|pointer| found.id(pointer)).or_else(|| user.clone().filter(|_| own));
    context.set_some("user", user);
    context.set_some("sender", sender);
    context.set_some("target", found.id("/data/payload/target/id"));
    context.set_some("keyword", found.text("/data/filter/keyword"));
    context.set_some("tag", found.text("/data/tag"));
    context.set_some("id", found.id("/data/payload/id"));
    context.set_some("text", found.text("/data/payload/text"));
    context.set_some("before", found.text("/data/payload/before"));
    context.set_some("after", found.text("/data/payload/after"));
    let id = found.id("/data/event_uuid");
    whole(context, id.map_or_else(|| content_id([text.as_bytes()]), Cow::into_owned))
}

/// The filtered stream: a post, with the rules that it matched (<https://docs.x.com/x-api/webhooks/stream/quickstart>).
fn post(found: &Found<'_, '_>) -> Reading {
    let mut context = Context::default();
    let (id, author) = (found.id("/data/id").unwrap_or_default(), found.id("/data/author_id"));
    let name = found.text("/includes/users/0/username");
    context.set("event", "filtered_stream");
    context.set_some("user", author.clone());
    context.set_some("sender", author);
    context.set_some("author", name.clone());
    context.set_some("sender_name", name.clone());
    context.set("id", id.clone());
    context.set_some("text", found.text("/data/text"));
    context.set_some("language", found.text("/data/lang"));
    context.set_some("url", account::link(name.as_deref(), &id));
    let tags = found.texts("/matching_rules/*/tag");
    context.set_some("tags", (!tags.is_empty()).then_some(tags));
    whole(context, format!("post:{id}"))
}

/// What happens to the subscription itself: `{ "user_event": { "revoke": { … } } }`.
fn user_event(text: &str, found: &Found<'_, '_>) -> Reading {
    let mut context = Context::default();
    context.set("event", "user_event");
    let kinds = found.raw("/user_event").and_then(|raw| names(raw).ok()).unwrap_or_default();
    context.set_some("action", kinds.into_iter().next().filter(|kind| is_name(kind)));
    let user = found.id("/user_event/revoke/source/user_id");
    let app = found.id("/user_event/revoke/target/app_id");
    let at = found.text("/user_event/revoke/date_time");
    let id = match (&user, &app, &at) {
        (Some(user), Some(app), Some(at)) => format!("revoke:{user}:{app}:{at}"),
        _ => content_id([text.as_bytes()]),
    };
    context.set_some("user", user.clone());
    context.set_some("sender", user);
    context.set_some("app", app);
    whole(context, id)
}

/// How a replay of X's ended, or what came after this was written: named by its first field.
fn other(text: &str, found: &Found<'_, '_>, names: &[Cow<'_, str>]) -> Reading {
    let mut context = Context::default();
    let name = names.iter().find(|name| *name != "for_user_id" && is_name(name));
    context.set("event", name.map_or("event", Cow::as_ref));
    context.set_some("user", found.id("/for_user_id"));
    context.set_some("state", found.text("/replay_job_status/job_state"));
    context.set_some("id", found.id("/replay_job_status/job_id"));
    whole(context, content_id([text.as_bytes()]))
}

fn whole(context: Context, delivery_id: String) -> Reading {
    Reading { context, delivery_id: Some(delivery_id), handshake: false }
}
