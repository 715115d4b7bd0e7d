//! `doorbell agents`: what can be started.

use std::time::Duration;

use clap::Args;
use doorbell_client::api::Agent;

use super::context::Context;
use super::output::{self, Table};
use super::time::short;

/// List the agents
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell agents")]
pub(super) struct AgentsArgs {}

pub(super) async fn run(context: &Context, AgentsArgs {}: AgentsArgs) -> anyhow::Result<()> {
    let list = context.client()?.agents().await?;
    if context.json {
        return output::json(&list);
    }
    if list.agents.is_empty() {
        output::note("no agents: each one is a folder agents/<name>/ with a config.toml");
        return Ok(());
    }
    let mut table = Table::new(&["AGENT", "RUNTIME", "SCALE", "TIMEOUT", "SOURCES", "DESCRIPTION"]).wrapping_last();
    list.agents.iter().for_each(|agent| table.row(row(agent)));
    table.print()?;
    for (agent, why) in list.agents.iter().filter_map(|agent| Some((&agent.name, agent.breaker.as_ref()?))) {
        output::note(output::escape_terminal(&format!("{agent}: {why}")));
    }
    Ok(())
}

fn row(agent: &Agent) -> [String; 6] {
    [
        agent.name.clone(),
        agent.runtime.clone(),
        if agent.scale == 0 { "0 (disabled)".to_owned() } else { agent.scale.to_string() },
        short(Duration::from_secs(agent.timeout_seconds)),
        agent.sources.join(", "),
        agent.description.clone().unwrap_or_default(),
    ]
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
            breaker: None,
        };
        assert_eq!(row(&agent), ["triage", "command", "0 (disabled)", "15m 00s", "acme, lab", ""]);
    }
}
