//! The embedded store: one SQLite file, one thread that writes, a few connections that read.
// tidy: allow long file: a table, one entry for each verb of the store

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use doorbell_core::id::{EventId, KeyId, RunId, SubscriptionId};
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use tokio::sync::Semaphore;

mod accept;
mod audit;
mod background;
mod body;
mod checkpoint;
mod copy;
mod delays;
mod dictionary;
mod fault;
mod flow;
mod headers;
mod history;
mod identity;
mod inspect;
mod lists;
mod lock;
mod logs;
mod moved;
mod notes;
mod once;
mod owners;
mod places;
mod queue;
mod readers;
mod records;
mod replayed;
mod rows;
mod runs;
mod schema;
mod search;
mod secret_uses;
mod subscriptions;
mod tally;
mod turns;
mod waits;
mod webhooks;
mod writer;

#[cfg(test)]
mod tests;

pub use copy::{copy_unused, seal_copy};
pub(super) use inspect::inspect;

use super::{
    AgentOutcome, Answer, ApiKey, Attempt, Body, Cancel, Claim, Claimed, Error, EventOwner, EventQuery, Expired,
    Expiry, Figures, Finish, Followed, Forgetting, Found, Lease, LogLine, NewEvent, Pending, Process, Rejection,
    Release, Released, Removed, RemovedRecords, Resealed, RunOwner, RunQuery, Running, SecretUse, Space, Stats, Store,
    StoredEvent, StoredRun, StoredSubscription, StoredWebhook, SubscriptionChange, Sweep, Swept, Taken, Tallies,
    Wanted, WebhookChange,
};
use crate::store::{
    Acceptance, Begun, Called, Change, ChangeEnd, ChangeQuery, DeadLetter, Delay, FollowedUp, GivenBack, NewStep,
    Notes, OnceEnd, OnceRequest, Resume, Retry, Standing, Step, StepKept, StoredChange, Waiting, Whose,
};

/// Bodies and logs larger than this are packed and unpacked on a thread that may take its time.
const LARGE: usize = 128 * 1024;

/// Searches at a time: fewer than connections that read, so that other questions need not wait for them.
const SEARCHES: usize = 2;

/// Does what takes as long as these bytes: beside the threads that carry requests, if they are many.
async fn beside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    if bytes <= LARGE {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Unavailable(Box::new(error)))
}

/// The store in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    // In the order in which they end: no more writes, no more reads, the log emptied, the file given back.
    writer: writer::Writer,
    readers: readers::Readers,
    background: background::Background,
    learner: dictionary::Learner,
    dictionaries: Arc<dictionary::Dictionaries>,
    figures: Figures,
    path: PathBuf,
    checkpoints: checkpoint::Running,
    searches: Semaphore,
    _exclusive: lock::Lock,
}

/// What tests change.
#[derive(Debug, Clone, Copy)]
struct Options {
    /// How long to wait for a lock that somebody else has.
    patience: Duration,
    /// Pages in the write-ahead log at which it is emptied.
    log_pages: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: Duration::from_secs(5), log_pages: checkpoint::LOG_PAGES }
    }
}

impl SqliteStore {
    /// Opens the database at `path`, and makes it and its folder if they are not there.
    ///
    /// # Errors
    /// If another gateway uses it, if it is newer than this program or damaged, or if it cannot be opened.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        Self::open_with(path, Options::default()).await
    }

    async fn open_with(path: &Path, options: Options) -> anyhow::Result<Self> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            Self::open_now(&path, options).with_context(|| format!("cannot open the database {}", path.display()))
        })
        .await?
    }

    fn open_now(path: &Path, options: Options) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // SQLite gives its other files the mode of this one.
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        // By whichever name it is reached, it is the same database.
        let path = &path.canonicalize()?;
        let exclusive = lock::take(path)?;
        let mut connection = schema::open_writer(path, options.patience)?;
        schema::migrate(&mut connection)?;
        let dictionaries = Arc::new(dictionary::Dictionaries::load(&connection)?);
        tally::install(&connection)?;
        let figures = Figures::default();
        let shared = Arc::new(checkpoint::Checkpointer::new(options.log_pages, figures.checkpoint_seconds.clone()));
        shared.watch(&mut connection)?;
        let checkpoints = checkpoint::start(path.to_owned(), Arc::clone(&shared))?;
        let learner = dictionary::Learner::start(
            path.to_owned(),
            options.patience,
            Arc::clone(&dictionaries),
            Arc::clone(&shared),
        )?;
        Ok(Self {
            writer: writer::Writer::start(connection, path.to_owned(), options.patience, shared, figures.clone())?,
            readers: readers::Readers::new(path.to_owned(), options.patience),
            background: background::Background::start()?,
            learner,
            dictionaries,
            figures,
            path: path.to_owned(),
            checkpoints,
            searches: Semaphore::new(SEARCHES),
            _exclusive: exclusive,
        })
    }

    async fn accept_delivery(&self, events: Vec<NewEvent>) -> Result<Acceptance, Error> {
        let dictionaries = Arc::clone(&self.dictionaries);
        let pack = move |mut event: NewEvent| {
            let (headers, body) = (std::mem::take(&mut event.headers), std::mem::take(&mut event.body));
            let packed = body::pack_body(&headers, &body, dictionaries.of(&event.source).as_deref());
            (event, packed)
        };
        let bytes = events.iter().map(|event| event.body.len()).sum();
        let packed: Vec<accept::Packed> = beside(bytes, move || events.into_iter().map(pack).collect()).await?;
        let packed = Arc::new(packed);
        let (stored, dictionaries) = (Arc::clone(&packed), Arc::clone(&self.dictionaries));
        let acceptance = self.writer.add(move |work| accept::accept(work, &stored, &dictionaries)).await?;
        if let Acceptance::Stored(accepted) = &acceptance {
            let new = packed.iter().zip(accepted).filter(|(_, accepted)| !accepted.duplicate);
            new.for_each(|((event, _), _)| self.learner.stored(&event.source));
        }
        Ok(acceptance)
    }

    async fn claim_runs(&self, claim: Claim) -> Result<Taken, Error> {
        let now = claim.now;
        let (packed, superseded) = self.writer.write(move |work| runs::claim(work, &claim)).await?;
        let bytes = packed.iter().map(|claim| claim.body.packed.size).fold(0, usize::saturating_add);
        let dictionaries = Arc::clone(&self.dictionaries);
        let unpack = move |runs::PackedClaim { run, lease, event, body }| match body::unpack_body(body, &dictionaries) {
            Ok(body) => Ok(Claimed { run, lease, event, body }),
            Err(fault) => Err(((run.seq, lease), fault.to_string())),
        };
        let unpacked: Vec<_> = beside(bytes, move || packed.into_iter().map(unpack).collect()).await?;
        let mut claimed = Vec::with_capacity(unpacked.len());
        for one in unpacked {
            match one {
                Ok(one) => claimed.push(one),
                // As with rows that cannot be read: it must not keep the others from being carried out, whether its own
                // end can be stored or not. If not, it is found by the end of its lease.
                Err((claimed, why)) => {
                    if let Err(error) = self.writer.write(move |work| runs::give_up(work, claimed, now, &why)).await {
                        tracing::error!(run_seq = claimed.0, error = error.with_causes(), "run.not_given_up");
                    }
                }
            }
        }
        Ok(Taken { claimed, superseded })
    }

    async fn append_lines(&self, run: RunId, lines: Vec<LogLine>) -> Result<u64, Error> {
        let bytes = lines.iter().map(|line| line.text.len()).sum();
        let chunks = beside(bytes, move || logs::pack_lines(&lines)).await?;
        self.writer.write(move |work| logs::append(work, run, &chunks)).await
    }

    async fn find_events(&self, query: EventQuery, wanted: Wanted) -> Result<Found, Error> {
        let _turn = self.searches.acquire().await.map_err(|error| Error::Unavailable(Box::new(error)))?;
        let dictionaries = Arc::clone(&self.dictionaries);
        self.readers.read(move |sql| search::search(sql, &dictionaries, &query, &wanted)).await
    }

    async fn index_some(&self) -> Result<bool, Error> {
        let Some(mut making) = self.readers.read(search::index::begin).await? else { return Ok(false) };
        while let Some(slice) = making.slice() {
            let events = self.readers.read(move |sql| search::index::read(sql, slice)).await?;
            let add = move || {
                making.add(&events);
                making
            };
            making = self.background.run(add).await?;
        }
        let made = self.background.run(move || making.pack()).await?;
        self.writer.write(move |work| search::index::put(work, &made)).await?;
        Ok(true)
    }

    async fn tally(&self) -> Result<Tallies, Error> {
        let tallies = self.writer.write(tally::read).await?;
        let queued = tallies.runs.iter().filter(|(_, state, _)| *state == State::Queued);
        let agents: Vec<String> = queued.map(|(agent, _, _)| agent.clone()).collect();
        self.readers.read(move |sql| tally::complete(sql, tallies, &agents)).await
    }

    async fn measure(&self) -> Result<Space, Error> {
        let path = self.path.clone();
        let measured = tokio::task::spawn_blocking(move || tally::space(&path)).await;
        measured.map_err(std::io::Error::other).flatten().map_err(|error| Error::Unavailable(Box::new(error)))
    }

    async fn release_all_due(&self, now: Timestamp) -> Result<Released, Error> {
        let mut agents = BTreeSet::new();
        loop {
            let released = self.writer.write(move |work| queue::release_due(work, now)).await?;
            let all = released.len() < queue::STEP;
            agents.extend(released);
            if all {
                let due = self.readers.read(queue::next_due).await?;
                let mut times: Vec<Timestamp> = due.into_iter().collect();
                for (agent, opens) in self.readers.read(move |sql| turns::openings(sql, now)).await? {
                    match opens {
                        Some(opens) => times.push(opens),
                        None => drop(agents.insert(agent)),
                    }
                }
                return Ok(Released { agents: agents.into_iter().collect(), next: times.into_iter().min() });
            }
        }
    }

    async fn remove_old_records(
        &self,
        before: Timestamp,
        in_force: i64,
        now: Timestamp,
    ) -> Result<RemovedRecords, Error> {
        let mut rejections = 0;
        loop {
            let removed = self.writer.write(move |work| history::remove_rejections(work, before)).await?;
            rejections += removed as u64;
            if history::were_all(removed) {
                break;
            }
        }
        while !self.writer.write(move |work| once::remove(work, before)).await? {}
        let unused = self.readers.read(move |sql| history::unused_trigger_sets(sql, before)).await?;
        let remove =
            move |work: &mut writer::Work<'_>| history::remove_trigger_sets(work, &unused, before, in_force, now);
        Ok(RemovedRecords { rejections, trigger_sets: self.writer.write(remove).await? })
    }

    async fn forget_event(&self, event: EventId, now: Timestamp) -> Result<Forgetting, Error> {
        let sent = match self.body(event).await {
            // What cannot be read any more can be forgotten all the same.
            Err(Error::Corrupt(_)) => None,
            sent => sent?.map(|body| body.bytes),
        };
        let done = self.writer.write(move |work| history::forget(work, event, sent.as_deref(), now)).await?;
        if matches!(done, Forgetting::Forgotten(_)) {
            self.checkpoints.scrub();
        }
        Ok(done)
    }

    async fn settle(&self, agents: Vec<(String, Standing)>, now: Timestamp) -> Result<Vec<RunId>, Error> {
        let agents: Arc<BTreeMap<String, Standing>> = Arc::new(agents.into_iter().collect());
        let mut superseded = Vec::new();
        loop {
            let among = Arc::clone(&agents);
            let step = self.writer.write(move |work| queue::settle(work, &among, now)).await?;
            let Some(mut ended) = step else { return Ok(superseded) };
            superseded.append(&mut ended);
        }
    }
}

impl Store for SqliteStore {
    fn accept(&self, events: Vec<NewEvent>) -> Answer<'_, Acceptance> {
        Box::pin(self.accept_delivery(events))
    }

    fn reject(&self, rejection: Rejection) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| records::reject(work, &rejection)))
    }

    fn claim(&self, claim: Claim) -> Answer<'_, Taken> {
        Box::pin(self.claim_runs(claim))
    }

    fn mark_process(&self, run: RunId, lease: Lease, process: Process) -> Answer<'_, bool> {
        Box::pin(self.writer.write(move |work| runs::mark_process(work, run, lease, &process)))
    }

    fn hand_over(&self, run: RunId, lease: Lease, until: Timestamp) -> Answer<'_, bool> {
        Box::pin(self.writer.write(move |work| runs::hand_over(work, run, lease, until)))
    }

    fn extend(&self, leases: Vec<(RunId, Lease)>, until: Timestamp, now: Option<Timestamp>) -> Answer<'_, Vec<RunId>> {
        Box::pin(self.writer.write(move |work| runs::extend(work, &leases, until, now)))
    }

    fn finish(&self, finish: Finish) -> Answer<'_, bool> {
        Box::pin(self.writer.write(move |work| runs::finish(work, &finish)))
    }

    fn release_due(&self, now: Timestamp) -> Answer<'_, Released> {
        Box::pin(self.release_all_due(now))
    }

    fn end_waits(&self, began: Timestamp, now: Timestamp) -> Answer<'_, usize> {
        Box::pin(async move {
            let mut ended = 0;
            loop {
                let some = self.writer.write(move |work| queue::end_waits(work, began, now)).await?;
                ended += some;
                if some < queue::STEP {
                    return Ok(ended);
                }
            }
        })
    }

    fn running(&self) -> Answer<'_, Vec<Running>> {
        Box::pin(self.readers.read(runs::running))
    }

    fn running_run(&self, run: RunId) -> Answer<'_, Option<Running>> {
        Box::pin(self.readers.read(move |sql| runs::running_run(sql, run)))
    }

    fn running_by_lease(&self, lease: Lease) -> Answer<'_, Option<Running>> {
        Box::pin(self.readers.read(move |sql| runs::running_by_lease(sql, lease)))
    }

    fn waiting(&self) -> Answer<'_, Vec<Waiting>> {
        Box::pin(self.readers.read(waits::waiting))
    }

    fn resume(&self, resume: Resume) -> Answer<'_, Option<String>> {
        Box::pin(self.writer.write(move |work| waits::resume(work, &resume)))
    }

    fn keep_step(&self, step: NewStep) -> Answer<'_, StepKept> {
        Box::pin(self.writer.write(move |work| waits::keep_step(work, &step)))
    }

    fn step(&self, run: RunId, key: String) -> Answer<'_, Option<String>> {
        Box::pin(self.readers.read(move |sql| waits::step(sql, run, &key)))
    }

    fn steps(&self, run: RunId) -> Answer<'_, Vec<Step>> {
        Box::pin(self.readers.read(move |sql| waits::steps(sql, run)))
    }

    fn agents_with_work(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.readers.read(queue::agents_with_work))
    }

    fn settle_agents(&self, agents: Vec<(String, Standing)>, now: Timestamp) -> Answer<'_, Vec<RunId>> {
        Box::pin(self.settle(agents, now))
    }

    fn give_back(&self, whose: Whose, most: usize, now: Timestamp) -> Answer<'_, GivenBack> {
        Box::pin(self.writer.write(move |work| queue::give_back(work, &whose, most, now)))
    }

    fn held_sources(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.readers.read(queue::held_sources))
    }

    fn cancel(&self, run: RunId, by: String, now: Timestamp) -> Answer<'_, Cancel> {
        Box::pin(self.writer.write(move |work| runs::cancel(work, run, &by, now)))
    }

    fn append_log(&self, run: RunId, lines: Vec<LogLine>) -> Answer<'_, u64> {
        Box::pin(self.append_lines(run, lines))
    }

    fn read_log(&self, run: RunId, after: u64, limit: usize) -> Answer<'_, Vec<(u64, LogLine)>> {
        Box::pin(self.readers.read(move |sql| logs::read(sql, run, after, limit)))
    }

    fn events(&self, query: EventQuery) -> Answer<'_, Vec<StoredEvent>> {
        Box::pin(self.readers.read(move |sql| lists::events(sql, &query)))
    }

    fn search(&self, query: EventQuery, wanted: Wanted) -> Answer<'_, Found> {
        Box::pin(self.find_events(query, wanted))
    }

    fn index(&self) -> Answer<'_, bool> {
        Box::pin(self.index_some())
    }

    fn count_events(&self, query: EventQuery) -> Answer<'_, u64> {
        Box::pin(self.readers.read(move |sql| lists::count_events(sql, query)))
    }

    fn event(&self, id: EventId) -> Answer<'_, Option<StoredEvent>> {
        Box::pin(self.readers.read(move |sql| match rows::event_seq(sql, id)? {
            Some(seq) => rows::event(sql, seq).map(Some),
            None => Ok(None),
        }))
    }

    fn body(&self, id: EventId) -> Answer<'_, Option<Body>> {
        let dictionaries = Arc::clone(&self.dictionaries);
        Box::pin(self.readers.read(move |sql| match history::remembered(sql, id)? {
            Some(seq) => body::unpack_body(rows::body(sql, seq)?, &dictionaries).map(Some),
            None => Ok(None),
        }))
    }

    fn headers(&self, id: EventId) -> Answer<'_, Option<String>> {
        let dictionaries = Arc::clone(&self.dictionaries);
        Box::pin(self.readers.read(move |sql| match rows::event_seq(sql, id)? {
            Some(seq) => headers::headers(sql, seq, &dictionaries).map(Some),
            None => Ok(None),
        }))
    }

    fn outcomes_of(&self, seqs: Vec<i64>) -> Answer<'_, HashMap<i64, Vec<AgentOutcome>>> {
        Box::pin(self.readers.read(move |sql| lists::outcomes(sql, &seqs)))
    }

    fn outcomes(&self, id: EventId) -> Answer<'_, Vec<AgentOutcome>> {
        Box::pin(self.readers.read(move |sql| match rows::event_seq(sql, id)? {
            Some(seq) => rows::outcomes(sql, seq),
            None => Ok(Vec::new()),
        }))
    }

    fn runs(&self, query: RunQuery) -> Answer<'_, Vec<StoredRun>> {
        Box::pin(self.readers.read(move |sql| lists::runs(sql, &query)))
    }

    fn owner_of_run(&self, id: RunId) -> Answer<'_, Option<RunOwner>> {
        Box::pin(self.readers.read(move |sql| owners::of_run(sql, id)))
    }

    fn owner_of_event(&self, id: EventId) -> Answer<'_, Option<EventOwner>> {
        Box::pin(self.readers.read(move |sql| owners::of_event(sql, id)))
    }

    fn run(&self, id: RunId) -> Answer<'_, Option<(StoredRun, Vec<Attempt>)>> {
        Box::pin(self.readers.read(move |sql| runs::with_attempts(sql, id)))
    }

    fn delays(&self, runs: Vec<RunId>, now: Timestamp) -> Answer<'_, Vec<(RunId, Delay)>> {
        Box::pin(self.readers.read(move |sql| delays::of(sql, &runs, now)))
    }

    fn companions(&self, run: RunId) -> Answer<'_, Vec<StoredEvent>> {
        Box::pin(self.readers.read(move |sql| flow::companions(sql, run)))
    }

    fn rejections(&self, source: Option<String>, limit: usize) -> Answer<'_, Vec<Rejection>> {
        Box::pin(self.readers.read(move |sql| records::rejections(sql, source.as_deref(), limit)))
    }

    fn keep_trigger_set(&self, triggers: String, now: Timestamp) -> Answer<'_, i64> {
        Box::pin(self.writer.write(move |work| records::keep_trigger_set(work, &triggers, now)))
    }

    fn trigger_set(&self, version: i64) -> Answer<'_, Option<String>> {
        Box::pin(self.readers.read(move |sql| records::trigger_set(sql, version)))
    }

    fn put_key(&self, key: ApiKey) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| records::put_key(work, &key)))
    }

    fn remove_key(&self, key: KeyId) -> Answer<'_, bool> {
        Box::pin(self.writer.write(move |work| records::remove_key(work, key)))
    }

    fn keys(&self) -> Answer<'_, Vec<ApiKey>> {
        Box::pin(self.readers.read(records::keys))
    }

    fn mark_keys_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| records::mark_keys_used(work, &uses)))
    }

    fn begin_change(&self, change: Change) -> Answer<'_, i64> {
        Box::pin(self.writer.write(move |work| audit::begin(work, &change)))
    }

    fn end_change(&self, seq: i64, end: ChangeEnd) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| audit::end(work, seq, &end)))
    }

    fn changes(&self, query: ChangeQuery) -> Answer<'_, Vec<StoredChange>> {
        Box::pin(self.readers.read(move |sql| audit::list(sql, &query)))
    }

    fn remove_changes(&self, before: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move {
            while self.writer.write(move |work| audit::remove(work, before)).await? {}
            Ok(())
        })
    }

    fn add_secret_uses(&self, uses: Vec<SecretUse>) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| secret_uses::add(work, &uses)))
    }

    fn secret_uses(&self) -> Answer<'_, Vec<SecretUse>> {
        Box::pin(self.readers.read(secret_uses::list))
    }

    fn webhooks(&self) -> Answer<'_, Vec<StoredWebhook>> {
        Box::pin(self.readers.read(webhooks::list))
    }

    fn put_webhook(&self, change: WebhookChange) -> Answer<'_, ()> {
        Box::pin(async move {
            let gone = change.instead_of.clone();
            self.writer.write(move |work| webhooks::put(work, &change)).await?;
            gone.iter().for_each(|webhook| self.dictionaries.forget(&webhook.to_string()));
            Ok(())
        })
    }

    fn reseal_secrets(&self, secrets: Vec<Resealed>) -> Answer<'_, usize> {
        Box::pin(self.writer.write(move |work| webhooks::reseal(work, &secrets)))
    }

    fn unfinished(&self, agent: String, source: String, most: usize) -> Answer<'_, usize> {
        Box::pin(self.readers.read(move |sql| webhooks::unfinished(sql, &agent, &source, most)))
    }

    fn begin_once(&self, request: OnceRequest, at: Timestamp) -> Answer<'_, Begun> {
        Box::pin(self.writer.write(move |work| once::begin(work, &request, at)))
    }

    fn end_once(&self, end: OnceEnd) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| once::end(work, &end)))
    }

    fn subscriptions(&self) -> Answer<'_, Vec<StoredSubscription>> {
        Box::pin(self.readers.read(subscriptions::list))
    }

    fn put_subscription(&self, change: SubscriptionChange) -> Answer<'_, bool> {
        Box::pin(self.writer.write(move |work| subscriptions::put(work, &change)))
    }

    fn remove_subscriptions(&self, ids: Vec<SubscriptionId>) -> Answer<'_, usize> {
        Box::pin(self.writer.write(move |work| subscriptions::remove(work, &ids)))
    }

    fn follow(&self, followed: Followed) -> Answer<'_, bool> {
        Box::pin(self.writer.write(move |work| subscriptions::follow(work, &followed)))
    }

    fn pending(&self, agent: String) -> Answer<'_, Pending> {
        Box::pin(self.readers.read(move |sql| subscriptions::pending(sql, &agent)))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        Box::pin(self.readers.read(records::stats))
    }

    fn health(&self, now: Timestamp) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| records::pulse(work, now)))
    }

    fn note_follow_up(&self, run: RunId, note: FollowedUp) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| runs::note_follow_up(work, run, &note)))
    }

    fn untold(&self, limit: usize) -> Answer<'_, Vec<DeadLetter>> {
        Box::pin(self.readers.read(move |sql| notes::untold(sql, limit)))
    }

    fn note(&self, notes: Notes) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| notes::note(work, &notes)))
    }

    fn notes(&self, prefix: &str) -> Answer<'_, Vec<(String, String)>> {
        let prefix = prefix.to_owned();
        Box::pin(self.readers.read(move |sql| notes::notes(sql, &prefix)))
    }

    fn tallies(&self) -> Answer<'_, Tallies> {
        Box::pin(self.tally())
    }

    fn space(&self) -> Answer<'_, Space> {
        Box::pin(self.measure())
    }

    fn figures(&self) -> Figures {
        self.figures.clone()
    }

    fn expired(&self, expiry: Expiry) -> Answer<'_, Expired> {
        Box::pin(self.readers.read(move |sql| history::expired(sql, expiry)))
    }

    fn remove(&self, events: Vec<i64>, before: Timestamp) -> Answer<'_, Removed> {
        Box::pin(self.writer.write(move |work| history::remove(work, &events, before)))
    }

    fn runs_with_folders_left(&self) -> Answer<'_, Vec<RunId>> {
        Box::pin(self.readers.read(history::runs_with_folders_left))
    }

    fn note_folders_gone(&self, runs: Vec<RunId>) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| history::note_folders_gone(work, &runs)))
    }

    fn remove_records(&self, before: Timestamp, in_force: i64, now: Timestamp) -> Answer<'_, RemovedRecords> {
        Box::pin(self.remove_old_records(before, in_force, now))
    }

    fn end_sweep(&self, sweep: Sweep) -> Answer<'_, ()> {
        Box::pin(self.writer.write(move |work| history::end_sweep(work, &sweep)))
    }

    fn swept(&self) -> Answer<'_, Swept> {
        Box::pin(self.readers.read(history::swept))
    }

    fn forget(&self, event: EventId, now: Timestamp) -> Answer<'_, Forgetting> {
        Box::pin(self.forget_event(event, now))
    }

    fn release(&self, run: RunId, by: String, now: Timestamp) -> Answer<'_, Release> {
        Box::pin(self.writer.write(move |work| queue::release(work, run, &by, now)))
    }

    fn replays_of(&self, event: EventId) -> Answer<'_, Vec<EventId>> {
        Box::pin(self.readers.read(move |sql| rows::replays_of(sql, event)))
    }

    fn retry(&self, run: RunId, by: String, now: Timestamp) -> Answer<'_, Retry> {
        Box::pin(self.writer.write(move |work| runs::retry(work, run, &by, now)))
    }

    fn calls_of(&self, run: RunId) -> Answer<'_, Vec<Called>> {
        Box::pin(self.readers.read(move |sql| moved::calls_of(sql, run)))
    }

    fn copy(&self, file: PathBuf) -> Answer<'_, ()> {
        Box::pin(copy::copy(&self.writer, file))
    }
}
