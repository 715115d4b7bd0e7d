//! What the gateway takes: memory, file descriptors, children that nobody reaped, and the write-ahead log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::project::PATIENCE;
use crate::{Soak, pause};

const EVERY: Duration = Duration::from_millis(500);
/// Orphans are looked for now and then, not when they die.
const REAPED_WITHIN: Duration = Duration::from_secs(10);
/// More resident memory from the middle to the last third of the last gateway's life, besides a tenth: the allocator and
/// SQLite's caches come to rest within some MiB. One KiB kept of each delivery would be more within a minute.
pub const MEMORY_GROWTH: f64 = 8.0;
/// The most resident memory, MiB, at any time. Not the target of ingest alone in docs/performance.md: here thousands of
/// events are listed, removed and copied besides, each connection of the store keeps a cache, and in CI the build is not
/// optimised. It is there to notice a peak; whether something stays is what growth says.
pub const MEMORY: f64 = 256.0;
/// More descriptors at rest than before anything came: the connections of the store that reads opened, each with its log.
pub const FILES_GROWTH: usize = 8;
/// The log is emptied at 4096 pages of 4 KiB with 24 bytes of header each. What is committed while it is copied is added,
/// and as much again when a reader is in the way: three times the size, in MiB.
pub const LOG: f64 = 3.0 * 4096.0 * 4120.0 / 1024.0 / 1024.0;

#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Resident, MiB.
    pub memory: f64,
}

/// The samples of one gateway process.
#[derive(Debug, Default)]
pub struct Life {
    pub samples: Vec<Sample>,
}

#[derive(Debug, Default)]
pub struct Watched {
    pub lives: Vec<Life>,
    /// The largest write-ahead log, MiB.
    pub log: f64,
    /// The most run folders at once.
    pub folders: usize,
}

/// Looks until it is over.
pub async fn watch(soak: Arc<Soak>) -> Watched {
    let mut watched = Watched::default();
    let (mut pid, mut dead): (Option<Pid>, BTreeMap<i32, Instant>) = (None, BTreeMap::new());
    let log = soak.project.path(".doorbell/doorbell.db-wal");
    while !soak.is_over() {
        pause(EVERY).await;
        watched.log = watched.log.max(std::fs::metadata(&log).map_or(0.0, |log| log.len() as f64 / 1024.0 / 1024.0));
        watched.folders = watched.folders.max(soak.project.run_folders());
        let Some(gateway) = soak.gateway().await else { break };
        if pid != Some(gateway.pid()) {
            pid = Some(gateway.pid());
            watched.lives.push(Life::default());
            dead.clear();
        }
        let Some(sample) = look(gateway.pid()) else { continue };
        watched.lives.last_mut().expect("pushed above").samples.push(sample);
        let now = unreaped(gateway.pid());
        dead.retain(|child, _| now.contains(child));
        for child in now {
            let since = *dead.entry(child).or_insert_with(Instant::now);
            if since.elapsed() > REAPED_WITHIN {
                soak.ledger.find(format!("the dead process {child} is not reaped"));
            }
        }
    }
    watched
}

fn look(pid: Pid) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let memory = line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0;
    Some(Sample { memory })
}

/// Its open descriptors but for the other ends of our connections, which are as many as we keep open.
pub fn files(pid: Pid) -> usize {
    let open = |process: String| {
        let all = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        all.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect::<Vec<PathBuf>>()
    };
    let is_socket = |to: &&PathBuf| to.as_os_str().as_encoded_bytes().starts_with(b"socket:");
    open(pid.to_string()).len().saturating_sub(open("self".to_owned()).iter().filter(is_socket).count())
}

/// The same when all runs are over: what an agent or a read had open is closed a moment later.
pub async fn files_at_rest(pid: Pid, wanted: usize) -> usize {
    let begun = Instant::now();
    loop {
        let open = files(pid);
        if open <= wanted || begun.elapsed() > PATIENCE {
            return open;
        }
        pause(EVERY).await;
    }
}

/// Children that ended and were not waited for: state Z, parent fourth in `stat` (proc(5)).
fn unreaped(parent: Pid) -> BTreeSet<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_dead = |pid: &i32| {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.next() == Some("Z") && fields.next() == Some(parent.to_string().as_str())
    };
    pids.filter(is_dead).collect()
}

impl Life {
    /// The middle and the last third; the first one is for warming up.
    fn thirds(&self) -> (&[Sample], &[Sample]) {
        let third = self.samples.len() / 3;
        (&self.samples[third..2 * third], &self.samples[2 * third..])
    }

    /// Median memory in the middle and the last third, MiB.
    pub fn memory(&self) -> (f64, f64) {
        let of = |part: &[Sample]| crate::support::median(part.iter().map(|sample| sample.memory).collect());
        let (middle, last) = self.thirds();
        (of(middle), of(last))
    }

    pub fn most_memory(&self) -> f64 {
        self.samples.iter().map(|sample| sample.memory).fold(0.0, f64::max)
    }
}
