//! GitHub: what the context of each kind of event says.

use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, find_sample};
use proptest::prelude::*;
use serde_json::json;

use super::as_json;
use super::github::event;

fn context(name: &str, body: serde_json::Value) -> serde_json::Value {
    as_json(event(name, body.to_string()).unwrap().context())
}

fn sample(name: &str) -> serde_json::Value {
    as_json(event(name, find_sample(Github.samples(), name).unwrap().body.as_ref()).unwrap().context())
}

#[test]
fn every_sample_reads_as_the_event_it_says() {
    for sample in Github.samples() {
        let event = event(&sample.event, sample.body.as_ref()).unwrap();
        assert_eq!(event.event_type(), format!("github.{}", sample.event));
        assert_eq!(event.is_handshake(), sample.event == "ping");
        assert_eq!(event.delivery_id(), Some("delivery-1"));
        assert_eq!(event.context().text("repo"), Some("acme/app"));
        assert_eq!(event.context().text("org"), Some("acme"));
        assert!(event.context().text("sender").is_some());
        assert!((6_000..24_000).contains(&sample.body.len()), "{}: {}", sample.event, sample.body.len());
    }
}

#[test]
fn an_issue_and_what_was_said_on_it_are_told_apart() {
    let labeled = json!({
        "event": "issues", "action": "labeled", "repo": "acme/app", "org": "acme", "number": 7,
        "title": "Invoice total is wrong when a line has a discount", "body": sample("issues")["body"],
        "url": "https://github.com/acme/app/issues/7", "author": "sam-writes", "assignee": "kim-acme",
        "assignees": ["kim-acme"], "labels": ["bug", "help wanted"], "label": "help wanted", "state": "open",
        "sender": "robin-acme", "sender_type": "User",
    });
    assert_eq!(sample("issues.labeled"), labeled);
    let commented = sample("issue_comment");
    assert_eq!(commented["author"], "sam-writes");
    assert_eq!(commented["comment_author"], "robin-acme");
    assert_eq!(commented["url"], "https://github.com/acme/app/issues/7#issuecomment-1800000042");
    assert!(commented["comment"].as_str().unwrap().starts_with("Confirmed"));
}

#[test]
fn a_pull_request_has_its_branches_and_its_review() {
    let opened = sample("pull_request");
    assert_eq!((&opened["branch"], &opened["base"]), (&json!("fix/discount-rounding"), &json!("main")));
    assert_eq!((&opened["number"], &opened["assignees"]), (&json!(8), &json!([])));
    let reviewed = sample("pull_request_review");
    assert_eq!((&reviewed["review"], &reviewed["state"]), (&json!("changes_requested"), &json!("open")));
    assert_eq!((&reviewed["author"], &reviewed["comment_author"]), (&json!("sam-writes"), &json!("kim-acme")));
    assert_eq!(reviewed["comment"], "Please add a test with two discounted lines.");
}

#[test]
fn a_push_a_run_and_a_release_are_described() {
    let push = sample("push");
    assert_eq!((&push["branch"], &push["author"]), (&json!("main"), &json!("sam-writes")));
    assert_eq!(push["title"], "Round discounts per line");
    assert!(push["url"].as_str().unwrap().contains("/compare/"));
    let run = sample("workflow_run");
    assert_eq!((&run["conclusion"], &run["number"], &run["title"]), (&json!("failure"), &json!(8), &json!("CI")));
    assert_eq!((&run["branch"], &run["author"]), (&json!("fix/discount-rounding"), &json!("sam-writes")));
    let release = sample("release");
    assert_eq!((&release["tag"], &release["author"]), (&json!("v2.15.0"), &json!("kim-acme")));
}

#[test]
fn refs_become_branches_or_tags() {
    let tag = context("push", json!({"ref": "refs/tags/v1", "head_commit": null, "pusher": {"name": "kim"}}));
    assert_eq!(tag, json!({"event": "push", "author": "kim", "tag": "v1"}));
    let created = context("create", json!({"ref": "fix/a", "ref_type": "branch", "description": "of the repository"}));
    assert_eq!(created, json!({"event": "create", "branch": "fix/a"}));
    let deleted = context("delete", json!({"ref": "v1", "ref_type": "tag"}));
    assert_eq!(deleted, json!({"event": "delete", "tag": "v1"}));
    let status = json!({"state": "failure", "description": "It broke", "target_url": "https://ci.example.com/1",
        "branches": [{"name": "main"}, {"name": "next"}]});
    let expected = json!({"event": "status", "title": "It broke", "url": "https://ci.example.com/1",
        "branches": ["main", "next"], "state": "failure"});
    assert_eq!(context("status", status), expected);
}

#[test]
fn checks_jobs_deployments_and_queues_are_described() {
    let check = json!({"check_run": {"name": "test", "conclusion": "success", "html_url": "https://x/1",
        "pull_requests": [{"number": 8}], "check_suite": {"head_branch": "main"}}});
    let expected = json!({"event": "check_run", "number": 8, "title": "test", "url": "https://x/1", "branch": "main",
        "conclusion": "success"});
    assert_eq!(context("check_run", check), expected);
    let suite = json!({"check_suite": {"head_branch": "main", "conclusion": null, "pull_requests": [],
        "head_commit": {"message": "One\n\ntwo"}}});
    assert_eq!(context("check_suite", suite), json!({"event": "check_suite", "title": "One", "branch": "main"}));
    let job = json!({"workflow_job": {"head_branch": "main", "conclusion": "failure", "name": "build", "labels": ["self-hosted"]}});
    let expected =
        json!({"event": "workflow_job", "title": "build", "labels": [], "branch": "main", "conclusion": "failure"});
    assert_eq!(context("workflow_job", job), expected);
    let deployment = json!({"deployment_status": {"state": "success", "creator": {"login": "kim"}, "target_url": "https://x/2"},
        "deployment": {"ref": "main"}, "check_run": null, "workflow_run": null});
    let expected = json!({"event": "deployment_status", "url": "https://x/2", "author": "kim", "branch": "main", "state": "success"});
    assert_eq!(context("deployment_status", deployment), expected);
    let queue = json!({"merge_group": {"head_ref": "refs/heads/queue/main/pr-8", "base_ref": "refs/heads/main"}});
    assert_eq!(
        context("merge_group", queue),
        json!({"event": "merge_group", "branch": "queue/main/pr-8", "base": "main"})
    );
}

#[test]
fn events_without_a_repository_are_described() {
    let installed = json!({"action": "created", "installation": {"id": 5, "account": {"login": "acme"}},
        "sender": {"login": "kim", "type": "User"}});
    let expected = json!({"event": "installation", "action": "created", "org": "acme", "sender": "kim",
        "sender_type": "User", "installation": 5});
    assert_eq!(context("installation", installed), expected);
    let member = json!({"action": "member_added", "organization": {"login": "acme"}});
    assert_eq!(context("organization", member)["org"], "acme");
}

#[test]
fn the_one_who_was_unassigned_is_no_assignee() {
    let of = |action: &str| {
        context("issues", json!({"action": action, "assignee": {"login": "kim"}, "issue": {"assignees": []}}))
    };
    assert_eq!(of("assigned")["assignee"], "kim");
    assert_eq!(of("unassigned").get("assignee"), None);
}

#[test]
fn an_action_that_is_no_name_is_no_action() {
    for action in [json!(null), json!(1), json!(""), json!("a\nb"), json!("x".repeat(201)), json!(["opened"])] {
        assert_eq!(context("issues", json!({"action": action})), json!({"event": "issues"}));
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|flag| json!(flag)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(|text| json!(text)),
    ];
    let name = prop::sample::select(vec![
        "action",
        "ref",
        "ref_type",
        "number",
        "issue",
        "pull_request",
        "release",
        "check_suite",
        "check_run",
        "comment",
        "review",
        "label",
        "labels",
        "name",
        "assignee",
        "assignees",
        "user",
        "login",
        "sender",
        "head",
        "base",
        "commit",
        "head_commit",
        "message",
        "author",
        "repository",
        "full_name",
        "organization",
        "installation",
        "id",
        "account",
        "pull_requests",
        "branches",
        "milestone",
        "deployment",
        "conclusion",
        "title",
        "body",
        "zen",
    ]);
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::btree_map(name.clone(), inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn fields_of_any_type_keep_an_event_readable(body in any_json().prop_filter("an object", |json| json.is_object())) {
        prop_assert!(event("issues", body.to_string()).is_ok());
    }
}
