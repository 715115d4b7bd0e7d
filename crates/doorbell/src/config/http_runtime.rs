//! `[runtime] type = "http"`: an agent behind a URL.

use std::sync::Arc;

use doorbell_client::Outbound;
use doorbell_core::id::SubscriptionId;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;

use super::credentials::Credentials;
use super::document::{Entry, Keys, Kind, Node, Table, is_named_like_a_secret};
use super::names::is_name;
use super::notifications::{signing_secret, url};
use super::problem::{Findings, Problem};
use super::runtime::{Surroundings, reference};
use super::sources::note;
use super::tls;

const KEYS: Keys<'static> = Keys {
    known: &["type", "url", "credential", "headers", "client_certificate", "ca"],
    planned: &[],
    hints: &[
        ("command", "it is for type = \"command\""),
        ("prompt", "it is for type = \"command\": what is behind a URL gets the event as JSON"),
        ("env", "it is for type = \"command\"; what goes along with a request is `headers`"),
        ("credentials", "it is for type = \"command\"; `credential` signs a request, and `headers` may have others"),
        ("timeout", "it stands above [runtime]"),
        ("method", "it is always POST"),
    ],
};

const VALUE_KEYS: Keys<'static> = Keys { known: &["credential", "prefix"], planned: &[], hints: &[] };

/// An agent behind a URL, to copy.
pub(super) const EXAMPLE: &str = "[runtime]\ntype = \"http\"\nurl = \"https://agents.example.com/triage\"\ncredential = \"triage\"    # what \
     it is sent is signed with it";

/// The type of the credential that requests are signed with, unless another is named.
const CREDENTIAL: &str = "http_agent_secret";

/// The type of the credentials that the headers of a declared agent may have.
const HEADER_CREDENTIAL: &str = "agent_token";

/// Headers that are Doorbell's own, or the connection's.
const TAKEN: [&str; 11] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "content-type",
    "content-length",
    "host",
    "connection",
    "transfer-encoding",
    "expect",
    "traceparent",
    "tracestate",
];

/// `[runtime] type = "http"`.
#[derive(Debug, Clone)]
pub struct HttpRuntime {
    /// Where the envelope is posted. Its path may be a secret.
    pub url: String,
    /// What posts are signed with.
    pub secret: Secret,
    /// Further headers: names, and values that may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// What must be in no log: the credentials of the headers, as they are stored.
    pub credentials: Vec<Secret>,
    /// Connections of its own, where it is not asked as everybody is: with a certificate, by an authority of its own, or in the
    /// public internet only. As old as the configuration, so that a credential that changed is shown from then on.
    pub connections: Option<Arc<Outbound>>,
    /// Whom it is posted to, if that is no agent but a subscription of MCP Events.
    pub subscriber: Option<Subscriber>,
}

/// What is special about a subscription of MCP Events.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Its id.
    pub id: SubscriptionId,
    /// Secrets that it had a moment ago: what is posted is signed with them, too.
    pub earlier: Vec<Secret>,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Reads it.
pub(super) fn read(table: &Table, around: Surroundings<'_>, findings: &mut Findings) -> Option<HttpRuntime> {
    let credentials = around.credentials;
    table.check(findings, KEYS);
    let url = match table.get("url") {
        Some(node) => findings.take(url(node).and_then(|(url, _)| refuse_private(url, node, around))),
        None => {
            findings.problem(Problem::at(&table.place, "an agent of type \"http\" needs a `url`").help(EXAMPLE));
            None
        }
    };
    if around.is_declared {
        check_declared(table, findings);
        if !has_own_credentials(table, around.account, findings) {
            return None;
        }
    }
    let secret = signing_secret(table, CREDENTIAL, "triage", credentials, findings);
    let given = table.get("headers").map(|node| node.clone().into_table("headers = { X-Team = \"platform\" }"));
    let given = given.and_then(|given| findings.take(given)).map(|table| table.entries).unwrap_or_default();
    let (mut headers, mut used, count) = (Vec::new(), Vec::new(), given.len());
    for entry in given {
        if let Some(header) = header(entry, credentials, &mut used, findings) {
            headers.push(header);
        }
    }
    let before = findings.problems.len();
    let connections = url.as_ref().and_then(|url| tls::connections(table, url, around, findings));
    let failed = findings.problems.len() > before || headers.len() < count;
    let (url, secret) = (url?, secret?);
    (!failed).then_some(HttpRuntime { url, secret, headers, credentials: used, connections, subscriber: None })
}

/// Who may declare an agent through the API may not have it ask what only this machine reaches.
fn refuse_private(url: String, node: &Node, around: Surroundings<'_>) -> Result<String, Problem> {
    match doorbell_client::refuse_private(&url) {
        Err(why) if around.is_declared => Err(Problem::at(&node.place, format!("it may not be asked: {why}"))
            .help("a URL in a file, agents/<name>/config.toml, may be any")
            .hidden()),
        _ => Ok(url),
    }
}

/// A declared agent is sent no secrets but those that are there to be sent to agents, and its definition, which can be read,
/// has none.
fn check_declared(table: &Table, findings: &mut Findings) {
    let mut check = |node: &Node, allowed: &str| {
        let Kind::Text(text) = &node.kind else { return };
        let kind = text.split_once(':').map_or(CREDENTIAL, |(kind, _)| kind);
        if kind != allowed {
            let what = format!("a declared agent may have no credential here but one of type `{allowed}`");
            findings
                .problem(Problem::at(&node.place, what).help(format!("`doorbell creds add {allowed}:NAME` keeps one")));
        }
    };
    table.get("credential").into_iter().for_each(|node| check(node, CREDENTIAL));
    let headers = headers_of(table);
    credentials_of(headers).for_each(|node| check(node, HEADER_CREDENTIAL));
    for header in headers.iter().filter(|header| matches!(header.node.kind, Kind::Text(_))) {
        if is_named_like_a_secret(&header.key) {
            let what = format!("`{}` is named like a secret, which a declaration does not hold", header.key);
            let help = format!("{{\"credential\": \"{HEADER_CREDENTIAL}:NAME\"}} names one that is stored");
            findings.problem(Problem::at(&header.place, what).help(help));
        }
    }
}

fn headers_of(table: &Table) -> &[Entry] {
    match table.get("headers").map(|node| &node.kind) {
        Some(Kind::Table(headers)) => headers,
        _ => &[],
    }
}

/// The credentials that headers name.
fn credentials_of(headers: &[Entry]) -> impl Iterator<Item = &Node> {
    headers.iter().filter_map(|header| match &header.node.kind {
        Kind::Table(value) => value.iter().find(|entry| entry.key == "credential").map(|entry| &entry.node),
        _ => None,
    })
}

/// Credentials are the gateway's; an account that declares an agent has those that bear its name, and hears of no others.
fn has_own_credentials(table: &Table, account: Option<&str>, findings: &mut Findings) -> bool {
    let Some(account) = account else { return true };
    let keys = ["credential", "client_certificate", "ca"].into_iter().filter_map(|key| table.get(key));
    let foreign = keys.chain(credentials_of(headers_of(table))).filter(|node| match &node.kind {
        Kind::Text(text) => text.rsplit(':').next() != Some(account),
        _ => false,
    });
    let mut own = true;
    for node in foreign {
        own = false;
        let what = format!("an agent of the account `{account}` may have the credentials named `{account}` only");
        let help = format!("whoever runs the gateway adds one: `doorbell creds add TYPE:{account}`");
        findings.problem(Problem::at(&node.place, what).help(help));
    }
    own
}

/// A header: a text, or a credential with what stands before it. Credentials go to `used`.
fn header(
    entry: Entry,
    credentials: &Credentials,
    used: &mut Vec<Secret>,
    findings: &mut Findings,
) -> Option<(String, Secret)> {
    let name = entry.key.to_ascii_lowercase();
    if name.parse::<http::HeaderName>().is_err() || TAKEN.contains(&name.as_str()) {
        let what = format!("`{}` cannot be a header of your own", entry.key);
        findings.problem(Problem::at(&entry.place, what).hidden());
        return None;
    }
    let place = entry.node.place.clone();
    let value = match entry.node.strict().kind {
        Kind::Text(text) => text.into_bytes(),
        _ => {
            let example = format!("{name} = {{ credential = \"agent_token:acme\", prefix = \"Bearer \" }}");
            let table = findings.take(entry.node.into_table(&example))?;
            table.check(findings, VALUE_KEYS);
            let prefix = table.read(findings, "prefix", |node| node.text("a text such as \"Bearer \""));
            let secret = credential(&table, &example, credentials, findings)?;
            let value = [prefix.unwrap_or_default().as_bytes(), secret.expose()].concat();
            used.push(secret);
            value
        }
    };
    if http::HeaderValue::from_bytes(&value).is_err() {
        findings.problem(Problem::at(&place, format!("what `{name}` is to have no header can have")).hidden());
        return None;
    }
    Some((name, Secret::new(value)))
}

/// The only field of a credential.
fn credential(table: &Table, example: &str, credentials: &Credentials, findings: &mut Findings) -> Option<Secret> {
    let Some(node) = table.get("credential") else {
        findings.problem(Problem::at(&table.place, "a header is a text, or has a `credential`").help(example));
        return None;
    };
    let text = findings.take(node.text("a credential such as \"agent_token:acme\""))?;
    let (kind, instance) = findings.take(reference(&text, &node.place))?;
    let name = format!("{kind}:{instance}");
    let add = format!("`doorbell creds add {name}` keeps it");
    let fields = credentials.fields(kind, instance);
    let found = fields.and_then(|fields| match &fields[..] {
        [field] => Ok(credentials.find(kind, instance, field)?.map(|found| (field.clone(), found))),
        _ => Ok(None),
    });
    let problem = match found {
        Ok(Some((field, (secret, origin)))) if !secret.is_blank() => {
            note(&name, &field, &origin, credentials, findings);
            return Some(secret);
        }
        Ok(Some((_, (_, origin)))) => format!("the credential {name} ({origin}) is empty"),
        Ok(None) => format!("no credential {name} with one field"),
        Err(error) => format!("cannot read the credential {name}: {error}"),
    };
    findings.problem(Problem::at(&node.place, problem).help(add));
    None
}

/// `instance`, or `type:instance`; nothing if it is neither.
pub(super) fn named<'a>(text: &'a str, kind: &'a str) -> Option<(&'a str, &'a str)> {
    let (kind, instance) = text.split_once(':').unwrap_or((kind, text));
    (is_name(kind) && is_name(instance)).then_some((kind, instance))
}
