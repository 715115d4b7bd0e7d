//! Stored things as the API shows them.

use doorbell_client::api;
use doorbell_core::event::event_type;
use doorbell_core::wait::{Resumed, Wait};
use serde_json::{Map, Value};

use crate::app::Reload;
use crate::store::{AgentOutcome, Attempt, LogLine, Rejection, Step, StoredEvent, StoredRun, Stream, Sweep};

/// An event with its outcomes.
pub fn view_event(event: StoredEvent, outcomes: Vec<AgentOutcome>) -> api::Event {
    api::Event {
        id: event.id.to_string(),
        seq: event.seq,
        source: event.source,
        event_type: event_type(&event.provider, &event.event, event.action.as_deref()),
        provider: event.provider,
        event: event.event,
        action: event.action,
        received_at: event.received_at.to_string(),
        delivery_id: event.delivery_id,
        verified_by: event.verified_by,
        handshake: event.handshake,
        duplicates: event.duplicates,
        body_size: event.body_size,
        context: parse_object(&event.context),
        outcomes: outcomes.into_iter().map(view_outcome).collect(),
        forgotten_at: event.forgotten_at.map(|at| at.to_string()),
        replay: event.replay.map(|replay| api::ReplayOf { id: replay.id.to_string(), event: replay.of.to_string() }),
    }
}

/// An outcome.
pub(super) fn view_outcome(outcome: AgentOutcome) -> api::Outcome {
    api::Outcome {
        agent: outcome.agent,
        outcome: outcome.kind.as_str().to_owned(),
        run_id: outcome.run.map(|run| run.to_string()),
        trigger: outcome.trigger,
        reason: outcome.reason,
        at: outcome.at.to_string(),
        trigger_set: outcome.trigger_set,
    }
}

/// A run.
pub fn view_run(run: StoredRun) -> api::Run {
    api::Run {
        id: run.id.to_string(),
        seq: run.seq,
        agent: run.agent,
        event_id: run.event.to_string(),
        event_type: run.event_type,
        key: run.key,
        absorbed: run.absorbed,
        state: run.state.as_str().to_owned(),
        reason: run.reason,
        dead_letter: run.dead_letter,
        attempt: run.attempt,
        created_at: run.created_at.to_string(),
        started_at: run.started_at.map(|at| at.to_string()),
        finished_at: run.finished_at.map(|at| at.to_string()),
        due_at: run.due.map(|at| at.to_string()),
        cancel_requested_by: run.cancel_requested,
        follow_up: run.follow_up.map(|note| api::FollowUp { at: note.at.to_string(), error: note.error }),
        follow_up_fails: None,
        waits_for: run.wait.map(view_wait),
        resumed_by: run.resumed.map(view_resumed),
        moved_on: run.moved.map(|moved| api::MovedOn {
            how: moved.how.as_str().to_owned(),
            by: moved.by,
            at: moved.at.to_string(),
        }),
        follow_up_refused: None,
        result: run.result.and_then(|json| serde_json::from_str(&json).ok()),
    }
}

/// A further event of a run.
pub(super) fn view_companion(event: StoredEvent) -> api::Companion {
    api::Companion {
        event_id: event.id.to_string(),
        event_type: event_type(&event.provider, &event.event, event.action.as_deref()),
        received_at: event.received_at.to_string(),
    }
}

/// An attempt.
pub(super) fn view_attempt(attempt: Attempt) -> api::Attempt {
    api::Attempt {
        number: attempt.number,
        started_at: attempt.started_at.to_string(),
        ended_at: attempt.ended_at.map(|at| at.to_string()),
        ended: attempt.ended,
        reason: attempt.reason,
        exit_code: attempt.exit_code,
        worker: attempt.worker,
        resumed_by: attempt.resumed.map(view_resumed),
    }
}

/// A step.
pub(super) fn view_step(step: Step) -> api::Step {
    api::Step { key: step.key, at: step.at.to_string(), bytes: step.bytes }
}

fn view_wait(wait: Wait) -> api::WaitsFor {
    let of = |kind: &str| api::WaitsFor { kind: kind.to_owned(), ..api::WaitsFor::default() };
    match wait {
        Wait::Sleep => of("sleep"),
        Wait::Event { event, source, condition } => {
            api::WaitsFor { event: Some(event), source, condition, ..of("event") }
        }
        Wait::Run { run } => api::WaitsFor { run_id: Some(run.to_string()), ..of("run") },
        Wait::Answer { question, options } => api::WaitsFor { question: Some(question), options, ..of("answer") },
    }
}

fn view_resumed(resumed: Resumed) -> api::ResumedBy {
    let what = resumed.describe();
    let of = |kind: &str| api::ResumedBy { kind: kind.to_owned(), what, ..api::ResumedBy::default() };
    match resumed {
        Resumed::Sleep => of("sleep"),
        Resumed::Timeout => of("timeout"),
        Resumed::Event { event_id, event_type, .. } => {
            api::ResumedBy { event_id: Some(event_id.to_string()), event_type: Some(event_type), ..of("event") }
        }
        Resumed::Run { run_id, state, .. } => {
            api::ResumedBy { run_id: Some(run_id.to_string()), state: Some(state.to_string()), ..of("run") }
        }
        Resumed::Answer { answer, by } => api::ResumedBy { answer: Some(answer), by: Some(by), ..of("answer") },
    }
}

/// A line of a log.
pub fn view_line(n: u64, line: LogLine) -> api::LogLine {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::System => "system",
    };
    api::LogLine { n, at: line.at.to_string(), attempt: line.attempt, stream: stream.to_owned(), text: line.text }
}

/// A refused delivery.
pub fn view_rejection(rejection: Rejection) -> api::Delivery {
    api::Delivery {
        at: rejection.at.to_string(),
        source: rejection.source,
        status: "rejected".to_owned(),
        event_id: None,
        event_type: None,
        repeated: rejection.suppressed,
        code: Some(rejection.code),
        detail: Some(rejection.detail),
        remote: Some(rejection.remote),
    }
}

/// What became of saved changes of the configuration.
pub fn view_reload(reload: &Reload) -> api::Reload {
    api::Reload {
        generation: reload.generation,
        at: reload.at.to_string(),
        changes: reload.changes.clone(),
        error: reload.error.clone(),
    }
}

/// A sweep.
pub(super) fn view_sweep(sweep: Sweep) -> api::Sweep {
    api::Sweep {
        started_at: sweep.started_at.to_string(),
        ended_at: sweep.ended_at.to_string(),
        events: sweep.events,
        runs: sweep.runs,
        rejections: sweep.rejections,
        trigger_sets: sweep.trigger_sets,
    }
}

/// A stored JSON object; empty if it is none.
pub(super) fn parse_object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}
