//! Whose turn it is: which queued runs of an agent are taken next.
//!
//! Runs without flow control are taken in the order of commits. The others have a turn (see the migration `0010_flow`),
//! so the next one is the first entry of an index, however many wait: higher priorities first, then the lowest turn. A
//! class of runs (a throttle and a priority) has turns of its own; classes of one priority are served in rotation.

use std::collections::{BTreeMap, VecDeque};

use doorbell_core::flow::{Rate, allowance};
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::fault::{Fault, Outcome};
use super::flow::NO_GATE;
use super::rows::{self, QUEUED, all, change, value};
use super::tally::IN_LANES;
use super::writer::Work;
use crate::store::Claim;

/// The first runs before a gate.
pub(super) const FRONT: &str = "SELECT seq, attempt = 0 AND kept IS NULL, priority, turn FROM runs WHERE agent = ?1 AND gate = ?2 \
                                AND turn IS NOT NULL AND state = 2 ORDER BY priority DESC, turn, seq LIMIT ?3";

/// The gate after this one.
pub(super) const NEXT_GATE: &str =
    "SELECT min(gate) FROM runs WHERE agent = ?1 AND gate > ?2 AND turn IS NOT NULL AND state = 2";

/// A queued run.
#[derive(Debug, Clone)]
pub(super) struct Next {
    pub(super) seq: i64,
    /// Whether it takes a place in its agent's queue.
    pub(super) takes_place: bool,
    /// None: it is under no flow control.
    turn: Option<Turn>,
}

impl Next {
    /// Whether flow control says when it is taken.
    pub(super) fn is_in_lane(&self) -> bool {
        self.turn.is_some()
    }
}

#[derive(Debug, Clone)]
struct Turn {
    class: Class,
    round: i64,
}

/// Priority and gate.
type Class = (i32, String);

/// The runs to be taken next, at most as many as there are leases.
pub(super) fn next(work: &mut Work<'_>, claim: &Claim) -> Outcome<Vec<Next>> {
    let most = claim.leases.len();
    let plain = |limit: usize, only: &str| {
        let oldest = format!(
            "SELECT seq, attempt = 0 AND kept IS NULL FROM runs INDEXED BY runs_by_state WHERE agent = ?1 AND state = ?2 {only} \
             ORDER BY seq LIMIT ?3"
        );
        all(work.sql, &oldest, params![claim.agent, QUEUED, limit], |row| {
            Ok(Next { seq: row.get(0)?, takes_place: row.get(1)?, turn: None })
        })
    };
    let (queued, in_lanes) = (counted(work.sql, &claim.agent, QUEUED)?, counted(work.sql, &claim.agent, IN_LANES)?);
    if in_lanes == 0 {
        return plain(most, "");
    }
    // No more than there are, so that it ends with the last of them. They were mostly made while none in a lane was queued, and are
    // among the oldest.
    let outside = usize::try_from(queued - in_lanes).unwrap_or(0).min(most);
    let mut found = if outside > 0 { plain(outside, "AND lane IS NULL")? } else { Vec::new() };
    if found.len() < most {
        found.append(&mut in_turn(work.sql, claim, most - found.len())?);
    }
    Ok(found)
}

/// Whether runs of an agent are queued that are in lanes.
pub(super) fn has_lanes(sql: &Connection, agent: &str) -> Outcome<bool> {
    Ok(counted(sql, agent, IN_LANES)? > 0)
}

fn counted(sql: &Connection, agent: &str, kind: i64) -> Outcome<i64> {
    let count = "SELECT count FROM temp.tally WHERE agent = ?1 AND kind = ?2";
    Ok(value::<Option<i64>>(sql, count, params![agent, kind])?.flatten().unwrap_or(0))
}

/// Runs with a turn, as they come.
fn in_turn(sql: &Connection, claim: &Claim, most: usize) -> Outcome<Vec<Next>> {
    let mut waiting: BTreeMap<Class, VecDeque<Next>> = BTreeMap::new();
    for gate in gates(sql, &claim.agent)? {
        let open = match rate_of(&gate)? {
            Some(rate) => allowance(rate, &starts(sql, &claim.agent, &gate, rate)?, claim.now).0 as usize,
            None => most,
        };
        let found = all(sql, FRONT, params![claim.agent, gate, open.min(most)], |row| {
            let turn = Turn { class: (row.get(2)?, gate.clone()), round: row.get(3)? };
            Ok(Next { seq: row.get(0)?, takes_place: row.get(1)?, turn: Some(turn) })
        })?;
        for next in found {
            if let Some(turn) = &next.turn {
                waiting.entry(turn.class.clone()).or_default().push_back(next);
            }
        }
    }
    let mut served = if waiting.len() > 1 { served(sql, &claim.agent)? } else { BTreeMap::new() };
    let mut clock = served.values().max().copied().unwrap_or(0);
    let mut found = Vec::new();
    while found.len() < most {
        // The highest priority; of its classes the one whose turn is longest ago.
        let Some(highest) = waiting.keys().map(|(priority, _)| *priority).max() else { break };
        let classes = waiting.keys().filter(|(priority, _)| *priority == highest);
        let Some(class) = classes.min_by_key(|class| served.get(*class).copied().unwrap_or(0)).cloned() else { break };
        clock += 1;
        served.insert(class.clone(), clock);
        match waiting.get_mut(&class).and_then(VecDeque::pop_front) {
            Some(next) => found.push(next),
            None => drop(waiting.remove(&class)),
        }
    }
    Ok(found)
}

/// When each class of an agent was served, as a number that rises.
fn served(sql: &Connection, agent: &str) -> Outcome<BTreeMap<Class, i64>> {
    let served = "SELECT priority, gate, served FROM turns WHERE agent = ?1";
    let rows = all(sql, served, [agent], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    Ok(rows.into_iter().collect())
}

/// The gates before which runs of an agent wait: one seek a gate.
fn gates(sql: &Connection, agent: &str) -> Outcome<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    while let Some(gate) = rows::least(sql, NEXT_GATE, params![agent, found.last().map_or("", |gate| gate)])? {
        found.push(gate);
    }
    Ok(found)
}

/// The rate of a gate; none if it is always open.
pub(super) fn rate_of(gate: &str) -> Outcome<Option<Rate>> {
    if gate == NO_GATE {
        return Ok(None);
    }
    let rate = gate.split_once(':').and_then(|(_, rate)| rate.parse().ok());
    rate.map(Some).ok_or_else(|| Fault::Corrupt(format!("{gate:?} is no gate")))
}

/// The newest starts through a gate, as many as its rate counts.
pub(super) fn starts(sql: &Connection, agent: &str, gate: &str, rate: Rate) -> Outcome<Vec<Timestamp>> {
    let newest = "SELECT at FROM throttled WHERE agent = ?1 AND gate = ?2 ORDER BY at DESC LIMIT ?3";
    all(sql, newest, params![agent, gate, rate.count], |row| Ok(rows::time(row, 0)?))
}

/// Notes that these runs were taken.
pub(super) fn take(work: &Work<'_>, claim: &Claim, taken: &[Next]) -> Outcome<()> {
    let mut classes: BTreeMap<&Class, i64> = BTreeMap::new();
    for turn in taken.iter().filter_map(|next| next.turn.as_ref()) {
        let round = classes.entry(&turn.class).or_insert(turn.round);
        *round = turn.round.max(*round);
        if turn.class.1 != NO_GATE {
            note_start(work, claim, &turn.class.1)?;
        }
    }
    for ((priority, gate), round) in classes {
        let note = "INSERT INTO turns (agent, gate, priority, turn, served) \
                    VALUES (?1, ?2, ?3, ?4, 1 + coalesce((SELECT max(served) FROM turns WHERE agent = ?1), 0)) \
                    ON CONFLICT DO UPDATE SET turn = max(turn, excluded.turn), served = excluded.served";
        change(work.sql, note, params![claim.agent, gate, priority, round])?;
    }
    Ok(())
}

/// Notes a start through a gate, and removes those that count no more.
fn note_start(work: &Work<'_>, claim: &Claim, gate: &str) -> Outcome<()> {
    let Some(rate) = rate_of(gate)? else { return Ok(()) };
    let now = claim.now.as_millis();
    let remove = "DELETE FROM throttled WHERE agent = ?1 AND gate = ?2 AND (at <= ?3 OR at > ?4)";
    change(work.sql, remove, params![claim.agent, gate, claim.now.before(rate.window).as_millis(), now])?;
    change(work.sql, "INSERT INTO throttled (agent, gate, at) VALUES (?1, ?2, ?3)", params![claim.agent, gate, now])
        .map(drop)
}

/// Agents with runs before a gate, and when it opens: none if it is open.
pub(super) fn openings(sql: &Connection, now: Timestamp) -> Outcome<Vec<(String, Option<Timestamp>)>> {
    let used = used_gates(sql)?.into_iter();
    Ok(used.map(|(agent, rate, starts)| (agent, allowance(rate, &starts, now).1)).collect())
}

/// Agents with runs that are throttled, and until when; perhaps that is over.
pub(super) fn throttled(sql: &Connection) -> Outcome<Vec<(String, Timestamp)>> {
    // As it was with the newest start.
    let opens = |rate, starts: &[Timestamp]| allowance(rate, starts, *starts.first()?).1;
    let used = used_gates(sql)?.into_iter();
    Ok(used.filter_map(|(agent, rate, starts)| Some((agent, opens(rate, &starts)?))).collect())
}

/// The gates before which runs wait and through which some went: agent, rate and starts.
fn used_gates(sql: &Connection) -> Outcome<Vec<(String, Rate, Vec<Timestamp>)>> {
    let used = all(sql, "SELECT DISTINCT agent, gate FROM throttled", (), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let any = "SELECT 1 FROM runs WHERE agent = ?1 AND gate = ?2 AND turn IS NOT NULL AND state = 2 LIMIT 1";
    let mut found = Vec::new();
    for (agent, gate) in used {
        if let Some(rate) = rate_of(&gate)?
            && value::<i64>(sql, any, params![agent, gate])?.is_some()
        {
            let starts = starts(sql, &agent, &gate, rate)?;
            found.push((agent, rate, starts));
        }
    }
    Ok(found)
}
