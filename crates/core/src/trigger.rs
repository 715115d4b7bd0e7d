//! Triggers: "this agent wants events of that source that pass these filters", and the verdict on one event.

use serde::{Deserialize, Serialize};

use crate::condition::Conditions;
use crate::event::{Context, Value};
use crate::flow::Flow;
use crate::pattern::Pattern;

/// What one agent wants of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// The agent it starts.
    pub agent: String,
    /// Its place among the triggers of the agent, from 0: flow control comes from the first one that matches.
    pub position: usize,
    /// The source it listens to.
    pub source: String,
    /// The filters; all must pass. None: every event of the source.
    pub clauses: Vec<Clause>,
    /// What is looked at once all filters passed.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// How much of what it starts may be started, and when.
    #[serde(default, skip_serializing_if = "Flow::is_default")]
    pub flow: Flow,
}

/// One filter of a trigger: the event's value must match any of the patterns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clause {
    /// As the trigger spells it, e.g. `repos`.
    pub field: String,
    /// The context fields it is held against; any of them may pass.
    pub context: Vec<String>,
    /// The patterns; any of them may match.
    pub any_of: Vec<Pattern>,
    /// The events it restricts; other events pass it. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_for: Vec<String>,
}

/// What a trigger is held against.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The source that took the event.
    pub source: &'a str,
    /// Whether it is part of setting up the webhook.
    pub handshake: bool,
    /// The event's fields.
    pub context: &'a Context,
}

/// Whether one trigger matched one event, with the clause that decided it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The agent of the trigger.
    pub agent: String,
    /// Its place among the agent's triggers, from 0.
    pub trigger: usize,
    /// Whether it matched.
    pub matched: bool,
    /// In one sentence, for people.
    pub reason: String,
    /// All filters as they are written; the first that failed decides.
    pub clauses: Vec<ClauseVerdict>,
    /// The value of the trigger's `key`, if it has one and matched.
    pub key: Option<String>,
}

/// How one clause went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClauseVerdict {
    /// The filter field.
    pub field: String,
    /// The patterns it wants.
    pub wanted: Vec<String>,
    /// What the event has; none if it does not carry the field.
    pub actual: Option<Value>,
    /// Whether it passed.
    pub passed: bool,
    /// Why it has no answer, if it failed.
    pub error: Option<String>,
}

impl Verdict {
    /// Says that it does not match after all.
    pub fn refuse(&mut self, reason: String) {
        self.matched = false;
        self.reason = reason;
    }
}

impl Trigger {
    /// Whether its filters pass: the same answer as [`Trigger::explain`], without the reasons.
    pub fn matches(&self, candidate: Candidate<'_>) -> bool {
        self.source == candidate.source
            && (!candidate.handshake || self.names_handshake(candidate.context))
            && self.clauses.iter().all(|clause| clause.passes(candidate.context))
    }

    /// Holds its filters against an event, with reasons. [`Conditions::explain`] completes the verdict if they pass.
    pub fn explain(&self, candidate: Candidate<'_>) -> Verdict {
        let mut clauses = Vec::new();
        let reason = self.decide(candidate, &mut clauses);
        Verdict {
            agent: self.agent.clone(),
            trigger: self.position,
            matched: reason.is_ok(),
            reason: reason.unwrap_or_else(|refusal| refusal),
            clauses,
            key: None,
        }
    }

    fn decide(&self, candidate: Candidate<'_>, seen: &mut Vec<ClauseVerdict>) -> Result<String, String> {
        if self.source != candidate.source {
            return Err(format!("listens to source `{}`; this event came to `{}`", self.source, candidate.source));
        }
        if candidate.handshake && !self.names_handshake(candidate.context) {
            let event = candidate.context.text("event").unwrap_or_default();
            return Err(format!(
                "`{event}` is answered at once, and is no work in itself: it starts only agents whose `events` name it"
            ));
        }
        // All of them, though the first that fails decides: who mends one wants to know of the next.
        seen.extend(self.clauses.iter().map(|clause| clause.explain(candidate.context)));
        if let Some(refusal) = seen.iter().find_map(ClauseVerdict::refusal) {
            return Err(refusal);
        }
        Ok(match self.clauses.len() {
            0 if self.conditions.condition.is_some() => "its `where` is true".to_owned(),
            0 => "has no filters: it takes every event of the source".to_owned(),
            _ if self.conditions.condition.is_some() => "its filters passed, and its `where` is true".to_owned(),
            1 => "its filter passed".to_owned(),
            n => format!("all its {n} filters passed"),
        })
    }

    /// As the event (`autocomplete`) or with its action (`autocomplete.deploy`); a glob names nothing.
    fn names_handshake(&self, context: &Context) -> bool {
        let event = context.text("event").unwrap_or_default();
        let action = context.text("action");
        let is_it = |name: &str| match name.strip_prefix(event) {
            Some("") => true,
            Some(rest) => action.is_some() && rest.strip_prefix('.') == action,
            None => false,
        };
        let events = self.clauses.iter().filter(|clause| clause.field == "events");
        events.flat_map(|clause| &clause.any_of).any(|pattern| is_it(pattern.as_str()))
    }
}

impl Clause {
    /// Whether the event passes it.
    pub fn passes(&self, context: &Context) -> bool {
        !self.applies(context) || self.context.iter().any(|field| self.passes_field(context, field))
    }

    /// Whether it restricts this event at all.
    pub fn applies(&self, context: &Context) -> bool {
        self.only_for.is_empty()
            || context.text("event").is_some_and(|event| self.only_for.iter().any(|only| only == event))
    }

    fn passes_field(&self, context: &Context, field: &str) -> bool {
        let mut passed = false;
        each_text(context, field, |text| passed = passed || self.any_of.iter().any(|pattern| pattern.matches(text)));
        passed
    }

    /// What the event has in the fields of the clause, each text once.
    fn actual(&self, context: &Context) -> Option<Value> {
        let mut values = self.context.iter().filter_map(|field| context.get(field));
        let first = values.next()?;
        if values.next().is_none() {
            return Some(first.clone());
        }
        let mut texts: Vec<String> = Vec::new();
        for field in &self.context {
            each_text(context, field, |text| {
                if !texts.iter().any(|one| one == text) {
                    texts.push(text.to_owned());
                }
            });
        }
        Some(Value::List(texts))
    }

    fn explain(&self, context: &Context) -> ClauseVerdict {
        let actual = match context.text("action") {
            Some(action) if self.context.iter().any(|field| field == "event") => {
                Some(Value::Text(format!("{}.{action}", context.text("event").unwrap_or_default())))
            }
            _ => self.actual(context),
        };
        ClauseVerdict {
            field: self.field.clone(),
            wanted: self.any_of.iter().map(ToString::to_string).collect(),
            actual,
            passed: self.passes(context),
            error: None,
        }
    }
}

impl ClauseVerdict {
    /// Why it did not pass, in one sentence; none if it did.
    pub fn refusal(&self) -> Option<String> {
        if self.passed {
            return None;
        }
        let wanted = self.wanted.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        let one_of = if self.wanted.len() == 1 { "" } else { "one of " };
        Some(match &self.actual {
            Some(actual) => format!("`{}` wants {one_of}{wanted}; the event has {}", self.field, show(actual)),
            None => format!("`{}` wants {one_of}{wanted}; the event does not carry it", self.field),
        })
    }
}

/// A value as a sentence shows it.
fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("`{text}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::Flag(flag) => format!("`{flag}`"),
        Value::List(list) if list.is_empty() => "none".to_owned(),
        Value::List(list) => list.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", "),
    }
}

/// Every text that a filter on `field` may match: the elements of a list, a number in decimal, and for `event` also
/// event and action (`issues.opened`).
pub(crate) fn each_text(context: &Context, field: &str, mut visit: impl FnMut(&str)) {
    match context.get(field) {
        Some(Value::Text(text)) => {
            visit(text);
            if let ("event", Some(action)) = (field, context.text("action")) {
                visit(&[text, ".", action].concat());
            }
        }
        Some(Value::Number(number)) => visit(&number.to_string()),
        Some(Value::Flag(flag)) => visit(if *flag { "true" } else { "false" }),
        Some(Value::List(list)) => list.iter().for_each(|text| visit(text)),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(field: &str, context: &[&str], any_of: &[&str], only_for: &[&str]) -> Clause {
        Clause {
            field: field.to_owned(),
            context: context.iter().map(ToString::to_string).collect(),
            any_of: any_of.iter().map(|text| Pattern::new(*text).unwrap()).collect(),
            only_for: only_for.iter().map(ToString::to_string).collect(),
        }
    }

    fn trigger(clauses: Vec<Clause>) -> Trigger {
        Trigger {
            agent: "triage".to_owned(),
            position: 0,
            source: "acme".to_owned(),
            clauses,
            conditions: Conditions::default(),
            flow: Flow::default(),
        }
    }

    fn opened() -> Context {
        let mut context = Context::default();
        context.set("event", "issues");
        context.set("action", "opened");
        context.set("repo", "acme/app");
        context.set("labels", vec!["bug".to_owned(), "ui".to_owned()]);
        context.set("number", 7);
        context
    }

    fn explain(trigger: &Trigger, context: &Context) -> Verdict {
        let candidate = Candidate { source: "acme", handshake: false, context };
        let verdict = trigger.explain(candidate);
        assert_eq!(verdict.matched, trigger.matches(candidate), "both say the same");
        verdict
    }

    #[test]
    fn a_refusal_names_the_failing_clause_and_the_actual_value() {
        let trigger = trigger(vec![
            clause("events", &["event"], &["issues"], &[]),
            clause("labels", &["labels"], &["security", "p0"], &[]),
            clause("repos", &["repo"], &["acme/*"], &[]),
        ]);
        let verdict = explain(&trigger, &opened());
        assert!(!verdict.matched);
        assert_eq!(verdict.reason, "`labels` wants one of `security`, `p0`; the event has `bug`, `ui`");
        let passed: Vec<bool> = verdict.clauses.iter().map(|clause| clause.passed).collect();
        assert_eq!(passed, [true, false, true], "all are shown, the first that fails decides");
    }

    #[test]
    fn a_filter_over_two_fields_shows_what_the_event_has_in_both() {
        let trigger = |wanted| trigger(vec![clause("assignee", &["assignee", "assignees"], &[wanted], &[])]);
        let mut context = opened();
        context.set("assignee", "bob");
        let verdict = explain(&trigger("carol"), &context);
        assert_eq!(verdict.reason, "`assignee` wants `carol`; the event has `bob`");
        context.set("assignees", Value::List(vec!["alice".to_owned(), "bob".to_owned()]));
        assert!(explain(&trigger("alice"), &context).matched);
        let verdict = explain(&trigger("carol"), &context);
        assert_eq!(verdict.reason, "`assignee` wants `carol`; the event has `bob`, `alice`");
    }

    #[test]
    fn events_take_the_event_or_event_and_action() {
        for (pattern, matched) in
            [("issues", true), ("issues.opened", true), ("issues.closed", false), ("issues.*", true)]
        {
            let trigger = trigger(vec![clause("events", &["event"], &[pattern], &[])]);
            assert_eq!(explain(&trigger, &opened()).matched, matched, "{pattern}");
        }
    }

    #[test]
    fn a_filter_on_a_field_that_the_event_does_not_carry_does_not_match() {
        let verdict = explain(&trigger(vec![clause("branches", &["branch"], &["**"], &[])]), &opened());
        assert_eq!(verdict.reason, "`branches` wants `**`; the event does not carry it");
    }

    #[test]
    fn a_filter_for_some_events_leaves_the_others_alone() {
        let trigger = trigger(vec![clause("conclusions", &["conclusion"], &["failure"], &["workflow_run"])]);
        assert!(explain(&trigger, &opened()).matched);
        let mut run = opened();
        run.set("event", "workflow_run");
        assert!(!explain(&trigger, &run).matched, "it restricts this one, and a run without conclusion has none");
    }

    #[test]
    fn a_handshake_starts_only_agents_that_name_it() {
        let mut context = Context::default();
        context.set("event", "ping");
        let candidate = Candidate { source: "acme", handshake: true, context: &context };
        assert!(!trigger(vec![]).explain(candidate).matched);
        assert!(!trigger(vec![clause("events", &["event"], &["**"], &[])]).matches(candidate));
        assert!(trigger(vec![clause("events", &["event"], &["ping"], &[])]).explain(candidate).matched);
    }

    #[test]
    fn what_only_asks_for_suggestions_starts_agents_that_name_it_with_or_without_its_action() {
        let mut context = Context::default();
        context.set("event", "autocomplete");
        context.set("action", "deploy");
        let candidate = Candidate { source: "acme", handshake: true, context: &context };
        let matches = |patterns: &[&str]| trigger(vec![clause("events", &["event"], patterns, &[])]).matches(candidate);
        assert!(!trigger(vec![clause("commands", &["action"], &["deploy"], &[])]).matches(candidate));
        assert!(matches(&["autocomplete"]) && matches(&["autocomplete.deploy"]));
        for other in ["autocomplete.other", "autocomplete.*", "auto*", "autocompletedeploy"] {
            assert!(!matches(&[other]), "{other}");
        }
    }
}
