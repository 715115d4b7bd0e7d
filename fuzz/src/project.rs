//! Projects: files, environment and flags; and the names and secrets of credentials.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use doorbell::config::{Credentials, Environment, load, providers};
use doorbell_core::secret::Secret;

/// A secret that no message may show.
const SECRET: &str = "hunter2-of-acme";

/// The files that a project may have here.
const FILES: [&str; 3] = ["config.toml", "agents/triage/config.toml", "agents/triage/SKILL.md"];

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let home = folder.path().join("home/.doorbell/credentials/github_webhook_secret/acme");
    std::fs::create_dir_all(&home).expect("it can be written to");
    std::fs::write(home.join("secret"), SECRET).expect("it can be written to");
    std::fs::create_dir_all(folder.path().join("project/agents/triage")).expect("it can be written to");
    folder
});

/// Any project is loaded, or everything that is wrong with it said, without a secret. The input is the files of a
/// project, each after a line `=== its/name`; `=== env` and `=== flags` have lines `NAME=value`.
pub(crate) fn config(data: &[u8]) {
    let root = FOLDER.path().join("project");
    let parts = parts(data);
    for name in FILES {
        let path = root.join(name);
        match parts.iter().find(|(part, _)| *part == name.as_bytes()) {
            Some((_, bytes)) => std::fs::write(path, bytes).expect("it can be written"),
            None => drop(std::fs::remove_file(path)),
        }
    }
    let home = FOLDER.path().join("home").display().to_string();
    let environment = pairs(&parts, b"env").into_iter().filter(|(name, _)| name.starts_with("DOORBELL_"));
    let environment: Environment = environment.chain([("HOME".to_owned(), home)]).collect();
    match load(&root, &environment, &pairs(&parts, b"flags")) {
        Ok(config) => {
            assert!(config.settings.iter().all(|setting| !setting.value.contains(SECRET)));
            assert!(!format!("{config:?}").contains(SECRET));
        }
        Err(problems) => {
            let text = problems.to_string();
            assert!(!text.trim().is_empty() && !text.contains(SECRET), "{text}");
        }
    }
}

/// The parts of an input by name.
fn parts(data: &[u8]) -> Vec<(&[u8], Vec<u8>)> {
    let mut parts: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        match (line.strip_prefix(b"=== "), parts.last_mut()) {
            (Some(name), _) => parts.push((name.trim_ascii(), Vec::new())),
            (None, Some((_, bytes))) => bytes.extend_from_slice(line),
            (None, None) => {}
        }
    }
    parts
}

fn pairs(parts: &[(&[u8], Vec<u8>)], name: &[u8]) -> Vec<(String, String)> {
    let bytes = parts.iter().find(|(part, _)| *part == name).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("there is room for a folder"));

/// Names never lead out of the folder of credentials, what is kept is found again, and no message shows a secret. The
/// input is a type, an instance and a field, each on a line, and the secret.
pub(crate) fn credentials(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let mut name = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (kind, instance, field) = (name(), name(), name());
    let secret = parts.next().unwrap_or_default();
    for provider in providers() {
        if let Err(error) = provider.prepare(&Secret::new(secret)) {
            let shown = error.to_string();
            let text = String::from_utf8_lossy(secret);
            assert!(text.trim().len() < 12 || !shown.contains(text.trim()), "{shown}");
        }
    }
    let credentials = Credentials::new(&[("HOME", HOME.path())].into_iter().collect());
    let folder = HOME.path().join(".doorbell/credentials");
    let Ok(path) = credentials.add(&kind, &instance, &field, &Secret::new(secret)) else {
        let leads_out =
            [&kind, &instance, &field].iter().any(|name| name.contains(['/', '\0']) || name.starts_with('.'));
        assert!(!leads_out || credentials.find(&kind, &instance, &field).is_err());
        return;
    };
    assert_eq!(depth(&path, &folder), Some(3), "{}", path.display());
    let found = credentials.find(&kind, &instance, &field).expect("it can be read").expect("it is there").0;
    let kept = secret.strip_suffix(b"\n").unwrap_or(secret);
    assert_eq!(found.expose(), kept.strip_suffix(b"\r").unwrap_or(kept));
    assert!(credentials.list().expect("it can be listed").iter().any(|stored| stored.field == field));
    assert!(credentials.remove(&kind, &instance, &field).expect("it can be removed"));
}

/// How many plain names lead from a folder to a path.
fn depth(path: &Path, folder: &Path) -> Option<usize> {
    let rest: PathBuf = path.strip_prefix(folder).ok()?.to_owned();
    let plain = rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then(|| rest.components().count())
}
