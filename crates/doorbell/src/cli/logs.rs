//! `doorbell logs`: what a run wrote.

use clap::Args;
use doorbell_client::Client;
use doorbell_client::api::{Log, LogLine};
use futures_util::StreamExt as _;

use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output;
use super::time::Clock;

/// Print what a run wrote
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell logs run_01K…\n  doorbell logs -f run_01K…\n  doorbell logs run_01K… --attempt 2"
)]
pub(super) struct LogsArgs {
    /// The run's id
    #[arg(add = completions::runs())]
    run: String,
    /// Go on as it writes, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only what this try wrote, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
}

pub(super) async fn run(context: &Context, args: LogsArgs) -> anyhow::Result<()> {
    let client = context.client()?;
    if let Some(attempt) = args.attempt {
        check_attempt(&client, &args.run, attempt, args.follow).await?;
    }
    match args.follow {
        true => {
            say_state(context, &client, &args.run, State::Before).await?;
            follow(context, &client, &args.run, args.attempt).await?;
            say_state(context, &client, &args.run, State::After).await
        }
        false => print_all(context, &client, &args.run, args.attempt).await,
    }
}

/// When the state of a run that is followed is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    After,
}

/// Says, beside the log, why a run that is followed writes nothing yet, and how it ended.
async fn say_state(context: &Context, client: &Client, run: &str, when: State) -> anyhow::Result<()> {
    let run = client.run(run).await.map_err(Failure::no_run(run))?.run;
    let says_itself = when == State::Before && (run.finished_at.is_some() || run.state == "running");
    if !context.json && !says_itself {
        let reason = run.reason.filter(|reason| *reason != run.state);
        let reason = reason.map(|reason| format!(": {}", output::escape_terminal(&reason))).unwrap_or_default();
        output::note(format!("{} is {}{reason}", run.id, run.state));
    }
    Ok(())
}

/// Whether there is such a try, or may be one while it is waited for.
async fn check_attempt(client: &Client, run: &str, attempt: u32, follow: bool) -> anyhow::Result<()> {
    let run = client.run(run).await.map_err(Failure::no_run(run))?.run;
    if attempt <= run.attempt || (follow && run.finished_at.is_none()) {
        return Ok(());
    }
    let tries = if run.attempt == 1 { "try" } else { "tries" };
    Err(Failure::new(Exit::NotFound, format!("there is no try {attempt}: it had {} {tries}", run.attempt)).into())
}

/// Prints what a run writes, until it ends; of all its tries, or of one.
pub(super) async fn follow(context: &Context, client: &Client, run: &str, of: Option<u32>) -> anyhow::Result<()> {
    let clock = Clock::here();
    let mut tries = Tries::default();
    let mut lines = client.follow_log(run, 0).await.map_err(Failure::no_run(run))?;
    while let Some(line) = lines.next().await {
        let line = line?;
        if of.is_some_and(|attempt| attempt != line.attempt) {
            continue;
        }
        if context.json {
            output::json_line(&line)?;
        } else {
            tries.print(&line, &clock)?;
        }
    }
    Ok(())
}

/// What was written so far; the gateway gives so many lines at once.
async fn print_all(context: &Context, client: &Client, run: &str, of: Option<u32>) -> anyhow::Result<()> {
    let clock = Clock::here();
    let mut whole = Log { lines: Vec::new() };
    let (mut last, mut tries) = (0, Tries::default());
    loop {
        let mut page = client.run_log(run, last).await.map_err(Failure::no_run(run))?.lines;
        // A line that was there already would make this go on for ever.
        page.retain(|line| line.n > last);
        let Some(end) = page.last() else { break };
        last = end.n;
        page.retain(|line| of.is_none_or(|attempt| attempt == line.attempt));
        if context.json {
            whole.lines.extend(page);
        } else {
            page.iter().try_for_each(|line| tries.print(line, &clock))?;
        }
    }
    if context.json { output::json(&whole) } else { Ok(()) }
}

/// Which try the lines before were of.
#[derive(Debug, Default)]
struct Tries {
    before: Option<u32>,
}

impl Tries {
    fn print(&mut self, line: &LogLine, clock: &Clock) -> anyhow::Result<()> {
        if let Some(mark) = self.mark(line.attempt) {
            output::line(mark)?;
        }
        Ok(output::line(shown(line, clock))?)
    }

    /// What stands above the first line of a further try, so that tries do not run together.
    fn mark(&mut self, attempt: u32) -> Option<String> {
        let before = self.before.replace(attempt).unwrap_or(1);
        (before != attempt).then(|| format!("--- try {attempt}"))
    }
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
    fn a_further_try_is_told_from_the_one_before() {
        let mut tries = Tries::default();
        let marks: Vec<Option<String>> = [1, 1, 2, 2, 4].into_iter().map(|attempt| tries.mark(attempt)).collect();
        assert_eq!(marks, [None, None, Some("--- try 2".to_owned()), None, Some("--- try 4".to_owned())]);
    }

    #[test]
    fn a_line_of_an_agent_cannot_play_with_the_terminal() {
        let at = "2026-01-31T09:30:00.000Z".to_owned();
        let line = LogLine { n: 1, at, attempt: 1, stream: "stderr".to_owned(), text: "a\tb\u{1b}[2J".to_owned() };
        assert_eq!(shown(&line, &Clock::fixed("2026-01-31T12:00:00Z")), "09:30:00 err a\tb\\u{1b}[2J");
    }
}
