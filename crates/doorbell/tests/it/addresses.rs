//! Where a gateway listens, and what is served where.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_for};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn split_project() -> Project {
    let project = Project::new(&format!("admin_listen = \"127.0.0.1:0\"\n{ONE_SOURCE}"));
    project.agent("triage", ANY, "echo $DOORBELL_URL");
    project
}

pub(crate) fn senders_url(project: &Project) -> String {
    let address: Value = serde_json::from_str(&project.read(".doorbell/gateway.json")).unwrap();
    address["ingest"].as_str().unwrap().to_owned()
}

async fn status(gateway: &Gateway, url: &str, path: &str, forwarded: bool) -> u16 {
    let request = reqwest::Client::new().get(format!("{url}/{path}")).bearer_auth(&gateway.key);
    let request = if forwarded { request.header("x-forwarded-for", "192.0.2.1") } else { request };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn with_admin_listen_senders_reach_ingest_and_nothing_else() {
    let project = split_project();
    let gateway = project.serve();
    let senders = senders_url(&project);
    for path in
        ["v1/stats", "v1/events", "v1/runs", "v1/agents", "v1/sources", "readyz", "metrics", "openapi.json", "docs/api"]
    {
        assert_eq!(status(&gateway, &senders, path, false).await, 404, "{path}");
        assert_eq!(status(&gateway, &gateway.url, path, false).await, 200, "{path}");
    }
    for url in [&senders, &gateway.url] {
        assert_eq!(status(&gateway, url, "healthz", false).await, 200);
    }
    let ingest = format!("{}/v1/webhooks/github/acme", gateway.url);
    let refused = reqwest::Client::new().post(ingest).body(sample("issues.opened").body).send().await.unwrap();
    assert_eq!(refused.status(), 404, "deliveries have an address of their own");
}

#[tokio::test]
async fn metrics_are_open_on_admin_listen_also_for_another_machine() {
    let project = split_project();
    let gateway = project.serve();
    let url = format!("{}/metrics", gateway.url);
    let response = reqwest::Client::new().get(url).header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn commands_and_agents_find_the_api_and_ring_finds_the_sources() {
    let project = split_project();
    let gateway = project.serve();
    let ring = project.run(&["ring", "github", "issues.opened"]);
    assert!(ring.status.success(), "{ring:?}");
    let run = project.json(&["runs"])["runs"][0]["id"].as_str().unwrap().to_owned();
    gateway.finished(&run).await;
    assert_eq!(gateway.stdout(&run).await, gateway.url);
    let url = project.json(&["sources"])["sources"][0]["url"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("{}/v1/webhooks/github/acme", senders_url(&project)));
    assert_eq!(gateway.terminate(), Some(0));
}

#[test]
fn two_addresses_that_are_one_are_refused() {
    let project = Project::new("");
    for (listen, admin) in [("127.0.0.1:8080", "127.0.0.1:8080"), ("0.0.0.0:8080", "127.0.0.1:8080")] {
        project.write("config.toml", &format!("[gateway]\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n"));
        let output = project.run(&["config"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("config.toml:3") && said.contains("of its own"), "{said}");
    }
}

#[test]
fn an_admin_address_that_is_taken_names_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken = std::net::TcpListener::bind(taken).unwrap();
    let project = Project::new(&format!("admin_listen = \"{}\"\n{ONE_SOURCE}", taken.local_addr().unwrap()));
    let output = project.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("admin_listen"), "{said}");
}

/// What it says on standard error until it has said this.
fn says(mut command: Command, words: &str) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    while !said.contains(words) && lines.read_line(&mut said).unwrap() > 0 {}
    end(child);
    lines.read_to_string(&mut said).unwrap();
    said
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_gateway_on_all_addresses_says_one_that_can_be_called() {
    let project = Project::new(ONE_SOURCE);
    let said = says(project.doorbell(&["serve", "--listen", "0.0.0.0:0"]), "listens on");
    assert!(said.contains("listens on http://127.0.0.1:") && said.contains("every other address"), "{said}");
}

#[test]
fn a_name_instead_of_an_address_says_what_to_write() {
    let output = Project::new(ONE_SOURCE).run(&["serve", "--listen", "localhost:9"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("127.0.0.1:9"), "{said}");
}

#[test]
fn warnings_of_the_configuration_follow_the_form_of_the_log() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("models = [\"x\"]\n{ANY}"), "true");
    let said = says(project.doorbell(&["serve", "--log-format", "json"]), "gateway.started");
    for line in said.lines().filter(|line| !line.is_empty()) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    }
    assert!(said.contains("config.warning") && said.contains("`models` means nothing here"), "{said}");
}

#[test]
fn a_missing_credential_of_an_agent_is_shown_where_it_can_be_put() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let file = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &format!("{file}credentials = [\"github_token:acme\"]\n"));
    let output = project.run(&["config"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("DOORBELL_CREDENTIAL_GITHUB_TOKEN__ACME__SECRET"), "{said}");
    assert!(!said.contains("FIELD"), "{said}");
    let mut add = project.doorbell(&["creds", "add", "github_token:acme", "--stdin"]);
    let mut child = add.env_remove("DOORBELL_CREDENTIALS_DIR").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"x").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(project.run(&["config"]).status.success(), "what it says to do helps");
}

/// Process 1 of a container gets the orphans, and must wait for them.
#[test]
fn as_process_1_it_leaves_no_zombies_and_ends_in_order() {
    let project = Project::new(ONE_SOURCE);
    // Loses its parent, cleared its environment, and ends a moment later by itself.
    let script = "setsid env -i sh -c 'sleep 0.1; exit 3' & sleep 1";
    project.agent("orphans", ANY, script);
    let unshare = "unshare";
    if !project.prepare(unshare, &["-Urpf", "true"]).output().is_ok_and(|output| output.status.success()) {
        return;
    }
    // The shell is outside; it looks at the namespace's processes by their parent.
    let gateway =
        project.serve_by(project.prepare(unshare, &["-Urpf", "--mount-proc", crate::support::PROGRAM, "serve"]));
    let output = project.run(&["ring", "github", "issues.opened"]);
    assert!(output.status.success(), "{output:?}");
    let run = project.json(&["runs"])["runs"][0]["id"].as_str().unwrap().to_owned();
    wait_for("the run to end", || project.json(&["runs", "show", &run])["finishedAt"].is_string().then_some(()));
    let first = children(gateway.pid())[0];
    wait_for("the orphan to be gone", || {
        let all: Vec<i32> = children(first);
        (all.len() == 1).then_some(())
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(gateway.ended(), Some(0));
    assert!(project.read("gateway.log").contains("gateway.closed"), "{}", project.read("gateway.log"));
}

/// The processes that have this parent, zombies too.
fn children(parent: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_second_gateway_of_a_project_is_refused_also_with_a_database_of_its_own() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let (address, key) = (project.read(".doorbell/gateway.json"), project.read(".doorbell/key"));
    let mut second = project.doorbell(&["serve", "--listen", "127.0.0.1:0"]);
    let output = second.env("DOORBELL_STORE__URL", "sqlite:.doorbell/two.db").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another gateway runs for this project") && said.contains(&gateway.url), "{said}");
    assert_eq!((project.read(".doorbell/gateway.json"), project.read(".doorbell/key")), (address, key));
    assert!(!project.path(".doorbell/two.db").exists());
    assert!(gateway.client.stats().await.is_ok(), "the first is as it was");
}

#[tokio::test]
async fn a_gateway_that_ends_leaves_the_address_of_another_one() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let another = r#"{"url":"http://127.0.0.1:1","pid":7,"instance":"another"}"#;
    project.write(".doorbell/gateway.json", another);
    assert_eq!(gateway.terminate(), Some(0));
    assert_eq!(project.read(".doorbell/gateway.json"), another);
    let gateway = project.serve();
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!project.path(".doorbell/gateway.json").exists(), "its own it takes away");
}
