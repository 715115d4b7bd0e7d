//! One gateway a database.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
            "another gateway uses {}: stop it first (`fuser {}` shows its process)",
            database.display(),
            file_of(database).display()
        )
    })
}

/// The same; none if another process has it.
///
/// # Errors
/// If the lock's file cannot be made.
pub(super) fn try_take(database: &Path) -> anyhow::Result<Option<Exclusive>> {
    let path = file_of(database);
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

/// The process that has the database, by the system's list of locks; asking takes no lock that a starting gateway could
/// meet. None also if it is one that cannot be seen from here, as from another container.
pub(super) fn holder(database: &Path) -> Option<i32> {
    let file = std::fs::metadata(file_of(database)).ok()?;
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, file.ino())
}

/// A line is `1: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF`: process, device and inode. Where a file system has several
/// devices, the one here need not be the file's.
fn holder_in(locks: &str, inode: u64) -> Option<i32> {
    let mut lines = locks.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    lines.find_map(|words| match words[..] {
        ["FLOCK", _, "WRITE", pid, place, ..] if place.rsplit(':').next()?.parse() == Ok(inode) => {
            pid.parse().ok().filter(|pid| *pid > 0)
        }
        _ => None,
    })
}

fn file_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_holds_a_database_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().canonicalize().unwrap().join("d");
        assert_eq!(holder(&database), None);
        let lock = take(&database).unwrap();
        assert_eq!(holder(&database), Some(i32::try_from(std::process::id()).unwrap()));
        drop(lock);
        assert_eq!(holder(&database), None);
    }

    #[test]
    fn locks_of_other_kinds_and_hidden_processes_are_passed_over() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:00:12 0 EOF\n2: FLOCK  ADVISORY  WRITE 0 fd:00:12 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 9 fd:00:12 0 EOF\n";
        assert_eq!(holder_in(locks, 12), None);
    }
}
