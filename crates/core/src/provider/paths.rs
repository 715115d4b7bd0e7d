//! JSON pointers, all of a set found in one borrowed pass: what nobody asks for is skipped, and no tree is built.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer as _};
use serde_json::value::RawValue;

use super::json::{self, NotJson};

/// The most values that a `*` collects.
const MOST_COLLECTED: usize = 1000;

/// A set of JSON pointers (RFC 6901). In a list, `0` is the first element and `*` stands for every one: `/labels/*/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pointers: Vec<String>,
    root: Node,
}

/// Where some pointers agree so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// The pointer that ends here.
    ends: Option<usize>,
    next: Vec<(String, Node)>,
}

/// It is not a pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JSON pointer: it begins with `/`, as in `/issue/title`, and `~0` stands for `~`, `~1` for `/`")]
pub struct InvalidPointer(pub String);

/// What was found: the JSON of each value as it stands there.
#[derive(Debug, Clone)]
pub struct Found<'p, 'a> {
    paths: &'p Paths,
    values: Vec<Vec<&'a str>>,
}

impl Paths {
    /// A set of pointers.
    ///
    /// # Errors
    /// If one is not a pointer.
    pub fn new<P: Into<String>>(pointers: impl IntoIterator<Item = P>) -> Result<Self, InvalidPointer> {
        let mut paths = Self { pointers: Vec::new(), root: Node::default() };
        for pointer in pointers {
            let pointer = pointer.into();
            if paths.pointers.contains(&pointer) {
                continue;
            }
            let rest = pointer.strip_prefix('/');
            let rest = rest.filter(|rest| rest.split('~').skip(1).all(|after| after.starts_with(['0', '1'])));
            let Some(rest) = rest else { return Err(InvalidPointer(pointer)) };
            let mut node = &mut paths.root;
            for part in rest.split('/') {
                let name = part.replace("~1", "/").replace("~0", "~");
                let at = node.next.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                    node.next.push((name, Node::default()));
                    node.next.len() - 1
                });
                node = &mut node.next[at].1;
            }
            node.ends = Some(paths.pointers.len());
            paths.pointers.push(pointer);
        }
        Ok(paths)
    }

    /// A set of pointers that are known to be ones.
    ///
    /// # Panics
    /// If one is not: a mistake in the program.
    pub fn known(pointers: &[&'static str]) -> Self {
        Self::new(pointers.iter().copied()).expect("pointers in the program are pointers")
    }

    /// Finds them in a text that must be one JSON value.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn find<'p, 'a>(&'p self, text: &'a str) -> Result<Found<'p, 'a>, NotJson> {
        // A text with half a surrogate pair, where an object is looked for, is refused by the fast way only.
        let values = self.walk(text, false).or_else(|_| self.walk(text, true));
        let values = values.map_err(|error| NotJson::new(&error, "JSON of another kind than is read"))?;
        Ok(Found { paths: self, values })
    }

    fn walk<'a>(&self, text: &'a str, careful: bool) -> Result<Vec<Vec<&'a str>>, serde_json::Error> {
        let mut values = vec![Vec::new(); self.pointers.len()];
        Walk { node: &self.root, values: &mut values, careful }.descend(text)?;
        Ok(values)
    }
}

impl<'a> Found<'_, 'a> {
    /// The JSON of every value that a pointer found.
    pub(super) fn all(&self, pointer: &str) -> &[&'a str] {
        let at = self.paths.pointers.iter().position(|known| known == pointer);
        debug_assert!(at.is_some(), "{pointer} is asked for, but was not looked for");
        at.map_or(&[], |at| &self.values[at])
    }

    /// The JSON of a value as it stands there; of a repeated key, the last.
    pub fn raw(&self, pointer: &str) -> Option<&'a str> {
        self.all(pointer).last().copied()
    }

    /// A text that is not empty.
    pub fn text(&self, pointer: &str) -> Option<Cow<'a, str>> {
        self.raw(pointer).and_then(json::as_text)
    }

    /// A text, or a number as it is written: ids are either.
    pub fn id(&self, pointer: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(pointer)?;
        match raw.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(raw)),
            _ => json::as_text(raw),
        }
    }

    /// A whole number.
    pub fn number(&self, pointer: &str) -> Option<i64> {
        self.raw(pointer)?.parse().ok()
    }

    /// Yes or no.
    pub fn flag(&self, pointer: &str) -> Option<bool> {
        self.raw(pointer)?.parse().ok()
    }

    /// The texts that a `*` collects.
    pub fn texts(&self, pointer: &str) -> Vec<String> {
        self.all(pointer).iter().filter_map(|raw| json::as_text(raw)).map(Cow::into_owned).collect()
    }

    /// Whether there is a value there, `null` included.
    pub fn has(&self, pointer: &str) -> bool {
        !self.all(pointer).is_empty()
    }
}

/// The elements of a text that must be one JSON list, each as it stands there.
///
/// # Errors
/// If it is not a list.
pub fn elements(text: &str) -> Result<Vec<&str>, NotJson> {
    let list = serde_json::from_str::<Vec<&RawValue>>(text);
    let list = list.map_err(|error| NotJson::new(&error, "JSON, but not a list"))?;
    Ok(list.into_iter().map(RawValue::get).collect())
}

/// The names of a text that must be one JSON object, in their order.
///
/// # Errors
/// If it is not an object.
pub fn names(text: &str) -> Result<Vec<Cow<'_, str>>, NotJson> {
    let read = || {
        let mut json = serde_json::Deserializer::from_str(text);
        let names = json.deserialize_map(Names)?;
        json.end()?;
        Ok(names)
    };
    read().map_err(|error| NotJson::new(&error, "JSON, but not an object"))
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Vec<Cow<'de, str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = map.next_key_seed(json::Name)? {
            map.next_value::<IgnoredAny>()?;
            names.push(name);
        }
        Ok(names)
    }
}

/// One value, and what is wanted below it.
struct Walk<'p, 'v, 'a> {
    node: &'p Node,
    values: &'v mut Vec<Vec<&'a str>>,
    /// Whether values are looked at as they stand there before they are read, at the price of reading them twice.
    careful: bool,
}

impl<'p, 'a> Walk<'p, '_, 'a> {
    /// Looks below the value whose JSON this is.
    fn descend(self, raw: &'a str) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(raw);
        if self.careful && !raw.trim_start().starts_with(['{', '[']) {
            return IgnoredAny::deserialize(&mut json).and_then(|_| json.end());
        }
        self.deserialize(&mut json)?;
        json.end()
    }

    fn below(&mut self, node: &'p Node) -> Walk<'p, '_, 'a> {
        Walk { node, values: self.values, careful: self.careful }
    }

    /// Whether the value of `node` is only walked through.
    fn passes(&self, node: &Node) -> bool {
        node.ends.is_none() && !self.careful
    }

    /// Keeps what is wanted of the value of `node`.
    fn keep(&mut self, node: &'p Node, raw: &'a str) -> Result<(), serde_json::Error> {
        if let Some(at) = node.ends
            && self.values[at].len() < MOST_COLLECTED
        {
            self.values[at].push(raw);
        }
        if node.next.is_empty() { Ok(()) } else { self.below(node).descend(raw) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(json::Name)? {
            match self.node.next.iter().find(|(known, _)| *known == name) {
                Some((_, node)) if self.passes(node) => map.next_value_seed(self.below(node))?,
                Some((_, node)) => {
                    let raw = map.next_value::<&RawValue>()?.get();
                    self.keep(node, raw).map_err(A::Error::custom)?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let named = |wanted: &str| self.node.next.iter().find(|(name, _)| name == wanted).map(|(_, node)| node);
        let (every, mut first) = (named("*"), named("0"));
        if every.or(first).is_none() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            for node in [every, first.take()].into_iter().flatten() {
                self.keep(node, raw.get()).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"a":{"b":"x","c":[1,{"d":"y"}]},"n":7,"yes":true,"list":[{"name":"one"},{"name":"two"},3],"skip":{"a":{"b":"z"}}}"#;

    #[test]
    fn each_pointer_finds_its_value() {
        let paths = Paths::known(&["/a/b", "/a", "/a/c/0", "/n", "/yes", "/list/*/name", "/none", "/n/b"]);
        let found = paths.find(TEXT).unwrap();
        assert_eq!(found.text("/a/b").as_deref(), Some("x"));
        assert!(found.raw("/a").unwrap().starts_with(r#"{"b""#));
        assert_eq!(found.number("/a/c/0"), Some(1));
        assert_eq!((found.number("/n"), found.id("/n").as_deref()), (Some(7), Some("7")));
        assert_eq!(found.flag("/yes"), Some(true));
        assert_eq!(found.texts("/list/*/name"), ["one", "two"]);
        assert!(!found.has("/none") && !found.has("/n/b"));
    }

    #[test]
    fn a_value_of_another_type_is_an_absent_one() {
        let paths = Paths::known(&["/a/b", "/c"]);
        for odd in ["null", "true", "-1", "1.5", "[]", r#""text""#, r#""cut \ud83d""#, "[[{}]]"] {
            let text = format!(r#"{{"a":{odd},"c":"still here"}}"#);
            let found = paths.find(&text).unwrap();
            assert!(!found.has("/a/b"), "{odd}");
            assert_eq!(found.text("/c").as_deref(), Some("still here"), "{odd}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_key_counts() {
        let paths = Paths::known(&["/a/b"]);
        let found = paths.find(r#"{"a":{"b":"x","b":"y"}}"#).unwrap();
        assert_eq!(found.text("/a/b").as_deref(), Some("y"));
    }

    #[test]
    fn only_one_whole_value_is_read_and_depth_does_not_matter() {
        let paths = Paths::known(&["/a/b", "/*/c"]);
        for bad in ["", "{", "{}{}", r#"{"x":tru}"#, "nul", r#"{"a":{"b":"}}"#] {
            assert!(paths.find(bad).is_err(), "{bad}");
        }
        for good in ["null", "[]", " {} ", "7"] {
            assert!(paths.find(good).is_ok(), "{good}");
        }
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"{"b":"#, "}"), (r#"{"c":["#, "]}")] {
            let deep = format!("{}null{}", open.repeat(100_000), close.repeat(100_000));
            let _ = (paths.find(&deep), elements(&deep), names(&deep));
            let _ = paths.find(&format!(r#"{{"a":{deep}}}"#));
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for wrong in ["a/b", "", "/a~3", "/a~", "/~/b"] {
            assert!(Paths::new([wrong]).is_err(), "{wrong}");
        }
        assert!(Paths::new(["/a~1b"]).is_ok_and(|paths| paths.find(r#"{"a/b":1}"#).unwrap().has("/a~1b")));
    }

    #[test]
    fn lists_and_names_are_read_alone() {
        assert_eq!(elements(r#"[1, {"a": 2}]"#).unwrap(), ["1", r#"{"a": 2}"#]);
        assert!(elements("{}").is_err());
        assert_eq!(names(r#"{"update_id":1,"message":{"x":2}}"#).unwrap(), ["update_id", "message"]);
        assert!(names("[]").is_err());
    }
}
