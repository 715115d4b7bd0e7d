//! Events that Doorbell makes itself, and that start one agent, which they name: ticks of a schedule, runs by hand,
//! notifications.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::event::Context;
use doorbell_core::flow::{Flow, WhenBusy};
use doorbell_core::id::EventId;

use super::Dispatcher;
use crate::app::Notice;
use crate::clock;
use crate::config::{Agent, WhenFull};
use crate::store::{Acceptance, Accepted, Admission, AgentOutcome, Error, NewEvent, Start};

/// What starts an agent without a webhook.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The provider and the source of the event: one of those for which [`doorbell_core::event::is_own`].
    pub kind: &'static str,
    /// The event, e.g. `tick`.
    pub event: String,
    /// The action, where there is one.
    pub action: Option<String>,
    /// No other event of the kind has it: however often it is tried, the agent starts once.
    pub key: String,
    /// The id that people know it by, where there is one.
    pub id: Option<String>,
    /// What filters, prompts and people see.
    pub context: Context,
    /// The body of the event, mostly JSON.
    pub body: Vec<u8>,
    /// What happens when the agent's queue is full.
    pub admission: Admission,
    /// It goes with a run of this key that has not started, if there is one.
    pub attach: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Caused {
    /// The event: of the first time, if it was tried before.
    pub event: EventId,
    /// Whether it was tried before.
    pub duplicate: bool,
    /// What it became for the agent.
    pub outcome: Option<AgentOutcome>,
}

/// How runs of an agent are queued, as it is configured.
pub fn admission(agent: &Agent) -> Admission {
    if agent.scale == 0 {
        return Admission::Skip("the agent is disabled: `scale = 0`".to_owned());
    }
    match agent.when_full {
        WhenFull::DropOldest => Admission::DropOldest(agent.work_queue_size),
        WhenFull::Reject => Admission::Reject(agent.work_queue_size),
        WhenFull::Grow => Admission::Grow,
    }
}

impl Dispatcher {
    /// Stores the event and what it starts, and has it carried out. None, and nothing was stored, if the agent's queue is
    /// full and rejects.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn start_agent(self: &Arc<Self>, agent: &str, cause: Cause) -> Result<Option<Caused>, Error> {
        let run = clock::new_id();
        let admission = cause.admission;
        // No trigger starts it, so none controls it.
        let flow = match &cause.attach {
            Some(_) => Some(Flow { when_busy: Some(WhenBusy::Attach), ..Flow::default() }),
            None => self.app.current().config.agents.get(agent).and_then(|agent| agent.flow_of_others()),
        };
        let start = Start { agent: agent.to_owned(), trigger: 0, run, admission, key: cause.attach, flow };
        let event = NewEvent {
            id: clock::new_id(),
            source: cause.kind.to_owned(),
            provider: cause.kind.to_owned(),
            event: cause.event,
            action: cause.action,
            delivery_keys: vec![cause.key],
            delivery_id: cause.id,
            verified_by: None,
            received_at: clock::now(),
            handshake: false,
            context: cause.context.shortened(),
            headers: "{}".to_owned(),
            body: Bytes::from(cause.body),
            trigger_set: self.app.current().trigger_set,
            trace: None,
            replay: None,
            only_missing: false,
            room: None,
            paused: None,
            starts: vec![start],
        };
        let Some(accepted) = self.begin(event).await? else { return Ok(None) };
        let outcome = accepted.outcomes.into_iter().find(|outcome| outcome.agent == agent);
        Ok(Some(Caused { event: accepted.event, duplicate: accepted.duplicate, outcome }))
    }

    /// Stores an event that no delivery brought, and has what it starts carried out. None, and nothing was stored, if every
    /// agent that it would start has a full queue and rejects.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn begin(self: &Arc<Self>, mut event: NewEvent) -> Result<Option<Accepted>, Error> {
        self.app.pauses.hold(&mut event.starts);
        let Acceptance::Stored(stored) = self.app.store.accept(vec![event]).await? else { return Ok(None) };
        let Some(accepted) = stored.into_iter().next() else { return Ok(None) };
        self.follow_up_accept(&accepted);
        Ok(Some(accepted))
    }

    /// Does what follows from a stored event: has what it started carried out, and tells whoever waits for such events.
    pub fn follow_up_accept(self: &Arc<Self>, accepted: &Accepted) {
        // Before its runs are told of.
        self.app.activity.tell(|| match accepted.duplicate {
            true => Notice::Duplicate(accepted.event),
            false => Notice::Event(accepted.event),
        });
        accepted.queued.iter().for_each(|agent| self.wake(agent));
        self.tell_of_dropped(&accepted.dropped);
        self.follow_flow(&accepted.effects);
        self.app.waits.hear();
        self.app.listeners.hear();
    }
}
