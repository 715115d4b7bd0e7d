//! `cargo xtask ci`: everything that must pass before a merge, with a line and a time per step.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{deny, soak, suite, tidy, tool};

struct Step {
    name: &'static str,
    /// Seconds rather than minutes: still run after a failure, so that one run shows as much as possible.
    cheap: bool,
    /// Fails, or passes with a note on what it could not check.
    run: fn() -> Result<Option<String>>,
}

const STEPS: &[Step] = &[
    Step { name: "test", cheap: false, run: || done(suite::run(&["--locked".to_owned()])) },
    Step { name: "soak", cheap: false, run: || done(soak::run_shortly()) },
    Step { name: "fmt", cheap: true, run: fmt },
    Step { name: "clippy", cheap: false, run: clippy },
    Step { name: "doc", cheap: false, run: doc },
    Step { name: "tidy", cheap: true, run: || done(tidy::run()) },
    Step { name: "deny", cheap: true, run: || deny::run(false) },
];

/// Runs the steps in order. After a failure only the cheap ones are still run.
pub(crate) fn run() -> Result<()> {
    let results = walk(STEPS);
    println!("\n== summary");
    for Report { name, verdict, time } in &results {
        let (word, note) = match verdict {
            Verdict::Passed(note) => ("passed", note.as_deref().unwrap_or_default()),
            Verdict::Failed => ("failed", ""),
            Verdict::Skipped => ("skipped", ""),
        };
        let line = format!("{name:<8} {word:<8} {:>7.1} s  {note}", time.as_secs_f64());
        println!("{}", line.trim_end());
    }
    let failed: Vec<&str> =
        results.iter().filter(|report| report.verdict == Verdict::Failed).map(|report| report.name).collect();
    if !failed.is_empty() {
        bail!("ci failed: {}", failed.join(", "));
    }
    println!("ci passed");
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Passed(Option<String>),
    Failed,
    Skipped,
}

struct Report {
    name: &'static str,
    verdict: Verdict,
    time: Duration,
}

fn walk(steps: &[Step]) -> Vec<Report> {
    let mut results: Vec<Report> = Vec::new();
    for Step { name, cheap, run } in steps {
        let failed = results.iter().any(|report| report.verdict == Verdict::Failed);
        if failed && !cheap {
            results.push(Report { name, verdict: Verdict::Skipped, time: Duration::ZERO });
            continue;
        }
        println!("\n== {name}");
        let start = Instant::now();
        let verdict = match run() {
            Ok(note) => Verdict::Passed(note),
            Err(error) => {
                println!("error: {error:#}");
                Verdict::Failed
            }
        };
        results.push(Report { name, verdict, time: start.elapsed() });
    }
    results
}

fn done(result: Result<()>) -> Result<Option<String>> {
    result.map(|()| None)
}

fn fmt() -> Result<Option<String>> {
    done(tool::run(tool::cargo().args(["fmt", "--all", "--check"])))
}

fn clippy() -> Result<Option<String>> {
    let mut cargo = tool::cargo();
    done(tool::run(cargo.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])))
}

fn doc() -> Result<Option<String>> {
    let mut cargo = tool::cargo();
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    done(tool::run(cargo.args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::{Step, Verdict, walk};

    #[test]
    fn after_a_failure_only_cheap_steps_run() {
        let steps = [
            Step { name: "first", cheap: false, run: || bail!("broken") },
            Step { name: "slow", cheap: false, run: || panic!("must not run") },
            Step { name: "quick", cheap: true, run: || Ok(Some("half".to_owned())) },
        ];
        let verdicts: Vec<Verdict> = walk(&steps).into_iter().map(|report| report.verdict).collect();
        assert_eq!(verdicts, [Verdict::Failed, Verdict::Skipped, Verdict::Passed(Some("half".to_owned()))]);
    }
}
