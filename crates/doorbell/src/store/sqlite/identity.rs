//! Whether the database is still the file that was opened. What is written into a file that was removed is gone with the process,
//! and SQLite does not look.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::ffi;

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The file that is there now.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let file = path.metadata()?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }

    /// That it is still this one.
    ///
    /// # Errors
    /// As SQLite says it of a file that it cannot open.
    pub(super) fn check(self, path: &Path) -> rusqlite::Result<()> {
        let what = match Self::of(path) {
            Ok(found) if found == self => return Ok(()),
            Ok(_) => "the file of the database was replaced while the gateway runs: start the gateway again",
            Err(_) => "the file of the database is gone: put it back; what is written without it would be lost",
        };
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(what.to_owned())))
    }
}
