//! A table of a definition, read key by key: whatever nobody asked for is a mistake, and every mistake knows its place.

use std::cell::RefCell;
use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

/// Something in a definition that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidDefinition {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where in the text, in bytes.
    pub span: Option<Range<usize>>,
}

pub(super) type Span = Option<Range<usize>>;
pub(super) type Problems = RefCell<Vec<InvalidDefinition>>;

/// Something with its place in the text.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A text or a table: what lists are made of here.
#[derive(Clone, Copy)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Table(&'t dyn TableLike),
}

/// A table with the keys that were asked for.
pub(super) struct Section<'t, 'p> {
    table: &'t dyn TableLike,
    span: Span,
    problems: &'p Problems,
    known: RefCell<Vec<&'static str>>,
}

impl<'t, 'p> Section<'t, 'p> {
    pub(super) fn new(table: &'t dyn TableLike, span: Span, problems: &'p Problems) -> Self {
        Self { table, span, problems, known: RefCell::default() }
    }

    pub(super) fn problem(&self, span: &Span, message: impl Into<String>) {
        self.report(span, message.into(), None);
    }

    pub(super) fn problem_with_help(&self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.report(span, message.into(), Some(help.into()));
    }

    fn report(&self, span: &Span, message: String, help: Option<String>) {
        let span = span.clone().or_else(|| self.span.clone());
        self.problems.borrow_mut().push(InvalidDefinition { message, help, span });
    }

    /// Where it stands.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    fn get(&self, key: &'static str) -> Option<At<&'t Item>> {
        self.known.borrow_mut().push(key);
        let item = self.table.get(key).filter(|item| !item.is_none())?;
        let span = item.span().or_else(|| self.table.key(key).and_then(toml_edit::Key::span));
        Some(At { value: item, span })
    }

    /// Whether there is a value for `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|item| !item.is_none())
    }

    /// A text.
    pub(super) fn text(&self, key: &'static str) -> Option<At<&'t str>> {
        let At { value, span } = self.get(key)?;
        match value.as_str() {
            Some(text) => Some(At { value: text, span }),
            None => {
                self.problem(&span, format!("`{key}` is a text"));
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn needed_text(&self, key: &'static str) -> Option<At<&'t str>> {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.problem(&None, format!("`{key}` is missing here"));
            return None;
        }
        self.text(key)
    }

    /// A whole number.
    pub(super) fn number(&self, key: &'static str) -> Option<At<i64>> {
        let At { value, span } = self.get(key)?;
        match value.as_integer() {
            Some(number) => Some(At { value: number, span }),
            None => {
                self.problem(&span, format!("`{key}` is a whole number"));
                None
            }
        }
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let At { value, span } = self.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.problem(&span, format!("`{key}` is `true` or `false`"));
        }
        flag
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let At { value, span } = self.text(key)?;
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == value) {
            return Some(*meant);
        }
        let known = words.iter().map(|(word, _)| *word);
        self.problem_with_help(&span, format!("`{key}` cannot be {value:?}"), suggestion(value, known, "it is one of"));
        None
    }

    /// A text or a table, or a list of those.
    pub(super) fn parts(&self, key: &'static str) -> Vec<At<Part<'t>>> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        self.parts_of(key, &entry)
    }

    fn parts_of(&self, key: &str, entry: &At<&'t Item>) -> Vec<At<Part<'t>>> {
        let at = |value: Part<'t>, span: Span| At { value, span: span.or_else(|| entry.span.clone()) };
        let of_value = |value: &'t Value| {
            let part = match value {
                Value::String(text) => Part::Text(text.value().as_str()),
                Value::InlineTable(table) => Part::Table(table),
                _ => {
                    self.problem(&value.span().or_else(|| entry.span.clone()), format!("`{key}` cannot be this"));
                    return None;
                }
            };
            Some(at(part, value.span()))
        };
        match entry.value {
            Item::None => Vec::new(),
            Item::Value(Value::Array(list)) => list.iter().filter_map(of_value).collect(),
            Item::Value(value) => of_value(value).into_iter().collect(),
            Item::Table(table) => vec![at(Part::Table(table), table.span())],
            Item::ArrayOfTables(tables) => tables.iter().map(|table| at(Part::Table(table), table.span())).collect(),
        }
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&self, key: &'static str) -> Vec<At<&'t str>> {
        let text = |part: At<Part<'t>>| match part.value {
            Part::Text(text) => Some(At { value: text, span: part.span }),
            Part::Table(_) => {
                self.problem(&part.span, format!("`{key}` is a text, or a list of texts"));
                None
            }
        };
        self.parts(key).into_iter().filter_map(text).collect()
    }

    /// A table below this one.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'t, 'p>> {
        let mut sections = self.sections(key);
        if sections.len() > 1 {
            self.problem(&sections[1].span, format!("there is one `[{key}]` only"));
        }
        (!sections.is_empty()).then(|| sections.remove(0))
    }

    /// The tables `[[key]]` below this one.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'t, 'p>> {
        let section = |part: At<Part<'t>>| match part.value {
            Part::Table(table) => Some(Section::new(table, part.span, self.problems)),
            Part::Text(_) => {
                self.problem(&part.span, format!("`{key}` is a table"));
                None
            }
        };
        self.parts(key).into_iter().filter_map(section).collect()
    }

    /// A table of another one's part.
    pub(super) fn below(&self, table: &'t dyn TableLike, span: Span) -> Section<'t, 'p> {
        Section::new(table, span, self.problems)
    }

    /// All entries of a table whose keys are free.
    pub(super) fn free(&self) -> Vec<(At<&'t str>, Vec<At<Part<'t>>>)> {
        let entry = |(key, item): (&'t str, &'t Item)| {
            let span = self.table.key(key).and_then(toml_edit::Key::span);
            let entry = At { value: item, span: item.span().or_else(|| span.clone()) };
            let parts = self.parts_of(key, &entry);
            (At { value: key, span }, parts)
        };
        self.table.iter().map(entry).collect()
    }

    /// All entries of a table whose keys are free and whose values are texts.
    pub(super) fn free_texts(&self) -> Vec<(At<&'t str>, At<&'t str>)> {
        let mut entries = Vec::new();
        for (key, parts) in self.free() {
            match parts.as_slice() {
                [At { value: Part::Text(text), span }] => entries.push((key, At { value: *text, span: span.clone() })),
                _ => self.problem(&key.span, format!("`{}` is a text", key.value)),
            }
        }
        entries
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.iter() {
            if known.contains(&key) {
                continue;
            }
            let span = self.table.key(key).and_then(toml_edit::Key::span);
            let help = suggestion(key, known.iter().copied(), "the keys here are");
            self.problem_with_help(&span, format!("unknown key `{key}`"), help);
        }
    }
}

/// What was meant, or what there is.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, there_is: &str) -> String {
    let mut known: Vec<_> = known.into_iter().collect();
    known.dedup();
    // Long words are not typing errors, and measuring them is slow.
    let near = known.iter().filter(|_| word.len() <= 40).map(|one| (strsim::damerau_levenshtein(word, one), *one));
    match near.min().filter(|(distance, one)| *distance <= 2.max(one.len() / 4)) {
        Some((_, one)) => format!("did you mean `{one}`?"),
        None => format!("{there_is} {}", known.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")),
    }
}
