//! `doorbell events rm`: what must be forgotten.

use clap::Args;
use doorbell_client::{Client, EventQuery};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::completions;
use crate::cli::consent;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::known;
use crate::cli::output::{self, escape_terminal};
use crate::cli::time::When;
use crate::clock;

/// Forget events: remove for good what they and their runs said
///
/// Headers, body and context of the event go, logs, results and folders of its runs too. What stays is that there was
/// such an event, and what it started: so the same delivery, sent again, starts nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "doorbell events rm <IDS>... [OPTIONS]\n       doorbell events rm [--source NAME] [--before TIME] [OPTIONS]")]
pub(super) struct RmArgs {
    /// The events' ids
    #[arg(
        required_unless_present_any = ["source", "before"],
        conflicts_with_all = ["source", "before"],
        add = completions::events()
    )]
    ids: Vec<String>,
    /// All events of this source
    #[arg(long, value_name = "NAME", add = completions::sources())]
    source: Option<String>,
    /// All events received before: an RFC 3339 time, or how long ago (`90s`, `15m`, `1h`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    before: Option<When>,
    /// Cancel runs of them that are not over, instead of leaving those events alone
    #[arg(long)]
    cancel: bool,
    /// Do not ask before many are forgotten
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  doorbell events rm evt_01K…
  doorbell events rm --source acme-github --before 90d";

/// Questions under way at once.
const AT_ONCE: usize = 8;
/// Events asked for at once.
const PAGE: u32 = 500;

/// What became of it.
#[derive(Debug, Default, Serialize)]
struct Forgotten {
    forgotten: Vec<String>,
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    id: String,
    why: String,
}

pub(super) async fn run(context: &Context, args: RmArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    if let [id] = args.ids.as_slice() {
        let forgotten = client.forget_event(id, args.cancel).await.map_err(Failure::no_event(id))?;
        return match context.json {
            true => output::json(&forgotten),
            false => Ok(output::line(escape_terminal(&format!("{} is forgotten", forgotten.id)))?),
        };
    }
    let ids = if args.ids.is_empty() { find(&client, &args).await? } else { args.ids.clone() };
    if ids.is_empty() {
        known::check_source(&client, args.source.as_deref()).await?;
    }
    if args.ids.is_empty() && !ids.is_empty() {
        let count = ids.len();
        let unasked = format!("{count} events would be forgotten, and nobody can be asked");
        consent::demand(args.yes, unasked, &format!("Forget {count} events for good?"))?;
    }
    let all = forget(&client, ids, args.cancel).await?;
    if context.json {
        output::json(&all)?;
    } else {
        output::line(format!("{} events are forgotten", all.forgotten.len()))?;
        all.failed.iter().for_each(|failed| output::note(escape_terminal(&format!("{}: {}", failed.id, failed.why))));
    }
    match all.failed.len() {
        0 => Ok(()),
        some => Err(Failure::new(Exit::Failed, format!("{some} events are still there")).into()),
    }
}

/// The events that are meant and not forgotten yet.
async fn find(client: &Client, args: &RmArgs) -> anyhow::Result<Vec<String>> {
    let until = args.before.map(|when| when.to_rfc3339(clock::now()));
    let mut query = EventQuery { source: args.source.clone(), until, limit: Some(PAGE), ..EventQuery::default() };
    let mut ids = Vec::new();
    loop {
        let page = client.events(&query).await?;
        ids.extend(page.events.into_iter().filter(|event| event.forgotten_at.is_none()).map(|event| event.id));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok(ids);
        }
    }
}

async fn forget(client: &Client, ids: Vec<String>, cancel: bool) -> anyhow::Result<Forgotten> {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len}  {per_sec}  {eta}")?;
    let bar = ProgressBar::new(ids.len() as u64).with_style(style);
    let asked = futures_util::stream::iter(ids).map(|id| async move {
        let done = client.forget_event(&id, cancel).await;
        (id, done)
    });
    let mut answers = std::pin::pin!(asked.buffer_unordered(AT_ONCE));
    let mut all = Forgotten::default();
    while let Some((id, done)) = answers.next().await {
        match done {
            Ok(_) => all.forgotten.push(id),
            // Without a gateway, or the right to do it, no further one will fare better.
            Err(error) if !matches!(error.status(), Some(404 | 409 | 503)) => return Err(error.into()),
            Err(error) => all.failed.push(Failed { id, why: error.to_string() }),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(all)
}
