//! What a command works on: the project, and the gateway that runs for it or that was named.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use doorbell_client::Client;
use doorbell_core::secret::Secret;

use super::Global;
use super::failure::{Exit, Failure};
use crate::config::{self, Config, Credentials, Environment};
use crate::gateway::{Address, address_file, key_file};

/// The credentials of whoever runs the command.
pub(super) fn credentials() -> Credentials {
    Credentials::new(&Environment::read())
}

/// What every command is given.
#[derive(Debug)]
pub(super) struct Context {
    project: Option<PathBuf>,
    url: Option<String>,
    key: Option<Secret>,
    /// Whether to print JSON.
    pub(super) json: bool,
}

impl Context {
    pub(super) fn new(global: Global) -> Self {
        let Global { project, url, key, json } = global;
        // A variable that is set to nothing is a variable that is not set.
        let url = url.filter(|url| !url.trim().is_empty());
        let key = key.filter(|key| !key.is_blank());
        Self { project, url, key, json }
    }

    /// Whether commands go to the gateway that runs for the project, not to one that was named.
    pub(super) fn asks_the_project(&self) -> bool {
        self.url.is_none()
    }

    /// The project's folder, absolute.
    pub(super) fn root(&self) -> anyhow::Result<PathBuf> {
        let current = std::env::current_dir().context("cannot tell the current folder")?;
        match &self.project {
            Some(named) => at(&current.join(named)),
            None => nearest(&current, self.asks_the_project()),
        }
    }

    /// Whether a project was named.
    pub(super) fn names_a_project(&self) -> bool {
        self.project.is_some()
    }

    /// The project's configuration, checked.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.root()?, &Environment::read(), &[])?)
    }

    /// A client of the gateway: of the one that was named, else of the one that runs for the project.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let key = match (&self.key, &self.url) {
            (Some(key), _) => Some(key.clone()),
            // The project's key is for the project's gateway, not for whatever a URL names.
            (None, Some(_)) => None,
            (None, None) => read_key(&self.root()?)?,
        };
        let key = key.as_ref().map(|key| key.expose_str().ok_or_else(|| Failure::usage("the key is not text")));
        Ok(Client::new(&self.gateway_url()?, key.transpose()?)?)
    }

    /// The gateway's URL, without a slash at the end.
    pub(super) fn gateway_url(&self) -> anyhow::Result<String> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => running(&self.root()?)?.url,
        };
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// Where the gateway takes deliveries, without a slash at the end.
    pub(super) fn senders_url(&self) -> anyhow::Result<String> {
        match self.url {
            Some(_) => self.gateway_url(),
            None => {
                let Address { url, ingest, .. } = running(&self.root()?)?;
                Ok(ingest.unwrap_or(url))
            }
        }
    }
}

fn at(folder: &Path) -> anyhow::Result<PathBuf> {
    if !folder.join("config.toml").is_file() {
        let message = format!("there is no project in {}: no config.toml", folder.display());
        return Err(Failure::usage(message).hint("make one with `doorbell init DIR`").into());
    }
    folder.canonicalize().with_context(|| format!("cannot open {}", folder.display()))
}

/// `or_url`: a gateway that is named by its URL would do, too.
fn nearest(folder: &Path, or_url: bool) -> anyhow::Result<PathBuf> {
    // An agent's own file has the same name, so the one above `agents` is meant.
    let is_agent = |folder: &&Path| folder.parent().is_some_and(|parent| parent.ends_with("agents"));
    let above = folder.ancestors().filter(|above| above.join("config.toml").is_file());
    match above.clone().find(|above| !is_agent(above)).or_else(|| above.clone().next()) {
        Some(root) => at(root),
        None => {
            let hint = match or_url {
                true => "make one with `doorbell init`, or name one with --project, or a gateway with --url",
                false => {
                    "this command needs a project's files on this machine, whatever --url or DOORBELL_URL names: name it with --project"
                }
            };
            let message = format!("there is no project here: no config.toml in {} or above", folder.display());
            Err(Failure::usage(message).hint(hint).into())
        }
    }
}

/// Where the gateway of a project said that it runs; it may be gone since.
pub(super) fn running(root: &Path) -> anyhow::Result<Address> {
    let path = address_file(root);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Failure::no_gateway().into()),
        Err(error) => return Err(unreadable(&path, &error).into()),
    };
    let address = serde_json::from_slice::<Address>(&text);
    address.with_context(|| format!("{} is damaged: start the gateway again", path.display()))
}

fn read_key(root: &Path) -> anyhow::Result<Option<Secret>> {
    let path = key_file(root);
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(Secret::new(text.trim_ascii())).filter(|key| !key.is_blank())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, &error).into()),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::NotAllowed,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("agents/triage")).unwrap();
        std::fs::create_dir_all(folder.path().join(".doorbell")).unwrap();
        for file in ["config.toml", "agents/triage/config.toml"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        folder
    }

    fn context(project: &Path, url: Option<&str>) -> Context {
        let global = Global { project: Some(project.to_owned()), url: url.map(str::to_owned), key: None, json: false };
        Context::new(global)
    }

    fn exit(error: &anyhow::Error) -> Exit {
        error.downcast_ref::<Failure>().unwrap().exit
    }

    #[test]
    fn the_project_is_the_nearest_folder_above_that_is_one() {
        let folder = project();
        let root = folder.path().canonicalize().unwrap();
        for inside in ["", "agents", "agents/triage"] {
            assert_eq!(nearest(&folder.path().join(inside), true).unwrap(), root, "{inside}");
        }
    }

    #[test]
    fn whoever_named_a_url_is_not_told_to_name_one() {
        let folder = tempfile::tempdir().unwrap();
        let hint = |or_url| nearest(folder.path(), or_url).unwrap_err().downcast::<Failure>().unwrap().hint_text();
        assert!(hint(true).contains("or a gateway with --url"));
        assert!(hint(false).contains("--project") && !hint(false).contains("a gateway with"));
    }

    #[test]
    fn a_named_folder_is_not_searched_above() {
        let folder = project();
        assert_eq!(exit(&context(&folder.path().join("agents"), None).root().unwrap_err()), Exit::Usage);
    }

    #[test]
    fn without_a_gateway_it_is_unreachable() {
        let folder = project();
        assert_eq!(exit(&context(folder.path(), None).client().unwrap_err()), Exit::Unreachable);
    }

    #[test]
    fn the_gateway_of_the_project_is_found() {
        let folder = project();
        std::fs::write(folder.path().join(".doorbell/gateway.json"), r#"{"url":"http://127.0.0.1:1/","pid":7}"#)
            .unwrap();
        std::fs::write(folder.path().join(".doorbell/key"), "dbk_1\n").unwrap();
        let context = context(folder.path(), None);
        assert_eq!(context.gateway_url().unwrap(), "http://127.0.0.1:1");
        assert_eq!(context.client().unwrap().base_url(), "http://127.0.0.1:1");
        assert!(read_key(folder.path()).unwrap().unwrap().equals(b"dbk_1"));
    }

    #[test]
    fn an_empty_url_is_none() {
        let folder = project();
        assert!(context(folder.path(), Some("")).asks_the_project());
        assert!(!context(folder.path(), Some("http://gateway")).asks_the_project());
    }
}
