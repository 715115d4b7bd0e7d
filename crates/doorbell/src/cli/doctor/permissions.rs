//! Who may read what is secret, and whose it is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::commands::agents_of_others;
use super::{Finding, Subject, fail, ok, warn};
use crate::config::Credentials;
use crate::gateway::STATE_FOLDER;
use crate::runtime::user_of;

const CHECK: &str = "permissions";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let state = subject.root.join(STATE_FOLDER);
    let whose = owner(subject);
    let mut findings = Vec::new();
    let others = subject.config().is_some_and(|config| agents_of_others(config).next().is_some());
    // Agents of other users pass through these to the folders of their runs, and see nothing of what else is there.
    let way = if others { Closed::Passable } else { Closed::Private };
    for path in [state.clone(), state.join("runs")] {
        findings.extend(check_path(&path, way, whose));
    }
    for path in inside(&state).filter(|path| *path != state.join("runs")) {
        findings.extend(check_path(&path, Closed::Private, whose));
    }
    let credentials = Credentials::new(&subject.environment);
    for path in credentials.own_paths() {
        findings.extend(check_path(&path, Closed::Private, whose));
    }
    findings.extend(check_path(&subject.root.join("config.toml"), Closed::Unwritable, whose));
    if findings.is_empty() {
        findings.push(ok(CHECK, "state, keys and credentials are their owner's alone"));
    }
    findings
}

fn inside(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whose the files must be: the user of the gateway that runs, else whoever asks.
fn owner(subject: &Subject) -> Option<u32> {
    let asking = || i32::try_from(std::process::id()).ok().and_then(user_of);
    subject.pid().and_then(user_of).or_else(asking)
}

/// From whom something is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// Nobody else may read it.
    Private,
    /// Nobody else may see what is in it; who knows what is there may pass.
    Passable,
    /// Nobody else may change it.
    Unwritable,
}

fn check_path(path: &Path, closed: Closed, whose: Option<u32>) -> Vec<Finding> {
    let shown = path.display();
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let advice = "run `doorbell doctor` as the user that runs the gateway";
            return vec![fail(CHECK, format!("{shown} cannot be looked at: {error}"), advice)];
        }
    };
    let mut findings = Vec::new();
    let private = closed != Closed::Unwritable;
    let open = found.mode() & if closed == Closed::Passable { 0o066 } else { 0o077 };
    if private && open != 0 {
        let mode = match (closed, found.is_dir()) {
            (Closed::Passable, _) => "711",
            (_, true) => "700",
            (_, false) => "600",
        };
        let what = format!("{shown} is open to other users (mode {:o})", found.mode() & 0o777);
        findings.push(fail(CHECK, what, format!("chmod {mode} {shown}")));
    } else if !private && found.mode() & 0o002 != 0 {
        let what = format!("anybody on this machine may change {shown}, and so what is run");
        findings.push(fail(CHECK, what, format!("chmod o-w {shown}")));
    }
    if let Some(uid) = whose.filter(|uid| private && *uid != found.uid()) {
        let what = format!("{shown} belongs to user {}, and user {uid} needs it", found.uid());
        let advice = format!("chown {uid} {shown}, or run Doorbell as user {}", found.uid());
        // Root reads it all the same, but what it makes then is root's.
        findings.push(if uid == 0 { warn(CHECK, what, advice) } else { fail(CHECK, what, advice) });
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Status;
    use super::*;

    #[test]
    fn a_file_of_somebody_else_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let own = std::fs::metadata(&file).unwrap().uid();
        assert_eq!(check_path(&file, Closed::Private, Some(own)), []);
        assert_eq!(check_path(&file, Closed::Private, Some(own + 1))[0].status, Status::Fail);
    }
}
