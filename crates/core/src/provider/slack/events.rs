//! The Events API: an envelope (<https://docs.slack.dev/apis/events-api>) around an event.

use std::sync::LazyLock;

use crate::event::Context;
use crate::provider::paths::{Found, Paths};
use crate::provider::proof::content_id;
use crate::provider::{Reading, Unreadable, is_name};

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/type",
        "/event_id",
        "/team_id",
        "/enterprise_id",
        "/api_app_id",
        "/authorizations/0/user_id",
        "/authorizations/0/is_bot",
        "/event/type",
        "/event/subtype",
        "/event/team",
        "/event/user",
        "/event/user/id",
        "/event/user_id",
        "/event/bot_id",
        "/event/username",
        "/event/text",
        "/event/channel",
        "/event/channel/id",
        "/event/channel/name",
        "/event/channel_id",
        "/event/channel_type",
        "/event/ts",
        "/event/thread_ts",
        "/event/reaction",
        "/event/item_user",
        "/event/item/channel",
        "/event/item/ts",
        "/event/file_id",
        "/event/inviter",
        "/event/tab",
        "/event/message/user",
        "/event/message/bot_id",
        "/event/message/text",
        "/event/message/ts",
        "/event/message/thread_ts",
        "/event/message/edited/user",
        "/event/previous_message/user",
        "/event/previous_message/bot_id",
        "/event/previous_message/ts",
        "/event/previous_message/text",
        "/event/assistant_thread/user_id",
        "/event/assistant_thread/channel_id",
        "/event/assistant_thread/thread_ts",
    ])
});

/// Reads an envelope.
pub(super) fn read(text: &str) -> Result<Reading, Unreadable> {
    let found = PATHS.find(text).map_err(|error| Unreadable::broken(format!("the body: {error}")))?;
    let envelope = found.text("/type").filter(|kind| is_name(kind));
    let envelope = envelope.ok_or_else(|| Unreadable::broken("the body is not an object with a text `type`"))?;
    let mut context = Context::default();
    if envelope == "event_callback" {
        let kind = found.text("/event/type").filter(|kind| is_name(kind));
        let kind = kind.ok_or_else(|| Unreadable::broken("an event without a text `event.type`"))?;
        context.set("event", kind);
        context.set_some("action", found.text("/event/subtype").filter(|subtype| is_name(subtype)));
    } else {
        // `url_verification`, `app_rate_limited`.
        context.set("event", envelope.as_ref());
    }
    place(&found, &mut context);
    people(&found, &mut context);
    content(&found, &mut context);
    let delivery_id = match found.text("/event_id") {
        Some(id) => id.into_owned(),
        None => content_id([text.as_bytes()]),
    };
    Ok(Reading { context, delivery_id: Some(delivery_id), handshake: envelope == "url_verification" })
}

/// The token that Slack wants back when a request URL is saved.
pub(super) fn challenge(text: &str) -> Option<String> {
    static PATHS: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/type", "/challenge"]));
    let found = PATHS.find(text).ok()?;
    let asked = found.text("/type").as_deref() == Some("url_verification");
    found.text("/challenge").filter(|_| asked).map(std::borrow::Cow::into_owned)
}

fn place(found: &Found<'_, '_>, context: &mut Context) {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    context.set_some("team", first(&["/team_id", "/event/team"]));
    context.set_some("enterprise", found.text("/enterprise_id"));
    context.set_some("app", found.text("/api_app_id"));
    context.set_some(
        "channel",
        first(&[
            "/event/channel",
            "/event/channel/id",
            "/event/channel_id",
            "/event/item/channel",
            "/event/assistant_thread/channel_id",
        ]),
    );
    context.set_some("channel_name", found.text("/event/channel/name"));
    context.set_some("channel_type", found.text("/event/channel_type"));
}

/// Whoever edits a message need not have written it; who deleted one is not said.
fn people(found: &Found<'_, '_>, context: &mut Context) {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    let bot = first(&["/event/bot_id", "/event/message/bot_id", "/event/previous_message/bot_id"]);
    let user = first(&["/event/user", "/event/user/id", "/event/user_id", "/event/assistant_thread/user_id"]);
    let sender = user.clone().or_else(|| first(&["/event/message/edited/user", "/event/message/user"]));
    let kind = match (&bot, &sender) {
        (Some(_), _) => Some("bot"),
        (None, Some(_)) => Some("user"),
        (None, None) => None,
    };
    context.set_some("author", first(&["/event/message/user", "/event/previous_message/user", "/event/item_user"]));
    context.set_some("user", user);
    context.set_some("sender", sender.or_else(|| bot.clone()));
    context.set_some("sender_type", kind);
    context.set_some("sender_name", found.text("/event/username"));
    context.set_some("bot_id", bot);
    let own = found.flag("/authorizations/0/is_bot") == Some(true);
    context.set_some("bot_user", found.text("/authorizations/0/user_id").filter(|_| own));
    context.set_some("inviter", found.text("/event/inviter"));
}

fn content(found: &Found<'_, '_>, context: &mut Context) {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    context.set_some("text", first(&["/event/text", "/event/message/text"]));
    context.set_some("text_before", found.text("/event/previous_message/text"));
    context.set_some("reaction", found.text("/event/reaction"));
    context.set_some("file", found.text("/event/file_id"));
    context.set_some("tab", found.text("/event/tab"));
    // Of the message that it is about, so that an agent can answer there.
    context.set_some("ts", first(&["/event/message/ts", "/event/previous_message/ts", "/event/item/ts", "/event/ts"]));
    context.set_some(
        "thread",
        first(&["/event/thread_ts", "/event/message/thread_ts", "/event/assistant_thread/thread_ts"]),
    );
}
