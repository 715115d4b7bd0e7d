//! `deny.toml`: the part of cargo-deny's format that is used here.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item, Value};

/// What is allowed and what is banned.
#[derive(Debug)]
pub(super) struct Policy {
    licences: Vec<String>,
    /// Crate → licences that it alone may have.
    exceptions: BTreeMap<String, Vec<String>>,
    /// Crate → reason.
    bans: BTreeMap<String, String>,
    registries: Vec<String>,
}

impl Policy {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse()?;
        let licences = &document["licenses"];
        let mut exceptions = BTreeMap::new();
        for entry in values(licences.get("exceptions"))? {
            exceptions.insert(word(entry, "crate")?, strings(field(entry, "allow"))?);
        }
        let mut bans = BTreeMap::new();
        for entry in values(document["bans"].get("deny"))? {
            bans.insert(word(entry, "crate")?, word(entry, "reason")?);
        }
        let allow = values(licences.get("allow"))?;
        let registries = values(document["sources"].get("allow-registry"))?;
        Ok(Self { licences: all_strings(allow)?, exceptions, bans, registries: all_strings(registries)? })
    }

    pub(super) fn allows(&self, name: &str, licence: &str) -> bool {
        let own = self.exceptions.get(name).into_iter().flatten();
        self.licences.iter().chain(own).any(|allowed| allowed == licence)
    }

    /// The reason why this crate is banned.
    pub(super) fn ban(&self, name: &str) -> Option<&str> {
        self.bans.get(name).map(String::as_str)
    }

    pub(super) fn knows(&self, source: &str) -> bool {
        source.strip_prefix("registry+").is_some_and(|url| self.registries.iter().any(|known| known == url))
    }
}

fn values(item: Option<&Item>) -> Result<Vec<&Value>> {
    let Some(item) = item else { return Ok(Vec::new()) };
    Ok(item.as_array().with_context(|| format!("`{}` is not a list", item.to_string().trim()))?.iter().collect())
}

fn field<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    entry.as_inline_table().and_then(|table| table.get(name))
}

fn word(entry: &Value, name: &str) -> Result<String> {
    let found = field(entry, name).and_then(Value::as_str);
    Ok(found.with_context(|| format!("`{}` has no `{name}`", entry.to_string().trim()))?.to_owned())
}

fn strings(value: Option<&Value>) -> Result<Vec<String>> {
    all_strings(value.and_then(Value::as_array).context("an exception has no list `allow`")?.iter())
}

fn all_strings<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{value} is not a string"));
    values.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::Policy;

    #[test]
    fn a_ban_without_a_reason_is_refused() {
        let error = Policy::parse("[licenses]\n[sources]\n[bans]\ndeny = [{ crate = \"x\" }]\n").unwrap_err();
        assert!(error.to_string().contains("no `reason`"), "{error}");
    }

    #[test]
    fn our_own_policy_can_be_read() {
        let policy = Policy::parse(include_str!("../../../deny.toml")).unwrap();
        assert!(policy.allows("any", "MIT") && !policy.allows("any", "AGPL-3.0-only"));
        assert!(policy.ban("openssl").is_some());
        assert!(policy.knows("registry+https://github.com/rust-lang/crates.io-index"));
    }
}
