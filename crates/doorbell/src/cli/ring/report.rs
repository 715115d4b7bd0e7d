//! What became of the deliveries, for people and for scripts.

use std::collections::BTreeMap;
use std::process::ExitCode;

use doorbell_client::api::{Problem, Receipt};
use doorbell_client::{Answer, Sent};

use super::volley::Volley;
use crate::cli::context::Context;
use crate::cli::output::{self, escape_terminal};
use crate::cli::time::short;

/// What makes a ring a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Expectation {
    /// It is signed, and taken.
    Accepted,
    /// It was changed after it was signed, and the gateway answers 401.
    TamperedIsRefused,
    /// It has no signature, and the gateway answers 401.
    UnsignedIsRefused,
    /// It was signed too long ago, and the gateway answers 401.
    StaleIsRefused,
}

/// Says what became of one delivery. `became`: what the gateway says of it, where its protocol's own answer does not.
/// `handshake`: what it proves, if it is one.
pub(super) fn one(
    context: &Context,
    expectation: Expectation,
    sent: &Sent,
    became: Option<&Receipt>,
    handshake: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let good = is_met(expectation, sent.status);
    if context.json {
        match &sent.answer {
            Answer::Receipt(receipt) => output::json(receipt)?,
            Answer::Problem(problem) => output::json(problem)?,
            Answer::Other(body) => {
                let mut said = serde_json::json!({"status": sent.status, "body": body});
                if let Some(receipt) = became {
                    said["receipt"] = serde_json::to_value(receipt)?;
                }
                output::json(&said)?;
            }
        }
        return Ok(exit(good));
    }
    let text = describe(expectation, sent, became, handshake);
    if good {
        output::line(text)?;
    } else {
        output::note(format!("error: {text}"));
    }
    Ok(exit(good))
}

fn is_met(expectation: Expectation, status: u16) -> bool {
    match expectation {
        Expectation::Accepted => (200..300).contains(&status),
        _ => status == 401,
    }
}

fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn describe(expectation: Expectation, sent: &Sent, became: Option<&Receipt>, handshake: Option<&str>) -> String {
    let what = match expectation {
        Expectation::Accepted => None,
        Expectation::TamperedIsRefused => Some("changed after it was signed"),
        Expectation::UnsignedIsRefused => Some("not signed"),
        Expectation::StaleIsRefused => Some("signed too long ago"),
    };
    let answer = match &sent.answer {
        Answer::Receipt(receipt) => taken(receipt, &short(sent.latency), handshake),
        Answer::Problem(problem) => refused(problem),
        Answer::Other(body) => match became {
            Some(receipt) => {
                format!("{}{}", taken(receipt, &short(sent.latency), handshake), said_by(sent.status, body))
            }
            None => other(sent.status, body),
        },
    };
    match what {
        None => answer,
        Some(what) if is_met(expectation, sent.status) => {
            format!("it was {what}, and refused as it should be: {answer}")
        }
        Some(what) => format!("it was {what}, and not refused with 401: {answer}"),
    }
}

/// What is neither a receipt nor an error: a protocol's own answer, or somebody else's.
fn other(status: u16, body: &str) -> String {
    let said = if body.is_empty() { String::new() } else { format!(": {}", escape_terminal(body)) };
    let next = if (200..300).contains(&status) { "\n  `doorbell events` shows what became of it" } else { "" };
    format!("answered with {status}{said}{next}")
}

/// The answer of its own that a protocol got, under what became of the delivery.
fn said_by(status: u16, body: &str) -> String {
    let body = if body.is_empty() { String::new() } else { format!(": {}", escape_terminal(body)) };
    format!("\n  answered with {status}{body}")
}

fn taken(receipt: &Receipt, latency: &str, handshake: Option<&str>) -> String {
    let id = escape_terminal(&receipt.delivery_id);
    let event = escape_terminal(&receipt.event);
    let how = if receipt.duplicate { "a duplicate of" } else { "accepted as" };
    let mut text = format!("{how} {id} ({event}) in {latency}");
    for run in &receipt.runs {
        text.push_str(&format!("\n  started {}", escape_terminal(run)));
    }
    if let Some(proves) = handshake {
        text.push_str(&format!("\n  a handshake: {proves}"));
    } else if receipt.runs.is_empty() {
        text.push_str(&format!("\n  no agent was started: `doorbell why {id}` says why"));
    }
    text
}

fn refused(problem: &Problem) -> String {
    format!("rejected with {} {}: {}", problem.status, escape_terminal(&problem.code), escape_terminal(&problem.detail))
}

/// Says what became of many deliveries.
pub(super) fn many(context: &Context, expectation: Expectation, volley: &Volley) -> anyhow::Result<ExitCode> {
    let sent = volley.accepted + volley.duplicate + volley.rejected + volley.failed;
    let good = match expectation {
        Expectation::Accepted => volley.rejected + volley.failed == 0,
        _ => volley.unauthorized == sent,
    };
    let millis = |percent| (volley.percentile(percent).as_secs_f64() * 100_000.0).round() / 100.0;
    if context.json {
        output::json(&serde_json::json!({
            "sent": sent,
            "accepted": volley.accepted,
            "duplicate": volley.duplicate,
            "rejected": volley.rejected,
            "failed": volley.failed,
            "causes": volley.causes,
            "seconds": volley.took.as_secs_f64(),
            "latencyMs": {"p50": millis(50), "p90": millis(90), "p99": millis(99), "max": millis(100)},
        }))?;
        return Ok(exit(good));
    }
    let rate = sent as f64 / volley.took.as_secs_f64().max(0.001);
    output::line(format!("{sent} sent in {} ({rate:.0}/s)", short(volley.took)))?;
    output::line(format!(
        "{} accepted, {} duplicate, {} rejected, {} failed",
        volley.accepted, volley.duplicate, volley.rejected, volley.failed
    ))?;
    output::line(format!(
        "latency p50 {}ms, p90 {}ms, p99 {}ms, max {}ms",
        millis(50),
        millis(90),
        millis(99),
        millis(100)
    ))?;
    for (cause, count) in &volley.causes {
        output::note(format!("{count} × {}", escape_terminal(cause)));
    }
    match (expectation, good) {
        (Expectation::Accepted, _) => {}
        (_, true) => output::line("all of them were refused, as they should be")?,
        (_, false) => output::note("error: not all of them were refused with 401"),
    }
    Ok(exit(good))
}

/// Says which agents dropped runs meanwhile: the deliveries were accepted all the same.
pub(super) fn drops(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (agent, count) in after {
        let count = count.saturating_sub(before.get(agent).copied().unwrap_or_default());
        if count > 0 {
            output::note(escape_terminal(&format!(
                "warning: {count} runs of `{agent}` were dropped meanwhile, because its queue was full: \
                 `doorbell runs --state dropped --agent {agent}`"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sent(status: u16, answer: Answer) -> Sent {
        Sent { status, answer, latency: Duration::from_millis(12) }
    }

    fn receipt(runs: &[&str], duplicate: bool) -> Answer {
        Answer::Receipt(Receipt {
            received: true,
            delivery_id: "evt_1".to_owned(),
            event: "github.push".to_owned(),
            runs: runs.iter().map(ToString::to_string).collect(),
            duplicate,
            deliveries: Vec::new(),
        })
    }

    fn problem() -> Answer {
        let (code, title, detail) = ("signature_mismatch", "Unauthorized", "the secrets differ");
        let (code, title, detail) = (code.to_owned(), title.to_owned(), detail.to_owned());
        Answer::Problem(Problem { kind: Box::default(), status: 401, code, title, detail, errors: Vec::new() })
    }

    #[test]
    fn a_receipt_says_which_event_and_runs_it_became() {
        let taken = describe(Expectation::Accepted, &sent(200, receipt(&["run_1"], false)), None, None);
        assert_eq!(taken, "accepted as evt_1 (github.push) in 12ms\n  started run_1");
        let nobody = describe(Expectation::Accepted, &sent(200, receipt(&[], true)), None, None);
        assert!(nobody.starts_with("a duplicate of evt_1") && nobody.contains("doorbell why evt_1"), "{nobody}");
    }

    #[test]
    fn an_answer_in_a_protocols_own_words_comes_with_the_event_and_its_runs() {
        let Answer::Receipt(became) = receipt(&["run_1"], false) else { return };
        let answered = sent(200, Answer::Other(r#"{"type":5}"#.to_owned()));
        assert_eq!(
            describe(Expectation::Accepted, &answered, Some(&became), None),
            "accepted as evt_1 (github.push) in 12ms\n  started run_1\n  answered with 200: {\"type\":5}"
        );
        assert!(describe(Expectation::Accepted, &answered, None, None).contains("doorbell events"));
    }

    #[test]
    fn a_tampered_delivery_works_if_it_is_refused() {
        let refused = sent(401, problem());
        assert!(is_met(Expectation::TamperedIsRefused, 401) && !is_met(Expectation::TamperedIsRefused, 200));
        assert!(!is_met(Expectation::UnsignedIsRefused, 503), "only 401 shows that it was looked at");
        assert_eq!(
            describe(Expectation::TamperedIsRefused, &refused, None, None),
            "it was changed after it was signed, and refused as it should be: rejected with 401 signature_mismatch: the \
             secrets differ"
        );
        assert!(
            describe(Expectation::UnsignedIsRefused, &sent(200, receipt(&[], false)), None, None)
                .contains("not refused")
        );
    }
}
