//! The run's own folder: what the agent is handed in files, and the result it leaves.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

use super::redaction::Secrets;
use crate::files;
use crate::users::User;

/// The largest result in bytes.
const LARGEST_RESULT: u64 = 1024 * 1024;

/// Bytes that files of a run leave free on their disk, at most.
const LEFT_FREE: u64 = 32 * 1024 * 1024;

/// The folder with the files of one attempt. An earlier attempt's other files are still in it.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    /// The user and the group whose it is; none: it is ours.
    owner: Option<(u32, u32)>,
}

impl Folder {
    /// Makes the folder, for its owner only, and takes away what an earlier attempt left as a result. What an earlier
    /// attempt put in the folder's place goes: a link would lead to files that are not the run's. So does what an attempt
    /// as another user left: nobody works on what others may have prepared.
    pub(super) fn open(path: &Path, user: Option<&User>) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(path)?;
        }
        files::make_private_folder(path)?;
        let ours = path.parent().map_or_else(|| fs::metadata(path), fs::metadata)?.uid();
        if fs::symlink_metadata(path)?.uid() != user.map_or(ours, |user| user.uid) {
            files::remove_folder(path)?;
            files::make_private_folder(path)?;
        }
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        let folder = Self { path: path.to_owned(), owner: user.map(|user| (user.uid, user.gid)) };
        if let Some((uid, gid)) = folder.owner {
            path.ancestors().nth(2).map_or(Ok(()), |state| keep_state(state, true))?;
            lchown(path, Some(uid), Some(gid))?;
        }
        remove(&folder.output_file())?;
        remove(&folder.fault_file())?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn event_file(&self) -> PathBuf {
        self.path.join("event.json")
    }

    pub(super) fn prompt_file(&self) -> PathBuf {
        self.path.join("prompt.md")
    }

    /// Where the agent may leave its result.
    pub(super) fn output_file(&self) -> PathBuf {
        self.path.join("output.json")
    }

    /// Where a process that was to become another user leaves why it did not become its command.
    pub(super) fn fault_file(&self) -> PathBuf {
        self.path.join(".not-started")
    }

    /// What stands there.
    pub(super) fn fault(&self) -> Option<String> {
        String::from_utf8(read_small(&self.fault_file(), None).ok()??).ok()
    }

    /// Writes a file for who the folder belongs to, wholly or not at all. Made anew, so that nothing is written through a link an
    /// agent left in its place. The disk may be the store's, which is why as much again must be left on it, up to [`LEFT_FREE`].
    pub(super) fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        remove(file)?;
        let size = content.len() as u64;
        let disk = statvfs(&self.path)?;
        // Some file systems do not say.
        let says = disk.blocks() > 0;
        if says && disk.blocks_available().saturating_mul(disk.fragment_size()) < size + size.min(LEFT_FREE) {
            return Err(Errno::ENOSPC.into());
        }
        let written = self.write_new(file, content);
        if written.is_err() {
            // Half a file would keep the room that everybody else needs.
            let _ = remove(file);
        }
        written
    }

    fn write_new(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        if let Some((uid, gid)) = self.owner {
            fchown(&made, Some(uid), Some(gid))?;
        }
        made.write_all(content)
    }

    /// What the agent left in the file of its result, as it is; none if there is nothing. Up to a byte more than the
    /// largest result.
    pub(super) fn output(&self) -> io::Result<Option<Vec<u8>>> {
        read_small(&self.output_file(), self.owner)
    }

    /// What the agent left as its result, without secrets; none if there is nothing.
    ///
    /// # Errors
    /// Why what is there cannot be the result, in one sentence for people.
    pub(super) fn result(&self, secrets: &Arc<Secrets>) -> Result<Option<String>, String> {
        let text = match self.output() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(error) => return Err(format!("the result is ignored: DOORBELL_OUTPUT_FILE cannot be read: {error}")),
        };
        if text.len() as u64 > LARGEST_RESULT {
            return Err("the result is ignored: DOORBELL_OUTPUT_FILE is larger than 1 MiB".to_owned());
        }
        let clean = std::str::from_utf8(&text)
            .map_err(|error| error.to_string())
            .and_then(|text| secrets.redact_json(text).map_err(|error| error.to_string()));
        clean.map(Some).map_err(|error| format!("the result is ignored: DOORBELL_OUTPUT_FILE is not JSON: {error}"))
    }
}

/// The mode of a folder that others may pass through, and see nothing of.
const PASSABLE: u32 = 0o711;

/// Keeps the state of a project from other users: everything in it is its owner's alone. `passable`: but the users that
/// agents are carried out as can pass to the folders of their own runs.
///
/// # Errors
/// As the file system says.
pub fn keep_state(state: &Path, passable: bool) -> io::Result<()> {
    let runs = state.join("runs");
    let mode_of = |path: &Path| fs::symlink_metadata(path).map(|found| found.mode() & 0o777);
    if !passable {
        // What somebody opened on purpose is left to `doctor`.
        for folder in [state, &runs] {
            if mode_of(folder).is_ok_and(|mode| mode == PASSABLE) {
                fs::set_permissions(folder, Permissions::from_mode(0o700))?;
            }
        }
        return Ok(());
    }
    files::make_private_folder(&runs)?;
    for entry in fs::read_dir(state)? {
        let path = entry?.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if path != runs && !found.is_symlink() && found.mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(found.mode() & 0o700))?;
        }
    }
    for folder in [&runs, state] {
        if mode_of(folder)? != PASSABLE {
            fs::set_permissions(folder, Permissions::from_mode(PASSABLE))?;
        }
    }
    Ok(())
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir_all(file),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Up to one byte more than the largest result. Neither a link nor a pipe is followed or waited for; and where an `owner` is
/// named, what is somebody else's is not read: we could, and the agent could not.
fn read_small(file: &Path, owner: Option<(u32, u32)>) -> io::Result<Option<Vec<u8>>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened = match OpenOptions::new().read(true).custom_flags(flags).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = opened.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if owner.is_some_and(|(uid, _)| uid != found.uid()) {
        return Err(io::Error::other("it is not the agent's own file"));
    }
    let mut text = Vec::new();
    opened.take(LARGEST_RESULT + 1).read_to_end(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn result_of(make: impl FnOnce(&Path)) -> Result<Option<String>, String> {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(&home.path().join("runs/run_1"), None).unwrap();
        make(&folder.output_file());
        folder.result(&Arc::new(Secrets::new([])))
    }

    #[test]
    fn a_result_is_json_of_up_to_a_mebibyte() {
        assert_eq!(result_of(|_| {}), Ok(None));
        assert_eq!(
            result_of(|file| fs::write(file, "{\"ok\": true}\n").unwrap()),
            Ok(Some("{\"ok\": true}".to_owned()))
        );
        let largest = format!("\"{}\"", "x".repeat(LARGEST_RESULT as usize - 2));
        assert_eq!(result_of(|file| fs::write(file, &largest).unwrap()), Ok(Some(largest.clone())));
        assert!(result_of(|file| fs::write(file, largest.clone() + " ").unwrap()).unwrap_err().contains("larger than"));
        assert!(result_of(|file| fs::write(file, "{").unwrap()).unwrap_err().contains("not JSON"));
        assert!(result_of(|file| fs::write(file, b"\xff").unwrap()).unwrap_err().contains("not JSON"));
    }

    #[test]
    fn a_result_that_is_no_file_is_neither_followed_nor_waited_for() {
        assert!(result_of(|file| std::os::unix::fs::symlink("/etc/hostname", file).unwrap()).is_err());
        assert!(result_of(|file| fs::create_dir(file).unwrap()).is_err());
        assert!(result_of(|file| nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRUSR).unwrap()).is_err());
    }

    #[test]
    fn a_folder_is_private_and_forgets_the_result_of_an_earlier_attempt() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run_1");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("output.json"), "1").unwrap();
        fs::write(path.join("notes"), "kept").unwrap();
        let folder = Folder::open(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!folder.output_file().exists() && path.join("notes").exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_replaced_and_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (outside, path) = (home.path().join("outside"), home.path().join("run_1"));
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, Permissions::from_mode(0o755)).unwrap();
        fs::write(outside.join("output.json"), "precious").unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        let folder = Folder::open(&path, None).unwrap();
        folder.write(&folder.event_file(), b"{}").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_dir() && path.join("event.json").exists());
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "what was there is still there, and nothing else");
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(Folder::open(&path, None).unwrap().path().is_dir());
    }

    #[test]
    fn a_file_is_not_written_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let (target, link) = (home.path().join("target"), home.path().join("event.json"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Folder::open(home.path(), None).unwrap().write(&link, b"{}").unwrap();
        assert_eq!(
            (fs::read_to_string(&target).unwrap(), fs::read_to_string(&link).unwrap()),
            ("precious".into(), "{}".into())
        );
        assert_eq!(fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
