//! The project that is soaked: two sources, agents that are short commands, and its gateway.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use doorbell_client::{Client, Sender};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

pub const SECRET: &str = "a-secret-of-the-soak";
/// How long anything here may take: generous, because machines are shared. Nothing waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Tries of each run that may fail; it may be lost besides.
pub const TRIES: usize = 3;

#[derive(Debug)]
pub struct Project {
    folder: tempfile::TempDir,
}

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Mutex<Child>,
    pid: Pid,
    pub client: Client,
    /// To the sources `acme` and `lab`.
    pub acme: Sender,
    pub lab: Sender,
}

impl Project {
    /// `one` and `two` carry out every issue; `busy` is started by everything else and drops most of it; `third` comes
    /// and goes. All processes of a try of `one` or `two` hold one lock that has the run's name: whoever finds it taken
    /// is a try that began while another one's process lived.
    pub fn new(retention: Duration) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let project = Self { folder };
        project.write(
            "config.toml",
            &format!(
                "[gateway]\nlisten = \"127.0.0.1:0\"\n[store]\nretention = \"{}s\"\n\
                 [webhooks.acme]\ntype = \"github\"\ncredential = \"acme\"\n\
                 [webhooks.lab]\ntype = \"generic\"\nscheme = \"bearer\"\ncredential = \"lab\"\n",
                retention.as_secs()
            ),
        );
        project.write("credentials/github_webhook_secret/acme/secret", SECRET);
        project.write("credentials/generic_webhook_secret/lab/secret", SECRET);
        std::fs::create_dir(project.path("locks")).unwrap();
        let script = format!(
            "exec 9>>{}/$DOORBELL_RUN_ID\n\
             flock -n 9 || test $? != 1 || echo $DOORBELL_RUN_ID $DOORBELL_ATTEMPT >> {}\n\
             case $DOORBELL_RUN_ID in *[08GR]) setsid sleep 1000 & esac\n\
             echo '{{\"said\": true}}' > $DOORBELL_OUTPUT_FILE; echo said; sleep 0.2 & wait $!",
            project.path("locks").display(),
            project.path("violations").display()
        );
        let rules = format!(
            "scale = 4\nwhen_full = \"grow\"\n[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]\n\
             [retries]\nattempts = {TRIES}\nbackoff = {{ initial = \"1ms\", jitter = false }}\n"
        );
        for agent in ["one", "two"] {
            project.agent(agent, &rules, &script);
        }
        let most = "scale = 1\nwork_queue_size = 4\nwhen_full = \"drop_oldest\"\n";
        let any = "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]\n[[webhooks]]\nsource = \"lab\"\n";
        project.agent("busy", &format!("{most}{any}"), "sleep 0.5");
        project.write_third(1, true);
        project
    }

    /// The agent that is edited: its scale, and whether its trigger is for what comes.
    pub fn write_third(&self, scale: u32, listens: bool) {
        let event = if listens { "job" } else { "nothing" };
        let trigger = format!("[[webhooks]]\nsource = \"lab\"\nevents = [\"{event}\"]\n");
        self.agent("third", &format!("scale = {scale}\nwork_queue_size = 2\n{trigger}"), "sleep 0.5");
    }

    /// What no gateway takes over.
    pub fn break_third(&self) {
        self.write("agents/third/config.toml", "scale = \"many\"\n");
    }

    fn agent(&self, name: &str, config: &str, script: &str) {
        let command = Value::from(vec!["sh", "-c", script]);
        let runtime = format!("[runtime]\ntype = \"command\"\ncommand = {command}\n");
        self.write(&format!("agents/{name}/config.toml"), &format!("{config}{runtime}"));
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.path(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        // Whole or not at all: a gateway that starts meanwhile must not find a half.
        let draft = self.path("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, file).unwrap();
    }

    fn doorbell(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        command.args(args).current_dir(self.root()).stdin(Stdio::null());
        command.env("DOORBELL_CREDENTIALS_DIR", self.path("credentials")).env("HOME", self.path("home"));
        for name in ["DOORBELL_URL", "DOORBELL_TOKEN", "DOORBELL_LOG"] {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"OTEL_")) {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command of the program to its end. It blocks.
    pub fn run(&self, args: &[&str]) -> Output {
        self.doorbell(args).output().unwrap()
    }

    /// Starts the gateway and waits until it listens. It blocks.
    pub fn serve(&self) -> Gateway {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("gateway.log")).unwrap();
        let address = self.path(".doorbell/gateway.json");
        let _ = std::fs::remove_file(&address);
        let mut child = self.doorbell(&["serve"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let begun = Instant::now();
        let url = loop {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended with {ended:?}:\n{}", self.log_end());
            assert!(begun.elapsed() < PATIENCE, "the gateway does not listen:\n{}", self.log_end());
            let found = std::fs::read(&address).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            if let Some(url) = found.as_ref().and_then(|found| found["url"].as_str()) {
                break url.to_owned();
            }
            std::thread::sleep(Duration::from_millis(5)); // tidy: allow sleep: polls for the gateway's address
        };
        let key = std::fs::read_to_string(self.path(".doorbell/key")).unwrap();
        let sender = |path: &str| Sender::new(&format!("{url}{path}")).unwrap();
        let (acme, lab) = (sender("/v1/webhooks/github/acme"), sender("/v1/webhooks/generic/lab"));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        Gateway { child: Mutex::new(child), pid, client: Client::new(&url, Some(key.trim())).unwrap(), acme, lab }
    }

    /// The last lines that the gateways wrote.
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.path("gateway.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The processes of this project's gateways, agents and guards that live: their environment names its folder.
    pub fn processes(&self) -> Vec<Pid> {
        let marker = self.root().as_os_str().as_encoded_bytes();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let names_it = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(marker.len()).any(|part| part == marker)
        };
        pids.filter(names_it).map(Pid::from_raw).collect()
    }

    /// Those of its agents.
    pub fn agents_processes(&self) -> Vec<Pid> {
        let marker = format!("DOORBELL_OUTPUT_FILE={}", self.root().display());
        let of_agent = |pid: &Pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(marker.as_bytes()))
        };
        self.processes().into_iter().filter(of_agent).collect()
    }

    /// How many runs have a folder.
    pub fn run_folders(&self) -> usize {
        std::fs::read_dir(self.path(".doorbell/runs")).map_or(0, Iterator::count)
    }
}

impl Gateway {
    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid, signal).unwrap();
    }

    /// Waits until it is gone; whether it ended well. It blocks.
    pub fn ended(&self) -> bool {
        self.child.lock().unwrap().wait().unwrap().success()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
