//! The index as the database has it: no text, gone with what is removed, made again.

use std::time::Duration;

use doorbell_core::search::Search;
use proptest::prelude::*;

use super::*;
use crate::store::{Forgetting, Wanted};

async fn fill(store: &SqliteStore, events: std::ops::RangeInclusive<u32>) {
    let title = |n: u32| format!(r#"{{"title":"secretword{n}","repo":"acme/app"}}"#);
    let accepted = events.map(|n| store.accept(vec![NewEvent { context: title(n), ..event(n) }]));
    futures_util::future::join_all(accepted).await.into_iter().for_each(|accepted| drop(accepted.unwrap()));
}

async fn found(store: &SqliteStore, question: &str) -> usize {
    let wanted = Wanted { search: Search::parse(question).unwrap(), bodies: false, within: Duration::from_secs(600) };
    store.search(EventQuery { limit: 50, ..EventQuery::default() }, wanted).await.unwrap().events.len()
}

async fn index(store: &SqliteStore) {
    while store.index().await.unwrap() {}
}

/// Groups, and their parts.
fn rows(place: &Place) -> (i64, i64) {
    let sql = Connection::open(&place.path).unwrap();
    let count = |table: &str| sql.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap();
    (count("search_groups"), count("search_parts"))
}

#[tokio::test]
async fn the_index_holds_no_text_and_goes_with_what_is_forgotten() {
    let place = Place::new();
    let store = place.open().await;
    fill(&store, 1..=2100).await;
    index(&store).await;
    assert_eq!(rows(&place), (1, 64));
    let sql = Connection::open(&place.path).unwrap();
    let parts: Vec<Vec<u8>> = sql
        .prepare("SELECT data FROM search_parts")
        .unwrap()
        .query_map((), |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(parts.iter().all(|part| !part.windows(6).any(|bytes| bytes == b"secret")));
    assert!(matches!(store.forget(event_id(9), at(9000)).await.unwrap(), Forgetting::Forgotten(_)));
    assert_eq!(rows(&place), (0, 0), "in the same transaction");
    index(&store).await;
    assert_eq!(rows(&place), (1, 64));
    assert_eq!((found(&store, "\"secretword9\"").await, found(&store, "\"secretword10\"").await), (0, 1));
}

#[tokio::test]
async fn an_index_goes_on_by_the_next_start_and_one_of_another_format_is_made_again() {
    let place = Place::new();
    let store = place.open().await;
    fill(&store, 1..=6200).await;
    assert!(store.index().await.unwrap());
    drop(store);
    assert_eq!(rows(&place).0, 1);
    Connection::open(&place.path).unwrap().execute("UPDATE search_groups SET format = 0", ()).unwrap();
    let store = place.open().await;
    assert_eq!(found(&store, "secretword6000").await, 1, "looked at itself");
    index(&store).await;
    assert_eq!(rows(&place).0, 3);
    assert_eq!((found(&store, "secretword6000").await, found(&store, "secretword1").await), (1, 50));
}

#[tokio::test]
async fn a_damaged_index_is_no_error() {
    let place = Place::new();
    let store = place.open().await;
    fill(&store, 1..=2100).await;
    index(&store).await;
    Connection::open(&place.path).unwrap().execute("UPDATE search_parts SET data = 'text'", ()).unwrap();
    found(&store, "secretword77").await;
}

#[tokio::test]
async fn a_group_that_lost_something_while_it_was_made_is_not_put_into_the_index() {
    let place = Place::new();
    let store = place.open().await;
    fill(&store, 1..=2100).await;
    let mut making = store.readers.read(super::super::search::index::begin).await.unwrap().unwrap();
    let mut add_next = async || {
        let slice = making.slice()?;
        let events = store.readers.read(move |sql| super::super::search::index::read(sql, slice)).await.unwrap();
        making.add(&events);
        Some(events.len())
    };
    assert!(add_next().await.is_some_and(|events| events > 0));
    assert!(matches!(store.forget(event_id(9), at(9000)).await.unwrap(), Forgetting::Forgotten(_)));
    while add_next().await.is_some() {}
    let made = making.pack();
    store.writer.write(move |work| super::super::search::index::put(work, &made)).await.unwrap();
    assert_eq!(rows(&place), (0, 0));
}

#[test]
fn any_question_is_answered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = Place::in_memory();
    let store = runtime.block_on(async {
        let store = place.open().await;
        fill(&store, 1..=2100).await;
        index(&store).await;
        store
    });
    let pieces = prop::sample::select(vec![
        "\"", "*", ":", "-", "\0", "🚀", "AND", "NEAR(", "a", "acme", " ", "'", "%", "^", "字",
    ]);
    let question = prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat());
    proptest!(ProptestConfig::with_cases(200), |(question in question)| {
        runtime.block_on(found(&store, &question));
    });
}
