//! Figures of this process, under the names that Prometheus' own clients give them.

use std::sync::atomic::AtomicU64;

use doorbell_core::time::Timestamp;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::bytes;

/// Registers what the system tells; what it does not is left out.
pub(super) fn register(to: &mut Registry, started: Timestamp) {
    let start = Gauge::<f64, AtomicU64>::default();
    start.set(started.as_millis() as f64 / 1000.0);
    to.register("process_start_time_seconds", "When the gateway started, in seconds since the Unix epoch", start);
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(seconds(usage.user_time()) + seconds(usage.system_time()));
        to.register("process_cpu_seconds", "Processor time, user and system", cpu);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    if let Some(kib) = field("VmRSS") {
        to.register("process_resident_memory_bytes", "Memory in use", bytes(kib * 1024));
    }
    if let Some(kib) = field("VmSize") {
        to.register("process_virtual_memory_bytes", "Address space in use", bytes(kib * 1024));
    }
    if let Some(threads) = field("Threads") {
        to.register("process_threads", "Threads", bytes(threads));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Less the one that this look itself opened.
        let open = open.count().saturating_sub(1) as u64;
        to.register("process_open_fds", "Open file descriptors", bytes(open));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        to.register("process_max_fds", "File descriptors that there may be", bytes(soft));
    }
}
