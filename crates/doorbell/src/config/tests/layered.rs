//! Any values in any layers against a merge that only looks for the topmost one.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::{AGENT, GATEWAY, Project};

/// Keys with values that they may have. No choice of them is wrong together.
const KEYS: [(&str, &[&str]); 13] = [
    ("gateway.listen", &["\"127.0.0.1:1\"", "\"[::1]:2\"", "\"0.0.0.0:3\""]),
    ("gateway.max_body", &["\"1KiB\"", "4096", "\"1GiB\""]),
    ("gateway.drain_timeout", &["\"0s\"", "\"1m\""]),
    ("store.url", &["\"sqlite:a.db\"", "\"sqlite:b/c.db\""]),
    ("defaults.scale", &["0", "7", "10000"]),
    ("defaults.timeout", &["\"1s\"", "\"2d\""]),
    ("defaults.work_queue_size", &["1", "99"]),
    ("defaults.when_full", &["\"grow\"", "\"reject\""]),
    ("defaults.retries.attempts", &["1", "100"]),
    ("defaults.retries.on_lost", &["\"fail\"", "\"retry\""]),
    ("defaults.retries.backoff.initial", &["\"1ms\"", "\"10s\""]),
    ("defaults.retries.backoff.factor", &["1.5", "100.0"]),
    ("defaults.retries.backoff.jitter", &["true", "false"]),
];

type Layer = BTreeMap<&'static str, &'static str>;

fn layer() -> impl Strategy<Value = Layer> {
    let key = select(KEYS.to_vec()).prop_flat_map(|(key, values)| (Just(key), select(values.to_vec())));
    proptest::collection::vec(key, 0..8).prop_map(|pairs| pairs.into_iter().collect())
}

/// The same with only those keys that an agent's own file has, by the names that they have there.
fn agent_layer() -> impl Strategy<Value = Layer> {
    let of_agent = |(key, value): (&'static str, _)| Some((key.strip_prefix("defaults.")?, value));
    layer().prop_map(move |layer| layer.into_iter().filter_map(of_agent).collect())
}

/// As TOML, each key by its whole path.
fn toml(layer: &Layer) -> String {
    layer.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// The same under headers, one for each table.
fn toml_tables(layer: &Layer) -> String {
    let mut tables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, value) in layer {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        tables.entry(table).or_default().push(format!("{name} = {value}\n"));
    }
    tables.into_iter().map(|(table, lines)| format!("[{table}]\n{}", lines.concat())).collect()
}

/// A value as somebody types it into an environment: with quotes or without.
fn typed(value: &str, quoted: bool) -> String {
    if quoted { value.to_owned() } else { value.trim_matches('"').to_owned() }
}

fn kind(origin: &str) -> &'static str {
    match origin {
        "default" => "default",
        _ if origin.starts_with("config.toml:") => "file",
        _ if origin.starts_with("agents/triage/config.toml:") => "agent",
        _ if origin.starts_with("env DOORBELL_") => "environment",
        _ if origin.starts_with("flag --") => "flag",
        _ => "elsewhere",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_topmost_layer_that_has_a_key_decides(
        file in layer(), environment in layer(), flags in layer(), agent in agent_layer(), quoted: bool, tables: bool,
    ) {
        let written = if tables { toml_tables(&file) } else { toml(&file) };
        let agent_file = format!("{}{AGENT}", toml(&agent));
        let mut project = Project::new().file("config.toml", format!("{written}\n{GATEWAY}"));
        project = project.file("agents/triage/config.toml", agent_file);
        let defaults: BTreeMap<String, String> = Project::small().load().unwrap().settings.into_iter()
            .map(|setting| (setting.path, setting.value)).collect();
        for (key, value) in &environment {
            let name = format!("DOORBELL_{}", key.to_ascii_uppercase().replace('.', "__"));
            project = project.var(&name, &typed(value, quoted));
        }
        for (key, value) in &flags {
            project = project.flag(key, &typed(value, quoted));
        }
        let config = project.load().unwrap();
        let seen: BTreeMap<&str, (&str, &str)> =
            config.settings.iter().map(|s| (s.path.as_str(), (s.value.as_str(), kind(&s.origin)))).collect();
        for (key, _) in KEYS {
            let layers = [("flag", &flags), ("environment", &environment), ("file", &file)];
            let decided = layers.iter().find_map(|(kind, layer)| Some((*layer.get(key)?, *kind)));
            let merged = decided.unwrap_or((defaults[key].as_str(), "default"));
            prop_assert_eq!(seen[key], merged, "{}", key);
            let Some(own) = key.strip_prefix("defaults.") else { continue };
            let merged = agent.get(own).map_or(merged, |value| (*value, "agent"));
            prop_assert_eq!(seen[format!("agents.triage.{own}").as_str()], merged, "of the agent: {}", own);
        }
        let scale: u32 = seen["agents.triage.scale"].0.parse().unwrap();
        prop_assert_eq!(config.agents["triage"].scale, scale, "what is shown is what is in force");
    }
}
