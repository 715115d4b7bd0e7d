//! Sources that are paused: what comes is taken, what it would start is held, and goes on when they are resumed.

use doorbell_client::api::{NewPause, NewResume, ReplayMode, ReplayWish};
use doorbell_core::provider::Signed;
use serde_json::json;

use crate::support::{ONE_SOURCE, Project, fresh_id, sample, sign, wait_until};

fn said(project: &Project, args: &[&str]) -> String {
    let output = project.run(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn what_comes_from_a_paused_source_is_answered_and_held_through_a_restart_and_everybody_sees_why() {
    let project = Project::with_triage("", "true");
    let gateway = project.serve();
    assert!(said(&project, &["sources", "pause", "acme", "--why", "moving"]).contains("acme is paused"));
    let receipt = gateway.ring(sample("issues.opened")).await;
    let run = &receipt.runs[0];
    let held = gateway.client.run(run).await.unwrap().run;
    assert_eq!(held.state, "held");
    let reason = held.reason.unwrap();
    assert!(reason.starts_with("its source `acme` is paused by ") && reason.ends_with(": moving"), "{reason}");
    gateway.kill();
    let gateway = project.serve();
    let second = gateway.ring(sample("push")).await.runs.remove(0);
    assert_eq!(gateway.client.run(&second).await.unwrap().run.state, "held");
    assert_eq!(gateway.client.run(run).await.unwrap().run.state, "held");
    assert!(said(&project, &["sources"]).contains("acme (paused)"));
    assert!(said(&project, &["sources", "show", "acme"]).contains(": moving"));
    let stat = said(&project, &["stat"]);
    assert!(stat.contains("PAUSED SOURCE") && stat.contains("moving"), "{stat}");
    assert_eq!(gateway.client.stats().await.unwrap().paused_sources[0].held, 2);
    assert!(said(&project, &["runs", "show", run]).contains("its source `acme` is paused"));
    let why = said(&project, &["why", &receipt.delivery_id]);
    assert!(why.contains("its run is held: its source `acme` is paused by "), "{why}");
    assert!(said(&project, &["sources", "resume", "acme"]).contains("acme is resumed"));
    for run in [run, &second] {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
    let again = gateway.client.resume_source("acme", &NewResume::default()).await.unwrap_err().to_string();
    assert!(again.contains("is not paused"), "{again}");
    assert_eq!(project.run(&["sources", "pause", "nobody"]).status.code(), Some(3));
    assert!(gateway.client.stats().await.unwrap().paused_sources.is_empty());
}

#[tokio::test]
async fn what_was_held_goes_on_at_a_rate_while_what_is_new_need_not_wait() {
    let project = Project::with_triage("scale = 8\nwhen_full = \"reject\"\nwork_queue_size = 1", "true");
    let gateway = project.serve();
    gateway.client.pause_source("acme", &NewPause::default()).await.unwrap();
    for _ in 0..6 {
        gateway.ring(sample("issues.opened")).await;
    }
    assert_eq!(gateway.count_in("held").await, 6, "no queue is too full for what is held");
    let slowly = NewResume { rate: Some("2/1h".to_owned()) };
    gateway.client.resume_source("acme", &slowly).await.unwrap();
    wait_until("the first goes on", async || (gateway.count_in("succeeded").await == 1).then_some(())).await;
    assert_eq!(gateway.count_in("held").await, 5);
    assert!(said(&project, &["sources"]).contains("acme (resuming)"));
    let fresh = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    assert_eq!(gateway.finished(&fresh).await.run.state, "succeeded");
    let at_once = NewResume { rate: Some("1000/1s".to_owned()) };
    gateway.client.resume_source("acme", &at_once).await.unwrap();
    wait_until("the rest goes on", async || (gateway.count_in("succeeded").await == 7).then_some(())).await;
    wait_until("the pause is over", async || {
        gateway.client.sources().await.unwrap().sources[0].pause.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_source_and_its_agent_are_both_resumed_before_anything_starts() {
    let project = Project::with_triage("", "true");
    let gateway = project.serve();
    gateway.client.pause_source("acme", &NewPause::default()).await.unwrap();
    gateway.client.pause(Some("triage"), &NewPause::default()).await.unwrap();
    let first = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.client.resume(Some("triage"), &NewResume::default()).await.unwrap();
    let second = gateway.ring(sample("push")).await.runs.remove(0);
    assert_eq!((gateway.count_in("held").await, gateway.count_in("succeeded").await), (2, 0));
    gateway.client.pause(Some("triage"), &NewPause::default()).await.unwrap();
    let resumed = gateway.client.resume_source("acme", &NewResume::default()).await.unwrap();
    assert!(resumed.still_held.unwrap().starts_with("`triage` is paused by "));
    wait_until("it is held with its agent", async || {
        let run = gateway.client.run(&first).await.unwrap().run;
        (run.state == "held" && run.reason.unwrap().starts_with("paused by ")).then_some(())
    })
    .await;
    gateway.client.resume(Some("triage"), &NewResume::default()).await.unwrap();
    for run in [&first, &second] {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
}

#[tokio::test]
async fn a_source_that_is_gone_stays_paused_until_it_is_resumed() {
    let project = Project::with_triage("", "true");
    project.write(
        "config.toml",
        &format!("{}[webhooks.more]\ntype = \"github\"\ncredential = \"acme\"\n", project.read("config.toml")),
    );
    let gateway = project.serve();
    let both = project.read("config.toml");
    gateway.client.pause_source("acme", &NewPause::default()).await.unwrap();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    project
        .write("agents/triage/config.toml", &project.read("agents/triage/config.toml").replace("\"acme\"", "\"more\""));
    project.write("config.toml", &both.replace(ONE_SOURCE, ""));
    wait_until("the source is gone", async || {
        (gateway.client.sources().await.unwrap().sources.len() == 1).then_some(())
    })
    .await;
    assert_eq!(gateway.client.run(&run).await.unwrap().run.state, "held");
    assert!(said(&project, &["stat"]).contains("acme (removed)"));
    gateway.client.resume_source("acme", &NewResume::default()).await.unwrap();
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
}

#[tokio::test]
async fn a_redelivery_and_a_replay_of_a_paused_source_are_held_too_and_a_person_lets_one_run_go_on() {
    let project = Project::with_triage("", "true");
    let gateway = project.serve();
    let id = fresh_id();
    let event =
        || sign("issues.opened", json!({"action": "opened", "repository": {"full_name": "acme/app"}}).to_string(), &id);
    gateway.client.pause_source("acme", &NewPause::default()).await.unwrap();
    let first = gateway.ring(event()).await;
    let again = gateway.ring(event()).await;
    assert_eq!((again.duplicate, &again.runs), (true, &first.runs));
    let wish = ReplayWish { mode: ReplayMode::Now, agents: Vec::new() };
    let replayed = gateway.client.replay_event(&first.delivery_id, &wish).await.unwrap();
    let replayed = replayed.outcomes[0].run_id.clone().unwrap();
    assert_eq!(gateway.count_in("held").await, 2);
    gateway.client.release_run(&replayed).await.unwrap();
    assert_eq!(gateway.finished(&replayed).await.run.state, "succeeded");
    assert_eq!(gateway.count_in("held").await, 1);
}

#[tokio::test]
async fn an_event_of_a_paused_source_ends_nothing_that_runs() {
    let project = Project::new(ONE_SOURCE);
    let trigger = "[[webhooks]]\nsource = \"acme\"\nwhen_busy = \"replace\"\nkey = 'event.context.repo'\n";
    project.agent("triage", trigger, "until test -e go; do sleep 0.05; done");
    let config = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &format!("{config}cwd = \".\"\n"));
    let gateway = project.serve();
    let push = || -> Signed {
        sign(
            "push",
            json!({"ref": "refs/heads/main", "repository": {"full_name": "acme/app"}}).to_string(),
            &fresh_id(),
        )
    };
    let first = gateway.ring(push()).await.runs.remove(0);
    gateway.in_state(&first, "running").await;
    gateway.client.pause_source("acme", &NewPause::default()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(gateway.ring(push()).await.runs.remove(0));
    }
    let running = gateway.client.run(&first).await.unwrap().run;
    assert_eq!((running.state.as_str(), running.cancel_requested_by), ("running", None));
    gateway.client.resume_source("acme", &NewResume::default()).await.unwrap();
    for old in &held[..2] {
        gateway.in_state(old, "superseded").await;
    }
    project.write("agents/triage/go", "");
    project.write("go", "");
    for run in [&first, &held[2]] {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
}
