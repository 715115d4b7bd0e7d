//! Webhooks that are made at run time.

use std::collections::HashMap;

use doorbell_core::id::WebhookId;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::rows::{self, all, change, value};
use super::writer::Work;
use crate::store::{Resealed, SealedSecret, StoredSecret, StoredWebhook, Webhook, WebhookChange};

/// All of them, oldest first, each with its secrets.
pub(super) fn list(sql: &Connection) -> Outcome<Vec<StoredWebhook>> {
    let secrets =
        "SELECT webhook, id, number, master, sealed, until FROM webhook_secrets ORDER BY webhook, number DESC";
    let mut of_webhook: HashMap<WebhookId, Vec<StoredSecret>> = HashMap::new();
    let found = all(sql, secrets, (), |row| {
        let secret = SealedSecret { id: row.get(1)?, master: row.get(3)?, sealed: row.get(4)? };
        let until = rows::time_if_any(row, 5)?;
        Ok((rows::id(row, 0)?, StoredSecret { number: row.get(2)?, secret, until }))
    })?;
    for (webhook, secret) in found {
        of_webhook.entry(webhook).or_default().push(secret);
    }
    let webhooks = "SELECT id, agent, name, provider, own, active, created_by, created_at, updated_at, account FROM webhooks \
                    ORDER BY created_at, id";
    all(sql, webhooks, (), |row| {
        let webhook = Webhook {
            id: rows::id(row, 0)?,
            agent: row.get(1)?,
            name: row.get(2)?,
            provider: row.get(3)?,
            own: row.get(4)?,
            active: row.get(5)?,
            created_by: row.get(6)?,
            created_at: rows::time(row, 7)?,
            updated_at: rows::time(row, 8)?,
            account: row.get(9)?,
        };
        let secrets = of_webhook.get(&webhook.id).cloned().unwrap_or_default();
        Ok(StoredWebhook { webhook, secrets })
    })
}

/// Brings a webhook to how it is to stand.
pub(super) fn put(work: &Work<'_>, wanted: &WebhookChange) -> Outcome<()> {
    for other in &wanted.instead_of {
        change(work.sql, "DELETE FROM webhook_secrets WHERE webhook = ?1", params![other.to_bytes()])?;
        if change(work.sql, "DELETE FROM webhooks WHERE id = ?1 AND active = 0", params![other.to_bytes()])? > 0 {
            change(work.sql, "DELETE FROM secret_uses WHERE source = ?1", params![other.to_string()])?;
        }
    }
    let Webhook { id, agent, account, name, provider, own, active, created_by, created_at, updated_at } =
        &wanted.webhook;
    let put = "INSERT INTO webhooks (id, agent, name, provider, own, active, created_by, created_at, updated_at, account) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
               own = excluded.own, active = excluded.active, updated_at = excluded.updated_at, \
               account = excluded.account";
    let (created, updated) = (created_at.as_millis(), updated_at.as_millis());
    let params = params![id.to_bytes(), agent, name, provider, own, active, created_by, created, updated, account];
    change(work.sql, put, params)?;
    match &wanted.secret {
        Some((secret, until)) => put_secret(work, id.to_bytes(), secret, *until, *updated_at),
        None => Ok(()),
    }
}

/// The secrets of a webhook or a subscription, the newest first.
pub(super) fn secrets_of(sql: &Connection, webhook: [u8; 16]) -> Outcome<Vec<StoredSecret>> {
    let secrets =
        "SELECT id, number, master, sealed, until FROM webhook_secrets WHERE webhook = ?1 ORDER BY number DESC";
    all(sql, secrets, params![webhook], |row| {
        let secret = SealedSecret { id: row.get(0)?, master: row.get(2)?, sealed: row.get(3)? };
        Ok(StoredSecret { number: row.get(1)?, secret, until: rows::time_if_any(row, 4)? })
    })
}

/// Gives a webhook or a subscription a new secret. The earlier ones are of use until `until`, and none longer than it was.
pub(super) fn put_secret(
    work: &Work<'_>,
    webhook: [u8; 16],
    secret: &SealedSecret,
    until: Timestamp,
    now: Timestamp,
) -> Outcome<()> {
    let updated = now.as_millis();
    let newest = value(work.sql, "SELECT max(number) FROM webhook_secrets WHERE webhook = ?1", params![webhook])?;
    let newest: i64 = newest.flatten().unwrap_or(0);
    let retire = "UPDATE webhook_secrets SET until = min(coalesce(until, ?2), ?2) WHERE webhook = ?1";
    change(work.sql, retire, params![webhook, until.as_millis()])?;
    // What does not verify any more is of no use to anybody but a thief.
    change(work.sql, "DELETE FROM webhook_secrets WHERE webhook = ?1 AND until <= ?2", params![webhook, updated])?;
    let insert = "INSERT INTO webhook_secrets (id, webhook, number, master, sealed, created_at) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let params = params![secret.id, webhook, newest + 1, secret.master, secret.sealed, updated];
    change(work.sql, insert, params).map(drop)
}

/// Replaces secrets by the same ones, sealed with another key. One that was changed meanwhile stays. Answers how many.
pub(super) fn reseal(work: &Work<'_>, secrets: &[Resealed]) -> Outcome<usize> {
    let reseal = "UPDATE webhook_secrets SET master = ?2, sealed = ?3 WHERE id = ?1 AND master = ?4";
    let mut changed = 0;
    for Resealed { was, secret } in secrets {
        changed += change(work.sql, reseal, params![secret.id, secret.master, secret.sealed, was])?;
    }
    Ok(changed)
}

/// Runs that the deliveries to a source started and that are not over, counted up to `most`.
pub(super) fn unfinished(sql: &Connection, agent: &str, source: &str, most: usize) -> Outcome<usize> {
    let count = "SELECT count(*) FROM (SELECT 1 FROM runs r JOIN events e ON e.seq = r.event_seq \
                 WHERE r.agent = ?1 AND r.state IN (0, 1, 2, 3) AND e.source = ?2 LIMIT ?3)";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(value(sql, count, params![agent, source, most])?.unwrap_or(0))
}
