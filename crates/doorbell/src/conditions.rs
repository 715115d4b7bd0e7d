//! The conditions of triggers (`where`, `key`), asked off the request path: on a few threads with large stacks, for a
//! limited time.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_core::condition::{Body, Choice, Conditions, Facts, Meter, Ruling, choose};
use doorbell_core::event::Event;
use doorbell_core::provider::kept_headers;
use doorbell_core::trigger::{Trigger, Verdict};

mod pool;

pub use pool::{Pool, STACK, Unanswered};

/// How long a person waits for an explanation.
const EXPLAINING: Duration = Duration::from_secs(5);

/// What conditions see of an event.
pub fn facts_of(event: &Event) -> Facts {
    let (source, delivery) = (event.source(), event.delivery());
    let headers = kept_headers(source.provider(), delivery);
    let content_type = headers.get("content-type").map(String::as_str);
    Facts {
        source: source.provider().name().to_owned(),
        integration_id: source.name().to_owned(),
        event_type: event.event_type(),
        idempotency_key: event.delivery_id().map(ToOwned::to_owned),
        timestamp: delivery.received_at.as_seconds(),
        body: Body::new(delivery.body.clone(), content_type),
        headers: serde_json::to_value(&headers).unwrap_or_default(),
        context: serde_json::to_value(event.context()).unwrap_or_default(),
    }
}

/// Which trigger decides for each agent, of those whose filters passed, in file order. `facts` are made only if there
/// are conditions, which are asked for `limit` at most; those that had no answer by then have failed.
pub async fn decide(
    pool: &Pool,
    source: &str,
    found: &[&Trigger],
    facts: impl FnOnce() -> Facts,
    limit: Duration,
) -> Vec<Choice> {
    let ruled = |trigger: &&Trigger| trigger.conditions.is_empty().then_some(Ruling::Matched { key: None });
    let rulings: Vec<Option<Ruling>> = found.iter().map(ruled).collect();
    let named = |rulings: Vec<Option<Ruling>>, unanswered: Option<Unanswered>| {
        choose(found.iter().zip(rulings).map(|(trigger, ruling)| {
            let failed = || Ruling::Failed(unanswered.map_or_else(String::new, |why| why.to_string()));
            (trigger.agent.clone(), trigger.position, ruling.unwrap_or_else(failed))
        }))
    };
    if rulings.iter().all(Option::is_some) {
        return named(rulings, None);
    }
    let rulings = Arc::new(Mutex::new(rulings));
    let asked: Vec<(String, Conditions)> =
        found.iter().map(|trigger| (trigger.agent.clone(), trigger.conditions.clone())).collect();
    let (facts, shared) = (facts(), Arc::clone(&rulings));
    let done = pool.run(source, limit, move |stop| judge(&asked, &facts, &shared, stop)).await;
    // What was answered in time counts, also if something after it was not.
    let rulings = std::mem::take(&mut *rulings.lock().unwrap_or_else(PoisonError::into_inner));
    named(rulings, done.err())
}

/// Asks the conditions in order, and notes each answer at once. Once an agent has a trigger that matches, its others
/// are not asked.
fn judge(asked: &[(String, Conditions)], facts: &Facts, rulings: &Mutex<Vec<Option<Ruling>>>, stop: &AtomicBool) {
    let mut meter = Meter::new(stop);
    let mut matched: Vec<&str> = Vec::new();
    for (n, (agent, conditions)) in asked.iter().enumerate() {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        if matched.contains(&agent.as_str()) {
            continue;
        }
        let ruling = conditions.judge(facts, &mut meter);
        if matches!(ruling, Ruling::Matched { .. }) {
            matched.push(agent);
        }
        // Nobody waits any more, and whoever did says so.
        if !stop.load(std::sync::atomic::Ordering::Relaxed)
            && let Some(place) = rulings.lock().unwrap_or_else(PoisonError::into_inner).get_mut(n)
        {
            *place = Some(ruling);
        }
    }
}

/// Completes the verdicts of the triggers of an event whose filters passed: all of them, in file order, so that together
/// they may take what they may take in [`decide`].
///
/// # Errors
/// If there was no answer in time.
pub async fn explain(
    pool: &Pool,
    line: &str,
    mut verdicts: Vec<(Verdict, Conditions)>,
    facts: Facts,
) -> Result<Vec<Verdict>, Unanswered> {
    let work = move |stop: &AtomicBool| {
        let mut meter = Meter::new(stop);
        let mut matched: Vec<String> = Vec::new();
        for (verdict, conditions) in verdicts.iter_mut().filter(|(verdict, _)| verdict.matched) {
            if matched.contains(&verdict.agent) {
                // It is not asked when an event decides, and takes nothing from the others.
                conditions.explain(verdict, &facts, &mut Meter::new(stop));
                continue;
            }
            conditions.explain(verdict, &facts, &mut meter);
            if verdict.matched {
                matched.push(verdict.agent.clone());
            }
        }
        verdicts.into_iter().map(|(verdict, _)| verdict).collect()
    };
    pool.run(line, EXPLAINING, work).await
}

/// The same for triggers that have nothing to do with each other: each may take what an event may.
///
/// # Errors
/// If there was no answer in time.
pub async fn explain_apart(
    pool: &Pool,
    line: &str,
    mut verdicts: Vec<(Verdict, Conditions)>,
    facts: Facts,
) -> Result<Vec<Verdict>, Unanswered> {
    let work = move |stop: &AtomicBool| {
        for (verdict, conditions) in verdicts.iter_mut().filter(|(verdict, _)| verdict.matched) {
            conditions.explain(verdict, &facts, &mut Meter::new(stop));
        }
        verdicts.into_iter().map(|(verdict, _)| verdict).collect()
    };
    pool.run(line, EXPLAINING, work).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use doorbell_core::condition::Expression;
    use doorbell_core::event::Context;
    use doorbell_core::trigger::Candidate;

    use super::*;

    /// A text of 64 KiB and as many numbers as make a search of it for each of them too much work.
    fn facts() -> Facts {
        let body = serde_json::json!({"text": "x".repeat(64 << 10), "numbers": vec![1; 2000]}).to_string();
        Facts {
            source: "generic".to_owned(),
            integration_id: "acme".to_owned(),
            event_type: "generic.event".to_owned(),
            idempotency_key: None,
            timestamp: 1,
            body: Body::new(Bytes::from(body), Some("application/json")),
            headers: serde_json::Value::Null,
            context: serde_json::Value::Null,
        }
    }

    fn trigger(agent: &str, position: usize, condition: &str) -> Trigger {
        let condition = Some(Expression::condition(condition).unwrap());
        Trigger {
            agent: agent.to_owned(),
            position,
            source: "acme".to_owned(),
            clauses: Vec::new(),
            conditions: Conditions { condition, key: None },
            flow: doorbell_core::flow::Flow::default(),
        }
    }

    #[tokio::test]
    async fn why_says_too_much_work_of_what_was_too_much_work_on_delivery() {
        const COSTLY: &str = "event.body.numbers.all(n, !event.body.text.contains('zzzz'))";
        let mut triggers: Vec<_> = (0..4).map(|n| trigger(&format!("costly-{n}"), 0, COSTLY)).collect();
        triggers.push(trigger("cheap", 0, "event.body.numbers[0] == 1"));
        let cheap_first = [trigger("cheap", 0, "true"), trigger("cheap", 1, COSTLY)];
        let pool = Pool::start().unwrap();
        for triggers in [triggers.as_slice(), &cheap_first] {
            let found: Vec<_> = triggers.iter().collect();
            let chosen = decide(&pool, "acme", &found, facts, Duration::from_secs(60)).await;
            let context = Context::default();
            let candidate = Candidate { source: "acme", handshake: false, context: &context };
            let verdicts = triggers.iter().map(|one| (one.explain(candidate), one.conditions.clone())).collect();
            let verdicts = explain(&pool, "a person", verdicts, facts()).await.unwrap();
            for choice in chosen {
                let verdict =
                    verdicts.iter().find(|one| (&one.agent, one.trigger) == (&choice.agent, choice.trigger)).unwrap();
                assert_eq!(verdict.matched, choice.result.is_ok(), "{choice:?}: {verdict:?}");
            }
        }
    }
}
