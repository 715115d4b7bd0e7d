//! Flow control: what becomes of events whose key is busy, and whose turn it is.

use doorbell_core::flow::{Flow, MOST_ABSORBED, Rate, WhenBusy};

use super::*;
use crate::store::{Replay, Retry};

every_store_keeps! {
    one_run_of_a_key_runs_at_a_time_and_the_next_one_when_it_is_over,
    keys_do_not_wait_for_each_other,
    without_a_key_the_agent_as_a_whole_is_busy,
    a_busy_key_skips_what_comes_and_says_which_run_has_it,
    a_run_that_waits_for_its_next_try_keeps_its_key_from_being_started_anew,
    the_newest_event_replaces_what_waits_and_asks_what_runs_to_end,
    what_runs_is_not_ended_for_a_newcomer_that_finds_no_place,
    runs_outside_lanes_have_their_turn_however_many_in_lanes_came_back_before_them,
    a_run_that_succeeds_although_it_is_replaced_has_succeeded,
    a_replaced_run_that_is_lost_is_not_started_again,
    however_many_wait_the_run_that_runs_is_asked_to_end_and_none_that_wait_follow_the_newest,
    an_older_event_that_comes_again_never_replaces_newer_work,
    a_replayed_event_waits_for_its_turn_and_ends_nothing,
    a_replay_of_an_older_event_leaves_newer_work_that_waits_for_its_retry_alone,
    a_run_that_is_tried_again_is_in_its_lane_again,
    the_empty_key_is_not_the_lane_of_triggers_without_a_key,
    runs_outside_triggers_have_their_turn_beside_a_backlog_of_one_key,
    a_run_that_a_person_cancelled_is_cancelled_by_that_person_though_it_is_replaced,
    an_event_is_attached_to_the_queued_run_of_its_key,
    a_run_that_started_takes_nothing_in,
    a_run_takes_in_so_many_events_and_then_another_one_begins,
    a_full_queue_takes_in_what_needs_no_place,
    a_key_goes_on_when_its_run_is_cancelled_or_dropped,
    noisy_keys_do_not_starve_others,
    an_agent_without_flow_control_is_served_in_order,
    what_waited_before_there_was_flow_control_is_taken_first_and_what_comes_after_has_its_turn,
}

pub(super) fn busy(when_busy: WhenBusy) -> Flow {
    Flow { when_busy: Some(when_busy), ..Flow::default() }
}

/// Event `n` of a key, which starts the agent `triage` with run `n` under flow control.
pub(super) fn keyed(key: &str, n: u32, flow: Flow) -> NewEvent {
    let key = Some(key.to_owned()).filter(|key| !key.is_empty());
    NewEvent { starts: vec![Start { key, flow: Some(flow), ..start("triage", n, Admission::Grow) }], ..event(n) }
}

/// Claims up to `most` runs of `triage` and answers their numbers.
pub(super) async fn take(store: &dyn Store, most: u8) -> Vec<u32> {
    let leases: Vec<Lease> = (1..=most).map(lease).collect();
    claim(store, "triage", &leases).await.iter().map(|claimed| number(claimed.run.id)).collect()
}

pub(super) fn number(run: RunId) -> u32 {
    (0..5000).find(|n| run_id(*n) == run).unwrap()
}

pub(super) async fn end(store: &dyn Store, n: u32, by: u8, state: State) {
    assert!(store.finish(finish(run_id(n), lease(by), state)).await.unwrap());
}

async fn one_run_of_a_key_runs_at_a_time_and_the_next_one_when_it_is_over(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Queue))).await;
    }
    assert_eq!(take(&*store, 3).await, [1]);
    assert_eq!(take(&*store, 3).await, [0; 0]);
    // Handed back, it has its turn again before those behind it.
    end(&*store, 1, 1, State::Queued).await;
    assert_eq!(take(&*store, 3).await, [1]);
    end(&*store, 1, 1, State::Succeeded).await;
    assert_eq!(take(&*store, 3).await, [2]);
    // Between its tries the next one goes.
    end(&*store, 2, 1, State::Waiting).await;
    assert_eq!(take(&*store, 3).await, [3]);
    store.release_due(at(300)).await.unwrap();
    assert_eq!(take(&*store, 3).await, [0; 0]);
    end(&*store, 3, 1, State::Failed).await;
    assert_eq!(take(&*store, 3).await, [2]);
}

async fn keys_do_not_wait_for_each_other(store: Arc<dyn Store>) {
    for (n, key) in [(1, "a"), (2, "a"), (3, "b")] {
        accept(&*store, keyed(key, n, busy(WhenBusy::Queue))).await;
    }
    assert_eq!(take(&*store, 3).await, [1, 3]);
}

async fn without_a_key_the_agent_as_a_whole_is_busy(store: Arc<dyn Store>) {
    accept(&*store, keyed("", 1, busy(WhenBusy::Skip))).await;
    let second = accept(&*store, keyed("", 2, busy(WhenBusy::Skip))).await;
    assert_eq!(brief(&second.outcomes), [("triage", OutcomeKind::Skipped, None)]);
    let of_other = NewEvent { starts: vec![start("other", 3, Admission::Grow)], ..event(3) };
    assert_eq!(accept(&*store, of_other).await.queued, ["other"]);
}

async fn a_busy_key_skips_what_comes_and_says_which_run_has_it(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Skip);
    assert_eq!(accept(&*store, keyed("a", 1, flow)).await.queued, ["triage"]);
    let skipped = accept(&*store, keyed("a", 2, flow)).await;
    assert_eq!(brief(&skipped.outcomes), [("triage", OutcomeKind::Skipped, None)]);
    assert!(skipped.outcomes[0].reason.as_ref().unwrap().contains(&run_id(1).to_string()));
    assert_eq!(accept(&*store, keyed("b", 3, flow)).await.queued, ["triage"]);
    assert_eq!(take(&*store, 5).await, [1, 3]);
    assert_eq!(brief(&accept(&*store, keyed("a", 4, flow)).await.outcomes)[0].1, OutcomeKind::Skipped);
    end(&*store, 1, 1, State::Succeeded).await;
    assert_eq!(accept(&*store, keyed("a", 5, flow)).await.queued, ["triage"]);
}

async fn a_run_that_waits_for_its_next_try_keeps_its_key_from_being_started_anew(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Skip))).await;
    take(&*store, 1).await;
    end(&*store, 1, 1, State::Waiting).await;
    assert_eq!(brief(&accept(&*store, keyed("a", 2, busy(WhenBusy::Skip))).await.outcomes)[0].1, OutcomeKind::Skipped);
}

async fn the_newest_event_replaces_what_waits_and_asks_what_runs_to_end(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    let second = accept(&*store, keyed("a", 2, flow)).await;
    let by = format!("{}, which replaces it", run_id(2));
    assert_eq!(second.effects.asked_to_end, [(run_id(1), by.clone())]);
    let third = accept(&*store, keyed("a", 3, flow)).await;
    assert_eq!((third.effects.superseded, third.effects.asked_to_end), (vec![run_id(2)], vec![]));
    let (first, second) = (run(&*store, 1).await, run(&*store, 2).await);
    assert_eq!((first.state, first.cancel_requested), (State::Running, Some(by)));
    assert_eq!((second.state, second.reason), (State::Superseded, Some(format!("replaced by {}", run_id(3)))));
    assert_eq!(second.finished_at, Some(at(3)));
    assert_eq!(take(&*store, 3).await, [0; 0], "the old lease is not gone");
    end(&*store, 1, 1, State::Cancelled).await;
    let first = run(&*store, 1).await;
    assert_eq!((first.state, first.reason), (State::Superseded, Some(format!("replaced by {}", run_id(2)))));
    assert_eq!(take(&*store, 3).await, [3]);
}

async fn what_runs_is_not_ended_for_a_newcomer_that_finds_no_place(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    accept(&*store, keyed("b", 2, Flow { priority: 5, ..flow })).await;
    let mut newcomer = keyed("a", 3, flow);
    newcomer.starts[0].admission = Admission::DropOldest(1);
    let newcomer = accept(&*store, newcomer).await;
    assert_eq!((newcomer.dropped, newcomer.effects.asked_to_end), (vec![run_id(3)], vec![]));
    assert_eq!(run(&*store, 1).await.cancel_requested, None);
    let mut fitting = keyed("a", 4, flow);
    fitting.starts[0].admission = Admission::DropOldest(2);
    assert_eq!(accept(&*store, fitting).await.effects.asked_to_end.len(), 1);
}

async fn runs_outside_lanes_have_their_turn_however_many_in_lanes_came_back_before_them(store: Arc<dyn Store>) {
    let held = |n| {
        let mut held = keyed("a", n, busy(WhenBusy::Queue));
        held.starts[0].admission = Admission::Hold(crate::store::PAUSED.to_owned());
        held
    };
    let many = (1..=1200).map(|n| store.accept(vec![held(n)]));
    futures_util::future::join_all(many).await.into_iter().for_each(|accepted| drop(accepted.unwrap()));
    accept(&*store, starting("triage", 1201)).await;
    for n in 1..=1200 {
        store.release(run_id(n), "ann".to_owned(), at(2000)).await.unwrap();
    }
    assert_eq!(take(&*store, 3).await, [1201, 1]);
}

async fn a_run_that_succeeds_although_it_is_replaced_has_succeeded(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Replace))).await;
    take(&*store, 1).await;
    accept(&*store, keyed("a", 2, busy(WhenBusy::Replace))).await;
    end(&*store, 1, 1, State::Succeeded).await;
    assert_eq!(state(&*store, 1).await, State::Succeeded);
    assert_eq!(take(&*store, 1).await, [2]);
}

async fn a_replaced_run_that_is_lost_is_not_started_again(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Replace))).await;
    take(&*store, 1).await;
    accept(&*store, keyed("a", 2, busy(WhenBusy::Replace))).await;
    let lost = Finish { ended: "lost".to_owned(), ..finish(run_id(1), lease(1), State::Queued) };
    assert!(store.finish(lost).await.unwrap());
    assert_eq!(state(&*store, 1).await, State::Superseded);
    assert_eq!(take(&*store, 2).await, [2]);
}

async fn however_many_wait_the_run_that_runs_is_asked_to_end_and_none_that_wait_follow_the_newest(
    store: Arc<dyn Store>,
) {
    const MANY: u32 = 5010;
    let throttle = Some(Rate { count: 2, window: std::time::Duration::from_secs(60) });
    let flow = |when_busy| Flow { throttle, ..busy(when_busy) };
    let backlog = (1..=MANY).map(|n| store.accept(vec![keyed("a", n, flow(WhenBusy::Queue))]));
    assert!(futures_util::future::join_all(backlog).await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(claim(&*store, "triage", &[lease(1)]).await.remove(0).run.id, run_id(1));
    let newest = accept(&*store, keyed("a", MANY + 1, flow(WhenBusy::Replace))).await;
    assert_eq!(newest.effects.asked_to_end.iter().map(|(run, _)| *run).collect::<Vec<_>>(), [run_id(1)]);
    end(&*store, 1, 1, State::Cancelled).await;
    let claim = Claim {
        agent: "triage".to_owned(),
        leases: vec![lease(2)],
        until: at(600),
        now: at(100),
        most_running: None,
        worker: None,
    };
    let taken = store.claim(claim).await.unwrap();
    // Each of them is told of, and none of them keeps the newest waiting, or uses up a start.
    assert_eq!(taken.superseded.len() + newest.effects.superseded.len(), MANY as usize - 1);
    assert_eq!(taken.claimed[0].run.id, run_id(MANY + 1));
}

async fn an_older_event_that_comes_again_never_replaces_newer_work(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    for key in ["a", ""] {
        let n = if key.is_empty() { 10 } else { 1 };
        accept(&*store, event(n)).await;
        accept(&*store, keyed(key, n + 1, flow)).await;
        // The agent missed it then.
        let again = accept(&*store, keyed(key, n, flow)).await;
        assert!(again.duplicate && again.effects == Effects::default());
        assert_eq!(brief(&again.outcomes), [("triage", OutcomeKind::Skipped, None)]);
        assert!(again.outcomes[0].reason.as_ref().unwrap().contains(&run_id(n + 1).to_string()));
        assert_eq!(state(&*store, n + 1).await, State::Queued);
    }
}

async fn a_replayed_event_waits_for_its_turn_and_ends_nothing(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    let replay = Some(Replay { id: doorbell_core::id::ReplayId::new(at(0), [7; 10]), of: event_id(1) });
    let again = accept(&*store, NewEvent { replay, ..keyed("a", 2, flow) }).await;
    assert_eq!((again.effects, again.queued), (Effects::default(), vec!["triage".to_owned()]));
    assert_eq!(take(&*store, 1).await, [0; 0]);
    assert_eq!(
        accept(&*store, keyed("a", 3, flow)).await.effects.superseded,
        [run_id(2)],
        "but newer work replaces it"
    );
}

async fn a_replay_of_an_older_event_leaves_newer_work_that_waits_for_its_retry_alone(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    for key in ["a", ""] {
        let n = if key.is_empty() { 10 } else { 1 };
        accept(&*store, keyed(key, n, flow)).await;
        take(&*store, 1).await;
        end(&*store, n, 1, State::Succeeded).await;
        accept(&*store, keyed(key, n + 1, flow)).await;
        take(&*store, 1).await;
        end(&*store, n + 1, 1, State::Waiting).await;
        let replay = Some(Replay { id: doorbell_core::id::ReplayId::new(at(0), [7; 10]), of: event_id(n) });
        accept(&*store, NewEvent { replay, ..keyed(key, n + 2, flow) }).await;
        assert_eq!(take(&*store, 1).await, [n + 2], "what is replayed is carried out");
        end(&*store, n + 2, 1, State::Succeeded).await;
        store.release_due(at(300)).await.unwrap();
        assert_eq!(take(&*store, 1).await, [n + 1]);
        end(&*store, n + 1, 1, State::Failed).await;
        assert_eq!(
            store.retry(run_id(n + 1), "ann".to_owned(), at(300)).await.unwrap(),
            Retry::Queued("triage".to_owned())
        );
        assert_eq!(take(&*store, 1).await, [n + 1]);
        end(&*store, n + 1, 1, State::Succeeded).await;
    }
}

async fn the_empty_key_is_not_the_lane_of_triggers_without_a_key(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Queue);
    accept(&*store, keyed("", 1, flow)).await;
    for (n, key) in [(2, ""), (3, "\u{1}"), (4, "\u{1}-"), (5, "")] {
        let mut event = keyed("x", n, flow);
        event.starts[0].key = Some(key.to_owned());
        accept(&*store, event).await;
    }
    accept(&*store, keyed("", 6, Flow::default())).await;
    assert_eq!(take(&*store, 9).await, [1, 2, 3, 4, 6]);
}

async fn runs_outside_triggers_have_their_turn_beside_a_backlog_of_one_key(store: Arc<dyn Store>) {
    let backlog = (1..=1010).map(|n| store.accept(vec![keyed("slow", n, busy(WhenBusy::Queue))]));
    assert!(futures_util::future::join_all(backlog).await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(take(&*store, 1).await, [1]);
    accept(&*store, starting("triage", 2001)).await;
    accept(&*store, keyed("", 2002, Flow::default())).await;
    accept(&*store, keyed("urgent", 2003, Flow { priority: 5, ..Flow::default() })).await;
    assert_eq!(take(&*store, 5).await, [2003, 2001, 2002], "they have priority 0");
}

async fn a_run_that_is_tried_again_is_in_its_lane_again(store: Arc<dyn Store>) {
    for n in 1..=2 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Queue))).await;
    }
    take(&*store, 1).await;
    end(&*store, 1, 1, State::Failed).await;
    assert_eq!(take(&*store, 1).await, [2]);
    store.retry(run_id(1), "ann".to_owned(), at(300)).await.unwrap();
    assert_eq!(take(&*store, 1).await, [0; 0]);
    end(&*store, 2, 1, State::Succeeded).await;
    assert_eq!(take(&*store, 1).await, [1]);
}

async fn a_run_that_a_person_cancelled_is_cancelled_by_that_person_though_it_is_replaced(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Replace))).await;
    take(&*store, 1).await;
    store.cancel(run_id(1), "ann".to_owned(), at(5)).await.unwrap();
    let second = accept(&*store, keyed("a", 2, busy(WhenBusy::Replace))).await;
    assert_eq!(second.effects, Effects::default());
    end(&*store, 1, 1, State::Queued).await;
    let first = run(&*store, 1).await;
    assert_eq!((first.state, first.reason.as_deref()), (State::Cancelled, Some("cancelled by ann")));
    assert_eq!(take(&*store, 1).await, [2]);
}

async fn an_event_is_attached_to_the_queued_run_of_its_key(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Attach);
    accept(&*store, keyed("a", 1, flow)).await;
    let second = accept(&*store, keyed("a", 2, flow)).await;
    assert_eq!(brief(&second.outcomes), [("triage", OutcomeKind::Absorbed, Some(run_id(1)))]);
    assert!(second.queued.is_empty() && second.outcomes[0].reason.is_some());
    assert_eq!(second.decided, [("triage".to_owned(), OutcomeKind::Absorbed)]);
    accept(&*store, keyed("a", 3, flow)).await;
    let first = run(&*store, 1).await;
    assert_eq!((first.event, first.absorbed), (event_id(1), 2));
    let with: Vec<EventId> = store.companions(run_id(1)).await.unwrap().iter().map(|event| event.id).collect();
    assert_eq!(with, [event_id(2), event_id(3)]);
    assert!(store.run(run_id(2)).await.unwrap().is_none());
    // The same delivery again starts nothing and is attached to nothing else.
    let again = accept(&*store, keyed("a", 2, flow)).await;
    assert_eq!(brief(&again.outcomes), brief(&second.outcomes));
    assert_eq!(run(&*store, 1).await.absorbed, 2);
    let query = RunQuery { event: Some(event_id(2)), limit: 9, ..RunQuery::default() };
    assert_eq!(store.runs(query).await.unwrap()[0].id, run_id(1));
}

async fn a_run_that_started_takes_nothing_in(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Attach);
    accept(&*store, keyed("a", 1, flow)).await;
    take(&*store, 1).await;
    assert_eq!(accept(&*store, keyed("a", 2, flow)).await.queued, ["triage"]);
    // Nor once it is queued for another try: what it was handed must not change.
    end(&*store, 1, 1, State::Queued).await;
    assert_eq!(brief(&accept(&*store, keyed("a", 3, flow)).await.outcomes)[0].2, Some(run_id(2)));
    assert!(store.companions(run_id(1)).await.unwrap().is_empty());
}

async fn a_run_takes_in_so_many_events_and_then_another_one_begins(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Attach);
    let most = u32::try_from(MOST_ABSORBED).unwrap();
    let events = (1..=most + 2).map(|n| store.accept(vec![keyed("a", n, flow)]));
    assert!(futures_util::future::join_all(events).await.into_iter().all(|answer| answer.is_ok()));
    let runs = store.runs(RunQuery { agents: Some(vec!["triage".to_owned()]), limit: 9, ..RunQuery::default() });
    let absorbed: Vec<u64> = runs.await.unwrap().iter().map(|run| run.absorbed).collect();
    assert_eq!(absorbed, [0, MOST_ABSORBED]);
}

async fn a_full_queue_takes_in_what_needs_no_place(store: Arc<dyn Store>) {
    let rejecting = |key: &str, n, flow| {
        let mut event = keyed(key, n, flow);
        event.starts[0].admission = Admission::Reject(1);
        event
    };
    accept(&*store, rejecting("a", 1, busy(WhenBusy::Attach))).await;
    assert_eq!(
        brief(&accept(&*store, rejecting("a", 2, busy(WhenBusy::Attach))).await.outcomes)[0].1,
        OutcomeKind::Absorbed
    );
    let other = store.accept(vec![rejecting("b", 3, busy(WhenBusy::Attach))]).await.unwrap();
    assert!(matches!(other, Acceptance::QueueFull(_)));
}

async fn a_key_goes_on_when_its_run_is_cancelled_or_dropped(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Queue))).await;
    }
    store.cancel(run_id(1), "ann".to_owned(), at(5)).await.unwrap();
    let mut fourth = keyed("a", 4, busy(WhenBusy::Queue));
    fourth.starts[0].admission = Admission::DropOldest(2);
    assert_eq!(accept(&*store, fourth).await.dropped, [run_id(2)]);
    assert_eq!(take(&*store, 3).await, [3]);
}

async fn noisy_keys_do_not_starve_others(store: Arc<dyn Store>) {
    for n in 1..=20 {
        accept(&*store, keyed("noisy", n, Flow::default())).await;
    }
    assert_eq!(take(&*store, 2).await, [1, 2]);
    for (n, key) in [(21, "b"), (22, "c"), (23, "b"), (24, "b")] {
        accept(&*store, keyed(key, n, Flow::default())).await;
    }
    assert_eq!(take(&*store, 8).await, [3, 21, 22, 4, 23, 5, 24, 6]);
}

async fn an_agent_without_flow_control_is_served_in_order(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, starting("triage", n)).await;
    }
    assert_eq!(take(&*store, 2).await, [1, 2]);
    assert_eq!(take(&*store, 2).await, [3]);
}

async fn what_waited_before_there_was_flow_control_is_taken_first_and_what_comes_after_has_its_turn(
    store: Arc<dyn Store>,
) {
    accept(&*store, starting("triage", 1)).await;
    for n in 2..=4 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Queue))).await;
    }
    accept(&*store, starting("triage", 5)).await;
    assert_eq!(take(&*store, 4).await, [1, 2, 5]);
}
