//! `[runtime]`: how an agent is carried out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doorbell_core::prompt::Template;
use doorbell_core::secret::Secret;

use super::credentials::Credentials;
use super::document::{Entry, Keys, Kind, Node, Table};
use super::names::{is_name, is_variable};
use super::problem::{Findings, Layer, Place, Problem};
use super::sources::note;
use super::{CommandRuntime, HttpRuntime, PromptChannel, http_runtime, presets, result};
use crate::users::{self, Refusal, User};

const KEYS: Keys<'static> = Keys {
    known: &["type", "preset", "command", "args", "prompt", "cwd", "run_as", "env", "credentials", "result"],
    planned: &["session"],
    hints: &[
        ("url", "it is for type = \"http\""),
        ("headers", "it is for type = \"http\""),
        ("credential", "it is for type = \"http\"; what a command gets is `credentials`"),
        ("timeout", "it stands above [runtime], as `scale` and `work_queue_size` do"),
        ("scale", "it stands above [runtime]"),
        ("work_queue_size", "it stands above [runtime]"),
        ("on_lost", "it stands in [retries]"),
    ],
};

const WORKER_KEYS: Keys<'static> = Keys {
    known: &["type"],
    planned: &[],
    hints: &[
        ("command", "it is for type = \"command\": a worker is started by whoever runs it"),
        ("url", "it is for type = \"http\": a worker asks Doorbell"),
        ("credential", "a worker shows an API key: `doorbell keys create --role agent`"),
        ("env", "it is for type = \"command\": a worker has an environment of its own"),
        ("run_as", "it is for type = \"command\": a worker is started by whoever runs it"),
    ],
};

/// Tries in all of an agent behind a URL, where nobody says otherwise: networks fail.
const HTTP_ATTEMPTS: i64 = 5;

/// How an agent is carried out.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// As a process of this machine.
    Command(Arc<CommandRuntime>),
    /// By a request to a URL.
    Http(Arc<HttpRuntime>),
    /// By workers that fetch its runs.
    Worker,
}

impl Runtime {
    /// As the configuration spells it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Http(_) => "http",
            Self::Worker => "worker",
        }
    }

    /// The command, if it is one.
    pub fn command(&self) -> Option<&Arc<CommandRuntime>> {
        match self {
            Self::Command(command) => Some(command),
            Self::Http(_) | Self::Worker => None,
        }
    }

    /// Whether its runs are fetched.
    pub fn is_worker(&self) -> bool {
        matches!(self, Self::Worker)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Command,
    Http,
    Worker,
}

/// Programs whose first argument is the file that they run.
const INTERPRETERS: [&str; 8] = ["sh", "bash", "dash", "zsh", "python", "python3", "node", "ruby"];

/// Runtimes to copy.
pub(super) fn examples() -> String {
    format!(
        "with a preset ({}):\n    [runtime]\n    preset = \"claude\"\nwith a command of your own:\n    [runtime]\n    \
         type = \"command\"\n    command = [\"./agent\", \"--fast\"]\n    cwd = \".\"    # the project; without it, a new folder for \
         each run\nbehind a URL:\n    {}",
        presets::list(),
        http_runtime::EXAMPLE.replace('\n', "\n    ")
    )
}

/// What reading a runtime needs beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) root: &'a Path,
    pub(super) credentials: &'a Credentials,
    /// Whether it is of an agent that is declared: who may do that is not who may write files here.
    pub(super) is_declared: bool,
    /// The account that declared it.
    pub(super) account: Option<&'a str>,
}

/// Reads a runtime.
pub(super) fn read(table: &Table, around: Surroundings<'_>, findings: &mut Findings) -> Option<Runtime> {
    match type_of(table, findings)? {
        Type::Command if around.is_declared => {
            if let Some(node) = table.get("type").or(table.get("preset")) {
                let what = "a declared agent is of type \"worker\" or \"http\"";
                findings.problem(
                    Problem::at(&node.place, what).help("what starts a program of this machine stands in a file"),
                );
            }
            None
        }
        Type::Command => read_command(table, around, findings).map(|command| Runtime::Command(Arc::new(command))),
        Type::Http => http_runtime::read(table, around, findings).map(|http| Runtime::Http(Arc::new(http))),
        Type::Worker => {
            table.check(findings, WORKER_KEYS);
            Some(Runtime::Worker)
        }
    }
}

/// Gives keys that nobody set the values that fit how the agent is carried out.
pub(super) fn fit_defaults(agent: &mut Table) {
    let kind = inside(agent, "runtime").and_then(|runtime| runtime.iter().find(|entry| entry.key == "type"));
    let kind = kind.map(|entry| entry.node.strict().kind);
    let is = |name: &str| matches!(&kind, Some(Kind::Text(text)) if text == name);
    if is("http") {
        set_default(inside_mut(agent, "retries"), "attempts", Kind::Whole(HTTP_ATTEMPTS));
    }
    if is("worker") {
        // While no worker is there, nothing is dropped.
        set_default(Some(&mut agent.entries), "when_full", Kind::Text("grow".to_owned()));
    }
}

fn inside<'a>(table: &'a Table, key: &str) -> Option<&'a [Entry]> {
    match &table.get(key)?.kind {
        Kind::Table(entries) => Some(entries),
        _ => None,
    }
}

fn inside_mut<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Vec<Entry>> {
    match &mut table.entries.iter_mut().find(|entry| entry.key == key)?.node.kind {
        Kind::Table(entries) => Some(entries),
        _ => None,
    }
}

fn set_default(entries: Option<&mut Vec<Entry>>, key: &str, value: Kind) {
    let entry = entries.and_then(|entries| entries.iter_mut().find(|entry| entry.key == key));
    if let Some(entry) = entry.filter(|entry| entry.place.text.layer == Layer::Default) {
        entry.node.kind = value;
    }
}

fn read_command(table: &Table, around: Surroundings<'_>, findings: &mut Findings) -> Option<CommandRuntime> {
    table.check(findings, KEYS);
    let command = match table.get("command") {
        Some(node) => findings.take(command(node)),
        None if table.has("preset") => None,
        None => {
            findings.problem(Problem::at(&table.place, "a runtime needs a `command`").help(examples()));
            None
        }
    };
    let channels = [("stdin", PromptChannel::Stdin), ("arg", PromptChannel::Arg), ("file", PromptChannel::File)];
    let prompt = table.read(findings, "prompt", |node| node.choice(&channels)).unwrap_or(PromptChannel::Stdin);
    let cwd = table.read(findings, "cwd", |node| folder(node, around.root));
    if let (Some(node), Some(command), None) = (table.get("command"), &command, &cwd)
        && !table.has("cwd")
    {
        warn_of_empty_folder(node, command, findings);
    }
    if let (Some(node), Some(command)) = (table.get("command"), &command)
        && let Some(template) = command.iter().find(|text| text.contains("{{") && text.contains("}}"))
    {
        let what =
            "is handed on as it stands: set a variable from it in `[runtime.env]`, which has templates, and read that";
        findings.warn(&node.place, format!("`{template}` {what}"));
    }
    let run_as = table.read(findings, "run_as", user);
    let env = table.get("env").map(|node| variables(node, findings)).unwrap_or_default();
    let credentials = secrets(table, &env, around.credentials, findings);
    let result = table.get("result").and_then(|node| result::read(node, findings));
    Some(CommandRuntime { command: command?, prompt, cwd, run_as, env, credentials, result })
}

const TYPES: [(&str, Type); 3] = [("command", Type::Command), ("http", Type::Http), ("worker", Type::Worker)];

/// Which keys it has; none if nobody can tell.
fn type_of(table: &Table, findings: &mut Findings) -> Option<Type> {
    let advice = "type = \"command\" starts a program, \"http\" asks a URL, \"worker\" waits for who fetches its runs";
    let Some(node) = table.get("type") else {
        // A preset brings one; one that there is not was told of.
        if !table.has("preset") {
            let mut problem = Problem::at(&table.place, "a runtime needs a `type`").help(advice);
            if table.has("command") {
                problem = problem.help("it has a `command`: add type = \"command\"");
            }
            findings.problem(problem);
        }
        return Some(if table.has("url") { Type::Http } else { Type::Command });
    };
    let found = findings.take(node.choice(&TYPES))?;
    if let (Type::Http | Type::Worker, Some(preset)) = (found, table.entry("preset")) {
        let problem = Problem::at(&preset.place, "a preset starts a program: it goes with type = \"command\"");
        findings.problem(problem.help("without `type`, it is one"));
        return None;
    }
    Some(found)
}

/// A program and its arguments.
pub(super) fn command(node: &Node) -> Result<Vec<String>, Problem> {
    let strict = node.strict();
    if let Kind::Text(text) = &strict.kind {
        let words: toml_edit::Array = text.split_whitespace().collect();
        return Err(Problem::at(&node.place, "a command is a list, never one string: no shell reads it")
            .help(format!("command = {words}")));
    }
    let nodes = node.list("a list such as [\"claude\", \"-p\"]")?;
    let words = nodes.iter().map(|node| node.text("a string in this list")).collect::<Result<Vec<_>, _>>()?;
    match words.first() {
        Some(program) if !program.trim().is_empty() => Ok(words),
        _ => Err(Problem::at(&node.place, "a command begins with a program").help("command = [\"claude\", \"-p\"]")),
    }
}

/// The file that an interpreter (`sh agent.sh`) is given to run.
pub fn script_of(command: &[String]) -> Option<&str> {
    let program = Path::new(command.first()?).file_name()?.to_str()?;
    let script = command.get(1).filter(|script| !script.starts_with('-'))?;
    INTERPRETERS.contains(&program).then_some(script)
}

/// Without `cwd` a run has a folder of its own, in which nothing is found by a relative path.
fn warn_of_empty_folder(node: &Node, command: &[String], findings: &mut Findings) {
    let is_inside = |path: &&str| Path::new(path).is_relative();
    let program = command.first().map(String::as_str).filter(|program| program.contains('/')).filter(is_inside);
    if let Some(file) = program.or_else(|| script_of(command).filter(is_inside)) {
        let why = "is looked for in the run's own folder, which is new and empty for each run";
        let what = "`cwd = \".\"` runs it in the project; or write the whole path";
        findings.warn(&node.place, format!("`{file}` {why}: {what}"));
    }
}

/// Folders are relative to the project.
fn folder(node: &Node, root: &Path) -> Result<PathBuf, Problem> {
    let text = node.text("a folder such as \"../app\"")?;
    match text.as_str() {
        "" => Err(Problem::at(&node.place, "not a folder").help("cwd = \".\" is the project's own")),
        path if path.starts_with('~') => {
            Err(Problem::at(&node.place, "only shells know `~`").help("write the whole path"))
        }
        path => Ok(root.join(path)),
    }
}

/// Who it runs as. It is never run as anybody else instead: what is said here keeps secrets from it.
fn user(node: &Node) -> Result<User, Problem> {
    let name = node.text("the name of a user such as \"agent\"")?;
    let leave = "leave `run_as` out: it then runs as Doorbell's own user and can read what that can";
    users::find(&name).map_err(|refusal| match refusal {
        Refusal::Unknown => Problem::at(&node.place, format!("there is no user {name:?} on this machine"))
            .help(format!("`useradd --system {name}` makes one; or {leave}")),
        Refusal::Root => {
            Problem::at(&node.place, format!("`{name}` may do everything, so nothing would be kept from it"))
                .help("name a user without rights of its own, such as one that `useradd --system agent` makes")
        }
        Refusal::Own => Problem::at(&node.place, format!("`{name}` is Doorbell's own user"))
            .help(format!("start Doorbell as root, which runs this command as `{name}`; or {leave}")),
        Refusal::Powerless(missing) => {
            let missing = missing.join(", ");
            Problem::at(&node.place, format!("Doorbell may not start anything as `{name}`: it lacks {missing}"))
                .help(format!("start Doorbell as root (in a container: with these capabilities); or {leave}"))
        }
        Refusal::Unreadable(error) => {
            Problem::at(&node.place, format!("the user {name:?} cannot be looked up: {error}"))
        }
    })
}

fn variables(node: &Node, findings: &mut Findings) -> BTreeMap<String, Template> {
    let example = "env = { REPO = \"{{ event.context.repo }}\" }";
    let Some(table) = findings.take(node.clone().into_table(example)) else { return BTreeMap::new() };
    let mut variables = BTreeMap::new();
    for entry in &table.entries {
        if let Err(problem) = variable(&entry.key, &entry.place) {
            findings.problem(problem.hidden());
        }
        let template = entry.node.text("a string, which may be a template").map_err(Problem::hidden).and_then(|text| {
            let message = |error: doorbell_core::prompt::TemplateError| {
                Problem::at(&entry.node.place, format!("`{}` is no template: {}", entry.key, error.message)).hidden()
            };
            Template::new(text).map_err(message)
        });
        if let Some(template) = findings.take(template) {
            variables.insert(entry.key.clone(), template);
        }
    }
    variables
}

fn variable(name: &str, place: &Place) -> Result<(), Problem> {
    if !is_variable(name) {
        let rule = "letters, digits and `_`, not beginning with a digit";
        return Err(Problem::at(place, format!("{name:?} cannot be the name of a variable")).help(rule));
    }
    match name.starts_with("DOORBELL_") {
        true => Err(Problem::at(place, format!("`{name}`: variables that begin with DOORBELL_ are set by Doorbell"))),
        false => Ok(()),
    }
}

/// The variables of `credentials`: every field of each instance.
fn secrets(
    table: &Table,
    env: &BTreeMap<String, Template>,
    credentials: &Credentials,
    findings: &mut Findings,
) -> Vec<(String, Secret)> {
    let example = "a list such as [\"github_token:acme\"]";
    let references = table.read(findings, "credentials", |node| node.texts(example)).unwrap_or_default();
    let mut given: Vec<(String, Secret)> = Vec::new();
    for (text, place) in references {
        let found = reference(&text, &place).and_then(|name| fields(name, &place, credentials, findings));
        for (name, secret) in findings.take(found).unwrap_or_default() {
            let message = match env.contains_key(&name) {
                true => format!("`{name}` is also set in `env`"),
                false if given.iter().any(|(other, _)| *other == name) => {
                    format!("two credentials would both be `{name}` in the environment")
                }
                false => {
                    given.push((name, secret));
                    continue;
                }
            };
            findings.problem(Problem::at(&place, message));
        }
    }
    given
}

/// `type:instance`; the type alone is its instance `default`.
pub(super) fn reference<'a>(text: &'a str, place: &Place) -> Result<(&'a str, &'a str), Problem> {
    let (kind, instance) = text.split_once(':').unwrap_or((text, "default"));
    match is_name(kind) && is_name(instance) {
        true => Ok((kind, instance)),
        false => Err(Problem::at(place, "not the name of a credential")
            .help("type and instance, e.g. \"github_token:acme\"; a secret is named here, never written")
            .hidden()),
    }
}

fn fields(
    (kind, instance): (&str, &str),
    place: &Place,
    credentials: &Credentials,
    findings: &mut Findings,
) -> Result<Vec<(String, Secret)>, Problem> {
    let unreadable =
        |error: std::io::Error| Problem::at(place, format!("cannot read the credential {kind}:{instance}: {error}"));
    let add = format!("`doorbell creds add {kind}:{instance}` keeps it");
    let fields = credentials.fields(kind, instance).map_err(unreadable)?;
    if fields.is_empty() {
        // Any field will do; this is the one that `creds add` keeps.
        let places = credentials.places(kind, instance, "secret").join("\n");
        let problem = Problem::at(place, format!("no credential {kind}:{instance}"));
        return Err(problem.help(add).help(format!("looked for it in\n{places}")));
    }
    let mut given = Vec::new();
    for field in &fields {
        let Some((secret, origin)) = credentials.find(kind, instance, field).map_err(unreadable)? else { continue };
        let name = if fields.len() == 1 { kind.to_owned() } else { format!("{kind}_{field}") };
        let name = name.to_ascii_uppercase().replace('-', "_");
        variable(&name, place)?;
        if secret.is_blank() || secret.expose().contains(&0) {
            let why = if secret.is_blank() { "is empty" } else { "has a NUL byte, which no variable can hold" };
            return Err(Problem::at(place, format!("the credential {kind}:{instance} ({origin}) {why}")).help(add));
        }
        note(&format!("{kind}:{instance}"), field, &origin, credentials, findings);
        given.push((name, secret));
    }
    Ok(given)
}
