//! Agents that are declared through the API: any JSON object is one, or everything that is wrong with it is said.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use doorbell::config::{Config, Declaration, Environment, load};
use doorbell_core::time::Timestamp;

/// A project with two sources, which triggers may name.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    const SOURCES: &str = "[webhooks.acme]\ntype = \"github\"\nallow_unsigned = true\n\
                           [webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n";
    let folder = tempfile::tempdir().expect("there is room for a folder");
    std::fs::write(folder.path().join("config.toml"), SOURCES).expect("it can be written to");
    load(folder.path(), &Environment::default(), &[]).expect("it is a project")
});

/// Reads a declaration. What is in force is an agent of the configuration, and nothing else of it changed.
pub(crate) fn agents(data: &[u8]) {
    let Ok(definition) = serde_json::from_slice(data) else { return };
    let (by, at) = ("key".to_owned(), Timestamp::from_seconds(1_790_000_000));
    let declaration =
        Declaration { definition, created_by: by.clone(), created_at: at, updated_by: by, updated_at: at };
    let config = CONFIG.clone().with_declared(BTreeMap::from([("triage".to_owned(), declaration)]), |_| None);
    let declared = config.declared.get("triage").expect("it is remembered");
    assert_eq!(config.agents.contains_key("triage"), declared.is_in_force());
    assert_eq!(declared.is_in_force(), declared.problem().is_none_or(|problem| problem.is_empty()));
    assert_eq!(config.sources.len(), 2);
    if let Some(agent) = config.agents.get("triage") {
        assert!(agent.triggers.iter().all(|trigger| config.sources.contains_key(&trigger.source)), "{agent:?}");
        let anew = config.clone().with_declared(BTreeMap::new(), |_| None);
        assert!(anew.agents.is_empty() && anew.settings == CONFIG.settings);
    }
}
