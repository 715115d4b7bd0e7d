//! Processes of a project's runs that are there now: for `doctor`, which knows which of them should not be.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// A process that belongs to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Its number.
    pub pid: i32,
    /// The run's id.
    pub run: String,
    /// Its program and arguments, as it shows them.
    pub command: String,
}

/// The processes whose environment says that they belong to a run whose folder is below `runs`. Other users' processes
/// cannot be read.
pub fn find_marked(runs: &Path) -> Vec<Marked> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| marked(pid, runs)).collect()
}

fn marked(pid: i32, runs: &Path) -> Option<Marked> {
    let event = variable(pid, "DOORBELL_EVENT_FILE")?;
    if !Path::new(&event).starts_with(runs) {
        return None;
    }
    let run = variable(pid, "DOORBELL_RUN_ID")?.into_string().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    Some(Marked { pid, run, command: words.join(" ").trim().to_owned() })
}

/// A variable in the environment that a process was started with; none if it is another user's.
fn variable(pid: i32, name: &str) -> Option<OsString> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(OsString::from_vec(value.to_vec()))
}
