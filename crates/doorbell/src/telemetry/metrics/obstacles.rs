//! What keeps runs from being carried out, or from succeeding: pauses, limits, throttles, failures.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{AgentLabels, Real, Snapshot, SourceLabels, label_of};
use crate::store::HeldBy;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HeldLabels {
    agent: String,
    cause: &'static str,
}

/// What keeps runs from being carried out, or from succeeding.
pub(super) fn register(to: &mut Registry, snapshot: &Snapshot) {
    let paused = Family::<SourceLabels, Gauge>::default();
    for source in &snapshot.sources {
        let is_paused = snapshot.paused_sources.contains(source);
        paused.get_or_create(&SourceLabels { source: source.clone() }).set(i64::from(is_paused));
    }
    to.register("source_paused", "Whether a source is paused, or comes back little by little: 1, or 0", paused);
    let Some(tallies) = &snapshot.tallies else { return };
    let held = Family::<HeldLabels, Gauge>::default();
    let (throttled, failing) = (Family::<AgentLabels, Gauge>::default(), Family::<AgentLabels, Gauge>::default());
    let opens = Family::<AgentLabels, Real>::default();
    for (agent, _) in &snapshot.agents {
        for cause in HeldBy::ALL.map(HeldBy::as_str) {
            let _ = held.get_or_create(&HeldLabels { agent: agent.clone(), cause });
        }
        let labels = AgentLabels { agent: agent.clone() };
        let _ = (throttled.get_or_create(&labels), failing.get_or_create(&labels), opens.get_or_create(&labels));
    }
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (agent, by, count) in &tallies.held {
        held.get_or_create(&HeldLabels { agent: label_of(agent), cause: by.as_str() }).inc_by(gauge(*count));
    }
    for (agent, until) in tallies.throttled.iter().filter(|(_, until)| *until > snapshot.now) {
        let labels = AgentLabels { agent: agent.clone() };
        let wait = until.since(snapshot.now).as_secs_f64();
        let opens = opens.get_or_create(&labels);
        // Of several triggers, the first that may go on.
        opens.set(if opens.get() > 0.0 { wait.min(opens.get()) } else { wait });
        let count = tallies.in_gates.iter().find(|(of, _)| of == agent).map_or(0, |(_, count)| *count);
        throttled.get_or_create(&labels).set(gauge(count));
    }
    for (agent, runs, _) in &tallies.streaks {
        failing.get_or_create(&AgentLabels { agent: label_of(agent) }).inc_by(gauge(*runs));
    }
    to.register(
        "held_runs",
        "Held runs by why: cause agent_paused, agent_removed, source_paused, key_limit or other",
        held,
    );
    to.register("throttled_runs", "Queued runs with a throttle, while it lets none start; else 0", throttled);
    to.register("throttled_seconds", "Until the next throttled run may start; 0 if none is throttled", opens);
    to.register("failing_runs", "Runs of an agent that failed one after the other since one succeeded", failing);
}
