//! API keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A wish for an API key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// A label.
    pub name: String,
    /// `owner`, `viewer` or `agent`.
    pub role: String,
    /// The agent, for role `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The account, for the other roles; none: that of who asks, or the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// After how long it ends by itself, e.g. `30d`; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A new API key: the only time that the key itself is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedKey {
    /// `key_…`.
    pub key_id: String,
    /// `dbk_…`: the secret. Null where a request is answered again: it is shown once.
    #[schemars(with = "Option<String>")]
    pub key: String,
    /// The label.
    pub name: String,
    /// `owner`, `viewer` or `agent`.
    pub role: String,
    /// The agent, for role `agent`.
    pub agent: Option<String>,
    /// The account that it belongs to; none: the gateway's.
    #[serde(default)]
    pub account: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it ends by itself.
    #[serde(default)]
    pub expires_at: Option<String>,
}

/// All API keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyList {
    /// Oldest first.
    pub keys: Vec<Key>,
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// `key_…`.
    pub key_id: String,
    /// The label.
    pub name: String,
    /// `owner`, `viewer` or `agent`.
    pub role: String,
    /// The agent, for role `agent`.
    pub agent: Option<String>,
    /// The account that it belongs to; none: the gateway's.
    #[serde(default)]
    pub account: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it ends by itself, or ended.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// When it was used last; none, if it never was.
    #[serde(default)]
    pub last_used_at: Option<String>,
}

/// An API key that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedKey {
    /// `key_…`.
    pub key_id: String,
    /// When it was removed.
    pub removed_at: String,
}
