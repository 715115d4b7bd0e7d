//! Orphans: processes that an agent hides from Doorbell, and what it leaves to be reaped.

use std::path::{Path, PathBuf};

use crate::support::{ONE_SOURCE, Project, sample, wait_for};

/// Leaves its group, clears its environment, loses its parent; writes its number to `$1` and takes `$2` seconds.
const HIDE: &str = "hide() { (setsid env -i sh -c 'echo $$ > '$1.new'; mv '$1.new' '$1'; sleep '$2' & wait' &); \
                    until test -e $1; do sleep 0.01; done; }";

fn wants(event: &str) -> String {
    format!("when_full = \"grow\"\n[[webhooks]]\nsource = \"acme\"\nevents = [\"{event}\"]")
}

fn number_in(file: &Path) -> PathBuf {
    let pid = wait_for("the hidden process", || std::fs::read_to_string(file).ok());
    Path::new("/proc").join(pid.trim())
}

#[tokio::test]
async fn a_process_that_hides_from_its_run_ends_with_it() {
    let project = Project::new(ONE_SOURCE);
    let file = project.path("hidden");
    project.agent("triage", &wants("issues"), &format!("{HIDE}\nhide {} 1000", file.display()));
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await.run;
    assert_eq!(done.state, "succeeded", "{done:?}");
    let hidden = number_in(&file);
    let state = std::fs::read_to_string(hidden.join("stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "it lives: {state}");
    let told = gateway.lines(&run, "system").await;
    assert!(told.contains("still running when the agent had ended"), "{told}");
    wait_for("it to be reaped", || (!hidden.exists()).then_some(()));
}

#[tokio::test]
async fn a_process_that_bears_a_false_mark_ends_with_its_run() {
    let project = Project::new(ONE_SOURCE);
    let marks = ["-u DOORBELL_ATTEMPT", "DOORBELL_RUN_ID=", "DOORBELL_RUN_ID=run_x"];
    let files: Vec<PathBuf> = (0..marks.len()).map(|n| project.path(&format!("hidden-{n}"))).collect();
    let hide = marks.iter().zip(&files).map(|(mark, file)| {
        let file = file.display();
        format!(
            "(setsid env {mark} sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000' &)\n\
             until test -e {file}; do sleep 0.01; done\n"
        )
    });
    project.agent("triage", &wants("issues"), &hide.collect::<String>());
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
    for file in files {
        let hidden = number_in(&file);
        wait_for("it to be ended and reaped", || (!hidden.exists()).then_some(()));
    }
}

#[tokio::test]
async fn a_hidden_process_is_left_alone_while_its_run_may_go_on() {
    let project = Project::new(ONE_SOURCE);
    let (file, first, second) = (project.path("hidden"), project.path("first"), project.path("second"));
    let until = |file: &Path| format!("until test -e {}; do sleep 0.01; done", file.display());
    project.agent("first", &wants("push"), &until(&first));
    project.agent("second", &wants("issues"), &format!("{HIDE}\nhide {} 1000\n{}", file.display(), until(&second)));
    let gateway = project.serve();
    let mut runs = Vec::new();
    for event in ["push", "issues.opened"] {
        runs.extend(gateway.ring(sample(event)).await.runs);
        gateway.in_state(runs.last().unwrap(), "running").await;
    }
    let hidden = number_in(&file);
    std::fs::write(&first, "").unwrap();
    gateway.finished(&runs[0]).await;
    assert!(hidden.join("exe").exists(), "it is the second one's");
    std::fs::write(&second, "").unwrap();
    gateway.finished(&runs[1]).await;
    wait_for("it to be ended and reaped", || (!hidden.exists()).then_some(()));
}

#[tokio::test]
async fn orphans_that_end_by_themselves_are_reaped_while_their_run_goes_on() {
    let project = Project::new(ONE_SOURCE);
    let (file, over) = (project.path("hidden"), project.path("over"));
    let script = format!("{HIDE}\nhide {} 0.05\nuntil test -e {}; do sleep 0.01; done", file.display(), over.display());
    project.agent("triage", &wants("issues"), &script);
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let hidden = number_in(&file);
    wait_for("it to be reaped", || (!hidden.exists()).then_some(()));
    std::fs::write(&over, "").unwrap();
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
}
