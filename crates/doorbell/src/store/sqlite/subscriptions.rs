//! Subscriptions of MCP Events, and the runs that deliver to them.

use doorbell_core::id::SubscriptionId;
use rusqlite::{Connection, OptionalExtension, params};

use super::accept::next_run;
use super::fault::Outcome;
use super::rows::{self, QUEUED, all, change, kind_number, value};
use super::webhooks::{put_secret, secrets_of};
use super::writer::Work;
use crate::store::{
    Followed, OutcomeKind, Pending, StoredSecret, StoredSubscription, Subscription, SubscriptionChange,
};

/// All of them, oldest first, each with its secrets.
pub(super) fn list(sql: &Connection) -> Outcome<Vec<StoredSubscription>> {
    let subscriptions = "SELECT id, key, source, arguments, url, created_at, verified_at, expires_at, position \
                         FROM subscriptions ORDER BY created_at, id";
    let found = all(sql, subscriptions, (), |row| {
        Ok(Subscription {
            id: rows::id(row, 0)?,
            key: rows::id(row, 1)?,
            source: row.get(2)?,
            arguments: row.get(3)?,
            url: row.get(4)?,
            created_at: rows::time(row, 5)?,
            verified_at: rows::time(row, 6)?,
            expires_at: rows::time(row, 7)?,
            position: row.get(8)?,
        })
    })?;
    let with_secrets = |subscription: Subscription| {
        let secrets: Vec<StoredSecret> = secrets_of(sql, subscription.id.to_bytes())?;
        Ok(StoredSubscription { subscription, secrets })
    };
    found.into_iter().map(with_secrets).collect()
}

/// Brings a subscription to how it is to stand. False, and nothing changed, if its key is gone.
pub(super) fn put(work: &Work<'_>, wanted: &SubscriptionChange) -> Outcome<bool> {
    let Subscription { id, key, source, arguments, url, created_at, verified_at, expires_at, position } =
        &wanted.subscription;
    if value::<i64>(work.sql, "SELECT 1 FROM api_keys WHERE id = ?1", params![key.to_bytes()])?.is_none() {
        return Ok(false);
    }
    let put = "INSERT INTO subscriptions (id, key, source, arguments, url, created_at, verified_at, expires_at, \
               position) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO UPDATE SET \
               position = CASE WHEN created_at = excluded.created_at THEN position ELSE excluded.position END, \
               created_at = excluded.created_at, verified_at = excluded.verified_at, \
               expires_at = excluded.expires_at";
    let (created, verified, expires) = (created_at.as_millis(), verified_at.as_millis(), expires_at.as_millis());
    let id = id.to_bytes();
    let values = params![id, key.to_bytes(), source, arguments, url, created, verified, expires, position];
    change(work.sql, put, values)?;
    if let Some((secret, until)) = &wanted.secret {
        put_secret(work, id, secret, *until, wanted.now)?;
    }
    Ok(true)
}

/// Removes some, with their secrets. Answers how many there were.
pub(super) fn remove(work: &Work<'_>, ids: &[SubscriptionId]) -> Outcome<usize> {
    let mut removed = 0;
    for id in ids {
        change(work.sql, "DELETE FROM webhook_secrets WHERE webhook = ?1", params![id.to_bytes()])?;
        removed += change(work.sql, "DELETE FROM subscriptions WHERE id = ?1", params![id.to_bytes()])?;
    }
    Ok(removed)
}

/// Removes those of a key that is removed.
pub(super) fn remove_of_key(work: &Work<'_>, key: [u8; 16]) -> Outcome<()> {
    let ids = all(work.sql, "SELECT id FROM subscriptions WHERE key = ?1", params![key], |row| Ok(rows::id(row, 0)?))?;
    remove(work, &ids).map(drop)
}

/// Moves a subscription on, and makes the runs of what it wants. False, and nothing changed, if it is another one by now, or
/// as far already.
pub(super) fn follow(work: &mut Work<'_>, followed: &Followed) -> Outcome<bool> {
    let go_on = "UPDATE subscriptions SET position = ?3 WHERE id = ?1 AND created_at = ?2 AND position < ?3";
    let values = params![followed.id.to_bytes(), followed.created_at.as_millis(), followed.position];
    if change(work.sql, go_on, values)? == 0 {
        return Ok(false);
    }
    let (agent, now) = (followed.id.to_string(), followed.now.as_millis());
    for (event, run) in &followed.wanted {
        // It may have been removed or forgotten a moment ago.
        let there = "SELECT 1 FROM events WHERE seq = ?1 AND forgotten_at IS NULL";
        if value::<i64>(work.sql, there, [event])?.is_none() {
            continue;
        }
        let seq = next_run(work)?;
        let outcome = "INSERT INTO outcomes (event_seq, agent, kind, run_seq, trigger, at) VALUES (?1, ?2, ?3, ?4, 0, ?5) \
                       ON CONFLICT (event_seq, agent) DO UPDATE SET run_seq = excluded.run_seq, at = excluded.at \
                       WHERE at < ?6";
        let (started, created) = (kind_number(OutcomeKind::Started), followed.created_at.as_millis());
        if change(work.sql, outcome, params![event, agent, started, seq, now, created])? == 0 {
            continue;
        }
        let queue = "INSERT INTO runs (seq, id, agent, event_seq, state, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        change(work.sql, queue, params![seq, run.to_bytes(), agent, event, QUEUED, now])?;
        work.memory.next_run = Some(seq + 1);
        work.memory.count_made(&agent);
        work.memory.count_fresh(&agent);
        change(work.sql, "UPDATE events SET silent = 0 WHERE seq = ?1 AND silent = 1", [event])?;
    }
    Ok(true)
}

/// The runs of an agent that are not over.
pub(super) fn pending(sql: &Connection, agent: &str) -> Outcome<Pending> {
    let count = "SELECT count(*), min(event_seq) FROM runs WHERE agent = ?1 AND state IN (0, 1, 2, 3)";
    let found = sql.prepare_cached(count)?.query_row([agent], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found.map(|(runs, oldest)| Pending { runs, oldest }).unwrap_or_default())
}
