//! What an unknown body says at its top level.

use std::borrow::Cow;

use crate::delivery::Delivery;
use crate::event::{Context, Value};
use crate::provider::{is_name, json};

const MOST_FIELDS: usize = 32;
const LONGEST_TEXT: usize = 4_000;

/// The top level of a body.
#[derive(Default)]
pub(in crate::provider) struct Fields<'a> {
    event: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    action: Option<Cow<'a, str>>,
    others: Vec<(String, Value)>,
}

/// Reads the top level of a body. One that is neither a JSON object nor a form has no fields.
///
/// JSON that is said to be a form is JSON: `curl -d` calls everything a form.
pub(in crate::provider) fn fields(delivery: &Delivery) -> Fields<'_> {
    let object = || json::text_of(&delivery.body).ok().and_then(|text| json::read(text).ok());
    if delivery.is_form() {
        if delivery.body.trim_ascii_start().starts_with(b"{")
            && let Some(fields) = object()
        {
            return fields;
        }
        let mut fields = Fields::default();
        for (name, text) in form_urlencoded::parse(&delivery.body) {
            fields.take_text(&name, text);
        }
        return fields;
    }
    object().unwrap_or_default()
}

impl<'de> json::Object<'de> for Fields<'de> {
    fn field(&mut self, name: &str, value: &mut json::Cursor<'de>) -> Result<(), json::Stop> {
        let raw = json::raw(value)?;
        match (raw, json::as_text(raw)) {
            (_, Some(text)) => self.take_text(name, text),
            ("true" | "false", _) => self.keep(name, Value::from(raw == "true")),
            _ => {
                if let Ok(number) = raw.parse::<i64>() {
                    self.keep(name, Value::from(number));
                }
            }
        }
        Ok(())
    }
}

impl<'a> Fields<'a> {
    /// The event that the body names.
    pub(super) fn event(&self) -> Option<&str> {
        name_in(&self.event).or(self.kind())
    }

    /// What the body's `type` names.
    pub(in crate::provider) fn kind(&self) -> Option<&str> {
        name_in(&self.kind)
    }

    /// The action that the body names.
    pub(super) fn action(&self) -> Option<&str> {
        name_in(&self.action)
    }

    fn take_text(&mut self, name: &str, text: Cow<'a, str>) {
        match name {
            "event" => self.event = Some(text),
            "action" => self.action = Some(text),
            _ => {
                if text.chars().nth(LONGEST_TEXT).is_none() {
                    self.keep(name, Value::from(text.as_ref()));
                }
                if name == "type" {
                    self.kind = Some(text);
                }
            }
        }
    }

    fn keep(&mut self, name: &str, value: Value) {
        if matches!(name, "event" | "action") || !is_name(name) {
            return;
        }
        if let Some((_, old)) = self.others.iter_mut().find(|(kept, _)| kept == name) {
            *old = value;
        } else if self.others.len() < MOST_FIELDS {
            self.others.push((name.to_owned(), value));
        }
    }

    /// Sets the other fields.
    pub(in crate::provider) fn describe(self, context: &mut Context) {
        for (name, value) in self.others {
            context.set(name, value);
        }
    }
}

fn name_in<'f>(text: &'f Option<Cow<'_, str>>) -> Option<&'f str> {
    text.as_deref().filter(|name| is_name(name))
}
