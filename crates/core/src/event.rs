//! Events: what a verified delivery says.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::moment::moment_of;
use crate::provider::{Reading, Unreadable, encode_hex};
use crate::source::{Dedup, Source};
use crate::time::Timestamp;
use crate::verify::Verified;

/// The provider, and the source, of events that Doorbell makes itself: no webhook brought them.
pub const OWN: &str = "doorbell";
/// The same for events of the clock.
pub const SCHEDULE: &str = "schedule";
/// The same for what people start by hand.
pub const MANUAL: &str = "manual";
/// The same for what runs of other agents start.
pub const AGENT: &str = "agent";

/// Whether no webhook brought the events of this provider.
pub fn is_own(provider: &str) -> bool {
    [OWN, SCHEDULE, MANUAL, AGENT].contains(&provider)
}

/// The longest delivery id that is kept as it is, in bytes; a longer one is kept as its digest.
const LONGEST_DELIVERY_ID: usize = 200;

/// What keys begin with that are a delivery id as it is.
const BY_ID: &str = "id:";

/// The longest text of a [`Context::shortened`] one, in characters.
const LONGEST_LISTED_TEXT: usize = 400;

/// Room for as many fields as most events have.
const FIELDS: usize = 16;

/// The longest list of a [`Context::shortened`] one.
const MOST_LISTED: usize = 100;

/// The text as far as it is shown: so many characters of it.
pub(crate) fn cut(text: &str, longest: usize) -> Cow<'_, str> {
    // A character has a byte at least, so that most texts need not be counted.
    let end = if text.len() <= longest { None } else { text.char_indices().nth(longest) };
    match end {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// As JSON, in room for what nearly all need: it is written for every delivery.
pub(crate) fn json_of(value: &impl Serialize) -> String {
    let mut json = Vec::with_capacity(1024);
    let written = serde_json::to_writer(&mut json, value);
    written.ok().and_then(|()| String::from_utf8(json).ok()).unwrap_or_default()
}

/// The fields of an event that filters, prompts and people use: `event`, `action`, `repo`, `labels`, …
///
/// A small ordered map. Which fields there are is the provider's business; they can be read again from the body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context(Vec<(Cow<'static, str>, Value)>);

/// The value of a context field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number, e.g. the number of an issue.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// Several texts, e.g. labels.
    List(Vec<String>),
}

impl Context {
    /// What somebody asked for who starts an agent by hand, or the run of another agent; `body` is the event's.
    pub fn of_request(body: &serde_json::Value) -> Self {
        let mut context = Self::default();
        context.set("event", if body["parent"].is_string() { "call" } else { "run" });
        for field in ["prompt", "by", "parent", "called_by"] {
            if let Some(text) = body[field].as_str() {
                context.set(field, text);
            }
        }
        match &body["input"] {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => context.set("input", text.as_str()),
            input => context.set("input", input.to_string()),
        }
        context
    }

    /// Sets a field.
    pub fn set(&mut self, field: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let field = field.into();
        let value = value.into();
        match self.0.iter_mut().find(|(name, _)| *name == field) {
            Some((_, old)) => *old = value,
            None => {
                if self.0.is_empty() {
                    self.0.reserve(FIELDS);
                }
                self.0.push((field, value));
            }
        }
    }

    /// Sets a field if there is a value.
    pub fn set_some(&mut self, field: impl Into<Cow<'static, str>>, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(field, value);
        }
    }

    /// A field.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == field).map(|(_, value)| value)
    }

    /// A field that is text.
    pub fn text(&self, field: &str) -> Option<&str> {
        match self.get(field) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// As JSON, with long texts and lists cut, for lists of events. Filters are held against the whole; what `why` shows
    /// of them is held against this, and is the same for values that fit.
    pub fn shortened(&self) -> String {
        json_of(&Shortened(self))
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Self {
        Self::Text(text.into_owned())
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}
impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

impl Serialize for Context {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A context whose long texts and lists are cut where they are written.
struct Shortened<'a>(&'a Context);

impl Serialize for Shortened<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.0.len()))?;
        for (name, value) in &self.0.0 {
            match value {
                Value::Text(text) => map.serialize_entry(name, &cut(text, LONGEST_LISTED_TEXT))?,
                Value::List(list) => {
                    let texts: Vec<_> =
                        list.iter().take(MOST_LISTED).map(|text| cut(text, LONGEST_LISTED_TEXT)).collect();
                    map.serialize_entry(name, &texts)?;
                }
                Value::Number(_) | Value::Flag(_) => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = Context;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of context fields")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Context, A::Error> {
                let mut context = Context::default();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    context.set(name, value);
                }
                Ok(context)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// What a verified delivery says. It can only be read from a [`Verified`] one.
#[derive(Debug, Clone)]
pub struct Event {
    verified: Verified,
    context: Context,
    keys: Vec<String>,
    delivery_id: Option<String>,
    handshake: bool,
}

impl Event {
    /// Reads a verified delivery: at least one event, several where the protocol batches them.
    ///
    /// # Errors
    /// If the provider cannot read it: the sender gets 400 `body_unreadable`.
    pub fn read(verified: &Verified) -> Result<Vec<Self>, Unreadable> {
        let readings = verified.source().provider().read(verified.delivery())?;
        let several = readings.len() > 1;
        let event = |(index, reading): (usize, Reading)| Self {
            keys: delivery_keys(verified, reading.delivery_id.as_deref(), several.then_some(index)),
            context: reading.context,
            handshake: reading.handshake,
            delivery_id: reading.delivery_id,
            verified: verified.clone(),
        };
        Ok(readings.into_iter().enumerate().map(event).collect())
    }

    /// The source that took it.
    pub fn source(&self) -> &Arc<Source> {
        self.verified.source()
    }

    /// The delivery it was read from.
    pub fn delivery(&self) -> &Arc<Delivery> {
        self.verified.delivery()
    }

    /// The credential instance whose key proved it; none if the source takes unsigned deliveries.
    pub fn verified_by(&self) -> Option<&str> {
        self.verified.key().map(|key| key.instance.as_str())
    }

    /// The provider's event, e.g. `issues`.
    pub fn name(&self) -> &str {
        self.context.text("event").unwrap_or("event")
    }

    /// What happened to it, e.g. `opened`.
    pub fn action(&self) -> Option<&str> {
        self.context.text("action")
    }

    /// `{provider}.{event}[.{action}]`.
    pub fn event_type(&self) -> String {
        event_type(self.source().provider().name(), self.name(), self.action())
    }

    /// What filters, prompts and people use.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The keys that no other event of the source may have; none where every delivery is an event of its own.
    pub fn delivery_keys(&self) -> &[String] {
        &self.keys
    }

    /// The provider's id of the delivery as it was sent, where it sends one.
    pub fn delivery_id(&self) -> Option<&str> {
        self.delivery_id.as_deref()
    }

    /// Whether it is part of setting up the webhook.
    pub fn is_handshake(&self) -> bool {
        self.handshake
    }
}

/// `{provider}.{event}[.{action}]`.
pub fn event_type(provider: &str, event: &str, action: Option<&str>) -> String {
    match action {
        Some(action) => [provider, ".", event, ".", action].concat(),
        None => [provider, ".", event].concat(),
    }
}

/// The delivery key that follows from a delivery's id.
pub fn key_of_id(id: &str) -> String {
    if id.len() <= LONGEST_DELIVERY_ID { [BY_ID, id].concat() } else { format!("id-sha256:{}", sha256(id.as_bytes())) }
}

/// When the id that a delivery key was made of says that it was made, if it says so.
pub fn moment_of_key(key: &str) -> Option<Timestamp> {
    moment_of(key.strip_prefix(BY_ID)?)
}

/// `part`: which of several events of one body it is.
fn delivery_keys(verified: &Verified, id: Option<&str>, part: Option<usize>) -> Vec<String> {
    let by_id = id.map(key_of_id);
    let part = part.map(|index| format!(":{index}")).unwrap_or_default();
    let by_body = || format!("body-sha256:{}{part}", sha256(&verified.delivery().body));
    match verified.source().dedup() {
        Dedup::Off => Vec::new(),
        Dedup::Id => by_id.into_iter().collect(),
        Dedup::IdOrBody => by_id.into_iter().chain([by_body()]).collect(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    encode_hex(digest::digest(&digest::SHA256, bytes).as_ref())
}
