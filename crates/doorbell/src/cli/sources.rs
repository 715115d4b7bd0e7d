//! `doorbell sources`: where deliveries come in.

use clap::{Args, Subcommand};
use doorbell_client::api::{CredentialUse, Delivery, Source};

use super::completions;
use super::context::Context;
use super::failure::Failure;
use super::output::{self, Table};
use super::time::Clock;

/// List the sources with their URLs, or what came to one of them
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell sources\n  doorbell sources deliveries acme-github")]
pub(super) struct SourcesArgs {
    #[command(subcommand)]
    command: Option<SourcesCommand>,
}

#[derive(Debug, Subcommand)]
enum SourcesCommand {
    Deliveries(DeliveriesArgs),
}

/// List what came to a source, newest first: accepted, and rejected with the cause
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell sources deliveries acme-github --rejected --limit 500")]
struct DeliveriesArgs {
    /// The source's name
    #[arg(add = completions::sources())]
    source: String,
    /// Only those that were refused, among the newest
    #[arg(long)]
    rejected: bool,
    /// Of the newest, at most so many (up to 500)
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    limit: u32,
}

/// The status of what was refused.
const REJECTED: &str = "rejected";

/// As many as the gateway gives at once.
const MOST: i64 = 500;

pub(super) async fn run(context: &Context, args: SourcesArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context).await,
        Some(SourcesCommand::Deliveries(args)) => deliveries(context, &args).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let list = context.client()?.sources().await?;
    if context.json {
        return output::json(&list);
    }
    if list.sources.is_empty() {
        output::note("no sources: each one is a [webhooks.<name>] in config.toml");
        return Ok(());
    }
    let mut table = Table::new(&["SOURCE", "PROVIDER", "URL", "VERIFIED WITH"]).wrapping_last();
    let clock = Clock::here();
    list.sources.iter().for_each(|source| table.row(row(source, &clock)));
    Ok(table.print()?)
}

fn row(source: &Source, clock: &Clock) -> [String; 4] {
    let verified = match source.signed {
        // A key of an agent is not told how much came.
        true if source.credential_uses.is_empty() => source.credentials.join("; "),
        true => source.credential_uses.iter().map(|used| credential(used, clock)).collect::<Vec<_>>().join("; "),
        false => "nothing: takes unsigned deliveries".to_owned(),
    };
    [source.name.clone(), source.provider.clone(), source.url.clone(), verified]
}

/// `old: 12 deliveries, last 09:30:00`.
fn credential(used: &CredentialUse, clock: &Clock) -> String {
    let CredentialUse { credential, deliveries, .. } = used;
    match &used.last_verified_at {
        Some(last) if *deliveries == 1 => format!("{credential}: 1 delivery, {}", clock.show(last)),
        Some(last) => format!("{credential}: {deliveries} deliveries, last {}", clock.show(last)),
        None => format!("{credential}: no delivery yet"),
    }
}

async fn deliveries(context: &Context, args: &DeliveriesArgs) -> anyhow::Result<()> {
    let list = context.client()?.deliveries(&args.source, Some(args.limit)).await;
    let mut list = list.map_err(Failure::missing("source", &args.source, "doorbell sources"))?;
    let is_full = list.deliveries.len() >= args.limit as usize;
    list.deliveries.retain(|delivery| !args.rejected || delivery.status == REJECTED);
    if context.json {
        return output::json(&list);
    }
    if list.deliveries.is_empty() {
        output::note(match (args.rejected, is_full) {
            (false, _) => "nothing came to this source yet".to_owned(),
            (true, false) => "nothing was refused".to_owned(),
            (true, true) => format!("nothing was refused among the newest {}", args.limit),
        });
    } else {
        let clock = Clock::here();
        let mut table = Table::new(&["TIME", "STATUS", "AGAIN", "EVENT", "FROM", "WHY"]).wrapping_last();
        list.deliveries.iter().for_each(|delivery| table.row(delivery_row(delivery, &clock)));
        table.print()?;
    }
    if is_full && i64::from(args.limit) < MOST {
        output::note(format!("more: --limit {MOST}"));
    }
    Ok(())
}

fn delivery_row(delivery: &Delivery, clock: &Clock) -> [String; 6] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let event = [text(&delivery.event_id), text(&delivery.event_type)].join(" ");
    let why = [text(&delivery.code), text(&delivery.detail)].into_iter().filter(|part| !part.is_empty());
    [
        clock.show(&delivery.at),
        delivery.status.clone(),
        delivery.repeated.to_string(),
        event.trim().to_owned(),
        text(&delivery.remote),
        why.collect::<Vec<_>>().join(": "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_says_when_it_was_last_of_use() {
        let clock = Clock::fixed("2026-01-31T12:00:00Z");
        let shown = |deliveries, last: Option<&str>| {
            let last_verified_at = last.map(str::to_owned);
            credential(&CredentialUse { credential: "old".to_owned(), deliveries, last_verified_at }, &clock)
        };
        assert_eq!(shown(0, None), "old: no delivery yet");
        assert_eq!(shown(1, Some("2026-01-31T09:30:00.000Z")), "old: 1 delivery, 09:30:00");
        assert_eq!(shown(12, Some("2026-01-31T09:30:00.000Z")), "old: 12 deliveries, last 09:30:00");
    }

    #[test]
    fn a_rejected_delivery_says_why_and_from_where() {
        let delivery = Delivery {
            at: "2026-01-31T09:30:00.000Z".to_owned(),
            source: "acme".to_owned(),
            status: "rejected".to_owned(),
            event_id: None,
            event_type: None,
            repeated: 4,
            code: Some("signature_mismatch".to_owned()),
            detail: Some("the secrets differ".to_owned()),
            remote: Some("192.0.2.1".to_owned()),
        };
        assert_eq!(
            delivery_row(&delivery, &Clock::fixed("2026-01-31T12:00:00Z")),
            ["09:30:00", "rejected", "4", "", "192.0.2.1", "signature_mismatch: the secrets differ"]
        );
    }
}
