//! Webhooks that are made at run time, an agent's own webhook, and the master key of their secrets.

use reqwest::Method;

use super::{Client, append, encode, read};
use crate::api;
use crate::error::Error;

impl Client {
    /// Makes a webhook for an agent.
    ///
    /// # Errors
    /// 404 if there is no such agent for the own key, 400 if the wish is not clear, 409 if there are too many.
    pub async fn create_webhook(&self, agent: &str, wish: &api::NewWebhook) -> Result<api::CreatedWebhook, Error> {
        self.post(self.webhook_url(agent, &[])?, Some(encode(wish)?)).await
    }

    /// The webhooks of an agent, without their secrets.
    ///
    /// # Errors
    /// 404 if there is no such agent for the own key.
    pub async fn webhooks(&self, agent: &str) -> Result<api::WebhookList, Error> {
        self.get(self.webhook_url(agent, &[])?).await
    }

    /// Replaces the secret of a webhook.
    ///
    /// # Errors
    /// 404 if there is no such webhook, 400 if the wish is not clear.
    pub async fn rotate_webhook(
        &self,
        agent: &str,
        id: &str,
        wish: &api::Rotation,
    ) -> Result<api::RotatedWebhook, Error> {
        self.post(self.webhook_url(agent, &[id, "rotate"])?, Some(encode(wish)?)).await
    }

    /// Deactivates a webhook: its URL answers with 404 from then on.
    ///
    /// # Errors
    /// 404 if there is no such webhook.
    pub async fn delete_webhook(&self, agent: &str, id: &str) -> Result<api::Webhook, Error> {
        read(&self.ask(Method::DELETE, self.webhook_url(agent, &[id])?, None).await?)
    }

    /// Has a webhook take deliveries again.
    ///
    /// # Errors
    /// 404 if there is no such webhook, 409 if there are too many.
    pub async fn activate_webhook(&self, agent: &str, id: &str) -> Result<api::Webhook, Error> {
        self.post(self.webhook_url(agent, &[id, "activate"])?, None).await
    }

    /// What came to a webhook, newest first: `accepted`, `duplicate`, `rejected`.
    ///
    /// # Errors
    /// 404 if there is no such webhook, 400 if there is no such limit.
    pub async fn webhook_deliveries(
        &self,
        agent: &str,
        id: &str,
        limit: Option<u32>,
    ) -> Result<api::DeliveryList, Error> {
        let mut url = self.webhook_url(agent, &[id, "deliveries"])?;
        append(&mut url, "limit", limit);
        self.get(url).await
    }

    /// Has the gateway send a webhook a signed sample.
    ///
    /// # Errors
    /// 404 if there is no such webhook, 409 if it takes nothing or nobody can sign for it.
    pub async fn test_webhook(
        &self,
        agent: &str,
        id: &str,
        wish: &api::WebhookTest,
    ) -> Result<api::WebhookTested, Error> {
        self.post(self.webhook_url(agent, &[id, "test"])?, Some(encode(wish)?)).await
    }

    /// Changes an agent's own webhook; an empty wish asks how it stands.
    ///
    /// # Errors
    /// 404 if there is no such agent for the own key, 400 if the wish is not clear.
    pub async fn own_webhook(&self, agent: &str, wish: &api::OwnWebhookWish) -> Result<api::OwnWebhook, Error> {
        let url = self.url(&["agents", agent])?;
        let answer: api::Success<_> = read(&self.ask(Method::PATCH, url, Some(encode(wish)?)).await?)?;
        Ok(answer.data)
    }

    /// A run of an agent, as whoever started it over its own webhook asks for it.
    ///
    /// # Errors
    /// 404 if there is none.
    pub async fn execution(&self, agent: &str, id: &str) -> Result<api::Execution, Error> {
        let answer: api::Success<_> = self.get(self.url(&["agents", agent, "executions", id])?).await?;
        Ok(answer.data)
    }

    /// Seals all stored secrets with a new master key.
    ///
    /// # Errors
    /// 403 if the own key may not, 409 if the earlier key is not there.
    pub async fn rekey(&self, wish: &api::Rekey) -> Result<api::Rekeyed, Error> {
        self.post(self.url(&["v1", "secrets", "rekey"])?, Some(encode(wish)?)).await
    }

    fn webhook_url(&self, agent: &str, rest: &[&str]) -> Result<reqwest::Url, Error> {
        self.url(&[&["v1", "agents", agent, "webhooks"], rest].concat())
    }
}
