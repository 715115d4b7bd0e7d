//! `doorbell config`: every value in force, and where it came from.

use clap::Args;
use serde_json::{Value, json};

use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{self, Table, escape_terminal};
use crate::config::{Config, Setting};

/// Check the configuration, and print every value in force with where it came from
///
/// It needs no gateway. Secrets are hidden.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell config\n  doorbell config gateway\n  doorbell config agents.triage --json"
)]
pub(super) struct ConfigArgs {
    /// Only what begins with this path, e.g. `agents.triage`
    #[arg(add = completions::settings())]
    path: Option<String>,
}

pub(super) fn run(context: &Context, args: ConfigArgs) -> anyhow::Result<()> {
    let config = context.config()?;
    let settings = config.settings.iter().filter(|setting| is_below(&setting.path, args.path.as_deref()));
    let settings = settings.collect::<Vec<_>>();
    if let (Some(path), true) = (&args.path, settings.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("the configuration has no `{path}`")).into());
    }
    if context.json {
        return print_json(&config, &settings);
    }
    for warning in &config.warnings {
        output::note(format!("warning: {}", escape_terminal(warning)));
    }
    let mut table = Table::new(&["PATH", "VALUE", "FROM"]).wrapping_last();
    settings.iter().for_each(|setting| table.row([&setting.path, &setting.value, &setting.origin]));
    Ok(table.print()?)
}

fn print_json(config: &Config, settings: &[&Setting]) -> anyhow::Result<()> {
    let settings = settings
        .iter()
        .map(|setting| json!({"path": setting.path, "value": value(&setting.value), "origin": setting.origin}));
    output::json(&json!({"settings": settings.collect::<Vec<_>>(), "warnings": config.warnings}))
}

/// A value as JSON, of how it stands in a file; what does not stand so, as a secret that is hidden, as text.
fn value(text: &str) -> Value {
    let parsed = text.parse::<toml_edit::Value>().ok();
    parsed.as_ref().and_then(of_toml).unwrap_or_else(|| text.into())
}

fn of_toml(value: &toml_edit::Value) -> Option<Value> {
    Some(match value {
        toml_edit::Value::String(text) => text.value().as_str().into(),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Float(number) => (*number.value()).into(),
        toml_edit::Value::Boolean(flag) => (*flag.value()).into(),
        toml_edit::Value::Datetime(_) => return None,
        toml_edit::Value::Array(list) => list.iter().map(of_toml).collect::<Option<Vec<_>>>()?.into(),
        toml_edit::Value::InlineTable(table) => {
            let fields = table.iter().map(|(key, value)| Some((key.to_owned(), of_toml(value)?)));
            Value::Object(fields.collect::<Option<_>>()?)
        }
    })
}

/// Whether a path is `prefix` or stands below it.
fn is_below(path: &str, prefix: Option<&str>) -> bool {
    let Some(prefix) = prefix else { return true };
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_of_their_kind() {
        for (text, expected) in [
            ("8192", json!(8192)),
            ("\"127.0.0.1:1\"", json!("127.0.0.1:1")),
            ("[\"a\", 1.5, true]", json!(["a", 1.5, true])),
            ("{ a = \"b\" }", json!({ "a": "b" })),
            ("(hidden)", json!("(hidden)")),
            ("", json!("")),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn a_path_stands_for_all_that_is_below_it() {
        assert!(is_below("agents.triage.timeout", Some("agents.triage")));
        assert!(is_below("agents.triage", Some("agents.triage")));
        assert!(!is_below("agents.triage2.timeout", Some("agents.triage")));
        assert!(is_below("gateway.listen", None));
    }
}
