//! Tests of the module above.

#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::clock;

/// Waits until a condition holds.
pub(in crate::runtime) async fn until(what: &str, holds: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < limit, "{what}: waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await; // tidy: allow sleep: between two looks at the condition
    }
}

/// Whether a process does anything.
pub(in crate::runtime) fn lives(pid: i32) -> bool {
    Status::read(pid).is_some_and(|status| status.lives)
}

/// Starts a shell script in a group of its own, with the marks of a run.
pub(in crate::runtime) fn start(script: &str, run: RunId, attempt: u32) -> (Child, Process) {
    let child = unmarked(script)
        .env("DOORBELL_RUN_ID", run.to_string())
        .env("DOORBELL_ATTEMPT", attempt.to_string())
        .spawn()
        .unwrap();
    let process = identify(child.id().cast_signed()).unwrap();
    (child, process)
}

fn unmarked(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The processes of a run that are found by their mark or descent.
fn found_pids(run: RunId) -> Vec<i32> {
    let trace = Trace { run: run.to_string(), attempt: None, leader: None, just_ended: false };
    find(&trace, &BTreeSet::new()).iter().map(|found| found.pid).collect()
}

#[test]
fn a_status_is_read_past_any_name() {
    let text = b"42 (a) Z 9 ( 7)\n) S 1 40 41 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
    let status = Status::parse(42, text).unwrap();
    assert_eq!(status, Status { pid: 42, parent: 1, group: 40, started: 12345, lives: true });
    assert!(!Status::parse(42, &text.replace_first(b") S", b") Z")).unwrap().lives);
    assert_eq!(Status::parse(42, b"42 (a"), None);
    assert_eq!(Status::parse(42, b"42 (a) S 1"), None);
}

trait ReplaceFirst {
    fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl ReplaceFirst for [u8] {
    fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = self.windows(from.len()).position(|window| window == from).unwrap();
        [&self[..at], to, &self[at + from.len()..]].concat()
    }
}

fn status(pid: i32, parent: i32, group: i32, started: u64) -> Status {
    Status { pid, parent, group, started, lives: true }
}

fn leader(pid: i32, started: u64) -> Process {
    Process { pid, started, boot: "b".to_owned() }
}

fn pids(table: Vec<Status>, leader: &Process, just_ended: bool, marked: &[i32]) -> Vec<i32> {
    let chosen = members(table, Some(leader), just_ended, &BTreeSet::new(), |status| marked.contains(&status.pid));
    chosen.iter().map(|status| status.pid).collect()
}

const PID: i32 = 4_000_000;

#[test]
fn a_group_is_the_runs_while_its_leader_is_there() {
    let table = vec![status(PID, 1, PID, 50), status(PID + 1, 1, PID, 60), status(PID + 2, 1, PID + 2, 60)];
    assert_eq!(pids(table, &leader(PID, 50), false, &[]), [PID, PID + 1]);
}

#[test]
fn a_stranger_with_the_number_of_the_leader_is_left_alone() {
    let table = || vec![status(PID, 1, PID, 99), status(PID + 1, PID, PID, 100)];
    assert!(pids(table(), &leader(PID, 50), false, &[]).is_empty());
    assert!(pids(table(), &leader(PID, 50), true, &[]).is_empty());
}

#[test]
fn a_group_without_its_leader_is_the_runs_only_if_something_proves_it() {
    let table = || vec![status(PID + 1, 1, PID, 60), status(PID + 2, 1, PID, 60)];
    assert!(pids(table(), &leader(PID, 50), false, &[]).is_empty());
    assert_eq!(pids(table(), &leader(PID, 50), false, &[PID + 2]), [PID + 1, PID + 2]);
    assert_eq!(pids(table(), &leader(PID, 50), true, &[]), [PID + 1, PID + 2]);
}

#[test]
fn descendants_belong_to_the_run_wherever_they_moved() {
    let table = vec![status(PID + 3, PID + 2, PID + 3, 70), status(PID, 1, PID, 50), status(PID + 2, PID, PID + 2, 60)];
    assert_eq!(pids(table, &leader(PID, 50), false, &[]), [PID + 3, PID, PID + 2]);
}

#[test]
fn a_process_that_was_found_once_stays_found_when_its_parent_dies() {
    let known = BTreeSet::from([(PID + 2, 60)]);
    let table = vec![status(PID + 2, 1, PID + 2, 60), status(PID + 3, 1, PID + 3, 60)];
    let found = members(table, None, false, &known, |_| false);
    assert_eq!(found, [status(PID + 2, 1, PID + 2, 60)]);
}

#[test]
fn neither_we_nor_our_group_nor_the_first_process_are_ever_ended() {
    let own = std::process::id().cast_signed();
    let group = getpgrp().as_raw();
    let table =
        vec![status(1, 0, 1, 0), status(own, 1, group, 50), status(PID, own, PID, 60), status(PID + 1, 1, group, 60)];
    assert!(pids(table, &leader(group, 50), true, &[1, own]).is_empty());
}

#[tokio::test]
async fn a_lost_run_is_ended_wherever_its_processes_went() {
    let run = clock::new_id();
    let (mut first, process) = start("sleep 1000 & setsid sleep 1000 & env -i sleep 1000 & wait", run, 1);
    until("all have started", || found_pids(run).len() == 4).await;
    let pids = found_pids(run);
    // The leader dies alone; another process of its group still bears the mark, and one does not.
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(end_run(run, Some(process)).await, 3);
    assert!(!pids.into_iter().any(lives));
}

#[tokio::test]
async fn a_run_whose_process_is_not_known_is_found_by_its_mark() {
    let run = clock::new_id();
    let (mut child, process) = start("exec sleep 1000", run, 3);
    until("it is found", || found_pids(run) == [process.pid]).await;
    assert_eq!(end_run(run, None).await, 1);
    assert!(!child.wait().unwrap().success());
}

#[tokio::test]
async fn a_stranger_with_the_number_of_a_lost_process_lives_on() {
    let mut stranger = unmarked("exec sleep 1000").spawn().unwrap();
    let process = identify(stranger.id().cast_signed()).unwrap();
    let older = Process { started: process.started - 1, ..process.clone() };
    let of_other_boot = Process { boot: "another".to_owned(), ..process.clone() };
    assert_eq!(end_run(clock::new_id(), Some(older)).await, 0);
    assert_eq!(end_run(clock::new_id(), Some(of_other_boot)).await, 0);
    assert!(lives(process.pid));
    assert_eq!(end_run(clock::new_id(), Some(process)).await, 1);
    stranger.wait().unwrap();
}

#[tokio::test]
async fn another_attempt_of_the_run_lives_on() {
    let run = clock::new_id();
    let (mut child, process) = start("exec sleep 1000", run, 2);
    until("it is found", || found_pids(run) == [process.pid]).await;
    let trace = Trace { run: run.to_string(), attempt: Some(1), leader: None, just_ended: false };
    assert_eq!(end(trace, Instant::now()).await, 0);
    assert_eq!(end_run(run, Some(process)).await, 1);
    child.wait().unwrap();
}
