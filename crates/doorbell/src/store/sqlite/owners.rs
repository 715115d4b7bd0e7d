//! Whose something is, by one statement: what else is read of it is read for those only whose it is.

use doorbell_core::id::{EventId, RunId};
use rusqlite::Connection;

use super::fault::Outcome;
use super::rows::all;
use crate::store::{EventOwner, RunOwner};

/// Whose a run is, and which run called it.
pub(super) fn of_run(sql: &Connection, run: RunId) -> Outcome<Option<RunOwner>> {
    let owner = "SELECT r.agent, e.parent FROM runs r JOIN events e ON e.seq = r.event_seq WHERE r.id = ?1";
    let found = all(sql, owner, [run.to_bytes()], |row| Ok(RunOwner { agent: row.get(0)?, parent: row.get(1)? }))?;
    Ok(found.into_iter().next())
}

/// The source that an event came to, and the agents that it has outcomes for.
pub(super) fn of_event(sql: &Connection, event: EventId) -> Outcome<Option<EventOwner>> {
    let owner = "SELECT e.source, o.agent FROM events e LEFT JOIN outcomes o ON o.event_seq = e.seq WHERE e.id = ?1";
    let found: Vec<(String, Option<String>)> =
        all(sql, owner, [event.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let source = found.first().map(|(source, _)| source.clone());
    Ok(source.map(|source| EventOwner { source, agents: found.into_iter().filter_map(|(_, agent)| agent).collect() }))
}
