//! `[runtime] result`: where a command's result and its failure stand.

use serde_json::Value;

use super::document::{Keys, Kind, Node, Table};
use super::problem::{Findings, Place, Problem};
use super::{ResultFormat, ResultPlace, ResultRule};

const KEYS: Keys<'static> = Keys {
    known: &["from", "format", "path", "only", "failed", "reason", "needs"],
    planned: &[],
    hints: &[("file", "from = \"file\" is what the command writes to DOORBELL_OUTPUT_FILE")],
};

const EXAMPLE: &str = "result = { from = \"stdout\", format = \"json\", path = \"/result\", failed = \"/is_error\" }";

/// Reads a rule.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Option<ResultRule> {
    let table = findings.take(node.clone().into_table(EXAMPLE))?;
    table.check(findings, KEYS);
    let places = [("stdout", ResultPlace::Stdout), ("file", ResultPlace::File)];
    let formats = [("json", ResultFormat::Json), ("jsonl", ResultFormat::JsonLines), ("text", ResultFormat::Text)];
    let choice = |findings: &mut Findings, key| table.read(findings, key, |node| node.choice(&places));
    let from = choice(findings, "from").unwrap_or(ResultPlace::Stdout);
    let format = table.read(findings, "format", |node| node.choice(&formats)).unwrap_or(ResultFormat::Json);
    refuse_unfit(&table, format, findings);
    let path = table.read(findings, "path", |node| {
        let text = node.text("a JSON pointer such as \"/result\"")?;
        pointer(text, &node.place)
    });
    let reason = pointers(&table, findings);
    let failed = table.read(findings, "failed", |node| node.texts("a string or a list of them")).unwrap_or_default();
    for (text, place) in &failed {
        if text.is_empty() {
            findings.problem(Problem::at(place, "an empty text is at the beginning of everything"));
        }
        if format == ResultFormat::Text && text.starts_with('/') {
            let problem = Problem::at(place, "a text has no places to point to");
            findings.problem(problem.help("with format = \"text\" it is how a line begins that tells of a failure"));
        }
    }
    Some(ResultRule {
        from,
        format,
        path,
        only: table.get("only").and_then(|node| only(node, findings)).unwrap_or_default(),
        failed: failed.into_iter().map(|(text, _)| text).collect(),
        reason,
        needs: table.read(findings, "needs", |node| node.text("how a line begins")),
    })
}

/// Keys that mean nothing with this format are errors: whoever wrote them expects something of them.
fn refuse_unfit(table: &Table, format: ResultFormat, findings: &mut Findings) {
    let unfit: &[(&str, &str)] = match format {
        ResultFormat::Text => &[("path", "json\" or \"jsonl"), ("only", "jsonl"), ("reason", "json\" or \"jsonl")],
        ResultFormat::Json => &[("only", "jsonl"), ("needs", "text")],
        ResultFormat::JsonLines => &[("needs", "text")],
    };
    for (key, format) in unfit {
        if let Some(entry) = table.entry(key) {
            findings.problem(Problem::at(&entry.place, format!("`{key}` is for format = \"{format}\"")));
        }
    }
}

fn pointer(text: String, place: &Place) -> Result<String, Problem> {
    if text.starts_with('/') {
        return Ok(text);
    }
    let problem = Problem::at(place, "not a JSON pointer: one begins with `/`");
    Err(problem.help(format!("\"/{}\" is the field of that name", text.replace('.', "/"))))
}

fn pointers(table: &Table, findings: &mut Findings) -> Vec<String> {
    let texts = table.read(findings, "reason", |node| node.texts("a JSON pointer or a list of them"));
    let texts = texts.unwrap_or_default().into_iter();
    texts.filter_map(|(text, place)| findings.take(pointer(text, &place))).collect()
}

/// The fields that a line must have to be read: pointers with their values.
fn only(node: &Node, findings: &mut Findings) -> Option<Vec<(String, Value)>> {
    let table = findings.take(node.clone().into_table("only = { \"/type\" = \"result\" }"))?;
    let mut fields = Vec::new();
    for entry in &table.entries {
        if matches!(entry.node.kind, Kind::Table(_) | Kind::List(_)) {
            findings.problem(Problem::at(&entry.node.place, "a line is told by strings, numbers and booleans"));
        }
        if let Some(pointer) = findings.take(pointer(entry.key.clone(), &entry.place)) {
            fields.push((pointer, entry.node.to_json()));
        }
    }
    Some(fields)
}
