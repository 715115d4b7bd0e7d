//! The far end: what is old enough to go, and what must be forgotten.

use std::time::{Duration, Instant};

use doorbell_core::id::{EventId, RunId};
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::accept::remove_keys;
use super::fault::Outcome;
use super::lists::{DISORDER, first_received};
use super::rows::{self, all, change, value};
use super::search::index;
use super::writer::Work;
use crate::store::{Expired, Expiry, Forgetting, Removed, Sweep, Swept};

/// Events looked at in one go.
const LOOKED_AT: usize = 500;
/// How long one step of a removal may hold up the commits behind it. The first event of a step is always done.
const STEP: Duration = Duration::from_millis(3);
/// Rejections removed in one transaction.
const REJECTIONS: usize = 200;
/// How long a trigger set may have been in force since it was last seen to be: longer than a sweep and what comes
/// between two.
const UNSEEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the event `e` may go at ?1: it is old, and so is the end of each of its runs. The newest event and the event
/// of the newest run stay, because their sequences are where the next ones go on.
const MAY_GO: &str = "e.received_at < ?1 AND e.seq < (SELECT max(seq) FROM events) AND NOT EXISTS (\
                      SELECT 1 FROM outcomes o JOIN runs r ON r.seq = o.run_seq WHERE o.event_seq = e.seq \
                      AND (r.state < 4 OR r.finished_at >= ?1 OR r.seq = (SELECT max(seq) FROM runs)))";

/// The runs that the event ?1 started: sequence, id and whether each is over.
const OWN_RUNS: &str = "SELECT r.seq, r.id, r.state >= 4 FROM outcomes o \
                        JOIN runs r ON r.seq = o.run_seq AND r.event_seq = o.event_seq WHERE o.event_seq = ?1";

struct OwnRun {
    seq: i64,
    id: RunId,
    over: bool,
}

fn own_runs(sql: &Connection, event: i64) -> Outcome<Vec<OwnRun>> {
    all(sql, OWN_RUNS, [event], |row| Ok(OwnRun { seq: row.get(0)?, id: rows::id(row, 1)?, over: row.get(2)? }))
}

/// The runs that were handed the event ?1: its own, and those that took it in.
const RUNS_WITH: &str = "SELECT r.seq, r.id, r.state >= 4 FROM outcomes o JOIN runs r ON r.seq = o.run_seq \
                         AND (r.event_seq = o.event_seq OR r.absorbed > 0) WHERE o.event_seq = ?1";

fn runs_with(sql: &Connection, event: i64) -> Outcome<Vec<OwnRun>> {
    all(sql, RUNS_WITH, [event], |row| Ok(OwnRun { seq: row.get(0)?, id: rows::id(row, 1)?, over: row.get(2)? }))
}

/// Events that may go, from the oldest on, as far as one go reaches.
pub(super) fn expired(sql: &Connection, expiry: Expiry) -> Outcome<Expired> {
    let before = expiry.before.as_millis();
    let walk = format!("SELECT e.seq, e.received_at, {MAY_GO} FROM events e WHERE e.seq > ?2 ORDER BY e.seq LIMIT ?3");
    let seen = all(sql, &walk, params![before, expiry.after, LOOKED_AT], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?))
    })?;
    // Times rise with sequences, but for a little.
    let young = seen.iter().any(|(_, received, _)| *received >= before.saturating_add(DISORDER));
    let next = seen.last().filter(|_| seen.len() == LOOKED_AT && !young).map(|(seq, ..)| *seq);
    let mut events = Vec::new();
    for (seq, ..) in seen.into_iter().filter(|(_, _, may_go)| *may_go) {
        match own_runs(sql, seq) {
            Ok(_) => events.push(seq),
            // It must not keep the others.
            Err(fault) if fault.is_bad_row() => {
                tracing::error!(event_seq = seq, %fault, "an old event cannot be read, and stays");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(Expired { events, next })
}

/// Removes the events that still may go, from the first on, for as long as a step may take.
pub(super) fn remove(work: &Work<'_>, events: &[i64], before: Timestamp) -> Outcome<Removed> {
    let sql = work.sql;
    let still = format!("SELECT {MAY_GO} FROM events e WHERE e.seq = ?2");
    let (begun, mut removed, mut last) = (Instant::now(), Removed::default(), 0);
    for seq in events {
        if removed.looked_at > 0 && begun.elapsed() >= STEP {
            break;
        }
        removed.looked_at += 1;
        if value(sql, &still, params![before.as_millis(), seq])? != Some(true) {
            continue;
        }
        for run in own_runs(sql, *seq)? {
            remove_traces(sql, run.seq)?;
            change(sql, "INSERT OR IGNORE INTO gone_runs (id) VALUES (?1)", [run.id.to_bytes()])?;
            for of_run in ["DELETE FROM attempts WHERE run_seq = ?1", "DELETE FROM runs WHERE seq = ?1"] {
                change(sql, of_run, [run.seq])?;
            }
            removed.runs.push(run.id);
        }
        remove_keys(sql, *seq)?;
        for of_event in [
            "DELETE FROM outcomes WHERE event_seq = ?1",
            "DELETE FROM bodies WHERE event_seq = ?1",
            "DELETE FROM events WHERE seq = ?1",
        ] {
            change(sql, of_event, [seq])?;
        }
        index::remove(sql, *seq)?;
        removed.events += 1;
        last = last.max(*seq);
    }
    let note = "UPDATE sweep SET pruned_through = max(pruned_through, ?1), events_gone = events_gone + ?2";
    change(sql, note, params![last, removed.events])?;
    Ok(removed)
}

/// The runs that were removed and whose folders may still be there.
pub(super) fn runs_with_folders_left(sql: &Connection) -> Outcome<Vec<RunId>> {
    all(sql, "SELECT id FROM gone_runs", (), |row| Ok(rows::id(row, 0)?))
}

/// Their folders are gone.
pub(super) fn note_folders_gone(work: &Work<'_>, runs: &[RunId]) -> Outcome<()> {
    for run in runs {
        change(work.sql, "DELETE FROM gone_runs WHERE id = ?1", [run.to_bytes()])?;
    }
    Ok(())
}

/// Removes what a run said: its log, its result and its steps.
fn remove_traces(sql: &Connection, run: i64) -> Outcome<()> {
    change(sql, "DELETE FROM log_chunks WHERE run_seq = ?1", [run])?;
    change(sql, "DELETE FROM steps WHERE run_seq = ?1", [run])?;
    change(sql, "DELETE FROM results WHERE run_seq = ?1", [run]).map(drop)
}

/// Removes some old rejections and answers how many.
pub(super) fn remove_rejections(work: &Work<'_>, before: Timestamp) -> Outcome<usize> {
    let remove = "DELETE FROM rejections WHERE seq IN (SELECT seq FROM rejections WHERE at < ?1 LIMIT ?2)";
    change(work.sql, remove, params![before.as_millis(), REJECTIONS])
}

/// Whether that many rejections were all there were.
pub(super) fn were_all(removed: usize) -> bool {
    removed < REJECTIONS
}

/// Trigger sets that were last in force before `before` and that no event names any more.
///
/// A set is marked whenever it is taken over and at each sweep, so events that name it were received soon after its last
/// mark at most; of those that are so old, few are left to be asked.
pub(super) fn unused_trigger_sets(sql: &Connection, before: Timestamp) -> Outcome<Vec<i64>> {
    let old = "SELECT version FROM trigger_sets WHERE kept_at < ?1 \
               AND version < (SELECT max(version) FROM trigger_sets)";
    let named = "SELECT 1 FROM events WHERE seq < ?1 AND trigger_set = ?2 LIMIT 1";
    // Those that a redelivery was matched with; few outcomes name one.
    let decided = "SELECT 1 FROM outcomes WHERE trigger_set = ?1 LIMIT 1";
    let left = first_received(sql, before.after(UNSEEN).as_millis().saturating_add(DISORDER))?;
    let mut unused = Vec::new();
    for version in all(sql, old, [before.as_millis()], |row| Ok(row.get::<_, i64>(0)?))? {
        if value::<i64>(sql, named, params![left, version])?.is_none()
            && value::<i64>(sql, decided, [version])?.is_none()
        {
            unused.push(version);
        }
    }
    Ok(unused)
}

/// Marks the trigger set in force, and removes those of `versions` that were not marked meanwhile.
pub(super) fn remove_trigger_sets(
    work: &Work<'_>,
    versions: &[i64],
    before: Timestamp,
    in_force: i64,
    now: Timestamp,
) -> Outcome<u64> {
    let mark = "UPDATE trigger_sets SET kept_at = max(kept_at, ?2) WHERE version = ?1";
    change(work.sql, mark, params![in_force, now.as_millis()])?;
    let remove = "DELETE FROM trigger_sets WHERE version = ?1 AND kept_at < ?2";
    let mut removed = 0;
    for version in versions {
        removed += change(work.sql, remove, params![version, before.as_millis()])? as u64;
    }
    Ok(removed)
}

/// Remembers a sweep that ended.
pub(super) fn end_sweep(work: &Work<'_>, sweep: &Sweep) -> Outcome<()> {
    let keep = "UPDATE sweep SET started_at = ?1, ended_at = ?2, events = ?3, runs = ?4, rejections = ?5, \
                trigger_sets = ?6";
    let (started, ended) = (sweep.started_at.as_millis(), sweep.ended_at.as_millis());
    let counts = [sweep.events, sweep.runs, sweep.rejections, sweep.trigger_sets];
    let [events, runs, rejections, trigger_sets] = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    change(work.sql, keep, params![started, ended, events, runs, rejections, trigger_sets]).map(drop)
}

/// What retention has done so far.
pub(super) fn swept(sql: &Connection) -> Outcome<Swept> {
    let statement = "SELECT pruned_through, started_at, ended_at, events, runs, rejections, trigger_sets FROM sweep";
    Ok(sql.prepare_cached(statement)?.query_row((), |row| {
        let last = match (rows::time_if_any(row, 1)?, rows::time_if_any(row, 2)?) {
            (Some(started_at), Some(ended_at)) => Some(Sweep {
                started_at,
                ended_at,
                events: row.get(3)?,
                runs: row.get(4)?,
                rejections: row.get(5)?,
                trigger_sets: row.get(6)?,
            }),
            _ => None,
        };
        Ok(Swept { pruned_through: row.get(0)?, last })
    })?)
}

/// The sequence of the event with this id, unless it is forgotten.
pub(super) fn remembered(sql: &Connection, id: EventId) -> Outcome<Option<i64>> {
    value(sql, "SELECT seq FROM events WHERE id = ?1 AND forgotten_at IS NULL", [id.to_bytes()])
}

/// Removes what an event said (`sent`: its body) and what its runs said, unless a run is not over.
pub(super) fn forget(work: &Work<'_>, id: EventId, sent: Option<&[u8]>, now: Timestamp) -> Outcome<Forgetting> {
    let sql = work.sql;
    let found = sql
        .prepare_cached("SELECT seq, forgotten_at, source, delivery_id FROM events WHERE id = ?1")?
        .query_row([id.to_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, rows::time_if_any(row, 1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((seq, forgotten, source, delivery_id)) = found else {
        return Ok(Forgetting::Unknown);
    };
    if let Some(at) = forgotten {
        return Ok(Forgetting::Forgotten(at));
    }
    let runs = runs_with(sql, seq)?;
    let unfinished: Vec<RunId> = runs.iter().filter(|run| !run.over).map(|run| run.id).collect();
    if !unfinished.is_empty() {
        return Ok(Forgetting::Unfinished(unfinished));
    }
    for run in runs {
        remove_traces(sql, run.seq)?;
        // Reasons may quote what the agent said.
        change(sql, "UPDATE attempts SET reason = NULL, resumed = NULL WHERE run_seq = ?1", [run.seq])?;
        // A key is what the trigger took from the event.
        let forget = "UPDATE runs SET reason = NULL, follow_up_error = NULL, key = NULL, lane = NULL, counted_at = NULL, \
                      resumed = NULL, reason_before = NULL WHERE seq = ?1";
        change(sql, forget, [run.seq])?;
    }
    change(sql, "UPDATE outcomes SET reason = NULL WHERE event_seq = ?1", [seq])?;
    change(sql, "DELETE FROM bodies WHERE event_seq = ?1", [seq])?;
    index::remove(sql, seq)?;
    forget_refusals(sql, source, delivery_id, sent)?;
    let empty = "UPDATE events SET context = '{}', parent = NULL, body_size = 0, forgotten_at = ?2 WHERE seq = ?1";
    change(sql, empty, params![seq, now.as_millis()])?;
    Ok(Forgetting::Forgotten(now))
}

/// Removes the refusals that kept the same content: a delivery that was refused for a full queue, say, and came again.
fn forget_refusals(sql: &Connection, source: String, id: Option<String>, sent: Option<&[u8]>) -> Outcome<()> {
    let same_body = "DELETE FROM rejections WHERE source = ?1 AND length(body) = length(?2) AND body = ?2";
    if let Some(body) = sent.filter(|body| !body.is_empty()) {
        change(sql, same_body, params![source, body])?;
    }
    let same_id = "DELETE FROM rejections WHERE source = ?1 AND body IS NOT NULL AND instr(headers, ?2) > 0";
    if let Some(id) = id {
        // As the value of a header stands in their JSON.
        change(sql, same_id, params![source, format!(":{}", serde_json::Value::from(id))])?;
    }
    Ok(())
}
