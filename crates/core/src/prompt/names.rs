//! What a template may not have, found without rendering it, which could take any amount of memory: filters and tests that there
//! are not, and texts that are repeated. The engine works out what is constant when it compiles a template: a text of eight
//! gigabytes, if it says so.

use minijinja::{Environment, ErrorKind};

use super::TemplateError;

/// What begins and ends an expression, a statement and a comment.
const TAGS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];

/// What a template names and there is not.
pub(super) fn find_unknown(environment: &Environment<'_>, template: &str) -> Option<TemplateError> {
    find(template, &|seen| match seen {
        Seen::Word(next, word) => unknown(environment, next, word),
        Seen::Times { .. } => None,
    })
}

/// A text or a list that a template repeats: `"x" * 100000000`. To be looked for before it is compiled.
pub(super) fn find_repetition(template: &str) -> Option<TemplateError> {
    find(template, &|seen| match seen {
        Seen::Times { before: Some('"' | '\'' | ']' | '}'), .. }
        | Seen::Times { after: Some('"' | '\'' | '[' | '{'), .. }
        | Seen::Times { before: Some(')'), literals: true, .. }
        | Seen::Times { after: Some('('), literals: true, .. } => {
            Some("`*` multiplies numbers: texts and lists cannot be repeated with it".to_owned())
        }
        Seen::Times { .. } | Seen::Word(..) => None,
    })
}

/// What is in an expression or a statement.
enum Seen<'t> {
    Word(Next, &'t str),
    /// `*`, what stands beside it, and whether there are texts or lists in the expression.
    Times {
        before: Option<char>,
        after: Option<char>,
        literals: bool,
    },
}

fn find(template: &str, fault: &impl Fn(Seen<'_>) -> Option<String>) -> Option<TemplateError> {
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
        let (found, after) = look_at(fault, inside, closes);
        if let Some(message) = found {
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

impl Next {
    /// What the next name would be of after a word, in a tag that begins with the word `first`.
    fn after(self, word: &str, first: &str) -> Self {
        match word {
            "is" => Self::Test,
            "not" if self == Self::Test => Self::Test,
            "filter" if first == "filter" && self == Self::Other => Self::Filter,
            _ => Self::Other,
        }
    }
}

/// Reads one expression or statement up to what closes it. Answers what is wrong with it, and what follows it.
fn look_at<'a>(
    fault: &impl Fn(Seen<'_>) -> Option<String>,
    inside: &'a str,
    closes: &str,
) -> (Option<String>, &'a str) {
    let (mut rest, mut next, mut before) = (inside, Next::Other, None);
    // Whatever it ends with is not in a text if there is none before it.
    let literals = inside.split(closes).next().is_some_and(|all| all.contains(['"', '\'', '[', '{']));
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
                if let Some(message) = fault(Seen::Word(next, word)) {
                    return (Some(message), rest);
                }
                next = if field { Next::Other } else { next.after(word, first_word(inside)) };
                word.len()
            }
            '|' => {
                next = Next::Filter;
                1
            }
            '*' => {
                next = Next::Other;
                let after = rest[1..].trim_start().chars().next();
                // Two of them are another operator, which no text has.
                let power = after == Some('*');
                let message = if power { None } else { fault(Seen::Times { before, after, literals }) };
                if message.is_some() {
                    return (message, rest);
                }
                1 + usize::from(power)
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
        if !c.is_whitespace() {
            before = Some(c);
        }
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
