//! Log lines, metrics and traces. One wide line per stage: `event.accepted`, `delivery.rejected`, `run.started`,
//! `run.finished`.

use std::io::IsTerminal as _;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::Environment;

mod describe;
mod metrics;
mod outlet;
mod process;
mod traces;

pub use describe::{Description, describe_metrics};
pub use metrics::{Door, Metrics, Snapshot, Totals};
pub use outlet::{drain, open_stdout, print, say};
pub use traces::{AttemptTrace, DeliveryTrace, Traces};

/// How long whoever reads standard output and error may take for the last lines.
pub const LAST_WORDS: Duration = Duration::from_secs(2);

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Libraries that say too much, and what is heard of them unless a filter names them: the first warns of every folder that is removed
/// while it is watched; the second tells of every client that hangs up or is refused, with whatever it sent.
const QUIET: [(&str, &str); 2] = [("notify", "error"), ("rmcp", "off")];

/// Whether a filter says what is heard of a target.
fn names(filter: &str, target: &str) -> bool {
    filter.split(',').any(|one| one.trim().split(['=', '[', ':']).next() == Some(target))
}

/// A filter of log lines: levels, and levels of targets. A word that is no level would be a target that nothing has, and so nothing
/// would be told.
fn filter_of(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains(['=', '[']));
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    if let Some(word) = words.clone().find(|word| !is_level(word)) {
        let levels = LEVELS.join(", ");
        return Err(format!("DOORBELL_LOG: `{word}` is no level of the log: write one of {levels}, or `target=level`"));
    }
    EnvFilter::try_new(text).map_err(|error| format!("DOORBELL_LOG is no filter of log lines: {error}"))
}

/// Sends log lines to standard error, without waiting for whoever reads it: those that `DOORBELL_LOG` names, or else `filter`, a `tracing` filter such as
/// `info` or `doorbell=debug`. They have colours on a terminal, unless `NO_COLOR` is set.
///
/// # Errors
/// If `DOORBELL_LOG` is no filter, in words for people.
pub fn start_logging(environment: &Environment, filter: &str, format: LogFormat) -> Result<(), String> {
    let asked = environment.var("DOORBELL_LOG").filter(|asked| !asked.trim().is_empty()).unwrap_or(filter);
    let filter = filter_of(asked)?;
    let quiet = QUIET.into_iter().filter(|(target, _)| !names(asked, target));
    let quiet = quiet.filter_map(|(target, level)| format!("{target}={level}").parse().ok());
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    let colours = std::io::stderr().is_terminal() && !environment.refuses_colours();
    let outlet = outlet::open();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || outlet)
        .with_ansi(colours)
        .with_target(false)
        // To say on standard error that a line could not be made would panic where nobody reads that.
        .log_internal_errors(false);
    // A second start (in tests) keeps the first.
    let started = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(tell_panic));
    }
    Ok(())
}

/// Says what panicked where everything else is said: whoever writes to standard error itself waits for who reads that.
fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let trace = std::backtrace::Backtrace::capture();
    let trace = (trace.status() == std::backtrace::BacktraceStatus::Captured).then_some(trace);
    let trace = trace.as_ref().map(tracing::field::display);
    tracing::error!(trace, "panic: {panic}");
    // The program may end with it.
    if std::thread::current().name() == Some("main") {
        drain(LAST_WORDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_there_is_not_is_told_instead_of_silencing_the_log() {
        for good in ["info", "INFO", "warn,doorbell=debug", "off", "doorbell::store=trace, error"] {
            assert!(filter_of(good).is_ok(), "{good}");
        }
        for bad in ["dbug", "INF", "info,verbose", "doorbell"] {
            assert!(filter_of(bad).is_err_and(|why| why.contains("is no level")), "{bad}");
        }
        assert!(filter_of("doorbell=loud").is_err());
    }
}
