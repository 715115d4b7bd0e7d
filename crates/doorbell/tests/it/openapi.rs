//! The document of the API and its pages, as they are served; every path of it is there, and every code has its page.

use doorbell_client::api;
use serde_json::Value;

use crate::addresses::senders_url;
use crate::docs::read;
use crate::judges::ask;
use crate::support::{ONE_SOURCE, Project};

async fn get(url: String) -> reqwest::Response {
    reqwest::get(url).await.unwrap()
}

#[tokio::test]
async fn the_document_that_is_served_is_the_one_that_is_checked_in() {
    let project = Project::new("");
    let gateway = project.serve();
    let response = get(format!("{}/openapi.json", gateway.url)).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let served: Value = response.json().await.unwrap();
    let written: Value = serde_json::from_str(&read("docs/reference/openapi.json")).unwrap();
    assert_eq!(served, written);
    assert_eq!(served["openapi"], "3.1.0");
}

#[tokio::test]
async fn every_path_of_the_document_takes_the_methods_that_it_names_and_no_other() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let document: Value = get(format!("{}/openapi.json", gateway.url)).await.json().await.unwrap();
    let http = reqwest::Client::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let operations = operations.as_object().unwrap();
        let url = format!("{}{}", gateway.url, path.replace(['{', '}'], ""));
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let asked = http.request(method.parse().unwrap(), &url).send().await.unwrap();
            let (status, operation) = (asked.status().as_u16(), operations.get(&method.to_lowercase()));
            let documented =
                operation.is_some_and(|operation| operation["responses"].get(status.to_string()).is_some());
            // Of what could change something, it is asked first who it is: that is noted.
            let refused = matches!(status, 401 | 405) || (path.contains("ook") && status == 404);
            assert!(documented || (operation.is_none() && refused), "{method} {path}: {status}");
            let needs_key = operation.is_some_and(|of| {
                of["security"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.get("key").is_some()))
            });
            assert!(!needs_key || status == 401, "{method} {path}: {status} without a key");
        }
    }
}

#[tokio::test]
async fn the_pages_load_nothing_and_say_so_to_browsers() {
    let project = Project::new("");
    let gateway = project.serve();
    for (page, word) in
        [("api", "/v1/events/{id}/explain"), ("errors", "signature_mismatch"), ("errors/not_found", "404")]
    {
        let response = get(format!("{}/docs/{page}", gateway.url)).await;
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        let text = response.text().await.unwrap();
        assert!(text.contains(word), "{page}");
        for elsewhere in ["<script", "<link", "<img", "<iframe", "@import", "url(", "src=", "=\"http", "=\"//"] {
            assert!(!text.contains(elsewhere), "{page} loads something: {elsewhere}");
        }
    }
}

#[tokio::test]
async fn every_code_has_its_page_where_its_type_leads_also_for_senders() {
    let project = Project::new(&format!("admin_listen = \"127.0.0.1:0\"\n{ONE_SOURCE}"));
    let gateway = project.serve();
    let senders = senders_url(&project);
    let written = read("docs/errors.md");
    let codes: Vec<&str> = written.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(codes.len() > 60, "{codes:?}");
    for code in codes {
        for address in [&gateway.url, &senders] {
            let response = get(format!("{address}/docs/errors/{code}")).await;
            assert_eq!(response.status(), 200, "{code}");
            assert!(response.text().await.unwrap().contains(code));
        }
    }
    let refused: Value = reqwest::Client::new()
        .post(format!("{senders}/v1/webhooks/github/acme"))
        .body("{}")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(refused["type"], "/docs/errors/signature_missing");
    assert_eq!(get(format!("{senders}{}", refused["type"].as_str().unwrap())).await.status(), 200);
    assert_eq!(get(format!("{}/docs/errors/no_such_code", gateway.url)).await.status(), 404);
}

/// Calls that schemathesis makes of each operation, at most.
const EXAMPLES: &str = "15";

/// Everything that the document has is asked for, rightly and wrongly: nothing is answered with 5xx, with a status or a body that the document
/// does not know, or accepted although the document forbids it.
#[tokio::test]
async fn a_fuzzing_client_finds_nothing_that_the_document_does_not_say() {
    let project = Project::new("[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n");
    project.agent("triage", "[[webhooks]]\nsource = \"lab\"", "echo hello");
    let gateway = project.serve();
    let run = gateway.client.run_agent("triage", &api::NewRun::default(), None).await.unwrap();
    gateway.finished(&run.run_id).await;
    let webhook = api::NewWebhook { name: "x".to_owned(), ..api::NewWebhook::default() };
    let webhook = gateway.client.create_webhook("triage", &webhook).await.unwrap();
    let ids = [
        ("EXAMPLES", EXAMPLES),
        ("KEY", &gateway.key),
        ("RUN", &run.run_id),
        ("EVENT", &run.event_id),
        ("WEBHOOK", &webhook.webhook_id),
    ];
    let how = include_str!("../judges/schemathesis.toml");
    let how = ids.iter().fold(how.to_owned(), |how, (word, id)| how.replace(word, id));
    project.write("schemathesis.toml", &how);
    let (how, url) = (project.path("schemathesis.toml"), format!("{}/openapi.json", gateway.url));
    let args = ["-m", "schemathesis.cli", "--config-file", how.to_str().unwrap(), "run", &url];
    let args = [&args[..], &["--phases", "coverage,fuzzing,stateful", "--no-color"]].concat();
    ask("python3", &args, "", &[]);
}
