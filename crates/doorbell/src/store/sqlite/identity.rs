//! Whether the database and its write-ahead log are still the files that were opened. What is written into a file that was removed is
//! gone with the process, and SQLite does not look.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

/// Which files they are: their devices and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    database: (u64, u64),
    /// It is there from the first commit on.
    log: Option<(u64, u64)>,
}

impl Identity {
    /// The file that is there now.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        Ok(Self { database: number(path)?, log: None })
    }

    /// The log is another one from now on: the database was opened again.
    pub(super) fn forget_log(&mut self) {
        self.log = None;
    }

    /// That they are still these.
    ///
    /// # Errors
    /// As SQLite says it of a file that it cannot open.
    pub(super) fn check(&mut self, path: &Path) -> rusqlite::Result<()> {
        let log = number(&log_of(path)).ok();
        let what = match number(path) {
            Ok(found) if found != self.database => {
                "the file of the database was replaced while the gateway runs: start the gateway again"
            }
            Err(_) => "the file of the database is gone: put it back; what is written without it would be lost",
            Ok(_) if self.log.is_some() && self.log != log => {
                "the database's write-ahead log (-wal) was removed while the gateway runs: end the gateway with SIGTERM, \
                 which brings what was in it into the database, and start it again"
            }
            Ok(_) => {
                self.log = log;
                return Ok(());
            }
        };
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(what.to_owned())))
    }
}

/// The write-ahead log of a database.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn number(path: &Path) -> std::io::Result<(u64, u64)> {
    let file = path.metadata()?;
    Ok((file.dev(), file.ino()))
}
