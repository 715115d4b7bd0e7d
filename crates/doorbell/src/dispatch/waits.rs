//! Runs that give their lease back, to go on later.

use doorbell_core::id::RunId;
use doorbell_core::run::Outcome;
use doorbell_core::time::Timestamp;
use doorbell_core::wait::{Resumed, Wait};

use super::Dispatcher;
use super::outside::Close;
use crate::app::App;
use crate::runtime::Ended;
use crate::store::{Error, Holder, Lease, Resume, Running};

/// What a try's end is called that gave its run back.
pub(super) const WAITS: &str = "waits";

/// How a wish to wait was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The run waits.
    Now,
    /// It will, when its command has ended.
    AtItsEnd,
    /// The lease is no longer the run's, or it was given back before.
    Lost,
}

impl Dispatcher {
    /// Has a run give its lease back, and wait. A command that this gateway carries out first comes to its end.
    ///
    /// # Errors
    /// If the store is unavailable: then it is to be asked again.
    pub async fn wait(
        &self,
        running: &Running,
        by_command: bool,
        wait: Wait,
        until: Timestamp,
    ) -> Result<Waited, Error> {
        if by_command {
            return Ok(self.wait_at_end(running.run.id, running.lease, wait, until));
        }
        let close = Close { in_time: running.holder != Holder::Gateway, ..Close::default() };
        match self.close_try(running, Outcome::Waits { wait, until }, WAITS, close).await? {
            true => Ok(Waited::Now),
            false => Ok(Waited::Lost),
        }
    }

    fn wait_at_end(&self, run: RunId, lease: Lease, wait: Wait, until: Timestamp) -> Waited {
        match self.in_flight().get_mut(&run) {
            Some(flight) if flight.lease == lease && flight.wait.is_none() => {
                flight.wait = Some((wait, until));
                Waited::AtItsEnd
            }
            _ => Waited::Lost,
        }
    }

    /// The end of a command that asked to wait and did not fail: it waits.
    pub(super) fn heed_wait(&self, run: RunId, lease: Lease, ended: Ended) -> Ended {
        let wish =
            self.in_flight().get_mut(&run).filter(|flight| flight.lease == lease).and_then(|flight| flight.wait.take());
        match (wish, &ended.outcome) {
            (Some((wait, until)), Outcome::Succeeded) => {
                Ended { outcome: Outcome::Waits { wait, until }, ended: WAITS, result: None, ..ended }
            }
            _ => ended,
        }
    }

    /// Has a run go on. Whether it waited so, and does no more.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn resume(&self, resume: Resume) -> Result<bool, Error> {
        let (run, by) = (resume.run, resume.by.describe());
        let Some(agent) = self.app.store.resume(resume).await? else { return Ok(false) };
        tracing::info!(%run, agent, by, "run.resumed");
        self.wake(&agent);
        self.tell_of(run).await;
        Ok(true)
    }
}

/// What a run goes on by, with all that its next try is told of it.
pub(super) async fn told(app: &App, resumed: Option<Resumed>) -> Result<Option<Resumed>, Error> {
    Ok(match resumed {
        Some(Resumed::Event { event_id, event_type, .. }) => {
            let event = app.store.event(event_id).await?;
            let timestamp = event.as_ref().map(|event| event.received_at.as_seconds());
            let context = event.and_then(|event| serde_json::from_str(&event.context).ok());
            Some(Resumed::Event { event_id, event_type, timestamp, context })
        }
        Some(Resumed::Run { run_id, state, .. }) => {
            let result = app.store.run(run_id).await?.and_then(|(run, _)| run.result);
            Some(Resumed::Run { run_id, state, result: result.and_then(|json| serde_json::from_str(&json).ok()) })
        }
        other => other,
    })
}
