//! Events as rows: claimed by their delivery keys, and written.

use doorbell_core::event::key_of_id;
use doorbell_core::id::EventId;
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::NewEvent;
use crate::store::sqlite::body::{PackedBody, unpack_body};
use crate::store::sqlite::dictionary::Dictionaries;
use crate::store::sqlite::fault::{Fault, Outcome};
use crate::store::sqlite::rows::{self, change, delivery_digest, delivery_key, value};
use crate::store::sqlite::writer::Work;

/// Claims the event's keys for the event `seq`, unless one belongs to another event: then for that one, which it
/// answers.
pub(super) fn claim_keys(work: &mut Work<'_>, event: &NewEvent, seq: i64) -> Outcome<Option<i64>> {
    let own = event.delivery_id.as_deref().map(key_of_id);
    let mut known = None;
    for key in &event.delivery_keys {
        if let Some(owner) = owner_of_old(work, &event.source, key)? {
            known.get_or_insert(owner);
            continue;
        }
        let placed = delivery_key(&event.source, key);
        let follows = own.as_ref() == Some(key);
        if work.claim()?.execute(params![placed, seq, follows])? == 0 && known.is_none() {
            let owner = "SELECT event_seq FROM claimed_keys WHERE key = ?1";
            known = value(work.sql, owner, [placed])?.filter(|owner| *owner != seq);
        }
    }
    if let (Some(owner), 2..) = (known, event.delivery_keys.len()) {
        let hand_over = "UPDATE claimed_keys SET event_seq = ?2, follows = 0 WHERE key = ?1 AND event_seq = ?3";
        for key in &event.delivery_keys {
            change(work.sql, hand_over, params![delivery_key(&event.source, key), owner, seq])?;
        }
    }
    Ok(known)
}

/// The event that a key belongs to since before `claimed_keys`.
fn owner_of_old(work: &mut Work<'_>, source: &str, key: &str) -> Outcome<Option<i64>> {
    let any = match work.memory.old_keys {
        Some(any) => any,
        None => {
            let any = value(work.sql, "SELECT EXISTS (SELECT 1 FROM delivery_digests)", ())?.unwrap_or(false);
            *work.memory.old_keys.insert(any)
        }
    };
    if !any {
        return Ok(None);
    }
    value(work.sql, "SELECT event_seq FROM delivery_digests WHERE digest = ?1", [delivery_digest(source, key)])
}

/// Gives the keys of an event back, which is about to be removed.
pub(in crate::store::sqlite) fn remove_keys(sql: &Connection, seq: i64) -> Outcome<()> {
    let own = "SELECT source, delivery_id FROM events WHERE seq = ?1 AND delivery_id IS NOT NULL";
    let own = sql.prepare_cached(own)?.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    match own.map_err(Fault::from) {
        Ok(Some((source, id))) => {
            let (source, id): (String, String) = (source, id);
            let key = delivery_key(&source, &key_of_id(&id));
            change(sql, "DELETE FROM claimed_keys WHERE key = ?1 AND event_seq = ?2", params![key, seq])?;
        }
        Ok(None) => {}
        // Damaged: without an index then, rather than leave a key that names no event.
        Err(fault) if fault.is_bad_row() => drop(change(sql, "DELETE FROM claimed_keys WHERE +event_seq = ?1", [seq])?),
        Err(fault) => return Err(fault),
    }
    change(sql, "DELETE FROM claimed_keys WHERE event_seq = ?1 AND follows = 0", [seq])?;
    change(sql, "DELETE FROM delivery_digests WHERE event_seq = ?1", [seq]).map(drop)
}

/// The id of a stored event, whether it was forgotten, and whether another context is stored than this.
pub(super) fn find(sql: &Connection, seq: i64, context: &str) -> Outcome<(EventId, bool, bool)> {
    let found = sql
        .prepare_cached("SELECT id, forgotten_at IS NOT NULL, context IS NOT ?2 FROM events WHERE seq = ?1")?
        .query_row(params![seq, context], |row| Ok((rows::id(row, 0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    found.ok_or_else(|| Fault::Corrupt(format!("a delivery key names the event {seq}, which is not there")))
}

/// Whether a body is another one than that of a stored event; it is, if that cannot be read.
pub(super) fn says_other(sql: &Connection, seq: i64, body: &PackedBody, dictionaries: &Dictionaries) -> Outcome<bool> {
    let size = |body: &PackedBody| body.packed.size.checked_sub(body.head);
    let same = || {
        let stored = rows::body(sql, seq)?;
        // Large ones need not be unpacked, mostly.
        if size(&stored) != size(body) {
            return Ok(false);
        }
        Ok(unpack_body(stored, dictionaries)?.bytes == unpack_body(body.clone(), dictionaries)?.bytes)
    };
    match same() {
        Ok(same) => Ok(!same),
        Err(fault) if Fault::is_bad_row(&fault) => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Writes a new event.
pub(super) fn insert(sql: &Connection, seq: i64, event: &NewEvent, body: &PackedBody) -> Outcome<()> {
    let statement = "INSERT INTO events (seq, id, source, provider, event, action, delivery_id, verified_by, \
                     received_at, handshake, trigger_set, body_size, duplicates, silent, context, replay, replay_of, \
                     parent) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, ?13, ?14, ?15, ?16, \
                     iif(?4 = 'agent' AND json_valid(?14), json_extract(?14, '$.parent'), NULL))";
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
