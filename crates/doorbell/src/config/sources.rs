//! `[webhooks.<name>]`: the sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_core::provider::Provider;
use doorbell_core::provider::generic::{Algorithm, Encoding, Generic, GenericOptions, Scheme};
use doorbell_core::provider::github::Github;
use doorbell_core::source::{Dedup, NamedKey, Source};

use super::credentials::Credentials;
use super::document::{Entry, Keys, Node, Table};
use super::layers::ALIASES;
use super::names::{self, NAME_RULE, is_name};
use super::problem::{Findings, Place, Problem};

/// Sources of one provider that may share `/webhooks/<provider>`: each delivery is tried on all of them.
const MOST_OF_A_TYPE: usize = 16;

const COMMON: [&str; 4] = ["type", "credential", "allow_unsigned", "dedup"];
const GENERIC: [&str; 7] = ["scheme", "header", "prefix", "encoding", "algorithm", "delivery_header", "event_header"];
const PLANNED: [&str; 3] = ["tolerance", "ignore_senders", "rate_limit"];

const TYPES: [&str; 2] = ["github", "generic"];

/// Providers that are documented and not built yet.
pub(super) const PLANNED_TYPES: [&str; 33] = [
    "sentry",
    "linear",
    "mintlify",
    "slack",
    "discord",
    "twitter",
    "x",
    "stripe",
    "standard",
    "svix",
    "gitlab",
    "bitbucket",
    "shopify",
    "twilio",
    "jira",
    "pagerduty",
    "telegram",
    "notion",
    "vercel",
    "intercom",
    "zendesk",
    "datadog",
    "grafana",
    "clerk",
    "resend",
    "paypal",
    "calendly",
    "hubspot",
    "typeform",
    "circleci",
    "buildkite",
    "cloudflare",
    "sns",
];

/// The sources of a project.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) good: BTreeMap<String, Arc<Source>>,
    /// The provider of every source that is declared, also of one with a problem; none if that is not known.
    pub(super) declared: BTreeMap<String, Option<Arc<dyn Provider>>>,
}

/// Every provider that a source can have, as its type alone makes it.
pub fn providers() -> Vec<Arc<dyn Provider>> {
    let generic = Generic::new(GenericOptions::default()).map(|generic| Arc::new(generic) as Arc<dyn Provider>);
    std::iter::once(Arc::new(Github) as Arc<dyn Provider>).chain(generic).collect()
}

/// Reads `[webhooks]`.
pub(super) fn read(table: Table, credentials: &Credentials, findings: &mut Findings) -> Sources {
    let mut sources = Sources::default();
    let mut of_type: BTreeMap<String, usize> = BTreeMap::new();
    for Entry { key: name, place, node } in table.entries {
        let provider = read_one(&name, &place, node, credentials, findings, &mut sources.good);
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

fn read_one(
    name: &str,
    place: &Place,
    node: Node,
    credentials: &Credentials,
    findings: &mut Findings,
    good: &mut BTreeMap<String, Arc<Source>>,
) -> Option<Arc<dyn Provider>> {
    if !is_name(name) {
        findings.problem(Problem::at(place, format!("{name:?} cannot be the name of a source")).help(NAME_RULE));
    }
    let example = format!("[webhooks.{name}]\ntype = \"github\"\ncredential = \"{name}\"");
    let mut table = findings.take(node.into_table(&example))?;
    table.rename(findings, &ALIASES);
    let path = format!("webhooks.{name}");
    table.settle(findings, &path);
    let provider = provider(&table, findings)?;
    let dedup = [("id", Dedup::Id), ("id_or_body", Dedup::IdOrBody), ("off", Dedup::Off)];
    let dedup = match table.read(findings, "dedup", |node| node.choice(&dedup)) {
        Some(dedup) => dedup,
        None => {
            findings.setting(format!("{path}.dedup"), "\"id\"".to_owned(), "default".to_owned());
            Dedup::Id
        }
    };
    let allow_unsigned = table.read(findings, "allow_unsigned", Node::flag).unwrap_or(false);
    let found_before = findings.problems.len();
    let keys = keys(&table, provider.as_ref(), credentials, findings);
    if findings.problems.len() > found_before {
        return Some(provider);
    }
    match Source::new(name, Arc::clone(&provider), keys, allow_unsigned, dedup) {
        Ok(source) => {
            good.insert(name.to_owned(), Arc::new(source));
        }
        Err(error) => {
            let place = table.entry("allow_unsigned").map_or(&table.place, |entry| &entry.place);
            findings.problem(Problem::at(place, format!("source `{name}` {error}")));
        }
    }
    Some(provider)
}

/// The provider that `type` and the keys that go with it make; reports keys that do not go with it.
fn provider(table: &Table, findings: &mut Findings) -> Option<Arc<dyn Provider>> {
    let Some(node) = table.get("type") else {
        let problem = Problem::at(&table.place, "a source needs a `type`: who sends");
        findings.problem(problem.help(format!("type = \"github\"; the types are {}", names::list(TYPES))));
        check(table, &[COMMON.as_slice(), &GENERIC].concat(), &[], findings);
        return None;
    };
    let text = findings.take(node.text("a provider such as \"github\""))?;
    if !TYPES.contains(&text.as_str()) {
        findings.problem(unknown_type(node, &text));
        return None;
    }
    if text == "generic" {
        check(table, &[COMMON.as_slice(), &GENERIC].concat(), &[], findings);
        return generic(table, findings);
    }
    let only_generic = GENERIC.map(|key| (key, "only sources of type `generic` have it"));
    check(table, &COMMON, &only_generic, findings);
    Some(Arc::new(Github))
}

fn check(table: &Table, known: &[&str], hints: &[(&str, &str)], findings: &mut Findings) {
    table.check(findings, Keys { known, planned: &PLANNED, hints });
}

fn unknown_type(node: &Node, text: &str) -> Problem {
    let other = "a sender that signs its bodies or shows a token works with type = \"generic\"";
    if PLANNED_TYPES.contains(&text) {
        return Problem::at(&node.place, format!("`{text}` is not supported yet")).help(other);
    }
    let problem = Problem::at(&node.place, format!("unknown type {text:?}"));
    match names::nearest(text, TYPES.into_iter().chain(PLANNED_TYPES)) {
        Some(meant) if PLANNED_TYPES.contains(&meant) => {
            problem.help(format!("if `{meant}` is meant: it is not supported yet; {other}"))
        }
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("the types are {}; {other}", names::list(TYPES))),
    }
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

/// Notes where a secret came from, and whether others may read it.
pub(super) fn note(name: &str, field: &str, origin: &str, credentials: &Credentials, findings: &mut Findings) {
    findings.setting(format!("credentials.{name}.{field}"), "(hidden)".to_owned(), origin.to_owned());
    if credentials.is_too_open(origin) {
        let warning = format!("{origin} can be read by other users of this machine: `chmod 600` it");
        if !findings.warnings.contains(&warning) {
            findings.warnings.push(warning);
        }
    }
}
