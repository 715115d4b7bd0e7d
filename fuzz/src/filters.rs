//! Triggers and contexts, as they are kept: JSON.

use doorbell_core::event::Context;
use doorbell_core::matcher::Matcher;
use doorbell_core::trigger::{Candidate, Trigger};
use serde::Deserialize;

#[derive(Deserialize)]
struct Input {
    triggers: Vec<Trigger>,
    source: String,
    #[serde(default)]
    handshake: bool,
    context: Context,
}

/// The index finds what asking every trigger finds, and `why` says the same.
pub(crate) fn filters(data: &[u8]) {
    let Ok(Input { triggers, source, handshake, context }) = serde_json::from_slice(data) else { return };
    let candidate = Candidate { source: &source, handshake, context: &context };
    let naive: Vec<Trigger> = triggers.iter().filter(|trigger| trigger.matches(candidate)).cloned().collect();
    for trigger in &triggers {
        let verdict = trigger.explain(candidate);
        assert_eq!(verdict.matched, trigger.matches(candidate), "{verdict:?}");
        assert!(!verdict.reason.is_empty());
        for pattern in trigger.clauses.iter().flat_map(|clause| &clause.any_of) {
            assert!(!pattern.is_exact() || pattern.matches(pattern.as_str()), "{pattern}");
            assert!(pattern.as_str().starts_with(pattern.literal_prefix()));
        }
    }
    let text = serde_json::to_string(&triggers).expect("triggers are JSON");
    assert_eq!(serde_json::from_str::<Vec<Trigger>>(&text).ok().as_ref(), Some(&triggers), "{text}");
    let matcher = Matcher::new(triggers);
    let found: Vec<Trigger> = matcher.find(candidate).into_iter().cloned().collect();
    assert_eq!(found, naive);
}
