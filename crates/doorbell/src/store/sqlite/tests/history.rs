//! Forgetting as the files show it, and copies made while the database is written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::store::{Expiry, Forgetting, NewEvent, copy_unused, seal_copy};

/// A text that is found in the files if it is in them: too short to be compressed.
fn marker(n: u32, what: &str) -> String {
    format!("mark-{n}-{what}-{}", "x".repeat(20))
}

fn is_in(path: &Path, text: &str) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Event `n`, with a text of its own wherever a text can be.
fn telling(n: u32) -> NewEvent {
    NewEvent {
        context: format!(r#"{{"title":"{}"}}"#, marker(n, "context")),
        headers: format!(r#"{{"x":"{}"}}"#, marker(n, "headers")),
        body: Bytes::from(marker(n, "body")),
        ..starting("triage", n)
    }
}

const PLACES: [&str; 6] = ["context", "headers", "body", "log", "result", "reason"];

/// Runs that end in another order than they began in, whose logs grow in turns: so rows are moved between pages.
async fn live(store: &SqliteStore, count: u32) {
    for n in 0..count {
        accept(store, telling(n)).await;
    }
    let leases: Vec<Lease> = (0..count).map(|n| lease(u8::try_from(n).unwrap())).collect();
    claim(store, "triage", &leases).await;
    for _ in 0..30 {
        for n in 0..count {
            let text = marker(n, "log");
            let line = LogLine { at: at(1), attempt: 1, stream: Stream::Stdout, text };
            store.append_log(run_id(n), vec![line]).await.unwrap();
        }
    }
    for n in (0..count).rev() {
        let mut end = finish(run_id(n), leases[n as usize], State::Failed);
        end.result = Some(format!("\"{}\"", marker(n, "result")));
        end.transition.reason = marker(n, "reason");
        assert!(store.finish(end).await.unwrap());
    }
}

async fn wait_for_empty_log(place: &Place) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while place.log().metadata().map_or(0, |log| log.len()) > 0 {
        assert!(std::time::Instant::now() < deadline, "the log stays");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_forgotten_is_in_no_byte_of_the_files() {
    let place = Place::new();
    let store = place.open_with(Options { log_pages: 16, ..Options::default() }).await;
    live(&store, 60).await;
    let both = [place.path.clone(), place.log()];
    for what in PLACES {
        assert!(both.iter().any(|file| is_in(file, &marker(7, what))), "{what} was there");
    }
    for n in [7, 30, 31, 32, 59] {
        assert!(matches!(store.forget(event_id(n), at(900)).await.unwrap(), Forgetting::Forgotten(_)));
    }
    wait_for_empty_log(&place).await;
    for n in [7, 30, 31, 32, 59] {
        for what in PLACES {
            assert!(!is_in(&place.path, &marker(n, what)), "{what} of {n} is still there");
        }
    }
    assert!(PLACES.iter().all(|what| is_in(&place.path, &marker(8, what))), "the neighbours are");
}

#[tokio::test]
async fn what_is_forgotten_after_its_neighbours_were_removed_is_in_no_byte_either() {
    let place = Place::new();
    let store = place.open_with(Options { log_pages: 16, ..Options::default() }).await;
    live(&store, 60).await;
    let found = store.expired(Expiry { before: at(900), after: 0 }).await.unwrap().events;
    let mut left: Vec<i64> = found.into_iter().filter(|seq| seq % 10 != 1).collect();
    while !left.is_empty() {
        let step = store.remove(left.clone(), at(900)).await.unwrap();
        left.drain(..step.looked_at);
    }
    for n in [10, 20, 30] {
        assert!(store.body(event_id(n)).await.unwrap().is_some());
        store.forget(event_id(n), at(900)).await.unwrap();
    }
    wait_for_empty_log(&place).await;
    for n in (0..50).filter(|n| *n != 0 && *n != 40) {
        for what in PLACES {
            assert!(!is_in(&place.path, &marker(n, what)), "{what} of {n} is still there");
        }
    }
}

#[tokio::test]
async fn a_reader_puts_the_emptying_of_the_log_off_and_no_more() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, NewEvent { starts: Vec::new(), ..telling(1) }).await;
    let reader = Connection::open(&place.path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events;").unwrap();
    store.forget(event_id(1), at(900)).await.unwrap();
    assert!(is_in(&place.log(), &marker(1, "body")));
    reader.execute_batch("ROLLBACK").unwrap();
    wait_for_empty_log(&place).await;
}

#[tokio::test]
async fn what_was_forgotten_before_an_end_that_could_not_empty_the_log_is_gone_after_the_next_start() {
    let place = Place::new();
    let store = place.open().await;
    live(&store, 60).await;
    let reader = Connection::open(&place.path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events;").unwrap();
    store.forget(event_id(7), at(900)).await.unwrap();
    drop(store);
    // Only what is in the files counts, as after a kill: SQLite empties the log when the last connection is closed.
    let kept = place.path.with_file_name("kept");
    std::fs::create_dir(&kept).unwrap();
    for file in [place.path.clone(), place.log()] {
        std::fs::copy(&file, kept.join(file.file_name().unwrap())).unwrap();
    }
    reader.execute_batch("ROLLBACK").unwrap();
    drop(reader);
    for file in [place.path.clone(), place.log()] {
        std::fs::copy(kept.join(file.file_name().unwrap()), &file).unwrap();
    }
    assert!([place.path.clone(), place.log()].iter().any(|file| is_in(file, &marker(7, "body"))));
    let _store = place.open().await;
    wait_for_empty_log(&place).await;
    for what in PLACES {
        assert!(!is_in(&place.path, &marker(7, what)), "{what} is still there");
    }
}

/// A file to copy to.
fn part(place: &Place) -> PathBuf {
    let file = place.path.with_extension("part");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "").unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_holds_everything_up_to_one_moment() {
    let place = Place::new();
    let store = Arc::new(place.open_with(Options { log_pages: 64, ..Options::default() }).await);
    for wave in 0..40 {
        let deliveries = (0..32).map(|n| store.accept(vec![bulky(wave * 32 + n, 8_000)]));
        assert!(futures_util::future::join_all(deliveries).await.into_iter().all(|answer| answer.is_ok()));
    }
    let (stop, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(1279)));
    let load = {
        let (store, stop, newest) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&newest));
        tokio::spawn(async move {
            let mut n = 1280;
            while !stop.load(Ordering::Relaxed) {
                accept(&*store, bulky(n, 8_000)).await;
                claim(&*store, "triage", &[lease(1)]).await;
                newest.store(n, Ordering::Relaxed);
                n += 1;
            }
            n
        })
    };
    let file = part(&place);
    let before = newest.load(Ordering::Relaxed);
    store.copy(file.clone()).await.unwrap();
    let log = place.log().metadata().unwrap().len();
    // What is stored after the copy was finished is not in it.
    let later = newest.load(Ordering::Relaxed) + 100;
    while newest.load(Ordering::Relaxed) < later {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    let all = load.await.unwrap();
    assert!(log < 4 << 20, "the log has {log} bytes: the copy kept it from starting again");
    let copied = seal_copy(&file, at(2000)).unwrap();
    let found = SqliteStore::open(&file).await.unwrap();
    let events = found.stats().await.unwrap().events;
    assert!(events > u64::from(before) && events < u64::from(all), "{before} {events} {all}");
    assert_eq!(copied.newest.unwrap().0, event_id(u32::try_from(events).unwrap() - 1));
    for n in (0..u32::try_from(events).unwrap()).step_by(97) {
        assert_eq!(found.body(event_id(n)).await.unwrap().unwrap().bytes, bulky(n, 8_000).body);
        assert_eq!(state(&found, n).await, State::Held, "event and run are there together");
    }
    assert_eq!(copied.held, events);
}

#[tokio::test]
async fn runs_that_are_not_over_are_held_in_a_copy() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..=4 {
        accept(&store, starting("triage", n)).await;
    }
    claim(&store, "triage", &[lease(1), lease(2), lease(3)]).await;
    store.finish(finish(run_id(1), lease(1), State::Succeeded)).await.unwrap();
    store.finish(finish(run_id(2), lease(2), State::Waiting)).await.unwrap();
    let file = part(&place);
    store.copy(file.clone()).await.unwrap();
    assert_eq!(seal_copy(&file, at(250)).unwrap().held, 3);
    assert_eq!(state(&store, 3).await, State::Running, "the original goes on");
    let found = SqliteStore::open(&file).await.unwrap();
    found.settle_agents(active(&["triage"]), at(5000)).await.unwrap();
    assert!(found.running().await.unwrap().is_empty() && claim(&found, "triage", &[lease(9)]).await.is_empty());
    let states = futures_util::future::join_all((1..=4).map(|n| state(&found, n))).await;
    assert_eq!(states, [State::Succeeded, State::Held, State::Held, State::Held]);
    let (lost, attempts) = found.run(run_id(3)).await.unwrap().unwrap();
    assert!(lost.reason.unwrap().contains("runs release"));
    assert_eq!((attempts[0].ended.as_deref(), attempts[0].ended_at), (Some("lost"), Some(at(250))));
    assert!(!found.finish(finish(run_id(3), lease(3), State::Succeeded)).await.unwrap(), "no lease goes with it");
    found.release(run_id(3), "ann".to_owned(), at(300)).await.unwrap();
    assert_eq!(claim(&found, "triage", &[lease(9)]).await[0].run.attempt, 2);
}

#[tokio::test]
async fn copies_that_are_asked_for_together_are_made_one_after_the_other() {
    let place = Place::new();
    let store = place.open().await;
    accept(&store, event(1)).await;
    let files = [1, 2, 3].map(|n| place.path.with_extension(n.to_string()));
    files.iter().for_each(|file| std::fs::write(file, "").unwrap());
    let copies = files.iter().map(|file| store.copy(file.clone()));
    assert!(futures_util::future::join_all(copies).await.into_iter().all(|done| done.is_ok()));
    for file in files {
        seal_copy(&file, at(1)).unwrap();
        assert_eq!(SqliteStore::open(&file).await.unwrap().stats().await.unwrap().events, 1);
    }
}

#[tokio::test]
async fn a_copy_that_fails_or_that_nobody_waits_for_leaves_the_store_at_work() {
    let place = Place::new();
    let store = place.open().await;
    for n in 0..200 {
        accept(&store, bulky(n, 20_000)).await;
    }
    let nowhere = place.path.with_file_name("missing").join("file.part");
    assert!(matches!(store.copy(nowhere).await, Err(Error::Target(_))));
    let Err(Error::Target(why)) = store.copy("/dev/full".into()).await else { panic!("the disk is not full") };
    assert!(why.contains("/dev/full") && why.contains("full"), "it names what is full: {why}");
    let file = part(&place);
    drop(store.copy(file.clone()));
    tokio::select! {
        biased;
        _ = store.copy(file) => {}
        () = std::future::ready(()) => {}
    }
    assert!(!accept(&store, event(1000)).await.duplicate);
    drop(store);
    place.open().await;
}

#[tokio::test]
async fn a_database_that_nobody_uses_is_copied_and_one_in_use_is_left_to_its_gateway() {
    let place = Place::new();
    let file = part(&place);
    assert!(copy_unused(&place.path, &file, |_, _| ()).unwrap_err().to_string().contains("there is no database"));
    let store = place.open().await;
    accept(&store, starting("triage", 1)).await;
    assert_eq!(copy_unused(&place.path, &file, |_, _| ()).unwrap(), None);
    // What a crash leaves: a log that is not in the database yet.
    let crashed = Place::new();
    std::fs::create_dir(crashed.path.parent().unwrap()).unwrap();
    std::fs::copy(&place.path, &crashed.path).unwrap();
    std::fs::copy(place.log(), crashed.log()).unwrap();
    let mut told = (0, 1);
    copy_unused(&crashed.path, &file, |copied, all| told = (copied, all)).unwrap().unwrap();
    assert_eq!(seal_copy(&file, at(9)).unwrap().held, 1);
    assert!(told.0 <= told.1);
    assert_eq!(state(&SqliteStore::open(&file).await.unwrap(), 1).await, State::Held);
}

#[tokio::test]
async fn a_damaged_copy_is_not_taken_for_a_backup() {
    let place = Place::new();
    let store = place.open().await;
    for n in 0..50 {
        accept(&store, bulky(n, 8_000)).await;
    }
    let file = part(&place);
    store.copy(file.clone()).await.unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2 / 8192 * 8192;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    assert!(seal_copy(&file, at(9)).is_err());
}

#[tokio::test]
async fn an_old_event_that_cannot_be_read_does_not_keep_the_others() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..=4 {
        accept(&store, starting("triage", n)).await;
        store.cancel(run_id(n), "ann".to_owned(), at(5)).await.unwrap();
    }
    meddle(&store, "UPDATE runs SET id = x'0102' WHERE seq = 1").await;
    let found = store.expired(Expiry { before: at(900), after: 0 }).await.unwrap();
    assert_eq!(found.events, [2, 3]);
    // On a slow machine one step does only the first of them.
    let mut left = vec![2, 3];
    while !left.is_empty() {
        let removed = store.remove(left.clone(), at(900)).await.unwrap();
        assert_eq!((removed.events, removed.runs.len()), (removed.looked_at as u64, removed.looked_at));
        left.drain(..removed.looked_at);
    }
}
