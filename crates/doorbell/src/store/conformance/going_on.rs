//! Runs that people let go on, try again and look for, and what went with them.

use std::time::Duration;

use doorbell_core::flow::{Debounce, Flow, Rate, WhenBusy};
use doorbell_core::id::ReplayId;
use doorbell_core::wait::Wait;

use super::flow::{busy, end, keyed, take};
use super::*;
use crate::store::{CauseKind, EventQuery, Release, Replay};

every_store_keeps! {
    a_run_that_is_tried_again_is_no_longer_replaced_by_the_one_before,
    a_key_below_its_limit_gets_a_new_run_though_one_is_held,
    what_went_with_a_run_that_was_dropped_is_dropped_and_no_more_when_that_is_tried_again,
    a_run_that_waits_for_its_next_try_or_gathers_is_released_at_once,
    a_run_that_waits_for_something_is_not_released,
    runs_are_found_by_the_kind_of_their_cause,
    runs_are_walked_from_the_oldest_on,
    events_are_counted_whatever_the_limit,
}

fn gathering() -> Flow {
    let debounce = Debounce { window: Duration::from_secs(30), max_wait: Duration::from_secs(60) };
    Flow { debounce: Some(debounce), ..Flow::default() }
}

async fn a_run_that_is_tried_again_is_no_longer_replaced_by_the_one_before(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Queue))).await;
    take(&*store, 1).await;
    accept(&*store, keyed("a", 2, busy(WhenBusy::Replace))).await;
    end(&*store, 1, 1, State::Queued).await;
    assert_eq!(state(&*store, 1).await, State::Superseded);
    take(&*store, 1).await;
    end(&*store, 2, 1, State::Succeeded).await;
    store.retry(run_id(1), "ann".to_owned(), at(300)).await.unwrap();
    assert_eq!(take(&*store, 1).await, [1]);
    store.cancel(run_id(1), "ann".to_owned(), at(210)).await.unwrap();
    end(&*store, 1, 1, State::Queued).await;
    let first = run(&*store, 1).await;
    assert_eq!((first.state, first.reason.as_deref()), (State::Cancelled, Some("cancelled by ann")));
}

async fn a_key_below_its_limit_gets_a_new_run_though_one_is_held(store: Arc<dyn Store>) {
    let max_per_key = Some(Rate { count: 2, window: Duration::from_secs(100) });
    for (key, flow, first) in [("a", busy(WhenBusy::Attach), 1), ("b", gathering(), 10)] {
        let flow = Flow { max_per_key, ..flow };
        for n in first..first + 2 {
            accept(&*store, keyed(key, n, flow)).await;
            store.release(run_id(n), "ann".to_owned(), at(i64::from(n))).await.unwrap();
            take(&*store, 1).await;
            end(&*store, n, 1, State::Succeeded).await;
        }
        for n in first + 2..first + 4 {
            accept(&*store, keyed(key, n, flow)).await;
        }
        let held = run(&*store, first + 2).await;
        assert_eq!((held.state, held.absorbed), (State::Held, 1), "while there are too many");
        let late = first + 200;
        accept(&*store, keyed(key, late, flow)).await;
        assert_ne!(state(&*store, late).await, State::Held);
        accept(&*store, keyed(key, late + 1, flow)).await;
        assert_eq!((run(&*store, late).await.absorbed, run(&*store, first + 2).await.absorbed), (1, 1));
        assert_eq!(state(&*store, first + 2).await, State::Held, "that one is for a person");
        take(&*store, 1).await;
    }
}

async fn what_went_with_a_run_that_was_dropped_is_dropped_and_no_more_when_that_is_tried_again(store: Arc<dyn Store>) {
    for n in 1..=2 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Attach))).await;
    }
    let first = keyed("b", 3, busy(WhenBusy::Attach));
    let starts = vec![Start { admission: Admission::DropOldest(1), ..first.starts[0].clone() }];
    accept(&*store, NewEvent { starts, ..first }).await;
    assert_eq!(state(&*store, 1).await, State::Dropped);
    let with = |outcome: &str| {
        let query = EventQuery { outcome: Some(outcome.to_owned()), limit: 9, ..EventQuery::default() };
        let store = Arc::clone(&store);
        async move { store.events(query).await.unwrap().iter().map(|event| event.id).collect::<Vec<_>>() }
    };
    for n in 1..=2 {
        let outcomes = store.outcomes(event_id(n)).await.unwrap();
        assert_eq!(brief(&outcomes), [("triage", OutcomeKind::Dropped, Some(run_id(1)))]);
        assert!(outcomes[0].reason.as_ref().unwrap().contains("displaced by"), "{outcomes:?}");
    }
    assert_eq!((with("dropped").await, with("absorbed").await), (vec![event_id(2), event_id(1)], vec![]));
    assert_eq!(store.companions(run_id(1)).await.unwrap().len(), 1);
    store.retry(run_id(1), "ann".to_owned(), at(300)).await.unwrap();
    assert_eq!((with("dropped").await, with("absorbed").await), (vec![], vec![event_id(2)]));
}

async fn a_run_that_waits_for_its_next_try_or_gathers_is_released_at_once(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Queue))).await;
    take(&*store, 1).await;
    end(&*store, 1, 1, State::Waiting).await;
    accept(&*store, keyed("b", 2, gathering())).await;
    for n in 1..=2 {
        assert_eq!(
            store.release(run_id(n), "ann".to_owned(), at(210)).await.unwrap(),
            Release::Released("triage".to_owned())
        );
    }
    let (next_try, gathered) = (run(&*store, 1).await, run(&*store, 2).await);
    assert_eq!((next_try.due, next_try.reason.as_deref()), (None, Some("exit 1")), "why it is tried again still holds");
    assert_eq!((gathered.due, gathered.reason), (None, None));
    let mut taken = take(&*store, 2).await;
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
    assert_eq!(store.release(run_id(1), "ann".to_owned(), at(211)).await.unwrap(), Release::NotHeld(State::Running));
}

async fn a_run_that_waits_for_something_is_not_released(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let mut ended = finish(run_id(1), lease(1), State::Waiting);
    ended.transition.wait = Some(Wait::Sleep);
    store.finish(ended).await.unwrap();
    assert_eq!(store.release(run_id(1), "ann".to_owned(), at(210)).await.unwrap(), Release::Waits(Wait::Sleep));
    assert_eq!(run(&*store, 1).await.due, Some(at(300)));
}

async fn runs_are_found_by_the_kind_of_their_cause(store: Arc<dyn Store>) {
    let own = |n: u32, provider: &str| NewEvent {
        source: provider.to_owned(),
        provider: provider.to_owned(),
        ..starting("triage", n)
    };
    accept(&*store, starting("triage", 1)).await;
    for (n, provider) in [(2, "schedule"), (3, "manual"), (4, "agent"), (5, "doorbell")] {
        accept(&*store, own(n, provider)).await;
    }
    let replay = Some(Replay { id: ReplayId::new(at(0), numbered(1)), of: event_id(3) });
    accept(&*store, NewEvent { replay, ..own(6, "manual") }).await;
    for (kind, n) in CauseKind::ALL.into_iter().zip(1..) {
        let found = |query: RunQuery| {
            let store = Arc::clone(&store);
            async move { store.runs(query).await.unwrap().iter().map(|run| run.id).collect::<Vec<_>>() }
        };
        let query = RunQuery { trigger: Some(kind), limit: 1, ..RunQuery::default() };
        assert_eq!(found(query.clone()).await, [run_id(n)], "{kind:?}");
        let queued = RunQuery { state: Some(State::Queued), agents: Some(vec!["triage".to_owned()]), ..query.clone() };
        assert_eq!(found(queued).await, [run_id(n)]);
        assert_eq!(found(RunQuery { event: Some(event_id(n)), ..query }).await, [run_id(n)]);
    }
}

async fn runs_are_walked_from_the_oldest_on(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, starting(if n == 2 { "b" } else { "a" }, n)).await;
    }
    for agents in [None, Some(vec!["a".to_owned()])] {
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let query = RunQuery { agents: agents.clone(), after: Some(after), limit: 2, ..RunQuery::default() };
            let page = store.runs(query).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.seq;
            found.extend(page.iter().map(|run| run.id));
        }
        let all = (1..=5).filter(|n| agents.is_none() || *n != 2).map(run_id).collect::<Vec<_>>();
        assert_eq!(found, all);
    }
}

async fn events_are_counted_whatever_the_limit(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, event(n)).await;
    }
    let query =
        EventQuery { source: Some("acme-github".to_owned()), after: Some(0), limit: 2, ..EventQuery::default() };
    assert_eq!(store.count_events(query).await.unwrap(), 5);
}
