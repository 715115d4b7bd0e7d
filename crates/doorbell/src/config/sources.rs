//! `[webhooks.<name>]`: the sources.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::event::is_own;
use doorbell_core::provider::Provider;
use doorbell_core::provider::generic::{Algorithm, Encoding, Generic, GenericOptions, Scheme};
use doorbell_core::source::{Dedup, NamedKey, Source};

use super::credentials::Credentials;
use super::document::{Entry, Keys, Node, Table};
use super::flow::rate;
use super::layers::ALIASES;
use super::names::{NAME_RULE, OWN_RULE, is_name};
use super::problem::{Findings, Place, Problem};
use super::quantity::write_duration;
use super::types::{Type, Types};

/// Sources of one provider that may share `/webhooks/<provider>`: each delivery is tried on all of them.
const MOST_OF_A_TYPE: usize = 16;

const COMMON: [&str; 7] = ["type", "account", "credential", "allow_unsigned", "dedup", "ignore_senders", "rate_limit"];
const GENERIC: [&str; 7] = ["scheme", "header", "prefix", "encoding", "algorithm", "delivery_header", "event_header"];
const TIMED: [&str; 1] = ["tolerance"];

/// The sources of a project.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) good: BTreeMap<String, Arc<Source>>,
    /// The provider of every source that is declared, also of one with a problem; none if that is not known.
    pub(super) declared: BTreeMap<String, Option<Arc<dyn Provider>>>,
}

/// Reads `[webhooks]`.
pub(super) fn read(table: Table, types: &Types, credentials: &Credentials, findings: &mut Findings) -> Sources {
    let mut sources = Sources::default();
    let mut of_type: BTreeMap<String, usize> = BTreeMap::new();
    for Entry { key: name, place, node } in table.entries {
        let provider = read_one(&name, &place, node, Around { types, credentials }, findings, &mut sources.good);
        if let Some(provider) = &provider {
            let count = of_type.entry(provider.name().to_owned()).or_default();
            *count += 1;
            if *count == MOST_OF_A_TYPE + 1 {
                let message = format!("more than {MOST_OF_A_TYPE} sources of type `{}`", provider.name());
                let reason = "each delivery to the URL that they share is tried on all of them";
                findings.problem(Problem::at(&place, message).help(reason));
            }
        }
        sources.declared.insert(name, provider);
    }
    sources
}

/// What sources are read with.
#[derive(Clone, Copy)]
struct Around<'a> {
    types: &'a Types,
    credentials: &'a Credentials,
}

fn read_one(
    name: &str,
    place: &Place,
    node: Node,
    around: Around<'_>,
    findings: &mut Findings,
    good: &mut BTreeMap<String, Arc<Source>>,
) -> Option<Arc<dyn Provider>> {
    if !is_name(name) {
        findings.problem(Problem::at(place, format!("{name:?} cannot be the name of a source")).help(NAME_RULE));
    }
    if is_own(name) {
        let problem = Problem::at(place, format!("{name:?} cannot be the name of a source"));
        findings.problem(problem.help(OWN_RULE));
    }
    let example = format!("[webhooks.{name}]\ntype = \"github\"\ncredential = \"{name}\"");
    let mut table = findings.take(node.into_table(&example))?;
    table.rename(findings, &ALIASES);
    let path = format!("webhooks.{name}");
    table.settle(findings, &path);
    let found_before = findings.problems.len();
    let dedup = [("id", Dedup::Id), ("id_or_body", Dedup::IdOrBody), ("off", Dedup::Off)];
    let dedup = match table.read(findings, "dedup", |node| node.choice(&dedup)) {
        Some(dedup) => dedup,
        None => {
            findings.setting(format!("{path}.dedup"), "\"id\"".to_owned(), "default".to_owned());
            Dedup::Id
        }
    };
    let ignored = ignored_senders(&table, findings);
    let account = account(&table, findings);
    let rate_limit = table.read(findings, "rate_limit", |node| rate(node, "100/1m"));
    let allow_unsigned = table.read(findings, "allow_unsigned", Node::flag).unwrap_or(false);
    let provider = provider(&table, &path, around.types, findings)?;
    let keys = keys(&table, provider.as_ref(), around.credentials, findings);
    if findings.problems.len() > found_before {
        return Some(provider);
    }
    match Source::new(name, Arc::clone(&provider), keys, allow_unsigned, dedup) {
        Ok(source) => {
            good.insert(name.to_owned(), Arc::new(source.ignoring(ignored).limited_to(rate_limit).of_account(account)));
        }
        Err(error) => {
            let place = table.entry("allow_unsigned").map_or(&table.place, |entry| &entry.place);
            findings.problem(Problem::at(place, format!("source `{name}` {error}")));
        }
    }
    Some(provider)
}

/// `account`: whose a source or an agent is; nothing: the gateway's.
pub(super) fn account(table: &Table, findings: &mut Findings) -> Option<String> {
    let node = table.get("account")?;
    let name = findings.take(node.text("the name of an account such as \"platform\""))?;
    if !is_name(&name) {
        findings
            .problem(Problem::at(&node.place, format!("{name:?} cannot be the name of an account")).help(NAME_RULE));
    }
    Some(name)
}

/// The provider that `type` and the keys that go with it make; reports keys that do not go with it.
fn provider(table: &Table, path: &str, types: &Types, findings: &mut Findings) -> Option<Arc<dyn Provider>> {
    let Some(node) = table.get("type") else {
        let problem = Problem::at(&table.place, "a source needs a `type`: who sends");
        findings.problem(problem.help(format!("type = \"github\"; the types are {}", types.list())));
        check(table, &[COMMON.as_slice(), &GENERIC, &TIMED].concat(), &[], findings);
        return None;
    };
    let text = findings.take(node.text("a provider such as \"github\""))?;
    let Some(found) = types.find(&text) else {
        if !types.is_missed(&text) {
            findings.problem(unknown_type(node, &text, types));
        }
        return None;
    };
    let untimed = format!("`{text}` signs no time; these do: {}", types.list_with_time());
    let mut hints: Vec<(&str, &str)> = GENERIC.map(|key| (key, "only sources of type `generic` have it")).into();
    hints.push(("tolerance", &untimed));
    hints.push(("secret", "secrets stand in no file: store it with `doorbell creds add`, and name it as `credential`"));
    match found {
        Type::Generic => {
            check(table, &[COMMON.as_slice(), &GENERIC].concat(), &hints, findings);
            // What is wrong with it hides nothing that is wrong with its triggers.
            generic(table, findings).or_else(|| Some(Arc::new(Generic::new(GenericOptions::default()).ok()?)))
        }
        Type::Known(provider) => match provider.tolerance() {
            None => {
                check(table, &COMMON, &hints, findings);
                Some(provider)
            }
            Some(usual) => {
                check(table, &[COMMON.as_slice(), &TIMED].concat(), &hints, findings);
                Some(tolerant(provider, usual, table, path, findings))
            }
        },
    }
}

fn check(table: &Table, known: &[&str], hints: &[(&str, &str)], findings: &mut Findings) {
    table.check(findings, Keys { known, planned: &[], hints });
}

fn unknown_type(node: &Node, text: &str, types: &Types) -> Problem {
    let mut problem = Problem::at(&node.place, format!("unknown type {text:?}"));
    if let Some(meant) = types.nearest(text) {
        problem = problem.help(format!("did you mean `{meant}`?"));
    }
    problem.help(format!("the types are {}", types.list())).help(
        "a sender that signs its bodies or shows a token works with type = \"generic\"; any other can be declared in \
         providers/<name>.toml",
    )
}

/// The provider with the source's own `tolerance`.
fn tolerant(
    provider: Arc<dyn Provider>,
    usual: Duration,
    table: &Table,
    path: &str,
    findings: &mut Findings,
) -> Arc<dyn Provider> {
    // Where the table has one, that one is noted already.
    findings.setting(format!("{path}.tolerance"), format!("\"{}\"", write_duration(usual)), "default".to_owned());
    let tolerance = table.read(findings, "tolerance", |node| node.duration(Duration::from_secs(1)));
    tolerance.and_then(|tolerance| provider.with_tolerance(tolerance)).unwrap_or(provider)
}

/// Those whose events start nothing.
fn ignored_senders(table: &Table, findings: &mut Findings) -> Vec<String> {
    let expected = "a list of names such as [\"my-bot\"]";
    let names = table.read(findings, "ignore_senders", |node| node.texts(expected)).unwrap_or_default();
    let mut ignored = Vec::with_capacity(names.len());
    for (name, place) in names {
        if name.trim().is_empty() {
            findings.problem(Problem::at(&place, "nobody is called that").help("ignore_senders = [\"my-bot\"]"));
        } else if name.contains('*') {
            let problem = Problem::at(&place, format!("`{name}` is no exact name"));
            findings.problem(problem.help("names are compared as they are: patterns belong into triggers"));
        } else {
            ignored.push(name);
        }
    }
    ignored
}

fn generic(table: &Table, findings: &mut Findings) -> Option<Arc<dyn Provider>> {
    let found_before = findings.problems.len();
    let mut header = |key| table.read(findings, key, |node: &Node| node.text("a string such as \"X-Signature\""));
    let (name, prefix) = (header("header"), header("prefix"));
    let (delivery_header, event_header) = (header("delivery_header"), header("event_header"));
    let encodings = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
    let algorithms = [("sha1", Algorithm::Sha1), ("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)];
    let schemes = [("hmac", Scheme::Hmac), ("bearer", Scheme::Bearer)];
    let options = GenericOptions {
        header: name,
        prefix,
        encoding: table.read(findings, "encoding", |node| node.choice(&encodings)).unwrap_or_default(),
        algorithm: table.read(findings, "algorithm", |node| node.choice(&algorithms)).unwrap_or_default(),
        scheme: table.read(findings, "scheme", |node| node.choice(&schemes)).unwrap_or_default(),
        delivery_header,
        event_header,
    };
    if findings.problems.len() > found_before {
        return None;
    }
    match Generic::new(options) {
        Ok(generic) => Some(Arc::new(generic)),
        Err(error) => {
            let place = table.get(error.option).map_or(&table.place, |node| &node.place);
            findings.problem(Problem::at(place, error.to_string()));
            None
        }
    }
}

/// The keys of a source, from the instances that `credential` names.
fn keys(table: &Table, provider: &dyn Provider, credentials: &Credentials, findings: &mut Findings) -> Vec<NamedKey> {
    let expected = "the instance of a credential such as \"acme\", or several in a list";
    let Some(instances) = table.read(findings, "credential", |node| node.texts(expected)) else { return Vec::new() };
    if instances.is_empty()
        && let Some(node) = table.get("credential")
    {
        findings.problem(
            Problem::at(&node.place, "an empty list verifies nothing").help("credential = [\"new\", \"old\"]"),
        );
    }
    let mut keys: Vec<NamedKey> = Vec::new();
    for (text, place) in instances {
        let Some(instance) = findings.take(instance_of(&text, provider, &place)) else { continue };
        if keys.iter().any(|key| key.instance == instance) {
            findings.problem(Problem::at(&place, format!("`{instance}` is named twice")));
            continue;
        }
        keys.extend(key(instance, provider, credentials, &place, findings));
    }
    keys
}

/// `acme`, or in full `github_webhook_secret:acme`.
fn instance_of(text: &str, provider: &dyn Provider, place: &Place) -> Result<String, Problem> {
    let kind = provider.credential().name;
    let instance = match text.split_once(':') {
        Some((other, _)) if other != kind && is_name(other) => {
            let message = format!("a source of type `{}` takes credentials of type `{kind}`", provider.name());
            return Err(Problem::at(place, message).hidden());
        }
        Some((_, instance)) => instance,
        None => text,
    };
    match is_name(instance) {
        true => Ok(instance.to_owned()),
        false => Err(Problem::at(place, "not the name of a credential's instance")
            .help(NAME_RULE)
            .help(format!("a secret is named here, never written: `doorbell creds add {kind}:NAME` keeps it"))
            .hidden()),
    }
}

fn key(
    instance: String,
    provider: &dyn Provider,
    credentials: &Credentials,
    place: &Place,
    findings: &mut Findings,
) -> Option<NamedKey> {
    let (kind, field) = (provider.credential().name, provider.credential().field);
    let add = format!("`doorbell creds add {kind}:{instance}` keeps it");
    let (secret, origin) = match credentials.find(&kind, &instance, &field) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let places = credentials.places(&kind, &instance, &field).join("\n");
            let problem = Problem::at(place, format!("no credential {kind}:{instance}"));
            findings.problem(problem.help(add).help(format!("looked for it in\n{places}")));
            return None;
        }
        Err(error) => {
            findings.problem(Problem::at(place, format!("cannot read the credential {kind}:{instance}: {error}")));
            return None;
        }
    };
    note(&format!("{kind}:{instance}"), &field, &origin, credentials, findings);
    match provider.prepare(&secret) {
        Ok(key) => Some(NamedKey { instance, key }),
        Err(error) => {
            let message = format!("the credential {kind}:{instance} ({origin}) {error}");
            findings.problem(Problem::at(place, message).help(add));
            None
        }
    }
}

/// Of the file of a secret.
pub fn open_warning(origin: &str) -> String {
    format!("{origin} can be read by other users of this machine: `chmod 600` it")
}

/// Notes where a secret came from, and whether others may read it.
pub(super) fn note(name: &str, field: &str, origin: &str, credentials: &Credentials, findings: &mut Findings) {
    findings.setting(format!("credentials.{name}.{field}"), "(hidden)".to_owned(), origin.to_owned());
    if credentials.is_too_open(origin) {
        let warning = open_warning(origin);
        if !findings.warnings.contains(&warning) {
            findings.warnings.push(warning);
        }
    }
}
