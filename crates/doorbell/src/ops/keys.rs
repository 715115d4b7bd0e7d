//! API keys: made, listed, removed.

use std::collections::BTreeSet;
use std::time::Duration;

use doorbell_client::api;
use doorbell_core::id::KeyId;
use doorbell_core::time::Timestamp;

use super::{Error, put_in_force, require_any_owner};
use crate::app::{Accounts, App, Caller, hash_key, make_key};
use crate::clock;
use crate::config::{is_name, parse_duration};
use crate::store::{ApiKey, Store};

/// The longest label, in characters.
const LONGEST_NAME: usize = 100;

/// The longest life of a key that ends by itself.
const LONGEST_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Makes a key, and shows it this once.
///
/// # Errors
/// If the caller is no owner, or the wish is not clear.
pub async fn create(app: &App, caller: &Caller, wish: api::NewKey) -> Result<api::CreatedKey, Error> {
    require_any_owner(caller)?;
    let in_force = app.current();
    let config = &in_force.config;
    let agents = config.agents.keys().chain(config.declared.keys()).map(String::as_str);
    let agents: Vec<&str> = agents.filter(|agent| caller.may_see(agent)).collect();
    let wish = match caller {
        Caller::Account { account, .. } => of_account(wish, &account.name)?,
        _ => wish,
    };
    let (key, created) = make(app.store.as_ref(), wish, &agents, &app.accounts).await?;
    app.access.admit(key);
    Ok(created)
}

/// Makes a key in a store: for projects whose gateway does not run, and for the first key of all.
///
/// # Errors
/// If the wish is not clear or the store is unavailable.
pub async fn make(
    store: &dyn Store,
    wish: api::NewKey,
    agents: &[&str],
    accounts: &Accounts,
) -> Result<(ApiKey, api::CreatedKey), Error> {
    check(&wish, agents)?;
    let now = clock::now();
    let expires_at = wish.expires.as_deref().map(|after| expiry(after, now)).transpose()?;
    let text = make_key("dbk");
    let key = ApiKey {
        id: clock::new_id(),
        name: wish.name,
        role: wish.role,
        account: wish.account.or_else(|| accounts.of_agent(wish.agent.as_deref()?)),
        agent: wish.agent,
        hash: hash_key(&text),
        created_at: now,
        expires_at,
        last_used_at: None,
    };
    store.put_key(key.clone()).await?;
    let created = api::CreatedKey {
        key_id: key.id.to_string(),
        key: text,
        name: key.name.clone(),
        role: key.role.clone(),
        agent: key.agent.clone(),
        account: key.account.clone(),
        created_at: key.created_at.to_string(),
        expires_at: key.expires_at.map(|at| at.to_string()),
    };
    Ok((key, created))
}

/// All keys, oldest first, without the secrets.
///
/// # Errors
/// If the caller is no owner, or the store is unavailable.
pub async fn list(app: &App, caller: &Caller) -> Result<api::KeyList, Error> {
    require_any_owner(caller)?;
    let keys = app.store.keys().await?.into_iter().filter(|key| is_seen(caller, key));
    // What is kept lags behind.
    let used = |key: ApiKey| ApiKey { last_used_at: app.access.last_used(key.id).max(key.last_used_at), ..key };
    Ok(api::KeyList { keys: keys.map(|key| view(used(key))).collect() })
}

/// All keys of a store: for projects whose gateway does not run, too.
///
/// # Errors
/// If the store is unavailable.
pub async fn all(store: &dyn Store) -> Result<api::KeyList, Error> {
    Ok(api::KeyList { keys: store.keys().await?.into_iter().map(view).collect() })
}

/// What an account's owner wishes for is that account's.
fn of_account(wish: api::NewKey, account: &str) -> Result<api::NewKey, Error> {
    match &wish.account {
        Some(other) if other != account => {
            Err(Error::Invalid(format!("this key makes keys of the account `{account}` only")))
        }
        _ if wish.agent.is_some() => Ok(api::NewKey { account: None, ..wish }),
        _ => Ok(api::NewKey { account: Some(account.to_owned()), ..wish }),
    }
}

/// Whether a key is one of the caller's account, or of its agents.
fn is_seen(caller: &Caller, key: &ApiKey) -> bool {
    match (caller, &key.agent) {
        (Caller::Account { account, .. }, _) if key.account.is_some() => key.account.as_ref() == Some(&account.name),
        (Caller::Account { .. }, agent) => agent.as_ref().is_some_and(|agent| caller.may_see(agent)),
        _ => true,
    }
}

fn view(key: ApiKey) -> api::Key {
    api::Key {
        key_id: key.id.to_string(),
        name: key.name,
        role: key.role,
        agent: key.agent,
        account: key.account,
        created_at: key.created_at.to_string(),
        expires_at: key.expires_at.map(|at| at.to_string()),
        last_used_at: key.last_used_at.map(|at| at.to_string()),
    }
}

/// When a key ends that is to live for so long.
fn expiry(after: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let after = parse_duration(after).map_err(|error| Error::Invalid(format!("`expires`: {error}")))?;
    if after.is_zero() || after > LONGEST_LIFE {
        return Err(Error::Invalid("`expires` is up to 3650d; without it, a key does not end by itself".to_owned()));
    }
    Ok(now.after(after))
}

/// Removes a key: nothing is answered to it any more, and the streams that it has open and its subscriptions end.
///
/// # Errors
/// If the caller is no owner, there is no such key, or the store is unavailable.
pub async fn remove(app: &App, caller: &Caller, id: &str) -> Result<api::RemovedKey, Error> {
    require_any_owner(caller)?;
    if !app.store.keys().await?.iter().any(|key| key.id.to_string() == id && is_seen(caller, key)) {
        return Err(Error::NotFound("key"));
    }
    let (id, removed) = remove_from(app.store.as_ref(), id).await?;
    app.access.expel(id);
    if app.current().subscribers.all().any(|one| one.subscription.key == id) {
        let turn = app.in_force.turn().await;
        put_in_force(app, &turn).await;
    }
    tracing::info!(key = %id, by = caller.name(), "key.removed");
    Ok(removed)
}

/// Removes a key from a store: for projects whose gateway does not run.
///
/// # Errors
/// If there is no such key, or the store is unavailable.
pub async fn remove_from(store: &dyn Store, id: &str) -> Result<(KeyId, api::RemovedKey), Error> {
    let id: KeyId = id.parse().map_err(|_| Error::NotFound("key"))?;
    if !store.remove_key(id).await? {
        return Err(Error::NotFound("key"));
    }
    Ok((id, api::RemovedKey { key_id: id.to_string(), removed_at: clock::now().to_string() }))
}

fn check(wish: &api::NewKey, agents: &[&str]) -> Result<(), Error> {
    let invalid = |detail: String| Err(Error::Invalid(detail));
    if wish.name.trim().is_empty() || wish.name.chars().count() > LONGEST_NAME {
        return invalid(format!("`name` must have 1 to {LONGEST_NAME} characters"));
    }
    if wish.name.chars().any(char::is_control) {
        return invalid("`name` must not have control characters".to_owned());
    }
    if wish.account.as_ref().is_some_and(|account| !is_name(account)) {
        return invalid("`account` must be a name of a-z, 0-9, `_` and `-`, 64 characters at most".to_owned());
    }
    if wish.account.is_some() && wish.role == "agent" {
        return invalid("`account` goes with roles `owner` and `viewer`: an agent has that of its own".to_owned());
    }
    match (wish.role.as_str(), &wish.agent) {
        ("owner" | "viewer", None) => Ok(()),
        ("owner" | "viewer", Some(_)) => invalid("`agent` goes with role `agent` only".to_owned()),
        ("agent", None) => invalid("role `agent` needs `agent`: the name of the agent".to_owned()),
        ("agent", Some(agent)) if !agents.contains(&agent.as_str()) => invalid(no_agent(agent, agents)),
        ("agent", Some(_)) => Ok(()),
        _ => invalid("`role` must be owner, viewer or agent".to_owned()),
    }
}

fn no_agent(agent: &str, agents: &[&str]) -> String {
    // One that is declared may be in force, too.
    let agents = agents.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    match agents.as_slice() {
        [] => format!("there is no agent `{agent}`, and no other"),
        _ => format!("there is no agent `{agent}`; there are: {}", agents.join(", ")),
    }
}
