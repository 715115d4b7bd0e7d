//! `cargo xtask bench dispatch`: what it takes to wait for runs, to be handed one, and to claim one of very many.
//!
//! The server has one core; workers and senders, in this one process, another. Claims are measured in the store itself, in
//! memory where the system has such a place: a disk's sync would hide what they cost.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "dispatch/claims.rs"]
mod claims;
mod support;
#[path = "dispatch/workers.rs"]
mod workers;

use std::path::Path;
use std::time::Duration;

use claims::{AGENTS, Claims};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::{Connection, Server, micros, millis};
use workers::Ledger;

/// Pollers that wait for runs that do not come.
const IDLE: usize = 5000;
/// Workers that fetch runs, and deliveries a second.
const WORKERS: usize = 50;
const RATE: f64 = 1000.0;
/// Deliveries a second on a machine that has nothing else to do.
const CALM: f64 = 50.0;
/// How many runs wait when claims are measured.
const WAITING: [u64; 4] = [1000, 10_000, 100_000, 1_000_000];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)?.parse().ok());
    let most: u64 = number("--waiting").unwrap_or(WAITING[3]);
    let time = Duration::from_secs(number("--seconds").unwrap_or(10));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    support::pin(support::LOAD_CORE);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fsync = support::measure_fdatasync(folder.path(), 500);
    println!("fdatasync of 8 KiB here: p50 {}, p99 {}\n", micros(fsync[250]), micros(fsync[495]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let workers = local.block_on(&runtime, measure_workers(&folder.path().join("project"), time));
    let sizes: Vec<u64> = WAITING.into_iter().filter(|waiting| *waiting <= most).collect();
    let claims = local.block_on(&runtime, measure_claims(&sizes));
    support::write_json("dispatch", &json!({"workers": workers, "claims": claims}));
}

async fn measure_workers(project: &Path, time: Duration) -> Value {
    workers::make_project(project);
    let server = Server::start_gateway(project);
    let key = workers::key(project);
    // Whoever asks first makes it open what it opens once.
    assert_eq!(Connection::open(server.port).await.get("/v1/agents", &key).await.0, 200);
    let rest = server.memory_mb();
    // The yardstick: as many connections that asked something once, and wait for nothing.
    let mut silent = Vec::new();
    for _ in 0..IDLE {
        let mut connection = Connection::open(server.port).await;
        assert_eq!(connection.get("/healthz", &key).await.0, 200);
        silent.push(connection);
    }
    let connected = server.memory_mb();
    drop(silent);
    drop(server);
    let server = Server::start_gateway(project);
    assert_eq!(Connection::open(server.port).await.get("/v1/agents", &key).await.0, 200);
    let rest = rest.max(server.memory_mb());
    let begun = std::time::Instant::now();
    let mut idle = workers::wait_idle(&server, &key, IDLE).await;
    // One that asks last is answered when those before it wait.
    assert_eq!(Connection::open(server.port).await.get("/v1/agents", &key).await.0, 200);
    println!("{IDLE} came in {}", millis(begun.elapsed()));
    tokio::time::sleep(Duration::from_secs(1)).await; // tidy: allow sleep: what is measured is a pause
    let with = server.memory_mb();
    let each = (with - rest) * 1024.0 / IDLE as f64;
    let before = server.cpu();
    tokio::time::sleep(Duration::from_secs(2)).await; // tidy: allow sleep: what is measured is a pause
    let cpu = (server.cpu() - before).as_secs_f64() / 2.0;
    let rows = [
        ["memory at rest".to_owned(), format!("{rest:.0} MB"), "≤ 40 MB".to_owned()],
        [format!("memory with {IDLE} open connections"), format!("{connected:.0} MB"), String::new()],
        [format!("memory with {IDLE} pollers that wait"), format!("{with:.0} MB"), "≤ 120 MB".to_owned()],
        ["each poller".to_owned(), format!("{each:.1} KiB"), String::new()],
        ["CPU while nothing comes".to_owned(), format!("{:.1}%", cpu * 100.0), String::new()],
    ];
    support::print_table(&["figure", "measured", "must"], &rows.map(Vec::from));

    // With all of them waiting, each delivery wakes one.
    let begun = std::time::Instant::now();
    let woken = wake_one(&server, &mut idle).await;
    assert_eq!(woken, 1, "{:?}", begun.elapsed());
    drop(idle);
    drop(server);

    let server = Server::start_gateway(project);
    let before = server.cpu();
    let calm = workers::hand_out(&server, &key, WORKERS, 1, CALM, time).await;
    let calm_cpu = server.cpu() - before;
    let before = server.cpu();
    let load = workers::hand_out(&server, &key, WORKERS, 16, RATE, time).await;
    let load_cpu = server.cpu() - before;
    let rows = [
        row(&format!("{CALM:.0} runs/s"), &calm, calm_cpu, "≤ 2 / 10 ms"),
        row(&format!("{RATE:.0} runs/s"), &load, load_cpu, ""),
    ];
    let titles = [
        "50 workers",
        "runs",
        "lost",
        "twice",
        "2xx received → in hand, p50",
        "p99",
        "delivery sent → in hand, p50",
        "p99",
        "CPU a run",
        "must",
    ];
    support::print_table(&titles, &rows);
    for ledger in [&calm, &load] {
        assert_eq!(ledger.lost_and_repeated(), (0, 0), "nothing is lost or handed out twice");
    }
    json!({"memoryAtRestMb": rest, "memoryWithIdleMb": with, "kibEach": each, "calm": figures(&calm), "load": figures(&load)})
}

/// Rings once; how many of those that wait are handed something.
async fn wake_one(server: &Server, idle: &mut [Connection]) -> usize {
    let mut sender = Connection::open(server.port).await;
    let (status, answer) = sender.post("/v1/webhooks/generic/bench", None, "{\"event\":\"ring\"}").await;
    assert_eq!(status, 200, "{answer}");
    let answers = idle.iter_mut().map(|connection| Box::pin(connection.receive()));
    let ((_, answer), ..) = futures_util::future::select_all(answers).await;
    usize::from(answer.contains("run_"))
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    times.get((times.len().max(1) - 1) * percent / 100).copied().unwrap_or_default()
}

fn row(name: &str, ledger: &Ledger, cpu: Duration, must: &str) -> Vec<String> {
    let (whole, after) = ledger.times();
    let (lost, repeated) = ledger.lost_and_repeated();
    let each = cpu / u32::try_from(ledger.runs().max(1)).unwrap();
    let mut cells = vec![name.to_owned(), ledger.runs().to_string(), lost.to_string(), repeated.to_string()];
    cells.extend(
        [&after, &whole].into_iter().flat_map(|times| [50, 99].map(|percent| millis(percentile(times, percent)))),
    );
    cells.extend([micros(each), must.to_owned()]);
    cells
}

fn figures(ledger: &Ledger) -> Value {
    let (whole, after) = ledger.times();
    let both = |times: &[Duration]| json!([percentile(times, 50).as_secs_f64(), percentile(times, 99).as_secs_f64()]);
    json!({"runs": ledger.runs(), "afterAnswer": both(&after), "afterSent": both(&whole)})
}

async fn measure_claims(sizes: &[u64]) -> Value {
    let folder =
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let measured = claims::measure(folder.path(), sizes).await;
    let of = |agent: &'static str| measured.iter().filter(move |claims| claims.agent == agent);
    let mut rows = Vec::new();
    for (agent, what) in AGENTS {
        let first = of(agent).next().map_or(Duration::ZERO, |claims| claims.percentile(50));
        for claims in of(agent) {
            let over = claims.percentile(50).as_secs_f64() / first.as_secs_f64();
            let (p50, p99) = (micros(claims.percentile(50)), micros(claims.percentile(99)));
            rows.push(vec![what.to_owned(), claims.waiting.to_string(), p50, p99, format!("{over:.2}")]);
        }
    }
    let titles = ["runs", "waiting", "a claim, p50", "p99", "over 1,000 waiting (must ≤ 1.5)"];
    support::print_table(&titles, &rows);
    let figure = |claims: &Claims| {
        json!({"agent": claims.agent, "waiting": claims.waiting, "p50": claims.percentile(50).as_secs_f64(),
            "p99": claims.percentile(99).as_secs_f64()})
    };
    measured.iter().map(figure).collect()
}
