//! Recovery: runs whose gateway or worker died.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::id::RunId;
use doorbell_core::run::Outcome;
use doorbell_core::time::Timestamp;

use super::{Dispatcher, POLL};
use crate::clock;
use crate::runtime::{self, Stop};
use crate::store::{Error, Finish, Holder, LogLine, Running, Stream};

/// The shortest pause between two looks at the leases.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

impl Dispatcher {
    /// Moves on the runs that run without us: after a restart all of them that a gateway carried out (`None`), and always
    /// those whose lease has ended. What is left of their processes is ended first; that may take seconds, so it goes on beside
    /// the caller, and only the run itself waits for it. Answers when the next lease ends that is not ours.
    pub(super) async fn recover_lost(self: &Arc<Self>, now: Option<Timestamp>) -> Result<Option<Timestamp>, Error> {
        let mut next = None::<Timestamp>;
        for running in self.app.store.running().await? {
            // Whoever asked for an end may have been gone before the run was told of it.
            if let Some(by) = &running.run.cancel_requested {
                self.stop(running.run.id, Some(running.lease), Stop::Cancel(by.clone()));
            }
            let died = now.is_none() && running.holder == Holder::Gateway;
            // Nobody tells an agent that took it, so it ends here, even if the gateway died before it could do so.
            let cancelled = running.holder == Holder::Callback && running.run.cancel_requested.is_some();
            if self.in_flight().contains_key(&running.run.id) {
            } else if died || cancelled || running.until < now.unwrap_or_else(clock::now) {
                self.begin_recovery(running);
            } else {
                next = Some(next.map_or(running.until, |next| next.min(running.until)));
            }
        }
        Ok(next)
    }

    /// Moves a lost run on, beside the caller, unless that goes on already.
    fn begin_recovery(self: &Arc<Self>, running: Running) {
        let run = running.run.id;
        if !self.recovering().insert(run) {
            return;
        }
        let this = Arc::clone(self);
        self.takers.spawn(async move {
            while let Err(error) = this.recover(running.clone()).await {
                tracing::error!(%run, error = error.with_causes(), "run.recover_failed");
                tokio::select! {
                    () = this.closing.cancelled() => break,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
            this.recovering().remove(&run);
        });
    }

    fn recovering(&self) -> MutexGuard<'_, HashSet<RunId>> {
        self.recovering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for lost runs when a lease has ended, and every few seconds.
    pub(super) async fn watch_leases(self: Arc<Self>) {
        let mut looks = self.next_look.subscribe();
        loop {
            let now = clock::now();
            // Before the look: what is handed out during it may end before the next one.
            self.next_look.send_replace(now.after(POLL));
            let next = self.recover_lost(Some(now)).await.unwrap_or_else(|error| {
                tracing::error!(error = error.with_causes(), "runs.recover_failed");
                None
            });
            if let Some(next) = next {
                self.look_at(next.max(now.after(SHORTEST_PAUSE)));
            }
            loop {
                let pause = looks.borrow_and_update().since(clock::now());
                tokio::select! {
                    () = self.closing.cancelled() => return,
                    // The sender lives as long as this.
                    _ = looks.changed() => {}
                    () = tokio::time::sleep(pause) => break,
                }
            }
        }
    }

    /// Has the leases looked at when this one ends.
    pub(super) fn look_at(&self, until: Timestamp) {
        let ended = until.after(Duration::from_millis(1));
        self.next_look.send_if_modified(|next| {
            let sooner = ended < *next;
            *next = ended.min(*next);
            sooner
        });
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
        // Whoever asked for its end has it, whatever became of the try.
        let outcome = run.cancel_requested.clone().map_or(Outcome::Lost(what), Outcome::Cancelled);
        let transition = self.next(&run, outcome);
        let finish = Finish {
            run: run.id,
            lease: running.lease,
            at: clock::now(),
            ended: "lost".to_owned(),
            exit_code: None,
            transition,
            result: None,
            in_time: false,
        };
        let Some(finish) = self.store_end(&run, &finish).await else { return Ok(()) };
        // The span of the try itself died with the gateway that carried it out.
        self.app.traces.begin_attempt(&run).ended(&finish);
        let took = run.started_at.map(|started| finish.at.since(started)).unwrap_or_default();
        self.app.metrics.count_attempt(&run.agent, &finish.ended, finish.transition.state.as_str(), took);
        // Another one of its key may have its turn now.
        self.wake(&run.agent);
        self.follow_ups.consider(run.id);
        Ok(())
    }
}
