//! Lists of events and runs, by key.
//!
//! A filter should not make a list read everything there is. So each index holds groups of rows in the order of commits
//! (one source and event; one agent and state), and a list merges the newest of each group that the filter admits.
//!
//! What has no index, because one would cost every delivery a write: events by agent. A list of those walks the events,
//! newest first, until its page is full. So it is slow for an agent that has few or only old ones among many of others.

use std::collections::HashMap;

use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, ToSql};

use super::fault::Outcome;
use super::rows::{self, FAILED, all, kind_named, kind_number, state_number, value};
use crate::store::{AgentOutcome, CauseKind, EventQuery, OutcomeKind, RunQuery, StoredEvent, StoredRun};

/// How far the order of commits and the times of receipt may disagree, in milliseconds: by the time an event takes to
/// be stored, and by what a clock was set back.
pub(super) const DISORDER: i64 = 600_000;

/// Events that a query asks for.
pub(super) fn events(sql: &Connection, query: &EventQuery) -> Outcome<Vec<StoredEvent>> {
    found(sql, query)?.into_iter().map(|seq| rows::event(sql, seq)).collect()
}

/// How many there are, whatever the query's limit.
pub(super) fn count_events(sql: &Connection, query: EventQuery) -> Outcome<u64> {
    let limit = usize::try_from(i64::MAX).unwrap_or(usize::MAX);
    Ok(found(sql, &EventQuery { limit, ..query })?.len() as u64)
}

fn found(sql: &Connection, query: &EventQuery) -> Outcome<Vec<i64>> {
    let Some(range) = Range::of(sql, query)? else {
        return Ok(Vec::new());
    };
    let mut seqs = match &query.outcome {
        Some(outcome) if outcome == "none" => silent(sql, query, &range)?,
        Some(outcome) => match kind_named(outcome) {
            Some(kind) => with_outcome(sql, query, &range, kind)?,
            None => Vec::new(),
        },
        None if query.source.is_some() || query.event.is_some() => named(sql, query, &range)?,
        None => everything(sql, query, &range)?,
    };
    range.order(&mut seqs, query.limit);
    Ok(seqs)
}

/// The outcomes of these events, by agent, in one query.
pub(super) fn outcomes(sql: &Connection, seqs: &[i64]) -> Outcome<HashMap<i64, Vec<AgentOutcome>>> {
    let statement = concat!(
        "SELECT o.event_seq, ",
        rows::outcome_columns!(),
        " WHERE o.event_seq IN (SELECT value FROM json_each(?1)) ORDER BY o.event_seq, o.agent"
    );
    let mut found: HashMap<i64, Vec<AgentOutcome>> = HashMap::new();
    let list = seqs.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    for (seq, outcome) in all(sql, statement, [format!("[{list}]")], |row| Ok((row.get(0)?, rows::outcome(row, 1)?)))? {
        found.entry(seq).or_default().push(outcome);
    }
    Ok(found)
}

/// The sequences in question, and from which end.
pub(super) struct Range {
    /// Not included.
    pub(super) after: i64,
    /// Not included.
    pub(super) before: i64,
    pub(super) oldest_first: bool,
}

impl Range {
    /// None if no event can be in it.
    pub(super) fn of(sql: &Connection, query: &EventQuery) -> Outcome<Option<Self>> {
        let mut range = Self {
            after: query.after.unwrap_or(0),
            before: query.before.unwrap_or(i64::MAX),
            oldest_first: query.after.is_some(),
        };
        if let Some(since) = query.since {
            range.after = range.after.max(first_received(sql, since.as_millis().saturating_sub(DISORDER))? - 1);
        }
        if let Some(until) = query.until {
            range.before = range.before.min(first_received(sql, until.as_millis().saturating_add(DISORDER))?);
        }
        Ok((range.after < range.before).then_some(range))
    }

    fn direction(&self) -> &'static str {
        if self.oldest_first { "ASC" } else { "DESC" }
    }

    fn order(&self, seqs: &mut Vec<i64>, limit: usize) {
        seqs.sort_unstable();
        if !self.oldest_first {
            seqs.reverse();
        }
        seqs.dedup();
        seqs.truncate(limit);
    }
}

/// The sequence of the first event that was received at or after `millis`, by halving: times rise with sequences.
pub(super) fn first_received(sql: &Connection, millis: i64) -> Outcome<i64> {
    let mut high = value::<Option<i64>>(sql, "SELECT max(seq) FROM events", ())?.flatten().unwrap_or(0) + 1;
    let mut low = value::<Option<i64>>(sql, "SELECT min(seq) FROM events", ())?.flatten().unwrap_or(high);
    let at = "SELECT received_at FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1";
    while low < high {
        let middle = low + (high - low) / 2;
        match value::<i64>(sql, at, [middle])? {
            Some(received) if received < millis => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// A way through the events, in the order of commits.
pub(super) struct Walk<'a> {
    /// The tables, among them events as `e`.
    pub(super) from: &'a str,
    /// What the walk keeps to.
    pub(super) condition: &'a str,
    /// The column that is the sequence and orders the walk.
    pub(super) seq: &'a str,
    /// The condition's parameters, from ?9 on.
    pub(super) params: &'a [&'a dyn ToSql],
}

/// Whether the outcome `o` is one that may be seen; ?8 says by whom.
const SEEN: &str = "(?8 IS NULL OR o.agent IN (SELECT value FROM json_each(?8, '$.agents')))";

/// Sequences on the walk that the query admits.
pub(super) fn select(sql: &Connection, query: &EventQuery, range: &Range, walk: &Walk<'_>) -> Outcome<Vec<i64>> {
    let Walk { from, condition, seq, .. } = walk;
    // Grouped, because the outcomes of two agents are on the walk twice and make one event.
    let statement = format!(
        "SELECT {seq} FROM {from} WHERE {condition} AND {seq} > ?1 AND {seq} < ?2 \
         AND (?3 IS NULL OR e.source = ?3) \
         AND (?4 IS NULL OR ?4 IN (e.event, e.event || '.' || e.action, e.provider || '.' || e.event, \
              e.provider || '.' || e.event || '.' || e.action)) \
         AND (?5 IS NULL OR e.received_at >= ?5) AND (?6 IS NULL OR e.received_at < ?6) \
         AND (?8 IS NULL OR e.source IN (SELECT value FROM json_each(?8, '$.sources')) \
              OR EXISTS (SELECT 1 FROM outcomes a WHERE a.event_seq = e.seq AND a.agent IN \
                 (SELECT value FROM json_each(?8, '$.agents')))) \
         GROUP BY {seq} ORDER BY {seq} {} LIMIT ?7",
        range.direction()
    );
    let (since, until) = (query.since.map(Timestamp::as_millis), query.until.map(Timestamp::as_millis));
    let within = query.within.as_ref().map(|within| serde_json::to_string(within).unwrap_or_default());
    let mut params: Vec<&dyn ToSql> =
        vec![&range.after, &range.before, &query.source, &query.event, &since, &until, &query.limit, &within];
    params.extend_from_slice(walk.params);
    all(sql, &statement, params.as_slice(), |row| Ok(row.get(0)?))
}

/// All events.
fn everything(sql: &Connection, query: &EventQuery, range: &Range) -> Outcome<Vec<i64>> {
    select(sql, query, range, &Walk { from: "events e", condition: "TRUE", seq: "e.seq", params: &[] })
}

/// Events without any outcome.
fn silent(sql: &Connection, query: &EventQuery, range: &Range) -> Outcome<Vec<i64>> {
    select(sql, query, range, &Walk { from: "events e", condition: "e.silent = 1", seq: "e.seq", params: &[] })
}

/// Events with an outcome of this kind.
fn with_outcome(sql: &Connection, query: &EventQuery, range: &Range, kind: i64) -> Outcome<Vec<i64>> {
    // Most events start something, so they are walked; the others are found by the index of what did not start.
    if kind == kind_number(OutcomeKind::Started) {
        let condition =
            format!("EXISTS (SELECT 1 FROM outcomes o WHERE o.event_seq = e.seq AND o.kind = 0 AND {SEEN})");
        return select(sql, query, range, &Walk { from: "events e", condition: &condition, seq: "e.seq", params: &[] });
    }
    let from = "outcomes o INDEXED BY outcomes_unlike_started CROSS JOIN events e ON e.seq = o.event_seq";
    let condition = format!(
        "o.kind <> 0 AND o.kind = ?9 AND {SEEN} \
         AND (o.kind <> 1 OR NOT EXISTS (SELECT 1 FROM runs r WHERE r.seq = o.run_seq AND r.state = 8))"
    );
    let mut seqs =
        select(sql, query, range, &Walk { from, condition: &condition, seq: "o.event_seq", params: &[&kind] })?;
    if kind == kind_number(OutcomeKind::Dropped) {
        seqs.append(&mut dropped_with_runs(sql, query, range)?);
    }
    Ok(seqs)
}

/// Events that went with runs which were dropped.
fn dropped_with_runs(sql: &Connection, query: &EventQuery, range: &Range) -> Outcome<Vec<i64>> {
    let from = "runs r CROSS JOIN outcomes o INDEXED BY outcomes_absorbed ON o.run_seq = r.seq AND o.kind = 1 \
                CROSS JOIN events e ON e.seq = o.event_seq";
    let condition = format!("r.agent = ?9 AND r.state = 8 AND {SEEN}");
    let mut seqs = Vec::new();
    for agent in rows::agents(sql)? {
        let walk = Walk { from, condition: &condition, seq: "o.event_seq", params: &[&agent] };
        seqs.append(&mut select(sql, query, range, &walk)?);
    }
    Ok(seqs)
}

/// Events of a source, or of a name, or both.
fn named(sql: &Connection, query: &EventQuery, range: &Range) -> Outcome<Vec<i64>> {
    let sources = match &query.source {
        Some(source) => vec![source.clone()],
        None => distinct(sql, "SELECT min(source) FROM events WHERE source > ?1", &[])?,
    };
    let mut seqs = Vec::new();
    for source in &sources {
        let names = match &query.event {
            Some(event) => event_names(event),
            None => distinct(sql, "SELECT min(event) FROM events WHERE source = ?2 AND event > ?1", &[source])?,
        };
        for name in &names {
            let condition = "e.source = ?9 AND e.event = ?10";
            let from = "events e INDEXED BY events_by_name";
            let walk = Walk { from, condition, seq: "e.seq", params: &[source, name] };
            seqs.append(&mut select(sql, query, range, &walk)?);
        }
    }
    Ok(seqs)
}

/// The events that `issues.opened` may stand for: `issues` with an action, and one of that whole name; and, should its
/// first part be a provider, what the rest may stand for.
fn event_names(wanted: &str) -> Vec<String> {
    let starts = |name: &str| {
        let parts = name.match_indices('.').map(|(dot, _)| name[..dot].to_owned());
        parts.chain([name.to_owned()]).collect::<Vec<_>>()
    };
    let mut names = starts(wanted);
    names.extend(wanted.split_once('.').map(|(_, rest)| starts(rest)).unwrap_or_default());
    names.sort_unstable();
    names.dedup();
    names
}

/// The values that a statement with `min` finds, each greater than the one before: one seek a value.
fn distinct(sql: &Connection, statement: &str, more: &[&dyn ToSql]) -> Outcome<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    loop {
        let bound = found.last().cloned().unwrap_or_default();
        let mut params: Vec<&dyn ToSql> = vec![&bound];
        params.extend_from_slice(more);
        match rows::least(sql, statement, params.as_slice())? {
            Some(next) => found.push(next),
            None => return Ok(found),
        }
    }
}

/// Whether ?1 is the kind of the cause of the run `runs`; nothing is any.
const CAUSE: &str = "(?1 IS NULL OR ?1 = (SELECT CASE WHEN e.replay IS NOT NULL THEN 'replay' \
                     WHEN e.provider = 'doorbell' THEN 'notification' \
                     WHEN e.provider IN ('schedule', 'manual', 'agent') THEN e.provider ELSE 'webhook' END \
                     FROM events e WHERE e.seq = runs.event_seq))";

/// What all lists of runs keep to: the kind of the cause, and the sequences in question.
struct Bounds {
    cause: Option<&'static str>,
    after: i64,
    before: i64,
    order: &'static str,
}

impl Bounds {
    fn of(query: &RunQuery) -> Self {
        Self {
            cause: query.trigger.map(CauseKind::as_str),
            after: query.after.unwrap_or(i64::MIN),
            before: query.before.unwrap_or(i64::MAX),
            order: if query.after.is_some() { "ASC" } else { "DESC" },
        }
    }

    /// Sequences of runs for which the condition holds; ?1 to ?4 are taken.
    fn select(&self, sql: &Connection, limit: usize, condition: &str, more: &[&dyn ToSql]) -> Outcome<Vec<i64>> {
        let statement = format!(
            "SELECT seq FROM runs WHERE seq > ?2 AND seq < ?3 AND {CAUSE} AND {condition} ORDER BY seq {} LIMIT ?4",
            self.order
        );
        let mut params: Vec<&dyn ToSql> = vec![&self.cause, &self.after, &self.before, &limit];
        params.extend_from_slice(more);
        all(sql, &statement, params.as_slice(), |row| Ok(row.get(0)?))
    }

    fn sort(&self, seqs: &mut [i64]) {
        seqs.sort_unstable();
        if self.order == "DESC" {
            seqs.reverse();
        }
    }
}

/// Runs that a query asks for, newest first, or oldest first from a place on.
pub(super) fn runs(sql: &Connection, query: &RunQuery) -> Outcome<Vec<StoredRun>> {
    let bounds = Bounds::of(query);
    let mut seqs = match query.event {
        Some(event) => {
            let of_event = "SELECT r.seq FROM outcomes o JOIN runs r ON r.seq = o.run_seq \
                            AND (r.event_seq = o.event_seq OR r.absorbed > 0) WHERE o.event_seq = (SELECT seq FROM events WHERE id = ?1)";
            let seqs: Vec<i64> = all(sql, of_event, [event.to_bytes()], |row| Ok(row.get(0)?))?;
            let list = seqs.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            let among = "seq IN (SELECT value FROM json_each(?5))";
            bounds.select(sql, usize::from(u16::MAX), among, &[&format!("[{list}]")])?
        }
        None if query.key.is_some() => with_key(sql, query, &bounds)?,
        None if query.agents.is_none() && query.state.is_none() && !query.dead_letter => {
            bounds.select(sql, query.limit, "TRUE", &[])?
        }
        None => grouped(sql, query, &bounds)?,
    };
    bounds.sort(&mut seqs);
    let runs = seqs.into_iter().map(|seq| rows::run(sql, seq));
    let mut found = Vec::new();
    for run in runs {
        let run = run?;
        if found.len() < query.limit && admits(query, &run) {
            found.push(run);
        }
    }
    Ok(found)
}

fn admits(query: &RunQuery, run: &StoredRun) -> bool {
    query.agents.as_ref().is_none_or(|agents| agents.contains(&run.agent))
        && query.state.is_none_or(|state| state == run.state)
        && (!query.dead_letter || run.dead_letter)
        && query.key.as_ref().is_none_or(|key| run.key.as_ref() == Some(key))
}

/// The newest runs with the query's key.
fn with_key(sql: &Connection, query: &RunQuery, bounds: &Bounds) -> Outcome<Vec<i64>> {
    let with_key = "key = ?5 AND (?6 IS NULL OR agent IN (SELECT value FROM json_each(?6))) AND (?7 IS NULL OR state = ?7) \
                    AND (NOT ?8 OR dead_letter = 1)";
    let state = query.state.map(state_number);
    let agents = query.agents.as_ref().map(|agents| serde_json::to_string(agents).unwrap_or_default());
    bounds.select(sql, query.limit, with_key, &[&query.key, &agents, &state, &query.dead_letter])
}

/// The newest runs of each agent and state that the query admits.
fn grouped(sql: &Connection, query: &RunQuery, bounds: &Bounds) -> Outcome<Vec<i64>> {
    let agents = match &query.agents {
        Some(agents) => agents.clone(),
        None => rows::agents(sql)?,
    };
    let states = match query.state {
        Some(state) => vec![state_number(state)],
        // Only what failed becomes a dead letter.
        None if query.dead_letter => vec![FAILED],
        None => State::ALL.into_iter().map(state_number).collect(),
    };
    let of_group = "agent = ?5 AND state = ?6 AND (NOT ?7 OR dead_letter = 1)";
    let mut seqs: Vec<i64> = Vec::new();
    for agent in &agents {
        for state in &states {
            seqs.append(&mut bounds.select(sql, query.limit, of_group, &[agent, state, &query.dead_letter])?);
        }
    }
    bounds.sort(&mut seqs);
    seqs.truncate(query.limit);
    Ok(seqs)
}
