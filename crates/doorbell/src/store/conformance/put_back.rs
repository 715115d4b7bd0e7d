//! What somebody put back into the queue, and what a pause leaves as it was.

use std::time::Duration;

use doorbell_core::flow::{Debounce, Flow, Rate, WhenBusy};
use doorbell_core::id::ReplayId;

use super::flow::{busy, end, keyed, take};
use super::*;
use crate::store::{GivenBack, Release, Replay, Whose};

every_store_keeps! {
    the_next_event_drops_nothing_that_was_held_while_its_agent_was_paused,
    the_next_event_drops_nothing_of_an_agent_that_came_back,
    the_next_event_drops_nothing_that_a_person_released,
    the_next_event_drops_nothing_that_is_replayed_or_tried_again,
    the_next_event_drops_no_run_that_a_replay_goes_with,
    what_was_put_back_keeps_nobody_out_of_the_queue,
    ordinary_runs_are_bounded_beside_those_that_were_put_back,
    an_event_of_a_paused_agent_is_held_and_ends_nothing_that_runs,
    of_what_was_held_with_its_agent_the_newest_of_a_key_goes_on,
    a_key_whose_runs_come_back_little_by_little_is_carried_out_in_the_order_of_commits,
    a_key_whose_source_comes_back_little_by_little_is_carried_out_in_the_order_of_commits,
    a_run_that_was_held_says_again_why_it_waits,
    runs_that_gather_take_places_in_the_queue,
    the_lowest_priority_gives_way_first,
}

const PAUSED: &str = "paused by ann";

fn with(admission: Admission, mut event: NewEvent) -> NewEvent {
    event.starts[0].admission = admission;
    event
}

fn held(event: NewEvent) -> NewEvent {
    with(Admission::Hold(PAUSED.to_owned()), event)
}

fn replay(of: u32, event: NewEvent) -> NewEvent {
    NewEvent { replay: Some(Replay { id: ReplayId::new(at(0), [7; 10]), of: event_id(of) }), ..event }
}

async fn settle(store: &dyn Store, standing: Standing) -> Vec<RunId> {
    store.settle_agents(vec![("triage".to_owned(), standing)], at(50)).await.unwrap()
}

async fn give_back(store: &dyn Store, most: usize) -> GivenBack {
    store.give_back(Whose::Agent("triage".to_owned()), most, at(51)).await.unwrap()
}

async fn the_next_event_drops_nothing_that_was_held_while_its_agent_was_paused(store: Arc<dyn Store>) {
    accept(&*store, with(Admission::DropOldest(3), starting("triage", 1))).await;
    settle(&*store, Standing::Paused(PAUSED.to_owned())).await;
    for n in 2..=20 {
        let accepted = accept(&*store, held(starting("triage", n))).await;
        assert_eq!((accepted.effects.held.len(), accepted.queued.len()), (1, 0));
        assert!(accepted.outcomes[0].reason.as_ref().unwrap().contains(PAUSED));
    }
    settle(&*store, Standing::Active).await;
    for n in 21..=23 {
        assert_eq!(accept(&*store, with(Admission::DropOldest(3), starting("triage", n))).await.dropped, []);
    }
    assert_eq!(take(&*store, 99).await, (1..=23).collect::<Vec<_>>());
}

async fn the_next_event_drops_nothing_of_an_agent_that_came_back(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, starting("triage", n)).await;
    }
    store.settle_agents(vec![], at(49)).await.unwrap();
    settle(&*store, Standing::Active).await;
    assert_eq!(accept(&*store, with(Admission::DropOldest(1), starting("triage", 6))).await.dropped, []);
}

async fn the_next_event_drops_nothing_that_a_person_released(store: Arc<dyn Store>) {
    let limited = Flow { max_per_key: Some(Rate { count: 1, window: Duration::from_secs(100) }), ..Flow::default() };
    for n in 1..=5 {
        accept(&*store, with(Admission::DropOldest(2), keyed("a", n, limited))).await;
    }
    for n in 2..=5 {
        assert!(matches!(store.release(run_id(n), "ann".to_owned(), at(10)).await.unwrap(), Release::Released(_)));
    }
    assert_eq!(accept(&*store, with(Admission::DropOldest(2), keyed("b", 6, limited))).await.dropped, []);
    assert_eq!(accept(&*store, with(Admission::DropOldest(2), keyed("c", 7, limited))).await.dropped, [run_id(1)]);
}

async fn the_next_event_drops_nothing_that_is_replayed_or_tried_again(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, starting("triage", n)).await;
        store.cancel(run_id(n), "ann".to_owned(), at(5)).await.unwrap();
        store.retry(run_id(n), "ann".to_owned(), at(300)).await.unwrap();
        accept(&*store, replay(n, starting("triage", 10 + n))).await;
        accept(&*store, replay(n, keyed("a", 20 + n, Flow::default()))).await;
    }
    for n in 31..=32 {
        assert_eq!(accept(&*store, with(Admission::DropOldest(2), starting("triage", n))).await.dropped, []);
    }
    assert_eq!(accept(&*store, with(Admission::DropOldest(2), starting("triage", 33))).await.dropped, [run_id(31)]);
}

async fn the_next_event_drops_no_run_that_a_replay_goes_with(store: Arc<dyn Store>) {
    let attach = |key: &str, n| with(Admission::DropOldest(1), keyed(key, n, busy(WhenBusy::Attach)));
    accept(&*store, attach("a", 1)).await;
    assert_eq!(brief(&accept(&*store, replay(1, attach("a", 2))).await.outcomes)[0].2, Some(run_id(1)));
    assert_eq!(accept(&*store, attach("b", 3)).await.dropped, []);
    assert_eq!(accept(&*store, attach("c", 4)).await.dropped, [run_id(3)]);
}

async fn what_was_put_back_keeps_nobody_out_of_the_queue(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, held(starting("triage", n))).await;
    }
    settle(&*store, Standing::Active).await;
    accept(&*store, with(Admission::Reject(1), starting("triage", 4))).await;
    let fifth = store.accept(vec![with(Admission::Reject(1), starting("triage", 5))]).await.unwrap();
    assert!(matches!(fifth, Acceptance::QueueFull(_)));
    // The places of those that are taken are counted right.
    assert_eq!(take(&*store, 3).await, [1, 2, 3]);
    let fifth = store.accept(vec![with(Admission::Reject(1), starting("triage", 5))]).await.unwrap();
    assert!(matches!(fifth, Acceptance::QueueFull(_)));
    assert_eq!(take(&*store, 3).await, [4]);
    accept(&*store, with(Admission::Reject(1), starting("triage", 5))).await;
}

async fn ordinary_runs_are_bounded_beside_those_that_were_put_back(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, held(starting("triage", n))).await;
    }
    settle(&*store, Standing::Active).await;
    for n in 4..=9 {
        let flow = if n % 2 == 0 { Some(Flow::default()) } else { None };
        let mut event = with(Admission::DropOldest(2), starting("triage", n));
        event.starts[0].flow = flow;
        let dropped = accept(&*store, event).await.dropped;
        assert_eq!(dropped, if n > 5 { vec![run_id(n - 2)] } else { vec![] });
    }
}

async fn an_event_of_a_paused_agent_is_held_and_ends_nothing_that_runs(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    settle(&*store, Standing::Paused(PAUSED.to_owned())).await;
    let second = accept(&*store, held(keyed("a", 2, flow))).await;
    assert_eq!((second.effects.asked_to_end, second.effects.superseded), (vec![], vec![]));
    let second = run(&*store, 2).await;
    assert_eq!((second.state, second.reason.as_deref()), (State::Held, Some(PAUSED)));
    end(&*store, 1, 1, State::Succeeded).await;
    assert_eq!(state(&*store, 1).await, State::Succeeded);
    assert!(settle(&*store, Standing::Active).await.is_empty());
    assert_eq!(take(&*store, 5).await, [2]);
}

async fn of_what_was_held_with_its_agent_the_newest_of_a_key_goes_on(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    for (n, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        accept(&*store, held(keyed(key, n, flow))).await;
    }
    assert_eq!(settle(&*store, Standing::Active).await, [run_id(1), run_id(2)]);
    assert_eq!(take(&*store, 5).await, [3, 4]);
}

async fn a_key_whose_runs_come_back_little_by_little_is_carried_out_in_the_order_of_commits(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Queue);
    for n in 1..=3 {
        accept(&*store, held(keyed("a", n, flow))).await;
    }
    settle(&*store, Standing::Resuming).await;
    give_back(&*store, 1).await;
    let new = accept(&*store, keyed("a", 4, flow)).await;
    assert!(new.queued.is_empty() && new.outcomes[0].reason.as_ref().unwrap().contains(&run_id(2).to_string()));
    accept(&*store, keyed("b", 5, flow)).await;
    assert_eq!(take(&*store, 5).await, [1, 5], "another key need not wait");
    end(&*store, 1, 1, State::Succeeded).await;
    for n in 2..=4 {
        assert_eq!(give_back(&*store, 1).await.moved, 1);
        assert_eq!(take(&*store, 5).await, [n]);
        end(&*store, n, 1, State::Succeeded).await;
    }
    assert_eq!(give_back(&*store, 1).await.moved, 0);
    assert_eq!(accept(&*store, keyed("a", 6, flow)).await.queued.len(), 1);
}

async fn a_key_whose_source_comes_back_little_by_little_is_carried_out_in_the_order_of_commits(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Queue);
    for n in 1..=2 {
        let paused = Some(format!("its source `acme-github` is {PAUSED}"));
        accept(&*store, NewEvent { paused, ..keyed("a", n, flow) }).await;
    }
    accept(&*store, keyed("a", 3, flow)).await;
    let other = accept(&*store, NewEvent { source: "other".to_owned(), ..keyed("a", 4, flow) }).await;
    assert_eq!(other.queued, ["triage"], "another source need not wait for it");
    let whose = Whose::Source("acme-github".to_owned());
    assert_eq!(store.give_back(whose, 9, at(51)).await.unwrap().moved, 3);
    assert!(store.held_sources().await.unwrap().is_empty());
}

async fn a_run_that_was_held_says_again_why_it_waits(store: Arc<dyn Store>) {
    let debounce = Some(Debounce { window: Duration::from_secs(200), max_wait: Duration::from_secs(300) });
    accept(&*store, keyed("a", 1, Flow { debounce, ..Flow::default() })).await;
    accept(&*store, starting("triage", 2)).await;
    take(&*store, 1).await;
    end(&*store, 2, 1, State::Waiting).await;
    let before = [run(&*store, 1).await.reason, run(&*store, 2).await.reason];
    assert!(before.iter().all(Option::is_some));
    for _ in 0..2 {
        settle(&*store, Standing::Paused(PAUSED.to_owned())).await;
        assert_eq!(run(&*store, 2).await.reason.as_deref(), Some(PAUSED));
        settle(&*store, Standing::Active).await;
        assert_eq!([run(&*store, 1).await.reason, run(&*store, 2).await.reason], before);
    }
    // Once it is due, it gathers no more; why it is tried again still holds.
    settle(&*store, Standing::Paused(PAUSED.to_owned())).await;
    store.settle_agents(active(&["triage"]), at(1000)).await.unwrap();
    assert_eq!([run(&*store, 1).await.reason, run(&*store, 2).await.reason], [None, before[1].clone()]);
}

async fn runs_that_gather_take_places_in_the_queue(store: Arc<dyn Store>) {
    let debounce = Some(Debounce { window: Duration::from_secs(30), max_wait: Duration::from_secs(60) });
    let flow = Flow { debounce, ..Flow::default() };
    for n in 1..=6 {
        let accepted = accept(&*store, with(Admission::DropOldest(2), keyed(&format!("{n}"), n, flow))).await;
        assert_eq!(accepted.dropped, if n > 2 { vec![run_id(n - 2)] } else { vec![] });
    }
    let dropped = run(&*store, 1).await;
    assert_eq!((dropped.state, dropped.due), (State::Dropped, None));
    // One that goes with a run takes no further place.
    assert_eq!(accept(&*store, with(Admission::DropOldest(2), keyed("6", 7, flow))).await.dropped, []);
    store.release_due(at(99)).await.unwrap();
    assert_eq!(accept(&*store, with(Admission::DropOldest(2), starting("triage", 8))).await.dropped, [run_id(5)]);
    let full = store.accept(vec![with(Admission::Reject(2), keyed("9", 9, flow))]).await.unwrap();
    assert!(matches!(full, Acceptance::QueueFull(_)));
}

async fn the_lowest_priority_gives_way_first(store: Arc<dyn Store>) {
    let of =
        |priority, n| with(Admission::DropOldest(2), keyed(&format!("{n}"), n, Flow { priority, ..Flow::default() }));
    accept(&*store, of(100, 1)).await;
    accept(&*store, of(0, 2)).await;
    assert_eq!(accept(&*store, of(0, 3)).await.dropped, [run_id(2)]);
    assert_eq!(accept(&*store, of(100, 4)).await.dropped, [run_id(3)]);
    let itself = accept(&*store, of(0, 5)).await;
    assert_eq!((itself.dropped, itself.queued), (vec![run_id(5)], vec![]));
    assert_eq!(brief(&itself.outcomes), [("triage", OutcomeKind::Dropped, Some(run_id(5)))]);
    assert_eq!(accept(&*store, of(100, 6)).await.dropped, [run_id(1)]);
    assert_eq!(take(&*store, 5).await, [4, 6]);
}
