//! Dead letters by what they failed of, tried again by cause, and the log of each try.

use doorbell_client::api::ManyRuns;

use crate::support::{ONE_SOURCE, Project, sample};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"\n";

/// Fails of one of two causes, the first three runs of the first; each try says which one it is.
const SCRIPT: &str = "echo try $DOORBELL_ATTEMPT; test -e mended && exit 0; \
                      mkdir first 2>/dev/null || mkdir second 2>/dev/null || mkdir third 2>/dev/null || exit 4; \
                      exit 3";

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, SCRIPT);
    let config = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &format!("{config}cwd = \".\"\n"));
    project
}

#[tokio::test]
async fn dead_letters_are_grouped_by_cause_and_a_group_is_tried_again() {
    let project = project();
    let gateway = project.serve();
    let mut runs = Vec::new();
    for _ in 0..5 {
        let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
        assert!(gateway.finished(&run).await.run.dead_letter);
        runs.push(run);
    }
    let found = gateway.client.dead_letters(None).await.unwrap();
    assert_eq!((found.scanned, found.complete), (5, true));
    let brief: Vec<_> = found.groups.iter().map(|group| (group.cause.as_str(), group.count, &group.run_id)).collect();
    assert_eq!(brief, [("exited with code 3", 3, &runs[2]), ("exited with code 4", 2, &runs[4])]);
    let group = &found.groups[1];
    assert!(group.first_at <= group.last_at);
    let shown = String::from_utf8(project.run(&["runs", "dead", "--agent", "triage"]).stdout).unwrap();
    assert!(shown.contains("exited with code 4") && shown.contains(&group.retry), "{shown}");
    assert_eq!(project.run(&["runs", "dead", "--agent", "nobody"]).status.code(), Some(3));

    let command: Vec<&str> = group.retry.split(' ').skip(1).collect();
    let dry = project.run(&[command.as_slice(), &["--dry-run"]].concat());
    assert_eq!(String::from_utf8(dry.stdout).unwrap().trim(), "2 runs would be queued again");
    project.write("mended", "");
    project.write("agents/triage/mended", "");
    let done = project.run(&command);
    assert_eq!(String::from_utf8(done.stdout).unwrap().trim(), "2 runs queued again");
    for run in &runs[3..] {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
    assert!(gateway.client.run(&runs[0]).await.unwrap().run.dead_letter);
    let by_reason = ManyRuns { cause: Some("exited with code 3".to_owned()), ..ManyRuns::default() };
    let refused = gateway.client.change_runs("cancel", &by_reason).await.unwrap_err().to_string();
    assert!(refused.contains("can only be tried again"), "{refused}");
    assert_eq!(gateway.client.change_runs("retry", &by_reason).await.unwrap().done, 3);
    for run in &runs {
        assert_eq!(gateway.finished(run).await.run.state, "succeeded");
    }
    assert!(gateway.client.dead_letters(None).await.unwrap().groups.is_empty());
}

#[tokio::test]
async fn each_try_of_a_run_says_how_it_ended_and_has_a_log_of_its_own() {
    let project = project();
    let config = project.read("agents/triage/config.toml");
    let retries = "[retries]\nattempts = 2\nbackoff = { initial = \"1ms\", jitter = false }\n";
    project.write("agents/triage/config.toml", &format!("{config}{retries}"));
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await;
    let ended: Vec<_> = done.attempts.iter().map(|attempt| (attempt.ended.as_deref(), attempt.exit_code)).collect();
    assert_eq!(ended, [(Some("failed"), Some(3)); 2]);
    let shown = String::from_utf8(project.run(&["runs", "show", &run]).stdout).unwrap();
    assert!(shown.contains("TRY") && shown.matches("exited with code 3").count() >= 2, "{shown}");
    for attempt in ["1", "2"] {
        for follow in [&[][..], &["-f"]] {
            let log = project.run(&[&["logs", &run, "--attempt", attempt], follow].concat());
            let beside = String::from_utf8(log.stderr).unwrap();
            let ended = format!("{run} is failed: exited with code 3");
            assert_eq!(beside.contains(&ended), !follow.is_empty(), "who follows hears how it ended: {beside}");
            let log = String::from_utf8(log.stdout).unwrap();
            let other = if attempt == "1" { "try 2" } else { "try 1" };
            assert!(log.contains(&format!("out try {attempt}")) && !log.contains(&format!("out {other}")), "{log}");
        }
    }
    let missing = project.run(&["logs", &run, "--attempt", "3"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("it had 2 tries"));
}
