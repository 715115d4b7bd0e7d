//! Moves what was committed from the write-ahead log into the database, off the writing thread.
//!
//! A passive checkpoint copies the bulk while commits go on, but under load never catches up, and so the log would grow
//! without end. Once the log has passed a size, the bulk is copied so, and the little that came meanwhile with the
//! writer waiting; after that the log starts again from its beginning.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::schema;

/// Pages in the log, of 4 KiB each, at which it is emptied: 16 MiB. Measured: with a quarter of it, an event costs a tenth
/// more, because pages that change often are copied more often.
pub(super) const LOG_PAGES: i64 = 4096;

/// What the writing thread and the checkpointing one share.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Held by whoever writes to the log or starts it again: waiting here costs less, and is fairer, than the
    /// database's own locks, which are polled.
    turn: Mutex<()>,
    wish: Mutex<Wish>,
    wished: Condvar,
    /// At how many pages the next checkpoint is due.
    due: AtomicI64,
    log_pages: i64,
    /// Seconds of each checkpoint, for metrics.
    took: Histogram,
    /// Whether the file is to be emptied, not only to be written from its beginning: something in it is forgotten.
    scrub: AtomicBool,
}

/// How long to wait before the log is tried again, when a reader kept it from being emptied of what is forgotten.
const RETRY: Duration = Duration::from_millis(200);
/// By which part of its size the log grows before it is tried again, when a reader kept it from starting again. Most readers are gone
/// by then; for one that stays, each further try comes after twice as much, up to the size.
const SOON: i64 = 16;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Wish {
    #[default]
    Nothing,
    Checkpoint,
    End,
}

impl Checkpointer {
    pub(super) fn new(log_pages: i64, took: Histogram) -> Self {
        Self {
            turn: Mutex::default(),
            wish: Mutex::default(),
            wished: Condvar::new(),
            due: AtomicI64::new(log_pages),
            log_pages,
            took,
            // Whoever had the database before may have been killed before the log was emptied of what is forgotten.
            scrub: AtomicBool::new(true),
        }
    }

    /// Waits until the log may be written to.
    pub(super) fn turn_to_write(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a checkpoint is asked for if the log is long after a commit of this connection.
    pub(super) fn watch(self: &Arc<Self>, sql: &mut Connection) -> rusqlite::Result<()> {
        let this = Arc::clone(self);
        let committed = move |_: &mut Wal, pages| {
            if i64::from(pages) >= this.due.load(Ordering::Relaxed) {
                this.wish(Wish::Checkpoint);
            }
            Ok(())
        };
        sql.wal_hook(Some(committed))
    }

    fn wish(&self, wish: Wish) {
        let mut wanted = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != Wish::End {
            *wanted = wish;
        }
        self.wished.notify_one();
    }

    fn wait_for_wish(&self) -> Wish {
        let wanted = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = |wish: &mut Wish| *wish == Wish::Nothing;
        if self.scrub.load(Ordering::Relaxed) {
            let waited = self.wished.wait_timeout_while(wanted, RETRY, nothing);
            return match *waited.unwrap_or_else(PoisonError::into_inner).0 {
                Wish::Nothing => Wish::Checkpoint,
                wish => wish,
            };
        }
        *self.wished.wait_while(wanted, nothing).unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, sql: &Connection) {
        let soon = (self.log_pages / SOON).max(1);
        let mut longer = soon;
        while self.wait_for_wish() != Wish::End {
            let due = match self.empty_log(sql) {
                Ok(log) if log.busy => {
                    let due = self.log_pages.max(log.pages + longer);
                    longer = self.log_pages.min(longer * 2);
                    due
                }
                Ok(_) => {
                    longer = soon;
                    self.log_pages
                }
                Err(error) => {
                    tracing::warn!(%error, "the write-ahead log was not emptied; it grows until it can be");
                    self.due.load(Ordering::Relaxed) + self.log_pages
                }
            };
            self.due.store(due, Ordering::Relaxed);
            // What was wished for meanwhile is done too.
            self.wish(Wish::Nothing);
        }
        // What the end of the process leaves to do is done now, so that the next start is quick.
        if let Err(error) = checkpoint(sql, Mode::Truncate) {
            tracing::warn!(%error, "the write-ahead log stays beside the database");
        }
    }

    fn empty_log(&self, sql: &Connection) -> rusqlite::Result<Log> {
        let begin = Instant::now();
        let scrub = self.scrub.swap(false, Ordering::Relaxed);
        let result = checkpoint(sql, Mode::Passive).and_then(|_| {
            let _turn = self.turn_to_write();
            checkpoint(sql, if scrub { Mode::Truncate } else { Mode::Restart })
        });
        self.took.observe(begin.elapsed().as_secs_f64());
        if scrub && !matches!(result, Ok(Log { busy: false, .. })) {
            self.scrub.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// What a checkpoint found.
struct Log {
    /// Whether somebody was in the way.
    busy: bool,
    /// Pages in the log.
    pages: i64,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Copy what can be copied beside readers and writers.
    Passive,
    /// Copy all, and let the next commit start at the log's beginning.
    Restart,
    /// Copy all, and empty the file.
    Truncate,
}

fn checkpoint(sql: &Connection, mode: Mode) -> rusqlite::Result<Log> {
    let statement = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    sql.prepare_cached(statement)?.query_row((), |row| Ok(Log { busy: row.get(0)?, pages: row.get(1)? }))
}

/// The checkpointing thread.
#[derive(Debug)]
pub(super) struct Running {
    shared: Arc<Checkpointer>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts the thread, with a connection of its own.
///
/// # Errors
/// If the database cannot be opened or there can be no more threads.
pub(super) fn start(path: PathBuf, shared: Arc<Checkpointer>) -> anyhow::Result<Running> {
    // No patience: it must never keep the writer waiting for a reader.
    let connection = schema::open_writer(&path, Duration::ZERO)?;
    let served = Arc::clone(&shared);
    let thread =
        std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || served.serve(&connection))?;
    Ok(Running { shared, thread: Some(thread) })
}

impl Running {
    /// Empties the log's file as soon as no reader is in the way.
    pub(super) fn scrub(&self) {
        self.shared.scrub.store(true, Ordering::Relaxed);
        self.shared.wish(Wish::Checkpoint);
    }
}

impl Drop for Running {
    /// Ends the thread with a last checkpoint. The writer must have ended before.
    fn drop(&mut self) {
        self.shared.wish(Wish::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that empties the write-ahead log panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SIZE: i64 = 64;

    struct Place {
        _folder: tempfile::TempDir,
        path: PathBuf,
        shared: Arc<Checkpointer>,
        writer: Connection,
        _running: Running,
    }

    fn start_one() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::File::create(&path).unwrap();
        let mut writer = schema::open_writer(&path, Duration::from_secs(5)).unwrap();
        writer.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
        let shared = Arc::new(Checkpointer::new(SIZE, Histogram::new([1.0])));
        // Nothing is forgotten here.
        shared.scrub.store(false, Ordering::Relaxed);
        shared.watch(&mut writer).unwrap();
        let running = super::start(path.clone(), Arc::clone(&shared)).unwrap();
        Place { _folder: folder, path, shared, writer, _running: running }
    }

    impl Place {
        fn due(&self) -> i64 {
            self.shared.due.load(Ordering::Relaxed)
        }

        /// Commits until another number of pages is due, and answers it.
        fn write_until_tried(&self) -> i64 {
            let before = self.due();
            let begun = Instant::now();
            while self.due() == before && begun.elapsed() < Duration::from_secs(30) {
                let _turn = self.shared.turn_to_write();
                self.writer.execute("INSERT INTO filler VALUES (zeroblob(4096))", ()).unwrap();
            }
            self.due()
        }
    }

    fn pages_in_log(sql: &Connection) -> i64 {
        sql.query_row("PRAGMA wal_checkpoint(NOOP)", (), |row| row.get(1)).unwrap()
    }

    #[test]
    fn a_log_that_a_reader_kept_is_tried_again_soon_and_then_less_and_less_often() {
        let place = start_one();
        let reader = schema::open_reader(&place.path, Duration::ZERO).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM filler").unwrap();
        let mut last = SIZE;
        for longer in [4, 8, 16, 32, 64, 64] {
            let due = place.write_until_tried();
            let pages = pages_in_log(&place.writer);
            assert!((last + longer..=pages + longer).contains(&due), "{due}, of {pages} pages; before {last}");
            last = due;
        }
        reader.execute_batch("ROLLBACK").unwrap();
        assert_eq!(place.write_until_tried(), SIZE, "and emptied when nobody is in the way");
    }
}
