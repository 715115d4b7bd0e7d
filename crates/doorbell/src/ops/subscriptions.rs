//! Events for those who subscribe: what types there are, and who has them posted to a URL (MCP Events, SEP-3415).
//!
//! A source is a type of events. Whoever may see its events may read them from a place on ([`reading`]); a key that may change
//! things may have them posted, too. A subscription is its key's alone, and ends with it.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::id::KeyId;
use doorbell_core::provider::decode_base64;
use doorbell_core::run::State;
use doorbell_core::secret::Secret;
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use serde_json::{Map, Value, json};

use super::pauses::may_see_source;
use super::put_in_force;
use super::webhooks::ready_to_seal;
use super::{Error, events};
use crate::app::subscriptions::{MOST_CHALLENGES_OF_KEY, agent_for, id_of, is_allowed, secrets_of, tenant};
use crate::app::webhooks::{seal_secret, unseal_secret};
use crate::app::{App, Caller};
use crate::clock;
use crate::dispatch::{Dispatcher, fault_of};
use crate::store::{RunQuery, StoredSubscription, Subscription, SubscriptionChange};

mod follower;
pub mod reading;

pub use follower::start;
use reading::Scope;

/// Subscriptions of one key.
pub const MOST_OF_KEY: usize = 100;
/// Subscriptions of all keys of one account.
const MOST_OF_ACCOUNT: usize = MOST / 4;
/// Subscriptions of all keys.
pub const MOST: usize = 1000;
/// How long one lives that says nothing of it, and at least and at most.
const TTL: Duration = Duration::from_secs(3600);
const SHORTEST_TTL: Duration = Duration::from_secs(10);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a URL that proved that it wants a subscription need not do it again for the same secret.
const PROVEN_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long deliveries are signed with a secret that was replaced, too.
const OVERLAP: Duration = Duration::from_secs(600);
/// Bytes of a URL at most.
const LONGEST_URL: usize = 2048;
/// Bytes of a secret.
const SECRET: std::ops::RangeInclusive<usize> = 24..=64;
/// Deliveries that are looked at for how a subscription does.
const LOOKED_AT: usize = 50;

/// Who asks, and by which key; run tokens are none.
#[derive(Debug, Clone)]
pub struct Who {
    /// With whose authority.
    pub caller: Caller,
    /// The key.
    pub key: Option<KeyId>,
}

/// A type of events.
#[derive(Debug, Clone)]
pub struct EventType {
    /// The source's name.
    pub name: String,
    /// In one sentence.
    pub description: String,
    /// Whether the caller may have them posted.
    pub may_subscribe: bool,
    /// What chooses among them, as JSON Schema.
    pub arguments: Value,
}

/// The types of events that the caller may see, by name.
pub fn types(app: &App, who: &Who) -> Vec<EventType> {
    let in_force = app.current();
    let visible = in_force.config.sources.values();
    let visible = visible.filter(|source| may_see_source(&in_force, &who.caller, source.name()));
    let may_subscribe = key_of(who).is_ok();
    let describe = |source: &Arc<Source>| {
        let made = in_force.hooks.get(source.name()).map(|hook| format!(" (the webhook “{}”)", hook.webhook.name));
        let description = format!(
            "What {} sends to the source {}{}, verified and each once",
            source.provider().name(),
            source.name(),
            made.unwrap_or_default()
        );
        EventType { name: source.name().to_owned(), description, may_subscribe, arguments: schema_of(source) }
    };
    visible.map(describe).collect()
}

/// What arguments may choose: the filters of the provider.
fn schema_of(source: &Source) -> Value {
    let filter = |only_for: &[std::borrow::Cow<'static, str>]| {
        let mut said = "Any of these; * and ** stand for anything".to_owned();
        if !only_for.is_empty() {
            said = format!("{said}. Restricts {} only", only_for.join(", "));
        }
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "description": said })
    };
    let filters = source.provider().filters().iter();
    let filters = filters.map(|field| (field.name.to_string(), filter(&field.only_for)));
    json!({ "type": "object", "properties": Map::from_iter(filters), "additionalProperties": false })
}

/// What is wished for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The type of the events: the source's name.
    pub source: String,
    /// Which of them.
    pub arguments: Map<String, Value>,
    /// Where they are posted.
    pub url: String,
    /// What they are signed with: `whsec_…`.
    pub secret: Secret,
    /// The place to go on from; none: from now on.
    pub cursor: Option<String>,
    /// The oldest that are wanted of those behind the place.
    pub max_age: Option<Duration>,
    /// How long.
    pub ttl: Option<Duration>,
}

/// A subscription, as its client is told.
#[derive(Debug, Clone)]
pub struct Subscribed {
    /// Its id.
    pub id: String,
    /// When it ends.
    pub refresh_before: Timestamp,
    /// The place up to which nothing is on its way any more.
    pub cursor: i64,
    /// Whether it begins later than was asked for.
    pub truncated: bool,
    /// How deliveries to it go, if it was there before.
    pub status: Option<Status>,
}

/// How deliveries to a subscription go.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whether its URL is asked now.
    pub active: bool,
    /// When the last one was taken.
    pub last_delivery_at: Option<Timestamp>,
    /// Why the last one was not, if it was not.
    pub last_error: Option<&'static str>,
}

/// Makes a subscription, or refreshes it: the same wish of the same key is the same subscription.
///
/// # Errors
/// If the key may not subscribe or see the source, the wish is not clear, there are too many, or the URL does not prove that it
/// wants it: then one that was there stays as it was.
pub async fn subscribe(app: &App, dispatcher: &Arc<Dispatcher>, who: &Who, wish: Wish) -> Result<Subscribed, Error> {
    let key = key_of(who)?;
    let scope = Scope::of(app, &who.caller, &wish.source, &wish.arguments)?;
    let secret = read_secret(&wish.secret)?;
    check_url(app, &wish.url)?;
    let place = scope.begin(app, wish.cursor.as_deref(), wish.max_age).await?;
    let arguments = canonical(&wish.arguments);
    let now = clock::now();
    let mut subscription = Subscription {
        id: id_of(key, &wish.url, &wish.source, &arguments),
        key,
        source: wish.source,
        arguments,
        url: wish.url,
        created_at: now,
        verified_at: now,
        expires_at: end_of(app, key, wish.ttl, now),
        position: place.seq,
    };
    let stored = app.store.subscriptions().await?;
    let before = live(&stored, &subscription, now);
    require_place(app, &stored, before, &subscription, now)?;
    let known = before.filter(|before| is_secret_of(app, before, &secret));
    match known.filter(|before| now < before.subscription.verified_at.after(PROVEN_FOR)) {
        Some(before) => subscription.verified_at = before.subscription.verified_at,
        None => prove(app, dispatcher, &subscription, &secret).await?,
    }
    let is_new = keep(app, &mut subscription, &secret).await?;
    let id = subscription.id.to_string();
    tracing::info!(subscription = id, source = subscription.source, by = who.caller.name(), is_new,
        until = %subscription.expires_at, "subscription.kept");
    let pending = app.store.pending(id.clone()).await?;
    let status = if is_new { None } else { Some(status(app, dispatcher, &id).await?) };
    Ok(Subscribed {
        id,
        refresh_before: subscription.expires_at,
        cursor: pending.oldest.map_or(subscription.position, |oldest| subscription.position.min(oldest - 1)),
        truncated: is_new && place.truncated,
        status,
    })
}

/// When it ends: with its key at the latest.
fn end_of(app: &App, key: KeyId, ttl: Option<Duration>, now: Timestamp) -> Timestamp {
    let end = now.after(ttl.unwrap_or(TTL).clamp(SHORTEST_TTL, LONGEST_TTL));
    app.access.end_of(key).map_or(end, |of_key| of_key.min(end))
}

/// Whether a key or token, of which this is the hash, is known still.
pub fn is_known(app: &App, shown: &[u8]) -> bool {
    app.access.knows(shown, clock::now())
}

/// Ends a subscription of the key. Whether there was one.
///
/// # Errors
/// If the caller has no key, or the store is unavailable.
pub async fn unsubscribe(
    app: &App,
    who: &Who,
    source: &str,
    arguments: &Map<String, Value>,
    url: &str,
) -> Result<bool, Error> {
    let key = key_of(who)?;
    let id = id_of(key, url, source, &canonical(arguments));
    let turn = app.in_force.turn().await;
    if app.store.remove_subscriptions(vec![id]).await? == 0 {
        return Ok(false);
    }
    put_in_force(app, &turn).await;
    tracing::info!(subscription = %id, source, by = who.caller.name(), "subscription.removed");
    Ok(true)
}

/// Stores a subscription and puts it in force. Whether it is new; else it is as far as it was.
async fn keep(app: &App, subscription: &mut Subscription, secret: &Secret) -> Result<bool, Error> {
    let turn = app.in_force.turn().await;
    let now = clock::now();
    let stored = app.store.subscriptions().await?;
    let before = live(&stored, subscription, now);
    require_place(app, &stored, before, subscription, now)?;
    ready_to_seal(app).await?;
    if let Some(before) = before {
        subscription.created_at = before.subscription.created_at;
        subscription.position = before.subscription.position;
    }
    let until = if before.is_some() { now.after(OVERLAP) } else { now };
    let secret = match before.filter(|before| is_secret_of(app, before, secret)) {
        Some(_) => None,
        None => {
            let sealed = seal_secret(&app.vault, secrets_of(subscription.id), secret);
            Some((sealed.map_err(|closed| Error::Locked(closed.to_string()))?, until))
        }
    };
    let change = SubscriptionChange { subscription: subscription.clone(), secret, now };
    if !app.store.put_subscription(change).await? {
        return Err(Error::NotAllowed("the key was removed meanwhile"));
    }
    put_in_force(app, &turn).await;
    Ok(before.is_none())
}

/// The subscription that is there already, unless its time is over.
fn live<'a>(stored: &'a [StoredSubscription], wanted: &Subscription, now: Timestamp) -> Option<&'a StoredSubscription> {
    stored.iter().find(|one| one.subscription.id == wanted.id && now < one.subscription.expires_at)
}

/// Whether this is its newest secret.
fn is_secret_of(app: &App, stored: &StoredSubscription, secret: &Secret) -> bool {
    let newest = stored.secrets.first();
    let opened = newest.and_then(|one| unseal_secret(&app.vault, secrets_of(stored.subscription.id), &one.secret).ok());
    opened.is_some_and(|opened| opened.equals(secret.expose()))
}

/// Who may have events posted: by which key.
fn key_of(who: &Who) -> Result<KeyId, Error> {
    match (&who.caller, who.key) {
        (caller, Some(key)) if caller.changes() => Ok(key),
        (Caller::Viewer | Caller::Account { .. }, _) => {
            Err(Error::NotAllowed("a key of a viewer may list, poll and stream events, and not subscribe"))
        }
        _ => Err(Error::NotAllowed("a subscription outlives a run: it needs an API key of an owner or an agent")),
    }
}

/// The account that a key belongs to.
fn account_of(app: &App, key: KeyId) -> Option<String> {
    app.accounts.of_caller(&app.access.caller_of(key)?)
}

fn require_place(
    app: &App,
    stored: &[StoredSubscription],
    before: Option<&StoredSubscription>,
    wanted: &Subscription,
    now: Timestamp,
) -> Result<(), Error> {
    let live = || stored.iter().map(|one| &one.subscription).filter(|one| now < one.expires_at);
    let of_key = live().filter(|one| one.key == wanted.key).count();
    let account = account_of(app, wanted.key);
    let is_same = |one: &&Subscription| account_of(app, one.key) == account;
    let of_account = if account.is_some() { live().filter(is_same).count() } else { 0 };
    if before.is_some() || (of_key < MOST_OF_KEY && of_account < MOST_OF_ACCOUNT && live().count() < MOST) {
        return Ok(());
    }
    let detail = format!(
        "a key may have {MOST_OF_KEY} subscriptions, the keys of an account {MOST_OF_ACCOUNT}, and all keys {MOST}: end one that is not used"
    );
    Err(Error::Conflict("too_many_subscriptions", detail))
}

/// Asks the URL whether it wants the subscription.
async fn prove(
    app: &App,
    dispatcher: &Arc<Dispatcher>,
    subscription: &Subscription,
    secret: &Secret,
) -> Result<(), Error> {
    let busy = |detail: String| Error::Conflict("too_many_challenges", detail);
    if !app.listeners.may_ask(subscription.key, clock::now()) {
        return Err(busy(format!("a key may have {MOST_CHALLENGES_OF_KEY} receivers asked in a minute: wait for one")));
    }
    let account = account_of(app, subscription.key);
    let place = app.listeners.challenges.take(&tenant(account.as_deref(), &subscription.key.to_string()));
    let _place = place.ok_or_else(|| busy("too many receivers are being asked: try again in a moment".to_owned()))?;
    let agent = agent_for(&app.current().config, subscription, secret.clone(), &app.public);
    let asked = dispatcher.challenge(&agent).await;
    asked.map_err(|why| {
        tracing::info!(subscription = %subscription.id, why, "subscription.not_proved");
        Error::Conflict("callback_failed", why.to_owned())
    })
}

async fn status(app: &App, dispatcher: &Dispatcher, agent: &str) -> Result<Status, Error> {
    let query = RunQuery { agents: Some(vec![agent.to_owned()]), limit: LOOKED_AT, ..RunQuery::default() };
    let runs = app.store.runs(query).await?;
    let taken = runs.iter().find(|run| run.state == State::Succeeded);
    let since = runs.iter().take_while(|run| run.state != State::Succeeded);
    let tried = since.filter(|run| run.attempt > 0 && run.state != State::Cancelled);
    let last_error = tried.filter_map(|run| run.reason.as_deref()).map(fault_of).next();
    let last_delivery_at = taken.and_then(|run| run.finished_at);
    Ok(Status { active: dispatcher.breaker(agent).is_none(), last_delivery_at, last_error })
}

fn read_secret(secret: &Secret) -> Result<Secret, Error> {
    let text = secret.expose_str().and_then(|text| text.strip_prefix("whsec_"));
    let key = text.and_then(decode_base64).filter(|key| SECRET.contains(&key.len()));
    let form = "`delivery.secret` must be whsec_ and the base64 of 24 to 64 random bytes";
    key.map(Secret::new).ok_or_else(|| Error::Invalid(form.to_owned()))
}

fn check_url(app: &App, url: &str) -> Result<(), Error> {
    let invalid = |what: &str| Err(Error::Invalid(format!("`delivery.url` {what}")));
    if url.len() > LONGEST_URL {
        return invalid(&format!("may have {LONGEST_URL} bytes"));
    }
    let parsed = url.parse::<http::Uri>().ok().filter(|parsed| crate::config::origin_of(parsed).is_some());
    let Some(parsed) = parsed.filter(|_| !url.contains('#')) else {
        return invalid("must be https://, a host and perhaps a path, without a user and a fragment");
    };
    if is_allowed(&app.current().config, url) {
        return Ok(());
    }
    if parsed.scheme_str() != Some("https") {
        return invalid("must begin with https:// (for a receiver of your own network: `[gateway] private_callbacks`)");
    }
    match doorbell_client::refuse_private(url) {
        Ok(()) => Ok(()),
        Err(why) => invalid(&format!("may not be asked: {why}")),
    }
}

/// Arguments as they are always written: whichever order their names come in, it is the same wish.
fn canonical(arguments: &Map<String, Value>) -> String {
    let sorted: std::collections::BTreeMap<&String, &Value> = arguments.iter().collect();
    json!(sorted).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use doorbell_core::provider::encode_base64;

    #[test]
    fn the_order_of_arguments_is_no_other_wish() {
        let read = |text: &str| canonical(&serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"b":["y","x"],"a":["z"]}"#), read(r#"{"a": ["z"], "b": ["y", "x"]}"#));
        assert_ne!(read(r#"{"b":["y","x"]}"#), read(r#"{"b":["x","y"]}"#));
    }

    #[test]
    fn a_secret_is_long_enough_and_not_too_long() {
        let of = |bytes: usize| read_secret(&Secret::new(format!("whsec_{}", encode_base64(&vec![7; bytes]))));
        assert!(of(24).is_ok() && of(64).is_ok() && of(23).is_err() && of(65).is_err());
        assert!(read_secret(&Secret::new(encode_base64(&[7; 32]))).is_err(), "without its prefix");
        assert!(read_secret(&Secret::new("whsec_!")).is_err());
    }
}
