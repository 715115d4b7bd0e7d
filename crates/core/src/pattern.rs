//! Patterns of filters: exact text, or text with `*` and `**`.
//!
//! `*` stands for any run of characters but `/`, `**` for any run of characters, as in GitHub's own branch filters.
//! Everything else stands for itself; case counts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest pattern, in bytes: matching is linear in it.
pub const LONGEST: usize = 1000;

/// One pattern of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    wild: bool,
}

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It would match nothing that a provider sends.
    #[error("an empty pattern matches nothing")]
    Empty,
    /// Over [`LONGEST`].
    #[error("a pattern may have {LONGEST} bytes at most")]
    TooLong,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If it is empty or too long.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidPattern> {
        let text = text.into();
        match text.len() {
            0 => Err(InvalidPattern::Empty),
            length if length > LONGEST => Err(InvalidPattern::TooLong),
            _ => Ok(Self { wild: text.contains('*'), text }),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for one text only.
    pub fn is_exact(&self) -> bool {
        !self.wild
    }

    /// The text before the first `*`: whatever matches begins with it.
    pub fn literal_prefix(&self) -> &str {
        self.text.split('*').next().unwrap_or_default()
    }

    /// Whether it matches.
    pub fn matches(&self, text: &str) -> bool {
        if self.wild { matches_glob(self.text.as_bytes(), text.as_bytes()) } else { self.text == text }
    }
}

/// Where to go on when the text after a star did not fit: the star takes one character more.
#[derive(Clone, Copy)]
struct Retry {
    pattern: usize,
    text: usize,
}

/// Linear in both for a single star, bounded by their product otherwise: a mismatch lengthens the last `*`, and, once
/// that meets a `/`, the last `**`.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let (mut star, mut double): (Option<Retry>, Option<Retry>) = (None, None);
    loop {
        if pattern[p..].starts_with(b"**") {
            p += pattern[p..].iter().take_while(|c| **c == b'*').count();
            double = Some(Retry { pattern: p, text: t });
            star = None;
        } else if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            star = Some(Retry { pattern: p, text: t });
        } else if p < pattern.len() && t < text.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if p == pattern.len() && t == text.len() {
            return true;
        } else if let Some(retry) = star.filter(|retry| text.get(retry.text).is_some_and(|c| *c != b'/')) {
            star = Some(Retry { text: retry.text + 1, ..retry });
            (p, t) = (retry.pattern, retry.text + 1);
        } else if let Some(retry) = double.filter(|retry| retry.text < text.len()) {
            double = Some(Retry { text: retry.text + 1, ..retry });
            star = None;
            (p, t) = (retry.pattern, retry.text + 1);
        } else {
            return false;
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    /// The definition, in exponential time.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            [b'*', rest @ ..] => {
                let reach = text.iter().position(|c| *c == b'/').unwrap_or(text.len());
                (0..=reach).any(|n| naive(rest, &text[n..]))
            }
            [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_they_are_defined(pattern in "[ab/*]{1,9}", text in "[ab/]{0,9}") {
            prop_assert_eq!(matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()), "{} {}", pattern, text);
        }

        #[test]
        fn what_matches_begins_with_the_literal_prefix(pattern in "[ab/*]{1,9}", text in "[ab/]{0,9}") {
            if matches(&pattern, &text) {
                prop_assert!(text.starts_with(Pattern::new(pattern.as_str()).unwrap().literal_prefix()));
            }
        }
    }

    #[test]
    fn one_star_stays_within_a_path_segment_and_two_do_not() {
        assert!(matches("acme/*", "acme/app") && !matches("acme/*", "acme/app/x") && matches("acme/**", "acme/app/x"));
        assert!(!matches("*", "acme/app") && matches("**", "acme/app") && matches("*", "bug"));
        assert!(matches("release/*-rc", "release/1.2-rc") && !matches("bug", "Bug"));
    }

    #[test]
    fn a_hostile_pattern_is_matched_in_bounded_time() {
        assert!(!matches(&"*a".repeat(400), &"a".repeat(20_000).replace("aa", "ab")));
        assert!(!matches(&"**a".repeat(300), &"b".repeat(20_000)));
    }
}
