//! What expressions see of an event: `event`, with the names of the envelope.

use std::sync::OnceLock;

use serde_json::{Map, Value as Json};

use super::types::Type;
use super::value::Value;

/// The largest body that expressions get, in bytes.
pub const LARGEST_BODY: usize = 1 << 20;

/// An event as expressions see it.
#[derive(Debug)]
pub struct Facts {
    /// `event.source`: the provider's name.
    pub source: String,
    /// `event.integration_id`: the source's name.
    pub integration_id: String,
    /// `event.event_type`: `{provider}.{event}[.{action}]`.
    pub event_type: String,
    /// `event.idempotency_key`: the provider's id of the delivery, where it sends one.
    pub idempotency_key: Option<String>,
    /// `event.timestamp`: when it was received, in Unix seconds.
    pub timestamp: i64,
    /// `event.headers`: names in lower case, without those that carry a secret.
    pub headers: Json,
    /// `event.context`.
    pub context: Json,
    /// `event.body`.
    pub body: Body,
}

/// The body of an event, parsed when an expression first reads it.
#[derive(Debug)]
pub struct Body {
    bytes: bytes::Bytes,
    /// Whether the sender says that it is a form.
    form: bool,
    parsed: OnceLock<Result<Json, String>>,
}

impl Body {
    /// A raw body. As JSON it is what the JSON says, also if it is called a form; as a form the JSON of its field
    /// `payload`, or else its fields; as any other text, the text.
    pub fn new(bytes: bytes::Bytes, content_type: Option<&str>) -> Self {
        let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let form = essence.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        Self { bytes, form, parsed: OnceLock::new() }
    }

    fn get(&self) -> Result<&Json, &str> {
        self.parsed.get_or_init(|| parse(&self.bytes, self.form)).as_ref().map_err(String::as_str)
    }
}

fn parse(bytes: &[u8], form: bool) -> Result<Json, String> {
    if bytes.len() > LARGEST_BODY {
        return Err(format!("`event.body` has {} bytes, and expressions get {LARGEST_BODY} at most", bytes.len()));
    }
    if form {
        // `curl -d` calls everything a form.
        let object = || serde_json::from_slice(bytes).ok().filter(Json::is_object);
        let said = bytes.trim_ascii_start().starts_with(b"{").then(object).flatten();
        return Ok(said.unwrap_or_else(|| read_form(bytes)));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "`event.body` is not text".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str(text) {
        Ok(json) => Ok(json),
        Err(error) if text.trim_start().starts_with(['{', '[']) => {
            Err(format!("`event.body` is no JSON that can be read: {error}"))
        }
        Err(_) => Ok(Json::String(text.to_owned())),
    }
}

fn read_form(bytes: &[u8]) -> Json {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        if name == "payload"
            && let Ok(json) = serde_json::from_str(&value)
        {
            return json;
        }
        fields.entry(name).or_insert_with(|| Json::String(value.into_owned()));
    }
    Json::Object(fields)
}

/// The fields of `event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Source,
    IntegrationId,
    EventType,
    IdempotencyKey,
    Timestamp,
    Headers,
    Context,
    Body,
}

impl Field {
    const ALL: [(&'static str, Self); 8] = [
        ("body", Self::Body),
        ("context", Self::Context),
        ("headers", Self::Headers),
        ("source", Self::Source),
        ("integration_id", Self::IntegrationId),
        ("event_type", Self::EventType),
        ("idempotency_key", Self::IdempotencyKey),
        ("timestamp", Self::Timestamp),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(own, _)| *own == name).map(|(_, field)| field)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// All of them, for a message.
    pub(super) fn names() -> String {
        Self::ALL.map(|(name, _)| format!("event.{name}")).join(", ")
    }

    pub(super) fn kind(self) -> Type {
        match self {
            Self::Source | Self::IntegrationId | Self::EventType | Self::IdempotencyKey => Type::Text,
            Self::Timestamp => Type::Whole,
            Self::Headers | Self::Context => Type::Map,
            Self::Body => Type::Any,
        }
    }
}

impl Facts {
    /// The value of a field; none if the event does not carry it.
    pub(super) fn get(&self, field: Field) -> Result<Option<Value<'_>>, String> {
        Ok(Some(match field {
            Field::Source => Value::text(&self.source),
            Field::IntegrationId => Value::text(&self.integration_id),
            Field::EventType => Value::text(&self.event_type),
            Field::IdempotencyKey => return Ok(self.idempotency_key.as_deref().map(Value::text)),
            Field::Timestamp => Value::Whole(self.timestamp),
            Field::Headers => Value::of_json(&self.headers),
            Field::Context => Value::of_json(&self.context),
            Field::Body => Value::of_json(self.body.get().map_err(ToOwned::to_owned)?),
        }))
    }
}
