//! Requests that are to be carried out once.

use doorbell_core::time::Timestamp;
use rusqlite::params;

use super::fault::Outcome;
use super::rows::{all, change};
use super::writer::Work;
use crate::store::{Begun, OnceAnswer, OnceEnd, OnceRequest};

/// Rows that are removed in one transaction.
const PIECE: usize = 500;

/// Notes that a request is begun, or says how it stands already.
pub(super) fn begin(work: &Work<'_>, request: &OnceRequest, at: Timestamp) -> Outcome<Begun> {
    let OnceRequest { whose, key, digest } = request;
    let begin = "INSERT INTO idempotency (whose, key, digest, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    if change(work.sql, begin, params![whose, key, digest, at.as_millis()])? == 1 {
        return Ok(Begun::First);
    }
    let find = "SELECT digest, status, answer FROM idempotency WHERE whose = ?1 AND key = ?2";
    let found = all(work.sql, find, params![whose, key], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<u16>>(1)?, row.get::<_, Option<String>>(2)?))
    })?;
    Ok(match found.into_iter().next() {
        Some((first, ..)) if first != *digest => Begun::Other,
        Some((_, Some(status), Some(body))) => Begun::Answered(OnceAnswer { status, body }),
        _ => Begun::Unknown,
    })
}

/// Keeps what became of it.
pub(super) fn end(work: &Work<'_>, end: &OnceEnd) -> Outcome<()> {
    let OnceEnd { whose, key, answer, at } = end;
    let done = match answer {
        Some(OnceAnswer { status, body }) => {
            let keep = "UPDATE idempotency SET status = ?3, answer = ?4, at = ?5 WHERE whose = ?1 AND key = ?2";
            change(work.sql, keep, params![whose, key, status, body, at.as_millis()])
        }
        None => change(work.sql, "DELETE FROM idempotency WHERE whose = ?1 AND key = ?2", params![whose, key]),
    };
    done.map(drop)
}

/// Removes a piece of those from before `before`; whether that was all.
pub(super) fn remove(work: &Work<'_>, before: Timestamp) -> Outcome<bool> {
    let remove = "DELETE FROM idempotency WHERE (whose, key) IN \
                  (SELECT whose, key FROM idempotency WHERE at < ?1 ORDER BY at LIMIT ?2)";
    Ok(change(work.sql, remove, params![before.as_millis(), i64::try_from(PIECE).unwrap_or(i64::MAX)])? < PIECE)
}
