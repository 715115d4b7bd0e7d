//! `[runtime]`: how an agent is carried out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use doorbell_core::prompt::Template;
use doorbell_core::secret::Secret;

use super::credentials::Credentials;
use super::document::{Keys, Kind, Node, Table};
use super::names::{is_name, is_variable};
use super::problem::{Findings, Place, Problem};
use super::sources::note;
use super::{CommandRuntime, PromptChannel, presets, result};

const KEYS: Keys<'static> = Keys {
    known: &["type", "preset", "command", "args", "prompt", "cwd", "env", "credentials", "result"],
    planned: &["run_as", "url", "credential", "headers", "session"],
    hints: &[],
};

const TYPES: [&str; 1] = ["command"];
const PLANNED_TYPES: [&str; 2] = ["http", "worker"];

/// Programs whose first argument is the file that they run.
const INTERPRETERS: [&str; 8] = ["sh", "bash", "dash", "zsh", "python", "python3", "node", "ruby"];

/// Runtimes to copy.
pub(super) fn examples() -> String {
    format!(
        "with a preset ({}):\n    [runtime]\n    preset = \"claude\"\nwith a command of your own:\n    [runtime]\n    \
         type = \"command\"\n    command = [\"./agent\", \"--fast\"]\n    cwd = \".\"    # the project; without it, a new folder for \
         each run",
        presets::list()
    )
}

/// What reading a runtime needs beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) root: &'a Path,
    pub(super) credentials: &'a Credentials,
}

/// Reads a runtime.
pub(super) fn read(table: &Table, around: Surroundings<'_>, findings: &mut Findings) -> Option<CommandRuntime> {
    if !is_command(table, findings) {
        return None;
    }
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
    let env = table.get("env").map(|node| variables(node, findings)).unwrap_or_default();
    let credentials = secrets(table, &env, around.credentials, findings);
    let result = table.get("result").and_then(|node| result::read(node, findings));
    Some(CommandRuntime { command: command?, prompt, cwd, env, credentials, result })
}

fn is_command(table: &Table, findings: &mut Findings) -> bool {
    let Some(node) = table.get("type") else {
        // A preset brings one; one that there is not was told of.
        if table.has("preset") {
            return true;
        }
        let problem = Problem::at(&table.place, "a runtime needs a `type`");
        findings.problem(problem.help("type = \"command\" starts a program"));
        return true;
    };
    let Some(text) = findings.take(node.text("\"command\"")) else { return true };
    if PLANNED_TYPES.contains(&text.as_str()) {
        let problem = Problem::at(&node.place, format!("`{text}` is not supported yet"));
        findings.problem(problem.help("type = \"command\" starts a program"));
        return false;
    }
    findings.take(node.choice(&TYPES.map(|name| (name, ())))).is_some()
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
fn reference<'a>(text: &'a str, place: &Place) -> Result<(&'a str, &'a str), Problem> {
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
