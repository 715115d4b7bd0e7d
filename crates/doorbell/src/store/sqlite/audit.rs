//! Changes that were asked for through the API.

use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::rows::{all, change, time};
use super::writer::Work;
use crate::store::{Change, ChangeEnd, ChangeQuery, StoredChange};

/// Changes that one transaction removes at most.
const STEP: usize = 1000;

/// Notes a change that is about to be made.
pub(super) fn begin(work: &Work<'_>, new: &Change) -> Outcome<i64> {
    let insert = "INSERT INTO audit (at, who, name, role, operation, target, remote, account) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let Change { at, who, name, role, operation, target, remote, account } = new;
    change(work.sql, insert, params![at.as_millis(), who, name, role, operation, target, remote, account])?;
    Ok(work.sql.last_insert_rowid())
}

/// Notes how it ended.
pub(super) fn end(work: &Work<'_>, seq: i64, end: &ChangeEnd) -> Outcome<()> {
    let update = "UPDATE audit SET status = ?2, code = ?3, target = coalesce(?4, target) WHERE seq = ?1";
    change(work.sql, update, params![seq, end.status, end.code, end.target]).map(drop)
}

/// Changes, newest first.
pub(super) fn list(sql: &Connection, query: &ChangeQuery) -> Outcome<Vec<StoredChange>> {
    // The order is that of commits, which times follow: clocks are set back now and then.
    let list = "SELECT seq, at, who, name, role, operation, target, remote, status, code, account FROM audit \
                WHERE seq < ?1 AND at >= ?2 AND at < ?3 AND (?4 IS NULL OR who = ?4 OR name = ?4) \
                AND (?6 IS NULL OR account = ?6) ORDER BY seq DESC LIMIT ?5";
    let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
    let until = query.until.map_or(i64::MAX, Timestamp::as_millis);
    let before = query.before.unwrap_or(i64::MAX);
    all(sql, list, params![before, since, until, query.who, query.limit, query.account], |row| {
        Ok(StoredChange {
            seq: row.get(0)?,
            change: Change {
                at: time(row, 1)?,
                who: row.get(2)?,
                name: row.get(3)?,
                role: row.get(4)?,
                operation: row.get(5)?,
                target: row.get(6)?,
                remote: row.get(7)?,
                account: row.get(10)?,
            },
            status: row.get(8)?,
            code: row.get(9)?,
        })
    })
}

/// Removes some old changes, and answers whether there may be more.
pub(super) fn remove(work: &Work<'_>, before: Timestamp) -> Outcome<bool> {
    let remove = "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < ?1 LIMIT ?2)";
    change(work.sql, remove, params![before.as_millis(), STEP]).map(|removed| removed == STEP)
}
