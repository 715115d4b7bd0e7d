//! Runs that are carried out elsewhere: whoever has the lease tells how they ended.
//!
//! They stay running, under a lease that ends later than this gateway may: a restart changes nothing about them. Who does
//! not tell in time is not waited for any longer.

use std::sync::PoisonError;
use std::time::Duration;

use doorbell_core::id::RunId;
use doorbell_core::run::Outcome;
use doorbell_core::time::Timestamp;

use super::Dispatcher;
use crate::app::Notice;
use crate::clock;
use crate::config::Agent;
use crate::runtime::{Callback, LARGEST_LOG, LINE_COST};
use crate::store::{Error, Finish, Holder, Lease, LogLine, Running, StoredRun, Stream};

/// How a run ended, as whoever carried it out tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Well, perhaps with a result: JSON.
    Completed(Option<String>),
    /// Badly.
    Failed {
        /// Why, for people.
        reason: String,
        /// Whether another try is asked for, or would be of no use; else the agent's policy says.
        retry: Option<bool>,
        /// How long to wait before it.
        after: Option<Duration>,
    },
}

/// What else is known of a try's end.
#[derive(Debug, Default)]
pub(super) struct Close {
    /// How long to wait before the next one.
    pub(super) wait: Option<Duration>,
    /// The result: JSON.
    pub(super) result: Option<String>,
    /// Whether it counts only while the lease holds.
    pub(super) in_time: bool,
}

impl Dispatcher {
    /// Where an agent tells how a run ended that it took, and until when.
    pub(super) fn callback_of(&self, run: RunId, lease: Lease, timeout: Duration) -> Callback {
        let url = format!("{}/v1/runs/{run}", self.app.public_url(&self.app.current()));
        Callback { url, token: lease.to_token(), expires_at: clock::now().after(timeout) }
    }

    /// Leaves a run to the agent that took it.
    pub(super) async fn leave(&self, agent: &Agent, run: &StoredRun, lease: Lease) {
        let until = run.started_at.unwrap_or_else(clock::now).after(agent.timeout);
        match self.app.store.hand_over(run.id, lease, until).await {
            Ok(true) => {
                tracing::info!(run = %run.id, agent = agent.name, %until, "run.taken: its end is told later");
                self.look_at(until);
                self.tell_of(run.id).await;
                // Whoever wanted its end a moment ago found nobody to tell.
                if let Err(error) = self.cancel_awaited(run.id).await {
                    tracing::error!(run = %run.id, error = error.with_causes(), "run.cancel_failed");
                }
            }
            // The end was told before the answer came.
            Ok(false) => tracing::info!(run = %run.id, agent = agent.name, "run.ended_before_it_was_taken"),
            // Its lease ends, and the run is lost.
            Err(error) => tracing::error!(run = %run.id, error = error.with_causes(), "run.hand_over_failed"),
        }
    }

    /// Stores how a run ended that is carried out elsewhere. False if its lease is another one by now.
    ///
    /// # Errors
    /// If the store is unavailable: then it is to be told again.
    pub async fn end_outside(&self, running: &Running, told: Told) -> Result<bool, Error> {
        let (mut wait, mut result) = (None, None);
        let outcome = match told {
            Told::Completed(left) => {
                result = left;
                Outcome::Succeeded
            }
            Told::Failed { reason, retry, after } => {
                wait = after;
                match (&running.run.cancel_requested, retry) {
                    (Some(by), _) => Outcome::Cancelled(by.clone()),
                    (None, Some(true)) => Outcome::TryAgain(reason),
                    (None, Some(false)) => Outcome::Refused(reason),
                    (None, None) => Outcome::Failed(reason),
                }
            }
        };
        let ended = match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Cancelled(_) => "cancelled",
            _ => "failed",
        };
        // What runs under a gateway's lease is that gateway's to give up.
        let in_time = running.holder != Holder::Gateway;
        self.close_try(running, outcome, ended, Close { wait, result, in_time }).await
    }

    /// Ends a run that was to be cancelled and is waited for without anybody who could be told so.
    pub(super) async fn cancel_awaited(&self, run: RunId) -> Result<(), Error> {
        let Some(running) = self.app.store.running_run(run).await? else { return Ok(()) };
        if let (Holder::Callback, Some(by)) = (running.holder, running.run.cancel_requested.clone()) {
            self.close_try(&running, Outcome::Cancelled(by), "cancelled", Close::default()).await?;
        }
        Ok(())
    }

    /// Moves on a run whose lease ended without a word of whoever had it.
    pub(super) async fn give_up_waiting(&self, running: Running) -> Result<(), Error> {
        let run = &running.run;
        let (outcome, ended) = match (&running.run.cancel_requested, running.holder, self.deadline(run)) {
            (Some(by), _, _) => (Outcome::Cancelled(by.clone()), "cancelled"),
            (None, Holder::Worker(lease), deadline) if deadline.is_none_or(|deadline| running.until < deadline) => {
                let worker = running.worker.as_deref().unwrap_or("?");
                let what = format!("worker `{worker}` was not heard of for {} s", lease.as_secs());
                (Outcome::Lost(what), "lost")
            }
            (None, Holder::Worker(_), _) => {
                (Outcome::Failed("timed out: its worker did not end it".to_owned()), "timed_out")
            }
            (None, _, _) => (Outcome::Failed("timed out: its end was not told".to_owned()), "timed_out"),
        };
        if let Outcome::Lost(what) | Outcome::Failed(what) = &outcome {
            tracing::warn!(run = %run.id, agent = run.agent, attempt = run.attempt, what, "run.lost");
            let (at, attempt) = (clock::now(), run.attempt);
            let line = LogLine { at, attempt, stream: Stream::System, text: what.clone() };
            self.app.store.append_log(run.id, vec![line]).await?;
        }
        self.close_try(&running, outcome, ended, Close::default()).await.map(drop)
    }

    /// Extends the lease of a run that is carried out elsewhere, and answers until when it holds: not beyond the agent's
    /// `timeout`. None if its lease is another one by now.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn extend_outside(&self, running: &Running) -> Result<Option<Timestamp>, Error> {
        let Holder::Worker(lease) = running.holder else { return Ok(Some(running.until)) };
        let until = clock::now().after(lease);
        let until = self.deadline(&running.run).map_or(until, |deadline| until.min(deadline)).max(running.until);
        let lost = self.app.store.extend(vec![(running.run.id, running.lease)], until, Some(clock::now())).await?;
        Ok(lost.is_empty().then_some(until))
    }

    /// Extends the leases of workers once, also those that have ended: while no gateway ran, nobody could be heard.
    pub(super) async fn give_time_to_be_heard(&self) -> Result<(), Error> {
        let now = clock::now();
        let extended = self.app.store.running().await?.into_iter().filter_map(|running| {
            let Holder::Worker(lease) = running.holder else { return None };
            let until = now.after(lease);
            let until = self.deadline(&running.run).map_or(until, |deadline| until.min(deadline));
            Some(self.app.store.extend(vec![(running.run.id, running.lease)], until, None))
        });
        futures_util::future::try_join_all(extended).await.map(drop)
    }

    /// Adds lines to the log of a run that is carried out elsewhere, as many as there is room for. Answers how many.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn log_outside(&self, running: &Running, mut lines: Vec<LogLine>) -> Result<usize, Error> {
        let run = running.run.id;
        let (kept, full) = {
            let mut rooms = self.log_room.lock().unwrap_or_else(PoisonError::into_inner);
            let room = rooms.entry(running.lease).or_insert(LARGEST_LOG);
            let (had, before) = (*room > 0, lines.len());
            lines.retain(|line| {
                let fits = line.text.len() + LINE_COST <= *room;
                *room = if fits { *room - line.text.len() - LINE_COST } else { 0 };
                fits
            });
            (lines.len(), had && lines.len() < before)
        };
        if full {
            let text = "the log has reached 10 MiB: what the worker sends from here on is not kept".to_owned();
            lines.push(LogLine { at: clock::now(), attempt: running.run.attempt, stream: Stream::System, text });
        }
        if !lines.is_empty() {
            let count = lines.len();
            let last = self.app.store.append_log(run, lines).await?;
            let after = last.saturating_sub(count as u64);
            self.app.activity.tell(|| Notice::Log { run, after, lines: count });
        }
        Ok(kept)
    }

    /// When a try of this run that runs now has taken too long; none if its agent is gone.
    pub(super) fn deadline(&self, run: &StoredRun) -> Option<Timestamp> {
        let in_force = self.app.current();
        Some(run.started_at?.after(in_force.agent(&run.agent)?.timeout))
    }

    pub(super) async fn close_try(
        &self,
        running: &Running,
        outcome: Outcome,
        ended: &'static str,
        Close { wait, result, in_time }: Close,
    ) -> Result<bool, Error> {
        let (run, at) = (&running.run, clock::now());
        let unreached = outcome == Outcome::HandedBack;
        let mut transition = self.next(run, outcome);
        if unreached {
            transition.reason = "its worker hung up before it got it".to_owned();
        }
        if let Some(wait) = wait {
            transition = transition.tried_again_at(at.after(wait));
        }
        let (lease, ended) = (running.lease, ended.to_owned());
        let finish = Finish { run: run.id, lease, at, ended, exit_code: None, transition, result, in_time };
        if !self.app.store.finish(finish.clone()).await? {
            return Ok(false);
        }
        let finish = self.as_stored(finish).await;
        let took = run.started_at.map(|started| at.since(started)).unwrap_or_default();
        tracing::info!(run = %run.id, agent = run.agent, attempt = run.attempt, ended = finish.ended,
            took_ms = took.as_millis() as u64, state = finish.transition.state.as_str(),
            reason = finish.transition.reason, "run.finished");
        self.app.metrics.count_attempt(&run.agent, &finish.ended, finish.transition.state.as_str(), took);
        // Its span began where it was handed out; what is known of it now is all of it.
        self.app.traces.begin_attempt(run).ended(&finish);
        self.settle_end(run, &finish).await;
        // Its place is free, whatever became of it.
        self.wake(&run.agent);
        self.follow_ups.consider(run.id);
        Ok(true)
    }
}
