//! How long files and functions may be. Tests, blanks and comments do not count for files.

use super::Finding;
use super::rust::{Source, is_word};
use super::tree::{File, Tree};

const FILE_SOFT: usize = 400;
const FILE_HARD: usize = 800;
const FUNCTION_SOFT: usize = 60;
const FUNCTION_HARD: usize = 100;

const WHY_FILE: &str =
    "no file becomes the place where everything goes; a table is marked `tidy: allow long file: why`";
const WHY_FUNCTION: &str = "a function fits on a screen";

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (file, source) in tree.rust() {
        let lines = source.production_lines();
        if lines > FILE_SOFT && !file.allows_anywhere("long file") {
            let limit = if lines > FILE_HARD { FILE_HARD } else { FILE_SOFT };
            let what = format!("{lines} lines of production code, more than {limit}");
            let finding = Finding::new(file, 1, what, WHY_FILE);
            findings.push(if lines > FILE_HARD { finding } else { finding.warning() });
        }
        functions(file, source, findings);
    }
}

fn functions(file: &File, source: &Source, findings: &mut Vec<Finding>) {
    for (name, first, last) in bodies(source) {
        let length = last - first + 1;
        if length <= FUNCTION_SOFT || source.is_test(first) || file.allows("long function", first) {
            continue;
        }
        let limit = if length > FUNCTION_HARD { FUNCTION_HARD } else { FUNCTION_SOFT };
        let what = format!("`{name}` has {length} lines, more than {limit}");
        let finding = Finding::new(file, first, what, WHY_FUNCTION);
        findings.push(if length > FUNCTION_HARD { finding } else { finding.warning() });
    }
}

/// Name, first and last line of every function that has a body.
fn bodies(source: &Source) -> Vec<(&str, usize, usize)> {
    let code = &source.code;
    let mut bodies = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let rest = &code[at + 3..];
        let name = &rest[..rest.bytes().take_while(|byte| is_word(*byte)).count()];
        let Some(head) = source.head_end(at).filter(|head| code.as_bytes()[*head] == b'{') else { continue };
        if !name.is_empty() {
            bodies.push((name, source.line_of(at), source.line_of(source.closing(head))));
        }
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::said;

    fn function(lines: usize) -> String {
        format!("fn a(b: [u8; 2]) -> u8 {{\n{}}}\n", "    b();\n".repeat(lines - 2))
    }

    #[test]
    fn a_long_function_is_found_and_a_longer_one_fails() {
        assert!(said(check, &[("a.rs", &function(60))]).is_empty());
        assert_eq!(said(check, &[("a.rs", &function(61))]), ["a.rs:1: `a` has 61 lines, more than 60"]);
        assert_eq!(said(check, &[("a.rs", &function(101))]), ["a.rs:1: `a` has 101 lines, more than 100"]);
    }

    #[test]
    fn a_marked_or_testing_function_may_be_long() {
        let marked = format!("// tidy: allow long function: one arm per provider\n{}", function(120));
        let testing = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(120));
        assert!(said(check, &[("a.rs", &marked), ("b.rs", &testing)]).is_empty());
    }

    #[test]
    fn a_long_file_is_found_without_its_comments_and_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(900));
        let file =
            |lines: usize| format!("//! M.\n{}{}{tests}", "// why\n\n".repeat(500), "const A: u8 = 1;\n".repeat(lines));
        assert!(said(check, &[("a.rs", &file(400))]).is_empty());
        assert_eq!(said(check, &[("a.rs", &file(401))]), ["a.rs:1: 401 lines of production code, more than 400"]);
        assert_eq!(said(check, &[("a.rs", &file(801))]), ["a.rs:1: 801 lines of production code, more than 800"]);
    }
}
