//! Why queued runs are not started, and when held ones go on: seen when somebody looks, and stored nowhere.

use std::collections::HashMap;

use doorbell_client::api;
use doorbell_core::id::RunId;
use doorbell_core::run::State;

use super::{Error, pauses};
use crate::app::App;
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::store::{Delay, PAUSED, Whose};

/// Says it in the reasons of those that are queued or held.
///
/// # Errors
/// If the store is unavailable.
pub(super) async fn explain(
    app: &App,
    dispatcher: &Dispatcher,
    runs: impl IntoIterator<Item = &mut api::Run>,
) -> Result<(), Error> {
    let mut queued = Vec::new();
    for run in runs {
        match run.state.as_str() {
            state if state == State::Queued.as_str() => queued.push(run),
            state if state == State::Held.as_str() => explain_held(app, run),
            _ => {}
        }
    }
    let ids: Vec<RunId> = queued.iter().filter_map(|run| run.id.parse().ok()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let delays: HashMap<RunId, Delay> = app.store.delays(ids, clock::now()).await?.into_iter().collect();
    for run in queued {
        let delay = run.id.parse::<RunId>().ok().and_then(|id| delays.get(&id));
        let why = match (delay, dispatcher.breaker(&run.agent)) {
            (Some(Delay::Behind(other)), _) => format!("waits for {other}, which has its key"),
            (_, Some(breaker)) => format!("waits for its agent: {breaker}"),
            (Some(Delay::Throttled(until)), None) => format!("waits until {until}: `throttle`"),
            (None, None) => match dispatcher.unasked(&run.agent) {
                Some(why) => why,
                None => continue,
            },
        };
        add(run, why);
    }
    Ok(())
}

/// Says that the pause that a run is held with is over, and how fast what it held goes on.
fn explain_held(app: &App, run: &mut api::Run) {
    let reason = run.reason.as_deref().unwrap_or_default();
    let holds = |whose: &Whose| match whose {
        Whose::Agent(agent) => *agent == run.agent && reason.starts_with(PAUSED),
        Whose::Source(source) => reason.starts_with(&format!("its source `{source}` is {PAUSED}")),
    };
    if let Some((_, rate)) = app.pauses.resuming().into_iter().find(|(whose, _)| holds(whose)) {
        add(run, format!("resumed since: what is held goes on at {}", pauses::write_rate(rate)));
    }
}

fn add(run: &mut api::Run, why: String) {
    run.reason = Some(match run.reason.take() {
        Some(reason) => format!("{reason}; {why}"),
        None => why,
    });
}
