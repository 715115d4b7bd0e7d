//! What Discord hears: at once, and when a run has ended.
//!
//! A command or a modal that starts an agent is deferred with a message that is still thought about (5), which the result
//! then becomes. A button or a menu is deferred without a trace (6): what could be edited then is the message that it
//! belongs to, and nobody expects a result to take its place, so the result is a message of its own below it.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use super::TOKEN_LIVES;
use super::shape::{Kind, Shape, text_of};
use crate::delivery::Delivery;
use crate::provider::paths::Paths;
use crate::provider::{Answer, Ended, FollowUp, words};

const API: &str = "https://discord.com/api/v10";

/// The longest content of a message.
const LONGEST_CONTENT: usize = 2000;

/// Longer than any token so far.
const LONGEST_TOKEN: usize = 1000;

/// A message flag: only whoever asked sees it.
const EPHEMERAL: u16 = 1 << 6;

/// A message flag: links stay links. Nothing is fetched because an agent wrote an address into its result.
const SUPPRESS_EMBEDS: u16 = 1 << 2;

/// The answer to the request itself.
pub(super) fn at_once(delivery: &Delivery, started: bool) -> Answer {
    let shape = text_of(delivery).and_then(Shape::of);
    match (shape, started) {
        (Ok(Shape::Ping), _) => Answer::json(r#"{"type":1}"#),
        // The documentation wants a content type, although there is no content.
        (Ok(Shape::EventsPing), _) => {
            Answer { status: StatusCode::NO_CONTENT, content_type: Some("application/json"), body: Bytes::new() }
        }
        (Ok(Shape::Event(_)) | Err(_), _) => Answer::empty(StatusCode::NO_CONTENT),
        (Ok(Shape::Interaction(Kind::Autocomplete)), _) => Answer::json(r#"{"type":8,"data":{"choices":[]}}"#),
        (Ok(Shape::Interaction(Kind::Component)), true) => Answer::json(r#"{"type":6}"#),
        (Ok(Shape::Interaction(_)), true) => Answer::json(r#"{"type":5}"#),
        (Ok(Shape::Interaction(_)), false) => {
            let message = json!({
                "content": "Nobody here listens to this.",
                "flags": EPHEMERAL,
                "allowed_mentions": { "parse": [] },
            });
            Answer::json(json!({ "type": 4, "data": message }).to_string())
        }
    }
}

/// The message with a run's result, as long as the interaction's token lives.
pub(super) fn later(delivery: &Delivery, ended: &Ended<'_>) -> Option<FollowUp> {
    static PATHS: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/application_id", "/token"]));
    let text = text_of(delivery).ok()?;
    let Shape::Interaction(kind) = Shape::of(text).ok()? else { return None };
    let found = PATHS.find(text).ok()?;
    let (application, token) = (found.id("/application_id")?, found.text("/token")?);
    // They become parts of a path.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_id = application.len() <= 20 && application.bytes().all(|byte| byte.is_ascii_digit());
    if !is_id || token.len() > LONGEST_TOKEN || !token.bytes().all(plain) {
        return None;
    }
    let webhook = format!("{API}/webhooks/{application}/{token}");
    let (method, url) = match kind {
        Kind::Autocomplete => return None,
        // Of several agents, the first fills the message that was promised. It must be edited before another one is
        // posted, which Discord would else take for it
        // (<https://docs.discord.com/developers/interactions/receiving-and-responding#create-followup-message>).
        Kind::Command | Kind::Modal | Kind::Other if ended.first => {
            (Method::PATCH, format!("{webhook}/messages/@original"))
        }
        Kind::Command | Kind::Modal | Kind::Other | Kind::Component => (Method::POST, webhook),
    };
    let body = json!({
        "content": words::fit(&words::report(ended), LONGEST_CONTENT, |_| None),
        "flags": SUPPRESS_EMBEDS,
        "allowed_mentions": { "parse": [] },
    });
    Some(FollowUp { method, url, body: body.to_string(), until: delivery.received_at.after(TOKEN_LIVES) })
}
