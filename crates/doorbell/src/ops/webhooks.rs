//! Webhooks that are made at run time: made, listed, rotated, taken away and put back.
//!
//! Whoever changes one has its turn ([`InForce::turn`](crate::app::InForce::turn)) from looking at what is stored until the change is in force, so that limits
//! hold and nothing is put in force in another order than it was stored.

use std::time::Duration;

use doorbell_client::api;
use doorbell_core::id::WebhookId;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;

use super::{Error, captured, put_in_force, secrets::stored_secrets};
use crate::app::webhooks::{is_foreign, path, seal_secret};
use crate::app::{App, Caller};
use crate::clock;
use crate::config::parse_duration;
use crate::store::{StoredWebhook, Webhook, WebhookChange};

mod activity;
mod wish;

pub use activity::{deliveries, test};

/// Active webhooks of one agent.
pub const MOST_ACTIVE: usize = 100;
/// Webhooks of one agent that are kept, inactive ones too: beyond it the oldest inactive one goes for a new one.
const MOST_KEPT: usize = 1000;
/// Secrets of one webhook that verify at once.
const MOST_SECRETS: usize = 10;
/// How long a secret that was replaced verifies, if nothing is said.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// The same at most.
const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Makes a webhook for an agent, and shows its secret this once.
///
/// # Errors
/// If there is no such agent for this caller, the wish is not clear, there are too many, or no secret can be sealed.
pub async fn create(
    app: &App,
    caller: &Caller,
    agent: &str,
    wish: api::NewWebhook,
) -> Result<api::CreatedWebhook, Error> {
    let turn = app.in_force.turn().await;
    let stored = app.store.webhooks().await?;
    let created_by = require_manager(app, caller, agent, &stored)?;
    let in_force = app.current();
    if !in_force.config.agents.contains_key(agent) {
        return Err(Error::NotFound("agent"));
    }
    let wish::Checked { name, provider, secret, shown } = wish::check(&in_force.config, wish)?;
    let of_agent: Vec<&StoredWebhook> = of_agent(&stored, agent).collect();
    require_place(&of_agent)?;
    ready_to_seal(app).await?;
    let now = clock::now();
    let id: WebhookId = clock::new_id();
    let sealed = seal_secret(&app.vault, id, &secret).map_err(|closed| Error::Locked(closed.to_string()))?;
    let webhook = Webhook {
        id,
        agent: agent.to_owned(),
        account: app.accounts.of_agent(agent),
        name,
        provider,
        own: None,
        active: true,
        created_by: created_by.to_owned(),
        created_at: now,
        updated_at: now,
    };
    let too_many = (of_agent.len() + 1).saturating_sub(MOST_KEPT);
    let inactive = of_agent.iter().filter(|one| !one.webhook.active).map(|one| one.webhook.id);
    let instead_of: Vec<WebhookId> = inactive.take(too_many).collect();
    let change =
        WebhookChange { webhook: webhook.clone(), secret: Some((sealed, now)), instead_of: instead_of.clone() };
    app.store.put_webhook(change).await?;
    for gone in instead_of {
        app.secret_uses.forget(&gone.to_string());
        captured::remove_left(app, gone).await;
    }
    put_in_force(app, &turn).await;
    tracing::info!(webhook = %id, agent, provider = webhook.provider, by = caller.name(), "webhook.created");
    Ok(api::CreatedWebhook {
        webhook_id: id.to_string(),
        url: url(app, &webhook),
        signing_secret: shown.then(|| text_of(&secret)).flatten(),
        name: webhook.name,
        provider: webhook.provider,
        active: true,
        created_by: webhook.created_by,
        created_at: now.to_string(),
    })
}

/// The webhooks of an agent, oldest first, without their secrets.
///
/// # Errors
/// If there is no such agent for this caller, or the store is unavailable.
pub async fn list(app: &App, caller: &Caller, agent: &str) -> Result<api::WebhookList, Error> {
    let stored = app.store.webhooks().await?;
    require_seer(app, caller, agent, &stored)?;
    let seen = of_agent(&stored, agent).filter(|one| is_seen(app, caller, &one.webhook));
    Ok(api::WebhookList { webhooks: seen.map(|one| view(app, &one.webhook)).collect() })
}

/// Replaces the secret of a webhook, and shows the new one this once. The earlier ones verify for the overlap.
///
/// # Errors
/// If there is no such webhook for this caller, the wish is not clear, or no secret can be sealed.
pub async fn rotate(
    app: &App,
    caller: &Caller,
    agent: &str,
    id: &str,
    wish: api::Rotation,
) -> Result<api::RotatedWebhook, Error> {
    let turn = app.in_force.turn().await;
    let stored = app.store.webhooks().await?;
    require_manager(app, caller, agent, &stored)?;
    let found = find(app, caller, &stored, agent, id)?;
    let overlap = parse_overlap(wish.overlap.as_deref())?;
    let (secret, shown) = wish::secret_for(&app.current().config, &found.webhook.provider, wish.secret)?;
    let now = clock::now();
    let until = now.after(overlap);
    require_few_secrets(found, until, now)?;
    ready_to_seal(app).await?;
    let webhook = Webhook { updated_at: now, ..found.webhook.clone() };
    let sealed = seal_secret(&app.vault, webhook.id, &secret).map_err(|closed| Error::Locked(closed.to_string()))?;
    let change = WebhookChange { webhook, secret: Some((sealed, until)), instead_of: Vec::new() };
    app.store.put_webhook(change).await?;
    put_in_force(app, &turn).await;
    tracing::info!(webhook = id, agent, by = caller.name(), old_until = %until, "webhook.rotated");
    Ok(api::RotatedWebhook {
        webhook_id: id.to_owned(),
        signing_secret: shown.then(|| text_of(&secret)).flatten(),
        old_until: until.to_string(),
    })
}

/// Has a webhook take deliveries, or no more.
///
/// # Errors
/// If there is no such webhook for this caller, or too many would be active.
pub async fn set_active(
    app: &App,
    caller: &Caller,
    agent: &str,
    id: &str,
    active: bool,
) -> Result<api::Webhook, Error> {
    let turn = app.in_force.turn().await;
    let stored = app.store.webhooks().await?;
    require_manager(app, caller, agent, &stored)?;
    let found = find(app, caller, &stored, agent, id)?;
    if active && is_foreign_now(app, &found.webhook) {
        return Err(Error::Conflict("webhook_inactive", foreign(&found.webhook)));
    }
    // Both, because what was stored may not have come in force: then it does now.
    if found.webhook.active == active && app.current().hooks.get(id).is_some() == active {
        return Ok(view(app, &found.webhook));
    }
    if active {
        require_place(&of_agent(&stored, agent).collect::<Vec<_>>())?;
    }
    let webhook = Webhook { active, updated_at: clock::now(), ..found.webhook.clone() };
    let change = WebhookChange { webhook: webhook.clone(), secret: None, instead_of: Vec::new() };
    app.store.put_webhook(change).await?;
    put_in_force(app, &turn).await;
    let said = if active { "webhook.activated" } else { "webhook.deactivated" };
    tracing::info!(webhook = id, agent, by = caller.name(), "{said}");
    Ok(view(app, &webhook))
}

/// How long a secret that was replaced verifies.
pub(super) fn parse_overlap(text: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = text else { return Ok(OVERLAP) };
    let overlap = parse_duration(text).map_err(|error| Error::Invalid(format!("`overlap`: {error}")))?;
    match overlap > LONGEST_OVERLAP {
        true => Err(Error::Invalid("`overlap` may be 30d at most".to_owned())),
        false => Ok(overlap),
    }
}

/// Refuses a further secret if many verify already, and would go on to.
pub(super) fn require_few_secrets(found: &StoredWebhook, until: Timestamp, now: Timestamp) -> Result<(), Error> {
    let left = found.secrets.iter().filter(|secret| now < secret.until.map_or(until, |ends| ends.min(until)));
    if left.count() < MOST_SECRETS {
        return Ok(());
    }
    let detail = format!("{MOST_SECRETS} secrets of this webhook verify already: rotate with `overlap` 0s, or wait");
    Err(Error::Conflict("overlap_full", detail))
}

/// Sees to it that there is a master key; the first secret of all makes it, be it a webhook's or a subscription's.
pub(super) async fn ready_to_seal(app: &App) -> Result<(), Error> {
    if app.vault.has_key() {
        return Ok(());
    }
    if !stored_secrets(app.store.as_ref()).await?.is_empty() {
        let detail = "the master key that stored secrets are sealed with is not there: put it back (DOORBELL_MASTER_KEY, or \
                      .doorbell/master.key) and start the gateway again; if it is lost for good: `doorbell secrets rekey --lost`";
        return Err(Error::Locked(detail.to_owned()));
    }
    app.vault.make_key().map_err(|closed| Error::Locked(closed.to_string()))?;
    tracing::info!(file = %app.vault.file().display(), "master_key.made: keep a copy of it apart from the database's");
    Ok(())
}

/// Who may look at the webhooks of an agent.
pub(super) fn require_seer(app: &App, caller: &Caller, agent: &str, stored: &[StoredWebhook]) -> Result<(), Error> {
    // Those of an agent that is gone can still be looked at and taken away.
    let known = app.current().config.agents.contains_key(agent) || of_agent(stored, agent).next().is_some();
    match known && caller.may_see(agent) {
        true => Ok(()),
        false => Err(Error::NotFound("agent")),
    }
}

/// Who may change them. Answers who is said to have made what they make.
pub(super) fn require_manager(
    app: &App,
    caller: &Caller,
    agent: &str,
    stored: &[StoredWebhook],
) -> Result<&'static str, Error> {
    require_seer(app, caller, agent, stored)?;
    match caller {
        Caller::Owner { .. } | Caller::Account { changes: true, .. } => Ok("user"),
        Caller::Agent(_) | Caller::Run { .. } => Ok("agent"),
        Caller::Viewer | Caller::Account { .. } => {
            Err(Error::NotAllowed("this key may look at webhooks, and not change them"))
        }
    }
}

fn require_place(of_agent: &[&StoredWebhook]) -> Result<(), Error> {
    if of_agent.iter().filter(|one| one.webhook.active).count() < MOST_ACTIVE {
        return Ok(());
    }
    let detail = format!("an agent may have {MOST_ACTIVE} active webhooks: delete one that is not used");
    Err(Error::Conflict("too_many_webhooks", detail))
}

/// The webhooks of an agent, without its own.
fn of_agent<'a>(stored: &'a [StoredWebhook], agent: &'a str) -> impl Iterator<Item = &'a StoredWebhook> {
    stored.iter().filter(move |one| one.webhook.agent == agent && one.webhook.own.is_none())
}

fn find<'a>(
    app: &App,
    caller: &Caller,
    stored: &'a [StoredWebhook],
    agent: &'a str,
    id: &str,
) -> Result<&'a StoredWebhook, Error> {
    let id: WebhookId = id.parse().map_err(|_| Error::NotFound("webhook"))?;
    let mut seen = of_agent(stored, agent).filter(|one| is_seen(app, caller, &one.webhook));
    seen.find(|one| one.webhook.id == id).ok_or(Error::NotFound("webhook"))
}

/// Whether it was made for another account than its agent is of now.
pub(super) fn is_foreign_now(app: &App, webhook: &Webhook) -> bool {
    is_foreign(webhook, app.accounts.of_agent(&webhook.agent).as_deref())
}

/// What was made for another account is for the gateway's owners to take away.
fn is_seen(app: &App, caller: &Caller, webhook: &Webhook) -> bool {
    caller.sees_all() || !is_foreign_now(app, webhook)
}

fn foreign(webhook: &Webhook) -> String {
    let account = webhook.account.as_deref().unwrap_or_default();
    format!(
        "it was made for the account `{account}`, of which its agent is no more: it takes nothing; make another one"
    )
}

/// Where its sender sends.
fn url(app: &App, webhook: &Webhook) -> String {
    format!("{}{}", app.public_url(&app.current()), path(webhook))
}

fn view(app: &App, webhook: &Webhook) -> api::Webhook {
    let in_force = app.current();
    api::Webhook {
        webhook_id: webhook.id.to_string(),
        name: webhook.name.clone(),
        provider: webhook.provider.clone(),
        active: webhook.active,
        created_by: webhook.created_by.clone(),
        created_at: webhook.created_at.to_string(),
        updated_at: webhook.updated_at.to_string(),
        url: url(app, webhook),
        problem: match is_foreign_now(app, webhook) {
            true => Some(foreign(webhook)),
            false => in_force.hooks.get(&webhook.id.to_string()).and_then(|hook| hook.locked.clone()),
        },
    }
}

/// A secret that the gateway makes.
pub(super) fn text_of(secret: &Secret) -> Option<String> {
    secret.expose_str().map(str::to_owned)
}
