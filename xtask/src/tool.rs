//! Other programs: where the repository is, and how to call cargo and git.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The root of the repository: the folder above this crate, as `cargo run` names it; else where we were started.
///
/// Asked when we run, not when we are compiled: work trees that share a target folder also share this program.
#[expect(clippy::disallowed_methods, reason = "cargo names this crate's folder; there is no `config` here")]
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    here.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Cargo, at the root of the repository, without standard input.
#[expect(clippy::disallowed_methods, reason = "cargo names itself in CARGO; there is no `config` here")]
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Says what is run, runs it with its output shown, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs quietly and returns what was printed to standard output; the error carries standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed something else than text", shown(command)))
}

/// What `cargo metadata --locked` says, with `extra` arguments.
pub(crate) fn metadata(extra: &[&str]) -> Result<Value> {
    let text = output(cargo().args(["metadata", "--locked", "--format-version", "1"]).args(extra))?;
    serde_json::from_str(&text).context("cargo metadata printed something else than JSON")
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str()).to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}
