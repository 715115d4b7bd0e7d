//! `schedule` and `[[schedules]]` of an agent.

use std::time::Duration;

use doorbell_core::schedule::{InvalidSchedule, Missed, Schedule};
use doorbell_core::time::Timestamp;

use super::document::{Keys, Node, Table};
use super::problem::{Findings, Place, Problem};

const KEYS: Keys<'static> = Keys { known: &["cron", "timezone", "missed", "jitter"], planned: &[], hints: &[] };

const EXAMPLE: &str = "[[schedules]]\ncron = \"0 9 * * 1-5\"\ntimezone = \"Europe/Berlin\"";
const CRON: &str = "a cron expression such as \"*/15 * * * *\"";

/// From here on the first tick is looked for: a schedule without any is a mistake.
const SOME_DAY: Timestamp = Timestamp::from_seconds(1_767_225_600);

/// Reads the schedules of an agent; its `timezone` is that of those that have none of their own.
pub(super) fn read(agent: &Table, findings: &mut Findings) -> Vec<Schedule> {
    let zone = agent.read(findings, "timezone", |node| node.text(ZONE)).unwrap_or_else(|| "UTC".to_owned());
    let mut schedules = Vec::new();
    if let Some(node) = agent.get("schedule") {
        let one = node.text(CRON).and_then(|cron| {
            Schedule::new(&cron, &zone, Missed::default(), Duration::ZERO, SOME_DAY).map_err(|error| told(node, error))
        });
        schedules.extend(findings.take(one).map(|schedule| (schedule, node.place.clone())));
    }
    let list = agent.get("schedules").map(|node| node.list("a list of schedules").map_err(|p| p.help(EXAMPLE)));
    for node in list.and_then(|list| findings.take(list)).unwrap_or_default() {
        let place = node.place.clone();
        let Some(table) = findings.take(node.into_table(EXAMPLE)) else { continue };
        schedules.extend(read_one(&table, &zone, findings).map(|schedule| (schedule, place)));
    }
    unlike(schedules, findings)
}

const ZONE: &str = "a time zone such as \"Europe/Berlin\"";

fn read_one(table: &Table, zone: &str, findings: &mut Findings) -> Option<Schedule> {
    table.check(findings, KEYS);
    let Some(node) = table.get("cron") else {
        findings.problem(Problem::at(&table.place, "a schedule needs a `cron`").help(EXAMPLE));
        return None;
    };
    let cron = findings.take(node.text(CRON))?;
    let own_zone = table.get("timezone");
    let zone = match own_zone {
        Some(node) => findings.take(node.text(ZONE))?,
        None => zone.to_owned(),
    };
    let choices = [("skip", Missed::Skip), ("once", Missed::Once), ("all", Missed::All)];
    let missed = match table.has("missed") {
        true => table.read(findings, "missed", |node| node.choice(&choices))?,
        false => Missed::default(),
    };
    let jitter = match table.has("jitter") {
        true => table.read(findings, "jitter", |node| node.duration(Duration::ZERO))?,
        false => Duration::ZERO,
    };
    findings.take(Schedule::new(&cron, &zone, missed, jitter, SOME_DAY).map_err(|error| told(node, error)))
}

fn told(node: &Node, error: InvalidSchedule) -> Problem {
    Problem::at(&node.place, error.to_string())
        .help("fields: minute hour day month weekday, or seconds before them; an example: \"30 9 * * 1-5\"")
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
