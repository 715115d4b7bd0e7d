//! Events: stored whole, with what they start.

use super::*;
use crate::store::Body;

every_store_keeps! {
    an_accepted_event_reads_back,
    a_body_reads_back_byte_for_byte_whatever_it_holds,
    an_event_without_optional_parts_reads_back,
    an_event_nobody_wants_has_no_outcome,
    a_start_makes_a_queued_run,
    what_is_skipped_has_its_reason_and_no_run,
    outcomes_are_sorted_by_agent,
    two_sources_of_one_delivery_start_an_agent_once,
    events_of_one_body_each_start_the_agent,
    a_delivery_is_stored_whole_or_not_at_all,
    what_is_not_there_is_not_found,
}

async fn an_accepted_event_reads_back(store: Arc<dyn Store>) {
    let accepted = accept(&*store, event(1)).await;
    assert_eq!((accepted.event, accepted.duplicate), (event_id(1), false));
    let stored = store.event(event_id(1)).await.unwrap().unwrap();
    let sent = event(1);
    assert_eq!(
        (stored.id, stored.source, stored.provider, stored.event, stored.action),
        (sent.id, sent.source, sent.provider, sent.event, sent.action)
    );
    assert_eq!(
        (stored.delivery_id, stored.verified_by, stored.received_at, stored.handshake),
        (sent.delivery_id, sent.verified_by, sent.received_at, sent.handshake)
    );
    assert_eq!(
        (stored.context, stored.trigger_set, stored.body_size, stored.duplicates),
        (sent.context, sent.trigger_set, sent.body.len() as u64, 0)
    );
}

async fn a_body_reads_back_byte_for_byte_whatever_it_holds(store: Arc<dyn Store>) {
    let noise = (0u32..300_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>();
    let bodies = [
        Vec::new(),
        vec![0],
        b"\xff\xfe not UTF-8 \x00\xc3".to_vec(),
        "{\"text\":\"ü\"}".repeat(1000).into_bytes(),
        noise,
    ];
    for (n, body) in (1..).zip(bodies) {
        let body = Bytes::from(body);
        accept(&*store, NewEvent { body: body.clone(), ..starting("triage", n) }).await;
        let read = store.body(event_id(n)).await.unwrap().unwrap();
        assert!(read == Body { headers: event(n).headers, bytes: body.clone() }, "body {n}");
        let claimed = claim(&*store, "triage", &[lease(1)]).await.remove(0);
        assert!(claimed.body == read && claimed.event.body_size == body.len() as u64, "body {n}, claimed");
    }
}

async fn an_event_without_optional_parts_reads_back(store: Arc<dyn Store>) {
    let bare = NewEvent {
        action: None,
        delivery_keys: Vec::new(),
        delivery_id: None,
        verified_by: None,
        handshake: true,
        headers: String::new(),
        body: Bytes::new(),
        ..starting("triage", 1)
    };
    accept(&*store, bare).await;
    let stored = store.event(event_id(1)).await.unwrap().unwrap();
    assert_eq!((stored.action, stored.delivery_id, stored.verified_by, stored.handshake), (None, None, None, true));
    assert_eq!(run(&*store, 1).await.event_type, "github.issues");
}

async fn an_event_nobody_wants_has_no_outcome(store: Arc<dyn Store>) {
    let accepted = accept(&*store, event(1)).await;
    assert_eq!((accepted.outcomes, accepted.queued), (vec![], vec![]));
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), vec![]);
    assert_eq!(store.stats().await.unwrap().runs, []);
}

async fn a_start_makes_a_queued_run(store: Arc<dyn Store>) {
    let mut wanted = starting("triage", 1);
    wanted.starts[0].trigger = 3;
    let accepted = accept(&*store, wanted).await;
    let outcome = AgentOutcome {
        agent: "triage".to_owned(),
        kind: OutcomeKind::Started,
        run: Some(run_id(1)),
        trigger: 3,
        reason: None,
        at: at(1),
        trigger_set: 1,
    };
    assert_eq!((&accepted.outcomes, accepted.queued), (&vec![outcome], vec!["triage".to_owned()]));
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), accepted.outcomes);
    let run = run(&*store, 1).await;
    assert_eq!((run.agent.as_str(), run.event, run.state), ("triage", event_id(1), State::Queued));
    assert_eq!((run.event_type.as_str(), run.attempt, run.created_at), ("github.issues.opened", 0, at(1)));
    assert_eq!(store.stats().await.unwrap().runs, [("triage".to_owned(), State::Queued, 1)]);
}

async fn what_is_skipped_has_its_reason_and_no_run(store: Arc<dyn Store>) {
    let skip = start("triage", 1, Admission::Skip("paused".to_owned()));
    let accepted = accept(&*store, NewEvent { starts: vec![skip], ..event(1) }).await;
    assert_eq!(brief(&accepted.outcomes), [("triage", OutcomeKind::Skipped, None)]);
    assert_eq!(accepted.outcomes[0].reason.as_deref(), Some("paused"));
    assert!(accepted.queued.is_empty() && store.run(run_id(1)).await.unwrap().is_none());
}

async fn outcomes_are_sorted_by_agent(store: Arc<dyn Store>) {
    let starts = ["c", "a", "b"].into_iter().zip(1..).map(|(agent, n)| start(agent, n, Admission::Grow)).collect();
    let accepted = accept(&*store, NewEvent { starts, ..event(1) }).await;
    let expected =
        ["a", "b", "c"].into_iter().zip([2, 3, 1]).map(|(agent, n)| (agent, OutcomeKind::Started, Some(run_id(n))));
    assert_eq!(brief(&accepted.outcomes), expected.collect::<Vec<_>>());
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), accepted.outcomes);
}

async fn two_sources_of_one_delivery_start_an_agent_once(store: Arc<dyn Store>) {
    let second = NewEvent { source: "other".to_owned(), ..starting("triage", 2) };
    let accepted = accept_all(&*store, vec![starting("triage", 1), second]).await;
    assert_eq!(brief(&accepted[0].outcomes), [("triage", OutcomeKind::Started, Some(run_id(1)))]);
    assert_eq!(brief(&accepted[1].outcomes), [("triage", OutcomeKind::Absorbed, Some(run_id(1)))]);
    assert!(accepted[1].queued.is_empty() && accepted[1].outcomes[0].reason.is_some());
    assert_eq!(store.outcomes(event_id(2)).await.unwrap(), accepted[1].outcomes);
    assert_eq!(claim(&*store, "triage", &[lease(1), lease(2)]).await.len(), 1);
}

async fn events_of_one_body_each_start_the_agent(store: Arc<dyn Store>) {
    let of = |source: &str, n| NewEvent { source: source.to_owned(), ..starting("triage", n) };
    let both = vec![of("one", 1), of("one", 2), of("other", 3), of("other", 4)];
    let accepted = accept_all(&*store, both).await;
    let kinds: Vec<_> = accepted.iter().map(|accepted| brief(&accepted.outcomes)[0]).collect();
    let (started, absorbed) = (OutcomeKind::Started, OutcomeKind::Absorbed);
    assert_eq!(
        kinds,
        [
            ("triage", started, Some(run_id(1))),
            ("triage", started, Some(run_id(2))),
            ("triage", absorbed, Some(run_id(1))),
            ("triage", absorbed, Some(run_id(2))),
        ]
    );
    let again = accept_all(&*store, vec![of("one", 1), of("one", 2)]).await;
    assert!(again.iter().all(|accepted| accepted.duplicate && accepted.queued.is_empty()));
}

async fn a_delivery_is_stored_whole_or_not_at_all(store: Arc<dyn Store>) {
    accept(&*store, event(1)).await;
    // The second event has an id that is taken, which no constraint allows.
    let clash = NewEvent { id: event_id(1), ..event(3) };
    assert!(store.accept(vec![starting("triage", 2), clash]).await.is_err());
    assert_eq!(store.event(event_id(2)).await.unwrap(), None);
    assert!(store.run(run_id(2)).await.unwrap().is_none());
    assert!(!accept(&*store, starting("triage", 2)).await.duplicate, "its key must not be taken");
}

async fn what_is_not_there_is_not_found(store: Arc<dyn Store>) {
    assert_eq!(store.event(event_id(1)).await.unwrap(), None);
    assert_eq!(store.body(event_id(1)).await.unwrap(), None);
    assert_eq!(store.outcomes(event_id(1)).await.unwrap(), vec![]);
    assert_eq!(store.run(run_id(1)).await.unwrap(), None);
    assert_eq!(store.read_log(run_id(1), 0, 10).await.unwrap(), vec![]);
    assert_eq!(store.trigger_set(7).await.unwrap(), None);
}
