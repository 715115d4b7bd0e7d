//! Slash commands (<https://docs.slack.dev/interactivity/implementing-slash-commands>) and interactions
//! (<https://docs.slack.dev/reference/interaction-payloads>). What lets its holder act for Slack (`trigger_id`,
//! `response_url`, the old `token`) stays out of the context.

use std::sync::LazyLock;

use super::COMMAND;
use super::product::Form;
use crate::event::Context;
use crate::provider::paths::Paths;
use crate::provider::proof::content_id;
use crate::provider::{Reading, Unreadable, is_name};

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/type",
        "/trigger_id",
        "/api_app_id",
        "/team/id",
        "/team/domain",
        "/enterprise/id",
        "/user/id",
        "/user/username",
        "/user/name",
        "/user/team_id",
        "/channel/id",
        "/channel/name",
        "/container/channel_id",
        "/container/thread_ts",
        "/actions/0/action_id",
        "/actions/0/value",
        "/actions/0/selected_option/value",
        "/action_id",
        "/value",
        "/callback_id",
        "/view/id",
        "/view/callback_id",
        "/message/user",
        "/message/text",
        "/message/ts",
        "/message/thread_ts",
        "/message_ts",
    ])
});

/// Reads a slash command.
pub(super) fn read_command(form: &Form<'_>, body: &[u8]) -> Reading {
    let mut context = Context::default();
    let command = form.field("command");
    context.set("event", COMMAND);
    let name = command.map(|command| command.trim_start_matches('/'));
    context.set_some("action", name.filter(|name| is_name(name)));
    context.set_some("command", command);
    for (field, name) in [
        ("text", "text"),
        ("team", "team_id"),
        ("team_name", "team_domain"),
        ("enterprise", "enterprise_id"),
        ("app", "api_app_id"),
        ("channel", "channel_id"),
        ("channel_name", "channel_name"),
        ("user", "user_id"),
        ("sender", "user_id"),
        ("sender_name", "user_name"),
    ] {
        context.set_some(field, form.field(name));
    }
    context.set_some("sender_type", form.field("user_id").map(|_| "user"));
    let delivery_id = form.field("trigger_id").map_or_else(|| content_id([body]), str::to_owned);
    Reading { context, delivery_id: Some(delivery_id), handshake: false }
}

/// Reads an interaction.
pub(super) fn read(payload: &str) -> Result<Reading, Unreadable> {
    let found = PATHS.find(payload).map_err(|error| Unreadable::broken(format!("the payload: {error}")))?;
    let kind = found.text("/type").filter(|kind| is_name(kind));
    let kind = kind.ok_or_else(|| Unreadable::broken("the payload is not an object with a text `type`"))?;
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    let mut context = Context::default();
    context.set("event", kind);
    let action = first(&["/actions/0/action_id", "/action_id", "/callback_id", "/view/callback_id"]);
    context.set_some("action", action.filter(|action| is_name(action)));
    context.set_some("callback", first(&["/callback_id", "/view/callback_id"]));
    context.set_some("team", first(&["/team/id", "/user/team_id"]));
    context.set_some("team_name", found.text("/team/domain"));
    context.set_some("enterprise", found.text("/enterprise/id"));
    context.set_some("app", found.text("/api_app_id"));
    context.set_some("channel", first(&["/channel/id", "/container/channel_id"]));
    context.set_some("channel_name", found.text("/channel/name"));
    context.set_some("user", found.text("/user/id"));
    context.set_some("sender", found.text("/user/id"));
    context.set_some("sender_name", first(&["/user/username", "/user/name"]));
    context.set_some("sender_type", found.text("/user/id").map(|_| "user"));
    context.set_some("value", first(&["/actions/0/value", "/actions/0/selected_option/value", "/value"]));
    context.set_some("author", found.text("/message/user"));
    context.set_some("text", found.text("/message/text"));
    context.set_some("ts", first(&["/message/ts", "/message_ts"]));
    context.set_some("thread", first(&["/message/thread_ts", "/container/thread_ts"]));
    context.set_some("view", found.text("/view/id"));
    let delivery_id = match found.text("/trigger_id") {
        Some(id) => id.into_owned(),
        None => content_id([payload.as_bytes()]),
    };
    // A menu asks for its options at every key that is pressed: no work for an agent unless it asks for it.
    let handshake = wants_options(context.text("event"));
    Ok(Reading { context, delivery_id: Some(delivery_id), handshake })
}

/// Whether a payload of this type only asks for the options of a menu.
pub(super) fn wants_options(kind: Option<&str>) -> bool {
    matches!(kind, Some("block_suggestion" | "dialog_suggestion"))
}
