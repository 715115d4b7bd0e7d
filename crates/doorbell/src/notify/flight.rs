//! Messages on their way: each is remembered outside of the task that sends it, so that a task that breaks off has failed
//! for its receiver and cause, and for no other.

use std::collections::{BTreeSet, HashMap};

use tokio::task::{Id, JoinSet};

use super::ledger::Key;
use super::message::Message;
use crate::config::Notification;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) key: Key,
    pub(super) message: Message,
    pub(super) notification: Notification,
}

/// All of them: what a receiver said, or why it did not take it.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    tasks: JoinSet<Result<String, String>>,
    sent: HashMap<Id, Sent>,
}

impl InFlight {
    /// Sends one beside whoever calls it.
    pub(super) fn send(&mut self, sent: Sent, sending: impl Future<Output = Result<String, String>> + Send + 'static) {
        let task = self.tasks.spawn(sending);
        self.sent.insert(task.id(), sent);
    }

    /// Receivers that have a message on its way.
    pub(super) fn busy(&self) -> BTreeSet<String> {
        self.sent.values().map(|sent| sent.key.receiver.clone()).collect()
    }

    /// The next one that was tried; none if none is on its way. Nothing is lost if the answer is dropped.
    pub(super) async fn next(&mut self) -> Option<(Sent, Result<String, String>)> {
        loop {
            let (id, said) = match self.tasks.join_next_with_id().await? {
                Ok((id, said)) => (id, said),
                Err(error) => {
                    tracing::error!(%error, "notification.send_failed");
                    (error.id(), Err("it could not be sent: an internal error".to_owned()))
                }
            };
            if let Some(sent) = self.sent.remove(&id) {
                return Some((sent, said));
            }
        }
    }
}
