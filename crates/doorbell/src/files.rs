//! Files that only their owner may read.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Makes a folder, and those above it, for its owner only. A folder that is there stays as it is.
///
/// # Errors
/// As the file system says.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file for its owner only: whole or not at all, over what was there.
///
/// # Errors
/// As the file system says.
pub fn write_private(file: &Path, content: &[u8]) -> io::Result<()> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let draft = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    written.write_all(content)?;
    written.sync_all()?;
    fs::rename(&draft, file)
}

/// Takes a lock by its file, which is made if it is not there; does not wait. None if a process has it in a way that does
/// not go together with `how`. The system gives it back when the process ends, however it ends.
///
/// # Errors
/// If the file cannot be made or locked.
pub fn take_lock(path: &Path, how: FlockArg) -> anyhow::Result<Option<Flock<File>>> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = opened.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Removes a folder with all that is in it; one that is not there is removed already. Links are removed, not followed.
///
/// # Errors
/// As the file system says. Some of it may be removed then.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(folder) {
        // Tools make folders read-only to protect what they cache there (Go's module cache).
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Lets the owner of a folder, and of those in it, remove what they hold.
fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Of the entry itself, not of what a link leads to.
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_folder_is_removed_with_what_is_protected_in_it_and_no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let (outside, folder) = (home.path().join("outside"), home.path().join("run_1"));
        fs::create_dir_all(folder.join("cache/deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        fs::write(folder.join("cache/deep/module"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("cache/link")).unwrap();
        for protected in ["cache/deep", "cache"] {
            fs::set_permissions(folder.join(protected), Permissions::from_mode(0o500)).unwrap();
        }
        make_writable(&folder).unwrap();
        assert_eq!(fs::metadata(folder.join("cache/deep")).unwrap().permissions().mode() & 0o777, 0o700);
        remove_folder(&folder).unwrap();
        assert!(!folder.exists() && outside.join("precious").exists());
        remove_folder(&folder).unwrap();
        std::os::unix::fs::symlink(&outside, &folder).unwrap();
        remove_folder(&folder).unwrap();
        assert!(fs::symlink_metadata(&folder).is_err() && outside.join("precious").exists());
    }
}
