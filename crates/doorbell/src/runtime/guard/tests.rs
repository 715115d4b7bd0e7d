//! Tests of the module above.

#![allow(clippy::unwrap_used)]

use super::super::processes::tests::{lives, start, until};
use super::*;
use crate::clock;

impl Guard {
    /// A real guard: the test program stands in for Doorbell.
    pub(crate) fn for_tests() -> Self {
        let program = std::env::current_exe().unwrap();
        let stand_in = "runtime::guard::tests::what_a_guard_of_these_tests_runs";
        let arguments = ["--ignored", "--exact", stand_in];
        Self::start_command(std::iter::once(program.into()).chain(arguments.map(Into::into)).collect()).unwrap()
    }

    fn helper(&self) -> Option<i32> {
        self.0.state().helper.as_ref().map(|helper| helper.pid)
    }
}

#[test]
#[ignore = "no test: the process of `Guard::for_tests`"]
fn what_a_guard_of_these_tests_runs() {
    watch(io::stdin());
}

fn line_of(run: RunId, attempt: u32, process: &Process) -> String {
    format!("+{run} {attempt} {} {} {}\n", process.pid, process.started, process.boot)
}

#[test]
fn attempts_are_read_as_they_are_told() {
    let run: RunId = clock::new_id();
    let trace = parse(&format!("{run} 2 77 1234 b-1")).unwrap();
    assert_eq!((trace.run.as_str(), trace.attempt), (run.to_string().as_str(), Some(2)));
    assert_eq!(trace.leader, Some(Process { pid: 77, started: 1234, boot: "b-1".to_owned() }));
    assert_eq!(parse(&format!("{run} 2")).unwrap().leader, None);
    assert!(["", "run_1 2", "x y", "run_1 2 a b c"].into_iter().all(|line| parse(line).is_none()));
}

#[tokio::test]
async fn what_is_open_when_the_pipe_closes_is_ended_and_nothing_else() {
    let (open, done) = (clock::new_id(), clock::new_id());
    let (mut left, of_open) = start("setsid sleep 1000 & sleep 1000 & wait", open, 1);
    let (mut stays, of_done) = start("exec sleep 1000", done, 1);
    let told = format!("+{open} 1\n{}nonsense\n{}-{done} 1\n", line_of(open, 1, &of_open), line_of(done, 1, &of_done));
    tokio::task::spawn_blocking(move || watch(told.as_bytes())).await.unwrap();
    assert!(!lives(of_open.pid) && lives(of_done.pid));
    left.wait().unwrap();
    stays.kill().unwrap();
    stays.wait().unwrap();
}

#[tokio::test]
async fn a_guard_ends_open_attempts_when_the_gateway_goes() {
    let run = clock::new_id();
    let (mut child, process) = start("trap '' TERM HUP; setsid sleep 1000 & wait", run, 1);
    let guard = Guard::for_tests();
    guard.watch_over(run, 1, Some(&process));
    drop(guard);
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert!(!status.success());
    until("nothing of the group is left", || !lives(process.pid)).await;
}

#[tokio::test]
async fn a_guard_that_dies_is_replaced_and_told_of_all_that_is_open() {
    let run = clock::new_id();
    let (mut child, process) = start("exec sleep 1000", run, 1);
    let guard = Guard::for_tests();
    guard.watch_over(run, 1, Some(&process));
    let first = guard.helper().unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    until("another one runs", || guard.helper().is_some_and(|pid| pid != first)).await;
    assert!(lives(process.pid));
    drop(guard);
    assert!(!tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_guard_that_hangs_is_replaced_and_the_agents_live_on() {
    let (run, other) = (clock::new_id(), clock::new_id());
    let (mut child, process) = start("exec sleep 1000", run, 1);
    let guard = Guard::for_tests();
    guard.watch_over(run, 1, Some(&process));
    let first = guard.helper().unwrap();
    kill(Pid::from_raw(first), Signal::SIGSTOP).unwrap();
    // Until the pipe is full.
    while guard.helper() == Some(first) {
        guard.watch_over(other, 1, None);
        guard.release(other, 1);
    }
    until("another one runs", || guard.helper().is_some_and(|pid| pid != first)).await;
    assert!(lives(process.pid));
    guard.release(run, 1);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_guard_that_cannot_start_is_an_error() {
    assert!(Guard::start(Path::new("/no/such/program")).is_err());
}
