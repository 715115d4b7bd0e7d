//! Deliveries that only add rows, which most are: a new event, and runs that are queued without flow control.
//!
//! What they add is put together and written by few statements, before anything else looks at the tables and before the
//! commit. A statement opens each index of its table once, and goes on in each where the row before it was put: a row then
//! costs half of what it costs alone.
//!
//! Nothing in these statements may have SQLite prepare to undo one of them alone, for which it copies every page before it is
//! changed. Nobody does: an operation that fails takes its batch with it. Hence `OR FAIL`, and hence a statement of several rows
//! does not say their numbers: SQLite counts on from the first, which is written alone.

use std::collections::BTreeMap;
use std::iter;
use std::sync::{Arc, LazyLock};

use doorbell_core::event::AGENT;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::super::fault::{Fault, Outcome};
use super::super::rows::{QUEUED, change, kind_number};
use super::super::turns;
use super::super::writer::Work;
use super::{Packed, events, next_event, next_run};
use crate::store::{Accepted, Admission, AgentOutcome, Effects, NewEvent, OutcomeKind, Start};

/// Rows of one statement: as many as there are, in such steps.
const STEPS: [usize; 3] = [16, 4, 1];
/// Agents that one delivery may start here: they are held against each other.
const MOST_STARTS: usize = 16;

/// What is not written yet.
#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Plain {
    added: Vec<Added>,
    /// Whether an agent has runs in lanes: true for as long as nothing but plain deliveries come.
    lanes: BTreeMap<String, bool>,
}

/// An event and its runs.
#[derive(Debug)]
struct Added {
    seq: i64,
    id: [u8; 16],
    /// The only one in it.
    event: Arc<Vec<Packed>>,
    /// The runs of its starts, in their order; none for what is skipped.
    runs: Vec<Option<(i64, [u8; 16])>>,
}

/// Takes a delivery in, if it is a plain one.
pub(super) fn accept(work: &mut Work<'_>, events: &Arc<Vec<Packed>>) -> Outcome<Option<Accepted>> {
    let [(event, _)] = events.as_slice() else { return Ok(None) };
    if !is_plain(work, event)? {
        return Ok(None);
    }
    let seq = next_event(work)?;
    // What it has claimed is claimed again by whoever goes on with it.
    if events::claim_keys(work, event, seq)?.is_some() {
        return Ok(None);
    }
    work.memory.next_event = Some(seq + 1);
    let mut accepted = Accepted {
        event: event.id,
        duplicate: false,
        outcomes: Vec::with_capacity(event.starts.len()),
        queued: Vec::new(),
        decided: Vec::with_capacity(event.starts.len()),
        dropped: Vec::new(),
        effects: Effects::default(),
    };
    let mut runs = Vec::with_capacity(event.starts.len());
    for start in &event.starts {
        let skipped = skipped(start);
        let kind = if skipped.is_some() { OutcomeKind::Skipped } else { OutcomeKind::Started };
        let mut run = None;
        if kind == OutcomeKind::Started {
            let number = next_run(work)?;
            work.memory.next_run = Some(number + 1);
            work.memory.count_made(&start.agent);
            work.memory.count_fresh(&start.agent);
            accepted.queued.push(start.agent.clone());
            run = Some((number, start.run.to_bytes()));
        }
        runs.push(run);
        accepted.decided.push((start.agent.clone(), kind));
        accepted.outcomes.push(AgentOutcome {
            agent: start.agent.clone(),
            kind,
            run: run.map(|_| start.run),
            trigger: start.trigger,
            reason: skipped.map(ToOwned::to_owned),
            at: event.received_at,
            trigger_set: event.trigger_set,
        });
    }
    accepted.outcomes.sort_by(|a, b| a.agent.cmp(&b.agent));
    work.memory.plain.added.push(Added { seq, id: event.id.to_bytes(), event: Arc::clone(events), runs });
    Ok(Some(accepted))
}

fn is_plain(work: &mut Work<'_>, event: &NewEvent) -> Outcome<bool> {
    let starts = &event.starts;
    let is_call = event.provider == AGENT;
    if is_call || event.replay.is_some() || event.paused.is_some() || starts.len() > MOST_STARTS {
        return Ok(false);
    }
    for (at, start) in starts.iter().enumerate() {
        let twice = starts[..at].iter().any(|other| other.agent == start.agent);
        if twice || start.flow.is_some() || !has_room(work, start) || has_lanes(work, &start.agent)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the start is decided without a look at the tables.
fn has_room(work: &Work<'_>, start: &Start) -> bool {
    match start.admission {
        Admission::Grow | Admission::Skip(_) => true,
        Admission::DropOldest(most) | Admission::Reject(most) => {
            work.memory.fresh.get(&start.agent).is_some_and(|taken| *taken < most)
        }
        Admission::Hold(_) | Admission::FilterError(_) => false,
    }
}

fn skipped(start: &Start) -> Option<&str> {
    match &start.admission {
        Admission::Skip(reason) => Some(reason),
        _ => None,
    }
}

fn has_lanes(work: &mut Work<'_>, agent: &str) -> Outcome<bool> {
    if let Some(known) = work.memory.plain.lanes.get(agent) {
        return Ok(*known);
    }
    let has = turns::has_lanes(work.sql, agent)?;
    work.memory.plain.lanes.insert(agent.to_owned(), has);
    Ok(has)
}

/// Writes what was taken in: before anything else looks at the tables, and before the commit.
pub(in crate::store::sqlite) fn write(work: &mut Work<'_>) -> Outcome<()> {
    let Plain { added, mut lanes } = std::mem::take(&mut work.memory.plain);
    // Its room is of use again; what is in it is not known to hold any longer.
    lanes.clear();
    work.memory.plain.lanes = lanes;
    if added.is_empty() {
        return Ok(());
    }
    let first_run = added.iter().flat_map(|added| &added.runs).flatten().map(|(seq, _)| *seq).next();
    insert(work.sql, &EVENTS, Some(added[0].seq), added.iter().flat_map(Added::event_row))?;
    insert(work.sql, &BODIES, Some(added[0].seq), added.iter().flat_map(Added::body_row))?;
    insert(work.sql, &OUTCOMES, None, added.iter().flat_map(Added::outcome_rows))?;
    insert(work.sql, &RUNS, first_run, added.iter().flat_map(Added::run_rows))
}

/// How rows of one table are written.
struct Table {
    columns: usize,
    /// One row and its number, where rows have one.
    first: String,
    /// For each of [`STEPS`], without numbers.
    further: [String; STEPS.len()],
}

impl Table {
    /// `columns`: those of a row, without its number. `same`: what further columns have in each row.
    fn new(name: &str, number: Option<&str>, columns: &[&str], same: &[(&str, &str)]) -> Self {
        let of = |number: Option<&str>, rows: usize| {
            let named = number.into_iter().chain(columns.iter().copied());
            let values: Vec<&str> = named.clone().map(|_| "?").chain(same.iter().map(|(_, value)| *value)).collect();
            let names: Vec<&str> = named.chain(same.iter().map(|(name, _)| *name)).collect();
            let rows = vec![format!("({})", values.join(", ")); rows].join(", ");
            format!("INSERT OR FAIL INTO {name} ({}) VALUES {rows}", names.join(", "))
        };
        Self { columns: columns.len(), first: of(number, 1), further: STEPS.map(|rows| of(None, rows)) }
    }
}

static EVENTS: LazyLock<Table> = LazyLock::new(|| {
    let columns = [
        "id",
        "source",
        "provider",
        "event",
        "action",
        "delivery_id",
        "verified_by",
        "received_at",
        "handshake",
        "trigger_set",
        "body_size",
        "silent",
        "context",
    ];
    // Nothing came again yet.
    Table::new("events", Some("seq"), &columns, &[("duplicates", "0")])
});
static BODIES: LazyLock<Table> =
    LazyLock::new(|| Table::new("bodies", Some("event_seq"), &["encoding", "head", "size", "data"], &[]));
static OUTCOMES: LazyLock<Table> = LazyLock::new(|| {
    Table::new("outcomes", None, &["event_seq", "agent", "kind", "run_seq", "trigger", "at", "reason"], &[])
});
static RUNS: LazyLock<Table> = LazyLock::new(|| {
    Table::new("runs", Some("seq"), &["id", "agent", "event_seq", "state", "created_at", "trace", "key"], &[])
});

/// Writes rows one after the other; `first` is the number of the first, where rows have one.
fn insert<'r>(
    sql: &Connection,
    table: &Table,
    first: Option<i64>,
    values: impl Iterator<Item = ToSqlOutput<'r>>,
) -> Outcome<()> {
    let values: Vec<ToSqlOutput<'_>> = values.collect();
    let mut left = values.as_slice();
    if let (Some(first), Some((row, rest))) = (first, left.split_at_checked(table.columns)) {
        change(sql, &table.first, params_from_iter(iter::once(&number(first)).chain(row)))?;
        left = rest;
    }
    for (rows, statement) in STEPS.iter().zip(&table.further) {
        while let Some((some, rest)) = left.split_at_checked(rows * table.columns)
            && !some.is_empty()
        {
            change(sql, statement, params_from_iter(some))?;
            left = rest;
        }
    }
    let last = first.map(|first| first + (values.len() / table.columns) as i64 - 1);
    match last.is_none_or(|last| last == sql.last_insert_rowid()) {
        true => Ok(()),
        false => Err(Fault::Corrupt("rows were not numbered one after the other".to_owned())),
    }
}

const NULL: ToSqlOutput<'static> = ToSqlOutput::Borrowed(ValueRef::Null);

fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

fn text_if_any(maybe: Option<&String>) -> ToSqlOutput<'_> {
    maybe.map_or(NULL, |some| text(some))
}

fn bytes(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Blob(bytes))
}

fn number(number: impl TryInto<i64>) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(Value::Integer(number.try_into().unwrap_or(i64::MAX)))
}

impl Added {
    fn packed(&self) -> impl Iterator<Item = &Packed> {
        self.event.iter()
    }

    fn event_row(&self) -> impl Iterator<Item = ToSqlOutput<'_>> {
        self.packed().flat_map(|(event, body)| {
            [
                bytes(&self.id),
                text(&event.source),
                text(&event.provider),
                text(&event.event),
                text_if_any(event.action.as_ref()),
                text_if_any(event.delivery_id.as_ref()),
                text_if_any(event.verified_by.as_ref()),
                number(event.received_at.as_millis()),
                number(event.handshake),
                number(event.trigger_set),
                number(body.packed.size - body.head),
                number(event.starts.is_empty()),
                text(&event.context),
            ]
        })
    }

    fn body_row(&self) -> impl Iterator<Item = ToSqlOutput<'_>> {
        self.packed().flat_map(|(_, body)| {
            let packed = &body.packed;
            let (head, size) = (number(body.head), number(packed.size));
            [number(packed.encoding), head, size, bytes(&packed.data)]
        })
    }

    /// What each start became: the event, the start, and the run, if there is one.
    fn decided(&self) -> impl Iterator<Item = (&NewEvent, &Start, Option<&(i64, [u8; 16])>)> {
        let starts = self.packed().flat_map(|(event, _)| event.starts.iter().map(move |start| (event, start)));
        starts.zip(&self.runs).map(|((event, start), run)| (event, start, run.as_ref()))
    }

    fn outcome_rows(&self) -> impl Iterator<Item = ToSqlOutput<'_>> {
        self.decided().flat_map(|(event, start, run)| {
            let kind = if run.is_some() { OutcomeKind::Started } else { OutcomeKind::Skipped };
            [
                number(self.seq),
                text(&start.agent),
                number(kind_number(kind)),
                run.map_or(NULL, |(seq, _)| number(*seq)),
                number(start.trigger),
                number(event.received_at.as_millis()),
                skipped(start).map_or(NULL, text),
            ]
        })
    }

    fn run_rows(&self) -> impl Iterator<Item = ToSqlOutput<'_>> {
        self.decided().filter_map(|(event, start, run)| Some((event, start, run?))).flat_map(
            |(event, start, (_, id))| {
                [
                    bytes(id),
                    text(&start.agent),
                    number(self.seq),
                    number(QUEUED),
                    number(event.received_at.as_millis()),
                    text_if_any(event.trace.as_ref()),
                    text_if_any(start.key.as_ref()),
                ]
            },
        )
    }
}
