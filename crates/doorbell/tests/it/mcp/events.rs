//! MCP Events: a real receiver, real signed deliveries of a provider, and what becomes of them.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};

use doorbell_client::{RunQuery, api};
use doorbell_core::provider::encode_base64;
use doorbell_core::provider::standard::sign_ours;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use serde_json::{Value, json};

use super::{NEWEST, key, message, post};
use crate::support::{Gateway, ONE_SOURCE, Project, read_request, sample, wait_for, wait_until};

mod ends;
mod reading;

pub(super) const KEY: &[u8] = b"the key of a subscription: 32 by";
const OTHER_KEY: &[u8] = b"another key of a subscription ..";

pub(super) fn secret(key: &[u8]) -> String {
    format!("whsec_{}", encode_base64(key))
}

/// What a receiver was sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    headers: BTreeMap<String, String>,
    raw: Vec<u8>,
    pub(super) body: Value,
}

impl Sent {
    /// Whether it is signed with this key.
    pub(super) fn is_signed_with(&self, key: &[u8]) -> bool {
        let at = Timestamp::from_seconds(self.headers["webhook-timestamp"].parse().unwrap());
        let signed = sign_ours(&Secret::new(key), &self.headers["webhook-id"], at, &self.raw);
        self.headers["webhook-signature"].split(' ').any(|one| one == signed[2].1)
    }
}

/// A receiver: it sends challenges back, and answers events with these statuses, in this order, with the last of them from then on.
pub(super) struct Receiver {
    origin: String,
    pub(super) url: String,
    challenges: Arc<Mutex<Vec<Sent>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: Arc<Mutex<Vec<String>>>,
    /// What it answers challenges with, if that is something else.
    echo: Arc<Mutex<Option<String>>>,
    /// While somebody has the other end and sends nothing, it keeps its next answer back.
    hold: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Receiver {
    pub(super) fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self {
            url: format!("{origin}/events?for=me"),
            origin,
            challenges: Arc::default(),
            sent: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().map(ToString::to_string).collect())),
            echo: Arc::default(),
            hold: Arc::default(),
        };
        let it = Arc::new(receiver.share());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let it = it.share();
                std::thread::spawn(move || it.serve(&stream));
            }
        });
        receiver
    }

    fn share(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            url: self.url.clone(),
            challenges: self.challenges.clone(),
            sent: self.sent.clone(),
            answers: self.answers.clone(),
            echo: self.echo.clone(),
            hold: self.hold.clone(),
        }
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (headers, raw) = read_request(&mut reader)?;
            let body = serde_json::from_slice(&raw).unwrap();
            let sent = Sent { headers, raw, body };
            let answer = if sent.body["type"] == "verification" {
                let echo = json!({ "challenge": sent.body["challenge"] }).to_string();
                let echo = self.echo.lock().unwrap().clone().unwrap_or(format!("200 |{echo}"));
                self.challenges.lock().unwrap().push(sent);
                echo
            } else {
                let number = {
                    let mut all = self.sent.lock().unwrap();
                    all.push(sent);
                    all.len()
                };
                let held = self.hold.lock().unwrap().take();
                if let Some(held) = held {
                    let _ = held.recv();
                }
                let answers = self.answers.lock().unwrap();
                answers.get(number - 1).or(answers.last())?.clone()
            };
            let (status, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
            let (more, body) = rest.split_once('|').unwrap_or((rest, ""));
            let more = if more.is_empty() { String::new() } else { format!("{more}\r\n") };
            let answer = format!("HTTP/1.1 {status} X\r\n{more}content-length: {}\r\n\r\n{body}", body.len());
            (&*stream).write_all(answer.as_bytes()).ok()?;
        }
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// Waits until it was sent so many.
    pub(super) fn was_sent(&self, count: usize) -> Vec<Sent> {
        wait_for(&format!("{count} deliveries"), || Some(self.sent()).filter(|sent| sent.len() >= count))
    }

    /// A project whose gateway may ask it.
    pub(super) fn project(&self, config: &str) -> Project {
        let project = Project::new(&format!("private_callbacks = [\"{}\"]\n{ONE_SOURCE}{config}", self.origin));
        project.agent("triage", "[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]\n", "true");
        project
    }

    /// The parameters of a subscription to everything.
    fn wish(&self) -> Value {
        let delivery = json!({ "mode": "webhook", "url": self.url, "secret": secret(KEY) });
        json!({ "name": "acme", "arguments": {}, "delivery": delivery })
    }
}

/// A request of the extension, as clients of the newest protocol make it; what is answered.
async fn ask_as(gateway: &Gateway, key: &str, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let headers = [("mcp-protocol-version", NEWEST), ("mcp-method", method)];
    let (status, answer) = post(gateway, key, &message(method, params), &headers).await;
    assert_eq!(status, 200, "{method}: {answer}");
    answer
}

/// The result of one that must not be refused.
async fn ask(gateway: &Gateway, method: &str, params: Value) -> Value {
    let answer = ask_as(gateway, &gateway.key, method, params).await;
    assert_eq!(answer["result"]["resultType"], "complete", "{method}: {answer}");
    answer["result"].clone()
}

/// The number and the data of a refusal.
async fn refused(gateway: &Gateway, key: &str, method: &str, params: Value) -> (i64, Value) {
    let answer = ask_as(gateway, key, method, params).await;
    let error = &answer["error"];
    (error["code"].as_i64().unwrap_or_else(|| panic!("{method}: {answer}")), error["data"].clone())
}

async fn ring(gateway: &Gateway) -> api::Receipt {
    gateway.ring(sample("issues.opened")).await
}

/// The runs that deliver to a subscription.
async fn deliveries(gateway: &Gateway, subscription: &Value) -> Vec<api::Run> {
    let agent = subscription["id"].as_str().map(str::to_owned);
    gateway.client.runs(&RunQuery { agent, ..RunQuery::default() }).await.unwrap().runs
}

#[tokio::test]
async fn the_extension_is_announced_where_clients_look_for_it() {
    let project = Project::new("");
    let gateway = project.serve();
    let found = ask(&gateway, "server/discover", json!({})).await;
    let hello =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let (_, greeted) = post(&gateway, &gateway.key, &message("initialize", hello), &[]).await;
    for said in [&found["capabilities"], &greeted["result"]["capabilities"]] {
        assert_eq!(said["extensions"]["io.modelcontextprotocol/events"], json!({}), "{said}");
        assert_eq!(said["events"], json!({}), "clients of the prototype look here: {said}");
        assert!(said["tools"].is_object(), "{said}");
    }
    let unknown = message("events/dance", json!({}));
    let (_, answer) = post(&gateway, &gateway.key, &unknown, &[]).await;
    assert_eq!(answer["error"]["code"], -32601, "{answer}");
}

#[tokio::test]
async fn sources_are_types_of_events_for_those_who_may_see_them() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n");
    let gateway = project.serve();
    let made = project.json(&["webhooks", "create", "triage", "--name", "from elsewhere", "--provider", "generic"]);
    let made = made["webhookId"].as_str().unwrap();
    let names = |listed: &Value| -> Vec<String> {
        let events = listed["events"].as_array().unwrap().iter();
        events.map(|event| event["name"].as_str().unwrap().to_owned()).collect()
    };
    let listed = ask(&gateway, "events/list", json!({})).await;
    let mut all = names(&listed);
    all.sort();
    let mut expected = vec!["acme".to_owned(), "lab".to_owned(), made.to_owned()];
    expected.sort();
    assert_eq!(all, expected);
    let acme = listed["events"].as_array().unwrap().iter().find(|event| event["name"] == "acme").unwrap();
    assert_eq!(acme["delivery"], json!(["poll", "push", "webhook"]));
    assert_eq!(acme["inputSchema"]["properties"]["repos"]["type"], "array");
    assert_eq!(acme["inputSchema"]["additionalProperties"], false);
    assert_eq!(acme["payloadSchema"]["properties"]["eventType"]["type"], "string");
    let (own, viewer) = (key(&gateway, "agent", Some("triage")).await, key(&gateway, "viewer", None).await);
    let of_agent = ask_as(&gateway, &own, "events/list", json!({})).await;
    let mut own_names = names(&of_agent["result"]);
    own_names.sort();
    assert!(own_names.len() == 2 && !own_names.contains(&"lab".to_owned()), "{own_names:?}");
    let of_viewer = ask_as(&gateway, &viewer, "events/list", json!({})).await;
    assert_eq!(of_viewer["result"]["events"][0]["delivery"], json!(["poll", "push"]));
    let wish = receiver.wish();
    assert_eq!(refused(&gateway, &viewer, "events/subscribe", wish).await.0, -32012);
    let foreign = json!({ "name": "lab", "cursor": null });
    assert_eq!(refused(&gateway, &own, "events/poll", foreign).await, (-32011, json!({ "kind": "event" })));
}

#[tokio::test]
async fn who_subscribes_is_asked_and_then_sent_what_comes_signed_and_each_once() {
    let receiver = Receiver::start(&["204"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let before = ring(&gateway).await;
    let subscribed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let challenge = receiver.challenges.lock().unwrap()[0].clone();
    assert_eq!(challenge.headers["x-mcp-subscription-id"], subscribed["id"].as_str().unwrap());
    assert!(challenge.is_signed_with(KEY) && challenge.headers["webhook-id"].starts_with("msg_verification_"));
    assert_eq!((&subscribed["truncated"], subscribed.get("deliveryStatus")), (&json!(false), None));
    let ends: Timestamp = subscribed["refreshBefore"].as_str().unwrap().parse().unwrap();
    let lives = ends.since(doorbell::clock::now()).as_secs();
    assert!((3500..=3600).contains(&lives), "{lives}");

    let receipt = ring(&gateway).await;
    assert_eq!(receipt.runs.len(), 1, "ingest starts agents, and nothing for subscribers");
    let sent = receiver.was_sent(1).remove(0);
    assert!(sent.is_signed_with(KEY), "{sent:?}");
    assert_eq!(sent.headers["webhook-id"], receipt.delivery_id);
    assert_eq!(sent.headers["x-mcp-subscription-id"], subscribed["id"].as_str().unwrap());
    assert_eq!(sent.headers["content-type"], "application/json");
    assert_eq!((&sent.body["eventId"], &sent.body["name"]), (&json!(receipt.delivery_id), &json!("acme")));
    assert_eq!(sent.body["data"]["eventType"], "github.issues.opened");
    assert!(sent.body["data"]["context"]["repo"].is_string() && sent.body.get("type").is_none(), "{}", sent.body);
    let run = wait_until("the delivery to be over", async || {
        deliveries(&gateway, &subscribed).await.into_iter().find(|run| run.state == "succeeded")
    })
    .await;
    assert_eq!((run.event_id, run.attempt), (receipt.delivery_id.clone(), 1));

    // Delivered again by its sender, and replayed: nothing new.
    gateway.client.replay_event(&receipt.delivery_id, &api::ReplayWish::default()).await.unwrap();
    let next = gateway.ring(sample("issues.labeled")).await;
    let sent = receiver.was_sent(2);
    assert_eq!(sent[1].body["eventId"], json!(next.delivery_id), "what is said again is no news");

    // It is seen where one looks for it, and is no agent.
    let why = gateway.client.explain(&receipt.delivery_id).await.unwrap();
    let agents: Vec<&str> = why.event.outcomes.iter().map(|outcome| outcome.agent.as_str()).collect();
    assert!(agents.contains(&subscribed["id"].as_str().unwrap()), "{agents:?}");
    let verdict = why.verdicts.iter().find(|verdict| verdict.agent == subscribed["id"].as_str().unwrap()).unwrap();
    assert!(verdict.matched && verdict.reason.contains("subscription"), "{verdict:?}");
    let agents = gateway.client.agents().await.unwrap().agents;
    assert_eq!(agents.len(), 1, "{agents:?}");
    let sources = gateway.client.sources().await.unwrap().sources;
    let seen = &sources[0].subscriptions[0];
    assert_eq!((&json!(seen.id), seen.arguments.as_str()), (&subscribed["id"], "{}"));
    assert_eq!(seen.to, receiver.origin, "the rest of a URL may be a secret");
    let shown = String::from_utf8(project.run(&["sources", "show", "acme"]).stdout).unwrap();
    assert!(shown.contains(&seen.id) && shown.contains(&receiver.origin), "{shown}");
    let own = key(&gateway, "agent", Some("triage")).await;
    let of_agent = doorbell_client::Client::new(&gateway.url, Some(&own)).unwrap().sources().await.unwrap();
    assert!(of_agent.sources[0].subscriptions.is_empty(), "{of_agent:?}");
    let metrics = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("agent=\"sub_*\"") && !metrics.contains(subscribed["id"].as_str().unwrap()), "{metrics}");

    // A poll says the same, and what was there before.
    let polled = ask(&gateway, "events/poll", json!({ "name": "acme", "cursor": "0" })).await;
    let ids: Vec<&Value> = polled["events"].as_array().unwrap().iter().map(|event| &event["eventId"]).collect();
    assert_eq!(ids, [&json!(before.delivery_id), &json!(receipt.delivery_id), &json!(next.delivery_id)]);
    assert_eq!(polled["events"][1], sent[0].body);

    let gone = json!({ "name": "acme", "arguments": {}, "delivery": { "url": receiver.url } });
    ask(&gateway, "events/unsubscribe", gone.clone()).await;
    ring(&gateway).await;
    ask(&gateway, "events/unsubscribe", gone).await;
    let listed = wait_until("the last run of the agent", async || {
        let runs = gateway.runs().await;
        runs.iter().all(|run| run.finished_at.is_some()).then_some(runs)
    })
    .await;
    assert_eq!(listed.iter().filter(|run| run.agent.starts_with("sub_")).count(), 2);
    assert_eq!(receiver.sent().len(), 2);
}

#[tokio::test]
async fn only_what_the_arguments_choose_is_sent_and_their_order_is_no_other_subscription() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let mut wish = receiver.wish();
    wish["arguments"] = json!({ "events": ["issues.labeled"], "repos": ["**"] });
    let first = ask(&gateway, "events/subscribe", wish.clone()).await;
    wish["arguments"] = serde_json::from_str(r#"{"repos":["**"],"events":["issues.labeled"]}"#).unwrap();
    let again = ask(&gateway, "events/subscribe", wish.clone()).await;
    assert_eq!(first["id"], again["id"]);
    assert_eq!(again["deliveryStatus"]["active"], true);
    assert_eq!(receiver.challenges.lock().unwrap().len(), 1, "the same secret was proved a moment ago");
    wish["arguments"] = json!({ "events": ["issues"] });
    assert_ne!(ask(&gateway, "events/subscribe", wish).await["id"], first["id"]);
    ring(&gateway).await;
    let closed = gateway.ring(sample("issues.labeled")).await;
    let sent = receiver.was_sent(3);
    let of_first = sent.iter().filter(|sent| sent.headers["x-mcp-subscription-id"] == first["id"].as_str().unwrap());
    let ids: Vec<&Value> = of_first.map(|sent| &sent.body["eventId"]).collect();
    assert_eq!(ids, [&json!(closed.delivery_id)]);
}

#[tokio::test]
async fn what_is_no_wish_is_refused_before_anybody_is_asked() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let with = |pointer: &str, value: Value| {
        let mut wish = receiver.wish();
        *wish.pointer_mut(pointer).unwrap() = value;
        wish
    };
    for (wish, code) in [
        (with("/name", json!("nobody")), -32011),
        (with("/delivery/mode", json!("carrier pigeon")), -32014),
        (with("/delivery/url", json!("http://example.com/x")), -32602),
        (with("/delivery/url", json!("https://127.0.0.1/x")), -32602),
        (with("/delivery/url", json!("https://[::ffff:10.0.0.1]/x")), -32602),
        (with("/delivery/url", json!("https://me@example.com/x")), -32602),
        (with("/delivery/url", json!("https://example.com/x#y")), -32602),
        (with("/delivery/url", json!(format!("https://example.com/{}", "x".repeat(3000)))), -32602),
        (with("/delivery/url", json!("ftp://example.com")), -32602),
        (with("/delivery/secret", json!("hunter2")), -32602),
        (with("/delivery/secret", json!(secret(b"short"))), -32602),
        (with("/arguments", json!({ "colour": ["red"] })), -32602),
        (with("/arguments", json!({ "repos": [] })), -32602),
        (with("/arguments", json!({ "repos": "acme/app" })), -32602),
        (with("/arguments", json!({ "where": ["true"] })), -32602),
        (with("/arguments", json!([])), -32602),
        (json!({ "name": "acme" }), -32602),
        (json!({}), -32602),
    ] {
        let said = refused(&gateway, &gateway.key, "events/subscribe", wish.clone()).await;
        assert_eq!(said.0, code, "{wish}: {}", said.1);
    }
    assert!(receiver.challenges.lock().unwrap().is_empty());
    let ends = json!({ "name": "acme", "cursor": "yesterday" });
    assert_eq!(refused(&gateway, &gateway.key, "events/poll", ends).await.0, -32602);
}

#[tokio::test]
async fn a_url_that_does_not_prove_that_it_wants_events_gets_none() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    for (answer, reason) in [
        ("200 |{\"challenge\":\"guessed\"}", "challenge_failed"),
        ("200 |thanks", "challenge_failed"),
        ("204", "challenge_failed"),
        ("302 location: http://127.0.0.1/", "challenge_failed"),
        ("404", "http_4xx"),
        ("503", "http_5xx"),
    ] {
        *receiver.echo.lock().unwrap() = Some(answer.to_owned());
        let (code, data) = refused(&gateway, &gateway.key, "events/subscribe", receiver.wish()).await;
        assert_eq!((code, &data), (-32015, &json!({ "reason": reason })), "{answer}");
    }
    ring(&gateway).await;
    *receiver.echo.lock().unwrap() = None;
    let subscribed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let next = ring(&gateway).await;
    assert_eq!(receiver.was_sent(1)[0].body["eventId"], json!(next.delivery_id));
    // A refresh that fails changes nothing.
    *receiver.echo.lock().unwrap() = Some("200 |no".to_owned());
    let mut other = receiver.wish();
    other["delivery"]["secret"] = json!(secret(OTHER_KEY));
    assert_eq!(refused(&gateway, &gateway.key, "events/subscribe", other).await.0, -32015);
    ring(&gateway).await;
    assert!(receiver.was_sent(2)[1].is_signed_with(KEY), "{subscribed}");
}

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    let text = crate::docs::read("docs/mcp.md");
    let receiver = Receiver::start(&["200"]);
    let source = ONE_SOURCE.replace("acme]", "acme-github]");
    let project = Project::new(&format!("private_callbacks = [\"{}\"]\n{source}", receiver.origin));
    let gateway = project.serve();
    let receipt = gateway.send("/v1/webhooks/github/acme-github", sample("issues.opened")).await;
    assert!(matches!(receipt, doorbell_client::Answer::Receipt(_)), "{receipt:?}");
    let blocks = crate::docs::blocks(&text, "sh");
    let poll = blocks.iter().find(|block| block.contains("events/poll")).unwrap();
    let poll = poll.replace(", \"repos\": [\"acme/*\"]", "");
    let mut shell = project.prepare("sh", &["-c", &poll]);
    let said = shell.env("DOORBELL_URL", &gateway.url).env("DOORBELL_TOKEN", &gateway.key).output().unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    let polled = &said["result"]["events"][0];
    let blocks = crate::docs::blocks(&text, "json");
    let mut shown = blocks.iter().map(|block| serde_json::from_str::<Value>(block).unwrap());
    let shown = shown.find(|block| block["eventId"].is_string()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys(&shown), keys(&shown["data"])), (keys(polled), keys(&polled["data"])), "{polled}");
    let wish = blocks.iter().find(|block| block.contains("\"delivery\"")).unwrap();
    let wish = wish.replace("https://agent.example.com/events", &receiver.url);
    ask(&gateway, "events/subscribe", serde_json::from_str(&wish).unwrap()).await;
    gateway.send("/v1/webhooks/github/acme-github", sample("issues.opened")).await;
    assert!(receiver.was_sent(1)[0].is_signed_with(b"01234567890123456789012345678901"));
}
