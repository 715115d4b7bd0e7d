//! Runs that wait, the answers they wait for, and what their steps came to.

use reqwest::Method;
use serde_json::Value;

use super::{Client, encode, read};
use crate::api;
use crate::error::Error;

impl Client {
    /// Gives a run back until a time.
    ///
    /// # Errors
    /// 409 `lease_lost` if its lease is over, 400 if the time cannot be understood.
    pub async fn sleep_run(&self, id: &str, wish: &api::NewSleep) -> Result<api::GivenBack, Error> {
        self.post(self.url(&["v1", "runs", id, "sleep"])?, Some(encode(wish)?)).await
    }

    /// Gives a run back until an event comes, or a run that it started is over.
    ///
    /// # Errors
    /// 409 `lease_lost` if its lease is over, 400 with the reason if the wish cannot be understood.
    pub async fn wait_run(&self, id: &str, wish: &api::NewWait) -> Result<api::GivenBack, Error> {
        self.post(self.url(&["v1", "runs", id, "wait"])?, Some(encode(wish)?)).await
    }

    /// Gives a run back until somebody answers a question.
    ///
    /// # Errors
    /// 409 `lease_lost` if its lease is over, 400 if the question cannot be understood.
    pub async fn ask_run(&self, id: &str, wish: &api::NewQuestion) -> Result<api::GivenBack, Error> {
        self.post(self.url(&["v1", "runs", id, "ask"])?, Some(encode(wish)?)).await
    }

    /// Answers the question of a run.
    ///
    /// # Errors
    /// 404 if there is no such run, 409 `not_asking` if it asks nothing, 400 if there is no such answer, 403 if the own key
    /// may not.
    pub async fn answer_run(&self, id: &str, wish: &api::NewAnswer) -> Result<api::Answered, Error> {
        self.post(self.url(&["v1", "runs", id, "answer"])?, Some(encode(wish)?)).await
    }

    /// The result of a run's step.
    ///
    /// # Errors
    /// 404 if there is none.
    pub async fn step(&self, id: &str, key: &str) -> Result<Value, Error> {
        self.get(self.url(&["v1", "runs", id, "steps", key])?).await
    }

    /// Keeps the result of a run's step. The own key must be the run's token, or its lease.
    ///
    /// # Errors
    /// 409 `step_differs` if another result is there, `steps_full` if there are too many, `lease_lost` if the lease is over.
    pub async fn put_step(&self, id: &str, key: &str, value: &Value) -> Result<Value, Error> {
        let url = self.url(&["v1", "runs", id, "steps", key])?;
        read(&self.ask_with(Method::PUT, url, Some(encode(value)?), None).await?)
    }
}
