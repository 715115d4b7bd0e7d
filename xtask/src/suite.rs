//! `cargo xtask test`: every test of the workspace, with what they need.

use anyhow::Result;

use crate::{judges, requirements, tool};

/// Sees to the requirements and runs the tests; `args` go to cargo.
pub(crate) fn run(args: &[String]) -> Result<()> {
    requirements::ensure()?;
    judges::ensure()?;
    tool::run(tool::cargo().args(["test", "--workspace"]).args(args))
}
