//! The guard: a small process beside the gateway that ends what runs if the gateway dies, even by SIGKILL.
//!
//! It learns of each attempt through a pipe whose other end only the gateway has. When the pipe closes while attempts
//! are open, the gateway is gone, and the guard ends their processes. It knows attempts, not runs: a run that the next
//! gateway starts again is another attempt, and none of the guard's business.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::id::RunId;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::orphans::{self, Own};
use super::processes::{self, GRACE, Trace};
use crate::store::Process;

/// The pause before a guard that died is started again.
const PAUSE: Duration = Duration::from_millis(200);

/// The gateway's end of the guard.
#[derive(Debug)]
pub struct Guard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How the helper is started: program and arguments.
    command: Vec<std::ffi::OsString>,
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    helper: Option<Helper>,
    /// The open attempts, each with the line that tells of it.
    open: BTreeMap<(RunId, u32), String>,
    closing: bool,
}

#[derive(Debug)]
struct Helper {
    pid: i32,
    pipe: ChildStdin,
}

impl Guard {
    /// Starts the guard: `program` (this program's own file) with the argument `guard`. It is started again if it dies.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path) -> io::Result<Self> {
        Self::start_command(vec![program.into(), "guard".into()])
    }

    fn start_command(command: Vec<std::ffi::OsString>) -> io::Result<Self> {
        let shared = Arc::new(Shared { command, state: Mutex::default(), closed: Condvar::new() });
        let child = shared.start_helper(&mut shared.state())?;
        let keeper = Arc::clone(&shared);
        std::thread::Builder::new().name("guard".to_owned()).spawn(move || keeper.keep(child))?;
        Ok(Self(shared))
    }

    /// Makes the guard end this attempt's processes if the gateway dies.
    pub(super) fn watch_over(&self, run: RunId, attempt: u32, leader: Option<&Process>) {
        let line = match leader {
            Some(leader) => format!("+{run} {attempt} {} {} {}\n", leader.pid, leader.started, leader.boot),
            None => format!("+{run} {attempt}\n"),
        };
        let mut state = self.0.state();
        state.tell(&line);
        state.open.insert((run, attempt), line);
    }

    /// The attempt has ended, and nothing of it is left.
    pub(super) fn release(&self, run: RunId, attempt: u32) {
        let mut state = self.0.state();
        state.open.remove(&(run, attempt));
        state.tell(&format!("-{run} {attempt}\n"));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closing = true;
        state.helper = None;
        self.0.closed.notify_all();
    }
}

impl State {
    fn tell(&mut self, line: &str) {
        let Some(helper) = &mut self.helper else { return };
        if let Err(error) = helper.pipe.write_all(line.as_bytes()) {
            tracing::error!(%error, "guard.unreachable: the process that watches over the agents");
            if error.kind() == io::ErrorKind::WouldBlock {
                // It hangs. Killed before its pipe closes, or it would end all agents when it goes on; its keeper
                // starts another one.
                let _ = kill(Pid::from_raw(helper.pid), Signal::SIGKILL);
            }
            self.helper = None;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a helper and tells it of all open attempts. The pipe is closed on exec, so agents do not inherit it.
    fn start_helper(&self, state: &mut State) -> io::Result<(Child, Own)> {
        let mut command = Command::new(&self.command[0]);
        // A group of its own: Ctrl-C in a terminal must not end it before the agents.
        command.args(&self.command[1..]).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let (mut child, own) = orphans::start(|| command.spawn(), |child| Some(child.id()))?;
        let Some(pipe) = child.stdin.take() else { return Ok((child, own)) };
        let mut helper = Helper { pid: child.id().cast_signed(), pipe };
        let told = state.open.values().try_for_each(|line| helper.pipe.write_all(line.as_bytes()));
        // A guard that hangs later must not make the gateway hang.
        match told.and_then(|()| Ok(fcntl(&helper.pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?)) {
            Ok(_) => {
                state.helper = Some(helper);
                Ok((child, own))
            }
            Err(error) => {
                // Before its pipe closes: it knows of agents, and would end them.
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Waits for the helper's end and starts another one, until the guard is closed.
    fn keep(&self, child: (Child, Own)) {
        let mut helper = Some(child);
        loop {
            if let Some((mut child, own)) = helper.take() {
                let status = child.wait();
                drop(own);
                if !self.state().closing {
                    tracing::error!(?status, "guard.died: the process that watches over the agents is started again");
                }
            }
            let waited = self.closed.wait_timeout_while(self.state(), PAUSE, |state| !state.closing);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.closing {
                return;
            }
            match self.start_helper(&mut state) {
                Ok(child) => helper = Some(child),
                Err(error) => tracing::error!(%error, "guard.start_failed"),
            }
        }
    }
}

/// The guard's side: reads of attempts until the pipe closes, then ends what is left of those that are open.
pub fn watch(input: impl Read) {
    let mut open = BTreeMap::new();
    for line in BufReader::new(input).lines() {
        let Ok(line) = line else { break };
        if let Some(trace) = line.strip_prefix('+').and_then(parse) {
            open.insert((trace.run.clone(), trace.attempt), trace);
        } else if let Some(trace) = line.strip_prefix('-').and_then(parse) {
            open.remove(&(trace.run, trace.attempt));
        }
    }
    // Without this the processes stay until the next start of the gateway, which looks for them too.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(async {
        let deadline = Instant::now() + GRACE;
        let ends: JoinSet<_> = open.into_values().map(|trace| processes::end(trace, deadline)).collect();
        ends.join_all().await;
    });
}

/// `RUN ATTEMPT [PID STARTED BOOT]`.
fn parse(line: &str) -> Option<Trace> {
    let mut words = line.split(' ');
    let run: RunId = words.next()?.parse().ok()?;
    let attempt = Some(words.next()?.parse().ok()?);
    let leader = match (words.next(), words.next(), words.next()) {
        (Some(pid), Some(started), Some(boot)) => {
            Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()?, boot: boot.to_owned() })
        }
        _ => None,
    };
    Some(Trace { run: run.to_string(), attempt, leader, just_ended: false })
}

#[cfg(test)]
pub(crate) mod tests;
