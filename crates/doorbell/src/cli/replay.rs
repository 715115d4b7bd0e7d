//! `doorbell replay`: stored events, carried out once more.

use std::time::Duration;

use clap::{Args, Subcommand};
use doorbell_client::Client;
use doorbell_client::api::{NewReplay, Replay, ReplayFilter, ReplayMode, ReplayPreview, ReplayWish};
use indicatif::{ProgressBar, ProgressStyle};

use super::completions;
use super::consent;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{self, Table, escape_terminal};
use super::time::{Clock, When};
use crate::clock;

/// How often progress is asked for.
const LOOK: Duration = Duration::from_millis(200);

/// Carry stored events out once more: some by their ids, or all that a filter finds
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[command(subcommand)]
    command: Option<ReplayCommand>,
    #[command(flatten)]
    wish: Wish,
}

const EXAMPLES: &str = "\
Examples:
  doorbell replay evt_01K…
  doorbell replay --source acme --since 1h --dry-run
  doorbell replay --source acme --since 1h --mode missing --rate 10/1s
  doorbell replay ls";

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    Ls(LsArgs),
    Show(IdArgs),
    Cancel(CancelArgs),
}

/// List the newest replays
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell replay ls")]
struct LsArgs {}

/// Show how a replay stands
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell replay show rpl_01K…")]
struct IdArgs {
    /// The replay's id
    id: String,
}

/// End a replay; what it started goes on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell replay cancel rpl_01K…")]
struct CancelArgs {
    /// The replay's id
    id: String,
}

#[derive(Debug, Args)]
struct Wish {
    /// The events' ids
    #[arg(add = completions::events(), conflicts_with_all = ["source", "event", "outcome", "since", "until", "condition", "rate", "dry_run", "detach"])]
    ids: Vec<String>,
    /// All of this source
    #[arg(long, value_name = "NAME", add = completions::sources())]
    source: Option<String>,
    /// All of this kind: `issues`, `issues.opened` or `github.issues.opened`
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// All with such an outcome for any agent; `none`: no agent wanted them
    #[arg(long, value_parser = ["started", "absorbed", "skipped", "dropped", "filter_error", "none"])]
    outcome: Option<String>,
    /// Received then or later: an RFC 3339 time, or how long ago (`90s`, `15m`, `1h`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Received before: a time as for --since
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// Only those for which this condition is true (CEL, as in triggers)
    #[arg(long = "where", id = "condition", value_name = "CEL")]
    condition: Option<String>,
    /// Which agents are started: those whose triggers match now, those of them without a run for the event, or those named
    #[arg(long, value_enum, default_value_t = Mode::Now)]
    mode: Mode,
    /// Only this agent; may be given several times
    #[arg(long = "agent", value_name = "NAME", add = completions::agents())]
    agents: Vec<String>,
    /// How fast, such as 10/1s [default: as fast as it goes]
    #[arg(long)]
    rate: Option<String>,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is done
    #[arg(long)]
    detach: bool,
    /// Do not ask on a terminal before all that a filter finds are carried out
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Now,
    Missing,
    Agent,
}

impl From<Mode> for ReplayMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Now => Self::Now,
            Mode::Missing => Self::Missing,
            Mode::Agent => Self::Agent,
        }
    }
}

pub(super) async fn run(context: &Context, args: ReplayArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    match args.command {
        Some(ReplayCommand::Ls(LsArgs {})) => list(context, &client).await,
        Some(ReplayCommand::Show(IdArgs { id })) => {
            let replay = client.replay(&id).await.map_err(Failure::missing("replay", &id, "doorbell replay ls"))?;
            tell(context, &replay)
        }
        Some(ReplayCommand::Cancel(CancelArgs { id })) => {
            let ended = client.cancel_replay(&id).await;
            tell(context, &ended.map_err(Failure::missing("replay", &id, "doorbell replay ls"))?)
        }
        None if args.wish.mode == Mode::Agent && args.wish.agents.is_empty() => {
            Err(Failure::usage("`--mode agent` needs `--agent NAME`: which agents to start").into())
        }
        None if !args.wish.ids.is_empty() => replay_some(context, &client, args.wish).await,
        None => replay_many(context, &client, args.wish).await,
    }
}

async fn replay_some(context: &Context, client: &Client, wish: Wish) -> anyhow::Result<()> {
    let how = ReplayWish { mode: wish.mode.into(), agents: wish.agents };
    for id in &wish.ids {
        let replayed = client.replay_event(id, &how).await.map_err(Failure::no_event(id))?;
        if context.json {
            output::json_line(&replayed)?;
            continue;
        }
        match &replayed.event_id {
            None => output::line(format!("{id}: no agent is to be started"))?,
            Some(again) => {
                let of = |outcome: &doorbell_client::api::Outcome| {
                    let run = outcome.run_id.as_deref().unwrap_or(&outcome.outcome);
                    format!("{} {run}", outcome.agent)
                };
                let started: Vec<String> = replayed.outcomes.iter().map(of).collect();
                output::line(escape_terminal(&format!("{id} again as {again}: {}", started.join(", "))))?;
            }
        }
    }
    Ok(())
}

async fn replay_many(context: &Context, client: &Client, wish: Wish) -> anyhow::Result<()> {
    let at = |when: Option<When>| when.map(|when| when.to_rfc3339(clock::now()));
    let Wish { source, event, outcome, since, until, condition, mode, agents, rate, dry_run, detach, yes, .. } = wish;
    let filter = ReplayFilter { source, event, outcome, since: at(since), until: at(until), condition };
    if filter == ReplayFilter::default() {
        let message = "say which events: their ids, or a filter such as --source or --since";
        return Err(Failure::usage(message).hint("--dry-run says first what would be done").into());
    }
    let new = NewReplay { filter, mode: mode.into(), agents, rate, dry_run };
    if dry_run {
        return preview(context, &client.preview_replay(&new).await?);
    }
    if consent::is_asked(yes) {
        let found = client.preview_replay(&NewReplay { dry_run: true, ..new.clone() }).await?;
        let more = if found.complete { "" } else { " or more" };
        let runs: u64 = found.agents.values().copied().sum();
        if runs > 0 {
            consent::ask(yes, &format!("Carry {}{more} events out once more? They start {runs} runs.", found.events))?;
        }
    }
    let begun = client.start_replay(&new).await?;
    if detach {
        return tell(context, &begun);
    }
    let ended = follow(client, begun).await?;
    tell(context, &ended)?;
    match ended.state.as_str() {
        "done" => Ok(()),
        state => Err(Failure::new(Exit::Failed, format!("the replay is {state}")).into()),
    }
}

/// Shows how far it is, until it is over. Whoever stops watching does not stop it.
async fn follow(client: &Client, begun: Replay) -> anyhow::Result<Replay> {
    let bar = ProgressBar::new(begun.of);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len}  {eta}  {msg}")?);
    output::note(format!("{}; it goes on if you leave: doorbell replay cancel {}", begun.id, begun.id));
    loop {
        let now = client.replay(&begun.id).await?;
        bar.set_length(now.of.max(now.looked_at));
        bar.set_position(now.looked_at);
        bar.set_message(format!("{} runs", now.started));
        if now.state != "running" {
            bar.finish_and_clear();
            return Ok(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn preview(context: &Context, found: &ReplayPreview) -> anyhow::Result<()> {
    if context.json {
        return output::json(found);
    }
    let more = if found.complete { "" } else { " or more (not all were looked at)" };
    let events = format!("{} {}{more}", found.events, if found.events == 1 { "event" } else { "events" });
    if let Some(failure) = &found.failure {
        let text = format!("{} could not be decided on, the first: {failure}", found.failed);
        output::note(escape_terminal(&text));
    }
    if found.agents.is_empty() {
        return Ok(output::line(format!("{events}; no agent would be started"))?);
    }
    found.notes.iter().for_each(|note| output::note(escape_terminal(note)));
    let runs: u64 = found.agents.values().copied().sum();
    output::line(format!("{events}; {runs} {} would start", if runs == 1 { "run" } else { "runs" }))?;
    let mut table = Table::new(&["AGENT", "RUNS"]);
    found.agents.iter().for_each(|(agent, runs)| table.row([agent.clone(), runs.to_string()]));
    Ok(table.print()?)
}

async fn list(context: &Context, client: &Client) -> anyhow::Result<()> {
    let list = client.replays().await?;
    if context.json {
        return output::json(&list);
    }
    if list.replays.is_empty() {
        output::note("nothing was replayed by a filter yet");
        return Ok(());
    }
    let clock = Clock::here();
    let mut table = Table::new(&["TIME", "ID", "STATE", "EVENTS", "REPLAYED", "RUNS", "FAILED", "BY"]);
    for replay in &list.replays {
        table.row([
            clock.show(&replay.at),
            replay.id.clone(),
            replay.state.clone(),
            format!("{}/{}", replay.looked_at, replay.of.max(replay.looked_at)),
            replay.replayed.to_string(),
            replay.started.to_string(),
            replay.failed.to_string(),
            replay.by.clone(),
        ]);
    }
    Ok(table.print()?)
}

fn tell(context: &Context, replay: &Replay) -> anyhow::Result<()> {
    if context.json {
        return output::json(replay);
    }
    let Replay { id, state, looked_at, replayed, started, failed, .. } = replay;
    output::line(format!(
        "{id} {state}: {looked_at} events looked at, {replayed} replayed, {started} runs, {failed} failed"
    ))?;
    replay.notes.iter().for_each(|note| output::note(escape_terminal(note)));
    if let Some(error) = &replay.error {
        output::line(escape_terminal(error))?;
    }
    Ok(())
}
