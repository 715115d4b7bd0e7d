//! The shield: what keeps other processes out of this one.

use std::io;

use nix::sys::prctl;

/// Keeps the memory and the environment of this process, in which there are secrets, from every process but root's: also
/// from those of its own user, which agents are. Nothing of it is written to the disk when it crashes.
///
/// # Errors
/// If the kernel refuses.
pub fn shield() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// The user of a process, by number. Its files in `/proc` say `root` of one with a [`shield`].
pub fn user_of(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // Real, effective, saved, of the file system: proc(5).
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}
