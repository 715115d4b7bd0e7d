//! A delivery: its events, who has them already, and the runs they start, in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use doorbell_core::flow::{Flow, Move};
use doorbell_core::id::{EventId, RunId};
use rusqlite::{Connection, params};

use super::body::PackedBody;
use super::dictionary::Dictionaries;
use super::fault::Outcome;
use super::flow::{self, Arrival, Known};
use super::places;
use super::replayed;
use super::rows::{self, HELD, QUEUED, change, kind_number, value};
use super::tally;
use super::turns;
use super::writer::{Memory, Work};
use crate::store::{Acceptance, Accepted, Admission, AgentOutcome, Effects, NewEvent, OutcomeKind, Start};

mod events;
mod plain;

pub(super) use events::remove_keys;
pub(super) use plain::{Plain, write as write_plain};

/// An event, its headers and body taken out and packed.
pub(super) type Packed = (NewEvent, PackedBody);

/// Stores a delivery, or nothing of it if every agent it would start refuses.
pub(super) fn accept(
    work: &mut Work<'_>,
    events: &Arc<Vec<Packed>>,
    dictionaries: &Dictionaries,
) -> Outcome<Acceptance> {
    if let Some(accepted) = plain::accept(work, events)? {
        return Ok(Acceptance::Stored(vec![accepted]));
    }
    plain::write(work)?;
    if replayed::is_served(work.sql, events)? {
        return Ok(Acceptance::Stored(Vec::new()));
    }
    // Whether an agent would newly be started shows only once the keys are claimed, so a refusal has to take that back.
    // Few deliveries can be refused, and only they pay for the savepoint.
    if !can_be_refused(work, events)? {
        return Ok(Acceptance::Stored(Delivery::store(work, events, dictionaries)?.accepted));
    }
    tally::settle(work)?;
    change(work.sql, "SAVEPOINT delivery", ())?;
    let stored = Delivery::store(work, events, dictionaries)?;
    let refused = stored.all_refused();
    if refused {
        change(work.sql, "ROLLBACK TO delivery", ())?;
        *work.memory = Memory::default();
    }
    change(work.sql, "RELEASE delivery", ())?;
    Ok(if refused { Acceptance::QueueFull(stored.refusing) } else { Acceptance::Stored(stored.accepted) })
}

fn can_be_refused(work: &mut Work<'_>, events: &[Packed]) -> Outcome<bool> {
    // What is held needs no place in a queue.
    let queueing = events.iter().filter(|(event, _)| event.paused.is_none());
    for start in queueing.flat_map(|(event, _)| &event.starts) {
        if let Admission::Reject(most) = start.admission
            && places::taken(work, &start.agent)? >= most
        {
            return Ok(true);
        }
    }
    Ok(false)
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
    /// Nothing more is started for what was forgotten, or for what says something else than what is stored.
    closed: bool,
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
    fn store(work: &mut Work<'_>, events: &'a [Packed], dictionaries: &Dictionaries) -> Outcome<Self> {
        let mut delivery = Self::default();
        let place = |event| place(work, event, dictionaries);
        let placed = events.iter().map(place).collect::<Outcome<Vec<_>>>()?;
        let parts = parts_of(events);
        if events.len() > 1 {
            delivery.find_taken(work.sql, events, &placed, &parts)?;
        }
        // A source that is paused must not keep what another one starts for the same delivery.
        let mut order: Vec<_> = events.iter().zip(placed).zip(parts).enumerate().collect();
        order.sort_by_key(|(_, (((event, _), _), _))| event.paused.is_some());
        let mut accepted = Vec::with_capacity(order.len());
        for (at, (((event, _), placed), part)) in order {
            accepted.push((at, delivery.act(work, event, placed, part)?));
        }
        accepted.sort_by_key(|(at, _)| *at);
        delivery.accepted = accepted.into_iter().map(|(_, accepted)| accepted).collect();
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
        let Placed { seq, id, duplicate, closed, mut outcomes } = placed;
        let was_silent = outcomes.is_empty();
        let mut newly = Vec::new();
        let (mut queued, mut dropped, mut effects) = (Vec::new(), Vec::new(), Effects::default());
        let mut dropped_itself = false;
        for start in &event.starts {
            let before = outcomes.iter().position(|outcome| outcome.agent == start.agent);
            if closed || before.is_some_and(|before| outcomes[before].kind != OutcomeKind::FilterError) {
                continue;
            }
            if replayed::has_run(work.sql, event, start)? {
                continue;
            }
            let in_lanes = || turns::has_lanes(work.sql, &start.agent);
            let flow = match &start.flow {
                None => in_lanes()?.then_some(NO_FLOW),
                flow => flow.as_ref(),
            };
            let decided = self.decide(work, Place { seq, event, start, duplicate, flow }, part)?;
            if !decided.record(work.sql)? {
                continue;
            }
            if let Some(run) = decided.run.filter(|_| decided.begins()) {
                self.taken.insert((part, &start.agent), run);
                self.started += 1;
                decided.carry_out(work, run, &mut effects)?;
                replayed::claim(work.sql, event, start, (run.seq, run.id))?;
                if matches!(decided.next, Move::Queue | Move::Gather { .. }) {
                    let gave_way = places::make_room(work, start, run.seq, id, event.received_at, &mut dropped)?;
                    dropped_itself |= gave_way;
                    // What runs is not ended for one that will never run.
                    if let Some(arrival) = decided.place.arrival().filter(|_| !gave_way) {
                        flow::ask_to_end(work.sql, arrival, (run.seq, run.id), &mut effects)?;
                    }
                }
                match decided.next {
                    Move::Queue => queued.push(start.agent.clone()),
                    Move::Pause(_) if decided.place.held().is_some() => effects.held.push(start.agent.clone()),
                    _ => {}
                }
            }
            if let Some(before) = before {
                outcomes.remove(before);
            }
            newly.push((start.agent.clone(), decided.counts_as()));
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
        Ok(Accepted { event: id, duplicate, outcomes, queued, dropped, decided: newly, effects })
    }

    fn decide(&mut self, work: &mut Work<'_>, place: Place<'a>, part: usize) -> Outcome<Decided<'a>> {
        let start = place.start;
        let nothing =
            |kind, run, reason| Ok(Decided { place, kind, run, reason: Some(reason), next: Move::Skip(String::new()) });
        match &start.admission {
            Admission::Skip(reason) => return nothing(OutcomeKind::Skipped, None, reason.clone()),
            Admission::FilterError(reason) => return nothing(OutcomeKind::FilterError, None, reason.clone()),
            Admission::Grow | Admission::DropOldest(_) | Admission::Reject(_) | Admission::Hold(_) => {}
        }
        if let Some(run) = self.taken.get(&(part, start.agent.as_str())) {
            let reason = flow::SAME_DELIVERY.to_owned();
            return nothing(OutcomeKind::Absorbed, Some(*run), reason);
        }
        let next = match place.arrival() {
            Some(arrival) => flow::decide(work.sql, arrival)?,
            None => match place.event.paused.as_deref().or(place.held()) {
                Some(reason) => Move::Pause(reason.to_owned()),
                None => Move::Queue,
            },
        };
        let mut held = None;
        match next {
            Move::Skip(reason) => return nothing(OutcomeKind::Skipped, None, reason),
            Move::Absorb(into) => return Ok(Decided::absorbed(place, into)),
            Move::Pause(ref reason) => held = Some(format!("its run is held: {reason}")),
            Move::Behind(before) => held = Some(format!("its run is held, as {before} is, which goes on before it")),
            Move::Queue | Move::Gather { .. } | Move::Hold(_) => {}
        }
        if let Admission::Reject(most) = start.admission
            && held.is_none()
            && places::taken(work, &start.agent)? >= most
        {
            if !self.refusing.contains(&start.agent) {
                self.refusing.push(start.agent.clone());
            }
            let reason = format!("{most} runs were queued, which is the most");
            return nothing(OutcomeKind::Dropped, None, reason);
        }
        let seq = next_run(work)?;
        Ok(Decided { place, kind: OutcomeKind::Started, run: Some(Run { seq, id: start.run }), reason: held, next })
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

/// An event and one agent that it is for.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Of the stored event.
    seq: i64,
    /// As it came this time.
    event: &'a NewEvent,
    start: &'a Start,
    /// Whether the event was stored before, perhaps with other triggers.
    duplicate: bool,
    /// Its flow control. What has none has its turn with the others all the same, where runs wait that have some.
    flow: Option<&'a Flow>,
}

/// Controls nothing.
const NO_FLOW: &Flow = &Flow { when_busy: None, debounce: None, max_per_key: None, throttle: None, priority: 0 };

impl<'a> Place<'a> {
    /// For flow control, if the agent has any.
    fn arrival(&self) -> Option<Arrival<'a>> {
        let Self { seq, event, start, duplicate, flow } = *self;
        let (replay, now, held) = (event.replay.map(|replay| replay.of), event.received_at, self.held());
        let (source, paused) = (event.source.as_str(), event.paused.as_deref());
        let arrival = |flow| Arrival { event_seq: seq, duplicate, replay, source, paused, held, now, start, flow };
        flow.map(arrival)
    }

    /// Why it is held with its agent.
    fn held(&self) -> Option<&'a str> {
        match &self.start.admission {
            Admission::Hold(reason) => Some(reason),
            _ => None,
        }
    }

    /// 1: somebody asked for it once more.
    fn kept(&self) -> Option<i64> {
        self.event.replay.map(|_| 1)
    }
}

/// What an event means to one agent.
struct Decided<'a> {
    place: Place<'a>,
    kind: OutcomeKind,
    run: Option<Run>,
    reason: Option<String>,
    /// What becomes of the run.
    next: Move<Known>,
}

impl<'a> Decided<'a> {
    /// It goes with a run that is there.
    fn absorbed(place: Place<'a>, into: Known) -> Self {
        let kind = place.arrival().map_or(OutcomeKind::Absorbed, |arrival| flow::kind_of_absorbed(arrival, into));
        let run = Some(Run { seq: into.seq, id: into.id });
        let reason = Some(flow::absorbed_reason(into)).filter(|_| kind == OutcomeKind::Absorbed);
        Self { place, kind, run, reason, next: Move::Absorb(into) }
    }

    /// Whether a run has the event by it.
    fn begins(&self) -> bool {
        !matches!(self.next, Move::Skip(_))
    }

    /// As it is counted: where events are gathered, each further one adds one that is absorbed.
    fn counts_as(&self) -> OutcomeKind {
        if matches!(self.next, Move::Absorb(_)) { OutcomeKind::Absorbed } else { self.kind }
    }

    /// Makes the run, or adds the event to the one that is there.
    fn carry_out(&self, work: &mut Work<'_>, run: Run, effects: &mut Effects) -> Outcome<()> {
        let Some(arrival) = self.place.arrival() else { return self.queue(work, run) };
        if let Move::Absorb(into) = self.next {
            return flow::absorb(work, arrival, into);
        }
        let trace = self.place.event.trace.as_deref();
        flow::insert(work, arrival, (run.seq, run.id), trace, &self.next)?;
        work.memory.next_run = Some(run.seq + 1);
        if let Move::Gather { due, .. } = &self.next {
            effects.due = Some(effects.due.map_or(*due, |other| other.min(*due)));
        }
        if matches!(self.next, Move::Queue | Move::Gather { .. }) && self.place.kept().is_none() {
            work.memory.count_fresh(&arrival.start.agent);
        }
        match self.next {
            // What is held is not the newest work before somebody lets it go on.
            Move::Hold(_) | Move::Pause(_) | Move::Behind(_) => Ok(()),
            _ => flow::supersede(work, arrival, (run.seq, run.id), effects),
        }
    }

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
                self.place.seq,
                self.place.start.agent,
                kind_number(self.kind),
                self.run.map(|run| run.seq),
                self.place.start.trigger,
                self.place.event.received_at.as_millis(),
                self.reason,
                self.place.duplicate.then_some(self.place.event.trigger_set),
            ],
        )?;
        Ok(written == 1)
    }

    /// Makes the run without flow control.
    fn queue(&self, work: &mut Work<'_>, run: Run) -> Outcome<()> {
        if let Move::Pause(reason) = &self.next {
            return self.hold(work, run, reason);
        }
        let statement = "INSERT INTO runs (seq, id, agent, event_seq, state, created_at, trace, key, kept) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let created = self.place.event.received_at.as_millis();
        let (id, agent) = (run.id.to_bytes(), &self.place.start.agent);
        let (trace, key) = (&self.place.event.trace, &self.place.start.key);
        let kept = self.place.kept();
        change(work.sql, statement, params![run.seq, id, agent, self.place.seq, QUEUED, created, trace, key, kept])?;
        work.memory.next_run = Some(run.seq + 1);
        work.memory.count_made(agent);
        if kept.is_none() {
            work.memory.count_fresh(agent);
        }
        Ok(())
    }

    /// The same, held until its agent or its source is resumed.
    fn hold(&self, work: &mut Work<'_>, run: Run, reason: &str) -> Outcome<()> {
        let statement = "INSERT INTO runs (seq, id, agent, event_seq, state, created_at, trace, key, reason, \
                         paused_source, kept) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let Place { seq, event, start, .. } = self.place;
        let created = event.received_at.as_millis();
        let values = params![
            run.seq,
            run.id.to_bytes(),
            start.agent,
            seq,
            HELD,
            created,
            event.trace,
            start.key,
            reason,
            event.paused.as_ref().map(|_| &event.source),
            self.place.kept()
        ];
        change(work.sql, statement, values)?;
        work.memory.next_run = Some(run.seq + 1);
        tally::count_new(work.sql, run.seq)
    }

    fn outcome(self) -> AgentOutcome {
        AgentOutcome {
            agent: self.place.start.agent.clone(),
            kind: self.kind,
            run: self.run.map(|run| run.id),
            trigger: self.place.start.trigger,
            reason: self.reason,
            at: self.place.event.received_at,
            trigger_set: self.place.event.trigger_set,
        }
    }
}

/// Claims the event's keys, and stores it if none of them was known.
fn place(work: &mut Work<'_>, (event, body): &Packed, dictionaries: &Dictionaries) -> Outcome<Placed> {
    let seq = next_event(work)?;
    let Some(known) = events::claim_keys(work, event, seq)? else {
        events::insert(work.sql, seq, event, body)?;
        work.memory.next_event = Some(seq + 1);
        return Ok(Placed { seq, id: event.id, duplicate: false, closed: false, outcomes: Vec::new() });
    };
    change(work.sql, "UPDATE events SET duplicates = duplicates + 1 WHERE seq = ?1", [known])?;
    let (id, forgotten, differs) = events::find(work.sql, known, &event.context)?;
    // An agent would get what is stored, for which its triggers were not asked. The same body may be read differently by now.
    let differs = differs && !forgotten && events::says_other(work.sql, known, body, dictionaries)?;
    if differs {
        tracing::warn!(event = %id, source = event.source, "event.differs: it came again under the same id with something else in it");
    }
    let closed = forgotten || differs;
    Ok(Placed { seq: known, id, duplicate: true, closed, outcomes: rows::outcomes(work.sql, known)? })
}

/// The sequence of the next event.
fn next_event(work: &mut Work<'_>) -> Outcome<i64> {
    next_seq(work.sql, &mut work.memory.next_event, "SELECT max(seq) FROM events")
}

/// The sequence of the next run.
pub(super) fn next_run(work: &mut Work<'_>) -> Outcome<i64> {
    next_seq(work.sql, &mut work.memory.next_run, "SELECT max(seq) FROM runs")
}

/// The sequence after the greatest, which is asked for once.
fn next_seq(sql: &Connection, memory: &mut Option<i64>, greatest: &str) -> Outcome<i64> {
    match *memory {
        Some(next) => Ok(next),
        None => {
            let next = value::<Option<i64>>(sql, greatest, ())?.flatten().unwrap_or(0) + 1;
            Ok(*memory.insert(next))
        }
    }
}
