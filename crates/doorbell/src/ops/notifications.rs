//! Notifications: whether those who shall be told can be.

use doorbell_client::api;

use super::{Error, require_owner};
use crate::app::Caller;
use crate::notify::Notifier;

/// Sends a sample to everybody who is told of problems, or of the one that is named.
///
/// # Errors
/// If the caller is no owner, or nothing of that name is told.
pub async fn test(
    notifier: &Notifier,
    caller: &Caller,
    wish: api::NotificationTest,
) -> Result<api::NotificationAnswers, Error> {
    require_owner(caller)?;
    let unknown = |topics: String| Error::Invalid(format!("`on` must be one of {topics}"));
    let tried = notifier.test(wish.on.as_deref()).await.map_err(unknown)?;
    let view = |(receiver, said): (String, Result<String, String>)| api::NotificationAnswer {
        receiver,
        delivered: said.is_ok(),
        detail: said.unwrap_or_else(|why| why),
    };
    Ok(api::NotificationAnswers { receivers: tried.into_iter().map(view).collect() })
}
