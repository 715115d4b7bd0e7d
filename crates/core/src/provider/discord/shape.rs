//! What a delivery is, told by its shape: the numbers of its types mean one thing in interactions and another in events.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::delivery::Delivery;
use crate::provider::paths::Paths;
use crate::provider::{Unreadable, is_name, proof};

/// What a delivery is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Whether the interactions endpoint is there.
    Ping,
    /// Whether the endpoint for events is there.
    EventsPing,
    /// An event of the application, by Discord's name of it.
    Event(String),
    /// Somebody waits for an answer.
    Interaction(Kind),
}

/// The kinds of interactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A command: of the text field, or of the menu of a user or a message.
    Command,
    /// A button or a menu of a message.
    Component,
    /// An option of a command, while it is typed.
    Autocomplete,
    /// A modal that was submitted.
    Modal,
    /// A kind that came after this was written.
    Other,
}

impl Kind {
    /// The event's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Command => "application_command",
            Self::Component => "message_component",
            Self::Autocomplete => "autocomplete",
            Self::Modal => "modal_submit",
            Self::Other => "interaction",
        }
    }
}

/// The text of the body, which is JSON.
pub(super) fn text_of(delivery: &Delivery) -> Result<&str, Unreadable> {
    let kind = delivery.content_type();
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/json") {
        return Err(Unreadable::wrong_type(
            "the content type is not application/json, which is all that Discord sends",
        ));
    }
    proof::text_of(delivery)
}

impl Shape {
    /// Tells what the body is.
    pub(super) fn of(text: &str) -> Result<Self, Unreadable> {
        static PATHS: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/type", "/token", "/event", "/event/type"]));
        let found = PATHS.find(text).map_err(|error| Unreadable::broken(format!("the body: {error}")))?;
        let kind = found.number("/type");
        let kind = kind.ok_or_else(|| Unreadable::broken("the body is not an object with a number `type`"))?;
        if !found.has("/token") && found.has("/event") {
            let event = found.text("/event/type").filter(|event| is_name(event)).map(Cow::into_owned);
            return event.map(Self::Event).ok_or_else(|| Unreadable::broken("an event without a text `event.type`"));
        }
        Ok(match kind {
            0 => Self::EventsPing,
            1 => Self::Ping,
            2 => Self::Interaction(Kind::Command),
            3 => Self::Interaction(Kind::Component),
            4 => Self::Interaction(Kind::Autocomplete),
            5 => Self::Interaction(Kind::Modal),
            _ => Self::Interaction(Kind::Other),
        })
    }
}
