//! What a command's output says of its result and of its failure, by the rule in its `[runtime] result`.
//!
//! Exit code 0 is not success for every agent. What comes here is whatever a process printed: banners before the JSON,
//! half of it, megabytes of something else. It is read as it comes, and what is kept is bounded.

use std::sync::Arc;

use doorbell_core::run::Outcome;
use serde_json::Value;

use super::redaction::Secrets;
use crate::config::{ResultFormat, ResultPlace, ResultRule};

/// The longest line of JSON, JSON value or text that is kept, in bytes: results are not larger either.
const LARGEST: usize = 1024 * 1024;
/// How often a value may begin and not end before only whole lines are looked at.
const MOST_FAILURES: usize = 200;
/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;

/// What the output said.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// The result, if there is one.
    pub result: Option<Value>,
    /// That it failed: with why.
    pub failure: Option<String>,
    /// Why it failed if it did: what is said there also before an exit code that is not 0.
    pub reason: Option<String>,
    /// Why there is no result, if there is none.
    pub missing: Option<String>,
}

impl Answer {
    /// The same without secrets.
    pub(super) fn without(mut self, secrets: &Arc<Secrets>) -> Self {
        for text in [&mut self.failure, &mut self.reason].into_iter().flatten() {
            *text = shorten(&secrets.redact(text));
        }
        if let Some(result) = &mut self.result {
            secrets.clean(result);
        }
        self
    }

    /// What became of a command whose exit code says `outcome`.
    pub(super) fn weigh(self, outcome: Outcome, has_result: bool) -> Outcome {
        match outcome {
            Outcome::Succeeded => match (self.failure, self.missing) {
                (Some(why), _) => Outcome::Failed(format!("exited with code 0, but failed: {why}")),
                (None, Some(missing)) if !has_result => Outcome::Failed(format!("exited with code 0, but {missing}")),
                _ => Outcome::Succeeded,
            },
            Outcome::Failed(how) => match self.failure.or(self.reason) {
                Some(why) => Outcome::Failed(format!("{how}: {why}")),
                None => Outcome::Failed(how),
            },
            outcome => outcome,
        }
    }
}

/// Reads an output piece by piece.
#[derive(Debug)]
pub struct Collector {
    rule: ResultRule,
    /// The end of a text or of what has JSON in it; of lines, the one that has not ended.
    kept: Vec<u8>,
    /// Whether there was more than is kept.
    cut: bool,
    found: Found,
}

impl Collector {
    /// Of an output that is read by this rule.
    pub fn new(rule: ResultRule) -> Self {
        let found =
            Found { failed: vec![None; rule.failed.len()], reasons: vec![None; rule.reason.len()], result: None };
        Self { rule, kept: Vec::new(), cut: false, found }
    }

    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.rule.format != ResultFormat::JsonLines {
            self.kept.extend_from_slice(bytes);
            // Twice as much before it is cut, so that a byte is not moved for every byte that comes.
            if self.kept.len() > 2 * LARGEST {
                self.cut_front();
            }
            return;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.kept.len() + piece.len() > LARGEST {
                self.kept.clear();
                self.cut = true;
            } else if !self.cut {
                self.kept.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn cut_front(&mut self) {
        let more = self.kept.len().saturating_sub(LARGEST);
        if more == 0 {
            return;
        }
        // Half of a line may have half of a secret in it, which nobody would find.
        let end = self.kept[more..].iter().position(|byte| *byte == b'\n').map_or(more, |end| more + end + 1);
        self.kept.drain(..end);
        self.cut = true;
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.kept);
        if let Ok((record, _)) = json_in_line(&String::from_utf8_lossy(&line)) {
            self.found.take(&self.rule, record);
        }
        self.cut = false;
    }

    /// What all of it said.
    pub fn finish(mut self) -> Answer {
        match self.rule.format {
            ResultFormat::Text => {
                self.cut_front();
                return self.text();
            }
            ResultFormat::JsonLines => self.end_line(),
            ResultFormat::Json => {
                self.cut_front();
                let text = String::from_utf8_lossy(&std::mem::take(&mut self.kept)).into_owned();
                for_each_value(&text, |record| self.found.take(&self.rule, record));
            }
        }
        let Found { result, failed, reasons } = self.found;
        let by_pointer = failed.into_iter().flatten().rfind(is_said);
        let begins = |text: &str| self.rule.failed.iter().any(|mark| !is_pointer(mark) && text.starts_with(mark));
        let by_text = result.as_ref().and_then(Value::as_str).filter(|text| begins(text.trim_start()));
        let reason = reasons.into_iter().flatten().next().as_ref().and_then(in_words);
        let failure = match (&by_pointer, by_text) {
            (None, None) => None,
            (_, text) => {
                let told = text.map(str::to_owned).or_else(|| by_pointer.as_ref().and_then(in_words));
                let told = told.or_else(|| result.as_ref().and_then(in_words));
                Some(reason.clone().or(told).unwrap_or_else(|| "its output says so".to_owned()))
            }
        };
        let missing = result.is_none().then(|| self.rule.missing_json());
        let result = result.filter(|_| failure.is_none());
        Answer { failure, reason, missing, result }
    }

    fn text(self) -> Answer {
        let whole = String::from_utf8_lossy(&self.kept);
        let mark = if self.cut { "…" } else { "" };
        let text = format!("{mark}{}", whole.trim());
        let begins = |line: &&str| self.rule.failed.iter().any(|mark| line.trim_start().starts_with(mark));
        let told = whole.lines().rev().find(begins).map(str::to_owned);
        // Where there is a line that only a success has, it outweighs what was said before it.
        let lacks = |needed: &&str| !whole.lines().any(|line| line.trim_start().starts_with(*needed));
        let needed = self.rule.needs.as_deref();
        let lacked = needed.filter(lacks);
        let failure = told.clone().filter(|_| needed.is_none() || lacked.is_some());
        let place = self.rule.place();
        let missing = match lacked {
            Some(needed) => Some(format!("no line of {place} begins with {needed:?}, as `[runtime] result` wants it")),
            None => text.is_empty().then(|| format!("{place} is empty, and the result should stand there")),
        };
        let result = (failure.is_none() && missing.is_none()).then_some(Value::String(text));
        Answer { result, failure, reason: told, missing }
    }
}

impl ResultRule {
    fn place(&self) -> &'static str {
        match self.from {
            ResultPlace::Stdout => "its standard output",
            ResultPlace::File => "DOORBELL_OUTPUT_FILE",
        }
    }

    fn missing_json(&self) -> String {
        let place = self.place();
        let wanted = match &self.path {
            Some(path) => format!("complete JSON with `{path}`"),
            None => "complete JSON".to_owned(),
        };
        format!("there is no {wanted} in {place}, where `[runtime] result` has it")
    }
}

/// What the last records that had something said.
#[derive(Debug)]
struct Found {
    result: Option<Value>,
    /// For each pointer of `failed`.
    failed: Vec<Option<Value>>,
    /// For each pointer of `reason`.
    reasons: Vec<Option<Value>>,
}

impl Found {
    fn take(&mut self, rule: &ResultRule, record: Value) {
        for (pointer, slot) in rule.failed.iter().zip(&mut self.failed).filter(|(pointer, _)| is_pointer(pointer)) {
            if let Some(value) = record.pointer(pointer) {
                *slot = Some(value.clone());
            }
        }
        for (pointer, slot) in rule.reason.iter().zip(&mut self.reasons) {
            if let Some(value) = record.pointer(pointer).filter(|value| in_words(value).is_some()) {
                *slot = Some(value.clone());
            }
        }
        if !rule.only.iter().all(|(pointer, wanted)| record.pointer(pointer) == Some(wanted)) {
            return;
        }
        let result = match &rule.path {
            Some(path) => record.pointer(path).filter(|value| !value.is_null()).cloned(),
            None => Some(record),
        };
        self.result = result.or(self.result.take());
    }
}

fn is_pointer(mark: &str) -> bool {
    mark.starts_with('/')
}

/// Whether a value says that something is the case.
fn is_said(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(said) => *said,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A text, or the message of an error.
fn in_words(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("message")?.as_str())?;
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// On one line, and not endless.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The JSON objects and lists of a text that begin on a line: at its beginning, or behind something else.
fn for_each_value(text: &str, mut found: impl FnMut(Value)) {
    let (mut at, mut failures) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        // Brackets that never close could be read again from every line.
        let within = if failures < MOST_FAILURES { rest } else { &rest[..end] };
        at += match json_in_line(within) {
            Ok((value, length)) => {
                found(value);
                length
            }
            Err(beyond) => {
                failures += usize::from(beyond);
                end
            }
        };
    }
}

/// The value that begins on the first line, and where it ends. Without one: whether later lines were read in vain.
fn json_in_line(text: &str) -> Result<(Value, usize), bool> {
    let line = text.lines().next().unwrap_or_default();
    let first = line.len() - line.trim_start().len();
    let first = line[first..].starts_with(['{', '[']).then_some(first);
    let object = line.find('{').filter(|at| Some(*at) != first);
    let mut beyond = false;
    for start in [first, object].into_iter().flatten() {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter();
        match values.next() {
            Some(Ok(value)) => return Ok((value, start + values.byte_offset())),
            Some(Err(error)) => beyond |= error.line() > 1,
            None => {}
        }
    }
    Err(beyond)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule(format: ResultFormat) -> ResultRule {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let is_text = format == ResultFormat::Text;
        ResultRule {
            from: ResultPlace::Stdout,
            format,
            path: (!is_text).then(|| "/result".to_owned()),
            only: Vec::new(),
            failed: texts(if is_text { &["litellm."] } else { &["/is_error", "[API Error"] }),
            reason: texts(if is_text { &[] } else { &["/errors/0"] }),
            needs: None,
        }
    }

    fn read(rule: &ResultRule, pieces: &[&[u8]]) -> Answer {
        let mut collector = Collector::new(rule.clone());
        pieces.iter().for_each(|piece| collector.push(piece));
        collector.finish()
    }

    fn json_of(text: &str) -> Answer {
        read(&rule(ResultFormat::Json), &[text.as_bytes()]).without(&Arc::new(Secrets::new([])))
    }

    fn lines_of(text: &str) -> Answer {
        read(&rule(ResultFormat::JsonLines), &[text.as_bytes()])
    }

    #[test]
    fn a_result_is_found_among_banners_and_logs() {
        let json = "{\n  \"is_error\": false,\n  \"result\": \"It is a bug.\"\n}";
        for text in [
            json.to_owned(),
            format!("Welcome!\n[INFO] ready {{\n{json}\nBye\n"),
            format!("\u{1b}[2K\u{feff}{json}"),
            format!("[1, 2]\n{json}\n{{\"update\": \"there is a new version\"}}"),
            format!("{json}{json}"),
        ] {
            let answer = json_of(&text);
            assert_eq!(
                (answer.result, answer.failure, answer.missing),
                (Some(json!("It is a bug.")), None, None),
                "{text}"
            );
        }
    }

    #[test]
    fn a_failure_is_told_although_the_exit_code_is_0() {
        let told = |text: &str| json_of(text).failure.unwrap();
        assert_eq!(told(r#"{"subtype":"success","is_error":true,"result":"API Error: 401"}"#), "API Error: 401");
        assert_eq!(told(r#"{"is_error":true,"errors":["no\n  money"]}"#), "no money");
        assert_eq!(told(r#"{"is_error":true}"#), "its output says so");
        assert_eq!(told(r#"{"is_error":{"message":"gone"},"result":"x"}"#), "gone");
        assert_eq!(told(r#"{"is_error":1}"#), "its output says so");
        assert_eq!(
            told(r#"{"is_error":false,"result":"[API Error: 401 invalid key]"}"#),
            "[API Error: 401 invalid key]"
        );
        for fine in ["false", "0", "null", "\"\"", "[]", "{}"] {
            assert_eq!(json_of(&format!(r#"{{"is_error":{fine},"result":"x"}}"#)).failure, None, "{fine}");
        }
        assert_eq!(told(&format!(r#"{{"is_error":"{}"}}"#, "ä".repeat(600))), format!("{}…", "ä".repeat(500)));
    }

    #[test]
    fn half_of_an_output_is_no_result_and_says_what_was_looked_for() {
        for text in
            ["", "Segmentation fault", r#"{"is_error":false,"result":"It is"#, r#"{"result":null}"#, "{}", "\"x\""]
        {
            let answer = json_of(text);
            let missing = answer.missing.unwrap();
            assert_eq!(answer.result, None, "{text}");
            assert!(missing.contains("`/result`") && missing.contains("standard output"), "{missing}");
        }
    }

    #[test]
    fn of_lines_the_last_one_that_has_something_counts() {
        let text = "not JSON\n{\"result\":1}\r\n{\"is_error\":true,\"result\":2}\n{\"is_error\":false}\n{\"result\":3}";
        let answer = lines_of(text);
        assert_eq!((answer.result, answer.failure), (Some(json!(3)), None));
        let mut rule = rule(ResultFormat::JsonLines);
        rule.only = vec![("/type".to_owned(), json!("result"))];
        let text = "{\"type\":\"result\",\"result\":1}\n{\"type\":\"user\",\"result\":2}\n";
        assert_eq!(read(&rule, &[text.as_bytes()]).result, Some(json!(1)));
    }

    #[test]
    fn lines_and_values_beyond_all_measure_are_left_out() {
        let long = "x".repeat(LARGEST);
        let answer = lines_of(&format!("{{\"result\":1}}\n{{\"result\":\"{long}\"}}\n{{\"other\":1}}\n"));
        assert_eq!(answer.result, Some(json!(1)));
        assert_eq!(json_of(&format!("{{\"result\":\"{long}\"}}")).result, None);
        let mut collector = Collector::new(rule(ResultFormat::Text));
        (0..64).for_each(|_| collector.push(&vec![b'y'; LARGEST / 4]));
        assert!(collector.kept.len() <= 2 * LARGEST);
        let Some(Value::String(text)) = collector.finish().result else { panic!() };
        assert!(text.starts_with("…y") && text.len() < LARGEST + 8);
    }

    #[test]
    fn brackets_that_never_close_take_no_time() {
        for text in ["[", "{", "[[", "{\"a\":", "[1,\n", "{\n", "[\"a\",\n"] {
            assert_eq!(json_of(&text.repeat(LARGEST / text.len())).result, None);
        }
    }

    #[test]
    fn a_text_tells_of_a_failure_by_how_a_line_begins() {
        let mut rule = rule(ResultFormat::Text);
        let failed = "Aider v0.86\nlitellm.AuthenticationError: no key\nCheck your API key.\n";
        let answer = read(&rule, &[failed.as_bytes()]);
        assert_eq!(answer.failure.as_deref(), Some("litellm.AuthenticationError: no key"));
        assert!(read(&rule, &[b" \n"]).missing.unwrap().contains("is empty"));
        assert_eq!(read(&rule, &[b" It is a bug.\n"]).result, Some(json!("It is a bug.")));
        rule.needs = Some("Tokens:".to_owned());
        assert_eq!(read(&rule, &[failed.as_bytes()]).failure.as_deref(), Some("litellm.AuthenticationError: no key"));
        assert!(read(&rule, &[b"Aider v0.86"]).missing.unwrap().contains("\"Tokens:\""));
        let retried = format!("{failed}Retrying in 0.2 seconds...\n\nDone.\n\nTokens: 1 sent, 1 received.\n");
        assert_eq!(read(&rule, &[retried.as_bytes()]).failure, None);
    }

    proptest! {
        #[test]
        fn no_cut_of_an_output_changes_what_it_says(
            text in "([\\[{}\\]\":,a1\n ]|\\{\"result\":1\\}|\\{\"is_error\":true\\}|é){0,40}", cut in 0usize..120,
        ) {
            for format in [ResultFormat::Json, ResultFormat::JsonLines, ResultFormat::Text] {
                let rule = rule(format);
                let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
                prop_assert_eq!(read(&rule, &[head, tail]), read(&rule, &[text.as_bytes()]));
            }
        }

        #[test]
        fn no_output_makes_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for format in [ResultFormat::Json, ResultFormat::JsonLines, ResultFormat::Text] {
                let _ = read(&rule(format), &[&bytes]);
            }
        }
    }
}
