//! The project's own commands: `cargo xtask test | tidy | deny | ci | bench | dist | fuzz | soak |
//! simulate`. Not shipped.
#![expect(clippy::print_stdout, reason = "a command line tool reports to the terminal")]

use std::process::ExitCode;

use anyhow::{Result, bail};

mod bench;
mod ci;
mod deny;
mod dist;
mod fuzz;
mod judges;
mod requirements;
mod simulate;
mod soak;
mod suite;
mod tidy;
mod tool;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  test [ARGS]                   run every test (ARGS go to `cargo test --workspace`)
  tidy                          check the architecture and the house rules
  deny [--require-advisories]   check licences, banned crates and sources; advisories when cargo-deny is there
  ci                            everything that must pass before a merge
  bench [NAME [ARGS]]           run one benchmark; without a name, list them
  dist [--program FILE]         build and pack what is shipped: an archive, a Debian package, checksums
  fuzz [TARGET] [--seconds 60]  feed one parser of untrusted input, or each in turn, with anything
  soak [--minutes 10]           load, edits, retention, backups and kills at once: nothing is lost, nothing grows
  simulate [--seeds 100000]     queues and flow control on a virtual clock; `--seed N` plays one that failed again";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first() else { bail!("no command given\n\n{USAGE}") };
    match (command.as_str(), rest) {
        ("test", _) => suite::run(rest),
        ("tidy", []) => tidy::run(),
        ("deny", []) => deny::run(false).map(drop),
        ("deny", [flag]) if flag == "--require-advisories" => deny::run(true).map(drop),
        ("ci", []) => ci::run(),
        ("dist", []) => dist::run(None),
        ("dist", [flag, program]) if flag == "--program" => dist::run(Some(program)),
        ("bench", _) => bench::run(rest),
        ("fuzz", _) => fuzz::run(rest),
        ("soak", _) => soak::run(rest),
        ("simulate", _) => simulate::run(rest),
        ("help" | "--help" | "-h", _) => {
            println!("{USAGE}");
            Ok(())
        }
        ("tidy" | "deny" | "ci" | "dist", _) => bail!("`{command}` does not take `{}`\n\n{USAGE}", rest.join(" ")),
        _ => bail!("there is no command `{command}`\n\n{USAGE}"),
    }
}
