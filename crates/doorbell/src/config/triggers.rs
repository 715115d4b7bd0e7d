//! `[[webhooks]]` of an agent: its triggers.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_core::condition::Conditions;
use doorbell_core::flow::Flow;
use doorbell_core::pattern::Pattern;
use doorbell_core::provider::{FilterField, Provider};
use doorbell_core::source::Source;
use doorbell_core::trigger::{Clause, Trigger};

use super::agents::Reader;
use super::document::{Keys, Node, Table, parse};
use super::names;
use super::problem::{Findings, Layer, Place, Problem, Problems, Text};
use super::sources::Sources;
use super::{conditions, flow, types};

const EXAMPLE: &str = "[[webhooks]]\nsource = \"acme-github\"\nevents = [\"issues\"]";

/// Reads the triggers of an agent, which may belong to an account.
pub(super) fn read(
    agent: &str,
    table: &Table,
    reader: Reader<'_>,
    account: Option<&str>,
    findings: &mut Findings,
) -> Vec<Trigger> {
    let Some(node) = table.get("webhooks") else { return Vec::new() };
    let list = node.list("a list of triggers").map_err(|problem| problem.help(EXAMPLE));
    let mut triggers = Vec::new();
    for (position, node) in findings.take(list).unwrap_or_default().into_iter().enumerate() {
        let Some(table) = findings.take(node.into_table(EXAMPLE)) else { continue };
        let table = flow::with_defaults(table, reader.defaults);
        if let Some((source, clauses, conditions, flow)) = read_one(&table, reader.sources, findings) {
            refuse_foreign(&table, &source, reader, account, findings);
            triggers.push(Trigger { agent: agent.to_owned(), position, source, clauses, conditions, flow });
        }
    }
    triggers
}

/// What comes to a source of one account is not for the agents of another one.
fn refuse_foreign(table: &Table, source: &str, reader: Reader<'_>, account: Option<&str>, findings: &mut Findings) {
    let Some(found) = reader.sources.and_then(|sources| sources.good.get(source)) else { return };
    if let (Some(of_source), Some(account)) = (found.account(), account)
        && of_source != account
    {
        let place = table.get("source").map_or(&table.place, |node| &node.place);
        let what = format!("source `{source}` belongs to the account `{of_source}`, and this agent to `{account}`");
        findings.problem(Problem::at(place, what).help("name one of its own account, or one without `account`"));
    }
}

/// Reads a trigger that is given as JSON.
pub(super) fn read_json(
    trigger: &serde_json::Map<String, serde_json::Value>,
    sources: &BTreeMap<String, Arc<Source>>,
) -> Result<Trigger, String> {
    let text = toml_edit::ser::to_string(trigger).map_err(|error| format!("the trigger cannot be TOML: {error}"))?;
    let text = Text { layer: Layer::File, name: "trigger".to_owned(), text };
    let declared = sources.iter().map(|(name, source)| (name.clone(), Some(source.shared_provider())));
    let sources = Sources { good: sources.clone(), declared: declared.collect() };
    let mut findings = Findings::default();
    let table = findings.take(parse(&Arc::new(text)));
    let read = table.and_then(|table| read_one(&table, Some(&sources), &mut findings));
    match read {
        Some((source, clauses, conditions, flow)) if findings.problems.is_empty() => {
            Ok(Trigger { agent: "test".to_owned(), position: 0, source, clauses, conditions, flow })
        }
        _ => Err(Problems::new(findings.problems).to_string()),
    }
}

fn read_one(
    table: &Table,
    sources: Option<&Sources>,
    findings: &mut Findings,
) -> Option<(String, Vec<Clause>, Conditions, Flow)> {
    // Read whatever the source is, so that all that is wrong is told at once.
    let (conditions, flow) = (conditions::read(table, findings), flow::read(table, findings));
    let Some(node) = table.get("source") else {
        let problem = Problem::at(&table.place, "a trigger needs a `source`");
        findings.problem(problem.help(available(sources)));
        check_keys(table, &any_provider(sources), findings);
        return None;
    };
    let Some(source) = findings.take(node.text("a source such as \"acme-github\"")) else {
        check_keys(table, &any_provider(sources), findings);
        return None;
    };
    let Some(provider) = sources?.declared.get(&source) else {
        findings.problem(unknown_source(node, &source, sources));
        check_keys(table, &any_provider(sources), findings);
        return None;
    };
    // Its type may be one of the project's own that cannot be read: nobody knows its filters.
    let provider = provider.as_ref()?;
    check_keys(table, std::slice::from_ref(provider), findings);
    let (provider, filters) = (provider.as_ref(), provider.filters());
    let mut clauses = Vec::new();
    for entry in &table.entries {
        if let Some(field) = filters.iter().find(|field| field.name == entry.key)
            && let Some(clause) = findings.take(clause(field, &entry.node, provider))
        {
            warn_of_segments(field, &entry.node.place, &clause, findings);
            warn_of_foreign_patterns(field, &entry.node.place, &clause, findings);
            warn_of_unknown_events(provider, &entry.node.place, &clause, findings);
            clauses.push((&entry.node.place, clause));
        }
    }
    warn_of_misspelt_actions(provider, &clauses, findings);
    Some((source, clauses.into_iter().map(|(_, clause)| clause).collect(), conditions, flow))
}

/// The providers that may be meant where it is not known which is.
fn any_provider(sources: Option<&Sources>) -> Vec<Arc<dyn Provider>> {
    let declared = sources.iter().flat_map(|sources| sources.declared.values()).flatten().cloned();
    types::providers().into_iter().chain(declared).collect()
}

/// Keys that a trigger of none of these providers has are wrong, whichever is meant.
fn check_keys(table: &Table, providers: &[Arc<dyn Provider>], findings: &mut Findings) {
    let filters = providers.iter().flat_map(|provider| provider.filters()).map(|field| field.name.as_ref());
    let own = ["source", "where", "key"].into_iter().chain(flow::KEYS);
    let known: Vec<&str> = own.chain(filters).collect();
    table.check(findings, Keys { known: &known, planned: &[], hints: &[] });
}

fn available(sources: Option<&Sources>) -> String {
    match sources {
        Some(sources) if !sources.declared.is_empty() => {
            format!("the sources are {}", names::list(sources.declared.keys().map(String::as_str)))
        }
        _ => "config.toml declares one: [webhooks.acme-github]".to_owned(),
    }
}

fn unknown_source(node: &Node, source: &str, sources: Option<&Sources>) -> Problem {
    let problem = Problem::at(&node.place, format!("no source {source:?}"));
    let declared = sources.iter().flat_map(|sources| sources.declared.keys()).map(String::as_str);
    match names::nearest(source, declared) {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")).help(available(sources)),
        None => problem.help(available(sources)),
    }
}

fn clause(field: &FilterField, node: &Node, provider: &dyn Provider) -> Result<Clause, Problem> {
    let texts = node.words("a list of strings such as [\"a\", \"b\"]")?;
    if texts.is_empty() {
        let message = format!("an empty list of `{}` matches nothing, so the trigger never would", field.name);
        return Err(Problem::at(&node.place, message).help("name what is wanted, or leave the key out for everything"));
    }
    let pattern = |(text, place): (String, Place)| {
        Pattern::new(provider.spelling(&field.name, &text))
            .map_err(|error| Problem::at(&place, format!("`{}` of {}: {error}", field.name, provider.name())))
    };
    Ok(Clause {
        field: field.name.to_string(),
        context: field.context.iter().map(ToString::to_string).collect(),
        any_of: texts.into_iter().map(pattern).collect::<Result<_, _>>()?,
        only_for: field.only_for.iter().map(ToString::to_string).collect(),
    })
}

/// A repository is `owner/name`, and one star stays before the slash.
fn warn_of_segments(field: &FilterField, place: &Place, clause: &Clause, findings: &mut Findings) {
    if !field.context.iter().any(|name| name == "repo") {
        return;
    }
    let hopeless = |text: &&str| !text.contains('/') && !text.contains("**");
    for text in clause.any_of.iter().map(Pattern::as_str).filter(hopeless) {
        let instead = match text.contains('*') {
            true => format!("`{}`", text.replace('*', "**")),
            false => format!("`{text}/*` for all of an owner's, or `*/{text}` for one of that name"),
        };
        let sentence = format!(
            "`{text}` in `{}` can never match: repositories are `owner/name`, and `*` stands for anything but `/`; \
             write {instead}",
            field.name
        );
        findings.warn(place, sentence);
    }
}

/// What other tools' patterns have and these do not: it stands for itself here, and so the filter hardly ever matches.
fn warn_of_foreign_patterns(field: &FilterField, place: &Place, clause: &Clause, findings: &mut Findings) {
    // Names that have neither `?` nor `[`: git-check-ref-format(1), and what GitHub lets owners and repositories be called.
    let plain = field.context.iter().any(|name| ["repo", "org", "branch"].contains(&name.as_ref()));
    for text in clause.any_of.iter().map(Pattern::as_str) {
        let alternatives = text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(inside, _)| inside);
        let instead = if text.starts_with('!') {
            "`!` stands for itself and excludes nothing; a condition can: `where`"
        } else if alternatives.is_some_and(|inside| inside.contains(',')) {
            "`{` and `}` stand for themselves; write each alternative as a text of the list"
        } else if plain && text.contains(['?', '[']) {
            "only `*` and `**` stand for other text; `?` and `[` stand for themselves"
        } else {
            continue;
        };
        findings.warn(place, format!("`{text}` in `{}` will hardly match anything: {instead}", field.name));
    }
}

/// An event that its maker is not known to send: misspelt, or newer than this program.
fn warn_of_unknown_events(provider: &dyn Provider, place: &Place, clause: &Clause, findings: &mut Findings) {
    let known = provider.events();
    if clause.field != "events" || known.is_empty() {
        return;
    }
    for text in clause.any_of.iter().map(Pattern::as_str) {
        let event = text.split('.').next().unwrap_or_default();
        if event.contains(['*', '!', '{']) || known.contains(&event) {
            continue;
        }
        let meant = names::nearest(event, known.iter().copied());
        let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        findings.warn(
            place,
            format!("`{text}` in `events`: {} is not known to send `{event}`{meant}", provider.guide().title),
        );
    }
}

/// An action that is nearly one that is known: there are more than are known, so any other may be right.
fn warn_of_misspelt_actions(provider: &dyn Provider, clauses: &[(&Place, Clause)], findings: &mut Findings) {
    let title = provider.guide().title;
    // GitHub's event of this name has the actions of whoever makes it.
    let is_free = |pattern: &Pattern| {
        pattern.matches("repository_dispatch") || pattern.as_str().starts_with("repository_dispatch.")
    };
    let free = clauses.iter().any(|(_, clause)| clause.field == "events" && clause.any_of.iter().any(is_free));
    for (place, clause) in clauses.iter().filter(|_| !free) {
        for text in clause.any_of.iter().map(Pattern::as_str) {
            let action = match clause.field.as_str() {
                "actions" => text,
                "events" => text.split_once('.').map_or("", |(_, action)| action),
                _ => continue,
            };
            if let Some(meant) = names::misspelt(action, provider.actions()) {
                let field = &clause.field;
                let sentence =
                    format!("`{text}` in `{field}`: {title} is not known to send `{action}`; did you mean `{meant}`?");
                findings.warn(place, sentence);
            }
        }
    }
}
