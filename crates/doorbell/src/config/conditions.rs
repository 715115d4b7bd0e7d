//! `where` and `key` of a trigger: CEL, checked when it is read.

use doorbell_core::condition::{Conditions, Expression, Flaw};

use super::document::{Node, Table};
use super::problem::{Findings, Place, Problem};

/// Reads both keys of a trigger.
pub(super) fn read(table: &Table, findings: &mut Findings) -> Conditions {
    let example = "an expression such as 'event.body.issue.comments < 3'";
    Conditions {
        condition: table.read(findings, "where", |node| expression(node, example, Expression::condition)),
        key: table.read(findings, "key", |node| {
            expression(node, "an expression such as 'event.context.repo'", Expression::key)
        }),
    }
}

fn expression(
    node: &Node,
    expected: &str,
    check: impl FnOnce(&str) -> Result<Expression, Flaw>,
) -> Result<Expression, Problem> {
    let source = node.text(expected)?;
    check(&source).map_err(|flaw| {
        let problem = Problem::at(&inside(&node.place, &source, &flaw), flaw.message);
        match flaw.help {
            Some(help) => problem.help(help),
            None => problem,
        }
    })
}

/// Where in its file a piece of the source stands. One that is written with escapes is shown as a whole.
fn inside(place: &Place, source: &str, flaw: &Flaw) -> Place {
    let written = place.text.text.get(place.span.clone()).unwrap_or_default();
    match written.find(source) {
        Some(start) if !source.is_empty() => {
            let start = place.span.start + start;
            Place::new(&place.text, start + flaw.at.start..start + flaw.at.end)
        }
        _ => place.clone(),
    }
}
