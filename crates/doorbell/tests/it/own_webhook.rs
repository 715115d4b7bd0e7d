//! An agent's own webhook: enabled, proved, limited, and what it started.

use doorbell_client::api::{OwnWebhookWish, Success};
use doorbell_client::{Answer, api};
use doorbell_core::provider::encode_hex;
use serde_json::{Value, json};

use crate::support::{Gateway, Project};

fn wish(enabled: bool, auth: Option<&str>) -> OwnWebhookWish {
    let webhook_auth = auth.map(str::to_owned);
    OwnWebhookWish { webhook_enabled: Some(enabled), webhook_auth, ..OwnWebhookWish::default() }
}

/// What came back, and `Retry-After`.
struct Reply {
    status: u16,
    retry_after: Option<u64>,
    json: Value,
}

async fn post(gateway: &Gateway, body: &str, header: Option<(&str, String)>) -> Reply {
    let request = reqwest::Client::new().post(format!("{}/agents/triage/webhook", gateway.url));
    let request = request.header("content-type", "application/json").body(body.to_owned());
    let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    let response = request.send().await.unwrap();
    Reply {
        status: response.status().as_u16(),
        retry_after: response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap()),
        json: response.json().await.unwrap(),
    }
}

fn bearer(secret: &str) -> Option<(&'static str, String)> {
    Some(("authorization", format!("Bearer {secret}")))
}

fn signature(secret: &str, body: &str, prefix: &str) -> Option<(&'static str, String)> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let mac = aws_lc_rs::hmac::sign(&key, body.as_bytes());
    Some(("x-webhook-signature", format!("{prefix}{}", encode_hex(mac.as_ref()))))
}

const BODY: &str = r#"{"message":"Process this","payload":{"key":"value"}}"#;

fn project() -> Project {
    let project = Project::new("");
    project.agent("triage", "", "printf '{\"answer\":42}' > \"$DOORBELL_OUTPUT_FILE\"");
    project
}

#[tokio::test]
async fn a_request_with_the_secret_starts_the_agent_and_its_execution_is_told() {
    let project = project();
    let gateway = project.serve();
    assert_eq!(post(&gateway, BODY, None).await.status, 404, "it is not enabled");
    let patched = reqwest::Client::new().patch(format!("{}/agents/triage", gateway.url)).bearer_auth(&gateway.key);
    let patched = patched.json(&json!({"webhookEnabled": true})).send().await.unwrap();
    assert_eq!((patched.status().as_u16(), patched.headers()["cache-control"].to_str().unwrap()), (200, "no-store"));
    let patched: Value = patched.json().await.unwrap();
    let data = &patched["data"];
    assert_eq!(
        (&patched["success"], &data["id"], &data["webhookEnabled"]),
        (&true.into(), &"triage".into(), &true.into())
    );
    assert_eq!(
        (&data["webhookAuth"], &data["webhookUrl"]),
        (&"bearer".into(), &format!("{}/agents/triage/webhook", gateway.url).into())
    );
    let secret = data["webhookSecret"].as_str().unwrap();
    let again = gateway.client.own_webhook("triage", &wish(true, None)).await.unwrap();
    assert_eq!(again.webhook_secret, None, "it is shown once");

    assert_eq!(post(&gateway, BODY, None).await.status, 401);
    assert_eq!(post(&gateway, BODY, bearer("wrong")).await.status, 401);
    let started = post(&gateway, BODY, bearer(secret)).await;
    assert_eq!((started.status, &started.json["success"]), (200, &true.into()));
    let read: Success<api::StartedExecution> = serde_json::from_value(started.json).unwrap();
    assert!(["queued", "running"].contains(&read.data.status.as_str()), "{read:?}");
    let run = read.data.execution_id;
    gateway.finished(&run).await;
    let execution = gateway.client.execution("triage", &run).await.unwrap();
    assert_eq!((execution.status.as_str(), execution.trigger.as_str()), ("succeeded", "webhook"));
    assert_eq!((&execution.input["payload"]["key"], &execution.output["answer"]), (&"value".into(), &42.into()));
    assert!(execution.error.is_none() && execution.started_at.is_some() && execution.finished_at.is_some());
    let second = post(&gateway, BODY, bearer(secret)).await;
    assert_ne!(second.json["data"]["executionId"], run.as_str(), "the same request again is another execution");
    let by_hand = project.json(&["run", "triage", "look"]);
    let by_hand = gateway.client.execution("triage", by_hand["runId"].as_str().unwrap()).await.unwrap();
    assert_eq!((by_hand.trigger.as_str(), &by_hand.input["prompt"]), ("manual", &"look".into()));
    assert_eq!(gateway.client.execution("other", &run).await.unwrap_err().status(), Some(404));

    let rotation = OwnWebhookWish { rotate_secret: true, overlap: Some("0s".to_owned()), ..OwnWebhookWish::default() };
    let rotated = gateway.client.own_webhook("triage", &rotation).await.unwrap().webhook_secret.unwrap();
    assert_eq!(post(&gateway, BODY, bearer(secret)).await.status, 401);
    assert_eq!(post(&gateway, BODY, bearer(&rotated)).await.status, 200);
    gateway.client.own_webhook("triage", &wish(false, None)).await.unwrap();
    assert_eq!(post(&gateway, BODY, bearer(&rotated)).await.status, 404);
    let back = gateway.client.own_webhook("triage", &wish(true, None)).await.unwrap();
    assert_eq!(back.webhook_secret, None, "senders go on with the one that they have");
    assert_eq!(post(&gateway, BODY, bearer(&rotated)).await.status, 200);
    gateway.terminate();
    let gateway = project.serve();
    assert_eq!(post(&gateway, BODY, bearer(&rotated)).await.status, 200, "it is kept");
}

#[tokio::test]
async fn a_signature_proves_itself_with_its_prefix_or_without() {
    let project = project();
    let gateway = project.serve();
    let made = gateway.client.own_webhook("triage", &wish(true, Some("hmac"))).await.unwrap();
    let secret = made.webhook_secret.unwrap();
    for prefix in ["sha256=", ""] {
        assert_eq!(post(&gateway, BODY, signature(&secret, BODY, prefix)).await.status, 200, "{prefix}");
    }
    assert_eq!(post(&gateway, BODY, bearer(&secret)).await.status, 401, "it was chosen to be signed");
    assert_eq!(post(&gateway, "{}", signature(&secret, BODY, "")).await.status, 401);
    let changed = gateway.client.own_webhook("triage", &wish(true, Some("bearer"))).await.unwrap();
    let changed = changed.webhook_secret.unwrap();
    assert_eq!(post(&gateway, BODY, bearer(&secret)).await.status, 401, "the other way ends the secret");
    assert_eq!(post(&gateway, BODY, bearer(&changed)).await.status, 200);
    let wrong = gateway.client.own_webhook("triage", &wish(true, Some("basic"))).await.unwrap_err();
    assert!(wrong.status() == Some(400) && wrong.to_string().contains("webhookAuth"), "{wrong}");
    assert_eq!(gateway.client.own_webhook("nobody", &wish(true, None)).await.unwrap_err().status(), Some(404));
}

#[tokio::test]
async fn a_webhook_without_authentication_works_and_is_said_aloud() {
    let project = project();
    let gateway = project.serve();
    gateway.client.own_webhook("triage", &wish(true, Some("none"))).await.unwrap();
    assert_eq!(post(&gateway, BODY, None).await.status, 200);
    let said = |args: &[&str]| {
        let output = project.run(args);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    for args in [&["agents"] as &[&str], &["agents", "webhook", "triage"], &["doctor"]] {
        assert!(said(args).to_lowercase().contains("anybody"), "{args:?}: {}", said(args));
    }
    assert!(said(&["sources"]).contains("takes unsigned deliveries"));
    project.log_with("own_webhook.open");
}

#[tokio::test]
async fn ten_executions_that_are_not_over_are_enough_and_so_are_a_hundred_requests_a_minute() {
    let project = Project::new("");
    project.agent("triage", "", "true");
    let gateway = project.serve();
    let secret = gateway.client.own_webhook("triage", &wish(true, None)).await.unwrap().webhook_secret.unwrap();
    gateway.client.pause(Some("triage"), &api::NewPause { why: None }).await.unwrap();
    let all = (0..20).map(|_| post(&gateway, BODY, bearer(&secret)));
    let all = futures_util::future::join_all(all).await;
    assert_eq!(all.iter().filter(|reply| reply.status == 200).count(), 10, "however many come at once");
    let refused = all.iter().find(|reply| reply.status == 429).unwrap();
    assert_eq!(refused.json["code"], "too_many_executions");
    assert!(refused.retry_after.is_some_and(|seconds| seconds > 0));
    for _ in 20..100 {
        assert_eq!(post(&gateway, BODY, bearer(&secret)).await.json["code"], "too_many_executions");
    }
    let refused = post(&gateway, BODY, bearer(&secret)).await;
    assert_eq!((refused.status, &refused.json["code"]), (429, &"rate_limited".into()));
    assert!(refused.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
    let hook = gateway.client.sources().await.unwrap().sources;
    let hook = hook.iter().find(|source| source.webhook.as_ref().is_some_and(|hook| hook.own)).unwrap();
    let by_id = gateway.send(&format!("/v1/hooks/{}", hook.name), crate::support::sample("push")).await;
    assert!(matches!(by_id, Answer::Problem(problem) if problem.code == "not_found"), "it has the agent's URL only");
}

#[tokio::test]
async fn an_agent_that_is_disabled_is_said_to_start_nothing() {
    let project = Project::new("");
    project.agent("triage", "scale = 0", "true");
    let gateway = project.serve();
    let secret = gateway.client.own_webhook("triage", &wish(true, None)).await.unwrap().webhook_secret.unwrap();
    let reply = post(&gateway, BODY, bearer(&secret)).await;
    assert_eq!((reply.status, &reply.json["code"]), (409, &"not_started".into()));
}
