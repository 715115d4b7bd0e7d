//! Conditions: the CEL expressions of a trigger. `where` says yes or no to an event, `key` names what the event is
//! about.
//!
//! The language is [CEL](https://github.com/google/cel-spec/blob/master/doc/langdef.md) without protocol buffers,
//! unsigned numbers, bytes and optional values. It is parsed by the `cel` crate and evaluated here, because an event's
//! sender chooses how large the lists and texts are that an expression walks through: every step is paid for from a
//! [`Meter`], so that no expression and no event can take longer than it holds, and whoever waits can stop it.
//!
//! What an expression may be is limited as well, before it is parsed: see [`Expression::condition`].

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

mod compile;
mod evaluate;
mod facts;
mod fence;
mod functions;
mod meter;
mod pattern;
mod places;
mod program;
mod ruling;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use facts::{Body, Facts, LARGEST_BODY};
pub use fence::{DEEPEST, LONGEST_SOURCE, MOST_PARTS};
pub use meter::{Meter, PER_EVENT, PER_EXPRESSION};
pub use pattern::{LONGEST_PATTERN, LONGEST_SUBJECT};
pub use ruling::{Choice, Conditions, Ruling, choose};

use program::Program;
use types::Type;
use value::Value;

/// The longest key, in bytes.
pub const LONGEST_KEY: usize = 512;

/// Values of an expression that [`Expression::operands`] shows.
const MOST_OPERANDS: usize = 12;

/// A CEL expression over an event, checked and ready to be evaluated. Cheap to clone; two are equal if they are
/// written the same way.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Arc<str>,
    /// One that was read from a stored trigger set is compiled when it is first needed.
    program: Arc<OnceLock<Result<Program, Flaw>>>,
}

/// Why a text is no expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Flaw {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The piece of the text that is wrong, in bytes.
    pub at: Range<usize>,
}

/// Why an expression has no value for an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The event is not as the expression expects it; in one sentence.
    #[error("{0}")]
    Failed(String),
    /// It takes more work than an expression, or all those of an event together, may take.
    #[error("it takes too much work for this event: its lists and texts are too large for what it does with them")]
    Costly,
    /// Whoever waited for it stopped it.
    #[error("it was stopped")]
    Stopped,
}

impl Expression {
    /// Checks a `where`: an expression that is true or false.
    ///
    /// # Errors
    /// If it is no CEL, names what there is not, mixes types, can have no value of true or false, or is beyond what
    /// is allowed: [`LONGEST_SOURCE`], [`DEEPEST`], [`MOST_PARTS`], one loop (`all`, `exists`, `exists_one`, `map`,
    /// `filter`) inside or behind another, patterns of `matches` that are not written out or longer than
    /// [`LONGEST_PATTERN`].
    pub fn condition(source: &str) -> Result<Self, Flaw> {
        Self::checked(source, |kind| match kind {
            Type::Any | Type::Flag => None,
            other => Some(format!("a condition is true or false; this is {}", other.name())),
        })
    }

    /// Checks a `key`: an expression that is a text, a number, or true or false.
    ///
    /// # Errors
    /// As [`Expression::condition`].
    pub fn key(source: &str) -> Result<Self, Flaw> {
        Self::checked(source, |kind| match kind {
            Type::Any | Type::Text | Type::Whole | Type::Real | Type::Flag => None,
            other => Some(format!("a key is a text or a number; this is {}", other.name())),
        })
    }

    fn checked(source: &str, refuse: impl FnOnce(Type) -> Option<String>) -> Result<Self, Flaw> {
        let program = compile::compile(source)?;
        match refuse(program.kind) {
            Some(message) => Err(Flaw { message, help: None, at: 0..source.len() }),
            None => Ok(Self { source: source.into(), program: Arc::new(OnceLock::from(Ok(program))) }),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    fn program(&self) -> Result<&Program, Failure> {
        let program = self.program.get_or_init(|| compile::compile(&self.source));
        program.as_ref().map_err(|flaw| Failure::Failed(format!("this version cannot read it: {flaw}")))
    }

    /// Whether it is true of an event. Deep expressions recurse: give it a stack of some MiB.
    ///
    /// # Errors
    /// If it has no value for this event, or one that is neither true nor false, or takes too long.
    pub fn holds(&self, facts: &Facts, meter: &mut Meter<'_>) -> Result<bool, Failure> {
        match evaluate::evaluate(self.program()?, facts, meter)? {
            Value::Flag(flag) => Ok(flag),
            other => Err(Failure::Failed(format!("it is {}, and must be true or false", other.kind().name()))),
        }
    }

    /// Its value for an event as a key.
    ///
    /// # Errors
    /// If it has no value for this event, or none that can be a key, or takes too long.
    pub fn name(&self, facts: &Facts, meter: &mut Meter<'_>) -> Result<String, Failure> {
        let key = match evaluate::evaluate(self.program()?, facts, meter)? {
            Value::Text(text) => text.into_owned(),
            Value::Whole(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            other => {
                return Err(Failure::Failed(format!("it is {}, and must be a text or a number", other.kind().name())));
            }
        };
        if key.len() > LONGEST_KEY {
            return Err(Failure::Failed(format!("it has {} bytes, and {LONGEST_KEY} are the most", key.len())));
        }
        Ok(key)
    }

    /// The values of the event that it reads, for people: `event.body.issue.comments = 5`.
    pub fn operands(&self, facts: &Facts) -> Vec<String> {
        let Ok(program) = self.program() else { return Vec::new() };
        let shown = program.paths.iter().take(MOST_OPERANDS).map(|path| match evaluate::look_up(path, facts) {
            Ok(value) => format!("{} = {value}", path.text),
            Err(Failure::Failed(why)) if why.starts_with(&format!("`{}`", path.text)) => why,
            Err(why) => format!("{}: {why}", path.text),
        });
        shown.collect()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl Serialize for Expression {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Ok(Self { source: source.into(), program: Arc::default() })
    }
}
