//! `doorbell webhooks`: webhooks that are made while the gateway runs.

use std::io::IsTerminal as _;

use clap::{Args, Subcommand};
use doorbell_client::api::{self, NewWebhook, Rotation, Webhook, WebhookTest};

use super::completions;
use super::consent;
use super::context::Context;
use super::creds;
use super::failure::{Exit, Failure};
use super::output::{self, MOST, Table, escape_terminal};
use super::sources;
use super::time::Clock;
use crate::config::parse_duration;

/// Manage webhooks that are made while the gateway runs: each has a URL of its own and starts one agent
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct WebhooksArgs {
    #[command(subcommand)]
    command: WebhooksCommand,
}

const EXAMPLES: &str = "\
Examples:
  doorbell webhooks create triage --name pushes --provider github
  doorbell webhooks list triage
  doorbell webhooks test triage whk_01K…
  doorbell webhooks rotate triage whk_01K… --overlap 1h";

#[derive(Debug, Subcommand)]
enum WebhooksCommand {
    Create(CreateArgs),
    List(ListArgs),
    Rotate(RotateArgs),
    Delete(DeleteArgs),
    Activate(OneArgs),
    Deliveries(DeliveriesArgs),
    Test(TestArgs),
}

/// Make a webhook for an agent; its secret is shown once, and never again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell webhooks create triage --name pushes --provider github\n  \
    printenv STRIPE_SECRET | doorbell webhooks create billing --name stripe --provider stripe --secret-stdin")]
struct CreateArgs {
    /// The agent that it starts
    #[arg(add = completions::agents())]
    agent: String,
    /// A label, to know it by
    #[arg(long)]
    name: String,
    /// Who sends (`doorbell providers` lists them)
    #[arg(long, default_value = "generic", add = completions::provider_names())]
    provider: String,
    /// Read the secret that the sender made from standard input, instead of making one; one line end is not part of it
    #[arg(long)]
    secret_stdin: bool,
}

/// List the webhooks of an agent, without their secrets
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell webhooks list triage --json")]
struct ListArgs {
    /// The agent
    #[arg(add = completions::agents())]
    agent: String,
}

/// Replace the secret of a webhook; the new one is shown once, the old one verifies for a while
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell webhooks rotate triage whk_01K… --overlap 0s")]
struct RotateArgs {
    #[command(flatten)]
    which: Which,
    /// How long the old secret still verifies [default: 24h]
    #[arg(long, value_name = "DURATION")]
    overlap: Option<String>,
    /// Read the secret that the sender made from standard input, instead of making one; one line end is not part of it
    #[arg(long)]
    secret_stdin: bool,
    /// Do not ask on a terminal before the old secret is refused at once (`--overlap 0s`)
    #[arg(short, long)]
    yes: bool,
}

/// Deactivate a webhook: its URL answers with 404 from then on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell webhooks delete triage whk_01K… --yes")]
struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Have a webhook that was deleted take deliveries again, with the secret that it had
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell webhooks activate triage whk_01K…")]
struct OneArgs {
    #[command(flatten)]
    which: Which,
}

/// List what came to a webhook, newest first: accepted, delivered again, and refused with the cause
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell webhooks deliveries triage whk_01K… --limit 500")]
struct DeliveriesArgs {
    #[command(flatten)]
    which: Which,
    /// At most so many (up to 500)
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MOST))]
    limit: u32,
}

/// Send a webhook a signed sample, as its sender would, and see what becomes of it; it starts the agent
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell webhooks test triage whk_01K… issues.opened")]
struct TestArgs {
    #[command(flatten)]
    which: Which,
    /// Which sample of the provider (`doorbell ring PROVIDER` lists them) [default: its first]
    event: Option<String>,
}

#[derive(Debug, Args)]
struct Which {
    /// The agent
    #[arg(add = completions::agents())]
    agent: String,
    /// The webhook's id (`doorbell webhooks list AGENT`)
    #[arg(value_name = "WEBHOOK")]
    id: String,
}

impl Which {
    /// The gateway says that there is no such webhook.
    fn missing(&self) -> impl FnOnce(doorbell_client::Error) -> anyhow::Error + use<> {
        let message = format!("there is no webhook {} (`doorbell webhooks list {}` lists them)", self.id, self.agent);
        move |error| match error.status() {
            Some(404) => Failure::new(Exit::NotFound, message).into(),
            _ => error.into(),
        }
    }
}

pub(super) async fn run(context: &Context, args: WebhooksArgs) -> anyhow::Result<()> {
    match args.command {
        WebhooksCommand::Create(args) => create(context, args).await,
        WebhooksCommand::List(args) => list(context, &args.agent).await,
        WebhooksCommand::Rotate(args) => rotate(context, args).await,
        WebhooksCommand::Delete(args) => delete(context, &args).await,
        WebhooksCommand::Activate(args) => activate(context, &args.which).await,
        WebhooksCommand::Deliveries(args) => deliveries(context, &args).await,
        WebhooksCommand::Test(args) => test(context, args).await,
    }
}

async fn create(context: &Context, args: CreateArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    let mut wish = NewWebhook { name: args.name, provider: Some(args.provider), secret: None };
    let created = match args.secret_stdin {
        true => {
            wish.secret = Some(text(creds::read_stdin()?)?);
            client.create_webhook(&args.agent, &wish).await
        }
        false => match client.create_webhook(&args.agent, &wish).await {
            // Its sender makes the secret: ask for it, if there is somebody to ask.
            Err(error) if wants_secret(&error) && std::io::stdin().is_terminal() => {
                output::note(escape_terminal(&error.to_string()));
                wish.secret = Some(text(creds::ask("the secret")?)?);
                client.create_webhook(&args.agent, &wish).await
            }
            Err(error) if wants_secret(&error) => return Err(unasked(&error)),
            created => created,
        },
    };
    let created = created.map_err(Failure::no_agent(&args.agent))?;
    if context.json {
        return output::json(&created);
    }
    let mut table = Table::new(&[]);
    table.row(["Webhook", &created.webhook_id]);
    table.row(["URL", &created.url]);
    table.row(["Starts", &args.agent]);
    if let Some(secret) = &created.signing_secret {
        table.row(["Secret", secret]);
    }
    table.print()?;
    if created.signing_secret.is_some() {
        output::note("keep the secret: it is not shown again");
    }
    Ok(())
}

/// Whether the sender makes the secret, and it was not given.
fn wants_secret(error: &doorbell_client::Error) -> bool {
    error.status() == Some(400) && error.to_string().contains("`secret`")
}

/// It was not given, and there is nobody to ask.
fn unasked(error: &doorbell_client::Error) -> anyhow::Error {
    Failure::usage(error.to_string()).hint("pipe it in with --secret-stdin; it is never an argument").into()
}

fn text(secret: doorbell_core::secret::Secret) -> anyhow::Result<String> {
    match secret.expose_str() {
        Some(_) if secret.is_blank() => Err(Failure::usage("the secret is empty").into()),
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::usage("the secret is not text").into()),
    }
}

async fn list(context: &Context, agent: &str) -> anyhow::Result<()> {
    let list = context.client()?.webhooks(agent).await.map_err(Failure::no_agent(agent))?;
    if context.json {
        return output::json(&list);
    }
    if list.webhooks.is_empty() {
        output::note(format!("no webhooks: `doorbell webhooks create {} --name …` makes one", escape_terminal(agent)));
        return Ok(());
    }
    let clock = Clock::here();
    let mut table = Table::new(&["WEBHOOK", "NAME", "PROVIDER", "ACTIVE", "BY", "MADE", "URL"]).wrapping_last();
    list.webhooks.iter().for_each(|webhook| table.row(row(webhook, &clock)));
    table.print()?;
    for webhook in &list.webhooks {
        if let Some(problem) = &webhook.problem {
            output::note(escape_terminal(&format!("{}: {problem}", webhook.webhook_id)));
        }
    }
    Ok(())
}

fn row(webhook: &Webhook, clock: &Clock) -> [String; 7] {
    let active = match (webhook.active, &webhook.problem) {
        (true, None) => "yes",
        (true, Some(_)) => "yes, answers 503",
        (false, _) => "no",
    };
    [
        webhook.webhook_id.clone(),
        webhook.name.clone(),
        webhook.provider.clone(),
        active.to_owned(),
        webhook.created_by.clone(),
        clock.show(&webhook.created_at),
        webhook.url.clone(),
    ]
}

async fn rotate(context: &Context, args: RotateArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    let Which { agent, id } = &args.which;
    ask_for_no_overlap(args.yes, args.overlap.as_deref(), id)?;
    let mut wish = Rotation { overlap: args.overlap, secret: None };
    let rotated = match args.secret_stdin {
        true => {
            wish.secret = Some(text(creds::read_stdin()?)?);
            client.rotate_webhook(agent, id, &wish).await
        }
        false => match client.rotate_webhook(agent, id, &wish).await {
            Err(error) if wants_secret(&error) && std::io::stdin().is_terminal() => {
                output::note(escape_terminal(&error.to_string()));
                wish.secret = Some(text(creds::ask("the secret")?)?);
                client.rotate_webhook(agent, id, &wish).await
            }
            Err(error) if wants_secret(&error) => return Err(unasked(&error)),
            rotated => rotated,
        },
    };
    let rotated = rotated.map_err(args.which.missing())?;
    if context.json {
        return output::json(&rotated);
    }
    let until = Clock::here().show(&rotated.old_until);
    output::note(format!("{}: earlier secrets verify until {until}", escape_terminal(&rotated.webhook_id)));
    match &rotated.signing_secret {
        Some(secret) => {
            output::note("keep the secret: it is not shown again");
            Ok(output::line(escape_terminal(secret))?)
        }
        None => Ok(()),
    }
}

async fn delete(context: &Context, args: &DeleteArgs) -> anyhow::Result<()> {
    let Which { agent, id } = &args.which;
    let unasked = format!("there is no terminal to ask on whether to delete {id}");
    let question = format!("Delete {}? What its sender still sends will be answered with 404.", escape_terminal(id));
    consent::demand(args.yes, unasked, &question)?;
    let deleted = context.client()?.delete_webhook(agent, id).await.map_err(args.which.missing())?;
    match context.json {
        true => output::json(&deleted),
        false => Ok(output::line(format!(
            "{} takes no more deliveries; take its URL out at the sender, too",
            escape_terminal(&deleted.webhook_id)
        ))?),
    }
}

/// Asks before a secret is refused at once.
fn ask_for_no_overlap(yes: bool, overlap: Option<&str>, whose: &str) -> anyhow::Result<()> {
    if !overlap.is_some_and(|overlap| parse_duration(overlap).is_ok_and(|overlap| overlap.is_zero())) {
        return Ok(());
    }
    let question = format!(
        "Replace the secret of {} with no overlap? What is signed with the old one is refused at once.",
        escape_terminal(whose)
    );
    consent::ask(yes, &question)
}

async fn activate(context: &Context, which: &Which) -> anyhow::Result<()> {
    let activated = context.client()?.activate_webhook(&which.agent, &which.id).await.map_err(which.missing())?;
    match context.json {
        true => output::json(&activated),
        false => {
            let (id, url) = (escape_terminal(&activated.webhook_id), escape_terminal(&activated.url));
            Ok(output::line(format!("{id} takes deliveries at {url}"))?)
        }
    }
}

async fn deliveries(context: &Context, args: &DeliveriesArgs) -> anyhow::Result<()> {
    let Which { agent, id } = &args.which;
    let list = context.client()?.webhook_deliveries(agent, id, Some(args.limit)).await;
    let list = list.map_err(args.which.missing())?;
    if context.json {
        return output::json(&list);
    }
    if list.deliveries.is_empty() {
        output::note("nothing came to this webhook yet");
        return Ok(());
    }
    sources::print_deliveries(&list.deliveries)
}

async fn test(context: &Context, args: TestArgs) -> anyhow::Result<()> {
    let Which { agent, id } = &args.which;
    let tested = context.client()?.test_webhook(agent, id, &WebhookTest { event: args.event }).await;
    let tested = tested.map_err(args.which.missing())?;
    if context.json {
        output::json(&tested)?;
    } else if tested.accepted {
        let event = tested.delivery_id.as_deref().unwrap_or("an event");
        let runs = if tested.runs.is_empty() { "nothing".to_owned() } else { tested.runs.join(", ") };
        let sample = escape_terminal(&tested.event);
        output::line(format!("{sample} was accepted ({}) as {event}, and started {runs}", tested.status))?;
    }
    if tested.accepted {
        return Ok(());
    }
    let why: Vec<&str> = [&tested.code, &tested.detail].into_iter().flatten().map(String::as_str).collect();
    let why = format!("{} was refused with {}: {}", tested.event, tested.status, why.join(": "));
    Err(Failure::new(Exit::Failed, why).into())
}

/// Show an agent's own webhook, or change it: one URL that starts the agent with what is posted there
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell agents webhook triage --enable\n  \
    doorbell agents webhook triage --auth hmac\n  doorbell agents webhook triage --rotate --overlap 0s")]
pub(super) struct OwnArgs {
    /// The agent
    #[arg(add = completions::agents())]
    agent: String,
    /// Have it take requests
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Have it take no more requests
    #[arg(long)]
    disable: bool,
    /// How requests prove themselves; with `none`, anybody can start the agent
    #[arg(long, value_parser = ["bearer", "hmac", "none"])]
    auth: Option<String>,
    /// Make a new secret
    #[arg(long)]
    rotate: bool,
    /// How long the old secret still verifies [default: 24h]
    #[arg(long, value_name = "DURATION", requires = "rotate")]
    overlap: Option<String>,
    /// Do not ask on a terminal before anybody can start the agent (`--auth none`), or the old secret is refused at once
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn own(context: &Context, args: OwnArgs) -> anyhow::Result<()> {
    if args.auth.as_deref() == Some("none") {
        let agent = escape_terminal(&args.agent);
        consent::ask(args.yes, &format!("Ask for no proof? Anybody who knows the URL can start {agent} then."))?;
    }
    ask_for_no_overlap(args.yes, args.overlap.as_deref(), &args.agent)?;
    let wish = api::OwnWebhookWish {
        webhook_enabled: (args.enable || args.disable).then_some(args.enable),
        webhook_auth: args.auth,
        rotate_secret: args.rotate,
        overlap: args.overlap,
    };
    let own = context.client()?.own_webhook(&args.agent, &wish).await.map_err(Failure::no_agent(&args.agent))?;
    if context.json {
        return output::json(&own);
    }
    let mut table = Table::new(&[]);
    table.row(["Agent", &own.id]);
    table.row(["Webhook", if own.webhook_enabled { "enabled" } else { "not enabled" }]);
    table.row(["URL", &own.webhook_url]);
    table.row(["Proved by", &own.webhook_auth]);
    if let Some(secret) = &own.webhook_secret {
        table.row(["Secret", secret]);
    }
    table.print()?;
    if own.webhook_secret.is_some() {
        output::note("keep the secret: it is not shown again");
    }
    if own.webhook_enabled && own.webhook_auth == "none" {
        output::note("warning: anybody who knows the URL can start this agent");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_that_cannot_verify_says_so_in_its_row() {
        let webhook = Webhook {
            webhook_id: "whk_1".to_owned(),
            name: "pushes".to_owned(),
            provider: "github".to_owned(),
            active: true,
            created_by: "agent".to_owned(),
            created_at: "2026-01-31T09:30:00.000Z".to_owned(),
            updated_at: "2026-01-31T09:30:00.000Z".to_owned(),
            url: "http://x/v1/hooks/whk_1".to_owned(),
            problem: Some("no master key".to_owned()),
        };
        let row = row(&webhook, &Clock::fixed("2026-01-31T12:00:00Z"));
        assert_eq!(row[3..6], ["yes, answers 503", "agent", "09:30:00"]);
    }
}
