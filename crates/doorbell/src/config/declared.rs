//! Agents that are declared through the API: what `agents/<name>/config.toml` says, as JSON in camelCase. It becomes the table
//! that a file would be, and the same code reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_core::provider::Provider;
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::credentials::Credentials;
use super::document::{Entry, Kind, Node, Table, join_value};
use super::names::{NAME_RULE, is_name};
use super::problem::{Findings, Flaw, Place, Problem, Problems};
use super::runtime::Surroundings;
use super::sources::Sources;
use super::types::is_named;
use super::{Agent, Config, agents, names};

/// The key of a definition that says whose the agent is.
pub const ACCOUNT: &str = "account";

/// What somebody declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declaration {
    /// The agent, as it was given, without `null`s.
    pub definition: Map<String, Value>,
    /// Who declared it first.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// Who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: Timestamp,
}

/// A declaration as it is read with the files.
#[derive(Debug, Clone)]
pub struct Declared {
    /// What was declared.
    pub declaration: Declaration,
    /// Why it is not in force; nothing: it is.
    pub flaws: Vec<Flaw>,
    /// What was accepted and may not be what was meant.
    pub warnings: Vec<String>,
}

impl Declared {
    /// Whether its agent is one of the configuration's.
    pub fn is_in_force(&self) -> bool {
        self.flaws.is_empty()
    }

    /// Why it is not in force, in one sentence; none if it is.
    pub fn problem(&self) -> Option<String> {
        let one = |flaw: &Flaw| match flaw.field.as_str() {
            "" => flaw.message.clone(),
            field => format!("{field}: {}", flaw.message),
        };
        (!self.is_in_force()).then(|| self.flaws.iter().map(one).collect::<Vec<_>>().join("; "))
    }
}

impl Config {
    /// The declarations that it was read with, by the agent's name.
    pub fn declarations(&self) -> BTreeMap<String, Declaration> {
        self.declared.iter().map(|(name, declared)| (name.clone(), declared.declaration.clone())).collect()
    }

    /// Whether an agent is declared, and no file's.
    pub fn is_declared(&self, agent: &str) -> bool {
        self.declared.get(agent).is_some_and(Declared::is_in_force)
    }

    /// The same files with these declarations; `owner_of`: the account that a name belongs to, an empty one being the gateway. One that cannot be read as things stand is left out, and says why: the files may
    /// have changed since it was made.
    #[must_use]
    pub fn with_declared(
        mut self,
        declarations: BTreeMap<String, Declaration>,
        owner_of: impl Fn(&str) -> Option<String>,
    ) -> Self {
        for (name, _) in std::mem::take(&mut self.declared).into_iter().filter(|(_, before)| before.is_in_force()) {
            self.agents.remove(&name);
            self.settings.retain(|setting| !is_of(&name, &setting.path));
        }
        for (name, declaration) in declarations {
            let (agent, mut findings) = self.read_declared(&name, &declaration.definition);
            let account = declaration.definition.get(ACCOUNT).and_then(Value::as_str);
            if account.is_some_and(|account| owner_of(&name).is_some_and(|owner| owner != account)) {
                let what = "the name was given to somebody else by the files: declare it under another one";
                findings.problem(Problem::anywhere(what));
            }
            if agent.is_none() && findings.problems.is_empty() {
                findings.problem(Problem::anywhere("it cannot be read"));
            }
            let flaws = Problems::new(findings.problems).flaws();
            if let Some(agent) = agent.filter(|_| flaws.is_empty()) {
                findings.settings.retain(|setting| is_of(&name, &setting.path));
                self.settings.append(&mut findings.settings);
                self.agents.insert(name.clone(), Arc::new(agent));
            }
            self.declared.insert(name, Declared { declaration, flaws, warnings: findings.warnings });
        }
        self
    }

    fn read_declared(&self, name: &str, definition: &Map<String, Value>) -> (Option<Agent>, Findings) {
        let mut findings = Findings::default();
        if !is_name(name) {
            findings.problem(Problem::anywhere(format!("{name:?} cannot be the name of an agent")).help(NAME_RULE));
        }
        if self.agents.contains_key(name) {
            findings.problem(Problem::anywhere(format!("the files have an agent {name}, which is in force instead")));
        }
        let credentials = Credentials::new(&self.origin.environment);
        let around = Surroundings { root: &self.root, credentials: &credentials, is_declared: true, account: None };
        let account = definition.get(ACCOUNT).and_then(Value::as_str);
        let around = Surroundings { account, ..around };
        // Of what is not its account's, nothing is said.
        let good = self.sources.iter().filter(|(_, source)| account.is_none() || source.account() == account);
        let good: BTreeMap<String, Arc<Source>> = good.map(|(name, one)| (name.clone(), Arc::clone(one))).collect();
        let declared = good.iter().map(|(name, source)| (name.clone(), Some(source.shared_provider()))).collect();
        let sources = Sources { good, declared };
        let mut table = table("", definition, &mut findings);
        name_sources(&mut table, &sources, &mut findings);
        let reader = agents::Reader { around, defaults: &self.defaults, sources: Some(&sources), told: &[] };
        (agents::read_declared(name, table, reader, &mut findings), findings)
    }
}

/// Whether a setting is an agent's.
fn is_of(agent: &str, path: &str) -> bool {
    path.strip_prefix("agents.").and_then(|rest| rest.strip_prefix(agent)).is_some_and(|rest| rest.starts_with('.'))
}

/// A JSON object as a table, in which keys are spelled as in files.
fn table(path: &str, object: &Map<String, Value>, findings: &mut Findings) -> Table {
    // What stands in these is not ours to spell.
    let is_free = path == "params" || path.starts_with("params.") || path == "runtime.headers";
    let mut table = Table::empty(Place::of_value(path));
    for (written, value) in object {
        let path = join_value(path, written);
        let place = Place::of_value(&path);
        let key = if is_free { written.clone() } else { snake(written) };
        if table.has(&key) {
            findings.problem(Problem::at(&place, format!("`{key}` is given twice, in two spellings")));
        } else if let Some(node) = node(&path, value, findings) {
            table.entries.push(Entry { key, place, node });
        }
    }
    table
}

fn node(path: &str, value: &Value, findings: &mut Findings) -> Option<Node> {
    let place = Place::of_value(path);
    let kind = match value {
        Value::Null => {
            findings.problem(Problem::at(&place, "`null` is no value"));
            return None;
        }
        Value::Bool(flag) => Kind::Flag(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Kind::Whole(whole),
            (None, real) => Kind::Real(real.unwrap_or(f64::MAX)),
        },
        Value::String(text) => Kind::Text(text.clone()),
        Value::Array(list) => {
            let one = |(n, value)| node(&format!("{path}[{n}]"), value, findings);
            Kind::List(list.iter().enumerate().filter_map(one).collect())
        }
        Value::Object(object) => Kind::Table(table(path, object, findings).entries),
    };
    Some(Node { place, kind })
}

/// `workQueueSize` as `work_queue_size`.
fn snake(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Puts a trigger for each source of a provider in place of one that names the provider.
fn name_sources(table: &mut Table, sources: &Sources, findings: &mut Findings) {
    let Some(webhooks) = table.entries.iter_mut().find(|entry| entry.key == "webhooks") else { return };
    let Kind::List(list) = &mut webhooks.node.kind else { return };
    *list = std::mem::take(list).into_iter().flat_map(|trigger| of_sources(trigger, sources, findings)).collect();
}

fn of_sources(trigger: Node, sources: &Sources, findings: &mut Findings) -> Vec<Node> {
    let Kind::Table(entries) = &trigger.kind else { return vec![trigger] };
    let text = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some((entry, entry.node.text("the name of a provider such as \"github\"")))
    };
    let (entry, named) = match (text("source"), text("provider")) {
        (Some(_), Some((provider, _))) => {
            findings.problem(Problem::at(&provider.place, "a trigger names a `source` or a `provider`, not both"));
            return Vec::new();
        }
        (None, Some(named)) => named,
        // A name that no source has may be a provider's.
        (Some((entry, Ok(name))), None) if !sources.declared.contains_key(&name) => {
            if of_provider(sources, &name).next().is_none() {
                return vec![trigger];
            }
            (entry, Ok(name))
        }
        _ => return vec![trigger],
    };
    let Some(named) = findings.take(named) else { return Vec::new() };
    let all: Vec<&String> = of_provider(sources, &named).collect();
    if all.is_empty() {
        findings.problem(no_source_of(&named, &entry.node.place, sources));
    }
    let of = |source: &&String| {
        let own = entries.iter().filter(|other| other.key != entry.key).cloned();
        let node = Node { place: entry.node.place.clone(), kind: Kind::Text((*source).clone()) };
        let source = Entry { key: "source".to_owned(), place: entry.place.clone(), node };
        Node { place: trigger.place.clone(), kind: Kind::Table(own.chain([source]).collect()) }
    };
    all.iter().map(of).collect()
}

/// The sources of a provider.
fn of_provider<'a>(sources: &'a Sources, name: &str) -> impl Iterator<Item = &'a String> {
    let is_its = move |provider: &Arc<dyn Provider>| is_named(provider.as_ref(), name);
    sources.declared.iter().filter(move |(_, provider)| provider.as_ref().is_some_and(is_its)).map(|(source, _)| source)
}

fn no_source_of(name: &str, place: &Place, sources: &Sources) -> Problem {
    let problem = Problem::at(place, format!("no source is of the provider {name:?}"));
    let mut known: Vec<&str> = sources.declared.values().flatten().map(|provider| provider.name()).collect();
    known.dedup();
    match names::nearest(name, known.iter().copied()) {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("the sources are {}", names::list(sources.declared.keys().map(String::as_str)))),
    }
}
