//! Sources, and what came to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Pause;

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its provider.
    pub provider: String,
    /// Its account, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Where senders reach it.
    pub url: String,
    /// Whether it verifies signatures.
    pub signed: bool,
    /// The credential instances it verifies with.
    pub credentials: Vec<String>,
    /// What each of them verified so far, in the same order.
    #[serde(default)]
    pub credential_uses: Vec<CredentialUse>,
    /// Whether its sender showed a secret that is not the credential yet. For owners.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret_captured: bool,
    /// Whose events are stored and start nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_senders: Vec<String>,
    /// Its pause: what comes is taken, and the runs that it would start are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// The webhook that it is, if it was made at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<SourceWebhook>,
    /// Who has its events posted by MCP Events. For owners and viewers.
    // Agents are told of it without a schema: the list of tools is long enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    pub subscriptions: Vec<SourceSubscription>,
}

/// That somebody has the events of a source posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceSubscription {
    /// Its id; the agent of the runs that deliver to it.
    pub id: String,
    /// The key that made it: it ends with it.
    pub key_id: String,
    /// Scheme, host and port of where they are posted.
    pub to: String,
    /// Which events, as JSON: filters as a trigger has them.
    pub arguments: String,
    /// When it ends, unless it is refreshed.
    pub expires_at: String,
}

/// That a source is a webhook that was made at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceWebhook {
    /// The agent that it starts.
    pub agent: String,
    /// Its label.
    pub name: String,
    /// Whether it is the agent's own webhook, at the agent's URL.
    pub own: bool,
    /// `user` or `agent`.
    pub created_by: String,
    /// Why its deliveries are answered with 503; none if nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What one credential of a source verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialUse {
    /// The credential's instance.
    pub credential: String,
    /// How many deliveries it verified, redeliveries too.
    pub deliveries: u64,
    /// When the newest of them came; none: it never verified one.
    pub last_verified_at: Option<String>,
}

/// The sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceList {
    /// By name.
    pub sources: Vec<Source>,
}

/// The secrets that senders showed when a webhook was set up, the first one and those after it. They verify nothing before
/// one is the credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapturedSecret {
    /// The source.
    pub source: String,
    /// The credential that it would be, e.g. `notion_webhook_secret:acme`.
    pub credential: String,
    /// The field of it.
    pub field: String,
    /// The first secret.
    pub secret: String,
    /// When it was shown.
    pub captured_at: String,
    /// From where. Anybody who knows the URL can show one: take it only if this was the provider, when you asked for it.
    pub remote: String,
    /// The command that makes it the credential; where there are several, with an `N` for the number of the one to take.
    pub command: String,
    /// Others that were shown after it. Not all of them are the provider's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<LaterSecret>,
}

/// A secret that was shown to a source after another one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaterSecret {
    /// The secret.
    pub secret: String,
    /// When it was shown.
    pub captured_at: String,
    /// From where.
    pub remote: String,
}

impl std::fmt::Debug for LaterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaterSecret").field("captured_at", &self.captured_at).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for CapturedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapturedSecret").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A delivery to a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// When.
    pub at: String,
    /// The source.
    pub source: String,
    /// `accepted` or `rejected`.
    pub status: String,
    /// The event, if it was accepted.
    pub event_id: Option<String>,
    /// Its type, if it was accepted.
    pub event_type: Option<String>,
    /// How many further deliveries of it came (accepted), or were refused alike and not kept (rejected).
    pub repeated: u64,
    /// The stable code, if it was rejected.
    pub code: Option<String>,
    /// What was wrong, if it was rejected.
    pub detail: Option<String>,
    /// The sender's address, if it was rejected.
    pub remote: Option<String>,
}

/// Deliveries, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryList {
    /// Newest first.
    pub deliveries: Vec<Delivery>,
}
