//! Log lines and metrics. One wide line per stage: `event.accepted`, `delivery.rejected`, `run.started`, `run.finished`.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::Environment;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines to standard error: those that `DOORBELL_LOG` names, or else `filter`, a `tracing` filter such as
/// `info` or `doorbell=debug`. They have colours on a terminal, unless `NO_COLOR` is set.
pub fn start_logging(environment: &Environment, filter: &str, format: LogFormat) {
    let filter = environment.var("DOORBELL_LOG").unwrap_or(filter);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && !environment.refuses_colours();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    // A second start (in tests) keeps the first.
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeliveryLabels {
    source: String,
    outcome: &'static str,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    agent: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AgentLabels {
    agent: String,
}

/// Counters and histograms of a gateway, and the gauges that are filled in when somebody looks.
#[derive(Debug)]
pub struct Metrics {
    deliveries: Family<DeliveryLabels, Counter>,
    accept_seconds: Family<SourceLabels, Histogram>,
    finished: Family<RunLabels, Counter>,
    run_seconds: Family<AgentLabels, Histogram>,
    totals: Totals,
}

/// Deliveries since the start, for `stat`.
#[derive(Debug, Default)]
pub struct Totals {
    /// New events.
    pub accepted: AtomicU64,
    /// Redeliveries.
    pub duplicate: AtomicU64,
    /// Refused.
    pub rejected: AtomicU64,
}

/// What is looked up when somebody asks for the metrics.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Runs by agent and state that are not final.
    pub runs: Vec<(String, &'static str, u64)>,
    /// Age of the oldest queued run, in seconds, by agent.
    pub oldest_queued: Vec<(String, f64)>,
    /// Commits of the store.
    pub commits: u64,
    /// Operations in them.
    pub operations: u64,
    /// Seconds spent in them.
    pub commit_seconds: f64,
    /// The last removal of what was older than is kept.
    pub last_sweep: Option<LastSweep>,
}

/// A removal of what was older than is kept.
#[derive(Debug)]
pub struct LastSweep {
    /// When it ended, in seconds since the Unix epoch.
    pub ended_at: i64,
    /// What it removed: kind and number.
    pub removed: [(&'static str, u64); 4],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            deliveries: Family::default(),
            accept_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
            }),
            finished: Family::default(),
            run_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0])
            }),
            totals: Totals::default(),
        }
    }
}

impl Metrics {
    /// A delivery was stored, or had been.
    pub fn count_accepted(&self, source: &str, duplicate: bool, took: Duration) {
        let (outcome, total) =
            if duplicate { ("duplicate", &self.totals.duplicate) } else { ("accepted", &self.totals.accepted) };
        total.fetch_add(1, Ordering::Relaxed);
        let labels = DeliveryLabels { source: source.to_owned(), outcome, code: String::new() };
        self.deliveries.get_or_create(&labels).inc();
        self.accept_seconds.get_or_create(&SourceLabels { source: source.to_owned() }).observe(took.as_secs_f64());
    }

    /// A delivery was refused.
    pub fn count_rejected(&self, source: &str, code: &str) {
        self.totals.rejected.fetch_add(1, Ordering::Relaxed);
        let labels = DeliveryLabels { source: source.to_owned(), outcome: "rejected", code: code.to_owned() };
        self.deliveries.get_or_create(&labels).inc();
    }

    /// A try of a run ended and left the run in this state.
    pub fn count_run(&self, agent: &str, state: &'static str, took: Duration) {
        self.finished.get_or_create(&RunLabels { agent: agent.to_owned(), state }).inc();
        self.run_seconds.get_or_create(&AgentLabels { agent: agent.to_owned() }).observe(took.as_secs_f64());
    }

    /// Deliveries since the start.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        let mut registry = Registry::with_prefix("doorbell");
        registry.register("deliveries", "Deliveries by source, outcome and code", self.deliveries.clone());
        registry.register("accept_seconds", "From the whole body to the commit", self.accept_seconds.clone());
        registry.register("attempts_ended", "Ended tries by agent and the run's new state", self.finished.clone());
        registry.register("attempt_seconds", "Duration of tries by agent", self.run_seconds.clone());
        let runs = Family::<RunLabels, Gauge>::default();
        for (agent, state, count) in &snapshot.runs {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            runs.get_or_create(&RunLabels { agent: agent.clone(), state }).set(count);
        }
        registry.register("runs", "Runs that are not over, by agent and state", runs);
        let oldest = Family::<AgentLabels, Gauge<f64, AtomicU64>>::default();
        for (agent, seconds) in &snapshot.oldest_queued {
            oldest.get_or_create(&AgentLabels { agent: agent.clone() }).set(*seconds);
        }
        registry.register("oldest_queued_seconds", "Age of the oldest queued run, by agent", oldest);
        let counter = |value: u64| {
            let counter = Counter::<u64>::default();
            counter.inc_by(value);
            counter
        };
        registry.register("store_commits", "Commits of the store", counter(snapshot.commits));
        registry.register("store_operations", "Operations in those commits", counter(snapshot.operations));
        let busy = Counter::<f64, AtomicU64>::default();
        busy.inc_by(snapshot.commit_seconds);
        registry.register("store_commit_seconds", "Time spent in those commits", busy);
        if let Some(sweep) = &snapshot.last_sweep {
            let removed = Family::<KindLabels, Gauge>::default();
            for (kind, count) in sweep.removed {
                removed.get_or_create(&KindLabels { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            registry.register("last_sweep_removed", "What the last sweep removed, by kind", removed);
            let ended: Gauge = Gauge::default();
            ended.set(sweep.ended_at);
            registry.register("last_sweep_ended_timestamp_seconds", "When the last sweep ended", ended);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
