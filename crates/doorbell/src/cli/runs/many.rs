//! Runs that are changed: some by their ids, or all that a filter finds.

use doorbell_client::Client;
use doorbell_client::api::{ManyDone, ManyRuns};
use serde_json::json;

use super::Which;
use crate::cli::consent;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::known;
use crate::cli::output::{self, escape_terminal};

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Cancel,
    Release,
    Retry,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Release => "release",
            Self::Retry => "retry",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Release => "released",
            Self::Retry => "queued again",
        }
    }
}

/// Cancels runs. Those that a filter finds are counted first, where somebody can be asked.
pub(super) async fn cancel(context: &Context, which: Which, yes: bool) -> anyhow::Result<()> {
    if which.ids.is_empty() && !which.dry_run && consent::is_asked(yes) {
        let found = context.client()?.change_runs(Verb::Cancel.as_str(), &wish(&which, None, true)).await?;
        let more = if found.more { " or more" } else { "" };
        if found.matched > 0 {
            consent::ask(yes, &format!("End {}{more}? Their processes are asked to end.", runs(found.matched)))?;
        }
    }
    change(context, Verb::Cancel, which, None).await
}

/// All that a filter finds.
fn wish(which: &Which, cause: Option<String>, dry_run: bool) -> ManyRuns {
    let Which { agent, state, dead_letter, with_key: key, event, .. } = which;
    let (agent, state, key, event) = (agent.clone(), state.clone(), key.clone(), event.clone());
    ManyRuns { agent, state, key, event, dead_letter: *dead_letter, cause, dry_run, cursor: None }
}

pub(super) async fn change(context: &Context, verb: Verb, which: Which, cause: Option<String>) -> anyhow::Result<()> {
    let client = context.client()?;
    if !which.ids.is_empty() {
        for id in &which.ids {
            change_one(context, &client, verb, id).await?;
        }
        return Ok(());
    }
    let dry_run = which.dry_run;
    let mut wish = wish(&which, cause, dry_run);
    let mut all = client.change_runs(verb.as_str(), &wish).await?;
    while let Some(cursor) = all.next_cursor.take() {
        wish.cursor = Some(cursor);
        let next = client.change_runs(verb.as_str(), &wish).await?;
        all.matched += next.matched;
        all.done += next.done;
        all.asked += next.asked;
        all.refused.extend(next.refused);
        (all.more, all.next_cursor) = (next.more, next.next_cursor);
    }
    if all.matched == 0 {
        known::check_agent(&client, wish.agent.as_deref()).await?;
    }
    tell(context, verb, &all, dry_run)
}

async fn change_one(context: &Context, client: &Client, verb: Verb, id: &str) -> anyhow::Result<()> {
    let state = match verb {
        Verb::Cancel => client.cancel_run(id).await.map(|done| done.state),
        Verb::Release => client.release_run(id).await.map(|done| done.state),
        Verb::Retry => client.retry_run(id).await.map(|done| done.state),
    };
    let state = state.map_err(Failure::no_run(id))?;
    if context.json {
        return output::json_line(&json!({ "id": id, "state": state }));
    }
    Ok(output::line(match state.as_str() {
        "running" if verb == Verb::Cancel => format!("{id} is asked to end"),
        state => escape_terminal(&format!("{id} is {state}")).into_owned(),
    })?)
}

fn tell(context: &Context, verb: Verb, done: &ManyDone, dry_run: bool) -> anyhow::Result<()> {
    if context.json {
        output::json(done)?;
    } else if dry_run {
        let more = if done.more { " or more" } else { "" };
        output::line(format!("{}{more} would be {}", runs(done.matched), verb.done()))?;
    } else {
        let asked = match done.asked {
            0 => String::new(),
            asked => format!(", {} asked to end", runs(asked)),
        };
        output::line(format!("{} {}{asked}", runs(done.done.saturating_sub(done.asked)), verb.done()))?;
        for refused in &done.refused {
            output::line(escape_terminal(&format!("  not {}: {}", refused.id, refused.why)))?;
        }
    }
    match done.refused.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::new(Exit::Failed, format!("{} could not be {}", runs(done.refused.len() as u64), verb.done()))
                .into())
        }
    }
}

fn runs(count: u64) -> String {
    format!("{count} {}", if count == 1 { "run" } else { "runs" })
}
