//! Secrets that senders showed when their webhook was set up (Notion): kept for the source's owner, one a source.
//!
//! Anybody who knows the source's URL can show one, so a captured secret verifies nothing until its owner makes it a
//! credential. It stands in a file that only the gateway's user may read, never in the store, its backups or the log.

use std::path::PathBuf;

use doorbell_client::api;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, require_owner};
use crate::app::{App, Caller};
use crate::files;

/// The longest secret that is kept, in bytes.
const LONGEST: usize = 4096;

/// What a file holds.
#[derive(Serialize, Deserialize)]
struct Captured {
    secret: String,
    at: Timestamp,
    remote: String,
}

/// Keeps the newest secret that a sender showed to a source, in place of an older one.
///
/// # Errors
/// In words for the log, if it is too long or no text, or cannot be written.
pub async fn keep(app: &App, source: &str, secret: &Secret, remote: &str, at: Timestamp) -> Result<(), String> {
    let fits = |text: &&str| (1..=LONGEST).contains(&text.trim().len()) && !text.chars().any(char::is_control);
    let text = secret.expose_str().filter(fits).ok_or_else(|| format!("it is no text of 1 to {LONGEST} bytes"))?;
    let captured = Captured { secret: text.to_owned(), at, remote: remote.to_owned() };
    let json = Zeroizing::new(serde_json::to_vec(&captured).map_err(|error| error.to_string())?);
    let file = file_of(app, source);
    let written = tokio::task::spawn_blocking(move || {
        if let Some(folder) = file.parent() {
            files::make_private_folder(folder)?;
        }
        files::write_private(&file, &json)
    });
    match written.await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The newest secret that was shown to a source. For owners.
///
/// # Errors
/// If there is none, or the caller may not see it.
pub async fn show(app: &App, caller: &Caller, source: &str) -> Result<api::CapturedSecret, Error> {
    require_owner(caller)?;
    let in_force = app.current();
    let configured = in_force.config.sources.get(source).ok_or(Error::NotFound("source"))?;
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
    Ok(api::CapturedSecret {
        source: source.to_owned(),
        command: format!("doorbell sources captured {source} --secret | doorbell creds add {name}{field} --stdin"),
        credential: name,
        field: credential.field.into_owned(),
        secret: captured.secret,
        captured_at: captured.at.to_string(),
        remote: captured.remote,
    })
}

/// Removes it. For owners.
///
/// # Errors
/// If there is none, or the caller may not.
pub async fn forget(app: &App, caller: &Caller, source: &str) -> Result<(), Error> {
    require_owner(caller)?;
    if !app.current().config.sources.contains_key(source) {
        return Err(Error::NotFound("source"));
    }
    tokio::fs::remove_file(file_of(app, source)).await.map_err(|_| Error::NotFound("captured secret"))
}

/// Names of sources are fit for files.
fn file_of(app: &App, source: &str) -> PathBuf {
    app.state.join("captured").join(format!("{source}.json"))
}
