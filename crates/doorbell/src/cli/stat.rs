//! `doorbell stat`: what is going on.

use clap::Args;
use doorbell_client::api::{AgentStats, ConfigState, Stats, Sweep};

use super::context::Context;
use super::output::{self, Table, escape_terminal};
use super::sources::describe_pause;
use super::time::Clock;

/// Show what is going on: deliveries, and where each agent's runs stand
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell stat --json")]
pub(super) struct StatArgs {}

pub(super) async fn run(context: &Context, StatArgs {}: StatArgs) -> anyhow::Result<()> {
    let stats = context.client()?.stats().await?;
    if context.json {
        return output::json(&stats);
    }
    if let Some(summary) = summary(&stats) {
        output::sentence(summary)?;
    }
    if let Some(config) = &stats.config {
        output::sentence(describe(config, &Clock::here()))?;
    }
    if let Some(sweep) = &stats.last_sweep {
        output::sentence(swept(sweep, &Clock::here()))?;
    }
    show_agents(&stats)?;
    show_paused_agents(&stats)?;
    show_paused_sources(&stats)?;
    show_flow(&stats)?;
    show_receivers(&stats)
}

/// The columns of [`row`], and whether one is left out in which every agent has 0.
const AGENT_COLUMNS: [(&str, bool); 11] = [
    ("AGENT", false),
    ("RUNNING", false),
    ("QUEUED", false),
    ("WAITING", true),
    ("HELD", true),
    ("SUCCEEDED", false),
    ("FAILED", false),
    ("CANCELLED", true),
    ("SUPERSEDED", true),
    ("DROPPED", true),
    ("OLDEST", false),
];

fn show_agents(stats: &Stats) -> anyhow::Result<()> {
    if stats.agents.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let clock = Clock::here();
    let rows: Vec<_> = stats.agents.iter().map(|agent| row(agent, &clock)).collect();
    // What no agent has any of is left out, so that the rest fits beside each other.
    let shown = |column: &usize| !AGENT_COLUMNS[*column].1 || rows.iter().any(|row| row[*column] != "0");
    let shown: Vec<usize> = (0..AGENT_COLUMNS.len()).filter(shown).collect();
    let titles: Vec<&str> = shown.iter().map(|column| AGENT_COLUMNS[*column].0).collect();
    let mut table = Table::new(&titles);
    rows.iter().for_each(|row| table.row(shown.iter().map(|column| &row[*column])));
    Ok(table.print()?)
}

/// Agents that are paused, or on their way back.
fn show_paused_agents(stats: &Stats) -> anyhow::Result<()> {
    let clock = Clock::here();
    let mut table = Table::new(&["PAUSED AGENT", "HELD", "WHY"]).wrapping_last();
    let paused: Vec<_> = stats.agents.iter().filter_map(|agent| Some((agent, agent.pause.as_ref()?))).collect();
    if let Some((_, all)) = paused.iter().find(|(_, pause)| pause.agent.is_none()) {
        let held: u64 = paused.iter().filter(|(_, pause)| pause.agent.is_none()).map(|(agent, _)| agent.held).sum();
        table.row(["(all others)".to_owned(), held.to_string(), describe_pause(all, &clock)]);
    }
    for (agent, pause) in paused.iter().filter(|(_, pause)| pause.agent.is_some()) {
        table.row([agent.name.clone(), agent.held.to_string(), describe_pause(pause, &clock)]);
    }
    if paused.is_empty() {
        return Ok(());
    }
    output::line("")?;
    Ok(table.print()?)
}

/// Sources for which runs are held.
fn show_paused_sources(stats: &Stats) -> anyhow::Result<()> {
    if stats.paused_sources.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let clock = Clock::here();
    let mut table = Table::new(&["PAUSED SOURCE", "HELD", "WHY"]).wrapping_last();
    for source in &stats.paused_sources {
        let name = if source.configured { source.name.clone() } else { format!("{} (removed)", source.name) };
        let why = match &source.pause {
            None => "resumed just now".to_owned(),
            Some(pause) => describe_pause(pause, &clock),
        };
        table.row([name, source.held.to_string(), why]);
    }
    Ok(table.print()?)
}

/// What is throttled, what fails all the time, and which runs have which keys.
fn show_flow(stats: &Stats) -> anyhow::Result<()> {
    let clock = Clock::here();
    for agent in &stats.agents {
        if let Some(until) = &agent.throttled_until {
            output::sentence(escape_terminal(&format!("{} is throttled until {}", agent.name, clock.show(until))))?;
        }
    }
    for (agent, why) in stats.agents.iter().filter_map(|agent| Some((&agent.name, agent.breaker.as_ref()?))) {
        output::sentence(escape_terminal(&format!("the runs of {agent} wait: {why}")))?;
    }
    for (agent, why) in stats.agents.iter().filter_map(|agent| Some((&agent.name, agent.unasked.as_ref()?))) {
        output::sentence(escape_terminal(&format!("{agent} has queued runs, and {why}")))?;
    }
    for (agent, failing) in stats.agents.iter().filter_map(|agent| Some((agent, agent.failing.as_ref()?))) {
        let runs = if failing.runs == 1 { "run" } else { "runs" };
        let removed = if agent.configured { "" } else { " (removed)" };
        let (name, since) = (&agent.name, clock.show(&failing.since));
        let text = format!("{name}{removed} fails: {} {runs} in a row since {since}", failing.runs);
        output::sentence(escape_terminal(&text))?;
    }
    let holders = || stats.agents.iter().flat_map(|agent| agent.holders.iter().map(|holder| (&agent.name, holder)));
    if holders().next().is_none() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&["KEY", "AGENT", "RUN", "STATE"]);
    for (agent, holder) in holders() {
        table.row([holder.key.clone(), agent.clone(), holder.run_id.clone(), holder.state.clone()]);
    }
    Ok(table.print()?)
}

/// Who is told of problems, and whether that works.
fn show_receivers(stats: &Stats) -> anyhow::Result<()> {
    if stats.notifications.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&["NOTIFICATIONS", "DELIVERED", "FAILED", "WAITING", "ERROR"]).wrapping_last();
    for told in &stats.notifications {
        let [delivered, failed, waiting] = [told.delivered, told.failed, told.waiting].map(|count| count.to_string());
        table.row([told.receiver.clone(), delivered, failed, waiting, told.error.clone().unwrap_or("-".to_owned())]);
    }
    Ok(table.print()?)
}

/// What came in; none for a key that sees one agent only.
fn summary(stats: &Stats) -> Option<String> {
    let (events, counts) = (stats.events?, stats.deliveries.as_ref()?);
    Some(format!(
        "{events} events stored; since the start {} deliveries accepted, {} duplicate, {} rejected",
        counts.accepted, counts.duplicate, counts.rejected
    ))
}

/// Which configuration is in force, and what is wrong with the saved one.
fn describe(config: &ConfigState, clock: &Clock) -> String {
    let age = clock.between(Some(&config.loaded_at), None);
    let in_force = format!("configuration {}, loaded {age} ago", config.generation);
    match &config.error {
        None => in_force,
        Some(error) => format!(
            "{in_force}; what is saved now cannot be used, so this one stays:\n{}",
            error.lines().map(escape_terminal).collect::<Vec<_>>().join("\n")
        ),
    }
}

fn swept(sweep: &Sweep, clock: &Clock) -> String {
    format!(
        "the last sweep ended at {} and removed {} events, {} runs, {} refused deliveries",
        clock.show(&sweep.ended_at),
        sweep.events,
        sweep.runs,
        sweep.rejections
    )
}

fn row(agent: &AgentStats, clock: &Clock) -> [String; 11] {
    let name = match (agent.configured, agent.scale) {
        (false, _) => format!("{} (removed)", agent.name),
        (true, 0) => format!("{} (disabled)", agent.name),
        (true, _) => match &agent.pause {
            Some(pause) if pause.resuming => format!("{} (resuming)", agent.name),
            Some(_) => format!("{} (paused)", agent.name),
            None => agent.name.clone(),
        },
    };
    [
        name,
        format!("{}/{}", agent.running, agent.scale),
        agent.queued.to_string(),
        agent.waiting.to_string(),
        agent.held.to_string(),
        agent.succeeded.to_string(),
        agent.failed.to_string(),
        agent.cancelled.to_string(),
        agent.superseded.to_string(),
        agent.dropped.to_string(),
        agent.oldest_queued_at.as_deref().map_or_else(|| "-".to_owned(), |since| clock.between(Some(since), None)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_client::api::Pause;

    #[test]
    fn a_row_says_how_many_run_of_how_many_and_how_long_the_oldest_waits() {
        let agent = AgentStats {
            name: "triage".to_owned(),
            configured: true,
            scale: 2,
            running: 1,
            queued: 3,
            oldest_queued_at: Some("2026-01-31T11:58:00.000Z".to_owned()),
            ..AgentStats::default()
        };
        let clock = Clock::fixed("2026-01-31T12:00:00Z");
        let shown = row(&agent, &clock);
        let wanted = ["triage", "1/2", "3", "0", "0", "0", "0", "0", "0", "0", "2m 00s"];
        assert_eq!(shown.each_ref().map(String::as_str), wanted);
        let pause = Pause {
            agent: None,
            source: None,
            by: "ann".to_owned(),
            at: "2026-01-31T12:00:00Z".to_owned(),
            why: None,
            resuming: false,
            rate: None,
        };
        let resuming = Pause { resuming: true, rate: Some("1/10s".to_owned()), ..pause.clone() };
        assert_eq!(row(&AgentStats { pause: Some(resuming), ..agent.clone() }, &clock)[0], "triage (resuming)");
        assert_eq!(row(&AgentStats { pause: Some(pause), ..agent.clone() }, &clock)[0], "triage (paused)");
        assert_eq!(row(&AgentStats { configured: false, ..agent }, &clock)[0], "triage (removed)");
    }
}
