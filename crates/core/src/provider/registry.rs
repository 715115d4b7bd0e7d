//! The providers that are built in.

use std::sync::Arc;

use super::Provider;
use super::discord::Discord;
use super::github::Github;
use super::slack::Slack;
use super::standard::Standard;
use super::twitter::Twitter;

/// Every provider that a source can have by its type alone, in the order in which they are listed. `generic` is none of
/// them: it is built from the keys of its source.
pub fn built_in() -> Vec<Arc<dyn Provider>> {
    vec![
        Arc::new(Github),
        Arc::new(Slack::default()),
        Arc::new(Discord::default()),
        Arc::new(Twitter),
        Arc::new(Standard::default()),
    ]
}
