//! `Idempotency-Key`: whoever asks again is answered as the first time, and nothing is made twice.

use doorbell_client::api;
use serde_json::{Value, json};

use crate::support::{ANY, Gateway, ONE_SOURCE, Project, sample};

/// An answer: its status, its JSON, and whether it was given before.
type Said = (u16, Value, bool);

async fn ask(gateway: &Gateway, key: &str, path: &str, wish: &Value, once: &str) -> Said {
    let request = reqwest::Client::new().post(format!("{}{path}", gateway.url)).bearer_auth(key).body(wish.to_string());
    let answer = request.header("idempotency-key", once).send().await.unwrap();
    let (status, replayed) = (answer.status().as_u16(), answer.headers().contains_key("idempotency-replayed"));
    (status, answer.json().await.unwrap(), replayed)
}

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    project
}

async fn another_key(gateway: &Gateway) -> String {
    let wish = api::NewKey { name: "another".to_owned(), role: "owner".to_owned(), ..api::NewKey::default() };
    gateway.client.create_key(&wish).await.unwrap().key
}

/// Every call that makes something: its path, a wish and another one, and what is shown once.
fn creates(event: &str, webhook: &str) -> Vec<(String, Value, Value, Option<&'static str>)> {
    let replay = json!({ "filter": { "source": "acme" } });
    let other = json!({ "filter": { "source": "acme" }, "rate": "1/1s" });
    let key = |name: &str| json!({ "name": name, "role": "viewer" });
    vec![
        (
            "/v1/agents/triage/webhooks".to_owned(),
            json!({ "name": "a" }),
            json!({ "name": "b" }),
            Some("signingSecret"),
        ),
        (
            format!("/v1/agents/triage/webhooks/{webhook}/rotate"),
            json!({}),
            json!({ "overlap": "1h" }),
            Some("signingSecret"),
        ),
        ("/v1/keys".to_owned(), key("a"), key("b"), Some("key")),
        ("/v1/replays".to_owned(), replay, other, None),
        (format!("/v1/events/{event}/replay"), json!({}), json!({ "mode": "missing" }), None),
    ]
}

#[tokio::test]
async fn every_create_is_done_once_and_answered_as_the_first_time_without_its_secret() {
    let project = project();
    let mut gateway = project.serve();
    let event = gateway.ring(sample("issues.opened")).await.delivery_id;
    let webhook = api::NewWebhook { name: "x".to_owned(), ..api::NewWebhook::default() };
    let webhook = gateway.client.create_webhook("triage", &webhook).await.unwrap().webhook_id;
    let (own, another) = (gateway.key.clone(), another_key(&gateway).await);
    let mut secrets = Vec::new();
    let mut first_answers = Vec::new();
    for (path, wish, other, secret) in creates(&event, &webhook) {
        let (status, mut first, replayed) = ask(&gateway, &own, &path, &wish, &path).await;
        assert!((200..300).contains(&status) && !replayed, "{path}: {status} {first}");
        if let Some(secret) = secret {
            secrets.push(first[secret].as_str().unwrap().to_owned());
            first[secret] = Value::Null;
        }
        assert_eq!(ask(&gateway, &own, &path, &wish, &path).await, (status, first.clone(), true), "{path}");
        let (refused, problem, _) = ask(&gateway, &own, &path, &other, &path).await;
        assert_eq!((refused, &problem["code"]), (409, &json!("idempotency_mismatch")), "{path}");
        let (theirs, second, replayed) = ask(&gateway, &another, &path, &wish, &path).await;
        assert!(theirs == status && !replayed && second != first, "{path}: of another key it is another request");
        first_answers.push((path, wish, (status, first, true)));
    }
    assert_eq!(gateway.terminate(), Some(0));
    gateway = project.serve();
    for (path, wish, first) in &first_answers {
        assert_eq!(&ask(&gateway, &own, path, wish, path).await, first, "{path}: after a restart");
    }
    for name in ["doorbell.db", "doorbell.db-wal"] {
        let stored = std::fs::read(project.path(&format!(".doorbell/{name}"))).unwrap_or_default();
        for secret in &secrets {
            let found = stored.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} has a secret that was shown once");
        }
    }
}

#[tokio::test]
async fn twins_that_ask_at_once_make_one_thing() {
    let project = project();
    let gateway = project.serve();
    let wish = json!({ "name": "twin" });
    let asked = (0..12).map(|_| ask(&gateway, &gateway.key, "/v1/agents/triage/webhooks", &wish, "twins"));
    let said = futures_util::future::join_all(asked).await;
    let ids: Vec<&Value> = said.iter().map(|(_, body, _)| &body["webhookId"]).collect();
    assert!(said.iter().all(|(status, ..)| *status == 201) && ids.iter().all(|id| *id == ids[0]), "{said:?}");
    assert_eq!(said.iter().filter(|(.., replayed)| !replayed).count(), 1);
    assert_eq!(gateway.client.webhooks("triage").await.unwrap().webhooks.len(), 1);
}

#[tokio::test]
async fn what_was_refused_may_be_asked_again_with_the_same_key() {
    let project = project();
    let gateway = project.serve();
    let bad = json!({ "name": "", "role": "owner" });
    let (status, problem, _) = ask(&gateway, &gateway.key, "/v1/keys", &bad, "again").await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")));
    let good = json!({ "name": "good", "role": "owner" });
    let (status, _, replayed) = ask(&gateway, &gateway.key, "/v1/keys", &good, "again").await;
    assert_eq!((status, replayed), (201, false));
    for once in ["", &"x".repeat(201)] {
        let (status, problem, _) = ask(&gateway, &gateway.key, "/v1/keys", &good, once).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{once}");
    }
    let (status, problem, _) = ask(&gateway, "dbk_unknown", "/v1/keys", &good, "again").await;
    assert_eq!((status, &problem["code"]), (401, &json!("key_invalid")));
}

#[tokio::test]
async fn a_run_is_started_once_for_each_api_key_also_through_a_restart() {
    let project = project();
    let mut gateway = project.serve();
    let (own, another) = (gateway.key.clone(), another_key(&gateway).await);
    let wish = json!({ "prompt": "look" });
    let (_, first, _) = ask(&gateway, &own, "/v1/agents/triage/run", &wish, "once").await;
    let (_, theirs, _) = ask(&gateway, &another, "/v1/agents/triage/run", &wish, "once").await;
    assert_ne!(first["runId"], theirs["runId"]);
    assert_eq!(gateway.terminate(), Some(0));
    gateway = project.serve();
    let (_, again, _) = ask(&gateway, &own, "/v1/agents/triage/run", &wish, "once").await;
    assert_eq!((&again["runId"], &again["duplicate"]), (&first["runId"], &json!(true)));
    assert_eq!(gateway.runs().await.len(), 2);
}
