//! The makers' own SDKs, from npm and PyPI, which judge signatures in the tests, the clients of MCP, which judge its server, and a fuzzing client of
//! the API: installed into the target folder, never into the
//! tree.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::tool;

/// Where the lists of what is installed stand.
const LISTS: &str = "crates/doorbell/tests/judges";
/// Where it is installed: the tests look here.
const HOME: &str = "target/judges";

/// Installs what the lists name, unless that is what is installed already.
pub(crate) fn ensure() -> Result<()> {
    let (lists, home) = (tool::root().join(LISTS), tool::root().join(HOME));
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {HOME}"))?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    install(&lists, &home, &["package.json", "package-lock.json"], &mut npm)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    pip.args(["--upgrade", "--target", "python", "-r", "requirements.txt"]);
    install(&lists, &home, &["requirements.txt"], &mut pip)
}

/// Runs `command` beside copies of `names`, and notes when it has done its work.
fn install(lists: &Path, home: &Path, names: &[&str], command: &mut Command) -> Result<()> {
    let read = |folder: &Path, name: &str| std::fs::read(folder.join(name));
    let is_done =
        |name: &&str| matches!((read(lists, name), read(home, &format!("{name}.done"))), (Ok(a), Ok(b)) if a == b);
    if names.iter().all(is_done) {
        return Ok(());
    }
    for name in names {
        std::fs::copy(lists.join(name), home.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    tool::run(command.current_dir(home).stdin(Stdio::null()))?;
    for name in names {
        std::fs::copy(lists.join(name), home.join(format!("{name}.done")))
            .with_context(|| format!("cannot note that {name} is installed"))?;
    }
    Ok(())
}
