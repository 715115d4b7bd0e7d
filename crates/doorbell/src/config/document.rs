//! A TOML document whose every key and value knows where it stands, so that layers can be laid over each other and
//! any mistake can still be shown in its file.

use std::sync::Arc;

use toml_edit::{Item, TableLike, Value};

use super::names;
use super::problem::{Findings, Layer, Place, Problem, Text, mask_passwords};

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text(String),
    Whole(i64),
    Real(f64),
    Flag(bool),
    /// A date or time; no key takes one.
    Moment(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// From the environment or a flag: whatever the key that takes it expects.
    Loose(String),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// A table of keys.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
}

/// The keys that a table may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    /// Those that are read.
    pub(super) known: &'a [&'a str],
    /// Those that are documented and not built yet.
    pub(super) planned: &'a [&'a str],
    /// What to say about keys that others use for something.
    pub(super) hints: &'a [(&'a str, &'a str)],
}

/// Reads a TOML text.
pub(super) fn parse(text: &Arc<Text>) -> Result<Table, Problem> {
    let document = toml_edit::Document::parse(text.text.as_str()).map_err(|error| {
        let place = Place::new(text, error.span().unwrap_or(0..0));
        Problem::at(&place, format!("not TOML: {}", error.message()))
    })?;
    Ok(Table { place: Place::new(text, 0..0), entries: entries(document.as_table(), &Place::new(text, 0..0)) })
}

fn entries(table: &dyn TableLike, outer: &Place) -> Vec<Entry> {
    let entry = |(key, item): (&str, &Item)| {
        let span = table.key(key).and_then(toml_edit::Key::span);
        let place = Place { span: span.unwrap_or(outer.span.clone()), ..outer.clone() };
        Some(Entry { key: key.to_owned(), node: node_of_item(item, &place)?, place })
    };
    table.iter().filter_map(entry).collect()
}

fn node_of_item(item: &Item, key: &Place) -> Option<Node> {
    let at = |span: Option<std::ops::Range<usize>>| Place { span: span.unwrap_or(key.span.clone()), ..key.clone() };
    Some(match item {
        Item::None => return None,
        Item::Value(value) => node_of_value(value, key),
        Item::Table(table) => {
            let place = at(table.span());
            Node { kind: Kind::Table(entries(table, &place)), place }
        }
        Item::ArrayOfTables(tables) => {
            let node = |table: &toml_edit::Table| {
                let place = at(table.span());
                Node { kind: Kind::Table(entries(table, &place)), place }
            };
            Node { kind: Kind::List(tables.iter().map(node).collect()), place: key.clone() }
        }
    })
}

fn node_of_value(value: &Value, outer: &Place) -> Node {
    let place = Place { span: value.span().unwrap_or(outer.span.clone()), ..outer.clone() };
    let kind = match value {
        Value::String(text) => Kind::Text(text.value().clone()),
        Value::Integer(number) => Kind::Whole(*number.value()),
        Value::Float(number) => Kind::Real(*number.value()),
        Value::Boolean(flag) => Kind::Flag(*flag.value()),
        Value::Datetime(moment) => Kind::Moment(moment.value().to_string()),
        Value::Array(list) => Kind::List(list.iter().map(|value| node_of_value(value, &place)).collect()),
        Value::InlineTable(table) => Kind::Table(entries(table, &place)),
    };
    Node { place, kind }
}

impl Node {
    /// What it is, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) | Kind::Loose(_) => "a string",
            Kind::Whole(_) => "an integer",
            Kind::Real(_) => "a float",
            Kind::Flag(_) => "a boolean",
            Kind::Moment(_) => "a date or time",
            Kind::List(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }

    /// The same; a loose text as the TOML value that it is, if it is one.
    pub(super) fn strict(&self) -> Self {
        let Kind::Loose(text) = &self.kind else { return self.clone() };
        let place = self.place.clone();
        match text.trim().parse::<Value>() {
            // Its spans are those of another text.
            Ok(mut value) => {
                value.decor_mut().clear();
                let mut node = node_of_value(&value, &place);
                node.move_to(&place);
                node
            }
            Err(_) => Self { kind: Kind::Text(text.clone()), place },
        }
    }

    /// Gives it and all that is in it another place.
    pub(super) fn move_to(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.kind {
            Kind::List(nodes) => nodes.iter_mut().for_each(|node| node.move_to(place)),
            Kind::Table(entries) => entries.iter_mut().for_each(|entry| {
                entry.place = place.clone();
                entry.node.move_to(place);
            }),
            _ => {}
        }
    }

    /// As TOML, on one line, without the passwords of URLs.
    pub(super) fn to_toml(&self) -> String {
        mask_passwords(&self.strict().to_value().to_string())
    }

    fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Text(text) | Kind::Loose(text) => text.as_str().into(),
            Kind::Whole(number) => (*number).into(),
            Kind::Real(number) => (*number).into(),
            Kind::Flag(flag) => (*flag).into(),
            Kind::Moment(text) => text.parse::<Value>().unwrap_or_else(|_| text.as_str().into()),
            Kind::List(nodes) => nodes.iter().map(Self::to_value).collect::<toml_edit::Array>().into(),
            Kind::Table(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.as_str(), entry.node.to_value()));
                pairs.collect::<toml_edit::InlineTable>().into()
            }
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Text(text) | Kind::Moment(text) | Kind::Loose(text) => text.as_str().into(),
            Kind::Whole(number) => (*number).into(),
            Kind::Real(number) => (*number).into(),
            Kind::Flag(flag) => (*flag).into(),
            Kind::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Kind::Table(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect(),
        }
    }
}

impl Table {
    pub(super) fn empty(place: Place) -> Self {
        Self { place, entries: Vec::new() }
    }

    /// The place of a key of a declaration that is not there.
    pub(super) fn inside(&self, key: &str) -> Place {
        Place::of_value(&join_value(&self.place.text.name, key))
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }

    /// Reads the value of a key; none if it is not there, and none with a problem more if it is wrong.
    pub(super) fn read<T>(
        &self,
        findings: &mut Findings,
        key: &str,
        convert: impl FnOnce(&Node) -> Result<T, Problem>,
    ) -> Option<T> {
        self.get(key).and_then(|node| findings.take(convert(node)))
    }

    /// The table of a key; none if it is not there, and none with a problem more if it is no table.
    pub(super) fn take_table(&mut self, findings: &mut Findings, key: &str, example: &str) -> Option<Self> {
        let entry = self.remove(key)?;
        findings.take(entry.node.into_table(example))
    }

    /// Gives keys that have other names the one that is read.
    pub(super) fn rename(&mut self, findings: &mut Findings, aliases: &[(&str, &str)]) {
        for (alias, name) in aliases {
            let Some(mut entry) = self.remove(alias) else { continue };
            if self.has(name) {
                let problem =
                    Problem::at(&entry.place, format!("`{alias}` is another name of `{name}`, which is set, too"));
                findings.problem(problem.help("keep one of them"));
                continue;
            }
            entry.key = (*name).to_owned();
            self.entries.push(entry);
        }
    }

    /// Lays `upper` over this table: its values win; tables are laid over each other.
    pub(super) fn overlay(&mut self, upper: Self) {
        if upper.place.text.layer != Layer::Default {
            self.place = upper.place;
        }
        // The keys of a table differ, so only those that were there before can meet one.
        let before = self.entries.len();
        upper.entries.into_iter().for_each(|entry| self.lay(entry, before));
    }

    fn lay(&mut self, entry: Entry, before: usize) {
        let Some(index) = self.entries[..before].iter().position(|lower| lower.key == entry.key) else {
            self.entries.push(entry);
            return;
        };
        let lower = &mut self.entries[index];
        match (&mut lower.node.kind, entry.node.kind) {
            (Kind::Table(below), Kind::Table(above)) => {
                let mut merged = Self { place: lower.node.place.clone(), entries: std::mem::take(below) };
                merged.overlay(Self { place: entry.node.place, entries: above });
                lower.place = entry.place;
                lower.node = Node { place: merged.place, kind: Kind::Table(merged.entries) };
            }
            (_, kind) => *lower = Entry { node: Node { kind, place: entry.node.place }, ..entry },
        }
    }

    /// Reports every key that is not known here.
    pub(super) fn check(&self, findings: &mut Findings, keys: Keys<'_>) {
        for entry in &self.entries {
            let key = entry.key.as_str();
            if keys.known.contains(&key) {
                continue;
            }
            if keys.planned.contains(&key) {
                findings.problem(Problem::at(&entry.place, format!("`{key}` is not supported yet")));
                continue;
            }
            findings.problem(unknown(entry, keys));
        }
    }

    /// Notes every value below `path` as a setting.
    pub(super) fn settle(&self, findings: &mut Findings, path: &str) {
        self.entries.iter().for_each(|entry| settle(findings, &join(path, &entry.key), &entry.node));
    }
}

fn unknown(entry: &Entry, keys: Keys<'_>) -> Problem {
    let key = entry.key.as_str();
    let layer = entry.place.text.layer;
    let spelled = |meant: &str| match layer {
        Layer::Environment => {
            let (key, meant) = (key.to_ascii_uppercase(), meant.to_ascii_uppercase());
            entry.place.text.name.replace(&format!("__{key}"), &format!("__{meant}"))
        }
        Layer::Declaration => names::camel(meant),
        _ => meant.to_owned(),
    };
    let message = match layer {
        Layer::Environment => format!("unknown variable `{}`", entry.place.text.name),
        _ => format!("unknown key `{}`", spelled(key)),
    };
    let problem = Problem::at(&entry.place, message);
    if let Some((_, hint)) = keys.hints.iter().find(|(hinted, _)| *hinted == key) {
        return problem.help(*hint);
    }
    match names::nearest(key, keys.known.iter().chain(keys.planned).copied()) {
        Some(meant) if keys.planned.contains(&meant) => {
            problem.help(format!("if `{}` is meant: it is not supported yet", spelled(meant)))
        }
        Some(meant) => problem.help(format!("did you mean `{}`?", spelled(meant))),
        None => {
            let known: Vec<String> = keys.known.iter().map(|key| spelled(key)).collect();
            problem.help(format!("the keys here are {}", names::list(known.iter().map(String::as_str))))
        }
    }
}

fn settle(findings: &mut Findings, path: &str, node: &Node) {
    match &node.kind {
        Kind::Table(entries) if !entries.is_empty() => {
            entries.iter().for_each(|entry| settle(findings, &join(path, &entry.key), &entry.node));
        }
        Kind::List(nodes) if nodes.iter().any(|node| matches!(node.kind, Kind::Table(_))) => {
            nodes.iter().enumerate().for_each(|(n, node)| settle(findings, &format!("{path}[{n}]"), node));
        }
        _ => {
            let value = match is_secret(path) {
                true => "(hidden)".to_owned(),
                false if is_secret_url(path) => of_url(node),
                false => node.to_toml(),
            };
            findings.setting(path.to_owned(), value, node.place.origin());
        }
    }
}

/// Variables of commands and headers of requests that are named like a secret, though such a one belongs among the credentials.
fn is_secret(path: &str) -> bool {
    let variable = path.split_once(".runtime.env.").or_else(|| path.split_once(".runtime.headers."));
    variable.is_some_and(|(_, name)| is_named_like_a_secret(name))
}

/// Whether what has this name is likely a secret.
pub(super) fn is_named_like_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["AUTHORIZATION", "COOKIE", "KEY", "PASS", "SECRET", "TOKEN"].iter().any(|word| name.contains(word))
}

/// The URL that a notification or an agent's event goes to: the path of a chat service's is its secret.
fn is_secret_url(path: &str) -> bool {
    (path.starts_with("notifications[") && path.ends_with("].to.url")) || path.ends_with(".runtime.url")
}

/// As much of a URL as may be shown.
fn of_url(node: &Node) -> String {
    let text = match &node.kind {
        Kind::Text(text) | Kind::Loose(text) => text.parse::<http::Uri>().ok(),
        _ => None,
    };
    let shown = text.and_then(|url| {
        let host = url.authority()?.as_str().rsplit('@').next()?.to_owned();
        Some(format!("\"{}://{host}\" (the rest is hidden)", url.scheme_str()?))
    });
    shown.unwrap_or_else(|| "(hidden)".to_owned())
}

/// The path of a value in a declaration.
pub(super) fn join_value(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn join(path: &str, key: &str) -> String {
    format!("{path}.{}", toml_edit::Key::new(key).display_repr())
}
