//! Webhooks that are made at run time, an agent's own webhook, and the master key of their secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A wish for a webhook.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewWebhook {
    /// A label.
    pub name: String,
    /// Who sends; `generic` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The secret that the sender signs with, where it is the sender that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for NewWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, provider, secret: _ } = self;
        f.debug_struct("NewWebhook").field("name", name).field("provider", provider).finish_non_exhaustive()
    }
}

/// A new webhook: the only time that its secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedWebhook {
    /// `whk_…`.
    pub webhook_id: String,
    /// Where the sender is to send.
    pub url: String,
    /// What the sender is to sign with; null if it was given, or the request is answered again.
    pub signing_secret: Option<String>,
    /// The label.
    pub name: String,
    /// The provider.
    pub provider: String,
    /// Whether it takes deliveries.
    pub active: bool,
    /// `user` or `agent`.
    pub created_by: String,
    /// When it was made.
    pub created_at: String,
}

impl std::fmt::Debug for CreatedWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedWebhook").field("webhook_id", &self.webhook_id).finish_non_exhaustive()
    }
}

/// A webhook, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// `whk_…`.
    pub webhook_id: String,
    /// The label.
    pub name: String,
    /// The provider.
    pub provider: String,
    /// Whether it takes deliveries.
    pub active: bool,
    /// `user` or `agent`.
    pub created_by: String,
    /// When it was made.
    pub created_at: String,
    /// When it was changed last.
    pub updated_at: String,
    /// Where its sender sends.
    pub url: String,
    /// Why its deliveries are answered with 503; none if nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The webhooks of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookList {
    /// Oldest first.
    pub webhooks: Vec<Webhook>,
}

/// How a secret is to be replaced.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// How long the old secret still verifies, e.g. `24h` (what holds if nothing is said), `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// The new secret, where it is the sender that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotation").field("overlap", &self.overlap).finish_non_exhaustive()
    }
}

/// A replaced secret: the only time that the new one is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotatedWebhook {
    /// `whk_…`.
    pub webhook_id: String,
    /// What the sender is to sign with from now on; null if it was given, or the request is answered again.
    pub signing_secret: Option<String>,
    /// Until when earlier secrets verify.
    pub old_until: String,
}

impl std::fmt::Debug for RotatedWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotatedWebhook").field("webhook_id", &self.webhook_id).finish_non_exhaustive()
    }
}

/// A wish for a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookTest {
    /// Which sample of the provider; the first one if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// What became of a sample that a webhook was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookTested {
    /// `whk_…`.
    pub webhook_id: String,
    /// The sample.
    pub event: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The event that was stored.
    pub delivery_id: Option<String>,
    /// Its type.
    pub event_type: Option<String>,
    /// The runs that it started.
    pub runs: Vec<String>,
    /// The stable code, if it was refused.
    pub code: Option<String>,
    /// What was wrong, if it was refused.
    pub detail: Option<String>,
}

/// A wish for an agent's own webhook. What is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnWebhookWish {
    /// Whether it takes requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_enabled: Option<bool>,
    /// `bearer`, `hmac` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_auth: Option<String>,
    /// Makes a new secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotate_secret: bool,
    /// How long the old secret still verifies then, e.g. `24h` (what holds if nothing is said), `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
}

/// An answer of the agents' own webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Success{T}")]
pub struct Success<T> {
    /// Always true.
    pub success: bool,
    /// What was asked for.
    pub data: T,
}

impl<T> Success<T> {
    /// What was asked for.
    pub fn new(data: T) -> Self {
        Self { success: true, data }
    }
}

/// How an agent's own webhook stands.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnWebhook {
    /// The agent.
    pub id: String,
    /// Whether it takes requests.
    pub webhook_enabled: bool,
    /// `bearer`, `hmac` or `none`.
    pub webhook_auth: String,
    /// Where to post.
    pub webhook_url: String,
    /// The secret, if it was made just now; it is not shown again.
    pub webhook_secret: Option<String>,
}

impl std::fmt::Debug for OwnWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnWebhook").field("id", &self.id).field("auth", &self.webhook_auth).finish_non_exhaustive()
    }
}

/// What a request to an agent's own webhook started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartedExecution {
    /// The run.
    pub execution_id: String,
    /// `queued` or `running`.
    pub status: String,
}

/// A run, as whoever started it over the agent's own webhook asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// The run.
    pub execution_id: String,
    /// The run's state.
    pub status: String,
    /// What started it: `webhook`, `schedule`, `manual`, `agent`, `notification`.
    pub trigger: String,
    /// What it was given: JSON, or else text; null if that was removed.
    pub input: Value,
    /// Its result.
    pub output: Value,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// When its newest try began.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
}

/// A wish for another master key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rekey {
    /// That the earlier key is lost for good: a new one is made, and what was sealed with the lost one stays closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// What a change of the master key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rekeyed {
    /// The name of the key that seals now.
    pub master_key: String,
    /// Where it stands: the variable or the file.
    pub origin: String,
    /// Secrets that were sealed anew.
    pub resealed: usize,
    /// Secrets that no key opens, and that stay as they are.
    pub unreadable: usize,
    /// The file of keys, if it is of no use any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_file: Option<String>,
}
