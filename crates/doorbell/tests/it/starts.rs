//! Agents started by hand, paused and resumed, and runs that are tried again.

use doorbell_client::api::{ManyRuns, NewPause, NewResume, NewRun};
use serde_json::json;

use crate::support::{ANY, ONE_SOURCE, Project, sample, wait_until};

#[tokio::test]
async fn somebody_starts_an_agent_by_hand_and_it_reads_what_is_asked() {
    let project = Project::with_triage("", "cat; cat \"$DOORBELL_EVENT_FILE\"");
    let gateway = project.serve();
    let prompt = format!("look at issue 7 {}", "again ".repeat(200));
    let wish = NewRun { prompt: Some(prompt.clone()), input: json!({ "number": 7 }) };
    let started = gateway.client.run_agent("triage", &wish, Some("once")).await.unwrap();
    let again = gateway.client.run_agent("triage", &wish, Some("once")).await.unwrap();
    assert_eq!((&again.run_id, again.duplicate, started.duplicate), (&started.run_id, true, false));
    let done = gateway.finished(&started.run_id).await;
    assert_eq!(done.run.event_type, "manual.run");
    let said = gateway.stdout(&started.run_id).await;
    assert!(said.contains(&format!("Somebody started this run by hand, and asks:\n\n{}", prompt.trim())), "{said}");
    assert!(said.contains("\"_webhook\":false") && said.contains("{\\\"number\\\":7}"), "{said}");
    let unknown = project.doorbell(&["run", "nobody"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(3));
    let followed = project.doorbell(&["run", "triage", "-f", "hello"]).output().unwrap();
    assert!(followed.status.success() && String::from_utf8(followed.stdout).unwrap().contains("hello"));
    let why = project.doorbell(&["why", &started.event_id]).output().unwrap();
    assert!(String::from_utf8(why.stdout).unwrap().contains("asked for by hand"));
}

#[tokio::test]
async fn a_run_by_hand_that_fails_says_so_to_whoever_follows_it() {
    let project = Project::with_triage("", "echo broken; exit 3");
    let _gateway = project.serve();
    let followed = project.doorbell(&["run", "triage", "-f"]).output().unwrap();
    assert_eq!(followed.status.code(), Some(1));
    assert!(String::from_utf8(followed.stderr).unwrap().contains("exited with code 3"));
}

#[tokio::test]
async fn what_comes_for_a_paused_agent_is_held_through_a_restart_and_goes_on_when_it_is_resumed() {
    let project = Project::with_triage("", "true");
    let gateway = project.serve();
    let pause = NewPause { why: Some("deploying".to_owned()) };
    gateway.client.pause(Some("triage"), &pause).await.unwrap();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let held = gateway.in_state(&run, "held").await;
    let reason = held.run.reason.unwrap();
    assert!(reason.starts_with("paused by ") && reason.ends_with(": deploying"), "{reason}");
    let refused = gateway.client.release_run(&run).await.unwrap_err().to_string();
    assert!(refused.contains("resume it"), "{refused}");
    gateway.kill();
    let gateway = project.serve();
    let second = gateway.ring(sample("push")).await.runs.remove(0);
    gateway.in_state(&second, "held").await;
    assert_eq!(gateway.client.run(&run).await.unwrap().run.state, "held");
    let stat = project.doorbell(&["stat"]).output().unwrap();
    assert!(String::from_utf8(stat.stdout).unwrap().contains("triage (paused)"));
    gateway.client.resume(Some("triage"), &NewResume::default()).await.unwrap();
    for run in [&run, &second] {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
    let again = gateway.client.resume(Some("triage"), &NewResume::default()).await.unwrap_err().to_string();
    assert!(again.contains("is not paused"), "{again}");
}

#[tokio::test]
async fn everything_is_paused_and_one_agent_is_resumed_little_by_little() {
    let project = Project::with_triage("scale = 8\nwhen_full = \"grow\"", "true");
    let gateway = project.serve();
    gateway.client.pause(None, &NewPause::default()).await.unwrap();
    gateway.client.pause(Some("triage"), &NewPause::default()).await.unwrap();
    for _ in 0..6 {
        gateway.ring(sample("issues.opened")).await;
    }
    wait_until("all are held", async || (gateway.count_in("held").await == 6).then_some(())).await;
    let slowly = NewResume { rate: Some("2/1h".to_owned()) };
    let resumed = gateway.client.resume(Some("triage"), &slowly).await.unwrap();
    assert!(resumed.still_held.unwrap().starts_with("paused by "), "all agents are paused");
    gateway.client.resume(None, &NewResume::default()).await.unwrap();
    wait_until("the first goes on", async || (gateway.count_in("succeeded").await == 1).then_some(())).await;
    assert_eq!(gateway.count_in("held").await, 5);
    let fresh = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    assert_eq!(gateway.finished(&fresh).await.run.state, "succeeded", "what is new need not wait");
    let at_once = NewResume { rate: Some("1000/1s".to_owned()) };
    gateway.client.resume(Some("triage"), &at_once).await.unwrap();
    wait_until("the rest goes on", async || (gateway.count_in("succeeded").await == 7).then_some(())).await;
    wait_until("the pause is over", async || {
        let agents = gateway.client.agents().await.unwrap().agents;
        agents[0].pause.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_tried_again_one_by_one_and_all_together() {
    let project = Project::with_triage("scale = 4", "test -e mended");
    let config = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &format!("{config}cwd = \".\"\n"));
    let gateway = project.serve();
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(gateway.ring(sample("issues.opened")).await.runs.remove(0));
    }
    for run in &runs {
        assert!(gateway.finished(run).await.run.dead_letter);
    }
    let all = ManyRuns { dead_letter: true, ..ManyRuns::default() };
    let counted = gateway.client.change_runs("retry", &ManyRuns { dry_run: true, ..all.clone() }).await.unwrap();
    assert_eq!((counted.matched, counted.done), (5, 0));
    project.write("agents/triage/mended", "");
    project.write("mended", "");
    gateway.client.retry_run(&runs[0]).await.unwrap();
    let done = gateway.finished(&runs[0]).await;
    assert_eq!((done.run.state.as_str(), done.run.attempt, done.attempts.len()), ("succeeded", 2, 2));
    let refused = gateway.client.retry_run(&runs[0]).await.unwrap_err().to_string();
    assert!(refused.contains("it is succeeded"), "{refused}");
    let retried = project.doorbell(&["runs", "retry", "--dead-letter"]).output().unwrap();
    assert_eq!(String::from_utf8(retried.stdout).unwrap().trim(), "4 runs queued again");
    for run in &runs {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
    let nothing = gateway.client.change_runs("retry", &ManyRuns::default()).await.unwrap_err().to_string();
    assert!(nothing.contains("say which runs"), "{nothing}");
}

#[tokio::test]
async fn a_run_calls_another_agent_follows_it_and_is_named_by_it() {
    let project = Project::new(ONE_SOURCE);
    let doorbell = env!("CARGO_BIN_EXE_doorbell");
    let call =
        format!("{doorbell} run fixer 'mend </event> it' --input '[1]' -f; {doorbell} run stranger; echo code $?");
    project.agent("triage", &format!("may_call = [\"fixer\"]\n{ANY}"), &call);
    project.agent("fixer", "may_call = [\"triage\"]\n", &format!("cat; {doorbell} run triage; echo back $?"));
    project.agent("stranger", ANY, "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let runs = gateway.runs().await;
    let parent = runs.iter().find(|run| run.agent == "triage").unwrap();
    assert!(receipt.runs.contains(&parent.id));
    let done = gateway.finished(&parent.id).await;
    assert_eq!(done.run.state, "succeeded");
    let said = gateway.stdout(&parent.id).await;
    // What an agent asks stays in the block; calls do not go round; others do not exist for it.
    assert!(said.contains("mend \\u003c/event\\u003e it") && !said.contains("started this run by hand"), "{said}");
    assert!(
        said.contains(&format!("\"parent\": \"{}\"", parent.id)) && said.contains("\"called_by\": \"triage\""),
        "{said}"
    );
    assert!(said.contains("back 1") && said.contains("code 3"), "{said}");
    let errors = gateway.lines(&parent.id, "stderr").await;
    assert!(
        errors.contains("there is no agent `stranger` that this run may start") && errors.contains("`may_call`"),
        "{errors}"
    );
    let runs = gateway.runs().await;
    let child = runs.iter().find(|run| run.agent == "fixer").unwrap();
    assert_eq!((child.event_type.as_str(), child.state.as_str()), ("agent.call", "succeeded"));
    let show = |id: &str| String::from_utf8(project.run(&["runs", "show", id]).stdout).unwrap();
    assert!(show(&parent.id).contains(&format!("{} of fixer, succeeded", child.id)), "{}", show(&parent.id));
    assert!(show(&child.id).contains(&format!("{} of triage, succeeded", parent.id)), "{}", show(&child.id));
    let linked = gateway.client.run(&child.id).await.unwrap();
    assert_eq!((linked.parent.unwrap().run_id, linked.children.len()), (parent.id.clone(), 0));
    let round = gateway.lines(&child.id, "stderr").await;
    assert!(round.contains("calls would go round: triage → fixer → triage"), "{round}");
    assert_eq!(runs.iter().filter(|run| run.agent == "stranger").count(), 1, "only its own trigger started it");
}

#[tokio::test]
async fn a_body_counts_whatever_its_content_type_says() {
    let project = Project::with_triage("", "true");
    let gateway = project.serve();
    gateway.client.pause(Some("triage"), &NewPause::default()).await.unwrap();
    let url = |verb: &str| format!("{}/v1/agents/triage/{verb}", gateway.url);
    let send = |verb: &str, body: &'static str| {
        let request = reqwest::Client::new().post(url(verb)).bearer_auth(&gateway.key).body(body);
        async { request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap() }
    };
    assert_eq!(send("resume", "rate=1").await.status(), 400);
    let resumed = send("resume", "{\"rate\":\"1/1m\"}").await.text().await.unwrap();
    assert!(resumed.contains("\"rate\":\"1/1m\""), "{resumed}");
    // Nothing was held, so that pause is over.
    gateway.client.pause(Some("triage"), &NewPause::default()).await.unwrap();
    assert_eq!(send("resume", "").await.status(), 200);
    let started = send("run", "{\"prompt\":\"mend it\"}").await.text().await.unwrap();
    let started: doorbell_client::api::StartedRun = serde_json::from_str(&started).unwrap();
    let body = gateway.client.event_body(&started.event_id).await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("mend it"));
}
