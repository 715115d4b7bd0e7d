//! Whether the database is whole, and who has it.

use std::time::Duration;

use super::{Finding, Subject, bytes, fail, ok, warn};
use crate::store::{self, Inspection, Soundness};

const CHECK: &str = "database";

/// How long looking at its pages may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A log that is emptied in time stays far below this.
const LONG_LOG: u64 = 256 << 20;
/// A file that is mostly empty, if it is large.
const LARGE: u64 = 1 << 30;

/// What the database looks like; none if there is none yet.
pub(super) type Inspected = std::io::Result<Option<Inspection>>;

/// Looks at the database; none if the configuration does not say where it is.
pub(super) async fn inspect(subject: &Subject) -> Option<Inspected> {
    let (url, root, now) = (subject.config()?.store_url.clone(), subject.root.clone(), subject.now);
    let inspected = tokio::task::spawn_blocking(move || store::inspect(&url, &root, now, LIMIT)).await;
    Some(inspected.unwrap_or_else(|error| Err(std::io::Error::other(error))))
}

pub(super) fn check(subject: &Subject, inspected: &Inspected) -> Vec<Finding> {
    match inspected {
        Ok(Some(found)) => judge(subject, found),
        Ok(None) if subject.gateway.is_some() => {
            let advice = "stop the gateway, put the file back (or restore a backup), and start it again";
            vec![fail(CHECK, "its file is gone, while the gateway runs", advice)]
        }
        Ok(None) => vec![ok(CHECK, "is made by the first start")],
        Err(error) => {
            let advice =
                "run `doorbell doctor` as the user that runs the gateway; if something keeps it busy, try again";
            vec![fail(CHECK, format!("cannot be looked at: {error}"), advice)]
        }
    }
}

fn judge(subject: &Subject, found: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &found.soundness {
        Soundness::Damaged(what) => {
            let advice = "stop the gateway, keep a copy of .doorbell, and restore a backup";
            findings.push(fail(CHECK, format!("is damaged: {}", what.join("; ")), advice));
        }
        Soundness::Unfinished => {
            let advice = "with the gateway stopped: `sqlite3 FILE 'PRAGMA quick_check'`";
            let what =
                format!("is too large ({}) to be looked at whole in 10 s; so far it is sound", bytes(found.bytes));
            findings.push(warn(CHECK, what, advice));
        }
        Soundness::Sound => {}
    }
    if found.schema > found.known_schema {
        let advice = "use the newer Doorbell that wrote it";
        let what = format!("its schema has version {}, this program knows {}", found.schema, found.known_schema);
        findings.push(fail(CHECK, what, advice));
    }
    if found.log_bytes > LONG_LOG {
        let advice = "something keeps a reader open (an open `sqlite3`, a backup that hangs): `fuser` shows which";
        findings.push(warn(CHECK, format!("its write-ahead log has {}", bytes(found.log_bytes)), advice));
    }
    if found.bytes > LARGE && found.free_bytes > found.bytes / 2 {
        let advice = "it is used again; to give it back: stop the gateway and `sqlite3 FILE VACUUM`";
        findings.push(warn(
            CHECK,
            format!("{} of its {} are empty", bytes(found.free_bytes), bytes(found.bytes)),
            advice,
        ));
    }
    let known = subject.unseen.is_none();
    if let Some(holder) = found.holder.filter(|holder| known && subject.pid() != Some(*holder)) {
        let advice =
            format!("see what it is (`ps {holder}`); if it is a gateway that hangs, end it, and start it again");
        findings.push(warn(CHECK, format!("process {holder} has it, and is not the gateway that answers"), advice));
    }
    if findings.is_empty() {
        let (size, log) = (bytes(found.bytes), bytes(found.log_bytes));
        let free = bytes(found.free_bytes);
        findings.push(ok(CHECK, format!("is sound: {size} ({free} of it free), and {log} that wait in its log")));
    }
    findings
}
