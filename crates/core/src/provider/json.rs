//! JSON of others: the few fields that are asked for, in one borrowed pass over the text.
//!
//! Senders change the types of fields, repeat keys and cut texts in the middle of a character. None of that may lose
//! an event, so a field of another type than expected is an absent field, and the last of a repeated key counts.
//! Only text that is not JSON is an error. What nobody asks for is skipped without recursion.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;

mod cursor;
mod span;

pub(super) use cursor::{Cursor, Stop};

/// An object of which some fields are read.
pub(super) trait Object<'de>: Default {
    /// Takes the value of the field `name`, exactly once: with [`text`], [`object`], … or [`skip`].
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop>;
}

/// The text of a body: UTF-8, without a byte order mark.
pub(super) fn text_of(body: &[u8]) -> Result<&str, std::str::Utf8Error> {
    std::str::from_utf8(body).map(|text| text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Why a text is not the JSON that is read: what is wrong and where, and nothing of what stands there, because it is
/// answered, logged and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at line {line}, column {column}")]
pub struct NotJson {
    what: &'static str,
    line: usize,
    column: usize,
}

impl NotJson {
    /// The same error; `otherwise` says what it is if the text is JSON, and not what is looked for.
    pub(super) fn new(error: &serde_json::Error, otherwise: &'static str) -> Self {
        let what = match error.classify() {
            Category::Syntax | Category::Io => "not JSON",
            Category::Eof => "JSON that ends too early",
            Category::Data => otherwise,
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

/// Reads a text that must be one JSON object.
pub(super) fn read<'de, T: Object<'de>>(text: &'de str) -> Result<T, NotJson> {
    let mut cursor = Cursor::new(text);
    let read = cursor.object().and_then(|object| cursor.end().map(|()| object));
    read.ok().flatten().ok_or_else(|| fault_of(text))
}

/// Why a text was not read. The careful way knows.
fn fault_of(text: &str) -> NotJson {
    let mut json = serde_json::Deserializer::from_str(text);
    match json.deserialize_map(Whole).and_then(|()| json.end()) {
        Err(error) => NotJson::new(&error, "JSON, but not an object"),
        // Nested deeper than anything that is read.
        Ok(()) => NotJson { what: "JSON that is not read", line: 1, column: 1 },
    }
}

/// A text that is not empty.
pub(super) fn text<'de>(value: &mut Cursor<'de>) -> Result<Option<Cow<'de, str>>, Stop> {
    value.text()
}

/// A whole number.
pub(super) fn number(value: &mut Cursor<'_>) -> Result<Option<i64>, Stop> {
    Ok(value.pass()?.parse().ok())
}

/// An object.
pub(super) fn object<'de, T: Object<'de>>(value: &mut Cursor<'de>) -> Result<Option<T>, Stop> {
    value.object()
}

/// The objects of a list.
pub(super) fn list<'de, T: Object<'de>>(value: &mut Cursor<'de>) -> Result<Option<Vec<T>>, Stop> {
    value.list()
}

/// A value that nobody asked for.
pub(super) fn skip(value: &mut Cursor<'_>) -> Result<(), Stop> {
    value.skip()
}

/// The JSON of a value as it stands there.
pub(super) fn raw<'de>(value: &mut Cursor<'de>) -> Result<&'de str, Stop> {
    value.pass()
}

/// The text that `raw` is, if it is one and not empty.
pub(super) fn as_text(raw: &str) -> Option<Cow<'_, str>> {
    let quoted = raw.strip_prefix('"')?;
    // Without an escape the characters are what stands there, which was seen to be a whole text when it was read.
    let plain = quoted.strip_suffix('"').filter(|plain| !plain.contains('\\'));
    Some(plain.map_or_else(|| unescape(raw), Cow::Borrowed)).filter(|text| !text.is_empty())
}

/// What a text says that has escapes in it, all of them right ones. Half a surrogate pair becomes U+FFFD.
fn unescape(raw: &str) -> Cow<'_, str> {
    // As bytes, because as a text serde_json refuses half a surrogate pair.
    serde_json::Deserializer::from_str(raw).deserialize_bytes(Characters).unwrap_or_default()
}

struct Whole;
struct Characters;
/// The name of a field.
pub(super) struct Name;

impl<'de> Visitor<'de> for Whole {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Name)?.is_some() {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Cow<'de, str>, D::Error> {
        key.deserialize_bytes(Characters)
    }
}

impl<'de> Visitor<'de> for Characters {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Cow<'de, str>, E> {
        Ok(characters(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(characters(bytes).into_owned()))
    }
}

/// As `String::from_utf8_lossy`, which is several times slower for what is nearly always the case.
fn characters(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Thing<'a> {
        name: Option<Cow<'a, str>>,
        size: Option<i64>,
        part: Option<Box<Thing<'a>>>,
        parts: Option<Vec<Thing<'a>>>,
    }

    impl<'de> Object<'de> for Thing<'de> {
        fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
            match name {
                "name" => self.name = text(value)?,
                "size" => self.size = number(value)?,
                "part" => self.part = object(value)?.map(Box::new),
                "parts" => self.parts = list(value)?,
                _ => skip(value)?,
            }
            Ok(())
        }
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let thing: Thing<'_> = read(r#"{"name":"plain"}"#).unwrap();
        assert!(matches!(thing.name, Some(Cow::Borrowed("plain"))));
    }

    #[test]
    fn a_field_of_another_type_is_an_absent_field() {
        for odd in ["null", "true", "-1", "1.5", "1e400", r#""text""#, r#"[1,[null,"x"]]"#, r#"{"name":{}}"#] {
            let json = format!(r#"{{"name":{odd},"size":{odd}}}"#);
            let of_text = read::<Thing<'_>>(&json).unwrap();
            assert_eq!(of_text.name.is_some(), odd == r#""text""#);
            assert_eq!(of_text.size.is_some(), odd == "-1");
        }
        for odd in ["null", "true", "-1", "1.5", r#""text""#, "[]", "{}"] {
            let json = format!(r#"{{"part":{odd},"parts":{odd},"name":"still here"}}"#);
            let thing = read::<Thing<'_>>(&json).unwrap();
            assert_eq!(thing.part.is_some(), odd == "{}");
            assert_eq!(thing.parts.is_some(), odd == "[]");
            assert_eq!(thing.name.as_deref(), Some("still here"));
        }
    }

    #[test]
    fn a_text_reads_the_same_with_and_without_escapes() {
        for (plain, escaped) in [("plain", r"pl\u0061in"), ("grün/🔔", r"gr\u00fcn\/\ud83d\udd14"), ("", "")] {
            let of = |text: &str| {
                let json = format!(r#"{{"name":"{text}"}}"#);
                read::<Thing<'_>>(&json).unwrap().name.map(Cow::into_owned)
            };
            assert_eq!(of(plain).unwrap_or_default(), plain);
            assert_eq!(of(plain), of(escaped));
        }
        for broken in ["cut", "a\u{1}b", r"a\"] {
            assert!(read::<Thing<'_>>(&format!(r#"{{"name":"{broken}"#)).is_err());
        }
    }

    #[test]
    fn the_last_of_a_repeated_key_counts() {
        let thing: Thing<'_> = read(r#"{"name":"a","n\u0061me":"b"}"#).unwrap();
        assert_eq!(thing.name.as_deref(), Some("b"));
    }

    #[test]
    fn half_a_surrogate_pair_spoils_only_its_own_character() {
        let thing: Thing<'_> = read(r#"{"\udc00":1,"name":"cut \ud83d","other":"\ud83d"}"#).unwrap();
        assert!(thing.name.unwrap().starts_with("cut \u{fffd}"));
    }

    #[test]
    fn only_one_whole_object_is_read() {
        for bad in ["", "null", "[]", "1", "{", "{}{}", r#"{"name":"a"} x"#, r#"{"other":tru}"#, r#"{"other":"}"#] {
            assert!(read::<Thing<'_>>(bad).is_err(), "{bad}");
        }
        assert!(read::<Thing<'_>>(" {} ").is_ok());
    }

    #[test]
    fn an_error_says_where_it_is_and_nothing_of_what_stands_there() {
        let said = |text: &str| read::<Thing<'_>>(text).err().unwrap().to_string();
        assert_eq!(said(&format!("\"{}\"", "S".repeat(5000))), "JSON, but not an object, at line 1, column 5002");
        assert_eq!(said("{\n  \"secret\" 1}"), "not JSON, at line 2, column 12");
        assert_eq!(said("{\"secret\": "), "JSON that ends too early, at line 1, column 11");
    }

    #[test]
    fn nesting_of_any_depth_does_not_exhaust_the_stack() {
        for (open, close) in [("[", "]"), (r#"{"part":"#, "}"), (r#"{"parts":["#, "]}")] {
            let deep = format!("{}null{}", open.repeat(100_000), close.repeat(100_000));
            for field in ["name", "part", "parts", "other"] {
                let _ = read::<Thing<'_>>(&format!(r#"{{"{field}":{deep}}}"#));
            }
            assert!(read::<Thing<'_>>(&deep).is_err());
        }
    }
}
