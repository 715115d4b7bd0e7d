//! The layers of `config.toml`: embedded defaults < file < environment < flags.

use std::path::Path;
use std::sync::Arc;

use super::document::{Entry, Keys, Kind, Node, Table, parse};
use super::environment::Environment;
use super::files;
use super::problem::{Findings, Layer, Place, Problem, Text};

/// The defaults, which are also the reference of the format.
pub(super) const DEFAULTS: &str = include_str!("default.toml");

/// Sections that the environment and flags reach.
const SECTIONS: [&str; 4] = ["gateway", "store", "telemetry", "defaults"];

const KEYS: Keys<'static> = Keys {
    known: &["gateway", "store", "telemetry", "defaults", "webhooks", "notifications"],
    planned: &[],
    hints: &[
        ("hot_reload", "it stands in [gateway]"),
        ("providers", "providers are files: providers/<name>.toml"),
        ("agents", "agents are folders: agents/<name>/config.toml"),
        ("runtime", "for all agents it is [defaults.runtime]"),
        ("scale", "for all agents it is `scale` in [defaults]"),
        ("defaultAgentScale", "it is `scale` in [defaults]"),
        ("timeout", "for all agents it is `timeout` in [defaults]"),
    ],
};

/// Keys of other gateways that mean nothing here, with what to do instead.
pub(super) const FOREIGN: [(&str, &str); 3] = [
    ("models", "the agent's command chooses its model"),
    ("credentials", "what a command gets is named in `credentials` of its [runtime]"),
    ("hooks", "what runs before or after belongs into the agent's command"),
];

/// Other names of keys, in every table.
pub(super) const ALIASES: [(&str, &str); 3] = [
    ("workQueueSize", "work_queue_size"),
    ("maxWorkQueueSize", "work_queue_size"),
    ("allowUnsigned", "allow_unsigned"),
];

/// The project's own configuration, all layers laid over each other.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) gateway: Table,
    pub(super) store: Table,
    pub(super) telemetry: Table,
    pub(super) defaults: Table,
    /// `[[notifications]]`.
    pub(super) notifications: Option<Entry>,
    /// `[webhooks]`; none if `config.toml` cannot be read, so that nothing can be said about sources.
    pub(super) webhooks: Option<Table>,
}

/// Reads all layers.
pub(super) fn read(
    root: &Path,
    environment: &Environment,
    flags: &[(String, String)],
    findings: &mut Findings,
) -> Option<Project> {
    let text = Arc::new(Text { layer: Layer::Default, name: "default.toml".to_owned(), text: DEFAULTS.to_owned() });
    let mut table = findings.take(parse(&text))?;
    let file = files::read(root, "config.toml").and_then(|text| parse(&text));
    let readable = match file {
        Ok(mut file) => {
            drop_foreign(&mut file, findings);
            lift_aliases(&mut file, findings);
            table.overlay(file);
            true
        }
        Err(problem) => {
            findings.problem(problem);
            false
        }
    };
    overrides(environment, flags, findings).into_iter().for_each(|layer| table.overlay(layer));
    table.check(findings, KEYS);
    let mut section = |name: &str| {
        let example = format!("[{name}] begins one");
        table.take_table(findings, name, &example).unwrap_or_else(|| Table::empty(table.place.clone()))
    };
    let (gateway, store, defaults) = (section("gateway"), section("store"), section("defaults"));
    let telemetry = section("telemetry");
    let notifications = table.remove("notifications");
    let webhooks = match table.remove("webhooks") {
        _ if !readable => None,
        None => Some(Table::empty(table.place.clone())),
        Some(entry) => findings.take(entry.node.into_table("each source has a name: [webhooks.acme-github]")),
    };
    Some(Project { gateway, store, telemetry, defaults, notifications, webhooks })
}

/// Takes out keys that are accepted and mean nothing, with a warning each.
pub(super) fn drop_foreign(table: &mut Table, findings: &mut Findings) {
    for (key, instead) in FOREIGN {
        if let Some(entry) = table.remove(key) {
            findings.warn(&entry.place, format!("`{key}` means nothing here and is ignored: {instead}"));
        }
    }
}

/// Gives keys of `[defaults]` their own names; the queue's size may also stand at the top.
fn lift_aliases(file: &mut Table, findings: &mut Findings) {
    let lifted = file.remove("workQueueSize");
    if let Some(entry) = &lifted
        && !file.has("defaults")
    {
        let node = Node { place: entry.place.clone(), kind: Kind::Table(Vec::new()) };
        file.entries.push(Entry { key: "defaults".to_owned(), place: entry.place.clone(), node });
    }
    let Some(defaults) = file.entries.iter_mut().find(|entry| entry.key == "defaults") else { return };
    let Kind::Table(entries) = &mut defaults.node.kind else { return };
    let mut table = Table { place: defaults.node.place.clone(), entries: std::mem::take(entries) };
    table.entries.extend(lifted);
    table.rename(findings, &ALIASES);
    *entries = table.entries;
}

/// What the environment and the flags say, each as a small document of its own.
fn overrides(environment: &Environment, flags: &[(String, String)], findings: &mut Findings) -> Vec<Table> {
    let mut layers = Vec::new();
    for section in SECTIONS {
        let prefix = format!("DOORBELL_{}_", section.to_ascii_uppercase());
        for (name, value) in environment.beginning_with(&prefix) {
            let place = outside(Layer::Environment, name, &value.to_string_lossy());
            let Some(path) = name[prefix.len()..].strip_prefix('_') else {
                findings.warn(&place, format!("nothing reads it; with two underscores, {prefix}_… sets a value"));
                continue;
            };
            let path = path.to_ascii_lowercase();
            match value.to_str() {
                Some(value) => layers.push(layer(section, path.split("__").collect(), value, &place)),
                None => findings.problem(Problem::at(&place, format!("`{name}` is not UTF-8")).hidden()),
            }
        }
    }
    for (path, value) in flags {
        let mut keys = path.split('.');
        let name = format!("--{}", path.rsplit('.').next().unwrap_or_default().replace('_', "-"));
        let place = outside(Layer::Flag, &name, value);
        layers.push(layer(keys.next().unwrap_or_default(), keys.collect(), value, &place));
    }
    layers
}

fn outside(layer: Layer, name: &str, value: &str) -> Place {
    let text = format!("{name}={value}");
    let span = name.len() + 1..text.len();
    Place::new(&Arc::new(Text { layer, name: name.to_owned(), text }), span)
}

/// The document in which only one key has a value.
fn layer(section: &str, path: Vec<&str>, value: &str, place: &Place) -> Table {
    let mut node = Node { place: place.clone(), kind: Kind::Loose(value.to_owned()) };
    for key in path.into_iter().rev().chain([section]) {
        let entry = Entry { key: key.to_owned(), place: place.clone(), node };
        node = Node { place: place.clone(), kind: Kind::Table(vec![entry]) };
    }
    match node.kind {
        Kind::Table(entries) => Table { place: place.clone(), entries },
        _ => Table::empty(place.clone()),
    }
}
