//! `doorbell why`: why an event started what it started, and nothing else.

use clap::Args;
use doorbell_client::api::{ClauseVerdict, Explanation, Verdict};

use super::completions;
use super::context::Context;
use super::events::{outcomes, text_of};
use super::failure::Failure;
use super::output::{self, Table, escape_terminal};
use super::time::Clock;

/// Explain which agents an event started, and why not the others
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  doorbell why evt_01K…")]
pub(super) struct WhyArgs {
    /// The event's id
    #[arg(add = completions::events())]
    event: String,
}

pub(super) async fn run(context: &Context, args: WhyArgs) -> anyhow::Result<()> {
    let explanation = context.client()?.explain(&args.event).await.map_err(Failure::no_event(&args.event))?;
    if context.json {
        return output::json(&explanation);
    }
    Ok(output::line(explain(&explanation, &Clock::here()))?)
}

fn explain(explanation: &Explanation, clock: &Clock) -> String {
    let event = &explanation.event;
    let mut lines = vec![
        format!(
            "{} {} came to {} at {}",
            escape_terminal(&event.id),
            escape_terminal(&event.event_type),
            escape_terminal(&event.source),
            escape_terminal(&clock.show(&event.received_at)),
        ),
        String::new(),
        format!("Triggers (version {}, in force when it was stored)", explanation.trigger_set),
    ];
    if let Some(at) = &event.forgotten_at {
        let at = escape_terminal(&clock.show(at)).into_owned();
        lines.push(format!("  what it said was removed for good at {at}: no filter can be held against it any more"));
    } else if explanation.verdicts.is_empty() {
        lines.push("  there were none: an agent asks for events with [[webhooks]] in its config.toml".to_owned());
    }
    for verdict in &explanation.verdicts {
        lines.push(judgement(verdict));
        lines.extend(clauses(verdict));
    }
    lines.push(String::new());
    lines.push("What became of it".to_owned());
    lines.extend(outcomes(event, clock).render().lines().map(|line| format!("  {line}")));
    lines.join("\n")
}

fn judgement(verdict: &Verdict) -> String {
    let (agent, reason) = (escape_terminal(&verdict.agent), escape_terminal(&verdict.reason));
    let key = verdict.key.as_ref().map(|key| format!("; key {}", escape_terminal(key))).unwrap_or_default();
    format!("  {} {agent} #{}: {reason}{key}", mark(verdict.matched), verdict.trigger + 1)
}

fn clauses(verdict: &Verdict) -> Vec<String> {
    if verdict.clauses.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[]);
    for clause in &verdict.clauses {
        let wanted = format!("wants {}", clause.wanted.join(", "));
        table.row([mark(clause.passed), &clause.field, &wanted, &actual(clause)]);
    }
    table.render().lines().map(|line| format!("      {line}")).collect()
}

fn actual(clause: &ClauseVerdict) -> String {
    if let Some(error) = &clause.error {
        return format!("failed: {error}");
    }
    match &clause.actual {
        // An expression that reads nothing of the event.
        Some(serde_json::Value::Array(list)) if list.is_empty() && is_expression(clause) => String::new(),
        Some(value) => match text_of(value) {
            text if text.is_empty() => "has none".to_owned(),
            text => format!("has {text}"),
        },
        None if clause.passed => "is for other events".to_owned(),
        None => "the event does not carry it".to_owned(),
    }
}

fn is_expression(clause: &ClauseVerdict) -> bool {
    matches!(clause.field.as_str(), "where" | "key")
}

fn mark(good: bool) -> &'static str {
    if good { "✓" } else { "✗" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_trigger_says_whether_it_matched_and_which_clause_decided() {
        let explanation = serde_json::from_value::<Explanation>(serde_json::json!({
            "event": {
                "id": "evt_1", "seq": 1, "source": "acme", "provider": "github", "eventType": "github.issues.opened",
                "event": "issues", "action": "opened", "receivedAt": "2026-01-31T09:30:05.000Z", "deliveryId": null,
                "verifiedBy": "acme", "handshake": false, "duplicates": 0, "bodySize": 2, "context": {},
                "outcomes": [{"agent": "triage", "outcome": "started", "runId": "run_1", "trigger": 0, "reason": null,
                    "at": "2026-01-31T09:30:05.000Z"}],
            },
            "triggerSet": 3,
            "verdicts": [
                {"agent": "triage", "trigger": 0, "matched": true, "reason": "its filter passed", "clauses": [
                    {"field": "events", "wanted": ["issues"], "actual": "issues.opened", "passed": true}]},
                {"agent": "fix", "trigger": 1, "matched": false, "reason": "`labels` wants `bug`; the event has `\u{1b}[2J`",
                    "clauses": [{"field": "labels", "wanted": ["bug"], "actual": ["\u{1b}[2J"], "passed": false}]},
            ],
        }))
        .unwrap();
        let wanted = "\
evt_1 github.issues.opened came to acme at 09:30:05

Triggers (version 3, in force when it was stored)
  ✓ triage #1: its filter passed
      ✓  events  wants issues  has issues.opened
  ✗ fix #2: `labels` wants `bug`; the event has `\\u{1b}[2J`
      ✗  labels  wants bug  has \\u{1b}[2J

What became of it
  triage  started  run_1  09:30:05";
        assert_eq!(explain(&explanation, &Clock::fixed("2026-01-31T12:00:00Z")), wanted);
    }
}
