//! Backup: a copy of the store while the gateway runs.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use doorbell_client::api;

use super::{Error, require_owner};
use crate::app::{App, Caller};
use crate::store;

/// What the name of a file that is copied to ends with.
const PART: &str = ".part";

/// Copies the store to a file of this machine. Ends early if nobody waits for it.
///
/// The file must be there, empty and private: so a key lets nobody write over anything.
///
/// # Errors
/// If the caller is no owner, or the file is not fit for it.
pub async fn copy(app: &App, caller: &Caller, wish: api::NewCopy) -> Result<api::Copied, Error> {
    require_owner(caller)?;
    let file = Path::new(&wish.file);
    let unfit = |why: &str| Error::Invalid(format!("`file` {}: {why}", file.display()));
    let look =
        || std::fs::symlink_metadata(file).map_err(|error| unfit(&format!("the gateway cannot see it: {error}")));
    if !file.is_absolute() || !wish.file.ends_with(PART) {
        return Err(unfit("it must be an absolute path that ends with `.part`"));
    }
    if !is_fit(&look()?) {
        return Err(unfit("it must be a file that is empty, and that only its owner may read"));
    }
    tracing::info!(file = %file.display(), by = caller.name(), "backup.started");
    app.store.copy(file.to_owned()).await.map_err(|error| match error {
        store::Error::Target(why) => {
            tracing::error!(why, "backup.failed: the store itself works");
            Error::Conflict("copy_failed", why)
        }
        error => error.into(),
    })?;
    let bytes = look()?.len();
    tracing::info!(file = %file.display(), bytes, "backup.copied");
    Ok(api::Copied { bytes })
}

fn is_fit(file: &Metadata) -> bool {
    file.is_file() && file.len() == 0 && file.mode() & 0o077 == 0 && file.nlink() == 1
}
