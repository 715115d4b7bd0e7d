//! What the store keeps of changes that were asked for through the API.

use doorbell_core::time::Timestamp;

use super::{Error, Store};

/// A change that somebody asked for. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it was asked for.
    pub at: Timestamp,
    /// Whose key (`key_…`), or which run's token (`run_…`).
    pub who: String,
    /// The key's label, or the run's agent.
    pub name: String,
    /// `owner`, `viewer`, `agent` or `run`.
    pub role: String,
    /// The operation: the call of the API, e.g. `POST /v1/agents/{name}/pause`.
    pub operation: String,
    /// What it was about, e.g. the agent's name; empty, if that is said by the operation.
    pub target: String,
    /// The address that it came from.
    pub remote: String,
    /// The account of whoever asked; none: the gateway's own.
    pub account: Option<String>,
}

/// The longest target that is kept, in bytes.
const LONGEST_TARGET: usize = 200;

impl Change {
    /// A change that somebody made on this machine, past the API: they may whatever the gateway's user may.
    pub fn local(at: Timestamp, name: &str, operation: &str, target: String) -> Self {
        let (name, operation) = (name.to_owned(), operation.to_owned());
        let (who, role, remote) = ("local".to_owned(), "owner".to_owned(), "local".to_owned());
        let account = None;
        Self { at, who, name, role, operation, target, remote, account }.shortened()
    }

    /// The same, with as much of its target as is kept, and none of a secret that somebody wrote in the place of an id.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        self.target = without_secrets(&self.target);
        if self.target.len() > LONGEST_TARGET {
            self.target.truncate(self.target.floor_char_boundary(LONGEST_TARGET));
            self.target.push('…');
        }
        self
    }
}

/// What keys, tokens, leases and signing secrets begin with.
const SECRETS: [&str; 4] = ["dbk_", "dbr_", "dbl_", "whsec_"];

/// A text with what begins like a secret cut to that beginning.
fn without_secrets(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((at, begins)) = SECRETS.iter().filter_map(|begins| Some((rest.find(begins)?, *begins))).min() {
        let (before, secret) = rest.split_at(at + begins.len());
        kept.push_str(before);
        kept.push('…');
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-+/=%.~".contains(c);
        rest = secret.trim_start_matches(is_part);
    }
    kept.push_str(rest);
    kept
}

/// Notes a change that is made already.
///
/// # Errors
/// If the store is unavailable.
pub async fn note_done(store: &dyn Store, change: Change) -> Result<(), Error> {
    let seq = store.begin_change(change).await?;
    store.end_change(seq, ChangeEnd { status: 200, code: None, target: None }).await
}

/// How a change ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEnd {
    /// The HTTP status of the answer.
    pub status: u16,
    /// The stable code of a refusal.
    pub code: Option<String>,
    /// What it turned out to be about, if that is known only now.
    pub target: Option<String>,
}

/// A change as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChange {
    /// Its place in the order in which they were asked for.
    pub seq: i64,
    /// The change.
    pub change: Change,
    /// The HTTP status of the answer; none, if the gateway ended before.
    pub status: Option<u16>,
    /// The stable code of a refusal.
    pub code: Option<String>,
}

/// Which changes.
#[derive(Debug, Clone, Default)]
pub struct ChangeQuery {
    /// By this key or run, or by this label or agent.
    pub who: Option<String>,
    /// By somebody of this account.
    pub account: Option<String>,
    /// Asked for at or after.
    pub since: Option<Timestamp>,
    /// Asked for before.
    pub until: Option<Timestamp>,
    /// With a smaller sequence: the next page.
    pub before: Option<i64>,
    /// At most.
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_keeps_nothing_of_a_secret_but_what_it_begins_with() {
        for (target, kept) in [
            ("dbk_abc-DEF_1", "dbk_…"),
            ("triage/whsec_ab+c/d==", "triage/whsec_…"),
            ("dbr_1 and dbl_2.3: run_1", "dbr_… and dbl_…: run_1"),
            ("key_01/whk_02", "key_01/whk_02"),
        ] {
            let change = Change::local(Timestamp::from_millis(0), "me", "DELETE /v1/keys/{id}", target.to_owned());
            assert_eq!(change.target, kept);
        }
    }
}
