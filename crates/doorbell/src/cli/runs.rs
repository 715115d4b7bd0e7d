//! `doorbell runs`: what the agents do and did.

use clap::{Args, Subcommand};
use doorbell_client::RunQuery;
use doorbell_client::api::{Attempt, LinkedRun, Run, RunDetail, WaitsFor};
use doorbell_core::run::State;

mod answer;
mod dead;
mod many;

use super::completions;
use super::context::Context;
use super::failure::Failure;
use super::known;
use super::output::{self, MOST, Table, escape_terminal};
use super::time::Clock;
use crate::store::CauseKind;

/// List runs, newest first, show one, end one, let held ones go on, or answer what one asks
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(super) struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    #[command(flatten)]
    filters: Filters,
}

const EXAMPLES: &str = "\
Examples:
  doorbell runs --agent triage --state failed
  doorbell runs --with-key acme/app#7
  doorbell runs show run_01K…
  doorbell runs cancel run_01K…
  doorbell runs answer run_01K… yes";

#[derive(Debug, Subcommand)]
enum RunsCommand {
    Show(ShowArgs),
    Cancel(CancelArgs),
    Release(ReleaseArgs),
    Retry(RetryArgs),
    Answer(answer::AnswerArgs),
    Dead(DeadArgs),
}

/// List dead letters by what they failed of, the most frequent first, each with the command that tries them again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell runs dead\n  doorbell runs dead --agent triage")]
struct DeadArgs {
    /// Of this agent
    #[arg(long, value_name = "NAME", add = completions::agents())]
    agent: Option<String>,
}

/// Show a run: where it stands, its tries and its result
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell runs show run_01K…")]
struct ShowArgs {
    /// The run's id
    #[arg(add = completions::runs())]
    id: String,
}

/// End runs: at once if they wait, else by asking the agent's processes to end
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell runs cancel run_01K…\n  doorbell runs cancel --agent triage --state queued"
)]
struct CancelArgs {
    #[command(flatten)]
    which: Which,
    /// Do not ask on a terminal before all that a filter finds are ended
    #[arg(short, long)]
    yes: bool,
}

/// Let held runs go on, and start those now that wait for their next try or gather events
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell runs --state held\n  doorbell runs release run_01K…\n  doorbell runs release --agent triage"
)]
struct ReleaseArgs {
    #[command(flatten)]
    which: Which,
}

/// Try runs again that failed, were cancelled, superseded or dropped: the same runs, with all their tries
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell runs --dead-letter\n  doorbell runs retry run_01K…\n  doorbell runs retry --dead-letter --dry-run\n  doorbell runs retry --agent triage --cause 1a2b3c4d"
)]
struct RetryArgs {
    #[command(flatten)]
    which: Which,
    /// All dead letters that failed of this, as `doorbell runs dead` names it; or a reason as a run has it
    #[arg(long, value_name = "CAUSE", group = "which", conflicts_with = "ids")]
    cause: Option<String>,
}

/// Runs by their ids, or all that a filter finds.
#[derive(Debug, Args)]
#[group(id = "which", required = true)]
struct Which {
    /// The runs' ids
    #[arg(add = completions::runs(), conflicts_with_all = ["agent", "state", "dead_letter", "with_key", "event", "dry_run"])]
    ids: Vec<String>,
    /// All of this agent
    #[arg(long, value_name = "NAME", add = completions::agents())]
    agent: Option<String>,
    /// All in this state
    #[arg(long, value_parser = State::ALL.map(State::as_str))]
    state: Option<String>,
    /// All that failed with all their tries used up
    #[arg(long)]
    dead_letter: bool,
    /// All about this
    #[arg(long, value_name = "KEY", add = completions::run_keys())]
    with_key: Option<String>,
    /// All that this event caused
    #[arg(long, value_name = "ID", add = completions::events())]
    event: Option<String>,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Filters {
    /// Of this agent
    #[arg(long, value_name = "NAME", add = completions::agents())]
    agent: Option<String>,
    /// In this state
    #[arg(long, value_parser = State::ALL.map(State::as_str))]
    state: Option<String>,
    /// Only those that failed with all their tries used up
    #[arg(long)]
    dead_letter: bool,
    /// About this: the value of their trigger's `key` (`--key` is the API key)
    #[arg(long, value_name = "KEY", add = completions::run_keys())]
    with_key: Option<String>,
    /// Caused by this event
    #[arg(long, value_name = "ID", add = completions::events())]
    event: Option<String>,
    /// By a cause of this kind
    #[arg(long, value_parser = CauseKind::ALL.map(CauseKind::as_str))]
    trigger: Option<String>,
    /// At most so many (up to 500) [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    limit: Option<u32>,
    /// Go on where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

pub(super) async fn run(context: &Context, args: RunsArgs) -> anyhow::Result<()> {
    match args.command {
        None => list(context, args.filters).await,
        Some(RunsCommand::Show(args)) => show(context, &args.id).await,
        Some(RunsCommand::Cancel(args)) => many::cancel(context, args.which, args.yes).await,
        Some(RunsCommand::Release(args)) => many::change(context, many::Verb::Release, args.which, None).await,
        Some(RunsCommand::Retry(args)) => many::change(context, many::Verb::Retry, args.which, args.cause).await,
        Some(RunsCommand::Answer(args)) => answer::run(context, args).await,
        Some(RunsCommand::Dead(args)) => dead::list(context, args.agent.as_deref()).await,
    }
}

async fn list(context: &Context, filters: Filters) -> anyhow::Result<()> {
    let Filters { agent, state, dead_letter, with_key, event, trigger, limit, cursor } = filters;
    let query = RunQuery {
        agent,
        state,
        dead_letter: dead_letter.then_some(true),
        key: with_key,
        event,
        trigger,
        cursor,
        limit,
    };
    let client = context.client()?;
    let page = client.runs(&query).await?;
    if page.runs.is_empty() {
        known::check_agent(&client, query.agent.as_deref()).await?;
    }
    if context.json {
        return output::json(&page);
    }
    if page.runs.is_empty() {
        output::note("no such runs");
        return Ok(());
    }
    let clock = Clock::here();
    let mut table = Table::new(&["TIME", "ID", "AGENT", "EVENT", "KEY", "STATE", "TRY", "TOOK", "WHY"]).wrapping_last();
    page.runs.iter().for_each(|run| table.row(row(run, &clock)));
    table.print()?;
    if let Some(cursor) = page.next_cursor {
        output::note(format!("more: --cursor {}", escape_terminal(&cursor)));
    }
    Ok(())
}

fn row(run: &Run, clock: &Clock) -> [String; 9] {
    [
        clock.show(&run.created_at),
        run.id.clone(),
        run.agent.clone(),
        run.event_type.clone(),
        run.key.clone().unwrap_or_else(|| "-".to_owned()),
        state(run),
        run.attempt.to_string(),
        clock.between(run.started_at.as_deref(), run.finished_at.as_deref()),
        run.reason.clone().unwrap_or_default(),
    ]
}

fn state(run: &Run) -> String {
    match (run.dead_letter, &run.cancel_requested_by) {
        (true, _) => format!("{} (dead letter)", run.state),
        (false, Some(_)) if run.state == "running" => format!("{} (asked to end)", run.state),
        (false, _) => run.state.clone(),
    }
}

async fn show(context: &Context, id: &str) -> anyhow::Result<()> {
    let detail = context.client()?.run(id).await.map_err(Failure::no_run(id))?;
    if context.json {
        return output::json(&detail);
    }
    let clock = Clock::here();
    let mut facts = facts(&detail.run, &clock);
    if let Some(parent) = &detail.parent {
        facts.row(["Called by", &linked(parent)]);
    }
    for child in &detail.children {
        facts.row(["Called", &linked(child)]);
    }
    if let Some(worker) = detail.attempts.last().and_then(|attempt| attempt.worker.as_deref()) {
        facts.row([if detail.run.state == "running" { "With worker" } else { "Last worker" }, worker]);
    }
    facts.print()?;
    if !detail.attempts.is_empty() {
        output::line("")?;
        attempts(&detail, &clock).print()?;
    }
    if !detail.events.is_empty() {
        output::line("")?;
        let mut table = Table::new(&["WITH EVENT", "TYPE", "RECEIVED"]);
        for event in &detail.events {
            table.row([event.event_id.clone(), event.event_type.clone(), clock.show(&event.received_at)]);
        }
        table.print()?;
    }
    if !detail.steps.is_empty() {
        output::line("")?;
        let mut table = Table::new(&["STEP", "KEPT", "BYTES"]);
        for step in &detail.steps {
            table.row([step.key.clone(), clock.show(&step.at), step.bytes.to_string()]);
        }
        table.print()?;
    }
    if let Some(result) = &detail.run.result {
        output::line("\nResult")?;
        output::line(output::escape_text(&serde_json::to_string_pretty(result)?))?;
    }
    Ok(())
}

fn linked(run: &LinkedRun) -> String {
    format!("{} of {}, {}", run.run_id, run.agent, run.state.as_deref().unwrap_or("not kept any more"))
}

fn facts(run: &Run, clock: &Clock) -> Table {
    let mut table = Table::new(&[]);
    table.row(["Id", &run.id]);
    table.row(["Agent", &run.agent]);
    table.row(["State", &state(run)]);
    table.row(["Why", run.reason.as_deref().unwrap_or("-")]);
    let more = match run.absorbed {
        0 => String::new(),
        1 => ", and one more".to_owned(),
        more => format!(", and {more} more"),
    };
    table.row(["Event", &format!("{} {}{more}", run.event_id, run.event_type)]);
    if let Some(key) = &run.key {
        table.row(["Key", key]);
    }
    table.row(["Made", &clock.show(&run.created_at)]);
    table.row(["Started", &clock.show_some(run.started_at.as_deref())]);
    table.row(["Ended", &clock.show_some(run.finished_at.as_deref())]);
    if let Some(due) = &run.due_at {
        let what = match &run.waits_for {
            Some(waits) if waits.kind == "sleep" => "Until",
            Some(_) => "Until at most",
            None if run.attempt == 0 => "Starts",
            None => "Next try",
        };
        table.row([what, &clock.show(due)]);
    }
    if let Some(waits) = &run.waits_for {
        waits_for(waits, run, &mut table);
    }
    if let Some(by) = &run.resumed_by {
        table.row(["Went on by", &by.what]);
    }
    if let Some(moved) = &run.moved_on {
        let how = if moved.how == "retried" { "Tried again by" } else { "Released by" };
        table.row([how, &format!("{}, {}", moved.by, clock.show(&moved.at))]);
    }
    if let Some(why) = &run.follow_up_fails {
        table.row(["Follow-up", &format!("not sent yet, being tried again: {why}")]);
    }
    if let Some(why) = &run.follow_up_refused {
        table.row(["Follow-up", &format!("none is sent: {why}")]);
    }
    if let Some(follow_up) = &run.follow_up {
        let at = clock.show(&follow_up.at);
        table.row([
            "Follow-up",
            &match &follow_up.error {
                None => format!("sent {at}"),
                Some(error) => format!("not sent, given up {at}: {error}"),
            },
        ]);
    }
    if let Some(who) = &run.cancel_requested_by {
        table.row(["Asked to end by", who]);
    }
    table
}

fn waits_for(waits: &WaitsFor, run: &Run, table: &mut Table) {
    if let Some(event) = &waits.event {
        let of = waits.source.as_ref().map(|source| format!(" of {source}")).unwrap_or_default();
        table.row(["Waits for", &format!("event {event}{of}")]);
    }
    if let Some(condition) = &waits.condition {
        table.row(["Where", condition]);
    }
    if let Some(child) = &waits.run_id {
        table.row(["Waits for", &format!("the end of {child}")]);
    }
    if let Some(question) = &waits.question {
        table.row(["Asks", question]);
        let options = if waits.options.is_empty() { "ANSWER".to_owned() } else { waits.options.join(" | ") };
        table.row(["Answer with", &format!("doorbell runs answer {} {options}", run.id)]);
    }
}

fn attempts(detail: &RunDetail, clock: &Clock) -> Table {
    let mut table = Table::new(&["TRY", "STARTED", "TOOK", "ENDED", "EXIT", "WHY"]).wrapping_last();
    for attempt in &detail.attempts {
        table.row([
            attempt.number.to_string(),
            clock.show(&attempt.started_at),
            clock.between(Some(&attempt.started_at), attempt.ended_at.as_deref()),
            attempt.ended.clone().unwrap_or_else(|| "-".to_owned()),
            attempt.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
            why(attempt),
        ]);
    }
    table
}

fn why(attempt: &Attempt) -> String {
    let reason = attempt.reason.clone().unwrap_or_default();
    match &attempt.resumed_by {
        Some(by) if reason.is_empty() => format!("went on by {}", by.what),
        Some(by) => format!("{reason} (went on by {})", by.what),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(state: &str) -> Run {
        serde_json::from_value(serde_json::json!({
            "id": "run_1", "seq": 1, "agent": "triage", "eventId": "evt_1", "eventType": "github.push", "state": state,
            "reason": "exit code 1", "deadLetter": false, "attempt": 2, "createdAt": "2026-01-31T09:30:00.000Z",
            "startedAt": "2026-01-31T09:30:05.000Z", "finishedAt": "2026-01-31T09:31:10.000Z", "dueAt": null,
            "cancelRequestedBy": null, "result": null,
        }))
        .unwrap()
    }

    #[test]
    fn a_row_says_where_the_run_stands_and_why() {
        let row = row(&run("failed"), &Clock::fixed("2026-01-31T12:00:00Z"));
        let wanted = ["09:30:00", "run_1", "triage", "github.push", "-", "failed", "2", "1m 05s", "exit code 1"];
        assert_eq!(row.each_ref().map(String::as_str), wanted);
    }

    #[test]
    fn the_state_says_what_else_matters() {
        assert_eq!(state(&Run { dead_letter: true, ..run("failed") }), "failed (dead letter)");
        let asked = Some("key_1".to_owned());
        assert_eq!(state(&Run { cancel_requested_by: asked.clone(), ..run("running") }), "running (asked to end)");
        assert_eq!(state(&Run { cancel_requested_by: asked, ..run("cancelled") }), "cancelled");
    }
}
