//! Webhooks that are made at run time: made, delivered to, rotated, taken away, and kept.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use doorbell_client::api::{NewWebhook, Rotation, WebhookTest};
use doorbell_client::{Answer, Client, EventQuery, api};
use doorbell_core::provider::{Provider, Signed, Unsent, find_sample};
use doorbell_core::secret::Secret;
use serde_json::Value;

use crate::support::{Gateway, Project, fresh_id, wait_until};

mod declared;
mod rotation;

/// A project whose agent nothing in a file starts.
fn project() -> Project {
    let project = Project::new("");
    project.agent("triage", "", "cat \"$DOORBELL_EVENT_FILE\"").agent("other", "", "true");
    project
}

pub fn provider(name: &str) -> Arc<dyn Provider> {
    doorbell::config::providers().into_iter().find(|provider| provider.name() == name).unwrap()
}

/// A sample as this provider would send it, signed with this secret.
fn signed_as(name: &str, secret: &str, event: &str, delivery: &str) -> Signed {
    let provider = provider(name);
    let key = provider.prepare(&Secret::new(secret)).unwrap();
    let sample = find_sample(provider.samples(), event).unwrap();
    let unsent = Unsent::new(&sample.event, sample.body.to_string(), delivery, doorbell::clock::now());
    provider.sign(Some(&key), unsent)
}

fn signed(secret: &str) -> Signed {
    signed_as("github", secret, "issues.opened", &fresh_id())
}

fn wish(name: &str, provider: &str, secret: Option<&str>) -> NewWebhook {
    NewWebhook { name: name.to_owned(), provider: Some(provider.to_owned()), secret: secret.map(str::to_owned) }
}

async fn create(client: &Client, agent: &str, provider: &str) -> (api::CreatedWebhook, String) {
    let created = client.create_webhook(agent, &wish("pushes", provider, None)).await.unwrap();
    let secret = created.signing_secret.clone().unwrap();
    (created, secret)
}

fn path(id: &str) -> String {
    format!("/v1/hooks/{id}")
}

async fn accepted(gateway: &Gateway, id: &str, signed: Signed) -> api::Receipt {
    match gateway.send(&path(id), signed).await {
        Answer::Receipt(receipt) => receipt,
        other => panic!("not accepted: {other:?}"),
    }
}

async fn refused(gateway: &Gateway, id: &str, signed: Signed) -> (u16, String) {
    let sent = gateway.sender(&path(id)).post(&signed.headers, signed.body).await.unwrap();
    match sent.answer {
        Answer::Problem(problem) => (sent.status, problem.code),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_that_is_made_starts_its_agent_at_once_and_is_a_source_like_any_other() {
    let project = project();
    let gateway = project.serve();
    let client = &gateway.client;
    let (made, secret) = create(client, "triage", "github").await;
    assert!(made.webhook_id.starts_with("whk_") && made.url == format!("{}{}", gateway.url, path(&made.webhook_id)));
    assert_eq!((made.name.as_str(), made.provider.as_str(), made.active), ("pushes", "github", true));
    assert_eq!(made.created_by, "user");
    let delivery = signed_as("github", &secret, "issues.opened", "d-1");
    let first = accepted(&gateway, &made.webhook_id, delivery.clone()).await;
    assert_eq!((first.runs.len(), first.event.as_str()), (1, "github.issues.opened"));
    let run = gateway.finished(&first.runs[0]).await.run;
    assert_eq!((run.agent.as_str(), run.state.as_str()), ("triage", "succeeded"));
    let envelope: Value = serde_json::from_str(&gateway.stdout(&first.runs[0]).await).unwrap();
    assert_eq!(
        (&envelope["source"], &envelope["integration_id"]),
        (&"github".into(), &made.webhook_id.as_str().into())
    );

    let again = accepted(&gateway, &made.webhook_id, delivery).await;
    assert!(again.duplicate && again.runs == first.runs && again.delivery_id == first.delivery_id);
    let wrong = signed("another secret");
    assert_eq!(refused(&gateway, &made.webhook_id, wrong).await, (401, "signature_mismatch".to_owned()));

    let statuses = |list: &api::DeliveryList| list.deliveries.iter().map(|one| one.status.clone()).collect::<Vec<_>>();
    let came = client.webhook_deliveries("triage", &made.webhook_id, None).await.unwrap();
    let seen: HashSet<String> = statuses(&came).into_iter().collect();
    assert_eq!(seen, ["accepted", "duplicate", "rejected"].map(str::to_owned).into());
    let rejected = came.deliveries.iter().find(|one| one.status == "rejected").unwrap();
    assert_eq!(rejected.code.as_deref(), Some("signature_mismatch"));
    assert_eq!(client.deliveries(&made.webhook_id, None).await.unwrap().deliveries.len(), 2);

    let sources = client.sources().await.unwrap().sources;
    let source = sources.iter().find(|source| source.name == made.webhook_id).unwrap();
    let webhook = source.webhook.as_ref().unwrap();
    assert_eq!((webhook.agent.as_str(), webhook.name.as_str(), webhook.own), ("triage", "pushes", false));
    assert!(source.url == made.url && source.signed && source.credentials == ["secret-1"]);
    let query = EventQuery { source: Some(made.webhook_id.clone()), ..EventQuery::default() };
    assert_eq!(client.events(&query).await.unwrap().events.len(), 1);
    let why = client.explain(&first.delivery_id).await.unwrap();
    let verdict = why.verdicts.iter().find(|verdict| verdict.agent == "triage").unwrap();
    assert!(verdict.matched && verdict.reason.contains("every event"), "{why:?}");
    let said = String::from_utf8(project.run(&["sources"]).stdout).unwrap();
    assert!(said.contains(&made.webhook_id) && said.contains("made at run time by a user"), "{said}");
    assert!(project.run(&["events", "--source", &made.webhook_id]).status.success());

    let replayed = project.json(&["replay", &first.delivery_id]);
    assert_eq!(replayed["outcomes"][0]["outcome"], "started", "{replayed}");
    assert_eq!(
        gateway.send("/webhooks/github", signed(&secret)).await,
        gateway.send("/nothing", signed(&secret)).await
    );
}

#[tokio::test]
async fn a_config_source_and_a_webhook_of_the_same_agent_are_two_sources() {
    let project = Project::new(crate::support::ONE_SOURCE);
    project.agent(
        "triage",
        "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]\n[[webhooks]]\nsource = \"acme\"\nkey = '\"a\"'\n",
        "true",
    );
    let gateway = project.serve();
    let (made, secret) = create(&gateway.client, "triage", "github").await;
    let one = accepted(&gateway, &made.webhook_id, signed(&secret)).await;
    let why = gateway.client.explain(&one.delivery_id).await.unwrap();
    let matched: Vec<usize> = why.verdicts.iter().filter(|one| one.matched).map(|one| one.trigger).collect();
    assert_eq!((one.runs.len(), matched), (1, vec![2]), "it stands behind those of the file: {why:?}");
    assert_eq!(gateway.ring(crate::support::issue("to the file's source")).await.runs.len(), 1);
}

#[tokio::test]
async fn what_is_deleted_answers_like_what_never_was_and_comes_back_when_it_is_activated() {
    let project = project();
    let gateway = project.serve();
    let client = &gateway.client;
    let (made, secret) = create(client, "triage", "github").await;
    let id = made.webhook_id.as_str();
    assert!(!client.delete_webhook("triage", id).await.unwrap().active);
    assert!(!client.delete_webhook("triage", id).await.unwrap().active, "it is deleted already");
    let unknown = doorbell::clock::new_id::<doorbell_core::id::OfWebhook>().to_string();
    let deleted = gateway.send(&path(id), signed(&secret)).await;
    assert_eq!(deleted, gateway.send(&path(&unknown), signed(&secret)).await);
    assert_eq!(deleted, gateway.send(&path("nonsense"), signed(&secret)).await);
    assert!(matches!(deleted, Answer::Problem(problem) if problem.code == "not_found"));
    let listed = client.webhooks("triage").await.unwrap().webhooks;
    assert!(listed.len() == 1 && !listed[0].active);
    assert!(
        client.test_webhook("triage", id, &WebhookTest::default()).await.unwrap_err().to_string().contains("activate")
    );
    assert!(client.activate_webhook("triage", id).await.unwrap().active);
    accepted(&gateway, id, signed(&secret)).await;
}

#[tokio::test]
async fn an_agent_manages_its_own_webhooks_and_nothing_else() {
    let project = project();
    let script = "for agent in triage other; do\n  curl -s -o made-$agent -w '%{http_code}\\n' -X POST $DOORBELL_URL/v1/agents/$agent/webhooks \
        -H \"Authorization: Bearer $DOORBELL_TOKEN\" -H 'content-type: application/json' -d '{\"name\":\"mine\"}'\ndone\n\
        curl -s -o /dev/null -w '%{http_code}\\n' -X PATCH $DOORBELL_URL/agents/triage -H \"Authorization: Bearer $DOORBELL_TOKEN\" \
        -H 'content-type: application/json' -d '{\"webhookEnabled\":true,\"webhookAuth\":\"none\"}'\n\
        curl -s -o /dev/null -w '%{http_code}\\n' -X POST $DOORBELL_URL/v1/keys -H \"Authorization: Bearer $DOORBELL_TOKEN\" \
        -H 'content-type: application/json' -d '{\"name\":\"x\",\"role\":\"owner\"}'";
    project.secrets.expect("made-triage", "the agent keeps what it was answered in its own folder");
    project.agent("triage", "", script);
    let gateway = project.serve();
    let started = project.json(&["run", "triage"]);
    let run = started["runId"].as_str().unwrap();
    gateway.finished(run).await;
    assert_eq!(gateway.stdout(run).await, "201\n404\n403\n403");
    let listed = gateway.client.webhooks("triage").await.unwrap().webhooks;
    assert_eq!((listed.len(), listed[0].created_by.as_str(), listed[0].name.as_str()), (1, "agent", "mine"));

    let key =
        |args: &[&str]| project.json(&[&["keys", "create", "--name", "k", "--role"], args].concat())["key"].clone();
    let own = Client::new(&gateway.url, key(&["agent", "--agent", "triage"]).as_str()).unwrap();
    assert_eq!(create(&own, "triage", "generic").await.0.created_by, "agent");
    let id = listed[0].webhook_id.as_str();
    let foreign = Client::new(&gateway.url, key(&["agent", "--agent", "other"]).as_str()).unwrap();
    let status = |error: doorbell_client::Error| error.status();
    assert_eq!(foreign.webhooks("triage").await.map_err(status).unwrap_err(), Some(404));
    assert_eq!(foreign.delete_webhook("triage", id).await.map_err(status).unwrap_err(), Some(404));
    assert_eq!(foreign.delete_webhook("other", id).await.map_err(status).unwrap_err(), Some(404));
    let viewer = Client::new(&gateway.url, key(&["viewer"]).as_str()).unwrap();
    assert_eq!(viewer.webhooks("triage").await.unwrap().webhooks.len(), 2);
    assert_eq!(viewer.rotate_webhook("triage", id, &Rotation::default()).await.map_err(status).unwrap_err(), Some(403));
}

#[tokio::test]
async fn a_wish_that_cannot_be_is_refused_with_what_to_do() {
    let project = project();
    let gateway = project.serve();
    let client = &gateway.client;
    let error = async |wish: NewWebhook| client.create_webhook("triage", &wish).await.unwrap_err();
    for (wish, said) in [
        (wish("", "github", None), "`name`"),
        (wish(&"x".repeat(101), "github", None), "`name`"),
        (wish("a\u{7}b", "github", None), "`name`"),
        (wish("x", "githb", None), "did you mean `github`?"),
        (wish("x", "stripe", None), "Signing secret"),
        (wish("x", "slack", None), "Basic Information"),
        (wish("x", "sentry", None), "Client Secret"),
        (wish("x", "github", Some(" ")), "`secret`"),
        (wish("x", "github", Some(&"x".repeat(5000))), "`secret`"),
        (wish("x", "standard", Some("whsk_private")), "`secret`"),
    ] {
        let error = error(wish.clone()).await;
        assert!(error.status() == Some(400) && error.to_string().contains(said), "{wish:?}: {error}");
    }
    assert_eq!(client.create_webhook("nobody", &wish("x", "github", None)).await.unwrap_err().status(), Some(404));
    let pasted = client.create_webhook("triage", &wish("x", "stripe", Some("whsec_stripes"))).await.unwrap();
    assert_eq!(pasted.signing_secret, None, "who gave it knows it");
    let sent = signed_as("stripe", "whsec_stripes", "payment_intent.succeeded", "1");
    assert_eq!(accepted(&gateway, &pasted.webhook_id, sent).await.runs.len(), 1);
    let overlap = |text: &str| Rotation { overlap: Some(text.to_owned()), secret: Some("whsec_next".to_owned()) };
    for (wish, said) in [(overlap("soon"), "`overlap`"), (overlap("31d"), "30d"), (Rotation::default(), "`secret`")] {
        let error = client.rotate_webhook("triage", &pasted.webhook_id, &wish).await.unwrap_err();
        assert!(error.status() == Some(400) && error.to_string().contains(said), "{wish:?}: {error}");
    }
    let (standard, secret) = create(client, "triage", "standard").await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    accepted(&gateway, &standard.webhook_id, signed_as("standard", &secret, "invoice.paid", "msg_1")).await;
    let (generic, secret) = create(client, "triage", "generic").await;
    accepted(&gateway, &generic.webhook_id, signed_as("generic", &secret, "alert.raised", "1")).await;
    for _ in 3..100 {
        create(client, "triage", "generic").await;
    }
    let full = error(wish("one too many", "generic", None)).await;
    assert!(full.status() == Some(409) && full.to_string().contains("100"), "{full}");
    client.delete_webhook("triage", &generic.webhook_id).await.unwrap();
    create(client, "triage", "generic").await;
    let full = client.activate_webhook("triage", &generic.webhook_id).await.unwrap_err();
    assert_eq!(full.status(), Some(409), "{full}");
    assert_eq!(client.webhooks("triage").await.unwrap().webhooks.len(), 101);
}

#[tokio::test]
async fn a_webhook_sends_itself_a_signed_sample_and_says_what_became_of_it() {
    let project = project();
    let gateway = project.serve();
    let client = &gateway.client;
    let (made, _) = create(client, "triage", "github").await;
    let wish = WebhookTest { event: Some("issues.opened".to_owned()) };
    let tested = client.test_webhook("triage", &made.webhook_id, &wish).await.unwrap();
    assert!(tested.accepted && tested.status == 200 && tested.event_type.as_deref() == Some("github.issues.opened"));
    assert_eq!(gateway.finished(&tested.runs[0]).await.run.state, "succeeded");
    let slack = NewWebhook { name: "s".to_owned(), provider: Some("slack".to_owned()), secret: Some("shh".to_owned()) };
    let slack = client.create_webhook("triage", &slack).await.unwrap();
    let wish = WebhookTest { event: Some("app_mention".to_owned()) };
    let tested = client.test_webhook("triage", &slack.webhook_id, &wish).await.unwrap();
    assert!(tested.accepted && tested.delivery_id.is_some() && tested.runs.len() == 1, "{tested:?}");
    let wrong = WebhookTest { event: Some("no.such".to_owned()) };
    let error = client.test_webhook("triage", &made.webhook_id, &wrong).await.unwrap_err();
    assert!(error.status() == Some(400) && error.to_string().contains("issues.opened"), "{error}");
}

#[tokio::test]
async fn webhooks_outlive_restarts_reloads_and_a_kill_right_after_they_were_made() {
    let project = project();
    let gateway = project.serve();
    let (made, secret) = create(&gateway.client, "triage", "github").await;
    gateway.kill();
    let gateway = project.serve();
    accepted(&gateway, &made.webhook_id, signed(&secret)).await;
    project.write(
        "agents/third/config.toml",
        "schedule = \"0 0 1 1 *\"\n[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n",
    );
    wait_until("the reload", async || {
        let agents = gateway.client.agents().await.unwrap().agents;
        agents.iter().any(|agent| agent.name == "third").then_some(())
    })
    .await;
    accepted(&gateway, &made.webhook_id, signed(&secret)).await;
    let (later, secret) = create(&gateway.client, "third", "github").await;
    std::fs::remove_dir_all(project.path("agents/third")).unwrap();
    wait_until("its agent to go", async || {
        let gone = matches!(gateway.send(&path(&later.webhook_id), signed(&secret)).await, Answer::Problem(_));
        gone.then_some(())
    })
    .await;
    assert_eq!(gateway.client.webhooks("third").await.unwrap().webhooks.len(), 1, "it can be looked at and deleted");
}

#[tokio::test]
async fn a_secret_that_was_shown_to_a_webhook_can_be_forgotten_after_the_webhook_was_deleted() {
    let project = Project::new("");
    project.agent("triage", "", "true");
    let gateway = project.serve();
    let (made, _) = create(&gateway.client, "triage", "github").await;
    let file = format!(".doorbell/captured/{}.json", made.webhook_id);
    project.write(&file, r#"{"secret":"secret_abc","at":0,"remote":"192.0.2.1"}"#);
    gateway.client.delete_webhook("triage", &made.webhook_id).await.unwrap();
    let viewer = project.json(&["keys", "create", "--name", "v", "--role", "viewer"]);
    let viewer = Client::new(&gateway.url, viewer["key"].as_str()).unwrap();
    assert!(viewer.forget_captured_secret(&made.webhook_id).await.is_err());
    gateway.client.forget_captured_secret(&made.webhook_id).await.unwrap();
    assert!(!project.path(&file).exists());
    assert!(gateway.client.forget_captured_secret(&made.webhook_id).await.is_err(), "there is none");
}

#[tokio::test]
async fn secrets_of_concurrent_rotations_all_verify_and_too_many_are_refused() {
    let project = project();
    let gateway = project.serve();
    let (made, _) = create(&gateway.client, "triage", "github").await;
    let rotation = Rotation::default();
    let all = (0..12).map(|_| gateway.client.rotate_webhook("triage", &made.webhook_id, &rotation));
    let done = futures_util::future::join_all(all).await;
    let secrets: Vec<String> = done.iter().flatten().filter_map(|one| one.signing_secret.clone()).collect();
    assert_eq!(secrets.len(), 9, "ten verify at once: {done:?}");
    for secret in &secrets {
        accepted(&gateway, &made.webhook_id, signed(secret)).await;
    }
    let refused = done.into_iter().filter_map(Result::err).map(|error| error.status());
    assert!(refused.into_iter().all(|status| status == Some(409)));
}

/// Every file below a folder that holds one of these texts.
pub fn files_with(folder: &Path, texts: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.append(&mut files_with(&path, texts));
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let holds = |text: &String| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        found.extend(texts.iter().filter(|text| holds(text)).map(|text| format!("{}: {text}", path.display())));
    }
    found
}

#[tokio::test]
async fn no_secret_is_found_in_the_database_the_log_or_what_commands_print() {
    let project = project();
    let gateway = project.serve_with(&[("DOORBELL_LOG", "debug")]);
    let mut secrets = Vec::new();
    let shown = project.json(&["webhooks", "create", "triage", "--name", "a", "--provider", "github"]);
    secrets.push(shown["signingSecret"].as_str().unwrap().to_owned());
    let id = shown["webhookId"].as_str().unwrap().to_owned();
    let rotated = project.json(&["webhooks", "rotate", "triage", &id]);
    secrets.push(rotated["signingSecret"].as_str().unwrap().to_owned());
    let pasted = "whsec_that_stripe_made_for_this_test";
    gateway.client.create_webhook("triage", &wish("s", "stripe", Some(pasted))).await.unwrap();
    secrets.push(pasted.to_owned());
    let own = project.json(&["agents", "webhook", "triage", "--enable"]);
    secrets.push(own["webhookSecret"].as_str().unwrap().to_owned());
    let bad = wish("x", "standard", Some("whsk_a_private_key_that_is_refused"));
    let said = gateway.client.create_webhook("triage", &bad).await.unwrap_err().to_string();
    secrets.push("whsk_a_private_key_that_is_refused".to_owned());
    accepted(&gateway, &id, signed(&secrets[1])).await;
    let bearer = Signed {
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {}", secrets[3])),
            ("content-type".to_owned(), "application/json".to_owned()),
        ],
        body: "{\"message\":\"hello\"}".into(),
    };
    let answer = gateway.send("/agents/triage/webhook", bearer).await;
    assert!(matches!(&answer, Answer::Other(text) if text.contains("executionId")), "{answer:?}");
    let mut printed = said;
    for args in [
        &["webhooks", "list", "triage", "--json"] as &[&str],
        &["sources", "--json"],
        &["agents", "--json"],
        &["config"],
        &["events", "--json"],
        &["runs", "--json"],
        &["webhooks", "deliveries", "triage", &id, "--json"],
        &["agents", "webhook", "triage", "--json"],
        &["doctor", "--json"],
    ] {
        let output = project.run(args);
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    let copy = project.path("copy.db");
    assert!(project.run(&["backup", copy.to_str().unwrap()]).status.success());
    gateway.terminate();
    assert_eq!(secrets.iter().filter(|secret| printed.contains(secret.as_str())).count(), 0);
    assert_eq!(files_with(project.root(), &secrets), [""; 0]);
}

#[tokio::test]
async fn without_the_master_key_webhooks_answer_503_and_nothing_is_lost() {
    let project = project();
    let gateway = project.serve();
    let (made, secret) = create(&gateway.client, "triage", "github").await;
    let key = project.path(".doorbell/master.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    gateway.terminate();
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let gateway = project.serve();
    assert_eq!(refused(&gateway, &made.webhook_id, signed(&secret)).await, (503, "secret_unavailable".to_owned()));
    let error = gateway.client.create_webhook("triage", &wish("x", "github", None)).await.unwrap_err();
    assert!(error.status() == Some(503) && error.to_string().contains("master.key"), "{error}");
    assert!(!key.exists(), "no other key is made while secrets wait for theirs");
    let listed = gateway.client.webhooks("triage").await.unwrap().webhooks;
    assert!(listed[0].problem.as_ref().unwrap().contains("master key"), "{listed:?}");
    project.log_with("webhook.secrets_locked");
    let doctor = project.run(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!doctor.status.success() && said.contains("503"), "{said}");
    gateway.terminate();
    let other = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let gateway = project.serve_with(&[("DOORBELL_MASTER_KEY", other)]);
    assert_eq!(refused(&gateway, &made.webhook_id, signed(&secret)).await.0, 503, "a wrong one is no better");
    let rotated = gateway.client.rotate_webhook("triage", &made.webhook_id, &Rotation::default()).await.unwrap();
    let new = rotated.signing_secret.unwrap();
    accepted(&gateway, &made.webhook_id, signed(&new)).await;
    assert_eq!(refused(&gateway, &made.webhook_id, signed(&secret)).await.0, 503, "it is in its overlap");
    gateway.terminate();
    std::fs::write(&key, kept).unwrap();
    let gateway = project.serve_with(&[("DOORBELL_MASTER_KEY", other)]);
    accepted(&gateway, &made.webhook_id, signed(&new)).await;
    accepted(&gateway, &made.webhook_id, signed(&secret)).await;
    let rekeyed = project.json(&["secrets", "rekey"]);
    assert_eq!((&rekeyed["resealed"], &rekeyed["origin"]), (&1.into(), &"DOORBELL_MASTER_KEY".into()), "{rekeyed}");
    std::fs::remove_file(rekeyed["unusedFile"].as_str().unwrap()).unwrap();
    gateway.terminate();
    let gateway = project.serve_with(&[("DOORBELL_MASTER_KEY", other)]);
    accepted(&gateway, &made.webhook_id, signed(&secret)).await;
    gateway.terminate();
    let refused = project.doorbell(&["serve"]).env("DOORBELL_MASTER_KEY", "hunter2").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("DOORBELL_MASTER_KEY") && !said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_new_master_key_is_taken_over_while_the_gateway_runs_and_without_one() {
    let project = project();
    let gateway = project.serve();
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(create(&gateway.client, "triage", "github").await);
    }
    let before = project.read(".doorbell/master.key");
    let rekeyed = project.json(&["secrets", "rekey"]);
    assert_eq!((&rekeyed["resealed"], &rekeyed["unreadable"]), (&5.into(), &0.into()));
    let between = project.read(".doorbell/master.key");
    assert!(between != before && between.lines().count() == 1, "the earlier key is gone");
    for (made, secret) in &all {
        accepted(&gateway, &made.webhook_id, signed(secret)).await;
    }
    gateway.terminate();
    // As if it had been stopped when the new key was there and nothing was sealed with it yet.
    project.write(".doorbell/master.key", &format!("{}\n{between}", "ab".repeat(32)));
    let rekeyed = project.json(&["secrets", "rekey"]);
    assert_eq!(rekeyed["resealed"], 5, "it goes on with the key that was made: {rekeyed}");
    assert_eq!(project.read(".doorbell/master.key").trim(), "ab".repeat(32));
    let gateway = project.serve();
    for (made, secret) in &all {
        accepted(&gateway, &made.webhook_id, signed(secret)).await;
    }
}

#[test]
fn a_secret_is_read_from_standard_input_and_a_question_is_not_asked_of_nobody() {
    use std::io::Write as _;
    let project = project();
    let _gateway = project.serve();
    let args = ["webhooks", "create", "triage", "--name", "s", "--provider", "stripe", "--json"];
    let alone = project.run(&args);
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(alone.status.code() == Some(2) && said.contains("--secret-stdin"), "{said}");
    let mut command = project.doorbell(&[&args[..], &["--secret-stdin"]].concat());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"whsec_pasted\n").unwrap();
    let made: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let id = made["webhookId"].as_str().unwrap();
    assert!(made["signingSecret"].is_null());
    let delete = project.run(&["webhooks", "delete", "triage", id]);
    assert_eq!(delete.status.code(), Some(2), "nobody can be asked: {delete:?}");
    assert_eq!(project.json(&["webhooks", "delete", "triage", id, "--yes"])["active"], false);
    assert_eq!(project.json(&["webhooks", "activate", "triage", id])["active"], true);
    let listed = String::from_utf8(project.run(&["webhooks", "list", "triage"]).stdout).unwrap();
    assert!(listed.contains(id) && listed.contains("stripe"), "{listed}");
    assert_eq!(project.json(&["webhooks", "test", "triage", id])["accepted"], true);
    let came = String::from_utf8(project.run(&["webhooks", "deliveries", "triage", id]).stdout).unwrap();
    assert!(came.contains("accepted"), "{came}");
    assert_eq!(project.run(&["webhooks", "rotate", "triage", "whk_nothing"]).status.code(), Some(3));
}

/// Every command and request of the document, in its order.
#[test]
fn the_examples_of_the_document_work() {
    use crate::docs::{blocks, read};
    let project = project();
    let gateway = project.serve();
    let text = read("docs/webhooks.md");
    let (mut webhook, mut secret, mut seen) = (String::new(), String::new(), 0);
    for block in blocks(&text, "sh") {
        if block.starts_with("curl") {
            let script = block.replace("http://127.0.0.1:8080", &gateway.url);
            let answer = project.prepare("sh", &["-c", &script]).env("SECRET", &secret).output().unwrap();
            let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
            assert!(answer["webhookId"].is_string() || answer["success"] == true, "{answer}");
            seen += 1;
            continue;
        }
        for line in block.lines().filter_map(|line| line.strip_prefix("doorbell ")) {
            let args: Vec<&str> = line.split_whitespace().collect();
            let args: Vec<&str> = args.into_iter().map(|arg| if arg == "WEBHOOK" { &webhook } else { arg }).collect();
            let answer = project.json(&args);
            if args[1] == "create" {
                webhook = answer["webhookId"].as_str().unwrap().to_owned();
            }
            if let Some(made) = answer["webhookSecret"].as_str() {
                secret = made.to_owned();
            }
            seen += 1;
        }
    }
    assert!(seen >= 10 && !secret.is_empty(), "{seen}");
}
