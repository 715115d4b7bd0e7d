//! A few threads that evaluate, shared fairly: each source waits in a line of its own, the lines take turns, and none
//! may hold all threads.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The stack of a thread, in bytes: expressions recurse as deep as they are nested.
const STACK: usize = 16 << 20;

/// Threads at least: one may be held by a source whose conditions are slow.
const FEWEST: usize = 2;
/// Threads at most.
const MOST: usize = 8;

/// Work that may wait in one line.
const LONGEST_LINE: usize = 64;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Too much waits in this line already.
    #[error("too many events of this source wait for their conditions")]
    Busy,
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

struct Work {
    /// Whether nobody waits for it any more.
    stop: Arc<AtomicBool>,
    run: Box<dyn FnOnce() + Send>,
}

/// Stops work when whoever waits for it is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    /// Starts as many threads as there are cores.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(FEWEST, usize::from);
        Self::with_threads(cores.clamp(FEWEST, MOST))
    }

    fn with_threads(threads: usize) -> std::io::Result<Self> {
        let (state, bell) = (Mutex::default(), Condvar::new());
        let pool = Self(Arc::new(Shared { state, bell, share: threads.saturating_sub(1).max(1) }));
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
    /// If too much waits in the line, or it is not done within `limit`.
    pub async fn run<T: Send + 'static>(
        &self,
        line: &str,
        limit: Duration,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(Arc::clone(&stop));
        let (sender, answer) = oneshot::channel();
        let theirs = Arc::clone(&stop);
        let run = Box::new(move || {
            // Whoever waited may be gone.
            let _ = sender.send(work(&theirs));
        });
        self.0.enter(line, Work { stop, run })?;
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

    fn enter(&self, line: &str, work: Work) -> Result<(), Unanswered> {
        let mut state = self.lock();
        match state.lines.iter_mut().find(|(name, _)| name == line) {
            Some((_, waiting)) => {
                // Those that gave up need not be waited for.
                waiting.retain(|work| !work.stop.load(Ordering::Relaxed));
                if waiting.len() >= LONGEST_LINE {
                    return Err(Unanswered::Busy);
                }
                waiting.push_back(work);
            }
            None => state.lines.push_back((line.to_owned(), VecDeque::from([work]))),
        }
        drop(state);
        self.bell.notify_one();
        Ok(())
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
            if !work.stop.load(Ordering::Relaxed) && catch_unwind(AssertUnwindSafe(work.run)).is_err() {
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

    /// Work that runs until it is told to stop.
    fn endless(stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn work_that_is_not_done_in_time_is_told_to_stop() {
        let pool = Pool::with_threads(1).unwrap();
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
        let pool = Arc::new(Pool::with_threads(2).unwrap());
        let slow: Vec<_> = (0..10)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.run("slow", LONG, endless).await })
            })
            .collect();
        tokio::task::yield_now().await;
        for _ in 0..100 {
            assert_eq!(pool.run("quick", LONG, |_| ()).await, Ok(()));
        }
        slow.iter().for_each(|task| task.abort());
        for task in slow {
            assert!(task.await.is_err(), "it was not done");
        }
        assert_eq!(pool.run("slow", LONG, |_| 7).await, Ok(7), "what nobody waits for is left");
    }

    #[tokio::test]
    async fn a_line_that_is_full_says_so_and_the_others_go_on() {
        let pool = Arc::new(Pool::with_threads(2).unwrap());
        let mut slow = Vec::new();
        for _ in 0..=LONGEST_LINE {
            let pool = Arc::clone(&pool);
            slow.push(tokio::spawn(async move { pool.run("slow", LONG, endless).await }));
        }
        while pool.0.lock().lines.front().is_none_or(|(_, waiting)| waiting.len() < LONGEST_LINE) {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run("slow", LONG, |_| ()).await, Err(Unanswered::Busy));
        assert_eq!(pool.run("quick", LONG, |_| ()).await, Ok(()));
        slow.iter().for_each(|task| task.abort());
    }

    #[tokio::test]
    async fn work_that_panics_is_broken_and_the_thread_goes_on() {
        let pool = Pool::with_threads(1).unwrap();
        assert_eq!(pool.run("a", LONG, |_| panic!("for the test")).await, Err::<(), _>(Unanswered::Broken));
        assert_eq!(pool.run("a", LONG, |_| 7).await, Ok(7));
    }
}
