//! A place in a JSON text, which moves over it once and copies nothing.
//!
//! It takes what `serde_json` takes (a property test holds the two against each other), in less time: what nobody asks
//! for is passed over without being taken apart, and eight characters of a text are looked at together.

use std::borrow::Cow;

use super::Object;
use super::span::{end_of_colon, end_of_space, end_of_text, end_of_value};

/// Objects in each other that may be wanted; what is passed over may be nested to any depth.
const DEEPEST: usize = 128;
/// Objects of a list that are wanted. Senders have a hundred labels at most, and each takes many times the two bytes of `{}`.
const MOST_OBJECTS: usize = 1000;

/// The text is not JSON. Where and why is found out by whoever has to say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) struct Stop;

/// A place in a JSON text.
#[derive(Debug)]
pub(in crate::provider) struct Cursor<'t> {
    text: &'t str,
    at: usize,
    /// Wanted objects that are open.
    depth: usize,
    /// What closes the lists and objects that are passed over and open.
    open: Vec<u8>,
}

/// A text as it stands there, with its quotes.
#[derive(Debug, Clone, Copy)]
struct Quoted<'t> {
    raw: &'t str,
    escaped: bool,
}

impl<'t> Quoted<'t> {
    /// What it says.
    #[inline(always)]
    fn said(self) -> Cow<'t, str> {
        if self.escaped { super::unescape(self.raw) } else { Cow::Borrowed(&self.raw[1..self.raw.len() - 1]) }
    }
}

impl<'t> Cursor<'t> {
    /// At the beginning of a text, or of what stands there first.
    pub(super) fn new(text: &'t str) -> Self {
        let mut cursor = Self { text, at: 0, depth: 0, open: Vec::new() };
        cursor.pass_space();
        cursor
    }

    /// That nothing more follows.
    pub(super) fn end(&mut self) -> Result<(), Stop> {
        self.pass_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Stop) }
    }

    /// Reads a text that is not empty; none if the value is none.
    pub(super) fn text(&mut self) -> Result<Option<Cow<'t, str>>, Stop> {
        if self.peek() != Some(b'"') {
            return self.pass().map(|_| None);
        }
        Ok(Some(self.quoted()?.said()).filter(|text| !text.is_empty()))
    }

    /// Reads an object; none if the value is none.
    pub(super) fn object<T: Object<'t>>(&mut self) -> Result<Option<T>, Stop> {
        if self.peek() != Some(b'{') {
            return self.pass().map(|_| None);
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Stop);
        }
        let mut object = T::default();
        self.at += 1;
        self.pass_space();
        if !self.take(b'}') {
            loop {
                let name = self.name()?;
                object.field(&name.said(), self)?;
                self.pass_space();
                if self.take(b'}') {
                    break;
                }
                self.pass_comma()?;
            }
        }
        self.depth -= 1;
        Ok(Some(object))
    }

    /// Reads the objects of a list, up to [`MOST_OBJECTS`]; none if the value is none.
    pub(super) fn list<T: Object<'t>>(&mut self) -> Result<Option<Vec<T>>, Stop> {
        if self.peek() != Some(b'[') {
            return self.pass().map(|_| None);
        }
        let mut list = Vec::new();
        self.at += 1;
        self.pass_space();
        if !self.take(b']') {
            loop {
                if list.len() < MOST_OBJECTS {
                    list.extend(self.object()?);
                } else {
                    self.pass()?;
                }
                self.pass_space();
                if self.take(b']') {
                    break;
                }
                self.pass_comma()?;
            }
        }
        Ok(Some(list))
    }

    /// Passes over a value and answers it as it stands there.
    pub(super) fn pass(&mut self) -> Result<&'t str, Stop> {
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Result<(), Stop> {
        self.at = end_of_value(self.text.as_bytes(), self.at, &mut self.open)?;
        Ok(())
    }

    /// The name of a field, of which the value follows.
    #[inline(always)]
    fn name(&mut self) -> Result<Quoted<'t>, Stop> {
        let name = self.quoted()?;
        self.at = end_of_colon(self.text.as_bytes(), self.at)?;
        Ok(name)
    }

    /// A text as it stands there.
    #[inline(always)]
    fn quoted(&mut self) -> Result<Quoted<'t>, Stop> {
        let start = self.at;
        let (end, escaped) = end_of_text(self.text.as_bytes(), start)?;
        self.at = end;
        Ok(Quoted { raw: &self.text[start..end], escaped })
    }

    #[inline]
    fn pass_comma(&mut self) -> Result<(), Stop> {
        if !self.take(b',') {
            return Err(Stop);
        }
        self.pass_space();
        Ok(())
    }

    #[inline]
    fn pass_space(&mut self) {
        self.at = end_of_space(self.text.as_bytes(), self.at);
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn passes(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.pass().and_then(|_| cursor.end()).is_ok()
    }

    /// Pieces of JSON, whole ones and broken ones.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\"",
            "\"",
            "\\",
            "\\u00e9",
            "\\ud800",
            "\\n",
            "\\x",
            "é",
            "🔔",
            " ",
            "\n",
            "\t",
            "\u{1}",
            "\u{7f}",
            "0",
            "1",
            "-",
            "-1",
            "01",
            "1.5",
            "1.",
            ".5",
            "1e5",
            "1E+5",
            "e",
            "true",
            "tru",
            "false",
            "null",
            "nul",
            "\"a\":1",
            "\"a\":",
            "\"a text of more than sixteen bytes\"",
            "{\"a\":[1,{}]}",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,20}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_json_takes(text in pieces()) {
            prop_assert_eq!(passes(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn it_takes_json_however_it_is_written_and_nothing_that_is_cut(value in json(), cut: prop::sample::Index) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(Cursor::new(&text).pass(), Ok(text.as_str()));
                let cut = (0..=cut.index(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
                prop_assert_eq!(passes(&text[..cut]), serde_json::from_str::<IgnoredAny>(&text[..cut]).is_ok());
                prop_assert_eq!(passes(&text[cut..]), serde_json::from_str::<IgnoredAny>(&text[cut..]).is_ok());
            }
        }
    }

    #[derive(Debug, Default)]
    struct Nothing;

    impl<'t> Object<'t> for Nothing {
        fn field(&mut self, _: &str, value: &mut Cursor<'t>) -> Result<(), Stop> {
            value.pass().map(|_| ())
        }
    }

    #[test]
    fn a_list_of_many_objects_is_read_to_its_end_and_not_kept_whole() {
        let objects = |count: usize| format!("[{}{{}}]", "{},".repeat(count - 1));
        for (count, kept) in [(1, 1), (1000, 1000), (1001, 1000), (100_000, 1000)] {
            let text = objects(count);
            let mut cursor = Cursor::new(&text);
            assert_eq!(cursor.list::<Nothing>().unwrap().map(|list| list.len()), Some(kept), "{count}");
            assert_eq!(cursor.at, text.len());
        }
        assert!(Cursor::new(&format!("[{}{{]", "{},".repeat(1000))).list::<Nothing>().is_err());
    }

    #[test]
    fn what_is_passed_over_may_be_nested_to_any_depth() {
        let deep = format!("{}1{}", r#"[{"a":"#.repeat(100_000), "}]".repeat(100_000));
        assert!(passes(&deep) && !passes(&deep[..deep.len() - 1]));
    }
}
