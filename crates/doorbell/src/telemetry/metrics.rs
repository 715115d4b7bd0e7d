//! Counters and histograms, and the gauges that are filled in when somebody looks.
//!
//! Labels are names of sources and agents, and codes of ours, so that no sender can make series. Series of sources and
//! agents that are not there any more go (`series`), so nothing here grows with what happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doorbell_core::id::SubscriptionId;
use doorbell_core::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

mod obstacles;
mod series;

use self::series::Known;
use super::{outlet, process};
use crate::store::{Figures, OutcomeKind, Space, Sweep, Tallies};

/// All subscriptions are one: they come and go, and each would leave series.
fn label_of(agent: &str) -> String {
    if agent.parse::<SubscriptionId>().is_ok() { "sub_*".to_owned() } else { agent.to_owned() }
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
struct AgentLabels {
    agent: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    agent: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    agent: String,
    ended: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    agent: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SpanLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NotificationLabels {
    on: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

type Counts<L> = Family<L, Counter>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Real = Gauge<f64, AtomicU64>;

/// Counters and histograms of a gateway.
#[derive(Debug)]
pub struct Metrics {
    started: Timestamp,
    deliveries: Counts<DeliveryLabels>,
    without_source: Counter,
    suppressed: Counts<SourceLabels>,
    accept_seconds: Histograms<SourceLabels>,
    outcomes: Counts<OutcomeLabels>,
    wait_seconds: Histograms<AgentLabels>,
    attempts: Counts<AttemptLabels>,
    attempt_seconds: Histograms<AgentLabels>,
    connections: Gauge,
    connections_refused: Counter,
    api_refused: Counts<CodeLabels>,
    spans: Counts<SpanLabels>,
    notifications: Counts<NotificationLabels>,
    totals: Totals,
    known: Known,
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
#[derive(Debug)]
pub struct Snapshot {
    /// The sources in force: they have their series from the start.
    pub sources: Vec<String>,
    /// Sources that are paused, or on their way back.
    pub paused_sources: Vec<String>,
    /// The agents in force, with their `scale`.
    pub agents: Vec<(String, u32)>,
    /// Runs; none if the store did not say.
    pub tallies: Option<Tallies>,
    /// The disk; none if the store did not say.
    pub space: Option<Space>,
    /// The group commit.
    pub figures: Figures,
    /// Whether the store takes writes.
    pub store_up: bool,
    /// The HTTP door.
    pub door: Door,
    /// When the certificate expires that is shown; none if none is.
    pub certificate_expires: Option<Timestamp>,
    /// Generation of the configuration in force.
    pub config_generation: u64,
    /// Whether what is saved now is in force.
    pub config_is_saved_one: bool,
    /// The last removal of what was older than is kept.
    pub last_sweep: Option<Sweep>,
    /// Now.
    pub now: Timestamp,
}

/// What stands in the door.
#[derive(Debug, Clone, Copy, Default)]
pub struct Door {
    /// Bytes of bodies in flight.
    pub body_bytes: u64,
    /// How many there may be.
    pub body_bytes_limit: u64,
}

/// Why requests to the API are refused at the door.
const API_REFUSALS: [&str; 6] =
    ["key_missing", "key_invalid", "key_expired", "too_many_failures", "rate_limited", "host_not_allowed"];

fn accept_histogram() -> Histogram {
    Histogram::new([0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
}

fn wait_histogram() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0])
}

fn attempt_histogram() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0])
}

impl Metrics {
    /// Of a gateway that starts now.
    pub fn new(now: Timestamp) -> Self {
        Self {
            started: now,
            deliveries: Family::default(),
            without_source: Counter::default(),
            suppressed: Family::default(),
            accept_seconds: Family::new_with_constructor(accept_histogram),
            outcomes: Family::default(),
            wait_seconds: Family::new_with_constructor(wait_histogram),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(attempt_histogram),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            api_refused: Family::default(),
            spans: Family::default(),
            notifications: Family::default(),
            totals: Totals::default(),
            known: Known::default(),
        }
    }

    /// A delivery was stored, or had been; `decided` is what it newly means to agents.
    pub fn count_accepted(&self, source: &str, duplicate: bool, decided: &[(String, OutcomeKind)], took: Duration) {
        let (outcome, total) =
            if duplicate { ("duplicate", &self.totals.duplicate) } else { ("accepted", &self.totals.accepted) };
        total.fetch_add(1, Ordering::Relaxed);
        self.known.note_source(source);
        let labels = DeliveryLabels { source: source.to_owned(), outcome, code: String::new() };
        self.deliveries.get_or_create(&labels).inc();
        self.accept_seconds.get_or_create(&SourceLabels { source: source.to_owned() }).observe(took.as_secs_f64());
        for (agent, kind) in decided {
            self.known.note_agent(agent);
            self.outcomes.get_or_create(&OutcomeLabels { agent: agent.clone(), outcome: kind.as_str() }).inc();
        }
    }

    /// A delivery was refused.
    pub fn count_rejected(&self, source: &str, code: &str) {
        self.totals.rejected.fetch_add(1, Ordering::Relaxed);
        self.known.note_source(source);
        self.known.note_code(code);
        let labels = DeliveryLabels { source: source.to_owned(), outcome: "rejected", code: code.to_owned() };
        self.deliveries.get_or_create(&labels).inc();
    }

    /// A refused delivery was not kept, because there were too many of its source.
    pub fn count_suppressed(&self, source: &str) {
        self.known.note_source(source);
        self.suppressed.get_or_create(&SourceLabels { source: source.to_owned() }).inc();
    }

    /// A request came to a webhook URL that no source has.
    pub fn count_without_source(&self) {
        self.without_source.inc();
    }

    /// A run's first try started, so long after its event was received.
    pub fn count_first_start(&self, agent: &str, waited: Duration) {
        let agent = self.noted(agent);
        self.wait_seconds.get_or_create(&AgentLabels { agent }).observe(waited.as_secs_f64());
    }

    /// A try ended so and left its run in this state.
    pub fn count_attempt(&self, agent: &str, ended: &str, state: &'static str, took: Duration) {
        let agent = self.noted(agent);
        self.known.note_ended(ended);
        let labels = AttemptLabels { agent: agent.clone(), ended: ended.to_owned(), state };
        self.attempts.get_or_create(&labels).inc();
        self.attempt_seconds.get_or_create(&AgentLabels { agent }).observe(took.as_secs_f64());
    }

    /// Open HTTP connections, counted by whoever opens and closes them.
    pub fn connections(&self) -> Gauge {
        self.connections.clone()
    }

    /// Connections that were refused because their address had too many, counted by whoever refuses them.
    pub fn connections_refused(&self) -> Counter {
        self.connections_refused.clone()
    }

    /// A request to the API was refused at the door: for its key, or its host's name.
    pub fn count_api_refused(&self, code: &'static str) {
        self.api_refused.get_or_create(&CodeLabels { code }).inc();
    }

    /// Spans that were handed over to the collector of traces, and that it did not take.
    pub fn spans(&self) -> (Counter, Counter) {
        let of = |outcome| self.spans.get_or_create_owned(&SpanLabels { outcome });
        (of("exported"), of("failed"))
    }

    /// A receiver took a notification, or did not.
    pub fn count_notification(&self, on: &'static str, delivered: bool) {
        let result = if delivered { "delivered" } else { "failed" };
        self.notifications.get_or_create(&NotificationLabels { on, result }).inc();
    }

    /// Deliveries since the start.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        self.begin_series(snapshot);
        let mut registry = Registry::with_prefix("doorbell");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The program", Info::new(version));
        self.register_counted(&mut registry);
        register_runs(&mut registry, snapshot);
        obstacles::register(&mut registry, snapshot);
        register_store(&mut registry, snapshot);
        register_door(&mut registry, snapshot);
        register_config(&mut registry, snapshot);
        register_sweep(&mut registry, snapshot.last_sweep.as_ref());
        register_log(&mut registry);
        let mut whole = Registry::default();
        process::register(&mut whole, self.started);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &registry)
            .and_then(|()| encode_registry(&mut text, &whole))
            .and_then(|()| encode_eof(&mut text));
        text
    }

    fn register_counted(&self, to: &mut Registry) {
        to.register(
            "deliveries",
            "Deliveries by source: outcome accepted (a new event), duplicate (a redelivery) or rejected; code says why",
            self.deliveries.clone(),
        );
        to.register(
            "requests_without_source",
            "Requests to a webhook URL that no source has",
            self.without_source.clone(),
        );
        to.register(
            "rejections_suppressed",
            "Rejected deliveries that were counted and not kept, because too many came",
            self.suppressed.clone(),
        );
        to.register(
            "accept_seconds",
            "From the whole body to the commit, for accepted deliveries",
            self.accept_seconds.clone(),
        );
        to.register(
            "outcomes",
            "What events meant to agents: started (a run), absorbed (into another run), skipped, dropped or filter_error (nobody knows)",
            self.outcomes.clone(),
        );
        to.register(
            "run_wait_seconds",
            "From the time its event was received to the start of a run's first try",
            self.wait_seconds.clone(),
        );
        to.register(
            "attempts_ended",
            "Ended tries: ended says how, state is the run's new state",
            self.attempts.clone(),
        );
        to.register("attempt_seconds", "Duration of tries", self.attempt_seconds.clone());
        to.register("http_connections", "Open HTTP connections", self.connections.clone());
        to.register(
            "http_connections_refused",
            "Connections that were refused, because their address had too many",
            self.connections_refused.clone(),
        );
        to.register(
            "api_requests_refused",
            "Requests to the API that were refused for their key or their host's name; code says why",
            self.api_refused.clone(),
        );
        to.register(
            "trace_spans",
            "Spans of traces: exported, or failed to be; none while tracing is off",
            self.spans.clone(),
        );
        to.register(
            "notifications",
            "Tries to tell somebody of a problem (on): delivered, or failed and tried again",
            self.notifications.clone(),
        );
    }
}

fn register_log(to: &mut Registry) {
    let dropped = Counter::<u64>::default();
    dropped.inc_by(outlet::dropped());
    to.register(
        "log_lines_dropped",
        "Lines of the gateway's own log that could not be written, or that whatever reads it was too slow for",
        dropped,
    );
}

fn register_runs(to: &mut Registry, snapshot: &Snapshot) {
    let scale = Family::<AgentLabels, Gauge>::default();
    for (agent, most) in &snapshot.agents {
        scale.get_or_create(&AgentLabels { agent: agent.clone() }).set(i64::from(*most));
    }
    to.register("agent_scale", "Runs of an agent that may be carried out at once", scale);
    let Some(tallies) = &snapshot.tallies else { return };
    let runs = Family::<StateLabels, Gauge>::default();
    let ended = Counts::<StateLabels>::default();
    let dead_letters = Counts::<AgentLabels>::default();
    let oldest = Family::<AgentLabels, Real>::default();
    for (agent, _) in &snapshot.agents {
        for state in ["queued", "running"] {
            let _ = runs.get_or_create(&StateLabels { agent: agent.clone(), state });
        }
        let labels = AgentLabels { agent: agent.clone() };
        let _ = ended.get_or_create(&StateLabels { agent: agent.clone(), state: "succeeded" });
        let _ = dead_letters.get_or_create(&labels);
        let _ = oldest.get_or_create(&labels);
    }
    for (agent, state, count) in &tallies.runs {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        runs.get_or_create(&StateLabels { agent: label_of(agent), state: state.as_str() }).inc_by(count);
    }
    for (agent, state, count) in &tallies.ended {
        ended.get_or_create(&StateLabels { agent: label_of(agent), state: state.as_str() }).inc_by(*count);
    }
    for (agent, count) in &tallies.dead_letters {
        dead_letters.get_or_create(&AgentLabels { agent: label_of(agent) }).inc_by(*count);
    }
    for (agent, since) in &tallies.oldest_queued {
        let age = snapshot.now.since(*since).as_secs_f64();
        let oldest = oldest.get_or_create(&AgentLabels { agent: label_of(agent) });
        oldest.set(age.max(oldest.get()));
    }
    to.register("runs", "Runs that are not over: queued, running, waiting or held", runs);
    to.register("runs_ended", "Runs that came to a final state, and to which", ended);
    to.register("dead_letters", "Runs that failed with all their tries used up", dead_letters);
    to.register("oldest_queued_seconds", "Age of the oldest queued run; 0 if none is queued", oldest);
}

fn register_store(to: &mut Registry, snapshot: &Snapshot) {
    let figures = snapshot.figures.clone();
    let up = Gauge::<i64>::default();
    up.set(i64::from(snapshot.store_up));
    to.register("store_up", "Whether the store takes writes: 1, or 0", up);
    to.register("store_commit_operations", "Operations that were committed together", figures.operations);
    to.register("store_commit_seconds", "Transactions, from begin to the end of the commit", figures.commit_seconds);
    to.register("store_sync_seconds", "Bringing a commit to the disk: writes and fsync", figures.sync_seconds);
    to.register(
        "store_checkpoint_seconds",
        "Emptying the write-ahead log into the database",
        figures.checkpoint_seconds,
    );
    to.register("store_commit_failures", "Transactions that could not be opened or committed", figures.failures);
    let Some(space) = snapshot.space else { return };
    to.register("store_database_bytes", "Size of the database", bytes(space.database));
    to.register("store_log_bytes", "Size of the write-ahead log", bytes(space.log));
    to.register("store_available_bytes", "What the database's file system has left", bytes(space.available));
}

fn register_door(to: &mut Registry, snapshot: &Snapshot) {
    let expires = Gauge::<i64>::default();
    expires.set(snapshot.certificate_expires.map_or(0, Timestamp::as_seconds));
    to.register(
        "tls_certificate_expires_timestamp_seconds",
        "When the certificate expires that the gateway shows; 0 if it shows none",
        expires,
    );
    let door = snapshot.door;
    to.register("http_body_bytes", "Bytes of bodies in flight", bytes(door.body_bytes));
    to.register(
        "http_body_limit_bytes",
        "Bytes of bodies that may be in flight; beyond it senders get 503",
        bytes(door.body_bytes_limit),
    );
}

fn register_sweep(to: &mut Registry, last: Option<&Sweep>) {
    let removed = Family::<KindLabels, Gauge>::default();
    let counts = last.map_or([0; 4], |sweep| [sweep.events, sweep.runs, sweep.rejections, sweep.trigger_sets]);
    for (kind, count) in ["events", "runs", "rejections", "trigger_sets"].into_iter().zip(counts) {
        removed.get_or_create(&KindLabels { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    to.register("last_sweep_removed", "What the last sweep removed, by kind", removed);
    let ended = Gauge::<i64>::default();
    ended.set(last.map_or(0, |sweep| sweep.ended_at.as_seconds()));
    to.register("last_sweep_ended_timestamp_seconds", "When the last sweep ended; 0 if there was none yet", ended);
}

fn register_config(to: &mut Registry, snapshot: &Snapshot) {
    let (generation, in_force) = (Gauge::<i64>::default(), Gauge::<i64>::default());
    generation.set(i64::try_from(snapshot.config_generation).unwrap_or(i64::MAX));
    in_force.set(i64::from(snapshot.config_is_saved_one));
    to.register("config_generation", "Generation of the configuration in force; 1 at the start", generation);
    to.register(
        "config_last_reload_successful",
        "Whether what is saved now is in force: 1, or 0 if it was refused and an earlier configuration is",
        in_force,
    );
}

/// A gauge of bytes.
pub(super) fn bytes(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}
