//! `cargo xtask simulate`: the queues under flow control, on a clock and with chances that follow from a seed.

use anyhow::{Context, Result, bail};

use crate::tool;

const SEEDS: &str = "100000";

/// Plays so many seeds, or the one that failed once more.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (variable, number) = match args {
        [] => ("DOORBELL_SIMULATION_SEEDS", SEEDS),
        [flag, number] if flag == "--seeds" => ("DOORBELL_SIMULATION_SEEDS", number.as_str()),
        [flag, number] if flag == "--seed" => ("DOORBELL_SIMULATION_SEED", number.as_str()),
        _ => bail!("`simulate` takes `--seeds N` or `--seed N` and nothing else"),
    };
    number.parse::<u64>().with_context(|| format!("`{number}` is not a whole number"))?;
    let tests = ["test", "--release", "--locked", "-p", "doorbell", "--lib", "simulation", "--", "--nocapture"];
    tool::run(tool::cargo().args(tests).env(variable, number))
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn what_is_no_number_of_seeds_is_refused() {
        for args in [&["--seeds", "many"][..], &["--seed", "-1"], &["--seed"], &["7"]] {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert!(run(&args).is_err(), "{args:?}");
        }
    }
}
