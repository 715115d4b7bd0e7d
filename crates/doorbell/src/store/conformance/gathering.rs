//! Bursts: events of a key that are gathered to one run.

use std::time::Duration;

use doorbell_core::flow::{Debounce, Flow, WhenBusy};

use super::flow::{end, keyed, take};
use super::*;
use crate::store::{Forgetting, Released};

every_store_keeps! {
    a_burst_is_one_run_that_waits_until_it_is_quiet,
    a_burst_waits_no_longer_than_it_may,
    a_burst_of_a_time_when_the_clock_was_ahead_is_over_when_it_is_right_again,
    the_newest_event_is_the_runs_own_and_the_others_are_absorbed,
    a_burst_that_two_sources_bring_has_each_delivery_once_and_counts_it_so,
    bursts_of_different_keys_do_not_meet,
    what_comes_after_a_burst_begins_another_one,
    a_redelivery_within_a_burst_is_absorbed_and_does_not_become_the_newest,
    a_burst_that_replaces_ends_what_runs_at_once_and_starts_when_it_is_quiet,
    a_burst_is_skipped_while_its_key_is_busy,
    forgetting_an_absorbed_event_forgets_what_its_run_said,
}

/// Gathers for 30 seconds, and for 60 at most.
fn gathering() -> Flow {
    let debounce = Debounce { window: Duration::from_secs(30), max_wait: Duration::from_secs(60) };
    Flow { debounce: Some(debounce), ..Flow::default() }
}

async fn a_burst_is_one_run_that_waits_until_it_is_quiet(store: Arc<dyn Store>) {
    let first = accept(&*store, keyed("a", 1, gathering())).await;
    assert_eq!((first.queued.len(), first.effects.due), (0, Some(at(31))));
    let waiting = run(&*store, 1).await;
    assert_eq!((waiting.state, waiting.due), (State::Waiting, Some(at(31))));
    assert!(waiting.reason.unwrap().contains("debounce"));
    accept(&*store, keyed("a", 20, gathering())).await;
    assert_eq!(run(&*store, 1).await.due, Some(at(50)));
    assert_eq!(store.release_due(at(49)).await.unwrap(), Released { agents: vec![], next: Some(at(50)) });
    assert_eq!(store.release_due(at(50)).await.unwrap(), Released { agents: vec!["triage".to_owned()], next: None });
    assert_eq!(run(&*store, 1).await.reason, None);
    assert_eq!(take(&*store, 5).await, [1]);
}

async fn a_burst_of_a_time_when_the_clock_was_ahead_is_over_when_it_is_right_again(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 500, gathering())).await;
    accept(&*store, keyed("b", 10, gathering())).await;
    assert_eq!(store.end_waits(at(70), at(10)).await.unwrap(), 1, "the other waits as long as it should");
    store.release_due(at(10)).await.unwrap();
    assert_eq!(take(&*store, 5).await, [500]);
    assert_eq!(run(&*store, 10).await.due, Some(at(40)));
}

async fn a_burst_waits_no_longer_than_it_may(store: Arc<dyn Store>) {
    for n in [1, 20, 40, 55] {
        accept(&*store, keyed("a", n, gathering())).await;
    }
    assert_eq!(run(&*store, 1).await.due, Some(at(61)));
    store.release_due(at(61)).await.unwrap();
    assert_eq!(run(&*store, 1).await.absorbed, 3);
}

async fn the_newest_event_is_the_runs_own_and_the_others_are_absorbed(store: Arc<dyn Store>) {
    for n in 1..=3 {
        let accepted = accept(&*store, keyed("a", n, gathering())).await;
        assert_eq!(brief(&accepted.outcomes), [("triage", OutcomeKind::Started, Some(run_id(1)))]);
        let counted = if n == 1 { OutcomeKind::Started } else { OutcomeKind::Absorbed };
        assert_eq!(accepted.decided, [("triage".to_owned(), counted)]);
    }
    for n in 1..=2 {
        let outcomes = store.outcomes(event_id(n)).await.unwrap();
        assert_eq!(brief(&outcomes), [("triage", OutcomeKind::Absorbed, Some(run_id(1)))]);
        assert!(outcomes[0].reason.as_ref().unwrap().contains(&run_id(1).to_string()));
    }
    assert_eq!(run(&*store, 1).await.event, event_id(3));
    let with: Vec<EventId> = store.companions(run_id(1)).await.unwrap().iter().map(|event| event.id).collect();
    assert_eq!(with, [event_id(1), event_id(2)]);
}

async fn a_burst_that_two_sources_bring_has_each_delivery_once_and_counts_it_so(store: Arc<dyn Store>) {
    for n in 1..=3 {
        let twin = NewEvent { source: "twin".to_owned(), ..keyed("a", n + 10, gathering()) };
        let both = vec![keyed("a", n, gathering()), twin];
        assert!(matches!(store.accept(both).await.unwrap(), Acceptance::Stored(stored) if stored.len() == 2));
    }
    let with = store.companions(run_id(1)).await.unwrap();
    assert_eq!((with.len() as u64, run(&*store, 1).await.absorbed), (2, 2));
    assert!(with.iter().all(|event| event.source != "twin"));
}

async fn bursts_of_different_keys_do_not_meet(store: Arc<dyn Store>) {
    for (n, key) in [(1, "a"), (2, "b"), (3, "a")] {
        accept(&*store, keyed(key, n, gathering())).await;
    }
    assert_eq!((run(&*store, 1).await.absorbed, run(&*store, 2).await.absorbed), (1, 0));
}

async fn what_comes_after_a_burst_begins_another_one(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, gathering())).await;
    store.release_due(at(31)).await.unwrap();
    let next = accept(&*store, keyed("a", 32, gathering())).await;
    assert_eq!(brief(&next.outcomes), [("triage", OutcomeKind::Started, Some(run_id(32)))]);
}

async fn a_redelivery_within_a_burst_is_absorbed_and_does_not_become_the_newest(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    accept(&*store, keyed("a", 2, gathering())).await;
    let again = accept(&*store, keyed("a", 1, gathering())).await;
    assert_eq!(brief(&again.outcomes), [("triage", OutcomeKind::Absorbed, Some(run_id(2)))]);
    assert_eq!(run(&*store, 2).await.event, event_id(2));
    let same = accept(&*store, keyed("a", 2, gathering())).await;
    assert_eq!((brief(&same.outcomes)[0].1, run(&*store, 2).await.absorbed), (OutcomeKind::Started, 1));
}

async fn a_burst_that_replaces_ends_what_runs_at_once_and_starts_when_it_is_quiet(store: Arc<dyn Store>) {
    let flow = Flow { when_busy: Some(WhenBusy::Replace), ..gathering() };
    accept(&*store, keyed("a", 1, flow)).await;
    store.release_due(at(31)).await.unwrap();
    take(&*store, 1).await;
    let second = accept(&*store, keyed("a", 40, flow)).await;
    assert_eq!(second.effects.asked_to_end.len(), 1);
    assert_eq!(accept(&*store, keyed("a", 41, flow)).await.effects.asked_to_end, []);
    store.release_due(at(71)).await.unwrap();
    assert_eq!(take(&*store, 1).await, [0; 0], "the old lease is not gone");
    end(&*store, 1, 1, State::Cancelled).await;
    assert_eq!(state(&*store, 1).await, State::Superseded);
    assert_eq!(take(&*store, 2).await, [40]);
}

async fn a_burst_is_skipped_while_its_key_is_busy(store: Arc<dyn Store>) {
    let flow = Flow { when_busy: Some(WhenBusy::Skip), ..gathering() };
    accept(&*store, keyed("a", 1, flow)).await;
    assert_eq!(brief(&accept(&*store, keyed("a", 2, flow)).await.outcomes)[0].2, Some(run_id(1)), "it is gathered");
    store.release_due(at(32)).await.unwrap();
    assert_eq!(brief(&accept(&*store, keyed("a", 33, flow)).await.outcomes)[0].1, OutcomeKind::Skipped);
}

async fn forgetting_an_absorbed_event_forgets_what_its_run_said(store: Arc<dyn Store>) {
    for n in 1..=2 {
        accept(&*store, keyed("ann@example.com", n, gathering())).await;
    }
    store.release_due(at(32)).await.unwrap();
    let unfinished = store.forget(event_id(1), at(40)).await.unwrap();
    assert_eq!(unfinished, Forgetting::Unfinished(vec![run_id(1)]));
    take(&*store, 1).await;
    let end = Finish { result: Some("\"ann\"".to_owned()), ..finish(run_id(1), lease(1), State::Succeeded) };
    assert!(store.finish(end).await.unwrap());
    assert!(matches!(store.forget(event_id(1), at(300)).await.unwrap(), Forgetting::Forgotten(_)));
    let (forgotten, _) = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((forgotten.key, forgotten.result), (None, None));
}
