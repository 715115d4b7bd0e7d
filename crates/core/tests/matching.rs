//! The index over triggers against what the words of the contract say, written down once more without any index: exact
//! text and globs, filters for some events only, several fields to a filter, several triggers to an agent, other sets.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use doorbell_core::event::Context;
use doorbell_core::matcher::Matcher;
use doorbell_core::trigger::{Candidate, Trigger};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

/// A filter, as these tests have it.
#[derive(Debug, Clone)]
struct Filter {
    name: &'static str,
    fields: &'static [&'static str],
    any_of: Vec<String>,
    only_for: Vec<&'static str>,
}

/// A trigger, as these tests have it.
#[derive(Debug, Clone)]
struct Rule {
    agent: &'static str,
    source: &'static str,
    filters: Vec<Filter>,
}

type Fields = BTreeMap<&'static str, Value>;

fn filter() -> impl Strategy<Value = Filter> {
    let kinds: Vec<(&str, &[&str])> = vec![
        ("events", &["event"]),
        ("actions", &["action"]),
        ("repos", &["repo"]),
        ("labels", &["labels"]),
        ("assignee", &["assignee", "assignees"]),
        ("branches", &["branch", "branches"]),
        ("number", &["number"]),
    ];
    let patterns = vec("[ab7]|a/b|push|push\\.a|[ab/.*]{1,5}|\\*{1,3}", 1..4);
    let only_for = prop_oneof![3 => Just(vec![]), 1 => subsequence(vec!["a", "push"], 1..=2)];
    (select(kinds), patterns, only_for).prop_map(|((name, fields), any_of, only_for)| Filter {
        name,
        fields,
        any_of,
        only_for,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (select(vec!["one", "two"]), select(vec!["x", "y"]), vec(filter(), 0..4))
        .prop_map(|(agent, source, filters)| Rule { agent, source, filters })
}

fn fields() -> impl Strategy<Value = Fields> {
    let text = || "[ab7]|a/b|a/b/a|ab|\u{e4}|[ab/.]{1,6}".prop_map(Value::from);
    let value = move |name: &'static str| match name {
        "labels" | "assignees" | "branches" => vec("[ab]|a/b|[ab/]{1,4}", 0..3).prop_map(Value::from).boxed(),
        "number" => prop_oneof![Just(json!(7)), Just(json!(-7)), Just(json!(true))].boxed(),
        _ => text().boxed(),
    };
    let names = ["action", "repo", "labels", "assignee", "assignees", "branch", "branches", "number"];
    let others = btree_map(select(names.to_vec()), Just(()), 0..6)
        .prop_flat_map(move |names| names.into_keys().map(|name| (Just(name), value(name))).collect::<Vec<_>>());
    (select(vec!["a", "push", "issues"]), others)
        .prop_map(|(event, others)| [("event", Value::from(event))].into_iter().chain(others).collect())
}

/// The same trigger as the core has it, through the form in which trigger sets are kept.
fn trigger(position: usize, rule: &Rule) -> Trigger {
    let clauses = rule.filters.iter().map(|filter| {
        json!({"field": filter.name, "context": filter.fields, "anyOf": filter.any_of, "onlyFor": filter.only_for})
    });
    let clauses: Vec<Value> = clauses.collect();
    let rule = json!({"agent": rule.agent, "position": position, "source": rule.source, "clauses": clauses});
    serde_json::from_value(rule).unwrap()
}

/// As globs are defined, in exponential time.
fn fits(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            let doubled = rest.as_str().strip_prefix('*');
            let reach = if doubled.is_some() { text.len() } else { text.find('/').unwrap_or(text.len()) };
            let pattern = doubled.unwrap_or(rest.as_str());
            (0..=reach).filter(|at| text.is_char_boundary(*at)).any(|at| fits(pattern, &text[at..]))
        }
        Some(c) => text.strip_prefix(c).is_some_and(|text| fits(rest.as_str(), text)),
    }
}

fn wants(rule: &Rule, source: &str, handshake: bool, fields: &Fields) -> bool {
    let event = fields["event"].as_str().unwrap();
    let texts = |field: &str| -> Vec<String> {
        match fields.get(field) {
            Some(Value::Array(list)) => list.iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
            Some(Value::String(text)) if field == "event" => match fields.get("action") {
                Some(action) => vec![text.clone(), format!("{text}.{}", action.as_str().unwrap())],
                None => vec![text.clone()],
            },
            Some(Value::String(text)) => vec![text.clone()],
            Some(other) => vec![other.to_string()],
            None => vec![],
        }
    };
    let passes = |filter: &Filter| {
        let restricts = filter.only_for.is_empty() || filter.only_for.contains(&event);
        let texts = || filter.fields.iter().flat_map(|field| texts(field));
        !restricts || texts().any(|text| filter.any_of.iter().any(|pattern| fits(pattern, &text)))
    };
    let names_it = |filter: &Filter| filter.name == "events" && filter.any_of.iter().any(|pattern| pattern == event);
    rule.source == source && (!handshake || rule.filters.iter().any(names_it)) && rule.filters.iter().all(passes)
}

/// Agents and places of the triggers that the index finds, in their order.
fn found(rules: &[Rule], source: &str, handshake: bool, context: &Context) -> Vec<(String, usize)> {
    let triggers = rules.iter().enumerate().map(|(position, rule)| trigger(position, rule)).collect();
    let matcher = Matcher::new(triggers);
    let found = matcher.find(Candidate { source, handshake, context });
    found.into_iter().map(|trigger| (trigger.agent.clone(), trigger.position)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_the_definition_says(
        rules in vec(rule(), 0..12), source in "[xyz]", handshake: bool, fields in fields(),
    ) {
        let context: Context = serde_json::from_value(json!(fields)).unwrap();
        let wanted = rules.iter().enumerate().filter(|(_, rule)| wants(rule, &source, handshake, &fields));
        let wanted: Vec<(String, usize)> = wanted.map(|(position, rule)| (rule.agent.to_owned(), position)).collect();
        prop_assert_eq!(found(&rules, &source, handshake, &context), wanted);
    }

    #[test]
    fn another_set_of_triggers_changes_nothing_for_those_that_stay(
        before in vec(rule(), 0..8), added in vec(rule(), 0..8), gone in any::<prop::sample::Index>(), fields in fields(),
    ) {
        let context: Context = serde_json::from_value(json!(fields)).unwrap();
        let old = found(&before, "x", false, &context);
        let all: Vec<Rule> = before.iter().chain(&added).cloned().collect();
        let mut new = found(&all, "x", false, &context);
        new.retain(|(_, position)| *position < before.len());
        prop_assert_eq!(&new, &old, "with others behind them");
        if !before.is_empty() {
            // One that wants nothing of this source takes the place of the one that is gone.
            let gone = gone.index(before.len());
            let mut fewer = before.clone();
            fewer[gone] = Rule { agent: "one", source: "elsewhere", filters: Vec::new() };
            let kept: Vec<_> = old.into_iter().filter(|(_, position)| *position != gone).collect();
            prop_assert_eq!(found(&fewer, "x", false, &context), kept, "without one of them");
        }
    }
}
