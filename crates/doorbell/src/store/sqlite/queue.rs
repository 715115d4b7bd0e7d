//! The queues as a whole: what is due, what waits for an agent that is gone.

use std::collections::BTreeMap;

use doorbell_core::id::RunId;
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Outcome;
use super::flow;
use super::moved;
use super::rows::{self, HELD, QUEUED, SUPERSEDED, WAITING, all, change, value};
use super::tally;
use super::waits;
use super::writer::Work;
use crate::store::{GivenBack, How, PAUSED, Release, Standing, Whose};

/// Runs moved in one transaction, so that events need not wait for a large queue to be settled.
pub(super) const STEP: usize = 500;

/// Why runs of a missing agent are held; also how they are told from those that a person holds.
pub(super) const AGENT_IS_GONE: &str = "its agent was removed from the configuration";

/// Queues a run that waits. What it gathered is complete, what it waited for is over; why it was to be tried again still holds.
const END_WAIT: &str = "UPDATE runs SET state = ?2, due = NULL, \
                        reason = iif(gathers_until IS NULL AND wait IS NULL, reason, NULL) WHERE seq = ?1";

/// Queues up to [`STEP`] due runs and answers the agent of each.
pub(super) fn release_due(work: &mut Work<'_>, now: Timestamp) -> Outcome<Vec<String>> {
    let due = "SELECT seq, agent FROM runs WHERE state = 1 AND due <= ?1 ORDER BY due LIMIT ?2";
    let due = all(work.sql, due, params![now.as_millis(), STEP], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut agents = Vec::with_capacity(due.len());
    for (seq, agent) in due {
        change(work.sql, END_WAIT, params![seq, QUEUED])?;
        agents.push(agent);
    }
    Ok(agents)
}

/// Has up to [`STEP`] waiting runs be due whose wait began after `began`: with their last try, or if there was none when
/// they were made. Not those that wait by their own wish: until when was said to them, and an end before it is a false answer.
pub(super) fn end_waits(work: &Work<'_>, began: Timestamp, now: Timestamp) -> Outcome<usize> {
    let end = "UPDATE runs SET due = ?2 WHERE seq IN (SELECT seq FROM runs WHERE state = 1 AND due > ?2 AND wait IS NULL AND coalesce(\
               (SELECT ended_at FROM attempts WHERE run_seq = runs.seq ORDER BY number DESC LIMIT 1), created_at) > ?1 \
               LIMIT ?3)";
    change(work.sql, end, params![began.as_millis(), now.as_millis(), STEP])
}

/// When the next waiting run is due.
pub(super) fn next_due(sql: &Connection) -> Outcome<Option<Timestamp>> {
    let next = value::<Option<i64>>(sql, "SELECT min(due) FROM runs WHERE state = 1", ())?;
    Ok(next.flatten().map(Timestamp::from_millis))
}

/// Agents that have queued runs.
pub(super) fn agents_with_work(sql: &Connection) -> Outcome<Vec<String>> {
    let any = "SELECT 1 FROM runs WHERE agent = ?1 AND state = ?2 LIMIT 1";
    let mut found = Vec::new();
    for agent in rows::agents(sql)? {
        if value::<i64>(sql, any, params![agent, QUEUED])?.is_some() {
            found.push(agent);
        }
    }
    Ok(found)
}

/// Holds up to [`STEP`] runs of agents that are gone or paused, or queues up to as many of those that are back. Whether
/// there may be more: those that ended instead; none if there are no more.
pub(super) fn settle(
    work: &mut Work<'_>,
    agents: &BTreeMap<String, Standing>,
    now: Timestamp,
) -> Outcome<Option<Vec<RunId>>> {
    for agent in rows::agents(work.sql)? {
        let given = match agents.get(&agent) {
            Some(Standing::Active) => give_back(work, &Whose::Agent(agent.clone()), STEP, now)?,
            Some(Standing::Paused(reason)) => GivenBack { moved: hold(work, &agent, reason)?, ..GivenBack::default() },
            Some(Standing::Resuming) => GivenBack::default(),
            None => GivenBack { moved: hold(work, &agent, AGENT_IS_GONE)?, ..GivenBack::default() },
        };
        if given.moved > 0 {
            work.memory.fresh.remove(&agent);
            return Ok(Some(given.superseded));
        }
    }
    Ok(None)
}

fn hold(work: &Work<'_>, agent: &str, reason: &str) -> Outcome<usize> {
    let mut moved = 0;
    for state in [QUEUED, WAITING] {
        let hold = "UPDATE runs SET state = ?1, reason_before = reason, reason = ?2 WHERE seq IN \
                    (SELECT seq FROM runs WHERE agent = ?3 AND state = ?4 ORDER BY seq LIMIT ?5)";
        moved += change(work.sql, hold, params![HELD, reason, agent, state, STEP])?;
    }
    Ok(moved)
}

/// Lets one held run go on, or one that waits for its next try or gathers events.
pub(super) fn release(work: &mut Work<'_>, run: RunId, by: &str, now: Timestamp) -> Outcome<Release> {
    let found = work
        .sql
        .prepare_cached("SELECT seq, agent, state, wait FROM runs WHERE id = ?1")?
        .query_row([run.to_bytes()], |row| {
            let wait = row.get::<_, Option<String>>(3)?;
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, wait))
        })
        .optional()?;
    let Some((seq, agent, state, wait)) = found else { return Ok(Release::Unknown) };
    if state == WAITING {
        if let Some(wait) = waits::read(wait)? {
            return Ok(Release::Waits(wait));
        }
        change(work.sql, END_WAIT, params![seq, QUEUED])?;
        moved::note(work, seq, How::Released, by, now)?;
        work.memory.fresh.remove(&agent);
        return Ok(Release::Released(agent));
    }
    if state != HELD {
        return Ok(Release::NotHeld(rows::state_of(state)?));
    }
    if !go_on(work, seq, now)? {
        return Ok(Release::NotHeld(State::Superseded));
    }
    moved::note(work, seq, How::Released, by, now)?;
    Ok(Release::Released(agent))
}

/// Lets a held run go on, without a place in the queue, unless a newer one of its key has taken its place: then it ends, and false is answered.
fn go_on(work: &Work<'_>, seq: i64, now: Timestamp) -> Outcome<bool> {
    if let Some(by) = flow::overtaken(work.sql, seq)? {
        rows::end_run(work.sql, seq, SUPERSEDED, &format!("replaced by {by}"), now)?;
        return Ok(false);
    }
    // Its reason is what it was, as if it had not been held meanwhile: see `release_due`.
    let release = "UPDATE runs SET reason = iif(due > ?1 OR (gathers_until IS NULL AND wait IS NULL), reason_before, NULL), \
                   reason_before = NULL, state = iif(due > ?1, ?2, ?3), due = iif(due > ?1, due, NULL), \
                   paused_source = NULL, kept = 1 WHERE seq = ?4";
    change(work.sql, release, params![now.as_millis(), WAITING, QUEUED, seq])?;
    Ok(true)
}

/// Lets up to `most` runs go on that are held with their agent or their source, the oldest first. Each is looked at by itself,
/// as newer ones of its key may have come.
pub(super) fn give_back(work: &mut Work<'_>, whose: &Whose, most: usize, now: Timestamp) -> Outcome<GivenBack> {
    let held = held_with(work.sql, whose, most)?;
    let mut given = GivenBack { moved: held.len(), ..GivenBack::default() };
    for (seq, id, agent) in held {
        if !go_on(work, seq, now)? {
            given.superseded.push(id);
        } else if !given.agents.contains(&agent) {
            given.agents.push(agent);
        }
    }
    Ok(given)
}

/// The oldest runs that are held with their agent or their source: sequence, id and agent.
fn held_with(sql: &Connection, whose: &Whose, most: usize) -> Outcome<Vec<(i64, RunId, String)>> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, rows::id(row, 1)?, row.get(2)?));
    match whose {
        // Others may be held, and many; to find none among them takes a look at each.
        Whose::Agent(agent) if !tally::any_come_back(sql, agent)? => Ok(Vec::new()),
        Whose::Agent(agent) => {
            let oldest = "SELECT seq, id, agent FROM runs WHERE agent = ?1 AND state = 0 AND paused_source IS NULL \
                          AND (reason = ?2 OR substr(reason, 1, length(?3)) = ?3) ORDER BY seq LIMIT ?4";
            all(sql, oldest, params![agent, AGENT_IS_GONE, PAUSED, most], read)
        }
        Whose::Source(source) => {
            let oldest = "SELECT seq, id, agent FROM runs WHERE paused_source = ?1 AND state = 0 ORDER BY seq LIMIT ?2";
            all(sql, oldest, params![source, most], read)
        }
    }
}

/// Sources for which runs are held: one seek a source.
pub(super) fn held_sources(sql: &Connection) -> Outcome<Vec<String>> {
    let next = "SELECT min(paused_source) FROM runs WHERE paused_source > ?1 AND state = 0";
    let mut found: Vec<String> = Vec::new();
    while let Some(source) = rows::least(sql, next, [found.last().map_or("", String::as_str)])? {
        found.push(source);
    }
    Ok(found)
}
