//! `cargo xtask tidy`: the architecture and the house rules, checked by a machine, each with its reason.
//!
//! All violations are shown at once. An exception is written where it is made, with its reason, as
//! `tidy: allow RULE: reason` in a comment on the line or the one above.

use std::fmt;

use anyhow::{Result, bail};

use tree::{File, Tree};

mod budgets;
mod hygiene;
mod layers;
mod links;
mod manifests;
mod paths;
mod rust;
mod text;
mod tree;

/// What a check found.
#[derive(Debug)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    /// Said, but not a failure.
    warning: bool,
    what: String,
    why: &'static str,
}

impl Finding {
    fn new(file: &File, line: usize, what: impl Into<String>, why: &'static str) -> Self {
        Self { path: file.path.clone(), line, warning: false, what: what.into(), why }
    }

    fn warning(self) -> Self {
        Self { warning: true, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.warning { "warning: " } else { "" };
        write!(out, "{}:{}: {level}{} ({})", self.path, self.line, self.what, self.why)
    }
}

type Check = fn(&Tree, &mut Vec<Finding>);

const CHECKS: &[Check] = &[layers::check, budgets::check, hygiene::check, text::check, links::check, manifests::check];

/// Checks the repository; fails when anything but warnings was found.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::load()?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    let warnings = findings.iter().filter(|finding| finding.warning).count();
    let violations = findings.len() - warnings;
    println!("tidy: {} files, {violations} violations, {warnings} warnings", tree.files.len());
    if violations > 0 {
        bail!("{violations} violations of the house rules (see CONTRIBUTING.md)");
    }
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in CHECKS {
        check(tree, &mut findings);
    }
    findings.sort_by(|a, b| (&a.path, a.line, &a.what).cmp(&(&b.path, b.line, &b.what)));
    findings
}

/// What one check says about these files: `path:line: what`.
#[cfg(test)]
fn said(check: Check, files: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    check(&Tree::of(files), &mut findings);
    findings.iter().map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.what)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Tree, check};

    #[test]
    fn a_clean_tree_has_nothing_to_say() {
        let tree =
            Tree::of(&[("crates/core/src/id.rs", "//! Ids.\n\nfn a() {}\n"), ("README.md", "[core](crates/core)\n")]);
        assert!(check(&tree).is_empty());
    }

    #[test]
    fn violations_of_all_checks_are_shown_at_once_in_order() {
        let tree = Tree::of(&[("b.md", "[gone](gone.md)\n"), ("a.rs", "fn a() {} \n")]);
        let shown: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 3);
        assert!(shown[0].starts_with("a.rs:1: ") && shown[2].starts_with("b.md:1: "));
        assert!(shown.iter().all(|line| line.ends_with(')')));
    }
}
