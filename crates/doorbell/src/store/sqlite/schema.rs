//! Connections and the schema they find: numbered migrations, forward only.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::digest;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::rows::delivery_digest;

/// In order; a migration's number is its place, from 1. One that was released is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_start.sql"),
    include_str!("../../../migrations/sqlite/0002_compact.sql"),
    include_str!("../../../migrations/sqlite/0003_trace.sql"),
    include_str!("../../../migrations/sqlite/0004_run_keys.sql"),
    include_str!("../../../migrations/sqlite/0005_outcome_trigger_sets.sql"),
    include_str!("../../../migrations/sqlite/0006_keep.sql"),
    include_str!("../../../migrations/sqlite/0007_secret_uses.sql"),
    include_str!("../../../migrations/sqlite/0008_notifications.sql"),
    include_str!("../../../migrations/sqlite/0009_follow_ups.sql"),
    include_str!("../../../migrations/sqlite/0010_flow.sql"),
    include_str!("../../../migrations/sqlite/0011_workers.sql"),
    include_str!("../../../migrations/sqlite/0012_replays.sql"),
    include_str!("../../../migrations/sqlite/0013_waits.sql"),
    include_str!("../../../migrations/sqlite/0014_paused_sources.sql"),
    include_str!("../../../migrations/sqlite/0015_put_back.sql"),
    include_str!("../../../migrations/sqlite/0016_webhooks.sql"),
    include_str!("../../../migrations/sqlite/0017_audit.sql"),
    include_str!("../../../migrations/sqlite/0018_subscriptions.sql"),
    include_str!("../../../migrations/sqlite/0019_gone_runs.sql"),
    include_str!("../../../migrations/sqlite/0020_moved.sql"),
    include_str!("../../../migrations/sqlite/0021_idempotency.sql"),
    include_str!("../../../migrations/sqlite/0022_accounts.sql"),
    include_str!("../../../migrations/sqlite/0023_search.sql"),
    include_str!("../../../migrations/sqlite/0024_claimed_keys.sql"),
];

/// Bytes in a page of a new database. A commit writes whole pages, of which the places of delivery keys, which are random,
/// are most: with 8 KiB an event costs a quarter more.
const PAGE: i64 = 4 * 1024;
/// Pages kept in memory by a connection that writes, in KiB. SQLite looks at all of them after a commit that split a page, so more
/// are not faster: measured alike with 4, 8 and 16 MiB.
const WRITER_CACHE: i64 = 8 * 1024;
/// The same for one that reads.
const READER_CACHE: i64 = 4 * 1024;
/// Prepared statements a connection keeps.
const STATEMENTS: usize = 96;

/// Opens a connection that writes. The file must exist, so that a database that was moved away is an error and not an
/// empty one.
pub(super) fn open_writer(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, patience, WRITER_CACHE)?;
    // The log is emptied by a connection of its own (see `checkpoint`), not by whoever commits.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What is removed is overwritten, also in pages that are free: somebody may have wanted it forgotten.
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, patience, READER_CACHE)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags, patience: Duration, cache: i64) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(patience)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise a statement is planned anew whenever a parameter is bound that is compared with what a partial index is for, or
    // that is a LIMIT: most of those about runs, each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "page_size", PAGE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -cache)?;
    Ok(connection)
}

/// The version of the schema that this program knows.
pub(super) fn known() -> usize {
    MIGRATIONS.len()
}

/// Brings the schema to this program's version, in one transaction.
///
/// # Errors
/// If the database is newer than this program, holds other migrations than it, or cannot be written.
pub(super) fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    migrate_with(connection, MIGRATIONS)
}

fn migrate_with(connection: &mut Connection, migrations: &[&str]) -> anyhow::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("delivery_digest", 2, flags, |call| {
        Ok(delivery_digest(&call.get::<String>(0)?, &call.get::<String>(1)?))
    })?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, checksum BLOB NOT NULL)")?;
    let applied = tx
        .prepare("SELECT checksum FROM migrations ORDER BY version")?
        .query_map((), |row| row.get::<_, Vec<u8>>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    ensure!(
        applied.len() <= migrations.len(),
        "its schema has version {} and this program knows {}: use the newer Doorbell that wrote it",
        applied.len(),
        migrations.len()
    );
    for (i, sql) in migrations.iter().enumerate() {
        let version = i + 1;
        let checksum = digest::digest(&digest::SHA256, sql.as_bytes());
        match applied.get(i) {
            Some(found) => ensure!(
                found == checksum.as_ref(),
                "its migration {version} is not this program's: it was written by another build of Doorbell"
            ),
            None => {
                tx.execute_batch(sql).with_context(|| format!("cannot apply migration {version}"))?;
                tx.execute("INSERT INTO migrations VALUES (?1, ?2)", params![version, checksum.as_ref()])?;
            }
        }
    }
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rows::delivery_key;
    use super::*;

    fn memory() -> Connection {
        Connection::open_in_memory().unwrap()
    }

    #[test]
    fn a_statement_is_planned_once_whatever_is_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = open_writer(&path, Duration::ZERO).unwrap();
        migrate(&mut connection).unwrap();
        let mut count =
            connection.prepare("SELECT seq FROM runs WHERE agent = ?1 AND state = ?2 ORDER BY seq LIMIT ?3").unwrap();
        for (state, limit) in [(1, 1), (2, 0), (1, 10), (3, 1)] {
            assert!(!count.exists(params!["triage", state, limit]).unwrap());
        }
        assert_eq!(count.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    #[test]
    fn delivery_keys_of_an_older_database_are_still_found() {
        let mut connection = memory();
        migrate_with(&mut connection, &MIGRATIONS[..1]).unwrap();
        connection.execute("INSERT INTO delivery_keys VALUES ('acme', 'id:1', 7)", ()).unwrap();
        migrate_with(&mut connection, MIGRATIONS).unwrap();
        let find = "SELECT event_seq FROM delivery_digests WHERE digest = ?1";
        let found: i64 = connection.query_row(find, [delivery_digest("acme", "id:1")], |row| row.get(0)).unwrap();
        assert_eq!(found, 7);
    }

    #[test]
    fn keys_are_kept_in_the_order_of_what_their_ids_say() {
        let key = |id: &str| delivery_key("acme", &format!("id:{id}"));
        let (first, second) = ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "02d3162e-cc79-11e3-81ab-4c9367dc0958");
        assert!(key(first) < key(second) && first > second);
        let (of_random, digest) = (key("1"), delivery_digest("acme", "id:1"));
        assert_eq!((&of_random[..6], &of_random[6..]), (&digest[..6], &digest[..]));
    }

    #[test]
    fn migrations_run_once_and_in_order() {
        let mut connection = memory();
        migrate_with(&mut connection, &["CREATE TABLE a (x)"]).unwrap();
        migrate_with(&mut connection, &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"]).unwrap();
        migrate_with(&mut connection, &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"]).unwrap();
        connection.execute("INSERT INTO a (x, y) VALUES (1, 2)", ()).unwrap();
    }

    #[test]
    fn a_newer_database_is_refused_and_said_so() {
        let mut connection = memory();
        migrate_with(&mut connection, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).unwrap();
        let error = migrate_with(&mut connection, &["CREATE TABLE a (x)"]).unwrap_err().to_string();
        assert!(error.contains("version 2") && error.contains("newer"), "{error}");
    }

    #[test]
    fn an_edited_migration_is_refused() {
        let mut connection = memory();
        migrate_with(&mut connection, &["CREATE TABLE a (x)"]).unwrap();
        assert!(migrate_with(&mut connection, &["CREATE TABLE a (x, y)"]).is_err());
    }

    #[test]
    fn the_uses_of_secrets_begin_with_what_the_events_say() {
        let mut connection = memory();
        migrate_with(&mut connection, &MIGRATIONS[..1]).unwrap();
        for (seq, credential, at, duplicates) in
            [(1, Some("old"), 5, 2), (2, Some("old"), 3, 0), (3, Some("new"), 9, 0), (4, None, 9, 0)]
        {
            let event = "INSERT INTO events VALUES (?1, ?1, 's', 'p', 'e', NULL, NULL, ?2, ?3, 0, 1, 0, ?4, 1, '{}')";
            connection.execute(event, params![seq, credential, at, duplicates]).unwrap();
        }
        migrate_with(&mut connection, MIGRATIONS).unwrap();
        let mut uses = connection.prepare("SELECT credential, deliveries, last_at FROM secret_uses").unwrap();
        let uses = uses.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let uses: Vec<(String, i64, i64)> = uses.map(Result::unwrap).collect();
        assert_eq!(uses, [("new".to_owned(), 1, 9), ("old".to_owned(), 4, 5)]);
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing_behind() {
        let mut connection = memory();
        assert!(migrate_with(&mut connection, &["CREATE TABLE a (x)", "nonsense"]).is_err());
        migrate_with(&mut connection, &["CREATE TABLE a (x)"]).unwrap();
    }
}
