//! `cargo xtask bench ingest`: durable, verified accepts against two yardsticks of the same run and the same stack:
//! answering 200, and checking the signature and answering 200.
//!
//! The server has one core, the generator another: 64 keep-alive connections, 8 KiB bodies as GitHub sends them, each
//! with a valid signature and a delivery id of its own. Its target was set on a processor without SHA extensions:
//! `OPENSSL_ia32cap=":~0x20000000" cargo xtask bench ingest` switches them off.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::post;
use doorbell::http::{Limits, Service, serve};
use doorbell_core::delivery::Delivery;
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, Unsent, find_sample};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::verify::verify;
use serde_json::{Value, json};
use support::{Ids, Load, Request, Server, load, median, micros, millis};

const SECRET: &str = "a secret of the benchmark";
const BODY: usize = 8 * 1024;
const CONNECTIONS: usize = 64;
const PATH: &str = "/v1/webhooks/github/bench";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().position(|arg| arg == "--yardstick") {
        Some(at) => serve_yardstick(&args[at + 1], Path::new(&args[at + 2])),
        None => {
            let seconds = args.iter().position(|arg| arg == "--seconds").and_then(|at| args[at + 1].parse().ok());
            measure(Duration::from_secs_f64(seconds.unwrap_or(4.0)));
        }
    }
}

fn source() -> Arc<Source> {
    let key = Github.prepare(&Secret::new(SECRET)).unwrap();
    let keys = vec![NamedKey { instance: "bench".to_owned(), key }];
    Arc::new(Source::new("bench", Arc::new(Github), keys, false, Dedup::Id).unwrap())
}

/// The same accept loop and router as the gateway's, without what comes after.
#[tokio::main]
async fn serve_yardstick(kind: &str, port_file: &Path) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    std::fs::write(port_file, listener.local_addr().unwrap().port().to_string()).unwrap();
    let source = source();
    let check = kind == "verify";
    let answer = move |method: Method, headers: HeaderMap, body: Bytes| async move {
        if !check {
            return StatusCode::OK;
        }
        let received_at = doorbell::clock::now();
        let delivery = Arc::new(Delivery { method, url: String::new(), headers, body, received_at, certificate: None });
        match verify(&source, &delivery) {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::UNAUTHORIZED,
        }
    };
    let router = Router::new().route(PATH, post(answer));
    let closing = tokio_util::sync::CancellationToken::new();
    let told = closing.clone();
    tokio::spawn(async move {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        terminate.recv().await;
        told.cancel();
    });
    serve(listener, Service::plain(router, Limits::default()), closing).await;
}

fn start_yardstick(kind: &str, folder: &Path) -> Server {
    let port_file = folder.join(format!("{kind}.port"));
    let _ = std::fs::remove_file(&port_file);
    let program = std::env::current_exe().unwrap().display().to_string();
    let args = ["--yardstick".to_owned(), kind.to_owned(), port_file.display().to_string()];
    Server::start(&program, &args, || std::fs::read_to_string(&port_file).ok()?.parse().ok())
}

/// Every run waits in the queue, however many there are.
const GROWS: &str = "when_full = \"grow\"\n";
/// As it is without a word: a hundred runs wait, and each further one drops the oldest.
const BY_DEFAULT: &str = "";

/// `queue`: the keys that say how long an agent's queue may be.
fn start_gateway(folder: &Path, queue: &str) -> Server {
    let _ = std::fs::remove_dir_all(folder);
    let credential = folder.join("credentials/github_webhook_secret/bench");
    std::fs::create_dir_all(&credential).unwrap();
    std::fs::write(credential.join("secret"), SECRET).unwrap();
    std::fs::create_dir_all(folder.join("agents/idle")).unwrap();
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"0s\"\n\
                  [webhooks.bench]\ntype = \"github\"\ncredential = \"bench\"\n";
    std::fs::write(folder.join("config.toml"), config).unwrap();
    // Its first run never ends, so that the others are stored and wait: agents are not what is measured.
    let agent = format!(
        "{queue}[[webhooks]]\nsource = \"bench\"\nevents = [\"issues\"]\nrepos = [\"acme/*\"]\n\
         [runtime]\ntype = \"command\"\ncommand = [\"sleep\", \"100000\"]\n"
    );
    std::fs::write(folder.join("agents/idle/config.toml"), agent).unwrap();
    Server::start_gateway(folder)
}

/// 256 signed requests, each with a body of its own of 8 KiB.
fn make_requests() -> Vec<Request> {
    let sample = find_sample(Github.samples(), "issues.opened").unwrap();
    let key = Github.prepare(&Secret::new(SECRET)).unwrap();
    let text = "Steps to reproduce, what was expected and what came instead, as people write them. ";
    (0..256u32)
        .map(|number| {
            let mut body: Value = serde_json::from_str(&sample.body).unwrap();
            body["issue"]["number"] = json!(number + 1000);
            body["issue"]["id"] = json!(u64::from(number) * 7919 + 2_000_000_000);
            body["issue"]["title"] = json!(format!("Report {number}: it fails on the {number}th try"));
            let missing = BODY.saturating_sub(body.to_string().len());
            body["issue"]["body"] = json!(text.repeat(1 + missing / text.len())[..missing.max(1)].to_owned());
            let signed =
                Github.sign(Some(&key), Unsent::new("issues.opened", body.to_string(), "@ID@", doorbell::clock::now()));
            let headers: String = signed.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!(
                "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n",
                signed.body.len()
            );
            let (before, after) = head.split_once("@ID@").unwrap();
            Request { before_id: before.into(), after_id: [after.as_bytes(), &signed.body].concat() }
        })
        .collect()
}

/// Not measured: caches fill, and the gateway learns what the bodies of its source have in common, once.
const WARM_UP: Duration = Duration::from_secs(3);

fn warm(server: Server, requests: &[Request], ids: Ids) -> Server {
    measure_load(&server, requests, CONNECTIONS, WARM_UP, None, ids);
    server
}

struct Measured {
    load: Load,
    cpu: Duration,
    memory_mb: f64,
}

fn measure_load(
    server: &Server,
    requests: &[Request],
    connections: usize,
    time: Duration,
    rate: Option<f64>,
    ids: Ids,
) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = server.cpu();
    let load = runtime.block_on(load(server.port, requests, connections, time, rate, ids));
    assert_eq!(load.failed, 0, "every request is accepted");
    let cpu = (server.cpu() - before) / u32::try_from(load.answered.max(1)).unwrap();
    Measured { load, cpu, memory_mb: server.memory_mb() }
}

enum Kind {
    Yardstick(&'static str),
    /// With these keys of the agent's queue.
    Gateway(&'static str),
}

fn measure(time: Duration) {
    support::pin(support::LOAD_CORE);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let requests = make_requests();
    let project = folder.path().join("project");
    let (mut plain, mut check) = (Vec::new(), Vec::new());
    let (mut accept, mut random, mut dropping) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for _ in 0..3 {
        for (kind, ids, rounds) in [
            (Kind::Yardstick("plain"), Ids::Github, &mut plain),
            (Kind::Yardstick("verify"), Ids::Github, &mut check),
            (Kind::Gateway(GROWS), Ids::Github, &mut accept),
            (Kind::Gateway(GROWS), Ids::Random, &mut random),
            (Kind::Gateway(BY_DEFAULT), Ids::Github, &mut dropping),
        ] {
            let server = match kind {
                Kind::Yardstick(kind) => start_yardstick(kind, folder.path()),
                Kind::Gateway(queue) => start_gateway(&project, queue),
            };
            let server = warm(server, &requests, ids);
            rounds.push(measure_load(&server, &requests, CONNECTIONS, time, None, ids));
        }
        ratios.push(accept.last().unwrap().load.per_second() / check.last().unwrap().load.per_second());
    }
    let ratio = median(ratios);
    let yardstick = median(check.iter().map(|m| m.load.per_second()).collect());
    let rows = [
        ("same stack, answers 200", &plain),
        ("verify only", &check),
        ("Doorbell, SQLite", &accept),
        ("the same, random delivery ids", &random),
        ("the same, each run drops the oldest of a full queue", &dropping),
    ];
    let rows = rows.map(|(name, rounds)| row(name, rounds, yardstick));
    support::print_table(&["what", "requests/s", "over verify only", "CPU each", "p50", "p99", "memory"], &rows);

    let server = start_gateway(&project, GROWS);
    let rest = server.memory_mb();
    // Not what the first requests cost, and fewer of them than a dictionary is made from: that takes memory, too.
    measure_load(&server, &requests, 1, Duration::from_millis(20), None, Ids::Github);
    let chunked = growth_by_a_chunked_body(&server);
    let server = warm(server, &requests, Ids::Github);
    // Held against the disk as it is in the same seconds.
    let mut syncs = support::measure_fdatasync(folder.path(), 500);
    let one = measure_load(&server, &requests, 1, time, None, Ids::Github);
    syncs.extend(support::measure_fdatasync(folder.path(), 500));
    syncs.sort_unstable();
    let full = median(accept.iter().map(|m| m.load.per_second()).collect());
    let half = measure_load(&server, &requests, CONNECTIONS, time, Some(full / 2.0), Ids::Github);
    drop(server);
    let (events, bytes) = disk_use(&project);
    let per_event = bytes as f64 / events as f64;
    let p99 = |rounds: &[Measured]| {
        Duration::from_secs_f64(median(rounds.iter().map(|m| m.load.percentile(99.0).as_secs_f64()).collect()))
    };
    let over = |time: Duration| time.as_secs_f64() / syncs[500].as_secs_f64();
    let most = accept.iter().chain([&half]).map(|m| m.memory_mb).fold(0.0, f64::max);
    let rows = [
        ["durable accept over verify only".to_owned(), format!("{ratio:.2}"), "≥ 0.45".to_owned()],
        [
            "one connection, p50 over fdatasync p50".to_owned(),
            format!("{:.1}", over(one.load.percentile(50.0))),
            "≤ 4".to_owned(),
        ],
        [
            "one connection, p99 over fdatasync p50".to_owned(),
            format!("{:.1}", over(one.load.percentile(99.0))),
            "≤ 12".to_owned(),
        ],
        ["p99, 64 connections, half load".to_owned(), millis(half.load.percentile(99.0)), "≤ 15 ms".to_owned()],
        ["p99, 64 connections, full load".to_owned(), millis(p99(&accept)), "≤ 15 ms".to_owned()],
        ["memory at rest".to_owned(), format!("{rest:.0} MB"), "≤ 40 MB".to_owned()],
        ["memory under full load".to_owned(), format!("{most:.0} MB"), "≤ 150 MB".to_owned()],
        ["growth of memory by a body of 200 MB in chunks".to_owned(), format!("{chunked:.1} MB"), "≤ 27 MB".to_owned()],
        ["disk per 8 KiB event".to_owned(), format!("{per_event:.0} B"), "≤ 4096 B".to_owned()],
    ];
    println!("fdatasync of 8 KiB here: p50 {}, p99 {}\n", micros(syncs[500]), micros(syncs[990]));
    support::print_table(&["figure", "measured", "must"], &rows.map(Vec::from));
    let seconds = |time: Duration| time.as_secs_f64();
    support::write_json(
        "ingest",
        &json!({
            "ratioOverVerifyOnly": ratio, "verifyOnlyPerSecond": yardstick, "acceptsPerSecond": full,
            "acceptsPerSecondWithAFullQueue": median(dropping.iter().map(|m| m.load.per_second()).collect()),
            "acceptsPerSecondWithRandomIds": median(random.iter().map(|m| m.load.per_second()).collect()),
            "plainPerSecond": median(plain.iter().map(|m| m.load.per_second()).collect()),
            "fdatasyncP50": seconds(syncs[500]), "oneConnectionP50": seconds(one.load.percentile(50.0)),
            "oneConnectionP99": seconds(one.load.percentile(99.0)), "halfLoadP99": seconds(half.load.percentile(99.0)),
            "fullLoadP99": seconds(p99(&accept)), "memoryAtRestMb": rest, "memoryUnderLoadMb": most, "growthByChunkedBodyMb": chunked, "bytesPerEvent": per_event,
        }),
    );
}

/// By how many MB the most that the server ever had grows by a body that is refused: eight times what a body may have.
fn growth_by_a_chunked_body(server: &Server) -> f64 {
    use std::io::{Read, Write};
    let before = server.most_memory_mb();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(stream, "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let piece = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    // It is told before the end, and the connection is closed.
    let _ = (0..200_000_000 / 0x10000).try_for_each(|_| stream.write_all(&piece));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    server.most_memory_mb() - before
}

fn row(name: &str, rounds: &[Measured], yardstick: f64) -> Vec<String> {
    let of = |figure: &dyn Fn(&Measured) -> f64| median(rounds.iter().map(figure).collect());
    let rate = of(&|m| m.load.per_second());
    vec![
        name.to_owned(),
        format!("{rate:.0}"),
        format!("{:.2}", rate / yardstick),
        format!("{:.0} µs", of(&|m| m.cpu.as_secs_f64() * 1e6)),
        format!("{:.2} ms", of(&|m| m.load.percentile(50.0).as_secs_f64() * 1e3)),
        format!("{:.2} ms", of(&|m| m.load.percentile(99.0).as_secs_f64() * 1e3)),
        format!("{:.0} MB", of(&|m| m.memory_mb)),
    ]
}

/// Events in the database of a closed gateway, and the bytes it takes.
fn disk_use(project: &Path) -> (u64, u64) {
    let database = project.join(".doorbell/doorbell.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    let events: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    let bytes = std::fs::metadata(&database).unwrap().len();
    (u64::try_from(events).unwrap(), bytes)
}
