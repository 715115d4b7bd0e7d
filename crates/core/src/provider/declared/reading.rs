//! What a delivery says: its event, its action, the fields of its context, and what makes it the same delivery.

use aws_lc_rs::digest;

use super::Definition;
use super::place::{Places, Said};
use super::section::Section;
use crate::delivery::Delivery;
use crate::event::Context;
use crate::provider::{Reading, Unreadable, encode_hex, is_name, paths, proof};

/// How the event and the action are told.
#[derive(Debug, Clone, Default)]
pub(super) struct Naming {
    event: Name,
    /// What stands before the action in the event's name.
    split: Option<String>,
    /// Top-level keys that are not the event; the first other one is.
    other_key: Vec<String>,
    default: Option<String>,
    action: Name,
}

/// A name, spelled as events have it.
#[derive(Debug, Clone, Default)]
struct Name {
    from: Places,
    names: Vec<(String, String)>,
    strip_prefix: String,
    strip_suffix: String,
    spelling: Spelling,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Spelling {
    #[default]
    Kept,
    Lower,
    Snake,
}

const SPELLINGS: [(&str, Spelling); 2] = [("lower", Spelling::Lower), ("snake", Spelling::Snake)];

/// What makes two deliveries the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub(super) id: Places,
    digest: Places,
}

impl Naming {
    pub(super) fn read(root: &Section<'_, '_>) -> Self {
        let mut naming = Self::default();
        match root.section("event") {
            None => root.problem(&None, "`[event]` is missing: it says where the name of the event stands"),
            Some(section) => {
                naming.event = Name::read(&section);
                naming.other_key = section.texts("other_key").iter().map(|key| key.value.to_owned()).collect();
                naming.split = section.text("split").map(|split| {
                    if split.value.is_empty() {
                        section.problem(&split.span, "`split` is empty");
                    }
                    split.value.to_owned()
                });
                naming.default = section.text("default").map(|name| {
                    if !is_name(name.value) {
                        section.problem(&name.span, format!("{:?} is no name of an event", name.value));
                    }
                    name.value.to_owned()
                });
                if !["from", "other_key", "default"].iter().any(|key| section.has(key)) {
                    section.problem(&None, "`[event]` has none of `from`, `other_key` and `default`");
                }
                section.finish();
            }
        }
        if let Some(section) = root.section("action") {
            naming.action = Name::read(&section);
            if naming.action.from.is_empty() {
                section.problem(&None, "`[action]` has no `from`");
            }
            section.finish();
        }
        naming
    }

    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        self.event.from.pointers(all);
        self.action.from.pointers(all);
    }

    /// The event and the action.
    fn names(&self, said: &Said<'_>, text: &str) -> Result<(String, Option<String>), Unreadable> {
        let other_key = || {
            let names = (!self.other_key.is_empty()).then(|| paths::names(text).ok()).flatten()?;
            names.into_iter().find(|name| !self.other_key.iter().any(|known| known == name)).map(String::from)
        };
        let event = self.event.of(said).or_else(other_key).filter(|event| is_name(event));
        let event = event.or_else(|| self.default.clone()).ok_or_else(|| {
            Unreadable::broken("the delivery does not name its event where this provider's deliveries do")
        })?;
        let split = self.split.as_ref().and_then(|split| event.rsplit_once(split.as_str()));
        let split = split.filter(|(event, action)| !event.is_empty() && !action.is_empty());
        let in_event = split.map(|(event, action)| (event.to_owned(), action.to_owned()));
        let (event, action) = match in_event {
            Some((event, action)) => (event, Some(action)),
            None => (event, None),
        };
        let action = action.or_else(|| self.action.of(said)).filter(|action| is_name(action));
        Ok((event, action))
    }

    /// The header that names the event, with the value that makes `event` (as samples spell it) of it.
    pub(super) fn header_for(&self, event: &str) -> Option<(String, String)> {
        let header = self.event.from.header()?;
        let spelled = match &self.split {
            Some(split) => match event.rsplit_once('.') {
                Some((event, action)) => format!("{event}{split}{action}"),
                None => event.to_owned(),
            },
            None => event.split('.').next().unwrap_or(event).to_owned(),
        };
        let value = match self.event.names.iter().find(|(_, name)| *name == spelled) {
            Some((original, _)) => original.clone(),
            None => format!("{}{spelled}{}", self.event.strip_prefix, self.event.strip_suffix),
        };
        Some((header.to_string(), value))
    }
}

impl Name {
    fn read(section: &Section<'_, '_>) -> Self {
        let from = Places::read(section, "from");
        super::place::refuse_query(section, section.span(), &from);
        let names = section.section("names").map(|names| names.free_texts()).unwrap_or_default();
        let text = |key: &'static str| section.text(key).map(|text| text.value.to_owned()).unwrap_or_default();
        Self {
            from,
            names: names.into_iter().map(|(from, to)| (from.value.to_owned(), to.value.to_owned())).collect(),
            strip_prefix: text("strip_prefix"),
            strip_suffix: text("strip_suffix"),
            spelling: section.word("spelling", &SPELLINGS).unwrap_or_default(),
        }
    }

    fn of(&self, said: &Said<'_>) -> Option<String> {
        let text = self.from.text(said)?;
        if let Some((_, name)) = self.names.iter().find(|(original, _)| *original == text) {
            return Some(name.clone());
        }
        let bare = text.strip_prefix(self.strip_prefix.as_str()).unwrap_or(&text);
        let bare = bare.strip_suffix(self.strip_suffix.as_str()).unwrap_or(bare);
        Some(match self.spelling {
            Spelling::Kept => bare.to_owned(),
            Spelling::Lower => bare.to_lowercase(),
            Spelling::Snake => snake(bare),
        })
    }
}

/// `Merge Request` and `mergeRequest` as `merge_request`; dots, colons and slashes stay.
fn snake(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 4);
    let mut after_small = false;
    for c in text.chars() {
        if c.is_uppercase() && after_small {
            snake.push('_');
        }
        after_small = c.is_lowercase() || c.is_numeric();
        match c {
            '.' | ':' | '/' => snake.push(c),
            _ if c.is_alphanumeric() => snake.extend(c.to_lowercase()),
            _ if snake.ends_with('_') || snake.is_empty() => {}
            _ => snake.push('_'),
        }
    }
    snake.truncate(snake.trim_end_matches('_').len());
    snake
}

impl Identity {
    pub(super) fn read(root: &Section<'_, '_>) -> Self {
        let Some(section) = root.section("delivery") else { return Self::default() };
        let identity = Self { id: Places::read(&section, "id"), digest: Places::read(&section, "digest") };
        for places in [&identity.id, &identity.digest] {
            super::place::refuse_query(&section, section.span(), places);
        }
        section.finish();
        identity
    }

    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        self.id.pointers(all);
        self.digest.pointers(all);
    }

    /// The id, else the digest of what identifies the event: the parts that are named, or the whole body.
    fn of(&self, said: &Said<'_>, event: &str, action: Option<&str>) -> String {
        if let Some(id) = self.id.text(said) {
            return id;
        }
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut line = |text: &str| {
            digest.update(text.as_bytes());
            digest.update(b"\n");
        };
        line(event);
        line(action.unwrap_or_default());
        let mut named = false;
        for place in &self.digest.0 {
            // `null` identifies nothing.
            for raw in said.raw(place).into_iter().filter(|raw| &**raw != "null") {
                named = true;
                line(&raw);
            }
            line("");
        }
        if !named {
            digest.update(&said.delivery.body);
        }
        format!("sha256:{}", encode_hex(digest.finish().as_ref()))
    }
}

/// The text of a body that can be this provider's: a JSON object.
pub(super) fn text_of(delivery: &Delivery) -> Result<&str, Unreadable> {
    let kind = delivery.content_type().to_ascii_lowercase();
    if !(kind.is_empty() || kind == "application/json" || kind.ends_with("+json") || kind.starts_with("text/")) {
        return Err(Unreadable::wrong_type("the content type is not application/json"));
    }
    let text = proof::text_of(delivery)?;
    match text.trim_start().starts_with('{') {
        true => Ok(text),
        false => Err(Unreadable::broken("the body is not a JSON object")),
    }
}

/// Reads a delivery.
pub(super) fn read(definition: &Definition, delivery: &Delivery) -> Result<Reading, Unreadable> {
    let text = text_of(delivery)?;
    let found = definition.paths.find(text).map_err(|error| Unreadable::broken(format!("the body: {error}")))?;
    let said = Said { delivery, found: Some(found) };
    let (event, action) = definition.naming.names(&said, text)?;
    let delivery_id = definition.identity.of(&said, &event, action.as_deref());
    let handshake = definition.handshake(&said, &event, action.as_deref()).is_some();
    let mut context = Context::default();
    context.set("event", event);
    context.set_some("action", action);
    for (field, places) in &definition.context {
        context.set_some(field.clone(), places.value(&said));
    }
    Ok(Reading { context, delivery_id: Some(delivery_id), handshake })
}

/// How the sender writes the event's name: `orders/create`, or with the action elsewhere, `merge_request` and `open`.
pub(super) fn makers_name(definition: &Definition, delivery: &Delivery) -> Option<String> {
    let found = definition.paths.find(text_of(delivery).ok()?).ok()?;
    let said = Said { delivery, found: Some(found) };
    let (event, action) = (definition.naming.event.from.text(&said)?, definition.naming.action.from.text(&said));
    let split = definition.naming.split.as_ref().is_some_and(|split| event.contains(split.as_str()));
    Some(match action.filter(|_| !split) {
        Some(action) => format!("{event}` with `{action}"),
        None => event,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_in_snake_case() {
        for (text, spelled) in [
            ("Merge Request", "merge_request"),
            ("Re-Triggered", "re_triggered"),
            ("organizationMembership.created", "organization_membership.created"),
            ("No Data", "no_data"),
            (" x ", "x"),
            ("", ""),
        ] {
            assert_eq!(snake(text), spelled);
        }
    }
}
