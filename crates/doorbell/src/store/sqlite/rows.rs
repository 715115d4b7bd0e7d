//! Rows and what they mean.

use aws_lc_rs::digest;
use doorbell_core::event::{event_type, moment_of_key};
use doorbell_core::id::{EventId, Id, ReplayId, RunId};
use doorbell_core::run::{Progress, State};
use doorbell_core::time::Timestamp;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::body::{PackedBody, packed_from_row};
use super::fault::{Fault, Outcome};
use super::{moved, waits};
use crate::store::{AgentOutcome, FollowedUp, OutcomeKind, Replay, StoredEvent, StoredRun};

/// What stands for a delivery key of a source. No name of a source has a zero byte.
pub(super) fn delivery_digest(source: &str, key: &str) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    [source.as_bytes(), b"\0", key.as_bytes()].into_iter().for_each(|part| context.update(part));
    let mut short = [0; 16];
    short.copy_from_slice(&context.finish().as_ref()[..16]);
    short
}

/// The same digest behind the moment that the sender's id names, as `claimed_keys` has it.
pub(super) fn delivery_key(source: &str, key: &str) -> [u8; 22] {
    let digest = delivery_digest(source, key);
    let millis = moment_of_key(key).and_then(|at| u64::try_from(at.as_millis()).ok()).map(u64::to_be_bytes);
    let mut placed = [0; 22];
    match millis {
        Some([0, 0, moment @ ..]) => placed[..6].copy_from_slice(&moment),
        _ => placed[..6].copy_from_slice(&digest[..6]),
    }
    placed[6..].copy_from_slice(&digest);
    placed
}

pub(super) const HELD: i64 = 0;
pub(super) const WAITING: i64 = 1;
pub(super) const QUEUED: i64 = 2;
pub(super) const RUNNING: i64 = 3;
pub(super) const FAILED: i64 = 5;
pub(super) const CANCELLED: i64 = 6;
pub(super) const SUPERSEDED: i64 = 7;
pub(super) const DROPPED: i64 = 8;

/// The number that stands for a state; never changed.
pub(super) fn state_number(state: State) -> i64 {
    match state {
        State::Held => HELD,
        State::Waiting => WAITING,
        State::Queued => QUEUED,
        State::Running => RUNNING,
        State::Succeeded => 4,
        State::Failed => FAILED,
        State::Cancelled => CANCELLED,
        State::Superseded => SUPERSEDED,
        State::Dropped => DROPPED,
    }
}

/// The state that a number stands for.
pub(super) fn state_of(number: i64) -> Outcome<State> {
    State::ALL
        .into_iter()
        .find(|state| state_number(*state) == number)
        .ok_or_else(|| Fault::Corrupt(format!("no state has the number {number}")))
}

const KINDS: [OutcomeKind; 5] =
    [OutcomeKind::Started, OutcomeKind::Absorbed, OutcomeKind::Skipped, OutcomeKind::Dropped, OutcomeKind::FilterError];

/// The number that stands for a kind of outcome; never changed.
pub(super) fn kind_number(kind: OutcomeKind) -> i64 {
    match kind {
        OutcomeKind::Started => 0,
        OutcomeKind::Absorbed => 1,
        OutcomeKind::Skipped => 2,
        OutcomeKind::Dropped => 3,
        OutcomeKind::FilterError => 4,
    }
}

/// The number of the kind that the API spells so.
pub(super) fn kind_named(name: &str) -> Option<i64> {
    KINDS.into_iter().find(|kind| kind.as_str() == name).map(kind_number)
}

fn kind_of(number: i64) -> Outcome<OutcomeKind> {
    KINDS
        .into_iter()
        .find(|kind| kind_number(*kind) == number)
        .ok_or_else(|| Fault::Corrupt(format!("no kind of outcome has the number {number}")))
}

pub(super) fn id<K>(row: &Row<'_>, column: usize) -> rusqlite::Result<Id<K>> {
    row.get(column).map(Id::from_bytes)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

pub(super) fn time_if_any(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// All rows of a statement, each read by `from`.
pub(super) fn all<T>(
    sql: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
    from: impl Fn(&Row<'_>) -> Outcome<T>,
) -> Outcome<Vec<T>> {
    let mut statement = sql.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(from(row)?);
    }
    Ok(found)
}

/// The only value of the only row, if there is one.
pub(super) fn value<T: FromSql>(
    sql: &Connection,
    statement: &str,
    params: impl rusqlite::Params,
) -> Outcome<Option<T>> {
    Ok(sql.prepare_cached(statement)?.query_row(params, |row| row.get(0)).optional()?)
}

/// Runs a statement and answers how many rows it changed.
pub(super) fn change(sql: &Connection, statement: &str, params: impl rusqlite::Params) -> Outcome<usize> {
    Ok(sql.prepare_cached(statement)?.execute(params)?)
}

/// Ends a run that does not run, in this state and for this reason.
pub(super) fn end_run(sql: &Connection, seq: i64, state: i64, reason: &str, at: Timestamp) -> Outcome<()> {
    let end = "UPDATE runs SET state = ?2, reason = ?3, finished_at = ?4, due = NULL WHERE seq = ?1";
    change(sql, end, params![seq, state, reason, at.as_millis()]).map(drop)
}

const EVENT: &str = "SELECT seq, id, source, provider, event, action, delivery_id, verified_by, received_at, \
                     handshake, context, trigger_set, body_size, duplicates, forgotten_at, replay, replay_of FROM events WHERE seq = ?1";

/// The event with this sequence.
pub(super) fn event(sql: &Connection, seq: i64) -> Outcome<StoredEvent> {
    Ok(sql.prepare_cached(EVENT)?.query_row([seq], |row| {
        Ok(StoredEvent {
            seq: row.get(0)?,
            id: id(row, 1)?,
            source: row.get(2)?,
            provider: row.get(3)?,
            event: row.get(4)?,
            action: row.get(5)?,
            delivery_id: row.get(6)?,
            verified_by: row.get(7)?,
            received_at: time(row, 8)?,
            handshake: row.get(9)?,
            context: row.get(10)?,
            trigger_set: row.get(11)?,
            body_size: row.get(12)?,
            duplicates: row.get(13)?,
            forgotten_at: time_if_any(row, 14)?,
            replay: replay(row)?,
        })
    })?)
}

fn replay(row: &Row<'_>) -> rusqlite::Result<Option<Replay>> {
    let bytes = |column: usize| row.get::<_, Option<[u8; 16]>>(column);
    let (Some(id), Some(of)) = (bytes(15)?, bytes(16)?) else { return Ok(None) };
    Ok(Some(Replay { id: ReplayId::from_bytes(id), of: EventId::from_bytes(of) }))
}

/// The events that replay this one.
pub(super) fn replays_of(sql: &Connection, event: EventId) -> Outcome<Vec<EventId>> {
    all(sql, "SELECT id FROM events WHERE replay_of = ?1 ORDER BY seq", [event.to_bytes()], |row| Ok(id(row, 0)?))
}

/// The sequence of the event with this id.
pub(super) fn event_seq(sql: &Connection, id: EventId) -> Outcome<Option<i64>> {
    value(sql, "SELECT seq FROM events WHERE id = ?1", [id.to_bytes()])
}

/// Headers and body of the event with this sequence.
pub(super) fn body(sql: &Connection, seq: i64) -> Outcome<PackedBody> {
    let statement = "SELECT head, encoding, size, data FROM bodies WHERE event_seq = ?1";
    Ok(sql
        .prepare_cached(statement)?
        .query_row([seq], |row| Ok(PackedBody { head: row.get(0)?, packed: packed_from_row(row, 1)? }))?)
}

/// What is selected of outcomes (`o`), and from where. What went with a run that was dropped is dropped with it, and no more so
/// once that run is tried again.
macro_rules! outcome_columns {
    () => {
        "o.agent, iif(o.kind = 1 AND r.state = 8, 3, o.kind), r.id, o.trigger, \
         iif(o.kind = 1 AND r.state = 8, coalesce(r.reason, o.reason), o.reason), o.at, coalesce(o.trigger_set, e.trigger_set) \
         FROM outcomes o JOIN events e ON e.seq = o.event_seq LEFT JOIN runs r ON r.seq = o.run_seq"
    };
}
pub(super) use outcome_columns;

/// The outcomes of the event with this sequence, by agent.
pub(super) fn outcomes(sql: &Connection, seq: i64) -> Outcome<Vec<AgentOutcome>> {
    let statement = concat!("SELECT ", outcome_columns!(), " WHERE o.event_seq = ?1 ORDER BY o.agent");
    all(sql, statement, [seq], |row| outcome(row, 0))
}

/// The outcome in the columns of `outcome_columns!` from `first` on.
pub(super) fn outcome(row: &Row<'_>, first: usize) -> Outcome<AgentOutcome> {
    Ok(AgentOutcome {
        agent: row.get(first)?,
        kind: kind_of(row.get(first + 1)?)?,
        // A run of another event may have been removed with that one.
        run: row.get::<_, Option<_>>(first + 2)?.map(RunId::from_bytes),
        trigger: row.get(first + 3)?,
        reason: row.get(first + 4)?,
        at: time(row, first + 5)?,
        trigger_set: row.get(first + 6)?,
    })
}

const RUN: &str = "SELECT r.seq, r.id, r.agent, e.id, e.provider, e.event, e.action, r.state, r.reason, r.dead_letter, \
                   r.attempt, r.failures, r.losses, r.created_at, r.started_at, r.finished_at, r.due, \
                   r.cancel_requested, r.trace, r.key, r.followed_up_at, r.follow_up_error, \
                   coalesce(r.absorbed, 0), r.wait, r.resumed, r.moved FROM runs r JOIN events e ON e.seq = r.event_seq WHERE r.seq = ?1";

/// The run with this sequence, without its result.
pub(super) fn run(sql: &Connection, seq: i64) -> Outcome<StoredRun> {
    let (number, waits, mut run) = sql.prepare_cached(RUN)?.query_row([seq], |row| {
        let action: Option<String> = row.get(6)?;
        let run = StoredRun {
            seq: row.get(0)?,
            id: id(row, 1)?,
            agent: row.get(2)?,
            event: id(row, 3)?,
            event_type: event_type(&row.get::<_, String>(4)?, &row.get::<_, String>(5)?, action.as_deref()),
            state: State::Held,
            reason: row.get(8)?,
            dead_letter: row.get(9)?,
            attempt: row.get(10)?,
            progress: Progress { failures: row.get(11)?, losses: row.get(12)? },
            created_at: time(row, 13)?,
            started_at: time_if_any(row, 14)?,
            finished_at: time_if_any(row, 15)?,
            due: time_if_any(row, 16)?,
            cancel_requested: row.get(17)?,
            trace: row.get(18)?,
            key: row.get(19)?,
            absorbed: row.get(22)?,
            follow_up: follow_up(row)?,
            wait: None,
            resumed: None,
            moved: None,
            result: None,
        };
        Ok((row.get(7)?, (row.get(23)?, row.get(24)?, row.get(25)?), run))
    })?;
    (run.wait, run.resumed, run.moved) = (waits::read(waits.0)?, waits::read(waits.1)?, moved::read(waits.2)?);
    run.state = state_of(number)?;
    // One that is held while it waits keeps its time for when it is given back.
    run.due = run.due.filter(|_| run.state == State::Waiting);
    if let (Some(wait), State::Waiting) = (&run.wait, run.state) {
        // Also after it was held for another reason.
        run.reason = Some(wait.describe(run.due));
    }
    Ok(run)
}

fn follow_up(row: &Row<'_>) -> rusqlite::Result<Option<FollowedUp>> {
    let Some(at) = time_if_any(row, 20)? else { return Ok(None) };
    Ok(Some(FollowedUp { at, error: row.get(21)? }))
}

/// The sequence of the run with this id.
pub(super) fn run_seq(sql: &Connection, id: RunId) -> Outcome<Option<i64>> {
    value(sql, "SELECT seq FROM runs WHERE id = ?1", [id.to_bytes()])
}

/// All agents that have runs, by name: one seek an agent, however many runs they have.
pub(super) fn agents(sql: &Connection) -> Outcome<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    // No name is empty, so that all are greater than the first bound.
    while let Some(next) = least(sql, "SELECT min(agent) FROM runs WHERE agent > ?1", [found.last().map_or("", |a| a)])?
    {
        found.push(next);
    }
    Ok(found)
}

/// What a statement with `min` answers, which for no rows is a row with NULL.
pub(super) fn least(sql: &Connection, statement: &str, params: impl rusqlite::Params) -> Outcome<Option<String>> {
    Ok(value::<Option<String>>(sql, statement, params)?.flatten())
}
