//! Search: what events say is found, whether it is indexed yet or not, and no more once it is removed.

use std::time::Duration;

use doorbell_core::search::Search;

use super::*;
use crate::store::{EventQuery, Expiry, Forgetting, Found, Wanted, Within};

every_store_keeps! {
    an_event_is_found_as_soon_as_it_is_stored,
    what_is_indexed_is_found_like_what_is_not,
    filters_hold_for_what_is_found,
    pages_of_a_search_go_on_where_the_one_before_ended,
    bodies_are_looked_into_only_where_that_is_wanted,
    a_search_whose_time_is_over_says_how_far_it_got,
    what_is_forgotten_is_found_no_more,
    what_is_removed_is_found_no_more,
}

const AGES: Duration = Duration::from_secs(600);

async fn search_for(store: &dyn Store, question: &str, bodies: bool, query: EventQuery) -> Found {
    let search = Search::parse(question).unwrap();
    store.search(query, Wanted { search, bodies, within: AGES }).await.unwrap()
}

fn triage() -> Option<Within> {
    Some(Within { agents: vec!["triage".to_owned()], sources: Vec::new() })
}

fn all() -> EventQuery {
    EventQuery { limit: 10_000, ..EventQuery::default() }
}

/// The numbers of the events that say this, newest first.
async fn found(store: &dyn Store, question: &str) -> Vec<u32> {
    numbers(&search_for(store, question, false, all()).await)
}

fn numbers(found: &Found) -> Vec<u32> {
    let number = |event: &crate::store::StoredEvent| event.received_at.since(at(0)).as_secs() as u32;
    found.events.iter().map(number).collect()
}

/// An event with this title.
fn titled(n: u32, title: &str) -> NewEvent {
    let context = serde_json::json!({"number": n, "title": title, "repo": "acme/app", "labels": ["bug", "area-api"]});
    NewEvent { context: context.to_string(), ..event(n) }
}

/// Stored in this order.
async fn accept_many(store: &dyn Store, events: impl Iterator<Item = NewEvent>) {
    let events: Vec<NewEvent> = events.collect();
    for some in events.chunks(500) {
        accept_all(store, some.to_vec()).await;
    }
}

async fn index(store: &dyn Store) -> usize {
    let mut steps = 0;
    while store.index().await.unwrap() {
        steps += 1;
    }
    steps
}

async fn an_event_is_found_as_soon_as_it_is_stored(store: Arc<dyn Store>) {
    assert_eq!(search_for(&*store, "login", false, all()).await, Found::default());
    accept(&*store, titled(1, "Login bug")).await;
    accept(&*store, titled(2, "Crash on start")).await;
    for (question, events) in [
        ("login", &[1][..]),
        ("BUG acme/app", &[2, 1]),
        ("\"login bug\"", &[1]),
        ("#2", &[2]),
        ("acme-git", &[2, 1]),
        ("issues.op", &[2, 1]),
        ("github.issues.opened area-api", &[2, 1]),
        ("delivery-1", &[1]),
        ("login crash", &[]),
        ("", &[2, 1]),
    ] {
        assert_eq!(found(&*store, question).await, events, "{question}");
    }
}

async fn what_is_indexed_is_found_like_what_is_not(store: Arc<dyn Store>) {
    let title = |n: u32| match n {
        7 | 3000 | 5000 => "a needle in it",
        _ if n.is_multiple_of(2) => "even",
        _ => "odd",
    };
    accept_many(&*store, (1..=5000).map(|n| titled(n, title(n)))).await;
    let questions =
        ["needle", "need", "\"a needle\" acme/app", "#3000", "#30", "delivery-4999", "even #2048", "odd even"];
    let mut before = Vec::new();
    for question in questions {
        before.push(found(&*store, question).await);
    }
    assert_eq!(before[0], [5000, 3000, 7]);
    assert!(index(&*store).await > 0);
    assert_eq!(index(&*store).await, 0, "it is done");
    for (question, before) in questions.into_iter().zip(before) {
        assert_eq!(found(&*store, question).await, before, "{question}");
    }
    assert_eq!(found(&*store, "even").await.len(), 2498);
}

async fn filters_hold_for_what_is_found(store: Arc<dyn Store>) {
    accept(&*store, NewEvent { starts: vec![start("triage", 1, Admission::Grow)], ..titled(1, "bug") }).await;
    accept(&*store, NewEvent { event: "push".to_owned(), action: None, ..titled(2, "bug") }).await;
    let skipped = vec![start("other", 3, Admission::Skip("paused".to_owned()))];
    accept(&*store, NewEvent { source: "web".to_owned(), starts: skipped, ..titled(3, "bug") }).await;
    for (query, events) in [
        (all(), &[3, 2, 1][..]),
        (EventQuery { source: Some("web".to_owned()), ..all() }, &[3]),
        (EventQuery { event: Some("issues.opened".to_owned()), ..all() }, &[3, 1]),
        (EventQuery { event: Some("github.push".to_owned()), ..all() }, &[2]),
        (EventQuery { within: triage(), ..all() }, &[1]),
        (EventQuery { outcome: Some("started".to_owned()), ..all() }, &[1]),
        (EventQuery { outcome: Some("skipped".to_owned()), ..all() }, &[3]),
        (EventQuery { outcome: Some("skipped".to_owned()), within: triage(), ..all() }, &[]),
        (EventQuery { outcome: Some("none".to_owned()), ..all() }, &[2]),
        (EventQuery { since: Some(at(2)), ..all() }, &[3, 2]),
        (EventQuery { until: Some(at(2)), ..all() }, &[1]),
    ] {
        assert_eq!(numbers(&search_for(&*store, "bug", false, query.clone()).await), events, "{query:?}");
    }
}

async fn pages_of_a_search_go_on_where_the_one_before_ended(store: Arc<dyn Store>) {
    accept_many(&*store, (1..=2500).map(|n| titled(n, if n % 100 == 0 { "needle" } else { "hay" }))).await;
    index(&*store).await;
    let (mut before, mut pages) = (None, Vec::new());
    loop {
        let page =
            search_for(&*store, "needle", false, EventQuery { before, limit: 10, ..EventQuery::default() }).await;
        pages.push(numbers(&page));
        assert_eq!(page.back_to, None);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let all = |range: std::ops::RangeInclusive<u32>| range.rev().map(|n| n * 100).collect::<Vec<_>>();
    assert_eq!(pages, [all(16..=25), all(6..=15), all(1..=5)]);
}

async fn bodies_are_looked_into_only_where_that_is_wanted(store: Arc<dyn Store>) {
    accept(&*store, NewEvent { body: Bytes::from(r#"{"text":"a\nneedle \u00fc"}"#), ..titled(1, "bug") }).await;
    accept(&*store, NewEvent { body: Bytes::from("text=a+needle&b=%C3%BC"), ..titled(2, "crash") }).await;
    assert!(found(&*store, "needle").await.is_empty());
    let in_bodies = async |question| numbers(&search_for(&*store, question, true, all()).await);
    assert_eq!(in_bodies("needle ü").await, [2, 1]);
    assert_eq!(in_bodies("needle crash").await, [2], "some of it in the context, some in the body");
}

async fn a_search_whose_time_is_over_says_how_far_it_got(store: Arc<dyn Store>) {
    accept_many(&*store, (1..=300).map(|n| titled(n, if n == 1 { "needle" } else { "hay" }))).await;
    let (mut before, mut steps, mut back_to) = (None, 0, at(1000));
    loop {
        let search = Search::parse("needle").unwrap();
        let wanted = Wanted { search, bodies: true, within: Duration::ZERO };
        let page = store.search(EventQuery { before, ..all() }, wanted).await.unwrap();
        if page.next.is_none() {
            assert_eq!((numbers(&page), page.back_to), (vec![1], None), "the last step finds it");
            break;
        }
        assert!(page.events.is_empty() && page.back_to.is_some_and(|at| at < back_to), "each step gets on");
        (before, back_to, steps) = (page.next, page.back_to.unwrap(), steps + 1);
    }
    assert!(steps > 1);
}

async fn what_is_forgotten_is_found_no_more(store: Arc<dyn Store>) {
    accept_many(&*store, (1..=2100).map(|n| titled(n, if n == 5 || n == 2099 { "needle" } else { "hay" }))).await;
    index(&*store).await;
    for n in [5, 2099] {
        assert!(matches!(store.forget(event_id(n), at(9000)).await.unwrap(), Forgetting::Forgotten(_)));
    }
    assert!(found(&*store, "needle").await.is_empty());
    assert!(found(&*store, "delivery-5").await.is_empty(), "nor by what stays of it");
    assert_eq!(found(&*store, "#6").await, [6], "its neighbours are");
    assert_eq!(index(&*store).await, 1, "they are indexed again");
    assert_eq!(found(&*store, "#6").await, [6]);
    assert!(found(&*store, "needle").await.is_empty());
}

async fn what_is_removed_is_found_no_more(store: Arc<dyn Store>) {
    accept_many(&*store, (1..=4200).map(|n| titled(n, "needle"))).await;
    index(&*store).await;
    let mut after = Some(0);
    while let Some(from) = after {
        let expired = store.expired(Expiry { before: at(3001), after: from }).await.unwrap();
        let mut left = expired.events;
        while !left.is_empty() {
            let removed = store.remove(left.clone(), at(3001)).await.unwrap();
            left.drain(..removed.looked_at);
        }
        after = expired.next;
    }
    let there: Vec<u32> = (3001..=4200).rev().collect();
    assert_eq!(found(&*store, "needle").await, there);
    index(&*store).await;
    assert_eq!(found(&*store, "needle").await, there);
    assert!(found(&*store, "#7").await.is_empty());
}
