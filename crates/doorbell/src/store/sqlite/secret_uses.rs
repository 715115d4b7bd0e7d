//! Which secrets are in use.

use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::rows::{all, change, time};
use super::writer::Work;
use crate::store::SecretUse;

/// Adds to the counts, and moves the last times on.
pub(super) fn add(work: &Work<'_>, uses: &[SecretUse]) -> Outcome<()> {
    let add = "INSERT INTO secret_uses (source, credential, deliveries, last_at) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT DO UPDATE SET deliveries = deliveries + excluded.deliveries, \
               last_at = max(last_at, excluded.last_at)";
    for SecretUse { source, credential, deliveries, last_at } in uses {
        let deliveries = i64::try_from(*deliveries).unwrap_or(i64::MAX);
        change(work.sql, add, params![source, credential, deliveries, last_at.as_millis()])?;
    }
    Ok(())
}

/// All of them, by name.
pub(super) fn list(sql: &Connection) -> Outcome<Vec<SecretUse>> {
    let uses = "SELECT source, credential, deliveries, last_at FROM secret_uses ORDER BY source, credential";
    all(sql, uses, (), |row| {
        Ok(SecretUse { source: row.get(0)?, credential: row.get(1)?, deliveries: row.get(2)?, last_at: time(row, 3)? })
    })
}
