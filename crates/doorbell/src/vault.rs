//! Secrets at rest: sealed under a master key, so that the database, its backups and whoever reads them have none.
//!
//! The master key is `DOORBELL_MASTER_KEY`, or a file in the state folder that the first secret makes. There may be several:
//! the first one seals, all of them open, so that a change of keys can end at any point and go on later. A secret is sealed
//! with AES-256-GCM-SIV under a random nonce and bound to its place, so that none can be put in another's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, bail};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use doorbell_core::provider::{decode_base64, decode_hex, encode_hex};
use doorbell_core::secret::Secret;
use zeroize::Zeroizing;

use crate::{clock, files};

/// The variable that holds the master key, or several with a comma between them.
pub const VARIABLE: &str = "DOORBELL_MASTER_KEY";
/// The file in the state folder that holds it otherwise, one key a line.
pub const FILE: &str = "master.key";

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// Characters of a key's name: enough to tell keys apart, and no help in guessing one.
const NAME: usize = 16;

/// The master keys of a project.
#[derive(Debug)]
pub struct Vault {
    file: PathBuf,
    /// How many of the keys are the environment's: they come first.
    given: usize,
    keys: RwLock<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    all: Vec<MasterKey>,
    /// Why the file is of no use.
    broken: Option<String>,
}

/// A key, and what secrets say of the key that they are sealed with.
#[derive(Debug, Clone)]
struct MasterKey {
    name: String,
    key: Secret,
}

/// A sealed secret: the name of its key, and nonce and ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The name of the master key.
    pub master: String,
    /// Nonce and ciphertext.
    pub bytes: Vec<u8>,
}

/// Why a secret is not sealed, or not opened: for the owner, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Closed(String);

impl Vault {
    /// The master keys of the project with this state folder. `given`: what [`VARIABLE`] says.
    ///
    /// A file that cannot be read is no error here: what is sealed stays closed, and everything else works.
    ///
    /// # Errors
    /// If the variable holds no keys.
    pub fn open(state: &Path, given: Option<&str>) -> anyhow::Result<Self> {
        let given = given.map(str::trim).filter(|text| !text.is_empty()).map(|text| parse(text, ","));
        let mut all = given.transpose().with_context(|| format!("{VARIABLE} is no master key"))?.unwrap_or_default();
        let (given, file) = (all.len(), state.join(FILE));
        let broken = match read(&file) {
            Ok(read) => {
                all.extend(read);
                None
            }
            Err(error) => Some(format!("{}: {error:#}", file.display())),
        };
        Ok(Self { file, given, keys: RwLock::new(Keys { all, broken }) })
    }

    /// Why the file of master keys cannot be used; none if it can, or is not there.
    pub fn broken(&self) -> Option<String> {
        self.keys().broken.clone()
    }

    /// Whether there is a key to seal with.
    pub fn has_key(&self) -> bool {
        !self.keys().all.is_empty()
    }

    /// Whether the first key is the environment's.
    pub fn is_given(&self) -> bool {
        self.given > 0
    }

    /// The file of master keys.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The name of the key that seals.
    pub fn first(&self) -> Option<String> {
        self.keys().all.first().map(|key| key.name.clone())
    }

    /// Makes a key that seals from now on; those that are there open what they sealed. Durable when it answers.
    ///
    /// # Errors
    /// If the file cannot be written, or is there and cannot be read: it is not written over.
    pub fn make_key(&self) -> Result<(), Closed> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(broken) = &keys.broken {
            return Err(Closed(format!("the master key cannot be read: {broken}")));
        }
        let new = MasterKey::new(Secret::new(clock::random::<KEY_BYTES>()));
        let mut all = keys.all.clone();
        all.insert(0, new);
        self.write(&all)?;
        keys.all = all;
        Ok(())
    }

    /// Takes the keys out of the file that nothing is sealed with, but for the first.
    ///
    /// # Errors
    /// If the file cannot be written; then all of them stay.
    pub fn keep_only(&self, used: &[String]) -> Result<(), Closed> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = keys.all.clone();
        let mut at = 0;
        all.retain(|key| {
            at += 1;
            at <= self.given.max(1) || used.contains(&key.name)
        });
        if all.len() < keys.all.len() && self.given == 0 {
            self.write(&all)?;
            keys.all = all;
        }
        Ok(())
    }

    /// Seals a secret under the first key. What it is `bound_to` must be said again to open it.
    ///
    /// # Errors
    /// If there is no key.
    pub fn seal(&self, secret: &Secret, bound_to: &[&[u8]]) -> Result<Sealed, Closed> {
        let keys = self.keys();
        let Some(first) = keys.all.first() else {
            return Err(Closed(keys.broken.clone().unwrap_or_else(|| "there is no master key".to_owned())));
        };
        let mut bytes = Zeroizing::new(secret.expose().to_vec());
        // Neither can fail: the key has the length that the algorithm wants, and a secret is short.
        let nonce = cipher(first).seal_in_place_append_tag(aad(&first.name, bound_to), &mut *bytes);
        let nonce = nonce.map_err(|_| Closed("the secret cannot be sealed".to_owned()))?;
        Ok(Sealed { master: first.name.clone(), bytes: [nonce.as_ref().as_slice(), &bytes].concat() })
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// If its key is not there, or it is not what was sealed for this place.
    pub fn unseal(&self, sealed: &Sealed, bound_to: &[&[u8]]) -> Result<Secret, Closed> {
        let keys = self.keys();
        let Some(key) = keys.all.iter().find(|key| key.name == sealed.master) else {
            let found: Vec<&str> = keys.all.iter().map(|key| key.name.as_str()).collect();
            let here = match (&keys.broken, found.as_slice()) {
                (Some(broken), _) => format!("the master key cannot be read ({broken})"),
                (None, []) => "there is none".to_owned(),
                (None, found) => format!("there is {}", found.join(", ")),
            };
            return Err(Closed(format!("it is sealed with the master key {}, and {here}", sealed.master)));
        };
        let damaged = || Closed("what is stored of it is damaged, or was put in another's place".to_owned());
        let (nonce, ciphertext) = sealed.bytes.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut bytes = Zeroizing::new(ciphertext.to_vec());
        let plain = cipher(key).open_in_place(nonce, aad(&key.name, bound_to), &mut bytes).map_err(|_| damaged())?;
        Ok(Secret::new(plain.to_vec()))
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, all: &[MasterKey]) -> Result<(), Closed> {
        let lines: Vec<Zeroizing<String>> =
            all.iter().map(|key| Zeroizing::new(format!("{}\n", encode_hex(key.key.expose())))).collect();
        let text = Zeroizing::new(lines.iter().map(|line| line.as_str()).collect::<String>());
        // What is sealed may be on the disk before the folder's entry is.
        let synced = |()| std::fs::File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all();
        let written = files::write_private(&self.file, text.as_bytes()).and_then(synced);
        written.map_err(|error| Closed(format!("cannot write {}: {error}", self.file.display())))
    }
}

impl MasterKey {
    fn new(key: Secret) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"doorbell master key\0");
        context.update(key.expose());
        Self { name: encode_hex(context.finish().as_ref())[..NAME].to_owned(), key }
    }
}

fn cipher(key: &MasterKey) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM_SIV, key.key.expose()).expect("a master key has the length of the cipher's")
}

/// What a secret is bound to: each part with its length, so that no two places have the same text.
fn aad(master: &str, bound_to: &[&[u8]]) -> Aad<Vec<u8>> {
    let mut text = b"doorbell sealed secret 1".to_vec();
    for part in [master.as_bytes()].iter().chain(bound_to) {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    Aad::from(text)
}

fn read(file: &Path) -> anyhow::Result<Vec<MasterKey>> {
    match std::fs::read_to_string(file).map(Zeroizing::new) {
        Ok(text) => parse(&text, "\n"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Nothing of what is read is said: it may be nearly a key.
fn parse(text: &str, between: &str) -> anyhow::Result<Vec<MasterKey>> {
    let mut keys = Vec::new();
    for (number, part) in (1..).zip(text.split(between).map(str::trim).filter(|part| !part.is_empty())) {
        let hex = decode_hex(part).filter(|bytes| bytes.len() == KEY_BYTES);
        let Some(bytes) = hex.or_else(|| from_base64(part)).map(Zeroizing::new) else {
            bail!(
                "key {number} is not 32 bytes in hex (64 digits) or base64 (44 characters): `openssl rand -base64 32` makes one"
            );
        };
        keys.push(MasterKey::new(Secret::new(bytes.to_vec())));
    }
    if keys.is_empty() {
        bail!("it holds no key");
    }
    Ok(keys)
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/") + "=";
    decode_base64(&standard).filter(|bytes| bytes.len() == KEY_BYTES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vault(given: Option<&str>) -> (tempfile::TempDir, Vault) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(folder.path(), given).unwrap();
        (folder, vault)
    }

    #[test]
    fn a_key_is_32_bytes_in_hex_or_base64_and_nothing_else_is_repeated() {
        let hex = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
        let base64 = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";
        let url_safe = "ABEiM0RVZneImaq7zN3u_wARIjNEVWZ3iJmqu8zd7v8";
        let names: Vec<_> = [hex, base64, url_safe].map(|text| vault(Some(text)).1.first().unwrap()).into();
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        for wrong in ["hunter2hunter2", &hex[..62], "ABEiM0RVZneImaq7zN3u", &format!("{hex},short")] {
            let folder = tempfile::tempdir().unwrap();
            let error = format!("{:#}", Vault::open(folder.path(), Some(wrong)).unwrap_err());
            assert!(error.contains("DOORBELL_MASTER_KEY") && error.contains("openssl rand"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("0011"), "{error}");
        }
        assert!(!vault(Some(" ")).1.has_key(), "a variable that is set to nothing is not set");
    }

    #[test]
    fn a_secret_opens_in_its_place_and_with_its_key_only() {
        let (folder, vault) = vault(None);
        assert!(vault.seal(&Secret::new("x"), &[]).is_err(), "there is no key yet");
        vault.make_key().unwrap();
        let sealed = vault.seal(&Secret::new("hunter2"), &[b"webhook", b"one"]).unwrap();
        let again = vault.seal(&Secret::new("hunter2"), &[b"webhook", b"one"]).unwrap();
        assert_ne!(sealed.bytes, again.bytes, "the nonce is random");
        assert!(!sealed.bytes.windows(7).any(|part| part == b"hunter2"));
        assert!(vault.unseal(&sealed, &[b"webhook", b"one"]).unwrap().equals(b"hunter2"));
        for place in [[b"webhook".as_slice(), b"two"], [b"web", b"hookone"]] {
            assert!(vault.unseal(&sealed, &place).is_err());
        }
        for at in 0..sealed.bytes.len() {
            let mut broken = sealed.clone();
            broken.bytes[at] ^= 1;
            assert!(vault.unseal(&broken, &[b"webhook", b"one"]).is_err(), "byte {at}");
        }
        let cut = Sealed { bytes: vec![0; 5], ..sealed.clone() };
        assert!(vault.unseal(&cut, &[b"webhook", b"one"]).is_err());
        let later = Vault::open(folder.path(), None).unwrap();
        assert!(later.unseal(&sealed, &[b"webhook", b"one"]).unwrap().equals(b"hunter2"), "the key was kept");
        std::fs::remove_file(vault.file()).unwrap();
        let lost = Vault::open(folder.path(), None).unwrap().unseal(&sealed, &[b"webhook", b"one"]).unwrap_err();
        assert!(lost.to_string().contains(&sealed.master) && lost.to_string().contains("there is none"), "{lost}");
    }

    #[test]
    fn a_change_of_keys_can_end_at_any_point() {
        let (folder, vault) = vault(None);
        vault.make_key().unwrap();
        let old = vault.seal(&Secret::new("a"), &[]).unwrap();
        vault.make_key().unwrap();
        let new = vault.seal(&Secret::new("b"), &[]).unwrap();
        assert_ne!(old.master, new.master);
        let between = Vault::open(folder.path(), None).unwrap();
        assert!(between.unseal(&old, &[]).is_ok() && between.unseal(&new, &[]).is_ok());
        between.keep_only(std::slice::from_ref(&old.master)).unwrap();
        assert!(between.unseal(&old, &[]).is_ok(), "something is sealed with it");
        between.keep_only(&[]).unwrap();
        let after = Vault::open(folder.path(), None).unwrap();
        assert!(after.unseal(&old, &[]).is_err() && after.unseal(&new, &[]).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_said_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, vault) = vault(None);
        vault.make_key().unwrap();
        assert_eq!(std::fs::metadata(vault.file()).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(vault.file(), "not a key").unwrap();
        let broken = Vault::open(folder.path(), None).unwrap();
        assert!(broken.broken().unwrap().contains(FILE) && !broken.has_key());
        assert!(broken.make_key().is_err());
        assert_eq!(std::fs::read_to_string(vault.file()).unwrap(), "not a key");
    }

    #[test]
    fn no_key_is_shown_by_debug() {
        let (_folder, vault) = vault(Some("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"));
        assert!(!format!("{vault:?}").contains("0011"));
    }
}
