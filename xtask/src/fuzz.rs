//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, for so many seconds each.
//!
//! On the pinned stable toolchain: libFuzzer is compiled from a crate, and the flags by which our own crates count the
//! edges that an input reaches are stable ones. What only nightly has, the sanitizers, looks for errors of `unsafe` code, of
//! which these crates have none; arithmetic that overflows is caught, as in every build for tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{requirements, tool};

const SECONDS: u64 = 60;

/// Optimised although the rest is not: what inputs are run through, and what makes them. The rest is shared with the
/// builds for tests.
const FAST: [&str; 8] = [
    "annotate-snippets",
    "doorbell",
    "doorbell-core",
    "doorbell-fuzz",
    "libfuzzer-sys",
    "minijinja",
    "toml_edit",
    "toml_parser",
];

#[derive(Debug, PartialEq)]
struct Wanted {
    /// None: every one.
    target: Option<String>,
    seconds: u64,
}

/// Runs the target that `args` name, or all of them; fails if an input broke something.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let wanted = parse(args)?;
    let corpus = tool::root().join("fuzz/corpus");
    let known = targets(&corpus)?;
    if let Some(target) = wanted.target.as_ref().filter(|target| !known.contains(target)) {
        bail!("there is no target `{target}`; targets: {}", known.join(", "));
    }
    requirements::ensure_for_fuzzing()?;
    let program = build()?;
    let mut broken = Vec::new();
    for target in known.iter().filter(|name| wanted.target.as_ref().is_none_or(|target| target == *name)) {
        println!("\n== {target}");
        let start = Instant::now();
        let outcome = fuzz(&program, &corpus.join(target), target, wanted.seconds);
        match outcome {
            Ok(()) => println!("{target}: nothing broke in {} s", start.elapsed().as_secs()),
            Err(error) => {
                println!("error: {error:#}");
                broken.push(target.as_str());
            }
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!(
        "broken: {}. The input is in fuzz/corpus/TARGET, named after what happened: mend it, and commit both",
        broken.join(", ")
    )
}

fn parse(args: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { target: None, seconds: SECONDS };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--seconds" => {
                let seconds = rest.next().and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
                wanted.seconds = seconds.context("`--seconds` takes a whole number from 1")?;
            }
            name if !name.starts_with('-') && wanted.target.is_none() => wanted.target = Some(name.to_owned()),
            _ => bail!("`fuzz` does not take `{arg}`: it takes a target and `--seconds N`"),
        }
    }
    Ok(wanted)
}

/// Each has a folder in the corpus; a test of `fuzz/` sees to that.
fn targets(corpus: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(corpus).with_context(|| format!("cannot read {}", corpus.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

/// The program with all targets in it.
fn build() -> Result<PathBuf> {
    let mut cargo = tool::cargo();
    cargo.env("RUSTC_WORKSPACE_WRAPPER", tool::root().join("fuzz/instrument.sh"));
    cargo.args(["build", "--locked", "--package", "doorbell-fuzz", "--bin", "fuzz", "--features", "engine"]);
    for package in FAST {
        cargo.args(["--config", &format!("profile.dev.package.{package}.opt-level=2")]);
    }
    tool::run(&mut cargo)?;
    let folder = tool::metadata(&["--no-deps"])?;
    let folder = folder["target_directory"].as_str().context("cargo does not say where it builds")?;
    Ok(Path::new(folder).join("debug/fuzz"))
}

/// Runs one target. What it finds on its way is kept in the target folder, so that the next time goes on from there;
/// what breaks it, in the corpus.
fn fuzz(program: &Path, seeds: &Path, target: &str, seconds: u64) -> Result<()> {
    let grown = program.with_file_name("fuzz-corpus").join(target);
    std::fs::create_dir_all(&grown).with_context(|| format!("cannot make {}", grown.display()))?;
    let mut command = Command::new(program);
    command.env("DOORBELL_FUZZ_TARGET", target).env("RUST_BACKTRACE", "1");
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", seeds.display()));
    // Inputs as large as those in the corpus may grow to; seconds for one that takes too long; MiB of memory.
    command.args([
        "-max_len=16384",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-use_value_profile=1",
        "-verbosity=0",
        "-print_final_stats=1",
    ]);
    tool::run(command.arg(&grown).arg(seeds))
}

#[cfg(test)]
mod tests {
    use super::{Wanted, parse, targets};
    use crate::tool;

    fn parsed(text: &str) -> Option<Wanted> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn a_target_and_seconds_may_be_named() {
        let wanted = |target: Option<&str>, seconds| Some(Wanted { target: target.map(str::to_owned), seconds });
        assert_eq!(parsed(""), wanted(None, 60));
        assert_eq!(parsed("forms"), wanted(Some("forms"), 60));
        assert_eq!(parsed("--seconds 5 forms"), wanted(Some("forms"), 5));
        for wrong in ["--seconds", "--seconds 0", "--seconds x", "--second 5", "forms filters"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_target_is_known_by_its_folder() {
        assert!(targets(&tool::root().join("fuzz/corpus")).unwrap().contains(&"signatures".to_owned()));
    }
}
