//! What stands by itself: rejections, trigger sets, keys, counts.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use doorbell_core::id::{KeyId, RunId};
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::fault::{Fault, Outcome};
use super::rows::{self, all, change, state_of, value};
use super::writer::Work;
use super::{queue, subscriptions, tally, turns};
use crate::store::{ApiKey, MOST_REJECTIONS, Rejection, Stats};

/// Keeps a rejection and drops the oldest of its source beyond the bound.
pub(super) fn reject(work: &Work<'_>, rejection: &Rejection) -> Outcome<()> {
    let number = "SELECT max(number) FROM rejections WHERE source = ?1";
    let number = value::<Option<i64>>(work.sql, number, [&rejection.source])?.flatten().unwrap_or(0) + 1;
    let insert = "INSERT INTO rejections (source, number, at, code, detail, remote, suppressed, headers, body) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    change(
        work.sql,
        insert,
        params![
            rejection.source,
            number,
            rejection.at.as_millis(),
            rejection.code,
            rejection.detail,
            rejection.remote,
            i64::try_from(rejection.suppressed).unwrap_or(i64::MAX),
            rejection.headers,
            rejection.body.as_deref(),
        ],
    )?;
    let kept = i64::try_from(MOST_REJECTIONS).unwrap_or(i64::MAX);
    let drop = "DELETE FROM rejections WHERE source = ?1 AND number <= ?2";
    change(work.sql, drop, params![rejection.source, number - kept])?;
    Ok(())
}

/// Rejections, newest first, without their bodies.
pub(super) fn rejections(sql: &Connection, source: Option<&str>, limit: usize) -> Outcome<Vec<Rejection>> {
    let columns = "SELECT at, source, code, detail, remote, headers, suppressed FROM rejections";
    let from = |row: &rusqlite::Row<'_>| {
        Ok(Rejection {
            at: rows::time(row, 0)?,
            source: row.get(1)?,
            code: row.get(2)?,
            detail: row.get(3)?,
            remote: row.get(4)?,
            headers: row.get(5)?,
            body: None,
            suppressed: row.get(6)?,
        })
    };
    match source {
        Some(source) => {
            let statement = format!("{columns} WHERE source = ?1 ORDER BY number DESC LIMIT ?2");
            all(sql, &statement, params![source, limit], from)
        }
        None => all(sql, &format!("{columns} ORDER BY seq DESC LIMIT ?1"), [limit], from),
    }
}

/// The version of a trigger set, a new one if it is not kept yet.
pub(super) fn keep_trigger_set(work: &Work<'_>, triggers: &str, now: Timestamp) -> Outcome<i64> {
    let digest = digest::digest(&digest::SHA256, triggers.as_bytes());
    let insert = "INSERT INTO trigger_sets (digest, kept_at, triggers) VALUES (?1, ?2, ?3) \
                  ON CONFLICT DO UPDATE SET kept_at = max(kept_at, excluded.kept_at)";
    change(work.sql, insert, params![digest.as_ref(), now.as_millis(), triggers])?;
    value(work.sql, "SELECT version FROM trigger_sets WHERE digest = ?1", [digest.as_ref()])?
        .ok_or_else(|| Fault::Corrupt("a trigger set that was just kept is not there".to_owned()))
}

/// A trigger set by its version.
pub(super) fn trigger_set(sql: &Connection, version: i64) -> Outcome<Option<String>> {
    value(sql, "SELECT triggers FROM trigger_sets WHERE version = ?1", [version])
}

/// Keeps an API key, in place of one with the same id.
pub(super) fn put_key(work: &Work<'_>, key: &ApiKey) -> Outcome<()> {
    let put = "INSERT OR REPLACE INTO api_keys (id, name, role, agent, hash, created_at, expires_at, last_used_at, account) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
    let params = params![
        key.id.to_bytes(),
        key.name,
        key.role,
        key.agent,
        key.hash,
        key.created_at.as_millis(),
        millis(key.expires_at),
        millis(key.last_used_at),
        key.account,
    ];
    change(work.sql, put, params).map(drop)
}

/// Moves on when API keys were used last.
pub(super) fn mark_keys_used(work: &Work<'_>, uses: &[(KeyId, Timestamp)]) -> Outcome<()> {
    let mark = "UPDATE api_keys SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, ?2) <= ?2";
    for (key, at) in uses {
        change(work.sql, mark, params![key.to_bytes(), at.as_millis()])?;
    }
    Ok(())
}

/// Removes an API key and its subscriptions; whether there was one.
pub(super) fn remove_key(work: &Work<'_>, key: KeyId) -> Outcome<bool> {
    subscriptions::remove_of_key(work, key.to_bytes())?;
    change(work.sql, "DELETE FROM api_keys WHERE id = ?1", params![key.to_bytes()]).map(|removed| removed > 0)
}

/// All API keys, oldest first.
pub(super) fn keys(sql: &Connection) -> Outcome<Vec<ApiKey>> {
    let keys = "SELECT id, name, role, agent, hash, created_at, expires_at, last_used_at, account FROM api_keys \
                ORDER BY created_at, id";
    all(sql, keys, (), |row| {
        Ok(ApiKey {
            id: rows::id(row, 0)?,
            name: row.get(1)?,
            role: row.get(2)?,
            agent: row.get(3)?,
            hash: row.get(4)?,
            created_at: rows::time(row, 5)?,
            expires_at: rows::time_if_any(row, 6)?,
            last_used_at: rows::time_if_any(row, 7)?,
            account: row.get(8)?,
        })
    })
}

/// Counts.
pub(super) fn stats(sql: &Connection) -> Outcome<Stats> {
    // Sequences have no gaps but those of events that were removed.
    let events = "SELECT coalesce((SELECT max(seq) FROM events), 0) - events_gone FROM sweep";
    let events = value(sql, events, ())?.unwrap_or(0);
    // Reads the index of all runs that are kept: for a person who asks. What is asked every few seconds is in `tally`.
    let counts = "SELECT agent, state, count(*) FROM runs GROUP BY agent, state";
    let runs = all(sql, counts, (), |row| Ok((row.get::<_, String>(0)?, state_of(row.get(1)?)?, row.get(2)?)))?;
    let queued = runs.iter().filter(|(_, state, _)| *state == State::Queued);
    let queued: Vec<String> = queued.map(|(agent, _, _)| agent.clone()).collect();
    let (throttled, holders) = (turns::throttled(sql)?, holders(sql, &runs)?);
    let held = "SELECT count(*) FROM runs WHERE paused_source = ?1 AND state = 0";
    let count = |source: String| Ok((value(sql, held, [&source])?.unwrap_or(0), source));
    let held_with_source = queue::held_sources(sql)?.into_iter().map(count);
    let held_with_source = held_with_source.map(|counted| counted.map(|(count, source)| (source, count)));
    let held_with_source = held_with_source.collect::<Outcome<_>>()?;
    Ok(Stats {
        events,
        oldest_queued: tally::oldest_queued(sql, &queued)?,
        runs,
        throttled,
        held_with_source,
        streaks: tally::streaks(sql)?,
        holders,
    })
}

/// Runs that have a key and run, or gave their lease back to wait: they keep it meanwhile.
fn holders(sql: &Connection, counts: &[(String, State, u64)]) -> Outcome<Vec<(String, String, RunId, State)>> {
    let running = "SELECT key, id, state FROM runs WHERE agent = ?1 AND state = 3 AND key IS NOT NULL ORDER BY seq";
    let waiting = "SELECT key, id, state FROM runs INDEXED BY runs_that_wait \
                   WHERE agent = ?1 AND wait IS NOT NULL AND key IS NOT NULL ORDER BY seq";
    let of = |wanted: &[State]| -> BTreeSet<String> {
        counts.iter().filter(|(_, state, _)| wanted.contains(state)).map(|(agent, ..)| agent.clone()).collect()
    };
    let mut found = Vec::new();
    for (select, agents) in [(running, of(&[State::Running])), (waiting, of(&[State::Waiting, State::Held]))] {
        for agent in agents {
            let view =
                |row: &rusqlite::Row<'_>| Ok((agent.clone(), row.get(0)?, rows::id(row, 1)?, state_of(row.get(2)?)?));
            found.append(&mut all(sql, select, [&agent], view)?);
        }
    }
    Ok(found)
}

/// Writes something.
pub(super) fn pulse(work: &Work<'_>, now: Timestamp) -> Outcome<()> {
    change(work.sql, "UPDATE pulse SET at = ?1", [now.as_millis()]).map(drop)
}
