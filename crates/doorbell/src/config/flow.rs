//! Flow control of a trigger.

use std::time::Duration;

use doorbell_core::flow::{Debounce, Flow, Rate, WhenBusy};

use super::document::{Entry, Keys, Node, Table};
use super::problem::{Findings, Problem};
use super::quantity::{parse_duration, write_duration};

/// Its keys; `[defaults]` has them, too, for every trigger that does not say otherwise.
pub(super) const KEYS: [&str; 5] = ["when_busy", "debounce", "max_per_key", "throttle", "priority"];

const DEBOUNCE_KEYS: Keys<'static> = Keys { known: &["window", "max_wait"], planned: &[], hints: &[] };

const DEBOUNCE: &str = "debounce = { window = \"30s\", max_wait = \"5m\" }";

/// How much longer than the window a burst may be gathered, if nothing is said.
const MOST_WINDOWS: u32 = 10;

/// The longest window that a rate counts over.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The most that a rate counts.
const MOST: u32 = 10_000;

/// Reads it from the table of a trigger, or from `[defaults]`.
pub(super) fn read(table: &Table, findings: &mut Findings) -> Flow {
    let busy = [
        ("queue", WhenBusy::Queue),
        ("skip", WhenBusy::Skip),
        ("replace", WhenBusy::Replace),
        ("attach", WhenBusy::Attach),
    ];
    Flow {
        when_busy: table.read(findings, "when_busy", |node| node.choice(&busy)),
        debounce: debounce(table, findings),
        max_per_key: table.read(findings, "max_per_key", |node| rate(node, "10/1h")),
        throttle: table.read(findings, "throttle", |node| rate(node, "30/1m")),
        priority: table.read(findings, "priority", priority).unwrap_or_default(),
    }
}

/// The table of a trigger with what `[defaults]` says of flow control laid under it.
pub(super) fn with_defaults(mut table: Table, defaults: &Table) -> Table {
    let missing = |entry: &&Entry| KEYS.contains(&entry.key.as_str()) && !table.has(&entry.key);
    let missing: Vec<Entry> = defaults.entries.iter().filter(missing).cloned().collect();
    table.entries.extend(missing);
    table
}

fn priority(node: &Node) -> Result<i32, Problem> {
    node.whole(-1000..=1000).map(|number| i32::try_from(number).unwrap_or_default())
}

fn debounce(table: &Table, findings: &mut Findings) -> Option<Debounce> {
    let node = table.get("debounce")?.clone();
    let inner = findings.take(node.into_table(DEBOUNCE))?;
    inner.check(findings, DEBOUNCE_KEYS);
    let Some(window) = inner.get("window") else {
        findings.problem(Problem::at(&inner.place, "`debounce` needs a `window`").help(DEBOUNCE));
        return None;
    };
    let window = findings.take(window.duration(Duration::from_millis(1)));
    let max_wait = inner.read(findings, "max_wait", |node| node.duration(Duration::from_millis(1)));
    let window = window?;
    let max_wait = max_wait.unwrap_or(window * MOST_WINDOWS);
    if max_wait < window {
        let place = inner.get("max_wait").map_or(&inner.place, |node| &node.place);
        let message =
            format!("a burst cannot wait for {} and for {} at most", write_duration(window), write_duration(max_wait));
        findings.problem(Problem::at(place, message).help("raise `max_wait` or lower `window`"));
        return None;
    }
    Some(Debounce { window, max_wait })
}

/// So many in such a time, as in `10/1h`.
pub(super) fn rate(node: &Node, example: &str) -> Result<Rate, Problem> {
    let text = node.text(&format!("a rate such as \"{example}\""))?;
    let refuse = |message: String| Problem::at(&node.place, message).help(format!("for example \"{example}\""));
    let (count, window) = text
        .split_once('/')
        .ok_or_else(|| refuse(format!("{text:?} is not a rate: write how many, `/`, and a time")))?;
    let count = count.trim().parse().ok().filter(|count| (1..=MOST).contains(count));
    let count = count.ok_or_else(|| refuse(format!("{text:?} is not a rate: how many is 1 to {MOST}")))?;
    let window = parse_duration(window.trim()).map_err(refuse)?;
    if window.is_zero() || window > LONGEST {
        return Err(refuse(format!("{text:?} is out of range: the time is up to 7d")));
    }
    Ok(Rate { count, window })
}
