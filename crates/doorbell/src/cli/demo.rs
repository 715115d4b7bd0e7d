//! `doorbell demo`.

use std::process::ExitCode;

use super::DemoArgs;
use super::context::Context;

pub(super) async fn run(_context: &Context, _args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}
