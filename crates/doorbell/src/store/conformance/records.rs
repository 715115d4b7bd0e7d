//! Lists, logs, and what stands by itself.

use doorbell_core::id::KeyId;

use super::*;
use crate::store::{
    ApiKey, Change, ChangeEnd, ChangeQuery, EventOwner, EventQuery, LogLine, MOST_REJECTIONS, Notes, Rejection,
    RunOwner, RunQuery, SecretUse, StoredChange, Stream, Tallies, Within,
};

every_store_keeps! {
    pages_of_events_miss_nothing,
    what_came_since_is_listed_oldest_first,
    events_are_found_by_source_and_name,
    events_are_found_by_time,
    events_are_found_by_outcome,
    events_are_seen_by_whose_source_or_agent_they_are_of,
    outcomes_of_many_events_are_those_of_each,
    whose_an_event_or_a_run_is_is_told_by_itself,
    headers_read_back_without_the_body,
    pages_of_runs_miss_nothing,
    runs_are_found_by_agent_state_and_event,
    runs_are_found_by_key,
    dead_letters_are_found,
    log_lines_are_numbered_over_all_attempts,
    a_long_log_is_read_in_pieces,
    only_the_newest_rejections_of_a_source_are_kept,
    a_rejection_reads_back_without_its_body,
    a_trigger_set_has_one_version_for_good,
    keys_read_back_oldest_first,
    changes_are_noted_before_they_are_made_and_read_back_newest_first,
    uses_of_secrets_add_up,
    stats_count_runs_and_tell_the_oldest_queued,
    tallies_follow_runs_through_their_life,
    a_store_tells_what_it_takes_on_the_disk,
    a_dead_letter_is_untold_until_it_is_taken_off,
    a_dead_letter_that_is_gone_or_forgotten_hides_no_other,
    notes_are_kept_replaced_and_dropped,
    a_healthy_store_says_so_and_counts_its_commits,
}

async fn events(store: &dyn Store, query: EventQuery) -> Vec<EventId> {
    store.events(query).await.unwrap().into_iter().map(|event| event.id).collect()
}

fn ids(numbers: impl IntoIterator<Item = u32>) -> Vec<EventId> {
    numbers.into_iter().map(event_id).collect()
}

fn at_most(limit: usize) -> EventQuery {
    EventQuery { limit, ..EventQuery::default() }
}

async fn pages_of_events_miss_nothing(store: Arc<dyn Store>) {
    for n in 1..=25 {
        let source = ["one", "two", "three"][n as usize % 3].to_owned();
        accept(&*store, NewEvent { source, ..event(n) }).await;
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.events(EventQuery { before, ..at_most(4) }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        seen.extend(page.iter().map(|event| event.id));
        // What comes meanwhile does not shift the pages.
        accept(&*store, event(1000 + seen.len() as u32)).await;
    }
    assert_eq!(seen, ids((1..=25).rev()));
}

async fn what_came_since_is_listed_oldest_first(store: Arc<dyn Store>) {
    for n in 1..=5 {
        accept(&*store, event(n)).await;
    }
    let second = store.event(event_id(2)).await.unwrap().unwrap().seq;
    assert_eq!(events(&*store, EventQuery { after: Some(second), ..at_most(2) }).await, ids([3, 4]));
    let source = Some("acme-github".to_owned());
    let of_source = EventQuery { after: Some(second), source, ..at_most(9) };
    assert_eq!(events(&*store, of_source).await, ids([3, 4, 5]));
    assert_eq!(events(&*store, EventQuery { after: Some(0), ..at_most(9) }).await, ids(1..=5));
}

async fn events_are_found_by_source_and_name(store: Arc<dyn Store>) {
    let named = |n, source: &str, event: &str, action: Option<&str>| NewEvent {
        source: source.to_owned(),
        event: event.to_owned(),
        action: action.map(str::to_owned),
        ..super::event(n)
    };
    accept(&*store, named(1, "a", "issues", Some("opened"))).await;
    accept(&*store, named(2, "b", "issues", Some("closed"))).await;
    accept(&*store, named(3, "a", "push", None)).await;
    accept(&*store, named(4, "b", "issues.opened", None)).await;
    accept(&*store, named(5, "b", "issues", Some("opened"))).await;
    let find = |source: Option<&str>, event: Option<&str>, limit| {
        let query = EventQuery { source: source.map(str::to_owned), event: event.map(str::to_owned), ..at_most(limit) };
        let store = Arc::clone(&store);
        async move { events(&*store, query).await }
    };
    assert_eq!(find(Some("a"), None, 9).await, ids([3, 1]));
    assert_eq!(find(Some("a"), None, 1).await, ids([3]));
    assert_eq!(find(None, Some("issues"), 9).await, ids([5, 2, 1]));
    assert_eq!(find(None, Some("issues"), 2).await, ids([5, 2]));
    assert_eq!(find(None, Some("issues.opened"), 9).await, ids([5, 4, 1]));
    assert_eq!(find(Some("b"), Some("issues.opened"), 9).await, ids([5, 4]));
    assert_eq!(find(Some("b"), Some("push"), 9).await, ids([]));
    assert_eq!(find(Some("c"), None, 9).await, ids([]));
    // With the provider before it, as events are shown.
    assert_eq!(find(None, Some("github.push"), 9).await, ids([3]));
    assert_eq!(find(None, Some("github.issues"), 9).await, ids([5, 2, 1]));
    assert_eq!(find(Some("b"), Some("github.issues.opened"), 9).await, ids([5, 4]));
    assert_eq!(find(None, Some("gitlab.push"), 9).await, ids([]));
}

async fn events_are_found_by_time(store: Arc<dyn Store>) {
    for n in 1..=40 {
        // Half an hour apart, and a little out of order.
        let received_at = at(i64::from(n) * 1800 + if n % 2 == 0 { 0 } else { 2000 });
        accept(&*store, NewEvent { received_at, ..event(n) }).await;
    }
    let all = store.events(at_most(100)).await.unwrap();
    for (since, until) in [(Some(5000), None), (None, Some(30_000)), (Some(7400), Some(27_000)), (Some(90_000), None)] {
        let (since, until) = (since.map(at), until.map(at));
        let within = |received: Timestamp| since.is_none_or(|s| received >= s) && until.is_none_or(|u| received < u);
        let expected: Vec<EventId> =
            all.iter().filter(|event| within(event.received_at)).map(|event| event.id).collect();
        assert_eq!(events(&*store, EventQuery { since, until, ..at_most(100) }).await, expected, "{since:?} {until:?}");
    }
}

async fn events_are_found_by_outcome(store: Arc<dyn Store>) {
    let skip = |agent: &str| start(agent, 9, Admission::Skip("paused".to_owned()));
    accept(&*store, event(1)).await;
    accept(&*store, starting("triage", 2)).await;
    accept(&*store, NewEvent { starts: vec![skip("a"), skip("b")], ..event(3) }).await;
    accept(&*store, NewEvent { starts: vec![skip("a"), start("b", 4, Admission::Grow)], ..event(4) }).await;
    accept(&*store, NewEvent { starts: vec![start("d", 5, Admission::DropOldest(0))], ..event(5) }).await;
    let find = |outcome: &str, limit| {
        let (store, query) = (Arc::clone(&store), EventQuery { outcome: Some(outcome.to_owned()), ..at_most(limit) });
        async move { events(&*store, query).await }
    };
    assert_eq!(find("none", 9).await, ids([1]));
    assert_eq!(find("started", 9).await, ids([4, 2]));
    assert_eq!(find("skipped", 9).await, ids([4, 3]));
    assert_eq!(find("skipped", 2).await, ids([4, 3]), "two outcomes are one event");
    assert_eq!(find("dropped", 9).await, ids([5]));
    assert_eq!(find("absorbed", 9).await, ids([]));
    assert_eq!(find("nonsense", 9).await, ids([]));
    accept(&*store, NewEvent { delivery_keys: event(1).delivery_keys, ..starting("added-since", 6) }).await;
    assert_eq!(find("none", 9).await, ids([]));
    assert_eq!(find("started", 9).await, ids([4, 2, 1]));
}

async fn runs(store: &dyn Store, query: RunQuery) -> Vec<RunId> {
    store.runs(query).await.unwrap().into_iter().map(|run| run.id).collect()
}

async fn events_are_seen_by_whose_source_or_agent_they_are_of(store: Arc<dyn Store>) {
    for (n, source, agent) in
        [(1, "one", Some("a")), (2, "one", None), (3, "two", Some("a")), (4, "two", Some("b")), (5, "three", None)]
    {
        let starts = agent.map(|agent| start(agent, n, Admission::Grow)).into_iter().collect();
        accept(&*store, NewEvent { source: source.to_owned(), starts, ..event(n) }).await;
    }
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let within = |agents: &[&str], sources: &[&str]| EventQuery {
        within: Some(Within { agents: own(agents), sources: own(sources) }),
        ..at_most(9)
    };
    assert_eq!(events(&*store, within(&["a"], &[])).await, ids([3, 1]));
    assert_eq!(events(&*store, within(&[], &["one", "three"])).await, ids([5, 2, 1]));
    assert_eq!(events(&*store, within(&["a", "b"], &["one"])).await, ids([4, 3, 2, 1]));
    assert_eq!(events(&*store, within(&[], &[])).await, ids([]));
    let of = |query: EventQuery, source: &str| EventQuery { source: Some(source.to_owned()), ..query };
    assert_eq!(events(&*store, of(within(&["a"], &["one"]), "two")).await, ids([3]));
    let with = |query: EventQuery, outcome: &str| EventQuery { outcome: Some(outcome.to_owned()), ..query };
    assert_eq!(events(&*store, with(within(&["a"], &["two"]), "started")).await, ids([3, 1]));
    assert_eq!(events(&*store, with(within(&["a"], &["one"]), "none")).await, ids([2]));
}

async fn whose_an_event_or_a_run_is_is_told_by_itself(store: Arc<dyn Store>) {
    let starts = vec![start("a", 1, Admission::Grow), start("b", 2, Admission::Grow)];
    accept(&*store, NewEvent { source: "one".to_owned(), starts, ..event(1) }).await;
    accept(&*store, NewEvent { source: "two".to_owned(), ..event(3) }).await;
    let owner = |source: &str, agents: &[&str]| {
        Some(EventOwner { source: source.to_owned(), agents: agents.iter().map(|name| (*name).to_owned()).collect() })
    };
    let of_event = async |n| {
        let mut owner = store.owner_of_event(event_id(n)).await.unwrap();
        owner.iter_mut().for_each(|owner| owner.agents.sort());
        owner
    };
    assert_eq!(of_event(1).await, owner("one", &["a", "b"]));
    assert_eq!(of_event(3).await, owner("two", &[]));
    assert_eq!(of_event(9).await, None);
    let of_run = store.owner_of_run(run_id(2)).await.unwrap();
    assert_eq!(of_run, Some(RunOwner { agent: "b".to_owned(), parent: None }));
    assert_eq!(store.owner_of_run(run_id(9)).await.unwrap(), None);
}

async fn outcomes_of_many_events_are_those_of_each(store: Arc<dyn Store>) {
    for n in 1..=3 {
        let starts = vec![start("triage", 2 * n, Admission::Grow), start("fixer", 2 * n + 1, Admission::Reject(1))];
        accept(&*store, NewEvent { starts, ..event(n) }).await;
    }
    accept(&*store, event(4)).await;
    let events = store.events(at_most(9)).await.unwrap();
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    let all = store.outcomes_of([&seqs[..], &seqs[..1], &[1_000_000, -1]].concat()).await.unwrap();
    for event in &events {
        let each = store.outcomes(event.id).await.unwrap();
        assert_eq!(all.get(&event.seq).cloned().unwrap_or_default(), each);
    }
    let agents = |seq: i64| all[&seq].iter().map(|outcome| outcome.agent.as_str()).collect::<Vec<_>>();
    assert_eq!((all.len(), agents(seqs[1])), (3, vec!["fixer", "triage"]));
    assert!(store.outcomes_of(vec![]).await.unwrap().is_empty());
}

async fn headers_read_back_without_the_body(store: Arc<dyn Store>) {
    for (n, size) in [(1, 0), (2, 10_000), (3, 2_000_000)] {
        let headers = format!(r#"{{"x-number":"{n}"}}"#);
        accept(&*store, NewEvent { headers: headers.clone(), body: Bytes::from(vec![b'a'; size]), ..event(n) }).await;
        assert_eq!(store.headers(event_id(n)).await.unwrap(), Some(headers));
    }
    assert_eq!(store.headers(event_id(4)).await.unwrap(), None);
}

async fn pages_of_runs_miss_nothing(store: Arc<dyn Store>) {
    for n in 1..=25 {
        accept(&*store, starting(["a", "b", "c"][n as usize % 3], n)).await;
    }
    claim(&*store, "a", &[1, 2, 3].map(lease)).await;
    let unlike = [RunQuery::default(), RunQuery { agents: Some(vec!["a".to_owned()]), ..RunQuery::default() }];
    for (query, expected) in unlike.into_iter().zip([(1..=25).collect::<Vec<u32>>(), (3..=24).step_by(3).collect()]) {
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let page = store.runs(RunQuery { before, limit: 3, ..query.clone() }).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.seq);
            seen.extend(page.iter().map(|run| run.id));
        }
        assert_eq!(seen, expected.into_iter().rev().map(run_id).collect::<Vec<_>>());
    }
}

async fn runs_are_found_by_agent_state_and_event(store: Arc<dyn Store>) {
    let starts = vec![start("a", 1, Admission::Grow), start("b", 2, Admission::Grow)];
    accept(&*store, NewEvent { starts, ..event(1) }).await;
    accept(&*store, starting("a", 3)).await;
    claim(&*store, "a", &[lease(1)]).await;
    let all = RunQuery { limit: 9, ..RunQuery::default() };
    let a = Some(vec!["a".to_owned()]);
    let found = |query| {
        let store = Arc::clone(&store);
        async move { runs(&*store, query).await }
    };
    assert_eq!(found(RunQuery { agents: a.clone(), ..all.clone() }).await, [3, 1].map(run_id));
    assert_eq!(found(RunQuery { state: Some(State::Queued), ..all.clone() }).await, [3, 2].map(run_id));
    let running = RunQuery { agents: a.clone(), state: Some(State::Running), ..all.clone() };
    assert_eq!(found(running).await, [run_id(1)]);
    assert_eq!(found(RunQuery { event: Some(event_id(1)), ..all.clone() }).await, [2, 1].map(run_id));
    let of_agent = RunQuery { event: Some(event_id(1)), agents: a, ..all.clone() };
    assert_eq!(found(of_agent).await, [run_id(1)]);
    assert_eq!(found(RunQuery { event: Some(event_id(1)), limit: 1, ..all }).await, [run_id(2)]);
}

async fn runs_are_found_by_key(store: Arc<dyn Store>) {
    for (n, agent, key) in
        [(1, "a", Some("x")), (2, "a", None), (3, "b", Some("x")), (4, "a", Some("y")), (5, "a", Some("x"))]
    {
        let start = Start { key: key.map(ToOwned::to_owned), ..start(agent, n, Admission::Grow) };
        accept(&*store, NewEvent { starts: vec![start], ..event(n) }).await;
    }
    claim(&*store, "b", &[lease(1)]).await;
    let x = RunQuery { key: Some("x".to_owned()), limit: 9, ..RunQuery::default() };
    assert_eq!(runs(&*store, x.clone()).await, [5, 3, 1].map(run_id));
    assert_eq!(
        runs(&*store, RunQuery { agents: Some(vec!["a".to_owned()]), limit: 1, ..x.clone() }).await,
        [run_id(5)]
    );
    assert_eq!(runs(&*store, RunQuery { state: Some(State::Running), ..x.clone() }).await, [run_id(3)]);
    assert_eq!(runs(&*store, RunQuery { event: Some(event_id(4)), ..x.clone() }).await, []);
    let third = run(&*store, 3).await;
    assert_eq!(third.key.as_deref(), Some("x"));
    assert_eq!(runs(&*store, RunQuery { before: Some(third.seq), ..x }).await, [run_id(1)]);
}

async fn dead_letters_are_found(store: Arc<dyn Store>) {
    for (n, state) in [(1, State::Failed), (2, State::Succeeded), (3, State::Failed)] {
        accept(&*store, starting("triage", n)).await;
        claim(&*store, "triage", &[lease(1)]).await;
        assert!(store.finish(finish(run_id(n), lease(1), state)).await.unwrap());
    }
    let dead = RunQuery { dead_letter: true, limit: 9, ..RunQuery::default() };
    assert_eq!(runs(&*store, dead.clone()).await, [3, 1].map(run_id));
    assert_eq!(runs(&*store, RunQuery { agents: Some(vec!["triage".to_owned()]), ..dead }).await, [3, 1].map(run_id));
}

fn line(attempt: u32, text: &str) -> LogLine {
    LogLine { at: at(3), attempt, stream: Stream::Stdout, text: text.to_owned() }
}

async fn log_lines_are_numbered_over_all_attempts(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    accept(&*store, starting("triage", 2)).await;
    let system = LogLine { stream: Stream::System, ..line(1, "ü\u{0}\u{1b}[31m \"quoted\"\\") };
    assert_eq!(store.append_log(run_id(1), vec![line(1, "one"), system.clone()]).await.unwrap(), 2);
    assert_eq!(store.append_log(run_id(2), vec![line(1, "another run's")]).await.unwrap(), 1);
    assert_eq!(store.append_log(run_id(1), vec![]).await.unwrap(), 2);
    assert_eq!(store.append_log(run_id(1), vec![line(2, "three")]).await.unwrap(), 3);
    let all = store.read_log(run_id(1), 0, 100).await.unwrap();
    assert_eq!(all, [(1, line(1, "one")), (2, system), (3, line(2, "three"))]);
    assert_eq!(store.append_log(run_id(9), vec![line(1, "lost")]).await.unwrap(), 0, "there is no such run");
}

async fn a_long_log_is_read_in_pieces(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    let lines: Vec<LogLine> = (1..=1300).map(|n| line(1, &format!("line {n}"))).collect();
    for (piece, last) in [(&lines[..700], 700), (&lines[700..703], 703), (&lines[703..], 1300)] {
        assert_eq!(store.append_log(run_id(1), piece.to_vec()).await.unwrap(), last);
    }
    let mut read = Vec::new();
    loop {
        let after = read.last().map_or(0, |(number, _)| *number);
        let piece = store.read_log(run_id(1), after, 37).await.unwrap();
        if piece.is_empty() {
            break;
        }
        assert!(piece.len() <= 37);
        read.extend(piece);
    }
    assert_eq!(read, (1..).zip(lines).collect::<Vec<_>>());
    assert!(store.read_log(run_id(1), u64::MAX, 5).await.unwrap().is_empty());
}

fn rejection(source: &str, n: i64) -> Rejection {
    Rejection {
        at: at(n),
        source: source.to_owned(),
        code: "signature_mismatch".to_owned(),
        detail: format!("refusal {n}"),
        remote: "192.0.2.1".to_owned(),
        headers: "{}".to_owned(),
        body: None,
        suppressed: 0,
    }
}

async fn only_the_newest_rejections_of_a_source_are_kept(store: Arc<dyn Store>) {
    store.reject(rejection("quiet", 0)).await.unwrap();
    for n in 1..=5 {
        store.reject(rejection("loud", n)).await.unwrap();
    }
    futures_util::future::join_all((6..6 + MOST_REJECTIONS as i64).map(|n| store.reject(rejection("loud", n)))).await;
    let kept = store.rejections(Some("loud".to_owned()), 10 * MOST_REJECTIONS).await.unwrap();
    assert_eq!(kept.len(), MOST_REJECTIONS);
    assert!(kept.iter().all(|kept| kept.at >= at(6)));
    assert_eq!(store.rejections(Some("quiet".to_owned()), 10).await.unwrap(), [rejection("quiet", 0)]);
    assert_eq!(store.rejections(None, 10 * MOST_REJECTIONS).await.unwrap().len(), MOST_REJECTIONS + 1);
}

async fn a_rejection_reads_back_without_its_body(store: Arc<dyn Store>) {
    let whole = Rejection { suppressed: 12, ..rejection("a", 1) };
    let body = Some(Bytes::from_static(b"\xff verified but unreadable"));
    store.reject(Rejection { body, ..whole.clone() }).await.unwrap();
    store.reject(rejection("b", 2)).await.unwrap();
    assert_eq!(store.rejections(None, 9).await.unwrap(), [rejection("b", 2), whole.clone()]);
    assert_eq!(store.rejections(None, 1).await.unwrap(), [rejection("b", 2)]);
    assert_eq!(store.rejections(Some("a".to_owned()), 9).await.unwrap(), [whole]);
}

async fn a_trigger_set_has_one_version_for_good(store: Arc<dyn Store>) {
    let one = store.keep_trigger_set("[1]".to_owned(), at(1)).await.unwrap();
    let two = store.keep_trigger_set("[2]".to_owned(), at(2)).await.unwrap();
    assert!(two > one);
    assert_eq!(store.keep_trigger_set("[1]".to_owned(), at(3)).await.unwrap(), one);
    assert_eq!(store.trigger_set(one).await.unwrap().as_deref(), Some("[1]"));
    assert_eq!(store.trigger_set(two).await.unwrap().as_deref(), Some("[2]"));
}

async fn keys_read_back_oldest_first(store: Arc<dyn Store>) {
    let key = |n: u8, agent: Option<&str>| ApiKey {
        account: agent.is_none().then(|| "platform".to_owned()),
        id: KeyId::new(at(0), [n; 10]),
        name: format!("key {n}"),
        role: if agent.is_some() { "agent" } else { "owner" }.to_owned(),
        agent: agent.map(str::to_owned),
        hash: vec![n; 32],
        created_at: at(i64::from(n)),
        expires_at: agent.map(|_| at(100)),
        last_used_at: None,
    };
    store.put_key(key(2, Some("triage"))).await.unwrap();
    store.put_key(key(1, None)).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [key(1, None), key(2, Some("triage"))]);
    let unknown = KeyId::new(at(9), [9; 10]);
    for second in [7, 5] {
        store.mark_keys_used(vec![(key(1, None).id, at(second)), (unknown, at(7))]).await.unwrap();
    }
    assert_eq!(store.keys().await.unwrap()[0], ApiKey { last_used_at: Some(at(7)), ..key(1, None) });
    assert!(store.remove_key(key(1, None).id).await.unwrap());
    assert!(!store.remove_key(key(1, None).id).await.unwrap(), "it is gone");
    assert_eq!(store.keys().await.unwrap(), [key(2, Some("triage"))]);
}

async fn changes_are_noted_before_they_are_made_and_read_back_newest_first(store: Arc<dyn Store>) {
    let change = |n: i64| Change {
        account: (n == 1).then(|| "platform".to_owned()),
        at: at(n),
        who: format!("key_{n}"),
        name: if n > 2 { "ci" } else { "ops" }.to_owned(),
        role: "owner".to_owned(),
        operation: "POST /v1/pause".to_owned(),
        target: "all".to_owned(),
        remote: "192.0.2.1".to_owned(),
    };
    let mut seqs = Vec::new();
    for n in 1..=4 {
        seqs.push(store.begin_change(change(n)).await.unwrap());
    }
    let refused = ChangeEnd { status: 403, code: Some("not_allowed".to_owned()), target: None };
    store.end_change(seqs[1], refused).await.unwrap();
    let target = Some("run_1".to_owned());
    store.end_change(seqs[2], ChangeEnd { status: 202, code: None, target }).await.unwrap();
    let find = async |query: ChangeQuery| store.changes(ChangeQuery { limit: 10, ..query }).await.unwrap();
    let of = async |query| find(query).await.iter().map(|found| found.change.at).collect::<Vec<_>>();
    let all = find(ChangeQuery::default()).await;
    let stored = |seq, n, status, code: Option<&str>| StoredChange {
        seq,
        change: change(n),
        status,
        code: code.map(str::to_owned),
    };
    assert_eq!(all[0], stored(seqs[3], 4, None, None), "its end is not known");
    let named = Change { target: "run_1".to_owned(), ..change(3) };
    assert_eq!(all[1], StoredChange { change: named, ..stored(seqs[2], 3, Some(202), None) });
    assert_eq!(all[2], stored(seqs[1], 2, Some(403), Some("not_allowed")));
    let who = |who: &str| ChangeQuery { who: Some(who.to_owned()), ..ChangeQuery::default() };
    assert_eq!(of(who("ci")).await, [at(4), at(3)]);
    assert_eq!(of(who("key_2")).await, [at(2)]);
    let between = ChangeQuery { since: Some(at(2)), until: Some(at(4)), ..ChangeQuery::default() };
    assert_eq!(of(between).await, [at(3), at(2)]);
    assert_eq!(of(ChangeQuery { account: Some("platform".to_owned()), ..ChangeQuery::default() }).await, [at(1)]);
    assert_eq!(of(ChangeQuery { before: Some(seqs[2]), ..ChangeQuery::default() }).await, [at(2), at(1)]);
    store.remove_changes(at(4)).await.unwrap();
    assert_eq!(of(ChangeQuery::default()).await, [at(4)]);
    store.remove_changes(at(5)).await.unwrap();
    assert!(store.begin_change(change(5)).await.unwrap() > seqs[3], "a sequence is never given again");
}

async fn uses_of_secrets_add_up(store: Arc<dyn Store>) {
    let used = |credential: &str, deliveries, second| SecretUse {
        source: "acme-github".to_owned(),
        credential: credential.to_owned(),
        deliveries,
        last_at: at(second),
    };
    assert_eq!(store.secret_uses().await.unwrap(), []);
    store.add_secret_uses(vec![used("old", 3, 9), used("new", 1, 2)]).await.unwrap();
    store.add_secret_uses(vec![used("old", 2, 5)]).await.unwrap();
    store.add_secret_uses(Vec::new()).await.unwrap();
    assert_eq!(store.secret_uses().await.unwrap(), [used("new", 1, 2), used("old", 5, 9)]);
}

async fn stats_count_runs_and_tell_the_oldest_queued(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, starting("triage", n)).await;
    }
    accept(&*store, starting("other", 4)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.events, 4);
    let mut counted = stats.runs;
    counted.sort_by_key(|(agent, state, _)| (agent.clone(), state.as_str()));
    let expected = [("other", State::Queued, 1), ("triage", State::Queued, 2), ("triage", State::Running, 1)];
    assert_eq!(counted, expected.map(|(agent, state, count)| (agent.to_owned(), state, count)));
    assert_eq!(stats.oldest_queued, [("other".to_owned(), at(4)), ("triage".to_owned(), at(2))]);
}

async fn tallies_follow_runs_through_their_life(store: Arc<dyn Store>) {
    assert_eq!(store.tallies().await.unwrap(), Tallies::default());
    for n in 1..=4 {
        accept(&*store, starting("triage", n)).await;
    }
    let of = |state, count| vec![("triage".to_owned(), state, count)];
    let tallies = store.tallies().await.unwrap();
    assert_eq!(tallies.runs, of(State::Queued, 4));
    assert_eq!(tallies.oldest_queued, [("triage".to_owned(), at(1))]);
    claim(&*store, "triage", &[1, 2, 3].map(lease)).await;
    store.finish(finish(run_id(1), lease(1), State::Failed)).await.unwrap();
    store.finish(finish(run_id(2), lease(2), State::Waiting)).await.unwrap();
    store.finish(finish(run_id(3), lease(3), State::Succeeded)).await.unwrap();
    store.cancel(run_id(4), "ann".to_owned(), at(1)).await.unwrap();
    let mut tallies = store.tallies().await.unwrap();
    tallies.ended.sort_by_key(|(_, state, _)| state.as_str());
    assert_eq!(tallies.runs, of(State::Waiting, 1));
    let ended = [State::Cancelled, State::Failed, State::Succeeded].map(|state| ("triage".to_owned(), state, 1));
    assert_eq!(tallies.ended, ended);
    assert_eq!(tallies.dead_letters, [("triage".to_owned(), 1)]);
    assert_eq!(tallies.oldest_queued, []);
}

async fn a_store_tells_what_it_takes_on_the_disk(store: Arc<dyn Store>) {
    let before = store.space().await.unwrap();
    assert!(before.database > 0 && before.available > 0, "{before:?}");
    for n in 1..=20 {
        accept(&*store, NewEvent { body: noise(20_000).into(), ..event(n) }).await;
    }
    let after = store.space().await.unwrap();
    assert!(after.database + after.log > before.database + before.log + 300_000, "{before:?} {after:?}");
}

/// Bytes that no compression makes less.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

async fn a_healthy_store_says_so_and_counts_its_commits(store: Arc<dyn Store>) {
    let read = || {
        let figures = store.figures();
        let seconds = (figures.commit_seconds.sum(), figures.sync_seconds.sum());
        (figures.operations.count(), figures.operations.sum(), seconds)
    };
    let before = read();
    store.health(at(1)).await.unwrap();
    let after = read();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1.0));
    assert!(after.2.0 > before.2.0 && after.2.1 > before.2.1, "{before:?} {after:?}");
    assert!(after.2.0 >= after.2.1, "bringing it to the disk is part of the commit");
}

async fn a_dead_letter_is_untold_until_it_is_taken_off(store: Arc<dyn Store>) {
    for n in 1..=4 {
        accept(&*store, starting("triage", n)).await;
    }
    claim(&*store, "triage", &[1, 2, 3, 4].map(lease)).await;
    for (n, state) in [(1, State::Failed), (2, State::Succeeded), (3, State::Waiting), (4, State::Failed)] {
        assert!(store.finish(finish(run_id(n), lease(n as u8), state)).await.unwrap());
    }
    let untold = store.untold(10).await.unwrap();
    let runs: Vec<_> = untold.iter().map(|letter| (letter.run.id, letter.source.as_str())).collect();
    assert_eq!(runs, [(run_id(1), "acme-github"), (run_id(4), "acme-github")], "oldest first");
    assert_eq!(store.untold(1).await.unwrap(), untold[..1]);
    store.note(Notes { told: Some(untold[0].number), ..Notes::default() }).await.unwrap();
    assert_eq!(store.untold(10).await.unwrap(), untold[1..]);
    store.note(Notes { told: Some(untold[1].number), ..Notes::default() }).await.unwrap();
    assert_eq!(store.untold(10).await.unwrap(), []);
}

async fn a_dead_letter_that_is_gone_or_forgotten_hides_no_other(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, starting("triage", n)).await;
    }
    claim(&*store, "triage", &[1, 2, 3].map(lease)).await;
    for n in 1..=3 {
        assert!(store.finish(finish(run_id(n), lease(n as u8), State::Failed)).await.unwrap());
    }
    let first = store.event(event_id(1)).await.unwrap().unwrap().seq;
    assert_eq!(store.remove(vec![first], at(1000)).await.unwrap().runs.len(), 1);
    store.forget(event_id(2), at(300)).await.unwrap();
    let untold = store.untold(10).await.unwrap();
    let runs: Vec<_> = untold.iter().map(|letter| (letter.run.id, letter.run.reason.as_deref())).collect();
    assert_eq!(runs, [(run_id(2), None), (run_id(3), Some("exit 1"))]);
    store.note(Notes { told: Some(untold[1].number), ..Notes::default() }).await.unwrap();
    assert_eq!(store.untold(10).await.unwrap(), []);
}

async fn notes_are_kept_replaced_and_dropped(store: Arc<dyn Store>) {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let kept = vec![pair("b", "1"), pair("a", "1"), pair("c", "1")];
    store.note(Notes { kept, ..Notes::default() }).await.unwrap();
    let notes = Notes { kept: vec![pair("a", "2")], dropped: vec!["b".to_owned(), "x".to_owned()], told: None };
    store.note(notes).await.unwrap();
    assert_eq!(store.notes("").await.unwrap(), [pair("a", "2"), pair("c", "1")]);
    assert_eq!(store.notes("c").await.unwrap(), [pair("c", "1")]);
    assert_eq!(store.notes("b").await.unwrap(), []);
}
