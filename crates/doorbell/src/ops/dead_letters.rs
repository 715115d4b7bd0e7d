//! Dead letters by what they failed of, so that a thousand runs that failed alike are one line.

use std::collections::HashMap;
use std::time::Instant;

use doorbell_client::api;
use doorbell_core::cause::{cause_id, cause_of};
use doorbell_core::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::runs::agents_of;
use super::triggers::LONGEST_SCAN;
use super::{Error, LONGEST_PAGE};
use crate::app::{App, Caller};
use crate::store::{RunQuery, StoredRun};

/// The newest dead letters that are looked at.
pub(super) const MOST_SCANNED: usize = 10_000;

/// Which ones.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    /// Of this agent.
    agent: Option<String>,
}

/// The groups, the largest first.
///
/// # Errors
/// If the store is unavailable.
pub async fn list(app: &App, caller: &Caller, query: Query) -> Result<api::DeadLetterGroups, Error> {
    let mut found = api::DeadLetterGroups { groups: Vec::new(), scanned: 0, complete: true };
    let Some(agents) = agents_of(caller, query.agent) else { return Ok(found) };
    let mut groups: HashMap<(String, String), Group> = HashMap::new();
    let (begun, mut before) = (Instant::now(), None);
    loop {
        let (agents, limit) = (agents.clone(), LONGEST_PAGE);
        let runs = app.store.runs(RunQuery { agents, dead_letter: true, before, limit, ..RunQuery::default() }).await?;
        before = runs.last().map(|run| run.seq);
        let last = runs.len() < limit;
        found.scanned += runs.len() as u64;
        for run in runs {
            let cause = cause_of(run.reason.as_deref().unwrap_or_default());
            groups.entry((run.agent.clone(), cause)).or_default().add(run);
        }
        if last {
            break;
        }
        if found.scanned >= MOST_SCANNED as u64 || begun.elapsed() > LONGEST_SCAN {
            found.complete = false;
            break;
        }
    }
    found.groups = groups.into_iter().filter_map(|((agent, cause), group)| group.view(agent, cause)).collect();
    found.groups.sort_by(|a, b| (b.count, &b.last_at, &a.cause).cmp(&(a.count, &a.last_at, &b.cause)));
    Ok(found)
}

/// Whether a run failed of this cause: its short name, or what it says.
pub(super) fn failed_of(reason: Option<&str>, cause: &str) -> bool {
    let of = cause_of(reason.unwrap_or_default());
    cause_id(&of) == cause || of == cause_of(cause)
}

#[derive(Default)]
struct Group {
    count: u64,
    first: Option<Timestamp>,
    /// The newest, and when it ended.
    newest: Option<(Timestamp, StoredRun)>,
}

impl Group {
    fn add(&mut self, run: StoredRun) {
        let at = run.finished_at.unwrap_or(run.created_at);
        self.count += 1;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        if self.newest.as_ref().is_none_or(|(newest, _)| *newest < at) {
            self.newest = Some((at, run));
        }
    }

    fn view(self, agent: String, cause: String) -> Option<api::DeadLetterGroup> {
        let (last, newest) = self.newest?;
        let cause_id = cause_id(&cause);
        Some(api::DeadLetterGroup {
            retry: format!("doorbell runs retry --agent {agent} --cause {cause_id}"),
            agent,
            cause,
            cause_id,
            count: self.count,
            first_at: self.first?.to_string(),
            last_at: last.to_string(),
            run_id: newest.id.to_string(),
            reason: newest.reason,
        })
    }
}
