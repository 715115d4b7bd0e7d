//! Relative links in Markdown lead to files that are there.

use super::Finding;
use super::tree::{File, Tree};

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files.iter().filter(|file| file.extension() == "md") {
        for (line, target) in links(file) {
            let there = resolve(&file.path, target).is_some_and(|path| tree.has(&path));
            if !there {
                let what = format!("the link to `{target}` leads nowhere");
                findings.push(Finding::new(file, line, what, "documents are read by following their links"));
            }
        }
    }
}

/// Targets of links to files, with their lines; code is left out.
fn links(file: &File) -> Vec<(usize, &str)> {
    let mut fence: Option<&str> = None;
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        let start = line.trim_start();
        if let Some(mark) = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark)) {
            fence = match fence {
                None => Some(mark),
                Some(open) if open == mark => None,
                still => still,
            };
        } else if fence.is_none() {
            found.extend(targets(line).into_iter().filter(|target| is_file(target)).map(|target| (number, target)));
        }
    }
    found
}

fn targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    // `[name]: target`
    if let Some((_, target)) = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        targets.extend(target.split_whitespace().next());
    }
    // `[text](target "title")`; what stands between backticks is code.
    for prose in line.split('`').step_by(2) {
        for (at, mark) in prose.match_indices("](") {
            let rest = &prose[at + mark.len()..];
            targets.extend(rest.split([')', ' ']).next());
        }
    }
    targets
}

fn is_file(target: &str) -> bool {
    !target.is_empty() && !target.starts_with('#') && !target.contains("://") && !target.starts_with("mailto:")
}

/// The path from the root; `None` when it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let target = target.trim_matches(['<', '>']).split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::said;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](b.md) [c](gone.md)\n[`d`](../gone.rs)\n\n[e]: gone.txt\n[up](../../x)\n";
        let expected = [
            "docs/a.md:1: the link to `gone.md` leads nowhere",
            "docs/a.md:2: the link to `../gone.rs` leads nowhere",
            "docs/a.md:4: the link to `gone.txt` leads nowhere",
            "docs/a.md:5: the link to `../../x` leads nowhere",
        ];
        assert_eq!(said(check, &[("docs/a.md", text), ("docs/b.md", "x\n")]), expected);
    }

    #[test]
    fn folders_anchors_urls_and_code_are_fine() {
        let text = "[a](docs) [b](docs/b.md#part) [c](#here) [d](https://x.test/y)\n`[e](gone)`\n```\n[f](gone)\n```\n[g](./)\n";
        assert!(said(check, &[("README.md", text), ("docs/b.md", "x\n")]).is_empty());
    }
}
