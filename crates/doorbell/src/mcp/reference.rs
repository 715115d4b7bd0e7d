//! The page of the reference that lists the tools, as `docs/reference/mcp.md` has it.

use serde_json::Value;

use super::{resources, tool, tools};

const HEAD: &str = "# MCP tools\n\nWhat the MCP server offers, as it tells it to agents. How to connect one: [MCP](../mcp.md). \
                    A field with `?` may be left out.\n";

/// The page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for tool in tools::all() {
        page.push_str(&format!("\n## {}\n\n{} It {}.\n", tool.name, tool.description, tool.effect.as_str()));
        table(&mut page, "takes", &tool.input);
        table(&mut page, "answers", &tool.output);
    }
    page.push_str("\n## Resources\n\n| URI | what |\n|---|---|\n");
    for template in resources::templates() {
        let what = template.description.unwrap_or_default();
        page.push_str(&format!("| `{}` | {what} |\n", template.uri_template));
    }
    page
}

fn table(page: &mut String, title: &str, schema: &rmcp::model::JsonObject) {
    let mut fields = tool::fields(schema).peekable();
    if fields.peek().is_none() {
        return;
    }
    page.push_str(&format!("\n| {title} | | |\n|---|---|---|\n"));
    for (name, field, required) in fields {
        let mark = if required { "" } else { "?" };
        let text = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        page.push_str(&format!("| `{name}`{mark} | {} | {text} |\n", kind(field)));
    }
}

/// The type of a field, in a word.
fn kind(field: &Value) -> String {
    match &field["type"] {
        Value::String(kind) if kind == "array" => format!("list of {}", kind_of_items(&field["items"])),
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ if field["oneOf"].is_array() => constants(&field["oneOf"]),
        _ if field["anyOf"].is_array() => "object or null".to_owned(),
        _ => "any".to_owned(),
    }
}

fn kind_of_items(items: &Value) -> String {
    match kind(items).as_str() {
        "object" => "objects".to_owned(),
        kind => format!("{kind}s"),
    }
}

fn constants(choices: &Value) -> String {
    let constants = choices.as_array().into_iter().flatten().filter_map(|choice| choice["const"].as_str());
    constants.map(|constant| format!("`{constant}`")).collect::<Vec<_>>().join(", ")
}
