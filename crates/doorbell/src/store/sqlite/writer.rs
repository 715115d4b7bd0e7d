//! The one thread that writes. It takes whatever waits, runs it in one transaction, and answers after the commit; while
//! it waits for the disk the next batch gathers, so the cost of a durable commit is shared without a timer.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use rusqlite::{CachedStatement, Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::accept::{Plain, write_plain};
use super::checkpoint::Checkpointer;
use super::copy::Order;
use super::fault::{Fault, Outcome, asks_for_reopening, is_of_machine};
use super::identity::Identity;
use super::{schema, tally};
use crate::store::{Error, Figures};

/// Operations in one commit.
const MOST_OPERATIONS: usize = 256;
/// How often the processor is left to others before a commit, for as long as something is handed in meanwhile.
const MOST_YIELDS: usize = 4;
/// Operations that may wait; beyond it callers wait to hand theirs in.
const MOST_WAITING: usize = 1024;

/// What an operation works in.
pub(super) struct Work<'a> {
    /// The transaction.
    pub(super) sql: &'a Connection,
    /// What the writer remembers.
    pub(super) memory: &'a mut Memory,
    /// The statement that claims a key, once it was asked for: it is run for each delivery, and looking for it takes as long.
    claim: Option<CachedStatement<'a>>,
}

impl<'a> Work<'a> {
    fn new(sql: &'a Connection, memory: &'a mut Memory) -> Self {
        Self { sql, memory, claim: None }
    }

    /// The statement that claims a key for an event: the key, the event's sequence, and whether it follows from the event.
    pub(super) fn claim(&mut self) -> rusqlite::Result<&mut CachedStatement<'a>> {
        let claim = "INSERT INTO claimed_keys (key, event_seq, follows) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        Ok(match &mut self.claim {
            Some(statement) => statement,
            empty => empty.insert(self.sql.prepare_cached(claim)?),
        })
    }
}

/// What follows from the tables and would be slow to ask them each time. Everything in it can be forgotten when the transaction
/// is undone.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Per agent that has a bound: runs that take a place in its queue.
    pub(super) fresh: BTreeMap<String, u64>,
    /// Per agent: no run before this sequence that is outside lanes takes a place.
    pub(super) first: BTreeMap<String, i64>,
    /// Per agent: runs queued without flow control that the tally does not have yet.
    pub(super) made: BTreeMap<String, u64>,
    /// The sequence of the next event.
    pub(super) next_event: Option<i64>,
    /// Whether there are keys from before `claimed_keys`.
    pub(super) old_keys: Option<bool>,
    /// The sequence of the next run.
    pub(super) next_run: Option<i64>,
    /// What is added and not written yet.
    pub(super) plain: Plain,
}

impl Memory {
    /// Counts a further run that is queued without flow control.
    pub(super) fn count_made(&mut self, agent: &str) {
        match self.made.get_mut(agent) {
            Some(count) => *count += 1,
            None => drop(self.made.insert(agent.to_owned(), 1)),
        }
    }

    /// Counts a further run that takes a place in its agent's queue.
    pub(super) fn count_fresh(&mut self, agent: &str) {
        if let Some(count) = self.fresh.get_mut(agent) {
            *count += 1;
        }
    }

    /// Counts runs that take a place no more.
    pub(super) fn count_out(&mut self, agent: &str, runs: u64) {
        if let Some(count) = self.fresh.get_mut(agent) {
            *count = count.saturating_sub(runs);
        }
    }
}

/// Something to do in a transaction, and whom to answer. It may be run more than once: each time in a transaction that
/// knows nothing of the earlier ones.
trait Operation: Send {
    /// Whether it sees by itself that what is added and not written yet is written before it looks at the tables.
    fn adds(&self) -> bool;
    fn run(&mut self, work: &mut Work<'_>) -> Outcome<()>;
    /// After the commit.
    fn succeed(self: Box<Self>);
    /// After the rollback.
    fn fail(self: Box<Self>, error: Error);
}

struct Asked<T, F> {
    work: F,
    adds: bool,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, F: FnMut(&mut Work<'_>) -> Outcome<T> + Send> Operation for Asked<T, F> {
    fn adds(&self) -> bool {
        self.adds
    }

    fn run(&mut self, work: &mut Work<'_>) -> Outcome<()> {
        self.done = Some((self.work)(work)?);
        Ok(())
    }

    fn succeed(self: Box<Self>) {
        let answer = self.done.ok_or_else(closed);
        // Whoever asked may be gone; what was asked for is done all the same.
        let _ = self.answer.send(answer);
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.answer.send(Err(error));
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

/// The door to the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    inbox: Option<mpsc::Sender<Box<dyn Operation>>>,
    thread: Option<std::thread::JoinHandle<()>>,
    copies: Arc<Mutex<VecDeque<Order>>>,
}

impl Writer {
    /// Starts the thread on an open connection. `path` and `patience` are for a new one, should this one break.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn start(
        connection: Connection,
        path: PathBuf,
        patience: Duration,
        checkpointer: Arc<Checkpointer>,
        figures: Figures,
    ) -> std::io::Result<Self> {
        let (inbox, waiting) = mpsc::channel(MOST_WAITING);
        let copies = Arc::new(Mutex::default());
        let ordered = Arc::clone(&copies);
        let identity = Identity::of(&path)?;
        let serve = move || {
            let mut thread = Thread {
                waiting,
                connection: Some(Rc::new(connection)),
                path,
                identity,
                patience,
                memory: Memory::default(),
                checkpointer,
                figures,
                copies: ordered,
            };
            thread.serve();
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(serve)?;
        Ok(Self { inbox: Some(inbox), thread: Some(thread), copies })
    }

    /// Runs `work` in a transaction of the next batch and answers after its commit. It is run again if a neighbour in
    /// the batch fails, so it must depend on nothing but its arguments.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Outcome<T> + Send + 'static,
    {
        self.hand_in(false, work).await
    }

    /// The same for work that adds to what is not written yet (see [`Memory::plain`]), or has it written first.
    pub(super) async fn add<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Outcome<T> + Send + 'static,
    {
        self.hand_in(true, work).await
    }

    async fn hand_in<T, F>(&self, adds: bool, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Outcome<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let inbox = self.inbox.as_ref().ok_or_else(closed)?;
        inbox.send(Box::new(Asked { work, adds, done: None, answer })).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Asks for a copy. It begins after the next batch, and goes on a step after each batch in which one is due.
    pub(super) fn order(&self, order: Order) {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
    }
}

impl Drop for Writer {
    /// Does what was handed in and ends the thread.
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the database panicked");
        }
    }
}

struct Thread {
    waiting: mpsc::Receiver<Box<dyn Operation>>,
    // Shared with a copy that is being made from it.
    connection: Option<Rc<Connection>>,
    path: PathBuf,
    identity: Identity,
    patience: Duration,
    memory: Memory,
    checkpointer: Arc<Checkpointer>,
    figures: Figures,
    copies: Arc<Mutex<VecDeque<Order>>>,
}

/// Why a batch was not committed.
enum Failure {
    /// One of its operations failed; the others may be fine.
    Operation(Fault),
    /// The transaction as a whole could not be opened or committed.
    Transaction(rusqlite::Error),
}

impl Thread {
    fn serve(&mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            self.carry_out_with(first);
            while let Some(order) = self.next_order() {
                self.copy(order);
            }
        }
    }

    /// Carries out an operation together with what else waits.
    fn carry_out_with(&mut self, first: Box<dyn Operation>) {
        let mut batch = vec![first];
        // Whoever is about to hand something in may have been interrupted by this thread's waking. Where all threads
        // share a processor this makes batches several times larger; where nobody wants it, it costs nothing.
        for _ in 0..MOST_YIELDS {
            std::thread::yield_now();
            let before = batch.len();
            while batch.len() < MOST_OPERATIONS
                && let Ok(next) = self.waiting.try_recv()
            {
                batch.push(next);
            }
            if batch.len() == before {
                break;
            }
        }
        self.carry_out(batch);
    }

    fn next_order(&self) -> Option<Order> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Makes a copy, and carries out meanwhile what comes.
    fn copy(&mut self, order: Order) {
        // Without a connection there is none to be told of changes; the next operation opens one.
        let Some(source) = self.connection.clone() else {
            let _ = order.answer.send(Err(closed()));
            return;
        };
        let turns = Arc::clone(&self.checkpointer);
        let done = order.carry_out(&source, &turns, || {
            while let Some(first) = self.waiting.blocking_recv() {
                self.carry_out_with(first);
                // A connection that broke was replaced, and what the new one changes does not reach the copy.
                if !self.connection.as_ref().is_some_and(|connection| Rc::ptr_eq(connection, &source)) {
                    return false;
                }
                if order.is_due() || order.answer.is_closed() {
                    return true;
                }
            }
            false
        });
        let _ = order.answer.send(done);
    }

    fn carry_out(&mut self, mut batch: Vec<Box<dyn Operation>>) {
        match self.commit(&mut batch) {
            Ok(()) => batch.into_iter().for_each(Operation::succeed),
            Err(Failure::Operation(fault)) if batch.len() == 1 => {
                if let Fault::Sql(error) = &fault
                    && is_of_machine(error)
                {
                    self.figures.failures.inc();
                    tracing::warn!(%error, "something cannot be written");
                }
                let error = Error::from(fault);
                tracing::debug!(%error, "an operation failed");
                batch.into_iter().for_each(|operation| operation.fail(repeat(&error)));
            }
            // One bad operation must not fail its neighbours, and which one is bad shows when each is alone.
            Err(Failure::Operation(_)) => batch.into_iter().for_each(|operation| self.carry_out(vec![operation])),
            Err(Failure::Transaction(error)) => {
                // Whoever waited behind them waited as long: were each to wait in turn, their senders would be gone.
                while error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && let Ok(next) = self.waiting.try_recv()
                {
                    batch.push(next);
                }
                self.figures.failures.inc();
                tracing::warn!(%error, operations = batch.len(), "nothing can be written");
                let error = Error::from(Fault::from(error));
                batch.into_iter().for_each(|operation| operation.fail(repeat(&error)));
            }
        }
    }

    /// Runs the batch in one transaction; if it fails, nothing of it is left.
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<(), Failure> {
        let begin = Instant::now();
        let Self { connection, memory, checkpointer, path, patience, figures, identity, .. } = self;
        identity.check(path).map_err(Failure::Transaction)?;
        let sql = match connection {
            Some(sql) => sql,
            None => {
                let mut fresh = schema::open_writer(path, *patience).map_err(Failure::Transaction)?;
                checkpointer.watch(&mut fresh).map_err(Failure::Transaction)?;
                tally::install(&fresh).map_err(Failure::Transaction)?;
                identity.forget_log();
                tracing::info!("opened the database again");
                connection.insert(Rc::new(fresh))
            }
        };
        let result = {
            let _turn = checkpointer.turn_to_write();
            transact(sql, memory, batch, &figures.sync_seconds)
        };
        match result {
            Ok(()) => {
                figures.operations.observe(batch.len() as f64);
                figures.commit_seconds.observe(begin.elapsed().as_secs_f64());
                Ok(())
            }
            Err(failure) => {
                self.roll_back(&failure);
                Err(failure)
            }
        }
    }

    fn roll_back(&mut self, failure: &Failure) {
        self.memory = Memory::default();
        let broken = match failure {
            Failure::Operation(Fault::Sql(error)) | Failure::Transaction(error) => asks_for_reopening(error),
            Failure::Operation(Fault::Corrupt(_)) => false,
        };
        // Some errors roll back by themselves; a transaction that can be neither committed nor rolled back ends with
        // its connection.
        let stuck = match &self.connection {
            Some(sql) if !sql.is_autocommit() => sql.execute_batch("ROLLBACK").is_err() || !sql.is_autocommit(),
            _ => false,
        };
        if broken || stuck {
            self.connection = None;
        }
    }
}

fn transact(
    sql: &Connection,
    memory: &mut Memory,
    batch: &mut [Box<dyn Operation>],
    sync_seconds: &Histogram,
) -> Result<(), Failure> {
    let changes = sql.total_changes();
    let run = |statement: &str| sql.prepare_cached(statement)?.execute(()).map(drop);
    run("BEGIN IMMEDIATE").map_err(Failure::Transaction)?;
    let mut work = Work::new(sql, memory);
    for operation in batch.iter_mut() {
        // A panic fails the operation, not the thread that everybody needs.
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
            if !operation.adds() {
                write_plain(&mut work)?;
            }
            operation.run(&mut work)
        }));
        ran.unwrap_or_else(|_| Err(Fault::Corrupt("the operation panicked".to_owned()))).map_err(Failure::Operation)?;
    }
    write_plain(&mut work).and_then(|()| tally::settle(&mut work)).map_err(Failure::Operation)?;
    let begin = Instant::now();
    run("COMMIT").map_err(Failure::Transaction)?;
    // One that changed nothing has nothing to bring to the disk.
    if sql.total_changes() != changes {
        sync_seconds.observe(begin.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The same error for one more who asked.
fn repeat(error: &Error) -> Error {
    match error {
        Error::Unavailable(cause) => Error::Unavailable(cause.to_string().into()),
        Error::Corrupt(what) => Error::Corrupt(what.clone()),
        Error::Target(what) => Error::Target(what.clone()),
    }
}
