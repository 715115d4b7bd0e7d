//! What a body says, whatever form it has.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// Reads the texts of a body, each apart: of JSON its strings, numbers and names of fields; of a form its names and values, also
/// where they are JSON themselves; of anything else all that is text. Never builds the whole of it in memory.
pub fn read_body(body: &[u8], mut text: impl FnMut(&str)) {
    read(body, &mut text);
}

fn read(body: &[u8], text: &mut dyn FnMut(&str)) {
    if read_json(body, text) {
        return;
    }
    if is_form(body) {
        for (name, value) in form_urlencoded::parse(body) {
            text(&name);
            if !value.starts_with(['{', '[']) || !read_json(value.as_bytes(), text) {
                text(&value);
            }
        }
        return;
    }
    body.utf8_chunks().for_each(|chunk| text(chunk.valid()));
}

/// A form has a name and a value, and no space or line anywhere.
fn is_form(body: &[u8]) -> bool {
    body.contains(&b'=') && !body.iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'<')
}

/// False if it is no JSON; what was read until then was said all the same.
fn read_json(body: &[u8], text: &mut dyn FnMut(&str)) -> bool {
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_any(Read { text }).is_ok() && json.end().is_ok()
}

struct Read<'a> {
    text: &'a mut dyn FnMut(&str),
}

impl<'de> DeserializeSeed<'de> for Read<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Read<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        (self.text)(value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        (self.text)(&value.to_string());
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        (self.text)(&value.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        (self.text)(&value.to_string());
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Read { text: self.text })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Read { text: self.text })?.is_some() {
            map.next_value_seed(Read { text: self.text })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        read_body(body, |text| texts.push(text.to_owned()));
        texts
    }

    #[test]
    fn json_says_what_its_strings_say() {
        let body = br#"{"title":"a\nb \u00fc","list":[1,-2,1.5,null,true,{"k":"v"}]}"#;
        assert_eq!(texts(body), ["title", "a\nb ü", "list", "1", "-2", "1.5", "k", "v"]);
    }

    #[test]
    fn a_form_says_what_its_fields_say_also_in_json() {
        let body = b"text=deploy+now%21&payload=%7B%22number%22%3A42%7D&odd=%7B";
        assert_eq!(texts(body), ["text", "deploy now!", "payload", "number", "42", "odd", "{"]);
    }

    #[test]
    fn anything_else_says_what_of_it_is_text() {
        assert_eq!(texts(b"<a b='c'>d</a>"), ["<a b='c'>d</a>"]);
        assert_eq!(texts(b"one\xfftwo"), ["one", "two"]);
        assert_eq!(texts(b""), Vec::<String>::new());
        let deep = "[".repeat(100_000);
        assert_eq!(texts(deep.as_bytes()), [deep]);
    }
}
