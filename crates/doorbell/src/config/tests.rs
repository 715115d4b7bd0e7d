//! Whole projects in temporary folders.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::{Config, Environment, Problems, load};

mod accepted;
mod layered;
mod layers;
mod notifications;
mod presets;
mod refused;
mod rendered;
mod runtimes;
mod telemetry;

pub(super) const GATEWAY: &str = "[webhooks.acme-github]\ntype = \"github\"\ncredential = \"acme\"\n";
pub(super) const AGENT: &str =
    "[[webhooks]]\nsource = \"acme-github\"\n[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n";
pub(super) const SECRET: &str = "hunter2-of-acme";

/// A project with a home folder that has the credential `github_webhook_secret:acme`.
pub(super) struct Project {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
    flags: Vec<(String, String)>,
}

impl Project {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home").display().to_string();
        let project = Self { folder, variables: vec![("HOME".to_owned(), home)], flags: Vec::new() };
        project.credential("github_webhook_secret/acme/secret", &format!("{SECRET}\n"))
    }

    /// A source and an agent that listens to it.
    pub(super) fn small() -> Self {
        Self::new().file("config.toml", GATEWAY).file("agents/triage/config.toml", AGENT)
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("project")
    }

    pub(super) fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        write(&self.root().join(name), text.as_ref());
        self
    }

    /// A certificate and its key.
    pub(super) fn certificate(self, certificate: &str, key: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["hooks.example.com".to_owned()]).unwrap();
        self.file(certificate, made.cert.pem()).file(key, made.signing_key.serialize_pem())
    }

    pub(super) fn credential(self, name: &str, secret: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join("home/.doorbell/credentials").join(name);
        write(&path, secret.as_bytes());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    pub(super) fn var(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn flag(mut self, path: &str, value: &str) -> Self {
        self.flags.push((path.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn environment(&self) -> Environment {
        self.variables.iter().cloned().collect()
    }

    pub(super) fn load(&self) -> Result<Config, Problems> {
        load(&self.root(), &self.environment(), &self.flags)
    }

    /// What is wrong with it, with the temporary folder as `TMP`.
    pub(super) fn problems(&self) -> String {
        let problems = self.load().map(|config| config.settings).expect_err("it loads").to_string();
        problems.replace(&self.folder.path().display().to_string(), "TMP")
    }
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A project whose `config.toml` is this.
pub(super) fn gateway(text: &str) -> Project {
    Project::new().file("config.toml", text)
}

/// A project with one agent whose file is this.
pub(super) fn agent(text: &str) -> Project {
    Project::new().file("config.toml", GATEWAY).file("agents/triage/config.toml", text)
}
