//! The index: in which blocks of events a word, or what a word begins with, may be.
//!
//! It is made beside everything else, a group of events at a time, once all events of the group are stored; and whatever
//! removes what an event said removes its group, in the same transaction. Then the group is made again.
//!
//! Considered and left: FTS5. A question is the beginning of words, and for those FTS5 first reads all places of all words that begin
//! so: 0.3 s for `a` among 100,000 events, and more with each further one. And to remove an event so that its words are gone from
//! the file takes it milliseconds of the writer's time (`secure-delete`), of which retention needs a fraction for all else. Here a
//! question reads one small row a word and 2,048 events, and a removal is two statements.

use std::ops::Range;

use doorbell_core::search::{Word, read_words};
use rusqlite::{Connection, params};

use super::read_event;
use crate::store::sqlite::fault::{Fault, Outcome};
use crate::store::sqlite::rows::{self, all, change, value};
use crate::store::sqlite::writer::Work;
use crate::store::{EventQuery, StoredEvent, Wanted};

/// Events in a group.
pub(in crate::store::sqlite) const GROUP: i64 = 2048;
/// Events in a block: a group has as many blocks as a mask has bits.
pub(super) const BLOCK: i64 = GROUP / u64::BITS as i64;
/// Parts of a group: a hash's first bits say in which it is.
const PARTS: usize = 64;
/// To be raised when words are cut or hashed in another way: what was made before is made again.
const FORMAT: i64 = 1;
/// Events that are read in one go while a group is made.
const SLICE: i64 = 32;
/// How many characters of a word are known by a mark of their own. Of a longer beginning, the longest of these is looked up.
const BEGINNINGS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Stands behind a whole word: no byte of a text.
const END: u8 = 0xff;

/// The first and the last sequence; none if there are no events.
pub(super) fn ends(sql: &Connection) -> Outcome<Option<(i64, i64)>> {
    let first = value::<Option<i64>>(sql, "SELECT min(seq) FROM events", ())?.flatten();
    let last = value::<Option<i64>>(sql, "SELECT max(seq) FROM events", ())?.flatten();
    Ok(first.zip(last))
}

/// The block of an event, by its place in the group.
pub(super) fn bit(place: i64) -> u64 {
    1 << (place / BLOCK)
}

// Marks.

/// FNV-1a, of which every beginning is on the way to the whole.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Spread over all bits: FNV's last bytes change only some.
    fn mark(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// The marks of a word: one for each of its beginnings, and one for the whole.
fn marks_of(word: &str, mut mark: impl FnMut(u64)) {
    let mut hash = Fnv::NEW;
    for (place, c) in word.chars().enumerate() {
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            hash = hash.add(byte);
        }
        if BEGINNINGS.contains(&(place + 1)) {
            mark(hash.mark());
        }
    }
    mark(hash.add(END).mark());
}

/// The mark that an event must have which has this word.
fn probe(word: &str, whole: bool) -> u64 {
    let hash_of = |text: &str| text.bytes().fold(Fnv::NEW, Fnv::add);
    if whole {
        return hash_of(word).add(END).mark();
    }
    let length = word.chars().count();
    let known = BEGINNINGS.iter().rev().find(|known| **known <= length).copied().unwrap_or(0);
    let end = word.char_indices().nth(known).map_or(word.len(), |(end, _)| end);
    hash_of(&word[..end]).mark()
}

/// All marks that an event must have: also those of the source and the event that it must be of.
pub(super) fn probes(query: &EventQuery, wanted: &Wanted) -> Vec<u64> {
    let mut probes: Vec<u64> = wanted.search.words().map(|Word { text, whole }| probe(text, *whole)).collect();
    for name in query.source.iter().chain(&query.event) {
        read_words(name, |word| probes.push(probe(word, true)));
    }
    probes.sort_unstable();
    probes.dedup();
    probes
}

fn part_of(mark: u64) -> usize {
    (mark >> 58) as usize
}

/// What stands in a part for a mark in a block: 16 bits of it, and the block.
fn entry(mark: u64, block: i64) -> u32 {
    ((mark as u32 & 0xffff) << 6) | block as u32
}

// Parts.

/// A group that is being made.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Making {
    number: i64,
    /// What of the group was there when it was begun.
    seen: Seen,
    /// The first sequence that was not read yet.
    next: i64,
    parts: Vec<Vec<u32>>,
}

/// Events of a group, and how many of them are forgotten. Both change whenever what one said is removed, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    events: i64,
    forgotten: i64,
}

fn seen(sql: &Connection, group: i64) -> Outcome<Seen> {
    let count = "SELECT count(*), count(forgotten_at) FROM events WHERE seq >= ?1 AND seq < ?2";
    Ok(sql.prepare_cached(count)?.query_row([group * GROUP, (group + 1) * GROUP], |row| {
        Ok(Seen { events: row.get(0)?, forgotten: row.get(1)? })
    })?)
}

/// Begins the newest group that is complete and not indexed; none if there is none.
pub(in crate::store::sqlite) fn begin(sql: &Connection) -> Outcome<Option<Making>> {
    let Some((first, last)) = ends(sql)? else { return Ok(None) };
    let (first, end) = (first / GROUP, (last + 1) / GROUP);
    let made =
        "SELECT number FROM search_groups WHERE format = ?1 AND number >= ?2 AND number < ?3 ORDER BY number DESC";
    let made: Vec<i64> = all(sql, made, [FORMAT, first, end], |row| Ok(row.get(0)?))?;
    let mut made = made.into_iter();
    let Some(number) = (first..end).rev().find(|group| made.next() != Some(*group)) else { return Ok(None) };
    Ok(Some(Making { number, seen: seen(sql, number)?, next: number * GROUP, parts: vec![Vec::new(); PARTS] }))
}

/// The events of a slice, which are not forgotten.
pub(in crate::store::sqlite) fn read(sql: &Connection, slice: Range<i64>) -> Outcome<Vec<StoredEvent>> {
    let there = "SELECT seq FROM events WHERE seq >= ?1 AND seq < ?2 AND forgotten_at IS NULL";
    let seqs: Vec<i64> = all(sql, there, [slice.start, slice.end], |row| Ok(row.get(0)?))?;
    let events = seqs.into_iter().map(|seq| rows::event(sql, seq));
    events.filter(|event| !event.as_ref().is_err_and(Fault::is_bad_row)).collect()
}

impl Making {
    /// Which of its events are next; none if it has all.
    pub(in crate::store::sqlite) fn slice(&mut self) -> Option<Range<i64>> {
        let from = self.next;
        self.next += SLICE;
        (from < (self.number + 1) * GROUP).then_some(from..self.next)
    }

    /// Adds what events say.
    pub(in crate::store::sqlite) fn add(&mut self, events: &[StoredEvent]) {
        for event in events {
            let block = event.seq % GROUP / BLOCK;
            let parts = &mut self.parts;
            read_event(event, |text| {
                read_words(text, |word| marks_of(word, |mark| parts[part_of(mark)].push(entry(mark, block))));
            });
        }
    }

    /// Sorts and packs what was read.
    pub(in crate::store::sqlite) fn pack(self) -> Made {
        let parts = self.parts.into_iter().map(|mut entries| {
            entries.sort_unstable();
            entries.dedup();
            pack(&entries)
        });
        Made { number: self.number, seen: self.seen, parts: parts.collect() }
    }
}

/// A group that is made.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Made {
    number: i64,
    seen: Seen,
    parts: Vec<Vec<u8>>,
}

/// Puts a group into the index, unless something of it was removed since it was begun.
pub(in crate::store::sqlite) fn put(work: &Work<'_>, made: &Made) -> Outcome<()> {
    let sql = work.sql;
    if seen(sql, made.number)? != made.seen {
        return Ok(());
    }
    remove_group(sql, made.number)?;
    for (part, data) in made.parts.iter().enumerate().filter(|(_, data)| !data.is_empty()) {
        let insert = "INSERT INTO search_parts (id, data) VALUES (?1, ?2)";
        change(sql, insert, params![made.number * PARTS as i64 + part as i64, data])?;
    }
    change(sql, "INSERT INTO search_groups (number, format) VALUES (?1, ?2)", [made.number, FORMAT])?;
    // Those of which no event is left.
    let gone = "DELETE FROM search_groups WHERE number < (SELECT min(seq) FROM events) / ?1";
    change(sql, gone, [GROUP]).map(drop)
}

/// Takes the group of an event out of the index, because what the event said is removed.
pub(in crate::store::sqlite) fn remove(sql: &Connection, seq: i64) -> Outcome<()> {
    remove_group(sql, seq / GROUP)
}

fn remove_group(sql: &Connection, number: i64) -> Outcome<()> {
    if change(sql, "DELETE FROM search_groups WHERE number = ?1", [number])? > 0 {
        let parts = "DELETE FROM search_parts WHERE id >= ?1 AND id < ?2";
        change(sql, parts, [number * PARTS as i64, (number + 1) * PARTS as i64])?;
    }
    Ok(())
}

/// The blocks of a group in which all of these marks may be, as a mask; none if the group is not indexed.
pub(super) fn blocks(sql: &Connection, group: i64, probes: &[u64]) -> Outcome<Option<u64>> {
    let indexed = "SELECT 1 FROM search_groups WHERE number = ?1 AND format = ?2";
    if value::<i64>(sql, indexed, [group, FORMAT])?.is_none() {
        return Ok(None);
    }
    let mut mask = u64::MAX;
    for probe in probes {
        let mut part = sql.prepare_cached("SELECT data FROM search_parts WHERE id = ?1")?;
        let mut rows = part.query([group * PARTS as i64 + part_of(*probe) as i64])?;
        mask &= match rows.next()? {
            Some(row) => look_up(row.get_ref(0)?.as_blob().unwrap_or_default(), *probe),
            None => 0,
        };
        if mask == 0 {
            break;
        }
    }
    Ok(Some(mask))
}

/// Differences of sorted entries, seven bits a byte.
fn pack(entries: &[u32]) -> Vec<u8> {
    let mut data = Vec::with_capacity(entries.len() * 2);
    let mut last = 0;
    for entry in entries {
        let mut step = entry - last;
        while step >= 0x80 {
            data.push(step as u8 | 0x80);
            step >>= 7;
        }
        data.push(step as u8);
        last = *entry;
    }
    data
}

/// The blocks that have a mark.
fn look_up(data: &[u8], mark: u64) -> u64 {
    let wanted = entry(mark, 0) >> 6;
    let (mut mask, mut last, mut step, mut shift) = (0, 0u32, 0u32, 0);
    for byte in data {
        step |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 != 0 {
            continue;
        }
        last = last.wrapping_add(step);
        (step, shift) = (0, 0);
        match (last >> 6).cmp(&wanted) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => mask |= 1 << (last & 0x3f),
            std::cmp::Ordering::Greater => break,
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use doorbell_core::search::Search;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_index_never_hides_what_a_text_says(text in "[a-d字Ä0-9 ./]{0,80}", from: prop::sample::Index, length in 1usize..40) {
            let mut marks = Vec::new();
            read_words(&text, |word| marks_of(word, |mark| marks.push(mark)));
            let chars: Vec<char> = text.chars().collect();
            let from = from.index(chars.len().max(1));
            let question: String = chars.iter().skip(from).take(length).collect();
            let search = Search::parse(&question).unwrap();
            let mut looking = search.begin();
            looking.read(&text);
            if looking.is_complete() {
                for Word { text, whole } in search.words() {
                    prop_assert!(marks.contains(&probe(text, *whole)), "{text}");
                }
            }
        }

        #[test]
        fn what_was_packed_is_looked_up(entries in proptest::collection::btree_set((0u64..300, 0i64..64), 0..400)) {
            let sorted: Vec<u32> = entries.iter().map(|(mark, block)| entry(*mark, *block)).collect();
            let data = pack(&sorted);
            for mark in 0..300 {
                let blocks = entries.iter().filter(|(of, _)| *of == mark).fold(0, |mask, (_, block)| mask | 1u64 << block);
                prop_assert_eq!(look_up(&data, mark), blocks);
            }
        }

        #[test]
        fn damaged_parts_are_no_panic(data: Vec<u8>, mark: u64) {
            look_up(&data, mark);
        }
    }
}
