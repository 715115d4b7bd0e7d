//! The filters and tests that a template names. They are found without rendering it, which could take any amount of memory.

use minijinja::{Environment, ErrorKind};

use super::TemplateError;

/// What begins and ends an expression, a statement and a comment.
const TAGS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];

/// What a template names and there is not.
pub(super) fn find_unknown(environment: &Environment<'_>, template: &str) -> Option<TemplateError> {
    let mut rest = template;
    while let Some(begin) = rest.find('{') {
        let tag = &rest[begin..];
        let Some((opens, closes)) = TAGS.into_iter().find(|(opens, _)| tag.starts_with(opens)) else {
            rest = &tag[1..];
            continue;
        };
        let inside = &tag[opens.len()..];
        if opens == "{#" {
            rest = inside.split_once(closes)?.1;
            continue;
        }
        let (unknown, after) = look_at(environment, inside, closes);
        if let Some(message) = unknown {
            let line = template[..template.len() - inside.len()].matches('\n').count() + 1;
            return Some(TemplateError { message, line: Some(line) });
        }
        rest = after;
        if opens == "{%" && first_word(inside) == "raw" {
            let (at, end) = rest.match_indices("{%").find(|(at, _)| first_word(&rest[at + 2..]) == "endraw")?;
            rest = &rest[at + end.len()..];
        }
    }
    None
}

fn first_word(inside: &str) -> &str {
    let inside = inside.trim_start_matches(['-', '+']).trim_start();
    &inside[..inside.find(|c: char| !is_of_word(c)).unwrap_or(inside.len())]
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What a name would be of by the words before it.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Other,
    Filter,
    Test,
}

/// Reads one expression or statement up to what closes it. Answers what is wrong with it, and what follows it.
fn look_at<'a>(environment: &Environment<'_>, inside: &'a str, closes: &str) -> (Option<String>, &'a str) {
    let (mut rest, mut next) = (inside, Next::Other);
    // Of braces, and whether the next word is a name of a field.
    let (mut depth, mut field) = (0_usize, false);
    while let Some(c) = rest.chars().next() {
        let length = match c {
            _ if depth == 0 && rest.starts_with(closes) => return (None, &rest[closes.len()..]),
            '"' | '\'' => {
                next = Next::Other;
                length_of_text(rest, c)
            }
            _ if is_of_word(c) => {
                let word = first_word(rest);
                if let Some(message) = unknown(environment, next, word) {
                    return (Some(message), rest);
                }
                next = match word {
                    _ if field => Next::Other,
                    "is" => Next::Test,
                    "not" if next == Next::Test => Next::Test,
                    "filter" if first_word(inside) == "filter" && next == Next::Other => Next::Filter,
                    _ => Next::Other,
                };
                word.len()
            }
            '|' => {
                next = Next::Filter;
                1
            }
            _ => {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if !c.is_whitespace() {
                    next = Next::Other;
                }
                c.len_utf8()
            }
        };
        field = c == '.';
        rest = &rest[length..];
    }
    (None, rest)
}

/// The length of a text with its quotes.
fn length_of_text(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn unknown(environment: &Environment<'_>, next: Next, name: &str) -> Option<String> {
    let (what, expression, kind) = match next {
        Next::Other => return None,
        Next::Filter => ("filter", format!("1|{name}"), ErrorKind::UnknownFilter),
        Next::Test => ("test", format!("1 is {name}"), ErrorKind::UnknownTest),
    };
    let tried = environment.compile_expression(&expression).and_then(|tried| tried.eval(()).map(drop));
    let is_unknown = tried.is_err_and(|error| error.kind() == kind);
    is_unknown.then(|| format!("there is no {what} `{name}`"))
}
