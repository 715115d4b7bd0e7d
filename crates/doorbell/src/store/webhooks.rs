//! Webhooks that are made at run time, and their secrets as they are kept.

use doorbell_core::id::WebhookId;
use doorbell_core::time::Timestamp;

/// A webhook that was made at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// The agent that it starts.
    pub agent: String,
    /// The account that the agent was of when it was made; none: the gateway's.
    pub account: Option<String>,
    /// A label.
    pub name: String,
    /// The provider's name.
    pub provider: String,
    /// Of an agent's own webhook, how it is proved: `bearer`, `hmac`, `none`. An agent has one at most.
    pub own: Option<String>,
    /// Whether it takes deliveries.
    pub active: bool,
    /// `user` or `agent`.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// A secret of a webhook, which only the master key opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its own random id, to which it is bound.
    pub id: [u8; 16],
    /// The name of the master key that it is sealed with.
    pub master: String,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// A secret of a webhook as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// It counts from 1 within the webhook.
    pub number: u32,
    /// The secret.
    pub secret: SealedSecret,
    /// When it stops to verify, if it was replaced.
    pub until: Option<Timestamp>,
}

/// A webhook with its secrets, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    /// The webhook.
    pub webhook: Webhook,
    /// Its secrets, the newest first.
    pub secrets: Vec<StoredSecret>,
}

/// What becomes of a webhook.
#[derive(Debug, Clone)]
pub struct WebhookChange {
    /// How it stands afterwards; it is new if there is none with its id.
    pub webhook: Webhook,
    /// Its new secret, and until when the earlier ones verify: none of them longer than it did before.
    pub secret: Option<(SealedSecret, Timestamp)>,
    /// Webhooks that go for it: inactive ones, when there are too many.
    pub instead_of: Vec<WebhookId>,
}

/// A secret that is sealed with another master key.
#[derive(Debug, Clone)]
pub struct Resealed {
    /// The name of the key that it was sealed with.
    pub was: String,
    /// The same secret, sealed anew.
    pub secret: SealedSecret,
}
