//! Sources that are paused: what comes from them is held, ends nothing, and goes on when they are resumed.

use std::time::Duration;

use doorbell_core::flow::{Debounce, Flow, Rate, WhenBusy};

use super::flow::{busy, end, keyed, take};
use super::*;
use crate::store::{GivenBack, Release, Whose};

every_store_keeps! {
    what_comes_from_a_paused_source_is_held_and_goes_on_little_by_little,
    what_is_held_with_its_source_is_not_given_back_with_its_agent,
    a_paused_source_replaces_nothing_and_of_what_it_held_the_newest_goes_on,
    what_comes_from_another_source_replaces_what_is_held,
    what_comes_from_a_paused_source_gathers_apart_from_everything_else,
    a_key_that_only_a_paused_source_has_is_not_busy_for_others,
    what_is_held_counts_for_its_key,
    what_a_paused_source_took_too_is_started_by_the_other_one,
    a_full_queue_takes_what_is_held,
    a_person_lets_one_run_of_a_paused_source_go_on,
}

const WHY: &str = "its source `acme-github` is paused by ann";

fn paused(event: NewEvent) -> NewEvent {
    NewEvent { paused: Some(WHY.to_owned()), ..event }
}

async fn give_back(store: &dyn Store, most: usize) -> GivenBack {
    store.give_back(Whose::Source("acme-github".to_owned()), most, at(100)).await.unwrap()
}

async fn what_comes_from_a_paused_source_is_held_and_goes_on_little_by_little(store: Arc<dyn Store>) {
    for n in 1..=3 {
        let accepted = accept(&*store, paused(starting("triage", n))).await;
        assert_eq!(brief(&accepted.outcomes), [("triage", OutcomeKind::Started, Some(run_id(n)))]);
        assert_eq!(accepted.outcomes[0].reason, Some(format!("its run is held: {WHY}")));
        assert!(accepted.queued.is_empty());
    }
    let held = run(&*store, 1).await;
    assert_eq!((held.state, held.reason.as_deref()), (State::Held, Some(WHY)));
    assert_eq!(store.held_sources().await.unwrap(), ["acme-github"]);
    assert_eq!(store.stats().await.unwrap().held_with_source, [("acme-github".to_owned(), 3)]);
    let again = accept(&*store, paused(starting("triage", 1))).await;
    assert_eq!((again.duplicate, again.outcomes[0].run), (true, Some(run_id(1))));
    assert!(take(&*store, 3).await.is_empty());
    let given = give_back(&*store, 2).await;
    assert_eq!((given.moved, given.agents, given.superseded), (2, vec!["triage".to_owned()], vec![]));
    assert_eq!((state(&*store, 2).await, state(&*store, 3).await), (State::Queued, State::Held));
    assert_eq!(give_back(&*store, 2).await.moved, 1);
    assert_eq!(give_back(&*store, 2).await, GivenBack::default());
    assert!(store.held_sources().await.unwrap().is_empty());
    assert_eq!(take(&*store, 5).await, [1, 2, 3]);
}

async fn what_is_held_with_its_source_is_not_given_back_with_its_agent(store: Arc<dyn Store>) {
    accept(&*store, paused(starting("triage", 1))).await;
    let standing = |standing: Standing| vec![("triage".to_owned(), standing)];
    store.settle_agents(standing(Standing::Paused("paused by bob".to_owned())), at(10)).await.unwrap();
    store.settle_agents(standing(Standing::Active), at(11)).await.unwrap();
    assert_eq!(run(&*store, 1).await.reason.as_deref(), Some(WHY));
    assert_eq!(store.give_back(Whose::Agent("triage".to_owned()), 5, at(12)).await.unwrap().moved, 0);
    store.settle_agents(standing(Standing::Paused("paused by bob".to_owned())), at(13)).await.unwrap();
    assert_eq!(give_back(&*store, 5).await.moved, 1);
    store.settle_agents(standing(Standing::Paused("paused by bob".to_owned())), at(14)).await.unwrap();
    assert_eq!(run(&*store, 1).await.reason.as_deref(), Some("paused by bob"));
    assert_eq!(give_back(&*store, 5).await.moved, 0, "it is held with its agent now");
    store.settle_agents(standing(Standing::Active), at(15)).await.unwrap();
    assert_eq!(take(&*store, 5).await, [1]);
}

async fn a_paused_source_replaces_nothing_and_of_what_it_held_the_newest_goes_on(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    for n in 2..=4 {
        assert_eq!(accept(&*store, paused(keyed("a", n, flow))).await.effects, Effects::default());
    }
    assert_eq!(run(&*store, 1).await.cancel_requested, None);
    assert_eq!(give_back(&*store, 9).await.superseded, [run_id(2), run_id(3)]);
    assert_eq!(state(&*store, 4).await, State::Queued);
    assert_eq!(run(&*store, 1).await.cancel_requested, None, "what goes on waits for its turn");
    end(&*store, 1, 1, State::Succeeded).await;
    assert_eq!(take(&*store, 5).await, [4]);
}

async fn what_comes_from_another_source_replaces_what_is_held(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    accept(&*store, paused(keyed("a", 1, flow))).await;
    let newer = accept(&*store, NewEvent { source: "other".to_owned(), ..keyed("a", 2, flow) }).await;
    assert_eq!(newer.effects.superseded, [run_id(1)]);
    assert_eq!(give_back(&*store, 9).await.moved, 0);
}

async fn what_comes_from_a_paused_source_gathers_apart_from_everything_else(store: Arc<dyn Store>) {
    let debounce = Debounce { window: Duration::from_secs(30), max_wait: Duration::from_secs(60) };
    for (key, flow) in [("a", busy(WhenBusy::Attach)), ("b", Flow { debounce: Some(debounce), ..Flow::default() })] {
        let n = if key == "a" { 1 } else { 11 };
        accept(&*store, keyed(key, n, flow)).await;
        let held = accept(&*store, paused(keyed(key, n + 1, flow))).await;
        assert_eq!(held.outcomes[0].run, Some(run_id(n + 1)), "it does not go with what may start");
        let further = accept(&*store, paused(keyed(key, n + 2, flow))).await;
        assert_eq!(further.outcomes[0].run, Some(run_id(n + 1)), "but with what is held like it");
        let other = accept(&*store, keyed(key, n + 3, flow)).await;
        assert_eq!(other.outcomes[0].run, Some(run_id(n)), "nor does what may start go with what is held");
        assert_eq!(state(&*store, n + 1).await, State::Held);
    }
    assert_eq!(give_back(&*store, 9).await.moved, 2);
    assert_eq!((state(&*store, 2).await, state(&*store, 12).await), (State::Queued, State::Queued));
    assert_eq!(run(&*store, 12).await.absorbed, 1);
}

async fn a_key_that_only_a_paused_source_has_is_not_busy_for_others(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Skip);
    accept(&*store, paused(keyed("a", 1, flow))).await;
    let skipped = accept(&*store, paused(keyed("a", 2, flow))).await;
    assert_eq!(brief(&skipped.outcomes), [("triage", OutcomeKind::Skipped, None)]);
    assert_eq!(accept(&*store, keyed("a", 3, flow)).await.queued, ["triage"]);
}

async fn what_is_held_counts_for_its_key(store: Arc<dyn Store>) {
    let rate = Rate { count: 2, window: Duration::from_secs(60) };
    let flow = Flow { max_per_key: Some(rate), ..Flow::default() };
    for n in 1..=3 {
        accept(&*store, paused(keyed("a", n, flow))).await;
    }
    assert_eq!(give_back(&*store, 9).await.moved, 2);
    let third = run(&*store, 3).await;
    assert!(third.state == State::Held && third.reason.unwrap().contains("max_per_key"));
}

async fn what_a_paused_source_took_too_is_started_by_the_other_one(store: Arc<dyn Store>) {
    let other = NewEvent { source: "other".to_owned(), ..starting("triage", 2) };
    let both = accept_all(&*store, vec![paused(starting("triage", 1)), other]).await;
    assert_eq!(brief(&both[0].outcomes), [("triage", OutcomeKind::Absorbed, Some(run_id(2)))]);
    assert_eq!(brief(&both[1].outcomes), [("triage", OutcomeKind::Started, Some(run_id(2)))]);
    assert_eq!(take(&*store, 5).await, [2]);
}

async fn a_full_queue_takes_what_is_held(store: Arc<dyn Store>) {
    for n in 1..=3 {
        let start = start("triage", n, Admission::Reject(0));
        accept(&*store, paused(NewEvent { starts: vec![start], ..event(n) })).await;
    }
    assert_eq!(give_back(&*store, 9).await.moved, 3);
}

async fn a_person_lets_one_run_of_a_paused_source_go_on(store: Arc<dyn Store>) {
    accept(&*store, paused(starting("triage", 1))).await;
    accept(&*store, paused(starting("triage", 2))).await;
    assert_eq!(
        store.release(run_id(1), "ann".to_owned(), at(5)).await.unwrap(),
        Release::Released("triage".to_owned())
    );
    store.cancel(run_id(2), "ann".to_owned(), at(6)).await.unwrap();
    assert!(store.held_sources().await.unwrap().is_empty());
    store.retry(run_id(2), "ann".to_owned(), at(300)).await.unwrap();
    store.settle_agents(vec![], at(7)).await.unwrap();
    assert!(store.held_sources().await.unwrap().is_empty(), "what is held now is held for its agent");
}
