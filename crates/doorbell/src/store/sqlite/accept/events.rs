//! Events as rows: claimed by their delivery keys, and written.

use rusqlite::{Connection, params};

use crate::store::NewEvent;
use crate::store::sqlite::body::PackedBody;
use crate::store::sqlite::fault::Outcome;
use crate::store::sqlite::rows::{change, delivery_digest, value};

/// Claims the event's keys for the event `seq`, unless one belongs to another event: then for that one, which it
/// answers.
pub(super) fn claim_keys(sql: &Connection, event: &NewEvent, seq: i64) -> Outcome<Option<i64>> {
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

/// Writes a new event.
pub(super) fn insert(sql: &Connection, seq: i64, event: &NewEvent, body: &PackedBody) -> Outcome<()> {
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
