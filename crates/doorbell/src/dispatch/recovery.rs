//! Recovery: runs whose process, gateway or worker died.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::time::Timestamp;

use super::{Dispatcher, POLL};
use crate::clock;
use crate::runtime::{self, Stop};
use crate::store::{Error, Finish, Holder, LogLine, Running, Stream};

/// The shortest pause between two looks at the leases.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

impl Dispatcher {
    /// Moves on the runs that run without us: after a restart all of them that a gateway carried out (`None`), and always
    /// those whose lease has ended. What is left of their processes is ended first. Answers when the next lease ends
    /// that is not ours.
    pub(super) async fn recover_lost(&self, now: Option<Timestamp>) -> Result<Option<Timestamp>, Error> {
        let (mut lost, mut next) = (Vec::new(), None::<Timestamp>);
        for running in self.app.store.running().await? {
            // Whoever asked for an end may have been gone before the run was told of it.
            if let Some(by) = &running.run.cancel_requested {
                self.stop(running.run.id, Some(running.lease), Stop::Cancel(by.clone()));
            }
            let died = now.is_none() && running.holder == Holder::Gateway;
            if self.in_flight().contains_key(&running.run.id) {
            } else if died || running.until < now.unwrap_or_else(clock::now) {
                lost.push(running);
            } else {
                next = Some(next.map_or(running.until, |next| next.min(running.until)));
            }
        }
        // Together, because stubborn processes take seconds to end.
        futures_util::future::try_join_all(lost.into_iter().map(|running| self.recover(running))).await?;
        Ok(next)
    }

    /// Looks for lost runs when a lease has ended, and every few seconds.
    pub(super) async fn watch_leases(self: Arc<Self>) {
        loop {
            let now = clock::now();
            let next = self.recover_lost(Some(now)).await.unwrap_or_else(|error| {
                tracing::error!(error = error.with_causes(), "runs.recover_failed");
                None
            });
            let pause = next.map_or(POLL, |next| next.since(now).clamp(SHORTEST_PAUSE, POLL));
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn recover(&self, running: Running) -> Result<(), Error> {
        if running.holder != Holder::Gateway {
            return self.give_up_waiting(running).await;
        }
        let run = running.run;
        let ended = runtime::end_run(run.id, running.process).await;
        let what = "the gateway died while it ran".to_owned();
        tracing::warn!(run = %run.id, agent = run.agent, attempt = run.attempt, processes_ended = ended, "run.lost");
        let line = LogLine {
            at: clock::now(),
            attempt: run.attempt,
            stream: Stream::System,
            text: format!("{what}; {ended} processes of it were still there and were ended"),
        };
        self.app.store.append_log(run.id, vec![line]).await?;
        let transition = self.lost(&run, what);
        let finish = Finish {
            run: run.id,
            lease: running.lease,
            at: clock::now(),
            ended: "lost".to_owned(),
            exit_code: None,
            transition,
            result: None,
        };
        // The span of the try itself died with the gateway that carried it out.
        self.app.traces.begin_attempt(&run).ended(&finish);
        let took = run.started_at.map(|started| finish.at.since(started)).unwrap_or_default();
        self.app.metrics.count_attempt(&run.agent, &finish.ended, finish.transition.state.as_str(), took);
        self.store_end(&run, finish).await;
        // Another one of its key may have its turn now.
        self.wake(&run.agent);
        self.follow_ups.consider(run.id);
        Ok(())
    }
}
