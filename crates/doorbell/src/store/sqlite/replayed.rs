//! Replays for agents that have no run for an event: decided in the commit, and noted with the event that is said again.

use doorbell_core::id::{EventId, RunId};
use rusqlite::{Connection, params};

use super::accept::Packed;
use super::fault::Outcome;
use super::rows::{change, kind_number, value};
use crate::store::{BY_REPLAY, NewEvent, OutcomeKind, Start};

/// Whether an event is only for agents without a run for what it says again, and there is none left.
pub(super) fn is_served(sql: &Connection, events: &[Packed]) -> Outcome<bool> {
    for (event, _) in events {
        for start in &event.starts {
            if !has_run(sql, event, start)? {
                return Ok(false);
            }
        }
    }
    Ok(events.iter().any(|(event, _)| !event.starts.is_empty()))
}

/// Whether the agent is only to be started if it has no run, and has one: by the event that is said again, or by an earlier
/// replay of it.
pub(super) fn has_run(sql: &Connection, event: &NewEvent, start: &Start) -> Outcome<bool> {
    let Some(of) = original(event) else { return Ok(false) };
    let own = "SELECT 1 FROM events e JOIN outcomes o ON o.event_seq = e.seq AND o.agent = ?2 \
               WHERE e.id = ?1 AND o.run_seq IS NOT NULL";
    let again = "SELECT 1 FROM events e JOIN outcomes o ON o.event_seq = e.seq AND o.agent = ?2 \
                 WHERE e.replay_of = ?1 AND o.run_seq IS NOT NULL LIMIT 1";
    for statement in [own, again] {
        if value::<i64>(sql, statement, params![of.to_bytes(), start.agent])?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes with the event that is said again that the agent has a run for it, so that a redelivery starts none.
pub(super) fn claim(sql: &Connection, event: &NewEvent, start: &Start, (seq, id): (i64, RunId)) -> Outcome<()> {
    let Some(of) = original(event) else { return Ok(()) };
    let claim = "INSERT INTO outcomes (event_seq, agent, kind, run_seq, trigger, at, reason, trigger_set) \
                 SELECT seq, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM events WHERE id = ?1 \
                 ON CONFLICT (event_seq, agent) DO UPDATE SET kind = excluded.kind, run_seq = excluded.run_seq, \
                 trigger = excluded.trigger, at = excluded.at, reason = excluded.reason, \
                 trigger_set = excluded.trigger_set WHERE kind = 4";
    let (kind, at) = (kind_number(OutcomeKind::Started), event.received_at.as_millis());
    let reason = format!("{BY_REPLAY}: {id}");
    let values = params![of.to_bytes(), start.agent, kind, seq, start.trigger, at, reason, event.trigger_set];
    change(sql, claim, values)?;
    change(sql, "UPDATE events SET silent = 0 WHERE id = ?1", [of.to_bytes()]).map(drop)
}

fn original(event: &NewEvent) -> Option<EventId> {
    event.replay.filter(|_| event.only_missing).map(|replay| replay.of)
}
