//! The context of Discord's events.

use std::sync::LazyLock;

use super::input;
use super::shape::{Kind, Shape, text_of};
use crate::delivery::Delivery;
use crate::event::Context;
use crate::provider::paths::{Found, Paths};
use crate::provider::proof::content_id;
use crate::provider::{Reading, Unreadable, is_name};

static INTERACTION: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/id",
        "/application_id",
        "/guild_id",
        "/channel_id",
        "/channel/name",
        "/locale",
        "/member/user/id",
        "/member/user/username",
        "/member/user/bot",
        "/user/id",
        "/user/username",
        "/user/bot",
        "/message/id",
        "/message/content",
        "/data/name",
        "/data/custom_id",
        "/data/target_id",
        "/data/options",
        "/data/components",
        "/data/values/*",
    ])
});

static EVENT: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/application_id",
        "/event",
        "/event/timestamp",
        "/event/data/id",
        "/event/data/user/id",
        "/event/data/user/username",
        "/event/data/user_id",
        "/event/data/author/id",
        "/event/data/author/username",
        "/event/data/author/bot",
        "/event/data/guild/id",
        "/event/data/guild/name",
        "/event/data/guild_id",
        "/event/data/channel_id",
        "/event/data/lobby_id",
        "/event/data/content",
        "/event/data/sku_id",
        "/event/data/scopes/*",
    ])
});

/// Reads a delivery.
pub(super) fn read(delivery: &Delivery) -> Result<Reading, Unreadable> {
    let text = text_of(delivery)?;
    let shape = Shape::of(text)?;
    let broken = |error: crate::provider::json::NotJson| Unreadable::broken(format!("the body: {error}"));
    Ok(match shape {
        Shape::Event(name) => event(&name, &EVENT.find(text).map_err(broken)?),
        Shape::Interaction(kind) => interaction(kind, text, &INTERACTION.find(text).map_err(broken)?),
        Shape::Ping | Shape::EventsPing => {
            let found = INTERACTION.find(text).map_err(broken)?;
            let mut context = Context::default();
            context.set("event", "ping");
            context.set_some("application", found.id("/application_id"));
            Reading { context, delivery_id: Some(id_of(&found, text)), handshake: true }
        }
    })
}

fn id_of(found: &Found<'_, '_>, text: &str) -> String {
    found.id("/id").map_or_else(|| content_id([text.as_bytes()]), std::borrow::Cow::into_owned)
}

fn interaction(kind: Kind, text: &str, found: &Found<'_, '_>) -> Reading {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let mut context = Context::default();
    context.set("event", kind.name());
    let named = matches!(kind, Kind::Command | Kind::Autocomplete).then(|| found.text("/data/name")).flatten();
    let custom = found.text("/data/custom_id");
    context.set_some("action", named.clone().or_else(|| custom.clone()).filter(|action| is_name(action)));
    context.set_some("command", named);
    context.set_some("custom_id", custom);
    context.set_some("application", found.id("/application_id"));
    context.set_some("guild", found.id("/guild_id"));
    context.set_some("channel", found.id("/channel_id"));
    context.set_some("channel_name", found.text("/channel/name"));
    // A member in a server, a user in a direct message.
    let user = first(&["/member/user/id", "/user/id"]);
    let is_bot = [found.flag("/member/user/bot"), found.flag("/user/bot")].contains(&Some(true));
    context.set_some("user", user.clone());
    context.set_some("sender_type", user.as_ref().map(|_| if is_bot { "bot" } else { "user" }));
    context.set_some("sender", user);
    context.set_some("sender_name", first(&["/member/user/username", "/user/username"]));
    context.set_some("locale", found.text("/locale"));
    context.set_some("target", found.id("/data/target_id"));
    context.set_some("message", found.id("/message/id"));
    context.set_some("message_text", found.text("/message/content"));
    let input = match kind {
        Kind::Modal => input::of_modal(found.raw("/data/components")),
        _ => input::of_command(found.raw("/data/options")),
    };
    context.set_some("subcommand", (!input.subcommand.is_empty()).then_some(input.subcommand));
    context.set_some("text", (!input.text.is_empty()).then_some(input.text));
    let values = found.texts("/data/values/*");
    context.set_some("values", (!values.is_empty()).then_some(values));
    // Every key that is pressed asks for choices, within three seconds: no work for an agent unless it asks for it.
    Reading { context, delivery_id: Some(id_of(found, text)), handshake: kind == Kind::Autocomplete }
}

fn event(name: &str, found: &Found<'_, '_>) -> Reading {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let mut context = Context::default();
    context.set("event", name.to_ascii_lowercase());
    context.set_some("application", found.id("/application_id"));
    context.set_some("guild", first(&["/event/data/guild/id", "/event/data/guild_id"]));
    context.set_some("guild_name", found.text("/event/data/guild/name"));
    context.set_some("channel", found.id("/event/data/channel_id"));
    context.set_some("lobby", found.id("/event/data/lobby_id"));
    let user = first(&["/event/data/user/id", "/event/data/author/id", "/event/data/user_id"]);
    let is_bot = found.flag("/event/data/author/bot") == Some(true);
    context.set_some("user", user.clone());
    context.set_some("sender_type", user.as_ref().map(|_| if is_bot { "bot" } else { "user" }));
    context.set_some("sender", user);
    context.set_some("sender_name", first(&["/event/data/user/username", "/event/data/author/username"]));
    context.set_some("id", found.id("/event/data/id"));
    context.set_some("sku", found.id("/event/data/sku_id"));
    context.set_some("text", found.text("/event/data/content"));
    let scopes = found.texts("/event/data/scopes/*");
    context.set_some("scopes", (!scopes.is_empty()).then_some(scopes));
    context.set_some("happened_at", found.text("/event/timestamp"));
    let application = found.raw("/application_id").unwrap_or_default();
    let event = found.raw("/event").unwrap_or_default();
    let delivery_id = content_id([application.as_bytes(), event.as_bytes()]);
    Reading { context, delivery_id: Some(delivery_id), handshake: false }
}
