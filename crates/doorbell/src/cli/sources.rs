//! `doorbell sources`: where deliveries come in.

use clap::{Args, Subcommand};
use doorbell_client::api::{Delivery, Source};

use super::context::Context;
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
#[command(after_help = "Example:\n  doorbell sources deliveries acme-github")]
struct DeliveriesArgs {
    /// The source's name
    source: String,
}

pub(super) async fn run(context: &Context, args: SourcesArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context).await,
        Some(SourcesCommand::Deliveries(args)) => deliveries(context, &args.source).await,
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
    list.sources.iter().for_each(|source| table.row(row(source)));
    Ok(table.print()?)
}

fn row(source: &Source) -> [String; 4] {
    let verified =
        if source.signed { source.credentials.join(", ") } else { "nothing: takes unsigned deliveries".to_owned() };
    [source.name.clone(), source.provider.clone(), source.url.clone(), verified]
}

async fn deliveries(context: &Context, source: &str) -> anyhow::Result<()> {
    let list = context.client()?.deliveries(source).await?;
    if context.json {
        return output::json(&list);
    }
    if list.deliveries.is_empty() {
        output::note("nothing came to this source yet");
        return Ok(());
    }
    let clock = Clock::here();
    let mut table = Table::new(&["TIME", "STATUS", "AGAIN", "EVENT", "FROM", "WHY"]).wrapping_last();
    list.deliveries.iter().for_each(|delivery| table.row(delivery_row(delivery, &clock)));
    Ok(table.print()?)
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
