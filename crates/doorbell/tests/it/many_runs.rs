//! Runs that are changed together, found by their cause, hurried, and asked for twice.

use doorbell_client::RunQuery;
use doorbell_client::api::{ManyRuns, NewRun};
use serde_json::json;

use crate::support::{ONE_SOURCE, Project, sample};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"\n";

#[tokio::test]
async fn runs_that_are_over_are_refused_with_the_reason_and_passed_by() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    for _ in 0..3 {
        let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
        gateway.finished(&run).await;
    }
    let all = ManyRuns { state: Some("succeeded".to_owned()), ..ManyRuns::default() };
    let done = gateway.client.change_runs("cancel", &all).await.unwrap();
    assert_eq!((done.matched, done.done, done.refused.len(), done.more), (3, 0, 3, false));
    assert_eq!(done.refused[0].why, "it is succeeded, and over");
    let ids: Vec<_> = done.refused.iter().map(|refused| refused.id.clone()).collect();
    assert!(ids.is_sorted(), "the oldest first");
    let behind = ManyRuns { cursor: Some("1".to_owned()), ..all };
    assert_eq!(gateway.client.change_runs("cancel", &behind).await.unwrap().matched, 2);
    let output = project.run(&["runs", "cancel", "--agent", "triage", "--state", "succeeded"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("0 runs cancelled") && said.contains("it is succeeded"), "{said}");
}

#[tokio::test]
async fn the_same_idempotency_key_with_another_wish_is_refused() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let ask = async |prompt: &str, input| {
        let wish = NewRun { prompt: Some(prompt.to_owned()), input };
        gateway.client.run_agent("triage", &wish, Some("key-1")).await
    };
    let first = ask("look", json!({"n": 1})).await.unwrap();
    let again = ask("look", json!({"n": 1})).await.unwrap();
    assert_eq!((again.run_id, again.duplicate), (first.run_id, true));
    for (prompt, input) in [("look", json!({"n": 2})), ("see", json!({"n": 1}))] {
        let refused = ask(prompt, input).await.unwrap_err();
        assert_eq!(refused.status(), Some(409));
        assert!(refused.to_string().contains("Idempotency-Key"), "{refused}");
    }
    assert_eq!(gateway.runs().await.len(), 1);
}

#[tokio::test]
async fn a_list_is_no_wish() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let http = reqwest::Client::new();
    for (path, body) in
        [("agents/triage/run", "[]"), ("agents/triage/run", "[\"look\",1]"), ("agents/triage/pause", "[]")]
    {
        let url = format!("{}/v1/{path}", gateway.url);
        let asked = http.post(url).bearer_auth(&gateway.key).header("content-type", "application/json").body(body);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 400, "{path} {body}");
        assert!(answer.text().await.unwrap().contains("expected an object"));
    }
    assert!(gateway.runs().await.is_empty());
}

#[tokio::test]
async fn runs_are_listed_by_the_kind_of_their_cause() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let rung = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let wish = NewRun { prompt: Some("look".to_owned()), ..NewRun::default() };
    let by_hand = gateway.client.run_agent("triage", &wish, None).await.unwrap().run_id;
    for (trigger, run) in [("webhook", &rung), ("manual", &by_hand)] {
        let query = RunQuery { trigger: Some(trigger.to_owned()), ..RunQuery::default() };
        let found = gateway.client.runs(&query).await.unwrap().runs;
        assert_eq!(found.iter().map(|run| &run.id).collect::<Vec<_>>(), [run]);
        let shown = project.json(&["runs", "--trigger", trigger]);
        assert_eq!(shown["runs"][0]["id"], run.as_str());
    }
    let query = RunQuery { trigger: Some("chance".to_owned()), ..RunQuery::default() };
    let refused = gateway.client.runs(&query).await.unwrap_err().to_string();
    assert!(refused.contains("`trigger` must be one of webhook, schedule, manual"), "{refused}");
}

#[tokio::test]
async fn a_run_that_waits_for_its_next_try_is_hurried() {
    let project = Project::new(ONE_SOURCE);
    project.agent(
        "triage",
        &format!("{ANY}[retries]\nattempts = 2\nbackoff = {{ initial = \"1h\", max = \"2h\" }}\n"),
        "exit 1",
    );
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&run, "waiting").await;
    let output = project.run(&["runs", "release", &run]);
    assert!(output.status.success(), "{output:?}");
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.run.attempt), ("failed", 2));
}
