//! Whether the gateway runs, can store, and is of this version; and what runs that should not.

use std::collections::BTreeSet;

use doorbell_client::api::Stats;
use doorbell_client::{Client, RunQuery};

use super::{AS_ITS_USER, Finding, Running, Subject, fail, ok, some, warn};
use crate::gateway::{STATE_FOLDER, address_file};
use crate::runtime::find_marked;

const CHECK: &str = "gateway";

/// As many runs as the gateway gives at once.
const MOST_RUNS: u32 = 500;

pub(super) async fn check(subject: &Subject) -> Vec<Finding> {
    if let Some(unseen) = &subject.unseen {
        return vec![warn(CHECK, unseen, AS_ITS_USER)];
    }
    let Some(Running { address, client, .. }) = &subject.gateway else {
        let known = address_file(&subject.root).exists();
        let what = match known {
            true => "does not answer, and did not end in order (it was killed, or hangs)",
            false => "does not run",
        };
        return vec![warn(CHECK, what, "start it with `doorbell serve`; what it did not finish goes on then")];
    };
    let mut findings = Vec::new();
    let own = env!("CARGO_PKG_VERSION");
    if address.version != own {
        let other = if address.version.is_empty() { "an older version" } else { &address.version };
        let advice = "restart the gateway after an update, and look which `doorbell` the shell finds";
        findings.push(warn(CHECK, format!("it is {other}, this command is {own}"), advice));
    }
    if let Err(error) = client.ready().await {
        let advice = "look at the database and the disk below, and at the gateway's log";
        findings.push(fail(CHECK, format!("runs, and cannot store: senders get 503 ({error})"), advice));
    }
    match client.stats().await {
        Ok(stats) => findings.extend(check_workers(stats)),
        Err(error) => {
            let advice = "stop the gateway, remove .doorbell/key and start it again: it makes a new key";
            findings.push(fail(CHECK, format!("does not take the project's key: {error}"), advice));
        }
    }
    findings.extend(check_agents(client).await);
    if findings.is_empty() {
        findings.push(ok(CHECK, format!("runs and can store ({}, pid {})", address.url, address.pid)));
    }
    findings
}

/// Webhooks that were made at run time, and whose state is nobody's wish.
pub(super) async fn check_webhooks(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "webhooks";
    let Some(Running { client, .. }) = &subject.gateway else { return Vec::new() };
    let (Ok(sources), Ok(agents)) = (client.sources().await, client.agents().await) else { return Vec::new() };
    let mut findings = Vec::new();
    let hooks: Vec<_> =
        sources.sources.iter().filter_map(|source| Some((&source.name, source.webhook.as_ref()?))).collect();
    let closed: Vec<String> =
        hooks.iter().filter(|(_, hook)| hook.problem.is_some()).map(|(name, _)| (*name).clone()).collect();
    if let Some(why) = hooks.iter().find_map(|(_, hook)| hook.problem.as_ref()) {
        let advice = "put the master key back (DOORBELL_MASTER_KEY, or .doorbell/master.key) and start the gateway again; \
                      what cannot be opened any more must be rotated (`doorbell webhooks rotate`)";
        findings.push(fail(CHECK, format!("answer with 503: {} ({why})", some(&closed)), advice));
    }
    let open = agents.agents.iter().filter(|agent| agent.own_webhook.as_deref() == Some("none"));
    let open: Vec<String> = open.map(|agent| agent.name.clone()).collect();
    if !open.is_empty() {
        let advice = "`doorbell agents webhook AGENT --auth bearer` has it ask for a secret";
        findings.push(warn(CHECK, format!("anybody can start {}: no authentication", some(&open)), advice));
    }
    if findings.is_empty() && !hooks.is_empty() {
        findings.push(ok(CHECK, format!("{} made at run time can verify what comes", hooks.len())));
    }
    findings
}

/// Agents whose URLs fail all the time, or that this machine cannot start, so that their runs wait.
async fn check_agents(client: &Client) -> Vec<Finding> {
    // Why the gateway does not answer is said already.
    let Ok(list) = client.agents().await else { return Vec::new() };
    let open = list.agents.into_iter().filter_map(|agent| Some((agent.name, agent.breaker?)));
    let advice = "look at what it names (what answers at its `url`, or this machine), and at `doorbell runs --agent NAME`; its runs \
                  wait, and use up no tries";
    open.map(|(name, why)| warn("agents", format!("the runs of `{name}` wait: {why}"), advice)).collect()
}

/// Agents whose runs nobody fetches.
fn check_workers(stats: Stats) -> impl Iterator<Item = Finding> {
    let advice = "start its worker, and look whether that asks this gateway (docs/workers.md); its runs wait meanwhile";
    let unasked = stats.agents.into_iter().filter_map(|agent| Some((agent.name, agent.queued, agent.unasked?)));
    unasked.map(move |(name, queued, why)| warn("agents", format!("{queued} runs of `{name}` wait: {why}"), advice))
}

/// Processes of runs that are not running.
pub(super) async fn check_leftovers(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "processes";
    let runs = subject.root.join(STATE_FOLDER).join("runs");
    let marked = find_marked(&runs);
    let alive: BTreeSet<String> = match &subject.gateway {
        // Which runs are running is not known.
        None if !subject.is_stopped() => return Vec::new(),
        None => BTreeSet::new(),
        Some(Running { client, .. }) => {
            let state = Some("running".to_owned());
            let query = RunQuery { state, limit: Some(MOST_RUNS), ..RunQuery::default() };
            match client.runs(&query).await {
                // On a further page there may be the one that is looked for.
                Ok(page) if page.next_cursor.is_none() => page.runs.into_iter().map(|run| run.id).collect(),
                _ => return Vec::new(),
            }
        }
    };
    // A run that ended between the two looks took its processes with it.
    let still = find_marked(&runs);
    let left = marked.iter().filter(|process| !alive.contains(&process.run) && still.contains(process));
    let left: Vec<String> =
        left.map(|process| format!("{} ({}, {})", process.pid, process.command, process.run)).collect();
    if left.is_empty() {
        let running = marked.len();
        // One that left its group, cleared its environment and outlived the gateway bears no sign of its run.
        return vec![ok(CHECK, format!("none bears the mark of a run that is over ({running} of running agents)"))];
    }
    let advice = match subject.gateway {
        Some(_) => "the gateway ends them with their run; if they stay: `kill` them, and say how they got away",
        None => "start the gateway: it ends them before their runs go on; or `kill` them",
    };
    vec![warn(CHECK, format!("left over by runs that do not run: {}", some(&left)), advice)]
}
