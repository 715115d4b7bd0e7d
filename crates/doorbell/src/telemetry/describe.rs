//! Every metric that there is, read off what is rendered.

use std::collections::BTreeSet;
use std::time::Duration;

use doorbell_core::run::State;
use doorbell_core::time::Timestamp;

use super::metrics::{Door, Metrics, Snapshot};
use crate::store::{Figures, OutcomeKind, Space, Tallies};

/// A metric, as it is documented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// As queries name it; a histogram without `_bucket`, `_count`, `_sum`.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Its labels, `le` of histograms aside.
    pub labels: Vec<String>,
    /// What it counts or measures.
    pub help: String,
}

/// All metrics, in the order in which they are shown.
pub fn describe_metrics() -> Vec<Description> {
    read(&render_all())
}

/// Reads names, kinds, texts and labels off the text format.
fn read(text: &str) -> Vec<Description> {
    let mut found: Vec<Description> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let help = help.trim_end_matches('.').to_owned();
            found.push(Description { name: name.to_owned(), kind: String::new(), labels: Vec::new(), help });
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let Some(last) = found.last_mut() else { continue };
            last.kind = kind.to_owned();
            last.name.push_str(match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            });
        } else if let (Some(last), Some((_, labels))) = (found.last_mut(), line.split_once('{')) {
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
            let known: BTreeSet<String> = last.labels.drain(..).collect();
            last.labels = known.into_iter().chain(names.filter(|name| *name != "le").map(str::to_owned)).collect();
            last.labels.sort();
            last.labels.dedup();
        }
    }
    found
}

/// A gateway in which everything happened once.
fn render_all() -> String {
    let now = Timestamp::from_seconds(1);
    let (agent, second) = ("agent".to_owned(), Duration::from_secs(1));
    let metrics = Metrics::new(now);
    metrics.count_accepted("source", false, &[(agent.clone(), OutcomeKind::Started)], second);
    metrics.count_rejected("source", "code");
    metrics.count_suppressed("source");
    metrics.count_first_start(&agent, second);
    metrics.count_notification("dead_letter", true);
    metrics.count_attempt(&agent, "succeeded", "succeeded", second);
    let tallies = Tallies {
        runs: vec![(agent.clone(), State::Queued, 1)],
        ended: vec![(agent.clone(), State::Succeeded, 1)],
        dead_letters: vec![(agent.clone(), 1)],
        oldest_queued: vec![(agent.clone(), now)],
        ..Tallies::default()
    };
    metrics.render(&Snapshot {
        certificate_expires: None,
        sources: vec!["source".to_owned()],
        paused_sources: Vec::new(),
        agents: vec![(agent, 1)],
        tallies: Some(tallies),
        space: Some(Space::default()),
        figures: Figures::default(),
        store_up: true,
        door: Door::default(),
        config_generation: 1,
        config_is_saved_one: true,
        last_sweep: None,
        now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        let all = describe_metrics();
        assert!(all.len() > 30, "{all:?}");
        for metric in all {
            let Description { name, kind, help, .. } = &metric;
            assert!(name.starts_with("doorbell_") || name.starts_with("process_"), "{metric:?}");
            assert!(!help.is_empty() && !kind.is_empty(), "{metric:?}");
            let plain = name.strip_suffix("_total").unwrap_or(name);
            for unit in ["seconds", "bytes"] {
                assert!(!plain.contains(unit) || plain.ends_with(unit), "a unit stands at the end: {metric:?}");
            }
            assert!(!["_ms", "_millis", "_kb", "_count"].iter().any(|end| plain.ends_with(end)), "{metric:?}");
        }
    }

    #[test]
    fn a_metric_is_read_with_its_labels() {
        let all = describe_metrics();
        let deliveries = all.iter().find(|metric| metric.name == "doorbell_deliveries_total").unwrap();
        assert_eq!(
            (deliveries.kind.as_str(), &deliveries.labels[..]),
            ("counter", &["code", "outcome", "source"].map(str::to_owned)[..])
        );
        let accept = all.iter().find(|metric| metric.name == "doorbell_accept_seconds").unwrap();
        assert_eq!((accept.kind.as_str(), &accept.labels[..]), ("histogram", &["source".to_owned()][..]));
    }
}
