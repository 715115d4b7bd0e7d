//! What holds for every tracked file, whatever its language.

use super::Finding;
use super::tree::{File, Tree};

/// 1 MiB.
const LARGEST: usize = 1024 * 1024;
/// Top folders that only somebody's machine has.
const MACHINE: [&str; 3] = ["home", "root", "work"];
/// Folders that hold bytes as somebody sends them: signatures are made over them.
const BYTES: [&str; 4] = ["corpus", "fixtures", "samples", "vectors"];

const WHY_SIZE: &str = "a repository is cloned by everybody; large files have other homes";
const WHY_PATH: &str = "it must work on any machine; an example is marked `tidy: allow path: why`";
const WHY_FORM: &str = "diffs show what changed and nothing else";

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        if file.size > LARGEST {
            findings.push(Finding::new(file, 1, format!("{} bytes, more than 1 MiB", file.size), WHY_SIZE));
        }
        for (number, line) in file.lines() {
            if let Some(path) = machine_path(line).filter(|_| !file.allows("path", number)) {
                findings.push(Finding::new(file, number, format!("names `{path}`, a path of one machine"), WHY_PATH));
            }
        }
        if !file.path.split('/').any(|folder| BYTES.contains(&folder)) {
            form(file, findings);
        }
    }
}

fn form(file: &File, findings: &mut Vec<Finding>) {
    let tabs_count = matches!(file.extension(), "rs" | "md");
    for (number, line) in file.lines() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(file, number, "trailing whitespace", WHY_FORM));
        }
        if tabs_count && line.contains('\t') {
            findings.push(Finding::new(file, number, "a tab", WHY_FORM));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(Finding::new(file, file.lines().count(), "no newline at the end", WHY_FORM));
    }
}

fn machine_path(line: &str) -> Option<String> {
    let named = MACHINE.map(|folder| format!("/{folder}/"));
    named.into_iter().find(|path| line.match_indices(path).any(|(at, _)| starts_a_path(&line[..at])))
}

/// Whether a `/` after this text is the root of the file system: not within a longer path, name or URL.
fn starts_a_path(before: &str) -> bool {
    let inside = |last: char| last.is_alphanumeric() || "_.~-}>)$".contains(last);
    !before.ends_with(inside)
}

#[cfg(test)]
mod tests {
    use super::{LARGEST, check};
    use crate::tidy::said;

    #[test]
    fn a_path_of_one_machine_is_found() {
        let path = |folder: &str| format!("see /{folder}/me/x\n");
        for folder in ["home", "root", "work"] {
            assert_eq!(said(check, &[("a.md", &path(folder))]).len(), 1, "{folder}");
        }
        let fine = format!(
            "https://x.test{0}/home/a, ../work/b, ~/work/c\n{1} <!-- tidy: allow path: an example -->\n",
            "",
            path("home").trim()
        );
        assert!(said(check, &[("a.md", &fine)]).is_empty());
    }

    #[test]
    fn a_large_file_is_found() {
        let large = "x".repeat(LARGEST) + "\n";
        assert_eq!(said(check, &[("a.txt", &large)]), ["a.txt:1: 1048577 bytes, more than 1 MiB"]);
    }

    #[test]
    fn careless_form_is_found() {
        let files =
            [("a.rs", "a \n\tb\r\nc"), ("a.md", "a\tb\n"), ("Makefile", "a:\n\tb\n"), ("x/fixtures/a.txt", "a \nb")];
        let expected = [
            "a.rs:1: trailing whitespace",
            "a.rs:2: trailing whitespace",
            "a.rs:2: a tab",
            "a.rs:3: no newline at the end",
            "a.md:1: a tab",
        ];
        assert_eq!(said(check, &files), expected);
    }
}
