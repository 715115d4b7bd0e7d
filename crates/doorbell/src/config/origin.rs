//! Where a configuration is read from, so that it can be read again, and how the files there stand.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::credentials::Credentials;
use super::environment::Environment;
use super::names::is_name;
use super::problem::Problems;
use super::{Config, load_from};

/// The files of an agent that are read.
const OF_AN_AGENT: [&str; 3] = ["config.toml", "agent-config.toml", "SKILL.md"];

/// Symbolic links that are followed from a file to what it is.
const MOST_LINKS: usize = 8;

/// Where a configuration is read from. The environment and the flags are those of the start.
#[derive(Debug, Clone)]
pub struct Origin {
    pub(super) root: PathBuf,
    pub(super) environment: Environment,
    pub(super) flags: Vec<(String, String)>,
    /// Further files that the configuration names.
    pub(super) named: Vec<PathBuf>,
}

/// How the files stand that a configuration is read from. Two that are equal: nothing was saved in between, as far as
/// the file system tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    folders: BTreeSet<PathBuf>,
    credentials: BTreeMap<String, Vec<Option<Stamp>>>,
}

/// Device, inode, size, and the times of the last change to the content and to the rest, in seconds and nanoseconds.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Origin {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(&self) -> Result<Config, Problems> {
        load_from(self)
    }

    /// What the environment says is the master key of stored secrets.
    pub fn master_key(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.environment.var_os("DOORBELL_MASTER_KEY").map(std::ffi::OsStr::to_string_lossy)
    }

    /// Looks at every file that [`Origin::load`] would read or miss, without reading it.
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        survey.folder(&self.root);
        survey.file(self.root.join("config.toml"));
        survey.folder(&self.root.join("agents"));
        for agent in entries(&self.root.join("agents")).into_iter().filter(|path| path.is_dir()) {
            survey.folder(&agent);
            OF_AN_AGENT.iter().for_each(|name| survey.file(agent.join(name)));
        }
        survey.folder(&self.root.join("providers"));
        entries(&self.root.join("providers")).into_iter().for_each(|path| survey.file(path));
        for folder in Credentials::new(&self.environment).folders() {
            survey.secrets(folder);
        }
        self.named.iter().for_each(|path| survey.named(path));
        survey
    }
}

impl Survey {
    /// Whether this is one of the files.
    pub fn has(&self, path: &Path) -> bool {
        self.stamps.contains_key(path)
    }

    /// The folders in which something may change, those that symbolic links lead to included.
    pub fn folders(&self) -> &BTreeSet<PathBuf> {
        &self.folders
    }

    /// The credentials, as `type:instance`, that are others than in an earlier one, or were not there, or are gone.
    pub fn changed_credentials(&self, earlier: &Self) -> Vec<String> {
        let all: BTreeSet<&String> = self.credentials.keys().chain(earlier.credentials.keys()).collect();
        let changed = all.into_iter().filter(|name| self.credentials.get(*name) != earlier.credentials.get(*name));
        changed.cloned().collect()
    }

    /// A file that the configuration names, wherever it is.
    pub(super) fn named(&mut self, path: &Path) {
        self.folders.extend(path.parent().filter(|folder| folder.is_dir()).map(Path::to_owned));
        self.file(path.to_owned());
    }

    fn file(&mut self, path: PathBuf) {
        self.follow(&path);
        let stamp = stamp(&path);
        self.stamps.insert(path, stamp);
    }

    /// A folder counts by what is in it, so that files of somebody else in it change nothing.
    fn folder(&mut self, path: &Path) {
        self.follow(path);
        if path.is_dir() {
            self.folders.insert(path.to_owned());
            self.stamps.insert(path.to_owned(), None);
        }
    }

    /// `<type>/<instance>/<field>`.
    fn secrets(&mut self, folder: &Path) {
        let named = |path: &Path| entries(path).into_iter().filter(|path| is_name(name_of(path))).collect::<Vec<_>>();
        self.folder(folder);
        for kind in named(folder) {
            self.folder(&kind);
            for instance in named(&kind) {
                self.folder(&instance);
                for field in named(&instance) {
                    let credential = format!("{}:{}", name_of(&kind), name_of(&instance));
                    self.credentials.entry(credential).or_default().push(stamp(&field));
                    self.file(field);
                }
            }
        }
    }

    /// Where a link leads, something may be put in place of what is there.
    fn follow(&mut self, path: &Path) {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let Ok(target) = std::fs::read_link(&path) else { return };
            path = path.parent().map(|parent| parent.join(&target)).unwrap_or(target);
            self.folders.extend(path.parent().filter(|parent| parent.is_dir()).map(Path::to_owned));
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    let (changed, touched) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.size(), changed, touched))
}

/// The entries of a folder that are not hidden, in order; none if it cannot be read.
fn entries(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| !name_of(path).starts_with('.')).collect()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn project() -> (tempfile::TempDir, Origin) {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        for (file, text) in [
            ("config.toml", ""),
            ("agents/a/config.toml", "x"),
            ("home/.doorbell/credentials/github_webhook_secret/acme/secret", "s"),
        ] {
            write(folder.path(), file, text);
        }
        let environment = [("HOME", home)].into_iter().collect();
        let origin = Origin { root: folder.path().to_owned(), environment, flags: Vec::new(), named: Vec::new() };
        (folder, origin)
    }

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Files that a change must be seen in, and files that mean nothing.
    #[test]
    fn what_is_read_counts_and_nothing_else() {
        let (folder, origin) = project();
        let credential = "home/.doorbell/credentials/github_webhook_secret";
        for file in [
            "config.toml",
            "agents/a/config.toml",
            "agents/a/agent-config.toml",
            "agents/a/SKILL.md",
            "agents/b/SKILL.md",
            "providers/own.toml",
            &format!("{credential}/acme/secret"),
            &format!("{credential}/new/secret"),
        ] {
            let before = origin.survey();
            assert_eq!(before, origin.survey());
            write(folder.path(), file, "another text");
            assert_ne!(before, origin.survey(), "{file}");
        }
        let before = origin.survey();
        for file in ["notes.md", ".doorbell/doorbell.db", "agents/a/out.log", &format!("{credential}/acme/.new-1")] {
            write(folder.path(), file, "another text");
            assert_eq!(before, origin.survey(), "{file}");
        }
        std::fs::remove_dir_all(folder.path().join("agents/b")).unwrap();
        assert_ne!(before, origin.survey());
    }

    #[test]
    fn changed_credentials_are_named() {
        let (folder, origin) = project();
        let before = origin.survey();
        write(folder.path(), "home/.doorbell/credentials/github_webhook_secret/acme/secret", "longer");
        write(folder.path(), "home/.doorbell/credentials/token/new/secret", "s");
        let after = origin.survey();
        assert_eq!(after.changed_credentials(&before), ["github_webhook_secret:acme", "token:new"]);
        assert_eq!(after.changed_credentials(&after), Vec::<String>::new());
    }

    /// As Kubernetes mounts a ConfigMap: the files lead through `..data` to a folder that is put in place of another.
    #[test]
    fn what_links_lead_to_is_looked_at_and_watched() {
        let (folder, origin) = project();
        let mount = folder.path().join("mount");
        for (version, text) in [("..1", "old"), ("..2", "new")] {
            write(&mount, &format!("{version}/config.toml"), text);
        }
        symlink("..1", mount.join("..data")).unwrap();
        symlink("..data/config.toml", mount.join("config.toml")).unwrap();
        std::fs::remove_file(folder.path().join("config.toml")).unwrap();
        symlink(mount.join("config.toml"), folder.path().join("config.toml")).unwrap();
        let before = origin.survey();
        assert!(before.folders().contains(&mount), "{:?}", before.folders());
        symlink("..2", mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        assert_ne!(before, origin.survey());
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let (folder, origin) = project();
        symlink("b", folder.path().join("agents/a/SKILL.md")).unwrap();
        symlink("SKILL.md", folder.path().join("agents/a/b")).unwrap();
        assert_eq!(origin.survey(), origin.survey());
    }
}
