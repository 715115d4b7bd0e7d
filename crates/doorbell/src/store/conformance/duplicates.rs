//! Duplicates: found by the constraint, counted, and never starting an agent twice.

use super::*;

every_store_keeps! {
    a_second_delivery_of_a_key_is_a_duplicate,
    the_same_key_at_another_source_is_another_event,
    without_a_key_nothing_is_a_duplicate,
    any_known_key_makes_a_duplicate_and_the_others_are_claimed,
    keys_of_two_events_belong_to_the_first_that_is_known,
    duplicates_are_counted,
    a_redelivery_starts_only_agents_without_an_outcome,
    a_redelivery_that_says_something_else_starts_nothing,
    a_run_that_a_redelivery_starts_belongs_to_the_first_event,
    a_redelivery_leaves_skipped_and_dropped_alone,
    a_redelivery_replaces_a_filter_error_and_nothing_else,
    sixty_four_deliveries_at_once_are_one_event,
    a_source_that_missed_a_delivery_is_absorbed_into_the_run_it_started,
}

async fn a_second_delivery_of_a_key_is_a_duplicate(store: Arc<dyn Store>) {
    let first = accept(&*store, starting("triage", 1)).await;
    let again = NewEvent { delivery_keys: event(1).delivery_keys, ..starting("triage", 2) };
    let second = accept(&*store, again).await;
    assert_eq!((second.event, second.duplicate), (event_id(1), true));
    assert_eq!(first.decided, [("triage".to_owned(), OutcomeKind::Started)]);
    assert!(second.decided.is_empty(), "it decides nothing anew");
    assert_eq!((second.outcomes, second.queued), (first.outcomes, vec![]));
    assert_eq!(store.event(event_id(2)).await.unwrap(), None);
    assert!(store.run(run_id(2)).await.unwrap().is_none());
}

async fn the_same_key_at_another_source_is_another_event(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    let other = NewEvent { source: "other".to_owned(), delivery_keys: event(1).delivery_keys, ..event(2) };
    assert!(!accept(&*store, other).await.duplicate);
}

async fn without_a_key_nothing_is_a_duplicate(store: Arc<dyn Store>) {
    for n in 1..=3 {
        assert!(!accept(&*store, NewEvent { delivery_keys: Vec::new(), ..event(n) }).await.duplicate);
    }
}

async fn any_known_key_makes_a_duplicate_and_the_others_are_claimed(store: Arc<dyn Store>) {
    let keyed =
        |n, keys: &[&str]| NewEvent { delivery_keys: keys.iter().map(|key| (*key).to_owned()).collect(), ..event(n) };
    accept(&*store, keyed(1, &["id-1", "body"])).await;
    for (n, keys) in [(2, ["id-2", "body"]), (3, ["id-2", "other body"]), (4, ["id-4", "other body"])] {
        let accepted = accept(&*store, keyed(n, &keys)).await;
        assert_eq!((accepted.event, accepted.duplicate), (event_id(1), true), "delivery {n}");
    }
    assert!(!accept(&*store, keyed(5, &["id-5", "third body"])).await.duplicate);
    assert!(!accept(&*store, keyed(6, &["same", "same"])).await.duplicate, "one key twice is one key");
}

async fn keys_of_two_events_belong_to_the_first_that_is_known(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    accept(&*store, event(2)).await;
    let keys = [3, 2, 1].map(|n| format!("delivery-{n}")).to_vec();
    assert_eq!(accept(&*store, NewEvent { delivery_keys: keys, ..event(4) }).await.event, event_id(2));
    assert_eq!(accept(&*store, event(3)).await.event, event_id(2));
    assert_eq!(accept(&*store, event(1)).await.event, event_id(1));
}

async fn duplicates_are_counted(store: Arc<dyn Store>) {
    for n in 1..=4 {
        accept(&*store, NewEvent { delivery_keys: vec!["key".to_owned()], ..event(n) }).await;
    }
    assert_eq!(store.event(event_id(1)).await.unwrap().unwrap().duplicates, 3);
    assert_eq!(store.stats().await.unwrap().events, 1);
}

async fn a_redelivery_that_says_something_else_starts_nothing(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    let start = vec![start("bugs", 2, Admission::Grow)];
    let read_otherwise = |start: &str, n| NewEvent {
        context: r#"{"labels":["bug"]}"#.to_owned(),
        starts: vec![super::start(start, n, Admission::Grow)],
        ..event(1)
    };
    for body in ["body 2", "a longer body"] {
        let other = NewEvent { body: Bytes::from(body), ..read_otherwise("bugs", 2) };
        let again = accept(&*store, other).await;
        assert!(again.duplicate && again.decided.is_empty(), "{again:?}");
    }
    assert_eq!(accept(&*store, NewEvent { starts: start, ..event(1) }).await.decided.len(), 1);
    assert_eq!(accept(&*store, read_otherwise("more", 3)).await.decided.len(), 1, "it is the same body");
}

async fn a_redelivery_starts_only_agents_without_an_outcome(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    let starts = vec![start("triage", 2, Admission::Grow), start("added-since", 3, Admission::Grow)];
    let again = NewEvent { delivery_keys: event(1).delivery_keys, starts, trigger_set: 2, ..event(2) };
    let accepted = accept(&*store, again).await;
    assert_eq!(accepted.queued, ["added-since"]);
    assert_eq!(
        brief(&accepted.outcomes),
        [("added-since", OutcomeKind::Started, Some(run_id(3))), ("triage", OutcomeKind::Started, Some(run_id(1)))]
    );
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), accepted.outcomes);
    let sets: Vec<_> = accepted.outcomes.iter().map(|outcome| outcome.trigger_set).collect();
    assert_eq!(sets, [2, 1], "each with the triggers that decided it");
    assert!(store.run(run_id(2)).await.unwrap().is_none());
}

async fn a_run_that_a_redelivery_starts_belongs_to_the_first_event(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    let again = NewEvent {
        delivery_keys: event(1).delivery_keys,
        trigger_set: 2,
        body: Bytes::from_static(b"changed"),
        ..starting("added-since", 2)
    };
    accept(&*store, again).await;
    let claimed = claim(&*store, "added-since", &[lease(1)]).await.remove(0);
    assert_eq!((claimed.run.event, claimed.event.id, claimed.event.trigger_set), (event_id(1), event_id(1), 1));
    assert_eq!(claimed.body.bytes, event(1).body);
}

async fn a_redelivery_leaves_skipped_and_dropped_alone(store: Arc<dyn Store>) {
    let starts = vec![
        start("paused", 1, Admission::Skip("paused".to_owned())),
        start("full", 2, Admission::Reject(0)),
        start("triage", 3, Admission::Grow),
    ];
    let first = accept(&*store, NewEvent { starts, ..event(1) }).await;
    let starts = vec![start("paused", 4, Admission::Grow), start("full", 5, Admission::Grow)];
    let again = NewEvent { delivery_keys: event(1).delivery_keys, starts, ..event(2) };
    let again = accept(&*store, again).await;
    assert_eq!((again.outcomes, again.queued), (first.outcomes, vec![]));
}

async fn a_redelivery_replaces_a_filter_error_and_nothing_else(store: Arc<dyn Store>) {
    let fails = |agent: &str, why: &str| start(agent, 9, Admission::FilterError(why.to_owned()));
    let first = vec![fails("triage", "first"), fails("other", "first"), start("fine", 1, Admission::Grow)];
    let first = accept(&*store, NewEvent { starts: first, ..event(1) }).await;
    let (failed, fine) = (OutcomeKind::FilterError, ("fine", OutcomeKind::Started, Some(run_id(1))));
    assert_eq!(brief(&first.outcomes), [fine, ("other", failed, None), ("triage", failed, None)]);
    assert_eq!((first.queued.as_slice(), store.stats().await.unwrap().runs.len()), (&["fine".to_owned()][..], 1));
    let again = |n, starts| NewEvent { delivery_keys: event(1).delivery_keys, starts, ..event(n) };
    let second = vec![fails("triage", "second"), fails("fine", "second")];
    let second = accept(&*store, again(2, second)).await;
    assert_eq!(brief(&second.outcomes), brief(&first.outcomes));
    let reasons: Vec<_> = second.outcomes.iter().map(|outcome| outcome.reason.as_deref()).collect();
    assert_eq!(reasons, [None, Some("first"), Some("second")], "the newest reason is kept");
    let third = accept(&*store, again(3, vec![start("triage", 3, Admission::Grow)])).await;
    let started = ("triage", OutcomeKind::Started, Some(run_id(3)));
    assert_eq!(brief(&third.outcomes), [fine, ("other", failed, None), started]);
    assert_eq!(third.queued, ["triage"]);
    let fourth = accept(&*store, again(4, vec![fails("triage", "late"), start("triage", 4, Admission::Grow)])).await;
    assert_eq!((fourth.outcomes, fourth.queued), (third.outcomes.clone(), vec![]), "what has started stays");
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), third.outcomes);
}

async fn sixty_four_deliveries_at_once_are_one_event(store: Arc<dyn Store>) {
    let deliveries = (1..=64).map(|n| {
        let (store, event) = (Arc::clone(&store), starting("triage", n));
        tokio::spawn(async move { accept(&*store, NewEvent { delivery_keys: vec!["key".to_owned()], ..event }).await })
    });
    let accepted = futures_util::future::join_all(deliveries).await;
    let accepted: Vec<Accepted> = accepted.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted.iter().filter(|accepted| !accepted.duplicate).count(), 1);
    assert_eq!(accepted.iter().map(|accepted| accepted.queued.len()).sum::<usize>(), 1);
    assert!(accepted.iter().all(|one| one.event == accepted[0].event && one.outcomes == accepted[0].outcomes));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.events, stats.runs), (1, vec![("triage".to_owned(), State::Queued, 1)]));
    assert_eq!(store.event(accepted[0].event).await.unwrap().unwrap().duplicates, 63);
}

async fn a_source_that_missed_a_delivery_is_absorbed_into_the_run_it_started(store: Arc<dyn Store>) {
    let other = |n| NewEvent { source: "other".to_owned(), ..starting("triage", n) };
    accept(&*store, starting("triage", 1)).await;
    // Its redelivery also verifies for a second source: before and after the first in the list.
    let again = || NewEvent { delivery_keys: event(1).delivery_keys, ..starting("triage", 5) };
    for (n, delivery) in [(2, vec![again(), other(2)]), (3, vec![other(3), again()])] {
        let accepted = accept_all(&*store, delivery).await;
        let new = accepted.iter().find(|accepted| !accepted.duplicate).unwrap();
        assert_eq!(new.event, event_id(n));
        assert_eq!(brief(&new.outcomes), [("triage", OutcomeKind::Absorbed, Some(run_id(1)))]);
    }
    assert_eq!(claim(&*store, "triage", &[lease(1), lease(2)]).await.len(), 1);
}
