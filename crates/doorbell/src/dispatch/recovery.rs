//! Recovery: runs whose process or gateway died.

use doorbell_core::time::Timestamp;

use super::Dispatcher;
use crate::clock;
use crate::runtime::{self, Stop};
use crate::store::{Error, Finish, LogLine, Running, Stream};

impl Dispatcher {
    /// Moves on the runs that run without us: after a restart all of them (`None`), later those whose lease ended
    /// before `now`. What is left of their processes is ended first.
    pub(super) async fn recover_lost(&self, now: Option<Timestamp>) -> Result<(), Error> {
        let all = self.app.store.running().await?;
        // Whoever asked for an end may have been gone before the run was told of it.
        for asked in &all {
            if let Some(by) = &asked.run.cancel_requested {
                self.stop(asked.run.id, Some(asked.lease), Stop::Cancel(by.clone()));
            }
        }
        let lost = all.into_iter().filter(|running| {
            let ours = self.in_flight().contains_key(&running.run.id);
            !ours && now.is_none_or(|now| running.until < now)
        });
        // Together, because stubborn processes take seconds to end.
        futures_util::future::try_join_all(lost.map(|running| self.recover(running))).await?;
        Ok(())
    }

    async fn recover(&self, running: Running) -> Result<(), Error> {
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
