//! Notifications: whoever `[[notifications]]` names is told of problems, and of their end.
//!
//! One task looks, every few seconds and whenever something rings: at dead letters (which the store keeps until they are
//! taken), at what came to the sources, at whether the store takes writes. What it finds goes into the ledger, and the
//! ledger into the store in the same transaction that takes the dead letters off; only then is anything sent. So each is
//! told at least once, under one id, whatever dies meanwhile. Nothing waits for a receiver: each has one message on its way
//! at most, and the rest gathers.
//!
//! A further topic is a variant of `config::Topic`, and a `Report` from whoever notices it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Telling};
use crate::clock;
use crate::config::{Notification, Topic};
use crate::dispatch::Dispatcher;
use crate::runtime::Guard;
use crate::store::{Error, Notes};

mod flight;
mod habit;
mod ledger;
mod message;
mod sending;
mod watch;

use flight::{InFlight, Sent};
use ledger::Ledger;
use message::Message;
use sending::Post;
use watch::Watch;

/// How often it is looked without anything ringing.
const LOOK: Duration = Duration::from_secs(5);
/// How often at most, however much rings.
const SHORTEST_LOOK: Duration = Duration::from_millis(200);
/// Dead letters taken in one go.
const MOST_TAKEN: usize = 500;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a sample, for which somebody waits.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(20);

/// Tells whoever is to be told.
#[derive(Debug)]
pub struct Notifier {
    post: Arc<Post>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Notifier {
    /// One that does nothing yet. `inherited` is the environment that commands get.
    pub fn new(
        app: Arc<App>,
        dispatcher: Arc<Dispatcher>,
        guard: Arc<Guard>,
        inherited: Vec<(String, OsString)>,
    ) -> Arc<Self> {
        let folder = app.root.clone();
        let post = Post { app, dispatcher, guard, inherited, folder, closing: CancellationToken::new() };
        Arc::new(Self { post: Arc::new(post), task: Mutex::default() })
    }

    /// Begins, beside whoever calls it.
    pub fn start(&self) {
        let task = tokio::spawn(Looker::new(Arc::clone(&self.post)).run());
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Ends; what was not told is told after the next start.
    pub async fn close(&self) {
        self.post.closing.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "notifications.failed");
        }
    }

    /// Sends a sample to every receiver, or to those that are told of this topic; answers each one's name and what it said,
    /// or why it did not take it.
    ///
    /// # Errors
    /// If there is no such topic: with those that there are.
    pub async fn test(&self, on: Option<&str>) -> Result<Vec<(String, Result<String, String>)>, String> {
        let topic = match on {
            None => None,
            Some(word) => match Topic::ALL.into_iter().find(|topic| topic.as_str() == word) {
                Some(topic) => Some(topic),
                None => return Err(Topic::ALL.map(Topic::as_str).join(", ")),
            },
        };
        let in_force = self.post.app.current();
        let gateway = self.post.app.public_url(&in_force);
        let receivers = in_force.config.notifications.iter().cloned();
        let chosen = receivers.filter(|receiver| topic.is_none_or(|topic| receiver.on.contains(&topic)));
        let tried = chosen.map(|notification| async move {
            let topic = topic.or(notification.on.first().copied()).unwrap_or(Topic::DeadLetter);
            let message = Message::sample(topic, gateway, clock::now());
            (notification.name, self.post.send(&message, &notification.receiver, SAMPLE_PATIENCE).await)
        });
        Ok(futures_util::future::join_all(tried).await)
    }
}

impl Post {
    /// Who is told, as it is configured now.
    fn receivers(&self) -> Vec<Notification> {
        self.app.current().config.notifications.clone()
    }
}

/// The task that looks and tells.
struct Looker {
    post: Arc<Post>,
    ledger: Ledger,
    watch: Watch,
    on_the_way: InFlight,
    /// How telling goes, by the receivers' ids.
    telling: BTreeMap<String, Telling>,
}

impl Looker {
    fn new(post: Arc<Post>) -> Self {
        Self {
            post,
            ledger: Ledger::default(),
            watch: Watch::default(),
            on_the_way: InFlight::default(),
            telling: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        let closing = self.post.closing.clone();
        while let Err(error) = self.load().await {
            tracing::error!(error = error.with_causes(), "notifications.load_failed");
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        let mut looked: Option<Instant> = None;
        let mut rung = false;
        loop {
            let pause = if rung { SHORTEST_LOOK } else { LOOK };
            if looked.is_none_or(|looked| looked.elapsed() >= pause) {
                self.look().await;
                (looked, rung) = (Some(Instant::now()), false);
            }
            self.send_due().await;
            let until_look = pause.saturating_sub(looked.map(|looked| looked.elapsed()).unwrap_or_default());
            let until_due = self.ledger.next_due(&self.on_the_way.busy()).map(|due| due.since(clock::now()));
            let wait = until_due.map_or(until_look, |due| due.min(until_look)).max(SHORTEST_PAUSE);
            tokio::select! {
                () = closing.cancelled() => break,
                () = self.post.app.signs.rung(), if !rung => rung = true,
                Some((sent, said)) = self.on_the_way.next() => self.settle(sent, said).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
        while let Some((sent, said)) = self.on_the_way.next().await {
            self.settle(sent, said).await;
        }
        self.keep(None, true).await;
    }

    async fn load(&mut self) -> Result<(), Error> {
        let notes = self.post.app.store.notes("").await?;
        let receivers = self.post.receivers();
        self.ledger = Ledger::load(&notes, &receivers, clock::now());
        self.watch = Watch::load(&notes);
        Ok(())
    }

    /// Takes what happened into the ledger.
    async fn look(&mut self) {
        let receivers = self.post.receivers();
        self.ledger.keep_only(&receivers, clock::now());
        let now = clock::now();
        let store = self.watch.ask_the_store(&self.post.app, now).await;
        if store.is_ok()
            && let Err(error) = self.watch.learn(&self.post.app, now).await
        {
            tracing::error!(error = error.with_causes(), "notifications.learn_failed");
        }
        let mut reports = self.watch.look(&self.post.app, now);
        let works = store.is_ok();
        reports.extend(store.unwrap_or_else(|down| down));
        reports.iter().for_each(|report| self.ledger.add(report, &receivers));
        if works {
            while self.take_dead_letters(&receivers).await {}
            self.keep(None, !reports.is_empty()).await;
        }
        self.show(&receivers);
    }

    /// Takes dead letters off the store and into the ledger, in one transaction. Whether there may be more.
    async fn take_dead_letters(&mut self, receivers: &[Notification]) -> bool {
        let letters = match self.post.app.store.untold(MOST_TAKEN).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::error!(error = error.with_causes(), "notifications.look_failed");
                return false;
            }
        };
        let Some(last) = letters.last().map(|letter| letter.number) else { return false };
        let before = self.ledger.clone();
        letters.iter().for_each(|letter| self.ledger.add(&watch::report_of(letter), receivers));
        let stored = self.keep(Some(last), false).await;
        if !stored {
            // They are still in the store, and are taken again.
            self.ledger = before;
        }
        stored && letters.len() == MOST_TAKEN
    }

    /// Stores what changed, and takes off the dead letters up to `told`. `all`: habits too, which else may wait a while.
    async fn keep(&mut self, told: Option<i64>, all: bool) -> bool {
        let (mut kept, mut dropped) = self.ledger.changes();
        let receivers = !self.post.app.current().config.notifications.is_empty();
        let (habits, gone) = if receivers { self.watch.changes(clock::now(), all) } else { Default::default() };
        let with_habits = !habits.is_empty();
        kept.extend(habits);
        dropped.extend(gone);
        if kept.is_empty() && dropped.is_empty() && told.is_none() {
            return true;
        }
        match self.post.app.store.note(Notes { told, kept, dropped }).await {
            Ok(()) => {
                self.ledger.stored();
                if with_habits {
                    self.watch.stored(clock::now());
                }
                true
            }
            Err(error) => {
                tracing::error!(error = error.with_causes(), "notifications.keep_failed");
                false
            }
        }
    }

    /// Sends what is due, after it was stored: unless it is that nothing can be.
    async fn send_due(&mut self) {
        let in_force = self.post.app.current();
        let due = self.ledger.due(clock::now(), &self.on_the_way.busy(), self.post.app.public_url(&in_force));
        if due.is_empty() {
            return;
        }
        let stored = self.watch.store_works() && self.keep(None, false).await;
        let receivers = &in_force.config.notifications;
        for (key, message) in due {
            let found = receivers.iter().find(|one| one.id == key.receiver).cloned();
            let Some(notification) = found.filter(|_| stored || key.on == Topic::Store) else {
                self.ledger.postpone(&key, clock::now().after(LOOK));
                continue;
            };
            let (post, told, receiver) = (Arc::clone(&self.post), message.clone(), notification.receiver.clone());
            let sending = async move { post.send(&told, &receiver, PATIENCE).await };
            self.on_the_way.send(Sent { key, message, notification }, sending);
        }
    }

    async fn settle(&mut self, sent: Sent, said: Result<String, String>) {
        let Sent { key, message, notification } = sent;
        if self.post.closing.is_cancelled() && said.is_err() {
            return;
        }
        let now = clock::now();
        self.post.app.metrics.count_notification(key.on.as_str(), said.is_ok());
        let telling = self.telling.entry(key.receiver.clone()).or_default();
        match said {
            Ok(said) => {
                tracing::info!(
                    notification = message.id,
                    on = key.on.as_str(),
                    receiver = notification.name,
                    count = message.data.count,
                    said,
                    "notification.delivered"
                );
                self.ledger.delivered(&key, notification.every, now);
                telling.delivered += 1;
                telling.error = None;
            }
            Err(why) => {
                tracing::warn!(
                    notification = message.id,
                    on = key.on.as_str(),
                    receiver = notification.name,
                    why,
                    "notification.failed"
                );
                self.ledger.failed(&key, now, u64::from_be_bytes(clock::random()));
                telling.failed += 1;
                telling.error = Some(why);
            }
        }
        if self.watch.store_works() {
            self.keep(None, false).await;
        }
        self.show(&self.post.receivers());
    }

    /// Says how telling goes, for `stat`.
    fn show(&self, receivers: &[Notification]) {
        let view = |notification: &Notification| Telling {
            receiver: notification.name.clone(),
            waiting: self.ledger.waiting(&notification.id),
            ..self.telling.get(&notification.id).cloned().unwrap_or_default()
        };
        self.post.app.signs.set_telling(receivers.iter().map(view).collect());
    }
}

/// Between two rounds, so that nothing makes them spin.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
