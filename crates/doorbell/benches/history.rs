//! `cargo xtask bench history --events N`: a gateway with a long history. How long it takes to start, to list, to show
//! and to explain; what a sweep and a backup do to those who deliver meanwhile.
//!
//! The server has one core, who asks another. Before the start the database is taken out of the system's memory.
//! With `--folder F` the project is made there and stays, and is measured if it is there already; `--fill` only makes it.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "history/fill.rs"]
mod fill;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use doorbell_client::{Client, EventQuery, RunQuery};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, Unsent, find_sample};
use doorbell_core::secret::Secret;
use fill::KINDS;
use serde_json::{Value, json};
use support::{Ids, Load, Request, Server, load, millis};

const SECRET: &str = "a secret of the benchmark";
const PATH: &str = "/v1/webhooks/github/bench";
/// Who delivers meanwhile: so many connections, so many deliveries a second.
const CONNECTIONS: usize = 16;
const RATE: f64 = 1000.0;
/// How often each question is asked.
const TIMES: usize = 200;
/// What is kept when the sweep is measured: half of the history.
const KEPT: &str = "30d";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)?.parse().ok());
    let events = number("--events").unwrap_or(1_000_000);
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let named = args.iter().position(|arg| arg == "--folder").and_then(|at| args.get(at + 1));
    let project = named.map_or(made.path(), Path::new);
    if !database(project).exists() {
        fill(project, events);
    }
    if !args.iter().any(|arg| arg == "--fill") {
        measure(project, events, Duration::from_secs(number("--seconds").unwrap_or(10)));
    }
}

/// A project with the agents of the history. Their first runs never end: agents are not what is measured.
fn make_project(folder: &Path) {
    let credential = folder.join("credentials/github_webhook_secret/bench");
    std::fs::create_dir_all(&credential).unwrap();
    std::fs::write(credential.join("secret"), SECRET).unwrap();
    for (event, _, agent) in KINDS {
        std::fs::create_dir_all(folder.join("agents").join(agent)).unwrap();
        let config = format!(
            "when_full = \"grow\"\n[[webhooks]]\nsource = \"bench\"\nevents = [\"{event}\"]\nrepos = [\"acme/*\"]\n\
             [runtime]\ntype = \"command\"\ncommand = [\"sleep\", \"100000\"]\n"
        );
        std::fs::write(folder.join("agents").join(agent).join("config.toml"), config).unwrap();
    }
    keep(folder, "off");
}

fn keep(folder: &Path, retention: &str) {
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"0s\"\n[store]\nretention = \"{retention}\"\n\
         [webhooks.bench]\ntype = \"github\"\ncredential = \"bench\"\n"
    );
    std::fs::write(folder.join("config.toml"), config).unwrap();
}

fn database(folder: &Path) -> PathBuf {
    folder.join(".doorbell/doorbell.db")
}

/// Starts the gateway; answers it, and how long it took until it was ready.
fn start(folder: &Path) -> (Server, Client, Duration) {
    let begun = Instant::now();
    let server = Server::start_gateway(folder);
    let url = format!("http://127.0.0.1:{}", server.port);
    let ready = || async { reqwest::get(format!("{url}/readyz")).await.is_ok_and(|answer| answer.status() == 200) };
    while !block_on(ready()) {}
    let took = begun.elapsed();
    let key = std::fs::read_to_string(folder.join(".doorbell/key")).unwrap();
    (server, Client::new(&url, Some(&key)).unwrap(), took)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Has the system forget what it remembers of a file.
fn evict(file: &Path) {
    let file = std::fs::File::open(file).unwrap();
    file.sync_all().unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
}

/// Signed deliveries that start a run each.
fn make_requests() -> Vec<Request> {
    let sample = find_sample(Github.samples(), "issues.opened").unwrap();
    let key = Github.prepare(&Secret::new(SECRET)).unwrap();
    let mut body: Value = serde_json::from_str(&sample.body).unwrap();
    body["text"] = json!("As people write them. ".repeat(300));
    let signed =
        Github.sign(Some(&key), Unsent::new("issues.opened", body.to_string(), "@ID@", doorbell::clock::now()));
    let headers: String = signed.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = signed.body.len();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n");
    let (before, after) = head.split_once("@ID@").unwrap();
    vec![Request { before_id: before.into(), after_id: [after.as_bytes(), &signed.body].concat() }]
}

/// Rows of the table, and the same for machines.
#[derive(Default)]
struct Figures {
    rows: Vec<Vec<String>>,
    json: serde_json::Map<String, Value>,
}

impl Figures {
    fn add(&mut self, name: &str, key: &str, shown: String, must: &str, value: impl Into<Value>) {
        println!("{name}: {shown}");
        self.rows.push(vec![name.to_owned(), shown, must.to_owned()]);
        self.json.insert(key.to_owned(), value.into());
    }

    fn times(&mut self, name: &str, key: &str, must: &str, mut times: Vec<Duration>) {
        let first = times[0];
        times.sort_unstable();
        let of = |percent: usize| times[(times.len() - 1) * percent / 100];
        let shown = format!("{} / {} (the first {})", millis(of(50)), millis(of(95)), millis(first));
        let value = json!({"p50": of(50).as_secs_f64(), "p95": of(95).as_secs_f64(), "first": first.as_secs_f64()});
        self.add(&format!("{name}, p50 / p95"), key, shown, must, value);
    }

    fn load(&mut self, name: &str, key: &str, done: &Load) {
        assert_eq!(done.failed, 0, "every delivery is accepted");
        let (p50, p99) = (done.percentile(50.0), done.percentile(99.0));
        let worst = done.percentile(100.0);
        let shown = format!("{} / {} / {}", millis(p50), millis(p99), millis(worst));
        let value = json!({"p50": p50.as_secs_f64(), "p99": p99.as_secs_f64(), "worst": worst.as_secs_f64(),
            "perSecond": done.per_second()});
        self.add(&format!("{name}, p50 / p99 / worst"), key, shown, "p99 ≤ 15 ms", value);
    }
}

fn fill(project: &Path, events: u64) {
    make_project(project);
    // Makes the database, with the trigger set that the events name.
    drop(start(project));
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut told = 0;
    runtime.block_on(fill::fill(project, events, |made| {
        if made * 10 / events > told {
            told = made * 10 / events;
            println!("{made} of {events} events after {:.0} s", begun.elapsed().as_secs_f64());
        }
    }));
}

fn measure(project: &Path, events: u64, time: Duration) {
    support::pin(support::LOAD_CORE);
    let mut figures = Figures::default();
    let bytes = std::fs::metadata(database(project)).unwrap().len();
    let each = bytes / events;
    figures.add("disk per 8 KiB event with its run", "bytesPerEvent", format!("{each} B"), "≤ 4096 B", each);
    evict(&database(project));
    let (server, client, took) = start(project);
    figures.add("cold start to ready", "coldStart", millis(took), "≤ 300 ms", took.as_secs_f64());
    let requests = make_requests();
    let deliver = |time| block_on(load(server.port, &requests, CONNECTIONS, time, Some(RATE), Ids::Github));
    // Nothing is indexed yet.
    figures.load("accept while all is indexed for search", "acceptDuringIndexing", &deliver(time));
    block_on(ask(&client, events, &mut figures));
    figures.load("accept, nothing else", "accept", &deliver(time));
    back_up(project, bytes, &deliver, &mut figures);
    let memory = server.memory_mb();
    figures.add("memory", "memoryMb", format!("{memory:.0} MB"), "≤ 150 MB", memory);
    drop(server);
    sweep(project, &requests, time, &mut figures);
    println!("\n{events} events over {} days, {CONNECTIONS} connections with {RATE} deliveries/s\n", fill::DAYS);
    support::print_table(&["figure", "measured", "must"], &figures.rows);
    figures.json.insert("events".to_owned(), json!(events));
    support::write_json("history", &Value::Object(figures.json));
}

/// Lists, pages, single events and runs, as people and tools ask for them.
async fn ask(client: &Client, events: u64, figures: &mut Figures) {
    const MUST: &str = "p95 ≤ 100 ms";
    let page = |cursor: Option<u64>| EventQuery {
        cursor: cursor.map(|seq| seq.to_string()),
        limit: Some(50),
        ..EventQuery::default()
    };
    let anywhere = || 51 + u64::from_be_bytes(doorbell::clock::random()) % (events - 50);
    let first = repeat(async || drop(client.events(&page(None)).await.unwrap())).await;
    figures.times("first page of events", "firstPage", MUST, first);
    let deep = repeat(async || drop(client.events(&page(Some(anywhere()))).await.unwrap())).await;
    figures.times("a page anywhere, by cursor", "deepPage", MUST, deep);
    let named = || EventQuery { event: Some("issues.opened".to_owned()), ..page(Some(anywhere())) };
    let by_name = repeat(async || drop(client.events(&named()).await.unwrap())).await;
    figures.times("the same, of one event name", "pageByName", MUST, by_name);
    let when = || {
        let day = Duration::from_secs(anywhere() % (u64::from(fill::DAYS) * 24 * 60 * 60));
        EventQuery { until: Some(doorbell::clock::now().before(day).to_string()), ..page(None) }
    };
    let by_time = repeat(async || drop(client.events(&when()).await.unwrap())).await;
    figures.times("events until some time", "pageByTime", MUST, by_time);
    let some = async || client.events(&page(Some(anywhere()))).await.unwrap().events.swap_remove(0).id;
    let mut ids = Vec::new();
    for _ in 0..TIMES {
        ids.push(some().await);
    }
    let mut shown = ids.iter().cycle();
    let show = repeat(async || {
        let id = shown.next().unwrap();
        client.event(id).await.unwrap();
        client.event_body(id).await.unwrap();
    });
    figures.times("an event and its body", "event", MUST, show.await);
    let mut explained = ids.iter().cycle();
    let why = repeat(async || drop(client.explain(explained.next().unwrap()).await.unwrap())).await;
    figures.times("why", "why", MUST, why);
    let runs = |cursor: u64| RunQuery {
        agent: Some("triage".to_owned()),
        state: Some("failed".to_owned()),
        cursor: Some(cursor.to_string()),
        limit: Some(50),
        ..RunQuery::default()
    };
    let runs = repeat(async || drop(client.runs(&runs(anywhere())).await.unwrap())).await;
    figures.times("runs of an agent and state", "runs", MUST, runs);
    let stats = repeat(async || drop(client.stats().await.unwrap())).await;
    figures.times("stat", "stat", "-", stats);
    search(client, figures, anywhere).await;
}

/// What is asked: its name in words and in the figures, and the question for a number.
type Question = (&'static str, &'static str, fn(u64) -> String);

/// Looks for events by what they say, as people do, once all is indexed.
async fn search(client: &Client, figures: &mut Figures, anywhere: impl Fn() -> u64) {
    let question = |q: String| EventQuery { q: Some(q), limit: Some(50), ..EventQuery::default() };
    // The oldest is indexed last.
    let oldest = question("\"report 0\"".to_owned());
    while client.events(&oldest).await.unwrap().searched_back_to.is_some() {
        std::thread::sleep(Duration::from_millis(500)); // tidy: allow sleep: between two looks at the awaited condition
    }
    let ask = async |q: String| drop(client.events(&question(q)).await.unwrap());
    let questions: [Question; 6] = [
        ("search for a number", "searchNumber", |n| format!("#{n}")),
        ("search for a number and a repository", "searchNumberOfRepo", |n| format!("acme/app #{n}")),
        ("search for the beginning of a word", "searchBeginning", |n| format!("{n}t")),
        ("search for words that are everywhere", "searchCommon", |_| "octo bug".to_owned()),
        ("search for one letter", "searchLetter", |_| "a".to_owned()),
        ("search for what is nowhere", "searchNothing", |n| format!("nowhere{n} bug")),
    ];
    for (name, key, question) in questions {
        let times = repeat(async || ask(question(anywhere())).await).await;
        figures.times(name, key, "p95 ≤ 100 ms", times);
    }
    let bodies = || EventQuery { bodies: Some(true), ..question("nowhere".to_owned()) };
    let times = repeat(async || drop(client.events(&bodies()).await.unwrap())).await;
    figures.times("a page of a search in bodies, without an answer", "searchBodies", "-", times);
}

async fn repeat(mut question: impl AsyncFnMut()) -> Vec<Duration> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = Instant::now();
        question().await;
        times.push(begun.elapsed());
    }
    times
}

/// A backup, and what it does to those who deliver meanwhile.
fn back_up(project: &Path, bytes: u64, deliver: &dyn Fn(Duration) -> Load, figures: &mut Figures) {
    let space = nix::sys::statvfs::statvfs(project).unwrap();
    let free = space.blocks_available() as u64 * space.fragment_size() as u64;
    if free < bytes * 2 {
        println!("backup: not measured, there is no room for a copy");
        return;
    }
    let file = project.join("backup.db");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(["backup", "--project"]).arg(project).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("DOORBELL_CREDENTIALS_DIR", project.join("credentials"));
    let begun = Instant::now();
    let waiting = std::thread::spawn(move || (command.status().unwrap().success(), begun.elapsed()));
    let mut all: Option<Load> = None;
    let mut log = 0;
    while !waiting.is_finished() {
        let done = deliver(Duration::from_secs(1));
        log = log.max(std::fs::metadata(project.join(".doorbell/doorbell.db-wal")).map_or(0, |log| log.len()));
        match &mut all {
            None => all = Some(done),
            Some(all) => {
                all.answered += done.answered;
                all.failed += done.failed;
                all.took += done.took;
                all.latencies.extend(done.latencies);
                all.latencies.sort_unstable();
            }
        }
    }
    let (good, took) = waiting.join().unwrap();
    assert!(good, "the backup is made");
    let rate = bytes as f64 / 1e6 / took.as_secs_f64();
    let shown = format!("{:.1} s, {rate:.0} MB/s", took.as_secs_f64());
    figures.add("backup under load, checked", "backup", shown, "-", took.as_secs_f64());
    figures.add("write-ahead log meanwhile", "logBytes", format!("{:.1} MB", log as f64 / 1e6), "-", log);
    if let Some(all) = all {
        figures.load("accept during a backup", "acceptDuringBackup", &all);
    }
    std::fs::remove_file(file).unwrap();
}

/// A sweep of half of the history, and what it does to those who deliver meanwhile.
fn sweep(project: &Path, requests: &[Request], time: Duration, figures: &mut Figures) {
    keep(project, KEPT);
    let (server, client, _) = start(project);
    let stats = || block_on(client.stats()).unwrap();
    let before = stats().events.unwrap_or_default();
    let done = block_on(load(server.port, requests, CONNECTIONS, time, Some(RATE), Ids::Github));
    let now = stats();
    let removed = (before + done.answered as u64).saturating_sub(now.events.unwrap_or_default());
    let went_on = now.last_sweep.is_none();
    figures.load("accept during a sweep", "acceptDuringSweep", &done);
    if went_on {
        let rate = removed as f64 / done.took.as_secs_f64();
        figures.add("swept meanwhile", "sweptUnderLoad", format!("{rate:.0} events/s"), "-", rate);
    } else {
        println!("the sweep was over before the load: more events show more");
    }
    let sweep = loop {
        if let Some(sweep) = stats().last_sweep {
            break sweep;
        }
        std::thread::sleep(Duration::from_millis(200)); // tidy: allow sleep: between two looks at the awaited condition
    };
    let at = |text: &str| text.parse::<doorbell_core::time::Timestamp>().unwrap();
    let took = at(&sweep.ended_at).since(at(&sweep.started_at));
    let rate = sweep.events as f64 / took.as_secs_f64();
    let shown = format!("{} events in {:.0} s, {rate:.0}/s", sweep.events, took.as_secs_f64());
    figures.add("the whole sweep", "sweepPerSecond", shown, "-", rate);
}
