//! The life of a run: claimed, carried out under a lease, ended.

use std::time::Duration;

use doorbell_core::id::RunId;
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::body::PackedBody;
use super::fault::Outcome;
use super::flow;
use super::moved;
use super::queue;
use super::rows::{self, CANCELLED, FAILED, QUEUED, RUNNING, SUPERSEDED, change, state_number, state_of, value};
use super::tally;
use super::turns::{self, Next};
use super::waits;
use super::writer::Work;
use crate::store::{
    Attempt, Cancel, Claim, Finish, FollowedUp, Holder, How, Lease, OutcomeKind, Process, Retry, Running, StoredEvent,
    StoredRun,
};

/// A claimed run with what it takes to carry it out, the body still packed.
#[derive(Debug)]
pub(super) struct PackedClaim {
    pub(super) run: StoredRun,
    pub(super) lease: Lease,
    pub(super) event: StoredEvent,
    pub(super) body: PackedBody,
}

/// Makes the queued runs of an agent running whose turn it is. One whose rows cannot be read fails, so that it does not keep the
/// others from being claimed. Answers, too, the runs that ended because newer ones were started before them.
pub(super) fn claim(work: &mut Work<'_>, claim: &Claim) -> Outcome<(Vec<PackedClaim>, Vec<RunId>)> {
    tally::settle(work)?;
    let claim = &within_scale(work, claim)?;
    let mut superseded = Vec::new();
    let found = loop {
        // What ends here uses up nobody's turn, and the next one of its lane has its turn at once.
        let (found, before) = (turns::next(work, claim)?, superseded.len());
        let found = end_outrun(work, claim, found, &mut superseded)?;
        if superseded.len() == before || superseded.len() >= queue::STEP {
            break found;
        }
    };
    turns::take(work, claim, &found)?;
    let mut claimed = Vec::with_capacity(found.len());
    for (Next { seq, takes_place, .. }, lease) in found.into_iter().zip(&claim.leases) {
        work.memory.count_out(&claim.agent, u64::from(takes_place));
        match open_attempt(work, seq, *lease, claim) {
            Ok(run) => claimed.push(run),
            Err(fault) if fault.is_bad_row() => give_up(work, (seq, *lease), claim.now, &fault.to_string())?,
            Err(fault) => return Err(fault),
        }
    }
    Ok((claimed, superseded))
}

/// Ends those that newer runs of their lane are before, and answers the others.
fn end_outrun(work: &mut Work<'_>, claim: &Claim, found: Vec<Next>, superseded: &mut Vec<RunId>) -> Outcome<Vec<Next>> {
    let mut left = Vec::with_capacity(found.len());
    for next in found {
        let by = if next.is_in_lane() { flow::outrun(work.sql, next.seq)? } else { None };
        let Some(by) = by else {
            left.push(next);
            continue;
        };
        let end = "UPDATE runs SET state = ?2, reason = ?3, finished_at = ?4, due = NULL WHERE seq = ?1 RETURNING id";
        let ended = params![next.seq, SUPERSEDED, format!("replaced by {by}"), claim.now.as_millis()];
        superseded.extend(value(work.sql, end, ended)?.map(RunId::from_bytes));
        work.memory.count_out(&claim.agent, u64::from(next.takes_place));
    }
    Ok(left)
}

/// The claim, with no more leases than runs of the agent may run besides those that do.
fn within_scale(work: &Work<'_>, claim: &Claim) -> Outcome<Claim> {
    let mut claim = claim.clone();
    if let Some(most) = claim.most_running {
        let running = "SELECT count(*) FROM runs WHERE agent = ?1 AND state = ?2";
        let running = value::<u64>(work.sql, running, params![claim.agent, RUNNING])?.unwrap_or_default();
        claim.leases.truncate(usize::try_from(u64::from(most).saturating_sub(running)).unwrap_or(usize::MAX));
    }
    Ok(claim)
}

fn open_attempt(work: &mut Work<'_>, seq: i64, lease: Lease, claim: &Claim) -> Outcome<PackedClaim> {
    let now = claim.now.as_millis();
    let take = "UPDATE runs SET state = ?2, attempt = attempt + 1, lease = ?3, lease_until = ?4, started_at = ?5, \
                reason = NULL, due = NULL, holder = ?6, heard = coalesce(heard, (SELECT max(seq) FROM events)) \
                WHERE seq = ?1";
    let worker = claim.worker.as_ref();
    let holder = worker.map(|worker| i64::try_from(worker.lease.as_millis()).unwrap_or(i64::MAX).max(1));
    change(work.sql, take, params![seq, RUNNING, lease.0, claim.until.as_millis(), now, holder])?;
    let run = rows::run(work.sql, seq)?;
    // What a wait was over by is told to each try until the next wait.
    let attempt = "INSERT INTO attempts (run_seq, number, started_at, worker, resumed) \
                   VALUES (?1, ?2, ?3, ?4, (SELECT resumed FROM runs WHERE seq = ?1))";
    change(work.sql, attempt, params![seq, run.attempt, now, worker.map(|worker| &worker.worker)])?;
    let event_seq = "SELECT event_seq FROM runs WHERE seq = ?1";
    let event_seq = work.sql.prepare_cached(event_seq)?.query_row([seq], |row| row.get(0))?;
    let event = rows::event(work.sql, event_seq)?;
    let body = rows::body(work.sql, event_seq)?;
    Ok(PackedClaim { run, lease, event, body })
}

/// Fails a run that was claimed and cannot be carried out because of what is stored, if the lease is still its own.
pub(super) fn give_up(work: &mut Work<'_>, (seq, lease): (i64, Lease), now: Timestamp, why: &str) -> Outcome<()> {
    let fail = "UPDATE runs SET state = ?2, reason = ?3, finished_at = ?4, dead_letter = 1, lease = NULL, \
                lease_until = NULL WHERE seq = ?1 AND state = ?5 AND lease = ?6";
    let reason = format!("what is stored of it cannot be read: {why}");
    if change(work.sql, fail, params![seq, FAILED, reason, now.as_millis(), RUNNING, lease.0])? == 0 {
        return Ok(());
    }
    let end =
        "UPDATE attempts SET ended_at = ?2, ended = 'failed', reason = ?3 WHERE run_seq = ?1 AND ended_at IS NULL";
    change(work.sql, end, params![seq, now.as_millis(), reason])?;
    tracing::error!(run_seq = seq, reason, "a run was given up");
    Ok(())
}

/// Notes the process of an attempt.
pub(super) fn mark_process(work: &Work<'_>, run: RunId, lease: Lease, process: &Process) -> Outcome<bool> {
    let mark = "UPDATE runs SET pid = ?3, process_started = ?4, boot = ?5 WHERE id = ?1 AND state = 3 AND lease = ?2";
    // Ticks beyond i64 would be a machine up for three billion years.
    let started = i64::try_from(process.started).unwrap_or(i64::MAX);
    let params = params![run.to_bytes(), lease.0, process.pid, started, process.boot];
    Ok(change(work.sql, mark, params)? == 1)
}

/// Why a run runs that nobody here carries out.
const TAKEN: &str = "the agent took it, and tells later how it ended";

/// Leaves a run to whoever was given its lease.
pub(super) fn hand_over(work: &Work<'_>, run: RunId, lease: Lease, until: Timestamp) -> Outcome<bool> {
    let hand_over =
        "UPDATE runs SET holder = 0, lease_until = ?3, reason = ?4 WHERE id = ?1 AND state = 3 AND lease = ?2";
    Ok(change(work.sql, hand_over, params![run.to_bytes(), lease.0, until.as_millis(), TAKEN])? == 1)
}

/// Moves the ends of leases, and answers the runs whose lease was lost.
pub(super) fn extend(
    work: &Work<'_>,
    leases: &[(RunId, Lease)],
    until: Timestamp,
    now: Option<Timestamp>,
) -> Outcome<Vec<RunId>> {
    let extend = "UPDATE runs SET lease_until = max(lease_until, ?3) WHERE id = ?1 AND state = 3 AND lease = ?2 \
                  AND (?4 IS NULL OR lease_until >= ?4)";
    let now = now.map(Timestamp::as_millis);
    let mut lost = Vec::new();
    for (run, lease) in leases {
        if change(work.sql, extend, params![run.to_bytes(), lease.0, until.as_millis(), now])? == 0 {
            lost.push(*run);
        }
    }
    Ok(lost)
}

/// Ends an attempt and moves its run on.
pub(super) fn finish(work: &Work<'_>, finish: &Finish) -> Outcome<bool> {
    let ours = "SELECT seq, attempt, cancel_requested, (SELECT id FROM runs n WHERE n.seq = runs.replaced_by) \
                FROM runs WHERE id = ?1 AND state = 3 AND lease = ?2 AND (?3 IS NULL OR lease_until >= ?3)";
    let held_at = finish.in_time.then_some(finish.at.as_millis());
    let ours = work
        .sql
        .prepare_cached(ours)?
        .query_row(params![finish.run.to_bytes(), finish.lease.0, held_at], |row| {
            let replaced_by = row.get::<_, Option<_>>(3)?.map(RunId::from_bytes);
            Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, Option<String>>(2)?, replaced_by))
        })
        .optional()?;
    let Some((seq, attempt, cancel_requested, replaced_by)) = ours else {
        return Ok(false);
    };
    let end = "UPDATE attempts SET ended_at = ?3, ended = ?4, reason = ?5, exit_code = ?6 \
               WHERE run_seq = ?1 AND number = ?2";
    let (at, next) = (finish.at.as_millis(), &finish.transition);
    change(work.sql, end, params![seq, attempt, at, finish.ended, next.reason, finish.exit_code])?;
    let (state, due, reason) = end_of(finish, cancel_requested, replaced_by);
    let wait = next.wait.as_ref().filter(|_| state == State::Waiting);
    let move_on = "UPDATE runs SET state = ?2, due = ?3, dead_letter = ?4, failures = ?5, losses = ?6, reason = ?7, \
                   finished_at = ?8, lease = NULL, lease_until = NULL, pid = NULL, process_started = NULL, \
                   boot = NULL, wait = ?9, wait_run = ?10, resumed = iif(?9 IS NULL, resumed, NULL) WHERE seq = ?1";
    change(
        work.sql,
        move_on,
        params![
            seq,
            state_number(state),
            due.map(Timestamp::as_millis),
            next.dead_letter && state == State::Failed,
            next.progress.failures,
            next.progress.losses,
            reason,
            state.is_final().then_some(at),
            wait.map(waits::written).transpose()?,
            wait.and_then(waits::run_of),
        ],
    )?;
    if let Some(wait) = wait {
        waits::begin(work, seq, wait)?;
    }
    if let Some(result) = &finish.result {
        let keep = "INSERT INTO results (run_seq, result) VALUES (?1, ?2) \
                    ON CONFLICT (run_seq) DO UPDATE SET result = excluded.result";
        change(work.sql, keep, params![seq, result])?;
    }
    Ok(true)
}

/// Where a run goes when its attempt ends, when it is due there, and why.
fn end_of(
    finish: &Finish,
    cancel_requested: Option<String>,
    replaced_by: Option<RunId>,
) -> (State, Option<Timestamp>, String) {
    let next = &finish.transition;
    // Whoever asked for the end was told so: a run that would go on ends here.
    let goes_on = !next.state.is_final() || next.state == State::Cancelled || finish.ended == "lost";
    match cancel_requested {
        // It did not come to its own end, and whether it would have failed is no longer of interest.
        Some(_) if let Some(by) = replaced_by.filter(|_| goes_on) => {
            (State::Superseded, None, format!("replaced by {by}"))
        }
        Some(by) if !next.state.is_final() || finish.ended == "lost" => {
            (State::Cancelled, None, format!("cancelled by {by}"))
        }
        _ if next.state == State::Waiting => (next.state, next.due.or(Some(finish.at)), next.reason.clone()),
        _ => (next.state, None, next.reason.clone()),
    }
}

/// Ends a run that does not run, or asks for the end of one that does.
pub(super) fn cancel(work: &mut Work<'_>, run: RunId, by: &str, now: Timestamp) -> Outcome<Cancel> {
    let found = "SELECT seq, agent, state FROM runs WHERE id = ?1";
    let found = work
        .sql
        .prepare_cached(found)?
        .query_row([run.to_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))
        .optional()?;
    let Some((seq, agent, number)) = found else {
        return Ok(Cancel::Unknown);
    };
    let state = state_of(number)?;
    if state.is_final() {
        return Ok(Cancel::AlreadyFinal(state));
    }
    if state == State::Running {
        let ask = "UPDATE runs SET cancel_requested = coalesce(cancel_requested, ?2) WHERE seq = ?1";
        change(work.sql, ask, params![seq, by])?;
        return Ok(Cancel::Requested);
    }
    rows::end_run(work.sql, seq, CANCELLED, &format!("cancelled by {by}"), now)?;
    work.memory.fresh.remove(&agent);
    Ok(Cancel::Cancelled)
}

/// Notes what became of a run's follow-up.
pub(super) fn note_follow_up(work: &Work<'_>, run: RunId, note: &FollowedUp) -> Outcome<()> {
    let keep = "UPDATE runs SET followed_up_at = ?2, follow_up_error = ?3 WHERE id = ?1";
    change(work.sql, keep, params![run.to_bytes(), note.at.as_millis(), note.error]).map(drop)
}

/// All running runs but those whose rows cannot be read: they must not keep the others from being carried out.
pub(super) fn running(sql: &rusqlite::Connection) -> Outcome<Vec<Running>> {
    let of_agent = format!("{RUNNING_RUNS} WHERE agent = ?1 AND state = ?2 ORDER BY seq");
    let read = |row: &rusqlite::Row<'_>| match read_running(sql, row) {
        Err(fault) if fault.is_bad_row() => {
            tracing::error!(run_seq = row.get::<_, i64>(0)?, %fault, "a running run cannot be read");
            Ok(None)
        }
        running => running.map(Some),
    };
    let mut found = Vec::new();
    for agent in rows::agents(sql)? {
        found.extend(rows::all(sql, &of_agent, params![agent, RUNNING], read)?.into_iter().flatten());
    }
    Ok(found)
}

/// The running run that has this lease.
pub(super) fn running_by_lease(sql: &rusqlite::Connection, lease: Lease) -> Outcome<Option<Running>> {
    let this = format!("{RUNNING_RUNS} WHERE lease = ?1 AND state = ?2");
    Ok(rows::all(sql, &this, params![lease.0, RUNNING], |row| read_running(sql, row))?.pop())
}

/// A run, if it is running.
pub(super) fn running_run(sql: &rusqlite::Connection, run: RunId) -> Outcome<Option<Running>> {
    let this = format!("{RUNNING_RUNS} WHERE id = ?1 AND state = ?2");
    Ok(rows::all(sql, &this, params![run.to_bytes(), RUNNING], |row| read_running(sql, row))?.pop())
}

const RUNNING_RUNS: &str = "SELECT seq, lease, lease_until, pid, process_started, boot, holder, (SELECT worker FROM \
                            attempts WHERE run_seq = runs.seq AND number = runs.attempt) FROM runs";

fn read_running(sql: &rusqlite::Connection, row: &rusqlite::Row<'_>) -> Outcome<Running> {
    let process = match row.get::<_, Option<i32>>(3)? {
        Some(pid) => Some(Process { pid, started: row.get(4)?, boot: row.get(5)? }),
        None => None,
    };
    let holder = match row.get::<_, Option<u64>>(6)? {
        None => Holder::Gateway,
        Some(0) => Holder::Callback,
        Some(millis) => Holder::Worker(Duration::from_millis(millis)),
    };
    let (run, lease, until) = (rows::run(sql, row.get(0)?)?, Lease(row.get(1)?), rows::time(row, 2)?);
    Ok(Running { run, lease, until, process, holder, worker: row.get(7)? })
}

/// A run with its result and attempts.
pub(super) fn with_attempts(sql: &rusqlite::Connection, id: RunId) -> Outcome<Option<(StoredRun, Vec<Attempt>)>> {
    let Some(seq) = rows::run_seq(sql, id)? else {
        return Ok(None);
    };
    let mut run = rows::run(sql, seq)?;
    run.result = value(sql, "SELECT result FROM results WHERE run_seq = ?1", [seq])?;
    let attempts = "SELECT number, started_at, ended_at, ended, reason, exit_code, worker, resumed FROM attempts WHERE run_seq = ?1 \
                    ORDER BY number";
    let attempts = rows::all(sql, attempts, [seq], |row| {
        Ok(Attempt {
            number: row.get(0)?,
            started_at: rows::time(row, 1)?,
            ended_at: rows::time_if_any(row, 2)?,
            ended: row.get(3)?,
            reason: row.get(4)?,
            exit_code: row.get(5)?,
            worker: row.get(6)?,
            resumed: waits::read(row.get(7)?)?,
        })
    })?;
    Ok(Some((run, attempts)))
}

/// Queues a run that ended badly once more, with all its tries.
pub(super) fn retry(work: &mut Work<'_>, run: RunId, by: &str, now: Timestamp) -> Outcome<Retry> {
    let found = "SELECT r.seq, r.agent, r.state, r.event_seq, e.forgotten_at IS NOT NULL FROM runs r \
                 JOIN events e ON e.seq = r.event_seq WHERE r.id = ?1";
    let found = work
        .sql
        .prepare_cached(found)?
        .query_row([run.to_bytes()], |row| {
            let place = (row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(3)?);
            Ok((place, row.get::<_, i64>(2)?, row.get::<_, bool>(4)?))
        })
        .optional()?;
    let Some(((seq, agent, event), number, forgotten)) = found else { return Ok(Retry::Unknown) };
    let state = state_of(number)?;
    if !matches!(state, State::Failed | State::Cancelled | State::Superseded | State::Dropped) {
        return Ok(Retry::NotFailed(state));
    }
    if forgotten {
        return Ok(Retry::Forgotten);
    }
    if let Some(by) = flow::overtaken(work.sql, seq)? {
        return Ok(Retry::Overtaken(by));
    }
    let queue = "UPDATE runs SET state = ?2, reason = ?3, finished_at = NULL, due = NULL, dead_letter = 0, failures = 0, \
                 losses = 0, cancel_requested = NULL, followed_up_at = NULL, follow_up_error = NULL, \
                 paused_source = NULL, reason_before = NULL, kept = 1, replaced_by = NULL WHERE seq = ?1";
    change(work.sql, queue, params![seq, QUEUED, format!("tried again by {by}")])?;
    moved::note(work, seq, How::Retried, by, now)?;
    change(work.sql, "DELETE FROM results WHERE run_seq = ?1", [seq])?;
    let started = "UPDATE outcomes SET kind = ?4, reason = NULL WHERE event_seq = ?1 AND agent = ?2 AND run_seq = ?3 \
                   AND kind = ?5";
    let kinds = (rows::kind_number(OutcomeKind::Started), rows::kind_number(OutcomeKind::Dropped));
    change(work.sql, started, params![event, agent, seq, kinds.0, kinds.1])?;
    work.memory.fresh.remove(&agent);
    Ok(Retry::Queued(agent))
}
