//! Runtimes: carrying an attempt out, as a process of this machine or behind a URL.
//!
//! [`carry_out`] starts the agent's command, logs what it prints, ends it on a timeout or when it is told to, and comes
//! back when nothing of it is left. The only module that names processes. [`call`] asks the agent's URL.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::envelope::Envelope;
use doorbell_core::id::RunId;
use doorbell_core::run::Outcome;
use doorbell_core::secret::Secret;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Agent, CommandRuntime, ResultPlace, write_duration};
use crate::store::{LogLine, Process, Stream};

mod answer;
mod command;
mod errand;
mod folder;
mod guard;
mod leftovers;
mod log;
mod lookup;
mod orphans;
mod processes;
mod redaction;
mod remote;
mod shield;
mod subscriber;
mod user;

pub use answer::{Answer, Collector};
pub use errand::{Errand, run_errand};
pub use folder::keep_state;
pub use guard::{Guard, watch};
pub use leftovers::{Marked, find_marked};
pub(crate) use log::{LARGEST_LOG, LINE_COST};
pub use lookup::find_program;
pub use orphans::adopt;
pub use processes::{end_run, identify};
pub use remote::{Answered, Call, Callback, call};
pub use shield::{shield, user_of};
pub use subscriber::{Delivery, challenge, deliver, fault_of, tell};
pub use user::{STEP_DOWN, Step, look_as, step_down};

use command::Prepared;
use log::Log;
use orphans::Own;
use processes::{GRACE, Trace};
use redaction::Secrets;

/// The exit code by which an agent asks for another try (EX_TEMPFAIL).
const TRY_AGAIN: i32 = 75;

/// One attempt to be carried out.
#[derive(Debug, Clone)]
pub struct Job {
    /// The agent, as it is configured now.
    pub agent: Arc<Agent>,
    /// Its command.
    pub command: Arc<CommandRuntime>,
    /// What it is handed.
    pub envelope: Envelope,
    /// The run's own folder, absolute; made if it is not there.
    pub folder: PathBuf,
    /// Where the agent finds Doorbell.
    pub url: String,
    /// What it may show there. It is not logged.
    pub token: Secret,
    /// What it inherits of the gateway's environment.
    pub inherited: Vec<(String, OsString)>,
    /// The variables by which it goes on with the trace; none while nothing is traced.
    pub trace: Vec<(&'static str, String)>,
}

/// Why an attempt is to end before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody wants it; with who.
    Cancel(String),
    /// The gateway shuts down.
    Shutdown,
}

/// How an attempt ended. Nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// For what becomes of the run.
    pub outcome: Outcome,
    /// `succeeded`, `failed`, `timed_out`, `cancelled`, `lost`, `handed_back`, `not_started` or `waits`.
    pub ended: &'static str,
    /// The exit code, if there was a process and no signal ended it.
    pub exit_code: Option<i32>,
    /// What the agent left as its result: JSON, without secrets.
    pub result: Option<String>,
    /// Why what it left cannot be its result.
    pub ignored: Option<String>,
}

impl Ended {
    /// An attempt that came to this before it had a process.
    pub fn without_process(outcome: Outcome) -> Self {
        Self { ended: name_of(&outcome), outcome, exit_code: None, result: None, ignored: None }
    }
}

fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed(_) | Outcome::Refused(_) | Outcome::TryAgain(_) => "failed",
        Outcome::Lost(_) => "lost",
        Outcome::NotStarted(_) => "not_started",
        Outcome::Cancelled(_) => "cancelled",
        Outcome::HandedBack => "handed_back",
        Outcome::Waits { .. } => "waits",
    }
}

/// Carries an attempt out and comes back when none of its processes is left.
///
/// `started` is called with the process as soon as there is one; the attempt does not wait for it. Lines wait for room
/// in `log`; timeout and `stop` do not wait for either. `stop` counts once, and also if it came before the start.
pub async fn carry_out<F: Future<Output = ()>>(
    job: Job,
    guard: &Guard,
    started: impl FnOnce(Process) -> F,
    log: mpsc::Sender<LogLine>,
    stop: watch::Receiver<Option<Stop>>,
) -> Ended {
    carry_out_with(GRACE, job, guard, started, log, stop).await
}

async fn carry_out_with<F: Future<Output = ()>>(
    grace: Duration,
    job: Job,
    guard: &Guard,
    started: impl FnOnce(Process) -> F,
    log: mpsc::Sender<LogLine>,
    stop: watch::Receiver<Option<Stop>>,
) -> Ended {
    let stopped = stop.borrow().clone();
    if let Some(stop) = stopped {
        return Ended::without_process(stop.into());
    }
    let brief = Brief::of(&job);
    let (run, attempt) = (brief.run, brief.attempt);
    // It takes the job with it: its event may be large, and is not needed any more once it is written.
    let prepared = match tokio::task::spawn_blocking(move || command::prepare(&job)).await {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(outcome)) => return Ended::without_process(outcome),
        Err(error) => {
            return Ended::without_process(Outcome::Failed(format!("the attempt cannot be prepared: {error}")));
        }
    };
    // It may have come meanwhile.
    let stopped = stop.borrow().clone();
    if let Some(stop) = stopped {
        return Ended::without_process(stop.into());
    }
    // Before the start: there is no moment at which a process runs and the guard does not know of it.
    guard.watch_over(run, attempt, None);
    let ended = match Attempt::start(brief, prepared, log, grace) {
        Ok(attempt) => attempt.see_through(guard, started, stop).await,
        Err(outcome) => Ended::without_process(outcome),
    };
    guard.release(run, attempt);
    ended
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancel(by) => Self::Cancelled(by),
            Stop::Shutdown => Self::HandedBack,
        }
    }
}

/// What is needed of a job for as long as its process runs.
struct Brief {
    agent: Arc<Agent>,
    command: Arc<CommandRuntime>,
    run: RunId,
    attempt: u32,
    token: Secret,
}

impl Brief {
    fn of(job: &Job) -> Self {
        let (run, attempt) = (job.envelope.run_id, job.envelope.attempt);
        let (agent, command) = (Arc::clone(&job.agent), Arc::clone(&job.command));
        Self { agent, command, run, attempt, token: job.token.clone() }
    }
}

/// An attempt whose process runs.
struct Attempt {
    brief: Brief,
    prepared: Prepared,
    child: Child,
    own: Own,
    process: Process,
    grace: Duration,
    log: Arc<Log>,
    secrets: Arc<Secrets>,
    /// Who reads what it prints. One of them comes back with what was printed for its result.
    readers: JoinSet<Option<Collector>>,
    /// Tells the readers that none of its processes is left.
    no_process_left: CancellationToken,
}

/// Why the process is no longer waited for.
enum Turn {
    Exit,
    Timeout,
    Stop(Stop),
}

impl Attempt {
    fn start(brief: Brief, prepared: Prepared, lines: mpsc::Sender<LogLine>, grace: Duration) -> Result<Self, Outcome> {
        let (mut child, own) = prepared.start()?;
        // It is not reaped before we wait for it, so its number is still its own.
        let process = child.id().and_then(|pid| processes::identify(pid.cast_signed()));
        let Some(process) = process else {
            // Its processes could not be found later, so it is ended, a moment after it began.
            if let Some(pid) = child.id() {
                let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            let why = "the started process cannot be read from /proc, which Doorbell needs";
            return Err(Outcome::NotStarted(why.to_owned()));
        };
        own.is_try(&process, brief.run, brief.attempt);
        let log = Arc::new(Log::new(lines, brief.attempt));
        let credentials = brief.command.credentials.iter().map(|(_, secret)| secret);
        let secrets = Arc::new(Secrets::new(credentials.chain([&brief.token])));
        let no_process_left = CancellationToken::new();
        let mut readers = JoinSet::new();
        if let Some(pipe) = child.stdout.take() {
            let (log, secrets, end) = (Arc::clone(&log), Arc::clone(&secrets), no_process_left.clone());
            let rule = brief.command.result.clone().filter(|rule| rule.from == ResultPlace::Stdout);
            readers.spawn(log::capture(pipe, Stream::Stdout, log, secrets, end, rule.map(Collector::new)));
        }
        if let Some(pipe) = child.stderr.take() {
            let (log, secrets, end) = (Arc::clone(&log), Arc::clone(&secrets), no_process_left.clone());
            readers.spawn(log::capture(pipe, Stream::Stderr, log, secrets, end, None));
        }
        Ok(Self { brief, prepared, child, own, process, grace, log, secrets, readers, no_process_left })
    }

    /// Waits for the process, or ends it; ends what it left; gathers what there is to know.
    async fn see_through<F: Future<Output = ()>>(
        mut self,
        guard: &Guard,
        started: impl FnOnce(Process) -> F,
        mut stop: watch::Receiver<Option<Stop>>,
    ) -> Ended {
        guard.watch_over(self.brief.run, self.brief.attempt, Some(&self.process));
        // Dropped, and with it the pipe, when this is over: a process that got away cannot hold us up.
        let mut writer = JoinSet::new();
        if let (Some(pipe), Some(input)) = (self.child.stdin.take(), self.prepared.input.take()) {
            writer.spawn(write_prompt(pipe, input));
        }
        let process = self.process.clone();
        let (turn, status, left) = {
            let work = async {
                let turn = self.await_turn(&mut stop).await;
                let (status, left) = self.end_processes(&turn).await;
                (turn, status, left)
            };
            tokio::pin!(work);
            tokio::select! {
                done = &mut work => done,
                () = started(process) => work.await,
            }
        };
        drop(writer);
        self.no_process_left.cancel();
        let mut collected = None;
        while let Some(reader) = self.readers.join_next().await {
            collected = collected.or(reader.ok().flatten());
        }
        self.conclude(turn, status, left, collected).await
    }

    async fn await_turn(&mut self, stop: &mut watch::Receiver<Option<Stop>>) -> Turn {
        tokio::select! {
            biased;
            _ = self.child.wait() => Turn::Exit,
            stop = stopped(stop) => Turn::Stop(stop),
            () = tokio::time::sleep(self.brief.agent.timeout) => Turn::Timeout,
        }
    }

    /// Ends all processes of the attempt and reaps the first one. Answers how many were left when that had ended by
    /// itself.
    async fn end_processes(&mut self, turn: &Turn) -> (std::io::Result<ExitStatus>, usize) {
        self.own.is_ending();
        let trace = Trace {
            run: self.brief.run.to_string(),
            attempt: Some(self.brief.attempt),
            leader: Some(self.process.clone()),
            just_ended: true,
        };
        let ends = processes::end(trace, Instant::now() + self.grace);
        // One that hangs in the kernel must not hold its run, and the end of the gateway, for ever.
        let exit = tokio::time::timeout(self.grace + 2 * processes::LONGEST_DEATH, self.child.wait());
        let (status, ended) = tokio::join!(exit, ends);
        let status = status.unwrap_or_else(|_| Err(std::io::Error::other("its process does not end on SIGKILL")));
        (status, if matches!(turn, Turn::Exit) { ended } else { 0 })
    }

    async fn conclude(
        self,
        turn: Turn,
        status: std::io::Result<ExitStatus>,
        left: usize,
        collected: Option<Collector>,
    ) -> Ended {
        if left > 0 {
            let what = if left == 1 { "1 process was".to_owned() } else { format!("{left} processes were") };
            self.log.tell(format!("{what} still running when the agent had ended, and ended too")).await;
        }
        let exit_code = status.as_ref().ok().and_then(ExitStatus::code);
        let (outcome, ended) = match turn {
            Turn::Timeout => {
                let reason = format!("timed out after {}", write_duration(self.brief.agent.timeout));
                self.log.tell(format!("{reason}: its processes were ended")).await;
                (Outcome::Failed(reason), "timed_out")
            }
            Turn::Stop(stop) => {
                let outcome = Outcome::from(stop);
                let ended = name_of(&outcome);
                (outcome, ended)
            }
            Turn::Exit => {
                if let Some(outcome) = self.prepared.not_started(exit_code) {
                    return Ended::without_process(outcome);
                }
                let outcome = match status {
                    Ok(status) => judge(status),
                    Err(error) => Outcome::Failed(format!("its end could not be waited for: {error}")),
                };
                let (outcome, left) = self.hear(outcome, collected).await;
                let (result, ignored) = (left.result, left.ignored);
                return Ended { ended: name_of(&outcome), outcome, exit_code, result, ignored };
            }
        };
        let left = if outcome == Outcome::HandedBack { Left::default() } else { self.left_result().await };
        Ended { outcome, ended, exit_code, result: left.result, ignored: left.ignored }
    }

    /// What became of a command that ended by itself, and its result, with what it says of both where `result` says.
    async fn hear(&self, outcome: Outcome, collected: Option<Collector>) -> (Outcome, Left) {
        let Some(rule) = self.brief.command.result.clone() else { return (outcome, self.left_result().await) };
        let left = if rule.from == ResultPlace::Stdout { self.left_result().await } else { Left::default() };
        let (folder, secrets) = (self.prepared.folder.clone(), Arc::clone(&self.secrets));
        let hear = move || {
            let collector = collected.unwrap_or_else(|| {
                let mut collector = Collector::new(rule);
                // What cannot be read says nothing, and that is told.
                folder.output().ok().flatten().iter().for_each(|output| collector.push(output));
                collector
            });
            collector.finish().without(&secrets)
        };
        let answer = tokio::task::spawn_blocking(hear).await.unwrap_or_else(|_| Answer::default());
        let result = left.result.or_else(|| answer.result.as_ref().map(ToString::to_string));
        (answer.weigh(outcome, result.is_some()), Left { result, ignored: left.ignored })
    }

    /// What the command left in the file of its result.
    async fn left_result(&self) -> Left {
        let (folder, secrets) = (self.prepared.folder.clone(), Arc::clone(&self.secrets));
        let read = tokio::task::spawn_blocking(move || folder.result(&secrets)).await;
        match read.unwrap_or_else(|error| Err(format!("the result is ignored: {error}"))) {
            Ok(result) => Left { result, ignored: None },
            Err(why) => {
                self.log.tell(why.clone()).await;
                Left { result: None, ignored: Some(why) }
            }
        }
    }
}

/// What a command left as its result; or why that cannot be one.
#[derive(Debug, Default)]
struct Left {
    result: Option<String>,
    ignored: Option<String>,
}

/// Comes back when the attempt is to end.
async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await.map(|stop| (*stop).clone()) {
        Ok(Some(stop)) => stop,
        // Nobody is left to stop it.
        _ => std::future::pending().await,
    }
}

/// An agent that does not read its prompt, or not all of it, is free to do so.
async fn write_prompt(mut pipe: ChildStdin, prompt: Vec<u8>) {
    let _ = pipe.write_all(&prompt).await;
}

/// What an exit means.
fn judge(status: ExitStatus) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Succeeded,
        (Some(TRY_AGAIN), _) => Outcome::TryAgain("asked for a retry (exit 75)".to_owned()),
        (Some(code), _) => Outcome::Failed(format!("exited with code {code}")),
        (None, Some(signal)) => {
            let name =
                Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            let hint = if signal == Signal::SIGKILL as i32 { " (perhaps because memory ran out)" } else { "" };
            Outcome::Failed(format!("killed by {name}{hint}"))
        }
        (None, None) => Outcome::Failed(format!("ended with {status}")),
    }
}

#[cfg(test)]
mod tests;
