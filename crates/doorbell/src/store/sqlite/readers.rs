//! Connections that read, beside the one that writes. Each read sees one state of the database, from first to last row.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::{Fault, Outcome};
use super::schema;
use crate::store::Error;

/// Reads at a time; further ones wait. They hold processors and snapshots, and so are few.
const READERS: usize = 4;

/// The pool.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    patience: Duration,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// A pool that opens its connections when they are needed.
    pub(super) fn new(path: PathBuf, patience: Duration) -> Self {
        Self { path, patience, idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs `read` on a thread that may block.
    pub(super) async fn read<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(unavailable)?;
        let (idle, path, patience) = (Arc::clone(&self.idle), self.path.clone(), self.patience);
        let task = move || {
            let _permit = permit;
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => schema::open_reader(&path, patience).map_err(Fault::from)?,
            };
            let result = within_snapshot(&connection, read);
            // One that failed may be broken, and a new one is cheap.
            if result.is_ok() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            result
        };
        Ok(tokio::task::spawn_blocking(task).await.map_err(unavailable)??)
    }
}

pub(super) fn within_snapshot<T>(sql: &Connection, read: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
    sql.prepare_cached("BEGIN")?.execute(())?;
    let result = read(sql);
    sql.prepare_cached("ROLLBACK")?.execute(())?;
    result
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Box::new(error))
}
