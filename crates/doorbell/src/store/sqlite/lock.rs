//! One gateway a database.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held as long as the database is ours.
#[derive(Debug)]
pub(super) struct Exclusive(#[expect(dead_code, reason = "held, never read")] Flock<File>);

/// Takes the database for this process. The system gives it back when the process ends, however it ends.
///
/// # Errors
/// If another process has it, or the lock's file cannot be made.
pub(super) fn take(database: &Path) -> anyhow::Result<Exclusive> {
    try_take(database)?.with_context(|| {
        format!(
            "another gateway uses {}: stop it first (`fuser {}` shows its process), or give this one a database of its \
             own with `[store] url`",
            database.display(),
            lock_file(database).display()
        )
    })
}

fn lock_file(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// The same; none if another process has it.
///
/// # Errors
/// If the lock's file cannot be made.
pub(super) fn try_take(database: &Path) -> anyhow::Result<Option<Exclusive>> {
    let path = lock_file(database);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(Exclusive(lock))),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
