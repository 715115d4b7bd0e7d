//! `cargo xtask deny`: licences, banned crates and sources of all dependencies, by the rules of `deny.toml`.
//!
//! These three need nothing but cargo. Security advisories need cargo-deny and its database; where they cannot be
//! checked, that is said plainly.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tool;
use policy::Policy;

mod advisories;
mod policy;
mod spdx;

/// Checks everything; fails on a violation, and with `require_advisories` also when advisories could not be checked.
/// Without it, what could not be checked is returned.
pub(crate) fn run(require_advisories: bool) -> Result<Option<String>> {
    let text = std::fs::read_to_string(tool::root().join("deny.toml")).context("cannot read deny.toml")?;
    let policy = Policy::parse(&text).context("deny.toml")?;
    let packages = packages(&tool::metadata(&[])?)?;
    let violations = violations(&policy, &packages, &compiled()?);
    for violation in &violations {
        println!("{violation}");
    }
    println!("deny: licences, bans and sources of {} packages: {} violations", packages.len(), violations.len());
    let checked = advisories::check(require_advisories);
    if !violations.is_empty() {
        bail!("{} violations of deny.toml", violations.len());
    }
    checked
}

/// What the rules ask of one package.
#[derive(Debug, Default)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a path.
    source: Option<String>,
    ours: bool,
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let members = metadata["workspace_members"].as_array().context("cargo metadata lists no members")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |package: &Value| Package {
        name: text(&package["name"]).unwrap_or_default(),
        version: text(&package["version"]).unwrap_or_default(),
        license: text(&package["license"]),
        source: text(&package["source"]),
        ours: members.contains(&package["id"]),
    };
    Ok(packages.iter().map(read).collect())
}

/// Names of the packages that some target really compiles. The lock also holds optional ones that no feature asks for.
fn compiled() -> Result<BTreeSet<String>> {
    let tree =
        ["tree", "--locked", "--workspace", "--target", "all", "--edges", "normal,build,dev", "--prefix", "none"];
    let lines = tool::output(tool::cargo().args(tree).args(["--all-features", "--format", "{p}"]))?;
    Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn violations(policy: &Policy, packages: &[Package], compiled: &BTreeSet<String>) -> Vec<String> {
    let mut violations = Vec::new();
    for package in packages {
        let Package { name, version, .. } = package;
        let mut say = |what: String| violations.push(format!("{name} {version}: {what}"));
        match package.license.as_deref() {
            None => say("states no licence".to_owned()),
            Some(license) => match spdx::satisfied(license, &|term| policy.allows(name, term)) {
                Ok(true) => {}
                Ok(false) => say(format!("the licence `{license}` is not allowed")),
                Err(error) => say(format!("the licence `{license}` cannot be read: {error:#}")),
            },
        }
        if let Some(reason) = policy.ban(name).filter(|_| compiled.contains(name)) {
            say(format!("is banned: {reason}"));
        }
        match package.source.as_deref() {
            None if package.ours => {}
            None => say("comes from a path outside of the workspace".to_owned()),
            Some(source) if policy.knows(source) => {}
            Some(source) => say(format!("comes from `{source}`, which is not allowed")),
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::{Package, Policy, violations};

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "certs", allow = ["CDLA-Permissive-2.0"] }]
        [bans]
        deny = [{ crate = "ring", reason = "one crypto stack" }]
        [sources]
        allow-registry = ["https://example.test/index"]
    "#;

    fn package(name: &str, license: &str) -> Package {
        let source = Some("registry+https://example.test/index".to_owned());
        Package { name: name.into(), version: "1.0.0".into(), license: Some(license.into()), source, ours: false }
    }

    fn said(package: Package) -> Vec<String> {
        let compiled = [package.name.clone()].into();
        violations(&Policy::parse(POLICY).unwrap(), &[package], &compiled)
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found() {
        assert_eq!(said(package("a", "GPL-3.0-only")), ["a 1.0.0: the licence `GPL-3.0-only` is not allowed"]);
        assert!(said(package("a", "GPL-3.0-only OR MIT")).is_empty());
        assert_eq!(said(Package { license: None, ..package("a", "") }), ["a 1.0.0: states no licence"]);
    }

    #[test]
    fn an_exception_holds_for_one_crate_only() {
        assert!(said(package("certs", "CDLA-Permissive-2.0")).is_empty());
        assert_eq!(said(package("other", "CDLA-Permissive-2.0")).len(), 1);
    }

    #[test]
    fn a_banned_crate_is_found_when_it_is_compiled() {
        assert_eq!(said(package("ring", "MIT")), ["ring 1.0.0: is banned: one crypto stack"]);
        let policy = Policy::parse(POLICY).unwrap();
        assert!(violations(&policy, &[package("ring", "MIT")], &["a".to_owned()].into()).is_empty());
    }

    #[test]
    fn only_known_registries_and_members_are_sources() {
        let git = Package { source: Some("git+https://example.test/a".into()), ..package("a", "MIT") };
        assert_eq!(said(git), ["a 1.0.0: comes from `git+https://example.test/a`, which is not allowed"]);
        assert_eq!(said(Package { source: None, ..package("a", "MIT") }).len(), 1);
        assert!(said(Package { source: None, ours: true, ..package("a", "MIT") }).is_empty());
    }
}
