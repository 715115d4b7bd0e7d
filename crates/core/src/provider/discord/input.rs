//! What somebody typed or chose: the options of a command, the fields of a modal.

use std::sync::LazyLock;

use crate::provider::paths::{Found, Paths, elements};

/// Options can be in a subcommand, which can be in a group.
const DEEPEST: usize = 3;

/// What was typed or chose, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// The subcommand, with its group before it.
    pub(super) subcommand: String,
    /// `name: value`, one after the other.
    pub(super) text: String,
}

/// The options of a command. Each has a name, and a value or, if it is a subcommand, options of its own.
pub(super) fn of_command(options: Option<&str>) -> Input {
    static PATHS: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/name", "/type", "/value", "/options"]));
    let (mut names, mut said) = (Vec::new(), Vec::new());
    let mut level = options;
    for _ in 0..DEEPEST {
        let Some(list) = level.take() else { break };
        for option in elements(list).unwrap_or_default() {
            let Ok(found) = PATHS.find(option) else { continue };
            let Some(name) = found.text("/name") else { continue };
            match (found.number("/type"), written(&found, "/value")) {
                (Some(1 | 2), _) => {
                    level = found.raw("/options");
                    names.push(name.into_owned());
                }
                (_, Some(value)) => said.push(format!("{name}: {value}")),
                (_, None) => {}
            }
        }
    }
    Input { subcommand: names.join(" "), text: said.join(", ") }
}

/// The fields of a modal: in rows, or (newer) each in a label.
pub(super) fn of_modal(components: Option<&str>) -> Input {
    static ROW: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/components", "/component"]));
    static FIELD: LazyLock<Paths> = LazyLock::new(|| Paths::known(&["/custom_id", "/value", "/values/*"]));
    let mut said = Vec::new();
    for row in elements(components.unwrap_or_default()).unwrap_or_default() {
        let Ok(row) = ROW.find(row) else { continue };
        let mut fields = row.raw("/components").and_then(|list| elements(list).ok()).unwrap_or_default();
        fields.extend(row.raw("/component"));
        for field in fields {
            let Ok(found) = FIELD.find(field) else { continue };
            let chosen = found.texts("/values/*").join(", ");
            let value = written(&found, "/value").or_else(|| (!chosen.is_empty()).then_some(chosen));
            said.extend(found.text("/custom_id").zip(value).map(|(name, value)| format!("{name}: {value}")));
        }
    }
    Input { subcommand: String::new(), text: said.join(", ") }
}

/// A text, a number as it is written, yes or no.
fn written(found: &Found<'_, '_>, pointer: &str) -> Option<String> {
    let flag = || found.flag(pointer).map(|flag| flag.to_string());
    found.id(pointer).map(std::borrow::Cow::into_owned).or_else(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_groups_and_subcommands() {
        let options = r#"[{"name":"db","type":2,"options":[{"name":"copy","type":1,"options":
            [{"name":"from","type":3,"value":"prod"},{"name":"rows","type":4,"value":10},{"name":"dry","type":5,"value":false}]}]}]"#;
        let input = of_command(Some(options));
        assert_eq!((input.subcommand.as_str(), input.text.as_str()), ("db copy", "from: prod, rows: 10, dry: false"));
    }

    #[test]
    fn options_that_are_none_say_nothing() {
        for odd in ["null", "{}", "7", "[7]", r#"[{"name":7,"value":1}]"#, r#"[{"name":"a"}]"#] {
            assert_eq!(of_command(Some(odd)), Input::default(), "{odd}");
            assert_eq!(of_modal(Some(odd)), Input::default(), "{odd}");
        }
        assert_eq!(of_command(None), Input::default());
    }

    #[test]
    fn fields_of_a_modal_are_found_in_rows_and_in_labels() {
        let components = r#"[{"type":1,"components":[{"type":4,"custom_id":"title","value":"Down"}]},
            {"type":18,"component":{"type":3,"custom_id":"severity","values":["high","eu"]}}]"#;
        assert_eq!(of_modal(Some(components)).text, "title: Down, severity: high, eu");
    }
}
