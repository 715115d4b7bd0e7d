//! The paths a Rust file names (`crate::store::Store`), with `use` trees written out.

use super::rust::{Source, is_word};

/// One path and where it stands.
#[derive(Debug, PartialEq)]
pub(crate) struct NamedPath<'a> {
    pub(crate) segments: Vec<&'a str>,
    /// From 1.
    pub(crate) line: usize,
}

#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    offset: usize,
}

/// All paths of two segments or more, and everything that `use` names.
pub(crate) fn named(source: &Source) -> Vec<NamedPath<'_>> {
    let tokens = tokens(&source.code);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.text == "use" {
            at = use_tree(&tokens, at + 1, &[], &mut found);
        } else if is_name(token.text) {
            let mut segments = vec![*token];
            at += 1;
            while let [separator, name, ..] = tokens[at..]
                && separator.text == "::"
                && is_name(name.text)
            {
                segments.push(name);
                at += 2;
            }
            if segments.len() > 1 {
                found.push(segments);
            }
        } else {
            at += 1;
        }
    }
    let named = found.into_iter().filter_map(|path| {
        let line = source.line_of(path.last()?.offset);
        Some(NamedPath { segments: path.iter().map(|token| token.text).collect(), line })
    });
    named.collect()
}

/// Reads one tree of a `use` from `at`, adds its paths, and returns where it ends.
fn use_tree<'a>(tokens: &[Token<'a>], mut at: usize, before: &[Token<'a>], found: &mut Vec<Vec<Token<'a>>>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.text {
            "::" => {}
            "{" => {
                while tokens.get(at).is_some_and(|token| token.text != "}" && token.text != ";") {
                    at = use_tree(tokens, at, &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + usize::from(tokens.get(at).is_some_and(|token| token.text == "}"));
            }
            "as" => at += 1,
            "self" if !before.is_empty() => {}
            name if is_name(name) || name == "*" => path.push(*token),
            _ => {
                at -= 1;
                break;
            }
        }
    }
    found.push(path);
    // A token that no tree can hold must not be read again and again.
    if tokens.get(at).is_some_and(|token| matches!(token.text, "," | "}" | ";")) { at } else { at + 1 }
}

fn is_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| is_word(byte) && !byte.is_ascii_digit())
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = if is_word(bytes[at]) {
            bytes[at..].iter().take_while(|byte| is_word(**byte)).count()
        } else if bytes[at..].starts_with(b"::") {
            2
        } else {
            1
        };
        if !bytes[at].is_ascii_whitespace() {
            tokens.push(Token { text: &code[at..at + length], offset: at });
        }
        at += length;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::named;
    use crate::tidy::rust::Source;

    fn paths(text: &str) -> Vec<String> {
        named(&Source::scan(text)).iter().map(|path| format!("{}@{}", path.segments.join("::"), path.line)).collect()
    }

    #[test]
    fn use_trees_are_written_out() {
        let text = "use std::{env, fs::{self, File as F}};\nuse crate::{\n    store::Store,\n    clock::*,\n};\npub use axum;\n";
        let expected =
            ["std::env@1", "std::fs@1", "std::fs::File@1", "crate::store::Store@3", "crate::clock::*@4", "axum@6"];
        assert_eq!(paths(text), expected);
    }

    #[test]
    fn paths_in_code_are_found_and_those_in_text_are_not() {
        let text = "fn a(b: crate::x::Y<'_>) -> Vec<::std::env::Args> { \"crate::z\"; tokio::spawn(c) }\n";
        assert_eq!(paths(text), ["crate::x::Y@1", "std::env::Args@1", "tokio::spawn@1"]);
    }
}
