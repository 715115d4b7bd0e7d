//! How many runs each agent has in each state, kept as runs change: counting a million queued runs takes longer than
//! somebody who looks every few seconds should cost.
//!
//! The numbers stand in a temporary table of the writing connection, and triggers of that connection keep them. So they
//! are right whichever statement changes a run, follow every rollback, cost no write to the disk, and are made anew
//! with the connection. New runs have no trigger, as it would cost each of them: whoever writes one counts it.

use std::sync::LazyLock;

use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::identity::log_of;
use super::queue::AGENT_IS_GONE;
use super::rows::{self, QUEUED, all, change, state_of, value};
use super::turns;
use super::writer::Work;
use crate::store::{HeldBy, PAUSED, Space, Tallies};

/// Stands for queued runs under flow control where a state's number stands otherwise.
pub(super) const IN_LANES: i64 = -2;
/// Stands for dead letters where a state's number stands otherwise.
const DEAD_LETTERS: i64 = -1;
/// Stands for queued runs that have a throttle.
const IN_GATES: i64 = -8;
/// Stand for held runs, by why.
const HELD_BY: [(i64, HeldBy); 5] = [
    (-3, HeldBy::AgentPaused),
    (-4, HeldBy::AgentRemoved),
    (-5, HeldBy::KeyLimit),
    (-6, HeldBy::SourcePaused),
    (-7, HeldBy::Other),
];

/// Why a run is held, as a number of the tally; `{row}` is the run.
const WHY_HELD: &str = "CASE WHEN {row}.paused_source IS NOT NULL THEN -6 \
                        WHEN substr({row}.reason, 1, length('{paused}')) = '{paused}' THEN -3 \
                        WHEN {row}.reason = '{gone}' THEN -4 \
                        WHEN instr({row}.reason, '`max_per_key`') > 0 THEN -5 ELSE -7 END";

/// Held runs are counted by why, too: which is known of each by its row.
const INSTALL_HELD: &str = "
WITH RECURSIVE names (agent) AS (
    SELECT min(agent) FROM main.runs
    UNION ALL
    SELECT (SELECT min(agent) FROM main.runs WHERE agent > names.agent) FROM names WHERE names.agent IS NOT NULL
)
INSERT INTO temp.tally
SELECT names.agent, {why run}, count(*) FROM names CROSS JOIN main.runs AS run INDEXED BY runs_by_state
ON run.agent = names.agent AND run.state = 0 WHERE names.agent IS NOT NULL GROUP BY 1, 2;
INSERT INTO temp.tally
SELECT tally.agent, -8, (SELECT count(*) FROM main.runs INDEXED BY runs_by_state
                         WHERE runs.agent = tally.agent AND runs.state = 2 AND runs.gate <> '-')
FROM temp.tally WHERE tally.kind = 2;

CREATE TEMP TRIGGER tally_held_moved AFTER UPDATE OF state, reason, paused_source ON main.runs
WHEN new.state = 0 OR old.state = 0 BEGIN
    UPDATE tally SET count = count - 1 WHERE old.state = 0 AND agent = old.agent AND kind = {why old};
    INSERT INTO tally SELECT new.agent, {why new}, 1 WHERE new.state = 0 ON CONFLICT DO UPDATE SET count = count + 1;
END;

CREATE TEMP TRIGGER tally_held_removed AFTER DELETE ON main.runs WHEN old.state = 0 BEGIN
    UPDATE tally SET count = count - 1 WHERE agent = old.agent AND kind = {why old};
END;

CREATE TEMP TRIGGER tally_gate_moved AFTER UPDATE OF state ON main.runs
WHEN new.gate <> '-' AND (new.state = 2) <> (old.state = 2) BEGIN
    INSERT INTO tally VALUES (new.agent, -8, iif(new.state = 2, 1, -1))
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;
";

/// `kind` is a state's number, below 4 for runs that are in it now, from 4 on for those that came to it since the
/// connection was opened; or -1 for those that became dead letters since, -2 for those that are queued under flow control, -8 for
/// those of them that have a throttle, and -3 to -7 for those that are held, by why.
const INSTALL: &str = "
-- `count` is never NULL, and not declared so: a constraint that could stop the update below would have SQLite prepare to undo
-- each change of a run alone, by a copy of every page that it changes.
CREATE TEMP TABLE tally (agent TEXT NOT NULL, kind INTEGER NOT NULL, count INTEGER,
                         PRIMARY KEY (agent, kind)) WITHOUT ROWID;

-- One seek an agent, and one walk over the index for what is not over.
WITH RECURSIVE names (agent) AS (
    SELECT min(agent) FROM main.runs
    UNION ALL
    SELECT (SELECT min(agent) FROM main.runs WHERE agent > names.agent) FROM names WHERE names.agent IS NOT NULL
)
INSERT INTO temp.tally
SELECT names.agent, states.column1,
       (SELECT count(*) FROM main.runs WHERE runs.agent = names.agent AND runs.state = states.column1)
FROM names, (VALUES (0), (1), (2), (3)) AS states WHERE names.agent IS NOT NULL;
INSERT INTO temp.tally
SELECT tally.agent, -2, (SELECT count(*) FROM main.runs INDEXED BY runs_by_state
                         WHERE runs.agent = tally.agent AND runs.state = 2 AND runs.lane IS NOT NULL)
FROM temp.tally WHERE tally.kind = 2;

-- New runs that are queued without flow control, which most are, are counted by `settle`, once for a batch of them; the others
-- by `count_new`.

CREATE TEMP TRIGGER tally_moved AFTER UPDATE OF state ON main.runs WHEN new.state <> old.state BEGIN
    -- It may have been made in this batch, and not be counted yet.
    INSERT INTO tally SELECT old.agent, old.state, -1 WHERE old.state < 4 ON CONFLICT DO UPDATE SET count = count - 1;
    INSERT INTO tally VALUES (new.agent, new.state, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;

CREATE TEMP TRIGGER tally_lane_moved AFTER UPDATE OF state ON main.runs
WHEN new.lane IS NOT NULL AND (new.state = 2) <> (old.state = 2) BEGIN
    INSERT INTO tally VALUES (new.agent, -2, iif(new.state = 2, 1, -1))
    ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;

CREATE TEMP TRIGGER tally_died AFTER UPDATE OF dead_letter ON main.runs WHEN new.dead_letter > old.dead_letter BEGIN
    INSERT INTO tally VALUES (new.agent, -1, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;

CREATE TEMP TRIGGER tally_removed AFTER DELETE ON main.runs WHEN old.state < 4 BEGIN
    UPDATE tally SET count = count - 1 WHERE agent = old.agent AND kind = old.state;
END;
";

/// Counts what there is, and keeps count from now on. For the connection that writes, before its first operation.
pub(super) fn install(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(INSTALL)?;
    let held = INSTALL_HELD.replace("{why run}", &why_held("run"));
    connection.execute_batch(&held.replace("{why new}", &why_held("new")).replace("{why old}", &why_held("old")))
}

fn why_held(row: &str) -> String {
    WHY_HELD.replace("{paused}", PAUSED).replace("{gone}", AGENT_IS_GONE).replace("{row}", row)
}

/// Adds the runs that were queued without flow control since: before the transaction ends, or something reads the numbers.
pub(super) fn settle(work: &mut Work<'_>) -> Outcome<()> {
    let add = "INSERT INTO temp.tally VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET count = count + excluded.count";
    for (agent, runs) in std::mem::take(&mut work.memory.made) {
        change(work.sql, add, params![agent, QUEUED, runs])?;
    }
    Ok(())
}

/// Counts a new run that is held, or under flow control: to be called wherever one is written.
pub(super) fn count_new(sql: &Connection, seq: i64) -> Outcome<()> {
    static HELD: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO temp.tally SELECT agent, {}, 1 FROM main.runs AS run WHERE seq = ?1 AND state = 0 \
             ON CONFLICT DO UPDATE SET count = count + 1",
            why_held("run")
        )
    });
    let state = "INSERT INTO temp.tally SELECT agent, state, 1 FROM main.runs WHERE seq = ?1 \
                 ON CONFLICT DO UPDATE SET count = count + 1";
    change(sql, state, [seq])?;
    change(sql, &HELD, [seq]).map(drop)
}

/// Counts a new run that is queued under flow control, beside [`count_new`]; the others keep count by themselves.
pub(super) fn count_in_lane(sql: &Connection, agent: &str, throttled: bool) -> Outcome<()> {
    let count = "INSERT INTO temp.tally VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET count = count + 1";
    if throttled {
        change(sql, count, params![agent, IN_GATES])?;
    }
    change(sql, count, params![agent, IN_LANES]).map(drop)
}

/// Adds what is not counted, but found with a few seeks; `queued` are the agents with queued runs.
pub(super) fn complete(sql: &Connection, tallies: Tallies, queued: &[String]) -> Outcome<Tallies> {
    let (oldest_queued, throttled) = (oldest_queued(sql, queued)?, turns::throttled(sql)?);
    Ok(Tallies { oldest_queued, throttled, streaks: streaks(sql)?, ..tallies })
}

/// Whether runs of an agent are held that go on by themselves.
pub(super) fn any_come_back(sql: &Connection, agent: &str) -> Outcome<bool> {
    let any = "SELECT 1 FROM temp.tally WHERE agent = ?1 AND kind IN (-3, -4, -6) AND count > 0 LIMIT 1";
    Ok(value::<i64>(sql, any, [agent])?.is_some())
}

/// The numbers, without what [`complete`] adds.
pub(super) fn read(work: &mut Work<'_>) -> Outcome<Tallies> {
    settle(work)?;
    let all_of_them = "SELECT agent, kind, count FROM temp.tally WHERE count > 0";
    let counted = all(work.sql, all_of_them, (), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, u64>(2)?))
    })?;
    let mut tallies = Tallies::default();
    for (agent, kind, count) in counted {
        match state_of(kind) {
            Ok(state) if state.is_final() => tallies.ended.push((agent, state, count)),
            Ok(state) => tallies.runs.push((agent, state, count)),
            Err(_) if kind == DEAD_LETTERS => tallies.dead_letters.push((agent, count)),
            Err(_) if kind == IN_GATES => tallies.in_gates.push((agent, count)),
            Err(_) if let Some((_, by)) = HELD_BY.iter().find(|(of, _)| *of == kind) => {
                tallies.held.push((agent, *by, count));
            }
            // A damaged row is said where it is read; its number means nothing.
            Err(_) => {}
        }
    }
    Ok(tallies)
}

/// When the oldest queued run of each of these agents was made: one seek an agent.
pub(super) fn oldest_queued(sql: &Connection, agents: &[String]) -> Outcome<Vec<(String, Timestamp)>> {
    let oldest = "SELECT created_at FROM runs WHERE agent = ?1 AND state = ?2 ORDER BY seq LIMIT 1";
    let mut found = Vec::new();
    for agent in agents {
        if let Some(millis) = value(sql, oldest, params![agent, QUEUED])? {
            found.push((agent.clone(), Timestamp::from_millis(millis)));
        }
    }
    Ok(found)
}

/// Agents whose runs fail one after the other: how many, and since when.
pub(super) fn streaks(sql: &Connection) -> Outcome<Vec<(String, u64, Timestamp)>> {
    all(sql, "SELECT agent, failed, since FROM streaks", (), |row| Ok((row.get(0)?, row.get(1)?, rows::time(row, 2)?)))
}

/// What the database takes on the disk.
pub(super) fn space(path: &std::path::Path) -> std::io::Result<Space> {
    let folder = nix::sys::statvfs::statvfs(path)?;
    Ok(Space {
        database: path.metadata()?.len(),
        log: std::fs::metadata(log_of(path)).map_or(0, |log| log.len()),
        available: folder.blocks_available().saturating_mul(folder.fragment_size()),
    })
}
