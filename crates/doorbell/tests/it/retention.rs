//! The past: what is old goes, what is not over stays, what must be forgotten is gone, and a backup brings it all back.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use doorbell_client::{Client, Error, EventQuery, api};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{
    Gateway, ONE_SOURCE, Project, fresh_id, issue, processes_of, sample, sample_as, wait_for, wait_until,
};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn keeping(retention: &str) -> Project {
    Project::new(&format!("[store]\nretention = \"{retention}\"\n{ONE_SOURCE}"))
}

async fn is_there(gateway: &Gateway, event: &str) -> bool {
    match gateway.client.event(event).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.status(), Some(404), "{error}");
            false
        }
    }
}

async fn gone(gateway: &Gateway, event: &str) {
    wait_until("the event to be removed", async || (!is_there(gateway, event).await).then_some(())).await;
}

fn problem(error: Error) -> (u16, String) {
    match error {
        Error::Api(problem) => (problem.status, problem.code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_old_is_removed_and_what_is_not_over_stays() {
    let project = keeping("1s");
    project.agent("quick", &format!("{ANY}\nevents = [\"push\"]"), "echo said; mkdir cache && chmod 500 cache");
    project.agent("slow", &format!("{ANY}\nevents = [\"issues\"]"), "exec sleep 1000");
    let gateway = project.serve();
    let slow = gateway.ring(sample("issues.opened")).await;
    let delivery = fresh_id();
    let quick = gateway.ring(sample_as("push", &delivery)).await;
    gateway.finished(&quick.runs[0]).await;
    let folder = project.path(&format!(".doorbell/runs/{}", quick.runs[0]));
    assert!(folder.join("cache").exists());
    // The newest event and the newest run stay for their numbers, so another one has to come.
    let newest = gateway.ring(sample("push")).await;
    gone(&gateway, &quick.delivery_id).await;
    wait_until("the folder to go with the run", async || (!folder.exists()).then_some(())).await;
    assert_eq!(gateway.client.run(&quick.runs[0]).await.unwrap_err().status(), Some(404));
    assert!(is_there(&gateway, &slow.delivery_id).await && is_there(&gateway, &newest.delivery_id).await);
    assert!(project.path(&format!(".doorbell/runs/{}/event.json", slow.runs[0])).exists());
    // Its key is gone, too: what comes again so late is a new event.
    let again = gateway.ring(sample_as("push", &delivery)).await;
    assert!(!again.duplicate && again.delivery_id != quick.delivery_id);
    gateway.client.cancel_run(&slow.runs[0]).await.unwrap();
    gone(&gateway, &slow.delivery_id).await;
    assert_eq!(gateway.client.events(&EventQuery::default()).await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn retention_that_is_shortened_while_the_gateway_runs_is_kept_to() {
    let project = keeping("30d");
    let gateway = project.serve();
    let first = gateway.ring(sample("push")).await;
    gateway.ring(sample("push")).await;
    project.write("config.toml", &project.read("config.toml").replace("\"30d\"", "\"1s\""));
    gone(&gateway, &first.delivery_id).await;
}

#[tokio::test]
async fn a_sweep_shows_in_the_figures() {
    let project = keeping("1s");
    project.agent("quick", ANY, "true");
    let gateway = project.serve();
    let first = gateway.ring(sample("push")).await;
    gateway.finished(&first.runs[0]).await;
    gateway
        .send("/v1/webhooks/github/acme", crate::support::with_header(sample("push"), "x-hub-signature-256", "no"))
        .await;
    gateway.ring(sample("push")).await;
    let swept = wait_until("the sweep to be noted", async || {
        let stats = gateway.client.stats().await.unwrap();
        stats.last_sweep.filter(|sweep| sweep.events > 0)
    })
    .await;
    assert_eq!((swept.events, swept.runs), (1, 1));
    assert_eq!(gateway.client.stats().await.unwrap().events, Some(1), "counted as they are");
    let metrics = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("doorbell_last_sweep_ended_timestamp_seconds 1"), "{metrics}");
    assert!(metrics.contains("doorbell_last_sweep_removed{kind=\"events\"}"), "{metrics}");
    let shown = String::from_utf8(project.run(&["stat"]).stdout).unwrap();
    assert!(shown.contains("the last sweep ended at"), "{shown}");
    wait_until("the rejection to go", async || {
        let deliveries = gateway.client.deliveries("acme", None).await.unwrap().deliveries;
        deliveries.iter().all(|delivery| delivery.status == "accepted").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_whose_place_was_removed_says_so() {
    let project = keeping("1s");
    let gateway = project.serve();
    let events: Vec<_> = futures_util::future::join_all((0..3).map(|_| gateway.ring(sample("push")))).await;
    let oldest = gateway.client.events(&EventQuery::default()).await.unwrap().events.pop().unwrap();
    wait_until("all but the newest to go", async || {
        (gateway.client.stats().await.unwrap().events == Some(1)).then_some(())
    })
    .await;
    assert_eq!(events.len(), 3);
    let pruned = gateway.client.event_stream(Some(oldest.seq)).await.err().unwrap();
    assert_eq!(problem(pruned), (410, "cursor_pruned".to_owned()));
    assert!(gateway.client.event_stream(Some(0)).await.is_ok(), "from the oldest there is");
    assert!(gateway.client.event_stream(Some(oldest.seq + 1)).await.is_ok(), "nothing is missed after that one");
}

#[tokio::test]
async fn nothing_is_removed_where_retention_is_off() {
    let project = keeping("off");
    let gateway = project.serve();
    let first = gateway.ring(sample("push")).await;
    gateway.ring(sample("push")).await;
    assert_eq!(gateway.client.stats().await.unwrap().last_sweep, None);
    assert_eq!(gateway.terminate(), Some(0));
    assert!(is_there(&project.serve(), &first.delivery_id).await);
}

#[tokio::test]
async fn a_clock_that_leaps_ahead_does_not_erase_the_past_at_once() {
    let project = keeping("30d");
    let gateway = project.serve();
    let first = gateway.ring(sample("push")).await;
    wait_until("a sweep", async || gateway.client.stats().await.unwrap().last_sweep).await;
    gateway.kill();
    // As if the gateway had ended forty days ago, by the clock.
    let sql = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    let days = 40_i64 * 24 * 60 * 60 * 1000;
    for earlier in ["UPDATE events SET received_at = received_at - ?1", "UPDATE sweep SET ended_at = ended_at - ?1"] {
        sql.execute(earlier, [days]).unwrap();
    }
    drop(sql);
    let gateway = project.serve();
    project.log_with("sweep.waits");
    assert!(is_there(&gateway, &first.delivery_id).await);
}

/// Killed at any moment of a sweep: no run without its event, no folder without its run that the next start leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_while_it_sweeps_leaves_nothing_half() {
    let project = keeping("off");
    project.agent("quick", &format!("scale = 8\nwhen_full = \"grow\"\n{ANY}"), "echo said");
    let gateway = project.serve();
    let sent = futures_util::future::join_all((0..150).map(|_| gateway.ring(sample("push")))).await;
    for receipt in &sent {
        gateway.finished(&receipt.runs[0]).await;
    }
    assert_eq!(gateway.terminate(), Some(0));
    let config = project.read("config.toml").replace("\"off\"", "\"1s\"");
    project.write("config.toml", &config);
    let mut left = 150;
    for _ in 0..6 {
        let gateway = project.serve();
        let enough = left - u64::from(doorbell::clock::random::<1>()[0] % 25).min(left - 1);
        wait_until("some to go", async || {
            let events = gateway.client.stats().await.unwrap().events.unwrap();
            (events <= enough || events == 1).then_some(())
        })
        .await;
        gateway.kill();
        left = check_whole(&project).await;
    }
    let gateway = project.serve();
    wait_until("all but the newest to go", async || {
        (gateway.client.stats().await.unwrap().events.unwrap() <= 2).then_some(())
    })
    .await;
    assert!(gateway.runs().await.len() <= 2);
}

/// Everything that is there is there whole; how many events are.
async fn check_whole(project: &Project) -> u64 {
    let config = project.read("config.toml");
    project.write("config.toml", &config.replace("\"1s\"", "\"off\""));
    let gateway = project.serve();
    let events = gateway.client.events(&EventQuery { limit: Some(500), ..EventQuery::default() }).await.unwrap().events;
    let stats = gateway.client.stats().await.unwrap();
    assert_eq!(stats.events, Some(events.len() as u64));
    let runs: BTreeSet<String> = gateway.runs().await.into_iter().map(|run| run.id).collect();
    let started: BTreeSet<String> =
        events.iter().flat_map(|event| &event.outcomes).filter_map(|outcome| outcome.run_id.clone()).collect();
    assert_eq!(runs, started);
    for event in &events {
        gateway.client.event_body(&event.id).await.unwrap();
    }
    wait_until("folders without a run to go", async || {
        let mut folders = std::fs::read_dir(project.path(".doorbell/runs")).unwrap();
        folders.all(|folder| runs.contains(&folder.unwrap().file_name().into_string().unwrap())).then_some(())
    })
    .await;
    gateway.kill();
    project.write("config.toml", &config);
    events.len() as u64
}

#[tokio::test]
async fn what_is_forgotten_is_gone_and_does_not_start_again() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "cat; echo '{\"said\": true}' > $DOORBELL_OUTPUT_FILE");
    let gateway = project.serve();
    let secret = issue("a name that must be forgotten");
    let delivery =
        secret.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-github-delivery")).unwrap().1.clone();
    let receipt = gateway.ring(secret.clone()).await;
    let (event, run) = (&receipt.delivery_id, &receipt.runs[0]);
    gateway.finished(run).await;
    let folder = project.path(&format!(".doorbell/runs/{run}"));
    assert!(gateway.stdout(run).await.contains("must be forgotten") && folder.exists());
    let output = project.run(&["events", "rm", event]);
    assert!(output.status.success(), "{output:?}");
    assert!(!folder.exists());
    let detail = gateway.client.event(event).await.unwrap();
    assert!(detail.event.forgotten_at.is_some() && detail.event.context.is_empty() && detail.headers.is_empty());
    assert_eq!(detail.event.delivery_id.as_deref(), Some(delivery.as_str()));
    assert_eq!(problem(gateway.client.event_body(event).await.unwrap_err()), (410, "forgotten".to_owned()));
    assert_eq!(gateway.lines(run, "stdout").await, "");
    assert_eq!(gateway.client.run(run).await.unwrap().run.result, None);
    for command in [vec!["events"], vec!["events", "show", event], vec!["why", event]] {
        let output = project.run(&command);
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{command:?}: {shown}");
        assert!(shown.contains("orgotten") || shown.contains("removed for good"), "{command:?}: {shown}");
    }
    let again = gateway.ring(secret).await;
    assert!(again.duplicate && again.delivery_id == *event && again.runs == receipt.runs);
    assert_eq!(gateway.runs().await.len(), 1);
    assert_eq!(
        project.json(&["events", "rm", event])["forgottenAt"],
        json!(detail.event.forgotten_at.unwrap()),
        "once"
    );
}

#[tokio::test]
async fn what_is_not_over_is_forgotten_only_after_it_was_cancelled() {
    let project = Project::new(ONE_SOURCE);
    project.agent("slow", ANY, "exec sleep 1000");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("push")).await;
    let (event, run) = (&receipt.delivery_id, &receipt.runs[0]);
    gateway.in_state(run, "running").await;
    let refused = gateway.client.forget_event(event, false).await.unwrap_err();
    assert!(refused.to_string().contains(run) && refused.to_string().contains("--cancel"), "{refused}");
    assert_eq!(problem(refused), (409, "runs_unfinished".to_owned()));
    assert!(!gateway.client.event(event).await.unwrap().headers.is_empty(), "nothing was changed");
    assert_eq!(project.run(&["events", "rm", event]).status.code(), Some(1));
    assert!(project.run(&["events", "rm", "--cancel", event]).status.success());
    assert_eq!(gateway.client.run(run).await.unwrap().run.state, "cancelled");
    assert!(processes_of(run).is_empty());
    assert!(gateway.client.event(event).await.unwrap().event.forgotten_at.is_some());
}

#[tokio::test]
async fn only_owners_forget_and_back_up() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    project.agent("other", &format!("{ANY}\nevents = [\"issues\"]"), "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("push")).await;
    gateway.finished(&receipt.runs[0]).await;
    let file = project.path("copy.part");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let wish = |file: &std::path::Path| api::NewCopy { file: file.display().to_string() };
    for (role, agent, status) in [("viewer", None, 403), ("agent", Some("triage"), 403), ("agent", Some("other"), 404)]
    {
        let key = api::NewKey {
            name: role.to_owned(),
            role: role.to_owned(),
            agent: agent.map(str::to_owned),
            expires: None,
            account: None,
        };
        let key = gateway.client.create_key(&key).await.unwrap().key;
        let client = Client::new(&gateway.url, Some(&key)).unwrap();
        assert_eq!(client.forget_event(&receipt.delivery_id, true).await.unwrap_err().status(), Some(status), "{role}");
        assert_eq!(client.copy_store(&wish(&file)).await.unwrap_err().status(), Some(403), "{role}");
    }
    let unknown = gateway.client.forget_event("evt_00000000000000000000000000", false).await.unwrap_err();
    assert_eq!(unknown.status(), Some(404));
    // A file that is there for something else is never written to.
    for name in ["config.toml", ".doorbell/doorbell.db", "missing.part", "full.part"] {
        project.write("full.part", "x");
        let refused = gateway.client.copy_store(&wish(&project.path(name))).await.unwrap_err();
        assert_eq!(problem(refused), (400, "invalid_request".to_owned()), "{name}");
    }
    assert!(gateway.client.copy_store(&wish(&file)).await.unwrap().bytes > 0);
}

#[tokio::test]
async fn many_are_forgotten_by_source_and_time_once_it_is_agreed_to() {
    let project = Project::new(&format!("{ONE_SOURCE}[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n"));
    let gateway = project.serve();
    let mut old = Vec::new();
    for _ in 0..12 {
        old.push(gateway.ring(sample("push")).await.delivery_id);
    }
    let lab = reqwest::Client::new().post(format!("{}/v1/webhooks/generic/lab", gateway.url)).body("{}");
    assert_eq!(lab.header("content-type", "application/json").send().await.unwrap().status(), 200);
    let first = gateway.client.event(&old[0]).await.unwrap().event.received_at;
    let asked = project.run(&["events", "rm", "--source", "acme"]);
    assert_eq!(asked.status.code(), Some(2), "nobody can be asked: {asked:?}");
    assert_eq!(project.run(&["events", "rm"]).status.code(), Some(2), "everything is never meant by nothing");
    let none = project.json(&["events", "rm", "--before", &first, "--yes"]);
    assert_eq!(none["forgotten"], json!([]));
    let done = project.json(&["events", "rm", "--source", "acme", "--before", "0s", "--yes"]);
    let forgotten: BTreeSet<&str> = done["forgotten"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(forgotten, old.iter().map(String::as_str).collect());
    let left = gateway.client.events(&EventQuery::default()).await.unwrap().events;
    assert_eq!(left.iter().filter(|event| event.forgotten_at.is_none()).count(), 1);
    assert_eq!(project.json(&["events", "rm", "--source", "acme", "--yes"])["forgotten"], json!([]), "once");
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A project of the same configuration, started on a backup.
fn restored(project: &Project, file: &std::path::Path, agent: &str) -> Project {
    let other = Project::new(ONE_SOURCE);
    other.agent("triage", ANY, agent);
    std::fs::create_dir_all(other.path(".doorbell")).unwrap();
    std::fs::copy(file, other.path(".doorbell/doorbell.db")).unwrap();
    assert!(project.root() != other.root());
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_everything_and_starts_nothing() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("when_full = \"grow\"\n{ANY}"), "exec sleep 1000");
    let gateway = project.serve();
    let mut before = vec![gateway.ring(sample("push")).await];
    gateway.in_state(&before[0].runs[0], "running").await;
    before.extend(futures_util::future::join_all((1..40).map(|_| gateway.ring(sample("push")))).await);
    let file = project.path("copies with spaces/backup.db");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let backup = {
        let mut command = project.doorbell(&["backup", "--json", file.to_str().unwrap()]);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let mut during = Vec::new();
    while !backup.is_finished() {
        during.push(gateway.ring(sample("push")).await);
    }
    let output = backup.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["bytes"], json!(file.metadata().unwrap().len()));
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let other = restored(&project, &file, "echo again");
    let second = other.serve();
    for receipt in &before {
        let event = second.client.event(&receipt.delivery_id).await.unwrap().event;
        assert_eq!(event.outcomes[0].run_id.as_ref(), Some(&receipt.runs[0]));
        assert!(!second.client.event_body(&receipt.delivery_id).await.unwrap().is_empty());
    }
    let runs = second.runs().await;
    assert!((40..=40 + during.len()).contains(&runs.len()));
    assert!(runs.iter().all(|run| run.state == "held"), "{runs:?}");
    assert_eq!(told["heldRuns"], json!(runs.len()));
    // The original's processes are its own.
    assert!(!processes_of(&before[0].runs[0]).is_empty());
    assert_eq!(gateway.client.run(&before[0].runs[0]).await.unwrap().run.state, "running");
    // A person decides.
    let released = other.run(&["runs", "release", &before[0].runs[0], &before[1].runs[0]]);
    assert!(released.status.success(), "{released:?}");
    let done = second.finished(&before[0].runs[0]).await;
    assert_eq!(done.run.state, "succeeded");
    assert_eq!(other.run(&["runs", "release", &before[0].runs[0]]).status.code(), Some(1), "it is over");
    assert_eq!(other.run(&["runs", "release", "run_00000000000000000000000000"]).status.code(), Some(3));
    assert_eq!(second.terminate(), Some(0));
}

#[tokio::test]
async fn a_backup_needs_no_gateway_and_writes_over_nothing() {
    let project = Project::new(ONE_SOURCE);
    let nothing = project.run(&["backup"]);
    assert_eq!(nothing.status.code(), Some(1), "there is no database: {nothing:?}");
    let gateway = project.serve();
    let event = gateway.ring(sample("push")).await.delivery_id;
    // What a crash leaves is brought along.
    gateway.kill();
    let file = project.path("backup.db");
    let name = file.to_str().unwrap();
    assert!(project.run(&["backup", name]).status.success());
    let first = std::fs::read(&file).unwrap();
    let refused = project.run(&["backup", name]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--force"));
    assert_eq!(std::fs::read(&file).unwrap(), first);
    assert!(project.run(&["backup", name, "--force"]).status.success());
    let itself = project.path(".doorbell/doorbell.db");
    assert_eq!(project.run(&["backup", itself.to_str().unwrap(), "--force"]).status.code(), Some(2));
    let told = project.json(&["backup"]);
    let named = std::path::PathBuf::from(told["file"].as_str().unwrap());
    assert!(named.starts_with(project.path(".doorbell/backups").canonicalize().unwrap()), "{}", named.display());
    assert_eq!(told["newestEvent"]["id"], json!(event));
    for file in [&file, &named] {
        assert!(is_there(&restored(&project, file, "true").serve(), &event).await);
    }
    assert_eq!(project.run(&["backup", "/nowhere/at/all.db"]).status.code(), Some(1));
    assert_eq!(project.run(&["backup", "--url", "http://127.0.0.1:1"]).status.code(), Some(2));
    let beside: Vec<_> = std::fs::read_dir(project.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{beside:?}");
    let gateway = project.serve();
    assert!(is_there(&gateway, &event).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_in_the_configuration_keeps_nobody_from_a_backup() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let broken = format!("{}x=\n", project.read("config.toml"));
    project.write("config.toml", &broken);
    let copy = project.path("copy.db");
    let output = project.run(&["backup", copy.to_str().unwrap()]);
    assert!(output.status.success() && copy.is_file(), "{output:?}");
    drop(gateway);
}

#[test]
fn a_forced_backup_does_not_replace_what_the_gateway_lives_on() {
    let project = Project::new(ONE_SOURCE);
    project.write("elsewhere/kept", "");
    let elsewhere = format!("[store]\nurl = \"sqlite:elsewhere/d\"\n{ONE_SOURCE}");
    for (config, files) in [
        (
            ONE_SOURCE,
            ["doorbell.db-wal", "doorbell.db-shm", "doorbell.db.lock", "key", "gateway.json"]
                .map(|file| format!(".doorbell/{file}")),
        ),
        (
            &elsewhere,
            ["elsewhere/d", "elsewhere/d-wal", "elsewhere/d-shm", "elsewhere/d.lock", ".doorbell/master.key"]
                .map(str::to_owned),
        ),
    ] {
        project.write("config.toml", config);
        let gateway = project.serve();
        for file in files {
            let before =
                std::fs::metadata(project.path(&file)).ok().map(|found| std::os::unix::fs::MetadataExt::ino(&found));
            let refused = project.run(&["backup", &file, "--force"]);
            assert_eq!(refused.status.code(), Some(2), "{file}: {refused:?}");
            let after =
                std::fs::metadata(project.path(&file)).ok().map(|found| std::os::unix::fs::MetadataExt::ino(&found));
            assert_eq!(before, after, "{file}");
        }
        for file in [".doorbell/backups/named.db", "elsewhere/other.db"] {
            std::fs::create_dir_all(project.path(".doorbell/backups")).unwrap();
            let output = project.run(&["backup", file, "--force"]);
            assert!(output.status.success(), "{output:?}");
        }
        assert_eq!(gateway.terminate(), Some(0));
    }
}

/// What ends with `.part` in the project's folder.
fn parts(project: &Project) -> Vec<String> {
    let names = std::fs::read_dir(project.root()).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".part")).collect()
}

#[test]
fn a_backup_that_is_ended_leaves_nothing_and_one_that_was_killed_is_cleared_away_by_the_next() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    // It would take for ever.
    gateway.signal(Signal::SIGSTOP);
    for (signal, left) in [(Signal::SIGTERM, 0), (Signal::SIGKILL, 1)] {
        let mut backup = project.doorbell(&["backup", "copy.db"]).spawn().unwrap();
        wait_for("the copy to begin", || (!parts(&project).is_empty()).then_some(()));
        nix::sys::signal::kill(Pid::from_raw(i32::try_from(backup.id()).unwrap()), signal).unwrap();
        assert!(!backup.wait().unwrap().success());
        assert_eq!(parts(&project).len(), left, "{signal}");
    }
    gateway.signal(Signal::SIGCONT);
    let alive = format!(".copy.db.{}.part", std::process::id());
    for of_others in [&alive, ".notes.2147483647.part", ".notes.part"] {
        project.write(of_others, if of_others == alive { "" } else { "something else" });
        std::fs::set_permissions(project.path(of_others), PermissionsExt::from_mode(0o600)).unwrap();
    }
    let output = project.run(&["backup", "other.db"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("removed"), "{output:?}");
    let mut stay = parts(&project);
    stay.sort();
    assert_eq!(stay, [alive.as_str(), ".notes.2147483647.part", ".notes.part"]);
}

#[test]
fn a_backup_does_not_wait_for_ever_for_a_gateway_that_hangs() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    gateway.signal(Signal::SIGSTOP);
    let output = project.run(&["backup", "copy.db"]);
    gateway.signal(Signal::SIGCONT);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the gateway hangs"), "{output:?}");
    assert_eq!(parts(&project), [""; 0]);
}
