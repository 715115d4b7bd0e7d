//! Credentials: secrets by type, instance and field, from the environment, a mounted folder or the home folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use doorbell_core::secret::Secret;

use super::environment::Environment;
use super::names::{NAME_RULE, is_name};

const PREFIX: &str = "DOORBELL_CREDENTIAL_";
const FOLDER: &str = "DOORBELL_CREDENTIALS_DIR";

/// The largest secret, in bytes.
const LARGEST: u64 = 64 << 10;

/// Where secrets are looked for, in this order: `DOORBELL_CREDENTIAL_<TYPE>__<INSTANCE>__<FIELD>`, the folder that
/// `DOORBELL_CREDENTIALS_DIR` names, `~/.doorbell/credentials`. Both folders hold `<type>/<instance>/<field>`.
#[derive(Debug, Clone)]
pub struct Credentials {
    environment: Environment,
    mounted: Option<PathBuf>,
    home: Option<PathBuf>,
}

/// A secret that is there, without it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// The type, e.g. `github_webhook_secret`.
    pub kind: String,
    /// The instance, e.g. `acme`.
    pub instance: String,
    /// The field, e.g. `secret`.
    pub field: String,
    /// Where it is: `env NAME` or a path.
    pub origin: String,
    /// Whether other users of this machine may read its file. Said of the home folder only: the modes of a mounted
    /// folder are its keeper's matter.
    pub too_open: bool,
}

impl Credentials {
    /// Those that `environment` leads to.
    pub fn new(environment: &Environment) -> Self {
        let mounted = environment.var_os(FOLDER).filter(|path| !path.is_empty()).map(PathBuf::from);
        let home = environment.home().map(|home| home.join(".doorbell/credentials"));
        Self { environment: environment.clone(), mounted, home }
    }

    /// A secret and where it came from (`env NAME` or a path), one line end at its end removed.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn find(&self, kind: &str, instance: &str, field: &str) -> io::Result<Option<(Secret, String)>> {
        check([kind, instance, field])?;
        let name = variable(kind, instance, field);
        if let Some(value) = self.environment.var_os(&name) {
            return Ok(Some((without_line_end(value.as_bytes()), format!("env {name}"))));
        }
        for folder in self.folders() {
            let path = folder.join(kind).join(instance).join(field);
            if let Some(secret) = read(&path)? {
                return Ok(Some((secret, path.display().to_string())));
            }
        }
        Ok(None)
    }

    /// The fields that an instance has, wherever they are, in order.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn fields(&self, kind: &str, instance: &str) -> io::Result<Vec<String>> {
        check([kind, instance])?;
        let prefix = variable(kind, instance, "");
        let named = self.environment.beginning_with(&prefix).map(|(name, _)| name[prefix.len()..].to_ascii_lowercase());
        let mut fields: BTreeSet<String> = named.filter(|field| is_name(field)).collect();
        for folder in self.folders() {
            fields.extend(names_in(&folder.join(kind).join(instance))?);
        }
        Ok(fields.into_iter().collect())
    }

    /// Where a secret is looked for, for messages.
    pub fn places(&self, kind: &str, instance: &str, field: &str) -> Vec<String> {
        let variable = format!("env {}", variable(kind, instance, field));
        let files = self.folders().map(|folder| folder.join(kind).join(instance).join(field).display().to_string());
        std::iter::once(variable).chain(files).collect()
    }

    /// Keeps a secret in the home folder: folders 0700, file 0600, written whole or not at all. An older secret of
    /// that name is replaced.
    ///
    /// # Errors
    /// If it is blank or too large, a name is not one, there is no home folder, or it cannot be written.
    pub fn add(&self, kind: &str, instance: &str, field: &str, secret: &Secret) -> io::Result<PathBuf> {
        check([kind, instance, field])?;
        if secret.is_blank() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the secret is empty"));
        }
        if secret.expose().len() as u64 > LARGEST {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the secret is larger than 64 KiB"));
        }
        let home = self.home_folder()?;
        let folder = home.join(kind).join(instance);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for folder in [home, &home.join(kind), &folder] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        let path = folder.join(field);
        // Temporary files are created 0600, and a hidden one is no field.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&folder)?;
        file.write_all(secret.expose())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(&folder)?.sync_all()?;
        Ok(path)
    }

    /// Removes a secret from the home folder; whether it was there.
    ///
    /// # Errors
    /// If a name is not one, or the file cannot be removed.
    pub fn remove(&self, kind: &str, instance: &str, field: &str) -> io::Result<bool> {
        check([kind, instance, field])?;
        let folder = self.home_folder()?.join(kind).join(instance);
        match std::fs::remove_file(folder.join(field)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        // Only empty folders can be removed this way, and one that stays does no harm.
        if std::fs::remove_dir(&folder).is_ok() {
            let _ = folder.parent().map(std::fs::remove_dir);
        }
        Ok(true)
    }

    /// Every secret that would be found, without it, in order.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<Stored>> {
        let mut found = BTreeMap::new();
        for (name, _) in self.environment.beginning_with(PREFIX) {
            let lower = name[PREFIX.len()..].to_ascii_lowercase();
            if let [kind, instance, field] = lower.split("__").collect::<Vec<_>>()[..]
                && check([kind, instance, field]).is_ok()
            {
                let id = (kind.to_owned(), instance.to_owned(), field.to_owned());
                found.insert(id, (format!("env {name}"), false));
            }
        }
        for folder in self.folders() {
            for id in ids_in(folder)? {
                // A `-` is a `_` in the name of a variable, which hides the file all the same.
                let hidden = self.environment.var_os(&variable(&id.0, &id.1, &id.2)).is_some();
                let path = folder.join(&id.0).join(&id.1).join(&id.2);
                if !hidden && !found.contains_key(&id) {
                    let too_open = self.is_home(folder) && is_too_open(&path);
                    found.insert(id, (path.display().to_string(), too_open));
                }
            }
        }
        let stored = |((kind, instance, field), (origin, too_open))| Stored { kind, instance, field, origin, too_open };
        Ok(found.into_iter().map(stored).collect())
    }

    /// The home folder and everything in it that is somebody's: folders and files that must be private. What cannot be
    /// listed is left out.
    pub fn own_paths(&self) -> Vec<PathBuf> {
        let Some(home) = &self.home else { return Vec::new() };
        let inside = ids_in(home).unwrap_or_default().into_iter();
        let mut paths: BTreeSet<PathBuf> = inside
            .flat_map(|(kind, instance, field)| {
                let instance = home.join(kind).join(instance);
                [instance.parent().map(Path::to_owned), Some(instance.join(field)), Some(instance)]
            })
            .flatten()
            .collect();
        paths.insert(home.clone());
        paths.into_iter().collect()
    }

    /// Whether the file that [`Credentials::find`] names is in the home folder and open to other users.
    pub(super) fn is_too_open(&self, origin: &str) -> bool {
        self.home.as_ref().is_some_and(|home| Path::new(origin).starts_with(home)) && is_too_open(Path::new(origin))
    }

    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.mounted.as_deref().into_iter().chain(self.home.as_deref())
    }

    fn is_home(&self, folder: &Path) -> bool {
        self.home.as_deref() == Some(folder)
    }

    fn home_folder(&self) -> io::Result<&Path> {
        let missing = || io::Error::new(ErrorKind::NotFound, "no home folder to keep credentials in: HOME is not set");
        self.home.as_deref().ok_or_else(missing)
    }
}

fn variable(kind: &str, instance: &str, field: &str) -> String {
    format!("{PREFIX}{kind}__{instance}__{field}").to_ascii_uppercase().replace('-', "_")
}

/// Names become parts of paths, so nothing else may get there.
fn check<const N: usize>(names: [&str; N]) -> io::Result<()> {
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(_) => Err(io::Error::new(ErrorKind::InvalidInput, format!("not the name of a credential: {NAME_RULE}"))),
    }
}

fn read(path: &Path) -> io::Result<Option<Secret>> {
    let missing = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    let explained = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => return Err(explained(error)),
        // Opening a pipe would wait for somebody to write into it.
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{}: not a file", path.display())));
        }
        Ok(_) => {}
    }
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(explained)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{}: larger than 64 KiB", path.display())));
    }
    Ok(Some(without_line_end(&bytes)))
}

/// A secret without the line end that editors and `echo` put behind it: one; more belong to it.
pub fn without_line_end(bytes: &[u8]) -> Secret {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Secret::new(bytes.strip_suffix(b"\r").unwrap_or(bytes))
}

/// The names in a folder; none if it is not there. Others (Kubernetes' `..data`) are no names.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
            Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().filter(|name| is_name(name)).collect())
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
    }
}

fn ids_in(folder: &Path) -> io::Result<Vec<(String, String, String)>> {
    let mut ids = Vec::new();
    for kind in names_in(folder)? {
        for instance in names_in(&folder.join(&kind))? {
            for field in names_in(&folder.join(&kind).join(&instance))? {
                ids.push((kind.clone(), instance.clone(), field));
            }
        }
    }
    Ok(ids)
}

pub(super) fn is_too_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
