//! `doorbell events`: what came in.

use clap::{Args, Subcommand};
use doorbell_client::api::{Event, EventDetail, Outcome};
use doorbell_client::{EventQuery, api};
use doorbell_core::event::is_own;

use super::completions;
use super::context::Context;
use super::failure::Failure;
use super::known;
use super::output::{self, MOST, Table};
use super::time::{Clock, When};
use crate::clock;

mod rm;

/// List events, newest first, show one, or forget some
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    #[command(subcommand)]
    command: Option<EventsCommand>,
    #[command(flatten)]
    filters: Filters,
}

const EXAMPLES: &str = "\
Examples:
  doorbell events --since 1h --event issues.opened
  doorbell events --q \"login bug\"
  doorbell events show evt_01K…
  doorbell events show evt_01K… --body > body.json
  doorbell events rm evt_01K…";

#[derive(Debug, Subcommand)]
enum EventsCommand {
    Show(ShowArgs),
    Rm(rm::RmArgs),
}

/// Show an event: its headers, what became of it, and its body
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell events show evt_01K… --body > body.json")]
struct ShowArgs {
    /// The event's id
    #[arg(add = completions::events())]
    id: String,
    /// Print the body only, byte for byte
    #[arg(long, conflicts_with = "json")]
    body: bool,
}

#[derive(Debug, Args)]
struct Filters {
    /// Of this source
    #[arg(long, value_name = "NAME", add = completions::sources())]
    source: Option<String>,
    /// Of this kind: `issues`, `issues.opened` or `github.issues.opened`
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// With such an outcome for any agent; `none`: no agent wanted it
    #[arg(long, value_parser = ["started", "absorbed", "skipped", "dropped", "filter_error", "none"])]
    outcome: Option<String>,
    /// Received then or later: an RFC 3339 time, or how long ago (`90s`, `15m`, `1h`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Received before: a time as for --since
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// That say this in their name, source, delivery id or context: words that must all be there, by their beginnings; "in
    /// quotation marks" a phrase as it stands
    #[arg(long, visible_alias = "search", value_name = "WORDS")]
    q: Option<String>,
    /// Look for --q in their bodies, too. Slow: it looks at some thousand events, and says where to go on
    #[arg(long, requires = "q")]
    bodies: bool,
    /// At most so many (up to 500) [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    limit: Option<u32>,
    /// Go on where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

pub(super) async fn run(context: &Context, args: EventsArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context, args.filters).await,
        Some(EventsCommand::Show(args)) => show(context, &args).await,
        Some(EventsCommand::Rm(args)) => rm::run(context, args).await,
    }
}

async fn list(context: &Context, filters: Filters) -> anyhow::Result<()> {
    let now = clock::now();
    let query = EventQuery {
        source: filters.source,
        event: filters.event,
        outcome: filters.outcome,
        since: filters.since.map(|when| when.to_rfc3339(now)),
        until: filters.until.map(|when| when.to_rfc3339(now)),
        q: filters.q,
        bodies: filters.bodies.then_some(true),
        cursor: filters.cursor,
        limit: filters.limit,
    };
    let client = context.client()?;
    let page = client.events(&query).await?;
    if page.events.is_empty() {
        known::check_source(&client, query.source.as_deref()).await?;
    }
    if context.json {
        return output::json(&page);
    }
    let clock = Clock::here();
    if page.events.is_empty() {
        output::note("no such events");
        note_more(&page, &clock);
        return Ok(());
    }
    let mut table = Table::new(&["TIME", "ID", "EVENT", "SOURCE", "OUTCOMES"]).keeping_lines();
    page.events.iter().for_each(|event| table.row(row(event, &clock)));
    table.print()?;
    note_more(&page, &clock);
    Ok(())
}

/// How to go on, and how far it was looked.
fn note_more(page: &api::EventPage, clock: &Clock) {
    let Some(cursor) = &page.next_cursor else { return };
    let cursor = output::escape_terminal(cursor);
    match &page.searched_back_to {
        Some(at) => output::note(format!("looked at events since {}; go on with --cursor {cursor}", clock.show(at))),
        None => output::note(format!("more: --cursor {cursor}")),
    }
}

fn row(event: &Event, clock: &Clock) -> [String; 5] {
    // Each on a line of its own, and no line that is not one of them.
    let outcome = |of: &Outcome| output::escape_terminal(&format!("{}: {}", of.agent, of.outcome)).into_owned();
    let outcomes = event.outcomes.iter().map(outcome).collect::<Vec<_>>().join("\n");
    let again = if event.duplicates > 0 { format!(" (+{} again)", event.duplicates) } else { String::new() };
    [
        clock.show(&event.received_at),
        event.id.clone(),
        format!("{}{again}{}", event.event_type, remark(event)),
        event.source.clone(),
        if event.outcomes.is_empty() { "-".to_owned() } else { outcomes },
    ]
}

fn remark(event: &Event) -> &'static str {
    match (&event.forgotten_at, &event.replay) {
        (Some(_), _) => " (forgotten)",
        (None, Some(_)) => " (replay)",
        (None, None) => "",
    }
}

async fn show(context: &Context, args: &ShowArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    if args.body {
        return Ok(output::raw(&client.event_body(&args.id).await.map_err(Failure::no_event(&args.id))?)?);
    }
    let detail = client.event(&args.id).await.map_err(Failure::no_event(&args.id))?;
    if context.json {
        return output::json(&detail);
    }
    let clock = Clock::here();
    if detail.event.forgotten_at.is_some() {
        facts(&detail, &clock).print()?;
        output::line("\nWhat became of it")?;
        return Ok(outcomes(&detail.event, &clock).print()?);
    }
    let body = client.event_body(&args.id).await?;
    facts(&detail, &clock).print()?;
    print_headers(&detail)?;
    output::line("\nWhat became of it")?;
    outcomes(&detail.event, &clock).print()?;
    output::line("\nBody")?;
    Ok(output::line(output::escape_text(&readable(&body)))?)
}

fn facts(detail: &EventDetail, clock: &Clock) -> Table {
    let api::EventDetail { event, .. } = detail;
    let mut table = Table::new(&[]);
    table.row(["Id", &event.id]);
    table.row(["Event", &event.event_type]);
    table.row(["Source", &event.source]);
    table.row(["Received", &clock.show(&event.received_at)]);
    table.row(["Delivery id", event.delivery_id.as_deref().unwrap_or("-")]);
    let unsigned = match is_own(&event.provider) {
        true => "no delivery brought it: the gateway made it itself",
        false => "nothing: the source takes unsigned deliveries",
    };
    table.row(["Verified by", event.verified_by.as_deref().unwrap_or(unsigned)]);
    if let Some(replay) = &event.replay {
        table.row(["Replay", &format!("{}: a replay of {}", replay.id, replay.event)]);
    }
    if let Some(retried) = &detail.retried {
        table.row(["Sender's retry", &format!("{retried}, as it says itself")]);
    }
    let again = match event.duplicates {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    table.row(["Delivered again", &again]);
    match &event.forgotten_at {
        Some(at) => table.row(["Forgotten", &format!("{}: what it said was removed for good", clock.show(at))]),
        None => table.row(["Body", &format!("{} bytes", event.body_size)]),
    }
    if event.handshake {
        table.row(["Handshake", "yes: it is answered at once, and starts only agents whose `events` name it"]);
    }
    for (name, value) in &event.context {
        table.row([name.as_str(), &text_of(value)]);
    }
    table
}

fn print_headers(detail: &EventDetail) -> std::io::Result<()> {
    output::line("\nHeaders")?;
    let mut table = Table::new(&[]);
    for (name, value) in &detail.headers {
        table.row([name.as_str(), &text_of(value)]);
    }
    table.print()
}

/// What became of an event, one agent a row; for `why`, too.
pub(super) fn outcomes(event: &Event, clock: &Clock) -> Table {
    let mut table = Table::new(&[]);
    for outcome in &event.outcomes {
        table.row([
            outcome.agent.as_str(),
            &outcome.outcome,
            outcome.run_id.as_deref().unwrap_or("-"),
            &clock.show(&outcome.at),
            outcome.reason.as_deref().unwrap_or_default(),
        ]);
    }
    if event.outcomes.is_empty() {
        table.row(["no agent wanted it"]);
    }
    table
}

/// A value of JSON as a person writes it.
pub(super) fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(list) => list.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A body for people: indented if it is JSON, cut if it is long.
fn readable(body: &[u8]) -> String {
    const MOST: usize = 64 << 10;
    let parsed = serde_json::from_slice::<serde_json::Value>(body).ok();
    let pretty = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok());
    let mut text = pretty.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push_str("\n… (the rest is cut: --body prints it whole)");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event() -> Event {
        serde_json::from_value(serde_json::json!({
            "id": "evt_1", "seq": 1, "source": "acme", "provider": "github", "eventType": "github.issues.opened",
            "event": "issues", "action": "opened", "receivedAt": "2026-01-31T09:30:05.000Z", "deliveryId": null,
            "verifiedBy": "acme", "handshake": false, "duplicates": 2, "bodySize": 2, "context": {},
            "outcomes": [
                {"agent": "triage", "outcome": "started", "runId": "run_1", "trigger": 0, "reason": null, "at": "x"},
                {"agent": "notify", "outcome": "dropped", "runId": null, "trigger": 0, "reason": "full", "at": "x"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn a_row_says_what_became_of_the_event_for_each_agent() {
        let row = row(&event(), &Clock::fixed("2026-01-31T12:00:00Z"));
        assert_eq!(
            row.each_ref().map(String::as_str),
            ["09:30:05", "evt_1", "github.issues.opened (+2 again)", "acme", "triage: started\nnotify: dropped",]
        );
    }

    #[test]
    fn an_event_that_nobody_wanted_says_so() {
        let nobody = Event { outcomes: Vec::new(), ..event() };
        assert_eq!(row(&nobody, &Clock::fixed("2026-01-31T12:00:00Z"))[4], "-");
        assert_eq!(outcomes(&nobody, &Clock::fixed("2026-01-31T12:00:00Z")).render(), "no agent wanted it");
    }

    #[test]
    fn a_body_is_indented_if_it_is_json() {
        assert_eq!(readable(br#"{"a":[1]}"#), "{\n  \"a\": [\n    1\n  ]\n}");
        assert_eq!(readable(b"a=b&c"), "a=b&c");
        assert!(readable("ü".repeat(50_000).as_bytes()).ends_with("prints it whole)"), "cut between characters");
    }
}
