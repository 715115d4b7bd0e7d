//! The master key of stored secrets, and its change.

use doorbell_client::api;
use doorbell_core::id::WebhookId;

use super::{Error, put_in_force, require_owner};
use crate::app::subscriptions::secrets_of;
use crate::app::webhooks::{seal_as, unseal_secret};
use crate::app::{App, Caller};
use crate::store::{Resealed, SealedSecret, Store};
use crate::vault::Vault;

/// Secrets that are sealed anew in one transaction.
const STEP: usize = 100;

/// Seals all stored secrets with a new master key, while the gateway goes on.
///
/// # Errors
/// If the caller is no owner, the earlier key is not there, or the store is unavailable; asking again goes on with it.
pub async fn rekey(app: &App, caller: &Caller, wish: api::Rekey) -> Result<api::Rekeyed, Error> {
    require_owner(caller)?;
    let turn = app.in_force.turn().await;
    let done = rekey_stored(app.store.as_ref(), &app.vault, wish.lost).await?;
    put_in_force(app, &turn).await;
    tracing::info!(
        master_key = done.master_key,
        resealed = done.resealed,
        unreadable = done.unreadable,
        by = caller.name(),
        "master_key.changed"
    );
    Ok(done)
}

/// The same in a store: for projects whose gateway does not run, too.
///
/// The new key is kept beside the earlier ones before anything is sealed with it, and those go when nothing is sealed with
/// them any more: at every moment the keys that are there open every secret.
///
/// # Errors
/// As [`rekey`].
pub async fn rekey_stored(store: &dyn Store, vault: &Vault, lost: bool) -> Result<api::Rekeyed, Error> {
    let locked = |closed: crate::vault::Closed| Error::Locked(closed.to_string());
    let stored = stored_secrets(store).await?;
    let all: Vec<_> = stored.iter().map(|(id, secret)| (*id, secret)).collect();
    let first = vault.first();
    let opened = all.iter().filter_map(|(webhook, sealed)| {
        unseal_secret(vault, *webhook, sealed).ok().map(|secret| (*webhook, *sealed, secret))
    });
    let opened: Vec<_> = opened.collect();
    if opened.len() < all.len() && opened.is_empty() && !lost {
        let detail = "no stored secret can be opened: put the master key back that they are sealed with first; if it is lost \
                      for good, --lost goes on with a new one, and webhooks whose secrets stay closed must be rotated";
        return Err(Error::Locked(detail.to_owned()));
    }
    // A change that did not end goes on with the key that it made.
    let unfinished = opened.iter().any(|(_, sealed, _)| Some(&sealed.master) != first.as_ref());
    if first.is_none() || !(vault.is_given() || unfinished) {
        vault.make_key().map_err(locked)?;
    }
    let first = vault.first().unwrap_or_default();
    let mut resealed = 0;
    let stale: Vec<_> = opened.into_iter().filter(|(_, sealed, _)| sealed.master != first).collect();
    for step in stale.chunks(STEP) {
        let mut secrets = Vec::with_capacity(step.len());
        for (webhook, sealed, secret) in step {
            let anew = seal_as(vault, *webhook, sealed.id, secret).map_err(locked)?;
            secrets.push(Resealed { was: sealed.master.clone(), secret: anew });
        }
        resealed += store.reseal_secrets(secrets).await?;
    }
    let left: Vec<String> = stored_secrets(store).await?.into_iter().map(|(_, secret)| secret.master).collect();
    let unreadable = left.iter().filter(|master| **master != first).count();
    vault.keep_only(&left).map_err(locked)?;
    let (origin, file) = (vault.is_given(), vault.file().display().to_string());
    Ok(api::Rekeyed {
        master_key: first,
        origin: if origin { crate::vault::VARIABLE.to_owned() } else { file.clone() },
        resealed,
        unreadable,
        unused_file: (origin && unreadable == 0 && vault.file().exists()).then_some(file),
    })
}

/// Every secret that is stored, of webhooks and of subscriptions, and whose it is.
pub(super) async fn stored_secrets(store: &dyn Store) -> Result<Vec<(WebhookId, SealedSecret)>, Error> {
    let webhooks = store.webhooks().await?.into_iter().map(|one| (one.webhook.id, one.secrets));
    let subscriptions = store.subscriptions().await?.into_iter();
    let subscriptions = subscriptions.map(|one| (secrets_of(one.subscription.id), one.secrets));
    let all = webhooks.chain(subscriptions);
    Ok(all.flat_map(|(id, secrets)| secrets.into_iter().map(move |secret| (id, secret.secret))).collect())
}
