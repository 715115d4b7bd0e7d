//! What the machine has to give: disk, open files, watches.

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use super::{Finding, Subject, bytes, fail, ok, warn};
use crate::gateway::STATE_FOLDER;
use crate::store::Inspection;

/// Less than this, and a few large deliveries fill the disk.
const LITTLE: u64 = 64 << 20;
/// Less than this is worth a look.
const SOME: u64 = 1 << 30;
/// Days left that are worth a look.
const SOON: f64 = 14.0;
/// Files that a gateway under load wants to have open: its connections, and what it keeps.
const FILES_WANTED: u64 = 8704;
/// With less, it cannot keep its own files, an agent's pipes and some connections.
const FILES_NEEDED: u64 = 640;

/// Free space, and how long it lasts by what the database looks like.
pub(super) fn check_disk(subject: &Subject, database: Option<&Inspection>) -> Vec<Finding> {
    const CHECK: &str = "disk";
    let state = subject.root.join(STATE_FOLDER);
    let folder = if state.is_dir() { &state } else { &subject.root };
    let found = match statvfs(folder) {
        Ok(found) => found,
        Err(error) => return vec![warn(CHECK, format!("{}: {error}", folder.display()), "look with `df`")],
    };
    let free = found.blocks_available() * found.fragment_size();
    let advice = "make room, or move the project (or `[store] url`) to a larger disk";
    if found.files() > 0 && found.files_available() == 0 {
        return vec![fail(CHECK, "no file can be made any more: the disk is out of inodes", advice)];
    }
    let days = database.and_then(|database| days_left(database, free));
    let lasts = match days {
        Some(days) if days < 10_000.0 => format!("; at the present growth it lasts {days:.0} days"),
        Some(_) => "; at the present growth it lasts for years".to_owned(),
        None => "; how long that lasts cannot be told yet".to_owned(),
    };
    let what = format!("{} are free{lasts}", bytes(free));
    vec![match (free, days) {
        (..LITTLE, _) => fail(CHECK, what, format!("{advice}; when it is full, senders get 503")),
        (..SOME, _) => warn(CHECK, what, advice),
        (_, Some(days)) if days < SOON => warn(CHECK, what, advice),
        _ => ok(CHECK, what),
    }]
}

fn days_left(database: &Inspection, free: u64) -> Option<f64> {
    let growth = database.growth?.bytes_a_day;
    (growth > 0.0).then(|| (free + database.free_bytes) as f64 / growth)
}

/// How many files the gateway may open.
pub(super) fn check_files(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "open files";
    let (most, whose) = match subject.pid().and_then(limit_of) {
        Some(hard) => (hard, "the gateway"),
        None => match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((_, hard)) => (hard, "a gateway started from here"),
            Err(error) => {
                return vec![warn(CHECK, format!("the limit cannot be told: {error}"), "look with `ulimit -Hn`")];
            }
        },
    };
    let advice = "raise it: `LimitNOFILE=` in a systemd unit, `ulimit -Hn`, `--ulimit nofile=` of Docker";
    let what = format!("{whose} may open {most}");
    vec![if most < FILES_NEEDED {
        fail(CHECK, what, advice)
    } else if most < FILES_WANTED {
        warn(CHECK, format!("{what}: fewer than 8192 connections at once"), advice)
    } else if most == u64::MAX {
        ok(CHECK, format!("{whose} may open as many as it wants"))
    } else {
        ok(CHECK, what)
    }]
}

/// The hard limit of a process; the gateway raises its own soft one.
fn limit_of(pid: i32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Whether changed files can be noticed: tried, because the limits are shared by all programs of a user.
pub(super) fn check_watching(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "watches";
    let tried = Inotify::init(InitFlags::IN_CLOEXEC)
        .and_then(|inotify| inotify.add_watch(&subject.root, AddWatchFlags::IN_MODIFY).map(drop));
    vec![match tried {
        Ok(()) => ok(CHECK, "changed files can be noticed"),
        Err(Errno::EMFILE | Errno::ENFILE) => {
            let advice = "raise it: `sysctl fs.inotify.max_user_instances=512`";
            warn(CHECK, "no more inotify instances: changed files are noticed seconds later", advice)
        }
        Err(Errno::ENOSPC) => {
            let advice = "raise it: `sysctl fs.inotify.max_user_watches=65536`";
            warn(CHECK, "no more inotify watches: changed files are noticed seconds later", advice)
        }
        Err(error) => {
            let advice = "restart the gateway after changes to its files";
            warn(CHECK, format!("changed files cannot be noticed here: {error}"), advice)
        }
    }]
}
