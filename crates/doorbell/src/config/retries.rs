//! `[retries]`.

use std::time::Duration;

use doorbell_core::retry::Backoff;
use doorbell_core::run::{OnLost, Policy};

use super::document::{Keys, Table};
use super::problem::{Findings, Problem};
use super::quantity::write_duration;

const KEYS: Keys<'static> = Keys { known: &["attempts", "on_lost", "backoff"], planned: &[], hints: &[] };

const BACKOFF_KEYS: Keys<'static> = Keys { known: &["initial", "factor", "max", "jitter"], planned: &[], hints: &[] };

/// Reads `retries` of an agent.
pub(super) fn read(agent: &mut Table, findings: &mut Findings) -> Option<Policy> {
    let mut table = agent.take_table(findings, "retries", "[retries] begins one")?;
    table.check(findings, KEYS);
    let attempts = table.read(findings, "attempts", |node| node.whole(1..=100));
    let on_lost =
        table.read(findings, "on_lost", |node| node.choice(&[("retry", OnLost::Retry), ("fail", OnLost::Fail)]));
    let example = "backoff = { initial = \"10s\", factor = 2.0, max = \"10m\", jitter = true }";
    let backoff = table.take_table(findings, "backoff", example).and_then(|table| read_backoff(&table, findings));
    Some(Policy { attempts: u32::try_from(attempts?).ok()?, on_lost: on_lost?, backoff: backoff? })
}

fn read_backoff(table: &Table, findings: &mut Findings) -> Option<Backoff> {
    table.check(findings, BACKOFF_KEYS);
    let initial = table.read(findings, "initial", |node| node.duration(Duration::ZERO));
    let factor = table.read(findings, "factor", |node| node.real(1.0..=100.0));
    let max = table.read(findings, "max", |node| node.duration(Duration::ZERO));
    let jitter = table.read(findings, "jitter", super::document::Node::flag);
    let (initial, max) = (initial?, max?);
    if initial > max {
        let place = table.get("initial").map_or(&table.place, |node| &node.place);
        let message = format!(
            "the first wait ({}) is longer than the longest one ({})",
            write_duration(initial),
            write_duration(max)
        );
        findings.problem(Problem::at(place, message).help("raise `max` or lower `initial`"));
    }
    Some(Backoff { initial, factor: factor?, max, jitter: jitter? })
}
