//! `cargo xtask bench match`: what it costs to find the triggers of one event among 100, 10,000 and 100,000.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::hint::black_box;
use std::time::Instant;

use doorbell_core::condition::Conditions;
use doorbell_core::event::Context;
use doorbell_core::matcher::Matcher;
use doorbell_core::pattern::Pattern;
use doorbell_core::trigger::{Candidate, Clause, Trigger};
use serde_json::json;

const SIZES: [usize; 3] = [100, 10_000, 100_000];
const ROUNDS: usize = 7;
const EVENTS: usize = 20_000;

fn clause(field: &str, context: &str, patterns: &[String]) -> Clause {
    Clause {
        field: field.to_owned(),
        context: vec![context.to_owned()],
        any_of: patterns.iter().map(|text| Pattern::new(text.as_str()).unwrap()).collect(),
        only_for: Vec::new(),
    }
}

/// Teams with their own repositories, labels and branches: exact names, globs, and some that want a whole organisation.
fn triggers(count: usize) -> Vec<Trigger> {
    (0..count)
        .map(|n| {
            let events = clause("events", "event", &["issues".to_owned(), "pull_request.opened".to_owned()]);
            let own = match n % 4 {
                0 | 1 => clause("repos", "repo", &[format!("acme/service-{n}")]),
                2 => clause("repos", "repo", &[format!("team-{n}/*")]),
                _ => clause("labels", "labels", &[format!("area-{n}"), format!("owner-{n}")]),
            };
            let agent = format!("agent-{n}");
            Trigger {
                agent,
                position: 0,
                source: "acme".to_owned(),
                clauses: vec![events, own],
                conditions: Conditions::default(),
                flow: Default::default(),
            }
        })
        .collect()
}

fn contexts(count: usize) -> Vec<Context> {
    (0..64)
        .map(|n| {
            let number = n * count / 64;
            let mut context = Context::default();
            context.set("event", "issues");
            context.set("action", "opened");
            context.set(
                "repo",
                if n % 2 == 0 {
                    format!("acme/service-{}", number / 4 * 4)
                } else {
                    format!("team-{}/app", number / 4 * 4 + 2)
                },
            );
            context.set("number", 7);
            context.set("author", "somebody");
            context.set("labels", vec!["bug".to_owned(), format!("area-{}", number / 4 * 4 + 3)]);
            context
        })
        .collect()
}

fn main() {
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    let measured = SIZES.map(|count| {
        let matcher = Matcher::new(triggers(count));
        let contexts = contexts(count);
        let found: usize = contexts.iter().map(|context| find(&matcher, context)).sum();
        let rounds = (0..ROUNDS).map(|_| {
            let begun = Instant::now();
            for event in 0..EVENTS {
                black_box(find(&matcher, &contexts[event % contexts.len()]));
            }
            begun.elapsed().as_secs_f64() * 1e9 / EVENTS as f64
        });
        (count, support::median(rounds.collect()), found as f64 / contexts.len() as f64)
    });
    for (count, nanos, found) in measured {
        let ratio = nanos / measured[0].1;
        rows.push(vec![count.to_string(), format!("{nanos:.0} ns"), format!("{found:.1}"), format!("{ratio:.2}")]);
        figures.push(json!({ "triggers": count, "nanosPerEvent": nanos, "found": found, "ratio": ratio }));
    }
    support::print_table(&["triggers", "per event", "found", "over 100 triggers (must ≤ 2)"], &rows);
    support::write_json("match", &json!(figures));
}

fn find(matcher: &Matcher, context: &Context) -> usize {
    matcher.find(Candidate { source: "acme", handshake: false, context }).len()
}
