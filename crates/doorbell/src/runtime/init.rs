//! Being process 1, as in a container without an init: processes that lost their parent become its children, and would
//! stay as zombies if it did not wait for them.
//!
//! The gateway waits for its own children by their numbers, so the work of process 1 is done by a small parent of it:
//! it starts the same program again, hands signals on, and waits for whatever ends.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Runs `program` with `arguments` as the only child that counts: hands signals on to it, waits for every process that
/// ends, and comes back with the exit code when it has ended. To be called before any thread is started.
///
/// # Errors
/// If it cannot be started.
pub fn run_as_init(program: &Path, arguments: impl Iterator<Item = OsString>) -> io::Result<u8> {
    let mut awaited = SigSet::all();
    // These say that this program is broken.
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT] {
        awaited.remove(signal);
    }
    // Blocked signals wait until they are asked for, also those that process 1 would otherwise never get.
    awaited.thread_block()?;
    let mut command = Command::new(program);
    // A group of its own: a Ctrl-C reaches it once, through us.
    let child = Pid::from_raw(command.args(arguments).process_group(0).spawn()?.id().cast_signed());
    loop {
        match awaited.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            signal => {
                let _ = kill(child, signal);
            }
        }
    }
}

/// Lets all signals in again: a process inherits from its parent which ones are blocked, and one of ours has blocked them
/// all. To be called before any thread is started.
pub fn unblock_signals() {
    // It cannot fail: the set is a valid one.
    let _ = SigSet::empty().thread_set_mask();
}

/// Waits for everything that has ended; the child's exit code if it is among it.
fn reap(child: Pid) -> io::Result<Option<u8>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => ended = Some(u8::try_from(code).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                ended = Some(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or_default()));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
