//! Dead letters that nobody was told of yet, and what notifications remember.

use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::rows::{self, all, change};
use super::writer::Work;
use crate::store::{DeadLetter, Notes};

/// The oldest of them. One whose rows are gone or cannot be read is passed over, so that it does not hide the others.
pub(super) fn untold(sql: &Connection, limit: usize) -> Outcome<Vec<DeadLetter>> {
    let oldest = "SELECT u.number, u.run_seq, e.source FROM untold u JOIN runs r ON r.seq = u.run_seq \
                  JOIN events e ON e.seq = r.event_seq ORDER BY u.number LIMIT ?1";
    let found =
        all(sql, oldest, [limit], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?)))?;
    let mut untold = Vec::with_capacity(found.len());
    for (number, run, source) in found {
        match rows::run(sql, run) {
            Ok(run) => untold.push(DeadLetter { number, source, run }),
            Err(fault) if fault.is_bad_row() => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(untold)
}

/// Remembers, forgets and takes off.
pub(super) fn note(work: &Work<'_>, notes: &Notes) -> Outcome<()> {
    if let Some(last) = notes.told {
        change(work.sql, "DELETE FROM untold WHERE number <= ?1", [last])?;
    }
    let keep = "INSERT INTO notes (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    for (key, value) in &notes.kept {
        change(work.sql, keep, params![key, value])?;
    }
    for key in &notes.dropped {
        change(work.sql, "DELETE FROM notes WHERE key = ?1", [key])?;
    }
    Ok(())
}

/// What is remembered under keys that begin so, by key: one seek.
pub(super) fn notes(sql: &Connection, prefix: &str) -> Outcome<Vec<(String, String)>> {
    // No character comes after the last one there is.
    let of = "SELECT key, value FROM notes WHERE key >= ?1 AND key < ?1 || char(1114111) ORDER BY key";
    all(sql, of, [prefix], |row| Ok((row.get(0)?, row.get(1)?)))
}
