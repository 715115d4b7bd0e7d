//! A thread that reads what nobody waits for: it has the processor when nobody else wants it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::fault::{Fault, Outcome};
use super::readers::within_snapshot;
use super::schema;
use crate::store::Error;

/// The least that `nice` knows: beside threads that want all of the processor, about a hundredth of it.
const LEAST: i32 = 19;

/// Gives the thread that calls it a lower priority, as `nice` counts; `what` it does is for the log.
pub(super) fn lower_priority(nice: i32, what: &str) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice) {
        tracing::debug!(%error, "{what} at the same priority as everything else");
    }
}

type Job = Box<dyn FnOnce(&mut Option<Connection>) + Send>;

/// The thread, with a connection of its own.
#[derive(Debug)]
pub(super) struct Background {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
    patience: Duration,
}

impl Background {
    /// Starts the thread. Its connection is opened when it is needed.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn start(path: PathBuf, patience: Duration) -> std::io::Result<Self> {
        let (jobs, due) = mpsc::channel::<Job>();
        let serve = move || {
            lower_priority(LEAST, "what events say is indexed");
            let mut connection = None;
            for job in due {
                // A panic fails the job, whose answer does not come then; its connection may be in the middle of something.
                if std::panic::catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                    connection = None;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-background".to_owned()).spawn(serve)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), path, patience })
    }

    /// Runs `read` in a snapshot. A snapshot keeps the log from starting again, and here it may last: read little in one.
    pub(super) async fn read<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (path, patience) = (self.path.clone(), self.patience);
        let job = move |kept: &mut Option<Connection>| {
            // Whoever asked may be gone meanwhile.
            if answer.is_closed() {
                return;
            }
            let result = kept.take().map_or_else(|| schema::open_reader(&path, patience).map_err(Fault::from), Ok);
            let result = result.and_then(|connection| {
                let result = within_snapshot(&connection, read)?;
                *kept = Some(connection);
                Ok(result)
            });
            let _ = answer.send(result);
        };
        let closed = || Error::Unavailable("the store is closed".into());
        self.jobs.as_ref().ok_or_else(closed)?.send(Box::new(job)).map_err(|_| closed())?;
        Ok(answered.await.map_err(|_| closed())??)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads in the background panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn start(folder: &tempfile::TempDir) -> Background {
        let path = folder.path().join("x.db");
        std::fs::File::create(&path).unwrap();
        Background::start(path, Duration::from_secs(5)).unwrap()
    }

    #[tokio::test]
    async fn it_gives_way_to_every_other_thread() {
        let folder = tempfile::tempdir().unwrap();
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        assert_eq!(start(&folder).read(move |_| Ok(nice())).await.unwrap(), LEAST);
        assert_ne!(nice(), LEAST, "the others stay as they were");
    }

    #[tokio::test]
    async fn a_read_that_panics_or_fails_does_not_keep_the_next_one_from_being_answered() {
        let folder = tempfile::tempdir().unwrap();
        let background = start(&folder);
        assert!(background.read(|_| -> Outcome<()> { panic!("on purpose") }).await.is_err());
        assert!(background.read(|sql| Ok(sql.execute("no SQL", ())?)).await.is_err());
        let one: i64 = background.read(|sql| Ok(sql.query_row("SELECT 1", (), |row| row.get(0))?)).await.unwrap();
        assert_eq!(one, 1);
    }
}
