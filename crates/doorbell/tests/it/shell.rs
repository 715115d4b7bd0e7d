//! Completions and manual pages.

use std::process::Output;

use crate::support::{ONE_SOURCE, PROGRAM, Project, sample};

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"\nkey = 'event.context.repo'", "true");
    project
}

/// What bash would offer for a line, by the function that `completions bash` prints.
fn offered(project: &Project, words: &[&str]) -> Vec<String> {
    let script = format!(
        "PATH=$(dirname '{PROGRAM}'):$PATH; complete() {{ :; }}; compopt() {{ :; }}; eval \"$(doorbell completions bash)\"; \
         COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; _clap_complete_doorbell doorbell \"${{!#}}\"; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = project.prepare("bash", &[&["-c", &script, "bash"], words].concat()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[tokio::test]
async fn a_shell_completes_commands_names_and_ids() {
    let project = project();
    assert!(offered(&project, &["doorbell", "doc"]).contains(&"doctor".to_owned()));
    assert_eq!(offered(&project, &["doorbell", "runs", "--agent", ""]), ["triage"]);
    assert_eq!(offered(&project, &["doorbell", "sources", "deliveries", "a"]), ["acme"]);
    assert!(offered(&project, &["doorbell", "ring", "github", "issues.o"]).contains(&"issues.opened".to_owned()));
    assert!(offered(&project, &["doorbell", "triggers", "test", ""]).contains(&"triage".to_owned()));
    assert_eq!(offered(&project, &["doorbell", "triggers", "test", "--agent", ""]), ["triage"]);
    let paths = offered(&project, &["doorbell", "config", "agents.triage.r"]);
    assert!(paths.contains(&"agents.triage.runtime".to_owned()), "{paths:?}");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    assert_eq!(offered(&project, &["doorbell", "why", "evt_"]), [receipt.delivery_id.as_str()]);
    assert_eq!(offered(&project, &["doorbell", "events", "rm", "evt_"]), [receipt.delivery_id.as_str()]);
    assert_eq!(offered(&project, &["doorbell", "runs", "--with-key", "acme"]), ["acme/app"]);
    assert_eq!(offered(&project, &["doorbell", "keys", "rm", "key_"]).len(), 1);
    assert_eq!(offered(&project, &["doorbell", "logs", "run_"]), [receipt.runs[0].as_str()]);
}

#[test]
fn completing_is_silent_where_nothing_can_be_known() {
    let project = project();
    assert_eq!(offered(&project, &["doorbell", "why", "evt_"]), [""], "no gateway runs");
    project.write("config.toml", "nonsense");
    assert_eq!(offered(&project, &["doorbell", "runs", "--agent", "t"]), [""], "the configuration is broken");
    project.write(".doorbell/gateway.json", "{}");
    assert_eq!(offered(&project, &["doorbell", "logs", "run_"]), [""], "its file is damaged");
}

#[test]
fn names_are_those_of_the_project_that_is_named_on_the_line() {
    let (outside, project) = (Project::new(""), project());
    let root = project.root().to_str().unwrap();
    // The other project's secrets are not this one's; its agents are known all the same if they can be read.
    outside.credential("github_webhook_secret", "acme", "x");
    assert_eq!(offered(&outside, &["doorbell", "runs", "--project", root, "--agent", ""]), ["triage"]);
}

#[test]
fn every_shell_gets_a_function() {
    let project = project();
    for (shell, words) in [("bash", "complete -o"), ("zsh", "#compdef doorbell"), ("fish", "complete --")] {
        let output = project.run(&["completions", shell]);
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && script.contains(words) && script.contains("DOORBELL_COMPLETE"), "{script}");
    }
    assert_eq!(project.run(&["completions", "tcsh"]).status.code(), Some(2));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_command_has_a_manual_page_with_its_examples() {
    let project = project();
    let page = text(&project.run(&["man"]));
    assert!(page.contains(".TH doorbell 1") && page.contains("doorbell init"), "{page}");
    assert!(project.run(&["man", "pages"]).status.success());
    for name in ["doorbell", "doorbell-serve", "doorbell-events-show", "doorbell-doctor"] {
        let page = project.read(&format!("pages/{name}.1"));
        assert!(page.contains("Example"), "{name}");
    }
    assert!(!project.path("pages/doorbell-guard.1").exists(), "it is nobody's command");
    project.write("a-file", "");
    let refused = project.run(&["man", "a-file"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}
