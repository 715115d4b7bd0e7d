//! `agents/<name>/`: the agents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::document::{Entry, Keys, Kind, Node, Table, parse};
use super::files;
use super::layers::{ALIASES, drop_foreign};
use super::names::{self, NAME_RULE, is_name};
use super::problem::{Findings, Place, Problem};
use super::runtime::{self, Surroundings};
use super::skill::{self, Skill};
use super::sources::{self, Sources};
use super::{Agent, Runtime, WhenFull, flow, presets, retries, schedules, triggers};

/// Keys that `[defaults]` may have.
const DEFAULTS: [&str; 7] = ["scale", "timeout", "timezone", "work_queue_size", "when_full", "runtime", "retries"];

/// Keys of an agent, wherever it is written.
const KEYS: [&str; 14] = [
    "description",
    "account",
    "may_call",
    "scale",
    "timeout",
    "work_queue_size",
    "when_full",
    "params",
    "webhooks",
    "runtime",
    "retries",
    "schedule",
    "schedules",
    "timezone",
];

/// What to say about keys in a file.
const HINTS: &[(&str, &str)] = &[
    ("name", "the folder is the agent's name"),
    ("command", "it stands in [runtime]"),
    ("source", "it stands in [[webhooks]]"),
    ("events", "it stands in [[webhooks]]"),
    ("env", "it stands in [runtime]"),
    ("on_lost", "it stands in [retries]"),
    ("attempts", "it stands in [retries]"),
    ("backoff", "it stands in [retries]"),
    ("key", "it stands in [[webhooks]]"),
    ("when_busy", "it stands in [[webhooks]]"),
    ("debounce", "it stands in [[webhooks]]"),
    ("max_per_key", "it stands in [[webhooks]]"),
    ("throttle", "it stands in [[webhooks]]"),
    ("priority", "it stands in [[webhooks]]"),
];

/// What to say about keys of an agent that is declared.
const DECLARED_HINTS: &[(&str, &str)] = &[
    ("name", "the URL has the agent's name"),
    ("triggers", "they are `webhooks`"),
    ("prompt", "what SKILL.md would say is `instructions`"),
    ("command", "a declared agent is of type \"worker\" or \"http\": commands stand in files"),
    ("url", "it stands in `runtime`"),
    ("source", "it stands in `webhooks`"),
    ("events", "it stands in `webhooks`"),
    ("key", "it stands in `webhooks`"),
    ("when_busy", "it stands in `webhooks`"),
    ("debounce", "it stands in `webhooks`"),
    ("max_per_key", "it stands in `webhooks`"),
    ("throttle", "it stands in `webhooks`"),
    ("priority", "it stands in `webhooks`"),
];

/// Everything that agents are read with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) around: Surroundings<'a>,
    pub(super) defaults: &'a Table,
    /// None if `config.toml` could not be read: then what it may have said is not missed.
    pub(super) sources: Option<&'a Sources>,
    /// Agents that notifications start.
    pub(super) told: &'a [(String, Place)],
}

/// Checks `[defaults]` by itself, so that its mistakes are found without any agent.
pub(super) fn check_defaults(defaults: &Table, around: Surroundings<'_>, findings: &mut Findings) {
    let known: Vec<&str> = DEFAULTS.into_iter().chain(flow::KEYS).collect();
    defaults.check(findings, Keys { known: &known, planned: &[], hints: &[] });
    defaults.settle(findings, "defaults");
    let mut table = defaults.clone();
    presets::expand(&mut table, "NAME", around, findings);
    limits(&table, findings);
    flow::read(&table, findings);
    retries::read(&mut table, findings);
    if let Some(runtime) = table.take_table(findings, "runtime", "[defaults.runtime] begins one") {
        runtime::read(&runtime, around, findings);
    }
}

/// What shows once all agents are read.
#[derive(Default)]
struct Open {
    /// Agents that nothing starts, unless another one does.
    idle: Vec<String>,
    /// Whom they may call, and where it says so.
    calls: Vec<(String, Place)>,
}

/// Reads all agents.
pub(super) fn read(reader: Reader<'_>, findings: &mut Findings) -> BTreeMap<String, Arc<Agent>> {
    let mut agents = BTreeMap::new();
    let mut open = Open::default();
    let names = findings.take(files::names_in(reader.around.root, "agents")).unwrap_or_default();
    for name in names.iter().cloned() {
        match std::fs::metadata(reader.around.root.join("agents").join(&name)) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => continue,
            Err(error) => {
                findings.problem(unreachable(&name, &error));
                continue;
            }
        }
        if !is_name(&name) {
            let place = Place::path(format!("agents/{name}"));
            findings.problem(Problem::at(&place, format!("{name:?} cannot be the name of an agent")).help(NAME_RULE));
            continue;
        }
        if let Some(agent) = read_one(&name, reader, &mut open, findings) {
            agents.insert(name, Arc::new(agent));
        }
    }
    for (called, place) in open.calls.into_iter().filter(|(called, _)| !names.contains(called)) {
        let meant = names::nearest(&called, names.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        let what = "calls of it are answered with 404 unless it is declared through the API";
        findings.warn(&place, format!("there is no folder agents/{called}: {what}{meant}"));
    }
    let is_called = |name: &String| agents.values().any(|agent: &Arc<Agent>| agent.may_call.contains(name));
    for name in open.idle.iter().filter(|name| !is_called(name)) {
        // No mistake: a webhook may be made for it at run time, and a person may start it.
        findings.warnings.push(idle_warning(name));
    }
    agents
}

/// Of an agent that nothing in the files starts.
pub fn idle_warning(name: &str) -> String {
    format!(
        "no file says what starts agent `{name}`: give it [[webhooks]] or a schedule, or make a webhook for it \
         (`doorbell webhooks create {name}`)"
    )
}

/// What is in the folder and cannot be looked at: mostly a link. It may have been meant as an agent.
fn unreachable(name: &str, error: &std::io::Error) -> Problem {
    let place = Place::path(format!("agents/{name}"));
    Problem::at(&place, format!("cannot read agents/{name}: {error}"))
        .help("if it is a link, it leads nowhere or to itself: point it at an agent's folder, or remove it")
}

fn read_one(name: &str, reader: Reader<'_>, open: &mut Open, findings: &mut Findings) -> Option<Agent> {
    let skill = read_skill(name, reader, findings);
    let own = read_file(name, reader, findings)?;
    own.check(findings, Keys { known: &KEYS, planned: &[], hints: HINTS });
    let mut table = effective(reader.defaults, own);
    presets::expand(&mut table, name, reader.around, findings);
    let starts = table.get("webhooks").is_some_and(|node| !matches!(&node.kind, Kind::List(list) if list.is_empty()));
    let has_schedule = table.has("schedule") || table.has("schedules");
    let told = reader.told.iter().any(|(told, _)| told == name);
    let disabled = table.get("scale").is_some_and(|node| node.whole(0..=0).is_ok());
    if !starts && !told && !disabled && !has_schedule {
        open.idle.push(name.to_owned());
    }
    read_table(name, table, skill, reader, &mut open.calls, findings)
}

/// Reads an agent that is declared: it has no files, so its instructions are a key, and the default runtime, which may be
/// a command, is not for it. What starts it may be a person, or another agent.
pub(super) fn read_declared(name: &str, mut own: Table, reader: Reader<'_>, findings: &mut Findings) -> Option<Agent> {
    let instructions = own.read(findings, "instructions", skill::instructions).flatten();
    let known: Vec<&str> = KEYS.into_iter().chain(["instructions"]).collect();
    own.check(findings, Keys { known: &known, planned: &[], hints: DECLARED_HINTS });
    own.remove("instructions");
    if !own.has("runtime") {
        let problem = Problem::at(&own.inside("runtime"), "an agent needs a `runtime`: how it is carried out");
        findings.problem(
            problem.help("{\"type\": \"worker\"} waits for who fetches its runs, {\"type\": \"http\"} asks a URL"),
        );
        return None;
    }
    let table = effective(reader.defaults, own);
    // Whom it may call may be declared later, and is not a file's to name.
    read_table(name, table, Skill { description: None, instructions }, reader, &mut Vec::new(), findings)
}

fn read_table(
    name: &str,
    mut table: Table,
    skill: Skill,
    reader: Reader<'_>,
    calls: &mut Vec<(String, Place)>,
    findings: &mut Findings,
) -> Option<Agent> {
    runtime::fit_defaults(&mut table);
    table.settle(findings, &format!("agents.{name}"));
    let description = table.read(findings, "description", |node| node.text("a string in one line"));
    let account = sources::account(&table, findings);
    let limits = limits(&table, findings);
    let params = params(&table, findings);
    let triggers = triggers::read(name, &table, reader, account.as_deref(), findings);
    let schedules = schedules::read(name, &table, findings);
    let may_call = may_call(name, &table, calls, findings);
    let retries = retries::read(&mut table, findings);
    let runtime = read_runtime(name, &mut table, reader, findings);
    let limits = limits?;
    Some(Agent {
        name: name.to_owned(),
        account,
        description: description.or(skill.description),
        scale: limits.scale,
        timeout: limits.timeout,
        work_queue_size: limits.work_queue_size,
        when_full: limits.when_full,
        triggers,
        schedules,
        may_call,
        runtime: runtime?,
        retries: retries?,
        instructions: skill.instructions,
        params,
    })
}

fn read_skill(name: &str, reader: Reader<'_>, findings: &mut Findings) -> Skill {
    let text = findings.take(files::read_if_there(reader.around.root, &format!("agents/{name}/SKILL.md"))).flatten();
    text.and_then(|text| findings.take(skill::read(&text))).unwrap_or_default()
}

/// The agent's own file, under either of its names.
fn read_file(name: &str, reader: Reader<'_>, findings: &mut Findings) -> Option<Table> {
    let mut read = |file: &str| {
        let path = format!("agents/{name}/{file}");
        findings.take(files::read_if_there(reader.around.root, &path)).map(|text| text.map(|text| (path, text)))
    };
    let text = match (read("config.toml")?, read("agent-config.toml")?) {
        (Some((_, text)), None) | (None, Some((_, text))) => text,
        (Some(_), Some((path, _))) => {
            let problem = Problem::at(&Place::path(path), format!("agent `{name}` has a config.toml, too"));
            findings.problem(problem.help("keep one of them"));
            return None;
        }
        (None, None) => {
            let place = Place::path(format!("agents/{name}"));
            let problem = Problem::at(&place, format!("agent `{name}` has no config.toml"));
            findings.problem(problem.help("it says what starts the agent, and how"));
            return None;
        }
    };
    let mut table = findings.take(parse(&text))?;
    drop_foreign(&mut table, findings);
    table.rename(findings, &ALIASES);
    Some(table)
}

/// The agent's own keys over the defaults; its own runtime replaces the default one as a whole.
fn effective(defaults: &Table, own: Table) -> Table {
    let inherits =
        |entry: &&Entry| DEFAULTS.contains(&entry.key.as_str()) && !(entry.key == "runtime" && own.has("runtime"));
    let entries = defaults.entries.iter().filter(inherits).cloned().collect();
    let mut table = Table { place: own.place.clone(), entries };
    table.overlay(own);
    table
}

fn read_runtime(name: &str, table: &mut Table, reader: Reader<'_>, findings: &mut Findings) -> Option<Runtime> {
    if !table.has("runtime") {
        if reader.sources.is_some() {
            let problem = Problem::at(&table.place, format!("agent `{name}` has no [runtime]: how it is carried out"));
            findings.problem(problem.help(runtime::examples()));
        }
        return None;
    }
    let table = table.take_table(findings, "runtime", &runtime::examples())?;
    let runtime = runtime::read(&table, reader.around, findings)?;
    if runtime.command().is_some() && !table.has("prompt") {
        findings.setting(format!("agents.{name}.runtime.prompt"), "\"stdin\"".to_owned(), "default".to_owned());
    }
    Some(runtime)
}

/// Whether they are there is looked at when they are called: one that is removed must not keep the others from loading. `calls`:
/// whom it names, and where.
fn may_call(own: &str, table: &Table, calls: &mut Vec<(String, Place)>, findings: &mut Findings) -> Vec<String> {
    let named = table.read(findings, "may_call", |node| node.texts("a list of agents such as [\"fixer\"]"));
    let mut agents = Vec::new();
    for (name, place) in named.unwrap_or_default() {
        if name == own {
            let problem = Problem::at(&place, format!("`{name}` cannot call itself: calls may not go round"));
            findings.problem(problem.help("take it out of the list"));
        } else if is_name(&name) {
            calls.push((name.clone(), place));
            agents.push(name);
        } else {
            let problem = Problem::at(&place, format!("{name:?} cannot be the name of an agent"));
            findings.problem(problem.help(NAME_RULE));
        }
    }
    agents
}

struct Limits {
    scale: u32,
    timeout: Duration,
    work_queue_size: u64,
    when_full: WhenFull,
}

fn limits(table: &Table, findings: &mut Findings) -> Option<Limits> {
    let choices = [("drop_oldest", WhenFull::DropOldest), ("reject", WhenFull::Reject), ("grow", WhenFull::Grow)];
    let scale = table.read(findings, "scale", |node| node.whole(0..=10_000));
    let timeout = table.read(findings, "timeout", |node| node.duration(Duration::from_millis(1)));
    let work_queue_size = table.read(findings, "work_queue_size", |node| node.whole(1..=i64::MAX));
    let when_full = table.read(findings, "when_full", |node| node.choice(&choices));
    Some(Limits {
        scale: u32::try_from(scale?).ok()?,
        timeout: timeout?,
        work_queue_size: u64::try_from(work_queue_size?).ok()?,
        when_full: when_full?,
    })
}

fn params(table: &Table, findings: &mut Findings) -> serde_json::Value {
    let table_of = |node: &Node| match &node.kind {
        Kind::Table(_) => Ok(node.to_json()),
        _ => node.clone().into_table("[params]\nteam = \"platform\"").map(|_| node.to_json()),
    };
    table.read(findings, "params", table_of).unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()))
}
