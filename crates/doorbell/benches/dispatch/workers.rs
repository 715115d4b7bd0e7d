//! Workers that wait for runs, and what they are handed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Connection, Server, find_ids};

/// A project with an agent whose runs workers fetch.
pub fn make_project(folder: &Path) {
    std::fs::create_dir_all(folder.join("agents/fetched")).unwrap();
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\n[webhooks.bench]\ntype = \"generic\"\nallow_unsigned = true\n";
    std::fs::write(folder.join("config.toml"), config).unwrap();
    let agent = "scale = 1000\n[[webhooks]]\nsource = \"bench\"\n[runtime]\ntype = \"worker\"\n";
    std::fs::write(folder.join("agents/fetched/config.toml"), agent).unwrap();
}

pub fn key(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(".doorbell/key")).unwrap().trim().to_owned()
}

fn wish(worker: usize, max: usize) -> String {
    json!({"agents": ["fetched"], "max": max, "waitSeconds": 120, "worker": format!("host-{worker}")}).to_string()
}

/// So many pollers that wait, each on a connection of its own.
pub async fn wait_idle(server: &Server, key: &str, pollers: usize) -> Vec<Connection> {
    let mut waiting = Vec::with_capacity(pollers);
    for n in 0..pollers {
        let mut connection = Connection::open(server.port).await;
        connection.send("/v1/worker/poll", Some(key), &wish(n, 1)).await;
        waiting.push(connection);
    }
    waiting
}

/// What happened: when each run was answered for and handed out, and how often.
#[derive(Default)]
pub struct Ledger {
    sent: RefCell<BTreeMap<String, (Instant, Instant)>>,
    handed: RefCell<BTreeMap<String, (Instant, usize)>>,
    over: Cell<bool>,
}

impl Ledger {
    /// From the sender's request, and from its 2xx, to the run in the worker's hands: sorted.
    pub fn times(&self) -> (Vec<Duration>, Vec<Duration>) {
        let (sent, handed) = (self.sent.borrow(), self.handed.borrow());
        let both = sent.iter().map(|(run, (sent, answered))| {
            let at = handed[run].0;
            (at.saturating_duration_since(*sent), at.saturating_duration_since(*answered))
        });
        let (mut whole, mut after): (Vec<_>, Vec<_>) = both.unzip();
        whole.sort_unstable();
        after.sort_unstable();
        (whole, after)
    }

    /// Runs that were never handed out, and those that were twice.
    pub fn lost_and_repeated(&self) -> (usize, usize) {
        let (sent, handed) = (self.sent.borrow(), self.handed.borrow());
        let lost = sent.keys().filter(|run| !handed.contains_key(*run)).count();
        (lost, handed.values().filter(|(_, times)| *times > 1).count())
    }

    pub fn runs(&self) -> usize {
        self.sent.borrow().len()
    }

    fn all_are_handed_out(&self) -> bool {
        self.handed.borrow().len() >= self.sent.borrow().len()
    }
}

/// Workers that fetch one run at a time and are done with it at once, and senders at this rate for this time. Comes back
/// when every run is done.
pub async fn hand_out(
    server: &Server,
    key: &str,
    workers: usize,
    senders: usize,
    rate: f64,
    time: Duration,
) -> Rc<Ledger> {
    let ledger = Rc::new(Ledger::default());
    let working =
        (0..workers).map(|n| tokio::task::spawn_local(work(server.port, key.to_owned(), n, Rc::clone(&ledger))));
    let working: Vec<_> = working.collect();
    let begun = Instant::now();
    let pause = Duration::from_secs_f64(senders as f64 / rate);
    let sending = (0..senders).map(|lane| {
        let first = begun + pause.mul_f64(lane as f64 / senders as f64);
        tokio::task::spawn_local(send(server.port, first, pause, begun + time, Rc::clone(&ledger)))
    });
    futures_util::future::join_all(sending.collect::<Vec<_>>()).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ledger.all_are_handed_out() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await; // tidy: allow sleep: between two looks
    }
    ledger.over.set(true);
    working.into_iter().for_each(|worker| worker.abort());
    ledger
}

async fn work(port: u16, key: String, n: usize, ledger: Rc<Ledger>) {
    let mut connection = Connection::open(port).await;
    let wish = wish(n, 1);
    while !ledger.over.get() {
        let (status, answer) = connection.post("/v1/worker/poll", Some(&key), &wish).await;
        let at = Instant::now();
        assert_eq!(status, 200, "{answer}");
        let Some(run) = find_ids(&answer, "run_").next().map(str::to_owned) else { continue };
        ledger.handed.borrow_mut().entry(run.clone()).or_insert((at, 0)).1 += 1;
        let lease = answer.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let done = json!({"lease": lease, "result": {"ok": true}}).to_string();
        let (status, answer) = connection.post(&format!("/v1/runs/{run}/complete"), Some(&key), &done).await;
        assert_eq!(status, 200, "{answer}");
    }
}

async fn send(port: u16, first: Instant, pause: Duration, end: Instant, ledger: Rc<Ledger>) {
    let mut connection = Connection::open(port).await;
    let mut next = first;
    while next < end {
        tokio::time::sleep_until(next.into()).await;
        next += pause;
        let id = u128::from_be_bytes(doorbell::clock::random());
        let body = json!({"event": "ring", "number": id.to_string(), "text": "what happened ".repeat(64)}).to_string();
        let sent = Instant::now();
        let (status, answer) = connection.post("/v1/webhooks/generic/bench", None, &body).await;
        let answered = Instant::now();
        assert_eq!(status, 200, "{answer}");
        let run = find_ids(&answer, "run_").next().unwrap().to_owned();
        ledger.sent.borrow_mut().insert(run, (sent, answered));
    }
}
