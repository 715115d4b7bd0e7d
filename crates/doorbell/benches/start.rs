//! `cargo xtask bench start`: from the 2xx to the agent's process, on a machine that does nothing else, against starting
//! the same program from this one.
//!
//! One delivery at a time, the next one when the run is over. The agent is a program of a few lines without a shell
//! (`benches/start/stamp.rs`, compiled here), which writes the time as its first act: so forking, loading and starting
//! it is in what is measured, and in the yardstick too.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use support::{Connection, Server, find_ids, micros, millis};

/// Starts that are measured, and those before them that are not.
const STARTS: usize = 500;
const WARM_UP: usize = 50;
/// What the machine rests between two starts.
const REST: Duration = Duration::from_millis(10);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = compile(folder.path());
    let fsync = support::measure_fdatasync(folder.path(), 500);
    println!("fdatasync of 8 KiB here: p50 {}, p99 {}\n", micros(fsync[250]), micros(fsync[495]));
    let stamps = folder.path().join("stamps");
    // Both ways in turn, so that neither has the better moments of the machine.
    let (mut direct, mut sent, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    let project = folder.path().join("project");
    let gateway = start_gateway(&project, &program, &stamps);
    let mut connection = Connection::open(gateway.port).await;
    for n in 0..WARM_UP + STARTS {
        let begun = now();
        let begun_direct = start_directly(&program, &stamps);
        let took = stamp_of(&stamps, "direct").await - begun_direct;
        rest(begun).await;
        let delivery = ring(&mut connection).await;
        let stamp = stamp_of(&stamps, &delivery.run).await;
        await_end(&mut connection, &project, &delivery.run).await;
        rest(stamp).await;
        if n >= WARM_UP {
            direct.push(took);
            sent.push(stamp.saturating_sub(delivery.sent));
            answered.push(stamp.saturating_sub(delivery.answered));
        }
    }
    report(direct, sent, answered, &fsync);
}

fn report(direct: Vec<Duration>, sent: Vec<Duration>, answered: Vec<Duration>, fsync: &[Duration]) {
    let [direct, sent, answered] = [direct, sent, answered].map(|mut times| {
        times.sort_unstable();
        times
    });
    let of = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    let row = |name: &str, times: &[Duration], must: &str| {
        let over = of(times, 50).as_secs_f64() / of(&direct, 50).as_secs_f64();
        vec![name.to_owned(), millis(of(times, 50)), millis(of(times, 99)), format!("{over:.2}"), must.to_owned()]
    };
    let rows = [
        row("spawned directly: spawn → its first act", &direct, ""),
        row("Doorbell: 2xx received → its first act", &answered, "≤ 3 / 10 ms"),
        row("Doorbell: delivery sent → its first act", &sent, ""),
    ];
    support::print_table(&["what", "p50", "p99", "p50 over directly", "must"], &rows);
    let both = |times: &[Duration]| json!({"p50": of(times, 50).as_secs_f64(), "p99": of(times, 99).as_secs_f64()});
    support::write_json(
        "start",
        &json!({"direct": both(&direct), "answered": both(&answered), "sent": both(&sent),
            "fdatasyncP50": fsync[250].as_secs_f64()}),
    );
}

/// Compiles the agent.
fn compile(folder: &Path) -> PathBuf {
    let program = folder.join("stamp");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/start/stamp.rs");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-o"]).arg(&program).arg(source);
    assert!(rustc.status().expect("rustc is there").success());
    program
}

fn start_gateway(project: &Path, program: &Path, stamps: &Path) -> Server {
    std::fs::create_dir_all(project.join("agents/stamp")).unwrap();
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\n[webhooks.bench]\ntype = \"generic\"\nallow_unsigned = true\n";
    std::fs::write(project.join("config.toml"), config).unwrap();
    // By its name, as people write commands.
    let (folder, name) = (program.parent().unwrap(), program.file_name().unwrap());
    let agent = format!(
        "[[webhooks]]\nsource = \"bench\"\n[runtime]\ntype = \"command\"\ncommand = [{name:?}, {stamps:?}]\n\
         env = {{ PATH = {folder:?} }}\n"
    );
    std::fs::write(project.join("agents/stamp/config.toml"), agent).unwrap();
    Server::start_gateway_on(project, support::ALL_CORES)
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// As the gateway does: in a group of its own, with three pipes. Answers when.
fn start_directly(program: &Path, stamps: &Path) -> Duration {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.arg(stamps).env_clear().env("DOORBELL_RUN_ID", "direct").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = now();
    let child = command.spawn().unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    begun
}

struct Delivery {
    run: String,
    sent: Duration,
    answered: Duration,
}

async fn ring(connection: &mut Connection) -> Delivery {
    let id = u128::from_be_bytes(doorbell::clock::random());
    let body = json!({"event": "ring", "number": id.to_string(), "text": "what happened ".repeat(64)}).to_string();
    let sent = now();
    let (status, answer) = connection.post("/v1/webhooks/generic/bench", None, &body).await;
    let answered = now();
    assert_eq!(status, 200, "{answer}");
    Delivery { run: find_ids(&answer, "run_").next().unwrap().to_owned(), sent, answered }
}

/// The stamp of a run, as soon as it is there.
async fn stamp_of(stamps: &Path, run: &str) -> Duration {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(stamps).unwrap_or_default();
        let last = text.strip_suffix('\n').and_then(|text| text.lines().last()).and_then(|line| line.split_once(' '));
        if let Some((nanos, _)) = last.filter(|(_, of)| *of == run) {
            let _ = std::fs::remove_file(stamps);
            return Duration::from_nanos(nanos.parse().unwrap());
        }
        assert!(Instant::now() < deadline, "{run} does not start");
        tokio::time::sleep(Duration::from_millis(1)).await; // tidy: allow sleep: between two looks
    }
}

async fn await_end(connection: &mut Connection, project: &Path, run: &str) {
    let key = std::fs::read_to_string(project.join(".doorbell/key")).unwrap();
    while !connection.get(&format!("/v1/runs/{run}"), key.trim()).await.1.contains("\"succeeded\"") {
        tokio::time::sleep(Duration::from_millis(1)).await; // tidy: allow sleep: between two looks
    }
}

/// Waits until the machine has rested.
async fn rest(since: Duration) {
    let rested = now().saturating_sub(since);
    tokio::time::sleep(REST.saturating_sub(rested).max(REST / 2)).await; // tidy: allow sleep: the machine rests
}
