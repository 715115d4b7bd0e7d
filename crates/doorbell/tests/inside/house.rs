//! A project with its gateway, and somebody who listens to what the gateway says to others.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use doorbell::config::{self, Config, Environment};
use doorbell::gateway::{Gateway, key_file};
use doorbell_client::{Answer, Client, Sender, api};
use doorbell_core::provider::{Provider, Unsent};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::PATIENCE;
use crate::talkative::{Talkative, shared};

const SECRET: &str = "the secret of talk";

/// How a delivery is signed.
#[derive(Debug, Clone, Copy)]
pub enum Sign {
    Not,
    Well,
    With(&'static str),
}

/// A project with its gateway.
#[derive(Debug)]
pub struct House {
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
    pub client: Client,
    pub listener: Listener,
}

impl House {
    /// With one agent, `triage`, that takes whatever comes.
    pub async fn open(agent: &str, script: &str) -> Self {
        Self::open_with(agent, "", script).await
    }

    pub async fn open_with(agent: &str, trigger: &str, script: &str) -> Self {
        Self::open_all(&["triage"], agent, trigger, script).await
    }

    /// With agents that are alike but for their names.
    pub async fn open_all(agents: &[&str], agent: &str, trigger: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        // Its provider is put in place of this one.
        let source = "[webhooks.talk]\ntype = \"generic\"\nallow_unsigned = true\nevent_header = \"x-none\"\n";
        write("config.toml", &format!("[gateway]\nlisten = \"127.0.0.1:0\"\nhot_reload = false\n{source}"));
        let command = serde_json::Value::from(vec!["sh", "-c", script]);
        let trigger = format!("[[webhooks]]\nsource = \"talk\"\n{trigger}\n");
        for name in agents {
            write(
                &format!("agents/{name}/config.toml"),
                &format!("{agent}{trigger}[runtime]\ntype = \"command\"\ncommand = {command}\n"),
            );
        }
        let gateway = start(folder.path()).await;
        let client = client(folder.path(), &gateway);
        Self { folder, gateway: Some(gateway), client, listener: Listener::start().await }
    }

    /// Closes the gateway and starts it again.
    pub async fn restart(&mut self) {
        self.gateway.take().unwrap().close(Duration::ZERO).await;
        let gateway = start(self.folder.path()).await;
        self.client = client(self.folder.path(), &gateway);
        self.gateway = Some(gateway);
    }

    pub async fn close(mut self) {
        self.gateway.take().unwrap().close(Duration::ZERO).await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("{}/v1/webhooks/talk/talk", self.client.base_url())
    }

    pub async fn post(&self, body: Bytes, sign: Sign) -> (u16, Answer) {
        let key = match sign {
            Sign::Not => None,
            Sign::Well => Some(Talkative.prepare(&Secret::new(SECRET)).unwrap()),
            Sign::With(secret) => Some(Talkative.prepare(&Secret::new(secret)).unwrap()),
        };
        let unsent = Unsent::new("", body, "", doorbell::clock::now());
        let signed = Talkative.sign(key.as_ref(), unsent);
        let sent = Sender::new(&self.url()).unwrap().post(&signed.headers, signed.body).await.unwrap();
        (sent.status, sent.answer)
    }

    /// The run, when it is over.
    pub async fn finished(&self, run: &str) -> api::RunDetail {
        wait_until(async || self.client.run(run).await.unwrap().run.finished_at.is_some()).await;
        self.client.run(run).await.unwrap()
    }

    /// What became of a run's follow-up.
    pub async fn told(&self, run: &str) -> api::FollowUp {
        wait_until(async || self.client.run(run).await.unwrap().run.follow_up.is_some()).await;
        self.client.run(run).await.unwrap().run.follow_up.unwrap()
    }
}

async fn start(root: &Path) -> Gateway {
    let mut config: Config = config::load(root, &Environment::default(), &[]).unwrap();
    let key = Talkative.prepare(&Secret::new(SECRET)).unwrap();
    let keys = vec![NamedKey { instance: "talk".to_owned(), key }];
    let source = Source::new("talk", shared(), keys, false, Dedup::Id).unwrap();
    config.sources.insert("talk".to_owned(), Arc::new(source));
    assert!(config.agents.values().all(|agent| agent.triggers.len() == 1));
    let path = std::env::var_os("PATH").unwrap_or_default();
    Gateway::start(config, Path::new(env!("CARGO_BIN_EXE_doorbell")), vec![("PATH".to_owned(), path)]).await.unwrap()
}

fn client(root: &Path, gateway: &Gateway) -> Client {
    let key = std::fs::read_to_string(key_file(root)).unwrap();
    Client::new(&format!("http://{}", gateway.address), Some(key.trim())).unwrap()
}

/// Waits for a condition.
pub async fn wait_until(mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await; // tidy: allow sleep: between two looks at the awaited condition
    }
}

/// Listens to what the gateway says: the first time it answers 503, later 200; or always 503.
#[derive(Debug, Clone)]
pub struct Listener {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    refusing: Arc<AtomicBool>,
}

impl Listener {
    async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/here", socket.local_addr().unwrap());
        let this = Self { url, asked: Arc::default(), refusing: Arc::default() };
        let listening = this.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = socket.accept().await {
                let listening = listening.clone();
                tokio::spawn(async move { listening.answer(connection).await });
            }
        });
        this
    }

    async fn answer(&self, mut connection: tokio::net::TcpStream) {
        let mut request = Vec::new();
        let mut chunk = vec![0; 4096];
        while let Ok(length @ 1..) = connection.read(&mut chunk).await {
            request.extend_from_slice(&chunk[..length]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() < length.unwrap_or(0_usize) {
                continue;
            }
            let first = {
                let mut asked = self.asked.lock().unwrap();
                asked.push(text.clone());
                asked.len() == 1
            };
            let status = if first || self.refusing.load(Ordering::Relaxed) { "503 Busy" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = connection.write_all(answer.as_bytes()).await;
            return;
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::Relaxed);
    }
}
