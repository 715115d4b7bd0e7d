//! Security advisories, by cargo-deny where it is installed and its database can be reached.

use anyhow::{Result, bail};

use crate::tool;

/// Fails on an advisory. When they cannot be checked, says so and returns it; fails only if they are `required`.
pub(super) fn check(required: bool) -> Result<Option<String>> {
    match obstacle() {
        None => {
            // The database was fetched a moment ago; a second try must not turn into a network error.
            tool::run(tool::cargo().args(["deny", "--locked", "check", "--disable-fetch", "advisories"]))?;
            Ok(None)
        }
        Some(why) => {
            let warning = format!("WARNING: security advisories were NOT checked: {why}");
            println!("deny: {warning}");
            if required {
                bail!("--require-advisories was given, and they were not checked");
            }
            Ok(Some(warning))
        }
    }
}

/// Why advisories cannot be checked here.
fn obstacle() -> Option<String> {
    if tool::output(tool::cargo().args(["deny", "--version"])).is_err() {
        return Some("cargo-deny is not installed (cargo install --locked cargo-deny)".to_owned());
    }
    let error = tool::output(tool::cargo().args(["deny", "--locked", "fetch", "db"])).err()?;
    let last = error.to_string().lines().last().unwrap_or_default().to_owned();
    Some(format!("the advisory database cannot be reached: {last}"))
}
