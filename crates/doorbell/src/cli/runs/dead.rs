//! Dead letters by what they failed of.

use doorbell_client::api::DeadLetterGroup;

use crate::cli::context::Context;
use crate::cli::known;
use crate::cli::output::{self, Table, escape_terminal};
use crate::cli::time::Clock;

pub(super) async fn list(context: &Context, agent: Option<&str>) -> anyhow::Result<()> {
    let client = context.client()?;
    let found = client.dead_letters(agent).await?;
    if found.groups.is_empty() {
        known::check_agent(&client, agent).await?;
    }
    if context.json {
        return output::json(&found);
    }
    if found.groups.is_empty() {
        output::note("no dead letters");
        return Ok(());
    }
    let clock = Clock::here();
    let mut table = Table::new(&["COUNT", "AGENT", "FIRST", "LAST", "LAST RUN", "CAUSE"]).wrapping_last();
    found.groups.iter().for_each(|group| table.row(row(group, &clock)));
    table.print()?;
    output::line("\nTo try them again:")?;
    for group in &found.groups {
        output::line(format!("  {}", escape_terminal(&group.retry)))?;
    }
    if !found.complete {
        output::note(format!("these are the newest {}; there are older ones", found.scanned));
    }
    Ok(())
}

fn row(group: &DeadLetterGroup, clock: &Clock) -> [String; 6] {
    let (first, last) = (clock.show(&group.first_at), clock.show(&group.last_at));
    [group.count.to_string(), group.agent.clone(), first, last, group.run_id.clone(), group.cause.clone()]
}
