//! Places in an agent's queue: which runs take one, and which give way when there are none left.
//!
//! A run takes a place while it is queued, or gathers events, and never started. What a person put back (resumed, released,
//! tried again, replayed) takes none: it was let in before, so it neither gives way nor keeps others out.

use doorbell_core::id::{EventId, RunId};
use doorbell_core::time::Timestamp;
use rusqlite::{Row, params};

use super::fault::Outcome;
use super::rows::{self, DROPPED, all, change, kind_number, value};
use super::writer::Work;
use crate::store::{Admission, OutcomeKind, Start};

/// Runs that one accept drops at most: a bound that was lowered is reached over several.
const MOST_DROPPED: u64 = 256;

/// How many places of an agent's queue are taken.
pub(super) fn taken(work: &mut Work<'_>, agent: &str) -> Outcome<u64> {
    if let Some(count) = work.memory.fresh.get(agent) {
        return Ok(*count);
    }
    let count = "SELECT count(*) FROM runs WHERE agent = ?1 AND state IN (1, 2) AND attempt = 0 AND kept IS NULL";
    let count = value(work.sql, count, [agent])?.unwrap_or(0);
    work.memory.fresh.insert(agent.to_owned(), count);
    Ok(count)
}

/// A run that may give way.
struct Giver {
    priority: i64,
    seq: i64,
    event_seq: i64,
    id: RunId,
}

fn giver(row: &Row<'_>) -> Outcome<Giver> {
    Ok(Giver { priority: row.get(0)?, seq: row.get(1)?, event_seq: row.get(2)?, id: rows::id(row, 3)? })
}

/// Drops what is beyond the bound once `newcomer` is in: of the lowest priority the oldest. Whether the newcomer is among
/// them.
pub(super) fn make_room(
    work: &mut Work<'_>,
    start: &Start,
    newcomer: i64,
    event: EventId,
    now: Timestamp,
    dropped: &mut Vec<RunId>,
) -> Outcome<bool> {
    let Admission::DropOldest(most) = start.admission else {
        return Ok(false);
    };
    let excess = taken(work, &start.agent)?.saturating_sub(most).min(MOST_DROPPED);
    if excess == 0 {
        return Ok(false);
    }
    let givers = givers(work, &start.agent, excess)?;
    let reason = format!("displaced by {event}: more than {most} runs were queued");
    let drop_outcome =
        "UPDATE outcomes SET kind = ?4, reason = ?5 WHERE event_seq = ?1 AND agent = ?2 AND run_seq = ?3";
    for run in &givers {
        dropped.push(run.id);
        rows::end_run(work.sql, run.seq, DROPPED, &reason, now)?;
        let kind = kind_number(OutcomeKind::Dropped);
        change(work.sql, drop_outcome, params![run.event_seq, start.agent, run.seq, kind, reason])?;
    }
    work.memory.count_out(&start.agent, givers.len() as u64);
    Ok(givers.iter().any(|run| run.seq == newcomer))
}

/// Runs that give way, the first of them first, at most so many. Those under flow control by an index; of the others those
/// before the first that took a place the last time take none, so that what was put back is not looked at each time.
fn givers(work: &mut Work<'_>, agent: &str, most: u64) -> Outcome<Vec<Giver>> {
    let in_lanes = "SELECT priority, seq, event_seq, id FROM runs INDEXED BY runs_giving_way WHERE agent = ?1 \
                    AND lane IS NOT NULL AND attempt = 0 AND kept IS NULL AND state IN (1, 2) \
                    ORDER BY priority, seq LIMIT ?2";
    let mut found = all(work.sql, in_lanes, params![agent, most], giver)?;
    let plain = "SELECT 0, seq, event_seq, id FROM runs INDEXED BY runs_by_state WHERE agent = ?1 AND state = 2 \
                 AND seq >= ?3 AND attempt = 0 AND kept IS NULL AND lane IS NULL ORDER BY seq LIMIT ?2";
    let from = work.memory.first.get(agent).copied().unwrap_or(0);
    let mut others = all(work.sql, plain, params![agent, most, from], giver)?;
    // None at all: the next one that is made will be the first.
    if let Some(first) = others.first().map(|run| run.seq).or(work.memory.next_run) {
        work.memory.first.insert(agent.to_owned(), first);
    }
    found.append(&mut others);
    found.sort_by_key(|run| (run.priority, run.seq));
    found.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(found)
}
