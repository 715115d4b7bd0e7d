//! Redaction: the secrets an attempt was given do not reach its log or its result.
//!
//! It guards against accidents (an agent that prints its environment), not against an agent that wants to tell.

use std::borrow::Cow;
use std::sync::Arc;

use doorbell_core::secret::Secret;
use serde_json::Value;

/// What stands in a secret's place.
const MARK: &str = "[redacted]";
/// Shorter secrets are not looked for: they would be found everywhere.
const SHORTEST_SECRET: usize = 4;
/// The same for single lines of a secret of several lines, such as a key in PEM.
const SHORTEST_LINE: usize = 8;

/// The byte strings to be kept out.
#[derive(Debug)]
pub(super) struct Secrets {
    patterns: Vec<Secret>,
    /// Whether a pattern starts with this byte.
    starts: [bool; 256],
}

/// What the bytes at one place are.
enum Found {
    Nothing,
    /// A pattern of this length.
    Secret(usize),
    /// The beginning of a pattern that may go on in what comes next.
    Perhaps,
}

impl Secrets {
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns: Vec<Secret> = Vec::new();
        let mut starts = [false; 256];
        let mut add = |bytes: &[u8], shortest: usize| {
            if bytes.len() >= shortest && !patterns.iter().any(|known| known.expose() == bytes) {
                starts[usize::from(bytes[0])] = true;
                patterns.push(Secret::new(bytes));
            }
        };
        for secret in secrets {
            let whole = secret.expose().trim_ascii();
            add(whole, SHORTEST_SECRET);
            if whole.contains(&b'\n') {
                whole.split(|byte| *byte == b'\n').for_each(|line| add(line.trim_ascii(), SHORTEST_LINE));
            }
            // As it stands in JSON, if that is something else.
            if let Ok(Ok(quoted)) = std::str::from_utf8(whole).map(serde_json::to_string) {
                add(&quoted.as_bytes()[1..quoted.len() - 1], SHORTEST_SECRET);
            }
        }
        Self { patterns, starts }
    }

    /// What is at the start of `bytes`. `last`: nothing follows them.
    fn look(&self, bytes: &[u8], last: bool) -> Found {
        let Some(first) = bytes.first() else { return Found::Nothing };
        if !self.starts[usize::from(*first)] {
            return Found::Nothing;
        }
        let mut found = Found::Nothing;
        for pattern in self.patterns.iter().map(Secret::expose) {
            if !last && bytes.len() < pattern.len() && pattern.starts_with(bytes) {
                return Found::Perhaps;
            }
            if bytes.starts_with(pattern) && !matches!(found, Found::Secret(longest) if longest >= pattern.len()) {
                found = Found::Secret(pattern.len());
            }
        }
        found
    }

    /// The text without secrets.
    pub(super) fn redact<'a>(self: &Arc<Self>, text: &'a str) -> Cow<'a, str> {
        let mut redaction = Redaction::new(Arc::clone(self));
        let mut clean = Vec::with_capacity(text.len());
        redaction.push(text.as_bytes(), &mut clean);
        redaction.finish(&mut clean);
        if clean == text.as_bytes() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(String::from_utf8_lossy(&clean).into_owned())
    }

    /// A JSON text without secrets in its strings and names; as it was written, if there are none.
    pub(super) fn redact_json(self: &Arc<Self>, text: &str) -> serde_json::Result<String> {
        let mut value: Value = serde_json::from_str(text)?;
        let in_value = self.clean(&mut value);
        let in_text = matches!(self.redact(text), Cow::Owned(_));
        if in_value || in_text { serde_json::to_string(&value) } else { Ok(text.trim().to_owned()) }
    }

    /// Takes the secrets out of a value; whether there were any.
    pub(super) fn clean(self: &Arc<Self>, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.redact(text) {
                Cow::Borrowed(_) => false,
                Cow::Owned(clean) => {
                    *text = clean;
                    true
                }
            },
            Value::Array(list) => list.iter_mut().filter_map(|value| self.clean(value).then_some(())).count() > 0,
            Value::Object(map) => {
                let mut found = false;
                let fields = std::mem::take(map).into_iter().map(|(name, mut value)| {
                    found |= self.clean(&mut value);
                    let clean = self.redact(&name).into_owned();
                    found |= clean != name;
                    (clean, value)
                });
                *map = fields.collect();
                found
            }
            Value::Number(number) => match self.redact(&number.to_string()) {
                Cow::Borrowed(_) => false,
                Cow::Owned(clean) => {
                    *value = Value::String(clean);
                    true
                }
            },
            Value::Null | Value::Bool(_) => false,
        }
    }
}

/// Redaction of a stream: finds secrets wherever the pieces of it are cut.
#[derive(Debug)]
pub(super) struct Redaction {
    secrets: Arc<Secrets>,
    /// The end of what came, if it may be the beginning of a secret.
    held: Vec<u8>,
    /// How many of the next bytes belong to secrets that were found, which may overlap.
    covered: usize,
}

impl Redaction {
    pub(super) fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets, held: Vec::new(), covered: 0 }
    }

    /// Takes bytes in, and adds to `clean` what can be told to be no secret.
    pub(super) fn push(&mut self, bytes: &[u8], clean: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        self.advance(clean, false);
    }

    /// Adds what was held back: nothing more comes.
    pub(super) fn finish(&mut self, clean: &mut Vec<u8>) {
        self.advance(clean, true);
    }

    fn advance(&mut self, clean: &mut Vec<u8>, last: bool) {
        let mut at = 0;
        while at < self.held.len() {
            match self.secrets.look(&self.held[at..], last) {
                Found::Nothing => {}
                Found::Perhaps => break,
                Found::Secret(length) => {
                    if self.covered == 0 {
                        clean.extend_from_slice(MARK.as_bytes());
                    }
                    self.covered = self.covered.max(length);
                }
            }
            match self.covered.checked_sub(1) {
                Some(left) => self.covered = left,
                None => clean.push(self.held[at]),
            }
            at += 1;
        }
        self.held.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn secrets(texts: &[&str]) -> Arc<Secrets> {
        let texts: Vec<Secret> = texts.iter().map(|text| Secret::new(*text)).collect();
        Arc::new(Secrets::new(&texts))
    }

    fn redact(texts: &[&str], text: &str) -> String {
        secrets(texts).redact(text).into_owned()
    }

    #[test]
    fn secrets_are_replaced_wherever_they_stand() {
        assert_eq!(redact(&["hunter2"], "hunter2 and hunter2!hunter"), "[redacted] and [redacted]!hunter");
        assert_eq!(redact(&["hunter2\n"], "hunter2"), "[redacted]");
        assert_eq!(redact(&["ab\"c\\d"], r#"{"a":"ab\"c\\d"}"#), r#"{"a":"[redacted]"}"#);
    }

    #[test]
    fn nothing_is_left_of_secrets_that_overlap() {
        assert_eq!(redact(&["abcd", "cdef", "abc1"], "xabcdefx"), "x[redacted]x");
        assert_eq!(redact(&["abcd", "abcdef"], "abcdef abcd"), "[redacted] [redacted]");
    }

    #[test]
    fn what_is_too_short_to_tell_apart_stays() {
        assert_eq!(redact(&["abc", "", " \n"], "abc"), "abc");
    }

    #[test]
    fn each_long_line_of_a_secret_of_several_lines_is_a_secret() {
        let key = "-----BEGIN KEY-----\r\nMIIEvQIBADAN\r\nshort\r\n";
        assert_eq!(redact(&[key], "got MIIEvQIBADAN, short"), "got [redacted], short");
        assert_eq!(redact(&["abc\ndef"], "abc\ndef, def"), "[redacted], def");
    }

    #[test]
    fn results_are_cleaned_however_they_are_written() {
        let secrets = secrets(&["hunter2", "12345"]);
        let written = r#" {"a": ["\u0068unter2", {"hunter2": 1.50}], "b": 9123459} "#;
        let clean = secrets.redact_json(written).unwrap();
        assert_eq!(clean, r#"{"a":["[redacted]",{"[redacted]":1.5}],"b":"9[redacted]9"}"#);
        assert_eq!(secrets.redact_json(" {\"a\":  1e400000}").ok(), None);
    }

    #[test]
    fn a_result_without_secrets_stays_as_it_was_written() {
        let written = r#"{"number": 123456789012345678901234567890, "b": 1.50}"#;
        assert_eq!(secrets(&["hunter2"]).redact_json(&format!(" {written}\n")).unwrap(), written);
    }

    proptest! {
        #[test]
        fn no_cut_of_a_stream_lets_a_secret_through(pieces in proptest::collection::vec("[abc]{0,6}", 0..12)) {
            let secrets = secrets(&["abca", "bcab", "ccccc"]);
            let (whole, mut clean) = (pieces.concat(), Vec::new());
            let mut redaction = Redaction::new(Arc::clone(&secrets));
            for piece in &pieces {
                redaction.push(piece.as_bytes(), &mut clean);
            }
            redaction.finish(&mut clean);
            let clean = String::from_utf8(clean).unwrap();
            let at_once = secrets.redact(&whole);
            prop_assert_eq!(&clean, at_once.as_ref());
            for secret in ["abca", "bcab", "ccccc"] {
                prop_assert!(!clean.contains(secret));
            }
        }
    }
}
