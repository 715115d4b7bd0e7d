//! `doorbell logs`: what a run wrote.

use clap::Args;
use doorbell_client::Client;
use doorbell_client::api::{Log, LogLine};
use futures_util::StreamExt as _;

use super::completions;
use super::context::Context;
use super::failure::Failure;
use super::output;
use super::time::Clock;

/// Print what a run wrote
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell logs run_01K…\n  doorbell logs -f run_01K…")]
pub(super) struct LogsArgs {
    /// The run's id
    #[arg(add = completions::runs())]
    run: String,
    /// Go on as it writes, until it ends
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(context: &Context, args: LogsArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    if args.follow { follow(context, &client, &args.run).await } else { print_all(context, &client, &args.run).await }
}

/// Prints what a run writes, until it ends.
pub(super) async fn follow(context: &Context, client: &Client, run: &str) -> anyhow::Result<()> {
    let clock = Clock::here();
    let mut lines = client.follow_log(run, 0).await.map_err(Failure::no_run(run))?;
    while let Some(line) = lines.next().await {
        let line = line?;
        if context.json {
            output::json_line(&line)?;
        } else {
            output::line(shown(&line, &clock))?;
        }
    }
    Ok(())
}

/// What was written so far; the gateway gives so many lines at once.
async fn print_all(context: &Context, client: &Client, run: &str) -> anyhow::Result<()> {
    let clock = Clock::here();
    let mut whole = Log { lines: Vec::new() };
    let mut last = 0;
    loop {
        let mut page = client.run_log(run, last).await.map_err(Failure::no_run(run))?.lines;
        // A line that was there already would make this go on for ever.
        page.retain(|line| line.n > last);
        let Some(end) = page.last() else { break };
        last = end.n;
        if context.json {
            whole.lines.extend(page);
        } else {
            page.iter().try_for_each(|line| output::line(shown(line, &clock)))?;
        }
    }
    if context.json { output::json(&whole) } else { Ok(()) }
}

/// A line with when and where it was written.
fn shown(line: &LogLine, clock: &Clock) -> String {
    let stream = match line.stream.as_str() {
        "stdout" => "out",
        "stderr" => "err",
        other => other,
    };
    format!("{} {} {}", clock.show(&line.at), output::escape_terminal(stream), output::escape_text(&line.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_agent_cannot_play_with_the_terminal() {
        let at = "2026-01-31T09:30:00.000Z".to_owned();
        let line = LogLine { n: 1, at, attempt: 1, stream: "stderr".to_owned(), text: "a\tb\u{1b}[2J".to_owned() };
        assert_eq!(shown(&line, &Clock::fixed("2026-01-31T12:00:00Z")), "09:30:00 err a\tb\\u{1b}[2J");
    }
}
