//! The audit log: every change that was asked for through the API, by whom, from where, and how it ended.

use doorbell_client::api;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Error, LONGEST_PAGE, page_size, parse_cursor, parse_time, require_any_owner};
use crate::app::{App, Caller, Known};
use crate::clock;
use crate::store::{self, Change, ChangeEnd, ChangeQuery, Store, StoredChange};

/// Which changes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    since: Option<String>,
    until: Option<String>,
    who: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

impl Query {
    /// The same, in pages as large as they may be, from where an earlier one ended.
    #[must_use]
    pub fn in_large_pages(self, cursor: Option<String>) -> Self {
        Self { cursor: cursor.or(self.cursor), limit: Some(LONGEST_PAGE), ..self }
    }
}

/// A page of changes, newest first. For owners: those of an account see what was asked for with keys and runs of it.
///
/// # Errors
/// If the caller is no owner, or a filter is not one.
pub async fn list(app: &App, caller: &Caller, query: Query) -> Result<api::AuditPage, Error> {
    require_any_owner(caller)?;
    let limit = page_size(query.limit)?;
    let wanted = ChangeQuery {
        who: query.who,
        account: app.accounts.of_caller(caller),
        since: parse_time("since", query.since.as_deref())?,
        until: parse_time("until", query.until.as_deref())?,
        before: parse_cursor(query.cursor.as_deref())?,
        limit: limit + 1,
    };
    let mut changes = app.store.changes(wanted).await?;
    let more = changes.len() > limit;
    changes.truncate(limit);
    let next_cursor = changes.last().filter(|_| more).map(|change| change.seq.to_string());
    Ok(api::AuditPage { entries: changes.into_iter().map(view).collect(), next_cursor })
}

fn view(StoredChange { change, status, code, .. }: StoredChange) -> api::AuditEntry {
    // A tool's refusal is an answer like others to those who only carry it.
    let result = match (status, &code) {
        (None, _) => "unknown",
        (Some(..400), None) => "done",
        (Some(_), _) => "refused",
    };
    api::AuditEntry {
        at: change.at.to_string(),
        who: change.who,
        name: change.name,
        role: change.role,
        account: change.account,
        operation: change.operation,
        target: change.target,
        remote: change.remote,
        result: result.to_owned(),
        status,
        code,
    }
}

/// Who asks for a change, and from where.
#[derive(Debug, Clone)]
pub struct Author {
    /// Whose key or token is shown.
    pub known: Known,
    /// The address that it is shown from.
    pub remote: String,
}

impl Author {
    /// A change that it asks for now.
    pub fn change(&self, operation: String, target: String) -> Change {
        Change {
            at: clock::now(),
            who: self.known.id.clone(),
            name: self.known.name.clone(),
            role: self.known.role().to_owned(),
            operation,
            target,
            remote: self.remote.clone(),
            account: self.known.account.clone(),
        }
    }
}

/// Notes a change before it is made: one that cannot be noted is not made.
///
/// # Errors
/// If the store is unavailable.
pub async fn begin(store: &dyn Store, change: Change) -> Result<i64, store::Error> {
    store.begin_change(change.shortened()).await
}

/// Notes how a change ended that a tool was asked for, which HTTP takes for answered either way.
/// `target`: what it turned out to be about, if that is known only now.
pub async fn end_of_tool(store: &dyn Store, seq: i64, code: Option<&str>, target: Option<String>) {
    end(store, seq, ChangeEnd { status: 200, code: code.map(str::to_owned), target }).await;
}

/// Notes how a change ended. If that cannot be stored, its end stays unknown.
pub async fn end(store: &dyn Store, seq: i64, end: ChangeEnd) {
    if let Err(error) = store.end_change(seq, end).await {
        tracing::error!(seq, error = error.with_causes(), "audit.end_not_kept");
    }
}

/// Notes a change that somebody makes on this machine while no gateway runs.
///
/// # Errors
/// If the store is unavailable.
pub async fn note_offline(store: &dyn Store, operation: &str, target: &str) -> Result<(), store::Error> {
    let change = Change::local(clock::now(), "command line, without a gateway", operation, target.to_owned());
    store::note_done(store, change).await
}
