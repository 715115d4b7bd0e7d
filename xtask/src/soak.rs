//! `cargo xtask soak`: everything at once for a while.

use anyhow::{Context, Result, bail};

use crate::tool;

const MINUTES: &str = "10";

/// Soaks a released gateway for so many minutes, ten unless said otherwise.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let minutes = match args {
        [] => MINUTES,
        [flag, minutes] if flag == "--minutes" => minutes,
        _ => bail!("`soak` takes `--minutes N` and nothing else"),
    };
    let count: f64 = minutes.parse().with_context(|| format!("`{minutes}` is not a number of minutes"))?;
    if !(0.5..=24.0 * 60.0).contains(&count) {
        bail!("a soak takes from half a minute to a day, not `{minutes}` minutes");
    }
    soak("bench", minutes)
}

/// One minute, of what the tests have built.
pub(crate) fn run_shortly() -> Result<()> {
    soak("dev", "1")
}

fn soak(profile: &str, minutes: &str) -> Result<()> {
    let build = ["bench", "--profile", profile, "--locked", "-p", "doorbell", "--bench", "soak"];
    tool::run(tool::cargo().args(build).args(["--", "--minutes", minutes]))
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn what_is_no_number_of_minutes_is_refused() {
        for args in [&["--minutes", "soon"][..], &["--minutes", "0"], &["--minutes", "inf"], &["--minutes"], &["1"]] {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert!(run(&args).is_err(), "{args:?}");
        }
    }
}
