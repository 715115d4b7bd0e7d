//! `doorbell dev`.

use std::process::ExitCode;

use super::DevArgs;
use super::context::Context;

pub(super) async fn run(_context: &Context, _args: DevArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}
