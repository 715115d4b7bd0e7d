//! Values of TOML as the types that keys want; whatever is wrong says what is expected, with an example.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Kind, Node, Table};
use super::names;
use super::problem::{Place, Problem};
use super::quantity::{parse_duration, parse_size, write_duration};

/// The longest duration, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Node {
    fn mismatch(&self, expected: &str) -> Problem {
        Problem::at(&self.place, format!("expected {expected}, found {}", self.strict().type_name()))
    }

    /// A string. `expected` says which, e.g. `a URL such as "https://hooks.example.com"`.
    pub(super) fn text(&self, expected: &str) -> Result<String, Problem> {
        let text = match (&self.kind, self.strict().kind) {
            (_, Kind::Text(text)) => text,
            (Kind::Loose(text), _) => text.clone(),
            _ => return Err(self.mismatch(expected)),
        };
        if text.contains('\0') {
            return Err(Problem::at(&self.place, "a string with a NUL character reaches no program"));
        }
        Ok(text)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Result<bool, Problem> {
        match self.strict().kind {
            Kind::Flag(flag) => Ok(flag),
            _ => Err(self.mismatch("`true` or `false`")),
        }
    }

    /// An integer within `range`.
    pub(super) fn whole(&self, range: RangeInclusive<i64>) -> Result<i64, Problem> {
        let (least, most) = range.clone().into_inner();
        match self.strict().kind {
            Kind::Whole(number) if range.contains(&number) => Ok(number),
            Kind::Whole(number) if most == i64::MAX => {
                Err(Problem::at(&self.place, format!("{number} is too small: {least} at least")))
            }
            Kind::Whole(number) => {
                Err(Problem::at(&self.place, format!("{number} is out of range: {least} to {most} can be")))
            }
            _ => Err(self.mismatch(&format!("an integer such as `{}`", least.max(1)))),
        }
    }

    /// A number within `range`.
    pub(super) fn real(&self, range: RangeInclusive<f64>) -> Result<f64, Problem> {
        let number = match self.strict().kind {
            Kind::Real(number) => number,
            Kind::Whole(number) => number as f64,
            _ => return Err(self.mismatch(&format!("a number such as `{:?}`", range.start() + 1.0))),
        };
        if range.contains(&number) {
            return Ok(number);
        }
        let (least, most) = range.into_inner();
        Err(Problem::at(&self.place, format!("{number:?} is out of range: {least:?} to {most:?} can be")))
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, least: Duration) -> Result<Duration, Problem> {
        let strict = self.strict();
        let Kind::Text(text) = &strict.kind else {
            let problem = self.mismatch("a duration such as \"15m\"");
            return Err(match strict.kind {
                Kind::Whole(seconds) => problem.help(format!("if these are seconds: \"{seconds}s\"")),
                _ => problem,
            });
        };
        let duration = parse_duration(text)
            .map_err(|message| Problem::at(&self.place, message).help("for example \"30s\", \"15m\" or \"1h\""))?;
        if duration > LONGEST {
            return Err(Problem::at(&self.place, format!("{text:?} is too long: 365d at most")));
        }
        if duration < least {
            return Err(Problem::at(&self.place, format!("{text:?} is too short: {} at least", write_duration(least))));
        }
        Ok(duration)
    }

    /// A size in bytes within `range`.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Result<u64, Problem> {
        let strict = self.strict();
        let size = match &strict.kind {
            Kind::Text(text) => parse_size(text).map_err(|message| Problem::at(&self.place, message))?,
            Kind::Whole(number) => u64::try_from(*number).unwrap_or(0),
            _ => return Err(self.mismatch("a size such as \"25MiB\"")),
        };
        if range.contains(&size) {
            return Ok(size);
        }
        let (least, most) = range.into_inner();
        Err(Problem::at(&self.place, format!("{size} bytes are out of range: {least} to {most} can be")))
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Problem> {
        let words = || choices.iter().map(|(word, _)| *word);
        let expected = words().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let text = self.text(&expected)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(*choice);
        }
        let problem = Problem::at(&self.place, format!("expected {expected}, found {text:?}"));
        Err(match names::nearest(&text, words()) {
            Some(meant) => problem.help(format!("did you mean {meant:?}?")),
            None => problem,
        })
    }

    /// A list.
    pub(super) fn list(&self, expected: &str) -> Result<Vec<Self>, Problem> {
        match self.strict().kind {
            Kind::List(nodes) => Ok(nodes),
            _ => Err(self.mismatch(expected)),
        }
    }

    /// A string, or a list of strings.
    pub(super) fn texts(&self, expected: &str) -> Result<Vec<(String, Place)>, Problem> {
        match self.strict().kind {
            Kind::List(nodes) => {
                nodes.iter().map(|node| Ok((node.text("a string in this list")?, node.place.clone()))).collect()
            }
            _ => Ok(vec![(self.text(expected)?, self.place.clone())]),
        }
    }

    /// The same, in which numbers, `true` and `false` are their text: what an event says is held against it as text.
    pub(super) fn words(&self, expected: &str) -> Result<Vec<(String, Place)>, Problem> {
        let word = |node: &Self, expected: &str| match node.strict().kind {
            Kind::Flag(flag) => Ok((flag.to_string(), node.place.clone())),
            Kind::Whole(number) => Ok((number.to_string(), node.place.clone())),
            _ => Ok((node.text(expected)?, node.place.clone())),
        };
        match self.strict().kind {
            Kind::List(nodes) => nodes.iter().map(|node| word(node, "a string in this list")).collect(),
            _ => Ok(vec![word(self, expected)?]),
        }
    }

    /// A table; `example` shows one.
    pub(super) fn into_table(self, example: &str) -> Result<Table, Problem> {
        match self.strict().kind {
            Kind::Table(entries) => Ok(Table { place: self.place, entries }),
            _ => Err(self.mismatch("a table").help(example)),
        }
    }
}
