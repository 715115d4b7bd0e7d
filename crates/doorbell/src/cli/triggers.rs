//! `doorbell triggers test`: what a trigger says to the events that came so far.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use doorbell_client::api::{TestedEvent, TriggerTest, TriggerTestResult};
use serde_json::{Map, Value};

use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{self, MOST, Table};
use super::time::{Clock, When};
use crate::clock;

/// Try triggers out
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TriggersArgs {
    #[command(subcommand)]
    command: TriggersCommand,
}

const EXAMPLES: &str = "\
Examples:
  doorbell triggers test triage --since 7d           the first trigger of an agent
  doorbell triggers test idea.toml --since 30d       a trigger that is in no agent yet
  echo 'source = \"github\"' | doorbell triggers test -";

#[derive(Debug, Subcommand)]
enum TriggersCommand {
    Test(TestArgs),
}

/// Hold a trigger against the stored events of its source, and start nothing
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct TestArgs {
    /// An agent of the project; or a TOML file with a trigger, or with `[[webhooks]]`; or `-` for standard input
    #[arg(
        value_name = "AGENT|FILE",
        required_unless_present = "agent",
        conflicts_with = "agent",
        add = completions::agents_and_files()
    )]
    what: Option<String>,
    /// An agent of the project, also where a file has that name
    #[arg(long, value_name = "NAME", add = completions::agents())]
    agent: Option<String>,
    /// Which one, where there are several `[[webhooks]]`, from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    trigger: u32,
    /// Only events that were received then or later: an RFC 3339 time, or how long ago (`90s`, `15m`, `1h`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = When::parse, default_value = "7d")]
    since: When,
    /// List at most so many events that match (up to 500) [default: 50]; all are counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    limit: Option<u32>,
}

pub(super) async fn run(context: &Context, args: TriggersArgs) -> anyhow::Result<()> {
    let TriggersCommand::Test(args) = args.command;
    let (name, text) = read(context, &args)?;
    let wish = TriggerTest {
        trigger: pick(&name, &text, args.trigger)?,
        since: Some(args.since.to_rfc3339(clock::now())),
        limit: args.limit.map(|limit| limit as usize),
    };
    let result = context.client()?.test_trigger(&wish).await.map_err(|error| wrong(error, &name, args.trigger))?;
    if context.json {
        return output::json(&result);
    }
    Ok(output::line(show(&result, &Clock::here()))?)
}

/// What the gateway says of a trigger that is none, under the name that it has here.
fn wrong(error: doorbell_client::Error, name: &str, number: u32) -> anyhow::Error {
    match error {
        doorbell_client::Error::Api(problem) if problem.code == "invalid_request" => {
            // The lines are those of the trigger alone, as the gateway read it.
            let detail = problem.detail.strip_prefix("error: ").unwrap_or(&problem.detail);
            Failure::usage(detail.replace("--> trigger:", &format!("--> {name}, trigger {number}, as it was read:")))
                .into()
        }
        error => error.into(),
    }
}

/// The TOML that holds the trigger, and what to call it.
fn read(context: &Context, args: &TestArgs) -> anyhow::Result<(String, String)> {
    if args.what.as_deref() == Some("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    if let Some(file) = args.what.as_deref().filter(|what| Path::new(what).is_file()) {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        return Ok((file.to_owned(), text));
    }
    let agent = args.agent.as_ref().or(args.what.as_ref()).map_or("", String::as_str);
    let folder = context.root()?.join("agents").join(agent);
    let named = Path::new(agent).components().count() == 1;
    let found =
        ["config.toml", "agent-config.toml"].into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
    match found.filter(|_| named) {
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((format!("agent {agent}"), text))
        }
        None => Err(Failure::new(Exit::NotFound, format!("there is neither an agent nor a file {agent:?}"))
            .hint("`doorbell agents` lists the agents")
            .into()),
    }
}

/// The trigger that is meant, of a file with one, or with several as `[[webhooks]]`.
fn pick(name: &str, text: &str, number: u32) -> anyhow::Result<Map<String, Value>> {
    let table: Map<String, Value> = toml_edit::de::from_str(text)
        .map_err(|error| Failure::usage(format!("{name} is not TOML: {}", error.message())))?;
    let list = match table.get("webhooks") {
        None if table.contains_key("source") => vec![Value::Object(table)],
        None => Vec::new(),
        Some(Value::Array(list)) => list.clone(),
        Some(other) => vec![other.clone()],
    };
    match list.get(number as usize - 1) {
        Some(Value::Object(trigger)) => Ok(trigger.clone()),
        _ if list.is_empty() => Err(Failure::usage(format!("{name} has no trigger"))
            .hint("a trigger is a `source` with filters, by itself or in [[webhooks]]")
            .into()),
        _ => Err(Failure::usage(format!("{name} has no trigger #{number}, only {}", list.len())).into()),
    }
}

fn show(result: &TriggerTestResult, clock: &Clock) -> String {
    if result.scanned == 0 {
        return "no events of its source came in that time".to_owned();
    }
    let oldest = result.oldest_at.as_deref().map(|at| clock.show(at)).unwrap_or_default();
    let rest =
        if result.complete { "all that came in that time" } else { "there are older ones that were not looked at" };
    let mut lines = vec![format!("{} events since {oldest}, {rest}:", result.scanned)];
    lines.push(format!(
        "  {} match, {} do not, for {} a condition failed",
        result.matched, result.not_matched, result.failed
    ));
    let more = result.matched - result.events.len().min(result.matched);
    let kinds =
        [("Matched", &result.events), ("Did not match, for example", &result.misses), ("Failed", &result.failures)];
    for (n, (title, events)) in kinds.into_iter().enumerate().filter(|(_, (_, events))| !events.is_empty()) {
        lines.push(format!("\n{title}"));
        lines.extend(list(events, clock).lines().map(|line| format!("  {line}")));
        if n == 0 && more > 0 {
            lines.push(format!("  and {more} more: --limit shows up to 500"));
        }
    }
    lines.join("\n")
}

fn list(events: &[TestedEvent], clock: &Clock) -> String {
    let mut table = Table::new(&[]).wrapping_last();
    for event in events {
        let key = event.key.as_ref().map(|key| format!("key {key}: ")).unwrap_or_default();
        let reason = format!("{key}{}", event.reason);
        table.row([clock.show(&event.received_at), event.id.clone(), event.event_type.clone(), reason]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_trigger_is_picked_from_what_a_file_has() {
        let source =
            |text, number| Ok::<_, anyhow::Error>(pick("it", text, number)?["source"].as_str().unwrap().to_owned());
        assert_eq!(source("source = \"a\"\nevents = [\"b\"]", 1).unwrap(), "a");
        let agent = "timeout = \"1m\"\n[[webhooks]]\nsource = \"a\"\n[[webhooks]]\nsource = \"b\"";
        assert_eq!((source(agent, 1).unwrap(), source(agent, 2).unwrap()), ("a".to_owned(), "b".to_owned()));
        assert_eq!(source(agent, 3).unwrap_err().to_string(), "it has no trigger #3, only 2");
        assert_eq!(source("timeout = \"1m\"", 1).unwrap_err().to_string(), "it has no trigger");
        assert!(source("source =", 1).unwrap_err().to_string().starts_with("it is not TOML"));
    }

    #[test]
    fn the_counts_come_first_and_then_what_matched_and_why_the_others_did_not() {
        let event = |reason: &str, key: Option<&str>| TestedEvent {
            id: "evt_1".to_owned(),
            event_type: "github.issues.opened".to_owned(),
            received_at: "2026-01-31T09:30:05.000Z".to_owned(),
            key: key.map(ToOwned::to_owned),
            reason: reason.to_owned(),
            clauses: Vec::new(),
        };
        let result = TriggerTestResult {
            scanned: 4,
            complete: false,
            oldest_at: Some("2026-01-31T09:30:05.000Z".to_owned()),
            matched: 2,
            not_matched: 1,
            failed: 1,
            events: vec![event("its `where` is true", Some("a\u{1b}"))],
            misses: vec![event("`where` is false", None)],
            failures: vec![],
        };
        let wanted = "\
4 events since 09:30:05, there are older ones that were not looked at:
  2 match, 1 do not, for 1 a condition failed

Matched
  09:30:05  evt_1  github.issues.opened  key a\\u{1b}: its `where` is true
  and 1 more: --limit shows up to 500

Did not match, for example
  09:30:05  evt_1  github.issues.opened  `where` is false";
        assert_eq!(show(&result, &Clock::fixed("2026-01-31T12:00:00Z")), wanted);
    }
}
