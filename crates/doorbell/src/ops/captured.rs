//! Secrets that senders showed when their webhook was set up (Notion): kept for the source's owner, a few a source.
//!
//! Anybody who knows the source's URL can show one, so a captured secret verifies nothing until its owner makes it a
//! credential, and none pushes out one that was shown before: the owner picks. They stand in a file that only the
//! gateway's user may read, never in the store, its backups or the log.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use doorbell_client::api;
use doorbell_core::id::WebhookId;
use doorbell_core::secret::Secret;
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::pauses::may_see_source;
use super::{Error, require_any_owner, require_source_owner};
use crate::app::{App, Caller};
use crate::files;

/// The longest secret that is kept, in bytes.
const LONGEST: usize = 4096;
/// Secrets that are kept of a source.
const MOST: usize = 8;

/// A file is read and written again to add to it: one at a time.
static WRITING: Mutex<()> = Mutex::new(());

/// What a file holds: the first one, and those that were shown after it.
#[derive(Serialize, Deserialize)]
struct Captured {
    #[serde(flatten)]
    first: Shown,
    #[serde(default)]
    later: Vec<Shown>,
}

/// A secret, and who showed it.
#[derive(Serialize, Deserialize)]
struct Shown {
    secret: String,
    at: Timestamp,
    remote: String,
}

/// What became of a secret that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is kept.
    New,
    /// It was shown before.
    Known,
    /// As many others as are kept were shown before: it is not kept until the owner forgets them.
    Full,
}

/// Whether a secret of the source has verified a delivery: then its webhook is set up.
pub fn is_set_up(app: &App, source: &Source) -> bool {
    source.keys().iter().any(|key| app.secret_uses.of(source.name(), &key.instance).deliveries > 0)
}

/// Whether a secret was shown to a source that its owner has not made the credential yet, as far as can be known.
pub(super) fn waits(app: &App, source: &Source) -> bool {
    !is_set_up(app, source) && file_of(app, source.name()).exists()
}

/// Keeps a secret that a sender showed to a source, beside those that were shown before.
///
/// # Errors
/// In words for the log, if it is too long or no text, or cannot be written.
pub async fn keep(app: &App, source: &str, secret: &Secret, remote: &str, at: Timestamp) -> Result<Kept, String> {
    let fits = |text: &&str| (1..=LONGEST).contains(&text.trim().len()) && !text.chars().any(char::is_control);
    let text = secret.expose_str().filter(fits).ok_or_else(|| format!("it is no text of 1 to {LONGEST} bytes"))?;
    let shown = Shown { secret: text.to_owned(), at, remote: remote.to_owned() };
    let file = file_of(app, source);
    match tokio::task::spawn_blocking(move || add(&file, shown)).await {
        Ok(kept) => kept.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn add(file: &Path, shown: Shown) -> std::io::Result<Kept> {
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let captured = match std::fs::read(file).map(Zeroizing::new) {
        // One that cannot be read holds nothing that anybody could pick.
        Ok(bytes) => serde_json::from_slice::<Captured>(&bytes).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let captured = match captured {
        None => Captured { first: shown, later: Vec::new() },
        Some(captured) if captured.all().any(|known| known.secret == shown.secret) => return Ok(Kept::Known),
        Some(captured) if captured.all().count() >= MOST => return Ok(Kept::Full),
        Some(mut captured) => {
            captured.later.push(shown);
            captured
        }
    };
    let json = Zeroizing::new(serde_json::to_vec(&captured)?);
    if let Some(folder) = file.parent() {
        files::make_private_folder(folder)?;
    }
    files::write_private(file, &json)?;
    Ok(Kept::New)
}

impl Captured {
    /// All of them, in the order in which they were shown.
    fn all(&self) -> impl Iterator<Item = &Shown> {
        std::iter::once(&self.first).chain(&self.later)
    }
}

/// The secrets that were shown to a source, the first one first. For owners.
///
/// # Errors
/// If there is none, or the caller may not see it.
pub async fn show(app: &App, caller: &Caller, source: &str) -> Result<api::CapturedSecret, Error> {
    let in_force = app.current();
    let configured = in_force.config.sources.get(source).filter(|_| may_see_source(&in_force, caller, source));
    let configured = configured.ok_or(Error::NotFound("source"))?;
    require_source_owner(caller, source)?;
    let bytes = tokio::fs::read(file_of(app, source)).await.map_err(|_| Error::NotFound("captured secret"))?;
    let bytes = Zeroizing::new(bytes);
    let captured: Captured = serde_json::from_slice(&bytes).map_err(|_| Error::NotFound("captured secret"))?;
    let credential = configured.provider().credential();
    let instance = configured.keys().first().map_or(source, |key| key.instance.as_str());
    let name = format!("{}:{instance}", credential.name);
    let field = match credential.field.as_ref() {
        "secret" => String::new(),
        field => format!(" --field {field}"),
    };
    let Captured { first, later } = captured;
    let number = if later.is_empty() { "" } else { " --number N" };
    let keep = match in_force.hooks.get(source) {
        Some(hook) => {
            format!("doorbell webhooks rotate {} {source} --overlap 0s --secret-stdin", hook.webhook.agent)
        }
        None => format!("doorbell creds add {name}{field} --stdin"),
    };
    Ok(api::CapturedSecret {
        source: source.to_owned(),
        command: format!("doorbell sources captured {source} --secret{number} | {keep}"),
        credential: name,
        field: credential.field.into_owned(),
        secret: first.secret,
        captured_at: first.at.to_string(),
        remote: first.remote,
        later: later.into_iter().map(later_one).collect(),
    })
}

fn later_one(shown: Shown) -> api::LaterSecret {
    api::LaterSecret { secret: shown.secret, captured_at: shown.at.to_string(), remote: shown.remote }
}

/// Removes them. For owners; also those of a webhook that takes nothing now.
///
/// # Errors
/// If there is none, or the caller may not.
pub async fn forget(app: &App, caller: &Caller, source: &str) -> Result<(), Error> {
    let in_force = app.current();
    match in_force.config.sources.contains_key(source) {
        true if may_see_source(&in_force, caller, source) => require_source_owner(caller, source)?,
        false if owns_inactive(app, caller, source).await? => {}
        _ => return Err(Error::NotFound("source")),
    }
    tokio::fs::remove_file(file_of(app, source)).await.map_err(|_| Error::NotFound("captured secret"))
}

/// Whether this is a webhook that is stored and not in force, and the caller owns what its agent has.
async fn owns_inactive(app: &App, caller: &Caller, source: &str) -> Result<bool, Error> {
    let (Ok(id), Ok(())) = (source.parse(), require_any_owner(caller)) else { return Ok(false) };
    let stored = app.store.webhooks().await?;
    Ok(stored.iter().any(|one| one.webhook.id == id && caller.may_see(&one.webhook.agent)))
}

/// Removes those of a webhook that is gone for good, if there are any.
pub(super) async fn remove_left(app: &App, webhook: WebhookId) {
    match tokio::fs::remove_file(file_of(app, &webhook.to_string())).await {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%webhook, %error, "webhook.captured_secret_left");
        }
        _ => {}
    }
}

/// Names of sources are fit for files.
fn file_of(app: &App, source: &str) -> PathBuf {
    app.state.join("captured").join(format!("{source}.json"))
}
