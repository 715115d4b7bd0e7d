//! The ledger: what each receiver is still to be told, one entry a receiver and cause.
//!
//! Of each cause a receiver gets one message at once, and then one for all that happened in each window. An entry holds one
//! message on its way and what has gathered behind it, so that it stays as small however long a receiver is away. A
//! message is fixed, with its id, before it is sent for the first time.
//!
//! A receiver whose URL or command is corrected is another one. What waits for one that is gone is passed on to whoever is
//! told of it in its place: those that were not when it was noted. The others have been told themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doorbell_core::retry::Backoff;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::message::{Gathered, Message, Report, is_told};
use crate::config::{Notification, Topic};

/// How long a message waits for its next try: ten minutes at most, for as long as it takes.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(600), jitter: true };

/// What the entries' keys in the store begin with.
const PREFIX: &str = "message/";

/// The key in the store of the receivers that the ledger was kept for last.
const RECEIVERS: &str = "receivers";

/// The receiver's id, the topic, and whom or what it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) receiver: String,
    pub(super) on: Topic,
    subject: String,
}

impl Key {
    fn stored(&self) -> String {
        format!("{PREFIX}{}/{}/{}", self.receiver, self.on.as_str(), self.subject)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    key: Key,
    /// Whether the receiver knows of a problem, and is to be told of its end.
    told: bool,
    gathered: Option<Gathered>,
    message: Option<Message>,
    /// Tries of the message that failed.
    failures: u32,
    /// Nothing is sent before.
    next: Timestamp,
    /// When the receiver took the last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taken: Option<Timestamp>,
}

impl Entry {
    fn is_over(&self, now: Timestamp) -> bool {
        !self.is_open() && !self.told && self.next <= now
    }

    /// Whether there is anything to tell.
    fn is_open(&self) -> bool {
        self.message.is_some() || self.gathered.is_some()
    }

    /// How often what there is to tell happened.
    fn count(&self) -> u64 {
        let message = self.message.as_ref().map_or(0, |message| message.data.count);
        message + self.gathered.as_ref().map_or(0, |gathered| gathered.count)
    }

    /// Whether another receiver is told of the same.
    fn is_told_to(&self, receiver: &Notification) -> bool {
        let Key { on, subject, .. } = &self.key;
        let (agent, source) = match (&self.gathered, &self.message) {
            (Some(gathered), _) => (gathered.agent.as_deref(), gathered.source.as_deref()),
            (None, Some(message)) => (message.data.agent.as_deref(), message.data.source.as_deref()),
            (None, None) => match on {
                Topic::DeadLetter | Topic::Breaker => (Some(subject.as_str()), None),
                Topic::Rejections | Topic::Silent => (None, Some(subject.as_str())),
                Topic::Reload | Topic::Store => (None, None),
            },
        };
        is_told(receiver, *on, agent, source)
    }
}

/// What each receiver is still to be told.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Key, Entry>,
    /// Entries that are not stored as they are.
    changed: BTreeSet<Key>,
    /// The ids of the receivers that it was kept for last, in their order, with what each was told.
    known: Vec<(String, Vec<Topic>)>,
    known_changed: bool,
}

impl Ledger {
    /// As it was stored, for the receivers that there are now.
    pub(super) fn load(notes: &[(String, String)], receivers: &[Notification], now: Timestamp) -> Self {
        let known = notes.iter().find(|(key, _)| key == RECEIVERS);
        // Without it, whatever waits for one that is gone goes to everybody who is told of it.
        let known = known.and_then(|(_, text)| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut ledger = Self { known, ..Self::default() };
        for (_, text) in notes.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
            match serde_json::from_str::<Entry>(text) {
                Ok(entry) => drop(ledger.entries.insert(entry.key.clone(), entry)),
                Err(error) => {
                    tracing::error!(%error, "notification.unreadable: what was to be told is not known any more")
                }
            }
        }
        ledger.keep_only(receivers, now);
        ledger
    }

    /// Keeps it for these receivers: what waits for one that is gone is passed on, or dropped if nobody took its place, and
    /// what one is no longer told of is dropped; what gathers for the others is due by their `every` as it is now.
    pub(super) fn keep_only(&mut self, receivers: &[Notification], now: Timestamp) {
        let wanted = |key: &Key| receivers.iter().any(|one| one.id == key.receiver && one.on.contains(&key.on));
        let gone: Vec<Key> = self.entries.keys().filter(|key| !wanted(key)).cloned().collect();
        for entry in gone.iter().filter_map(|key| self.entries.remove(key)).collect::<Vec<_>>() {
            self.pass_on(entry, receivers, now);
        }
        self.changed.extend(gone);
        let known = receivers.iter().map(|one| (one.id.clone(), one.on.clone())).collect();
        if self.known != known {
            (self.known, self.known_changed) = (known, true);
        }
        for entry in self.entries.values_mut().filter(|entry| entry.message.is_none()) {
            let every = receivers.iter().find(|one| one.id == entry.key.receiver).map(|one| one.every);
            let Some(next) = entry.taken.zip(every).map(|(taken, every)| taken.after(every)) else { continue };
            if next != entry.next {
                entry.next = next;
                self.changed.insert(entry.key.clone());
            }
        }
    }

    /// Passes an entry of a receiver that is gone, or told of that no more, on to whoever took its place: the one at the
    /// same position, or else all that were not told of this before.
    fn pass_on(&mut self, entry: Entry, receivers: &[Notification], now: Timestamp) {
        let on = entry.key.on;
        let was_told = |one: &Notification| self.known.iter().any(|(id, topics)| *id == one.id && topics.contains(&on));
        let is_heir = |one: &&Notification| !was_told(one) && entry.is_told_to(one);
        let place = self.known.iter().position(|(id, _)| *id == entry.key.receiver);
        let heirs: Vec<&Notification> = match place.and_then(|place| receivers.get(place)).filter(is_heir) {
            Some(successor) => vec![successor],
            None => receivers.iter().filter(is_heir).collect(),
        };
        let (subject, count) = (entry.key.subject.clone(), entry.count());
        if heirs.is_empty() && entry.is_open() {
            tracing::warn!(
                on = on.as_str(),
                about = subject,
                count,
                "notification.dropped: its receiver is told of it no more, and nobody else is in its place"
            );
        }
        for heir in heirs {
            if entry.is_open() {
                tracing::info!(
                    on = on.as_str(),
                    about = subject,
                    count,
                    receiver = heir.name,
                    "notification.passed_on"
                );
            }
            self.take_over(Entry { failures: 0, next: now, taken: None, ..entry.clone() }, &heir.id);
        }
    }

    fn take_over(&mut self, mut entry: Entry, receiver: &str) {
        receiver.clone_into(&mut entry.key.receiver);
        if self.entries.contains_key(&entry.key) {
            // From two that are gone: of what goes on, one says all; each dead letter counts.
            if entry.key.on != Topic::DeadLetter || !entry.is_open() {
                return;
            }
            while self.entries.contains_key(&entry.key) {
                // No name has it.
                entry.key.subject.push('/');
            }
        }
        self.changed.insert(entry.key.clone());
        self.entries.insert(entry.key.clone(), entry);
    }

    /// Adds what happened to what each receiver is to be told.
    pub(super) fn add(&mut self, report: &Report, receivers: &[Notification]) {
        for receiver in receivers.iter().filter(|receiver| report.is_for(receiver)) {
            let key = Key { receiver: receiver.id.clone(), on: report.on, subject: report.subject().to_owned() };
            let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
                key: key.clone(),
                told: false,
                gathered: None,
                message: None,
                failures: 0,
                next: report.at,
                taken: None,
            });
            // The end of what nobody was told of is no news.
            if report.ended && !entry.told && entry.gathered.is_none() && entry.message.is_none() {
                continue;
            }
            entry.gathered = Some(Gathered::add(entry.gathered.take(), report));
            self.changed.insert(key);
        }
    }

    /// The messages that are due, one a receiver, without the receivers in `busy`.
    pub(super) fn due(&mut self, now: Timestamp, busy: &BTreeSet<String>, gateway: &str) -> Vec<(Key, Message)> {
        let mut due: Vec<(Key, Message)> = Vec::new();
        let over: Vec<Key> = self.entries.values().filter(|entry| entry.is_over(now)).map(|e| e.key.clone()).collect();
        for key in over {
            self.entries.remove(&key);
            self.changed.insert(key);
        }
        let mut waiting: Vec<&mut Entry> = self.entries.values_mut().filter(|entry| entry.next <= now).collect();
        // Whoever waited longest is first, so that one cause does not keep another from being told.
        waiting.sort_by_key(|entry| entry.next);
        for entry in waiting {
            let receiver = &entry.key.receiver;
            if busy.contains(receiver) || due.iter().any(|(key, _)| key.receiver == *receiver) {
                continue;
            }
            if entry.message.is_none()
                && let Some(gathered) = entry.gathered.take()
            {
                entry.message = Some(gathered.into_message(entry.key.on, gateway, now));
                self.changed.insert(entry.key.clone());
            }
            due.extend(entry.message.clone().map(|message| (entry.key.clone(), message)));
        }
        due
    }

    /// When the next message is due, of receivers that are not in `busy`.
    pub(super) fn next_due(&self, busy: &BTreeSet<String>) -> Option<Timestamp> {
        let waiting = self.entries.values().filter(|entry| entry.is_open());
        let waiting = waiting.filter(|entry| !busy.contains(&entry.key.receiver));
        waiting.map(|entry| entry.next).min()
    }

    /// The receiver took its message.
    pub(super) fn delivered(&mut self, key: &Key, every: Duration, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(message) = entry.message.take() else { return };
        // Dead letters have no end.
        entry.told = key.on != Topic::DeadLetter && message.data.state == super::message::State::Problem;
        entry.failures = 0;
        entry.next = now.after(every);
        entry.taken = Some(now);
        self.changed.insert(key.clone());
    }

    /// The receiver did not take its message. `seed` decides the jitter of the wait.
    pub(super) fn failed(&mut self, key: &Key, now: Timestamp, seed: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.next = now.after(BACKOFF.wait(entry.failures, seed));
        self.changed.insert(key.clone());
    }

    /// A message that cannot be sent now is due then.
    pub(super) fn postpone(&mut self, key: &Key, until: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.next = until;
        }
    }

    /// How many messages of a receiver are on their way, wait for another try, or gather until they are due.
    pub(super) fn waiting(&self, receiver: &str) -> u64 {
        let of = self.entries.values().filter(|entry| entry.key.receiver == receiver);
        of.map(|entry| u64::from(entry.message.is_some()) + u64::from(entry.gathered.is_some())).sum()
    }

    /// Keys and values that changed since they were stored, and keys to forget.
    pub(super) fn changes(&self) -> (Vec<(String, String)>, Vec<String>) {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for key in &self.changed {
            match self.entries.get(key).and_then(|entry| serde_json::to_string(entry).ok()) {
                Some(text) => kept.push((key.stored(), text)),
                None => dropped.push(key.stored()),
            }
        }
        if self.known_changed {
            kept.extend(serde_json::to_string(&self.known).ok().map(|text| (RECEIVERS.to_owned(), text)));
        }
        (kept, dropped)
    }

    /// The changes are stored.
    pub(super) fn stored(&mut self) {
        self.changed.clear();
        self.known_changed = false;
    }
}

#[cfg(test)]
mod tests;
