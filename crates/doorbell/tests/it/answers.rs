//! Protocols that want more than a 2xx: answers in their own words, certificates, confirmations, results that are posted back.

use bytes::Bytes;
use doorbell_core::provider::{Unsent, built_in, encode_hex};
use doorbell_core::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::outside::{Outside, Seen, Signer};
use crate::senders::{PUBLIC_URL, Request};
use crate::support::{Gateway, Project, fresh_id, wait_until};

/// A source of this type, with this secret, and an agent `helper` that wants `events` of it.
fn project(kind: &str, secret: &str, events: &str, script: &str) -> Project {
    let project = Project::new(&format!(
        "public_url = \"{PUBLIC_URL}\"\n[webhooks.{kind}]\ntype = \"{kind}\"\ncredential = \"tests\"\n"
    ));
    let credential = built_in().iter().find(|provider| provider.name() == kind).unwrap().credential();
    project.write(&format!("credentials/{}/tests/{}", credential.name, credential.field), secret);
    project.agent("helper", &format!("[[webhooks]]\nsource = \"{kind}\"\nevents = [\"{events}\"]"), script);
    project
}

fn serve(project: &Project, outside: &Outside) -> Gateway {
    let environment = outside.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    project.serve_with(&environment)
}

async fn post(gateway: &Gateway, kind: &str, request: Request) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/webhooks/{kind}/{kind}", gateway.url);
    let answer = client.post(url).headers(request.headers).body(request.body).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A body as the provider would sign and send it.
fn signed(kind: &str, secret: &str, event: &str, body: String) -> Request {
    let provider = built_in().into_iter().find(|provider| provider.name() == kind).unwrap();
    let secret = Secret::new(secret);
    let key =
        if provider.signing_field().is_some() { provider.prepare_signing(&secret) } else { provider.prepare(&secret) };
    let id = fresh_id();
    let unsent = Unsent::new(event, Bytes::from(body), &id, doorbell::clock::now());
    request(provider.sign(Some(&key.unwrap()), unsent))
}

fn request(signed: doorbell_core::provider::Signed) -> Request {
    let mut headers = HeaderMap::new();
    for (name, value) in &signed.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Request { headers, body: signed.body }
}

async fn reached(outside: &Outside, count: usize) -> Vec<Seen> {
    wait_until("requests to reach the world", async || Some(outside.seen()).filter(|seen| seen.len() >= count)).await
}

const SEED: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn discord_public() -> String {
    let provider = built_in().into_iter().find(|provider| provider.name() == "discord").unwrap();
    encode_hex(provider.prepare_signing(&Secret::new(SEED)).unwrap().public().unwrap())
}

fn discord_command(name: &str, id: &str) -> String {
    json!({"id": id, "application_id": "4711", "type": 2, "token": "interaction-token", "guild_id": "1", "channel_id": "2",
        "member": {"user": {"id": "3", "username": "robin"}}, "data": {"id": "5", "name": name, "type": 1}})
    .to_string()
}

#[tokio::test]
async fn a_discord_command_is_deferred_and_its_result_follows() {
    let script = r#"printf '"Three issues are open."' > "$DOORBELL_OUTPUT_FILE""#;
    let project = project("discord", &discord_public(), "application_command", script);
    let outside = Outside::start(project.root(), |_| (200, "{}".to_owned())).await;
    let gateway = serve(&project, &outside);
    let ping = signed("discord", SEED, "ping", r#"{"type":1,"id":"1","application_id":"4711","token":"t"}"#.to_owned());
    assert_eq!(post(&gateway, "discord", ping).await, (200, json!({"type": 1})));
    let command = signed("discord", SEED, "application_command", discord_command("status", "10"));
    assert_eq!(post(&gateway, "discord", command).await, (200, json!({"type": 5})));
    let seen = reached(&outside, 1).await;
    assert_eq!(seen[0].method, "PATCH");
    let url = "https://discord.com/api/v10/webhooks/4711/interaction-token/messages/@original";
    assert_eq!(seen[0].url, url);
    let said: Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!(said["content"], "Three issues are open.");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!project.read("gateway.log").contains("interaction-token"), "the token is not in the log");
}

#[tokio::test]
async fn a_discord_command_that_nobody_listens_to_is_answered_for_its_sender_only() {
    let project = project("discord", &discord_public(), "nothing", "true");
    let gateway = project.serve();
    let command = signed("discord", SEED, "application_command", discord_command("status", "11"));
    let (status, answer) = post(&gateway, "discord", command).await;
    assert_eq!((status, &answer["type"], &answer["data"]["flags"]), (200, &json!(4), &json!(64)));
}

#[tokio::test]
async fn the_result_of_a_slack_command_goes_to_its_response_url() {
    let script = r#"printf '{"text":"Deployed."}' > "$DOORBELL_OUTPUT_FILE""#;
    let project = project("slack", "a signing secret", "slash_command", script);
    let outside = Outside::start(project.root(), |_| (200, "ok".to_owned())).await;
    let gateway = serve(&project, &outside);
    let form = "command=%2Fdeploy&text=api&team_id=T1&channel_id=C1&user_id=U1&user_name=robin&trigger_id=13.1&\
                api_app_id=A1&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1%2F1%2Fabc";
    let (status, answer) =
        post(&gateway, "slack", signed("slack", "a signing secret", "slash_command", form.to_owned())).await;
    assert_eq!((status, &answer["response_type"]), (200, &json!("ephemeral")), "{answer}");
    let seen = reached(&outside, 1).await;
    assert_eq!((seen[0].method.as_str(), seen[0].url.as_str()), ("POST", "https://hooks.slack.com/commands/T1/1/abc"));
    assert!(seen[0].body.contains("Deployed."), "{seen:?}");
}

#[tokio::test]
async fn a_response_url_that_is_not_slacks_is_not_used_and_the_run_says_so() {
    let project = project("slack", "a signing secret", "slash_command", "true");
    let outside = Outside::start(project.root(), |_| (200, "ok".to_owned())).await;
    let gateway = serve(&project, &outside);
    let form = "command=%2Fdeploy&team_id=T1&channel_id=C1&user_id=U1&trigger_id=13.3&\
                response_url=https%3A%2F%2Fhooks.example.com%2Fcommands%2FT1%2F2%2Fabc";
    let mut signed = signed("slack", "a signing secret", "slash_command", form.to_owned());
    signed.headers.insert("x-slack-retry-num", HeaderValue::from_static("1"));
    signed.headers.insert("x-slack-retry-reason", HeaderValue::from_static("http_timeout"));
    post(&gateway, "slack", signed).await;
    let run = wait_until("the run", async || gateway.runs().await.pop()).await;
    let done = gateway.finished(&run.id).await.run;
    assert!(done.follow_up_refused.unwrap().starts_with("its `response_url` is not one of Slack's"));
    let shown = String::from_utf8(project.run(&["runs", "show", &run.id]).stdout).unwrap();
    assert!(shown.contains("none is sent: its `response_url`"), "{shown}");
    let shown = String::from_utf8(project.run(&["events", "show", &run.event_id]).stdout).unwrap();
    assert!(shown.contains("1 http_timeout, as it says itself"), "{shown}");
}

#[tokio::test]
async fn a_follow_up_is_tried_again_until_it_is_taken_and_then_no_more() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let project = project("slack", "a signing secret", "slash_command", "true");
    let up = std::sync::Arc::new(AtomicBool::new(false));
    let is_up = std::sync::Arc::clone(&up);
    let outside = Outside::start(project.root(), move |_| match is_up.load(Ordering::Relaxed) {
        false => (503, String::new()),
        true => (200, "ok".to_owned()),
    });
    let outside = outside.await;
    let gateway = serve(&project, &outside);
    let form = "command=%2Fdeploy&team_id=T1&channel_id=C1&user_id=U1&trigger_id=13.2&\
                response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1%2F2%2Fabc";
    post(&gateway, "slack", signed("slack", "a signing secret", "slash_command", form.to_owned())).await;
    // Meanwhile it is seen which one is tried, and why in vain.
    let run = wait_until("the first try to fail", async || {
        let run = gateway.runs().await.pop()?;
        let run = gateway.client.run(&run.id).await.unwrap().run;
        run.follow_up_fails.is_some().then_some(run)
    })
    .await;
    assert_eq!((run.follow_up_fails.as_deref(), run.follow_up), (Some("answered with 503"), None));
    let log = project.log_with("follow_up.not_sent");
    assert!(log.lines().any(|line| line.contains("follow_up.not_sent") && line.contains(&run.id)), "{log}");
    up.store(true, Ordering::Relaxed);
    let told = wait_until("it to be taken", async || {
        let run = gateway.client.run(&run.id).await.unwrap().run;
        run.follow_up.is_some().then_some(run)
    })
    .await;
    assert_eq!((told.follow_up_fails, told.follow_up.unwrap().error), (None, None));
    let seen = reached(&outside, 2).await;
    assert!(seen.iter().filter(|seen| seen.url.ends_with("/T1/2/abc")).count() >= 2);
}

const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:orders";

/// A message of SNS, signed as `kind` (Notification or SubscriptionConfirmation).
fn sns(signer: &Signer, kind: &str, topic: &str, certificate: &str, id: &str) -> Request {
    let confirm = format!("https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=t{id}");
    let now = doorbell::clock::now().to_string();
    let mut fields = vec![("Message", "An order came in"), ("MessageId", id)];
    if kind == "SubscriptionConfirmation" {
        fields.push(("SubscribeURL", &confirm));
    }
    fields.push(("Timestamp", now.as_str()));
    if kind == "SubscriptionConfirmation" {
        fields.push(("Token", "t"));
    }
    fields.extend([("TopicArn", topic), ("Type", kind)]);
    let text: String = fields.iter().map(|(name, value)| format!("{name}\n{value}\n")).collect();
    let mut body: serde_json::Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    body.insert("SignatureVersion".to_owned(), json!("2"));
    body.insert("Signature".to_owned(), json!(signer.sign(&text)));
    body.insert("SigningCertURL".to_owned(), json!(certificate));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert("x-amz-sns-message-type", kind.parse().unwrap());
    Request { headers, body: Value::Object(body).to_string().into() }
}

#[tokio::test]
async fn an_sns_topic_is_confirmed_once_and_only_if_it_is_allowed() {
    const CERTIFICATE: &str = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem";
    let project = project("sns", TOPIC, "*", "true");
    let signer = Signer::new("sns.amazonaws.com");
    let pem = signer.pem.clone();
    let outside = Outside::start(project.root(), move |seen| match seen.url.as_str() {
        CERTIFICATE => (200, pem.clone()),
        _ => (200, "<ok/>".to_owned()),
    });
    let outside = outside.await;
    let gateway = serve(&project, &outside);
    let foreign = "arn:aws:sns:eu-central-1:999999999999:orders";
    for refused in [
        sns(&signer, "SubscriptionConfirmation", foreign, CERTIFICATE, "1"),
        sns(&signer, "Notification", TOPIC, "https://evil.example.com/SimpleNotificationService-1.pem", "2"),
        sns(&signer, "Notification", TOPIC, "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem", "3"),
    ] {
        assert_eq!(post(&gateway, "sns", refused).await.0, 401);
    }
    assert_eq!(outside.seen(), [], "nothing was fetched for what is not ours");
    let stranger = Signer::new("sns.amazonaws.com");
    let forged = sns(&stranger, "SubscriptionConfirmation", TOPIC, CERTIFICATE, "4");
    assert_eq!(post(&gateway, "sns", forged).await.0, 401);
    let confirmation = sns(&signer, "SubscriptionConfirmation", TOPIC, CERTIFICATE, "5");
    assert_eq!(post(&gateway, "sns", confirmation).await.0, 200);
    let confirm = |seen: &Seen| seen.url.contains("Action=ConfirmSubscription");
    let seen =
        wait_until("the confirmation", async || Some(outside.seen()).filter(|seen| seen.iter().any(confirm))).await;
    assert_eq!(
        seen.iter().filter(|seen| seen.url == CERTIFICATE).count(),
        1,
        "the certificate is fetched once: {seen:?}"
    );
    assert!(seen.iter().any(|seen| seen.url.ends_with("Token=t5")));
    let (status, receipt) = post(&gateway, "sns", sns(&signer, "Notification", TOPIC, CERTIFICATE, "6")).await;
    assert_eq!((status, receipt["runs"].as_array().map(Vec::len)), (200, Some(1)), "{receipt}");
    let (_, again) = post(&gateway, "sns", sns(&signer, "Notification", TOPIC, CERTIFICATE, "6")).await;
    assert_eq!(again["duplicate"], true);
}

#[tokio::test]
async fn xs_challenge_is_answered_and_cannot_be_made_to_sign_a_body() {
    let project = project("twitter", "consumer", "*", "true");
    let gateway = project.serve();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |token: &str| {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("crc_token", token).finish();
        let url = format!("{}/v1/webhooks/twitter/twitter?{query}", gateway.url);
        let answer = client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let (status, answer) = ask("challenge").await;
    let mac = |text: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"consumer");
        format!(
            "sha256={}",
            doorbell_core::provider::encode_base64(aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref())
        )
    };
    assert_eq!((status, answer["response_token"].as_str()), (200, Some(mac("challenge").as_str())));
    let body = r#"{"for_user_id":"1","tweet_create_events":[{"id_str":"7","text":"forged"}]}"#;
    for token in [body.to_owned(), format!(" \n{body}"), format!("\u{feff}{body}")] {
        let (status, answer) = ask(&token).await;
        assert!((400..500).contains(&status) && answer["response_token"].is_null(), "{token}: {status} {answer}");
    }
    // And what it does sign is no body.
    for token in ["challenge", "[{}]", "\"text\"", "4711"] {
        let signature = ask(token).await.1["response_token"].as_str().map(str::to_owned);
        let Some(signature) = signature else { continue };
        let mut headers = HeaderMap::new();
        headers.insert("x-twitter-webhooks-signature", signature.parse().unwrap());
        let forged = Request { headers, body: token.to_owned().into() };
        let (status, _) = post(&gateway, "twitter", forged).await;
        assert!((400..500).contains(&status), "{token}");
    }
    assert_eq!(gateway.client.stats().await.unwrap().events, Some(0));
}
