//! Log lines, metrics and traces. One wide line per stage: `event.accepted`, `delivery.rejected`, `run.started`,
//! `run.finished`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::Environment;

mod describe;
mod metrics;
mod outlet;
mod process;
mod traces;

pub use describe::{Description, describe_metrics};
pub use metrics::{Door, Metrics, Snapshot, Totals};
pub use outlet::{drain, say};
pub use traces::{AttemptTrace, DeliveryTrace, Traces};

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

/// Sends log lines to standard error, without waiting for whoever reads it: those that `DOORBELL_LOG` names, or else `filter`, a `tracing` filter such as
/// `info` or `doorbell=debug`. They have colours on a terminal, unless `NO_COLOR` is set.
pub fn start_logging(environment: &Environment, filter: &str, format: LogFormat) {
    let asked = environment.var("DOORBELL_LOG").unwrap_or(filter);
    let filter = EnvFilter::try_new(asked).unwrap_or_else(|_| EnvFilter::new("info"));
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
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
