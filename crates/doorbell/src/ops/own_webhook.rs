//! An agent's own webhook: one URL that starts it, and the runs that were started so.

use doorbell_client::api;
use doorbell_core::event::is_own;
use doorbell_core::id::RunId;
use doorbell_core::run::State;
use doorbell_core::secret::Secret;
use serde_json::Value;

use super::Error;
use super::put_in_force;
use super::webhooks::{
    is_foreign_now, parse_overlap, ready_to_seal, require_few_secrets, require_manager, require_seer, text_of,
};
use crate::app::webhooks::{OwnAuth, path, seal_secret};
use crate::app::{App, Caller};
use crate::clock;
use crate::store::{StoredWebhook, Webhook, WebhookChange};

/// Changes an agent's own webhook, and shows its secret if it made one; an empty wish changes nothing.
///
/// # Errors
/// If there is no such agent for this caller, the wish is not clear, or no secret can be sealed.
pub async fn set(app: &App, caller: &Caller, agent: &str, wish: api::OwnWebhookWish) -> Result<api::OwnWebhook, Error> {
    let turn = app.in_force.turn().await;
    let stored = app.store.webhooks().await?;
    let found = stored.iter().find(|one| one.webhook.agent == agent && one.webhook.own.is_some());
    require_seer(app, caller, agent, &stored)?;
    if wish == api::OwnWebhookWish::default() {
        let own = found.filter(|found| !is_foreign_now(app, &found.webhook));
        let webhook = own.map_or_else(|| new(agent, ""), |found| found.webhook.clone());
        return Ok(view(app, &webhook, None));
    }
    let created_by = require_manager(app, caller, agent, &stored)?;
    if !app.current().config.agents.contains_key(agent) {
        return Err(Error::NotFound("agent"));
    }
    // Of what was made for another account nothing stays, its secret least of all.
    let is_foreign = found.is_some_and(|found| is_foreign_now(app, &found.webhook));
    let account = app.accounts.of_agent(agent);
    let before = match found {
        Some(found) if is_foreign => Webhook { id: found.webhook.id, account, ..new(agent, created_by) },
        Some(found) => found.webhook.clone(),
        None => Webhook { account, ..new(agent, created_by) },
    };
    let webhook = changed(caller, &before, &wish)?;
    let auth_changed = found.is_some() && (is_foreign || webhook.own != before.own);
    let secret = match needs_secret(found, &webhook, auth_changed, &wish)? {
        true => Some(Secret::new(doorbell_core::provider::encode_hex(&clock::random::<32>()))),
        false => None,
    };
    let sealed = match &secret {
        None => None,
        Some(secret) => {
            // What proved itself in another way stops at once.
            let overlap = if auth_changed { Default::default() } else { parse_overlap(wish.overlap.as_deref())? };
            let until = webhook.updated_at.after(overlap);
            found.map(|found| require_few_secrets(found, until, webhook.updated_at)).transpose()?;
            ready_to_seal(app).await?;
            let sealed = seal_secret(&app.vault, webhook.id, secret);
            Some((sealed.map_err(|closed| Error::Locked(closed.to_string()))?, until))
        }
    };
    let change = WebhookChange { webhook: webhook.clone(), secret: sealed, instead_of: Vec::new() };
    app.store.put_webhook(change).await?;
    put_in_force(app, &turn).await;
    tracing::info!(
        agent,
        enabled = webhook.active,
        auth = webhook.own,
        new_secret = secret.is_some(),
        by = caller.name(),
        "own_webhook.changed"
    );
    if webhook.active && webhook.own.as_deref() == Some(OwnAuth::None.as_str()) {
        tracing::warn!(agent, "own_webhook.open: anybody who knows its URL can start this agent");
    }
    Ok(view(app, &webhook, secret.as_ref()))
}

fn new(agent: &str, created_by: &str) -> Webhook {
    let now = clock::now();
    Webhook {
        id: clock::new_id(),
        agent: agent.to_owned(),
        account: None,
        name: format!("{agent}'s own"),
        provider: "generic".to_owned(),
        own: Some(OwnAuth::Bearer.as_str().to_owned()),
        active: false,
        created_by: created_by.to_owned(),
        created_at: now,
        updated_at: now,
    }
}

/// How it is to stand.
fn changed(caller: &Caller, before: &Webhook, wish: &api::OwnWebhookWish) -> Result<Webhook, Error> {
    let auth = wish.webhook_auth.as_deref().or(before.own.as_deref()).and_then(OwnAuth::named);
    let auth = auth.ok_or_else(|| Error::Invalid("`webhookAuth` must be bearer, hmac or none".to_owned()))?;
    let active = wish.webhook_enabled.unwrap_or(before.active);
    if auth == OwnAuth::None && active && matches!(caller, Caller::Run { .. }) {
        return Err(Error::NotAllowed(
            "a run may not open its agent to everybody: `webhookAuth` none takes a person's key",
        ));
    }
    if wish.overlap.is_some() && !wish.rotate_secret {
        return Err(Error::Invalid("`overlap` goes with `rotateSecret` only".to_owned()));
    }
    Ok(Webhook { own: Some(auth.as_str().to_owned()), active, updated_at: clock::now(), ..before.clone() })
}

fn needs_secret(
    found: Option<&StoredWebhook>,
    webhook: &Webhook,
    auth_changed: bool,
    wish: &api::OwnWebhookWish,
) -> Result<bool, Error> {
    if webhook.own.as_deref() == Some(OwnAuth::None.as_str()) {
        return match wish.rotate_secret {
            true => Err(Error::Invalid("`rotateSecret`: without authentication there is no secret".to_owned())),
            false => Ok(false),
        };
    }
    let has_one = found.is_some_and(|found| !found.secrets.is_empty());
    Ok(wish.rotate_secret || auth_changed || (webhook.active && !has_one))
}

fn view(app: &App, webhook: &Webhook, secret: Option<&Secret>) -> api::OwnWebhook {
    api::OwnWebhook {
        id: webhook.agent.clone(),
        webhook_enabled: webhook.active,
        webhook_auth: webhook.own.clone().unwrap_or_default(),
        webhook_url: format!("{}{}", app.public_url(&app.current()), path(webhook)),
        webhook_secret: secret.and_then(text_of),
    }
}

/// What a request started, as its sender hears it. The run is stored: where it cannot be looked up, it is queued as far as anybody
/// knows, and an error would have the sender come again.
pub async fn started(app: &App, run: &str) -> api::StartedExecution {
    let found = match run.parse::<RunId>() {
        Ok(id) => app.store.run(id).await.ok().flatten(),
        Err(_) => None,
    };
    let runs = found.is_some_and(|(run, _)| run.state == State::Running);
    let status = if runs { State::Running } else { State::Queued };
    api::StartedExecution { execution_id: run.to_owned(), status: status.as_str().to_owned() }
}

/// A run of an agent, with what it was given and what came of it.
///
/// # Errors
/// If there is none, or not for this caller.
pub async fn execution(app: &App, caller: &Caller, agent: &str, id: &str) -> Result<api::Execution, Error> {
    let missing = || Error::NotFound("execution");
    let id: RunId = id.parse().map_err(|_| missing())?;
    // Before anything else is read of it: see `owned`.
    let owner = app.store.owner_of_run(id).await?;
    if owner.is_none_or(|owner| owner.agent != agent || !caller.may_see(agent)) {
        return Err(missing());
    }
    let (run, _) = app.store.run(id).await?.ok_or_else(missing)?;
    let event = app.store.event(run.event).await?;
    let body = app.store.body(run.event).await?;
    let input = body.map_or(Value::Null, |body| {
        serde_json::from_slice(&body.bytes).unwrap_or_else(|_| String::from_utf8_lossy(&body.bytes).into_owned().into())
    });
    let trigger = match event.map(|event| event.provider) {
        Some(own) if own == doorbell_core::event::OWN => "notification".to_owned(),
        Some(own) if is_own(&own) => own,
        _ => "webhook".to_owned(),
    };
    let went_wrong = matches!(run.state, State::Failed | State::Cancelled | State::Superseded | State::Dropped);
    let view = super::view_run(run);
    Ok(api::Execution {
        execution_id: view.id,
        status: view.state,
        trigger,
        input,
        output: view.result.unwrap_or_default(),
        error: view.reason.filter(|_| went_wrong),
        started_at: view.started_at,
        finished_at: view.finished_at,
    })
}
