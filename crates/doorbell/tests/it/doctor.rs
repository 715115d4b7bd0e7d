//! `doorbell doctor`: each fault is made, and found.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Background, ONE_SOURCE, PROGRAM, Project, sample, wait_for};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    project
}

/// What doctor found: the status and the sentence (with the advice) of each finding.
#[derive(Debug)]
struct Diagnosis {
    findings: Vec<(String, String, String)>,
    code: Option<i32>,
}

impl Diagnosis {
    fn of(output: &Output) -> Self {
        let parsed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let all = parsed["findings"].as_array().unwrap().iter();
        let findings: Vec<_> = all
            .map(|f| (text(f, "check"), text(f, "status"), format!("{} → {}", text(f, "what"), text(f, "advice"))))
            .collect();
        let failed = findings.iter().any(|finding| finding.1 == "fail");
        assert_eq!(parsed["ok"], !failed);
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{output:?}");
        Self { findings, code: output.status.code() }
    }

    /// That a check says this.
    #[track_caller]
    fn says(&self, check: &str, status: &str, words: &str) {
        let said = self.findings.iter().any(|(c, s, what)| c == check && s == status && what.contains(words));
        assert!(said, "{check} does not say {status} {words:?}: {:#?}", self.findings);
    }
}

fn examine(project: &Project) -> Diagnosis {
    Diagnosis::of(&project.run(&["doctor", "--json"]))
}

fn chmod(project: &Project, path: &str, mode: u32) {
    std::fs::set_permissions(project.path(path), PermissionsExt::from_mode(mode)).unwrap();
}

/// In namespaces of its own, where a test may mount and set limits; none, which is said, where the machine does not allow
/// that. With `CI=true`, root is expected to be allowed to.
#[expect(clippy::print_stderr, reason = "says what was not tested")]
fn unshared(project: &Project, flags: &str, script: &str) -> Option<Output> {
    let works = |output: &Output| output.status.success();
    if !project.prepare("unshare", &[flags, "true"]).output().as_ref().is_ok_and(works) {
        let expected = std::env::var("CI").is_ok_and(|ci| ci == "true") && nix::unistd::geteuid().is_root();
        assert!(!expected, "this machine allows no namespaces, not even root, so that this cannot be tested");
        eprintln!("not tested: this machine allows no namespaces");
        return None;
    }
    Some(project.prepare("unshare", &[flags, "sh", "-ec", script, PROGRAM]).output().unwrap())
}

/// Answers every request with the same bytes; its URL.
async fn answering(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// A tunnel: hands bytes on to an address that is told later.
struct Tunnel {
    listener: TcpListener,
    url: String,
}

impl Tunnel {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    fn lead_to(self, url: &str) {
        let address = url.strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = self.listener.accept().await {
                let address = address.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(address).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
    }
}

async fn examine_beside(project: &Project, args: &[&str]) -> Diagnosis {
    let mut command = project.doorbell(&[&["doctor", "--json"], args].concat());
    Diagnosis::of(&tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

#[test]
fn a_project_that_is_well_passes_running_and_stopped() {
    let project = project();
    let stopped = examine(&project);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    stopped.says("gateway", "warn", "does not run");
    stopped.says("database", "ok", "first start");
    let gateway = project.serve();
    let running = examine(&project);
    assert_eq!(running.code, Some(0), "{running:?}");
    for (check, words) in [
        ("config", "1 source, 1 agent"),
        ("sources", "starts an agent"),
        ("agents", "something starts"),
        ("commands", "by the gateway's PATH"),
        ("permissions", "alone"),
        ("gateway", "runs and can store"),
        ("processes", "none bears the mark of a run that is over"),
        ("database", "is sound"),
        ("disk", "are free"),
        ("open files", "the gateway may open"),
        ("watches", "can be noticed"),
    ] {
        running.says(check, "ok", words);
    }
    running.says("public url", "warn", "reached from this machine only");
    gateway.kill();
    examine(&project).says("gateway", "warn", "did not end in order");
    let shown = project.run(&["doctor"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("→ start it with") && shown.contains("0 failed"), "{shown}");
}

#[test]
fn a_gateway_that_hangs_is_found_and_one_that_took_its_address_is_not_mistaken_for_it() {
    let (project, other) = (project(), project());
    let gateway = project.serve();
    gateway.signal(nix::sys::signal::Signal::SIGSTOP);
    let found = examine(&project);
    found.says("gateway", "warn", "does not answer");
    found.says("database", "warn", &format!("process {} has it", gateway.pid()));
    gateway.kill();
    let other = other.serve();
    let address = project.read(".doorbell/gateway.json");
    let mut address: Value = serde_json::from_str(&address).unwrap();
    address["url"] = other.url.clone().into();
    project.write(".doorbell/gateway.json", &address.to_string());
    examine(&project).says("gateway", "warn", "does not answer");
}

#[test]
fn doctor_is_not_for_a_gateway_elsewhere() {
    let output = project().run(&["doctor", "--url", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn open_permissions_are_found() {
    let project = project();
    project.serve().terminate();
    project.write("home/.doorbell/credentials/deploy_token/acme/secret", "x");
    for path in ["", "/deploy_token", "/deploy_token/acme"] {
        chmod(&project, &format!("home/.doorbell/credentials{path}"), 0o700);
    }
    chmod(&project, "home/.doorbell/credentials/deploy_token/acme/secret", 0o604);
    chmod(&project, ".doorbell", 0o755);
    chmod(&project, ".doorbell/key", 0o640);
    project.write(".doorbell/master.key", "x");
    chmod(&project, ".doorbell/master.key", 0o644);
    chmod(&project, "config.toml", 0o666);
    let found = examine(&project);
    found.says("permissions", "fail", "→ chmod 700");
    found.says("permissions", "fail", ".doorbell/key is open to other users (mode 640)");
    found.says("permissions", "fail", "deploy_token/acme/secret is open");
    found.says("permissions", "fail", ".doorbell/master.key is open to other users (mode 644)");
    found.says("permissions", "fail", "anybody on this machine may change");
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_problem_by_problem() {
    let project = project();
    project.agent("other", "[[webhooks]]\nsource = \"nobody\"", "true");
    std::fs::remove_file(project.path("credentials/github_webhook_secret/acme/secret")).unwrap();
    let found = examine(&project);
    found.says("config", "fail", "no credential github_webhook_secret:acme");
    found.says("config", "fail", "doorbell creds add");
    found.says("config", "fail", "agents/other/config.toml:2: no source \"nobody\"");
    project.credential("github_webhook_secret", "acme", " ");
    examine(&project).says("config", "fail", "empty");
}

#[test]
fn warnings_of_the_configuration_are_passed_on() {
    let project = project();
    project.agent("triage", "models = [\"x\"]\n[[webhooks]]\nsource = \"acme\"", "true");
    examine(&project).says("config", "warn", "`models` means nothing here");
}

#[test]
fn odd_and_unused_secrets_are_found() {
    let project = project();
    project.credential("github_webhook_secret", "acme", "padded \n");
    project.credential("deploy_token", "old", "x");
    let found = examine(&project);
    found.says("secrets", "warn", "white space");
    found.says("secrets", "ok", "does not use deploy_token:old");
    assert!(!format!("{found:?}").contains("creds rm"), "it may be another project's");
    assert!(!format!("{found:?}").contains("padded"), "{found:?}");
}

#[test]
fn what_starts_nothing_is_found() {
    let project = Project::new(&format!("{ONE_SOURCE}[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n"));
    let bare = examine(&project);
    bare.says("agents", "warn", "there are none");
    project.agent("triage", &format!("scale = 0\n{ANY}"), "true");
    project.agent("idle", "scale = 0", "true");
    let found = examine(&project);
    found.says("sources", "warn", "no trigger names lab");
    found.says("sources", "warn", "anybody can start the agents of lab");
    found.says("agents", "warn", "disabled by `scale = 0`: idle, triage");
    found.says("agents", "warn", "nothing starts idle");
    found.says("agents", "warn", "skipped for them");
}

#[test]
fn an_agent_that_a_webhook_made_at_run_time_starts_is_not_idle() {
    let project = Project::new("");
    project.agent("triage", "", "true");
    let said = |found: &Diagnosis| {
        let texts = found.findings.iter().map(|finding| finding.2.as_str());
        texts.filter(|text| text.contains("starts") && text.contains("triage")).count()
    };
    let bare = examine(&project);
    bare.says("sources", "warn", "nothing can be delivered");
    bare.says("agents", "warn", "nothing starts triage");
    assert_eq!(said(&bare), 1, "once: {bare:#?}");
    let _gateway = project.serve();
    let made = project.run(&["webhooks", "create", "triage", "--name", "pushes", "--provider", "github"]);
    assert!(made.status.success(), "{made:?}");
    let found = examine(&project);
    found.says("sources", "ok", "each of the 1 starts an agent");
    found.says("agents", "ok", "something starts each of the 1");
    assert_eq!(said(&found), 0, "{found:#?}");
}

#[test]
fn an_agent_that_notifications_start_is_not_idle() {
    let project = Project::new(&format!("{ONE_SOURCE}[[notifications]]\nto = {{ agent = \"ops\" }}\n"));
    project.agent("triage", ANY, "true").agent("ops", "", "true");
    examine(&project).says("agents", "ok", "something starts each of the 2");
}

#[test]
fn an_agent_that_only_the_clock_or_another_agent_starts_is_not_idle() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("may_call = [\"fixer\"]\n{ANY}"), "true").agent("fixer", "", "true");
    project.agent("report", "schedule = \"*/15 * * * *\"", "true");
    examine(&project).says("agents", "ok", "something starts each of the 3");
}

#[test]
fn a_standard_secret_that_was_cut_is_found() {
    let project = project();
    project.credential("standard_webhook_secret", "z", "nowhsec");
    examine(&project).says("secrets", "warn", "does not begin with `whsec_`");
}

#[test]
fn commands_that_cannot_start_are_found() {
    let project = project();
    let agent = |name: &str, runtime: &str| {
        let text = format!("{ANY}\n[runtime]\ntype = \"command\"\n{runtime}");
        project.write(&format!("agents/{name}/config.toml"), &text);
    };
    agent("missing", "command = [\"no-such-agent\"]");
    agent("closed", "command = [\"./closed.sh\"]\ncwd = \".\"");
    agent("bare", "command = [\"./bare.sh\"]\ncwd = \".\"");
    agent("lost", "command = [\"sh\", \"lost.sh\"]\ncwd = \".\"");
    agent("nowhere", "command = [\"true\"]\ncwd = \"gone\"");
    agent("own", "command = [\"true\"]\nenv = { PATH = \"/nonexistent\" }");
    for (name, mode) in [("closed.sh", 0o644), ("bare.sh", 0o755)] {
        project.write(name, "exit 0\n");
        chmod(&project, name, mode);
    }
    let found = examine(&project);
    for (status, words) in [
        ("fail", "agent `missing`: there is no program `no-such-agent` in PATH"),
        ("fail", "closed.sh may not be executed → `chmod +x"),
        ("fail", "bare.sh is neither a program"),
        ("fail", "agent `lost`: there is no lost.sh in"),
        ("fail", "agent `nowhere`: the folder"),
        ("fail", "agent `own`: there is no program `true` in PATH (/nonexistent)"),
    ] {
        found.says("commands", status, words);
    }
}

#[test]
fn commands_are_looked_for_as_the_running_gateway_would() {
    let project = project();
    let _gateway = project.serve_with(&[("PATH", "/nonexistent")]);
    examine(&project).says("commands", "fail", "there is no program `sh` in PATH (/nonexistent)");
}

#[tokio::test]
async fn a_public_url_that_leads_here_is_told_from_others() {
    let tunnel = Tunnel::open().await;
    let project = Project::new(&format!("public_url = \"{}\"\n{ONE_SOURCE}", tunnel.url));
    let other = self::project();
    let other = other.serve();
    tunnel.lead_to(&other.url);
    examine_beside(&project, &[]).await.says("public url", "warn", "whether as this gateway");
    let gateway = project.serve();
    examine_beside(&project, &[]).await.says("public url", "fail", "leads to another gateway");
    drop(gateway);
    drop(other);
}

#[tokio::test]
async fn what_a_tunnel_exposes_is_found_and_admin_listen_ends_it() {
    let tunnel = Tunnel::open().await;
    let project = Project::new(&format!("public_url = \"{}\"\n{ONE_SOURCE}", tunnel.url));
    let gateway = project.serve();
    tunnel.lead_to(&gateway.url);
    let found = examine_beside(&project, &[]).await;
    found.says("public url", "ok", "leads to this gateway");
    found.says("public url", "fail", "/metrics");
    found.says("public url", "warn", "admin_listen");
    drop(gateway);
    let tunnel = Tunnel::open().await;
    let config = format!("admin_listen = \"127.0.0.1:0\"\npublic_url = \"{}\"\n{ONE_SOURCE}", tunnel.url);
    let project = Project::new(&config);
    let _gateway = project.serve();
    let address: Value = serde_json::from_str(&project.read(".doorbell/gateway.json")).unwrap();
    tunnel.lead_to(address["ingest"].as_str().unwrap());
    let found = examine_beside(&project, &[]).await;
    found.says("public url", "ok", "leads to this gateway");
    assert!(!found.findings.iter().any(|f| f.0 == "public url" && f.1 != "ok"), "{found:?}");
}

#[tokio::test]
async fn a_public_url_that_cannot_be_reached_says_why() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = (format!("http://{}", silent.local_addr().unwrap()), silent);
    let plain = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let moved = "HTTP/1.1 308 Gone\r\nlocation: https://elsewhere.example/\r\ncontent-length: 0\r\n\r\n";
    let stranger = "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nwho are";
    for (url, words) in [
        ("http://127.0.0.1:1".to_owned(), "nothing listens there"),
        ("http://doorbell.invalid".to_owned(), "leads nowhere"),
        (plain.replace("http://", "https://"), "certificate"),
        (silent.0.clone(), "a firewall drops it"),
        (answering(moved.to_owned()).await, "redirected to https://elsewhere.example/"),
        (answering(stranger.to_owned()).await, "is not this gateway: 404 who are"),
    ] {
        let project = Project::new(&format!("public_url = \"{url}\"\n{ONE_SOURCE}"));
        let _gateway = project.serve();
        examine_beside(&project, &[]).await.says("public url", "fail", words);
    }
}

#[tokio::test]
async fn a_wrong_clock_is_found_by_that_of_another_server() {
    let project = project();
    examine_beside(&project, &[]).await.says("clock", "ok", "cannot be told without another one");
    let answer = |date: &str| format!("HTTP/1.1 200 OK\r\n{date}content-length: 0\r\n\r\n");
    for (date, status, words) in [
        ("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "fail", "ahead of http://"),
        ("date: Tue, 06 Nov 2096 08:49:37 GMT\r\n", "fail", "behind http://"),
        ("date: yesterday\r\n", "warn", "does not say its time"),
        ("", "warn", "does not say its time"),
    ] {
        let url = answering(answer(date)).await;
        examine_beside(&project, &["--clock", &url]).await.says("clock", status, words);
    }
    let gateway = project.serve();
    examine_beside(&project, &["--clock", &gateway.url]).await.says("clock", "ok", "agrees");
}

#[test]
fn a_disk_that_is_nearly_full_is_found() {
    let project = project();
    project.serve().terminate();
    let script = "mount -t tmpfs -o size=1m,mode=700 none .doorbell; exec \"$0\" doctor --json";
    if let Some(output) = unshared(&project, "-Urm", script) {
        Diagnosis::of(&output).says("disk", "fail", "are free");
    }
}

#[test]
fn watches_that_are_used_up_are_found() {
    let project = project();
    for (limit, words) in [("instances", "no more inotify instances"), ("watches", "no more inotify watches")] {
        let script = format!("echo 0 > /proc/sys/user/max_inotify_{limit}; exec \"$0\" doctor --json");
        if let Some(output) = unshared(&project, "-Ur", &script) {
            Diagnosis::of(&output).says("watches", "warn", words);
        }
    }
}

#[test]
fn a_low_limit_of_open_files_is_found_here_and_at_the_gateway() {
    let project = project();
    let script = "ulimit -n 300; exec \"$0\" doctor --json";
    let output = project.prepare("sh", &["-ec", script, PROGRAM]).output().unwrap();
    Diagnosis::of(&output).says("open files", "fail", "a gateway started from here may open 300");
    let _gateway = project.serve_by(project.prepare("sh", &["-ec", "ulimit -n 800; exec \"$0\" serve", PROGRAM]));
    examine(&project).says("open files", "warn", "the gateway may open 800");
}

#[tokio::test]
async fn a_damaged_a_newer_and_a_missing_database_are_found() {
    let project = project();
    let gateway = project.serve();
    gateway.ring(sample("issues.opened")).await;
    std::fs::rename(project.path(".doorbell/doorbell.db"), project.path("moved")).unwrap();
    examine_beside(&project, &[]).await.says("database", "fail", "gone");
    std::fs::rename(project.path("moved"), project.path(".doorbell/doorbell.db")).unwrap();
    gateway.terminate();
    let file = project.path(".doorbell/doorbell.db");
    let sql = rusqlite::Connection::open(&file).unwrap();
    sql.execute("INSERT INTO migrations VALUES (999, x'00')", ()).unwrap();
    drop(sql);
    examine_beside(&project, &[]).await.says("database", "fail", "newer Doorbell");
    let mut content = std::fs::read(&file).unwrap();
    content.iter_mut().skip(8192).step_by(3).for_each(|byte| *byte = !*byte);
    std::fs::write(&file, content).unwrap();
    examine_beside(&project, &[]).await.says("database", "fail", "is damaged");
}

#[test]
fn who_holds_the_database_is_found() {
    let project = project();
    let gateway = project.serve();
    std::fs::remove_file(project.path(".doorbell/gateway.json")).unwrap();
    examine(&project).says("database", "warn", &format!("process {} has it", gateway.pid()));
}

#[test]
fn a_gateway_that_cannot_store_is_found() {
    let project = project();
    let _gateway = project.serve();
    let other = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    examine(&project).says("gateway", "fail", "cannot store");
}

#[test]
fn a_gateway_of_another_version_or_with_another_key_is_found() {
    let project = project();
    let _gateway = project.serve();
    let file = project.read(".doorbell/gateway.json").replace(env!("CARGO_PKG_VERSION"), "0.0.1");
    project.write(".doorbell/gateway.json", &file);
    project.write(".doorbell/key", "dbk_wrong");
    let found = examine(&project);
    found.says("gateway", "warn", "it is 0.0.1");
    found.says("gateway", "fail", "does not take the project's key");
}

#[test]
fn processes_that_outlived_their_run_are_found() {
    let project = project();
    let root = project.root().canonicalize().unwrap();
    let mut command = project.prepare("sleep", &["1000"]);
    command.env("DOORBELL_RUN_ID", "run_1").env("DOORBELL_EVENT_FILE", root.join(".doorbell/runs/run_1/event.json"));
    let _left = Background::start(command);
    let is_found = || examine(&project).findings.into_iter().find(|found| found.0 == "processes" && found.1 == "warn");
    // Until it has become the other program, it shows the tests' own environment.
    let (_, _, what) = wait_for("the process to be found", is_found);
    assert!(what.contains("sleep 1000, run_1"), "{what}");
    let _gateway = project.serve();
    examine(&project).says("processes", "warn", "run_1");
}

#[test]
fn what_to_do_stands_on_a_line_of_its_own() {
    let output = project().run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.lines().any(|line| line.trim_start().starts_with("→ ")) && !said.contains("\\n"), "{said}");
}

/// The other user is nobody; where the tests are not root's, its own file is hidden from it.
#[test]
fn a_healthy_gateway_is_not_taken_for_one_that_hangs_where_its_key_cannot_be_read() {
    let project = project();
    let _gateway = project.serve();
    for (path, mode) in [("", 0o755), (".doorbell", 0o755), ("config.toml", 0o644), (".doorbell/gateway.json", 0o644)] {
        chmod(&project, path, mode);
    }
    for file in ["doorbell.db", "doorbell.db-wal", "doorbell.db-shm", "doorbell.db.lock"] {
        chmod(&project, &format!(".doorbell/{file}"), 0o644);
    }
    chmod(&project, ".doorbell/key", 0);
    let mut command = project.doorbell(&["doctor", "--json"]);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
    }
    let found = Diagnosis::of(&command.output().unwrap());
    found.says("gateway", "warn", "cannot be asked: cannot read");
    found.says("gateway", "warn", "as the user that runs the gateway");
    for misjudged in ["does not answer", "end it", "start it", "start the gateway"] {
        let said = found.findings.iter().any(|(_, _, what)| what.contains(misjudged));
        assert!(!said, "{misjudged}: {:#?}", found.findings);
    }
}
