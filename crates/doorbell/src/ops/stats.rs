//! Counts for people and for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_client::api;
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;

use super::Error;
use super::view::view_sweep;
use crate::app::{App, Caller};
use crate::clock;
use crate::telemetry::{LastSweep, Snapshot};

/// What is going on.
///
/// # Errors
/// If the store is unavailable.
pub async fn get(app: &App, caller: &Caller) -> Result<api::Stats, Error> {
    let stats = app.store.stats().await?;
    let mut agents: BTreeMap<String, api::AgentStats> = BTreeMap::new();
    for agent in app.config.agents.values() {
        let row = entry(&mut agents, &agent.name);
        row.configured = true;
        row.scale = agent.scale;
    }
    for (agent, state, count) in stats.runs {
        let row = entry(&mut agents, &agent);
        match state {
            State::Held => row.held = count,
            State::Waiting => row.waiting = count,
            State::Queued => row.queued = count,
            State::Running => row.running = count,
            State::Succeeded => row.succeeded = count,
            State::Failed => row.failed = count,
            State::Cancelled | State::Superseded => row.cancelled += count,
            State::Dropped => row.dropped = count,
        }
    }
    for (agent, since) in stats.oldest_queued {
        entry(&mut agents, &agent).oldest_queued_at = Some(since.to_string());
    }
    agents.retain(|name, _| caller.may_see(name));
    let totals = app.metrics.totals();
    Ok(api::Stats {
        events: stats.events,
        deliveries: api::DeliveryCounts {
            accepted: totals.accepted.load(Ordering::Relaxed),
            duplicate: totals.duplicate.load(Ordering::Relaxed),
            rejected: totals.rejected.load(Ordering::Relaxed),
        },
        agents: agents.into_values().collect(),
        last_sweep: app.store.swept().await?.last.map(view_sweep),
    })
}

fn entry<'a>(agents: &'a mut BTreeMap<String, api::AgentStats>, name: &str) -> &'a mut api::AgentStats {
    agents
        .entry(name.to_owned())
        .or_insert_with(|| api::AgentStats { name: name.to_owned(), ..api::AgentStats::default() })
}

/// All metrics in the Prometheus text format.
///
/// # Errors
/// If the store is unavailable.
pub async fn metrics(app: &App) -> Result<String, Error> {
    let stats = app.store.stats().await?;
    let commits = app.store.commits();
    let now = clock::now();
    let snapshot = Snapshot {
        runs: stats
            .runs
            .into_iter()
            .filter(|(_, state, _)| !state.is_final())
            .map(|(agent, state, count)| (agent, state.as_str(), count))
            .collect(),
        oldest_queued: stats
            .oldest_queued
            .into_iter()
            .map(|(agent, at)| (agent, now.since(at).as_secs_f64()))
            .collect(),
        commits: commits.commits,
        operations: commits.operations,
        commit_seconds: commits.busy.as_secs_f64(),
        last_sweep: app.store.swept().await?.last.map(|sweep| LastSweep {
            ended_at: sweep.ended_at.as_seconds(),
            removed: [
                ("events", sweep.events),
                ("runs", sweep.runs),
                ("rejections", sweep.rejections),
                ("trigger_sets", sweep.trigger_sets),
            ],
        }),
    };
    Ok(app.metrics.render(&snapshot))
}

/// Whether events can be stored now. Anybody may ask, so the store is asked once a second at most.
///
/// # Errors
/// If they cannot.
pub async fn ready(app: &App) -> Result<(), Error> {
    let now = clock::now();
    let seen = Timestamp::from_millis(app.seen_ready.load(Ordering::Relaxed));
    if now.since(seen) < READY_FOR && now >= seen {
        return Ok(());
    }
    app.store.health(now).await?;
    app.seen_ready.store(now.as_millis(), Ordering::Relaxed);
    Ok(())
}

/// How long a good answer holds.
const READY_FOR: Duration = Duration::from_secs(1);
