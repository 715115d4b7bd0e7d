//! Counts for people and for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_client::api;
use doorbell_core::run::State;
use doorbell_core::time::Timestamp;

use super::Error;
use super::view::view_sweep;
use crate::app::{App, Caller, Telling};
use crate::clock;
use crate::dispatch::Dispatcher;
use crate::telemetry::{Door, Snapshot};

/// What is going on. Who is confined to an agent or an account sees what is its, and no counts of the whole.
///
/// # Errors
/// If the store is unavailable.
pub async fn get(app: &App, dispatcher: &Dispatcher, caller: &Caller) -> Result<api::Stats, Error> {
    let stats = app.store.stats().await?;
    let mut agents: BTreeMap<String, api::AgentStats> = BTreeMap::new();
    let (in_force, error) = app.in_force.state();
    let config = api::ConfigState { generation: in_force.generation, loaded_at: in_force.loaded_at.to_string(), error };
    for agent in in_force.config.agents.values() {
        let row = entry(&mut agents, &agent.name);
        row.configured = true;
        row.scale = agent.scale;
        row.pause = super::pauses::of_agent(app, &agent.name);
        row.breaker = dispatcher.breaker(&agent.name);
    }
    for (agent, state, count) in stats.runs {
        count_runs(entry(&mut agents, &agent), state, count);
    }
    for (agent, since) in stats.oldest_queued {
        entry(&mut agents, &agent).oldest_queued_at = Some(since.to_string());
    }
    for (agent, until) in stats.throttled.into_iter().filter(|(_, until)| *until > clock::now()) {
        let row = entry(&mut agents, &agent);
        // Of several triggers, the first that may go on.
        let until = until.to_string();
        row.throttled_until = Some(row.throttled_until.take().map_or(until.clone(), |other| other.min(until)));
    }
    for (agent, runs, since) in stats.streaks {
        entry(&mut agents, &agent).failing = Some(api::FailingStreak { runs, since: since.to_string() });
    }
    let mut paused_sources = paused_sources(app, stats.held_with_source);
    paused_sources.retain(|source| caller.has_source(&source.name));
    for (agent, key, run, state) in stats.holders {
        let holder = api::Holder { key, run_id: run.to_string(), state: state.as_str().to_owned() };
        entry(&mut agents, &agent).holders.push(holder);
    }
    agents.retain(|name, _| caller.may_see(name));
    for row in agents.values_mut().filter(|row| row.queued > 0) {
        row.unasked = dispatcher.unasked(&row.name);
    }
    let agents = agents.into_values().collect();
    if !caller.sees_all() {
        let (notifications, config, last_sweep) = (Vec::new(), None, None);
        let (events, deliveries) = (None, None);
        return Ok(api::Stats { events, deliveries, agents, paused_sources, notifications, config, last_sweep });
    }
    let totals = app.metrics.totals();
    Ok(api::Stats {
        events: Some(stats.events),
        deliveries: Some(api::DeliveryCounts {
            accepted: totals.accepted.load(Ordering::Relaxed),
            duplicate: totals.duplicate.load(Ordering::Relaxed),
            rejected: totals.rejected.load(Ordering::Relaxed),
        }),
        agents,
        paused_sources,
        config: Some(config),
        last_sweep: app.store.swept().await?.last.map(view_sweep),
        notifications: receivers(app),
    })
}

fn count_runs(row: &mut api::AgentStats, state: State, count: u64) {
    match state {
        State::Held => row.held = count,
        State::Waiting => row.waiting = count,
        State::Queued => row.queued = count,
        State::Running => row.running = count,
        State::Succeeded => row.succeeded = count,
        State::Failed => row.failed = count,
        State::Cancelled => row.cancelled = count,
        State::Superseded => row.superseded = count,
        State::Dropped => row.dropped = count,
    }
}

/// Sources that are paused, also those that are in the configuration no more, and those with runs that are held.
fn paused_sources(app: &App, held: Vec<(String, u64)>) -> Vec<api::PausedSource> {
    let mut found: BTreeMap<String, u64> = held.into_iter().collect();
    for source in app.pauses.sources() {
        found.entry(source).or_default();
    }
    let in_force = app.current();
    let view = |(name, held): (String, u64)| api::PausedSource {
        configured: in_force.config.sources.contains_key(&name),
        pause: super::pauses::of_source(app, &name),
        name,
        held,
    };
    found.into_iter().map(view).collect()
}

fn receivers(app: &App) -> Vec<api::ReceiverStats> {
    let view = |telling: Telling| api::ReceiverStats {
        receiver: telling.receiver,
        delivered: telling.delivered,
        failed: telling.failed,
        waiting: telling.waiting,
        error: telling.error,
    };
    app.signs.telling().into_iter().map(view).collect()
}

fn entry<'a>(agents: &'a mut BTreeMap<String, api::AgentStats>, name: &str) -> &'a mut api::AgentStats {
    agents
        .entry(name.to_owned())
        .or_insert_with(|| api::AgentStats { name: name.to_owned(), ..api::AgentStats::default() })
}

/// All metrics in the OpenMetrics text format. They come also while the store does not answer: then without its figures,
/// and with `doorbell_store_up` at 0.
pub async fn metrics(app: &App, door: Door) -> String {
    let up = async { matches!(tokio::time::timeout(PATIENCE, ready(app)).await, Ok(Ok(()))) };
    let tallies = async { tokio::time::timeout(PATIENCE, app.store.tallies()).await.ok()?.ok() };
    let space = async { tokio::time::timeout(PATIENCE, app.store.space()).await.ok()?.ok() };
    let swept = async { tokio::time::timeout(PATIENCE, app.store.swept()).await.ok()?.ok()?.last };
    let (store_up, tallies, space, last_sweep) = futures_util::future::join4(up, tallies, space, swept).await;
    let (in_force, refused) = app.in_force.state();
    let snapshot = Snapshot {
        sources: in_force.config.sources.keys().cloned().collect(),
        paused_sources: app.pauses.sources(),
        agents: in_force.config.agents.values().map(|agent| (agent.name.clone(), agent.scale)).collect(),
        tallies,
        space,
        figures: app.store.figures(),
        store_up,
        door,
        certificate_expires: in_force.config.gateway.tls.as_ref().and_then(crate::config::Tls::expires_at),
        config_generation: in_force.generation,
        config_is_saved_one: refused.is_none(),
        last_sweep,
        now: clock::now(),
    };
    app.metrics.render(&snapshot)
}

/// How long the store may take to tell its figures: less than a scrape may take.
const PATIENCE: Duration = Duration::from_secs(3);

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
