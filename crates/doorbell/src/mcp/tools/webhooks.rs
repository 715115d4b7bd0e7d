//! Webhooks that are made at run time: made, listed, rotated, taken away, looked at, tried.

use doorbell_client::api;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::Desk;
use crate::mcp::bounds::page;
use crate::mcp::tool::Effect::{Ends, Makes, Reads, Replaces, Starts};
use crate::mcp::tool::{Tool, cut};
use crate::ops::{self, Error};

pub(in crate::mcp) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            ("webhooks_create", "Make a webhook", Makes),
            "Makes a webhook for an agent: a URL where every event starts it, and the secret that its sender signs with, shown this once.",
            create,
        ),
        Tool::new(
            ("webhooks_list", "List webhooks", Reads),
            "Lists the webhooks of an agent, also inactive ones, without secrets.",
            list,
        ),
        Tool::new(
            ("webhooks_rotate_secret", "Rotate a secret", Replaces),
            "Replaces the secret of a webhook, and shows the new one this once. Earlier ones verify for `overlap`.",
            rotate,
        ),
        Tool::new(
            ("webhooks_delete", "Delete a webhook", Ends),
            "Has a webhook take no more deliveries: its URL answers with 404 from then on.",
            delete,
        ),
        Tool::new(
            ("webhooks_deliveries", "List deliveries", Reads),
            "Lists what came to a webhook, newest first: accepted, duplicate, rejected with the cause.",
            deliveries,
        ),
        Tool::new(
            ("webhooks_test", "Try a webhook", Starts),
            "Sends a webhook a signed sample, and answers what became of it. It starts the agent.",
            test,
        ),
    ]
}

/// A wish.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// The agent that it starts.
    agent: String,
    /// A label.
    name: String,
    /// Who sends, such as github; without it generic.
    provider: Option<String>,
    /// The secret, if its sender makes it; else one is made.
    secret: Option<String>,
}

async fn create(desk: Desk, wish: Create) -> Result<api::CreatedWebhook, Error> {
    let new = api::NewWebhook { name: wish.name, provider: wish.provider, secret: wish.secret };
    ops::webhooks::create(&desk.app, &desk.caller, &wish.agent, new).await
}

/// Whose.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Of {
    /// The agent.
    agent: String,
}

async fn list(desk: Desk, of: Of) -> Result<api::WebhookList, Error> {
    ops::webhooks::list(&desk.app, &desk.caller, &of.agent).await
}

/// Which, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// The agent.
    agent: String,
    /// The webhook's id.
    id: String,
    /// How long earlier secrets verify, such as 0s; without it 24h.
    overlap: Option<String>,
    /// The new secret, if its sender makes it; else one is made.
    secret: Option<String>,
}

async fn rotate(desk: Desk, wish: Rotate) -> Result<api::RotatedWebhook, Error> {
    let rotation = api::Rotation { overlap: wish.overlap, secret: wish.secret };
    ops::webhooks::rotate(&desk.app, &desk.caller, &wish.agent, &wish.id, rotation).await
}

/// Which.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct One {
    /// The agent.
    agent: String,
    /// The webhook's id.
    id: String,
}

async fn delete(desk: Desk, one: One) -> Result<api::Webhook, Error> {
    ops::webhooks::set_active(&desk.app, &desk.caller, &one.agent, &one.id, false).await
}

/// Which, and how much.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Page {
    /// The agent.
    agent: String,
    /// The webhook's id.
    id: String,
    /// At most so many: 20, or up to 100.
    limit: Option<usize>,
}

async fn deliveries(desk: Desk, of: Page) -> Result<api::DeliveryList, Error> {
    let limit = Some(page(of.limit)?);
    ops::webhooks::deliveries(&desk.app, &desk.caller, &of.agent, &of.id, limit).await.map(cut)
}

/// Which, and with what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Try {
    /// The agent.
    agent: String,
    /// The webhook's id.
    id: String,
    /// Which sample, such as issues.opened; without it the first.
    event: Option<String>,
}

async fn test(desk: Desk, of: Try) -> Result<api::WebhookTested, Error> {
    let wish = api::WebhookTest { event: of.event };
    ops::webhooks::test(&desk.app, &desk.caller, &of.agent, &of.id, wish).await
}
