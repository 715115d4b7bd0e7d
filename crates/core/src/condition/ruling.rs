//! What the conditions of triggers say to one event, and which trigger of an agent starts it.

use serde::{Deserialize, Serialize};

use super::{Expression, Facts, Failure, Meter};
use crate::event::Value;
use crate::trigger::{ClauseVerdict, Verdict};

/// The expressions of a trigger, which are looked at after its filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// `where`: must be true.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Expression>,
    /// `key`: what the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
}

/// What the conditions of a trigger, whose filters passed, say to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It matches; with its key, if it has one.
    Matched {
        /// The value of `key`.
        key: Option<String>,
    },
    /// Its `where` is false.
    Refused,
    /// One of them has no value for this event; in one sentence.
    Failed(String),
}

/// What becomes of an event for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The agent.
    pub agent: String,
    /// The place of the trigger that decided, among the agent's.
    pub trigger: usize,
    /// The key of what is started, or why nothing is.
    pub result: Result<Option<String>, String>,
}

impl Conditions {
    /// Whether there are none: then the filters alone decide.
    pub fn is_empty(&self) -> bool {
        self.condition.is_none() && self.key.is_none()
    }

    /// Asks them. Deep expressions recurse: give it a stack of some MiB.
    pub fn judge(&self, facts: &Facts, meter: &mut Meter<'_>) -> Ruling {
        match self.holds(facts, meter) {
            Ok(true) => {}
            Ok(false) => return Ruling::Refused,
            Err(failure) => return Ruling::Failed(format!("`where` failed: {failure}")),
        }
        match self.name(facts, meter) {
            Ok(key) => Ruling::Matched { key },
            Err(failure) => Ruling::Failed(format!("`key` failed: {failure}")),
        }
    }

    fn holds(&self, facts: &Facts, meter: &mut Meter<'_>) -> Result<bool, Failure> {
        self.condition.as_ref().map_or(Ok(true), |condition| condition.holds(facts, meter))
    }

    fn name(&self, facts: &Facts, meter: &mut Meter<'_>) -> Result<Option<String>, Failure> {
        self.key.as_ref().map(|key| key.name(facts, meter)).transpose()
    }

    /// Completes the verdict of a trigger whose filters passed, with the values of the event that its conditions read.
    pub fn explain(&self, verdict: &mut Verdict, facts: &Facts, meter: &mut Meter<'_>) {
        if let Some(condition) = &self.condition {
            let holds = condition.holds(facts, meter);
            let operands = condition.operands(facts);
            match &holds {
                Ok(true) => {}
                Ok(false) if operands.is_empty() => verdict.refuse("`where` is false".to_owned()),
                Ok(false) => verdict.refuse(format!("`where` is false: {}", operands.join(", "))),
                Err(failure) => verdict.refuse(format!("`where` failed: {failure}")),
            }
            verdict.clauses.push(clause("where", condition, operands, holds));
        }
        if let (Some(expression), true) = (&self.key, verdict.matched) {
            let key = expression.name(facts, meter);
            if let Err(failure) = &key {
                verdict.refuse(format!("`key` failed: {failure}"));
            }
            verdict.clauses.push(clause("key", expression, expression.operands(facts), key.clone().map(|_| true)));
            verdict.key = key.ok();
        }
    }

    /// Completes the verdict of a trigger whose filters passed, and whose conditions nobody could ask: `why` says so.
    pub fn leave_unanswered(&self, verdict: &mut Verdict, why: &str) {
        verdict.refuse(format!("its filters passed, and nobody knows about its conditions: {why}"));
        let named = [("where", &self.condition), ("key", &self.key)];
        let first = named.into_iter().find_map(|(field, asked)| Some((field, asked.as_ref()?)));
        let unanswered = || Err(Failure::Failed(why.to_owned()));
        verdict.clauses.extend(first.map(|(field, asked)| clause(field, asked, Vec::new(), unanswered())));
    }
}

fn clause(field: &str, expression: &Expression, operands: Vec<String>, passed: Result<bool, Failure>) -> ClauseVerdict {
    ClauseVerdict {
        field: field.to_owned(),
        wanted: vec![expression.as_str().to_owned()],
        actual: Some(Value::List(operands)),
        passed: passed == Ok(true),
        error: passed.err().map(|failure| failure.to_string()),
    }
}

/// Which trigger of each agent decides: of its rulings, which come in file order, the first that matched, else the
/// first that failed. Agents whose triggers all refused are left out.
pub fn choose(rulings: impl IntoIterator<Item = (String, usize, Ruling)>) -> Vec<Choice> {
    let mut choices: Vec<Choice> = Vec::new();
    for (agent, trigger, ruling) in rulings {
        let result = match ruling {
            Ruling::Matched { key } => Ok(key),
            Ruling::Failed(reason) => Err(reason),
            Ruling::Refused => continue,
        };
        match choices.iter_mut().find(|choice| choice.agent == agent) {
            None => choices.push(Choice { agent, trigger, result }),
            Some(earlier) if earlier.result.is_err() && result.is_ok() => {
                *earlier = Choice { agent, trigger, result };
            }
            Some(_) => {}
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(key: &str) -> Ruling {
        Ruling::Matched { key: Some(key.to_owned()) }
    }

    #[test]
    fn the_first_trigger_that_matches_decides_and_a_failure_only_if_none_does() {
        let failed = |why: &str| Ruling::Failed(why.to_owned());
        let chosen = choose([
            ("a".to_owned(), 0, Ruling::Refused),
            ("a".to_owned(), 1, failed("first")),
            ("b".to_owned(), 0, failed("first")),
            ("b".to_owned(), 1, failed("second")),
            ("a".to_owned(), 2, matched("2")),
            ("a".to_owned(), 3, matched("3")),
            ("c".to_owned(), 0, Ruling::Refused),
        ]);
        let choice = |agent: &str, trigger, result| Choice { agent: agent.to_owned(), trigger, result };
        assert_eq!(chosen, [choice("a", 2, Ok(Some("2".to_owned()))), choice("b", 0, Err("first".to_owned()))]);
    }

    #[test]
    fn conditions_that_nobody_could_ask_in_time_have_failed_and_are_no_refusal() {
        let expression = |text| Some(Expression::condition(text).unwrap());
        for (condition, key, field) in [(expression("true"), None, "where"), (None, expression("true"), "key")] {
            let mut verdict = Verdict {
                agent: "a".to_owned(),
                trigger: 0,
                matched: true,
                reason: String::new(),
                clauses: Vec::new(),
                key: None,
            };
            Conditions { condition, key }.leave_unanswered(&mut verdict, "it took too long");
            assert!(!verdict.matched && verdict.reason.ends_with("it took too long"));
            let clause = verdict.clauses.last().unwrap();
            assert_eq!((clause.field.as_str(), clause.error.as_deref()), (field, Some("it took too long")));
        }
    }
}
