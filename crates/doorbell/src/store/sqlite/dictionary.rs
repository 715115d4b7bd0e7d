//! What the bodies of a source have in common, learnt from its own: a body then costs what is new in it.
//!
//! Deliveries of one source repeat most of their bytes (the repository, the sender, the names of all fields). With a zstd
//! dictionary they take about a quarter of the space and half the time that they take without. Dictionaries are made off
//! the way of an event, kept for as long as the database, and only taken into use when bodies they have not seen shrink.
//! What an event says must be gone once it is forgotten, so a dictionary holds only what a good part of all events said.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, mpsc};
use std::time::Duration;

use rusqlite::{Connection, params};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

use super::background::lower_priority;
use super::body::{self, LEVEL, LEVEL_SHORT};
use super::checkpoint::Checkpointer;
use super::fault::{Fault, Outcome};
use super::rows::{all, value};
use super::schema;

/// Events of a source after which its first dictionary is made; each further one is tried after eight times as many.
const FIRST: u64 = 128;
const NEXT: u64 = 8;
/// What the first dictionary is called: encodings below it are without one.
const FIRST_NUMBER: i64 = 2;
/// Events a dictionary is made from and tried on, in equal parts, and how far back they are looked for.
const SAMPLES: usize = 128;
const LOOK_BACK: i64 = 4096;
/// Bytes of each that are looked at.
const SAMPLE: usize = 16 * 1024;
/// Bytes of a dictionary. Which one is best depends on what the bodies have in common, so they are tried for as long as a
/// larger one is better.
const SIZES: [usize; 3] = [8 * 1024, 16 * 1024, 32 * 1024];
/// A dictionary has no run of this many bytes that is not in a quarter of its samples, and in at least so many.
const RUN: usize = 8;
const QUARTER: usize = 4;
const FEWEST: usize = 4;
/// A new dictionary must save this much, in percent, of what bodies take now.
const WORTH: usize = 10;
/// Bodies that take no more than this part of their size with the dictionary in use need no better one: making it costs as much
/// as storing some thousand events, and a row has a few hundred bytes besides.
const ENOUGH: usize = 8;

/// The priority of making them, as `nice` counts: nobody waits for a dictionary, and yet each event costs less once it is there.
const PRIORITY: i32 = 5;

/// A dictionary, to read with. What is needed for that is made when it is first needed: most are never asked for again.
pub(super) struct Dictionary {
    /// How it is named in rows.
    pub(super) number: i64,
    data: Arc<[u8]>,
    unpacking: OnceLock<Option<DecoderDictionary<'static>>>,
}

impl Dictionary {
    /// None if it is none.
    pub(super) fn unpacking(&self) -> Option<&DecoderDictionary<'static>> {
        self.unpacking.get_or_init(|| DecoderDictionary::try_copy(&self.data).ok()).as_ref()
    }
}

/// The same to write with, of which the tables are much larger: only the newest of a source has them, once it is needed.
pub(super) struct Packer {
    /// How it is named in rows.
    pub(super) number: i64,
    data: Arc<[u8]>,
    tables: OnceLock<Option<Tables>>,
}

/// The tables of a dictionary.
pub(super) struct Tables {
    pub(super) packing: EncoderDictionary<'static>,
    /// The same for data up to [`body::SHORT`].
    pub(super) packing_short: EncoderDictionary<'static>,
}

impl Packer {
    fn new(number: i64, data: Vec<u8>) -> Self {
        Self { number, data: data.into(), tables: OnceLock::new() }
    }

    /// None if it is no dictionary.
    pub(super) fn tables(&self) -> Option<&Tables> {
        let prepare = || {
            let packing = EncoderDictionary::try_copy(&self.data, LEVEL).ok()?;
            Some(Tables { packing, packing_short: EncoderDictionary::try_copy(&self.data, LEVEL_SHORT).ok()? })
        };
        self.tables.get_or_init(prepare).as_ref()
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary").field("number", &self.number).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A source's dictionary, and when the next one is due.
#[derive(Debug)]
struct Learnt {
    events: AtomicU64,
    due: AtomicU64,
    in_use: RwLock<Option<Arc<Packer>>>,
}

/// All dictionaries of a database.
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    by_number: RwLock<BTreeMap<i64, Arc<Dictionary>>>,
    by_source: RwLock<BTreeMap<String, Arc<Learnt>>>,
}

impl Dictionaries {
    /// Reads what earlier runs of the program learnt.
    pub(super) fn load(sql: &Connection) -> Outcome<Self> {
        let found = Self::default();
        let rows = all(sql, "SELECT number, source, data FROM dictionaries ORDER BY number", (), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        for (number, source, data) in rows {
            found.take_up(&source, Packer::new(number, data));
        }
        Ok(found)
    }

    fn take_up(&self, source: &str, packer: Packer) {
        let dictionary =
            Dictionary { number: packer.number, data: Arc::clone(&packer.data), unpacking: OnceLock::new() };
        let mut all = self.by_number.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(packer.number, Arc::new(dictionary));
        *self.learnt(source).in_use.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(packer));
    }

    /// Forgets a source to which nothing is delivered any more; what it delivered can still be read.
    pub(super) fn forget(&self, source: &str) {
        self.by_source.write().unwrap_or_else(PoisonError::into_inner).remove(source);
    }

    fn learnt(&self, source: &str) -> Arc<Learnt> {
        if let Some(known) = self.by_source.read().unwrap_or_else(PoisonError::into_inner).get(source) {
            return Arc::clone(known);
        }
        let fresh = || Learnt { events: AtomicU64::new(0), due: AtomicU64::new(FIRST), in_use: RwLock::default() };
        let mut sources = self.by_source.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sources.entry(source.to_owned()).or_insert_with(|| Arc::new(fresh())))
    }

    /// The dictionary for bodies of a source, if it has one.
    pub(super) fn of(&self, source: &str) -> Option<Arc<Packer>> {
        self.learnt(source).in_use.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The dictionary that a row names.
    pub(super) fn get(&self, number: i64) -> Option<Arc<Dictionary>> {
        self.by_number.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Counts an event that was stored. Whether it is time to make the source's next dictionary.
    fn count(&self, source: &str) -> bool {
        let learnt = self.learnt(source);
        let events = learnt.events.fetch_add(1, Ordering::Relaxed) + 1;
        let due = learnt.due.load(Ordering::Relaxed);
        events >= due
            && learnt.due.compare_exchange(due, due.saturating_mul(NEXT), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The thread that makes dictionaries.
#[derive(Debug)]
pub(super) struct Learner {
    dictionaries: Arc<Dictionaries>,
    sources: Option<mpsc::Sender<String>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Learner {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn start(
        path: PathBuf,
        patience: Duration,
        dictionaries: Arc<Dictionaries>,
        checkpointer: Arc<Checkpointer>,
    ) -> std::io::Result<Self> {
        let (sources, due) = mpsc::channel::<String>();
        let known = Arc::clone(&dictionaries);
        let serve = move || {
            lower_priority(PRIORITY, "dictionaries are made");
            for source in due {
                let learnt = schema::open_writer(&path, patience)
                    .map_err(Fault::from)
                    .and_then(|sql| learn(&sql, &known, &checkpointer, &source));
                match learnt {
                    Ok(Some(saved)) => tracing::debug!(source, saved_percent = saved, "dictionary.made"),
                    Ok(None) => {}
                    // Nothing depends on it: bodies take more room until the next try.
                    Err(error) => tracing::warn!(source, %error, "dictionary.not_made"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-learner".to_owned()).spawn(serve)?;
        Ok(Self { dictionaries, sources: Some(sources), thread: Some(thread) })
    }

    /// To be called for each event that was stored.
    pub(super) fn stored(&self, source: &str) {
        if self.dictionaries.count(source)
            && let Some(sources) = &self.sources
        {
            // A thread that is gone makes no more dictionaries, which is no reason to fail.
            let _ = sources.send(source.to_owned());
        }
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        self.sources = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes dictionaries panicked");
        }
    }
}

/// Makes a dictionary for a source and takes it into use, if it is worth it: then how many percent it saves.
fn learn(
    sql: &Connection,
    dictionaries: &Dictionaries,
    checkpointer: &Checkpointer,
    source: &str,
) -> Outcome<Option<usize>> {
    let samples = collect(sql, dictionaries, source)?;
    let (to_learn, to_try): (Vec<_>, Vec<_>) = samples.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let to_learn: Vec<&[u8]> = to_learn.into_iter().map(|(_, sample)| sample.as_slice()).collect();
    let size_with = |dictionary: Option<&Packer>| -> usize {
        to_try.iter().map(|(_, sample)| body::pack(sample, dictionary).data.len()).sum()
    };
    let in_use = dictionaries.of(source);
    let now = size_with(in_use.as_deref());
    let whole: usize = to_try.iter().map(|(_, sample)| sample.len()).sum();
    if in_use.is_some() && now * ENOUGH <= whole {
        return Ok(None);
    }
    let number =
        value(sql, "SELECT max(number) FROM dictionaries", ())?.flatten().map_or(FIRST_NUMBER, |last: i64| last + 1);
    let attempt = |size: usize| {
        // Too few or too small samples make no dictionary, which zstd calls an error.
        let data = leave_common(&zstd::dict::from_samples(&to_learn, size).ok()?, &to_learn);
        let fresh = Packer::new(number, data);
        fresh.tables()?;
        Some((size_with(Some(&fresh)), fresh))
    };
    let mut best: Option<(usize, Packer)> = None;
    for tried in SIZES.into_iter().filter_map(attempt) {
        if best.as_ref().is_some_and(|(size, _)| *size <= tried.0) {
            break;
        }
        best = Some(tried);
    }
    let Some((then, fresh)) = best.filter(|(then, _)| then * 100 <= now * (100 - WORTH)) else {
        return Ok(None);
    };
    {
        let _turn = checkpointer.turn_to_write();
        let insert = "INSERT INTO dictionaries (number, source, data) VALUES (?1, ?2, ?3)";
        sql.execute(insert, params![number, source, &*fresh.data])?;
    }
    // Only what is durable may be named by a row.
    dictionaries.take_up(source, fresh);
    Ok(Some(100 - then * 100 / now.max(1)))
}

/// The runs of a dictionary that a quarter of the samples have, one after the other: as a dictionary without tables of
/// its own, which costs a tenth more bytes than with them.
fn leave_common(dictionary: &[u8], samples: &[&[u8]]) -> Vec<u8> {
    let runs =
        |bytes: &[u8]| bytes.windows(RUN).filter_map(|run| run.first_chunk().copied()).collect::<Vec<[u8; RUN]>>();
    // In how many samples, and the last of them.
    let mut found: HashMap<[u8; RUN], (usize, usize)> = runs(dictionary).into_iter().map(|run| (run, (0, 0))).collect();
    for (number, sample) in samples.iter().enumerate() {
        for run in runs(sample) {
            if let Some((count, last)) = found.get_mut(&run)
                && *last != number + 1
            {
                (*count, *last) = (*count + 1, number + 1);
            }
        }
    }
    let enough = (samples.len() / QUARTER).max(FEWEST);
    let mut common = Vec::with_capacity(dictionary.len());
    let mut taken = 0;
    for (at, run) in runs(dictionary).iter().enumerate() {
        if found.get(run).is_some_and(|(count, _)| *count >= enough) {
            common.extend_from_slice(&dictionary[taken.max(at)..at + RUN]);
            taken = at + RUN;
        }
    }
    common
}

/// The beginnings of the newest bodies of a source; of those that can be read and are not forgotten.
fn collect(sql: &Connection, dictionaries: &Dictionaries, source: &str) -> Outcome<Vec<Vec<u8>>> {
    let statement = "SELECT seq FROM (SELECT seq, source, forgotten_at FROM events ORDER BY seq DESC LIMIT ?2) \
                     WHERE source = ?1 AND forgotten_at IS NULL LIMIT ?3";
    let seqs: Vec<i64> = all(sql, statement, params![source, LOOK_BACK, SAMPLES], |row| Ok(row.get(0)?))?;
    let mut samples = Vec::with_capacity(seqs.len());
    for seq in seqs {
        match head_of(sql, dictionaries, seq) {
            Ok(sample) => samples.push(sample),
            Err(fault) if fault.is_bad_row() => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(samples)
}

fn head_of(sql: &Connection, dictionaries: &Dictionaries, seq: i64) -> Outcome<Vec<u8>> {
    let packed = super::rows::body(sql, seq)?.packed;
    let dictionary = dictionaries.get(packed.encoding);
    let mut sample = body::unpack(packed, dictionary.as_deref())?;
    sample.truncate(SAMPLE);
    // The rest of it may be megabytes, and many samples are held at once.
    sample.shrink_to_fit();
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Place, eventually};
    use super::*;
    use crate::store::conformance::{accept, event, event_id};
    use crate::store::sqlite::SqliteStore;
    use crate::store::{NewEvent, Store};

    /// Deliveries as a source sends them: much the same, each with something of its own.
    fn alike(n: u32) -> NewEvent {
        let words: Vec<String> =
            (0..60).map(|field| format!("\"field_{field}\":\"value {}\"", field * 7919 % 101)).collect();
        let own = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        NewEvent { body: format!("{{{},\"own\":{own}}}", words.join(",")).into(), ..event(n) }
    }

    async fn fill(store: &SqliteStore, events: std::ops::Range<u32>) {
        for n in events {
            accept(store, alike(n)).await;
        }
    }

    async fn encoding(store: &SqliteStore, n: u32) -> (i64, usize) {
        let id = event_id(n);
        let read = move |sql: &Connection| {
            let seq = super::super::rows::event_seq(sql, id)?.unwrap_or_default();
            super::super::rows::body(sql, seq).map(|body| (body.packed.encoding, body.packed.data.len()))
        };
        store.readers.read(read).await.unwrap()
    }

    #[tokio::test]
    async fn bodies_of_a_source_shrink_once_there_are_enough_of_them_and_all_read_back() {
        let place = Place::new();
        let store = place.open().await;
        fill(&store, 1..FIRST as u32 + 1).await;
        eventually(|| store.dictionaries.of(&event(1).source).is_some());
        fill(&store, 1000..1002).await;
        let (before, after) = (encoding(&store, 1).await, encoding(&store, 1001).await);
        assert_eq!((before.0, after.0), (1, FIRST_NUMBER));
        assert!(after.1 * 10 < before.1 * 7, "{before:?} {after:?}");
        drop(store);
        let store = place.open().await;
        for n in [1, 1000, 1001] {
            assert_eq!(store.body(event_id(n)).await.unwrap().unwrap().bytes, alike(n).body);
        }
        fill(&store, 1002..1003).await;
        assert_eq!(encoding(&store, 1002).await.0, FIRST_NUMBER, "it is in use after a restart too");
    }

    #[tokio::test]
    async fn a_forgotten_event_and_a_damaged_body_do_not_keep_their_source_from_learning() {
        let place = Place::new();
        let store = place.open().await;
        fill(&store, 1..FIRST as u32).await;
        store.forget(event_id(7), crate::store::conformance::at(1)).await.unwrap();
        let other = Connection::open(&place.path).unwrap();
        other.execute("UPDATE bodies SET size = size + 1 WHERE event_seq = 9", ()).unwrap();
        fill(&store, FIRST as u32..FIRST as u32 + 1).await;
        eventually(|| store.dictionaries.of(&event(1).source).is_some());
    }

    #[tokio::test]
    async fn samples_of_large_bodies_take_no_more_room_than_is_looked_at() {
        let place = Place::new();
        let store = place.open().await;
        for n in 1..4 {
            accept(&store, NewEvent { body: vec![b'a'; 4 << 20].into(), ..event(n) }).await;
        }
        let sql = Connection::open(&place.path).unwrap();
        let samples = collect(&sql, &store.dictionaries, &event(1).source).unwrap();
        assert_eq!(samples.iter().map(Vec::len).collect::<Vec<_>>(), [SAMPLE; 3]);
        assert!(samples.iter().all(|sample| sample.capacity() < 2 * SAMPLE));
    }

    #[tokio::test]
    async fn bodies_with_nothing_in_common_get_no_dictionary() {
        let place = Place::new();
        let store = place.open().await;
        for n in 1..=FIRST as u32 {
            let mut state = u64::from(n);
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            });
            accept(&store, NewEvent { body: noise.take(500).collect::<Vec<_>>().into(), ..event(n) }).await;
        }
        let learnt = store.dictionaries.learnt(&event(1).source);
        assert_eq!(learnt.due.load(Ordering::Relaxed), FIRST * NEXT, "it was tried");
        drop(store);
        let kept: i64 = Connection::open(&place.path)
            .unwrap()
            .query_row("SELECT count(*) FROM dictionaries", (), |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 0);
    }

    #[tokio::test]
    async fn a_dictionary_that_does_is_kept_until_bodies_change() {
        let place = Place::new();
        let store = place.open().await;
        let text = |seed: u64| (0..400).map(|n| format!("{:x} ", n * seed * 2_654_435)).collect::<String>();
        let fill = async |text: String, events: std::ops::Range<u32>| {
            for n in events {
                accept(&store, NewEvent { body: format!("{text}{n}").into(), ..event(n) }).await;
            }
        };
        let source = event(1).source;
        fill(text(1), 1..FIRST as u32 + 1).await;
        eventually(|| store.dictionaries.of(&source).is_some());
        let sql = schema::open_writer(&place.path, Duration::from_secs(5)).unwrap();
        let checkpointer = Checkpointer::new(1000, prometheus_client::metrics::histogram::Histogram::new([1.0]));
        // Another one would save most of what is new in these, which is little.
        fill(format!("{}{}", text(1), &text(7)[..200]), 1000..1000 + SAMPLES as u32).await;
        assert_eq!(learn(&sql, &store.dictionaries, &checkpointer, &source).unwrap(), None, "it does");
        fill(text(7), 2000..2000 + SAMPLES as u32).await;
        let saved = learn(&sql, &store.dictionaries, &checkpointer, &source).unwrap();
        assert!(saved.is_some_and(|percent| percent > 50), "{saved:?}");
    }

    #[tokio::test]
    async fn a_body_whose_dictionary_is_gone_is_an_error_and_no_panic() {
        let place = Place::new();
        let store = place.open().await;
        fill(&store, 1..FIRST as u32 + 1).await;
        eventually(|| store.dictionaries.of(&event(1).source).is_some());
        fill(&store, 1000..1001).await;
        store.dictionaries.by_number.write().unwrap().clear();
        let error = store.body(event_id(1000)).await.unwrap_err();
        assert!(error.to_string().contains("unknown encoding 2"), "{error}");
    }

    #[test]
    fn a_dictionary_holds_nothing_that_only_few_events_said() {
        let samples: Vec<Vec<u8>> = (0..64)
            .map(|n| match n {
                0..15 => format!("{{\"login\":\"somebody\",\"mail\":\"secret@example.com\",\"n\":{n}}}").into_bytes(),
                _ => format!("{{\"login\":\"somebody\",\"mail\":\"none\",\"n\":{n}}}").into_bytes(),
            })
            .collect();
        let samples: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
        let whole = samples.concat();
        let left = String::from_utf8(leave_common(&whole, &samples)).unwrap();
        assert!(left.contains("\"login\":\"somebody\",\"mail\":\""), "{left}");
        assert!(!left.contains("secret") && !left.contains("example"), "{left}");
    }

    #[test]
    fn dictionaries_that_nobody_asks_for_are_not_prepared_and_a_source_that_is_gone_keeps_none() {
        let dictionaries = Dictionaries::default();
        for number in FIRST_NUMBER..FIRST_NUMBER + 3 {
            dictionaries.take_up("acme", Packer::new(number, b"what all of them say".repeat(20)));
        }
        let learnt = dictionaries.learnt("acme");
        let newest = learnt.in_use.read().unwrap().clone().unwrap();
        assert!(newest.tables.get().is_none());
        let packed = body::pack(&b"what all of them say".repeat(90), dictionaries.of("acme").as_deref());
        assert_eq!((packed.encoding, newest.tables.get().is_some()), (FIRST_NUMBER + 2, true));
        let read = dictionaries.get(packed.encoding).unwrap();
        assert_eq!(body::unpack(packed, Some(&read)).unwrap(), b"what all of them say".repeat(90));
        let prepared =
            dictionaries.by_number.read().unwrap().values().filter(|one| one.unpacking.get().is_some()).count();
        assert_eq!(prepared, 1);
        dictionaries.forget("acme");
        assert!(dictionaries.of("acme").is_none() && dictionaries.get(FIRST_NUMBER + 2).is_some());
    }

    #[tokio::test]
    async fn a_redelivery_is_nothing_to_learn_from() {
        let place = Place::new();
        let store = place.open().await;
        for _ in 0..5 {
            accept(&store, alike(1)).await;
        }
        assert_eq!(store.dictionaries.learnt(&event(1).source).events.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_dictionary_is_due_after_128_events_and_then_eight_times_as_many_each() {
        let dictionaries = Dictionaries::default();
        let due: Vec<u64> = (1..=10_000).filter(|_| dictionaries.count("acme")).collect();
        assert_eq!(due, [FIRST, FIRST * NEXT, FIRST * NEXT * NEXT]);
    }
}
