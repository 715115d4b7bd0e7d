//! How attempts end, and that nothing of them stays.

use super::*;

#[tokio::test]
async fn an_exit_code_says_how_it_went() {
    let succeeded = Bench::new("exit 0").carry_out().await.ended;
    assert_eq!((succeeded.outcome, succeeded.ended, succeeded.exit_code), (Outcome::Succeeded, "succeeded", Some(0)));
    let failed = Bench::new("exit 1").carry_out().await;
    assert_eq!(
        (failed.reason(), failed.ended.ended, failed.ended.exit_code),
        ("exited with code 1", "failed", Some(1))
    );
    let again = Bench::new("exit 75").carry_out().await.ended;
    assert_eq!(again.outcome, Outcome::TryAgain("asked for a retry (exit 75)".to_owned()));
    assert_eq!((again.ended, again.exit_code), ("failed", Some(75)));
    let killed = Bench::new("kill -SEGV $$").carry_out().await;
    assert_eq!((killed.reason(), killed.ended.exit_code), ("killed by SIGSEGV", None));
}

#[tokio::test]
async fn a_timeout_ends_a_process_that_ignores_it_and_its_descendants() {
    let script = "trap '' TERM; echo $$ > main; (setsid sh -c 'trap \"\" TERM; echo $$ > far; sleep 1000; :' &)
                  sh -c 'trap \"\" TERM; echo $$ > near; sleep 1000; :' & wait; wait; sleep 1000";
    let mut bench = Bench::new(script);
    bench.agent.timeout = Duration::from_secs(3);
    let done = bench.carry_out().await;
    assert_eq!((done.reason(), done.ended.ended, done.ended.exit_code), ("timed out after 3s", "timed_out", None));
    assert_eq!(done.lines(Stream::System), ["timed out after 3s: its processes were ended"]);
    for file in ["main", "far", "near"] {
        assert!(!lives(pid_in(&bench.folder(), file)), "{file}");
    }
}

#[tokio::test]
async fn a_process_has_time_to_clean_up() {
    let mut bench = Bench::new("trap 'echo cleaned; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    bench.grace = Duration::from_secs(30);
    let done = bench.carry_out_until(|log| log.len() == 1, Stop::Cancel("ada".to_owned())).await;
    assert_eq!(done.stdout(), ["ready", "cleaned"]);
    assert_eq!(
        (done.ended.outcome, done.ended.ended, done.ended.exit_code),
        (Outcome::Cancelled("ada".to_owned()), "cancelled", Some(3))
    );
}

#[tokio::test]
async fn what_a_process_starts_to_clean_up_may_end_by_itself() {
    let script = "trap 'sh -c \"sleep 0.3; echo cleaned\"; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let mut bench = Bench::new(script);
    bench.grace = Duration::from_secs(30);
    let done = bench.carry_out_until(|log| log.len() == 1, Stop::Cancel("ada".to_owned())).await;
    assert_eq!((done.stdout(), done.ended.exit_code), (vec!["ready", "cleaned"], Some(3)));
}

#[tokio::test]
async fn a_shutdown_hands_the_run_back() {
    let bench = Bench::new("echo 1 > $DOORBELL_OUTPUT_FILE; echo ready; sleep 1000");
    let done = bench.carry_out_until(|log| log.len() == 1, Stop::Shutdown).await.ended;
    assert_eq!((done.outcome, done.ended, done.result), (Outcome::HandedBack, "handed_back", None));
}

#[tokio::test]
async fn an_attempt_that_is_stopped_before_it_starts_does_not_start() {
    let bench = Bench::new("touch started");
    let guard = Guard::for_tests();
    let (sender, _receiver) = mpsc::channel(1);
    let (_stopper, stopped) = watch::channel(Some(Stop::Cancel("ada".to_owned())));
    let ended = carry_out(bench.job(), &guard, |_| std::future::ready(()), sender, stopped).await;
    assert_eq!((ended.outcome, ended.ended), (Outcome::Cancelled("ada".to_owned()), "cancelled"));
    assert!(!bench.folder().exists());
}

#[tokio::test]
async fn what_a_process_leaves_behind_is_ended_with_it() {
    let script = "sleep 1000 & echo $! > near; setsid sh -c 'echo $$ > far; exec sleep 1000' &
                  env -i sh -c 'echo $$ > bare; exec sleep 1000' &
                  while [ ! -s far ] || [ ! -s bare ]; do :; done; echo bye";
    let bench = Bench::new(script);
    let done = bench.carry_out().await;
    assert_eq!((done.ended.ended, done.stdout()), ("succeeded", vec!["bye"]));
    for file in ["near", "far", "bare"] {
        assert!(!lives(pid_in(&bench.folder(), file)), "{file}");
    }
    assert_eq!(done.lines(Stream::System), ["3 processes were still running when the agent had ended, and ended too"]);
}

#[tokio::test]
async fn the_started_process_is_told_while_it_runs() {
    let bench = Bench::new("echo $$");
    let done = bench.carry_out().await;
    let process = done.process.as_ref().unwrap();
    assert_eq!(done.stdout(), [process.pid.to_string()]);
    assert!(!lives(process.pid) && process.started > 0 && process.boot.len() == 36);
}

#[tokio::test]
async fn a_log_that_nobody_takes_does_not_keep_a_timeout_from_ending_the_processes() {
    let mut bench = Bench::new("echo $$ > main; while :; do echo line; done");
    bench.agent.timeout = Duration::from_secs(1);
    let guard = Guard::for_tests();
    let (sender, mut receiver) = mpsc::channel(1);
    let (_stopper, stopped) = watch::channel(None);
    let found = Mutex::new(None);
    // What is told of the start never comes to an end either.
    let started = |process: Process| {
        *found.lock().unwrap() = Some(process);
        std::future::pending()
    };
    let carried = carry_out_with(bench.grace, bench.job(), &guard, started, sender, stopped);
    let taken = async {
        until("it started", || found.lock().unwrap().is_some()).await;
        let pid = found.lock().unwrap().as_ref().unwrap().pid;
        until("it is ended", || !lives(pid)).await;
        let mut lines = 0;
        while let Some(line) = receiver.recv().await {
            assert!(line.stream == Stream::System || line.text == "line" || lines > 1000, "{line:?}");
            lines += 1;
        }
        lines
    };
    let (ended, lines) = tokio::join!(carried, taken);
    assert_eq!(ended.ended, "timed_out");
    // What was in the pipe is not lost: the kernel keeps 64 KiB, five bytes a line.
    assert!(lines > 10_000, "{lines}");
}

#[tokio::test]
async fn many_attempts_at_once_do_not_end_each_other() {
    let benches: Vec<Bench> = (0..6).map(|_| Bench::new("sleep 1000 & echo $DOORBELL_RUN_ID")).collect();
    let done = futures_util::future::join_all(benches.iter().map(Bench::carry_out)).await;
    for (bench, done) in benches.iter().zip(done) {
        assert_eq!((done.ended.ended, done.stdout()), ("succeeded", vec![bench.envelope.run_id.to_string().as_str()]));
    }
}

#[test]
fn durations_are_told_as_they_are_configured() {
    let words = [900_000, 3_600_000, 90_000, 1500].map(|millis| write_duration(Duration::from_millis(millis)));
    assert_eq!(words, ["15m", "1h", "90s", "1500ms"]);
}
