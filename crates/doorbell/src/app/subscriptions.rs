//! Subscriptions of MCP Events in force. Each is an agent behind a URL that is in no list of agents: the dispatcher carries its
//! runs out as it does all others, and nothing but the follower makes any.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use doorbell_client::Outbound;
use doorbell_core::id::{KeyId, SubscriptionId, WebhookId};
use doorbell_core::occurrence::{Occurrence, Told};
use doorbell_core::retry::Backoff;
use doorbell_core::run::{OnLost, Policy};
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::Trigger;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::Shares;
use super::webhooks::unseal_secret;
use crate::config::{self, Agent, Config, HttpRuntime, Runtime, WhenFull};
use crate::store::{StoredEvent, StoredSubscription, Subscription};
use crate::vault::Vault;

/// Deliveries to one subscription that are on their way at once.
const AT_ONCE: u32 = 4;
/// How long a receiver may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Tries of one delivery in all.
const ATTEMPTS: u32 = 5;
/// Between them.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(10), factor: 3.0, max: Duration::from_secs(300), jitter: true };
/// Secrets that a delivery is signed with at most.
const MOST_SECRETS: usize = 3;

/// A subscription in force.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// As it is stored.
    pub subscription: Subscription,
    /// Who its runs are carried out by; none while its secret cannot be opened.
    pub agent: Option<Arc<Agent>>,
    /// What it wants; none while its source is not there, or the arguments mean nothing to it.
    pub trigger: Option<Trigger>,
}

/// The subscriptions in force, by the names of their agents.
#[derive(Debug, Default)]
pub struct Subscribers(BTreeMap<String, Subscriber>);

impl Subscribers {
    /// The one whose agent has this name.
    pub fn get(&self, agent: &str) -> Option<&Subscriber> {
        self.0.get(agent)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Subscriber> {
        self.0.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their agents.
    pub(super) fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.0.values().filter_map(|subscriber| subscriber.agent.as_ref())
    }
}

/// Whether this is the name of a subscription's agent: no other agent can have such a name.
pub fn is_subscriber(agent: &str) -> bool {
    agent.parse::<SubscriptionId>().is_ok()
}

/// What is stored and not over, as this configuration has it.
pub(super) fn put_in_force(
    config: &Config,
    stored: Vec<StoredSubscription>,
    vault: &Vault,
    public: &Arc<Outbound>,
    now: Timestamp,
) -> Subscribers {
    let connections = |url: &str| (!is_allowed(config, url)).then(|| Arc::clone(public));
    let live = stored.into_iter().filter(|one| now < one.subscription.expires_at);
    let subscribers = live.map(|StoredSubscription { subscription, secrets }| {
        let id = subscription.id;
        let live = secrets.iter().filter(|secret| secret.until.is_none_or(|until| now < until)).take(MOST_SECRETS);
        let opened = live.filter_map(|secret| match unseal_secret(vault, secrets_of(id), &secret.secret) {
            Ok(secret) => Some(secret),
            Err(closed) => {
                tracing::error!(subscription = %id, why = %closed, "subscription.secret_locked");
                None
            }
        });
        let (subscribed, mut secrets) = (&subscription, opened.collect::<Vec<Secret>>().into_iter());
        let agent = secrets
            .next()
            .map(|secret| Arc::new(agent_of(subscribed, secret, secrets.collect(), connections(&subscribed.url))));
        let wanted = serde_json::from_str(&subscription.arguments).unwrap_or_default();
        let trigger = trigger_of(config, &subscription.source, &wanted).ok();
        (id.to_string(), Subscriber { subscription, agent, trigger })
    });
    Subscribers(subscribers.collect())
}

/// Whether the operator says that this URL may be asked, wherever it leads.
pub fn is_allowed(config: &Config, url: &str) -> bool {
    let origin = url.parse().ok().and_then(|url| config::origin_of(&url));
    origin.is_some_and(|origin| config.gateway.private_callbacks.contains(&origin))
}

/// What a subscription wants of a source: the arguments are the filters that a trigger of an agent may have.
///
/// # Errors
/// What is wrong with them, for people.
pub fn trigger_of(config: &Config, source: &str, arguments: &Map<String, Value>) -> Result<Trigger, String> {
    let mut trigger = arguments.clone();
    trigger.insert("source".to_owned(), json!(source));
    config.read_trigger(&trigger, |_| true)
}

/// Under which id the secrets of a subscription are stored and sealed: its own.
pub fn secrets_of(id: SubscriptionId) -> WebhookId {
    WebhookId::from_bytes(id.to_bytes())
}

/// The id that a wish always has. `arguments` are written the same way each time.
pub fn id_of(key: KeyId, url: &str, source: &str, arguments: &str) -> SubscriptionId {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [b"doorbell subscription 1".as_slice(), &key.to_bytes(), url.as_bytes(), source.as_bytes()] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.update(arguments.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&context.finish().as_ref()[..16]);
    SubscriptionId::from_bytes(short)
}

/// Who would carry out the runs of a subscription that is not in force yet.
pub fn agent_for(config: &Config, subscription: &Subscription, secret: Secret, public: &Arc<Outbound>) -> Agent {
    let connections = (!is_allowed(config, &subscription.url)).then(|| Arc::clone(public));
    agent_of(subscription, secret, Vec::new(), connections)
}

fn agent_of(
    subscription: &Subscription,
    secret: Secret,
    earlier: Vec<Secret>,
    connections: Option<Arc<Outbound>>,
) -> Agent {
    let subscriber = config::Subscriber { id: subscription.id, earlier, expires_at: subscription.expires_at };
    let runtime = HttpRuntime {
        url: subscription.url.clone(),
        secret,
        headers: Vec::new(),
        credentials: Vec::new(),
        connections,
        subscriber: Some(subscriber),
    };
    Agent {
        account: None,
        name: subscription.id.to_string(),
        description: None,
        scale: AT_ONCE,
        timeout: PATIENCE,
        work_queue_size: u64::MAX,
        when_full: WhenFull::Grow,
        triggers: Vec::new(),
        schedules: Vec::new(),
        may_call: Vec::new(),
        runtime: Runtime::Http(Arc::new(runtime)),
        retries: Policy { attempts: ATTEMPTS, on_lost: OnLost::Retry, backoff: BACKOFF },
        instructions: None,
        params: Value::Null,
    }
}

/// A stored event as it is told.
pub fn occurrence_of(event: &StoredEvent) -> Occurrence {
    Occurrence::of(Told {
        id: event.id,
        source: &event.source,
        provider: &event.provider,
        event: &event.event,
        action: event.action.as_deref(),
        received_at: event.received_at,
        context: &event.context,
    })
}

/// The number by which MCP Events says that something is forbidden.
pub const FORBIDDEN: i32 = -32012;

/// Streams of events at once.
const MOST_STREAMS: usize = 100;
/// Those of one account, or of one key of none.
pub const MOST_STREAMS_OF_ONE: usize = MOST_STREAMS / 4;
/// Receivers that are asked at once whether they want what a subscription says.
const MOST_CHALLENGES: usize = 8;
/// The same for one key in a minute.
pub const MOST_CHALLENGES_OF_KEY: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Hints that there is something to deliver, so that nobody looks while nobody subscribes; and how much is done at once.
#[derive(Debug)]
pub struct Listeners {
    any: AtomicBool,
    bell: Notify,
    /// Streams that may still be opened.
    pub streams: Arc<Shares>,
    /// Challenges that may still be made now.
    pub challenges: Arc<Shares>,
    /// When each key had receivers asked, in the last minute.
    asked: Mutex<HashMap<KeyId, Vec<Timestamp>>>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            bell: Notify::new(),
            streams: Shares::new(MOST_STREAMS, MOST_STREAMS_OF_ONE),
            challenges: Shares::new(MOST_CHALLENGES, MOST_CHALLENGES / 4),
            asked: Mutex::default(),
        }
    }
}

/// Whose share of what all have together somebody takes: that of the account, or the key's own.
pub fn tenant(account: Option<&str>, key: &str) -> String {
    account.map_or_else(|| key.to_owned(), |account| format!("account {account}"))
}

impl Listeners {
    /// Tells that an event was stored.
    pub fn hear(&self) {
        if self.any.load(Ordering::SeqCst) {
            self.bell.notify_one();
        }
    }

    /// Says whether anybody subscribes.
    pub fn listen(&self, any: bool) {
        self.any.store(any, Ordering::SeqCst);
    }

    /// Comes back when somebody told something.
    pub async fn told(&self) {
        self.bell.notified().await;
    }

    /// Whether a key may have another receiver asked now; then it counts.
    pub fn may_ask(&self, key: KeyId, now: Timestamp) -> bool {
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, times| {
            times.retain(|at| now.since(*at) < MINUTE);
            !times.is_empty()
        });
        let times = all.entry(key).or_default();
        let may = times.len() < MOST_CHALLENGES_OF_KEY;
        if may {
            times.push(now);
        }
        may
    }
}
