//! What a database looks like from outside, beside its gateway or without one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use doorbell_core::time::Timestamp;

/// What a database looks like from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Its file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of its write-ahead log.
    pub log_bytes: u64,
    /// Bytes of the file that hold nothing, and are used again.
    pub free_bytes: u64,
    /// The gateway's process that has it open.
    pub holder: Option<i32>,
    /// The version of its schema.
    pub schema: usize,
    /// The version that this program knows.
    pub known_schema: usize,
    /// Whether it is whole.
    pub soundness: Soundness,
    /// How fast it grows, if that can be told.
    pub growth: Option<Growth>,
}

/// Whether a database is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// It is.
    Sound,
    /// There was no time to look at all of it.
    Unfinished,
    /// It is not: what was found.
    Damaged(Vec<String>),
}

/// How fast a database grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Bytes that they take a day, if none were removed.
    pub bytes_a_day: f64,
}

/// Looks at the database of a URL, beside its gateway or without one, and changes nothing; none if there is none yet.
/// Blocks; the check of its pages ends after `limit`, and is left out if that is zero.
///
/// # Errors
/// If the URL is of no known kind, or its file cannot be seen or read.
pub fn inspect(url: &str, root: &Path, now: Timestamp, limit: Duration) -> std::io::Result<Option<Inspection>> {
    let file = super::database_file(url, root).map_err(|error| std::io::Error::other(error.to_string()))?;
    super::sqlite::inspect(&file, now, limit)
}
