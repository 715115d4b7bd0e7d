//! Who had a run go on, and which runs it started.

use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::fault::{Fault, Outcome};
use super::rows::{self, all, change, state_of};
use super::writer::Work;
use crate::store::{Called, How, MOST_CALLS, Moved};

/// Notes who had a run go on, in place of who did before.
pub(super) fn note(work: &Work<'_>, seq: i64, how: How, by: &str, at: Timestamp) -> Outcome<()> {
    let moved = Moved { how, by: by.to_owned(), at };
    // Nothing in it can fail to be JSON.
    let text = serde_json::to_string(&moved).unwrap_or_default();
    change(work.sql, "UPDATE runs SET moved = ?2 WHERE seq = ?1", params![seq, text]).map(drop)
}

/// What was noted.
pub(super) fn read(text: Option<String>) -> Outcome<Option<Moved>> {
    let read = text.as_deref().map(serde_json::from_str).transpose();
    read.map_err(|error| Fault::Corrupt(format!("who had a run go on cannot be read: {error}")))
}

/// The runs that a run started by calls, oldest first. A call that joined a run counts as one that started it.
pub(super) fn calls_of(sql: &Connection, run: RunId) -> Outcome<Vec<Called>> {
    let calls = "SELECT r.id, r.agent, r.state FROM events e INDEXED BY events_calls \
                 JOIN outcomes o ON o.event_seq = e.seq JOIN runs r ON r.seq = o.run_seq \
                 WHERE e.parent = ?1 ORDER BY e.seq LIMIT ?2";
    all(sql, calls, params![run.to_string(), MOST_CALLS], |row| {
        Ok(Called { run: rows::id(row, 0)?, agent: row.get(1)?, state: state_of(row.get(2)?)? })
    })
}
