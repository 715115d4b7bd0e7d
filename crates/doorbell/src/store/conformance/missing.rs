//! Replays for agents that miss an event: whatever comes at the same time or later, each has one run for it.

use doorbell_core::id::ReplayId;

use super::*;
use crate::store::{EventQuery, Replay};

every_store_keeps! {
    two_replays_for_agents_without_a_run_start_one,
    an_agent_that_is_paused_is_not_started_twice_by_what_it_misses,
    a_redelivery_finds_the_run_that_a_replay_started,
    a_replay_starts_those_that_miss_an_event_and_no_others,
    a_condition_that_failed_is_settled_by_the_replay,
}

/// Event `n`, which says again what event 1 said, for those of the agents that miss it.
fn again(n: u32, agents: &[&str]) -> NewEvent {
    let of = agents.iter().zip(0..).map(|(agent, at)| start(agent, n + 100 * at, Admission::Grow));
    let replay = Some(Replay { id: ReplayId::new(at(0), numbered(n)), of: event_id(1) });
    NewEvent { replay, only_missing: true, starts: of.collect(), ..event(n) }
}

async fn outcomes_of(store: &dyn Store, n: u32) -> Vec<(String, OutcomeKind, Option<RunId>)> {
    let outcomes = store.outcomes(event_id(n)).await.unwrap();
    brief(&outcomes).into_iter().map(|(agent, kind, run)| (agent.to_owned(), kind, run)).collect()
}

async fn two_replays_for_agents_without_a_run_start_one(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    let both = tokio::join!(store.accept(vec![again(2, &["triage"])]), store.accept(vec![again(3, &["triage"])]));
    let answers = [both.0.unwrap(), both.1.unwrap()];
    assert_eq!(answers.iter().filter(|answer| **answer == Acceptance::Stored(Vec::new())).count(), 1);
    let runs = store.runs(RunQuery { limit: 9, ..RunQuery::default() }).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(store.events(EventQuery { limit: 9, ..EventQuery::default() }).await.unwrap().len(), 2);
}

async fn an_agent_that_is_paused_is_not_started_twice_by_what_it_misses(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    let held = |n| {
        let starts = vec![start("triage", n, Admission::Hold(crate::store::PAUSED.to_owned()))];
        NewEvent { starts, ..again(n, &[]) }
    };
    accept(&*store, held(2)).await;
    assert_eq!(store.accept(vec![held(3)]).await.unwrap(), Acceptance::Stored(Vec::new()));
    let delivered = NewEvent { delivery_keys: vec!["delivery-1".to_owned()], ..starting("triage", 4) };
    assert_eq!(accept(&*store, delivered).await.decided, []);
    assert_eq!(store.runs(RunQuery { limit: 9, ..RunQuery::default() }).await.unwrap().len(), 1);
}

async fn a_redelivery_finds_the_run_that_a_replay_started(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    accept(&*store, again(2, &["triage"])).await;
    let claimed = [("triage".to_owned(), OutcomeKind::Started, Some(run_id(2)))];
    assert_eq!(outcomes_of(&*store, 1).await, claimed);
    let none = EventQuery { outcome: Some("none".to_owned()), limit: 9, ..EventQuery::default() };
    assert!(store.events(none).await.unwrap().is_empty());
    let delivered = NewEvent { delivery_keys: vec!["delivery-1".to_owned()], ..starting("triage", 3) };
    let accepted = accept(&*store, delivered).await;
    assert_eq!((accepted.duplicate, accepted.queued.len(), accepted.decided.len()), (true, 0, 0));
    assert_eq!(outcomes_of(&*store, 1).await, claimed);
    assert!(store.run(run_id(3)).await.unwrap().is_none());
}

async fn a_replay_starts_those_that_miss_an_event_and_no_others(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    let accepted = accept(&*store, again(2, &["triage", "later"])).await;
    assert_eq!(brief(&accepted.outcomes), [("later", OutcomeKind::Started, Some(run_id(102)))]);
    let skipped = NewEvent { starts: vec![start("off", 5, Admission::Skip("disabled".to_owned()))], ..again(5, &[]) };
    assert_eq!(brief(&accept(&*store, skipped).await.outcomes), [("off", OutcomeKind::Skipped, None)]);
    let now = NewEvent { starts: vec![start("triage", 6, Admission::Grow)], only_missing: false, ..again(6, &[]) };
    assert_eq!(accept(&*store, now).await.queued, ["triage"], "one that is for all starts all");
}

async fn a_condition_that_failed_is_settled_by_the_replay(store: Arc<dyn Store>) {
    let failed = Admission::FilterError("no answer".to_owned());
    accept(&*store, NewEvent { starts: vec![start("triage", 1, failed)], ..event(1) }).await;
    accept(&*store, again(2, &["triage"])).await;
    assert_eq!(outcomes_of(&*store, 1).await, [("triage".to_owned(), OutcomeKind::Started, Some(run_id(2)))]);
}
