//! Operations: what people and agents can do, without any transport. The only door for API, CLI, MCP and dashboard.
//!
//! Each operation takes who asks. What is not theirs does not exist for them: the same `not_found` as for an unknown
//! id.

use std::sync::atomic::Ordering;

use crate::app::{App, Caller, Turn};
use crate::config::Flaw;
use crate::store;

pub mod agents;
pub mod audit;
pub mod backup;
pub mod bulk;
mod calls;
pub mod captured;
pub mod dead_letters;
pub mod declared;
mod delays;
pub mod events;
pub mod forget;
pub mod keys;
pub mod leases;
pub mod notifications;
pub mod own_webhook;
mod owned;
pub mod pauses;
pub mod replays;
pub mod runs;
pub mod secrets;
pub mod starts;
pub mod stats;
pub mod steps;
pub mod subscriptions;
pub mod triggers;
mod view;
pub mod waits;
pub mod webhooks;
pub mod workers;

pub use view::view_event;
pub use view::{view_line, view_rejection, view_reload, view_run};

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or it is not the caller's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The same, where it is one of several that were named, or there is more to say: the same for what there is not and what is not
    /// the caller's.
    #[error("{0}")]
    Absent(String),
    /// The request cannot be understood; with what to do.
    #[error("{0}")]
    Invalid(String),
    /// What was given is wrong: everything that is, by its field.
    #[error("{}", in_words(.0))]
    Flawed(Vec<Flaw>),
    /// What is there is not what the caller goes by.
    #[error("{0}")]
    Precondition(String),
    /// The caller's key may not do this.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// It cannot be done as things stand: a stable code, and what to do.
    #[error("{1}")]
    Conflict(&'static str, String),
    /// It was there and is no more: a stable code, and what is known of it.
    #[error("{1}")]
    Gone(&'static str, String),
    /// Stored secrets cannot be sealed or opened: what is wrong with the master key, and what to do.
    #[error("{0}")]
    Locked(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The first thing that is wrong, and how many there are.
fn in_words(flaws: &[Flaw]) -> String {
    let first = flaws.first().map(|flaw| match flaw.field.as_str() {
        "" => flaw.message.clone(),
        field => format!("{field}: {}", flaw.message),
    });
    match flaws.len() {
        0 | 1 => first.unwrap_or_default(),
        count => format!("{count} problems, the first: {}", first.unwrap_or_default()),
    }
}

impl Error {
    /// What the caller is told: a stable code, and what happened. What went wrong inside is for the log.
    pub fn tell(&self) -> (&'static str, String) {
        match self {
            Self::NotFound(_) | Self::Absent(_) => ("not_found", self.to_string()),
            Self::Invalid(detail) => ("invalid_request", detail.clone()),
            Self::NotAllowed(detail) => ("not_allowed", (*detail).to_owned()),
            Self::Conflict(code, detail) | Self::Gone(code, detail) => (code, detail.clone()),
            Self::Precondition(detail) => ("precondition_failed", detail.clone()),
            Self::Locked(detail) => ("master_key_unavailable", detail.clone()),
            Self::Flawed(_) => ("invalid_agent", self.to_string()),
            // Damage does not go away by asking again.
            Self::Store(store::Error::Corrupt(what)) => {
                tracing::error!(error = what, "store.damaged");
                ("store_damaged", "what is stored of it cannot be read; the gateway's log says more".to_owned())
            }
            Self::Store(error) => {
                tracing::error!(error = error.with_causes(), "store.failed");
                ("store_unavailable", "the store did not take it; nothing was changed, try again".to_owned())
            }
        }
    }
}

/// Brings a change to its end in a task of its own, also when whoever asked for it hangs up: else what is stored could stay out of
/// force. None if the gateway shuts down meanwhile.
pub async fn to_its_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> Option<T> {
    match tokio::spawn(change).await {
        Ok(done) => Some(done),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// Puts in force what was just stored. It is done, whatever becomes of this: should the store fail between the two, which then takes
/// no deliveries either, it is tried again until it is in force.
async fn put_in_force(app: &App, turn: &Turn<'_>) {
    if let Err(error) = app.renew(turn).await {
        tracing::error!(error = error.with_causes(), "change.not_in_force");
        app.is_behind.store(true, Ordering::Relaxed);
    }
}

/// Refuses callers who are no owners of the gateway: for what is not of one account.
fn require_owner(caller: &Caller) -> Result<(), Error> {
    match caller {
        Caller::Owner { .. } => Ok(()),
        Caller::Account { .. } => Err(Error::NotAllowed("this needs a key with role `owner` that is of no account")),
        _ => Err(Error::NotAllowed("this needs a key with role `owner`")),
    }
}

/// Refuses callers who are no owners, of the gateway or of an account: for what they were found to see.
fn require_any_owner(caller: &Caller) -> Result<(), Error> {
    match caller.is_owner() {
        true => Ok(()),
        false => Err(Error::NotAllowed("this needs a key with role `owner`")),
    }
}

/// Refuses callers to whom a source does not belong: what comes to it is not only for them, if they listen to it.
fn require_source_owner(caller: &Caller, source: &str) -> Result<(), Error> {
    match caller.has_source(source) {
        true => require_any_owner(caller),
        false => require_owner(caller),
    }
}

/// Entries on a page when nobody says how many.
const PAGE: usize = 50;
/// Entries on a page at most.
const LONGEST_PAGE: usize = 500;

fn page_size(limit: Option<usize>) -> Result<usize, Error> {
    match limit {
        None => Ok(PAGE),
        Some(limit) if (1..=LONGEST_PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::Invalid(format!("`limit` must be from 1 to {LONGEST_PAGE}"))),
    }
}

fn parse_cursor(cursor: Option<&str>) -> Result<Option<i64>, Error> {
    let parsed = cursor
        .map(|text| text.parse::<i64>().ok().filter(|seq| *seq > 0))
        .map(|seq| seq.ok_or_else(|| Error::Invalid("`cursor` must be a `nextCursor` of an earlier page".to_owned())));
    parsed.transpose()
}

fn parse_time(field: &str, text: Option<&str>) -> Result<Option<doorbell_core::time::Timestamp>, Error> {
    let parsed = text.map(|text| {
        text.parse()
            .map_err(|_| Error::Invalid(format!("`{field}` must be an RFC 3339 time such as 2026-01-31T12:00:00Z")))
    });
    parsed.transpose()
}
