//! Looking at a database from outside: for `doctor`, beside a running gateway or without one. Changes nothing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use doorbell_core::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::identity::log_of;
use super::{fault, lock, schema};
use crate::store::{Growth, Inspection, Soundness};

/// How long to wait for a lock that somebody else has.
const PATIENCE: Duration = Duration::from_secs(2);
/// The newest events, whose times say how fast they come.
const NEWEST: i64 = 10_000;
/// Too few, or too short a time, say nothing.
const FEWEST: i64 = 100;
const SHORTEST: Duration = Duration::from_secs(3600);

/// Looks at the database at `path`; none if there is none. `limit`: how long the check of its pages may take;
/// zero: they are not looked at. An error if it cannot be read, which says nothing of whether it is whole.
pub(crate) fn inspect(path: &Path, now: Timestamp, limit: Duration) -> std::io::Result<Option<Inspection>> {
    let file = match std::fs::metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut inspection = Inspection {
        path: path.to_owned(),
        bytes: file.size(),
        log_bytes: std::fs::metadata(log_of(path)).map_or(0, |log| log.size()),
        free_bytes: 0,
        holder: lock::holder(path),
        schema: 0,
        known_schema: schema::known(),
        soundness: Soundness::Sound,
        growth: None,
    };
    if let Err(error) = look(path, now, limit, &mut inspection) {
        inspection.soundness = judge(error)?;
    }
    Ok(Some(inspection))
}

fn judge(error: rusqlite::Error) -> std::io::Result<Soundness> {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => Ok(Soundness::Unfinished),
        _ if fault::is_damage(&error) => Ok(Soundness::Damaged(vec![error.to_string()])),
        _ => Err(std::io::Error::other(error)),
    }
}

fn look(path: &Path, now: Timestamp, limit: Duration, inspection: &mut Inspection) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags)?;
    sql.busy_timeout(PATIENCE)?;
    let number = |pragma: &str| sql.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    let page = number("page_size")?;
    inspection.free_bytes = number("freelist_count")? * page;
    let tables = sql
        .prepare("SELECT 1 FROM sqlite_schema WHERE name IN ('migrations', 'events')")?
        .query_map((), |_| Ok(()))?
        .count();
    if tables == 2 {
        inspection.schema = sql.query_row("SELECT count(*) FROM migrations", (), |row| row.get(0))?;
        inspection.growth = growth(&sql, now, number("page_count")? * page - inspection.free_bytes)?;
    }
    if limit.is_zero() {
        inspection.soundness = Soundness::Unfinished;
        return Ok(());
    }
    let found = within(&sql, limit, || {
        let mut statement = sql.prepare("PRAGMA quick_check(5)")?;
        let rows = statement.query_map((), |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    })?;
    if found != ["ok"] {
        inspection.soundness = Soundness::Damaged(found);
    }
    Ok(())
}

/// How fast the database grows, by the newest events; none if it cannot be told yet.
fn growth(sql: &Connection, now: Timestamp, used: u64) -> rusqlite::Result<Option<Growth>> {
    let at = |order: &str, from: i64| {
        let statement = format!("SELECT seq, received_at FROM events WHERE seq >= ?1 ORDER BY seq {order} LIMIT 1");
        sql.query_row(&statement, [from], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()
    };
    let (Some((oldest, _)), Some((newest, _))) = (at("ASC", i64::MIN)?, at("DESC", i64::MIN)?) else { return Ok(None) };
    let Some((first, since)) = at("ASC", newest.saturating_sub(NEWEST))? else { return Ok(None) };
    let (events, span) = (newest - first, now.since(Timestamp::from_millis(since)));
    if events < FEWEST || span < SHORTEST {
        return Ok(None);
    }
    let kept = (newest - oldest + 1) as f64;
    let events_a_day = events as f64 / span.as_secs_f64() * 86_400.0;
    Ok(Some(Growth { bytes_a_day: used as f64 / kept * events_a_day }))
}

/// Runs something on a connection, and interrupts it after `limit`.
fn within<T>(sql: &Connection, limit: Duration, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let (done, waiting) = channel::<()>();
    let handle = sql.get_interrupt_handle();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn database(events: i64, over: Duration) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("doorbell.db");
        std::fs::write(&path, "").unwrap();
        let mut sql = schema::open_writer(&path, PATIENCE).unwrap();
        schema::migrate(&mut sql).unwrap();
        let tx = sql.transaction().unwrap();
        for n in 0..events {
            let at = i64::try_from(over.as_millis()).unwrap() * n / events;
            tx.execute(
                "INSERT INTO events (seq, id, source, provider, event, received_at, handshake, trigger_set, body_size, \
                 duplicates, silent, context) VALUES (?1, randomblob(16), 's', 'p', 'e', ?2, 0, 1, 0, 0, 0, '{}')",
                [n + 1, at],
            )
            .unwrap();
        }
        tx.commit().unwrap();
        (folder, path)
    }

    #[test]
    fn growth_is_told_once_there_is_enough_to_tell_it_by() {
        let day = Duration::from_secs(86_400);
        let now = Timestamp::from_millis(86_400_000);
        let (_folder, path) = database(1000, day);
        let growth = inspect(&path, now, day).unwrap().unwrap().growth.unwrap();
        // A thousand events a day, and all pages are theirs.
        assert!(growth.bytes_a_day > 1000.0, "{growth:?}");
        let (_folder, path) = database(10, day);
        assert!(inspect(&path, now, day).unwrap().unwrap().growth.is_none(), "too few");
    }

    #[test]
    fn a_check_that_takes_too_long_is_unfinished_and_not_damage() {
        let sql = Connection::open_in_memory().unwrap();
        let endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
        let ended = within(&sql, Duration::from_millis(1), || sql.query_row(endless, (), |row| row.get::<_, i64>(0)));
        assert_eq!(judge(ended.unwrap_err()).unwrap(), Soundness::Unfinished);
        let (_folder, path) = database(10, Duration::from_secs(1));
        let found = inspect(&path, Timestamp::from_millis(1), Duration::ZERO).unwrap().unwrap();
        assert_eq!(found.soundness, Soundness::Unfinished, "nothing was looked at");
    }

    #[test]
    fn a_database_that_is_busy_or_cannot_be_opened_is_not_called_damaged() {
        use rusqlite::ffi;
        let failed = |code| judge(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_CANTOPEN, ffi::SQLITE_IOERR, ffi::SQLITE_PERM] {
            assert!(failed(code).is_err(), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(matches!(failed(code), Ok(Soundness::Damaged(_))), "{code}");
        }
    }

    #[test]
    fn looking_leaves_the_database_as_it_is() {
        let (_folder, path) = database(10, Duration::from_secs(1));
        let before = std::fs::read(&path).unwrap();
        assert_eq!(inspect(&path, Timestamp::from_millis(1), PATIENCE).unwrap().unwrap().soundness, Soundness::Sound);
        assert!(std::fs::read(&path).unwrap() == before);
        assert!(inspect(&path.with_file_name("none"), Timestamp::from_millis(1), PATIENCE).unwrap().is_none());
    }
}
