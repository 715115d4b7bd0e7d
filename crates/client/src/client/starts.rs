//! Agents started by hand, paused and resumed; runs tried again.

use reqwest::Method;

use super::{Client, encode, read};
use crate::api;
use crate::error::Error;
use crate::query::append;

impl Client {
    /// Starts an agent by hand. `idempotency_key`: whoever asks again with the same one gets the same run.
    ///
    /// # Errors
    /// 404 if there is no such agent, 409 if it is disabled or its queue is full.
    pub async fn run_agent(
        &self,
        agent: &str,
        wish: &api::NewRun,
        idempotency_key: Option<&str>,
    ) -> Result<api::StartedRun, Error> {
        let url = self.url(&["v1", "agents", agent, "run"])?;
        let header = idempotency_key.map(|key| ("idempotency-key", key));
        read(&self.ask_with(Method::POST, url, Some(encode(wish)?), header).await?)
    }

    /// Holds what an agent has to do; without a name, what all have to do.
    ///
    /// # Errors
    /// 404 if there is no such agent, 403 if the own key may not.
    pub async fn pause(&self, agent: Option<&str>, wish: &api::NewPause) -> Result<api::Pause, Error> {
        self.post(self.pause_url(agent, "pause")?, Some(encode(wish)?)).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// 404 if there is no such agent, 409 if it is not paused, 403 if the own key may not.
    pub async fn resume(&self, agent: Option<&str>, wish: &api::NewResume) -> Result<api::Resumed, Error> {
        self.post(self.pause_url(agent, "resume")?, Some(encode(wish)?)).await
    }

    /// Holds the runs that what comes from a source would start.
    ///
    /// # Errors
    /// 404 if there is no such source, 403 if the own key may not.
    pub async fn pause_source(&self, source: &str, wish: &api::NewPause) -> Result<api::Pause, Error> {
        self.post(self.url(&["v1", "sources", source, "pause"])?, Some(encode(wish)?)).await
    }

    /// Ends the pause of a source.
    ///
    /// # Errors
    /// 404 if there is no such source, 409 if it is not paused, 403 if the own key may not.
    pub async fn resume_source(&self, source: &str, wish: &api::NewResume) -> Result<api::Resumed, Error> {
        self.post(self.url(&["v1", "sources", source, "resume"])?, Some(encode(wish)?)).await
    }

    fn pause_url(&self, agent: Option<&str>, verb: &str) -> Result<reqwest::Url, Error> {
        match agent {
            Some(agent) => self.url(&["v1", "agents", agent, verb]),
            None => self.url(&["v1", verb]),
        }
    }

    /// Dead letters by agent and cause; of one agent or of all.
    ///
    /// # Errors
    /// 403 if the own key may not.
    pub async fn dead_letters(&self, agent: Option<&str>) -> Result<api::DeadLetterGroups, Error> {
        let mut url = self.url(&["v1", "runs", "dead-letters"])?;
        append(&mut url, "agent", agent);
        self.get(url).await
    }

    /// Has a run that ended badly tried again: the same run, with all its tries.
    ///
    /// # Errors
    /// 404 if there is no such run, 409 if it did not end badly, 410 if its event is forgotten.
    pub async fn retry_run(&self, id: &str) -> Result<api::Retried, Error> {
        self.post(self.url(&["v1", "runs", id, "retry"])?, None).await
    }

    /// Does something to all runs that a filter finds: `verb` is `cancel`, `release` or `retry`.
    ///
    /// # Errors
    /// 400 if the filter says nothing, 403 if the own key may not.
    pub async fn change_runs(&self, verb: &str, wish: &api::ManyRuns) -> Result<api::ManyDone, Error> {
        self.post(self.url(&["v1", "runs", verb])?, Some(encode(wish)?)).await
    }
}
