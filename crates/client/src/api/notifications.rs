//! Samples of notifications, and what was said to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A wish for a sample of a notification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotificationTest {
    /// What it shall tell of, e.g. `dead_letter`; then only who is told of that gets it. Without it, everybody gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
}

/// What the receivers said to a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationAnswers {
    /// In the order of the configuration.
    pub receivers: Vec<NotificationAnswer>,
}

/// What one receiver said to a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationAnswer {
    /// What it is known by.
    pub receiver: String,
    /// Whether it took the sample.
    pub delivered: bool,
    /// What it said, or why it did not take it.
    pub detail: String,
}
