//! Presets: the runtimes of known agents, as data. The facts about the tools stand in `presets.toml`, with what was
//! checked of each; nothing here knows a tool.

use std::sync::{Arc, LazyLock};

use super::document::{Entry, Kind, Node, Table, parse};
use super::names;
use super::problem::{Findings, Layer, Place, Problem, Text};
use super::runtime::Surroundings;

/// The presets as the program has them built in.
pub const PRESETS: &str = include_str!("presets.toml");

/// What stands for the agent's own folder in the command of a preset.
const AGENT_FOLDER: &str = "{agent}";

/// The runtime of a known agent.
#[derive(Debug)]
pub struct Preset {
    /// As `preset = "…"` names it.
    pub name: String,
    /// As people know it.
    pub title: String,
    /// What lets it change files: a line of `[runtime]`.
    pub act: Option<String>,
    /// What else there is to say of what it may do.
    pub remark: Option<String>,
    /// Against which version it was checked, and how.
    pub checked: String,
    /// The type of the credential that it gets if one is stored, e.g. `anthropic_api_key`.
    pub credential: Option<String>,
    /// What goes behind the command and its `args`.
    tail: Vec<Node>,
    runtime: Table,
}

impl Preset {
    /// The name of the program that it starts.
    pub fn program(&self) -> Option<&str> {
        match &self.runtime.get("command")?.kind {
            Kind::List(words) => text_of(words.first()?),
            _ => None,
        }
    }
}

/// All presets, in the order of the reference.
pub fn presets() -> &'static [Preset] {
    static ALL: LazyLock<Vec<Preset>> = LazyLock::new(read_all);
    &ALL
}

fn read_all() -> Vec<Preset> {
    let text = Text { layer: Layer::Preset, name: "presets.toml".to_owned(), text: PRESETS.to_owned() };
    let table =
        parse(&Arc::new(text)).unwrap_or_else(|_| unreachable!("the built-in presets are TOML: a test says so"));
    table.entries.into_iter().filter_map(read_one).collect()
}

fn read_one(entry: Entry) -> Option<Preset> {
    let (name, mut node) = (entry.key, entry.node);
    // What `doorbell config` shows as the origin of all its values.
    let text = Text { layer: Layer::Preset, name: format!("preset {name}"), text: String::new() };
    node.move_to(&Place::new(&Arc::new(text), 0..0));
    let Kind::Table(entries) = node.kind else { return None };
    let mut table = Table { place: node.place, entries };
    let text = |key: &str| table.get(key).and_then(text_of).map(str::to_owned);
    let (title, checked) = (text("title")?, text("checked")?);
    let (act, remark) = (text("act"), text("remark"));
    let tail = match table.remove("tail").map(|entry| entry.node.kind) {
        Some(Kind::List(words)) => words,
        _ => Vec::new(),
    };
    let Kind::Table(entries) = table.remove("runtime")?.node.kind else { return None };
    let runtime = Table { place: table.place, entries };
    let credential = match runtime.get("credentials").map(|node| &node.kind) {
        Some(Kind::List(names)) => names.first().and_then(text_of).map(str::to_owned),
        _ => None,
    };
    Some(Preset { name, title, act, remark, checked, credential, tail, runtime })
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

/// The names of all presets, for messages.
pub(super) fn list() -> String {
    names::list(presets().iter().map(|preset| preset.name.as_str()))
}

/// Puts what its preset says under the `runtime` of an agent (or of the defaults); its own keys win.
pub(super) fn expand(table: &mut Table, agent: &str, around: Surroundings<'_>, findings: &mut Findings) {
    let Some(entry) = table.entries.iter_mut().find(|entry| entry.key == "runtime") else { return };
    let node = entry.node.strict();
    let Kind::Table(entries) = node.kind else { return };
    let own = Table { place: node.place.clone(), entries };
    let whole = expanded(own, agent, around, findings);
    entry.node = Node { place: node.place, kind: Kind::Table(whole.entries) };
}

fn expanded(own: Table, agent: &str, around: Surroundings<'_>, findings: &mut Findings) -> Table {
    let Some(named) = own.get("preset") else {
        if let Some(args) = own.entry("args") {
            let problem = Problem::at(&args.place, "`args` goes behind the command of a `preset`, and there is none");
            findings.problem(problem.help("program and arguments are one list: command = [\"./agent\", \"--fast\"]"));
        }
        return own;
    };
    let Some(preset) = findings.take(find(named)) else { return own };
    let mut whole = preset.runtime.clone();
    let args = own.entry("args").and_then(|args| findings.take(arguments(args, &own)));
    whole.entries.push(Entry {
        key: "type".to_owned(),
        place: whole.place.clone(),
        node: Node { place: whole.place.clone(), kind: Kind::Text("command".to_owned()) },
    });
    if let Some(Kind::List(words)) = whole.entries.iter_mut().find(|e| e.key == "command").map(|e| &mut e.node.kind) {
        let folder = around.root.join("agents").join(agent).display().to_string();
        for word in words.iter_mut() {
            if let Kind::Text(text) = &mut word.kind {
                *text = text.replace(AGENT_FOLDER, &folder);
            }
        }
        words.extend(args.unwrap_or_default());
        words.extend(preset.tail.iter().cloned());
        warn_of_lost_arguments(&preset.name, words, &own, findings);
    }
    // Half of a rule of the preset's with half of another one would be neither.
    if own.has("result") {
        whole.remove("result");
    }
    if preset.credential.as_ref().is_some_and(|kind| !is_stored(kind, around)) {
        whole.remove("credentials");
    }
    whole.overlay(own);
    whole
}

/// A `command` of one word in place of a preset's: its place was to be said, and what stands behind it was lost.
fn warn_of_lost_arguments(preset: &str, words: &[Node], own: &Table, findings: &mut Findings) {
    let Some(node) = own.get("command") else { return };
    if let Kind::List(mine) = &node.kind
        && mine.len() == 1
        && words.len() > 1
    {
        let whole: Vec<&str> = mine.iter().chain(&words[1..]).filter_map(text_of).collect();
        let sentence = format!(
            "`command` replaces the whole list of preset `{preset}`, its arguments too; to keep them: command = {whole:?}"
        );
        findings.warn(&node.place, sentence);
    }
}

fn find(named: &Node) -> Result<&'static Preset, Problem> {
    let name = named.text("the name of a preset such as \"claude\"")?;
    if let Some(preset) = presets().iter().find(|preset| preset.name == name) {
        return Ok(preset);
    }
    let problem = Problem::at(&named.place, format!("no preset {name:?}"));
    let problem = match names::nearest(&name, presets().iter().map(|preset| preset.name.as_str())) {
        Some(meant) => problem.help(format!("did you mean \"{meant}\"?")),
        None => problem,
    };
    Err(problem.help(format!("the presets are {}; `command` starts anything else", list())))
}

/// The words of `args`.
fn arguments(args: &Entry, own: &Table) -> Result<Vec<Node>, Problem> {
    if own.has("command") {
        let problem = Problem::at(&args.place, "`args` goes behind the preset's command, and `command` replaces that");
        return Err(problem.help("put them at the end of `command`"));
    }
    let words = args.node.list("a list such as [\"--model\", \"opus\"]")?;
    words.iter().try_for_each(|word| word.text("a string in this list").map(drop))?;
    Ok(words)
}

/// Whether there is a credential `kind:default`. One that cannot be looked for counts: reading it says why.
fn is_stored(kind: &str, around: Surroundings<'_>) -> bool {
    around.credentials.fields(kind, "default").map_or(true, |fields| !fields.is_empty())
}
