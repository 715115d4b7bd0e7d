//! Tests of the module above.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use doorbell_core::event::Context;
use doorbell_core::prompt::Template;
use doorbell_core::run::Policy;
use serde_json::json;

use super::processes::tests::{lives, until};
use super::*;
use crate::clock;
use crate::config::{PromptChannel, Runtime, WhenFull};

mod endings;
mod inputs;

const TOKEN: &str = "dbr_0123456789abcdef";

/// An agent to be carried out: a shell script that is its command.
struct Bench {
    home: tempfile::TempDir,
    agent: Agent,
    command: CommandRuntime,
    envelope: Envelope,
    grace: Duration,
}

/// An attempt that has ended.
struct Done {
    ended: Ended,
    log: Vec<LogLine>,
    process: Option<Process>,
}

impl Done {
    fn lines(&self, stream: Stream) -> Vec<&str> {
        self.log.iter().filter(|line| line.stream == stream).map(|line| line.text.as_str()).collect()
    }

    fn stdout(&self) -> Vec<&str> {
        self.lines(Stream::Stdout)
    }

    fn reason(&self) -> &str {
        match &self.ended.outcome {
            Outcome::Failed(reason) | Outcome::TryAgain(reason) => reason,
            outcome => panic!("it has no reason: {outcome:?}"),
        }
    }
}

impl Bench {
    fn new(script: &str) -> Self {
        let command = CommandRuntime {
            command: ["sh", "-c", script, "sh"].map(str::to_owned).to_vec(),
            prompt: PromptChannel::Stdin,
            cwd: None,
            run_as: None,
            env: BTreeMap::new(),
            credentials: Vec::new(),
            result: None,
        };
        let agent = Agent {
            account: None,
            name: "triage".to_owned(),
            description: None,
            scale: 1,
            timeout: Duration::from_secs(60),
            work_queue_size: 100,
            when_full: WhenFull::DropOldest,
            triggers: Vec::new(),
            schedules: Vec::new(),
            may_call: Vec::new(),
            runtime: Runtime::Command(Arc::new(command.clone())),
            retries: Policy::default(),
            instructions: Some(Template::new("Do what is to be done.").unwrap()),
            params: json!({}),
        };
        let grace = Duration::from_millis(300);
        Self { home: tempfile::tempdir().unwrap(), agent, command, envelope: envelope(), grace }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("runs").join(self.envelope.run_id.to_string())
    }

    fn job(&self) -> Job {
        Job {
            agent: Arc::new(self.agent.clone()),
            command: Arc::new(self.command.clone()),
            envelope: self.envelope.clone(),
            folder: self.folder(),
            url: "http://127.0.0.1:8080".to_owned(),
            token: Secret::new(TOKEN),
            inherited: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".into())],
            trace: Vec::new(),
        }
    }

    async fn carry_out(&self) -> Done {
        self.carry_out_until(|_| false, Stop::Shutdown).await
    }

    /// Carries the agent out, and stops it when its log is as wanted.
    async fn carry_out_until(&self, enough: impl Fn(&[LogLine]) -> bool, stop: Stop) -> Done {
        let guard = Guard::for_tests();
        let (sender, mut receiver) = mpsc::channel(4);
        let (stopper, stopped) = watch::channel(None);
        let process = Mutex::new(None);
        let started = |found| {
            *process.lock().unwrap() = Some(found);
            std::future::ready(())
        };
        let read = async {
            let mut log = Vec::new();
            while let Some(line) = receiver.recv().await {
                log.push(line);
                if enough(&log) {
                    stopper.send_replace(Some(stop.clone()));
                }
            }
            log
        };
        let (ended, log) = tokio::join!(carry_out_with(self.grace, self.job(), &guard, started, sender, stopped), read);
        let process = process.into_inner().unwrap();
        Done { ended, log, process }
    }
}

fn envelope() -> Envelope {
    let mut context = Context::default();
    context.set("event", "issues");
    context.set("branch", "$(touch x)`touch y`;touch z");
    Envelope {
        webhook: true,
        source: "github".to_owned(),
        integration_id: "acme-github".to_owned(),
        event_type: "github.issues.opened".to_owned(),
        idempotency_key: None,
        timestamp: 1,
        headers: serde_json::Map::new(),
        body: "{}".to_owned(),
        body_encoding: "utf8".to_owned(),
        event_id: clock::new_id(),
        run_id: clock::new_id(),
        attempt: 2,
        agent: "triage".to_owned(),
        context,
        events: Vec::new(),
        resumed: None,
    }
}

/// The number that a script has written into a file of its folder.
fn pid_in(folder: &Path, file: &str) -> i32 {
    std::fs::read_to_string(folder.join(file)).unwrap().trim().parse().unwrap()
}
