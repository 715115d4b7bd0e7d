//! Queues: their bounds, what is due, and agents that come and go.

use super::*;
use crate::store::{Released, Whose};

every_store_keeps! {
    a_queue_that_grows_takes_everything,
    a_full_queue_drops_its_oldest,
    a_lowered_bound_drops_what_is_beyond_it,
    a_queue_for_nothing_drops_what_comes,
    runs_that_started_do_not_count_as_queued,
    a_queue_that_rejects_refuses_the_delivery,
    a_delivery_that_somebody_takes_is_stored_and_the_others_drop_it,
    a_refused_redelivery_counts_for_nothing,
    a_redelivery_of_what_is_started_is_not_refused,
    room_that_a_claim_made_is_used,
    room_that_a_cancel_made_is_used,
    waiting_runs_are_queued_when_they_are_due,
    many_due_runs_are_all_queued,
    a_wait_that_began_while_the_clock_was_ahead_ends_when_it_is_right_again,
    a_clock_that_is_set_back_ends_no_wait_that_a_run_asked_for,
    runs_of_an_agent_that_is_gone_are_held_until_it_is_back,
    what_waits_for_a_time_goes_on_waiting_when_its_agent_is_back,
    runs_of_a_paused_agent_are_held_and_go_on_all_at_once_or_little_by_little,
}

fn admitted(agent: &str, n: u32, admission: Admission) -> NewEvent {
    NewEvent { starts: vec![start(agent, n, admission)], ..event(n) }
}

async fn a_queue_that_grows_takes_everything(store: Arc<dyn Store>) {
    for n in 1..=20 {
        accept(&*store, starting("triage", n)).await;
    }
    assert_eq!(store.stats().await.unwrap().runs, [("triage".to_owned(), State::Queued, 20)]);
}

async fn a_full_queue_drops_its_oldest(store: Arc<dyn Store>) {
    for n in 1..=4 {
        let accepted = accept(&*store, admitted("triage", n, Admission::DropOldest(2))).await;
        assert_eq!(accepted.queued, ["triage"]);
        let gave_way = if n > 2 { vec![run_id(n - 2)] } else { vec![] };
        assert_eq!(accepted.dropped, gave_way);
    }
    for (n, expected) in [(1, State::Dropped), (2, State::Dropped), (3, State::Queued), (4, State::Queued)] {
        assert_eq!(state(&*store, n).await, expected, "run {n}");
    }
    let dropped = run(&*store, 1).await;
    assert!(dropped.reason.unwrap().contains(&event_id(3).to_string()), "it names what displaced it");
    assert_eq!(dropped.finished_at, Some(at(3)));
    let outcomes = store.outcomes(event_id(1)).await.unwrap();
    assert_eq!(brief(&outcomes), [("triage", OutcomeKind::Dropped, Some(run_id(1)))]);
    assert!(outcomes[0].reason.is_some());
    assert_eq!(brief(&store.outcomes(event_id(3)).await.unwrap())[0].1, OutcomeKind::Started);
}

async fn a_lowered_bound_drops_what_is_beyond_it(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, starting("triage", n)).await;
    }
    accept(&*store, admitted("triage", 6, Admission::DropOldest(2))).await;
    let claimed = claim(&*store, "triage", &[1, 2, 3].map(lease)).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.run.id).collect::<Vec<_>>(), [run_id(5), run_id(6)]);
}

async fn a_queue_for_nothing_drops_what_comes(store: Arc<dyn Store>) {
    let accepted = accept(&*store, admitted("triage", 1, Admission::DropOldest(0))).await;
    assert_eq!(brief(&accepted.outcomes), [("triage", OutcomeKind::Dropped, Some(run_id(1)))]);
    assert!(accepted.queued.is_empty());
    assert_eq!(state(&*store, 1).await, State::Dropped);
}

async fn runs_that_started_do_not_count_as_queued(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(store.finish(finish(run_id(1), lease(1), State::Queued)).await.unwrap());
    accept(&*store, admitted("triage", 2, Admission::DropOldest(1))).await;
    accept(&*store, admitted("triage", 3, Admission::DropOldest(1))).await;
    assert_eq!(state(&*store, 1).await, State::Queued);
    assert_eq!(state(&*store, 2).await, State::Dropped);
}

async fn a_queue_that_rejects_refuses_the_delivery(store: Arc<dyn Store>) {
    accept(&*store, admitted("triage", 1, Admission::Reject(1))).await;
    let refused = store.accept(vec![admitted("triage", 2, Admission::Reject(1))]).await.unwrap();
    assert_eq!(refused, Acceptance::QueueFull(vec!["triage".to_owned()]));
    assert_eq!(store.event(event_id(2)).await.unwrap(), None);
    let skipping = start("other", 9, Admission::Skip("paused".to_owned()));
    let mut with_skip = admitted("triage", 2, Admission::Reject(1));
    with_skip.starts.push(skipping);
    assert!(matches!(store.accept(vec![with_skip]).await.unwrap(), Acceptance::QueueFull(_)));
    // Its key is not taken: once there is room it is an event like any other.
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(!accept(&*store, admitted("triage", 2, Admission::Reject(1))).await.duplicate);
}

async fn a_delivery_that_somebody_takes_is_stored_and_the_others_drop_it(store: Arc<dyn Store>) {
    let starts = vec![start("full", 1, Admission::Reject(0)), start("triage", 2, Admission::Grow)];
    let accepted = accept(&*store, NewEvent { starts, ..event(1) }).await;
    assert_eq!(
        brief(&accepted.outcomes),
        [("full", OutcomeKind::Dropped, None), ("triage", OutcomeKind::Started, Some(run_id(2)))]
    );
    assert!(accepted.outcomes[0].reason.is_some());
    assert_eq!(accepted.queued, ["triage"]);
}

async fn a_refused_redelivery_counts_for_nothing(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    let again = NewEvent { delivery_keys: event(1).delivery_keys, ..admitted("triage", 2, Admission::Reject(0)) };
    assert!(matches!(store.accept(vec![again]).await.unwrap(), Acceptance::QueueFull(_)));
    assert_eq!(store.event(event_id(1)).await.unwrap().unwrap().duplicates, 0);
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), vec![]);
}

async fn a_redelivery_of_what_is_started_is_not_refused(store: Arc<dyn Store>) {
    accept(&*store, admitted("triage", 1, Admission::Reject(1))).await;
    let again = accept(&*store, admitted("triage", 1, Admission::Reject(1))).await;
    assert!(again.duplicate);
    assert_eq!(brief(&again.outcomes), [("triage", OutcomeKind::Started, Some(run_id(1)))]);
}

async fn room_that_a_claim_made_is_used(store: Arc<dyn Store>) {
    accept(&*store, admitted("triage", 1, Admission::Reject(1))).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert_eq!(accept(&*store, admitted("triage", 2, Admission::Reject(1))).await.queued, ["triage"]);
}

async fn room_that_a_cancel_made_is_used(store: Arc<dyn Store>) {
    accept(&*store, admitted("triage", 1, Admission::DropOldest(2))).await;
    accept(&*store, admitted("triage", 2, Admission::DropOldest(2))).await;
    store.cancel(run_id(2), "ann".to_owned(), at(5)).await.unwrap();
    accept(&*store, admitted("triage", 3, Admission::DropOldest(2))).await;
    assert_eq!((state(&*store, 1).await, state(&*store, 3).await), (State::Queued, State::Queued));
}

/// Run `n`, waiting for second 300.
async fn waiting(store: &dyn Store, agent: &str, n: u32) {
    accept(store, starting(agent, n)).await;
    claim(store, agent, &[lease(1)]).await;
    assert!(store.finish(finish(run_id(n), lease(1), State::Waiting)).await.unwrap());
}

async fn waiting_runs_are_queued_when_they_are_due(store: Arc<dyn Store>) {
    waiting(&*store, "triage", 1).await;
    assert_eq!(run(&*store, 1).await.due, Some(at(300)));
    let early = store.release_due(at(299)).await.unwrap();
    assert_eq!(early, Released { agents: vec![], next: Some(at(300)) });
    assert!(claim(&*store, "triage", &[lease(2)]).await.is_empty());
    let due = store.release_due(at(300)).await.unwrap();
    assert_eq!(due, Released { agents: vec!["triage".to_owned()], next: None });
    let claimed = claim(&*store, "triage", &[lease(2)]).await.remove(0).run;
    assert_eq!((claimed.id, claimed.attempt, claimed.due), (run_id(1), 2, None));
}

async fn a_wait_that_began_while_the_clock_was_ahead_ends_when_it_is_right_again(store: Arc<dyn Store>) {
    waiting(&*store, "triage", 1).await;
    // Its last try ended at second 200, so at 199 and before the clock was wrong then, or is now.
    assert_eq!(store.end_waits(at(200), at(200)).await.unwrap(), 0);
    assert_eq!(run(&*store, 1).await.due, Some(at(300)));
    assert_eq!(store.end_waits(at(199), at(150)).await.unwrap(), 1);
    assert_eq!(store.end_waits(at(199), at(150)).await.unwrap(), 0);
    let due = store.release_due(at(150)).await.unwrap();
    assert_eq!(due, Released { agents: vec!["triage".to_owned()], next: None });
}

async fn a_clock_that_is_set_back_ends_no_wait_that_a_run_asked_for(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let mut end = finish(run_id(1), lease(1), State::Waiting);
    end.transition.wait = Some(doorbell_core::wait::Wait::Sleep);
    assert!(store.finish(end).await.unwrap());
    assert_eq!(store.end_waits(at(199), at(150)).await.unwrap(), 0);
    assert_eq!(run(&*store, 1).await.due, Some(at(300)));
}

async fn many_due_runs_are_all_queued(store: Arc<dyn Store>) {
    const MANY: u32 = 1203;
    let events = (1..=MANY).map(|n| store.accept(vec![starting(if n % 2 == 0 { "even" } else { "odd" }, n)]));
    futures_util::future::join_all(events).await;
    for agent in ["even", "odd"] {
        let leases = vec![lease(1); MANY as usize];
        let ends = claim(&*store, agent, &leases).await;
        let ends = ends.iter().map(|claimed| store.finish(finish(claimed.run.id, lease(1), State::Waiting)));
        assert!(futures_util::future::join_all(ends).await.into_iter().all(Result::unwrap));
    }
    let released = store.release_due(at(1000)).await.unwrap();
    assert_eq!(released, Released { agents: vec!["even".to_owned(), "odd".to_owned()], next: None });
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.runs, [("even".to_owned(), State::Queued, 601), ("odd".to_owned(), State::Queued, 602)]);
}

async fn runs_of_an_agent_that_is_gone_are_held_until_it_is_back(store: Arc<dyn Store>) {
    accept(&*store, starting("gone", 1)).await;
    accept(&*store, starting("stays", 2)).await;
    store.settle_agents(active(&["stays"]), at(10)).await.unwrap();
    let held = run(&*store, 1).await;
    assert_eq!((held.state, held.reason.is_some()), (State::Held, true));
    assert_eq!(state(&*store, 2).await, State::Queued);
    assert!(claim(&*store, "gone", &[lease(1)]).await.is_empty());
    assert_eq!(store.agents_with_work().await.unwrap(), ["stays"]);
    store.settle_agents(active(&["gone", "stays"]), at(20)).await.unwrap();
    let back = run(&*store, 1).await;
    assert_eq!((back.state, back.reason), (State::Queued, None));
    assert_eq!(claim(&*store, "gone", &[lease(1)]).await.len(), 1);
}

async fn what_waits_for_a_time_goes_on_waiting_when_its_agent_is_back(store: Arc<dyn Store>) {
    waiting(&*store, "early", 1).await;
    waiting(&*store, "late", 2).await;
    store.settle_agents(vec![], at(210)).await.unwrap();
    assert_eq!((state(&*store, 1).await, state(&*store, 2).await), (State::Held, State::Held));
    assert_eq!(store.release_due(at(1000)).await.unwrap(), Released::default());
    store.settle_agents(active(&["early"]), at(220)).await.unwrap();
    let early = run(&*store, 1).await;
    assert_eq!((early.state, early.due), (State::Waiting, Some(at(300))));
    store.settle_agents(active(&["early", "late"]), at(400)).await.unwrap();
    assert_eq!(state(&*store, 2).await, State::Queued);
}

async fn runs_of_a_paused_agent_are_held_and_go_on_all_at_once_or_little_by_little(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, starting("triage", n)).await;
    }
    let standing = |standing: Standing| vec![("triage".to_owned(), standing)];
    store.settle_agents(standing(Standing::Paused("paused by ann: deploying".to_owned())), at(10)).await.unwrap();
    let held = run(&*store, 1).await;
    assert_eq!((held.state, held.reason.as_deref()), (State::Held, Some("paused by ann: deploying")));
    store.settle_agents(standing(Standing::Resuming), at(11)).await.unwrap();
    let whose = Whose::Agent("triage".to_owned());
    assert_eq!(state(&*store, 1).await, State::Held);
    assert_eq!(store.give_back(whose.clone(), 2, at(12)).await.unwrap().moved, 2);
    assert_eq!((state(&*store, 2).await, state(&*store, 3).await), (State::Queued, State::Held));
    store.settle_agents(standing(Standing::Active), at(13)).await.unwrap();
    assert_eq!((state(&*store, 3).await, state(&*store, 5).await), (State::Queued, State::Queued));
    assert_eq!(store.give_back(whose, 2, at(14)).await.unwrap().moved, 0);
}
