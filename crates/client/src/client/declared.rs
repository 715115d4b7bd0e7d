//! Agents that are declared.

use reqwest::Method;
use serde_json::{Map, Value};

use super::{Client, encode, read};
use crate::api;
use crate::error::Error;

impl Client {
    /// One agent, with what was declared of it.
    ///
    /// # Errors
    /// 404 if there is none.
    pub async fn agent(&self, name: &str) -> Result<api::AgentDetail, Error> {
        self.get(self.url(&["v1", "agents", name])?).await
    }

    /// Declares an agent; `etag`: only if what is declared of it now has this one.
    ///
    /// # Errors
    /// 422 with everything that is wrong with it, 409 if it is a file's, 412 if the `etag` is another one by now.
    pub async fn declare_agent(
        &self,
        name: &str,
        definition: &Map<String, Value>,
        etag: Option<&str>,
    ) -> Result<api::AgentDetail, Error> {
        self.change_agent(Method::PUT, name, Some(definition), etag).await
    }

    /// Changes some keys of what is declared of an agent; `null` takes one away.
    ///
    /// # Errors
    /// As [`Client::declare_agent`], and 404 if there is none.
    pub async fn amend_agent(
        &self,
        name: &str,
        changes: &Map<String, Value>,
        etag: Option<&str>,
    ) -> Result<api::AgentDetail, Error> {
        self.change_agent(Method::PATCH, name, Some(changes), etag).await
    }

    /// Removes what is declared of an agent: its runs that wait are held.
    ///
    /// # Errors
    /// 404 if there is none, 409 if it is a file's, 412 if the `etag` is another one by now.
    pub async fn remove_agent(&self, name: &str, etag: Option<&str>) -> Result<api::RemovedAgent, Error> {
        self.change_agent(Method::DELETE, name, None, etag).await
    }

    async fn change_agent<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        name: &str,
        body: Option<&Map<String, Value>>,
        etag: Option<&str>,
    ) -> Result<T, Error> {
        let url = self.url(&["v1", "agents", name])?;
        let body = body.map(encode).transpose()?;
        read(&self.ask_with(method, url, body, etag.map(|etag| ("if-match", etag))).await?)
    }
}
