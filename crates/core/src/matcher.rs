//! The index over all triggers: an event is held only against triggers that can match it.
//!
//! Every trigger is filed under one of its filters, the rarest: under each exact value, or under the literal prefix
//! of each glob. An event looks up its own values, so the cost follows the number of triggers that could match, not the
//! number there are. A property test holds the index against asking every trigger.

use std::collections::{BTreeSet, HashMap};

use crate::pattern::Pattern;
use crate::trigger::{Candidate, Clause, Trigger, each_text};

/// A set of triggers, indexed.
#[derive(Debug, Default)]
pub struct Matcher {
    triggers: Vec<Trigger>,
    sources: HashMap<String, Index>,
}

/// The triggers of one source, by number.
#[derive(Debug, Default)]
struct Index {
    /// By context field, then by value.
    exact: HashMap<String, HashMap<String, Vec<u32>>>,
    /// By context field, then by the literal prefix of a glob.
    prefix: HashMap<String, Prefixes>,
    /// Those without a filter that could file them.
    rest: Vec<u32>,
}

#[derive(Debug, Default)]
struct Prefixes {
    lengths: BTreeSet<usize>,
    triggers: HashMap<String, Vec<u32>>,
}

impl Matcher {
    /// Indexes the triggers.
    pub fn new(triggers: Vec<Trigger>) -> Self {
        let mut popularity: HashMap<(&str, &str, &str), usize> = HashMap::new();
        for trigger in &triggers {
            for (field, pattern) in trigger.clauses.iter().flat_map(filings) {
                *popularity.entry((&trigger.source, field, pattern.literal_prefix())).or_default() += 1;
            }
        }
        let mut sources: HashMap<String, Index> = HashMap::new();
        for (number, trigger) in (0u32..).zip(&triggers) {
            let cost = |clause: &&Clause| {
                let counts = filings(clause).map(|(field, pattern)| {
                    popularity.get(&(&*trigger.source, field, pattern.literal_prefix())).copied().unwrap_or(0)
                });
                counts.sum::<usize>()
            };
            let rarest = trigger.clauses.iter().filter(|clause| can_file(clause)).min_by_key(cost);
            sources.entry(trigger.source.clone()).or_default().file(number, rarest);
        }
        Self { triggers, sources }
    }

    /// The triggers whose filters pass, in the order they were given. Their conditions are still to be asked.
    pub fn find(&self, candidate: Candidate<'_>) -> Vec<&Trigger> {
        let Some(index) = self.sources.get(candidate.source) else { return Vec::new() };
        let mut numbers = index.rest.clone();
        for (field, values) in &index.exact {
            each_text(candidate.context, field, |text| numbers.extend(values.get(text).into_iter().flatten()));
        }
        for (field, prefixes) in &index.prefix {
            each_text(candidate.context, field, |text| {
                for prefix in prefixes.lengths.iter().map_while(|length| text.as_bytes().get(..*length)) {
                    let triggers = std::str::from_utf8(prefix).ok().and_then(|prefix| prefixes.triggers.get(prefix));
                    numbers.extend(triggers.into_iter().flatten());
                }
            });
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers.iter().map(|number| &self.triggers[*number as usize]).filter(|t| t.matches(candidate)).collect()
    }
}

impl Index {
    fn file(&mut self, number: u32, clause: Option<&Clause>) {
        let Some(clause) = clause else {
            self.rest.push(number);
            return;
        };
        for (field, pattern) in filings(clause) {
            let place = if pattern.is_exact() {
                self.exact.entry(field.to_owned()).or_default().entry(pattern.as_str().to_owned()).or_default()
            } else {
                let prefixes = self.prefix.entry(field.to_owned()).or_default();
                prefixes.lengths.insert(pattern.literal_prefix().len());
                prefixes.triggers.entry(pattern.literal_prefix().to_owned()).or_default()
            };
            if place.last() != Some(&number) {
                place.push(number);
            }
        }
    }
}

/// A clause that leaves some events alone lets them pass whatever they carry, so it cannot file a trigger.
fn can_file(clause: &Clause) -> bool {
    clause.only_for.is_empty()
}

/// Every place that a trigger filed under this clause must be found at.
fn filings(clause: &Clause) -> impl Iterator<Item = (&str, &Pattern)> {
    clause.context.iter().flat_map(|field| clause.any_of.iter().map(move |pattern| (field.as_str(), pattern)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Context;
    use proptest::prelude::*;

    fn clause() -> impl Strategy<Value = Clause> {
        let fields = prop::sample::select(vec![("events", "event"), ("repos", "repo"), ("labels", "labels")]);
        let patterns = prop::collection::vec("(a|b|a/b|a\\*|a/\\*|\\*\\*|\\*b|ab|a\\.b)", 1..3);
        (fields, patterns, any::<bool>()).prop_map(|((field, context), patterns, narrow)| Clause {
            field: field.to_owned(),
            context: vec![context.to_owned()],
            any_of: patterns.into_iter().map(|text| Pattern::new(text).unwrap()).collect(),
            only_for: if narrow { vec!["a".to_owned()] } else { vec![] },
        })
    }

    fn trigger() -> impl Strategy<Value = Trigger> {
        (prop::collection::vec(clause(), 0..3), "[xy]").prop_map(|(clauses, source)| Trigger {
            agent: "agent".to_owned(),
            position: 0,
            source,
            clauses,
            conditions: crate::condition::Conditions::default(),
            flow: crate::flow::Flow::default(),
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_asking_every_trigger_finds(
            triggers in prop::collection::vec(trigger(), 0..12),
            event in "(a|b|ab)", action in prop::option::of("(b|c)"), repo in prop::option::of("(a/b|a/c|b)"),
            labels in prop::collection::vec("(a|b|ab)", 0..3), source in "[xyz]", handshake: bool,
        ) {
            let mut context = Context::default();
            context.set("event", event);
            context.set_some("action", action);
            context.set_some("repo", repo);
            context.set("labels", labels);
            let candidate = Candidate { source: &source, handshake, context: &context };
            let naive: Vec<Trigger> = triggers.iter().filter(|t| t.matches(candidate)).cloned().collect();
            let matcher = Matcher::new(triggers);
            let found: Vec<Trigger> = matcher.find(candidate).into_iter().cloned().collect();
            prop_assert_eq!(found, naive);
        }
    }
}
