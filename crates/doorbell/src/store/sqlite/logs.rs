//! Logs of runs: lines in packed chunks, numbered over all attempts.

use doorbell_core::id::RunId;
use doorbell_core::time::Timestamp;
use rusqlite::{Connection, params};

use super::body::{Packed, pack, packed_from_row, unpack};
use super::fault::{Fault, Outcome};
use super::rows::{change, run_seq, value};
use super::writer::Work;
use crate::store::{LogLine, Stream};

/// Lines in a chunk, so that reading a few never unpacks many.
const CHUNK: usize = 500;

/// A line as it is stored: time, attempt, stream, text.
type Line<'a> = (i64, u32, Stream, std::borrow::Cow<'a, str>);

/// Lines, packed.
#[derive(Debug)]
pub(super) struct Chunk {
    count: usize,
    packed: Packed,
}

/// Packs lines into chunks.
pub(super) fn pack_lines(lines: &[LogLine]) -> Vec<Chunk> {
    let chunk = |lines: &[LogLine]| {
        let lines: Vec<Line<'_>> = lines
            .iter()
            .map(|line| (line.at.as_millis(), line.attempt, line.stream, line.text.as_str().into()))
            .collect();
        // Numbers, names and text always have a JSON form.
        Chunk { count: lines.len(), packed: pack(&serde_json::to_vec(&lines).unwrap_or_default(), None) }
    };
    lines.chunks(CHUNK).map(chunk).collect()
}

/// Adds chunks to the end of a run's log and answers its last line's number; 0 if there is no such run.
pub(super) fn append(work: &Work<'_>, run: RunId, chunks: &[Chunk]) -> Outcome<u64> {
    // What is forgotten stays so, however late a line comes.
    let kept =
        "SELECT r.seq FROM runs r JOIN events e ON e.seq = r.event_seq WHERE r.id = ?1 AND e.forgotten_at IS NULL";
    let Some(run) = value::<i64>(work.sql, kept, [run.to_bytes()])? else {
        return Ok(0);
    };
    let last = "SELECT first + count - 1 FROM log_chunks WHERE run_seq = ?1 ORDER BY first DESC LIMIT 1";
    let mut last: u64 = value(work.sql, last, [run])?.unwrap_or(0);
    let insert = "INSERT INTO log_chunks (run_seq, first, count, encoding, size, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    for Chunk { count, packed } in chunks {
        change(work.sql, insert, params![run, last + 1, count, packed.encoding, packed.size, packed.data])?;
        last += *count as u64;
    }
    Ok(last)
}

/// Up to `limit` lines after line `after`, with their numbers.
pub(super) fn read(sql: &Connection, run: RunId, after: u64, limit: usize) -> Outcome<Vec<(u64, LogLine)>> {
    let Some(run) = run_seq(sql, run)? else {
        return Ok(Vec::new());
    };
    // Beyond the greatest number the database knows there are no lines.
    let Ok(wanted) = i64::try_from(after.saturating_add(1)) else {
        return Ok(Vec::new());
    };
    let start = "SELECT max(first) FROM log_chunks WHERE run_seq = ?1 AND first <= ?2";
    let start = value::<Option<i64>>(sql, start, params![run, wanted])?.flatten().unwrap_or(0);
    let chunks = "SELECT first, encoding, size, data FROM log_chunks WHERE run_seq = ?1 AND first >= ?2 ORDER BY first";
    let mut chunks = sql.prepare_cached(chunks)?;
    let mut rows = chunks.query(params![run, start])?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let first: u64 = row.get(0)?;
        let lines = unpack_lines(packed_from_row(row, 1)?)?;
        let numbered = (first..).zip(lines).filter(|(number, _)| *number > after);
        found.extend(numbered.take(limit - found.len()));
    }
    Ok(found)
}

fn unpack_lines(packed: Packed) -> Outcome<Vec<LogLine>> {
    let data = unpack(packed, None)?;
    let lines: Vec<Line<'_>> =
        serde_json::from_slice(&data).map_err(|error| Fault::Corrupt(format!("a log cannot be read: {error}")))?;
    let line = |(at, attempt, stream, text): Line<'_>| LogLine {
        at: Timestamp::from_millis(at),
        attempt,
        stream,
        text: text.into_owned(),
    };
    Ok(lines.into_iter().map(line).collect())
}
