//! A thread that reckons what nobody waits for: it has the processor when nobody else wants it.
//!
//! It has no connection. Whoever waits for the processor in the middle of a read keeps the write-ahead log from starting again.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::store::Error;

/// The least that `nice` knows: beside threads that want all of the processor, about a hundredth of it.
const LEAST: i32 = 19;

/// Gives the thread that calls it a lower priority, as `nice` counts; `what` it does is for the log.
pub(super) fn lower_priority(nice: i32, what: &str) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice) {
        tracing::debug!(%error, "{what} at the same priority as everything else");
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread.
#[derive(Debug)]
pub(super) struct Background {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, due) = mpsc::channel::<Job>();
        let serve = move || {
            lower_priority(LEAST, "what events say is indexed");
            for job in due {
                // A panic fails the job, whose answer does not come then.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
            }
        };
        let thread = std::thread::Builder::new().name("store-background".to_owned()).spawn(serve)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `reckon` on the thread.
    ///
    /// # Errors
    /// If it panics, or the store is being closed.
    pub(super) async fn run<T, F>(&self, reckon: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Whoever asked may be gone meanwhile.
            if !answer.is_closed() {
                let _ = answer.send(reckon());
            }
        };
        let gone = || Error::Unavailable("what was to be done in the background was given up".into());
        self.jobs.as_ref().ok_or_else(gone)?.send(Box::new(job)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that works in the background panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn it_gives_way_to_every_other_thread() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        assert_eq!(Background::start().unwrap().run(nice).await.unwrap(), LEAST);
        assert_ne!(nice(), LEAST, "the others stay as they were");
    }

    #[tokio::test]
    async fn a_job_that_panics_does_not_keep_the_next_one_from_being_done() {
        let background = Background::start().unwrap();
        assert!(background.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(background.run(|| 1).await.unwrap(), 1);
    }
}
