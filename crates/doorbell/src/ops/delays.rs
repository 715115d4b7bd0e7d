//! Why queued runs are not started: seen when somebody looks, and stored nowhere.

use std::collections::HashMap;

use doorbell_client::api;
use doorbell_core::id::RunId;
use doorbell_core::run::State;

use super::Error;
use crate::app::App;
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::store::Delay;

/// Says it in the reasons of those that are queued.
///
/// # Errors
/// If the store is unavailable.
pub(super) async fn explain(
    app: &App,
    dispatcher: &Dispatcher,
    runs: impl IntoIterator<Item = &mut api::Run>,
) -> Result<(), Error> {
    let queued: Vec<&mut api::Run> = runs.into_iter().filter(|run| run.state == State::Queued.as_str()).collect();
    let ids: Vec<RunId> = queued.iter().filter_map(|run| run.id.parse().ok()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let delays: HashMap<RunId, Delay> = app.store.delays(ids, clock::now()).await?.into_iter().collect();
    for run in queued {
        let delay = run.id.parse::<RunId>().ok().and_then(|id| delays.get(&id));
        let why = match (delay, dispatcher.breaker(&run.agent)) {
            (Some(Delay::Behind(other)), _) => format!("waits for {other}, which has its key"),
            (_, Some(breaker)) => format!("the URL of its agent {breaker}"),
            (Some(Delay::Throttled(until)), None) => format!("waits until {until}: `throttle`"),
            (None, None) => continue,
        };
        run.reason = Some(match run.reason.take() {
            Some(reason) => format!("{reason}; {why}"),
            None => why,
        });
    }
    Ok(())
}
