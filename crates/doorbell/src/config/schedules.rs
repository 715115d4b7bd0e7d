//! `schedule` and `[[schedules]]` of an agent.

use std::time::Duration;

use doorbell_core::schedule::{Missed, Schedule, find_zone};
use doorbell_core::time::Timestamp;

use super::document::{Keys, Node, Table};
use super::problem::{Findings, Place, Problem};

const KEYS: Keys<'static> = Keys { known: &["cron", "timezone", "missed", "jitter"], planned: &[], hints: &[] };

const EXAMPLE: &str = "[[schedules]]\ncron = \"0 9 * * 1-5\"\ntimezone = \"Europe/Berlin\"";
const CRON: &str = "a cron expression such as \"*/15 * * * *\"";

/// From here on the first tick is looked for: a schedule without any is a mistake.
const SOME_DAY: Timestamp = Timestamp::from_seconds(1_767_225_600);

/// Reads the schedules of an agent; its `timezone` is that of those that have none of their own.
pub(super) fn read(name: &str, agent: &Table, findings: &mut Findings) -> Vec<Schedule> {
    let zone = agent.read(findings, "timezone", zone).unwrap_or_else(|| UTC.to_owned());
    let mut schedules = Vec::new();
    if let Some(node) = agent.get("schedule") {
        let one = schedule(node, &zone, Missed::default(), Duration::ZERO, findings);
        schedules.extend(one.map(|schedule| (schedule, node.place.clone())));
    }
    let list = agent.get("schedules").map(|node| node.list("a list of schedules").map_err(|p| p.help(EXAMPLE)));
    for (n, node) in list.and_then(|list| findings.take(list)).unwrap_or_default().into_iter().enumerate() {
        let place = node.place.clone();
        let Some(table) = findings.take(node.into_table(EXAMPLE)) else { continue };
        if !table.has("missed") {
            findings.setting(
                format!("agents.{name}.schedules[{n}].missed"),
                "\"once\"".to_owned(),
                "default".to_owned(),
            );
        }
        schedules.extend(read_one(&table, &zone, findings).map(|schedule| (schedule, place)));
    }
    unlike(schedules, findings)
}

const UTC: &str = "UTC";

/// The name of a time zone that there is.
fn zone(node: &Node) -> Result<String, Problem> {
    let name = node.text("a time zone such as \"Europe/Berlin\"")?;
    find_zone(&name).map_err(|error| Problem::at(&node.place, error.to_string()))?;
    Ok(name)
}

/// Reads all of it before it gives up, so that all that is wrong is told at once. What is told is not in force, so it does not
/// matter what stands in its place.
fn read_one(table: &Table, outer: &str, findings: &mut Findings) -> Option<Schedule> {
    table.check(findings, KEYS);
    let zone = table.read(findings, "timezone", zone).unwrap_or_else(|| outer.to_owned());
    let choices = [("skip", Missed::Skip), ("once", Missed::Once), ("all", Missed::All)];
    let missed = table.read(findings, "missed", |node| node.choice(&choices)).unwrap_or_default();
    let jitter = table.read(findings, "jitter", |node| node.duration(Duration::ZERO)).unwrap_or_default();
    let Some(node) = table.get("cron") else {
        findings.problem(Problem::at(&table.place, "a schedule needs a `cron`").help(EXAMPLE));
        return None;
    };
    schedule(node, &zone, missed, jitter, findings)
}

fn schedule(node: &Node, zone: &str, missed: Missed, jitter: Duration, findings: &mut Findings) -> Option<Schedule> {
    let cron = findings.take(node.text(CRON))?;
    findings.take(Schedule::new(&cron, zone, missed, jitter, SOME_DAY).map_err(|error| {
        Problem::at(&node.place, error.to_string())
            .help("fields: minute hour day month weekday, or seconds before them; an example: \"30 9 * * 1-5\"")
    }))
}

/// Two that are alike would start the agent once: surely not what was meant.
fn unlike(schedules: Vec<(Schedule, Place)>, findings: &mut Findings) -> Vec<Schedule> {
    let mut kept: Vec<Schedule> = Vec::new();
    for (schedule, place) in schedules {
        if kept.iter().any(|other| other.identity() == schedule.identity()) {
            findings.problem(Problem::at(&place, "the agent has this schedule already").help("remove one of them"));
            continue;
        }
        kept.push(schedule);
    }
    kept
}
