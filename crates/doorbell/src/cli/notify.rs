//! `doorbell notify`: whether those who shall be told of problems can be.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use doorbell_client::api::NotificationTest;

use super::context::Context;
use super::output::{self, Table};
use crate::config::Topic;

/// Look after notifications: who is told of problems
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = "Example:\n  doorbell notify test --on dead_letter")]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, Subcommand)]
enum NotifyCommand {
    Test(TestArgs),
}

/// Send a sample to everybody who is told of problems, and show what they say
///
/// The gateway sends it, as it would send a real one. Exits with 1 if somebody did not take it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell notify test\n  doorbell notify test --on dead_letter --json")]
struct TestArgs {
    /// What the sample tells of; only who is told of that gets it
    #[arg(long, value_name = "TOPIC", value_parser = Topic::ALL.map(Topic::as_str))]
    on: Option<String>,
}

pub(super) async fn run(context: &Context, args: NotifyArgs) -> anyhow::Result<ExitCode> {
    let NotifyCommand::Test(TestArgs { on }) = args.command;
    let answers = context.client()?.test_notifications(&NotificationTest { on }).await?;
    let all = answers.receivers.iter().all(|answer| answer.delivered);
    let code = if all { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.json {
        output::json(&answers)?;
        return Ok(code);
    }
    if answers.receivers.is_empty() {
        output::note("nobody is told of that: [[notifications]] in config.toml says who");
        return Ok(code);
    }
    let mut table = Table::new(&["RECEIVER", "RESULT", "SAID"]);
    for answer in &answers.receivers {
        let result = if answer.delivered { "delivered" } else { "failed" };
        table.row([answer.receiver.as_str(), result, answer.detail.as_str()]);
    }
    table.print()?;
    Ok(code)
}
