//! `doorbell runs answer`: what a run asks.

use clap::Args;
use doorbell_client::api::NewAnswer;

use crate::cli::completions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{self, escape_terminal};

/// Answer the question of a run that waits for it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell runs --state waiting\n  doorbell runs show run_01K…\n  doorbell runs answer run_01K… yes"
)]
pub(super) struct AnswerArgs {
    /// The run's id
    #[arg(add = completions::runs())]
    id: String,
    /// The answer: one of those that the question names, if it names some
    answer: String,
}

pub(super) async fn run(context: &Context, args: AnswerArgs) -> anyhow::Result<()> {
    let wish = NewAnswer { answer: args.answer.into() };
    let answered = context.client()?.answer_run(&args.id, &wish).await.map_err(Failure::no_run(&args.id))?;
    if context.json {
        return output::json(&answered);
    }
    output::line(format!(
        "{} is answered, and {} now",
        escape_terminal(&answered.id),
        escape_terminal(&answered.state)
    ))?;
    Ok(())
}
