//! What a source must keep to before a parser sees it: parsers recurse, and a stack that is used up ends the process.

use super::Flaw;

/// The longest source, in bytes.
pub const LONGEST_SOURCE: usize = 4096;

/// The deepest nesting of brackets.
pub const DEEPEST: usize = 32;

/// Names, values and operators of one expression, at most.
pub const MOST_PARTS: usize = 512;

/// Checks size and nesting.
pub(super) fn check(source: &str) -> Result<(), Flaw> {
    if source.trim().is_empty() {
        let help = "leave the key out, if every event shall pass".to_owned();
        return Err(Flaw { message: "the expression is empty".to_owned(), help: Some(help), at: 0..source.len() });
    }
    if source.len() > LONGEST_SOURCE {
        let message = format!("the expression has {} bytes, and {LONGEST_SOURCE} are the most", source.len());
        return Err(Flaw { message, help: None, at: 0..source.len() });
    }
    match too_deep(source.as_bytes()) {
        None => Ok(()),
        Some(at) => {
            let message = format!("brackets are nested deeper than {DEEPEST}");
            Err(Flaw { message, help: None, at: at..at + 1 })
        }
    }
}

/// Where the brackets are nested too deep. Those in texts and comments do not count.
fn too_deep(source: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = source.get(at) {
        match byte {
            b'(' | b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(at);
                }
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'/' if source.get(at + 1) == Some(&b'/') => {
                at = source[at..].iter().position(|byte| *byte == b'\n').map_or(source.len(), |end| at + end);
                continue;
            }
            b'"' | b'\'' => {
                // Should a text not end, or not on its line, the parser says so; what follows is counted.
                if let Some(end) = end_of_text(source, at) {
                    at = end;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Behind the text that begins with the quote at `start`; none if it does not end.
fn end_of_text(source: &[u8], start: usize) -> Option<usize> {
    let quote = source[start];
    let triple = source[start..].starts_with(&[quote; 3]);
    let raw = is_raw(source, start);
    let mut at = start + if triple { 3 } else { 1 };
    while let Some(byte) = source.get(at) {
        match byte {
            b'\\' if !raw => at += 1,
            b'\n' if !triple => return None,
            byte if *byte == quote && !triple => return Some(at + 1),
            byte if *byte == quote && source[at..].starts_with(&[quote; 3]) => return Some(at + 3),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether an `r` of its own, or with a `b`, stands before the quote: then a backslash is a backslash.
fn is_raw(source: &[u8], quote: usize) -> bool {
    let word = source[..quote].iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
    let word: Vec<u8> = word.map(u8::to_ascii_lowercase).collect();
    matches!(word.as_slice(), b"r" | b"rb" | b"br")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}true{}", "(".repeat(depth), ")".repeat(depth))
    }

    #[test]
    fn brackets_are_counted_before_anything_is_parsed() {
        assert_eq!(check(&nested(DEEPEST)), Ok(()));
        assert_eq!(check(&nested(DEEPEST + 1)).unwrap_err().at, DEEPEST..DEEPEST + 1);
        assert!(check(&nested(200_000)).unwrap_err().message.contains("4096"));
        let flat = vec!["[a(b)]"; 100].join("+");
        assert_eq!(check(&flat), Ok(()), "those that are closed do not count");
    }

    #[test]
    fn brackets_in_texts_and_comments_do_not_count() {
        let many = "(".repeat(DEEPEST + 1);
        for harmless in [
            format!("a == \"{many}\""),
            format!("a == '{many}'"),
            format!("a == '\\'{many}'"),
            format!("a == r'\\' && b == '{many}'"),
            format!("a == '''\n'{many}'''"),
            format!("true // {many}\n"),
        ] {
            assert_eq!(check(&harmless), Ok(()), "{harmless}");
        }
        for counted in [format!("'' + {many}"), format!("// a\n{many}"), format!("'a\n{many}"), format!("r'\\'{many}")]
        {
            assert!(check(&counted).is_err(), "{counted}");
        }
    }
}
