//! Processes: naming them for sure, finding all that belong to a run, and ending them.
//!
//! A run's processes are told by the mark in their environment (also those that left the group), by the process group,
//! by descent, and as orphans that can be nobody else's. A number alone is never trusted: it may name a stranger by now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use doorbell_core::id::RunId;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp};
use tokio::time::Instant;

use super::orphans;
use crate::store::Process;

/// How long processes have between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long killed processes may take to be gone. One that hangs in the kernel can take for ever.
pub(super) const LONGEST_DEATH: Duration = Duration::from_secs(10);
/// The first and the longest pause between two looks at the processes.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// The process of this number, so named that no other one is mistaken for it. None if there is none.
pub fn identify(pid: i32) -> Option<Process> {
    let status = Status::read(pid)?;
    Some(Process { pid, started: status.started, boot: boot_id()? })
}

/// Ends what is left of a lost run: SIGTERM, and five seconds later SIGKILL. Answers how many processes there were.
///
/// `process` is the one that carried it out, if it is known. It may be gone, and its number may be a stranger's.
pub async fn end_run(run: RunId, process: Option<Process>) -> usize {
    let trace = Trace { run: run.to_string(), attempt: None, leader: process, just_ended: false };
    end(trace, Instant::now() + GRACE).await
}

/// What the processes of a run are told by.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    /// The run's id: `DOORBELL_RUN_ID` in their environment.
    pub(super) run: String,
    /// Only of this attempt: `DOORBELL_ATTEMPT`.
    pub(super) attempt: Option<u32>,
    /// The first of them, which leads their group.
    pub(super) leader: Option<Process>,
    /// Whether we are the leader's parent and saw it end just now, so that its group's number is still its own.
    pub(super) just_ended: bool,
}

/// Ends all processes of a run: SIGTERM now, SIGKILL from `deadline` on, until none is left. Answers how many.
pub(super) async fn end(trace: Trace, deadline: Instant) -> usize {
    let mut known = BTreeSet::new();
    let mut told = Told::default();
    let mut pause = FIRST_LOOK;
    loop {
        let (look, before) = (trace.clone(), known.clone());
        let found = tokio::task::spawn_blocking(move || find(&look, &before)).await.unwrap_or_default();
        if found.is_empty() {
            return known.len();
        }
        known.extend(found.iter().map(Status::name));
        let now = Instant::now();
        if now >= deadline + LONGEST_DEATH {
            tracing::error!(run = trace.run, processes = ?found.iter().map(|found| found.pid).collect::<Vec<_>>(),
                "processes.outlive_their_run: they do not end on SIGKILL");
            return known.len();
        }
        let signal = if now >= deadline { Signal::SIGKILL } else { Signal::SIGTERM };
        told.tell(signal, &found, trace.leader.as_ref());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

/// Who got SIGTERM. Many programs take a second one for impatience and end without cleaning up; and what a process starts
/// after it, in the group that has got it, it starts to clean up.
#[derive(Debug, Default)]
struct Told {
    processes: BTreeSet<(i32, u64)>,
    groups: BTreeSet<i32>,
}

impl Told {
    fn tell(&mut self, signal: Signal, found: &[Status], leader: Option<&Process>) {
        let own_group = getpgrp().as_raw();
        let leads =
            |group| leader.is_some_and(|leader| leader.pid == group) || found.iter().any(|found| found.pid == group);
        let mut now = BTreeSet::new();
        for process in found {
            let first = self.processes.insert(process.name());
            let group = process.group;
            if (signal == Signal::SIGTERM && !first) || now.contains(&group) {
                continue;
            }
            let whole = group > 1 && group != own_group && leads(group);
            if whole {
                if !self.groups.insert(group) && signal == Signal::SIGTERM {
                    continue;
                }
                now.insert(group);
                let _ = killpg(Pid::from_raw(group), signal);
            } else if Status::read(process.pid).is_some_and(|status| status.name() == process.name()) {
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
        }
    }
}

/// The living processes of a run. `known` were found before: they stay its own, whatever their parents do.
fn find(trace: &Trace, known: &BTreeSet<(i32, u64)>) -> Vec<Status> {
    let boot = boot_id();
    let leader = trace.leader.as_ref().filter(|leader| boot.as_ref() == Some(&leader.boot));
    let mark = Mark::new(&trace.run, trace.attempt);
    // Those of one attempt cannot be older than its first process.
    let oldest = leader.filter(|_| trace.attempt.is_some()).map_or(0, |leader| leader.started);
    let table = list();
    let bears = |pid, (run, attempt): (RunId, u32)| Mark::new(&run.to_string(), Some(attempt)).is_on(pid);
    let hidden = leader.map(|leader| orphans::of_try(leader, &table, bears)).unwrap_or_default();
    let marked = |status: &Status| (status.started >= oldest && mark.is_on(status.pid)) || hidden.contains(&status.pid);
    members(table, leader, trace.just_ended, known, marked)
}

/// Picks a run's processes out of all of them.
fn members(
    table: Vec<Status>,
    leader: Option<&Process>,
    just_ended: bool,
    known: &BTreeSet<(i32, u64)>,
    marked: impl Fn(&Status) -> bool,
) -> Vec<Status> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let eligible = |status: &Status| status.pid > 1 && status.pid != own;
    let mut chosen: BTreeSet<i32> = table
        .iter()
        .filter(|status| eligible(status) && (known.contains(&status.name()) || marked(status)))
        .map(|status| status.pid)
        .collect();
    if let Some(leader) = leader.filter(|leader| leader.pid > 1 && leader.pid != getpgrp().as_raw()) {
        let holder = table.iter().find(|status| status.pid == leader.pid);
        let same = holder.is_some_and(|holder| holder.started == leader.started);
        // While a process is in the group, the kernel gives the group's number to nobody else. So the group is the
        // run's if its leader or a marked process is in it; without either it may be a stranger's by now.
        let proven = same || table.iter().any(|status| status.group == leader.pid && chosen.contains(&status.pid));
        if proven || (just_ended && holder.is_none()) {
            let group = table.iter().filter(|status| eligible(status) && status.group == leader.pid);
            chosen.extend(group.filter(|status| status.started >= leader.started).map(|status| status.pid));
        }
    }
    add_descendants(&table, &mut chosen, eligible);
    table.into_iter().filter(|status| status.lives && eligible(status) && chosen.contains(&status.pid)).collect()
}

fn add_descendants(table: &[Status], chosen: &mut BTreeSet<i32>, eligible: impl Fn(&Status) -> bool) {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for status in table.iter().filter(|status| eligible(status)) {
        children.entry(status.parent).or_default().push(status.pid);
    }
    let mut left: Vec<i32> = chosen.iter().copied().collect();
    while let Some(parent) = left.pop() {
        left.extend(children.get(&parent).into_iter().flatten().filter(|child| chosen.insert(**child)));
    }
}

/// What stands in the environment of a run's processes.
#[derive(Debug)]
struct Mark {
    run: Vec<u8>,
    attempt: Option<Vec<u8>>,
}

impl Mark {
    fn new(run: &str, attempt: Option<u32>) -> Self {
        Self {
            run: format!("DOORBELL_RUN_ID={run}").into_bytes(),
            attempt: attempt.map(|attempt| format!("DOORBELL_ATTEMPT={attempt}").into_bytes()),
        }
    }

    fn is_on(&self, pid: i32) -> bool {
        let environment = environment(pid);
        let has = |wanted: &[u8]| environment.split(|byte| *byte == 0).any(|entry| entry == wanted);
        has(&self.run) && self.attempt.as_deref().is_none_or(has)
    }
}

/// What a process was started with. Other users' processes cannot be read, and so are not marked.
fn environment(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// In clock ticks since boot.
    pub(super) started: u64,
    /// Whether it can still do something: a zombie cannot.
    pub(super) lives: bool,
}

impl Status {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// A program chooses its name, which stands in parentheses and may hold any byte: the fields follow the last one.
    fn parse(pid: i32, text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(&text[name_end + 1..]).ok()?.split_ascii_whitespace().collect();
        // The first field here is the third of the file.
        let field = |number: usize| fields.get(number - 3).copied();
        // A first thread that has ended while others go on looks like a zombie.
        let alone = field(20)?.parse::<u32>().ok()? <= 1;
        let lives = !(matches!(field(3)?, "Z" | "X" | "x") && alone);
        let (parent, group) = (field(4)?.parse().ok()?, field(5)?.parse().ok()?);
        Some(Self { pid, parent, group, started: field(22)?.parse().ok()?, lives })
    }

    fn name(&self) -> (i32, u64) {
        (self.pid, self.started)
    }
}

/// All processes of this machine, or of this container.
pub(super) fn list() -> Vec<Status> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(Status::read).collect()
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
pub(super) mod tests;
