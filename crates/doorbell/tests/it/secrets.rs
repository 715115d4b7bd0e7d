//! That the search for secrets, which every test of these ends with, finds one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use doorbell_client::api::NewWebhook;
use doorbell_core::provider::encode_hex;

use crate::support::{Project, SECRET, issue};

const TRIAGE: &str = "[[webhooks]]\nsource = \"acme\"";

fn project() -> Project {
    Project::with_triage("", "true")
}

/// What is found with this text in this file, which is empty again then.
fn found(project: &Project, file: &str, text: &str) -> Vec<(String, String, usize)> {
    project.write(file, text);
    let leaks = project.secrets.search(project.root());
    project.write(file, "");
    leaks.into_iter().map(|leak| (leak.secret, leak.place, leak.at)).collect()
}

#[test]
fn a_secret_is_found_in_each_form_and_named_by_what_it_is_and_where() {
    let project = project();
    let place = |file: &str| project.path(file).display().to_string();
    let what = "github_webhook_secret:acme".to_owned();
    let base64 = STANDARD.encode(format!("{SECRET} and more"));
    for text in [SECRET.to_owned(), encode_hex(SECRET.as_bytes()), base64, serde_json::json!(SECRET).to_string()] {
        for file in ["gateway.log", ".doorbell/notes", ".doorbell/runs/run_1/prompt.md"] {
            let leaks = found(&project, file, &format!("0123 {text}"));
            let at = 5 + usize::from(text.starts_with('"'));
            assert_eq!(leaks, [(what.clone(), place(file), at)], "{text} in {file}");
        }
    }
    assert_eq!(found(&project, "gateway.log", &format!("dbr_{}", "0a".repeat(32))).len(), 1, "a token nobody noted");
    assert_eq!(found(&project, ".doorbell/key", &format!("dbk_{}", "0a".repeat(32))), [], "it belongs there");
    assert_eq!(found(&project, "gateway.log", "It's a secret to nobody, dbk_ and dbr_01234567"), []);
}

#[tokio::test]
async fn a_secret_is_found_in_what_the_database_has_compressed_and_one_that_the_gateway_made_too() {
    let project = project();
    let gateway = project.serve();
    let wish = NewWebhook { name: "pushes".to_owned(), provider: Some("github".to_owned()), secret: None };
    let made = gateway.client.create_webhook("triage", &wish).await.unwrap();
    gateway.ring(issue(&format!("is it {SECRET}?"))).await;
    gateway.terminate();
    let leaks = project.secrets.search(project.root());
    assert!(leaks.iter().any(|leak| leak.place == "bodies of the database"), "{leaks:?}");
    assert!(leaks.iter().all(|leak| leak.secret == "github_webhook_secret:acme"), "{leaks:?}");
    let secret = made.signing_secret.unwrap();
    let leaks = found(&project, ".doorbell/notes", &secret);
    assert!(leaks.iter().any(|(what, ..)| what == "the signing secret of a webhook"), "{leaks:?}");
    project.secrets.expect("github_webhook_secret:acme", "the sender of this test writes it into an issue");
}

#[test]
fn a_test_whose_gateway_lets_a_secret_out_fails_without_telling_it() {
    let project = project();
    project.write("agents/triage/config.toml", TRIAGE);
    project.write("gateway.log", &format!("WARN delivery.rejected expected={SECRET}"));
    let failed = catch_unwind(AssertUnwindSafe(|| drop(project))).unwrap_err();
    let said = failed.downcast_ref::<String>().unwrap();
    assert!(
        said.contains("github_webhook_secret:acme") && said.contains("gateway.log") && !said.contains(SECRET),
        "{said}"
    );
}
