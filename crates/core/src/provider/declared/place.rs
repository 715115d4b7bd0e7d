//! Where something stands in a delivery: at a JSON pointer, in a header, in the query, or put together from those.

use std::borrow::Cow;

use http::HeaderName;

use super::section::{At, Part, Section, Span};
use crate::delivery::Delivery;
use crate::event::Value;
use crate::provider::paths::{Found, Paths};
use crate::provider::{address, json};

/// The most pointers that `(a|b)` may stand for.
const MOST_EXPANDED: usize = 64;

/// The most `(a|b)` of one pointer.
const MOST_GROUPS: usize = 4;

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Pointer(String),
    Header(HeaderName),
    Query(String),
    Template(Template),
    /// What stands behind a prefix, where the value has it and the delivery is of that kind.
    Where {
        from: Places,
        after: Option<String>,
        when: Equals,
    },
}

/// Places of which the first that has a value counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places(pub(super) Vec<Place>);

/// What must stand where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Equals(Vec<(Places, String)>);

/// A text with places in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Places),
}

/// A delivery in which places are looked up.
pub(super) struct Said<'a> {
    pub(super) delivery: &'a Delivery,
    /// The body, if it is JSON.
    pub(super) found: Option<Found<'a, 'a>>,
}

impl Places {
    /// Reads the places at `key`.
    pub(super) fn read<'t>(section: &Section<'t, '_>, key: &'static str) -> Self {
        Self::of(section, section.parts(key))
    }

    pub(super) fn of<'t>(section: &Section<'t, '_>, parts: Vec<At<Part<'t>>>) -> Self {
        let mut places = Self::default();
        for part in parts {
            match part.value {
                Part::Text(text) => match parse(text) {
                    Ok(found) => places.0.extend(found.0),
                    Err(problem) => section.problem(&part.span, problem),
                },
                Part::Table(table) => {
                    let below = section.below(table, part.span);
                    let from = Self::read(&below, "from");
                    let after = below.text("after").map(|after| after.value.to_owned());
                    let when = Equals::read(&below, "when");
                    if !below.has("from") {
                        below.problem(&None, "`from` is missing here");
                    }
                    below.finish();
                    places.0.push(Place::Where { from, after, when });
                }
            }
        }
        places
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the first place that has one.
    pub(super) fn value(&self, said: &Said<'_>) -> Option<Value> {
        self.0.iter().find_map(|place| place.value(said))
    }

    /// The same as text.
    pub(super) fn text(&self, said: &Said<'_>) -> Option<String> {
        self.0.iter().find_map(|place| as_text(place.value(said)?))
    }

    /// The first header among them.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        self.0.iter().find_map(|place| match place {
            Place::Header(name) => Some(name),
            _ => None,
        })
    }

    /// Adds the pointers that are looked for.
    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        for place in &self.0 {
            match place {
                Place::Pointer(pointer) => all.push(pointer.clone()),
                Place::Template(template) => template.pointers(all),
                Place::Where { from, when, .. } => {
                    from.pointers(all);
                    when.pointers(all);
                }
                Place::Header(_) | Place::Query(_) => {}
            }
        }
    }

    /// Whether one of them is in the query.
    pub(super) fn in_query(&self) -> bool {
        self.0.iter().any(|place| match place {
            Place::Query(_) => true,
            Place::Template(template) => template.in_query(),
            Place::Where { from, when, .. } => from.in_query() || when.0.iter().any(|(places, _)| places.in_query()),
            Place::Pointer(_) | Place::Header(_) => false,
        })
    }
}

impl Equals {
    /// Reads the table at `key`: places with their texts.
    pub(super) fn read(section: &Section<'_, '_>, key: &'static str) -> Self {
        let Some(table) = section.section(key) else { return Self::default() };
        let pair = |(place, text): (At<&'_ str>, At<&'_ str>)| {
            let part = At { value: Part::Text(place.value), span: place.span };
            (Places::of(&table, vec![part]), text.value.to_owned())
        };
        Self(table.free_texts().into_iter().map(pair).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of it is so.
    pub(super) fn hold(&self, said: &Said<'_>) -> bool {
        self.0.iter().all(|(places, text)| places.text(said).as_ref() == Some(text))
    }

    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        self.0.iter().for_each(|(places, _)| places.pointers(all));
    }
}

/// `/pointer`, `header:Name`, `query:name`, or a template of those.
fn parse(text: &str) -> Result<Places, String> {
    if text.starts_with('/') {
        if text.matches("/(").count() > MOST_GROUPS {
            return Err(format!("a pointer has {MOST_GROUPS} `(a|b)` at most"));
        }
        let mut pointers = Vec::new();
        expand(text, &mut pointers)?;
        return Ok(Places(pointers.into_iter().map(Place::Pointer).collect()));
    }
    if let Some(name) = text.strip_prefix("header:") {
        let name = name.parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
        return Ok(Places(vec![Place::Header(name)]));
    }
    if let Some(name) = text.strip_prefix("query:") {
        return Ok(Places(vec![Place::Query(name.to_owned())]));
    }
    let template = Template::parse(text)?;
    if template.0.iter().any(|piece| matches!(piece, Piece::Place(_))) {
        return Ok(Places(vec![Place::Template(template)]));
    }
    Err(format!(
        "{text:?} is no place: it is a JSON pointer (`/issue/title`), a header (`header:X-Event`), or a text with those in \
         braces (`{{/owner}}/{{/name}}`)"
    ))
}

/// `/(a|b)/c` as `/a/c` and `/b/c`.
fn expand(pointer: &str, all: &mut Vec<String>) -> Result<(), String> {
    let group = pointer.find("/(").and_then(|open| Some((open + 1, open + pointer[open..].find(')')?)));
    let Some((open, close)) = group else {
        Paths::new([pointer]).map_err(|error| error.to_string())?;
        all.push(pointer.to_owned());
        return Ok(());
    };
    for name in pointer[open + 1..close].split('|') {
        if all.len() >= MOST_EXPANDED {
            return Err(format!("{pointer:?} stands for more than {MOST_EXPANDED} pointers"));
        }
        expand(&format!("{}{name}{}", &pointer[..open], &pointer[close + 1..]), all)?;
    }
    Ok(())
}

impl Place {
    fn value(&self, said: &Said<'_>) -> Option<Value> {
        match self {
            Self::Pointer(pointer) => said.pointer(pointer),
            Self::Header(name) => said.delivery.header(name.as_str()).ok().map(Value::from),
            Self::Query(name) => said.query(name).map(Value::from),
            Self::Template(template) => template.fill(said, |text| Cow::Borrowed(text)).map(Value::from),
            Self::Where { when, .. } if !when.hold(said) => None,
            Self::Where { from, after: None, .. } => from.value(said),
            Self::Where { from, after: Some(prefix), .. } => {
                let text = from.text(said)?;
                text.strip_prefix(prefix.as_str()).filter(|rest| !rest.is_empty()).map(Value::from)
            }
        }
    }
}

impl Said<'_> {
    fn pointer(&self, pointer: &str) -> Option<Value> {
        let found = self.found.as_ref()?;
        if pointer.split('/').any(|part| part == "*") {
            let texts = found.all(pointer).iter().filter_map(|raw| as_text(value_of(raw)?));
            let texts: Vec<String> = texts.collect();
            return (!texts.is_empty()).then(|| Value::from(texts));
        }
        value_of(found.raw(pointer)?)
    }

    /// The JSON of what stands at these places, as it stands there.
    pub(super) fn raw<'s>(&'s self, place: &'s Place) -> Vec<Cow<'s, str>> {
        match (place, &self.found) {
            (Place::Pointer(pointer), Some(found)) => {
                found.all(pointer).iter().map(|raw| Cow::Borrowed(*raw)).collect()
            }
            _ => place.value(self).and_then(as_text).map(Cow::Owned).into_iter().collect(),
        }
    }

    fn query(&self, name: &str) -> Option<String> {
        let mut values = address::query(&self.delivery.url).filter(|(known, _)| known == name).map(|(_, value)| value);
        // Like a header: of two, nobody knows which one the sender means.
        let only = values.next().filter(|_| values.next().is_none());
        only.map(std::borrow::Cow::into_owned).filter(|value| !value.is_empty())
    }
}

/// A number as it is written, if it is too large for one.
fn value_of(raw: &str) -> Option<Value> {
    match raw.as_bytes().first()? {
        b'"' => json::as_text(raw).map(Value::from),
        b't' | b'f' => Some(Value::from(raw == "true")),
        b'-' | b'0'..=b'9' => Some(raw.parse::<i64>().map_or_else(|_| Value::from(raw), Value::from)),
        _ => None,
    }
}

pub(super) fn as_text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        Value::List(_) => None,
    }
}

impl Template {
    /// `{…}` is a place if it begins like one; every other brace is a brace.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let behind = &rest[open + 1..];
            let is_place = ["/", "header:", "query:"].iter().any(|start| behind.starts_with(start));
            literal.push_str(&rest[..open]);
            if !is_place {
                literal.push('{');
                rest = behind;
                continue;
            }
            let close = behind.find('}').ok_or_else(|| format!("a brace in {text:?} is not closed"))?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Place(parse(&behind[..close])?));
            rest = &behind[close + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// Reads the template at `key`.
    pub(super) fn read(section: &Section<'_, '_>, key: &'static str) -> Option<At<Self>> {
        let At { value, span } = section.text(key)?;
        match Self::parse(value) {
            Ok(template) => Some(At { value: template, span }),
            Err(problem) => {
                section.problem(&span, problem);
                None
            }
        }
    }

    /// The text with every place filled in; none if one has no value.
    pub(super) fn fill(&self, said: &Said<'_>, escape: impl Fn(&str) -> Cow<'_, str>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Place(places) => text.push_str(&escape(&places.text(said)?)),
            }
        }
        Some(text)
    }

    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        self.places().for_each(|places| places.pointers(all));
    }

    fn in_query(&self) -> bool {
        self.places().any(Places::in_query)
    }

    fn places(&self) -> impl Iterator<Item = &Places> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Place(places) => Some(places),
            Piece::Text(_) => None,
        })
    }
}

/// The name of a header.
pub(super) fn header_name(section: &Section<'_, '_>, name: &At<&str>) -> Option<HeaderName> {
    let parsed = name.value.parse().ok();
    if parsed.is_none() {
        section.problem(&name.span, format!("{:?} is not the name of a header", name.value));
    }
    parsed
}

/// Refuses the query, which only handshakes may look at: nobody signs it.
pub(super) fn refuse_query(section: &Section<'_, '_>, span: &Span, places: &Places) {
    if places.in_query() {
        section.problem(span, "`query:` is for unsigned handshakes only");
    }
}
