//! A source: a named endpoint of one provider with its signing keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Context, Value};
use crate::flow::Rate;
use crate::provider::{Key, Provider};
use crate::time::Timestamp;

/// What makes two deliveries the same event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dedup {
    /// The provider's delivery id (or the content that stands for it where it has none).
    #[default]
    Id,
    /// The delivery id, or the same body again under another id.
    IdOrBody,
    /// Every delivery is an event of its own.
    Off,
}

/// A key of a source, with the name of the credential instance it came from.
#[derive(Debug, Clone)]
pub struct NamedKey {
    /// The credential instance, e.g. `acme`.
    pub instance: String,
    /// The key, prepared once.
    pub key: Key,
}

/// A named endpoint of one provider.
#[derive(Debug)]
pub struct Source {
    name: String,
    provider: Arc<dyn Provider>,
    keys: Vec<NamedKey>,
    dedup: Dedup,
    ignored: Vec<String>,
    /// Until when some of the keys verify, by instance.
    retiring: BTreeMap<String, Timestamp>,
    rate_limit: Option<Rate>,
    account: Option<String>,
}

/// The fields of a context that say who caused an event.
const SENDERS: [&str; 2] = ["sender", "bot_id"];

/// A source needs a key, or the word that it needs none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// No key and no consent: such a source would start agents for anybody.
    #[error(
        "has no signing secret: name a `credential`, or say `allow_unsigned = true` to let anybody start its agents"
    )]
    Unsigned,
    /// Consent and keys: it is not clear which one is meant.
    #[error(
        "has both a `credential` and `allow_unsigned = true`: with the latter no signature is checked, so keep one of them"
    )]
    Contradiction,
}

impl Source {
    /// A source that verifies with any of `keys`, or (`allow_unsigned`, without keys) takes everything.
    ///
    /// # Errors
    /// Without keys and without `allow_unsigned`, and with both.
    pub fn new(
        name: impl Into<String>,
        provider: Arc<dyn Provider>,
        keys: Vec<NamedKey>,
        allow_unsigned: bool,
        dedup: Dedup,
    ) -> Result<Self, InvalidSource> {
        match (keys.is_empty(), allow_unsigned) {
            (true, false) => Err(InvalidSource::Unsigned),
            (false, true) => Err(InvalidSource::Contradiction),
            _ => Ok(Self {
                name: name.into(),
                provider,
                keys,
                dedup,
                ignored: Vec::new(),
                retiring: BTreeMap::new(),
                rate_limit: None,
                account: None,
            }),
        }
    }

    /// The same source, whose events start nothing if one of these caused them: names, compared as the provider does.
    #[must_use]
    pub fn ignoring(mut self, senders: Vec<String>) -> Self {
        self.ignored = senders;
        self
    }

    /// The same source, some of whose keys verify until a time only, by instance: a rotation is under way.
    #[must_use]
    pub fn retiring(mut self, until: BTreeMap<String, Timestamp>) -> Self {
        self.retiring = until;
        self
    }

    /// The same source, that takes no more verified deliveries than this.
    #[must_use]
    pub fn limited_to(mut self, rate: Option<Rate>) -> Self {
        self.rate_limit = rate;
        self
    }

    /// The same source, as one that belongs to an account.
    #[must_use]
    pub fn of_account(mut self, account: Option<String>) -> Self {
        self.account = account;
        self
    }

    /// The account that it belongs to; none: it is the gateway's.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// How many verified deliveries it takes; none: any number.
    pub fn rate_limit(&self) -> Option<Rate> {
        self.rate_limit
    }

    /// Whose events start nothing.
    pub fn ignored_senders(&self) -> &[String] {
        &self.ignored
    }

    /// Who caused an event with this context, if that is somebody whose events start nothing. What several caused
    /// together (`senders`) is ignored only if all of them are.
    pub fn ignored_sender<'a>(&'a self, context: &Context) -> Option<&'a str> {
        if let Some(Value::List(senders)) = context.get("senders") {
            let ignored =
                |sender: &String| self.ignored.iter().find(|ignored| self.provider.is_sender(ignored, sender));
            let all = senders.iter().map(ignored).collect::<Option<Vec<_>>>()?;
            return all.first().map(|ignored| ignored.as_str());
        }
        let is =
            |name: &str, field: &str| context.text(field).is_some_and(|sender| self.provider.is_sender(name, sender));
        let caused = |name: &&String| SENDERS.iter().any(|field| is(name, field));
        self.ignored.iter().find(caused).map(String::as_str)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its provider.
    pub fn provider(&self) -> &dyn Provider {
        self.provider.as_ref()
    }

    /// Its provider, to keep.
    pub fn shared_provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    /// Its keys; none if it was said to take unsigned deliveries.
    pub fn keys(&self) -> &[NamedKey] {
        &self.keys
    }

    /// Those of them that verify what is received at this time.
    pub fn keys_at(&self, now: Timestamp) -> Cow<'_, [NamedKey]> {
        let holds = |key: &&NamedKey| self.retiring.get(&key.instance).is_none_or(|until| now < *until);
        match self.retiring.is_empty() || self.keys.iter().all(|key| holds(&key)) {
            true => Cow::Borrowed(&self.keys),
            false => Cow::Owned(self.keys.iter().filter(holds).cloned().collect()),
        }
    }

    /// What makes two deliveries the same event.
    pub fn dedup(&self) -> Dedup {
        self.dedup
    }
}
