//! Search: which events say what is looked for, newest first.
//!
//! The index only says in which blocks of events a word may be; whether an event says what is looked for is decided by its row,
//! always. So what is not indexed yet is found like everything else, only slower.

use std::time::Instant;

use doorbell_core::event::{Context, event_type};
use doorbell_core::search::{Looking, read_body};
use rusqlite::Connection;

use super::body::unpack_body;
use super::dictionary::Dictionaries;
use super::fault::Outcome;
use super::lists::{Range, Walk, select};
use super::rows::{self, value};
use crate::store::{EventQuery, Found, StoredEvent, Wanted};

pub(super) mod index;

/// Events without an index that are looked at in one go.
const WINDOW: i64 = 64;
/// The same, with their bodies.
const WINDOW_OF_BODIES: i64 = 8;

/// Events that the query admits and that say what is wanted.
pub(super) fn search(
    sql: &Connection,
    dictionaries: &Dictionaries,
    query: &EventQuery,
    wanted: &Wanted,
) -> Outcome<Found> {
    let begun = Instant::now();
    let (Some(range), Some((oldest, newest))) = (Range::of(sql, query)?, index::ends(sql)?) else {
        return Ok(Found::default());
    };
    let (after, mut before) = (range.after.max(oldest - 1), range.before.min(newest + 1));
    // What becomes of an event for its agents is asked of those only that say what is wanted.
    let admitted = EventQuery { outcome: None, limit: usize::from(u16::MAX), ..query.clone() };
    let desk = Desk { sql, dictionaries, query, admitted, wanted };
    let probes = index::probes(query, wanted);
    let mut found = Found::default();
    let mut looked = false;
    while before - 1 > after {
        let group = (before - 1) / index::GROUP;
        let start = after.max(group * index::GROUP - 1);
        for (from, to) in desk.windows(group, start, before, &probes)? {
            if looked && begun.elapsed() >= wanted.within {
                return stop(sql, found, to);
            }
            looked = true;
            desk.look(from, to, &mut found)?;
            if found.events.len() >= query.limit {
                found.next = found.events.last().map(|event| event.seq);
                return Ok(found);
            }
        }
        before = start + 1;
        // Groups in which there is nothing take time, too.
        if before - 1 > after && begun.elapsed() >= wanted.within {
            return stop(sql, found, before);
        }
        looked = true;
    }
    Ok(found)
}

/// The time is over, and everything from `before` on was looked at.
fn stop(sql: &Connection, mut found: Found, before: i64) -> Outcome<Found> {
    let at = "SELECT received_at FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1";
    found.back_to = value(sql, at, [before])?.map(doorbell_core::time::Timestamp::from_millis);
    found.next = Some(before);
    Ok(found)
}

struct Desk<'a> {
    sql: &'a Connection,
    dictionaries: &'a Dictionaries,
    query: &'a EventQuery,
    /// The query without its outcome.
    admitted: EventQuery,
    wanted: &'a Wanted,
}

impl Desk<'_> {
    /// Where between `after` and `before`, in this group, something may be found: bounds that are not included, newest first.
    fn windows(&self, group: i64, after: i64, before: i64, probes: &[u64]) -> Outcome<Vec<(i64, i64)>> {
        let (size, blocks) = match self.wanted.bodies {
            true => (WINDOW_OF_BODIES, None),
            false => (WINDOW, index::blocks(self.sql, group, probes)?),
        };
        let size = if blocks.is_some() { index::BLOCK } else { size };
        let mut windows = Vec::new();
        let mut to = before;
        while to - 1 > after {
            // Windows begin where blocks do.
            let from = after.max((to - 1) / size * size - 1);
            let may_have = blocks.is_none_or(|blocks| blocks & index::bit((to - 1) % index::GROUP) != 0);
            if may_have {
                windows.push((from, to));
            }
            to = from + 1;
        }
        Ok(windows)
    }

    /// Looks at the events between two sequences.
    fn look(&self, after: i64, before: i64, found: &mut Found) -> Outcome<()> {
        let range = Range { after, before, oldest_first: false };
        let walk = Walk { from: "events e", condition: "e.forgotten_at IS NULL", seq: "e.seq", params: &[] };
        for seq in select(self.sql, &self.admitted, &range, &walk)? {
            if found.events.len() >= self.query.limit {
                break;
            }
            match self.find(seq) {
                Ok(event) => found.events.extend(event),
                // It must not keep the others.
                Err(fault) if fault.is_bad_row() => tracing::error!(event_seq = seq, %fault, "an event cannot be read"),
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// The event, if it says what is wanted.
    fn find(&self, seq: i64) -> Outcome<Option<StoredEvent>> {
        let event = rows::event(self.sql, seq)?;
        let mut looking = self.wanted.search.begin();
        read_event(&event, |text| looking.read(text));
        if !looking.is_complete() && self.wanted.bodies {
            self.look_into_body(seq, &mut looking)?;
        }
        Ok((looking.is_complete() && self.has_outcome(seq)?).then_some(event))
    }

    fn look_into_body(&self, seq: i64, looking: &mut Looking<'_>) -> Outcome<()> {
        let body = unpack_body(rows::body(self.sql, seq)?, self.dictionaries)?;
        read_body(&body.bytes, |text| looking.read(text));
        Ok(())
    }

    fn has_outcome(&self, seq: i64) -> Outcome<bool> {
        let Some(wanted) = &self.query.outcome else { return Ok(true) };
        let outcomes = rows::outcomes(self.sql, seq)?;
        if wanted == "none" {
            return Ok(outcomes.is_empty());
        }
        let of = |agent: &str| self.query.within.as_ref().is_none_or(|own| own.agents.iter().any(|one| one == agent));
        Ok(outcomes.iter().any(|outcome| outcome.kind.as_str() == wanted && of(&outcome.agent)))
    }
}

/// What an event says beside its headers and body.
fn read_event(event: &StoredEvent, mut read: impl FnMut(&str)) {
    read(&event.source);
    read(&event_type(&event.provider, &event.event, event.action.as_deref()));
    event.delivery_id.iter().for_each(|id| read(id));
    if let Ok(context) = serde_json::from_str::<Context>(&event.context) {
        doorbell_core::search::read_context(&context, read);
    }
}
