//! The past: what retention removes and what it leaves, what is forgotten, what is held and released.

use super::*;
use crate::store::{EventQuery, Expiry, Forgetting, LogLine, Rejection, Release, Removed, RunQuery, Stream, Sweep};

every_store_keeps! {
    old_events_may_go_but_not_the_newest,
    an_event_may_not_go_before_its_runs_are_over_and_old,
    the_past_is_looked_at_in_pieces,
    what_is_removed_is_gone_with_all_that_is_its,
    every_key_of_what_is_removed_is_free_again,
    what_came_to_life_meanwhile_is_not_removed,
    the_folder_of_a_run_that_is_tried_again_while_it_is_swept_stays,
    sequences_are_never_given_again,
    an_outcome_outlives_the_run_of_another_event,
    stats_count_what_is_there,
    old_rejections_go,
    trigger_sets_go_when_nothing_names_them,
    sweeps_are_remembered,
    what_is_forgotten_is_gone_and_its_place_stays,
    what_runs_were_about_is_forgotten_with_their_event,
    refusals_of_what_is_forgotten_are_forgotten,
    a_redelivery_of_what_is_forgotten_starts_nothing,
    nothing_is_forgotten_before_it_is_over,
    lines_that_come_after_forgetting_are_dropped,
    what_is_forgotten_goes_with_retention,
    a_held_run_is_released,
}

/// Everything that may go at second `before`.
async fn expired(store: &dyn Store, before: i64) -> Vec<i64> {
    let found = store.expired(Expiry { before: at(before), after: 0 }).await.unwrap();
    assert_eq!(found.next, None);
    found.events
}

/// Removes everything that may go at second `before`.
async fn sweep(store: &dyn Store, before: i64) -> Removed {
    let mut all = Removed::default();
    let mut left = expired(store, before).await;
    while !left.is_empty() {
        let step = store.remove(left.clone(), at(before)).await.unwrap();
        assert!(step.looked_at > 0, "each step gets on");
        left.drain(..step.looked_at);
        all.events += step.events;
        all.runs.extend(step.runs);
    }
    all
}

async fn seq(store: &dyn Store, n: u32) -> i64 {
    store.event(event_id(n)).await.unwrap().unwrap().seq
}

/// Event `n` whose run of `agent` ended at second 200.
async fn over(store: &dyn Store, agent: &str, n: u32) {
    accept(store, starting(agent, n)).await;
    claim(store, agent, &[lease(1)]).await;
    let end = Finish { result: Some("1".to_owned()), ..finish(run_id(n), lease(1), State::Succeeded) };
    assert!(store.finish(end).await.unwrap());
    store.append_log(run_id(n), vec![line("said")]).await.unwrap();
}

fn line(text: &str) -> LogLine {
    LogLine { at: at(3), attempt: 1, stream: Stream::Stdout, text: text.to_owned() }
}

async fn old_events_may_go_but_not_the_newest(store: Arc<dyn Store>) {
    assert!(expired(&*store, 1000).await.is_empty());
    for n in 1..=4 {
        accept(&*store, event(n)).await;
    }
    assert!(expired(&*store, 1).await.is_empty());
    assert_eq!(expired(&*store, 3).await, [seq(&*store, 1).await, seq(&*store, 2).await]);
    assert_eq!(expired(&*store, 1000).await.len(), 3);
}

async fn an_event_may_not_go_before_its_runs_are_over_and_old(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    accept(&*store, starting("triage", 2)).await;
    accept(&*store, starting("triage", 3)).await;
    claim(&*store, "triage", &[lease(2)]).await;
    let starts = vec![start("other", 4, Admission::Skip("paused".to_owned()))];
    accept(&*store, NewEvent { starts, ..event(4) }).await;
    for n in [5, 6] {
        accept(&*store, event(n)).await;
    }
    // 1 ended at 200, 2 runs, 3 is queued; 4 and 5 start nothing; 6 is the newest.
    let seqs = async |events: &[u32]| futures_util::future::join_all(events.iter().map(|n| seq(&*store, *n))).await;
    assert_eq!(expired(&*store, 100).await, seqs(&[4, 5]).await);
    assert_eq!(expired(&*store, 201).await, seqs(&[1, 4, 5]).await);
    store.cancel(run_id(3), "ann".to_owned(), at(250)).await.unwrap();
    assert!(!expired(&*store, 250).await.contains(&seq(&*store, 3).await));
    // 3 has the newest run, and so stays until there is another one.
    assert!(!expired(&*store, 251).await.contains(&seq(&*store, 3).await));
    accept(&*store, starting("triage", 7)).await;
    assert!(expired(&*store, 251).await.contains(&seq(&*store, 3).await));
}

async fn the_past_is_looked_at_in_pieces(store: Arc<dyn Store>) {
    let events = (1..=1300).map(|n| store.accept(vec![event(n)]));
    futures_util::future::join_all(events).await;
    let (mut after, mut pieces, mut found) = (0, 0, Vec::new());
    loop {
        let piece = store.expired(Expiry { before: at(5000), after }).await.unwrap();
        found.extend(piece.events);
        pieces += 1;
        match piece.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(found.len(), 1299);
    assert!(found.is_sorted() && pieces > 1, "{pieces}");
}

async fn what_is_removed_is_gone_with_all_that_is_its(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    over(&*store, "triage", 2).await;
    assert_eq!(sweep(&*store, 1000).await, Removed { looked_at: 0, events: 1, runs: vec![run_id(1)] });
    assert_eq!(store.event(event_id(1)).await.unwrap(), None);
    assert_eq!(store.body(event_id(1)).await.unwrap(), None);
    assert!(store.outcomes(event_id(1)).await.unwrap().is_empty());
    assert!(store.run(run_id(1)).await.unwrap().is_none());
    assert!(store.read_log(run_id(1), 0, 9).await.unwrap().is_empty());
    let all = EventQuery { limit: 9, ..EventQuery::default() };
    assert_eq!(store.events(all).await.unwrap().len(), 1);
    assert_eq!(store.runs(RunQuery { limit: 9, ..RunQuery::default() }).await.unwrap().len(), 1);
    let named = EventQuery { source: Some("acme-github".to_owned()), limit: 9, ..EventQuery::default() };
    assert_eq!(store.events(named).await.unwrap().len(), 1);
    // Its key is free: the same delivery would be a new event.
    let again = NewEvent { delivery_keys: event(1).delivery_keys, ..starting("triage", 3) };
    assert!(!accept(&*store, again).await.duplicate);
    assert!(accept(&*store, event(2)).await.duplicate);
}

async fn every_key_of_what_is_removed_is_free_again(store: Arc<dyn Store>) {
    const UUID: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    let named = |n: u32, id: &str, keys: &[&str]| NewEvent {
        delivery_id: Some(id.to_owned()),
        delivery_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..event(n)
    };
    let own = format!("id:{UUID}");
    accept(&*store, named(1, UUID, &[&own, "body-sha256:1"])).await;
    // Under another id: that one is the first event's from now on, too.
    assert!(accept(&*store, named(2, "other", &["id:other", "body-sha256:1"])).await.duplicate);
    accept(&*store, event(3)).await;
    assert_eq!(sweep(&*store, 2).await.events, 1);
    for (n, key) in [(4, own.as_str()), (5, "id:other"), (6, "body-sha256:1")] {
        assert!(!accept(&*store, named(n, "another", &[key])).await.duplicate, "{key}");
    }
}

async fn what_came_to_life_meanwhile_is_not_removed(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    over(&*store, "triage", 2).await;
    let listed = expired(&*store, 1000).await;
    assert_eq!(listed.len(), 1);
    // A redelivery starts an agent that was added since.
    accept(&*store, NewEvent { delivery_keys: event(1).delivery_keys, ..starting("added", 3) }).await;
    assert_eq!(store.remove(listed, at(1000)).await.unwrap(), Removed { looked_at: 1, events: 0, runs: vec![] });
    assert_eq!(claim(&*store, "added", &[lease(3)]).await[0].body.bytes, event(1).body);
    assert_eq!(state(&*store, 1).await, State::Succeeded);
}

async fn the_folder_of_a_run_that_is_tried_again_while_it_is_swept_stays(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, starting("triage", n)).await;
        store.cancel(run_id(n), "ann".to_owned(), at(5)).await.unwrap();
    }
    let mut left = expired(&*store, 1000).await;
    assert_eq!(left.len(), 2);
    store.retry(run_id(1), "ann".to_owned(), at(1_000)).await.unwrap();
    let mut removed = Vec::new();
    while !left.is_empty() {
        let step = store.remove(left.clone(), at(1000)).await.unwrap();
        left.drain(..step.looked_at);
        removed.extend(step.runs);
    }
    assert_eq!(removed, [run_id(2)], "whose folders may go");
    assert_eq!(state(&*store, 1).await, State::Queued);
    // Known until the folder is gone, however the gateway ends meanwhile.
    assert_eq!(store.runs_with_folders_left().await.unwrap(), [run_id(2)]);
    store.note_folders_gone(removed).await.unwrap();
    assert_eq!(store.runs_with_folders_left().await.unwrap(), []);
}

async fn sequences_are_never_given_again(store: Arc<dyn Store>) {
    for n in 1..=3 {
        over(&*store, "triage", n).await;
    }
    let (newest, newest_run) = (seq(&*store, 3).await, run(&*store, 3).await.seq);
    sweep(&*store, 1_000_000).await;
    accept(&*store, starting("triage", 4)).await;
    assert!(seq(&*store, 4).await > newest && run(&*store, 4).await.seq > newest_run);
}

async fn an_outcome_outlives_the_run_of_another_event(store: Arc<dyn Store>) {
    // One delivery to two sources: the first starts the agent, for the second it is absorbed.
    let second = NewEvent {
        id: event_id(2),
        source: "other".to_owned(),
        starts: vec![start("triage", 2, Admission::Grow), start("slow", 3, Admission::Grow)],
        ..event(1)
    };
    accept_all(&*store, vec![starting("triage", 1), second]).await;
    claim(&*store, "triage", &[lease(1)]).await;
    store.finish(finish(run_id(1), lease(1), State::Succeeded)).await.unwrap();
    assert_eq!(sweep(&*store, 1000).await.events, 1);
    let outcomes = store.outcomes(event_id(2)).await.unwrap();
    assert_eq!(
        brief(&outcomes),
        [("slow", OutcomeKind::Started, Some(run_id(3))), ("triage", OutcomeKind::Absorbed, None)]
    );
}

async fn stats_count_what_is_there(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, event(n)).await;
    }
    accept(&*store, event(5)).await;
    assert_eq!(store.stats().await.unwrap().events, 5);
    sweep(&*store, 4).await;
    assert_eq!(store.stats().await.unwrap().events, 2);
    accept(&*store, event(9)).await;
    assert_eq!(store.stats().await.unwrap().events, 3);
}

async fn old_rejections_go(store: Arc<dyn Store>) {
    let rejection = |n: i64, source: &str| Rejection {
        at: at(n),
        source: source.to_owned(),
        code: "signature_mismatch".to_owned(),
        detail: String::new(),
        remote: "192.0.2.1".to_owned(),
        headers: "{}".to_owned(),
        body: None,
        suppressed: 0,
    };
    for n in 0..500 {
        store.reject(rejection(n, ["a", "b"][n as usize % 2])).await.unwrap();
    }
    let removed = store.remove_records(at(498), 1, at(500)).await.unwrap();
    assert_eq!(removed.rejections, 498);
    let left = store.rejections(None, 999).await.unwrap();
    assert_eq!(left.iter().map(|rejection| rejection.at).collect::<Vec<_>>(), [at(499), at(498)]);
    assert_eq!(store.remove_records(at(1000), 1, at(1000)).await.unwrap().rejections, 2);
    store.reject(rejection(1001, "a")).await.unwrap();
    assert_eq!(store.rejections(Some("a".to_owned()), 9).await.unwrap().len(), 1);
}

async fn trigger_sets_go_when_nothing_names_them(store: Arc<dyn Store>) {
    let mut versions = Vec::new();
    for n in 0..5i64 {
        versions.push(store.keep_trigger_set(format!("[{n}]"), at(n)).await.unwrap());
    }
    let [unused, named, taken_again, in_force, newest] = versions[..] else { panic!("{versions:?}") };
    accept(&*store, NewEvent { trigger_set: named, ..event(1) }).await;
    accept(&*store, NewEvent { trigger_set: newest, ..event(2) }).await;
    store.keep_trigger_set("[2]".to_owned(), at(900)).await.unwrap();
    let removed = store.remove_records(at(800), in_force, at(1000)).await.unwrap();
    assert_eq!(removed.trigger_sets, 1);
    assert_eq!(store.trigger_set(unused).await.unwrap(), None);
    for kept in [named, taken_again, in_force, newest] {
        assert!(store.trigger_set(kept).await.unwrap().is_some(), "{kept}");
    }
    // It was in force at the sweep before, so events that name it may still be on their way.
    assert_eq!(store.remove_records(at(950), newest, at(1001)).await.unwrap().trigger_sets, 1, "taken again");
    assert!(store.trigger_set(in_force).await.unwrap().is_some());
    sweep(&*store, 500_000).await;
    assert_eq!(store.remove_records(at(500_000), newest, at(500_001)).await.unwrap().trigger_sets, 2);
    assert!(store.trigger_set(named).await.unwrap().is_none(), "the event that named it is gone");
    assert_eq!(store.keep_trigger_set("[4]".to_owned(), at(500_002)).await.unwrap(), newest);
    assert!(!versions.contains(&store.keep_trigger_set("[0]".to_owned(), at(500_003)).await.unwrap()));
}

async fn sweeps_are_remembered(store: Arc<dyn Store>) {
    assert_eq!(store.swept().await.unwrap(), Default::default());
    for n in 1..=3 {
        accept(&*store, event(n)).await;
    }
    let second = seq(&*store, 2).await;
    sweep(&*store, 3).await;
    let done = Sweep { started_at: at(5), ended_at: at(6), events: 2, runs: 1, rejections: 3, trigger_sets: 4 };
    store.end_sweep(done).await.unwrap();
    let swept = store.swept().await.unwrap();
    assert_eq!((swept.pruned_through, swept.last), (second, Some(done)));
}

async fn what_is_forgotten_is_gone_and_its_place_stays(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    over(&*store, "triage", 2).await;
    let before = store.event(event_id(1)).await.unwrap().unwrap();
    assert_eq!(store.forget(event_id(1), at(300)).await.unwrap(), Forgetting::Forgotten(at(300)));
    let after = store.event(event_id(1)).await.unwrap().unwrap();
    let expected =
        crate::store::StoredEvent { context: "{}".to_owned(), body_size: 0, forgotten_at: Some(at(300)), ..before };
    assert_eq!(after, expected);
    assert_eq!(store.body(event_id(1)).await.unwrap(), None);
    assert!(store.read_log(run_id(1), 0, 9).await.unwrap().is_empty());
    let (run, attempts) = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((run.state, run.result, run.reason), (State::Succeeded, None, None));
    assert!(attempts.iter().all(|attempt| attempt.reason.is_none()));
    let outcomes = store.outcomes(event_id(1)).await.unwrap();
    assert_eq!(brief(&outcomes), [("triage", OutcomeKind::Started, Some(run_id(1)))]);
    // The neighbour is untouched.
    assert_eq!(store.body(event_id(2)).await.unwrap().unwrap().bytes, event(2).body);
    assert_eq!(store.read_log(run_id(2), 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.forget(event_id(1), at(400)).await.unwrap(), Forgetting::Forgotten(at(300)), "once");
    assert_eq!(store.forget(event_id(9), at(400)).await.unwrap(), Forgetting::Unknown);
}

async fn what_runs_were_about_is_forgotten_with_their_event(store: Arc<dyn Store>) {
    for n in [1, 2] {
        let about = Start { key: Some("ann@example.com".to_owned()), ..start("triage", n, Admission::Grow) };
        accept(&*store, NewEvent { starts: vec![about], ..event(n) }).await;
        claim(&*store, "triage", &[lease(1)]).await;
        assert!(store.finish(finish(run_id(n), lease(1), State::Succeeded)).await.unwrap());
    }
    store.forget(event_id(1), at(300)).await.unwrap();
    assert_eq!(run(&*store, 1).await.key, None);
    let query = RunQuery { key: Some("ann@example.com".to_owned()), limit: 9, ..RunQuery::default() };
    let found: Vec<_> = store.runs(query).await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(found, [run_id(2)]);
}

async fn refusals_of_what_is_forgotten_are_forgotten(store: Arc<dyn Store>) {
    let sent = NewEvent { delivery_id: Some("id \"1\"".to_owned()), ..event(1) };
    let refused = |n: i64, source: &str, id: &str, body: Option<&[u8]>| Rejection {
        at: at(n),
        source: source.to_owned(),
        code: "queue_full".to_owned(),
        detail: String::new(),
        remote: "192.0.2.1".to_owned(),
        headers: serde_json::json!({"x-delivery": id}).to_string(),
        body: body.map(|body| body.to_vec().into()),
        suppressed: 0,
    };
    let mut other = sent.body.to_vec();
    other[0] ^= 1;
    let same_body = refused(1, &sent.source, "2", Some(&sent.body));
    let same_id = refused(2, &sent.source, "id \"1\"", Some(b"as another text"));
    let kept = [
        refused(3, &sent.source, "3", Some(&other)),
        refused(4, "another", "id \"1\"", Some(&sent.body)),
        refused(5, &sent.source, "id", Some(b"")),
        refused(6, &sent.source, "id \"1\"", None),
    ];
    for rejection in [same_body, same_id].iter().chain(&kept) {
        store.reject(rejection.clone()).await.unwrap();
    }
    accept(&*store, sent).await;
    store.forget(event_id(1), at(300)).await.unwrap();
    let left: Vec<_> = store.rejections(None, 9).await.unwrap().into_iter().map(|left| left.at).collect();
    assert_eq!(left, [6, 5, 4, 3].map(at));
}

async fn a_redelivery_of_what_is_forgotten_starts_nothing(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    store.forget(event_id(1), at(300)).await.unwrap();
    let starts = vec![start("triage", 2, Admission::Grow), start("added", 3, Admission::Grow)];
    let again = NewEvent { id: event_id(2), delivery_keys: event(1).delivery_keys, starts, ..event(1) };
    let accepted = accept(&*store, again).await;
    assert_eq!((accepted.event, accepted.duplicate), (event_id(1), true));
    assert_eq!(brief(&accepted.outcomes), [("triage", OutcomeKind::Started, Some(run_id(1)))]);
    assert!(accepted.queued.is_empty() && store.agents_with_work().await.unwrap().is_empty());
    assert_eq!(store.event(event_id(1)).await.unwrap().unwrap().duplicates, 1);
    assert_eq!(store.body(event_id(1)).await.unwrap(), None);
}

async fn nothing_is_forgotten_before_it_is_over(store: Arc<dyn Store>) {
    let starts = vec![start("one", 1, Admission::Grow), start("two", 2, Admission::Grow)];
    accept(&*store, NewEvent { starts, ..event(1) }).await;
    claim(&*store, "one", &[lease(1)]).await;
    let Forgetting::Unfinished(mut runs) = store.forget(event_id(1), at(150)).await.unwrap() else { panic!() };
    runs.sort();
    assert_eq!(runs, [run_id(1), run_id(2)]);
    assert_eq!(store.body(event_id(1)).await.unwrap().unwrap().bytes, event(1).body);
    store.finish(finish(run_id(1), lease(1), State::Waiting)).await.unwrap();
    store.cancel(run_id(2), "ann".to_owned(), at(210)).await.unwrap();
    assert_eq!(store.forget(event_id(1), at(220)).await.unwrap(), Forgetting::Unfinished(vec![run_id(1)]));
    store.cancel(run_id(1), "ann".to_owned(), at(230)).await.unwrap();
    assert_eq!(store.forget(event_id(1), at(240)).await.unwrap(), Forgetting::Forgotten(at(240)));
}

async fn lines_that_come_after_forgetting_are_dropped(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    store.forget(event_id(1), at(300)).await.unwrap();
    assert_eq!(store.append_log(run_id(1), vec![line("late")]).await.unwrap(), 0);
    assert!(store.read_log(run_id(1), 0, 9).await.unwrap().is_empty());
}

async fn what_is_forgotten_goes_with_retention(store: Arc<dyn Store>) {
    over(&*store, "triage", 1).await;
    over(&*store, "triage", 2).await;
    store.forget(event_id(1), at(300)).await.unwrap();
    assert_eq!(sweep(&*store, 1000).await.events, 1);
    assert_eq!(store.event(event_id(1)).await.unwrap(), None);
}

async fn a_held_run_is_released(store: Arc<dyn Store>) {
    accept(&*store, starting("gone", 1)).await;
    accept(&*store, starting("gone", 2)).await;
    claim(&*store, "gone", &[lease(1)]).await;
    store.finish(finish(run_id(1), lease(1), State::Waiting)).await.unwrap();
    store.settle_agents(vec![], at(210)).await.unwrap();
    for n in [1, 2] {
        assert_eq!(
            store.release(run_id(n), "ann".to_owned(), at(220)).await.unwrap(),
            Release::Released("gone".to_owned())
        );
    }
    let waiting = run(&*store, 1).await;
    let expected = (State::Waiting, Some(at(300)), Some("exit 1".to_owned()));
    assert_eq!((waiting.state, waiting.due, waiting.reason), expected);
    assert_eq!(state(&*store, 2).await, State::Queued);
    assert_eq!(store.release(run_id(2), "ann".to_owned(), at(220)).await.unwrap(), Release::NotHeld(State::Queued));
    assert_eq!(store.release(run_id(9), "ann".to_owned(), at(220)).await.unwrap(), Release::Unknown);
    assert_eq!(claim(&*store, "gone", &[lease(2)]).await.len(), 1);
}
