//! What Twilio's forms, queries and event streams say.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::delivery::Delivery;
use crate::event::Context;
use crate::provider::paths::{self, Found, Paths};
use crate::provider::{Reading, Unreadable, address, is_name, proof};

/// The most events of one body.
const MOST_EVENTS: usize = 1_000;

/// What a form is about: the id that says so, the event, and the field that says what happened.
const KINDS: [(&str, &str, &[&str]); 6] = [
    ("RecordingSid", "recording", &["RecordingStatus"]),
    ("TranscriptionSid", "transcription", &["TranscriptionStatus", "TranscriptionEvent"]),
    ("ConferenceSid", "conference", &["StatusCallbackEvent"]),
    ("MessageSid", "message", &["MessageStatus", "SmsStatus"]),
    ("SmsSid", "message", &["MessageStatus", "SmsStatus"]),
    ("CallSid", "call", &["CallStatus"]),
];

/// Fields of a form, and the context fields that they become.
const FIELDS: [(&str, &str); 22] = [
    ("AccountSid", "account"),
    ("MessageSid", "message_id"),
    ("CallSid", "call_id"),
    ("RecordingSid", "recording_id"),
    ("ConversationSid", "conversation"),
    ("MessagingServiceSid", "service"),
    ("From", "from"),
    ("To", "to"),
    ("Author", "author"),
    ("Body", "body"),
    ("Digits", "digits"),
    ("SpeechResult", "speech"),
    ("TranscriptionText", "text"),
    ("Direction", "direction"),
    ("NumMedia", "media"),
    ("MediaUrl0", "url"),
    ("RecordingUrl", "url"),
    ("CallDuration", "duration"),
    ("ErrorCode", "error"),
    ("ErrorMessage", "error_message"),
    ("Level", "level"),
    ("ProfileName", "name"),
];

static STREAM: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/id",
        "/type",
        "/source",
        "/data/accountSid",
        "/data/messageSid",
        "/data/callSid",
        "/data/from",
        "/data/to",
        "/data/messageStatus",
        "/data/body",
        "/data/errorCode",
    ])
});

/// Reads a delivery; `id` of what has no id of its own.
pub(super) fn read(delivery: &Delivery, id: impl Fn() -> String) -> Result<Vec<Reading>, Unreadable> {
    if delivery.is_form() || delivery.body.is_empty() {
        // A form's event is not in the query: that is the URL's, the same each time.
        let fields: Vec<_> = match delivery.body.is_empty() {
            true => address::query(&delivery.url).collect(),
            false => form_urlencoded::parse(&delivery.body).collect(),
        };
        if fields.is_empty() {
            return Err(Unreadable::broken("there is neither a form nor a query"));
        }
        return Ok(vec![Reading { context: describe(&fields), delivery_id: Some(id()), handshake: false }]);
    }
    let text = proof::text_of(delivery)?;
    let texts = match text.trim_start().chars().next() {
        Some('[') => paths::elements(text).map_err(proof::not_json)?,
        Some('{') => vec![text],
        _ => return Err(Unreadable::broken("the body is neither a form nor a JSON object nor a list of them")),
    };
    if texts.is_empty() || texts.len() > MOST_EVENTS {
        return Err(Unreadable::broken(format!("the body has {} events, not 1 to {MOST_EVENTS}", texts.len())));
    }
    let several = texts.len() > 1;
    let mut readings: Vec<Reading> = Vec::with_capacity(texts.len());
    for text in texts {
        if !proof::is_object(text) {
            return Err(Unreadable::broken("an event in the body is not a JSON object"));
        }
        let found = proof::find_in(&STREAM, text)?;
        let own = found.text("/id").map(Cow::into_owned);
        let delivery_id = own.unwrap_or_else(|| if several { proof::content_id([text.as_bytes()]) } else { id() });
        let repeated = readings.iter().any(|reading| reading.delivery_id.as_ref() == Some(&delivery_id));
        if !repeated {
            readings.push(Reading { context: streamed(&found), delivery_id: Some(delivery_id), handshake: false });
        }
    }
    Ok(readings)
}

fn describe(fields: &[(Cow<'_, str>, Cow<'_, str>)]) -> Context {
    let field = |wanted: &str| {
        let there = fields.iter().find(|(name, value)| name == wanted && !value.is_empty());
        there.map(|(_, value)| value.as_ref())
    };
    let kind = KINDS.iter().find(|(sid, ..)| field(sid).is_some());
    // Conversations, task routers and others name the event themselves.
    let named = field("EventType").filter(|name| is_name(name));
    let (event, action) = match (named, kind) {
        (Some(named), _) => (named, None),
        (None, Some((_, event, status))) => (*event, status.iter().find_map(|name| field(name))),
        (None, None) if field("Payload").is_some() && field("Level").is_some() => ("alert", field("Level")),
        (None, None) => ("webhook", None),
    };
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", action.filter(|action| is_name(action)));
    context.set_some("state", action);
    for (name, told) in FIELDS {
        if context.get(told).is_none() {
            context.set_some(told, field(name));
        }
    }
    context.set_some("sender", field("From").or(field("Author")));
    context
}

fn streamed(found: &Found<'_, '_>) -> Context {
    let kind = found.text("/type").filter(|kind| is_name(kind)).unwrap_or(Cow::Borrowed("webhook"));
    let (event, action) = proof::split_name(&kind);
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", action);
    context.set_some("account", found.text("/data/accountSid"));
    context.set_some("message_id", found.text("/data/messageSid"));
    context.set_some("call_id", found.text("/data/callSid"));
    context.set_some("from", found.text("/data/from"));
    context.set_some("to", found.text("/data/to"));
    context.set_some("body", found.text("/data/body"));
    context.set_some("state", found.text("/data/messageStatus"));
    context.set_some("error", found.id("/data/errorCode"));
    context.set_some("source", found.text("/source"));
    context
}
