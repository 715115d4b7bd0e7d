//! Series of sources and agents: there from the start, gone with what they are about.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use doorbell_core::run::State;

use super::{
    API_REFUSALS, AgentLabels, AttemptLabels, CodeLabels, DeliveryLabels, Metrics, NotificationLabels, OutcomeLabels,
    Snapshot, SourceLabels, label_of,
};
use crate::config::Topic;
use crate::store::OutcomeKind;

type Names = RwLock<BTreeSet<String>>;

/// The labels that there are series of.
#[derive(Debug, Default)]
pub(super) struct Known {
    sources: Names,
    agents: Names,
    /// Codes of refusals.
    codes: Names,
    /// Ways in which tries ended.
    ended: Names,
}

impl Known {
    pub(super) fn note_source(&self, name: &str) {
        note(&self.sources, name);
    }

    pub(super) fn note_agent(&self, name: &str) {
        note(&self.agents, name);
    }

    pub(super) fn note_code(&self, code: &str) {
        note(&self.codes, code);
    }

    pub(super) fn note_ended(&self, ended: &str) {
        note(&self.ended, ended);
    }
}

fn note(names: &Names, name: &str) {
    if !names.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
        names.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }
}

fn all(names: &Names) -> BTreeSet<String> {
    names.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes those out that are not kept, and answers them.
fn take_gone(names: &Names, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    if names.read().unwrap_or_else(PoisonError::into_inner).iter().all(|name| is_there(name)) {
        return Vec::new();
    }
    let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
    let gone: Vec<String> = names.iter().filter(|name| !is_there(name)).cloned().collect();
    names.retain(|name| is_there(name));
    gone
}

impl Metrics {
    /// An agent's name as a label, noted as one that there are series of.
    pub(super) fn noted(&self, agent: &str) -> String {
        let label = label_of(agent);
        if label == agent {
            self.known.note_agent(agent);
        }
        label
    }

    /// A series that begins with its first event has no increase to show for it, and one that is missing raises no
    /// alert; so what can be known to come is there from the start.
    pub(super) fn begin_series(&self, snapshot: &Snapshot) {
        for source in &snapshot.sources {
            self.known.note_source(source);
            for outcome in ["accepted", "duplicate"] {
                let labels = DeliveryLabels { source: source.clone(), outcome, code: String::new() };
                let _ = self.deliveries.get_or_create(&labels);
            }
            let labels = SourceLabels { source: source.clone() };
            let _ = self.accept_seconds.get_or_create(&labels);
            let _ = self.suppressed.get_or_create(&labels);
        }
        for (agent, _) in &snapshot.agents {
            self.known.note_agent(agent);
            let labels = AgentLabels { agent: agent.clone() };
            let _ = self.wait_seconds.get_or_create(&labels);
            let _ = self.attempt_seconds.get_or_create(&labels);
            let _ = self.outcomes.get_or_create(&OutcomeLabels { agent: agent.clone(), outcome: "started" });
        }
        for code in API_REFUSALS {
            let _ = self.api_refused.get_or_create(&CodeLabels { code });
        }
        let _ = self.spans();
        for on in Topic::ALL.map(Topic::as_str) {
            for result in ["delivered", "failed"] {
                let _ = self.notifications.get_or_create(&NotificationLabels { on, result });
            }
        }
    }

    /// Forgets the series of sources and agents that are not there any more. One that comes again begins at 0.
    pub fn forget_gone(&self, is_source: impl Fn(&str) -> bool, is_agent: impl Fn(&str) -> bool) {
        let refused = all(&self.known.codes).into_iter().map(|code| ("rejected", code));
        let taken = ["accepted", "duplicate"].map(|outcome| (outcome, String::new()));
        let outcomes: Vec<_> = refused.chain(taken).collect();
        for source in take_gone(&self.known.sources, is_source) {
            for (outcome, code) in &outcomes {
                self.deliveries.remove(&DeliveryLabels { source: source.clone(), outcome, code: code.clone() });
            }
            let labels = SourceLabels { source };
            self.accept_seconds.remove(&labels);
            self.suppressed.remove(&labels);
        }
        let ended = all(&self.known.ended);
        for agent in take_gone(&self.known.agents, is_agent) {
            for kind in OutcomeKind::ALL {
                self.outcomes.remove(&OutcomeLabels { agent: agent.clone(), outcome: kind.as_str() });
            }
            for (ended, state) in ended.iter().flat_map(|ended| State::ALL.map(|state| (ended, state.as_str()))) {
                self.attempts.remove(&AttemptLabels { agent: agent.clone(), ended: ended.clone(), state });
            }
            let labels = AgentLabels { agent };
            self.wait_seconds.remove(&labels);
            self.attempt_seconds.remove(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doorbell_core::time::Timestamp;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_webhook_that_was_deleted_has_no_series_any_more() {
        let (metrics, second) = (Metrics::new(Timestamp::from_seconds(1)), Duration::from_secs(1));
        let shown = || {
            let (mut registry, mut text) = (Registry::default(), String::new());
            metrics.register_counted(&mut registry);
            encode(&mut text, &registry).unwrap();
            text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect::<BTreeSet<_>>()
        };
        let happen = |source: &str, agent: &str| {
            metrics.count_accepted(source, false, &[(agent.to_owned(), OutcomeKind::Skipped)], second);
            metrics.count_accepted(source, true, &[], second);
            metrics.count_rejected(source, "signature_mismatch");
            metrics.count_suppressed(source);
            metrics.count_first_start(agent, second);
            metrics.count_attempt(agent, "exit_code", State::Failed.as_str(), second);
        };
        happen("stays", "stays");
        let before = shown();
        for n in 0..100 {
            happen(&format!("hook-{n}"), &format!("agent-{n}"));
        }
        assert!(shown().len() > 100 * before.len() / 2);
        metrics.forget_gone(|name| name == "stays", |name| name == "stays");
        assert_eq!(shown(), before);
    }
}
