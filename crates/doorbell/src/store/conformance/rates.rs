//! Rates and priorities: what is held, what waits, and who goes first.

use std::time::Duration;

use doorbell_core::flow::{Flow, Rate, WhenBusy};

use super::flow::{keyed, number, take};
use super::*;
use crate::store::{Release, Released};

every_store_keeps! {
    a_key_with_too_many_runs_is_held_until_somebody_releases_it,
    what_is_held_does_not_count_and_does_not_end_what_runs,
    a_held_run_that_newer_work_overtook_is_not_let_go_on,
    a_throttle_lets_so_many_start_and_the_others_wait,
    a_throttle_is_remembered_and_holds_its_own_trigger_only,
    a_higher_priority_goes_first,
    triggers_of_one_priority_are_served_in_rotation,
}

fn rate(count: u32, seconds: u64) -> Rate {
    Rate { count, window: Duration::from_secs(seconds) }
}

fn limited(count: u32) -> Flow {
    Flow { max_per_key: Some(rate(count, 100)), ..Flow::default() }
}

fn throttled(count: u32) -> Flow {
    Flow { throttle: Some(rate(count, 60)), ..Flow::default() }
}

/// Claims one run at this second, if there is one, and answers its number.
async fn take_at(store: &dyn Store, seconds: i64) -> Option<u32> {
    let leases = vec![lease(1)];
    let claim = Claim {
        agent: "triage".to_owned(),
        leases,
        until: at(seconds + 600),
        now: at(seconds),
        most_running: None,
        worker: None,
    };
    store.claim(claim).await.unwrap().claimed.first().map(|claimed| number(claimed.run.id))
}

async fn a_key_with_too_many_runs_is_held_until_somebody_releases_it(store: Arc<dyn Store>) {
    for (n, expected) in [(1, State::Queued), (2, State::Queued), (3, State::Held)] {
        let accepted = accept(&*store, keyed("a", n, limited(2))).await;
        assert_eq!(brief(&accepted.outcomes), [("triage", OutcomeKind::Started, Some(run_id(n)))]);
        assert_eq!((accepted.queued.len() == 1, state(&*store, n).await), (expected == State::Queued, expected));
    }
    assert!(run(&*store, 3).await.reason.unwrap().contains("max_per_key"));
    accept(&*store, keyed("b", 4, limited(2))).await;
    assert_eq!(state(&*store, 4).await, State::Queued, "another key is not concerned");
    assert_eq!(
        store.release(run_id(3), "ann".to_owned(), at(10)).await.unwrap(),
        Release::Released("triage".to_owned())
    );
    assert_eq!(take(&*store, 9).await, [1, 4, 2, 3]);
    accept(&*store, keyed("a", 101, limited(2))).await;
    assert_eq!(state(&*store, 101).await, State::Queued, "the first one is an hour old by its measure");
}

async fn what_is_held_does_not_count_and_does_not_end_what_runs(store: Arc<dyn Store>) {
    let flow = Flow { when_busy: Some(WhenBusy::Replace), ..limited(1) };
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    for n in 2..=4 {
        assert_eq!(accept(&*store, keyed("a", n, flow)).await.effects, Effects::default());
        assert_eq!(state(&*store, n).await, State::Held);
    }
    accept(&*store, keyed("a", 101, flow)).await;
    assert_eq!(state(&*store, 101).await, State::Queued);
    assert_eq!(state(&*store, 4).await, State::Superseded);
}

async fn a_held_run_that_newer_work_overtook_is_not_let_go_on(store: Arc<dyn Store>) {
    let flow = Flow { when_busy: Some(WhenBusy::Replace), ..limited(1) };
    for n in 1..=3 {
        accept(&*store, keyed("a", n, flow)).await;
    }
    store.release(run_id(3), "ann".to_owned(), at(10)).await.unwrap();
    assert_eq!(store.release(run_id(2), "ann".to_owned(), at(11)).await.unwrap(), Release::NotHeld(State::Superseded));
    assert_eq!(run(&*store, 2).await.reason, Some(format!("replaced by {}", run_id(3))));
}

async fn a_throttle_lets_so_many_start_and_the_others_wait(store: Arc<dyn Store>) {
    for n in 1..=4 {
        accept(&*store, keyed("a", n, throttled(2))).await;
    }
    assert_eq!((take_at(&*store, 10).await, take_at(&*store, 20).await), (Some(1), Some(2)));
    assert_eq!(take_at(&*store, 69).await, None);
    assert_eq!(state(&*store, 3).await, State::Queued);
    assert_eq!(store.release_due(at(30)).await.unwrap(), Released { agents: vec![], next: Some(at(70)) });
    assert_eq!(store.stats().await.unwrap().throttled, [("triage".to_owned(), at(70))]);
    let open = store.release_due(at(70)).await.unwrap();
    assert_eq!(open, Released { agents: vec!["triage".to_owned()], next: None });
    assert_eq!((take_at(&*store, 70).await, take_at(&*store, 70).await), (Some(3), None));
    // A clock that is set back starts anew, and does not stop everything until it has caught up.
    assert_eq!(take_at(&*store, -100_000).await, Some(4));
}

async fn a_throttle_is_remembered_and_holds_its_own_trigger_only(store: Arc<dyn Store>) {
    for n in 1..=2 {
        accept(&*store, keyed("a", n, throttled(1))).await;
    }
    let mut other = keyed("a", 3, Flow::default());
    other.starts[0].trigger = 1;
    accept(&*store, other).await;
    assert_eq!(take_at(&*store, 10).await, Some(3));
    assert_eq!(take_at(&*store, 11).await, Some(1));
    assert_eq!(take_at(&*store, 70).await, None);
    assert_eq!(take_at(&*store, 71).await, Some(2));
}

async fn a_higher_priority_goes_first(store: Arc<dyn Store>) {
    for (n, priority) in [(1, 0), (2, -5), (3, 10), (4, 10)] {
        accept(&*store, keyed(&format!("{n}"), n, Flow { priority, ..Flow::default() })).await;
    }
    assert_eq!(take(&*store, 3).await, [3, 4, 1]);
    assert_eq!(take(&*store, 3).await, [2]);
}

async fn triggers_of_one_priority_are_served_in_rotation(store: Arc<dyn Store>) {
    for n in 1..=6 {
        accept(&*store, keyed("a", n, Flow::default())).await;
    }
    for n in 7..=9 {
        accept(&*store, keyed("b", n, throttled(100))).await;
    }
    assert_eq!(take(&*store, 1).await, [1]);
    assert_eq!(take(&*store, 6).await, [7, 2, 8, 3, 9, 4]);
}
