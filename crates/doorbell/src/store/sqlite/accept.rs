//! A delivery: its events, who has them already, and the runs they start, in one transaction.

use std::collections::HashMap;

use doorbell_core::id::{EventId, RunId};
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::body::PackedBody;
use super::fault::{Fault, Outcome};
use super::rows::{self, DROPPED, QUEUED, change, delivery_digest, kind_number, value};
use super::writer::{Memory, Work};
use crate::store::{Acceptance, Accepted, Admission, AgentOutcome, NewEvent, OutcomeKind, Start};

/// Runs that one accept drops at most: a bound that was lowered is reached over several.
const MOST_DROPPED: u64 = 256;

/// An event, its headers and body taken out and packed.
pub(super) type Packed = (NewEvent, PackedBody);

/// Stores a delivery, or nothing of it if every agent it would start refuses.
pub(super) fn accept(work: &mut Work<'_>, events: &[Packed]) -> Outcome<Acceptance> {
    // Whether an agent would newly be started shows only once the keys are claimed, so a refusal has to take that back.
    // Few deliveries can be refused, and only they pay for the savepoint.
    if !can_be_refused(work, events)? {
        return Ok(Acceptance::Stored(Delivery::store(work, events)?.accepted));
    }
    change(work.sql, "SAVEPOINT delivery", ())?;
    let stored = Delivery::store(work, events)?;
    let refused = stored.all_refused();
    if refused {
        change(work.sql, "ROLLBACK TO delivery", ())?;
        *work.memory = Memory::default();
    }
    change(work.sql, "RELEASE delivery", ())?;
    Ok(if refused { Acceptance::QueueFull(stored.refusing) } else { Acceptance::Stored(stored.accepted) })
}

fn can_be_refused(work: &mut Work<'_>, events: &[Packed]) -> Outcome<bool> {
    for start in events.iter().flat_map(|(event, _)| &event.starts) {
        if let Admission::Reject(most) = start.admission
            && fresh(work, &start.agent)? >= most
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Queued runs of an agent that never started.
fn fresh(work: &mut Work<'_>, agent: &str) -> Outcome<u64> {
    if let Some(count) = work.memory.fresh.get(agent) {
        return Ok(*count);
    }
    let statement = "SELECT count(*) FROM runs WHERE agent = ?1 AND state = ?2 AND attempt = 0";
    let count = value(work.sql, statement, params![agent, QUEUED])?.unwrap_or(0);
    work.memory.fresh.insert(agent.to_owned(), count);
    Ok(count)
}

/// A run that has the delivery for an agent.
#[derive(Clone, Copy)]
struct Run {
    seq: i64,
    id: RunId,
}

/// What is known of one event once its keys are claimed.
struct Placed {
    seq: i64,
    id: EventId,
    duplicate: bool,
    /// Nothing more is started for what was forgotten.
    forgotten: bool,
    outcomes: Vec<AgentOutcome>,
}

/// A delivery on its way into the tables.
#[derive(Default)]
struct Delivery<'a> {
    /// Which run has the delivery already, by part and agent.
    taken: HashMap<(usize, &'a str), Run>,
    /// How many agents were newly started.
    started: usize,
    /// Agents that would newly be started and refuse.
    refusing: Vec<String>,
    accepted: Vec<Accepted>,
}

impl<'a> Delivery<'a> {
    fn store(work: &mut Work<'_>, events: &'a [Packed]) -> Outcome<Self> {
        let mut delivery = Self::default();
        let placed = events.iter().map(|event| place(work, event)).collect::<Outcome<Vec<_>>>()?;
        let parts = parts_of(events);
        if events.len() > 1 {
            delivery.find_taken(work.sql, events, &placed, &parts)?;
        }
        for (((event, _), placed), part) in events.iter().zip(placed).zip(parts) {
            let accepted = delivery.act(work, event, placed, part)?;
            delivery.accepted.push(accepted);
        }
        Ok(delivery)
    }

    fn all_refused(&self) -> bool {
        self.started == 0 && !self.refusing.is_empty()
    }

    /// The runs that agents have for an event of this delivery that was there before.
    fn find_taken(
        &mut self,
        sql: &Connection,
        events: &'a [Packed],
        placed: &[Placed],
        parts: &[usize],
    ) -> Outcome<()> {
        let starts = events.iter().zip(parts).flat_map(|((event, _), part)| event.starts.iter().map(|s| (*part, s)));
        for (part, start) in starts {
            let same = placed.iter().zip(parts).filter(|(_, other)| **other == part);
            let before = same.flat_map(|(placed, _)| &placed.outcomes);
            let run = before.filter(|outcome| outcome.agent == start.agent).find_map(|outcome| outcome.run);
            if let Some(id) = run
                && let Some(seq) = rows::run_seq(sql, id)?
            {
                self.taken.insert((part, &start.agent), Run { seq, id });
            }
        }
        Ok(())
    }

    /// Writes what one event means to the agents that have no outcome for it yet.
    fn act(&mut self, work: &mut Work<'_>, event: &'a NewEvent, placed: Placed, part: usize) -> Outcome<Accepted> {
        let Placed { seq, id, duplicate, forgotten, mut outcomes } = placed;
        let was_silent = outcomes.is_empty();
        let mut newly = Vec::new();
        let (mut queued, mut dropped) = (Vec::new(), Vec::new());
        let mut dropped_itself = false;
        for start in &event.starts {
            let before = outcomes.iter().position(|outcome| outcome.agent == start.agent);
            if forgotten || before.is_some_and(|before| outcomes[before].kind != OutcomeKind::FilterError) {
                continue;
            }
            let (kind, run, reason) = self.decide(work, start, part)?;
            let decided = Decided { seq, event, start, kind, run, reason, duplicate };
            if !decided.record(work.sql)? {
                continue;
            }
            if let (OutcomeKind::Started, Some(run)) = (kind, run) {
                decided.queue(work, run)?;
                self.taken.insert((part, &start.agent), run);
                self.started += 1;
                dropped_itself |= make_room(work, start, id, event.received_at, &mut dropped)?;
                queued.push(start.agent.clone());
            }
            if let Some(before) = before {
                outcomes.remove(before);
            }
            newly.push((start.agent.clone(), kind));
            outcomes.push(decided.outcome());
        }
        if duplicate && was_silent && !outcomes.is_empty() {
            change(work.sql, "UPDATE events SET silent = 0 WHERE seq = ?1", [seq])?;
        }
        if dropped_itself {
            outcomes = rows::outcomes(work.sql, seq)?;
            queued.retain(|agent| outcomes.iter().any(|o| o.agent == *agent && o.kind == OutcomeKind::Started));
        }
        outcomes.sort_by(|a, b| a.agent.cmp(&b.agent));
        Ok(Accepted { event: id, duplicate, outcomes, queued, dropped, decided: newly })
    }

    fn decide(
        &mut self,
        work: &mut Work<'_>,
        start: &Start,
        part: usize,
    ) -> Outcome<(OutcomeKind, Option<Run>, Option<String>)> {
        if let Admission::Skip(reason) = &start.admission {
            return Ok((OutcomeKind::Skipped, None, Some(reason.clone())));
        }
        if let Admission::FilterError(reason) = &start.admission {
            return Ok((OutcomeKind::FilterError, None, Some(reason.clone())));
        }
        if let Some(run) = self.taken.get(&(part, start.agent.as_str())) {
            let reason = "another source took the same delivery".to_owned();
            return Ok((OutcomeKind::Absorbed, Some(*run), Some(reason)));
        }
        if let Admission::Reject(most) = start.admission
            && fresh(work, &start.agent)? >= most
        {
            if !self.refusing.contains(&start.agent) {
                self.refusing.push(start.agent.clone());
            }
            return Ok((OutcomeKind::Dropped, None, Some(format!("{most} runs were queued, which is the most"))));
        }
        let seq = next(work.sql, &mut work.memory.next_run, "SELECT max(seq) FROM runs")?;
        Ok((OutcomeKind::Started, Some(Run { seq, id: start.run }), None))
    }
}

/// Which of several events of one body each is: the same for all sources that took it.
fn parts_of(events: &[Packed]) -> Vec<usize> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut parts = Vec::with_capacity(events.len());
    for (event, _) in events {
        let next = seen.entry(event.source.as_str()).or_default();
        parts.push(*next);
        *next += 1;
    }
    parts
}

/// What an event means to one agent.
struct Decided<'a> {
    /// Of the stored event.
    seq: i64,
    /// As it came this time.
    event: &'a NewEvent,
    start: &'a Start,
    kind: OutcomeKind,
    run: Option<Run>,
    reason: Option<String>,
    /// Whether the event was stored before, perhaps with other triggers.
    duplicate: bool,
}

impl Decided<'_> {
    /// Writes the outcome. False, and nothing written, if the agent has one that stands.
    fn record(&self, sql: &Connection) -> Outcome<bool> {
        let statement = "INSERT INTO outcomes (event_seq, agent, kind, run_seq, trigger, at, reason, trigger_set) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (event_seq, agent) DO UPDATE SET \
                         kind = excluded.kind, run_seq = excluded.run_seq, trigger = excluded.trigger, \
                         at = excluded.at, reason = excluded.reason, \
                         trigger_set = excluded.trigger_set WHERE kind = 4";
        let written = change(
            sql,
            statement,
            params![
                self.seq,
                self.start.agent,
                kind_number(self.kind),
                self.run.map(|run| run.seq),
                self.start.trigger,
                self.event.received_at.as_millis(),
                self.reason,
                self.duplicate.then_some(self.event.trigger_set),
            ],
        )?;
        Ok(written == 1)
    }

    fn queue(&self, work: &mut Work<'_>, run: Run) -> Outcome<()> {
        // OR FAIL: as triggers follow, SQLite would else copy every page that this changes, to undo it alone. Nobody does: an
        // operation that fails takes its batch with it. See also `tally`.
        let statement = "INSERT OR FAIL INTO runs (seq, id, agent, event_seq, state, created_at, trace, key) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let created = self.event.received_at.as_millis();
        let (id, agent) = (run.id.to_bytes(), &self.start.agent);
        let (trace, key) = (&self.event.trace, &self.start.key);
        change(work.sql, statement, params![run.seq, id, agent, self.seq, QUEUED, created, trace, key])?;
        work.memory.next_run = Some(run.seq + 1);
        if let Some(count) = work.memory.fresh.get_mut(agent) {
            *count += 1;
        }
        Ok(())
    }

    fn outcome(self) -> AgentOutcome {
        AgentOutcome {
            agent: self.start.agent.clone(),
            kind: self.kind,
            run: self.run.map(|run| run.id),
            trigger: self.start.trigger,
            reason: self.reason,
            at: self.event.received_at,
            trigger_set: self.event.trigger_set,
        }
    }
}

/// Claims the event's keys, and stores it if none of them was known.
fn place(work: &mut Work<'_>, (event, body): &Packed) -> Outcome<Placed> {
    let seq = next(work.sql, &mut work.memory.next_event, "SELECT max(seq) FROM events")?;
    let Some(known) = claim_keys(work.sql, event, seq)? else {
        insert(work.sql, seq, event, body)?;
        work.memory.next_event = Some(seq + 1);
        return Ok(Placed { seq, id: event.id, duplicate: false, forgotten: false, outcomes: Vec::new() });
    };
    change(work.sql, "UPDATE events SET duplicates = duplicates + 1 WHERE seq = ?1", [known])?;
    let (id, forgotten) = work
        .sql
        .prepare_cached("SELECT id, forgotten_at IS NOT NULL FROM events WHERE seq = ?1")?
        .query_row([known], |row| Ok((rows::id(row, 0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| Fault::Corrupt(format!("a delivery key names the event {known}, which is not there")))?;
    Ok(Placed { seq: known, id, duplicate: true, forgotten, outcomes: rows::outcomes(work.sql, known)? })
}

/// Claims the event's keys for the event `seq`, unless one belongs to another event: then for that one, which it
/// answers.
fn claim_keys(sql: &Connection, event: &NewEvent, seq: i64) -> Outcome<Option<i64>> {
    let claim = "INSERT INTO delivery_digests (digest, event_seq) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    let digests = event.delivery_keys.iter().map(|key| delivery_digest(&event.source, key));
    let mut known = None;
    for digest in digests.clone() {
        if change(sql, claim, params![digest, seq])? == 0 && known.is_none() {
            let owner = "SELECT event_seq FROM delivery_digests WHERE digest = ?1";
            known = value(sql, owner, [digest])?.filter(|owner| *owner != seq);
        }
    }
    if let (Some(owner), 2..) = (known, event.delivery_keys.len()) {
        let hand_over = "UPDATE delivery_digests SET event_seq = ?2 WHERE digest = ?1 AND event_seq = ?3";
        for digest in digests {
            change(sql, hand_over, params![digest, owner, seq])?;
        }
    }
    Ok(known)
}

fn insert(sql: &Connection, seq: i64, event: &NewEvent, body: &PackedBody) -> Outcome<()> {
    let statement = "INSERT INTO events (seq, id, source, provider, event, action, delivery_id, verified_by, \
                     received_at, handshake, trigger_set, body_size, duplicates, silent, context, replay, replay_of) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, ?13, ?14, ?15, ?16)";
    change(
        sql,
        statement,
        params![
            seq,
            event.id.to_bytes(),
            event.source,
            event.provider,
            event.event,
            event.action,
            event.delivery_id,
            event.verified_by,
            event.received_at.as_millis(),
            event.handshake,
            event.trigger_set,
            body.packed.size - body.head,
            event.starts.is_empty(),
            event.context,
            event.replay.map(|replay| replay.id.to_bytes()),
            event.replay.map(|replay| replay.of.to_bytes()),
        ],
    )?;
    let statement = "INSERT INTO bodies (event_seq, encoding, head, size, data) VALUES (?1, ?2, ?3, ?4, ?5)";
    let packed = &body.packed;
    change(sql, statement, params![seq, packed.encoding, body.head, packed.size, packed.data])?;
    Ok(())
}

/// Drops the oldest queued runs beyond the bound. Whether one of them is the event's own: a queue for nothing.
fn make_room(
    work: &mut Work<'_>,
    start: &Start,
    event: EventId,
    now: Timestamp,
    dropped: &mut Vec<RunId>,
) -> Outcome<bool> {
    let Admission::DropOldest(most) = start.admission else {
        return Ok(false);
    };
    let excess = fresh(work, &start.agent)?.saturating_sub(most).min(MOST_DROPPED);
    if excess == 0 {
        return Ok(false);
    }
    let oldest =
        "SELECT seq, event_seq, id FROM runs WHERE agent = ?1 AND state = ?2 AND attempt = 0 ORDER BY seq LIMIT ?3";
    let reason = format!("displaced by {event}: more than {most} runs were queued");
    let drop_run = "UPDATE runs SET state = ?2, reason = ?3, finished_at = ?4 WHERE seq = ?1";
    let drop_outcome =
        "UPDATE outcomes SET kind = ?4, reason = ?5 WHERE event_seq = ?1 AND agent = ?2 AND run_seq = ?3";
    let found = rows::all(work.sql, oldest, params![start.agent, QUEUED, excess], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, rows::id(row, 2)?))
    })?;
    for (run, of_event, id) in &found {
        dropped.push(*id);
        change(work.sql, drop_run, params![run, DROPPED, reason, now.as_millis()])?;
        let kind = kind_number(OutcomeKind::Dropped);
        change(work.sql, drop_outcome, params![of_event, start.agent, run, kind, reason])?;
    }
    if let Some(count) = work.memory.fresh.get_mut(&start.agent) {
        *count = count.saturating_sub(found.len() as u64);
    }
    Ok(most == 0)
}

/// The sequence after the greatest, which is asked for once.
fn next(sql: &Connection, memory: &mut Option<i64>, greatest: &str) -> Outcome<i64> {
    match *memory {
        Some(next) => Ok(next),
        None => {
            let next = value::<Option<i64>>(sql, greatest, ())?.flatten().unwrap_or(0) + 1;
            Ok(*memory.insert(next))
        }
    }
}
