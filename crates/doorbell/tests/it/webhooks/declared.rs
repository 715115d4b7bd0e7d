//! Webhooks that are made at run time beside agents that are declared: both lie over the files, and each keeps the other.

use doorbell_client::Error;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::{accepted, create, path, refused, signed};
use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_until};

fn definition(keys: Value) -> Map<String, Value> {
    let mut definition = json!({ "runtime": { "type": "worker" } }).as_object().unwrap().clone();
    definition.extend(keys.as_object().unwrap().clone());
    definition
}

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("filed", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    project
}

async fn declare(gateway: &Gateway, name: &str, keys: Value) {
    gateway.client.declare_agent(name, &definition(keys), None).await.unwrap();
}

/// Saves another file and waits until it is in force.
async fn reload(project: &Project, gateway: &Gateway, description: &str) {
    let config =
        format!("description = \"{description}\"\n[[webhooks]]\nsource = \"acme\"\nevents = [\"push\", \"issues\"]");
    project.agent("filed", &config, "true");
    gateway.signal(Signal::SIGHUP);
    wait_until("the reload", async || {
        let filed = gateway.client.agent("filed").await.unwrap().agent;
        (filed.description.as_deref() == Some(description)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_webhook_of_a_declared_agent_outlives_changes_reloads_and_restarts() {
    let project = project();
    let gateway = project.serve();
    declare(&gateway, "triage", json!({ "webhooks": [{ "source": "acme", "events": ["push"] }] })).await;
    let (made, secret) = create(&gateway.client, "triage", "github").await;
    let id = &made.webhook_id;
    assert_eq!(accepted(&gateway, id, signed(&secret)).await.runs.len(), 1);

    declare(&gateway, "triage", json!({ "webhooks": [{ "source": "acme", "events": ["issues"] }], "scale": 2 })).await;
    let first = accepted(&gateway, id, signed(&secret)).await;
    let why = gateway.client.explain(&first.delivery_id).await.unwrap();
    let matched: Vec<usize> = why.verdicts.iter().filter(|one| one.matched).map(|one| one.trigger).collect();
    assert_eq!((first.runs.len(), matched), (1, vec![1]), "behind what is declared: {why:?}");

    reload(&project, &gateway, "changed").await;
    assert_eq!(accepted(&gateway, id, signed(&secret)).await.runs.len(), 1);
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 2, "the file's and the declared one");
    assert_eq!(gateway.client.rotate_webhook("triage", id, &Default::default()).await.unwrap().webhook_id, *id);
    let agent = gateway.client.agent("triage").await.unwrap();
    assert_eq!((agent.agent.scale, agent.agent.sources), (2, vec!["acme".to_owned(), id.clone()]));

    gateway.terminate();
    let gateway = project.serve();
    assert_eq!(accepted(&gateway, id, signed(&secret)).await.runs.len(), 1);
    assert_eq!(gateway.client.agent("triage").await.unwrap().agent.managed_by, "api");
}

#[tokio::test]
async fn the_webhook_of_an_agent_that_is_declared_no_more_waits_for_it() {
    let project = project();
    let gateway = project.serve();
    declare(&gateway, "triage", json!({})).await;
    let (made, secret) = create(&gateway.client, "triage", "github").await;
    let id = &made.webhook_id;

    gateway.client.remove_agent("triage", None).await.unwrap();
    assert_eq!(refused(&gateway, id, signed(&secret)).await, (404, "not_found".to_owned()));
    let kept = gateway.client.webhooks("triage").await.unwrap().webhooks;
    assert!(kept.len() == 1 && kept[0].active, "{kept:?}");

    declare(&gateway, "triage", json!({})).await;
    assert_eq!(accepted(&gateway, id, signed(&secret)).await.runs.len(), 1);
}

#[tokio::test]
async fn a_declaration_hears_of_no_source_that_is_a_webhook() {
    let project = project();
    let gateway = project.serve();
    let (made, _) = create(&gateway.client, "filed", "github").await;
    let named = definition(json!({ "webhooks": [{ "source": made.webhook_id }] }));
    match gateway.client.declare_agent("triage", &named, None).await {
        Err(Error::Api(problem)) => assert_eq!((problem.status, problem.code.as_str()), (422, "invalid_agent")),
        other => panic!("it was not refused: {other:?}"),
    }
    // By its provider an agent hears of the files' sources, and not of other agents' webhooks.
    declare(&gateway, "triage", json!({ "webhooks": [{ "provider": "github" }] })).await;
    assert_eq!(gateway.client.agent("triage").await.unwrap().agent.sources, ["acme"]);
}

#[tokio::test]
async fn declarations_webhooks_and_reloads_at_once_all_stand_in_the_end() {
    const EACH: usize = 8;
    let project = project();
    let gateway = project.serve();
    let name = |n: usize| format!("agent-{n}");
    let declaring = join_all((0..EACH).map(async |n| declare(&gateway, &name(n), json!({})).await));
    let making = join_all((0..EACH).map(|_| create(&gateway.client, "filed", "github")));
    let reloading = async {
        for n in 0..3 {
            reload(&project, &gateway, &format!("save {n}")).await;
        }
    };
    let (_, made, ()) = tokio::join!(declaring, making, reloading);
    let agents = gateway.client.agents().await.unwrap().agents;
    assert_eq!(agents.iter().filter(|agent| agent.managed_by == "api").count(), EACH, "{agents:?}");
    assert!(agents.iter().any(|agent| agent.description.as_deref() == Some("save 2")), "{agents:?}");
    for (webhook, secret) in &made {
        assert_eq!(
            accepted(&gateway, &webhook.webhook_id, signed(secret)).await.runs.len(),
            1,
            "{}",
            path(&webhook.webhook_id)
        );
    }
}
