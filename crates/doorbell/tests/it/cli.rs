//! The program as its users meet it.

use std::io::{BufRead, Read, Write};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::{Background, ONE_SOURCE, Project, SECRET, sample, wait_for};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "echo hello from the agent");
    project
}

#[test]
fn the_demo_shows_the_main_job_and_succeeds() {
    let project = project();
    let output = project.run(&["demo", "--once"]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    let mut rest = shown.as_str();
    for step in ["received", "github.issues.opened", "verified", "stored", "started", "stdout", "succeeded", "result"] {
        let at = rest.find(step).unwrap_or_else(|| panic!("`{step}` is missing or out of order in:\n{shown}"));
        rest = &rest[at..];
    }
}

#[test]
fn a_demo_that_is_ended_before_its_run_succeeded_fails() {
    let project = project();
    let mut demo = project.doorbell(&["demo", "--once"]);
    let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = std::io::BufReader::new(demo.stdout.take().unwrap());
    let mut shown = String::new();
    out.read_line(&mut shown).unwrap();
    let pid = nix::unistd::Pid::from_raw(demo.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    out.read_to_string(&mut shown).unwrap();
    let ended = demo.wait().unwrap();
    assert_eq!(ended.success(), shown.contains("succeeded"), "{ended}: {shown}");
}

#[test]
fn the_demo_prints_one_object_a_line_for_machines() {
    let project = project();
    let output = project.run(&["demo", "--once", "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let types = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].clone());
    let types = types.collect::<Vec<_>>();
    assert!(types.contains(&"event".into()) && types.contains(&"run".into()), "{types:?}");
}

#[tokio::test]
async fn a_new_project_runs_its_agent_with_nothing_to_set_up() {
    let project = project();
    let output = project.run(&["init", "fresh"]);
    assert!(output.status.success(), "{}", text(&output));
    let again = project.run(&["init", "fresh"]);
    assert!(!text(&again).contains("panicked"));
    let root = project.path("fresh");
    let _gateway = Background::start(project.doorbell(&["serve", "--listen", "127.0.0.1:0", "-p", "fresh"]));
    wait_for("the gateway", || root.join(".doorbell/gateway.json").exists().then_some(()));
    let ring = project.run(&["ring", "github", "issues.opened", "-p", "fresh"]);
    assert!(ring.status.success(), "{}", text(&ring));
    let run = project.json(&["runs", "-p", "fresh"])["runs"][0]["id"].as_str().unwrap().to_owned();
    let run = wait_for("the run to end", || {
        let run = project.json(&["runs", "show", &run, "-p", "fresh"]);
        run["finishedAt"].is_string().then_some(run)
    });
    assert_eq!(run["state"], "succeeded", "{run}");
    assert!(run["result"].is_object(), "{run}");
}

#[test]
fn init_says_when_the_agents_program_is_not_installed() {
    let project = Project::new("");
    let without = project.doorbell(&["init", "without", "--preset", "amp"]).env("PATH", "/nowhere").output().unwrap();
    assert!(text(&without).contains("runs would fail now: there is no program `amp` in PATH"), "{}", text(&without));
    project.program("amp", "exit 0");
    let with = project.run(&["init", "with", "--preset", "amp"]);
    assert!(with.status.success() && !text(&with).contains("would fail"), "{}", text(&with));
}

#[tokio::test]
async fn every_command_shows_what_happened() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    gateway.finished(&receipt.runs[0]).await;
    let (event, run) = (receipt.delivery_id.as_str(), receipt.runs[0].as_str());
    for (args, shows) in [
        (vec!["events"], "github.issues.opened"),
        (vec!["events", "show", event], "acme/app"),
        (vec!["why", event], "triage"),
        (vec!["runs"], "succeeded"),
        (vec!["runs", "show", run], "succeeded"),
        (vec!["logs", run], "hello from the agent"),
        (vec!["logs", "-f", run], "hello from the agent"),
        (vec!["stat"], "triage"),
        (vec!["sources"], "acme"),
        (vec!["agents"], "triage"),
        (vec!["config"], "config.toml:2"),
        (vec!["creds", "ls"], "github_webhook_secret"),
        (vec!["creds", "types"], "generic_webhook_secret"),
    ] {
        let output = project.run(&args);
        assert!(output.status.success() && text(&output).contains(shows), "{args:?}: {}", text(&output));
        assert!(!text(&output).contains(SECRET), "{args:?}");
        let json = project.run(&[args.as_slice(), &["--json"]].concat());
        assert!(json.status.success(), "{args:?}: {}", text(&json));
        // What follows has one object a line, the others one in all.
        let documents = serde_json::Deserializer::from_slice(&json.stdout).into_iter::<Value>();
        assert!(documents.map(Result::unwrap).count() > 0, "{args:?}");
    }
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let project = project();
    let code = |args: &[&str]| project.run(args).status.code();
    assert_eq!(code(&["events"]), Some(5), "nothing runs");
    assert_eq!(code(&["--nonsense"]), Some(2));
    assert_eq!(code(&["events", "--url", "http://127.0.0.1:1"]), Some(5));
    let gateway = project.serve();
    assert_eq!(code(&["events"]), Some(0));
    assert_eq!(code(&["why", "evt_00000000000000000000000000"]), Some(3));
    assert_eq!(code(&["runs", "show", "nonsense"]), Some(3));
    assert_eq!(code(&["events", "--url", "notaurl"]), Some(2), "it is no URL");
    assert_eq!(code(&["events", "--url", "ftp://gateway"]), Some(2));
    assert_eq!(code(&["events", "--url", &gateway.url, "--key", "dbk_wrong"]), Some(4));
}

#[test]
fn config_errors_show_the_line_and_come_all_at_once() {
    let project = Project::new("[webhooks.acme]\ntype = \"github\"\n[webhooks.other]\ntype = \"githbu\"\n");
    project.agent(
        "triage",
        "scael = 2\n[[webhooks]]\nsource = \"acmee\"\n[[webhooks]]\nsource = \"acme\"\nevnets = [\"issues\"]",
        "true",
    );
    let output = project.run(&["serve"]);
    let shown = text(&output);
    assert!(!output.status.success());
    for expected in [
        "config.toml:3",
        "allow_unsigned",
        "config.toml:6",
        "github",
        "agents/triage/config.toml:1",
        "scale",
        "acme",
        "events",
    ] {
        assert!(shown.contains(expected), "`{expected}` is missing in:\n{shown}");
    }
}

#[test]
fn keys_that_are_not_built_yet_are_refused_by_name() {
    let project = project();
    let file = "agents/triage/config.toml";
    project.write(file, &format!("{}\nsession = \"repo\"\n", project.read(file)));
    // Should it be taken one day, this must not go on for ever.
    let output = project.run(&["config"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("session") && text(&output).contains("not supported yet"), "{}", text(&output));
}

#[test]
fn a_secret_is_added_from_standard_input_and_listed_without_its_value() {
    let project = project();
    let add = |secret: &str| {
        let mut child = project.doorbell(&["creds", "add", "deploy_token:acme", "--field", "token", "--stdin"]);
        child.env_remove("DOORBELL_CREDENTIALS_DIR");
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert!(add("first-value").contains("kept deploy_token:acme"));
    assert!(add("hidden-value\n").contains("replaced deploy_token:acme"), "an earlier one is not lost in silence");
    let file = project.path("home/.doorbell/credentials/deploy_token/acme/token");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hidden-value");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let listed = project.doorbell(&["creds", "ls"]).env_remove("DOORBELL_CREDENTIALS_DIR").output().unwrap();
    assert!(text(&listed).contains("deploy_token") && !text(&listed).contains("hidden-value"), "{}", text(&listed));
}

#[test]
fn keys_are_made_with_and_without_a_running_gateway() {
    let project = project();
    let args = ["keys", "create", "--name", "ci", "--role", "viewer"];
    let offline = project.json(&args);
    let gateway = project.serve();
    let online = project.json(&args);
    for created in [offline, online] {
        let key = created["key"].as_str().unwrap();
        let output = project.run(&["stat", "--url", &gateway.url, "--key", key]);
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn two_gateways_never_share_a_project() {
    let project = project();
    let gateway = project.serve();
    let output = project.run(&["serve"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("another") && text(&output).contains(&gateway.url), "{}", text(&output));
}

#[test]
fn ring_tells_accepted_duplicate_and_refused() {
    let project = project();
    let _gateway = project.serve();
    let many = project.run(&["ring", "github", "issues.opened", "--count", "50"]);
    assert!(many.status.success() && text(&many).contains("50") && text(&many).contains("p99"), "{}", text(&many));
    for wrong in ["--tamper", "--unsigned"] {
        let output = project.run(&["ring", "github", "issues.opened", wrong]);
        assert!(output.status.success() && text(&output).contains("401"), "{}", text(&output));
    }
    project.write("own.json", "{\"action\":\"opened\",\"issue\":{\"number\":1}}");
    let own = project.run(&["ring", "github", "issues", "--file", "own.json"]);
    assert!(own.status.success() && text(&own).contains("github.issues.opened"), "{}", text(&own));
    let samples = project.run(&["ring", "github"]);
    for event in
        ["issues", "issue_comment", "pull_request", "pull_request_review", "push", "workflow_run", "release", "ping"]
    {
        assert!(text(&samples).contains(event), "{event}");
        let output = project.run(&["ring", "github", event]);
        assert!(output.status.success(), "{event}: {}", text(&output));
    }
}

#[tokio::test]
async fn what_senders_write_cannot_play_with_the_terminal() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(crate::support::issue("\u{1b}[2Jgone \u{202e}reversed")).await;
    for args in [vec!["events", "show", &receipt.delivery_id], vec!["why", &receipt.delivery_id], vec!["events"]] {
        let shown = text(&project.run(&args));
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{args:?}: {shown}");
    }
}

#[test]
fn a_key_can_be_taken_away_with_and_without_a_running_gateway() {
    let project = project();
    let make = || project.json(&["keys", "create", "--name", "ci", "--role", "viewer"]);
    let offline = make();
    let listed = project.json(&["keys", "ls"]);
    assert_eq!(listed["keys"][0]["keyId"], offline["keyId"]);
    project.json(&["keys", "rm", offline["keyId"].as_str().unwrap()]);
    assert_eq!(project.json(&["keys", "ls"])["keys"].as_array().unwrap().len(), 0);
    let gateway = project.serve();
    let online = make();
    let (id, key) = (online["keyId"].as_str().unwrap(), online["key"].as_str().unwrap());
    assert!(text(&project.run(&["keys", "ls"])).contains(id));
    assert!(project.run(&["keys", "rm", id]).status.success());
    assert_eq!(project.run(&["stat", "--url", &gateway.url, "--key", key]).status.code(), Some(4));
    assert_eq!(project.run(&["keys", "rm", id]).status.code(), Some(3), "it is gone");
}

#[tokio::test]
async fn a_filter_by_a_name_that_nothing_has_is_an_error_and_a_removed_one_is_not() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    gateway.finished(&receipt.runs[0]).await;
    for args in [
        vec!["events", "--source", "acmee"],
        vec!["events", "--source", "acmee", "--json"],
        vec!["events", "rm", "--source", "acmee", "--yes"],
        vec!["runs", "--agent", "triag"],
    ] {
        let output = project.run(&args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", text(&output));
        assert!(text(&output).contains("there is no ") && text(&output).contains("did you mean"), "{}", text(&output));
    }
    let none = project.run(&["events", "--source", "acme", "--event", "push"]);
    assert!(none.status.success() && text(&none).contains("no such events"), "{}", text(&none));
    drop(gateway);
    std::fs::remove_dir_all(project.path("agents/triage")).unwrap();
    project.write("config.toml", "[gateway]\nlisten = \"127.0.0.1:0\"\n");
    let _gateway = project.serve();
    for args in
        [vec!["events", "--source", "acme", "--event", "push"], vec!["runs", "--agent", "triage", "--dead-letter"]]
    {
        assert!(project.run(&args).status.success(), "{args:?}");
    }
}

#[test]
fn with_json_errors_are_json_on_standard_error() {
    let project = project();
    let error = |args: &[&str]| -> Value {
        let output = project.run(args);
        assert!(output.stdout.is_empty() && !output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stderr).unwrap_or_else(|_| panic!("{output:?}"))["error"].clone()
    };
    let nobody = error(&["events", "--json"]);
    assert!(nobody["code"] == "unreachable" && nobody["message"].is_string(), "{nobody}");
    assert_eq!(error(&["events", "--limit", "1000", "--json"])["code"], "usage");
    let gateway = project.serve();
    let wrong = error(&["events", "--url", &gateway.url, "--key", "dbk_wrong", "--json"]);
    assert!(wrong["code"] == "key_invalid" && wrong["hint"].is_string(), "{wrong}");
    assert_eq!(error(&["why", "evt_00000000000000000000000000", "--json"])["code"], "not_found");
    project.write("config.toml", "nonsense");
    assert_eq!(error(&["config", "--json"])["code"], "config_invalid");
}

#[test]
fn dev_that_is_told_to_end_warns_of_nothing() {
    let project = project();
    let mut command = project.doorbell(&["dev", "--json"]);
    let log = std::fs::File::create(project.path("dev.log")).unwrap();
    let child = command.stdout(std::fs::File::create(project.path("dev.out")).unwrap()).stderr(log).spawn();
    let mut child = child.unwrap();
    wait_for("the gateway", || project.path(".doorbell/gateway.json").exists().then_some(()));
    assert!(project.run(&["ring", "github", "issues.opened"]).status.success());
    wait_for("what came to be shown", || project.read("dev.out").contains("succeeded").then_some(()));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    let said = project.read("dev.log");
    assert!(said.contains("closing") && !said.contains("warning"), "{said}");
}

#[test]
fn ring_explains_what_may_surprise() {
    let project = Project::new(&format!("{ONE_SOURCE}[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n"));
    let limits = "work_queue_size = 1\nwhen_full = \"drop_oldest\"";
    project.agent("triage", &format!("{limits}\n{ANY}"), "sleep 1000");
    let gateway = project.serve();
    project.write("own.json", "{}");
    for wrong in ["--unsigned", "--tamper"] {
        let open = text(&project.run(&["ring", "generic", "deployed", "--file", "own.json", wrong]));
        assert!(open.contains("`lab` has `allow_unsigned = true`"), "{open}");
    }
    let nowhere = format!("{}/webhooks/nothing", gateway.url);
    let lost = project.run(&["ring", "github", "issues.opened", "--to", &nowhere]);
    assert!(!lost.status.success() && text(&lost).contains("`doorbell sources` prints"), "{}", text(&lost));
    let many = project.run(&["ring", "github", "issues.opened", "--count", "20"]);
    assert!(many.status.success(), "{}", text(&many));
    assert!(text(&many).contains("runs of `triage` were dropped"), "{}", text(&many));
}

#[test]
fn a_secret_that_a_source_verifies_with_is_not_removed() {
    let project = Project::new(ONE_SOURCE);
    let output = project.run(&["creds", "rm", "github_webhook_secret:acme", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("`acme`") && said.contains("config.toml"), "{said}");
    assert!(project.run(&["config"]).status.success(), "it is still there");
    project.write("config.toml", "[gateway]\nlisten = \"127.0.0.1:0\"\n");
    let output = project.run(&["creds", "rm", "github_webhook_secret:acme", "--yes"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("verifies with"), "{output:?}");
}

#[tokio::test]
async fn events_with_several_outcomes_show_each_on_a_line_of_its_own() {
    let project = project();
    project.agent("notify", ANY, "true");
    let gateway = project.serve();
    gateway.ring(sample("issues.opened")).await;
    let shown = text(&project.run(&["events"]));
    assert!(shown.contains("triage: started") && shown.contains("notify: started"), "{shown}");
    assert!(!shown.contains("\\u{"), "{shown}");
}

#[tokio::test]
async fn a_key_for_an_agent_that_there_is_not_is_not_found_and_every_agent_is_named_once() {
    let project = project();
    let args = ["keys", "create", "--name", "x", "--role", "agent", "--agent", "nosuch"];
    let offline = project.run(&args);
    assert_eq!(offline.status.code(), Some(3), "{}", text(&offline));
    let gateway = project.serve();
    project.write("agent.json", r#"{"runtime":{"type":"worker"}}"#);
    project.json(&["agents", "declare", "coded", "--file", "agent.json"]);
    let online = project.run(&args);
    assert_eq!(online.status.code(), Some(3), "{}", text(&online));
    let wish = doorbell_client::api::NewKey {
        name: "x".to_owned(),
        role: "agent".to_owned(),
        agent: Some("nosuch".to_owned()),
        ..Default::default()
    };
    let refused = gateway.client.create_key(&wish).await.unwrap_err().to_string();
    assert!(refused.contains("there are: coded, triage ("), "{refused}");
    drop(gateway);
    let offline = text(&project.run(&args));
    assert_eq!(offline.matches("coded").count(), 1, "{offline}");
}
