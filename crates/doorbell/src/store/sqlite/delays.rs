//! Why queued runs are not taken, as flow control sees it.

use doorbell_core::flow::allowance;
use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Outcome;
use super::flow::NO_GATE;
use super::{rows, turns};
use crate::store::Delay;

/// What keeps these runs, of those that are queued.
pub(super) fn of(sql: &Connection, runs: &[RunId], now: Timestamp) -> Outcome<Vec<(RunId, Delay)>> {
    let mut found = Vec::new();
    for run in runs {
        found.extend(one(sql, *run, now)?.map(|delay| (*run, delay)));
    }
    Ok(found)
}

fn one(sql: &Connection, run: RunId, now: Timestamp) -> Outcome<Option<Delay>> {
    let place = "SELECT seq, agent, lane, alone, gate, turn IS NOT NULL FROM runs \
                 WHERE id = ?1 AND state = 2 AND lane IS NOT NULL";
    let place = sql.prepare_cached(place)?.query_row([run.to_bytes()], |row| {
        let (seq, agent, lane) = (row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
        Ok((seq, agent, lane, row.get::<_, bool>(3)?, row.get::<_, Option<String>>(4)?, row.get::<_, bool>(5)?))
    });
    let Some((seq, agent, lane, alone, gate, has_turn)) = place.optional()? else { return Ok(None) };
    if !has_turn {
        // The one that runs, or that gave its lease back to wait, or whose turn it is.
        let before = "SELECT id FROM runs WHERE agent = ?1 AND lane = ?2 AND alone = 1 AND seq <> ?3 AND state < 4 \
                      AND (state = 3 OR wait IS NOT NULL OR (state = 2 AND turn IS NOT NULL)) \
                      ORDER BY state DESC LIMIT 1";
        let before = sql.prepare_cached(before)?.query_row(params![agent, lane, seq], |row| rows::id(row, 0));
        return Ok(if alone { before.optional()?.map(Delay::Behind) } else { None });
    }
    let Some(gate) = gate.filter(|gate| gate != NO_GATE) else { return Ok(None) };
    let Some(rate) = turns::rate_of(&gate)? else { return Ok(None) };
    let opens = allowance(rate, &turns::starts(sql, &agent, &gate, rate)?, now).1;
    Ok(opens.map(Delay::Throttled))
}
