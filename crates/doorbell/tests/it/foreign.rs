//! What is somebody else's, and what is not active, is answered like what there is not: by every route of the document that has an
//! id in its path, in status, headers and body. (`cargo xtask bench ids` looks at the time it takes.)

use std::collections::{BTreeMap, BTreeSet};

use doorbell_client::api::{NewKey, NewWebhook, OwnWebhookWish};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, ONE_SOURCE, Project, sample};

/// Headers that are another's with each answer.
const CHANGE: [&str; 2] = ["date", "x-request-id"];

/// What an answer says, without the ids that it was asked about.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// For a part of a path: what there is not, and what there is, but not for who asks.
type Ids = BTreeMap<&'static str, (String, String)>;

struct Asker {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

impl Asker {
    async fn ask(&self, method: &str, path: &str, body: &Value, hide: &[&str]) -> Said {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), &url);
        if !["GET", "DELETE"].contains(&method) {
            request = request.json(body);
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let named = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let mut headers: BTreeMap<_, _> = answer.headers().iter().map(named).collect();
        CHANGE.iter().for_each(|name| drop(headers.remove(*name)));
        let mut body = answer.text().await.unwrap();
        for id in hide {
            body = body.replace(id, "ID");
        }
        Said { status, headers, body }
    }
}

/// A project of two agents: `one`, which asks, and `other`.
fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("one", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    project.agent("other", "[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]", "true");
    project
}

/// The same id with other random bits.
fn unknown(id: &str) -> String {
    let (kept, last) = id.split_at(id.len() - 6);
    format!("{kept}{}", if last == "0Z0Z0Z" { "Z0Z0Z0" } else { "0Z0Z0Z" })
}

async fn make(gateway: &Gateway) -> Ids {
    let receipt = gateway.ring(sample("issues.opened")).await;
    let (run, event) = (receipt.runs[0].clone(), receipt.delivery_id);
    gateway.finished(&run).await;
    let hook = async |agent: &str| {
        let wish = NewWebhook { name: "hook".to_owned(), provider: None, secret: None };
        gateway.client.create_webhook(agent, &wish).await.unwrap().webhook_id
    };
    let (foreign, inactive) = (hook("other").await, hook("one").await);
    gateway.client.delete_webhook("one", &inactive).await.unwrap();
    Ids::from([
        ("runs", (unknown(&run), run.clone())),
        ("executions", (unknown(&run), run)),
        ("events", (unknown(&event), event)),
        ("webhooks", (unknown(&foreign), foreign)),
        ("hooks", (unknown(&inactive), inactive)),
        ("agents", ("othe0".to_owned(), "other".to_owned())),
    ])
}

/// Bodies that come as far as to look for what they are about.
fn body_of(path: &str, method: &str) -> Value {
    let lease = format!("dbl_{}", "0".repeat(32));
    match (method, path.rsplit('/').next().unwrap()) {
        ("POST", "complete" | "heartbeat") => json!({"lease": lease}),
        ("POST", "fail") => json!({"lease": lease, "error": "x"}),
        ("POST", "logs") => json!({"lease": lease, "lines": ["x"]}),
        ("POST", "answer") => json!({"answer": "x"}),
        ("POST", "webhooks") => json!({"name": "x"}),
        ("POST", "sleep") => json!({"lease": lease, "until": "2099-01-01T00:00:00Z"}),
        ("POST", "wait") => json!({"lease": lease, "event": "issues"}),
        ("POST", "ask") => json!({"lease": lease, "question": "x"}),
        ("PUT", _) if path.contains("/steps/") => json!({"lease": lease, "result": 1}),
        ("POST", _) if path == "/v1/runs/{id}" => json!({"lease": lease}),
        ("PATCH", _) if path == "/agents/{name}" => json!({"webhookEnabled": true}),
        ("PUT", _) => json!({"runtime": {"type": "worker"}, "webhooks": [{"source": "acme"}]}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn every_route_with_an_id_answers_alike_what_there_is_not_and_what_is_another_agents() {
    let project = project();
    let gateway = project.serve();
    let ids = make(&gateway).await;
    let wish = NewKey {
        name: "one".to_owned(),
        role: "agent".to_owned(),
        agent: Some("one".to_owned()),
        expires: None,
        account: None,
    };
    let key = gateway.client.create_key(&wish).await.unwrap().key;
    let http = reqwest::Client::new();
    let asker = Asker { http: http.clone(), url: gateway.url.clone(), key: Some(key) };
    let document: Value = http.get(format!("{}/openapi.json", gateway.url)).send().await.unwrap().json().await.unwrap();
    let mut tried: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let parts: Vec<&str> = path.split('/').collect();
        // The last id is the one that is another's; what stands before it is the asker's own.
        let Some(at) = parts.iter().rposition(|part| part.starts_with('{') && *part != "{key}") else { continue };
        let Some((unknown, foreign)) = ids.get(parts[at - 1]) else { continue };
        let filled = |id: &str| {
            let part = |(n, part): (usize, &&str)| match *part {
                _ if n == at => id.to_owned(),
                "{key}" => "first".to_owned(),
                "{name}" => "one".to_owned(),
                part => part.to_owned(),
            };
            parts.iter().enumerate().map(part).collect::<Vec<_>>().join("/")
        };
        for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                continue;
            }
            let body = body_of(path, &method);
            let hide = [unknown.as_str(), foreign.as_str()];
            let not_there = asker.ask(&method, &filled(unknown), &body, &hide).await;
            let others = asker.ask(&method, &filled(foreign), &body, &hide).await;
            assert_eq!(not_there, others, "{method} {path}");
            assert!(not_there.status >= 400, "{method} {path}: {not_there:?}");
            tried.entry(others.status).or_default().insert(format!("{method} {path}"));
        }
    }
    let of = |status: u16| tried.get(&status).cloned().unwrap_or_default();
    for route in [
        "GET /v1/runs/{id}",
        "GET /v1/runs/{id}/logs",
        "POST /v1/runs/{id}/cancel",
        "POST /v1/runs/{id}/retry",
        "POST /v1/runs/{id}/release",
        "POST /v1/runs/{id}/complete",
        "POST /v1/runs/{id}/heartbeat",
        "GET /v1/events/{id}",
        "GET /v1/events/{id}/body",
        "GET /v1/events/{id}/explain",
        "GET /v1/agents/{name}",
        "GET /v1/agents/{name}/webhooks",
        "POST /v1/agents/{name}/webhooks",
        "DELETE /v1/agents/{name}/webhooks/{id}",
        "POST /v1/agents/{name}/webhooks/{id}/rotate",
        "GET /v1/agents/{name}/webhooks/{id}/deliveries",
        "GET /agents/{name}/executions/{id}",
        "PATCH /agents/{name}",
    ] {
        assert!(of(404).contains(route), "{route} came not as far as to look: {tried:#?}");
    }
    // What else there is, is refused before it is looked for: by the role of the key.
    assert!(tried.keys().all(|status| [403, 404].contains(status)), "{tried:#?}");
}

#[tokio::test]
async fn a_webhook_that_is_not_active_is_answered_like_one_that_there_is_not() {
    let project = project();
    let gateway = project.serve();
    let ids = make(&gateway).await;
    let asker = Asker { http: reqwest::Client::new(), url: gateway.url.clone(), key: None };
    let (unknown, inactive) = &ids["hooks"];
    for method in ["POST", "GET", "PUT", "DELETE", "HEAD"] {
        let mut said = Vec::new();
        let of = |id: &str| vec![format!("/v1/hooks/{id}"), format!("/v1/webhooks/generic/{id}")];
        for path in [of(unknown), of(inactive), of("whk_1"), of("%ff")].concat() {
            let hide = [unknown.as_str(), inactive.as_str()];
            said.push(asker.ask(method, &path, &json!({}), &hide).await);
        }
        assert!(said.iter().all(|one| *one == said[0]), "{method}: {said:#?}");
        assert_eq!(said[0].status, 404, "{method}: {said:#?}");
    }
    let mut said = Vec::new();
    // The agent's own webhook: there is no such agent, it has none, it has one that is off.
    for enabled in [true, false] {
        let wish = OwnWebhookWish { webhook_enabled: Some(enabled), ..OwnWebhookWish::default() };
        gateway.client.own_webhook("one", &wish).await.unwrap();
    }
    for agent in ["nobody", "other", "one"] {
        said.push(asker.ask("POST", &format!("/agents/{agent}/webhook"), &json!({}), &[agent]).await);
    }
    assert!(said.iter().all(|one| *one == said[0] && one.status == 404), "{said:#?}");
}
