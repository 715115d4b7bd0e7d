//! No secret stands where it does not belong: when the project of a test ends, whatever its gateway wrote and its commands
//! printed is searched for every secret of the test. So the whole suite is the search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use doorbell::store::SealedSecret;
use doorbell::vault::Vault;
use doorbell_core::id::WebhookId;
use doorbell_core::provider::encode_hex;
use rusqlite::{Connection, Row};
use serde_json::Value;

/// Shorter ones are words that stand everywhere.
const SHORTEST: usize = 10;

/// What keys and tokens of the gateway's own begin with, and how many hex digits follow: they are known by that, whoever made
/// them.
const OWN: [(&str, usize); 3] = [("dbk_", 64), ("dbr_", 64), ("dbl_", 32)];

/// Where secrets stand by design, in `.doorbell`.
const PLACES: [&str; 4] = ["key", "master.key", "captured", "acme"];

/// Commands that show a secret on purpose, once.
const SHOW: [&[&str]; 5] = [
    &["keys", "create"],
    &["webhooks", "create"],
    &["webhooks", "rotate"],
    &["agents", "webhook"],
    &["sources", "captured"],
];

/// The secrets of a project, and what its commands printed.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// By secret, what it is.
    known: BTreeMap<Vec<u8>, String>,
    /// What stands in master keys' place in the environment.
    master: Option<String>,
    outputs: Vec<(String, Vec<u8>)>,
    /// What of it a test puts where it does not belong, and why.
    on_purpose: Vec<(String, &'static str)>,
}

/// A secret that stands where it should not.
#[derive(Debug, PartialEq, Eq)]
pub struct Leak {
    pub secret: String,
    pub place: String,
    pub at: usize,
}

impl Secrets {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it searched for.
    pub fn add(&self, what: impl Into<String>, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref().trim_ascii();
        if secret.len() >= SHORTEST {
            self.noted().known.entry(secret.to_vec()).or_insert(what.into());
        }
    }

    /// Those that a command is given in its environment.
    pub fn add_environment(&self, command: &Command) {
        for (name, value) in command.get_envs() {
            let (Some(name), Some(value)) = (name.to_str(), value.and_then(|value| value.to_str())) else { continue };
            if name == doorbell::vault::VARIABLE {
                value.split(',').for_each(|key| self.add("the master key of the environment", key));
                self.noted().master = Some(value.to_owned());
            } else if name.starts_with("DOORBELL_CREDENTIAL_") {
                self.add(name, value);
            }
        }
    }

    /// What a command printed: a secret that it shows on purpose is one from now on; all else is searched.
    pub fn heed(&self, args: &[&str], output: &Output) {
        let shows = SHOW.iter().any(|words| words.iter().all(|word| args.contains(word)));
        let parsed = serde_json::from_slice::<Value>(&output.stdout).ok().filter(|_| shows);
        for name in ["key", "signingSecret", "webhookSecret", "secret"] {
            if let Some(secret) = parsed.as_ref().and_then(|value| value[name].as_str()) {
                self.add(format!("what `doorbell {}` showed", args.join(" ")), secret);
            }
        }
        let place = format!("the output of `doorbell {}`", args.join(" "));
        let mut noted = self.noted();
        if !shows {
            noted.outputs.push((place.clone(), output.stdout.clone()));
        }
        noted.outputs.push((place, output.stderr.clone()));
    }

    /// That a test puts something secret where it does not belong: this word is in what it is, or where it stands.
    pub fn expect(&self, word: &str, why: &'static str) {
        self.noted().on_purpose.push((word.to_owned(), why));
    }

    /// Every secret that stands where it should not.
    pub fn search(&self, root: &Path) -> Vec<Leak> {
        let state = root.join(".doorbell");
        self.add("the local key", std::fs::read(state.join("key")).unwrap_or_default());
        let masters = std::fs::read_to_string(state.join("master.key")).unwrap_or_default();
        masters.lines().for_each(|key| self.add("the master key", key));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&state).into_iter().flatten().flatten() {
            if !PLACES.iter().any(|place| entry.file_name() == **place) {
                gather(&entry.path(), &mut files);
            }
        }
        files.extend(std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).filter(
            |path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                path.is_file() && (name.ends_with(".log") || name.contains(".db"))
            },
        ));
        let read = files.iter().filter_map(|file| Some((file.display().to_string(), std::fs::read(file).ok()?)));
        // Before the database is opened, which changes it.
        let mut searched: Vec<(String, Vec<u8>)> = read.collect();
        let master = self.noted().master.clone();
        if let Some(opened) = open(&state, master.as_deref()) {
            opened.sealed.iter().for_each(|secret| self.add("the signing secret of a webhook", secret));
            searched.extend(opened.packed);
        }
        let mut noted = self.noted();
        searched.append(&mut noted.outputs);
        let found = searched.iter().flat_map(|(place, bytes)| noted.find(place, bytes));
        let is_meant = |leak: &Leak| {
            noted.on_purpose.iter().any(|(word, _)| leak.secret.contains(word) || leak.place.contains(word))
        };
        found.filter(|leak| !is_meant(leak)).collect()
    }
}

impl Noted {
    fn find(&self, place: &str, bytes: &[u8]) -> Vec<Leak> {
        // The search for text is the standard library's and compiled for speed, unlike what stands here.
        let text = String::from_utf8_lossy(bytes);
        let leak = |secret: &str, at: usize| Leak { secret: secret.to_owned(), place: place.to_owned(), at };
        let mut found = Vec::new();
        for (secret, what) in &self.known {
            found.extend(forms(secret).iter().find_map(|form| text.find(form)).map(|at| leak(what, at)));
        }
        for (prefix, digits) in OWN {
            let is_one =
                |rest: &str| rest.as_bytes().get(..digits).is_some_and(|rest| rest.iter().all(u8::is_ascii_hexdigit));
            let mut starts = text.match_indices(prefix).map(|(at, _)| at);
            let one = starts.find(|at| is_one(&text[at + prefix.len()..]));
            found.extend(one.map(|at| leak(&format!("a key or token ({prefix}…)"), at)));
        }
        found
    }
}

/// As it is, as JSON writes it, in hex, and in base64.
fn forms(secret: &[u8]) -> Vec<String> {
    let plain = String::from_utf8_lossy(secret).into_owned();
    let json = Value::from(plain.as_str()).to_string();
    let hex = encode_hex(secret);
    let mut forms = vec![json.trim_matches('"').to_owned(), hex.to_uppercase(), hex];
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        // What follows it changes the last character of those that are no whole group.
        forms.push(engine.encode(&secret[..secret.len() / 3 * 3]));
    }
    // What the key of a webhook is made of.
    if let Some(key) = plain.strip_prefix("whsec_") {
        forms.push(key.to_owned());
    }
    forms.push(plain);
    forms.sort_unstable();
    forms.dedup();
    forms
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(found) = std::fs::symlink_metadata(path) else { return };
    if found.is_file() {
        files.push(path.to_owned());
    } else if found.is_dir() {
        std::fs::read_dir(path).into_iter().flatten().flatten().for_each(|entry| gather(&entry.path(), files));
    }
}

/// What the database of a project holds that is not to be read in its file.
struct Opened {
    /// The secrets of webhooks and subscriptions, whoever made them and by whatever way.
    sealed: Vec<Vec<u8>>,
    /// Bodies with their headers, and logs, as they were before they were compressed.
    packed: Vec<(String, Vec<u8>)>,
}

/// One that is damaged on purpose, or not there, has nothing that could be known.
fn open(state: &Path, master: Option<&str>) -> Option<Opened> {
    let database = state.join("doorbell.db");
    let vault = Vault::open(state, master).ok()?;
    let connection = Connection::open(database.exists().then_some(database)?).ok()?;
    let sealed = rows(&connection, "SELECT webhook, id, master, sealed FROM webhook_secrets", |row| {
        Ok((row.get::<_, [u8; 16]>(0)?, SealedSecret { id: row.get(1)?, master: row.get(2)?, sealed: row.get(3)? }))
    });
    let unseal = |(webhook, secret): ([u8; 16], SealedSecret)| {
        let webhook = WebhookId::from_bytes(webhook);
        Some(doorbell::app::webhooks::unseal_secret(&vault, webhook, &secret).ok()?.expose().to_vec())
    };
    let pair = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let dictionaries: BTreeMap<i64, Vec<u8>> =
        rows(&connection, "SELECT number, data FROM dictionaries", pair).into_iter().collect();
    let mut packed = Vec::new();
    for table in ["bodies", "log_chunks"] {
        // What is shorter stands in the file as it is.
        for (encoding, data) in
            rows(&connection, &format!("SELECT encoding, data FROM {table} WHERE encoding > 0"), pair)
        {
            let dictionary = dictionaries.get(&encoding).map(Vec::as_slice).unwrap_or_default();
            let mut unpack = zstd::bulk::Decompressor::with_dictionary(dictionary).unwrap();
            let data = zstd::zstd_safe::get_frame_content_size(&data)
                .ok()
                .flatten()
                .and_then(|size| unpack.decompress(&data, usize::try_from(size).ok()?).ok());
            packed.extend(data.map(|data| (format!("{table} of the database"), data)));
        }
    }
    Some(Opened { sealed: sealed.into_iter().filter_map(unseal).collect(), packed })
}

fn rows<T>(connection: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let all = || connection.prepare(sql)?.query_map((), read)?.collect::<rusqlite::Result<Vec<T>>>();
    all().unwrap_or_default()
}
