//! `doorbell man`: manual pages, from the same source as `--help`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

/// Print the manual page, or write those of all commands into a folder
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell man | man -l -\n  doorbell man ~/.local/share/man/man1 && man doorbell-serve"
)]
pub(super) struct ManArgs {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let command = super::Args::command();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(std::io::stdout().lock().write_all(&page)?);
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(command, dir).with_context(|| format!("cannot write manual pages into {}", dir.display()))
}
