//! Saved changes are taken over while the gateway runs: whole or not at all, however they are saved.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use doorbell_client::{Answer, api};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, Signed, Unsent};
use doorbell_core::secret::Secret;
use futures_util::StreamExt as _;
use nix::sys::signal::Signal;

use crate::support::{Gateway, ONE_SOURCE, Project, SECRET, fresh_id, sample, wait_for, wait_until};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    project
}

async fn state(gateway: &Gateway) -> api::ConfigState {
    gateway.client.stats().await.unwrap().config.unwrap()
}

/// Waits until this generation, or a later one, is in force.
async fn generation(gateway: &Gateway, wanted: u64) -> api::ConfigState {
    let what = format!("generation {wanted} of the configuration");
    wait_until(&what, async || Some(state(gateway).await).filter(|state| state.generation >= wanted)).await
}

/// Waits until what is saved is refused.
async fn refused(gateway: &Gateway) -> api::ConfigState {
    wait_until("the refusal", async || Some(state(gateway).await).filter(|state| state.error.is_some())).await
}

async fn agents(gateway: &Gateway) -> Vec<String> {
    gateway.client.agents().await.unwrap().agents.into_iter().map(|agent| agent.name).collect()
}

/// The whole `config.toml` of the tests' project with this after its gateway.
fn config(rest: &str) -> String {
    format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{rest}")
}

/// An agent's file that wants these events.
fn wanting(events: &str) -> String {
    format!("{ANY}\nevents = {events}\n[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n")
}

/// As editors do: a new file in place of the old one.
fn rename_over(project: &Project, name: &str, text: &str) {
    project.write(&format!("{name}.draft~"), text);
    std::fs::rename(project.path(&format!("{name}.draft~")), project.path(name)).unwrap();
}

#[tokio::test]
async fn files_saved_in_any_way_are_taken_over() {
    let project = project();
    let gateway = project.serve();
    assert_eq!(state(&gateway).await.generation, 1);
    let file = "agents/triage/config.toml";

    project.write(file, &wanting("[\"push\"]"));
    generation(&gateway, 2).await;
    assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty(), "written in place");

    rename_over(&project, file, &wanting("[\"issues\"]"));
    generation(&gateway, 3).await;
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 1, "renamed over");

    std::fs::create_dir(project.path("new")).unwrap();
    project.write("new/config.toml", &wanting("[\"issues\"]"));
    std::fs::rename(project.path("new"), project.path("agents/second")).unwrap();
    generation(&gateway, 4).await;
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 2, "a folder put there");

    project.agent("third", ANY, "true");
    wait_until("the third agent", async || (agents(&gateway).await.len() == 3).then_some(())).await;
    let before = state(&gateway).await.generation;
    project.write("agents/third/SKILL.md", "Do {{ event.context.title }}");
    generation(&gateway, before + 1).await;

    // The folder of an agent is another one of the same name.
    std::fs::rename(project.path("agents/third"), project.path("third")).unwrap();
    wait_until("two agents", async || (agents(&gateway).await.len() == 2).then_some(())).await;
    std::fs::rename(project.path("third"), project.path("agents/third")).unwrap();
    wait_until("three agents", async || (agents(&gateway).await.len() == 3).then_some(())).await;
    let before = state(&gateway).await.generation;
    project.write("agents/third/config.toml", &wanting("[\"push\"]"));
    generation(&gateway, before + 1).await;
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 2, "a folder that came back");

    let source = format!("{ONE_SOURCE}[webhooks.other]\ntype = \"generic\"\nallow_unsigned = true\n");
    rename_over(&project, "config.toml", &config(&source));
    generation(&gateway, before + 2).await;
    assert!(matches!(gateway.send("/v1/webhooks/generic/other", generic("{}")).await, Answer::Receipt(_)));
    rename_over(&project, "config.toml", &config(ONE_SOURCE));
    generation(&gateway, before + 3).await;
    assert!(matches!(gateway.send("/v1/webhooks/generic/other", generic("{}")).await, Answer::Problem(_)));
}

fn generic(body: &str) -> Signed {
    Signed { headers: vec![("content-type".to_owned(), "application/json".to_owned())], body: body.to_owned().into() }
}

/// As Kubernetes mounts Secrets and ConfigMaps: links through `..data`, which is put in place of another.
fn mount(folder: &std::path::Path, version: &str, files: &[(&str, &str)]) {
    for (name, text) in files {
        let file = folder.join(version).join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        let top = name.split('/').next().unwrap();
        let _ = symlink(format!("..data/{top}"), folder.join(top));
    }
    symlink(version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[tokio::test]
async fn folders_mounted_by_kubernetes_are_followed() {
    let project = project();
    let (secrets, files) = (project.path("credentials"), project.path("mounted"));
    std::fs::remove_dir_all(&secrets).unwrap();
    let secret = "github_webhook_secret/acme/secret";
    mount(&secrets, "..1", &[(secret, SECRET)]);
    let two = format!("{ONE_SOURCE}[webhooks.second]\ntype = \"github\"\ncredential = \"acme\"\n");
    mount(&files, "..1", &[("config.toml", &config(ONE_SOURCE)), ("triage/config.toml", &wanting("[\"push\"]"))]);
    for (name, target) in [("config.toml", "mounted/config.toml"), ("agents", "mounted")] {
        let _ = std::fs::remove_file(project.path(name)).or_else(|_| std::fs::remove_dir_all(project.path(name)));
        symlink(target, project.path(name)).unwrap();
    }
    let gateway = project.serve();
    assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty());

    mount(&secrets, "..2", &[(secret, "another")]);
    generation(&gateway, 2).await;
    assert_eq!(code(gateway.send("/v1/webhooks/github/acme", sample("issues.opened")).await), "signature_mismatch");
    assert_eq!(gateway.ring(signed_with("another")).await.runs.len(), 0);

    mount(&files, "..2", &[("config.toml", &config(&two)), ("triage/config.toml", &wanting("[\"issues\"]"))]);
    std::fs::remove_dir_all(files.join("..1")).unwrap();
    generation(&gateway, 3).await;
    assert_eq!(gateway.client.sources().await.unwrap().sources.len(), 2);
    assert_eq!(gateway.ring(signed_with("another")).await.runs.len(), 1);
}

/// Some file systems, and some ways to link, tell nothing of a change.
#[tokio::test]
async fn a_change_that_the_system_does_not_tell_is_found_anyway() {
    let project = project();
    let files = project.path("mounted");
    mount(&files, "..1", &[("agent.toml", &wanting("[\"push\"]"))]);
    std::fs::remove_file(project.path("agents/triage/config.toml")).unwrap();
    symlink(files.join("..data/agent.toml"), project.path("agents/triage/config.toml")).unwrap();
    let gateway = project.serve();
    mount(&files, "..2", &[("agent.toml", &wanting("[\"issues\"]"))]);
    generation(&gateway, 2).await;
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 1);
}

fn signed_with(secret: &str) -> Signed {
    let key = Github.prepare(&Secret::new(secret)).unwrap();
    let body = sample("issues.opened").body;
    Github.sign(Some(&key), Unsent::new("issues.opened", body, &fresh_id(), doorbell::clock::now()))
}

fn code(answer: Answer) -> String {
    match answer {
        Answer::Problem(problem) => problem.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_seen_everywhere_until_it_is_mended() {
    let project = project();
    let gateway = project.serve();
    let mut activity = Box::pin(gateway.client.event_stream(None).await.unwrap());
    let before = state(&gateway).await;
    // One mistake in each of two files: both are told, and the good half of the change is not taken over.
    project.agent("second", ANY, "true");
    project.write("agents/third/config.toml", "evnets = [");
    rename_over(&project, "config.toml", &config(&ONE_SOURCE.replace("credential", "credentail")));
    let told = wait_until("both mistakes", async || {
        let error = refused(&gateway).await.error.unwrap();
        (error.contains("did you mean `credential`?") && error.contains("agents/third/config.toml:1")).then_some(error)
    })
    .await;
    let after = state(&gateway).await;
    assert_eq!((after.generation, after.loaded_at), (before.generation, before.loaded_at));
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 1);
    assert_eq!(agents(&gateway).await, ["triage"]);
    let shown = String::from_utf8(project.run(&["config"]).stderr).unwrap();
    assert!(told.lines().all(|line| shown.contains(line)), "{told}\n---\n{shown}");
    project.log_with("did you mean `credential`?");
    assert_eq!(metric(&gateway, "doorbell_config_last_reload_successful").await, "0");
    let stat = String::from_utf8(project.run(&["stat"]).stdout).unwrap();
    assert!(stat.contains("configuration 1,") && stat.contains("did you mean `credential`?"), "{stat}");

    std::fs::remove_dir_all(project.path("agents/third")).unwrap();
    rename_over(&project, "config.toml", &config(ONE_SOURCE));
    let mended = generation(&gateway, 2).await;
    assert_eq!(mended.error, None);
    assert_eq!(agents(&gateway).await, ["second", "triage"]);
    assert_eq!(metric(&gateway, "doorbell_config_last_reload_successful").await, "1");
    assert_eq!(metric(&gateway, "doorbell_config_generation").await, "2");
    project.log_with("agent second added");
    let (mut refusals, mut changes) = (0, Vec::new());
    while changes.is_empty() {
        if let api::Activity::Config { reload } = activity.next().await.unwrap().unwrap() {
            refusals += usize::from(reload.error.is_some());
            changes = reload.changes;
        }
    }
    assert!(refusals > 0);
    assert_eq!(changes, ["agent second added"]);
}

async fn metric(gateway: &Gateway, name: &str) -> String {
    let text = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}:\n{text}")).split(' ').nth(1).unwrap().to_owned()
}

/// The first half of the file is a good configuration that wants more events than the whole.
#[tokio::test]
async fn a_file_that_is_still_being_written_is_waited_for() {
    let project = project();
    let runtime = "[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n";
    let file = project.path("agents/triage/config.toml");
    std::fs::write(&file, format!("{runtime}{ANY}\nevents = [\"push\"]\n")).unwrap();
    let gateway = project.serve();
    let mut writer = std::fs::File::create(&file).unwrap();
    writer.write_all(format!("{runtime}{ANY}\n").as_bytes()).unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty());
    }
    writer.write_all(b"events = [\"push\", \"issues\"]\nactions = [\"closed\"]\n").unwrap();
    drop(writer);
    generation(&gateway, 2).await;
    assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty());
    assert_eq!(gateway.client.agents().await.unwrap().agents.len(), 1);
    // Nobody waits for the writer when a person asks.
    let mut writer = std::fs::File::create(&file).unwrap();
    writer.write_all(format!("{runtime}{ANY}\n").as_bytes()).unwrap();
    gateway.signal(Signal::SIGHUP);
    generation(&gateway, 3).await;
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 1);
}

#[tokio::test]
async fn without_hot_reload_only_sighup_takes_changes_over() {
    let project = project();
    project.write("config.toml", &format!("[gateway]\nlisten = \"127.0.0.1:0\"\nhot_reload = false\n{ONE_SOURCE}"));
    let gateway = project.serve();
    project.write("agents/triage/config.toml", &wanting("[\"push\"]"));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 1);
    }
    gateway.signal(Signal::SIGHUP);
    generation(&gateway, 2).await;
    assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty());
    // What is read then may turn watching on.
    project.write("config.toml", &config(ONE_SOURCE));
    gateway.signal(Signal::SIGHUP);
    generation(&gateway, 3).await;
    project.write("agents/triage/config.toml", &wanting("[\"issues\"]"));
    generation(&gateway, 4).await;
    assert_eq!(gateway.ring(sample("issues.opened")).await.runs.len(), 1);
}

#[tokio::test]
async fn what_is_read_at_the_start_stays_and_is_said_to_need_a_restart() {
    let project = project();
    let gateway = project.serve();
    let moved = "[gateway]\nlisten = \"127.0.0.1:1\"\nmax_body = \"2KiB\"\n[store]\nurl = \"sqlite:other.db\"\n";
    project.write("config.toml", &format!("{moved}{ONE_SOURCE}"));
    generation(&gateway, 2).await;
    for said in [
        "gateway.listen = \"127.0.0.1:1\" needs a restart",
        "store.url = \"sqlite:other.db\" needs a restart",
        "gateway.max_body changed",
    ] {
        project.log_with(said);
    }
    let large = Github.sign(
        Some(&crate::support::key()),
        Unsent::new("issues.opened", vec![b' '; 3000], "1", doorbell::clock::now()),
    );
    assert_eq!(code(gateway.send("/v1/webhooks/github/acme", large).await), "body_too_large");
    assert_eq!(gateway.client.stats().await.unwrap().events, Some(0));
    assert!(!project.path("other.db").exists());
}

/// Events keep being explained by the triggers that were in force when they came.
#[tokio::test]
async fn why_speaks_of_the_triggers_that_were_in_force() {
    let project = project();
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await.delivery_id;
    project.write("agents/triage/config.toml", &wanting("[\"push\"]"));
    generation(&gateway, 2).await;
    let second = gateway.ring(sample("issues.opened")).await.delivery_id;
    project.agent("triage", ANY, "true");
    generation(&gateway, 3).await;
    let third = gateway.ring(sample("issues.opened")).await.delivery_id;
    let mut seen = Vec::new();
    for event in [first, second, third] {
        let why = gateway.client.explain(&event).await.unwrap();
        seen.push((why.trigger_set, why.verdicts.iter().map(|verdict| verdict.matched).collect::<Vec<_>>()));
    }
    let (one, two) = (seen[0].0, seen[1].0);
    assert_ne!(one, two);
    assert_eq!(seen, [(one, vec![true]), (two, vec![false]), (one, vec![true])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_changed_under_load_without_a_refusal() {
    let project = project();
    project.agent("triage", &format!("{ANY}\nevents = [\"push\"]"), "true");
    let gateway = project.serve();
    let (secret, stop) = (Mutex::new(SECRET), AtomicBool::new(false));
    let taken = [const { AtomicUsize::new(0) }; 4];
    // `ring` panics if anything but a receipt comes.
    let lanes = futures_util::future::join_all(taken.iter().map(async |taken| {
        while !stop.load(Ordering::Relaxed) {
            let signed = signed_with(*secret.lock().unwrap());
            gateway.ring(signed).await;
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let some_more = async || {
        let before = taken.each_ref().map(|taken| taken.load(Ordering::Relaxed));
        wait_until("two more deliveries of each sender", async || {
            let more = taken.iter().zip(before).all(|(taken, before)| taken.load(Ordering::Relaxed) >= before + 2);
            more.then_some(())
        })
        .await;
    };
    let rotation = async {
        project.credential("github_webhook_secret", "new", "the new secret");
        project.write("config.toml", &config(&ONE_SOURCE.replace("\"acme\"", "[\"new\", \"acme\"]")));
        named(&gateway, &["new", "acme"]).await;
        *secret.lock().unwrap() = "the new secret";
        // None that was signed with the old one is on its way any more.
        some_more().await;
        project.write("config.toml", &config(&ONE_SOURCE.replace("credential = \"acme\"", "credential = \"new\"")));
        named(&gateway, &["new"]).await;
        some_more().await;
        stop.store(true, Ordering::Relaxed);
    };
    futures_util::future::join(lanes, rotation).await;
    assert_eq!(code(gateway.send("/v1/webhooks/github/acme", signed_with(SECRET)).await), "signature_mismatch");
}

async fn named(gateway: &Gateway, credentials: &[&str]) {
    wait_until("the source's credentials", async || {
        (gateway.client.sources().await.unwrap().sources[0].credentials == credentials).then_some(())
    })
    .await;
}

/// Until a file with the run's name is there.
const UNTIL_TOLD: &str = "until test -e \"$HOME/$DOORBELL_RUN_ID\"; do sleep 0.02; done";

fn tell(project: &Project, run: &str) {
    project.write(&format!("home/{run}"), "");
}

#[tokio::test]
async fn what_waits_for_a_removed_agent_is_held_until_it_is_back() {
    let project = Project::new(ONE_SOURCE);
    let config = format!("{ANY}\n[retries]\nattempts = 2\nbackoff = {{ initial = \"1ms\", jitter = false }}");
    let failing_first = format!("{UNTIL_TOLD}; test $DOORBELL_ATTEMPT = 2");
    project.agent("triage", &config, &failing_first);
    let gateway = project.serve();
    let running = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&running, "running").await;
    let queued = gateway.ring(sample("issues.opened")).await.runs.remove(0);

    std::fs::rename(project.path("agents/triage"), project.path("away")).unwrap();
    let held = gateway.in_state(&queued, "held").await.run;
    assert_eq!(held.reason.as_deref(), Some("its agent was removed from the configuration"));
    assert_eq!(gateway.client.run(&running).await.unwrap().run.state, "running", "what runs goes on");
    assert!(gateway.ring(sample("issues.opened")).await.runs.is_empty(), "nobody wants it");
    // Its next try waits for the agent, too.
    tell(&project, &running);
    let held = gateway.in_state(&running, "held").await;
    assert_eq!(held.attempts[0].exit_code, Some(1));

    std::fs::rename(project.path("away"), project.path("agents/triage")).unwrap();
    tell(&project, &queued);
    for run in [running, queued] {
        let done = gateway.finished(&run).await;
        assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 2));
    }
}

#[tokio::test]
async fn an_agent_that_was_removed_while_nothing_ran_is_held_at_the_start() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, UNTIL_TOLD);
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&first, "running").await;
    let second = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.kill();
    std::fs::rename(project.path("agents/triage"), project.path("away")).unwrap();
    let gateway = project.serve();
    gateway.in_state(&first, "held").await;
    gateway.in_state(&second, "held").await;
    std::fs::create_dir_all(project.path("agents")).unwrap();
    std::fs::rename(project.path("away"), project.path("agents/triage")).unwrap();
    for run in [first, second] {
        tell(&project, &run);
        assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
    }
}

#[tokio::test]
async fn another_scale_takes_effect_and_ends_nothing() {
    let project = Project::new(ONE_SOURCE);
    let agent = |scale: u32| project.agent("triage", &format!("scale = {scale}\n{ANY}"), UNTIL_TOLD);
    agent(1);
    let gateway = project.serve();
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.extend(gateway.ring(sample("issues.opened")).await.runs);
    }
    let counts = async |running: u64, queued: u64| {
        wait_until(&format!("{running} to run and {queued} to wait"), async || {
            let agent = gateway.client.stats().await.unwrap().agents.remove(0);
            (agent.running == running && agent.queued == queued).then_some(())
        })
        .await;
    };
    counts(1, 3).await;
    agent(3);
    counts(3, 1).await;
    agent(1);
    generation(&gateway, 3).await;
    counts(3, 1).await;
    // The places that are given back are not taken again, until fewer run than may.
    for (told, run) in runs[..2].iter().enumerate() {
        tell(&project, run);
        gateway.finished(run).await;
        counts(2 - told as u64, 1).await;
    }
    agent(0);
    generation(&gateway, 4).await;
    tell(&project, &runs[2]);
    gateway.finished(&runs[2]).await;
    counts(0, 1).await;
    agent(1);
    tell(&project, &runs[3]);
    assert_eq!(gateway.finished(&runs[3]).await.run.state, "succeeded");
}

/// Agents come, go and change while deliveries come in: each event has what the triggers in force for it say, once, and
/// every run ends after one try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_under_load_lose_and_double_nothing() {
    const RELOADS: u64 = 200;
    let project = Project::new(ONE_SOURCE);
    let agent = |name: &str, scale: u64| {
        project.agent(name, &format!("scale = {scale}\nwhen_full = \"grow\"\n{ANY}"), "true");
    };
    agent("always", 4);
    let gateway = project.serve();
    let mut events = Vec::new();
    for reload in 0..RELOADS {
        let save = async {
            agent("always", 1 + reload % 4);
            match reload % 3 {
                0 => agent("often", 4),
                1 => agent("often", 3),
                _ => std::fs::rename(project.path("agents/often"), project.path(&format!("gone-{reload}"))).unwrap(),
            }
            gateway.signal(Signal::SIGHUP);
            generation(&gateway, reload + 2).await;
        };
        let load = futures_util::future::join_all((0..2).map(|_| gateway.ring(sample("issues.opened"))));
        let (taken, ()) = futures_util::future::join(load, save).await;
        events.extend(taken);
    }
    agent("often", 4);
    wait_until("all runs to end", async || {
        let agents = gateway.client.stats().await.unwrap().agents;
        agents.iter().all(|agent| agent.held + agent.queued + agent.running + agent.waiting == 0).then_some(())
    })
    .await;
    let mut often = 0;
    for receipt in &events {
        let why = gateway.client.explain(&receipt.delivery_id).await.unwrap();
        let wanted: Vec<&str> = why.verdicts.iter().filter(|v| v.matched).map(|v| v.agent.as_str()).collect();
        let started: Vec<&str> = why.event.outcomes.iter().map(|outcome| outcome.agent.as_str()).collect();
        assert_eq!(started, wanted);
        assert!(started.contains(&"always"));
        often += u64::from(started.contains(&"often"));
        for run in &receipt.runs {
            let run = gateway.client.run(run).await.unwrap();
            assert_eq!((run.run.state.as_str(), run.attempts.len()), ("succeeded", 1), "{run:?}");
        }
    }
    let stats = gateway.client.stats().await.unwrap();
    assert_eq!(stats.events, Some(2 * RELOADS));
    let ended: Vec<(&str, u64)> = stats.agents.iter().map(|agent| (agent.name.as_str(), agent.succeeded)).collect();
    assert_eq!(ended, [("always", 2 * RELOADS), ("often", often)]);
    assert!(often > 0 && often < 2 * RELOADS, "{often}");
}

/// A gateway in a terminal ends with it, although SIGHUP asks others to read their files again.
#[test]
fn a_gateway_ends_with_its_terminal() {
    let project = project();
    let log = project.path("gateway.log");
    let mut command = project
        .prepare("script", &["-qec", &format!("{} serve 2>{}", crate::support::PROGRAM, log.display()), "/dev/null"]);
    let mut terminal = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let address = project.path(".doorbell/gateway.json");
    let pid = wait_for("the gateway to listen", || {
        let found: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&address).ok()?).ok()?;
        i32::try_from(found["pid"].as_i64()?).ok()
    });
    let _gateway = Ended(pid);
    wait_for("it to heed SIGTERM, the last signal that it listens to", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & (1 << (Signal::SIGTERM as u64 - 1)) != 0).then_some(())
    });
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_for("the gateway to end in order", || project.read("gateway.log").contains("gateway.closed").then_some(()));
}

/// A process that is ended when this is dropped, should it be there still.
struct Ended(i32);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0), Signal::SIGKILL);
    }
}
