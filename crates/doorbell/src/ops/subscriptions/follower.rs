//! The follower: holds what came against the subscriptions, and makes the runs that deliver it.
//!
//! It reads events from the store, in the order of commits, from where each subscription has got to; the place moves in the
//! transaction that makes the runs. So nothing is missed and nothing delivered twice by a restart, and ingest does nothing but look
//! at a flag.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::id::{RunId, SubscriptionId};
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::events;
use super::reading::Scope;
use crate::app::subscriptions::{FORBIDDEN, Subscriber, is_subscriber};
use crate::app::{App, Snapshot};
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::store::{Error, Followed, RunQuery, StoredEvent};

/// How often it is looked without being told to, while anybody subscribes.
const LOOK: Duration = Duration::from_secs(5);
/// How long to wait before it is tried again when something is not available.
const AGAIN: Duration = Duration::from_millis(500);
/// Deliveries of one subscription that are not over, at most: what comes then waits in the log of events.
const MOST_PENDING: usize = 1000;
/// Events that are taken at once.
const STEP: usize = 200;
/// A place that moved so far, or so long ago, is kept although nothing is delivered: so that it is not behind what is removed.
const FAR: i64 = 1000;
const LONG: Duration = Duration::from_secs(60);
/// How often it is looked for what is on its way to subscriptions that are gone.
const LOOKS: u8 = 3;
/// Runs that are read at once.
const PAGE: usize = 200;

/// Begins to follow, until `closing`.
pub fn start(app: Arc<App>, dispatcher: Arc<Dispatcher>, closing: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Some may have ended while no gateway ran.
        let mut follower = Follower { app, dispatcher, places: HashMap::new(), before: None, looks_left: LOOKS };
        closing.run_until_cancelled(follower.go_on()).await;
    })
}

struct Follower {
    app: Arc<App>,
    dispatcher: Arc<Dispatcher>,
    places: HashMap<SubscriptionId, Place>,
    /// The subscriptions that were followed until now.
    before: Option<Arc<Snapshot>>,
    /// How often it is still looked for what is on its way to subscriptions that are gone: until it was not found a few times.
    looks_left: u8,
}

/// How far a subscription is.
#[derive(Debug, Clone, Copy)]
struct Place {
    created_at: Timestamp,
    /// The sequence up to which events were held against it.
    seq: i64,
    /// The same as it is stored.
    kept: i64,
    kept_at: Timestamp,
}

impl Follower {
    async fn go_on(&mut self) {
        let mut configuration = self.app.in_force.follow();
        loop {
            let in_force = Arc::clone(&configuration.borrow_and_update());
            let any = !in_force.subscribers.is_empty();
            // Before it is looked: what comes from here on is told.
            self.app.listeners.listen(any);
            let looked = self.look(&in_force).await;
            let again = looked.is_err() || self.looks_left > 0;
            let pause = match looked {
                Ok(true) => Duration::ZERO,
                Ok(false) if self.looks_left > 0 => AGAIN,
                Ok(false) => self.until_next_end(&in_force).min(LOOK),
                Err(error) => {
                    tracing::error!(error = error.with_causes(), "subscriptions.look_failed");
                    if matches!(error, Error::Corrupt(_)) { LOOK } else { AGAIN }
                }
            };
            drop(in_force);
            tokio::select! {
                // The sender lives as long as the app.
                _ = configuration.changed() => {}
                () = self.app.listeners.told(), if any && !again => {}
                () = tokio::time::sleep(pause), if any || again => {}
            }
        }
    }

    fn until_next_end(&self, in_force: &Snapshot) -> Duration {
        let ends = in_force.subscribers.all().map(|one| one.subscription.expires_at).min();
        ends.map_or(LOOK, |ends| ends.since(clock::now()))
    }

    /// Whether there may be more.
    async fn look(&mut self, in_force: &Arc<Snapshot>) -> Result<bool, Error> {
        self.end_those_that_are_over(in_force).await?;
        if !self.before.as_ref().is_some_and(|before| Arc::ptr_eq(before, in_force)) {
            self.take_over(in_force);
        }
        if self.looks_left > 0 {
            let found = self.cancel_left(in_force).await?;
            self.looks_left = if found { LOOKS } else { self.looks_left - 1 };
        }
        if in_force.subscribers.is_empty() {
            return Ok(false);
        }
        let pruned = self.app.store.swept().await?.pruned_through;
        let newest = events::newest(&self.app).await.map_err(unavailable)?;
        let (mut more, mut failed) = (false, None);
        for subscriber in in_force.subscribers.all() {
            match self.advance(subscriber, newest, pruned).await {
                Ok(some) => more |= some,
                // One does not hold up those after it.
                Err(error) => {
                    let id = subscriber.subscription.id;
                    tracing::error!(subscription = %id, error = error.with_causes(), "subscription.not_advanced");
                    failed = failed.or(Some(error));
                }
            }
        }
        failed.map_or(Ok(more), Err)
    }

    /// Removes subscriptions whose time is over; at first also those that ended while no gateway ran.
    async fn end_those_that_are_over(&self, in_force: &Snapshot) -> Result<(), Error> {
        let now = clock::now();
        let is_over = in_force.subscribers.all().any(|one| one.subscription.expires_at <= now);
        if self.before.is_some() && !is_over {
            return Ok(());
        }
        let turn = self.app.in_force.turn().await;
        let stored = self.app.store.subscriptions().await?;
        let over = stored.iter().map(|one| &one.subscription).filter(|one| one.expires_at <= now);
        let over: Vec<SubscriptionId> = over.map(|one| one.id).collect();
        if !over.is_empty() {
            over.iter().for_each(|id| tracing::info!(subscription = %id, "subscription.expired"));
            self.app.store.remove_subscriptions(over).await?;
            self.app.renew(&turn).await?;
        }
        Ok(())
    }

    /// Goes by the subscriptions that are in force now.
    fn take_over(&mut self, in_force: &Arc<Snapshot>) {
        let now = clock::now();
        let mut before = std::mem::take(&mut self.places);
        for Subscriber { subscription, .. } in in_force.subscribers.all() {
            let (created_at, seq) = (subscription.created_at, subscription.position);
            let was = before.remove(&subscription.id);
            let same = was.filter(|place| place.created_at == created_at);
            if was.is_some() && same.is_none() {
                self.looks_left = LOOKS;
            }
            let place = same.unwrap_or(Place { created_at, seq, kept: seq, kept_at: now });
            self.places.insert(subscription.id, place);
        }
        let earlier = self.before.replace(Arc::clone(in_force));
        let gone = |one: &&Subscriber| in_force.subscribers.get(&one.subscription.id.to_string()).is_none();
        let ended = earlier.iter().flat_map(|earlier| earlier.subscribers.all()).filter(gone);
        for one in ended {
            self.looks_left = LOOKS;
            if let Some(agent) = one.agent.as_ref().filter(|_| !self.app.access.has(one.subscription.key)) {
                let error = json!({ "code": FORBIDDEN, "message": "the key of this subscription was removed" });
                self.dispatcher.tell_subscriber(agent, "terminated", &json!({ "type": "terminated", "error": error }));
            }
        }
    }

    /// Cancels what is on its way to subscriptions that are gone, or were made anew. Whether there was something: then it is
    /// looked again.
    async fn cancel_left(&self, in_force: &Snapshot) -> Result<bool, Error> {
        let runs = self.app.store.tallies().await?.runs;
        let open = runs.into_iter().filter(|(agent, state, _)| !state.is_final() && is_subscriber(agent));
        let agents: BTreeSet<String> = open.map(|(agent, _, _)| agent).collect();
        let mut any = false;
        for agent in agents {
            let since = in_force.subscribers.get(&agent).map(|one| one.subscription.created_at);
            // What waits may be held a moment later, and go on: so that is looked at on both sides.
            for state in [State::Held, State::Waiting, State::Queued, State::Running, State::Held] {
                any |= self.cancel_all(&agent, state, since).await?;
            }
        }
        Ok(any)
    }

    /// Cancels an agent's runs in a state that were made before it; all of them if it is gone. Whether there were any.
    async fn cancel_all(&self, agent: &str, state: State, since: Option<Timestamp>) -> Result<bool, Error> {
        let (mut before, mut any) = (None, false);
        loop {
            let (agents, state) = (Some(vec![agent.to_owned()]), Some(state));
            let query = RunQuery { agents, state, before, limit: PAGE, ..RunQuery::default() };
            let runs = self.app.store.runs(query).await?;
            for run in runs.iter().filter(|run| since.is_none_or(|since| run.created_at < since)) {
                any = true;
                self.dispatcher.cancel(run.id, "the end of its subscription").await?;
            }
            before = runs.last().map(|run| run.seq);
            if runs.len() < PAGE {
                return Ok(any);
            }
        }
    }

    /// Holds some of what came against one subscription. Whether there may be more.
    async fn advance(&mut self, subscriber: &Subscriber, newest: i64, pruned: i64) -> Result<bool, Error> {
        let subscription = &subscriber.subscription;
        let Some(place) = self.places.get_mut(&subscription.id) else { return Ok(false) };
        // While its source is paused or gone, or its secret closed, what comes waits in the log of events.
        let scope = Scope::of_subscriber(&self.app, subscriber).filter(|_| place.seq < newest);
        let (Some(scope), Some(agent)) = (scope, &subscriber.agent) else { return Ok(false) };
        if self.app.pauses.of_source(&subscription.source).is_some() {
            return Ok(false);
        }
        if place.seq < pruned {
            tracing::warn!(subscription = %subscription.id, after = place.seq, "subscription.gap: events were removed before they were delivered");
            self.dispatcher.tell_subscriber(agent, "gap", &json!({ "type": "gap", "cursor": pruned.to_string() }));
            place.seq = pruned;
        }
        let page = scope.page(&self.app, place.seq, STEP).await.map_err(unavailable)?;
        let pending = match page.events.is_empty() {
            true => 0,
            false => self.app.store.pending(agent.name.clone()).await?.runs,
        };
        let room = MOST_PENDING.saturating_sub(pending);
        let taken: &[StoredEvent] = &page.events[..page.events.len().min(room)];
        let is_cut = taken.len() < page.events.len();
        let reached = if is_cut { taken.last().map_or(place.seq, |event| event.seq) } else { page.reached };
        let now = clock::now();
        let is_stale = reached - place.kept >= FAR || now.since(place.kept_at) >= LONG;
        if !taken.is_empty() || (is_stale && reached > place.kept) {
            let wanted: Vec<(i64, RunId)> = taken.iter().map(|event| (event.seq, clock::new_id())).collect();
            let (id, created_at) = (subscription.id, subscription.created_at);
            let followed = Followed { id, created_at, position: reached, wanted, now };
            if !self.app.store.follow(followed).await? {
                // It is gone by now.
                return Ok(false);
            }
            (place.kept, place.kept_at) = (reached, now);
            self.dispatcher.wake(&agent.name);
        }
        place.seq = reached;
        Ok(page.more && !is_cut)
    }
}

fn unavailable(error: crate::ops::Error) -> Error {
    match error {
        crate::ops::Error::Store(error) => error,
        other => Error::Unavailable(Box::new(other)),
    }
}
