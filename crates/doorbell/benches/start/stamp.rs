//! The agent of `cargo xtask bench start`: writes the time and its run, as its first act and its only one.
//!
//! `stamp FILE`: appends a line `NANOSECONDS RUN` to the file; the run is `DOORBELL_RUN_ID`.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let now = SystemTime::now();
    let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let run = std::env::var("DOORBELL_RUN_ID").unwrap_or_default();
    let Some(file) = std::env::args_os().nth(1) else { return };
    if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(file) {
        let _ = file.write_all(format!("{nanos} {run}\n").as_bytes());
    }
}
