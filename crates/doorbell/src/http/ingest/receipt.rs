//! What the sender hears of a stored delivery, and whom else it concerns.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_client::Outbound;
use doorbell_client::api::{Receipt, SourceReceipt};
use doorbell_core::event::Event;
use doorbell_core::id::EventId;
use doorbell_core::provider::Answer;
use http::Method;

use super::super::Shared;
use crate::store::{Accepted, AgentOutcome, OutcomeKind};

/// Tells everybody, and makes what the sender hears: a receipt, and what its protocol wants instead of it.
pub(super) fn confirm(
    shared: &Shared,
    events: &[Event],
    accepted: &[Accepted],
    took: Duration,
) -> (Receipt, Option<Answer>) {
    let mut receipts = Vec::with_capacity(accepted.len());
    for (event, accepted) in events.iter().zip(accepted) {
        let receipt = tell(shared, event, accepted, took);
        let provider = event.source().provider();
        // Who is not proved has no say in what this gateway asks for.
        if event.verified_by().is_some()
            && let Some(url) = provider.confirmation_url(event)
        {
            shared.confirmations.begin(event.source().name(), accepted.event, url);
        }
        receipts.push(receipt);
    }
    // Whoever of several sources starts something, it is started.
    let started = receipts.iter().any(|receipt| !receipt.runs.is_empty());
    let answer = events.iter().find_map(|event| event.source().provider().answer(event, started));
    // There is an event for each source that verified, and at least one did.
    let (first, deliveries) = match receipts.len() {
        1 => (receipts.remove(0), Vec::new()),
        _ => (receipts[0].clone(), receipts),
    };
    let receipt = Receipt {
        received: true,
        delivery_id: first.delivery_id,
        event: first.event,
        runs: first.runs,
        duplicate: first.duplicate,
        deliveries,
    };
    (receipt, answer)
}

fn tell(shared: &Shared, event: &Event, accepted: &Accepted, took: Duration) -> SourceReceipt {
    let app = &shared.app;
    shared.dispatcher.follow_up_accept(accepted);
    let source = event.source().name();
    let event_type = event.event_type();
    let started = accepted.outcomes.iter().filter(|outcome| outcome.kind != OutcomeKind::Skipped);
    let runs: Vec<String> = started.filter_map(|outcome| outcome.run).map(|run| run.to_string()).collect();
    app.metrics.count_accepted(source, accepted.duplicate, &accepted.decided, took);
    app.signs.accepted(source, event.delivery().received_at);
    note_filter_errors(event, accepted);
    let retried = event.source().provider().retried(event.delivery());
    tracing::info!(event = %accepted.event, source, event_type, duplicate = accepted.duplicate, retried,
        verified_by = event.verified_by(), delivery_id = event.delivery_id(), runs = runs.len(),
        body_bytes = event.delivery().body.len(), took_us = took.as_micros() as u64, "event.accepted");
    SourceReceipt {
        source: source.to_owned(),
        delivery_id: accepted.event.to_string(),
        event: event_type,
        runs,
        duplicate: accepted.duplicate,
    }
}

/// Counts and logs the agents for which nobody knows whether they want the event.
fn note_filter_errors(event: &Event, accepted: &Accepted) {
    let now = event.delivery().received_at;
    let of_now = |outcome: &&AgentOutcome| outcome.kind == OutcomeKind::FilterError && outcome.at == now;
    for outcome in accepted.outcomes.iter().filter(of_now) {
        tracing::warn!(event = %accepted.event, agent = outcome.agent, trigger = outcome.trigger,
            reason = outcome.reason, "event.filter_error");
    }
}

/// URLs that are asked once, to confirm what a handshake set up: after its event is stored, and off the sender's path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confirmations {
    outbound: Arc<Outbound>,
    /// The newest events whose URL was asked or is being asked.
    begun: Arc<Mutex<VecDeque<EventId>>>,
}

/// Events that are remembered.
const MOST_BEGUN: usize = 256;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before each further try.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];

impl Confirmations {
    /// Asks the URL, unless it was asked for this event before; a redelivery asks again what failed.
    fn begin(&self, source: &str, event: EventId, url: String) {
        {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            if begun.contains(&event) {
                return;
            }
            if begun.len() >= MOST_BEGUN {
                begun.pop_front();
            }
            begun.push_back(event);
        }
        let (this, source) = (self.clone(), source.to_owned());
        tokio::spawn(async move {
            if !this.ask(&source, event, &url).await {
                let mut begun = this.begun.lock().unwrap_or_else(PoisonError::into_inner);
                begun.retain(|one| *one != event);
            }
        });
    }

    async fn ask(&self, source: &str, event: EventId, url: &str) -> bool {
        let mut pauses = PAUSES.iter();
        loop {
            let said = match self.outbound.ask(&Method::GET, url, None, PATIENCE).await {
                Ok(reply) if (200..300).contains(&reply.status) => {
                    tracing::info!(source, %event, "webhook.confirmed");
                    return true;
                }
                Ok(reply) => format!("answered with {}", reply.status),
                Err(error) => error,
            };
            // The URL holds a token, so it is not said.
            let Some(pause) = pauses.next() else {
                tracing::error!(source, %event, said, "webhook.not_confirmed: send its handshake again");
                return false;
            };
            tracing::warn!(source, %event, said, again_in_s = pause.as_secs(), "webhook.not_confirmed");
            tokio::time::sleep(*pause).await;
        }
    }
}
