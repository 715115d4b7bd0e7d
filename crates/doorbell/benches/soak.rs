//! `cargo xtask soak`: everything at once for a while. A gateway under steady and bursty load whose configuration is
//! edited, whose past is removed and copied, whose agents are killed, and which is killed itself.
//!
//! The gateway is killed in the first half only: in the second one, the last gateway shows that what it takes does not
//! grow. Prints where it stands every few seconds and what held at the end; fails if something did not.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "soak/audit.rs"]
mod audit;
#[path = "soak/ledger.rs"]
mod ledger;
#[path = "soak/load.rs"]
mod load;
#[path = "soak/project.rs"]
mod project;
mod support;
#[path = "soak/trouble.rs"]
mod trouble;
#[path = "soak/watch.rs"]
mod watch;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use doorbell_client::{Client, Error};
use ledger::Ledger;
use load::Load;
use nix::sys::signal::Signal;
use project::{Gateway, PATIENCE, Project};
use serde_json::json;
use watch::{FILES_GROWTH, LOG, MEMORY, MEMORY_GROWTH, Watched};

/// What is kept: so short that the sweep has work all the time, so long that every delivery is audited after kills.
const RETENTION: Duration = Duration::from_secs(15);
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What all parts share.
#[derive(Debug)]
pub struct Soak {
    pub project: Project,
    pub ledger: Ledger,
    pub retention: Duration,
    pub begun: Instant,
    /// None while it is killed.
    pub gateway: Mutex<Option<Arc<Gateway>>>,
    /// Written to while what is saved is nonsense; read while a gateway or a command starts, which would refuse it.
    pub whole: tokio::sync::RwLock<()>,
    over: AtomicBool,
}

impl Soak {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The running gateway, as soon as there is one; none if it is over before.
    pub async fn gateway(&self) -> Option<Arc<Gateway>> {
        loop {
            if let Some(gateway) = &*self.gateway.lock().unwrap() {
                return Some(Arc::clone(gateway));
            }
            if self.is_over() {
                return None;
            }
            pause(Duration::from_millis(10)).await;
        }
    }

    /// Whether this gateway was not killed.
    pub fn is_current(&self, gateway: &Arc<Gateway>) -> bool {
        self.gateway.lock().unwrap().as_ref().is_some_and(|current| Arc::ptr_eq(current, gateway))
    }

    /// A gateway that was not killed answers.
    pub fn answered(&self, gateway: &Arc<Gateway>, heard: Result<(), Error>) {
        self.answered_with(gateway, heard.map(|()| true), "");
    }

    /// The same, and what it answers holds.
    pub fn answered_with(&self, gateway: &Arc<Gateway>, heard: Result<bool, Error>, what: &str) {
        if !self.is_current(gateway) {
            return;
        }
        match heard {
            Ok(holds) => self.ledger.check(holds, || what.to_owned()),
            Err(error) => self.ledger.find(format!("the gateway does not answer: {error}")),
        }
    }
}

/// A soak goes by the clock: how often something happens is its purpose.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await; // tidy: allow sleep: the pace of what is done, not a guess how long something takes
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let minutes = args.iter().position(|arg| arg == "--minutes").and_then(|at| args.get(at + 1)?.parse().ok());
    let time = Duration::from_secs_f64(60.0 * minutes.unwrap_or(10.0));
    let project = Project::new(RETENTION);
    let first = Arc::new(project.serve());
    let files = watch::files(first.pid());
    let gateway = Mutex::new(Some(first));
    let soak = Arc::new(Soak {
        project,
        ledger: Ledger::default(),
        retention: RETENTION,
        begun: Instant::now(),
        gateway,
        whole: tokio::sync::RwLock::default(),
        over: AtomicBool::new(false),
    });
    let watched = run(&soak, time).await;
    let gateway = soak.gateway().await.expect("the last one is never killed");
    let heard = close(&soak, &gateway.client).await;
    soak.answered(&gateway, heard);
    let files = (files, watch::files_at_rest(gateway.pid(), files + watch::FILES_GROWTH).await);
    gateway.signal(Signal::SIGTERM);
    soak.ledger.check(gateway.ended(), || "the gateway did not end well after SIGTERM".to_owned());
    drop(gateway);
    check_processes(&soak).await;
    report(&soak, &watched, files, time)
}

/// Everything at once, for a time.
async fn run(soak: &Arc<Soak>, time: Duration) -> Watched {
    let watched = tokio::spawn(watch::watch(Arc::clone(soak)));
    let half = soak.begun + time / 2;
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(Load::new(Arc::clone(soak)).send());
    parts.spawn(trouble::kill_gateways(Arc::clone(soak), time / 12, half));
    parts.spawn(trouble::kill_agents(Arc::clone(soak)));
    parts.spawn(trouble::reload(Arc::clone(soak)));
    parts.spawn(trouble::back_up(Arc::clone(soak)));
    parts.spawn(trouble::audit_often(Arc::clone(soak)));
    let mut tick = tokio::time::interval(TELL_EVERY);
    while soak.begun.elapsed() < time {
        tokio::select! {
            _ = tick.tick() => tell(soak),
            // Only killing gateways ends early, but a panic is told of at once.
            Some(part) = parts.join_next() => part.expect("every part goes on to the end"),
        }
    }
    soak.over.store(true, Ordering::Relaxed);
    while let Some(part) = parts.join_next().await {
        part.expect("every part goes on to the end");
    }
    tell(soak);
    watched.await.expect("watching goes on to the end")
}

fn figure(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn tell(soak: &Soak) {
    let ledger = &soak.ledger;
    println!(
        "{:>4} s: {} accepted, {} again, {} unanswered; {} audited, {} reloads, {} backups; killed: {} gateways, {} agents",
        soak.begun.elapsed().as_secs(),
        figure(&ledger.accepted),
        figure(&ledger.again),
        figure(&ledger.unanswered),
        figure(&ledger.audited),
        figure(&ledger.reloads),
        figure(&ledger.backups),
        figure(&ledger.gateways_killed),
        figure(&ledger.agents_killed),
    );
}

/// After the load: all runs end, everything is there a last time, and then retention removes it, folders too.
async fn close(soak: &Soak, client: &Client) -> Result<(), Error> {
    audit::audit(soak, client).await?;
    let ended = audit::all_ended(client, PATIENCE).await?;
    soak.ledger.check(ended, || "runs do not end".to_owned());
    let runs = audit::check_runs(soak, client).await?;
    soak.ledger.check(runs > 0, || "no runs are left to look at".to_owned());
    let begun = Instant::now();
    loop {
        // The newest event and run stay, for their numbers.
        let (events, folders) = (client.stats().await?.events.unwrap_or_default(), soak.project.run_folders());
        if events <= 2 && folders <= 2 {
            return Ok(());
        }
        if begun.elapsed() > soak.retention + PATIENCE {
            soak.ledger.find(format!("{events} events and {folders} run folders are older than what is kept"));
            return Ok(());
        }
        pause(Duration::from_millis(200)).await;
    }
}

/// Nothing of any run is left, and no run was carried out twice at once.
async fn check_processes(soak: &Soak) {
    let begun = Instant::now();
    while !soak.project.processes().is_empty() && begun.elapsed() < PATIENCE {
        pause(Duration::from_millis(50)).await;
    }
    let left = soak.project.processes();
    soak.ledger.check(left.is_empty(), || format!("processes are left: {left:?}"));
    let twice = std::fs::read_to_string(soak.project.path("violations")).unwrap_or_default();
    soak.ledger.check(twice.is_empty(), || format!("carried out twice at once: {twice}"));
}

fn report(soak: &Soak, watched: &Watched, (files, files_end): (usize, usize), time: Duration) -> ExitCode {
    let ledger = &soak.ledger;
    let last = watched.lives.last().expect("at least one gateway was watched");
    let (memory, memory_end) = last.memory();
    let most = watched.lives.iter().map(watch::Life::most_memory).fold(0.0, f64::max);
    let broken = ledger.findings();
    let claims = [
        ("what did not hold of deliveries, runs and copies", broken.to_string(), "0".to_owned(), broken == 0),
        ("largest write-ahead log", format!("{:.1} MiB", watched.log), format!("≤ {LOG:.0} MiB"), watched.log <= LOG),
        ("most memory", format!("{most:.0} MiB"), format!("≤ {MEMORY} MiB"), most <= MEMORY),
        (
            "memory, middle and end of the last gateway",
            format!("{memory:.1} → {memory_end:.1} MiB"),
            format!("≤ {MEMORY_GROWTH} MiB and a tenth more"),
            memory_end <= memory * 1.1 + MEMORY_GROWTH,
        ),
        (
            "file descriptors at rest, before and after",
            format!("{files} → {files_end}"),
            format!("≤ {FILES_GROWTH} more"),
            files_end <= files + FILES_GROWTH,
        ),
    ];
    let counts = [
        ("accepted", &ledger.accepted),
        ("sentAgain", &ledger.again),
        ("unanswered", &ledger.unanswered),
        ("audited", &ledger.audited),
        ("reloads", &ledger.reloads),
        ("backups", &ledger.backups),
        ("gatewaysKilled", &ledger.gateways_killed),
        ("agentsKilled", &ledger.agents_killed),
    ];
    // What did not happen was not shown.
    let idle: Vec<&str> =
        counts.iter().filter(|(name, n)| *name != "unanswered" && figure(n) == 0).map(|(name, _)| *name).collect();
    println!();
    support::print_table(&["what", "times"], &counts.map(|(name, n)| vec![name.to_owned(), figure(n).to_string()]));
    let rows = claims.each_ref().map(|(what, measured, must, holds)| {
        vec![(*what).to_owned(), measured.clone(), must.clone(), if *holds { "yes" } else { "**no**" }.to_owned()]
    });
    support::print_table(&["claim", "measured", "must", "holds"], &rows);
    let counts: serde_json::Map<_, _> = counts.iter().map(|(name, n)| ((*name).to_owned(), json!(figure(n)))).collect();
    println!(
        "at most {} events were stored at once, {} runs had a folder",
        figure(&ledger.most_events),
        watched.folders
    );
    support::write_json(
        "soak",
        &json!({
            "seconds": time.as_secs(), "counts": counts, "findings": broken, "largestLogMib": watched.log,
            "mostMemoryMib": most, "memoryMib": [memory, memory_end], "files": [files, files_end],
            "mostRunFolders": watched.folders, "mostEvents": figure(&ledger.most_events),
        }),
    );
    if !idle.is_empty() {
        println!("nothing was shown of: {}", idle.join(", "));
    }
    if claims.iter().all(|(.., holds)| *holds) && idle.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nthe last lines of the gateways:\n{}", soak.project.log_end());
    ExitCode::FAILURE
}
