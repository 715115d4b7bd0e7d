//! A few threads that evaluate, shared fairly: each source waits in a line of its own, the lines take turns, and none
//! may hold all threads.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The stack of a thread, in bytes: expressions recurse as deep as they are nested.
pub const STACK: usize = 16 << 20;

/// Threads at least: one may be held by a source whose conditions are slow.
const FEWEST: usize = 2;
/// Threads at most.
const MOST: usize = 8;

/// How long work may wait for its turn: less than senders wait for an answer. What waits is bounded by that, and by what
/// the bodies of deliveries may take.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It had no turn in time.
    #[error("too many events of this source wait for their conditions: there was no turn for this one within {} s", .0.as_secs())]
    Busy(Duration),
    /// It was not done in time.
    #[error("the conditions of this event took longer than {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The evaluation broke off; the log has more.
    #[error("the conditions could not be evaluated: an internal error")]
    Broken,
}

/// The threads. They end when it is dropped.
#[derive(Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
    /// Threads that one line may hold.
    share: usize,
    /// How long work may wait for its turn.
    patience: Duration,
}

#[derive(Default)]
struct State {
    /// Lines in which work waits; the first one is next.
    lines: VecDeque<(String, VecDeque<Work>)>,
    /// Threads that each line holds.
    held: HashMap<String, usize>,
    closing: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("lines", &self.lines.len()).field("held", &self.held).finish_non_exhaustive()
    }
}

type Run = Box<dyn FnOnce() + Send>;

/// Work that waits; nothing once nobody waits for it any more.
type Work = Arc<Mutex<Option<Run>>>;

/// Stops work when whoever waits for it is gone, and gives back what it holds if it waits.
struct StopOnDrop {
    stop: Arc<AtomicBool>,
    work: Work,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        take(&self.work);
    }
}

fn take(work: &Work) -> Option<Run> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Pool {
    /// Starts as many threads as there are cores.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(FEWEST, usize::from);
        Self::with_threads(cores.clamp(FEWEST, MOST), LONGEST_WAIT)
    }

    fn with_threads(threads: usize, patience: Duration) -> std::io::Result<Self> {
        let (state, bell) = (Mutex::default(), Condvar::new());
        let pool = Self(Arc::new(Shared { state, bell, share: threads.saturating_sub(1).max(1), patience }));
        for n in 0..threads {
            let shared = Arc::clone(&pool.0);
            let thread = std::thread::Builder::new().name(format!("conditions-{n}")).stack_size(STACK);
            thread.spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Does some work, whose place is in `line`, and waits for it; `work` ends soon after it is told to stop.
    ///
    /// # Errors
    /// If it has no turn in time, or is not done within `limit` from its turn on.
    pub async fn run<T: Send + 'static>(
        &self,
        line: &str,
        limit: Duration,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let stop = Arc::new(AtomicBool::new(false));
        let (turn, begun) = oneshot::channel();
        let (sender, answer) = oneshot::channel();
        let theirs = Arc::clone(&stop);
        let run: Run = Box::new(move || {
            // Whoever waited may be gone.
            let _ = turn.send(());
            let _ = sender.send(work(&theirs));
        });
        let work = Arc::new(Mutex::new(Some(run)));
        let _stop = StopOnDrop { stop, work: Arc::clone(&work) };
        self.0.enter(line, work);
        if tokio::time::timeout(self.0.patience, begun).await.is_err() {
            return Err(Unanswered::Busy(self.0.patience));
        }
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Broken),
            Err(_) => Err(Unanswered::TooSlow(limit)),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.lock().closing = true;
        self.0.bell.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, line: &str, work: Work) {
        let mut state = self.lock();
        match state.lines.iter_mut().find(|(name, _)| name == line) {
            Some((_, waiting)) => waiting.push_back(work),
            None => state.lines.push_back((line.to_owned(), VecDeque::from([work]))),
        }
        drop(state);
        self.bell.notify_one();
    }

    /// What a thread does, until the pool closes.
    fn work(&self) {
        let mut state = self.lock();
        while !state.closing {
            let Some((line, work)) = state.take(self.share) else {
                state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            if let Some(run) = take(&work)
                && catch_unwind(AssertUnwindSafe(run)).is_err()
            {
                tracing::error!(line, "conditions.broken");
            }
            state = self.lock();
            state.give_back(&line);
            // There may be work that only this line's share kept from being taken.
            self.bell.notify_one();
        }
    }
}

impl State {
    /// The first work of the first line that holds less than its share; the line goes to the end.
    fn take(&mut self, share: usize) -> Option<(String, Work)> {
        let held = &self.held;
        let next = self.lines.iter().position(|(line, _)| held.get(line).copied().unwrap_or(0) < share)?;
        let (line, mut waiting) = self.lines.remove(next)?;
        let work = waiting.pop_front()?;
        if !waiting.is_empty() {
            self.lines.push_back((line.clone(), waiting));
        }
        *self.held.entry(line.clone()).or_default() += 1;
        Some((line, work))
    }

    fn give_back(&mut self, line: &str) {
        if let Some(held) = self.held.get_mut(line) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    impl Pool {
        fn waiting(&self, line: &str) -> usize {
            let state = self.0.lock();
            state.lines.iter().find(|(name, _)| name == line).map_or(0, |(_, waiting)| waiting.len())
        }
    }

    /// Work that runs until it is told to stop.
    fn endless(stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn work_that_is_not_done_in_time_is_told_to_stop() {
        let pool = Pool::with_threads(1, LONG).unwrap();
        let (ended, end) = mpsc::channel();
        let limit = Duration::from_millis(1);
        let work = move |stop: &AtomicBool| {
            endless(stop);
            ended.send(()).unwrap();
        };
        assert_eq!(pool.run("a", limit, work).await, Err(Unanswered::TooSlow(limit)));
        end.recv().unwrap();
        assert_eq!(pool.run("a", LONG, |_| 7).await, Ok(7), "the thread is free again");
    }

    #[tokio::test]
    async fn a_line_that_holds_its_share_leaves_a_thread_for_the_others() {
        let pool = Arc::new(Pool::with_threads(2, LONG).unwrap());
        let slow: Vec<_> = (0..10)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.run("slow", LONG, endless).await })
            })
            .collect();
        let is_held = || pool.0.lock().held.get("slow") == Some(&1);
        while !is_held() || pool.waiting("slow") < 9 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            assert_eq!(pool.run("quick", LONG, |_| ()).await, Ok(()));
            assert!(is_held() && pool.waiting("slow") == 9, "the slow ones still wait for their time to be over");
        }
        slow.iter().for_each(|task| task.abort());
        for task in slow {
            assert!(task.await.is_err(), "it was not done");
        }
        assert_eq!(pool.run("slow", LONG, |_| 7).await, Ok(7), "what nobody waits for is left");
    }

    #[tokio::test]
    async fn a_burst_is_answered_whole_and_the_time_in_the_line_is_not_the_works_own() {
        const BURST: usize = 200;
        let pool = Arc::new(Pool::with_threads(2, LONG).unwrap());
        let (open, gate) = mpsc::channel::<()>();
        let run = |limit, work: Box<dyn FnOnce(&AtomicBool) + Send>| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.run("a", limit, work).await })
        };
        let first = run(LONG, Box::new(move |_| gate.recv().unwrap()));
        let (limit, begun) = (Duration::from_millis(200), std::time::Instant::now());
        let burst: Vec<_> = (0..BURST).map(|_| run(limit, Box::new(|_| ()))).collect();
        // Longer than any of them may take.
        while pool.waiting("a") < BURST || begun.elapsed() < 2 * limit {
            tokio::task::yield_now().await;
        }
        open.send(()).unwrap();
        for one in burst.into_iter().chain([first]) {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn work_that_has_no_turn_in_time_says_so_and_the_others_go_on() {
        let patience = Duration::from_millis(300);
        let pool = Arc::new(Pool::with_threads(2, patience).unwrap());
        let slow = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run("slow", LONG, endless).await }
        });
        while pool.0.lock().held.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run("slow", LONG, |_| ()).await, Err(Unanswered::Busy(patience)));
        assert_eq!(pool.run("quick", LONG, |_| ()).await, Ok(()));
        slow.abort();
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_holds_nothing_while_its_turn_has_not_come() {
        let pool = Arc::new(Pool::with_threads(1, LONG).unwrap());
        let (open, gate) = mpsc::channel::<()>();
        let (held, waiting) = (Arc::new(()), Arc::clone(&pool));
        let first = tokio::spawn(async move { waiting.run("a", LONG, move |_| gate.recv().unwrap()).await });
        let (theirs, waiting) = (Arc::clone(&held), Arc::clone(&pool));
        let second = tokio::spawn(async move { waiting.run("a", LONG, move |_| drop(theirs)).await });
        while pool.waiting("a") < 1 || pool.0.lock().held.is_empty() {
            tokio::task::yield_now().await;
        }
        second.abort();
        assert!(second.await.is_err());
        assert_eq!(Arc::strong_count(&held), 1);
        open.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn work_that_panics_is_broken_and_the_thread_goes_on() {
        let pool = Pool::with_threads(1, LONG).unwrap();
        assert_eq!(pool.run("a", LONG, |_| panic!("for the test")).await, Err::<(), _>(Unanswered::Broken));
        assert_eq!(pool.run("a", LONG, |_| 7).await, Ok(7));
    }
}
