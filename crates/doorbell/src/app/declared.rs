//! What was declared through the API, as the store keeps it: a note for each agent.

use std::collections::BTreeMap;

use crate::config::Declaration;
use crate::store::Notes;

/// How the keys begin among the notes.
const PREFIX: &str = "declared/";

/// What the store remembers, by the agent's name.
pub fn load_declared(notes: &[(String, String)]) -> BTreeMap<String, Declaration> {
    let read = |(key, text): &(String, String)| {
        let name = key.strip_prefix(PREFIX)?;
        let read = serde_json::from_str(text);
        read.inspect_err(|error| tracing::error!(agent = name, %error, "agent.declaration_damaged"))
            .ok()
            .map(|read| (name.to_owned(), read))
    };
    notes.iter().filter_map(read).collect()
}

/// What keeps the declaration of an agent, or forgets it.
pub fn note_declared(agent: &str, declaration: Option<&Declaration>) -> Notes {
    let key = format!("{PREFIX}{agent}");
    match declaration {
        // Nothing in it can fail to be JSON.
        Some(declaration) => {
            let text = serde_json::to_string(declaration).unwrap_or_default();
            Notes { kept: vec![(key, text)], ..Notes::default() }
        }
        None => Notes { dropped: vec![key], ..Notes::default() },
    }
}
