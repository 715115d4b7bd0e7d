//! A copy of the database while it is written to.
//!
//! The writing thread makes it, a few pages between two commits, on the connection that commits: SQLite then brings
//! pages that change later to the copy by itself, so the copy shows the moment it is finished, and no long-lived reader
//! keeps the write-ahead log from starting again. Whoever asked sets the pace, and brings the copy to the disk bit by
//! bit: all of it at once would keep the commits waiting for the disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use doorbell_core::id::EventId;
use doorbell_core::time::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension, ffi, params};
use tokio::sync::oneshot;

use super::checkpoint::Checkpointer;
use super::fault::Fault;
use super::rows::{self, HELD, RUNNING};
use super::writer::Writer;
use super::{lock, schema};
use crate::store::{Copied, Error};

/// Pages of 4 KiB copied between two commits.
const STEP: i32 = 128;
/// The pause between two steps: so a copy has 130 MB/s of the disk at most.
const PAUSE: Duration = Duration::from_millis(4);
/// Steps after which the copy is brought to the disk.
const FLUSH: u64 = 16;
/// Pages copied in one go when nobody else wants the database.
const LARGE_STEP: i32 = 1024;

/// Why runs of a copy are held.
const MAY_HAVE_ENDED: &str = "it was not over when this backup was made and may have ended since: \
                              `doorbell runs release` starts it, `doorbell runs cancel` ends it";

/// A wish for a copy.
#[derive(Debug)]
pub(super) struct Order {
    /// Where to; a file that is there and empty.
    pub(super) file: PathBuf,
    /// Set when the next step is due.
    pub(super) due: Arc<AtomicBool>,
    /// Whom to tell. When nobody is left to be told, nobody wants the copy.
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
}

impl Order {
    /// Whether the next step is due; it is not any more then.
    pub(super) fn is_due(&self) -> bool {
        self.due.swap(false, Ordering::Relaxed)
    }

    /// Copies everything. `wait` is called between two steps, returns when the next one is due, and says whether to go
    /// on.
    pub(super) fn carry_out(
        &self,
        source: &Connection,
        turns: &Checkpointer,
        mut wait: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let of_target = |error| Error::Target(unwritten(&self.file, &error));
        let mut target = open_target(&self.file).map_err(of_target)?;
        let backup = Backup::new(source, &mut target).map_err(Fault::from)?;
        let step = || {
            let _turn = turns.turn_to_write();
            backup.step(STEP).map_err(|error| match is_of_target(&error) {
                true => of_target(error),
                false => Fault::from(error).into(),
            })
        };
        while step()? != StepResult::Done {
            if !wait() || self.answer.is_closed() {
                return Err(Error::Unavailable("the copy was given up".into()));
            }
        }
        Ok(())
    }
}

/// Has the writer make a copy to a file that is there and empty, step by step.
pub(super) async fn copy(writer: &Writer, file: PathBuf) -> Result<(), Error> {
    let due = Arc::new(AtomicBool::new(false));
    let (answer, mut answered) = oneshot::channel();
    writer.order(Order { file: file.clone(), due: Arc::clone(&due), answer });
    let mut step = 0_u64;
    loop {
        step += 1;
        due.store(true, Ordering::Relaxed);
        // Whatever is written has the thread look whether a step is due.
        writer.write(|_| Ok(())).await?;
        if step.is_multiple_of(FLUSH) {
            let file = file.clone();
            // If it cannot be done, those who seal the copy learn of it.
            let _ = tokio::task::spawn_blocking(move || File::open(file)?.sync_data()).await;
        }
        if let Ok(answer) = tokio::time::timeout(PAUSE, &mut answered).await {
            return answer.unwrap_or_else(|_| Err(Error::Unavailable("the copy was given up".into())));
        }
    }
}

/// Whether it is where the copy goes that failed: what is copied is only read.
fn is_of_target(error: &rusqlite::Error) -> bool {
    const WRITING: [i32; 4] =
        [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_TRUNCATE];
    error.sqlite_error().is_some_and(|error| WRITING.contains(&error.extended_code))
}

fn unwritten(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("the copy cannot be written to {}: {error}", file.display())
}

/// Whoever asked makes the copy durable, or throws it away.
fn open_target(file: &Path) -> rusqlite::Result<Connection> {
    let target =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    target.pragma_update(None, "journal_mode", "off")?;
    target.pragma_update(None, "synchronous", "off")?;
    Ok(target)
}

/// Copies a database that no gateway uses; one that starts waits meanwhile. `progress` is told bytes copied and bytes
/// in all. None, and nothing was done, if a gateway uses it.
///
/// # Errors
/// If there is no such database, or it cannot be copied.
pub fn copy_unused(path: &Path, file: &Path, mut progress: impl FnMut(u64, u64)) -> anyhow::Result<Option<()>> {
    if !path.exists() {
        bail!("there is no database {}", path.display());
    }
    let path = &path.canonicalize()?;
    let Some(_shared) = lock::share(path)? else { return Ok(None) };
    let source = schema::open_writer(path, std::time::Duration::ZERO)?;
    let page: u64 = source.query_row("PRAGMA page_size", (), |row| row.get(0))?;
    let mut target = open_target(file).map_err(|error| anyhow!(unwritten(file, &error)))?;
    let backup = Backup::new(&source, &mut target)?;
    let step = || match backup.step(LARGE_STEP) {
        Err(error) if is_of_target(&error) => Err(anyhow!(unwritten(file, &error))),
        step => Ok(step?),
    };
    while step()? != StepResult::Done {
        let now = backup.progress();
        let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0) * page;
        progress(bytes(now.pagecount - now.remaining), bytes(now.pagecount));
    }
    Ok(Some(()))
}

/// Makes a copy fit to be started from, and durable: it is checked, becomes one file, and runs in it that are not over
/// are held. Whether those ended since cannot be known where it is restored, and nothing may start twice.
///
/// # Errors
/// If it is damaged or cannot be written.
pub fn seal_copy(file: &Path, now: Timestamp) -> anyhow::Result<Copied> {
    let mut sql = open_target(file)?;
    let verdict: String = sql.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if verdict != "ok" {
        bail!("the copy is damaged ({verdict}), and so may be the database itself");
    }
    let tx = sql.transaction()?;
    let held = hold_unfinished(&tx, now).and_then(|held| tx.commit().map(|()| held).map_err(Into::into));
    let held = held.map_err(|error| anyhow!(unwritten(file, &error)))?;
    // One file, without a log beside it.
    sql.pragma_update(None, "journal_mode", "delete")?;
    let newest = sql
        .query_row("SELECT id, received_at FROM events ORDER BY seq DESC LIMIT 1", (), |row| {
            Ok((rows::id(row, 0)?, rows::time(row, 1)?))
        })
        .optional()?;
    sql.close().map_err(|(_, error)| error)?;
    let sealed = File::open(file)?;
    sealed.sync_all().context("the copy cannot be brought to the disk")?;
    Ok(Copied { bytes: sealed.metadata()?.len(), held, newest: newest.map(|(id, at): (EventId, _)| (id, at)) })
}

fn hold_unfinished(sql: &Connection, now: Timestamp) -> anyhow::Result<u64> {
    let end = "UPDATE attempts SET ended_at = ?1, ended = 'lost', reason = ?2 WHERE ended_at IS NULL AND run_seq IN \
               (SELECT seq FROM runs WHERE agent = ?3 AND state = ?4)";
    let hold = "UPDATE runs SET state = ?1, reason = ?2, lease = NULL, lease_until = NULL, pid = NULL, \
                process_started = NULL, boot = NULL, paused_source = NULL WHERE agent = ?3 AND state < 4";
    let mut held = 0;
    for agent in rows::agents(sql)? {
        sql.execute(end, params![now.as_millis(), MAY_HAVE_ENDED, agent, RUNNING])?;
        held += sql.execute(hold, params![HELD, MAY_HAVE_ENDED, agent])? as u64;
    }
    Ok(held)
}
