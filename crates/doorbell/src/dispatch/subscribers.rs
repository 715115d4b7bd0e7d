//! Deliveries to subscriptions of MCP Events: each is a run, so that it is claimed, tried again and seen as every other one is.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::provider::encode_hex;
use doorbell_core::run::Outcome;
use serde_json::Value;
use tokio::sync::watch;

use super::Dispatcher;
use crate::app::subscriptions::{PATIENCE, occurrence_of};
use crate::clock;
use crate::config::{Agent, HttpRuntime, Runtime, Subscriber};
use crate::runtime::{self, Answered, Delivery, Ended, Stop};
use crate::store::StoredEvent;

pub use crate::runtime::fault_of;

impl Dispatcher {
    /// Delivers an event to a subscription.
    pub(super) async fn deliver(
        &self,
        agent: &Agent,
        (http, subscriber): (&Arc<HttpRuntime>, &Subscriber),
        event: &StoredEvent,
        stopped: watch::Receiver<Option<Stop>>,
    ) -> Answered {
        let refuse = |outcome| Ended::without_process(outcome).into();
        if subscriber.expires_at <= clock::now() {
            return refuse(Outcome::Cancelled("the end of its subscription".to_owned()));
        }
        if event.forgotten_at.is_some() {
            return refuse(Outcome::Refused("what the event said was removed for good".to_owned()));
        }
        let body = match serde_json::to_vec(&occurrence_of(event)) {
            Ok(body) => Bytes::from(body),
            Err(error) => return refuse(Outcome::Refused(format!("the event cannot be written as JSON: {error}"))),
        };
        let delivery = Delivery {
            runtime: Arc::clone(http),
            subscription: subscriber.id,
            patience: agent.timeout,
            message: event.id.to_string(),
            body,
        };
        runtime::deliver(delivery, &self.outbound, stopped).await
    }

    /// Asks a receiver whether it wants what a subscription says.
    ///
    /// # Errors
    /// Why it does not, in one word.
    pub async fn challenge(&self, agent: &Agent) -> Result<(), &'static str> {
        let Some((http, subscriber)) = subscriber_of(agent) else { return Err("challenge_failed") };
        let nonce = encode_hex(&clock::random::<32>());
        let delivery = control(Arc::clone(http), subscriber, "verification", Bytes::new());
        runtime::challenge(delivery, &nonce, &self.outbound).await
    }

    /// Tells the receiver of a subscription something about it, once. `kind`: what the message is.
    pub fn tell_subscriber(self: &Arc<Self>, agent: &Agent, kind: &str, said: &Value) {
        let Some((http, subscriber)) = subscriber_of(agent) else { return };
        let delivery = control(Arc::clone(http), subscriber, kind, Bytes::from(said.to_string()));
        let this = Arc::clone(self);
        tokio::spawn(async move { runtime::tell(delivery, &this.outbound).await });
    }
}

fn control(runtime: Arc<HttpRuntime>, subscriber: &Subscriber, kind: &str, body: Bytes) -> Delivery {
    let message = format!("msg_{kind}_{}", encode_hex(&clock::random::<16>()));
    Delivery { runtime, subscription: subscriber.id, patience: PATIENCE, message, body }
}

/// What a subscription's agent is behind; none of an agent that is one.
pub(super) fn subscriber_of(agent: &Agent) -> Option<(&Arc<HttpRuntime>, &Subscriber)> {
    match &agent.runtime {
        Runtime::Http(http) => Some((http, http.subscriber.as_ref()?)),
        _ => None,
    }
}
