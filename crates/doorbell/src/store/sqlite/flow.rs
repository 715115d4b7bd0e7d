//! Flow control at the moment an event is stored: what its key is busy with, and what becomes of both.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use doorbell_core::flow::{self, Debounce, Flow, Lane, MOST_ABSORBED, Move, WhenBusy};
use doorbell_core::id::{EventId, RunId};
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::fault::{Fault, Outcome};
use super::queue::AGENT_IS_GONE;
use super::rows::{self, HELD, QUEUED, RUNNING, SUPERSEDED, WAITING, all, change, kind_number, state_number};
use super::tally;
use super::writer::Work;
use crate::store::{Effects, OutcomeKind, PAUSED, Start, StoredEvent};

/// Runs that one event replaces at most: only those that waited before their trigger said `replace` can be so many. Those
/// that are left end when their turn comes: see [`outrun`].
const MOST_REPLACED: usize = 5000;

/// Why a run waits for further events.
const GATHERS: &str = "gathers further events of its key: `debounce`";

/// What throttles nothing.
pub(super) const NO_GATE: &str = "-";

/// A run of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) seq: i64,
    pub(super) id: RunId,
    /// Its own event.
    pub(super) event_seq: i64,
    /// How old that is: a replay is as old as what it replays.
    age: i64,
}

/// The columns of [`Known`].
const KNOWN: &str = "seq, id, event_seq, coalesce(age, event_seq)";

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    Ok(Known { seq: row.get(0)?, id: rows::id(row, 1)?, event_seq: row.get(2)?, age: row.get(3)? })
}

/// An event that is about to be decided on for one agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Its place in the order of commits.
    pub(super) event_seq: i64,
    /// Whether it was stored before, so that there may be newer ones.
    pub(super) duplicate: bool,
    /// What it says again, if it does: then it is no newer work, though it is stored later.
    pub(super) replay: Option<EventId>,
    pub(super) source: &'a str,
    /// Why its source is paused.
    pub(super) paused: Option<&'a str>,
    /// Why its agent is paused.
    pub(super) held: Option<&'a str>,
    pub(super) now: Timestamp,
    pub(super) start: &'a Start,
    pub(super) flow: &'a Flow,
}

impl Arrival<'_> {
    /// Whether it replaces others. What is replayed replaces nothing: it waits for its turn.
    fn replaces(&self) -> bool {
        self.flow.when_busy == Some(WhenBusy::Replace) && self.replay.is_none()
    }

    /// What its runs share: the key, or without one, the agent as a whole.
    fn lane(&self) -> Cow<'_, str> {
        let shares = self.flow.is_alone() || self.flow.debounce.is_some() || self.flow.max_per_key.is_some();
        match self.start.key.as_deref() {
            Some(key) if key.is_empty() || key.starts_with(MARK) => format!("{MARK}{key}").into(),
            Some(key) => key.into(),
            None if shares => "".into(),
            None => OUTSIDE.into(),
        }
    }
}

/// How lanes begin that no key names: that of the empty key, which is not that of triggers without a key. A key that begins
/// so gets another one.
const MARK: char = '\u{1}';
/// The lane of what shares nothing: runs by hand, ticks, and those of triggers that say nothing of keys.
const OUTSIDE: &str = "\u{1}-";

/// The key of an arrival, as the tables know it.
struct Key<'a> {
    sql: &'a Connection,
    arrival: Arrival<'a>,
}

impl Key<'_> {
    fn find(&self, statement: &str, params: impl rusqlite::Params) -> Outcome<Option<Known>> {
        Ok(self.sql.prepare_cached(statement)?.query_row(params, known).optional()?)
    }
}

impl Lane for Key<'_> {
    type Run = Known;
    type Error = Fault;

    fn newer(&mut self) -> Outcome<Option<Known>> {
        let Arrival { event_seq, duplicate, start, .. } = self.arrival;
        // What was stored just now is the newest.
        if !duplicate {
            return Ok(None);
        }
        newer(self.sql, &start.agent, start.key.as_deref(), &self.arrival.lane(), event_seq)
    }

    fn open(&mut self, queued: bool, full: bool) -> Outcome<Option<Known>> {
        let open = format!(
            "SELECT {KNOWN} FROM runs INDEXED BY runs_in_lane WHERE agent = ?1 AND lane = ?2 AND alone = ?3 AND state = ?4 \
             AND attempt = 0 AND coalesce(absorbed, 0) < ?5 AND (?6 OR state = 0 OR gathers_until IS NOT NULL) \
             AND paused_source IS ?7 \
             AND (?8 OR state <> 0 OR counted_at IS NOT NULL OR paused_source IS NOT NULL) LIMIT 1"
        );
        let Arrival { start, flow, source, paused, .. } = self.arrival;
        // What is held with its source must neither take along what may start, nor be started by it.
        let source = paused.map(|_| source);
        // Where runs of a key are counted, one that is held and was not is held for there were too many.
        let held = full || flow.max_per_key.is_none();
        let states = [QUEUED, WAITING, HELD];
        for state in &states[usize::from(!queued)..] {
            let params =
                params![start.agent, self.arrival.lane(), flow.is_alone(), state, MOST_ABSORBED, queued, source, held];
            if let Some(run) = self.find(&open, params)? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    fn holder(&mut self) -> Outcome<Option<Known>> {
        let holder = format!(
            "SELECT {KNOWN} FROM runs WHERE agent = ?1 AND lane = ?2 AND alone = ?3 AND state < 4 \
             AND (?4 OR paused_source IS NULL) ORDER BY state DESC LIMIT 1"
        );
        let Arrival { start, flow, paused, .. } = self.arrival;
        // Another source's pause is no reason to skip what this one sends.
        self.find(&holder, params![start.agent, self.arrival.lane(), flow.is_alone(), paused.is_some()])
    }

    fn coming_back(&mut self) -> Outcome<Option<Known>> {
        let Arrival { start, source, .. } = self.arrival;
        // Mostly nothing of the agent is held so, while of a key any number may be held for its limit.
        if !tally::any_come_back(self.sql, &start.agent)? {
            return Ok(None);
        }
        let held = format!(
            "SELECT {KNOWN} FROM runs INDEXED BY runs_in_lane WHERE agent = ?1 AND lane = ?2 AND alone = 1 AND state = 0 \
             AND iif(paused_source IS NULL, reason = ?4 OR substr(reason, 1, length(?5)) = ?5, paused_source = ?3) LIMIT 1"
        );
        self.find(&held, params![start.agent, self.arrival.lane(), source, AGENT_IS_GONE, PAUSED])
    }

    fn made(&mut self, n: u32) -> Outcome<Option<Timestamp>> {
        // What is later than now was made before the clock was set back.
        let made = "SELECT counted_at FROM runs WHERE agent = ?1 AND lane = ?2 AND counted_at <= ?3 \
                    ORDER BY counted_at DESC LIMIT 1 OFFSET ?4";
        let Arrival { start, now, .. } = self.arrival;
        let params = params![start.agent, self.arrival.lane(), now.as_millis(), n.saturating_sub(1)];
        Ok(rows::value(self.sql, made, params)?.map(Timestamp::from_millis))
    }
}

/// What becomes of the arrival.
pub(super) fn decide(sql: &Connection, arrival: Arrival<'_>) -> Outcome<Move<Known>> {
    let paused = arrival.paused.or(arrival.held);
    flow::decide(arrival.flow, &mut Key { sql, arrival }, paused, arrival.now)
}

/// Where a new run stands, until when, and how long it may gather.
fn entry(next: &Move<Known>) -> (i64, Option<Timestamp>, Option<Timestamp>) {
    match next {
        Move::Gather { due, ends } => (WAITING, Some(*due), Some(*ends)),
        Move::Hold(_) | Move::Pause(_) | Move::Behind(_) => (HELD, None, None),
        Move::Queue | Move::Absorb(_) | Move::Skip(_) => (QUEUED, None, None),
    }
}

/// Why it stands there, and the source that it is held with.
fn why(sql: &Connection, arrival: Arrival<'_>, next: &Move<Known>) -> Outcome<(Option<String>, Option<String>)> {
    Ok(match next {
        Move::Gather { .. } => (Some(GATHERS.to_owned()), None),
        Move::Hold(reason) => (Some(reason.clone()), None),
        Move::Pause(reason) => (Some(reason.clone()), arrival.paused.map(|_| arrival.source.to_owned())),
        // It goes on with whatever has that one go on.
        Move::Behind(before) => {
            let same = "SELECT reason, paused_source FROM runs WHERE seq = ?1";
            sql.prepare_cached(same)?.query_row([before.seq], |row| Ok((row.get(0)?, row.get(1)?)))?
        }
        Move::Queue | Move::Absorb(_) | Move::Skip(_) => (None, None),
    })
}

/// How old a replay is to others; none for what is as old as it is stored.
fn age(sql: &Connection, arrival: Arrival<'_>) -> Outcome<Option<i64>> {
    let Some(of) = arrival.replay else { return Ok(None) };
    let replayed = rows::value(sql, "SELECT seq FROM events WHERE id = ?1", [of.to_bytes()])?;
    // What was removed is older than all that is left.
    Ok(Some(replayed.unwrap_or(0)))
}

/// Writes a new run under flow control.
pub(super) fn insert(
    work: &Work<'_>,
    arrival: Arrival<'_>,
    (seq, id): (i64, RunId),
    trace: Option<&str>,
    next: &Move<Known>,
) -> Outcome<()> {
    let statement = "INSERT INTO runs (seq, id, agent, event_seq, state, created_at, trace, key, reason, due, \
                     gathers_until, lane, alone, priority, gate, counted_at, replaces, paused_source, age, kept) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
    let Arrival { event_seq, now, start, flow, replay, .. } = arrival;
    let (state, due, ends) = entry(next);
    let (reason, paused) = why(work.sql, arrival, next)?;
    let gate = flow.throttle.map_or(NO_GATE.to_owned(), |rate| format!("{}:{rate}", start.trigger));
    let counted = flow.max_per_key.filter(|_| !matches!(next, Move::Hold(_))).map(|_| now.as_millis());
    change(
        work.sql,
        statement,
        params![
            seq,
            id.to_bytes(),
            start.agent,
            event_seq,
            state,
            now.as_millis(),
            trace,
            start.key,
            reason,
            due.map(Timestamp::as_millis),
            ends.map(Timestamp::as_millis),
            arrival.lane(),
            flow.is_alone(),
            flow.priority,
            gate,
            counted,
            flow.when_busy == Some(WhenBusy::Replace),
            paused,
            age(work.sql, arrival)?,
            replay.map(|_| 1),
        ],
    )?;
    tally::count_new(work.sql, seq)?;
    if state == QUEUED { enter_lane(work.sql, arrival, seq) } else { Ok(()) }
}

/// Gives a new queued run its turn, unless it has to wait for another one of its key: as the trigger `runs_lane_entered` does
/// for runs that are queued later.
fn enter_lane(sql: &Connection, arrival: Arrival<'_>, seq: i64) -> Outcome<()> {
    let turn = "UPDATE runs SET turn = 1 + max(\
                coalesce((SELECT t.turn FROM turns t WHERE t.agent = runs.agent AND t.gate = runs.gate \
                          AND t.priority = runs.priority), 0), \
                coalesce((SELECT r.turn FROM runs r WHERE r.agent = runs.agent AND r.lane = runs.lane \
                          AND r.gate = runs.gate AND r.priority = runs.priority AND r.turn IS NOT NULL AND r.state = 2 \
                          ORDER BY r.turn DESC LIMIT 1), 0)) \
                WHERE seq = ?1 AND (alone = 0 OR (\
                NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = runs.agent AND r.lane = runs.lane AND r.alone = 1 \
                            AND r.state = 3) \
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = runs.agent AND r.lane = runs.lane AND r.alone = 1 \
                                AND r.state = 2 AND r.turn IS NOT NULL) \
                AND NOT EXISTS (SELECT 1 FROM runs r INDEXED BY runs_that_wait WHERE r.agent = runs.agent \
                                AND r.lane = runs.lane AND r.alone = 1 AND r.wait IS NOT NULL)))";
    change(sql, turn, [seq])?;
    tally::count_in_lane(sql, &arrival.start.agent, arrival.flow.throttle.is_some())
}

/// What becomes of an event that goes with a run: where events are gathered the newest one is the run's own, and those
/// before it are absorbed.
pub(super) fn kind_of_absorbed(arrival: Arrival<'_>, into: Known) -> OutcomeKind {
    match arrival.flow.debounce.is_some() && arrival.replay.is_none() && arrival.event_seq > into.age {
        true => OutcomeKind::Started,
        false => OutcomeKind::Absorbed,
    }
}

/// Adds the arrival to a run that has not started.
pub(super) fn absorb(work: &mut Work<'_>, arrival: Arrival<'_>, into: Known) -> Outcome<()> {
    let Arrival { event_seq, now, start, flow, replay, .. } = arrival;
    let newest = kind_of_absorbed(arrival, into) == OutcomeKind::Started;
    if newest {
        let step_back =
            "UPDATE outcomes SET kind = ?4, reason = ?5 WHERE event_seq = ?1 AND agent = ?2 AND run_seq = ?3";
        let (kind, reason) = (kind_number(OutcomeKind::Absorbed), absorbed_reason(into));
        change(work.sql, step_back, params![into.event_seq, start.agent, into.seq, kind, reason])?;
    }
    let window = flow.debounce.map_or(Duration::ZERO, |Debounce { window, .. }| window);
    let grow = "UPDATE runs SET absorbed = coalesce(absorbed, 0) + 1, event_seq = iif(?2, ?3, event_seq), \
                age = iif(?2, NULL, age), due = iif(state = 1 AND ?5, min(?4, coalesce(gathers_until, ?4)), due) WHERE seq = ?1";
    let due = now.after(window).as_millis();
    if replay.is_some() {
        // What was asked for once more is not dropped with it.
        change(work.sql, "UPDATE runs SET kept = 1 WHERE seq = ?1", [into.seq])?;
        work.memory.fresh.remove(&start.agent);
    }
    change(work.sql, grow, params![into.seq, newest, event_seq, due, flow.debounce.is_some()]).map(drop)
}

/// Why an event is absorbed.
pub(super) fn absorbed_reason(into: Known) -> String {
    format!("it goes with {into}, which had not started")
}

/// Ends what the new run replaces and did not start.
pub(super) fn supersede(
    work: &mut Work<'_>,
    arrival: Arrival<'_>,
    (seq, id): (i64, RunId),
    effects: &mut Effects,
) -> Outcome<()> {
    if !arrival.replaces() {
        return Ok(());
    }
    let start = arrival.start;
    let waiting = format!(
        "SELECT {KNOWN}, attempt = 0 AND kept IS NULL AND state IN (1, 2) FROM runs WHERE agent = ?1 AND lane = ?2 \
         AND alone = 1 AND state < 3 AND seq <> ?3 LIMIT ?4"
    );
    let waiting = all(work.sql, &waiting, params![start.agent, arrival.lane(), seq, MOST_REPLACED], |row| {
        Ok((known(row)?, row.get::<_, bool>(4)?))
    })?;
    let reason = format!("replaced by {id}");
    for (other, takes_place) in waiting {
        rows::end_run(work.sql, other.seq, SUPERSEDED, &reason, arrival.now)?;
        work.memory.count_out(&start.agent, u64::from(takes_place));
        effects.superseded.push(other.id);
    }
    Ok(())
}

/// Asks what runs, and the new run replaces, to end; to be called after [`supersede`]: when the one that has the turn is gone, none
/// of those that waited must get it.
pub(super) fn ask_to_end(
    sql: &Connection,
    arrival: Arrival<'_>,
    (seq, id): (i64, RunId),
    effects: &mut Effects,
) -> Outcome<()> {
    if !arrival.replaces() {
        return Ok(());
    }
    let running = format!("SELECT {KNOWN} FROM runs WHERE agent = ?1 AND lane = ?2 AND alone = 1 AND state = ?3");
    let running = all(sql, &running, params![arrival.start.agent, arrival.lane(), RUNNING], |row| Ok(known(row)?))?;
    let by = format!("{id}, which replaces it");
    for other in running {
        // Whom a person asked to end is cancelled by that person.
        let ask = "UPDATE runs SET cancel_requested = ?2, replaced_by = ?3 WHERE seq = ?1 AND cancel_requested IS NULL";
        if change(sql, ask, params![other.seq, by, seq])? == 1 {
            effects.asked_to_end.push((other.id, by.clone()));
        }
    }
    Ok(())
}

/// A run of a key, or without one of the agent as a whole, whose event is newer than this one.
fn newer(sql: &Connection, agent: &str, key: Option<&str>, lane: &str, event_seq: i64) -> Outcome<Option<Known>> {
    let find = |statement: &str, params: &[&dyn ToSql]| -> Outcome<Option<Known>> {
        Ok(sql.prepare_cached(statement)?.query_row(params, known).optional()?)
    };
    if let Some(key) = key {
        let newer = format!(
            "SELECT {KNOWN} FROM runs WHERE key = ?1 AND agent = ?2 AND lane = ?4 AND alone = 1 \
             AND coalesce(age, event_seq) > ?3 ORDER BY seq DESC LIMIT 1"
        );
        return find(&newer, &[&key, &agent, &event_seq, &lane]);
    }
    let newest = format!(
        "SELECT {KNOWN} FROM runs WHERE agent = ?1 AND state = ?2 AND lane = ?4 AND alone = 1 \
         AND coalesce(age, event_seq) > ?3 ORDER BY seq DESC LIMIT 1"
    );
    for state in State::ALL.map(state_number) {
        if let Some(run) = find(&newest, &[&agent, &state, &event_seq, &lane])? {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// The run of a newer event (what a replay says is as old as what it replays) that was started before this one, which it would
/// replace: one that is held ends nothing, so what is older may be left when it goes on. Or a queued one that replaces this
/// one, and did not when it came, as there were too many; what somebody wanted to go on it leaves alone.
pub(super) fn outrun(sql: &Connection, seq: i64) -> Outcome<Option<RunId>> {
    let newer = "SELECT n.id FROM runs r JOIN runs n ON n.key = r.key AND n.agent = r.agent AND n.lane = r.lane \
                 WHERE r.seq = ?1 AND r.replaces = 1 AND n.alone = 1 AND n.attempt > 0 \
                 AND coalesce(n.age, n.event_seq) > r.event_seq LIMIT 1";
    let of_agent = "SELECT n.id FROM runs r JOIN runs n ON n.agent = r.agent AND n.seq > r.seq AND n.lane = r.lane \
                    WHERE r.seq = ?1 AND r.replaces = 1 AND r.key IS NULL AND n.state >= 3 \
                    AND n.alone = 1 AND n.attempt > 0 AND coalesce(n.age, n.event_seq) > r.event_seq LIMIT 1";
    // The last one of the lane is found at once, however many wait.
    let queued = "SELECT n.id FROM runs r JOIN runs n ON n.seq = (SELECT l.seq FROM runs l WHERE l.agent = r.agent \
                  AND l.lane = r.lane AND l.alone = 1 AND l.state = 2 AND l.turn IS NULL ORDER BY l.seq DESC LIMIT 1) \
                  WHERE r.seq = ?1 AND r.alone = 1 AND r.kept IS NULL AND n.replaces = 1 AND n.age IS NULL \
                  AND n.event_seq > r.event_seq";
    for statement in [newer, of_agent, queued] {
        let found = sql.prepare_cached(statement)?.query_row([seq], |row| rows::id(row, 0)).optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The run of a newer event that keeps a held one, which is let go on, from being carried out.
pub(super) fn overtaken(sql: &Connection, seq: i64) -> Outcome<Option<RunId>> {
    let held = "SELECT agent, key, lane, event_seq FROM runs WHERE seq = ?1 AND replaces = 1 AND lane IS NOT NULL";
    let held = sql
        .prepare_cached(held)?
        .query_row([seq], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, String>(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((agent, key, lane, event_seq)) = held else { return Ok(None) };
    Ok(newer(sql, &agent, key.as_deref(), &lane, event_seq)?.map(|run| run.id))
}

/// Why an event is absorbed whose delivery another source brought, too: it says nothing that the run does not have.
pub(super) const SAME_DELIVERY: &str = "another source took the same delivery";

/// The events that a run has beside its own, oldest first: as many as `absorbed` counts.
pub(super) fn companions(sql: &Connection, run: RunId) -> Outcome<Vec<StoredEvent>> {
    let absorbed = "SELECT o.event_seq FROM runs r JOIN outcomes o ON o.run_seq = r.seq AND o.kind = 1 \
                    WHERE r.id = ?1 AND r.absorbed > 0 AND o.event_seq <> r.event_seq AND o.reason IS NOT ?2 ORDER BY o.event_seq";
    let seqs = all(sql, absorbed, params![run.to_bytes(), SAME_DELIVERY], |row| Ok(row.get::<_, i64>(0)?))?;
    seqs.into_iter().map(|seq| rows::event(sql, seq)).collect()
}
