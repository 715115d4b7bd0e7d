//! Workers: runs fetched, kept alive and logged.

use std::sync::Arc;
use std::time::Duration;

use doorbell_client::api::{self, HandedLease, HandedRun, RunLine};
use doorbell_core::envelope::Envelope;
use doorbell_core::time::Timestamp;

use super::Error;
use super::leases::{Speaker, find, lost, may_carry_out};
use crate::app::{App, Caller};
use crate::clock;
use crate::config::Declared;
use crate::dispatch::{Dispatcher, Wish};
use crate::store::{LogLine, Stream, WorkerLease};

/// Agents of one poll.
const MOST_AGENTS: usize = 64;
/// Runs of one poll.
const MOST_RUNS: usize = 64;
/// The longest wait, in seconds, and what it is if nobody says.
const LONGEST_WAIT: u64 = 120;
const WAIT: u64 = 30;
/// The longest lease, in seconds, and what it is if nobody says.
const LONGEST_LEASE: u64 = 3600;
const LEASE: u64 = 30;
/// Characters of a worker's name.
const LONGEST_NAME: usize = 100;
/// Lines of one request.
const MOST_LINES: usize = 1000;
/// The longest line in bytes; what is longer is cut.
const LONGEST_LINE: usize = 16 * 1024;

/// Fetches runs, and waits for the first.
///
/// # Errors
/// If an agent is not the caller's or has no workers, or the wish cannot be understood.
pub async fn poll(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    caller: &Caller,
    poll: api::Poll,
) -> Result<api::Polled<Envelope>, Error> {
    let wish = understand(poll, caller.name())?;
    check(app, caller, &wish.agents)?;
    let seconds = wish.worker.lease.as_secs();
    let handed = dispatcher.poll(wish).await?.into_iter().map(|handed| HandedRun {
        run_id: handed.run.to_string(),
        lease: HandedLease {
            token: handed.lease.to_token().expose_str().unwrap_or_default().to_owned(),
            expires_at: handed.until.to_string(),
            lease_seconds: seconds,
        },
        envelope: handed.envelope,
    });
    Ok(api::Polled { runs: handed.collect() })
}

/// What a poll wants. `name` is whose it is if it does not say.
///
/// # Errors
/// If it cannot be understood.
pub fn understand(poll: api::Poll, name: String) -> Result<Wish, Error> {
    let mut agents = poll.agents;
    agents.sort();
    agents.dedup();
    if agents.is_empty() || agents.len() > MOST_AGENTS {
        return Err(Error::Invalid(format!("`agents` must name 1 to {MOST_AGENTS} agents")));
    }
    let most = within("max", poll.max.unwrap_or(1) as u64, 1..=MOST_RUNS as u64)?;
    let wait = within("waitSeconds", poll.wait_seconds.unwrap_or(WAIT), 0..=LONGEST_WAIT)?;
    let lease = within("leaseSeconds", poll.lease_seconds.unwrap_or(LEASE), 1..=LONGEST_LEASE)?;
    let worker = poll.worker.unwrap_or(name);
    if worker.trim().is_empty() || worker.chars().count() > LONGEST_NAME || worker.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("`worker` must have 1 to {LONGEST_NAME} characters, no control ones")));
    }
    Ok(Wish {
        agents,
        most: usize::try_from(most).unwrap_or(1),
        wait: Duration::from_secs(wait),
        worker: WorkerLease { worker, lease: Duration::from_secs(lease) },
    })
}

/// Refuses agents that are not the caller's, or have no workers.
fn check(app: &App, caller: &Caller, agents: &[String]) -> Result<(), Error> {
    let in_force = app.current();
    for name in agents {
        let agent = in_force.config.agents.get(name).filter(|agent| caller.may_see(&agent.name));
        let problem = in_force.config.declared.get(name).filter(|_| caller.may_see(name)).and_then(Declared::problem);
        if let (None, Some(problem)) = (agent, problem) {
            let what = format!("agent `{name}` is declared and out of force, so its runs are held: {problem}");
            return Err(Error::Conflict("agent_out_of_force", what));
        }
        let agent =
            agent.ok_or_else(|| Error::Absent(format!("there is no agent `{name}` whose runs this key may fetch")))?;
        if !agent.runtime.is_worker() {
            let what = format!("agent `{name}` is of type \"{}\": its runs are not fetched", agent.runtime.as_str());
            return Err(Error::Conflict("no_workers", what));
        }
    }
    may_carry_out(caller)
}

fn within(name: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64, Error> {
    match range.contains(&value) {
        true => Ok(value),
        false => Err(Error::Invalid(format!("`{name}` must be from {} to {}", range.start(), range.end()))),
    }
}

/// Keeps a run's lease, and says whether somebody wants the run's end.
///
/// # Errors
/// If it is not the caller's, or its lease is another one by now.
pub async fn heartbeat(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    id: &str,
    heartbeat: api::Heartbeat,
) -> Result<api::Heard, Error> {
    let running = find(app, speaker, id, heartbeat.lease.as_ref()).await?;
    let until = dispatcher.extend_outside(&running).await?.ok_or_else(lost)?;
    Ok(api::Heard { expires_at: until.to_string(), cancel_requested: running.run.cancel_requested.is_some() })
}

/// Adds lines to a run's log.
///
/// # Errors
/// If it is not the caller's, its lease is another one by now, or these are no lines.
pub async fn log(
    app: &App,
    dispatcher: &Dispatcher,
    speaker: &Speaker,
    id: &str,
    lines: api::RunLines,
) -> Result<api::KeptLines, Error> {
    let running = find(app, speaker, id, lines.lease.as_ref()).await?;
    let lines = read_lines(lines.lines, clock::now(), running.run.attempt)?;
    Ok(api::KeptLines { kept: dispatcher.log_outside(&running, lines).await? })
}

/// Lines as they are kept: of bounded number and length, each of them one line.
///
/// # Errors
/// If these are no lines.
pub fn read_lines(lines: Vec<RunLine>, at: Timestamp, attempt: u32) -> Result<Vec<LogLine>, Error> {
    if lines.len() > MOST_LINES {
        return Err(Error::Invalid(format!("`lines` must be {MOST_LINES} at most")));
    }
    let line = |line: RunLine| {
        let (text, stream) = match line {
            RunLine::Text(text) => (text, None),
            RunLine::Of { text, stream } => (text, stream),
        };
        let stream = match stream.as_deref() {
            None | Some("stdout") => Stream::Stdout,
            Some("stderr") => Stream::Stderr,
            Some(_) => return Err(Error::Invalid("`stream` must be stdout or stderr".to_owned())),
        };
        let text = text[..text.floor_char_boundary(LONGEST_LINE)].replace(['\n', '\r'], " ").replace('\0', "\u{fffd}");
        Ok(LogLine { at, attempt, stream, text })
    };
    lines.into_iter().map(line).collect()
}
