//! `doorbell sources`: where deliveries come in.

use clap::{Args, Subcommand};
use doorbell_client::api::{CapturedSecret, CredentialUse, Delivery, Source, SourceWebhook};

mod pauses;

pub(super) use pauses::describe as describe_pause;

use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::known::check_source;
use super::output::{self, MOST, Table, escape_terminal};
use super::time::Clock;

/// List the sources with their URLs, or what came to one of them
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell sources\n  doorbell sources show acme-github\n  \
    doorbell sources deliveries acme-github")]
pub(super) struct SourcesArgs {
    #[command(subcommand)]
    command: Option<SourcesCommand>,
}

#[derive(Debug, Subcommand)]
enum SourcesCommand {
    Show(ShowArgs),
    Deliveries(DeliveriesArgs),
    Captured(CapturedArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
}

/// Hold the runs that what comes to a source would start: it is still taken and stored, and nothing is lost
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell sources pause acme-github --why migration")]
struct PauseArgs {
    /// The source's name
    #[arg(add = completions::sources())]
    source: String,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Let the runs go on that were held for a source
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell sources resume acme-github --rate 10/1m")]
struct ResumeArgs {
    /// The source's name
    #[arg(add = completions::sources())]
    source: String,
    /// How fast what was held goes on, such as 10/1m [default: all at once]
    #[arg(long)]
    rate: Option<String>,
}

/// Show a source: its URL, its credentials, and the secret that its sender showed, if one did
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell sources show acme-github")]
struct ShowArgs {
    /// The source's name
    #[arg(add = completions::sources())]
    source: String,
}

/// Show the secrets that were shown to a source when its webhook was set up (Notion), and how to keep one
///
/// Anybody who knows the source's URL can show one: take it only if it came when you set the webhook up. The first
/// few are kept; further ones are refused until you forget them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell sources captured wiki\n  \
    doorbell sources captured wiki --secret | doorbell creds add notion_webhook_secret:wiki --stdin\n  \
    doorbell sources captured wiki --forget")]
struct CapturedArgs {
    /// The source's name
    #[arg(add = completions::sources())]
    source: String,
    /// Print the secret and nothing else
    #[arg(long, conflicts_with = "forget")]
    secret: bool,
    /// Which one, if there are several: its number in the list
    #[arg(long, value_name = "N", requires = "secret")]
    number: Option<usize>,
    /// Remove them, so that the next one is the first
    #[arg(long)]
    forget: bool,
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

pub(super) async fn run(context: &Context, args: SourcesArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context).await,
        Some(SourcesCommand::Show(args)) => show(context, &args.source).await,
        Some(SourcesCommand::Deliveries(args)) => deliveries(context, &args).await,
        Some(SourcesCommand::Captured(args)) => captured(context, &args).await,
        Some(SourcesCommand::Pause(args)) => pauses::pause(context, args).await,
        Some(SourcesCommand::Resume(args)) => pauses::resume(context, args).await,
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
    table.print()?;
    for source in list.sources.iter().filter(|source| source.secret_captured) {
        let name = escape_terminal(&source.name);
        output::note(format!(
            "a captured secret waits: `doorbell sources captured {name}` shows it, and how to keep it"
        ));
    }
    Ok(())
}

fn row(source: &Source, clock: &Clock) -> [String; 4] {
    let verified = match source.signed {
        // A key of an agent is not told how much came.
        true if source.credential_uses.is_empty() => source.credentials.join("; "),
        true => source.credential_uses.iter().map(|used| credential(used, clock)).collect::<Vec<_>>().join("; "),
        false => "nothing: takes unsigned deliveries".to_owned(),
    };
    let verified = match &source.webhook {
        Some(SourceWebhook { problem: Some(problem), .. }) => format!("answers 503: {problem}"),
        _ => verified,
    };
    let made = source.webhook.as_ref().map_or_else(String::new, |webhook| match webhook.own {
        true => format!("; made at run time: {}'s own webhook", webhook.agent),
        false => {
            format!("; made at run time by a {}: \"{}\", starts {}", webhook.created_by, webhook.name, webhook.agent)
        }
    });
    let name = match &source.pause {
        None => source.name.clone(),
        Some(pause) if pause.resuming => format!("{} (resuming)", source.name),
        Some(_) => format!("{} (paused)", source.name),
    };
    [name, source.provider.clone(), source.url.clone(), verified + &made]
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

async fn show(context: &Context, name: &str) -> anyhow::Result<()> {
    let client = context.client()?;
    let list = client.sources().await?;
    let Some(source) = list.sources.into_iter().find(|source| source.name == name) else {
        let failure = Failure::new(Exit::NotFound, format!("there is no source `{name}`"));
        return Err(failure.hint("`doorbell sources` lists them").into());
    };
    // Only owners may see it, and mostly there is none.
    let captured = client.captured_secret(name).await.ok();
    if context.json {
        let mut shown = serde_json::to_value(&source)?;
        shown["capturedAt"] = captured.map(|captured| captured.captured_at).into();
        return output::json(&shown);
    }
    let clock = Clock::here();
    let [_, provider, url, verified] = row(&source, &clock);
    let mut table = Table::new(&[]);
    table.row(["Name", &source.name]);
    table.row(["Provider", &provider]);
    table.row(["URL", &url]);
    table.row(["Verified with", &verified]);
    if !source.ignored_senders.is_empty() {
        table.row(["Ignores", &source.ignored_senders.join(", ")]);
    }
    if let Some(pause) = &source.pause {
        table.row([if pause.resuming { "Resuming" } else { "Paused" }, &pauses::describe(pause, &clock)]);
    }
    for one in &source.subscriptions {
        let until = clock.show(&one.expires_at);
        table.row(["Subscribed", &format!("{} to {} until {until}: {}", one.id, one.to, one.arguments)]);
    }
    table.print()?;
    match captured {
        Some(captured) => Ok(output::line(format!("\n{}", in_words(&captured, &clock)))?),
        None => Ok(()),
    }
}

async fn captured(context: &Context, args: &CapturedArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    let name = &args.source;
    let missing = Failure::missing("captured secret of source", name, "doorbell sources");
    check_source(&client, Some(name)).await?;
    if args.forget {
        client.forget_captured_secret(name).await.map_err(missing)?;
        return Ok(output::line(format!("removed the captured secret of {}", escape_terminal(name)))?);
    }
    let captured = client.captured_secret(name).await.map_err(missing)?;
    if context.json {
        return output::json(&captured);
    }
    if args.secret {
        return Ok(output::line(pick(&captured, args.number)?)?);
    }
    output::line(in_words(&captured, &Clock::here()))?;
    let secrets = std::iter::once(&captured.secret).chain(captured.later.iter().map(|later| &later.secret));
    for (number, secret) in (1..).zip(secrets) {
        let number = if captured.later.is_empty() { String::new() } else { format!("{number}: ") };
        output::line(format!("\n{number}{}", escape_terminal(secret)))?;
    }
    Ok(())
}

/// The secret with this number; without one, the only one.
fn pick(captured: &CapturedSecret, number: Option<usize>) -> Result<&str, Failure> {
    let several = captured.later.len() + 1;
    let picked = match number {
        None if several > 1 => None,
        None | Some(1) => Some(&captured.secret),
        Some(number) => number.checked_sub(2).and_then(|at| captured.later.get(at)).map(|later| &later.secret),
    };
    picked.map(String::as_str).ok_or_else(|| {
        let said = format!("{several} secrets were shown to this source: say which one with --number 1 to {several}");
        Failure::new(Exit::Usage, said).hint(format!("`doorbell sources captured {}` lists them", captured.source))
    })
}

fn in_words(captured: &CapturedSecret, clock: &Clock) -> String {
    let shown =
        |at: &str, remote: &str| format!("{} from {}", escape_terminal(&clock.show(at)), escape_terminal(remote));
    let first = shown(&captured.captured_at, &captured.remote);
    let command = escape_terminal(&captured.command);
    if captured.later.is_empty() {
        return format!(
            "A secret was shown to this source at {first}. Anybody who knows its URL can show one: keep it only if this \
             was its provider, when you set the webhook up.\n\n  {command}"
        );
    }
    let mut said = format!(
        "Warning: {} different secrets were shown to this source, and its provider shows one. Anybody who knows the URL \
         can do so: take the one that came when you set the webhook up.\n\n  1: {first}\n",
        captured.later.len() + 1
    );
    for (number, later) in (2..).zip(&captured.later) {
        said.push_str(&format!("  {number}: {}\n", shown(&later.captured_at, &later.remote)));
    }
    format!("{said}\nIf you cannot tell: remove them (--forget) and let the provider show it again.\n\n  {command}")
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
        print_deliveries(&list.deliveries)?;
    }
    if is_full && i64::from(args.limit) < MOST {
        output::note(format!("more: --limit {MOST}"));
    }
    Ok(())
}

pub(super) fn print_deliveries(deliveries: &[Delivery]) -> anyhow::Result<()> {
    let clock = Clock::here();
    let mut table = Table::new(&["TIME", "STATUS", "AGAIN", "EVENT", "FROM", "WHY"]).wrapping_last();
    deliveries.iter().for_each(|delivery| table.row(delivery_row(delivery, &clock)));
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
    use doorbell_client::api::LaterSecret;

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

    #[test]
    fn of_several_secrets_that_were_shown_a_person_picks() {
        let shown = |secret: &str, remote: &str| LaterSecret {
            secret: secret.to_owned(),
            captured_at: "2026-01-31T09:30:00.000Z".to_owned(),
            remote: remote.to_owned(),
        };
        let mut captured = CapturedSecret {
            source: "wiki".to_owned(),
            credential: "notion_webhook_secret:wiki".to_owned(),
            field: "secret".to_owned(),
            secret: "first".to_owned(),
            captured_at: "2026-01-31T09:29:00.000Z".to_owned(),
            remote: "192.0.2.1".to_owned(),
            command: "doorbell …".to_owned(),
            later: Vec::new(),
        };
        assert_eq!(pick(&captured, None).unwrap(), "first");
        assert!(pick(&captured, Some(2)).is_err());
        captured.later = vec![shown("second", "192.0.2.2")];
        assert!(
            pick(&captured, None).is_err() && pick(&captured, Some(0)).is_err() && pick(&captured, Some(3)).is_err()
        );
        assert_eq!((pick(&captured, Some(1)).unwrap(), pick(&captured, Some(2)).unwrap()), ("first", "second"));
        let said = in_words(&captured, &Clock::fixed("2026-01-31T12:00:00Z"));
        assert!(
            said.starts_with("Warning: 2 different secrets") && said.contains("2: 09:30:00 from 192.0.2.2"),
            "{said}"
        );
        assert!(!said.contains("second"), "{said}");
    }
}
