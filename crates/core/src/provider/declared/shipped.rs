//! The definitions that the program brings along.

use std::sync::{Arc, LazyLock};

use super::{Declared, Definition};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/providers/", $name, ".toml")))),*]
    };
}

/// In the order in which they are listed.
static SHIPPED: [(&str, &str); 21] = shipped![
    "gitlab",
    "bitbucket",
    "gitea",
    "jira",
    "shopify",
    "pagerduty",
    "telegram",
    "notion",
    "vercel",
    "intercom",
    "zendesk",
    "datadog",
    "grafana",
    "clerk",
    "resend",
    "svix",
    "typeform",
    "calendly",
    "circleci",
    "buildkite",
    "cloudflare",
];

/// Read once.
static READ: LazyLock<Vec<Arc<Declared>>> = LazyLock::new(|| {
    let read = |(_, text): &(&str, &str)| {
        Arc::new(Declared::new(
            Definition::parse(text).expect("definitions in the program are right: a test reads them"),
        ))
    };
    SHIPPED.iter().map(read).collect()
});

/// Each definition that the program brings along: its name and its text.
pub fn shipped() -> Vec<(&'static str, &'static str)> {
    SHIPPED.to_vec()
}

/// The providers of the shipped definitions.
pub(in crate::provider) fn providers() -> impl Iterator<Item = Arc<Declared>> {
    READ.iter().cloned()
}
