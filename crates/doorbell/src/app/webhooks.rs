//! Webhooks that are made at run time: each is a source whose name is the webhook's id, and that starts its agent for every
//! event. They are laid over the configuration of the files, so that all else knows sources and triggers only.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_core::condition::Conditions;
use doorbell_core::flow::Flow;
use doorbell_core::id::WebhookId;
use doorbell_core::provider::Provider;
use doorbell_core::provider::generic::{Generic, GenericOptions, Scheme};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;

use crate::clock;
use crate::config::{Config, is_named};
use crate::store::{SealedSecret, StoredSecret, StoredWebhook, Webhook};
use crate::vault::{Closed, Sealed, Vault};

/// How an agent's own webhook is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAuth {
    /// The secret itself, in `Authorization: Bearer`.
    Bearer,
    /// An HMAC of the body, in `X-Webhook-Signature`.
    Hmac,
    /// Not at all: anybody can start the agent.
    None,
}

impl OwnAuth {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Hmac => "hmac",
            Self::None => "none",
        }
    }

    /// The one that is spelt so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Bearer, Self::Hmac, Self::None].into_iter().find(|auth| auth.as_str() == name)
    }
}

/// A webhook in force.
#[derive(Debug, Clone)]
pub struct Hook {
    /// As it is stored.
    pub webhook: Webhook,
    /// Why a secret of it cannot be used, for its owner: what no other secret of it verifies is answered with 503.
    pub locked: Option<String>,
}

/// The webhooks in force, by the names of their sources.
#[derive(Debug, Default)]
pub struct Hooks {
    by_name: BTreeMap<String, Hook>,
    own: BTreeMap<String, String>,
}

impl Hooks {
    /// The webhook whose source has this name.
    pub fn get(&self, source: &str) -> Option<&Hook> {
        self.by_name.get(source)
    }

    /// An agent's own webhook.
    pub fn own(&self, agent: &str) -> Option<&Hook> {
        self.own.get(agent).and_then(|name| self.by_name.get(name))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        self.by_name.values()
    }

    /// Says how many of them have secrets that cannot be used, and why.
    pub fn warn_of_locked(&self) {
        let mut locked = self.all().filter_map(|hook| Some((&hook.webhook, hook.locked.as_ref()?)));
        if let Some((first, why)) = locked.next() {
            tracing::error!(webhooks = locked.count() + 1, first = %first.id, agent = first.agent, why,
                "webhook.secrets_locked: deliveries to these webhooks are answered with 503 until the master key is back");
        }
    }
}

impl Hook {
    /// The path that senders use.
    pub fn path(&self) -> String {
        path(&self.webhook)
    }

    /// How an agent's own webhook is proved; none if it is another one.
    pub fn own(&self) -> Option<OwnAuth> {
        self.webhook.own.as_deref().and_then(OwnAuth::named)
    }
}

/// The path that senders use.
pub fn path(webhook: &Webhook) -> String {
    match webhook.own {
        Some(_) => format!("/agents/{}/webhook", webhook.agent),
        None => format!("/v1/hooks/{}", webhook.id),
    }
}

/// Lays what is stored over the configuration of the files: active webhooks of its agents. Answers them.
pub(super) fn lay_over(config: &mut Config, stored: Vec<StoredWebhook>, vault: &Vault, now: Timestamp) -> Hooks {
    let mut hooks = Hooks::default();
    if stored.is_empty() {
        return hooks;
    }
    let positions: BTreeMap<String, usize> =
        config.agents.iter().map(|(name, agent)| (name.clone(), agent.triggers.len())).collect();
    let providers = config.all_providers();
    let limit = config.gateway.hook_rate_limit;
    for StoredWebhook { webhook, secrets } in stored {
        let Some(position) = positions.get(&webhook.agent).filter(|_| webhook.active) else { continue };
        let account = config.agents.get(&webhook.agent).and_then(|agent| agent.account.as_deref());
        if is_foreign(&webhook, account) {
            continue;
        }
        let name = webhook.id.to_string();
        let (source, locked) = source_of(&webhook, &secrets, &providers, vault, now);
        if let Some(source) = source {
            // An agent's own webhook has limits of its own.
            let limit = limit.filter(|_| webhook.own.is_none());
            config.sources.insert(name.clone(), Arc::new(source.limited_to(limit)));
        }
        if let Some(agent) = config.agents.get_mut(&webhook.agent) {
            Arc::make_mut(agent).triggers.push(trigger(&webhook.agent, &name, *position));
        }
        if webhook.own.is_some() {
            hooks.own.insert(webhook.agent.clone(), name.clone());
        }
        hooks.by_name.insert(name, Hook { webhook, locked });
    }
    hooks
}

/// Whether a webhook was made while its agent was of another account than it is now. Those who made it know its secret, and start nothing
/// of somebody else's. What the gateway's owners made goes with the agent that they give away.
pub fn is_foreign(webhook: &Webhook, account: Option<&str>) -> bool {
    webhook.account.is_some() && webhook.account.as_deref() != account
}

/// What a webhook means to its agent. `position`: behind those of its file.
pub fn trigger(agent: &str, source: &str, position: usize) -> Trigger {
    Trigger {
        agent: agent.to_owned(),
        position,
        source: source.to_owned(),
        clauses: Vec::new(),
        conditions: Conditions::default(),
        flow: Flow::default(),
    }
}

/// The source of a webhook, and why a secret of it cannot be used.
fn source_of(
    webhook: &Webhook,
    secrets: &[StoredSecret],
    providers: &[Arc<dyn Provider>],
    vault: &Vault,
    now: Timestamp,
) -> (Option<Source>, Option<String>) {
    let own = webhook.own.as_deref().and_then(OwnAuth::named);
    let provider = match own {
        Some(OwnAuth::Bearer) => bearer(),
        _ => providers.iter().find(|provider| is_named(provider.as_ref(), &webhook.provider)).cloned(),
    };
    let Some(provider) = provider else {
        return (None, Some(format!("there is no provider `{}` any more", webhook.provider)));
    };
    let (mut keys, mut retiring, mut locked) = (Vec::new(), BTreeMap::new(), None);
    let live = |secret: &&StoredSecret| secret.until.is_none_or(|until| now < until);
    let secrets = if own == Some(OwnAuth::None) { &[] } else { secrets };
    for stored in secrets.iter().filter(live) {
        let instance = format!("secret-{}", stored.number);
        let opened = unseal_secret(vault, webhook.id, &stored.secret).map_err(|closed| closed.to_string());
        match opened.and_then(|secret| provider.prepare(&secret).map_err(|error| format!("it {error}"))) {
            Ok(key) => {
                stored.until.map(|until| retiring.insert(instance.clone(), until));
                keys.push(NamedKey { instance, key });
            }
            Err(why) => {
                let _ = locked.get_or_insert(format!("its {instance} cannot be used: {why}"));
            }
        }
    }
    let open = own == Some(OwnAuth::None);
    let source = Source::new(webhook.id.to_string(), provider, keys, open, Dedup::Id);
    match source {
        Ok(source) => (Some(source.retiring(retiring)), locked),
        Err(error) => (None, locked.or(Some(error.to_string()))),
    }
}

/// What senders that show a token are.
pub fn bearer() -> Option<Arc<dyn Provider>> {
    let generic = Generic::new(GenericOptions { scheme: Scheme::Bearer, ..GenericOptions::default() });
    generic.ok().map(|generic| Arc::new(generic) as Arc<dyn Provider>)
}

/// Seals a new secret of a webhook.
///
/// # Errors
/// If there is no master key.
pub fn seal_secret(vault: &Vault, webhook: WebhookId, secret: &Secret) -> Result<SealedSecret, Closed> {
    let id = clock::random();
    seal_as(vault, webhook, id, secret)
}

/// Seals a secret that has its id already.
///
/// # Errors
/// If there is no master key.
pub fn seal_as(vault: &Vault, webhook: WebhookId, id: [u8; 16], secret: &Secret) -> Result<SealedSecret, Closed> {
    let Sealed { master, bytes } = vault.seal(secret, &place(&webhook.to_bytes(), &id))?;
    Ok(SealedSecret { id, master, sealed: bytes })
}

/// Opens a secret of a webhook.
///
/// # Errors
/// If its master key is not there, or it is damaged.
pub fn unseal_secret(vault: &Vault, webhook: WebhookId, secret: &SealedSecret) -> Result<Secret, Closed> {
    let sealed = Sealed { master: secret.master.clone(), bytes: secret.sealed.clone() };
    vault.unseal(&sealed, &place(&webhook.to_bytes(), &secret.id))
}

/// Where a secret belongs.
fn place<'a>(webhook: &'a [u8], secret: &'a [u8]) -> [&'a [u8]; 3] {
    [b"webhook", webhook, secret]
}
