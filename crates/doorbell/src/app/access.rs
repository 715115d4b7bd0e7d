//! Who may come in: API keys and run tokens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use doorbell_core::id::{KeyId, RunId};
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Account, Accounts, Caller, hash_key, make_key};
use crate::store::{ApiKey, Error, Store};

/// API keys and run tokens, by their SHA-256; the keys themselves are kept nowhere.
#[derive(Debug, Default)]
pub struct Access {
    accounts: Arc<Accounts>,
    keys: RwLock<HashMap<Vec<u8>, Admitted>>,
    tokens: Mutex<HashMap<Vec<u8>, (RunId, String)>>,
}

/// A key that is let in.
#[derive(Debug)]
struct Admitted {
    key: ApiKey,
    /// Cancelled when it is removed.
    removed: CancellationToken,
    /// When it was used last, in milliseconds since the Unix epoch; 0: never.
    used: AtomicI64,
    /// What of it is kept.
    kept: AtomicI64,
}

impl Admitted {
    fn new(key: ApiKey) -> Self {
        let used = key.last_used_at.map_or(0, Timestamp::as_millis);
        Self { key, removed: CancellationToken::new(), used: AtomicI64::new(used), kept: AtomicI64::new(used) }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.key.expires_at.is_some_and(|at| at <= now)
    }
}

/// Who shows a key or token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What it may.
    pub caller: Caller,
    /// Its id: the key's (`key_…`), or that of the run whose token it is.
    pub id: String,
    /// The key's label, or the run's agent.
    pub name: String,
    /// The account that it belongs to; none: the gateway's.
    pub account: Option<String>,
}

impl Known {
    /// `owner`, `viewer`, `agent` or `run`.
    pub fn role(&self) -> &'static str {
        match self.caller {
            Caller::Owner { .. } | Caller::Account { changes: true, .. } => "owner",
            Caller::Viewer | Caller::Account { .. } => "viewer",
            Caller::Agent(_) => "agent",
            Caller::Run { .. } => "run",
        }
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// There is no such key or token.
    Nobody,
    /// There is such a key, and it ended by itself.
    Expired(Timestamp),
}

impl Access {
    /// With these keys.
    pub fn new(keys: Vec<ApiKey>, accounts: Arc<Accounts>) -> Self {
        let keys = keys.into_iter().map(|key| (key.hash.clone(), Admitted::new(key))).collect();
        Self { accounts, keys: RwLock::new(keys), tokens: Mutex::default() }
    }

    /// Lets a key in.
    pub fn admit(&self, key: ApiKey) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.hash.clone(), Admitted::new(key));
    }

    /// Lets a key in no more, and ends what it has open.
    pub fn expel(&self, id: KeyId) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|_, admitted| {
            if admitted.key.id == id {
                admitted.removed.cancel();
            }
            admitted.key.id != id
        });
    }

    /// Is cancelled when the key of this hash is removed; none if it is no API key, or is removed already.
    pub fn removal(&self, hash: &[u8]) -> Option<CancellationToken> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(hash).map(|admitted| admitted.removed.clone())
    }

    /// Whether there is a key with this id.
    pub fn has(&self, id: KeyId) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).values().any(|admitted| admitted.key.id == id)
    }

    /// When a key ends by itself.
    pub fn end_of(&self, id: KeyId) -> Option<Timestamp> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().find(|admitted| admitted.key.id == id)?.key.expires_at
    }

    /// Who has the key or token of this hash, and notes that it is used now.
    ///
    /// # Errors
    /// If it is nobody's, or ended.
    pub fn identify(&self, hash: &[u8], now: Timestamp) -> Result<Known, Unknown> {
        if let Some(admitted) = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(hash) {
            let key = &admitted.key;
            if let Some(at) = key.expires_at.filter(|_| admitted.is_over(now)) {
                return Err(Unknown::Expired(at));
            }
            let caller = self.caller(key).ok_or(Unknown::Nobody)?;
            admitted.used.fetch_max(now.as_millis(), Ordering::Relaxed);
            let account = self.accounts.of_caller(&caller);
            return Ok(Known { caller, id: key.id.to_string(), name: key.name.clone(), account });
        }
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (run, agent) = tokens.get(hash).ok_or(Unknown::Nobody)?;
        let caller = Caller::Run { run: *run, agent: agent.clone() };
        let account = self.accounts.of_caller(&caller);
        Ok(Known { caller, id: run.to_string(), name: agent.clone(), account })
    }

    /// Who a key is.
    fn caller(&self, key: &ApiKey) -> Option<Caller> {
        let name = key.name.clone();
        let account = key.account.clone().map(|name| Account::new(name, Arc::clone(&self.accounts)));
        match (key.role.as_str(), &key.agent, account) {
            ("owner", _, None) => Some(Caller::Owner { name }),
            ("viewer", _, None) => Some(Caller::Viewer),
            ("owner", _, Some(account)) => Some(Caller::Account { account, changes: true, name }),
            ("viewer", _, Some(account)) => Some(Caller::Account { account, changes: false, name }),
            // One that was made while its agent was of another account is nobody's: who made it may not know what is the agent's now.
            ("agent", Some(agent), made_for) => {
                let is_its = made_for.is_none_or(|account| account.has_agent(agent));
                is_its.then(|| Caller::Agent(agent.clone()))
            }
            _ => None,
        }
    }

    /// Who this key is; none if there is no such key.
    pub fn caller_of(&self, id: KeyId) -> Option<Caller> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        self.caller(&keys.values().find(|admitted| admitted.key.id == id)?.key)
    }

    /// Whether a key or token of this hash is known, and not over: tokens die with their attempt.
    pub fn knows(&self, hash: &[u8], now: Timestamp) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(hash).is_some_and(|admitted| !admitted.is_over(now))
            || self.tokens.lock().unwrap_or_else(PoisonError::into_inner).contains_key(hash)
    }

    /// When a key was used last; none, if it never was.
    pub fn last_used(&self, id: KeyId) -> Option<Timestamp> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let used = keys.values().find(|admitted| admitted.key.id == id)?.used.load(Ordering::Relaxed);
        (used > 0).then(|| Timestamp::from_millis(used))
    }

    /// Keeps when keys were used since the last time; without anything, the store is not asked.
    ///
    /// # Errors
    /// If the store is unavailable; the next call tries again.
    pub async fn keep_uses(&self, store: &dyn Store) -> Result<(), Error> {
        let uses: Vec<(KeyId, i64)> = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let uses = keys.values().map(|admitted| (admitted, admitted.used.load(Ordering::Relaxed)));
            let new = uses.filter(|(admitted, used)| *used > admitted.kept.load(Ordering::Relaxed));
            new.map(|(admitted, used)| (admitted.key.id, used)).collect()
        };
        if uses.is_empty() {
            return Ok(());
        }
        store.mark_keys_used(uses.iter().map(|(id, at)| (*id, Timestamp::from_millis(*at))).collect()).await?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        for admitted in keys.values() {
            if let Some((_, at)) = uses.iter().find(|(id, _)| *id == admitted.key.id) {
                admitted.kept.fetch_max(*at, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// A token for one attempt; it is dead when the returned value is dropped.
    pub fn issue_token<'a>(&'a self, run: RunId, agent: &str) -> RunToken<'a> {
        let text = make_key("dbr");
        let hash = hash_key(&text);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(hash.clone(), (run, agent.to_owned()));
        RunToken { access: self, hash, secret: Secret::new(text) }
    }
}

/// A token for one attempt.
#[derive(Debug)]
pub struct RunToken<'a> {
    access: &'a Access,
    hash: Vec<u8>,
    secret: Secret,
}

impl RunToken<'_> {
    /// The token.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl Drop for RunToken<'_> {
    fn drop(&mut self) {
        self.access.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
    }
}
