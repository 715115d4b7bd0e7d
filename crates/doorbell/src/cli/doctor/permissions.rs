//! Who may read what is secret, and whose it is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Finding, Subject, fail, ok, warn};
use crate::config::Credentials;
use crate::gateway::{STATE_FOLDER, key_file};
use crate::vault;

const CHECK: &str = "permissions";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let state = subject.root.join(STATE_FOLDER);
    let whose = owner(subject);
    let mut findings = Vec::new();
    let own = [state.clone(), key_file(&subject.root), state.join(vault::FILE), state.join("runs")];
    for path in own.into_iter().chain(databases(&state)) {
        findings.extend(check_path(&path, true, whose));
    }
    let credentials = Credentials::new(&subject.environment);
    for path in credentials.own_paths() {
        findings.extend(check_path(&path, true, whose));
    }
    findings.extend(check_path(&subject.root.join("config.toml"), false, whose));
    if findings.is_empty() {
        findings.push(ok(CHECK, "state, keys and credentials are their owner's alone"));
    }
    findings
}

fn databases(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().contains(".db")).map(|entry| entry.path()).collect()
}

/// Whose the files must be: the user of the gateway that runs, else whoever asks.
fn owner(subject: &Subject) -> Option<u32> {
    let gateway = subject.pid().and_then(|pid| std::fs::metadata(format!("/proc/{pid}")).ok());
    let asking = || std::fs::metadata("/proc/self").ok();
    gateway.or_else(asking).map(|process| process.uid())
}

/// `private`: nobody else may read it.
fn check_path(path: &Path, private: bool, whose: Option<u32>) -> Vec<Finding> {
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
    let open = found.mode() & 0o077;
    if private && open != 0 {
        let mode = if found.is_dir() { "700" } else { "600" };
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
        assert_eq!(check_path(&file, true, Some(own)), []);
        assert_eq!(check_path(&file, true, Some(own + 1))[0].status, Status::Fail);
    }
}
