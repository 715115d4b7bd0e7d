//! The filters and tests that a template names. They are found without rendering it, which could take any amount of memory.

use minijinja::{Environment, ErrorKind};

use super::TemplateError;

/// What a template names and there is not.
pub(super) fn find_unknown(environment: &Environment<'_>, template: &str) -> Option<TemplateError> {
    let mut rest = template;
    while let Some(begin) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        let inside = &rest[begin + 2..];
        let opens = &rest[begin..begin + 2];
        if opens == "{#" {
            rest = inside.split_once("#}")?.1;
            continue;
        }
        let (unknown, after) = look_at(environment, inside);
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

/// Reads one expression or statement. Answers what is wrong with it, and what follows it.
fn look_at<'a>(environment: &Environment<'_>, inside: &'a str) -> (Option<String>, &'a str) {
    let mut rest = inside;
    let mut next = Next::Other;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '}' | '%' if rest[1..].starts_with('}') => return (None, &rest[2..]),
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
                if !c.is_whitespace() {
                    next = Next::Other;
                }
                c.len_utf8()
            }
        };
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
