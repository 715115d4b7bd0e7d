//! One gateway a database.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::fcntl::{Flock, FlockArg};

use crate::files::take_lock;

/// How long a gateway that was killed may seem to live: a process that it was about to start holds its files until then.
const GRACE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// Held as long as the database is ours.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, never read")] Flock<File>);

/// Takes the database for this gateway. Waits for copies that are being made, however long they take.
///
/// # Errors
/// If another gateway has it, or the lock's file cannot be made.
pub(super) fn take(database: &Path) -> anyhow::Result<Lock> {
    let path = file_of(database);
    let begun = Instant::now();
    let mut told = false;
    loop {
        if let Some(lock) = take_lock(&path, FlockArg::LockExclusiveNonblock)? {
            return Ok(Lock(lock));
        }
        let is_copied = share(database)?.is_some();
        if is_copied && !told {
            tracing::info!(database = %database.display(), "store.waits_for_backup");
            told = true;
        }
        if !is_copied && begun.elapsed() > GRACE {
            let (database, path) = (database.display(), path.display());
            bail!("another gateway uses {database}: stop it first (`fuser {path}` shows its process)");
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells when another process gives a lock back in time")]
        std::thread::sleep(LOOK); // tidy: allow sleep: the pace of looking
    }
}

/// Keeps gateways away while the database is copied; none if one has it.
///
/// # Errors
/// If the lock's file cannot be made.
pub(super) fn share(database: &Path) -> anyhow::Result<Option<Lock>> {
    Ok(take_lock(&file_of(database), FlockArg::LockSharedNonblock)?.map(Lock))
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
    fn a_gateway_waits_for_backups_and_backups_leave_a_gateway_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("d");
        let copies = [share(&database).unwrap().unwrap(), share(&database).unwrap().unwrap()];
        let (taken, waited) = std::sync::mpsc::channel();
        let of_gateway = database.clone();
        std::thread::spawn(move || taken.send(take(&of_gateway)));
        assert!(waited.recv_timeout(GRACE * 2).is_err(), "it did not wait, or gave up");
        drop(copies);
        let lock = waited.recv().unwrap().unwrap();
        assert!(share(&database).unwrap().is_none());
        drop(lock);
    }

    #[test]
    fn locks_of_other_kinds_and_hidden_processes_are_passed_over() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:00:12 0 EOF\n2: FLOCK  ADVISORY  WRITE 0 fd:00:12 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 9 fd:00:12 0 EOF\n";
        assert_eq!(holder_in(locks, 12), None);
    }
}
