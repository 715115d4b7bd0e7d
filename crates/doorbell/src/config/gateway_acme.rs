//! `[gateway.tls.acme]`: an authority that issues the certificate.

use doorbell_core::time::Timestamp;
use http::Uri;
use http::uri::Authority;

use super::document::{Keys, Node, Table};
use super::problem::{Findings, Problem};

const KEYS: Keys<'static> = Keys {
    known: &["names", "contact", "agree_to_terms", "directory"],
    planned: &[],
    hints: &[("domains", "did you mean `names`?"), ("email", "did you mean `contact`?")],
};

/// How it is written.
pub(super) const EXAMPLE: &str = "[gateway.tls.acme]\nnames = [\"hooks.example.com\"]\nagree_to_terms = true";

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Names of one certificate at most, as Let's Encrypt has it.
const MOST_NAMES: usize = 100;

/// An authority that speaks ACME, and what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The names in the certificate.
    pub names: Vec<String>,
    /// The address that it writes to.
    pub contact: Option<String>,
    /// The URL of its directory.
    pub directory: String,
}

/// From when until when a certificate is good, and for which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Names that it has.
    pub names: Vec<String>,
}

impl Acme {
    /// Whether there should be another certificate now: two thirds of its time are over, or it has not all the names.
    pub fn wants_another(&self, than: &Validity, now: Timestamp) -> bool {
        let third = than.until.since(than.from) / 3;
        now >= than.until.before(third) || !self.names.iter().all(|name| than.names.contains(name))
    }
}

/// Reads it. Without `names`, the host of the public URL is meant.
pub(super) fn read(table: &Table, public_url: Option<&str>, findings: &mut Findings) -> Option<Acme> {
    table.check(findings, KEYS);
    let problems = findings.problems.len();
    let contact = table.read(findings, "contact", contact);
    let directory = table.read(findings, "directory", directory).unwrap_or_else(|| LETS_ENCRYPT.to_owned());
    let names = match table.get("names") {
        Some(node) => names(node, findings),
        None => public_url.and_then(host).into_iter().collect(),
    };
    if names.is_empty() && findings.problems.len() == problems {
        let problem = Problem::at(&table.place, "[gateway.tls.acme] needs `names`, or a `public_url` with the name");
        findings.problem(problem.help(EXAMPLE));
    }
    if table.read(findings, "agree_to_terms", Node::flag) != Some(true) {
        let problem = Problem::at(&table.place, format!("the terms of {directory} are to be agreed to"));
        findings.problem(problem.help("read them, then write agree_to_terms = true"));
    }
    (findings.problems.len() == problems).then_some(Acme { names, contact, directory })
}

fn names(node: &Node, findings: &mut Findings) -> Vec<String> {
    let texts = findings.take(node.texts("a list of names such as [\"hooks.example.com\"]")).unwrap_or_default();
    if texts.len() > MOST_NAMES {
        findings.problem(Problem::at(&node.place, format!("more than {MOST_NAMES} names")));
    }
    let mut names = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        match is_public(&text) {
            true => names.push(text.to_ascii_lowercase()),
            false => {
                let problem =
                    Problem::at(&place, format!("no authority issues a certificate for {text:?} in this way"));
                findings.problem(problem.help("a public name, in full, without a `*`: \"hooks.example.com\""));
            }
        }
    }
    names
}

fn is_public(name: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(label)
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn host(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    url.host().filter(|host| is_public(host)).map(str::to_ascii_lowercase)
}

fn contact(node: &Node) -> Result<String, Problem> {
    let text = node.text("an address such as \"ops@example.com\"")?;
    let bare = text.strip_prefix("mailto:").unwrap_or(&text);
    match bare.split_once('@') {
        Some((name, host))
            if !name.is_empty() && host.parse::<Authority>().is_ok() && !bare.contains(char::is_whitespace) =>
        {
            Ok(format!("mailto:{bare}"))
        }
        _ => Err(Problem::at(&node.place, format!("{text:?} is not an address")).help("contact = \"ops@example.com\"")),
    }
}

fn directory(node: &Node) -> Result<String, Problem> {
    let text = node.text("a URL such as \"https://acme-v02.api.letsencrypt.org/directory\"")?;
    match text.parse::<Uri>() {
        Ok(url) if url.scheme_str() == Some("https") && url.host().is_some() => Ok(text),
        _ => Err(Problem::at(&node.place, "not the https:// URL of an authority's directory")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn another_one_is_wanted_when_a_third_of_its_time_is_left_or_a_name_is_missing() {
        let day = Duration::from_secs(24 * 60 * 60);
        let now = Timestamp::from_seconds(1_800_000_000);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let acme = Acme { names: names(&["a.example", "b.example"]), contact: None, directory: String::new() };
        let mut one = Validity { from: now, until: now.after(day * 90), names: names(&["b.example", "a.example"]) };
        assert!(!acme.wants_another(&one, now.after(day * 59)));
        assert!(acme.wants_another(&one, now.after(day * 61)));
        assert!(acme.wants_another(&one, now.after(day * 100)));
        one.names.pop();
        assert!(acme.wants_another(&one, now));
    }

    #[test]
    fn names_are_those_of_the_public() {
        for name in ["hooks.example.com", "xn--bcher-kva.example", "a-1.b"] {
            assert!(is_public(name), "{name}");
        }
        for name in ["localhost", "10.0.0.1", "*.example.com", "a..b", ".a", "a.", "a b.c", "a/b.c", ""] {
            assert!(!is_public(name), "{name}");
        }
    }
}
