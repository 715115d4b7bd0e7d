//! What only this store has: files, locks, full disks, the group commit.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use doorbell_core::run::State;
use futures_util::FutureExt as _;
use rusqlite::{Connection, ffi, params};
use tempfile::TempDir;

use super::fault::Fault;
use super::rows::delivery_digest;
use super::{Options, SqliteStore};
use crate::store::conformance::{
    accept, active, at, claim, event, event_id, finish, lease, run, run_id, starting, state,
};
use crate::store::{Error, EventQuery, Lease, LogLine, NewEvent, Room, Store, Stream};

mod history;
mod model;
mod search;
mod simulation;
mod turns;

/// A folder of its own, and the database in it.
pub(super) struct Place {
    _folder: TempDir,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("doorbell.db");
        Self { _folder: folder, path }
    }

    /// Where nothing is written to a disk, if the system has such a place.
    fn in_memory() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("doorbell.db");
        Self { _folder: folder, path }
    }

    pub(super) async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path).await.unwrap()
    }

    async fn open_with(&self, options: Options) -> SqliteStore {
        SqliteStore::open_with(&self.path, options).await.unwrap()
    }

    fn log(&self) -> PathBuf {
        self.path.with_extension("db-wal")
    }
}

/// Waits until something holds, which a thread of the store brings about.
pub(super) fn eventually(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never came about");
        std::thread::yield_now();
    }
}

/// Changes the tables behind the store's back.
async fn meddle(store: &SqliteStore, statements: &'static str) {
    store.writer.write(move |work| Ok(work.sql.execute_batch(statements)?)).await.unwrap();
}

/// Event `n` with a body that takes `size` bytes on the disk.
fn bulky(n: u32, size: u32) -> NewEvent {
    let mut state = u64::from(n) + 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    NewEvent { body: noise.take(size as usize).collect::<Vec<u8>>().into(), ..starting("triage", n) }
}

#[tokio::test]
async fn opening_again_keeps_everything() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, starting("triage", 1)).await;
    claim(&store, "triage", &[lease(1)]).await;
    let line = LogLine { at: at(1), attempt: 1, stream: Stream::Stderr, text: "hello".to_owned() };
    store.append_log(run_id(1), vec![line.clone()]).await.unwrap();
    let version = store.keep_trigger_set("[]".to_owned(), at(1)).await.unwrap();
    let before = (run(&store, 1).await, store.body(event_id(1)).await.unwrap());
    drop(store);
    let store = place.open().await;
    assert_eq!((run(&store, 1).await, store.body(event_id(1)).await.unwrap()), before);
    assert_eq!(store.read_log(run_id(1), 0, 9).await.unwrap(), [(1, line)]);
    assert_eq!(store.trigger_set(version).await.unwrap().as_deref(), Some("[]"));
    assert!(accept(&store, event(1)).await.duplicate);
    assert!(store.finish(finish(run_id(1), lease(1), State::Succeeded)).await.unwrap(), "the lease is still ours");
    assert!(store.event(event_id(1)).await.unwrap().unwrap().seq > 0);
}

#[tokio::test]
async fn what_was_answered_survives_the_end_of_the_process() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, starting("triage", 1)).await;
    // What a crash leaves: the files as they are, with nothing closed.
    let after = Place::new();
    std::fs::create_dir(after.path.parent().unwrap()).unwrap();
    std::fs::copy(&place.path, &after.path).unwrap();
    std::fs::copy(place.log(), after.log()).unwrap();
    let found = after.open().await;
    assert_eq!(state(&found, 1).await, State::Queued);
}

#[tokio::test]
async fn a_damaged_run_that_cannot_be_given_up_does_not_take_the_others_of_its_claim_with_it() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..3 {
        accept(&store, starting("triage", n)).await;
    }
    let damage = "UPDATE bodies SET size = size + 1 WHERE event_seq = 1;
                  CREATE TRIGGER stubborn BEFORE UPDATE OF state ON runs WHEN new.state = 5
                  BEGIN SELECT RAISE(ABORT, 'for the test'); END";
    meddle(&store, damage).await;
    let claimed = claim(&store, "triage", &[lease(1), lease(2)]).await;
    assert_eq!(claimed.iter().map(|one| one.run.id).collect::<Vec<_>>(), [run_id(2)]);
}

#[tokio::test]
async fn closing_leaves_one_file_with_everything_in_it() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(1)).await;
    drop(store);
    assert_eq!(std::fs::metadata(place.log()).map_or(0, |log| log.len()), 0);
    let sql = Connection::open(&place.path).unwrap();
    assert_eq!(sql.query_row("SELECT count(*) FROM events", (), |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[tokio::test]
async fn two_gateways_never_share_a_database() {
    let place = Place::new();
    let store = place.open().await;
    let refused = format!("{:#}", SqliteStore::open(&place.path).await.unwrap_err());
    assert!(refused.contains("another gateway uses") && refused.contains("stop it first"), "{refused}");
    drop(store);
    place.open().await;
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    meddle(&store, "INSERT INTO migrations VALUES (1000, x'00')").await;
    drop(store);
    let refused = format!("{:#}", SqliteStore::open(&place.path).await.unwrap_err());
    assert!(refused.contains("newer"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let place = Place::new();
    std::fs::create_dir(place.path.parent().unwrap()).unwrap();
    std::fs::write(&place.path, "something else, long enough to be looked at as a header of some kind".repeat(9))
        .unwrap();
    let before = std::fs::read(&place.path).unwrap();
    assert!(SqliteStore::open(&place.path).await.is_err());
    assert_eq!(std::fs::read(&place.path).unwrap(), before);
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(1)).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.path.parent().unwrap()), 0o700);
    for file in std::fs::read_dir(place.path.parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_full_disk_stores_nothing_and_is_written_to_again_once_it_has_room() {
    let place = Place::new();
    let store = place.open().await;
    let limit = |pages: u32| {
        store
            .writer
            .write(move |work| Ok(work.sql.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(()))?))
    };
    limit(100).await.unwrap();
    let deliveries = (0..100).map(|n| store.accept(vec![bulky(n, 20_000)]));
    let answers = futures_util::future::join_all(deliveries).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..100).contains(&stored), "{stored}");
    for (n, answer) in (0..).zip(&answers) {
        assert!(matches!(answer, Ok(_) | Err(Error::Unavailable(_))), "{answer:?}");
        let found = store.body(event_id(n)).await.unwrap().map(|body| body.bytes);
        assert_eq!(found, answer.is_ok().then(|| bulky(n, 20_000).body), "event {n}");
    }
    limit(1_000_000).await.unwrap();
    for n in 0..100 {
        let accepted = accept(&store, bulky(n, 20_000)).await;
        assert_eq!(accepted.duplicate, answers[n as usize].is_ok(), "event {n}");
    }
    assert_eq!(store.stats().await.unwrap().events, 100);
}

#[tokio::test]
async fn a_locked_database_is_unavailable_until_it_is_free() {
    let place = Place::new();
    let store = place.open_with(Options { patience: std::time::Duration::from_millis(20), ..Options::default() }).await;
    let other = Connection::open(&place.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(matches!(store.accept(vec![starting("triage", 1)]).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.health(at(1)).await, Err(Error::Unavailable(_))));
    assert_eq!(store.event(event_id(1)).await.unwrap(), None, "reading goes on");
    other.execute_batch("ROLLBACK").unwrap();
    store.health(at(1)).await.unwrap();
    assert!(!accept(&store, starting("triage", 1)).await.duplicate);
}

#[tokio::test]
async fn a_broken_connection_is_replaced() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(1)).await;
    let broken = store
        .writer
        .write(|work| {
            work.sql.execute_batch("DELETE FROM events")?;
            Err::<(), _>(Fault::Sql(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)))
        })
        .await;
    assert!(matches!(broken, Err(Error::Unavailable(_))));
    assert!(accept(&store, event(1)).await.duplicate);
    assert!(!accept(&store, event(2)).await.duplicate);
}

#[tokio::test]
async fn a_database_that_was_moved_away_is_unavailable_and_not_made_anew() {
    let place = Place::new();
    let store = place.open().await;
    std::fs::rename(&place.path, place.path.with_extension("moved")).unwrap();
    let broken = || Err::<(), _>(Fault::Sql(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)));
    assert!(store.writer.write(move |_| broken()).await.is_err());
    assert!(matches!(store.accept(vec![event(1)]).await, Err(Error::Unavailable(_))));
    assert!(!place.path.exists());
    std::fs::rename(place.path.with_extension("moved"), &place.path).unwrap();
    accept(&store, event(1)).await;
}

#[tokio::test]
async fn nothing_is_accepted_into_a_log_that_is_not_there_any_more() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(1)).await;
    accept(&store, event(2)).await;
    let log = format!("{}-wal", place.path.display());
    std::fs::remove_file(&log).unwrap();
    let refused = store.accept(vec![event(3)]).await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(_)) && refused.with_causes().contains("-wal"), "{refused:?}");
    drop(store);
    let store = place.open().await;
    assert!(accept(&store, event(2)).await.duplicate, "what was in it is kept by an orderly end");
    assert!(!accept(&store, event(3)).await.duplicate);
}

#[tokio::test]
async fn nothing_is_accepted_into_a_file_that_is_not_there_any_more() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(1)).await;
    let moved = place.path.with_extension("moved");
    std::fs::rename(&place.path, &moved).unwrap();
    let refused = store.accept(vec![event(2)]).await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(_)) && refused.with_causes().contains("is gone"), "{refused:?}");
    assert!(store.health(at(1)).await.is_err());
    std::fs::copy(&moved, &place.path).unwrap();
    let refused = store.accept(vec![event(2)]).await.unwrap_err();
    assert!(refused.with_causes().contains("was replaced"), "{refused:?}");
    std::fs::rename(&moved, &place.path).unwrap();
    assert!(!accept(&store, event(2)).await.duplicate);
    assert!(accept(&store, event(1)).await.duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_log_stays_bounded() {
    let place = Place::new();
    let store = place.open_with(Options { log_pages: 64, ..Options::default() }).await;
    for wave in 0..60 {
        let deliveries = (0..32).map(|n| store.accept(vec![bulky(wave * 32 + n, 8_000)]));
        assert!(futures_util::future::join_all(deliveries).await.into_iter().all(|answer| answer.is_ok()));
    }
    let (log, database) = (place.log().metadata().unwrap().len(), place.path.metadata().unwrap().len());
    assert!(database > 10 << 20, "{database}");
    assert!(log < 4 << 20, "{log} bytes, where 15 MiB were written");
}

#[tokio::test]
async fn a_reader_that_stays_does_not_stop_the_writer() {
    let place = Place::new();
    let store = place.open_with(Options { log_pages: 16, ..Options::default() }).await;
    accept(&store, event(0)).await;
    let reader = Connection::open(&place.path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events;").unwrap();
    for n in 1..100 {
        accept(&store, bulky(n, 8_000)).await;
    }
    reader.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.stats().await.unwrap().events, 100);
}

/// An operation that the writer is busy with until the sender is dropped.
fn keep_busy(store: &SqliteStore) -> (mpsc::Sender<()>, impl Future<Output = Result<(), Error>>) {
    let (go, wait) = mpsc::channel();
    let busy = store.writer.write(move |_| {
        let _ = wait.recv();
        Ok(())
    });
    (go, busy)
}

#[tokio::test]
async fn the_room_of_a_delivery_is_held_until_it_is_stored_whether_somebody_waits_or_not() {
    let place = Place::new();
    let store = place.open().await;
    let (go, busy) = keep_busy(&store);
    let room: Room = std::sync::Arc::new(());
    let held = std::sync::Arc::downgrade(&room);
    let delivery = store.accept(vec![NewEvent { room: Some(room), ..event(1) }]);
    // Both are handed in, and then the sender hangs up.
    assert!(busy.now_or_never().is_none() && delivery.now_or_never().is_none());
    assert_eq!(held.strong_count(), 1);
    drop(go);
    store.writer.write(|_| Ok(())).await.unwrap();
    assert_eq!((held.strong_count(), store.stats().await.unwrap().events), (0, 1));
}

#[tokio::test]
async fn one_bad_operation_does_not_fail_its_neighbours() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(5)).await;
    // While the writer is kept busy, the others gather to one batch.
    let (go, busy) = keep_busy(&store);
    let clash = |n| if n == 5 { NewEvent { id: event_id(5), ..event(1005) } } else { starting("triage", n) };
    let deliveries = futures_util::future::join_all((1..=10).map(|n| store.accept(vec![clash(n)])));
    let let_go = async move { drop(go) };
    let before = store.figures().operations.sum();
    let (_, answers, ()) = futures_util::future::join3(busy, deliveries, let_go).await;
    for (n, answer) in (1..).zip(answers) {
        assert_eq!(answer.is_err(), n == 5, "delivery {n}: {answer:?}");
    }
    let after = store.figures().operations.sum();
    // How they are spread over commits is chance; the busy one and the nine good ones are committed.
    assert_eq!(after - before, 10.0);
    assert_eq!(claim(&store, "triage", &[lease(1); 20]).await.len(), 9);
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let place = Place::new();
    let store = place.open().await;
    let (go, busy) = keep_busy(&store);
    let deliveries = futures_util::future::join_all((1..=30).map(|n| store.accept(vec![event(n)])));
    let (_, answers, ()) = futures_util::future::join3(busy, deliveries, async move { drop(go) }).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    let operations = store.figures().operations;
    assert_eq!(operations.sum(), 31.0);
    assert!(operations.count() <= 3, "{operations:?}");
}

#[tokio::test]
async fn damaged_rows_are_errors() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..=3 {
        accept(&store, NewEvent { body: Bytes::from(vec![b'a'; 5000]), ..starting("triage", n) }).await;
    }
    meddle(&store, "UPDATE events SET id = x'0102' WHERE seq = 1").await;
    meddle(&store, "UPDATE bodies SET size = 1 << 60 WHERE event_seq = 2").await;
    meddle(&store, "UPDATE runs SET state = 99 WHERE seq = 3").await;
    let all = EventQuery { limit: 9, ..EventQuery::default() };
    assert!(matches!(store.events(all).await, Err(Error::Corrupt(_))));
    assert!(matches!(store.body(event_id(2)).await, Err(Error::Corrupt(_))));
    assert!(matches!(store.run(run_id(3)).await, Err(Error::Corrupt(_))));
    assert!(matches!(store.cancel(run_id(3), "ann".to_owned(), at(1)).await, Err(Error::Corrupt(_))));
    meddle(&store, "UPDATE claimed_keys SET event_seq = 77").await;
    assert!(matches!(store.accept(vec![event(2)]).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn what_was_delivered_before_keys_had_an_order_is_a_duplicate_until_it_is_removed() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..=2 {
        accept(&store, event(n)).await;
    }
    meddle(&store, "DELETE FROM claimed_keys WHERE event_seq = 1").await;
    drop(store);
    let old = params![delivery_digest(&event(1).source, &event(1).delivery_keys[0])];
    let sql = Connection::open(&place.path).unwrap();
    sql.execute("INSERT INTO delivery_digests (digest, event_seq) VALUES (?1, 1)", old).unwrap();
    drop(sql);
    let store = place.open().await;
    let keys = vec!["new".to_owned(), event(1).delivery_keys.remove(0)];
    let again = accept(&store, NewEvent { delivery_keys: keys, ..event(3) }).await;
    assert_eq!((again.event, again.duplicate), (event_id(1), true));
    let again = accept(&store, NewEvent { delivery_keys: vec!["new".to_owned()], ..event(4) }).await;
    assert_eq!(again.event, event_id(1), "its other key is the first event's now");
    assert_eq!(store.remove(vec![1], at(900)).await.unwrap().events, 1);
    for (n, key) in [(5, event(1).delivery_keys.remove(0)), (6, "new".to_owned())] {
        assert!(!accept(&store, NewEvent { delivery_keys: vec![key], ..event(n) }).await.duplicate);
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_read_fails_and_lets_the_next_one_through() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..=4 {
        accept(&store, NewEvent { body: Bytes::from(vec![b'a'; 5000]), ..starting("triage", n) }).await;
    }
    meddle(&store, "UPDATE bodies SET data = x'0102' WHERE event_seq = 1").await;
    meddle(&store, "DELETE FROM bodies WHERE event_seq = 2").await;
    meddle(&store, "UPDATE events SET context = x'ff' WHERE seq = 3").await;
    let claimed = claim(&store, "triage", &[1, 2, 3, 4].map(lease)).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.run.id).collect::<Vec<_>>(), [run_id(4)]);
    for n in 1..=3 {
        let (run, attempts) = store.run(run_id(n)).await.unwrap().unwrap();
        assert_eq!((run.state, run.dead_letter), (State::Failed, true), "run {n}");
        assert!(attempts.iter().all(|attempt| attempt.ended_at.is_some()));
    }
    assert_eq!(store.running().await.unwrap().len(), 1);
    // Nor is one that runs already.
    accept(&store, starting("triage", 5)).await;
    claim(&store, "triage", &[lease(5)]).await;
    meddle(&store, "UPDATE runs SET reason = x'ff' WHERE seq = 4").await;
    let running = store.running().await.unwrap();
    assert_eq!(running.iter().map(|running| running.run.id).collect::<Vec<_>>(), [run_id(5)]);
}
