//! Requests that are to be carried out once.

use super::*;
use crate::store::{Begun, OnceAnswer, OnceEnd, OnceRequest};

every_store_keeps!(
    a_request_is_begun_once_and_answered_as_the_first_time,
    the_same_key_is_another_one_of_somebody_else_and_never_means_something_else,
    a_request_that_was_refused_may_be_made_again,
    requests_are_kept_as_long_as_events_are,
);

fn request(whose: &str, digest: u8) -> OnceRequest {
    OnceRequest { whose: whose.to_owned(), key: "key-1".to_owned(), digest: vec![digest; 32] }
}

fn end(whose: &str, answer: Option<OnceAnswer>) -> OnceEnd {
    OnceEnd { whose: whose.to_owned(), key: "key-1".to_owned(), answer, at: at(2) }
}

fn answer() -> OnceAnswer {
    OnceAnswer { status: 201, body: "{\"id\":1}".to_owned() }
}

async fn a_request_is_begun_once_and_answered_as_the_first_time(store: Arc<dyn Store>) {
    assert_eq!(store.begin_once(request("ann", 1), at(1)).await.unwrap(), Begun::First);
    assert_eq!(store.begin_once(request("ann", 1), at(1)).await.unwrap(), Begun::Unknown);
    store.end_once(end("ann", Some(answer()))).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.begin_once(request("ann", 1), at(3)).await.unwrap(), Begun::Answered(answer()));
    }
}

async fn the_same_key_is_another_one_of_somebody_else_and_never_means_something_else(store: Arc<dyn Store>) {
    assert_eq!(store.begin_once(request("ann", 1), at(1)).await.unwrap(), Begun::First);
    assert_eq!(store.begin_once(request("bob", 2), at(1)).await.unwrap(), Begun::First);
    store.end_once(end("ann", Some(answer()))).await.unwrap();
    assert_eq!(store.begin_once(request("ann", 2), at(3)).await.unwrap(), Begun::Other);
    assert_eq!(store.begin_once(request("bob", 2), at(3)).await.unwrap(), Begun::Unknown);
}

async fn a_request_that_was_refused_may_be_made_again(store: Arc<dyn Store>) {
    assert_eq!(store.begin_once(request("ann", 1), at(1)).await.unwrap(), Begun::First);
    store.end_once(end("ann", None)).await.unwrap();
    assert_eq!(store.begin_once(request("ann", 2), at(1)).await.unwrap(), Begun::First);
}

async fn requests_are_kept_as_long_as_events_are(store: Arc<dyn Store>) {
    store.begin_once(request("ann", 1), at(1)).await.unwrap();
    store.end_once(end("ann", Some(answer()))).await.unwrap();
    store.remove_records(at(2), 1, at(100)).await.unwrap();
    assert_eq!(store.begin_once(request("ann", 1), at(3)).await.unwrap(), Begun::Answered(answer()));
    store.remove_records(at(3), 1, at(100)).await.unwrap();
    assert_eq!(store.begin_once(request("ann", 1), at(3)).await.unwrap(), Begun::First);
}
