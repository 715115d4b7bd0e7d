//! Runs that wait and go on, and what their steps came to.

use doorbell_core::id::RunId;
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use doorbell_core::wait::{Resumed, Wait};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, Outcome};
use super::rows::{self, HELD, QUEUED, WAITING, all, change, state_of, value};
use super::writer::Work;
use crate::store::{LARGEST_STEPS, MOST_STEPS, NewStep, Resume, Step, StepKept, Waiting};

/// Has a run wait that has just left its lease; at once no more, if the run whose end it waits for is over.
pub(super) fn begin(work: &Work<'_>, seq: i64, wait: &Wait) -> Outcome<()> {
    let Wait::Run { run: child } = wait else { return Ok(()) };
    let state = value::<i64>(work.sql, "SELECT state FROM runs WHERE id = ?1", [child.to_bytes()])?;
    // One that is not there any more was removed long after its end.
    let state = state.map_or(Ok(State::Succeeded), state_of)?;
    if state.is_final() {
        let by = written(&Resumed::Run { run_id: *child, state, result: None })?;
        let over = "UPDATE runs SET resumed = ?2, state = ?3, due = NULL, reason = NULL WHERE seq = ?1";
        change(work.sql, over, params![seq, by, QUEUED])?;
    }
    Ok(())
}

/// The run whose end is waited for.
pub(super) fn run_of(wait: &Wait) -> Option<[u8; 16]> {
    match wait {
        Wait::Run { run } => Some(run.to_bytes()),
        _ => None,
    }
}

/// A wait, or what one was over by, as the tables have it.
pub(super) fn written(json: &impl serde::Serialize) -> Outcome<String> {
    serde_json::to_string(json).map_err(|error| Fault::Corrupt(error.to_string()))
}

/// The same, read again.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: Option<String>) -> Outcome<Option<T>> {
    let read = text.map(|text| serde_json::from_str(&text));
    read.transpose().map_err(|error| Fault::Corrupt(format!("what a run waits for cannot be read: {error}")))
}

/// All runs that wait for an event or for the end of another run, or are held meanwhile. Those that sleep or ask a question may
/// be many, and nobody looks for them. What cannot be read is told of below.
pub(super) fn waiting(sql: &Connection) -> Outcome<Vec<Waiting>> {
    let waiting = "SELECT seq, coalesce(heard, event_seq) FROM runs WHERE wait IS NOT NULL AND resumed IS NULL \
                   AND iif(json_valid(wait), json_extract(wait, '$.kind') IN ('event', 'run'), 1)";
    let found = all(sql, waiting, (), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let mut runs = Vec::with_capacity(found.len());
    for (seq, heard) in found {
        match rows::run(sql, seq) {
            Ok(run) => runs.push(Waiting { run, heard }),
            // It must not keep the others.
            Err(fault) if fault.is_bad_row() => tracing::error!(run_seq = seq, %fault, "a wait cannot be read"),
            Err(fault) => return Err(fault),
        }
    }
    Ok(runs)
}

/// Has a run go on that waits: its agent, or none if it does not wait so any more. One that is held goes on when it is let go.
pub(super) fn resume(work: &Work<'_>, resume: &Resume) -> Outcome<Option<String>> {
    let found =
        "SELECT seq, agent, state FROM runs WHERE id = ?1 AND attempt = ?2 AND wait IS NOT NULL AND resumed IS NULL";
    let found = work
        .sql
        .prepare_cached(found)?
        .query_row(params![resume.run.to_bytes(), resume.attempt], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let Some((seq, agent, state)) = found else { return Ok(None) };
    let (state, due) = match state {
        WAITING => (QUEUED, None),
        HELD => (HELD, Some(resume.now.as_millis())),
        _ => return Ok(None),
    };
    let go_on = "UPDATE runs SET resumed = ?2, heard = max(coalesce(heard, 0), coalesce(?3, heard, 0)), state = ?4, \
                 due = ?5, reason = iif(?4 = 2, NULL, reason) WHERE seq = ?1";
    change(work.sql, go_on, params![seq, written(&resume.by)?, resume.heard, state, due])?;
    Ok(Some(agent))
}

/// Keeps the result of a step, once.
pub(super) fn keep_step(work: &Work<'_>, step: &NewStep) -> Outcome<StepKept> {
    let ours = "SELECT seq FROM runs WHERE id = ?1 AND state = 3 AND lease = ?2";
    let Some(run) = value::<i64>(work.sql, ours, params![step.run.to_bytes(), step.lease.0])? else {
        return Ok(StepKept::Lost);
    };
    let there = "SELECT value FROM steps WHERE run_seq = ?1 AND key = ?2";
    if let Some(there) = value(work.sql, there, params![run, step.key])? {
        return Ok(StepKept::There(there));
    }
    let all = "SELECT count(*), coalesce(sum(length(CAST(value AS BLOB))), 0) FROM steps WHERE run_seq = ?1";
    let (count, bytes): (u64, u64) =
        work.sql.prepare_cached(all)?.query_row([run], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if count >= MOST_STEPS || bytes + step.value.len() as u64 > LARGEST_STEPS {
        return Ok(StepKept::Full);
    }
    let keep = "INSERT INTO steps (run_seq, key, at, value) VALUES (?1, ?2, ?3, ?4)";
    change(work.sql, keep, params![run, step.key, step.at.as_millis(), step.value])?;
    Ok(StepKept::Kept)
}

/// The result of a step.
pub(super) fn step(sql: &Connection, run: RunId, key: &str) -> Outcome<Option<String>> {
    let step = "SELECT s.value FROM runs r JOIN steps s ON s.run_seq = r.seq WHERE r.id = ?1 AND s.key = ?2";
    value(sql, step, params![run.to_bytes(), key])
}

/// The steps of a run, oldest first.
pub(super) fn steps(sql: &Connection, run: RunId) -> Outcome<Vec<Step>> {
    let steps = "SELECT s.key, s.at, length(CAST(s.value AS BLOB)) FROM runs r JOIN steps s ON s.run_seq = r.seq \
                 WHERE r.id = ?1 ORDER BY s.at, s.key";
    all(sql, steps, [run.to_bytes()], |row| {
        Ok(Step { key: row.get(0)?, at: Timestamp::from_millis(row.get(1)?), bytes: row.get(2)? })
    })
}
