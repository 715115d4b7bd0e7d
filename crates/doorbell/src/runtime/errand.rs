//! An errand: a short command that is given something on standard input, beside all runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use doorbell_core::id::RunId;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::orphans;
use super::processes::{self, GRACE, Trace};
use super::{judge, write_prompt};
use crate::clock;
use crate::config::write_duration;

/// Bytes of each of its outputs that are kept.
const MOST_KEPT: usize = 2048;
/// How long an output is waited for that somebody holds open after the processes have ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// A command to be run.
#[derive(Debug, Clone)]
pub struct Errand {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What it inherits of the gateway's environment.
    pub environment: Vec<(String, OsString)>,
    /// Further variables.
    pub variables: Vec<(String, String)>,
    /// Where it runs.
    pub folder: PathBuf,
    /// What it gets on standard input, which is then closed.
    pub input: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Runs a command in a process group of its own, and comes back when nothing of it is left: with the beginning of what it
/// printed.
///
/// # Errors
/// Why it failed, in words for people: it did not start, took too long, or did not exit with 0; or `closing` came.
pub async fn run_errand(errand: Errand, guard: &Guard, closing: &CancellationToken) -> Result<String, String> {
    let Some((program, arguments)) = errand.command.split_first() else {
        return Err("the command is empty: name a program".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&errand.folder).process_group(0).kill_on_drop(true);
    command.env_clear().envs(errand.environment.iter().map(|(name, value)| (name, value))).envs(errand.variables);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The guard and the search for processes go by ids of runs; no run has this one.
    let id: RunId = clock::new_id();
    command.env("DOORBELL_RUN_ID", id.to_string()).env("DOORBELL_ATTEMPT", "1");
    // Before the start: there is no moment at which a process runs and the guard does not know of it.
    guard.watch_over(id, 1, None);
    let (mut child, own) = match orphans::start(|| command.spawn(), Child::id) {
        Ok(started) => started,
        Err(error) => {
            guard.release(id, 1);
            return Err(format!("`{program}` cannot start: {error}"));
        }
    };
    let leader = child.id().and_then(|pid| processes::identify(pid.cast_signed()));
    guard.watch_over(id, 1, leader.as_ref());
    leader.iter().for_each(|leader| own.is_try(leader, id, 1));
    let mut pipes = JoinSet::new();
    let outputs = (child.stdout.take(), child.stderr.take());
    if let Some(pipe) = child.stdin.take() {
        pipes.spawn(write_prompt(pipe, errand.input));
    }
    let reading = async { tokio::join!(read(outputs.0), read(outputs.1)) };
    let reading = tokio::spawn(reading);
    let turn = await_turn(&mut child, errand.timeout, closing).await;
    own.is_ending();
    let trace = Trace { run: id.to_string(), attempt: Some(1), leader, just_ended: true };
    let (_, status) = tokio::join!(processes::end(trace, Instant::now() + GRACE), child.wait());
    drop(own);
    guard.release(id, 1);
    let abort = reading.abort_handle();
    let printed = match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok((stdout, stderr))) => [stdout, stderr].concat(),
        _ => Vec::new(),
    };
    abort.abort();
    let printed = String::from_utf8_lossy(&printed).split_whitespace().collect::<Vec<_>>().join(" ");
    turn?;
    conclude(status, printed)
}

async fn await_turn(child: &mut Child, timeout: Duration, closing: &CancellationToken) -> Result<(), String> {
    tokio::select! {
        biased;
        _ = child.wait() => Ok(()),
        () = closing.cancelled() => Err("the gateway closes".to_owned()),
        () = tokio::time::sleep(timeout) => Err(format!("it took longer than {} and was ended", write_duration(timeout))),
    }
}

fn conclude(status: std::io::Result<ExitStatus>, printed: String) -> Result<String, String> {
    let status = status.map_err(|error| format!("its end could not be waited for: {error}"))?;
    if status.success() {
        return Ok(if printed.is_empty() { "exited with code 0".to_owned() } else { printed });
    }
    let how = match judge(status) {
        doorbell_core::run::Outcome::Failed(reason) | doorbell_core::run::Outcome::TryAgain(reason) => reason,
        _ => status.to_string(),
    };
    Err(if printed.is_empty() { how } else { format!("{how}: {printed}") })
}

/// The beginning of an output, which is read to its end so that nobody waits for us.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut pipe) = pipe else { return Vec::new() };
    let (mut kept, mut chunk) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        let room = MOST_KEPT - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::processes::tests::lives;
    use super::*;

    async fn run(script: &str, timeout: Duration, closing: &CancellationToken) -> Result<String, String> {
        let errand = Errand {
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".into())],
            variables: vec![("WORD".to_owned(), "hello".to_owned())],
            folder: "/".into(),
            input: b"from outside".to_vec(),
            timeout,
        };
        let guard = Guard::for_tests();
        run_errand(errand, &guard, closing).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_command_gets_its_input_and_variables_and_says_what_it_printed() {
        let closing = CancellationToken::new();
        assert_eq!(run("echo $WORD; cat", LONG, &closing).await, Ok("hello from outside".to_owned()));
        assert_eq!(run("true", LONG, &closing).await, Ok("exited with code 0".to_owned()));
        let failed = run("echo no >&2; exit 3", LONG, &closing).await;
        assert_eq!(failed, Err("exited with code 3: no".to_owned()));
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_its_children() {
        let closing = CancellationToken::new();
        let ended = run("sleep 100 & echo $!; wait", Duration::from_millis(300), &closing).await;
        assert_eq!(ended, Err("it took longer than 300ms and was ended".to_owned()));
    }

    #[tokio::test]
    async fn a_process_that_left_the_group_of_its_command_is_found_and_ended() {
        let script = "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!";
        let printed = run(script, LONG, &CancellationToken::new()).await.unwrap();
        assert!(!lives(printed.parse().unwrap()), "{printed}");
    }

    #[tokio::test]
    async fn a_gateway_that_closes_does_not_wait_for_a_command() {
        let closing = CancellationToken::new();
        closing.cancel();
        assert_eq!(run("sleep 100", LONG, &closing).await, Err("the gateway closes".to_owned()));
    }

    #[tokio::test]
    async fn what_a_command_prints_is_bounded() {
        let printed = run("head -c 1000000 /dev/zero | tr '\\0' x", LONG, &CancellationToken::new()).await.unwrap();
        assert_eq!(printed.len(), MOST_KEPT);
    }
}
