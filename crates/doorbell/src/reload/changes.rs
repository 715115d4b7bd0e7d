//! What another configuration changes, for people.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Declared, Setting};

/// Keys of one agent or source that are named at most.
const MOST_NAMED: usize = 6;

/// Gives keys that are read at the start the values that they had then. Answers one sentence for each that was to
/// change.
pub(super) fn keep_what_needs_a_restart(new: &mut Config, running: &Config) -> Vec<String> {
    new.gateway.listen = running.gateway.listen;
    new.gateway.admin_listen = running.gateway.admin_listen;
    new.gateway.max_connections = running.gateway.max_connections;
    // Renewed files are taken over, others are not.
    if !is_of_the_same(new, running) {
        new.gateway.tls.clone_from(&running.gateway.tls);
        new.origin.clone_from(&running.origin);
    }
    new.store_url.clone_from(&running.store_url);
    new.telemetry.clone_from(&running.telemetry);
    let earlier = running.settings.iter().filter(|setting| is_read_at_start(&setting.path));
    let earlier: BTreeMap<&str, &Setting> = earlier.map(|setting| (setting.path.as_str(), setting)).collect();
    let mut kept = Vec::new();
    new.settings.retain_mut(|setting| {
        if !is_read_at_start(&setting.path) {
            return true;
        }
        let before = earlier.get(setting.path.as_str());
        if before.is_none_or(|before| before.value != setting.value) {
            let before_was = before.map_or("nothing", |before| before.value.as_str());
            kept.push(format!(
                "{} = {} needs a restart: {before_was} stays in force until then",
                setting.path, setting.value
            ));
        }
        before.map(|before| setting.clone_from(before)).is_some()
    });
    for (path, setting) in earlier {
        if !new.settings.iter().any(|setting| setting.path == path) {
            kept.push(format!("{path} was taken out, which needs a restart: {} stays until then", setting.value));
            new.settings.push(setting.clone());
        }
    }
    kept
}

fn is_read_at_start(path: &str) -> bool {
    matches!(path, "gateway.listen" | "gateway.admin_listen" | "gateway.max_connections")
        || path.starts_with("gateway.tls.")
        || path.starts_with("telemetry.")
        || (path.starts_with("store.") && !matches!(path, "store.retention" | "store.audit_retention"))
}

/// Whether certificates come from the same place.
fn is_of_the_same(new: &Config, running: &Config) -> bool {
    match (&new.gateway.tls, &running.gateway.tls) {
        (Some(new), Some(running)) => new.is_of_the_same(running),
        (new, running) => new.is_none() && running.is_none(),
    }
}

/// What is different, one sentence each.
pub(super) fn list(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let mut keys = changed_keys(old, new);
    for (name, agent) in &new.agents {
        if let Some(before) = old.agents.get(name)
            && (before.instructions != agent.instructions || before.description != agent.description)
        {
            keys.entry(format!("agents.{name}")).or_default().insert("SKILL.md".to_owned());
        }
    }
    for (name, own) in &new.providers {
        if old.providers.get(name).is_some_and(|before| before.text != own.text) {
            keys.entry(format!("providers.{name}")).or_default().insert("declaration".to_owned());
        }
    }
    said("provider", "providers", &old.providers, &new.providers, &mut keys, &mut changes);
    // The path of a URL is hidden in what is shown of it.
    let told = |config: &Config| config.notifications.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    if told(old) != told(new) && !keys.keys().any(|path| path.starts_with("notifications")) {
        keys.entry("notifications".to_owned()).or_default();
    }
    said("source", "webhooks", &old.sources, &new.sources, &mut keys, &mut changes);
    said("agent", "agents", &old.agents, &new.agents, &mut keys, &mut changes);
    for (name, declared) in &new.declared {
        let before = old.declared.get(name).and_then(Declared::problem);
        if let Some(problem) = declared.problem().filter(|problem| before.as_ref() != Some(problem)) {
            changes.push(format!("the declared agent {name} is out of force, and its runs are held: {problem}"));
        }
    }
    let named = |owner: &str| ["agents.", "webhooks.", "providers."].iter().any(|section| owner.starts_with(section));
    let others = keys.into_iter().filter(|(owner, _)| !named(owner));
    changes.extend(others.map(|(path, _)| format!("{path} changed")));
    if let (Some(before), Some(now)) = (&old.gateway.tls, &new.gateway.tls)
        && !before.shows_the_same(now)
    {
        changes.push("the certificate of [gateway.tls] was renewed".to_owned());
    }
    let credentials = new.survey.changed_credentials(&old.survey).into_iter();
    changes.extend(credentials.map(|name| format!("credential {name} changed")));
    changes
}

/// Which names came, went, and stayed with other values.
fn said<T>(
    what: &str,
    section: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    keys: &mut BTreeMap<String, BTreeSet<String>>,
    changes: &mut Vec<String>,
) {
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let changed = keys.remove(&format!("{section}.{name}"));
        match (old.contains_key(name), new.contains_key(name), changed) {
            (false, true, _) => changes.push(format!("{what} {name} added")),
            (true, false, _) => changes.push(format!("{what} {name} removed")),
            (_, _, Some(keys)) => changes.push(format!("{what} {name} changed ({})", name_keys(&keys))),
            (_, _, None) => {}
        }
    }
}

fn name_keys(keys: &BTreeSet<String>) -> String {
    let named = keys.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match keys.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The keys whose values differ, by the agent or source they belong to (`agents.triage`); those of others by
/// themselves.
fn changed_keys(old: &Config, new: &Config) -> BTreeMap<String, BTreeSet<String>> {
    let values = |config: &Config| -> BTreeSet<(String, String)> {
        config.settings.iter().map(|setting| (setting.path.clone(), setting.value.clone())).collect()
    };
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, _) in values(old).symmetric_difference(&values(new)) {
        let (owner, key) = match path.split('.').collect::<Vec<_>>()[..] {
            // Where a secret comes from is told by the files themselves.
            ["credentials", ..] => continue,
            [section @ ("agents" | "webhooks" | "providers"), name, ..] => {
                let owner = format!("{section}.{name}");
                let key = path[owner.len()..].trim_start_matches('.').to_owned();
                (owner, key)
            }
            _ => (path.clone(), String::new()),
        };
        keys.entry(owner).or_default().insert(key);
    }
    keys
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Environment, load};

    const SOURCES: &str = "[webhooks.a]\ntype = \"generic\"\nallow_unsigned = true\n";
    const AGENT: &str = "[[webhooks]]\nsource = \"a\"\n[runtime]\ntype = \"command\"\ncommand = [\"true\"]\n";

    fn config(files: &[(&str, &str)]) -> Config {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        load(folder.path(), &Environment::default(), &[]).unwrap()
    }

    #[test]
    fn what_came_went_and_changed_is_said_by_its_name() {
        let old = config(&[
            ("config.toml", &format!("[gateway]\nmax_body = \"1MiB\"\n{SOURCES}")),
            ("agents/stays/config.toml", AGENT),
            ("agents/stays/SKILL.md", "Do this"),
            ("agents/goes/config.toml", AGENT),
            ("agents/same/config.toml", AGENT),
        ]);
        let new = config(&[
            (
                "config.toml",
                &format!("{SOURCES}dedup = \"off\"\n[webhooks.b]\ntype = \"generic\"\nallow_unsigned = true"),
            ),
            ("agents/stays/config.toml", &format!("scale = 3\n{AGENT}")),
            ("agents/stays/SKILL.md", "Do that"),
            ("agents/comes/config.toml", AGENT),
            // A comment moves the lines, and changes nothing.
            ("agents/same/config.toml", &format!("# as before\n{AGENT}")),
        ]);
        let expected = [
            "source a changed (dedup)",
            "source b added",
            "agent comes added",
            "agent goes removed",
            "agent stays changed (SKILL.md, scale)",
            "gateway.max_body changed",
        ];
        assert_eq!(list(&old, &new), expected);
        assert_eq!(list(&new, &new), Vec::<String>::new());
    }

    #[test]
    fn another_path_of_a_receivers_url_is_a_change_though_it_is_shown_to_nobody() {
        let told = |path: &str| {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("https://chat.example.com/{path}");
            let text = format!("[[notifications]]\nto = {{ url = \"{url}\", credential = \"ops\" }}\n");
            std::fs::write(folder.path().join("config.toml"), text).unwrap();
            let secret = [("DOORBELL_CREDENTIAL_NOTIFICATION_SECRET__OPS__SECRET", "x")];
            load(folder.path(), &secret.into_iter().collect(), &[]).unwrap()
        };
        assert_eq!(list(&told("hunter1"), &told("hunter2")), ["notifications changed"]);
        assert_eq!(list(&told("hunter1"), &told("hunter1")), Vec::<String>::new());
    }

    #[test]
    fn what_is_read_at_the_start_keeps_its_value_and_is_said_as_long_as_it_differs() {
        let running = config(&[("config.toml", "")]);
        let mut new = config(&[("config.toml", "[gateway]\nlisten = \"127.0.0.1:9\"\n[store]\nurl = \"sqlite:b.db\"")]);
        let kept = keep_what_needs_a_restart(&mut new, &running);
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept[0].starts_with("gateway.listen = \"127.0.0.1:9\" needs a restart: \"127.0.0.1:8080\" stays"));
        assert_eq!((new.gateway.listen, &new.store_url), (running.gateway.listen, &running.store_url));
        assert_eq!(list(&running, &new), Vec::<String>::new());
        assert_eq!(keep_what_needs_a_restart(&mut new, &running), Vec::<String>::new());
    }
}
