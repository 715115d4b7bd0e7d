//! The audit: what was answered 2xx is stored, with one outcome for each agent that its trigger set names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_client::{Client, Error, EventQuery, RunQuery, api};

use crate::ledger::Answered;
use crate::project::TRIES;
use crate::{Soak, pause};

/// Losses after which a run is not tried again.
const LOSSES: usize = 3;
/// How many of the stored events are asked why, at each audit.
const ASKED: usize = 20;

/// Holds everything that was answered against what is stored now.
///
/// # Errors
/// If the gateway was killed meanwhile.
pub async fn audit(soak: &Soak, client: &Client) -> Result<(), Error> {
    let begun = Instant::now();
    let stored = all_events(client).await?;
    let due = soak.ledger.due(begun, Instant::now(), soak.retention);
    let by_delivery: BTreeMap<&str, &api::Event> =
        stored.iter().map(|event| (event.delivery_id.as_deref().unwrap_or_default(), event)).collect();
    soak.ledger.check(by_delivery.len() == stored.len(), || "a delivery is stored twice".to_owned());
    for (delivery, answered) in &due {
        match by_delivery.get(delivery.as_str()) {
            None => soak.ledger.find(format!(
                "{delivery} was answered 2xx {:?} ago and is lost: {:?}",
                answered.answered.elapsed(),
                answered.receipt
            )),
            Some(event) => check_event(soak, event, answered),
        }
    }
    soak.ledger.most_events.fetch_max(stored.len() as u64, Ordering::Relaxed);
    soak.ledger.audited.fetch_add(due.len() as u64, Ordering::Relaxed);
    for event in stored.iter().step_by((stored.len() / ASKED).max(1)) {
        check_why(soak, client, event).await?;
    }
    Ok(())
}

fn check_event(soak: &Soak, event: &api::Event, answered: &Answered) {
    let agents: Vec<&str> = event.outcomes.iter().map(|outcome| outcome.agent.as_str()).collect();
    let always = answered.kind.agents();
    let right = agents.iter().filter(|agent| **agent != "third").eq(always)
        && agents.iter().filter(|agent| **agent == "third").count() <= 1;
    soak.ledger.check(right, || format!("{} has the outcomes {agents:?}, not {always:?}", event.id));
    let runs: Vec<&String> = event.outcomes.iter().filter_map(|outcome| outcome.run_id.as_ref()).collect();
    let same = event.id == answered.receipt.delivery_id && runs.iter().copied().eq(&answered.receipt.runs);
    soak.ledger.check(same, || format!("{event:?} was answered {:?}", answered.receipt));
}

/// The agents with an outcome are those that the event's own trigger set names.
async fn check_why(soak: &Soak, client: &Client, event: &api::Event) -> Result<(), Error> {
    let why = match client.explain(&event.id).await {
        Ok(why) => why,
        // Removed since.
        Err(error) if error.status() == Some(404) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut named: Vec<&str> =
        why.verdicts.iter().filter(|verdict| verdict.matched).map(|verdict| verdict.agent.as_str()).collect();
    named.sort_unstable();
    named.dedup();
    let own = why.event.outcomes.iter().filter(|outcome| outcome.trigger_set == why.trigger_set);
    let have: Vec<&str> = own.map(|outcome| outcome.agent.as_str()).collect();
    soak.ledger.check(named == have, || format!("{} has outcomes for {have:?}, its triggers name {named:?}", event.id));
    Ok(())
}

async fn all_events(client: &Client) -> Result<Vec<api::Event>, Error> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.events(&EventQuery { cursor, limit: Some(500), ..EventQuery::default() }).await?;
        all.extend(page.events);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Every run that is stored has ended in one state, after the tries that its agent's rules give it. Answers how many.
///
/// # Errors
/// If the gateway does not answer.
pub async fn check_runs(soak: &Soak, client: &Client) -> Result<usize, Error> {
    let (mut seen, mut cursor) = (0, None);
    loop {
        let page = client.runs(&RunQuery { cursor, limit: Some(500), ..RunQuery::default() }).await?;
        for run in page.runs {
            seen += 1;
            let over = ["succeeded", "failed", "dropped"].contains(&run.state.as_str()) && run.finished_at.is_some();
            soak.ledger.check(over, || format!("not over, or by nobody's wish: {run:?}"));
            if ["one", "two"].contains(&run.agent.as_str()) {
                match client.run(&run.id).await {
                    Ok(detail) => {
                        soak.ledger.check(is_by_the_rules(&detail), || format!("not by the rules: {detail:?}"))
                    }
                    Err(error) if error.status() == Some(404) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(seen);
        }
    }
}

fn is_by_the_rules(detail: &api::RunDetail) -> bool {
    let ended: Vec<&str> = detail.attempts.iter().filter_map(|attempt| attempt.ended.as_deref()).collect();
    let count = |how: &str| ended.iter().filter(|one| **one == how).count();
    let (succeeded, failed, lost) = (count("succeeded"), count("failed"), count("lost"));
    let numbers = detail.attempts.iter().map(|attempt| attempt.number).eq(1..=detail.run.attempt);
    let whole = numbers && ended.len() == detail.attempts.len() && succeeded + failed + lost == ended.len();
    let last = ended.last().copied().unwrap_or_default();
    whole
        && match detail.run.state.as_str() {
            "succeeded" => last == "succeeded" && succeeded == 1 && failed < TRIES && lost < LOSSES,
            "failed" => detail.run.dead_letter && succeeded == 0 && (failed == TRIES || lost == LOSSES),
            _ => false,
        }
}

/// A copy is a whole database, has everything that was answered before it began, and starts nothing by itself.
pub fn check_copy(soak: &Soak, copy: &Path, begun: Instant, ended: Instant) {
    let sql = rusqlite::Connection::open(copy).unwrap();
    let word: String = sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    soak.ledger.check(word == "ok", || format!("a backup is damaged: {word}"));
    let going: i64 = sql.query_row("SELECT count(*) FROM runs WHERE state IN (1, 2, 3)", [], |row| row.get(0)).unwrap();
    soak.ledger.check(going == 0, || format!("{going} runs of a backup would start by themselves"));
    let mut events =
        sql.prepare("SELECT delivery_id, (SELECT count(*) FROM outcomes WHERE event_seq = seq) FROM events").unwrap();
    let rows = events.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let stored: BTreeMap<String, i64> = rows.map(Result::unwrap).collect();
    for (delivery, answered) in soak.ledger.due(begun, ended, soak.retention) {
        let outcomes = stored.get(&delivery).map(|count| usize::try_from(*count).unwrap());
        let right = outcomes.is_some_and(|count| count >= answered.kind.agents().len());
        soak.ledger
            .check(right, || format!("{delivery} was answered before a backup, which has {outcomes:?} outcomes"));
    }
}

/// Waits until no run is left to carry out.
///
/// # Errors
/// If the gateway does not answer.
pub async fn all_ended(client: &Client, patience: Duration) -> Result<bool, Error> {
    let begun = Instant::now();
    loop {
        let agents = client.stats().await?.agents;
        if agents.iter().all(|agent| agent.queued + agent.running + agent.waiting == 0) {
            return Ok(true);
        }
        if begun.elapsed() > patience {
            return Ok(false);
        }
        pause(Duration::from_millis(50)).await;
    }
}
