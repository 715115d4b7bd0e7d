//! The cause of a failure, without what differs each time: so that the same failure of many runs is one.
//!
//! Numbers, ids and paths become marks; numbers that are the failure (`exited with code 3`, `answered with 503`) stay.

use aws_lc_rs::digest;

use crate::provider::encode_hex;

/// Characters of a cause at most.
const LONGEST: usize = 160;
/// Letters and digits of an id at least; of one that is hexadecimal.
const SHORTEST_ID: usize = 16;
const SHORTEST_HEX: usize = 7;
/// Digits of a number at most that says what failed.
const LONGEST_CODE: usize = 3;
/// What stands before such a number.
const BEFORE_CODES: [&str; 6] = ["code", "with", "status", "signal", "HTTP", "error"];

/// The cause that a reason gives.
pub fn cause_of(reason: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut before = "";
    let mut length = 0;
    for word in reason.split_whitespace() {
        let marked = mark(word, before);
        length += marked.chars().count() + 1;
        if length > LONGEST {
            words.push("…".to_owned());
            break;
        }
        words.push(marked);
        before = word;
    }
    if words.is_empty() { "no reason was given".to_owned() } else { words.join(" ") }
}

/// A short name of a cause, the same everywhere and for good.
pub fn cause_id(cause: &str) -> String {
    encode_hex(&digest::digest(&digest::SHA256, cause.as_bytes()).as_ref()[..4])
}

/// A word without what differs each time.
fn mark(word: &str, before: &str) -> String {
    let is_edge = |c: char| matches!(c, '"' | '\'' | '`' | '(' | ')' | '[' | ']' | '{' | '}' | ',' | ';' | '!' | '?');
    let core = word.trim_matches(is_edge).trim_end_matches(['.', ':']);
    let Some(at) = word.find(core).filter(|_| !core.is_empty()) else { return word.to_owned() };
    let (left, right) = (&word[..at], &word[at + core.len()..]);
    let is_code = core.len() <= LONGEST_CODE && core.bytes().all(|b| b.is_ascii_digit());
    let marked = if is_code && BEFORE_CODES.contains(&before) {
        core.to_owned()
    } else if let Some((scheme, rest)) = core.split_once("://") {
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        format!("{scheme}://{}{}", mark_parts(host), if path.len() > 1 { "/<path>" } else { path })
    } else if is_path(core) {
        "<path>".to_owned()
    } else {
        mark_parts(core)
    };
    format!("{left}{marked}{right}")
}

fn is_path(word: &str) -> bool {
    ["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start)) && word.len() > 2
        || word.matches('/').count() > 1
}

/// Marks what differs in each part of a word.
fn mark_parts(word: &str) -> String {
    let mut marked = String::new();
    let mut rest = word;
    while let Some(next) = rest.chars().next() {
        if let Some(uuid) = rest.get(..36).filter(|text| is_uuid(text)) {
            marked.push_str("<id>");
            rest = &rest[uuid.len()..];
            continue;
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !is_part(next) {
            marked.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        }
        let (part, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        marked.push_str(&mark_part(part));
        rest = after;
    }
    marked
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

fn mark_part(part: &str) -> String {
    let has = |is: fn(&u8) -> bool| part.bytes().any(|byte| is(&byte));
    let (digits, letters) = (has(u8::is_ascii_digit), has(u8::is_ascii_alphabetic));
    // `run_01K…`, and what looks like it.
    let tail = part.rsplit('_').next().unwrap_or(part);
    let hex = tail.len() >= SHORTEST_HEX && tail.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && letters && (tail.len() >= SHORTEST_ID || hex || part.starts_with("0x")) {
        return "<id>".to_owned();
    }
    let mut marked = String::new();
    for c in part.chars() {
        match c.is_ascii_digit() {
            true if marked.ends_with("<n>") => {}
            true => marked.push_str("<n>"),
            false => marked.push(c),
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str, cause: &str) {
        assert_eq!(cause_of(one), cause);
        assert_eq!(cause_of(other), cause);
    }

    #[test]
    fn what_differs_each_time_is_no_part_of_a_cause() {
        same("timed out after 15 minutes", "timed out after 20 minutes", "timed out after <n> minutes");
        same(
            "cannot read /tmp/run-17/event.json: No such file",
            "cannot read /var/lib/x/event.json: No such file",
            "cannot read <path>: No such file",
        );
        same(
            "issue acme/app#7 of run_01KC2W3Q9Z8Y7X6V5T4S3R2Q1P is locked",
            "issue acme/app#1234 of run_01KC2W3Q9Z8Y7X6V5T4S3R2Q1R is locked",
            "issue acme/app#<n> of <id> is locked",
        );
        same(
            "(id=550e8400-e29b-41d4-a716-446655440000, commit a1b2c3d)",
            "(id=00000000-0000-0000-0000-00000000000f, commit 9f8e7d6)",
            "(id=<id>, commit <id>)",
        );
        same(
            "https://api.example.com/v1/items/9?page=3 did not answer at 2026-01-31T12:00:00.123Z.",
            "https://api.example.com/v2/x did not answer at 2027-12-01T02:10:59.000Z.",
            "https://api.example.com/<path> did not answer at <n>-<n>-<n>T<n>:<n>:<n>.<n>Z.",
        );
    }

    #[test]
    fn numbers_that_are_the_failure_stay() {
        for reason in ["exited with code 3", "answered with 503: busy", "ended by signal 9", "HTTP 404"] {
            assert_eq!(cause_of(reason), reason);
        }
        assert_ne!(cause_id(&cause_of("exited with code 3")), cause_id(&cause_of("exited with code 4")));
    }

    #[test]
    fn a_cause_is_short_and_is_its_own_cause() {
        assert_eq!(cause_of("  \n "), "no reason was given");
        let long = cause_of(&"word 17 ".repeat(1000));
        assert!(long.chars().count() <= LONGEST + 2 && long.ends_with('…'));
        for reason in ["a/b/c 7", "… ü/ß 0xdeadbeef \"", "run_", "://", "::", "1", "código 12: 'x'"] {
            let cause = cause_of(reason);
            assert_eq!(cause_of(&cause), cause, "{reason}");
        }
    }
}
