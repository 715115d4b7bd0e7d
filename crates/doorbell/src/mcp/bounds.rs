//! How much one answer says: an agent reads all of it.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::ops::Error;

/// Entries of a list, if nobody says how many.
const PAGE: usize = 20;
/// Entries of a list, at most.
pub(super) const LONGEST_PAGE: usize = 100;
/// Bytes of a text of which there may be more, at most.
pub(super) const LONGEST_PART: usize = 16_000;
/// Bytes of any other text.
const LONGEST_TEXT: usize = 4_000;
/// Bytes of what a refusal quotes.
const LONGEST_QUOTE: usize = 200;

/// How many entries of a list.
pub(super) fn page(limit: Option<usize>) -> Result<usize, Error> {
    match limit.unwrap_or(PAGE) {
        limit if (1..=LONGEST_PAGE).contains(&limit) => Ok(limit),
        _ => {
            Err(Error::Invalid(format!("`limit` must be from 1 to {LONGEST_PAGE}: ask for the next page by `cursor`")))
        }
    }
}

/// A part of a text that may be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    /// The text, from `offset` on.
    text: String,
    /// Where it begins, in bytes.
    offset: usize,
    /// Bytes of the whole.
    total: usize,
    /// Where the rest begins: ask again with this offset. None: this is the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<usize>,
}

impl Part {
    /// Up to `limit` bytes of a text, from `offset` on.
    pub(super) fn of(text: &str, offset: usize, limit: usize) -> Self {
        let begin = text.floor_char_boundary(offset.min(text.len()));
        let end = text.floor_char_boundary(begin.saturating_add(limit).min(text.len()));
        // A single character may be longer than what was asked for.
        let end = if end == begin { text.ceil_char_boundary((begin + 1).min(text.len())) } else { end };
        let next_offset = Some(end).filter(|end| *end < text.len());
        Self { text: text[begin..end].to_owned(), offset: begin, total: text.len(), next_offset }
    }
}

/// As much of a text as a refusal quotes.
pub(super) fn brief(text: &str) -> Cow<'_, str> {
    shortened(text, LONGEST_QUOTE).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Cuts long texts, and says so.
pub(super) fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(short) = shortened(text, LONGEST_TEXT) {
                *text = short;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(shorten),
        Value::Object(map) => map.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The beginning of a text that is too long; none if it is not.
pub(super) fn shortened(text: &str, most: usize) -> Option<String> {
    let kept = text.floor_char_boundary(most);
    (text.len() > most).then(|| format!("{}… [cut: {} more bytes]", &text[..kept], text.len() - kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_text_make_the_whole_of_it() {
        let text = "aä€😀".repeat(50);
        for limit in 1..12 {
            let (mut whole, mut offset) = (String::new(), Some(0));
            while let Some(at) = offset {
                let part = Part::of(&text, at, limit);
                assert_eq!((part.offset, part.total), (at, text.len()));
                assert!(!part.text.is_empty() && part.text.len() <= limit.max(4));
                whole.push_str(&part.text);
                offset = part.next_offset;
            }
            assert_eq!(whole, text, "{limit}");
        }
    }

    #[test]
    fn an_offset_beyond_the_text_or_within_a_character_does_no_harm() {
        let beyond = Part::of("äb", usize::MAX, usize::MAX);
        assert_eq!((beyond.text.as_str(), beyond.offset, beyond.next_offset), ("", 3, None));
        assert_eq!(Part::of("äb", 1, 9).text, "äb");
        assert_eq!(Part::of("", 0, 5).next_offset, None);
        assert_eq!(Part::of("ab", 0, 0).text, "a", "so that nobody asks for ever");
    }

    #[test]
    fn long_texts_are_cut_wherever_they_stand() {
        let mut value = serde_json::json!({ "a": [{ "b": "ä".repeat(5000) }], "c": "short", "d": 1 });
        shorten(&mut value);
        let text = value["a"][0]["b"].as_str().unwrap_or_default();
        assert!(text.ends_with("ä… [cut: 6000 more bytes]") && text.len() < 4100, "{text}");
        assert_eq!((&value["c"], &value["d"]), (&"short".into(), &1.into()));
    }

    #[test]
    fn pages_have_an_end() {
        assert_eq!(page(None).ok(), Some(20));
        assert_eq!(page(Some(100)).ok(), Some(100));
        assert!(page(Some(0)).is_err() && page(Some(101)).is_err());
    }
}
