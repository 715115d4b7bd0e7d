//! Accounts: which agents and sources are whose. An account is a name that keys, agents and sources bear; what bears none is the
//! gateway's own.
//!
//! What is gone keeps its owner, because what it did is still there to be seen. So a name that somebody had is nobody else's,
//! unless the files give it to them. Kept in the store, as notes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Caller;
use super::webhooks::Hooks;
use crate::config::Config;
use crate::store::{Error, Notes, Store, Within};

/// How the keys begin among the notes.
const AGENTS: &str = "owner/agent/";
const SOURCES: &str = "owner/source/";

/// By name, the account; an empty one is the gateway.
#[derive(Debug, Clone, Default)]
struct Owners {
    agents: BTreeMap<String, String>,
    sources: BTreeMap<String, String>,
    /// Those of webhooks that are in force. They are not kept: whatever comes to one has an outcome for its agent.
    hooks: BTreeMap<String, String>,
}

impl Owners {
    fn of_source(&self, source: &str) -> Option<&String> {
        self.sources.get(source).or_else(|| self.hooks.get(source))
    }
}

/// Which agents and sources are whose.
#[derive(Debug, Default)]
pub struct Accounts(RwLock<Owners>);

impl Accounts {
    /// What the store remembers.
    pub fn load(notes: &[(String, String)]) -> Self {
        let under = |prefix: &str| {
            let named = notes.iter().filter_map(|(key, account)| Some((key.strip_prefix(prefix)?, account)));
            named.map(|(name, account)| (name.to_owned(), account.clone())).collect()
        };
        Self(RwLock::new(Owners { agents: under(AGENTS), sources: under(SOURCES), hooks: BTreeMap::new() }))
    }

    fn owners(&self) -> RwLockReadGuard<'_, Owners> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a configuration says of owners; durable when it answers.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn settle(&self, store: &dyn Store, config: &Config, hooks: &Hooks) -> Result<(), Error> {
        let (mut owners, mut notes, mut given_back) = (self.owners().clone(), Notes::default(), Vec::new());
        let mut put = |known: &mut BTreeMap<String, String>, prefix: &str, name: &str, account: &str| {
            if known.get(name).is_none_or(|before| before != account) {
                known.insert(name.to_owned(), account.to_owned());
                notes.kept.push((format!("{prefix}{name}"), account.to_owned()));
            }
        };
        for agent in config.agents.values() {
            put(&mut owners.agents, AGENTS, &agent.name, agent.account.as_deref().unwrap_or_default());
        }
        let files = config.sources.values().filter(|source| hooks.get(source.name()).is_none());
        for source in files {
            match source.account() {
                Some(account) => put(&mut owners.sources, SOURCES, source.name(), account),
                None if owners.sources.contains_key(source.name()) => given_back.push(source.name().to_owned()),
                None => {}
            }
        }
        owners.sources.retain(|name, _| !given_back.contains(name));
        notes.dropped.extend(given_back.iter().map(|name| format!("{SOURCES}{name}")));
        owners.hooks.clear();
        for hook in hooks.all() {
            // A webhook is its agent's, who may have been given to somebody else since.
            let account = owners.agents.get(&hook.webhook.agent).filter(|account| !account.is_empty());
            owners.hooks.extend(account.map(|account| (hook.webhook.id.to_string(), account.clone())));
        }
        if notes != Notes::default() {
            store.note(notes).await?;
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = owners;
        Ok(())
    }

    /// The account of an agent, also of one that is gone; none if it is the gateway's, or nobody's.
    pub fn of_agent(&self, agent: &str) -> Option<String> {
        self.owners().agents.get(agent).filter(|account| !account.is_empty()).cloned()
    }

    /// Whose a name of an agent is, if it is anybody's; an empty account is the gateway.
    pub fn owner_of(&self, agent: &str) -> Option<String> {
        self.owners().agents.get(agent).cloned()
    }

    /// The same of a source.
    pub fn of_source(&self, source: &str) -> Option<String> {
        self.owners().of_source(source).cloned()
    }

    /// The account that a caller belongs to.
    pub fn of_caller(&self, caller: &Caller) -> Option<String> {
        match caller {
            Caller::Owner { .. } | Caller::Viewer => None,
            Caller::Account { account, .. } => Some(account.name.clone()),
            Caller::Agent(agent) | Caller::Run { agent, .. } => self.of_agent(agent),
        }
    }

    /// How many names of agents an account has, or had.
    pub fn count_agents(&self, account: &str) -> usize {
        self.owners().agents.values().filter(|of| *of == account).count()
    }

    /// Whether an agent of this name is there, or was.
    pub fn knows_agent(&self, agent: &str) -> bool {
        self.owners().agents.contains_key(agent)
    }

    fn has_agent(&self, account: &str, agent: &str) -> bool {
        self.owners().agents.get(agent).is_some_and(|of| of == account)
    }

    fn has_source(&self, account: &str, source: &str) -> bool {
        self.owners().of_source(source).is_some_and(|of| of == account)
    }

    /// All that is an account's.
    pub fn within(&self, account: &str) -> Within {
        let of = |all: &BTreeMap<String, String>| -> Vec<String> {
            all.iter().filter(|(_, of)| *of == account).map(|(name, _)| name.clone()).collect()
        };
        let owners = self.owners();
        let mut sources = of(&owners.sources);
        sources.append(&mut of(&owners.hooks));
        Within { agents: of(&owners.agents), sources }
    }
}

/// An account, as a caller belongs to it: what is its is looked up when it is asked for, so that it is true for as long as a
/// stream is open.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name.
    pub name: String,
    accounts: Arc<Accounts>,
}

impl Account {
    /// The account of this name.
    pub fn new(name: String, accounts: Arc<Accounts>) -> Self {
        Self { name, accounts }
    }

    /// Whether an agent is its.
    pub fn has_agent(&self, agent: &str) -> bool {
        self.accounts.has_agent(&self.name, agent)
    }

    /// Whether a source is its.
    pub fn has_source(&self, source: &str) -> bool {
        self.accounts.has_source(&self.name, source)
    }

    /// All that is its.
    pub fn within(&self) -> Within {
        self.accounts.within(&self.name)
    }
}

impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Account {}
