//! Standard Webhooks from outside, and a change of secrets.

use std::time::Duration;

use doorbell_client::{Answer, api};
use doorbell_core::provider::standard::Standard;
use doorbell_core::provider::{Provider, Signed, Unsent};
use doorbell_core::secret::Secret;

use crate::support::{Gateway, Project, wait_until};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PATH: &str = "/v1/webhooks/standard/billing";

/// A source with two secrets, and an agent that wants what happens to invoices.
fn project() -> Project {
    let project =
        Project::new("[webhooks.billing]\ntype = \"standard\"\ncredential = [\"new\", \"old\"]\ntolerance = \"2m\"\n");
    project.credential("standard_webhook_secret", "new", NEW);
    project.credential("standard_webhook_secret", "old", OLD);
    project.agent("books", "[[webhooks]]\nsource = \"billing\"\nevents = [\"invoice.*\"]", "true");
    project
}

/// A delivery of this age, in seconds.
fn signed(secret: &str, id: &str, age: u64) -> Signed {
    let key = Standard::default().prepare(&Secret::new(secret)).unwrap();
    let at = doorbell::clock::now().before(Duration::from_secs(age));
    let mut signed = Standard::default().sign(Some(&key), Unsent::new("", r#"{"type":"invoice.paid"}"#, id, at));
    signed.headers.retain(|(name, _)| name != "webhook-event");
    signed
}

async fn accepted(gateway: &Gateway, signed: Signed) -> api::Receipt {
    match gateway.send(PATH, signed).await {
        Answer::Receipt(receipt) => receipt,
        other => panic!("not accepted: {other:?}"),
    }
}

async fn refused(gateway: &Gateway, signed: Signed) -> (u16, String) {
    match gateway.send(PATH, signed).await {
        Answer::Problem(problem) => (problem.status, problem.code),
        other => panic!("not refused: {other:?}"),
    }
}

async fn uses(gateway: &Gateway) -> Vec<(String, u64, Option<String>)> {
    let source = gateway.client.sources().await.unwrap().sources.remove(0);
    let uses = source.credential_uses.into_iter();
    uses.map(|used| (used.credential, used.deliveries, used.last_verified_at)).collect()
}

#[tokio::test]
async fn a_standard_webhook_starts_its_agent_once_under_either_family_of_headers() {
    let project = project();
    let gateway = project.serve();
    let first = accepted(&gateway, signed(NEW, "1", 0)).await;
    assert_eq!((first.event.as_str(), first.runs.len(), first.duplicate), ("standard.invoice.paid", 1, false));
    let mut again = signed(OLD, "1", 30);
    again.headers.iter_mut().for_each(|(name, _)| *name = name.replace("webhook-", "svix-"));
    let again = accepted(&gateway, again).await;
    assert_eq!((again.delivery_id, again.runs, again.duplicate), (first.delivery_id, first.runs, true));
}

#[tokio::test]
async fn what_is_wrong_with_it_is_401_and_says_no_more_to_strangers_than_it_must() {
    let project = project();
    let gateway = project.serve();
    let stranger = "whsec_c3RyYW5nZXI=";
    for (delivery, code) in [
        (signed(NEW, "1", 121), "timestamp_out_of_range"),
        (signed(stranger, "1", 0), "signature_mismatch"),
        (signed(stranger, "1", 100_000), "signature_mismatch"),
        (Signed { headers: Vec::new(), ..signed(NEW, "1", 0) }, "signature_missing"),
    ] {
        assert_eq!(refused(&gateway, delivery).await, (401, code.to_owned()));
    }
    let kept = gateway.client.deliveries("billing", None).await.unwrap().deliveries;
    let old = kept.iter().find(|kept| kept.code.as_deref() == Some("timestamp_out_of_range")).unwrap();
    assert!(old.detail.as_deref().unwrap().contains("seconds old, and 120 are tolerated"), "{old:?}");
    assert!(uses(&gateway).await.iter().all(|(_, deliveries, _)| *deliveries == 0), "a refusal is no use of a secret");
}

#[tokio::test]
async fn which_secret_is_in_use_is_seen_by_event_and_by_source_also_after_a_restart() {
    let project = project();
    let gateway = project.serve();
    let by_old = accepted(&gateway, signed(OLD, "1", 0)).await;
    for _ in 0..2 {
        accepted(&gateway, signed(NEW, "2", 0)).await;
    }
    assert_eq!(gateway.client.event(&by_old.delivery_id).await.unwrap().event.verified_by.as_deref(), Some("old"));
    let before = uses(&gateway).await;
    assert_eq!(before.iter().map(|(name, n, _)| (name.as_str(), *n)).collect::<Vec<_>>(), [("new", 2), ("old", 1)]);
    assert!(before.iter().all(|(_, _, last)| last.is_some()));
    assert_eq!(gateway.terminate(), Some(0));
    // A change ends when the old one is taken away; the counts of the other go on.
    let gateway = project.serve();
    assert_eq!(uses(&gateway).await, before);
    accepted(&gateway, signed(NEW, "3", 0)).await;
    let shown = String::from_utf8(project.run(&["sources"]).stdout).unwrap();
    assert!(shown.contains("new: 3 deliveries") && shown.contains("old: 1 delivery"), "{shown}");
    assert_eq!(gateway.terminate(), Some(0));
    let config = project.read("config.toml").replace("[\"new\", \"old\"]", "\"new\"");
    project.write("config.toml", &config);
    let gateway = project.serve();
    assert_eq!(refused(&gateway, signed(OLD, "4", 0)).await, (401, "signature_mismatch".to_owned()));
    assert_eq!(uses(&gateway).await.iter().map(|(_, n, _)| *n).collect::<Vec<_>>(), [3]);
}

/// What a kill would leave: the files as they are, opened somewhere else.
async fn kept(project: &Project) -> Vec<doorbell::store::SecretUse> {
    let folder = tempfile::tempdir().unwrap();
    for file in ["doorbell.db", "doorbell.db-wal"] {
        std::fs::copy(project.path(&format!(".doorbell/{file}")), folder.path().join(file)).unwrap();
    }
    doorbell::store::open("sqlite:doorbell.db", folder.path()).await.unwrap().secret_uses().await.unwrap()
}

#[tokio::test]
async fn the_uses_of_secrets_do_not_wait_for_an_orderly_end_to_be_kept() {
    let project = project();
    let gateway = project.serve();
    accepted(&gateway, signed(OLD, "1", 0)).await;
    let uses = wait_until("the use to be kept", async || {
        let kept = kept(&project).await;
        (!kept.is_empty()).then_some(kept)
    });
    let uses = uses.await;
    assert_eq!((uses[0].credential.as_str(), uses[0].deliveries), ("old", 1));
    gateway.kill();
}

#[test]
fn the_sender_can_be_played() {
    let project = project();
    let types = String::from_utf8(project.run(&["creds", "types"]).stdout).unwrap();
    assert!(types.contains("standard_webhook_secret"), "{types}");
    let samples = project.json(&["ring", "standard"]);
    let _gateway = project.serve();
    for sample in samples["samples"].as_array().unwrap() {
        let rung = project.json(&["ring", "standard", sample["event"].as_str().unwrap()]);
        assert_eq!(rung["event"], format!("standard.{}", sample["event"].as_str().unwrap()));
    }
    for (flag, code) in
        [("--stale", "timestamp_out_of_range"), ("--tamper", "signature_mismatch"), ("--unsigned", "signature_missing")]
    {
        let output = project.run(&["ring", "standard", "invoice.paid", flag]);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && shown.contains(code), "{flag}: {shown}");
    }
    project.write("config.toml", &format!("{}{}", project.read("config.toml"), crate::support::ONE_SOURCE));
    let output = project.run(&["ring", "github", "push", "--stale"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("`github` signs no time"));
}
