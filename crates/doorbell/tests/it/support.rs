//! Projects, gateways and senders for the tests.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use doorbell_client::{Answer, Client, RunQuery, Sender, api};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Key, Provider, Signed, Unsent, find_sample};
use doorbell_core::secret::Secret;
use serde_json::Value;

use secrets::Secrets;

mod secrets;

pub const SECRET: &str = "It's a Secret to Everybody";

/// How long anything here may take: generous, because machines are shared. Nothing waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The built program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_doorbell");

/// A project in a folder of its own, with credentials of its own.
#[derive(Debug)]
pub struct Project {
    folder: tempfile::TempDir,
    /// What must not be found when it ends.
    pub secrets: Secrets,
}

impl Drop for Project {
    fn drop(&mut self) {
        // A test that fails anyway says why in its own words.
        if !std::thread::panicking() {
            let leaks = self.secrets.search(self.root());
            assert!(leaks.is_empty(), "secrets stand where they do not belong: {leaks:#?}");
        }
    }
}

/// The smallest configuration: one GitHub source.
pub const ONE_SOURCE: &str = "[webhooks.acme]\ntype = \"github\"\ncredential = \"acme\"\n";

/// A trigger for whatever that source brings.
pub const ANY: &str = "[[webhooks]]\nsource = \"acme\"\n";

impl Project {
    /// With a `config.toml` that listens on any port, and this after it.
    pub fn new(config: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), secrets: Secrets::default() };
        project.write("config.toml", &format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{config}"));
        project.credential("github_webhook_secret", "acme", SECRET);
        project
    }

    /// One with an agent `triage` that wants whatever its only source brings.
    pub fn with_triage(config: &str, script: &str) -> Self {
        let project = Self::new(ONE_SOURCE);
        project.agent("triage", &format!("{config}\n{ANY}"), script);
        project
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> &Self {
        let file = self.path(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn credential(&self, kind: &str, instance: &str, secret: &str) -> &Self {
        self.secrets.add(format!("{kind}:{instance}"), secret);
        self.write(&format!("credentials/{kind}/{instance}/secret"), secret)
    }

    /// A program of this name on the PATH of this project's commands: a shell script.
    pub fn program(&self, name: &str, script: &str) -> &Self {
        use std::os::unix::fs::PermissionsExt;
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(self.path("bin").join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// An agent that runs this shell script (an agent's command list may be `sh -c …`; events never get into it).
    pub fn agent(&self, name: &str, config: &str, script: &str) -> &Self {
        let command = Value::from(vec!["sh", "-c", script]);
        self.write(
            &format!("agents/{name}/config.toml"),
            &format!("{config}\n[runtime]\ntype = \"command\"\ncommand = {command}\n"),
        )
    }

    /// The program, for this project.
    pub fn doorbell(&self, args: &[&str]) -> Command {
        self.prepare(PROGRAM, args)
    }

    /// A program, in this project's folder and environment.
    pub fn prepare(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.root()).stdin(Stdio::null());
        command.env("DOORBELL_CREDENTIALS_DIR", self.path("credentials")).env("HOME", self.path("home"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        for name in ["DOORBELL_URL", "DOORBELL_TOKEN", "DOORBELL_LOG"] {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"OTEL_")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.doorbell(args).output().unwrap();
        self.secrets.heed(args, &output);
        output
    }

    /// Runs a command that must succeed, with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts the gateway and waits until it listens.
    pub fn serve(&self) -> Gateway {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, env: &[(&str, &str)]) -> Gateway {
        let mut command = self.doorbell(&["serve"]);
        command.envs(env.iter().copied());
        self.serve_by(command)
    }

    /// Waits until the log of the gateway says this. Answers the log.
    pub fn log_with(&self, text: &str) -> String {
        wait_for(text, || Some(self.read("gateway.log")).filter(|log| log.contains(text)))
    }

    /// Starts the gateway by a command of its own, and waits until it listens.
    pub fn serve_by(&self, mut command: Command) -> Gateway {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("gateway.log")).unwrap();
        let address = self.path(".doorbell/gateway.json");
        let _ = std::fs::remove_file(&address);
        self.secrets.add_environment(&command);
        command.stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let url = wait_for("the gateway to listen", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the gateway ended with {status}:\n{}", self.read("gateway.log"));
            }
            let found: Value = serde_json::from_str(&std::fs::read_to_string(&address).ok()?).ok()?;
            Some(found["url"].as_str()?.to_owned())
        });
        let key = self.read(".doorbell/key").trim().to_owned();
        Gateway { child, client: Client::new(&url, Some(&key)).unwrap(), url, key }
    }
}

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    pub url: String,
    pub key: String,
    pub client: Client,
}

impl Gateway {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits until it is gone; its exit code.
    pub fn terminate(self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended()
    }

    /// Waits until it is gone; its exit code.
    pub fn ended(mut self) -> Option<i32> {
        let status = wait_for("the gateway to end", || self.child.try_wait().unwrap());
        status.code()
    }

    pub fn sender(&self, path: &str) -> Sender {
        Sender::new(&format!("{}{path}", self.url)).unwrap()
    }

    /// Sends a signed delivery to a path and answers what came back.
    pub async fn send(&self, path: &str, signed: Signed) -> Answer {
        self.sender(path).post(&signed.headers, signed.body).await.unwrap().answer
    }

    /// Sends a signed delivery to the source `acme` that must be accepted.
    pub async fn ring(&self, signed: Signed) -> api::Receipt {
        match self.send("/v1/webhooks/github/acme", signed).await {
            Answer::Receipt(receipt) => receipt,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Waits until a run is over.
    pub async fn finished(&self, run: &str) -> api::RunDetail {
        let mut seen = None;
        let ended = wait_until_or("the run to end", &mut seen, async |seen| {
            let detail = self.client.run(run).await.unwrap();
            let ended = detail.run.finished_at.is_some();
            *seen = Some(detail.clone());
            ended.then_some(detail)
        });
        ended.await
    }

    /// Waits until a run is in a state.
    pub async fn in_state(&self, run: &str, state: &str) -> api::RunDetail {
        wait_until(&format!("the run to be {state}"), async || {
            let detail = self.client.run(run).await.unwrap();
            (detail.run.state == state).then_some(detail)
        })
        .await
    }

    /// The text of a run's log: standard output only.
    pub async fn stdout(&self, run: &str) -> String {
        self.lines(run, "stdout").await
    }

    pub async fn lines(&self, run: &str, stream: &str) -> String {
        let log = self.client.run_log(run, 0).await.unwrap();
        let lines = log.lines.into_iter().filter(|line| line.stream == stream).map(|line| line.text);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// How many runs are in this state.
    pub async fn count_in(&self, state: &str) -> usize {
        let query = RunQuery { state: Some(state.to_owned()), limit: Some(500), ..RunQuery::default() };
        self.client.runs(&query).await.unwrap().runs.len()
    }

    /// All runs.
    pub async fn runs(&self) -> Vec<api::Run> {
        self.client.runs(&RunQuery { limit: Some(500), ..RunQuery::default() }).await.unwrap().runs
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    pub fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The signing key of the tests' source.
pub fn key() -> Key {
    Github.prepare(&Secret::new(SECRET)).unwrap()
}

/// A fresh delivery id.
pub fn fresh_id() -> String {
    doorbell::clock::new_id::<doorbell_core::id::OfEvent>().to_string()
}

/// A sample of GitHub's, signed, with a delivery id of its own.
pub fn sample(event: &str) -> Signed {
    sample_as(event, &fresh_id())
}

/// A sample of GitHub's, signed, with this delivery id.
pub fn sample_as(event: &str, delivery: &str) -> Signed {
    let sample = find_sample(Github.samples(), event).unwrap();
    sign(&sample.event, sample.body.to_string(), delivery)
}

/// Any body as GitHub would send it.
pub fn sign(event: &str, body: impl Into<Vec<u8>>, delivery: &str) -> Signed {
    Github.sign(Some(&key()), Unsent::new(event, body.into(), delivery, doorbell::clock::now()))
}

/// An opened issue with this title.
pub fn issue(title: &str) -> Signed {
    let sample = find_sample(Github.samples(), "issues.opened").unwrap();
    let mut body: Value = serde_json::from_str(&sample.body).unwrap();
    body["issue"]["title"] = Value::from(title);
    sign("issues.opened", body.to_string(), &fresh_id())
}

/// Replaces or adds a header.
pub fn with_header(mut signed: Signed, name: &str, value: &str) -> Signed {
    signed.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
    signed.headers.push((name.to_owned(), value.to_owned()));
    signed
}

/// Takes a header away.
pub fn without_header(mut signed: Signed, name: &str) -> Signed {
    signed.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
    signed
}

/// Waits for a condition.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        pause();
    }
}

/// The same, telling what was seen last when it takes too long.
async fn wait_until_or<S: std::fmt::Debug, T>(
    what: &str,
    seen: &mut S,
    mut look: impl AsyncFnMut(&mut S) -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look(seen).await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}; seen last: {seen:?}");
        tokio::time::sleep(LOOK_AGAIN).await; // tidy: allow sleep: between two looks at the awaited condition
    }
}

/// Waits for a condition that has to be asked for.
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(LOOK_AGAIN).await; // tidy: allow sleep: between two looks at the awaited condition
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(5);

fn pause() {
    std::thread::sleep(LOOK_AGAIN); // tidy: allow sleep: between two looks at the awaited condition
}

/// Reads a request of HTTP/1 with a body of a stated length, as the gateway sends them: its headers by their names in lower case,
/// and its body. None if the connection ends before.
pub fn read_request(reader: &mut impl BufRead) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        line.clear();
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}

/// Processes whose environment says that they belong to a run.
pub fn processes_of(run: &str) -> Vec<i32> {
    let marker = format!("DOORBELL_RUN_ID={run}");
    pids().filter(|pid| environment_of(*pid).iter().any(|entry| entry == marker.as_bytes())).collect()
}

/// All processes of this machine.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
}

/// What a process was started with; nothing if it is gone or somebody else's.
pub fn environment_of(pid: i32) -> Vec<Vec<u8>> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}
