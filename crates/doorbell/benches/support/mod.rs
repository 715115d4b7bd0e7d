//! What the benchmarks share: servers on one core, a load generator on another, tables and JSON.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::zombie_processes, dead_code)]

mod connection;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use doorbell_core::moment;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[allow(unused_imports)]
pub use connection::{Connection, find_ids};

/// The core of the server, and that of the generator.
pub const SERVER_CORE: usize = 0;
pub const LOAD_CORE: usize = 1;
/// For a server that is measured alone: as `taskset` has it.
pub const ALL_CORES: &str = "0-1023";

/// Binds this process to a core, where there is more than one.
pub fn pin(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    if std::thread::available_parallelism().map_or(1, usize::from) > 1 && set.set(core).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

/// A server process, ended when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a command bound to the server's core; `find_port` is asked until it knows the port.
    pub fn start(program: &str, args: &[String], find_port: impl FnMut() -> Option<u16>) -> Self {
        Self::start_on(&SERVER_CORE.to_string(), program, args, find_port)
    }

    fn start_on(cores: &str, program: &str, args: &[String], mut find_port: impl FnMut() -> Option<u16>) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(program).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("taskset (util-linux) runs");
        let started = Instant::now();
        loop {
            if let Some(port) = find_port() {
                return Self { child, port };
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{program} {args:?} does not listen");
            std::thread::yield_now();
        }
    }

    /// Starts the gateway of a project, with the credentials in the project's folder.
    pub fn start_gateway(project: &Path) -> Self {
        Self::start_gateway_on(project, &SERVER_CORE.to_string())
    }

    pub fn start_gateway_on(project: &Path, cores: &str) -> Self {
        let address = project.join(".doorbell/gateway.json");
        let _ = std::fs::remove_file(&address);
        let args = [
            format!("DOORBELL_CREDENTIALS_DIR={}", project.join("credentials").display()),
            "DOORBELL_LOG=warn".to_owned(),
            env!("CARGO_BIN_EXE_doorbell").to_owned(),
            "serve".to_owned(),
            "--project".to_owned(),
            project.display().to_string(),
        ];
        Self::start_on(cores, "env", &args, || {
            let address: Value = serde_json::from_str(&std::fs::read_to_string(&address).ok()?).ok()?;
            let url = address["url"].as_str()?.strip_prefix("http://")?.parse::<SocketAddr>().ok()?;
            Some(url.port())
        })
    }

    /// CPU time used so far, all threads, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // After the name, which may hold anything: the state is field 3, utime and stime are 14 and 15 (proc(5)).
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in MB.
    pub fn memory_mb(&self) -> f64 {
        self.status_mb("VmRSS:")
    }

    /// The most that it ever had.
    pub fn most_memory_mb(&self) -> f64 {
        self.status_mb("VmHWM:")
    }

    fn status_mb(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request without its delivery id, which is put in between.
#[derive(Debug, Clone)]
pub struct Request {
    pub before_id: Vec<u8>,
    pub after_id: Vec<u8>,
}

/// How the deliveries of a load are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// As GitHub names them: UUIDs of version 1, which say when they were made.
    Github,
    /// UUIDs of version 4: random.
    Random,
}

impl Ids {
    /// The id of the delivery `sent` of a lane; `salt` is the lane's own.
    fn make(self, salt: u64, sent: u64) -> String {
        if self == Self::Github {
            return moment::uuid(doorbell::clock::now(), sent as u16, salt);
        }
        // As random as a random one, and made in less time than asking the system for it takes.
        let mix = |n: u64| {
            (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let bits = (u128::from(mix(salt ^ mix(sent))) << 64) | u128::from(mix(salt.wrapping_add(sent)));
        let digits = format!("{:032x}", (bits & !(0xF << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62));
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }
}

/// What a load did.
#[derive(Debug, Clone)]
pub struct Load {
    pub answered: usize,
    pub failed: usize,
    pub took: Duration,
    pub latencies: Vec<Duration>,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    pub fn percentile(&self, percent: f64) -> Duration {
        let index = ((self.latencies.len() as f64 - 1.0) * percent / 100.0).round().max(0.0) as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Sends requests over so many keep-alive connections for a time; `per_second` paces them, if given.
pub async fn load(
    port: u16,
    requests: &[Request],
    connections: usize,
    time: Duration,
    per_second: Option<f64>,
    ids: Ids,
) -> Load {
    let started = Instant::now();
    let pause = per_second.map(|rate| Duration::from_secs_f64(connections as f64 / rate));
    let lanes = (0..connections).map(|lane| drive(port, requests, lane, started, time, pause, ids));
    let mut all = Load { answered: 0, failed: 0, took: Duration::ZERO, latencies: Vec::new() };
    for lane in futures_util::future::join_all(lanes).await {
        all.answered += lane.answered;
        all.failed += lane.failed;
        all.latencies.extend(lane.latencies);
    }
    all.took = started.elapsed();
    all.latencies.sort_unstable();
    all
}

async fn drive(
    port: u16,
    requests: &[Request],
    lane: usize,
    started: Instant,
    time: Duration,
    pause: Option<Duration>,
    ids: Ids,
) -> Load {
    let mut load = Load { answered: 0, failed: 0, took: Duration::ZERO, latencies: Vec::new() };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let salt = u64::from_be_bytes(doorbell::clock::random());
    let (mut sent, mut wire, mut answer) = (0u64, Vec::new(), vec![0; 16 * 1024]);
    let mut next = Instant::now() + pause.map_or(Duration::ZERO, |pause| pause.mul_f64(lane as f64 / 64.0));
    while started.elapsed() < time {
        if let Some(pause) = pause {
            tokio::time::sleep_until(next.into()).await;
            next += pause;
        }
        let request = &requests[(lane + sent as usize * 7) % requests.len()];
        wire.clear();
        wire.extend_from_slice(&request.before_id);
        wire.extend_from_slice(ids.make(salt, sent).as_bytes());
        wire.extend_from_slice(&request.after_id);
        sent += 1;
        let begun = Instant::now();
        stream.write_all(&wire).await.unwrap();
        let ok = read_answer(&mut stream, &mut answer).await;
        if ok {
            load.answered += 1;
            load.latencies.push(begun.elapsed());
        } else {
            load.failed += 1;
        }
    }
    load
}

/// Reads one answer; whether it is a 200.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.unwrap_or(0);
        if read == 0 {
            return false;
        }
        filled += read;
        let text = &buffer[..filled];
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
        if filled >= end + 4 + length {
            return head.starts_with("http/1.1 200");
        }
    }
}

/// One fdatasync of 8 KiB appended to a file here: sorted times.
pub fn measure_fdatasync(folder: &std::path::Path, times: usize) -> Vec<Duration> {
    use std::io::Write;
    let path = folder.join("fdatasync");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![7u8; 8192];
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            file.write_all(&block).unwrap();
            let begun = Instant::now();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    let _ = std::fs::remove_file(path);
    took.sort_unstable();
    took
}

/// Prints rows under titles, as Markdown.
pub fn print_table(titles: &[&str], rows: &[Vec<String>]) {
    println!("| {} |", titles.join(" | "));
    println!("|{}", "---|".repeat(titles.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

/// Writes figures where the next one who looks finds them.
pub fn write_json(name: &str, figures: &Value) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(figures).unwrap()).unwrap();
    println!("figures: {}", file.display());
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
