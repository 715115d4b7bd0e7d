//! `doorbell serve`.

use std::process::ExitCode;

use super::context::Context;
use super::{GuardArgs, ServeArgs};

pub(super) async fn run(_context: &Context, _args: ServeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}

/// `doorbell guard`, which runs without a runtime.
pub(super) fn guard(_args: GuardArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}
