//! `doorbell agents`: what can be started.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use doorbell_client::api::Agent;

use super::completions;
use super::consent;
use super::context::Context;
use super::failure::Failure;
use super::output::{self, Table};
use super::sources::describe_pause;
use super::time::{Clock, short};
use super::webhooks;

/// List the agents, show one, declare one that has no files, or change one's own webhook
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AgentsArgs {
    #[command(subcommand)]
    command: Option<AgentsCommand>,
}

const EXAMPLES: &str = "\
Examples:
  doorbell agents
  doorbell agents show triage
  doorbell agents declare triage --file agent.json
  doorbell agents rm triage
  doorbell agents webhook triage --enable";

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    Show(ShowArgs),
    Declare(DeclareArgs),
    Rm(RmArgs),
    Webhook(webhooks::OwnArgs),
}

/// Show an agent: what starts it, and what was declared of it, by whom and when
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell agents show triage --json")]
struct ShowArgs {
    /// The agent
    #[arg(add = completions::agents())]
    name: String,
}

/// Declare an agent, or change the declaration of one: the same again changes nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell agents declare triage --file agent.json\n  \
    ./describe-agent | doorbell agents declare triage --file -")]
struct DeclareArgs {
    /// The agent
    #[arg(add = completions::agents())]
    name: String,
    /// The JSON that declares it; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// Remove the declaration of an agent: its runs that wait are held until it is declared again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell agents rm triage")]
struct RmArgs {
    /// The agent
    #[arg(add = completions::agents())]
    name: String,
    /// Do not ask on a terminal
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, args: AgentsArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context).await,
        Some(AgentsCommand::Show(args)) => show(context, &args.name).await,
        Some(AgentsCommand::Declare(args)) => declare(context, &args).await,
        Some(AgentsCommand::Rm(args)) => remove(context, &args).await,
        Some(AgentsCommand::Webhook(args)) => webhooks::own(context, args).await,
    }
}

async fn show(context: &Context, name: &str) -> anyhow::Result<()> {
    let detail = context.client()?.agent(name).await.map_err(Failure::no_agent(name))?;
    if context.json {
        return output::json(&detail);
    }
    let clock = Clock::here();
    let agent = &detail.agent;
    let mut table = Table::new(&[]);
    let titles = ["Agent", "Runtime", "Scale", "Timeout", "Sources", "Schedule", "Description"];
    for (title, value) in titles.iter().zip(row(agent)).filter(|(_, value)| !value.is_empty()) {
        table.row([*title, &value]);
    }
    match &detail.declaration {
        None => table.row(["Managed by", &format!("agents/{}/", agent.name)]),
        Some(declaration) => {
            let by = |who: &str, when: &str| format!("{who}, {}", clock.show(when));
            table.row(["Declared by", &by(&declaration.created_by, &declaration.created_at)]);
            table.row(["Changed by", &by(&declaration.updated_by, &declaration.updated_at)]);
            declaration.warnings.iter().for_each(|warning| table.row(["Warning", warning]));
        }
    }
    if let Some(pause) = &agent.pause {
        let whose = if pause.agent.is_none() { "with all agents, " } else { "" };
        table.row(["Paused", &format!("{whose}{}", describe_pause(pause, &clock))]);
    }
    [("Held", &agent.problem), ("Waits", &agent.breaker), ("Workers", &agent.unasked)]
        .into_iter()
        .filter_map(|(title, why)| Some((title, why.as_ref()?)))
        .for_each(|(title, why)| table.row([title, why]));
    table.print()?;
    if let Some(declaration) = &detail.declaration {
        output::line(output::escape_text(&serde_json::to_string_pretty(&declaration.definition)?))?;
    }
    Ok(())
}

async fn declare(context: &Context, args: &DeclareArgs) -> anyhow::Result<()> {
    let text = match args.file.as_os_str().as_encoded_bytes() {
        b"-" => std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?,
        _ => std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?,
    };
    let definition = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} is not a JSON object: {error}", args.file.display())))?;
    let detail = context.client()?.declare_agent(&args.name, &definition, None).await?;
    if context.json {
        return output::json(&detail);
    }
    let warnings = detail.declaration.iter().flat_map(|declaration| &declaration.warnings);
    warnings.for_each(|warning| output::note(output::escape_terminal(&format!("warning: {warning}"))));
    Ok(output::line(format!("agent {} is declared", output::escape_terminal(&args.name)))?)
}

async fn remove(context: &Context, RmArgs { name, yes }: &RmArgs) -> anyhow::Result<()> {
    let name = name.as_str();
    let shown = output::escape_terminal(name);
    consent::ask(*yes, &format!("Remove {shown}? Its runs that wait are held until it is declared again."))?;
    let removed = context.client()?.remove_agent(name, None).await.map_err(Failure::no_agent(name))?;
    if context.json {
        return output::json(&removed);
    }
    let name = output::escape_terminal(&removed.name);
    Ok(output::line(format!("agent {name} is removed; runs of it that wait are held"))?)
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let list = context.client()?.agents().await?;
    if context.json {
        return output::json(&list);
    }
    if list.agents.is_empty() {
        output::note(
            "no agents: each one is a folder agents/<name>/ with a config.toml, or is declared (`doorbell agents declare`)",
        );
        return Ok(());
    }
    let mut table =
        Table::new(&["AGENT", "RUNTIME", "SCALE", "TIMEOUT", "SOURCES", "SCHEDULE", "DESCRIPTION"]).wrapping_last();
    list.agents.iter().for_each(|agent| table.row(row(agent)));
    table.print()?;
    for (agent, why) in list.agents.iter().filter_map(|agent| Some((&agent.name, agent.breaker.as_ref()?))) {
        output::note(output::escape_terminal(&format!("{agent} waits: {why}")));
    }
    for (agent, why) in list.agents.iter().filter_map(|agent| Some((&agent.name, agent.problem.as_ref()?))) {
        output::note(output::escape_terminal(&format!("{agent}: what was declared is not in force: {why}")));
    }
    for agent in list.agents.iter().filter(|agent| agent.own_webhook.as_deref() == Some("none")) {
        let name = output::escape_terminal(&agent.name);
        output::note(format!(
            "warning: anybody can start {name}: its own webhook takes requests without authentication"
        ));
    }
    Ok(())
}

fn row(agent: &Agent) -> [String; 7] {
    [
        agent.name.clone(),
        agent.runtime.clone(),
        scale(agent),
        short(Duration::from_secs(agent.timeout_seconds)),
        sources(&agent.sources),
        agent.schedules.iter().map(|schedule| schedule.cron.as_str()).collect::<Vec<_>>().join("; "),
        agent.description.clone().unwrap_or_default(),
    ]
}

fn scale(agent: &Agent) -> String {
    match &agent.pause {
        _ if agent.problem.is_some() && agent.managed_by == "api" => "- (held)".to_owned(),
        _ if agent.scale == 0 => "0 (disabled)".to_owned(),
        Some(pause) if pause.resuming => format!("{} (resuming)", agent.scale),
        Some(_) => format!("{} (paused)", agent.scale),
        None => agent.scale.to_string(),
    }
}

/// Those of the configuration by name, and how many webhooks were made at run time.
fn sources(all: &[String]) -> String {
    let (made, named): (Vec<&String>, Vec<&String>) = all.iter().partition(|name| name.starts_with("whk_"));
    let webhooks = match made.len() {
        0 => None,
        1 => Some("1 webhook".to_owned()),
        count => Some(format!("{count} webhooks")),
    };
    named.into_iter().cloned().chain(webhooks).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_starts_the_agent_and_how() {
        let agent = Agent {
            account: None,
            name: "triage".to_owned(),
            description: None,
            runtime: "command".to_owned(),
            scale: 0,
            timeout_seconds: 900,
            sources: vec!["acme".to_owned(), "lab".to_owned()],
            schedules: Vec::new(),
            pause: None,
            breaker: None,
            unasked: None,
            own_webhook: None,
            managed_by: "file".to_owned(),
            problem: None,
        };
        assert_eq!(row(&agent), ["triage", "command", "0 (disabled)", "15m 00s", "acme, lab", "", ""]);
    }
}
