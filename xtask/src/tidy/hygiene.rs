//! What every source file has (a first sentence) and has not (leftovers, sleeping tests).

use super::Finding;
use super::rust::{Source, is_word};
use super::tree::{File, Tree};

/// Said in two pieces so that this file may hold them.
const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Hand-written files besides Rust, in which a mark would stand in a comment.
const OTHERS: [&str; 10] = ["toml", "sh", "sql", "py", "ts", "js", "css", "html", "yml", "yaml"];

const WHY_DOC: &str = "the first line of a file says what it is for";
const WHY_LEFTOVER: &str = "what is merged is finished; plans belong into issues";
const WHY_SLEEP: &str = "tests wait for a condition, not for a time; mark a polling helper `tidy: allow sleep: why`";

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        match &file.rust {
            Some(source) => rust(file, source, findings),
            None if OTHERS.contains(&file.extension()) => marks(file, &file.text, findings),
            None => {}
        }
    }
}

fn rust(file: &File, source: &Source, findings: &mut Vec<Finding>) {
    if !has_module_doc(&file.text) {
        findings.push(Finding::new(file, 1, "has no module documentation (`//!`)", WHY_DOC));
    }
    marks(file, &source.comments, findings);
    for name in MACROS {
        for at in words(&source.code, name).filter(|at| source.code[at + name.len()..].starts_with('!')) {
            findings.push(Finding::new(file, source.line_of(at), format!("`{name}!`"), WHY_LEFTOVER));
        }
    }
    for at in words(&source.code, "sleep").filter(|at| source.code[at + "sleep".len()..].starts_with('(')) {
        let line = source.line_of(at);
        if source.is_test(line) && !file.allows("sleep", line) {
            findings.push(Finding::new(file, line, "a test sleeps", WHY_SLEEP));
        }
    }
}

fn marks(file: &File, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.split('\n').enumerate() {
        for mark in MARKS.iter().filter(|mark| words(line, mark).next().is_some()) {
            findings.push(Finding::new(file, index + 1, format!("`{mark}`"), WHY_LEFTOVER));
        }
    }
}

/// Before anything but plain comments and inner attributes.
fn has_module_doc(text: &str) -> bool {
    let mut attribute = false;
    for line in text.lines().map(str::trim) {
        if attribute || line.starts_with("#![") {
            attribute = !line.ends_with(']');
        } else if line.starts_with("//!") {
            return true;
        } else if !line.is_empty() && !line.starts_with("//") {
            return false;
        }
    }
    false
}

/// Where this word stands as a whole.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).is_some_and(|before| is_word(bytes[before]));
        let after = bytes.get(at + word.len()).is_some_and(|after| is_word(*after));
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::{MARKS, check};
    use crate::tidy::said;

    #[test]
    fn a_file_without_a_first_sentence_is_found() {
        assert_eq!(said(check, &[("a.rs", "fn a() {}\n//! Late.\n")]), ["a.rs:1: has no module documentation (`//!`)"]);
        assert!(said(check, &[("a.rs", "#![expect(\n    x\n)]\n// plain\n//! Here.\n")]).is_empty());
    }

    #[test]
    fn leftovers_are_found() {
        let text =
            format!("//! A.\nfn a() {{ todo!() }} // {}: later\nfn b() {{ dbg!(1); unimplemented!() }}\n", MARKS[0]);
        let expected = [
            format!("a.rs:2: `{}`", MARKS[0]),
            "a.rs:2: `todo!`".into(),
            "a.rs:3: `unimplemented!`".into(),
            "a.rs:3: `dbg!`".into(),
        ];
        assert_eq!(said(check, &[("a.rs", &text)]), expected);
        assert_eq!(said(check, &[("a.toml", &format!("# {}\n", MARKS[1]))]).len(), 1);
    }

    #[test]
    fn a_sleeping_test_is_found_unless_it_says_why() {
        let test = |line: &str| format!("//! A.\nfn a() {{ sleep(1); }}\n#[cfg(test)]\nmod tests {{\n    {line}\n}}\n");
        assert_eq!(said(check, &[("a.rs", &test("fn b() { tokio::time::sleep(x); }"))]), ["a.rs:5: a test sleeps"]);
        let excused = test("fn b() { sleep(x); } // tidy: allow sleep: polls for the socket");
        assert!(said(check, &[("a.rs", &excused)]).is_empty());
        assert_eq!(said(check, &[("a/tests/it.rs", "//! A.\nfn b() { sleep(x); }\n")]).len(), 1);
    }
}
