//! Waits: what a run that gave its lease back is waiting for, and what it goes on by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{EventId, RunId};
use crate::run::State;
use crate::time::Timestamp;

/// What a run waits for, until a time at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Wait {
    /// The time alone.
    Sleep,
    /// An event.
    Event {
        /// Which: as `events` of a trigger has it, perhaps with the provider before it.
        event: String,
        /// Of this source; none: of any that its agent listens to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Only if this expression is true of it.
        #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
    },
    /// The end of a run that it started.
    Run {
        /// That run.
        run: RunId,
    },
    /// What a person says.
    Answer {
        /// What is asked.
        question: String,
        /// The answers that there are; none: any.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
    },
}

impl Wait {
    /// In one sentence for people.
    pub fn describe(&self, until: Option<Timestamp>) -> String {
        let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
        match self {
            Self::Sleep => format!("sleeps{until}"),
            Self::Event { event, source, condition } => {
                let of = source.as_ref().map(|source| format!(" of `{source}`")).unwrap_or_default();
                let only = condition.as_ref().map(|only| format!(" where {only}")).unwrap_or_default();
                format!("waits for event {event}{of}{only}{until}")
            }
            Self::Run { run } => format!("waits for the end of {run}{until}"),
            Self::Answer { question, options } if options.is_empty() => format!("asks {question:?}"),
            Self::Answer { question, options } => format!("asks {question:?} ({})", options.join(", ")),
        }
    }

    /// What a run goes on by whose time came before anything else did.
    pub fn when_due(&self) -> Resumed {
        match self {
            Self::Sleep => Resumed::Sleep,
            _ => Resumed::Timeout,
        }
    }
}

/// What a run goes on by that waited, as its next try is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EnvelopeResumed")]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resumed {
    /// It slept until its time.
    Sleep,
    /// What it waited for did not come in time.
    Timeout,
    /// An event.
    Event {
        /// Its id.
        #[schemars(with = "String")]
        event_id: EventId,
        /// Its type.
        event_type: String,
        /// When it was received, in Unix seconds. Only as it is told to a try.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timestamp: Option<i64>,
        /// What filters and prompts use. Only as it is told to a try.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<Value>,
    },
    /// The end of a run.
    Run {
        /// That run.
        #[schemars(with = "String")]
        run_id: RunId,
        /// How it ended.
        #[schemars(with = "String")]
        state: State,
        /// Its result. Only as it is told to a try.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Value>,
    },
    /// What a person said.
    Answer {
        /// What.
        answer: Value,
        /// Who.
        by: String,
    },
}

impl Resumed {
    /// In one sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Sleep => "its time came".to_owned(),
            Self::Timeout => "nothing came in time".to_owned(),
            Self::Event { event_id, event_type, .. } => format!("{event_type} {event_id}"),
            Self::Run { run_id, state, .. } => format!("{run_id} {state}"),
            Self::Answer { answer: Value::String(text), by } => format!("{by} answered {text:?}"),
            Self::Answer { answer, by } => format!("{by} answered {answer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_wait_says_what_for_and_how_long() {
        let until = Some(Timestamp::from_seconds(0));
        assert_eq!(Wait::Sleep.describe(until), "sleeps until 1970-01-01T00:00:00.000Z");
        let event = Wait::Event {
            event: "issues.closed".to_owned(),
            source: Some("acme".to_owned()),
            condition: Some("event.context.number == 7".to_owned()),
        };
        assert_eq!(event.describe(None), "waits for event issues.closed of `acme` where event.context.number == 7");
        let asks = Wait::Answer { question: "Merge it?".to_owned(), options: vec!["yes".to_owned(), "no".to_owned()] };
        assert_eq!(asks.describe(until), "asks \"Merge it?\" (yes, no)");
    }

    #[test]
    fn what_comes_first_is_the_time_only_for_who_waited_for_more() {
        assert_eq!(Wait::Sleep.when_due(), Resumed::Sleep);
        assert_eq!(Wait::Answer { question: "?".to_owned(), options: Vec::new() }.when_due(), Resumed::Timeout);
    }

    #[test]
    fn what_is_kept_reads_back_and_has_its_kind() {
        let by = Resumed::Answer { answer: Value::from("yes"), by: "ann".to_owned() };
        let text = serde_json::to_string(&by).unwrap();
        assert_eq!(text, r#"{"kind":"answer","answer":"yes","by":"ann"}"#);
        assert_eq!(serde_json::from_str::<Resumed>(&text).unwrap(), by);
        assert_eq!(serde_json::from_str::<Resumed>(r#"{"kind":"timeout"}"#).unwrap(), Resumed::Timeout);
    }
}
