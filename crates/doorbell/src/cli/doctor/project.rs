//! The configuration, and what of it leads nowhere.

use std::collections::BTreeSet;

use super::{Finding, Subject, fail, ok, some, warn};
use crate::config::{Credentials, Receiver, idle_warning, open_warning};

/// Whether the configuration can be used, and what it warns of.
pub(super) fn check_config(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "config";
    let config = match &subject.config {
        Ok(config) => config,
        Err(problems) => {
            let advice = |help: String| match help.is_empty() {
                true => "`doorbell config` shows the line".to_owned(),
                false => help,
            };
            return problems.list().into_iter().map(|(what, help)| fail(CHECK, what, advice(help))).collect();
        }
    };
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (sources, agents) = (count(config.sources.len(), "source"), count(config.agents.len(), "agent"));
    let mut findings = vec![ok(CHECK, format!("can be used: {sources}, {agents}"))];
    let advice = "change it there; `doorbell config` prints what is in force";
    // The checks that look closer say these.
    let idle = config.agents.keys().map(|agent| idle_warning(agent));
    let open = Credentials::new(&subject.environment).own_paths();
    let open = open.into_iter().map(|path| open_warning(&path.display().to_string()));
    let said: BTreeSet<String> = idle.chain(open).collect();
    let left = config.warnings.iter().filter(|warning| !said.contains(*warning));
    findings.extend(left.map(|warning| warn(CHECK, warning.clone(), advice)));
    findings
}

/// Sources that start nothing.
pub(super) fn check_sources(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "sources";
    let Some(config) = subject.config() else { return Vec::new() };
    let running = subject.running_sources();
    if config.sources.is_empty() && running.is_empty() {
        let advice = "add one to config.toml: [webhooks.<name>]; `doorbell init` shows how";
        return vec![warn(CHECK, "there are none: nothing can be delivered", advice)];
    }
    let wanted = triggers(subject).map(|trigger| trigger.source.as_str());
    let running_wants = subject.running_agents().iter().flat_map(|agent| &agent.sources).map(String::as_str);
    let wanted: BTreeSet<&str> = wanted.chain(running_wants).collect();
    let idle: Vec<String> = config.sources.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
    let mut findings = Vec::new();
    if !idle.is_empty() {
        let advice = "name them in `source` of an agent's [[webhooks]], or remove them; their events are only stored";
        findings.push(warn(CHECK, format!("no trigger names {}", some(&idle)), advice));
    }
    let open = config.sources.values().filter(|source| source.keys().is_empty());
    let open: Vec<String> = open.map(|source| source.name().to_owned()).collect();
    if !open.is_empty() {
        let advice = "give them a `credential`, unless their URLs are reached by you alone";
        findings.push(warn(CHECK, format!("anybody can start the agents of {} (unsigned)", some(&open)), advice));
    }
    if findings.is_empty() {
        let names = config.sources.keys().chain(running.iter().map(|source| &source.name));
        let count = names.collect::<BTreeSet<_>>().len();
        findings.push(ok(CHECK, format!("each of the {count} starts an agent")));
    }
    findings
}

/// Agents that nothing starts.
pub(super) fn check_agents(subject: &Subject) -> Vec<Finding> {
    const CHECK: &str = "agents";
    let Some(config) = subject.config() else { return Vec::new() };
    let running = subject.running_agents();
    if config.agents.is_empty() && running.is_empty() {
        let advice = "make a folder agents/<name>/ with a config.toml; `doorbell init` shows how";
        return vec![warn(CHECK, "there are none: nothing is started", advice)];
    }
    let names = |choose: fn(&crate::config::Agent) -> bool| -> Vec<String> {
        config.agents.values().filter(|agent| choose(agent)).map(|agent| agent.name.clone()).collect()
    };
    let mut findings = Vec::new();
    let disabled = names(|agent| agent.scale == 0);
    if !disabled.is_empty() {
        let advice = "what comes now is skipped for them, for good; runs that wait go on once `scale` is 1 or more";
        findings.push(warn(CHECK, format!("disabled by `scale = 0`: {}", some(&disabled)), advice));
    }
    let told = |name: &str| {
        let agents = config.notifications.iter().map(|notification| &notification.receiver);
        agents.into_iter().any(|receiver| matches!(receiver, Receiver::Agent(agent) if agent == name))
    };
    let called = |name: &String| config.agents.values().any(|agent| agent.may_call.contains(name));
    let mut idle = names(|agent| agent.triggers.is_empty() && agent.schedules.is_empty());
    let started = |name: &String| {
        let found = running.iter().find(|agent| agent.name == *name);
        found.is_some_and(|agent| !agent.sources.is_empty() || !agent.schedules.is_empty())
    };
    idle.retain(|name| !told(name) && !called(name) && !started(name));
    if !idle.is_empty() {
        let advice = "give them [[webhooks]] with a source, a schedule, or webhooks of their own: `doorbell webhooks create AGENT`";
        findings.push(warn(CHECK, format!("nothing starts {}", some(&idle)), advice));
    }
    if findings.is_empty() {
        let names = config.agents.keys().chain(running.iter().map(|agent| &agent.name));
        let count = names.collect::<BTreeSet<_>>().len();
        findings.push(ok(CHECK, format!("something starts each of the {count}")));
    }
    findings
}

fn triggers(subject: &Subject) -> impl Iterator<Item = &doorbell_core::trigger::Trigger> {
    subject.config().into_iter().flat_map(|config| config.agents.values()).flat_map(|agent| &agent.triggers)
}
