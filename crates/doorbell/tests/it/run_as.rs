//! Agents that run as another user (`run_as`), and what is kept from agents of any user. Root can try it, who else cannot.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use doorbell_client::api::NewWebhook;
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use crate::support::{ANY, Gateway, PROGRAM, Project, SECRET, processes_of, sample, wait_for, wait_until};

/// A user that every machine has, and that owns nothing.
const NOBODY: &str = "nobody";

/// Whether this is root, who can become others. That something was not tested is said; with `CI=true`, root is expected.
fn may_switch() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the tests of run_as need root");
        // Not captured, as what is printed is.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"NOT TESTED: run_as, which needs root\n");
    }
    is_root
}

fn nobody() -> User {
    User::from_name(NOBODY).unwrap().unwrap()
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A project with an agent that runs this script as nobody, in a folder through which nobody may pass.
fn project(config: &str, runtime: &str, script: &str) -> Project {
    let project = Project::with_triage(config, script);
    let file = "agents/triage/config.toml";
    project.write(file, &format!("{}run_as = \"{NOBODY}\"\n{runtime}\n", project.read(file)));
    chmod(project.root(), 0o711);
    project
}

async fn ring(gateway: &Gateway) -> String {
    gateway.ring(sample("issues.opened")).await.runs.remove(0)
}

#[tokio::test]
async fn an_agent_is_the_user_that_is_named_and_no_more_than_that() {
    if !may_switch() {
        return;
    }
    let script = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; grep -E '^(NoNewPrivs|CapEff|CapPrm|CapInh|CapAmb)' \
                  /proc/self/status | tr '\\n\\t' '  '; echo; test -r \"$DOORBELL_EVENT_FILE\" && echo event; \
                  cat; echo; echo $DEPLOY_TOKEN | tr a-z A-Z; echo heard > /dev/stderr; pwd; \
                  echo '{\"done\": true}' > \"$DOORBELL_OUTPUT_FILE\"";
    let project = project("", "credentials = [\"deploy_token:acme\"]", script);
    project.credential("deploy_token", "acme", "swordfish");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let done = gateway.finished(&run).await.run;
    let (stdout, stderr) = (gateway.stdout(&run).await, gateway.lines(&run, "stderr").await);
    assert_eq!(done.state, "succeeded", "{done:?} {stdout} {stderr}");
    let user = nobody();
    let lines: Vec<&str> = stdout.lines().collect();
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    assert_eq!(lines[..3], [uid.as_str(), gid.as_str(), gid.as_str()], "{stdout}");
    assert_eq!(lines[3], format!("{} {NOBODY} {NOBODY}", user.dir.display()));
    assert!(lines[4].contains("NoNewPrivs: 1") && lines[4].matches(": 0000000000000000").count() == 4, "{stdout}");
    assert_eq!(lines[5], "event");
    assert!(stdout.contains("</event>") && stdout.contains("SWORDFISH"), "{stdout}");
    assert_eq!(stderr, "heard");
    assert_eq!(done.result, Some(serde_json::json!({"done": true})));
    let folder = project.path(".doorbell/runs").join(&run);
    assert_eq!(stdout.lines().last(), Some(folder.to_str().unwrap()));
    for (path, mode) in [(folder.clone(), 0o700), (folder.join("event.json"), 0o600)] {
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (user.uid.as_raw(), mode), "{}", path.display());
    }
}

#[tokio::test]
async fn what_is_secret_is_kept_from_it() {
    if !may_switch() {
        return;
    }
    let script = "for file in ../../*; do echo \"$file\"; done
        for file in key master.key doorbell.db doorbell.db-wal gateway.json gateway.lock; do cat ../../$file; done
        ls ../.. ; ls .. ; cat ../../../credentials/github_webhook_secret/acme/secret
        cat /proc/$PPID/environ /proc/$PPID/maps; dd if=/proc/$PPID/mem count=1
        cat ../$OTHER/event.json; echo over";
    let project = project("", "env = { OTHER = \"{{ event.context.title }}\" }", script);
    project.agent("own", ANY, "true");
    chmod(&project.path("credentials"), 0o700);
    let gateway = project.serve();
    // With the first webhook there is a master key.
    let wish = NewWebhook { name: "pushes".to_owned(), provider: None, secret: None };
    gateway.client.create_webhook("own", &wish).await.unwrap();
    for run in gateway.ring(sample("issues.opened")).await.runs {
        gateway.finished(&run).await;
    }
    let of_own = gateway.runs().await.into_iter().find(|run| run.agent == "own").unwrap().id;
    let runs = gateway.ring(crate::support::issue(&of_own)).await.runs;
    assert_eq!(runs.len(), 2);
    for run in &runs {
        if gateway.finished(run).await.run.agent != "triage" {
            continue;
        }
        let (stdout, stderr) = (gateway.stdout(run).await, gateway.lines(run, "stderr").await);
        assert_eq!(stdout, "../../*\nover", "{stderr}");
        let refused = stderr.matches("Permission denied").count();
        assert!(refused == 13 && !stderr.contains("No such file"), "{refused}: {stderr}");
    }
    let state = project.path(".doorbell");
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o711);
    for entry in std::fs::read_dir(&state).unwrap().flatten().filter(|entry| entry.file_name() != "runs") {
        assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn where_the_user_may_not_go_its_run_fails_and_says_so() {
    if !may_switch() {
        return;
    }
    let project = project("", "", "true");
    let secret = project.path("secret");
    std::fs::create_dir(&secret).unwrap();
    chmod(&secret, 0o700);
    project.write("secret/tool", "#!/bin/sh\ntrue\n");
    chmod(&project.path("secret/tool"), 0o755);
    let base = project.read("agents/triage/config.toml");
    let gateway = project.serve();
    let fails = async |words: &[&str]| {
        wait_until("a run to fail by this", async || {
            let done = gateway.finished(&ring(&gateway).await).await;
            let reason = done.run.reason.clone().unwrap();
            words.iter().all(|word| reason.contains(word)).then_some(())?;
            assert_eq!((done.run.state.as_str(), done.attempts[0].exit_code), ("failed", None), "{done:?}");
            Some(())
        })
        .await;
    };
    let change = |text: String| {
        project.write("agents/triage/config.toml", &text);
        gateway.signal(Signal::SIGHUP);
    };
    chmod(project.root(), 0o700);
    fails(&["the user `nobody` (`run_as`) cannot get to", "chmod o+x"]).await;
    chmod(project.root(), 0o711);
    change(format!("{base}cwd = \"secret\"\n"));
    fails(&["the user `nobody` (`run_as`) may not enter the folder", "/secret", "`[runtime] cwd`"]).await;
    let command = format!("command = {}", serde_json::json!([project.path("secret/tool")]));
    let lines = base.lines().map(|line| if line.starts_with("command = ") { &command } else { line });
    change(lines.collect::<Vec<_>>().join("\n"));
    fails(&["as the user `nobody`", "/secret/tool` may not be executed"]).await;
}

#[tokio::test]
async fn its_processes_end_on_a_timeout_on_cancel_and_with_a_gateway_that_is_killed() {
    if !may_switch() {
        return;
    }
    // One that left its group, and is told by its environment only.
    let script = "trap '' TERM; setsid sleep 1000 & sleep 1000";
    let project = project("timeout = \"300ms\"\n[retries]\non_lost = \"fail\"", "", script);
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let done = gateway.finished(&run).await.run;
    assert!(done.reason.as_deref().unwrap().contains("timed out"), "{done:?}");
    assert_eq!(processes_of(&run), Vec::<i32>::new());
    drop(gateway);
    let file = "agents/triage/config.toml";
    project.write(file, &project.read(file).replace("300ms", "1h"));
    let gateway = project.serve();
    let all_there = |run: &str| (processes_of(run).len() >= 3).then_some(());
    let run = ring(&gateway).await;
    wait_for("its processes", || all_there(&run));
    gateway.client.cancel_run(&run).await.unwrap();
    assert_eq!(gateway.finished(&run).await.run.state, "cancelled");
    assert_eq!(processes_of(&run), Vec::<i32>::new());
    let run = ring(&gateway).await;
    wait_for("its processes", || all_there(&run));
    for pid in processes_of(&run) {
        let owner = std::fs::metadata(format!("/proc/{pid}")).map(|found| found.uid());
        assert!(owner.is_err() || owner.is_ok_and(|uid| uid == nobody().uid.as_raw()), "{pid}");
    }
    gateway.kill();
    wait_for("the guard to end them", || processes_of(&run).is_empty().then_some(()));
    let project = take_back(project);
    let gateway = project.serve();
    assert_eq!(gateway.in_state(&run, "failed").await.run.state, "failed");
}

/// The agent without `run_as` again.
fn take_back(project: Project) -> Project {
    let file = "agents/triage/config.toml";
    project.write(file, &project.read(file).replace("run_as = \"nobody\"\n", ""));
    project
}

#[tokio::test]
async fn without_such_an_agent_the_way_to_the_runs_is_closed_again_and_nobody_works_on_what_others_left() {
    if !may_switch() {
        return;
    }
    let mode = |project: &Project| std::fs::metadata(project.path(".doorbell")).unwrap().mode() & 0o777;
    let retries = "[retries]\nattempts = 2\nbackoff = { initial = \"1ms\" }";
    let project = project(retries, "", "ls; echo trap > left; test $DOORBELL_ATTEMPT = 9");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    assert_eq!(gateway.finished(&run).await.run.state, "failed");
    assert_eq!(gateway.stdout(&run).await, "event.json\nevent.json\nleft", "the same user finds what it left");
    assert_eq!(mode(&project), 0o711);
    drop(gateway);
    let project = take_back(project);
    let gateway = project.serve();
    assert_eq!(mode(&project), 0o700);
    gateway.client.retry_run(&run).await.unwrap();
    let further = wait_until("the further tries", async || {
        let said = gateway.stdout(&run).await;
        (said.lines().count() == 6).then_some(said)
    });
    let further = further.await;
    assert!(further.ends_with("\nleft\nevent.json\nevent.json\nleft"), "what another user left is gone: {further}");
}

/// The program where everybody can start it.
fn program_for_all(project: &Project) -> String {
    let place = project.path("doorbell");
    if std::fs::hard_link(PROGRAM, &place).is_err() {
        std::fs::copy(PROGRAM, &place).unwrap();
    }
    chmod(&place, 0o755);
    place.display().to_string()
}

#[test]
fn who_cannot_be_run_as_is_refused_with_the_line_and_never_replaced_by_doorbells_own_user() {
    let project = Project::with_triage("", "true");
    let file = "agents/triage/config.toml";
    let base = project.read(file);
    let says = |name: &str, mut command: Command, words: &[&str]| {
        project.write(file, &format!("{base}run_as = \"{name}\"\n"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for word in words.iter().copied().chain(["run_as = ", "agents/triage/config.toml"]) {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
    };
    for command in ["config", "serve"] {
        says("no-such-user", project.doorbell(&[command]), &["there is no user \"no-such-user\"", "useradd --system"]);
        says("root", project.doorbell(&[command]), &["`root` may do everything", "useradd --system agent"]);
    }
    let mut command = project.doorbell(&["config"]);
    if geteuid().is_root() {
        // As somebody who is neither root nor the one that is named.
        command = project.prepare(&program_for_all(&project), &["config"]);
        command.uid(12345).gid(12345);
        Command::new("chmod").args(["-R", "a+rX"]).arg(project.root()).status().unwrap();
    }
    says(NOBODY, command, &["Doorbell may not start anything as `nobody`", "CAP_SETUID", "start Doorbell as root"]);
}

#[tokio::test]
async fn doctor_says_of_each_such_agent_whether_it_would_work() {
    if !may_switch() {
        return;
    }
    let project = project("", "", "true");
    let look = || {
        let output = project.run(&["doctor", "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = found["findings"].as_array().unwrap().clone();
        move |check: &str, status: &str, words: &str| {
            let text = |finding: &serde_json::Value| format!("{} → {}", finding["what"], finding["advice"]);
            let is = |finding: &&serde_json::Value| finding["check"] == check && finding["status"] == status;
            assert!(
                all.iter().filter(is).any(|finding| text(finding).contains(words)),
                "{check} {status} {words}: {all:#?}"
            );
        }
    };
    let gateway = project.serve();
    look()("run_as", "ok", "agent `triage` can be run as the user `nobody`");
    look()("permissions", "ok", "their owner's alone");
    chmod(project.root(), 0o700);
    look()("run_as", "fail", "agent `triage`: the user `nobody` (`run_as`) cannot get to");
    chmod(project.root(), 0o711);
    chmod(&project.path(".doorbell/key"), 0o604);
    look()("permissions", "fail", "/key is open to other users");
    chmod(&project.path(".doorbell/key"), 0o600);
    chmod(&project.path(".doorbell"), 0o755);
    look()("permissions", "fail", "chmod 711");
    std::fs::create_dir(project.path("closed")).unwrap();
    chmod(&project.path("closed"), 0o700);
    let file = "agents/triage/config.toml";
    project.write(file, &format!("{}cwd = \"closed\"\n", project.read(file)));
    look()("run_as", "fail", "may not enter the folder");
    drop(gateway);
}

#[tokio::test]
async fn its_own_user_reads_neither_the_memory_nor_the_environment_of_the_gateway() {
    let script = "cat /proc/$PPID/environ; dd if=/proc/$PPID/mem count=1; ls /proc/$PPID/fd; \
                  cat /proc/$$/environ > /dev/null && echo mine; env";
    let project = Project::with_triage("", script);
    let secret = "not-for-agents-0123456789";
    let mut command = project.doorbell(&["serve"]);
    if geteuid().is_root() {
        // Root reads everything. So be somebody who does not.
        command = project.prepare(&program_for_all(&project), &["serve"]);
        let (uid, gid) = (nobody().uid.as_raw(), nobody().gid.as_raw());
        give(project.root(), uid, gid);
        command.uid(uid).gid(gid);
    }
    command.env("DOORBELL_CREDENTIAL_OTHER_SECRET__ACME__SECRET", secret);
    command.env("DOORBELL_MASTER_KEY", "1".repeat(64));
    let gateway = project.serve_by(command);
    let run = ring(&gateway).await;
    let done = gateway.finished(&run).await.run;
    let (stdout, stderr) = (gateway.stdout(&run).await, gateway.lines(&run, "stderr").await);
    assert_eq!(done.state, "succeeded", "{stderr}");
    assert!(stdout.lines().next() == Some("mine"), "{stdout}");
    assert_eq!(stderr.matches("Permission denied").count(), 3, "{stderr}");
    for hidden in [secret, "DOORBELL_MASTER_KEY", "DOORBELL_CREDENTIAL", SECRET] {
        assert!(!stdout.contains(hidden), "{hidden}: {stdout}");
    }
    let metrics = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    let open = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds ")).unwrap();
    assert!(open.parse::<f64>().unwrap() > 5.0, "it still sees itself: {open}");
}

/// Gives a folder with all that is in it to somebody.
fn give(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().flatten().for_each(|entry| give(&entry.path(), uid, gid));
    }
}
