//! Sources that are paused and resumed.

use doorbell_client::api::{NewPause, NewResume, Pause};

use super::{PauseArgs, ResumeArgs};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{self, escape_terminal};
use crate::cli::time::Clock;

pub(super) async fn pause(context: &Context, args: PauseArgs) -> anyhow::Result<()> {
    let paused = context.client()?.pause_source(&args.source, &NewPause { why: args.why }).await;
    let paused = paused.map_err(Failure::missing("source", &args.source, "doorbell sources"))?;
    if context.json {
        return output::json(&paused);
    }
    let name = escape_terminal(&args.source);
    Ok(output::line(format!("{name} is paused: what comes is taken, and the runs that it would start are held"))?)
}

pub(super) async fn resume(context: &Context, args: ResumeArgs) -> anyhow::Result<()> {
    let resumed = context.client()?.resume_source(&args.source, &NewResume { rate: args.rate }).await;
    let resumed = resumed.map_err(Failure::missing("source", &args.source, "doorbell sources"))?;
    if context.json {
        return output::json(&resumed);
    }
    let name = escape_terminal(&args.source);
    let rate = resumed.rate.as_deref().map(|rate| format!("; what was held goes on at {}", escape_terminal(rate)));
    output::line(format!("{name} is resumed{}", rate.unwrap_or_default()))?;
    if let Some(why) = &resumed.still_held {
        output::note(format!("some of it stays held all the same: {}", escape_terminal(why)));
    }
    Ok(())
}

/// `by ann since 09:30:00: deploying`, and how it ends.
pub(in crate::cli) fn describe(pause: &Pause, clock: &Clock) -> String {
    let why = pause.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let rate = pause.rate.as_ref().map(|rate| format!("; resumed, and what was held goes on at {rate}"));
    format!("by {} since {}{why}{}", pause.by, clock.show(&pause.at), rate.unwrap_or_default())
}
