//! `[[notifications]]`: who is told of problems, and of which.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest;
use doorbell_core::pattern::Pattern;
use doorbell_core::provider::{decode_base64, encode_hex};
use doorbell_core::secret::Secret;

use super::credentials::Credentials;
use super::document::{Entry, Keys, Node, Table};
use super::http_runtime::named;
use super::names;
use super::problem::{Findings, Place, Problem};
use super::runtime::command;
use super::sources::{Sources, note};
use super::{Notification, Receiver, Topic};

const KEYS: Keys<'static> = Keys {
    known: &["on", "sources", "agents", "to", "every"],
    planned: &[],
    hints: &[
        ("url", "it stands in `to`: to = { url = \"https://…\", credential = \"ops\" }"),
        ("command", "it stands in `to`: to = { command = [\"notify-send\", \"Doorbell\"] }"),
        ("agent", "it stands in `to`: to = { agent = \"ops\" }; `agents` chooses whose problems are told"),
    ],
};

const TO_KEYS: Keys<'static> = Keys { known: &["command", "url", "credential", "agent"], planned: &[], hints: &[] };

const EXAMPLE: &str = "[[notifications]]\nto = { url = \"https://ops.example.com/doorbell\", credential = \"ops\" }";

/// How often a receiver is told of one cause, unless it says otherwise.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// The type of the credential that messages are signed with.
const CREDENTIAL: &str = "notification_secret";

/// The notifications of a project, and where their agents are named.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    pub(super) good: Vec<Notification>,
    /// The agents that are told, with the places that say so.
    pub(super) told: Vec<(String, Place)>,
    /// Agents that filters name exactly.
    filtered: Vec<(String, Place)>,
}

impl Notifications {
    /// Reports agents that are named and not there.
    pub(super) fn check_agents(&self, agents: &[String], findings: &mut Findings) {
        for (name, place) in self.told.iter().chain(&self.filtered) {
            if !agents.contains(name) {
                findings.problem(unknown("agent", name, place, agents.iter().map(String::as_str)));
            }
        }
    }
}

/// Reads `[[notifications]]`.
pub(super) fn read(
    entry: Option<Entry>,
    sources: Option<&Sources>,
    credentials: &Credentials,
    findings: &mut Findings,
) -> Notifications {
    let mut read = Notifications::default();
    let Some(entry) = entry else { return read };
    let list = entry.node.list("a list of tables").map_err(|problem| problem.help(EXAMPLE));
    let mut ids = BTreeSet::new();
    for (position, node) in findings.take(list).unwrap_or_default().into_iter().enumerate() {
        let Some(table) = findings.take(node.into_table(EXAMPLE)) else { continue };
        table.settle(findings, &format!("notifications[{position}]"));
        if let Some(mut notification) = read_one(&table, sources, credentials, &mut read, findings) {
            // Two that differ in what they tell may well have one receiver.
            let first = notification.id.clone();
            let mut count = 1;
            while !ids.insert(notification.id.clone()) {
                count += 1;
                notification.id = format!("{first}-{count}");
            }
            read.good.push(notification);
        }
    }
    read
}

fn read_one(
    table: &Table,
    sources: Option<&Sources>,
    credentials: &Credentials,
    read: &mut Notifications,
    findings: &mut Findings,
) -> Option<Notification> {
    table.check(findings, KEYS);
    let on = table.get("on").map_or(Topic::ALL.to_vec(), |node| topics(node, findings));
    let source_names = patterns(table, "sources", findings);
    for (pattern, place) in source_names.iter().filter(|(pattern, _)| pattern.is_exact()) {
        if let Some(sources) = sources.filter(|sources| !sources.declared.contains_key(pattern.as_str())) {
            let known = sources.declared.keys().map(String::as_str);
            findings.problem(unknown("source", pattern.as_str(), place, known));
        }
    }
    let agent_names = patterns(table, "agents", findings);
    let exact = agent_names.iter().filter(|(pattern, _)| pattern.is_exact());
    read.filtered.extend(exact.map(|(pattern, place)| (pattern.as_str().to_owned(), place.clone())));
    let every = table.read(findings, "every", |node| node.duration(Duration::from_secs(1))).unwrap_or(EVERY);
    let Some(node) = table.get("to") else {
        findings.problem(Problem::at(&table.place, "a notification needs a `to`: who is told").help(EXAMPLE));
        return None;
    };
    let to = findings.take(node.clone().into_table(EXAMPLE))?;
    let (name, id, receiver) = receiver(&to, credentials, read, findings)?;
    let plain = |patterns: Vec<(Pattern, Place)>| patterns.into_iter().map(|(pattern, _)| pattern).collect();
    Some(Notification { name, id, on, sources: plain(source_names), agents: plain(agent_names), receiver, every })
}

fn topics(node: &Node, findings: &mut Findings) -> Vec<Topic> {
    let words = || Topic::ALL.into_iter().map(Topic::as_str);
    let (mut topics, before) = (Vec::new(), findings.problems.len());
    for (word, place) in findings.take(node.texts("topics such as [\"dead_letter\"]")).unwrap_or_default() {
        if let Some(topic) = Topic::ALL.into_iter().find(|topic| topic.as_str() == word) {
            topics.push(topic);
            continue;
        }
        let problem = Problem::at(&place, format!("{word:?} is nothing that is told"));
        findings.problem(match names::nearest(&word, words()) {
            Some(meant) => problem.help(format!("did you mean {meant:?}?")),
            None => problem.help(format!("what can be told is {}", names::list(words()))),
        });
    }
    if topics.is_empty() && findings.problems.len() == before {
        findings.problem(Problem::at(&node.place, "an empty list tells nothing").help("without `on`, all is told"));
    }
    topics
}

fn patterns(table: &Table, key: &str, findings: &mut Findings) -> Vec<(Pattern, Place)> {
    let expected = "a name such as \"acme\", or several in a list; `*` stands for anything";
    let before = findings.problems.len();
    let texts = table.read(findings, key, |node| node.texts(expected)).unwrap_or_default();
    if texts.is_empty()
        && let Some(node) = table.get(key)
        && findings.problems.len() == before
    {
        findings.problem(Problem::at(&node.place, format!("an empty list: without `{key}`, it is all of them")));
    }
    let read = |(text, place): (String, Place)| match Pattern::new(text) {
        Ok(pattern) => Some((pattern, place)),
        Err(error) => {
            findings.problem(Problem::at(&place, error.to_string()));
            None
        }
    };
    texts.into_iter().filter_map(read).collect()
}

/// What it is called, what it is known by, and the receiver itself.
fn receiver(
    to: &Table,
    credentials: &Credentials,
    read: &mut Notifications,
    findings: &mut Findings,
) -> Option<(String, String, Receiver)> {
    to.check(findings, TO_KEYS);
    let kinds: Vec<&str> = ["command", "url", "agent"].into_iter().filter(|key| to.has(key)).collect();
    let [kind] = kinds[..] else {
        let problem = Problem::at(&to.place, "`to` names one of `command`, `url` and `agent`");
        findings.problem(problem.help(EXAMPLE));
        return None;
    };
    if kind != "url"
        && let Some(entry) = to.entry("credential")
    {
        findings.problem(Problem::at(&entry.place, "`credential` signs what is sent to a `url`"));
    }
    let node = to.get(kind)?;
    let (name, known_by, receiver) = match kind {
        "command" => {
            let command = findings.take(command(node))?;
            (format!("command {}", command[0]), command.join("\0"), Receiver::Command(command))
        }
        "url" => {
            let url = findings.take(url(node));
            let secret = signing_secret(to, CREDENTIAL, "ops", credentials, findings);
            let (url, host) = url?;
            // The path may be a secret: that of chat services is.
            (format!("url {host}"), url.clone(), Receiver::Url { url, secret: secret? })
        }
        _ => {
            let agent = findings.take(node.text("an agent such as \"ops\""))?;
            read.told.push((agent.clone(), node.place.clone()));
            (format!("agent {agent}"), agent.clone(), Receiver::Agent(agent))
        }
    };
    let digest = digest::digest(&digest::SHA256, format!("{kind}\0{known_by}").as_bytes());
    Some((name, encode_hex(&digest.as_ref()[..8]), receiver))
}

/// The URL, and as much of it as may be shown.
pub(super) fn url(node: &Node) -> Result<(String, String), Problem> {
    let help = "https:// or http://, a host and perhaps a path; what proves the sender is `credential`";
    let refuse = || Problem::at(&node.place, "not a URL that can be asked").help(help).hidden();
    let text = node.text("a URL such as \"https://ops.example.com/doorbell\"").map_err(Problem::hidden)?;
    let url = text.parse::<http::Uri>().map_err(|_| refuse())?;
    let scheme = url.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(refuse)?;
    let at = url.authority().filter(|at| !at.host().is_empty() && !at.as_str().contains('@')).ok_or_else(refuse)?;
    let shown = format!("{scheme}://{at}");
    Ok((text, shown))
}

/// The secret that what is sent to a `url` is signed with: any text, or base64 after `whsec_`. It is of the type `kind`,
/// unless `credential` names another one.
pub(super) fn signing_secret(
    to: &Table,
    kind: &str,
    example: &str,
    credentials: &Credentials,
    findings: &mut Findings,
) -> Option<Secret> {
    let field = "secret";
    let Some(node) = to.get("credential") else {
        let problem = Problem::at(&to.place, "a `url` needs a `credential`: what is sent there is signed with it");
        let help = format!("`doorbell creds add {kind}:{example}` keeps one; then credential = \"{example}\"");
        findings.problem(problem.help(help));
        return None;
    };
    let expected = format!("the instance of a credential such as \"{example}\"");
    let text = findings.take(node.text(&expected).map_err(Problem::hidden))?;
    let Some((kind, instance)) = named(&text, kind) else {
        let problem = Problem::at(&node.place, "not the name of a credential's instance").hidden();
        let help = format!("a secret is named here, never written: `doorbell creds add {kind}:NAME` keeps it");
        findings.problem(problem.help(help));
        return None;
    };
    let add = format!("`doorbell creds add {kind}:{instance}` keeps it");
    let name = format!("{kind}:{instance}");
    let (secret, origin) = match credentials.find(kind, instance, field) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let places = credentials.places(kind, instance, field).join("\n");
            let problem = Problem::at(&node.place, format!("no credential {name}")).help(add);
            findings.problem(problem.help(format!("looked for it in\n{places}")));
            return None;
        }
        Err(error) => {
            findings.problem(Problem::at(&node.place, format!("cannot read the credential {name}: {error}")));
            return None;
        }
    };
    note(&name, field, &origin, credentials, findings);
    let key = signing_key(&secret);
    if key.is_none() {
        let what = format!("the credential {name} ({origin}) is empty, or not base64 after `whsec_`");
        findings.problem(Problem::at(&node.place, what).help(add));
    }
    key
}

fn signing_key(secret: &Secret) -> Option<Secret> {
    let key = match secret.expose_str().and_then(|text| text.trim().strip_prefix("whsec_")) {
        Some(encoded) => Secret::new(decode_base64(encoded)?),
        None => secret.clone(),
    };
    (!key.is_blank()).then_some(key)
}

fn unknown<'a>(what: &str, name: &str, place: &Place, known: impl IntoIterator<Item = &'a str> + Clone) -> Problem {
    let problem = Problem::at(place, format!("there is no {what} `{name}`"));
    match names::nearest(name, known.clone()) {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("the {what}s are {}", names::list(known))),
    }
}
