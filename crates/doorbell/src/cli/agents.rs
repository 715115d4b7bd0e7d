//! `doorbell agents`: what can be started.

use std::time::Duration;

use clap::{Args, Subcommand};
use doorbell_client::api::Agent;

use super::context::Context;
use super::output::{self, Table};
use super::time::short;
use super::webhooks;

/// List the agents, or change one's own webhook
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell agents\n  doorbell agents webhook triage --enable")]
pub(super) struct AgentsArgs {
    #[command(subcommand)]
    command: Option<AgentsCommand>,
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    Webhook(webhooks::OwnArgs),
}

pub(super) async fn run(context: &Context, args: AgentsArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context).await,
        Some(AgentsCommand::Webhook(args)) => webhooks::own(context, args).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let list = context.client()?.agents().await?;
    if context.json {
        return output::json(&list);
    }
    if list.agents.is_empty() {
        output::note("no agents: each one is a folder agents/<name>/ with a config.toml");
        return Ok(());
    }
    let mut table =
        Table::new(&["AGENT", "RUNTIME", "SCALE", "TIMEOUT", "SOURCES", "SCHEDULE", "DESCRIPTION"]).wrapping_last();
    list.agents.iter().for_each(|agent| table.row(row(agent)));
    table.print()?;
    for (agent, why) in list.agents.iter().filter_map(|agent| Some((&agent.name, agent.breaker.as_ref()?))) {
        output::note(output::escape_terminal(&format!("{agent}: {why}")));
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
        agent.sources.join(", "),
        agent.schedules.iter().map(|schedule| schedule.cron.as_str()).collect::<Vec<_>>().join("; "),
        agent.description.clone().unwrap_or_default(),
    ]
}

fn scale(agent: &Agent) -> String {
    match &agent.pause {
        _ if agent.scale == 0 => "0 (disabled)".to_owned(),
        Some(pause) if pause.resuming => format!("{} (resuming)", agent.scale),
        Some(_) => format!("{} (paused)", agent.scale),
        None => agent.scale.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_starts_the_agent_and_how() {
        let agent = Agent {
            name: "triage".to_owned(),
            description: None,
            runtime: "command".to_owned(),
            scale: 0,
            timeout_seconds: 900,
            sources: vec!["acme".to_owned(), "lab".to_owned()],
            schedules: Vec::new(),
            pause: None,
            breaker: None,
            own_webhook: None,
        };
        assert_eq!(row(&agent), ["triage", "command", "0 (disabled)", "15m 00s", "acme, lab", "", ""]);
    }
}
