//! `doorbell audit`: what was changed through the API, and by whom.

use clap::Args;
use doorbell_client::AuditQuery;
use doorbell_client::api::{AuditEntry, AuditPage};

use super::context::Context;
use super::output::{self, MOST, Table};
use super::time::{Clock, When};
use crate::clock;

/// List what was changed through the API, newest first: by whom, from where, and how it ended
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AuditArgs {
    /// By this key or run (its id), or by its label or agent
    #[arg(long, value_name = "WHO")]
    who: Option<String>,
    /// Asked for then or later: an RFC 3339 time, or how long ago (`90s`, `15m`, `1h`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Asked for before: a time as for --since
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// At most so many (up to 500) [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST), conflicts_with = "all")]
    limit: Option<u32>,
    /// Go on where the page before ended
    #[arg(long)]
    cursor: Option<String>,
    /// All there are, page after page
    #[arg(long)]
    all: bool,
    /// All there are, each as JSON on a line of its own: for other programs
    #[arg(long, conflicts_with_all = ["all", "limit"])]
    export: bool,
}

const EXAMPLES: &str = "\
Examples:
  doorbell audit --since 7d
  doorbell audit --who ci
  doorbell audit --export > audit.ndjson";

pub(super) async fn run(context: &Context, args: AuditArgs) -> anyhow::Result<()> {
    if args.export {
        return export(context, args).await;
    }
    let page = read(context, args).await?;
    if context.json {
        return output::json(&page);
    }
    if page.entries.is_empty() {
        output::note("nothing was changed");
        return Ok(());
    }
    let clock = Clock::here();
    let mut table = Table::new(&["TIME", "WHO", "NAME", "ROLE", "FROM", "RESULT", "OPERATION", "TARGET"]);
    page.entries.iter().for_each(|entry| table.row(row(entry, &clock)));
    table.print()?;
    if let Some(cursor) = page.next_cursor {
        output::note(format!("more: --cursor {}, or --all", output::escape_terminal(&cursor)));
    }
    Ok(())
}

async fn read(context: &Context, args: AuditArgs) -> anyhow::Result<AuditPage> {
    let all = args.all;
    let mut query = query(args);
    let client = context.client()?;
    let mut page = client.audit(&query).await?;
    while let Some(cursor) = page.next_cursor.take_if(|_| all) {
        query.cursor = Some(cursor);
        let next = client.audit(&query).await?;
        page.entries.extend(next.entries);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

fn query(args: AuditArgs) -> AuditQuery {
    let now = clock::now();
    let most = u32::try_from(MOST).unwrap_or(u32::MAX);
    AuditQuery {
        who: args.who,
        since: args.since.map(|when| when.to_rfc3339(now)),
        until: args.until.map(|when| when.to_rfc3339(now)),
        cursor: args.cursor,
        limit: if args.all || args.export { Some(most) } else { args.limit },
    }
}

/// Prints each page before the next one is asked for: there may be very many.
async fn export(context: &Context, args: AuditArgs) -> anyhow::Result<()> {
    let mut query = query(args);
    let client = context.client()?;
    loop {
        let page = client.audit(&query).await?;
        page.entries.iter().try_for_each(output::json_line)?;
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return Ok(()),
        }
    }
}

fn row(entry: &AuditEntry, clock: &Clock) -> [String; 8] {
    let result = match (entry.status, &entry.code) {
        // A tool's refusal is an answer like others to those who only carry it.
        (Some(..400), Some(code)) => format!("{} {code}", entry.result),
        (Some(status), Some(code)) => format!("{status} {code}"),
        (Some(status), None) => status.to_string(),
        (None, _) => entry.result.clone(),
    };
    let target = if entry.target.is_empty() { "-".to_owned() } else { entry.target.clone() };
    let (who, name, role) = (entry.who.clone(), entry.name.clone(), entry.role.clone());
    [clock.show(&entry.at), who, name, role, entry.remote.clone(), result, entry.operation.clone(), target]
}
