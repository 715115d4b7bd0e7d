//! `doorbell run`, `pause`, `resume`: agents started and stopped by hand.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use doorbell_client::api::{NewPause, NewResume, NewRun};
use serde_json::Value;

use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::logs;
use super::output::{self, escape_terminal};

/// Start an agent by hand
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  doorbell run triage -f
  doorbell run triage again --idempotency-key 7
  doorbell run deploy --input-file deploy.json")]
pub(super) struct RunArgs {
    /// The agent
    #[arg(add = completions::agents())]
    agent: String,
    /// What is asked of it; `-` reads it from standard input
    prompt: Option<String>,
    /// Data for it, as JSON
    #[arg(long, value_name = "JSON", value_parser = parse_json, conflicts_with = "input_file")]
    input: Option<Value>,
    /// The same from a file
    #[arg(long, value_name = "FILE")]
    input_file: Option<PathBuf>,
    /// Asking again with the same one starts nothing new
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print what it writes, until it ends; the exit code is 0 if it succeeded
    #[arg(short, long)]
    follow: bool,
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

pub(super) async fn run(context: &Context, args: RunArgs) -> anyhow::Result<()> {
    let prompt = match args.prompt.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read the prompt from standard input")?;
            Some(text)
        }
        prompt => prompt.map(str::to_owned),
    };
    let input = match (&args.input_file, args.input) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            parse_json(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
        }
        (None, input) => input.unwrap_or_default(),
    };
    let client = context.client()?;
    let wish = NewRun { prompt, input };
    let started = client.run_agent(&args.agent, &wish, args.idempotency_key.as_deref()).await;
    let started = started.map_err(Failure::no_agent(&args.agent))?;
    if !args.follow {
        return match context.json {
            true => output::json(&started),
            false => Ok(output::line(match started.duplicate {
                true => format!("{} was asked for before, and is {}", started.run_id, started.state),
                false => {
                    format!("{} is {}; follow it: doorbell logs -f {}", started.run_id, started.state, started.run_id)
                }
            })?),
        };
    }
    output::note(format!("{} of {}", started.run_id, escape_terminal(&args.agent)));
    logs::follow(context, &client, &started.run_id, None).await?;
    let ended = client.run(&started.run_id).await?.run;
    match ended.state.as_str() {
        "succeeded" => Ok(()),
        state => {
            let why = ended.reason.unwrap_or_default();
            Err(Failure::new(Exit::Failed, format!("{} {state}: {}", started.run_id, escape_terminal(&why))).into())
        }
    }
}

/// Hold what an agent has to do: nothing is lost, nothing starts until it is resumed
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell pause triage --why deploying\n  doorbell pause --all")]
pub(super) struct PauseArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Let what an agent has to do go on
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell resume triage --rate 10/1m\n  doorbell resume --all")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    which: Which,
    /// How fast what was held goes on, such as 10/1m [default: all at once]
    #[arg(long, conflicts_with = "all")]
    rate: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The agent
    #[arg(add = completions::agents())]
    agent: Option<String>,
    /// All agents
    #[arg(long)]
    all: bool,
}

pub(super) async fn pause(context: &Context, args: PauseArgs) -> anyhow::Result<()> {
    let agent = args.which.agent.as_deref();
    let paused = context.client()?.pause(agent, &NewPause { why: args.why }).await;
    let paused = paused.map_err(Failure::no_agent(agent.unwrap_or_default()))?;
    match context.json {
        true => output::json(&paused),
        false => {
            let what = agent.unwrap_or("every agent");
            Ok(output::line(format!("{} is paused: what comes for it is held", escape_terminal(what)))?)
        }
    }
}

pub(super) async fn resume(context: &Context, args: ResumeArgs) -> anyhow::Result<()> {
    let agent = args.which.agent.as_deref();
    let resumed = context.client()?.resume(agent, &NewResume { rate: args.rate }).await;
    let resumed = resumed.map_err(Failure::no_agent(agent.unwrap_or_default()))?;
    if context.json {
        return output::json(&resumed);
    }
    let what = escape_terminal(agent.unwrap_or("every agent"));
    Ok(output::line(match (&resumed.still_held, &resumed.rate) {
        (Some(reason), _) => format!("{what} is resumed, but held all the same: {}", escape_terminal(reason)),
        (None, Some(rate)) => format!("{what} is resumed; what was held goes on at {}", escape_terminal(rate)),
        (None, None) => format!("{what} is resumed"),
    })?)
}
