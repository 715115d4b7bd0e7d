//! Whether the agents' commands could start.

use std::ffi::OsString;
use std::path::Path;

use super::{Finding, Subject, fail, ok, warn};
use crate::config::{Agent, CommandRuntime, script_of};
use crate::runtime::{find_program, variable};

const CHECK: &str = "commands";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Some(config) = subject.config() else { return Vec::new() };
    let (path, whose) = path(subject);
    let mut findings = Vec::new();
    let commands = config.agents.values().filter_map(|agent| Some((agent, agent.runtime.command()?)));
    for (agent, command) in commands.clone() {
        findings.extend(check_agent(agent, command, path.as_ref()));
    }
    if findings.is_empty() && commands.count() > 0 {
        findings.push(ok(CHECK, format!("every agent's program is there (by {whose} PATH)")));
    }
    findings
}

/// The `PATH` that commands get: that of the gateway, if it runs and can be asked.
fn path(subject: &Subject) -> (Option<OsString>, &'static str) {
    match subject.pid().and_then(|pid| variable(pid, "PATH")) {
        Some(path) => (Some(path), "the gateway's"),
        None => (subject.environment.var_os("PATH").map(OsString::from), "this shell's"),
    }
}

fn check_agent(agent: &Agent, runtime: &CommandRuntime, path: Option<&OsString>) -> Vec<Finding> {
    let name = &agent.name;
    let cwd = runtime.cwd.as_deref();
    if let Some(cwd) = cwd.filter(|cwd| !cwd.is_dir()) {
        let what = format!("agent `{name}`: the folder {} is not there", cwd.display());
        return vec![fail(CHECK, what, "make it, or change `[runtime] cwd` (it counts from the project)")];
    }
    // A PATH of the agent's own goes over the gateway's; one that is made from the event cannot be known.
    let own = runtime.env.get("PATH").map(|template| template.as_str());
    if own.is_some_and(|own| own.contains('{')) {
        let what = format!("agent `{name}`: its PATH is a template, so whether its program is there cannot be told");
        return vec![warn(CHECK, what, "put the program's whole path into `[runtime] command`")];
    }
    let path = own.map(OsString::from).or_else(|| path.cloned());
    let Some(program) = runtime.command.first() else { return Vec::new() };
    match find_program(program, cwd, path.as_deref()) {
        Ok(_) => check_script(agent, runtime).into_iter().collect(),
        Err(why) => vec![fail(CHECK, format!("agent `{name}`: {}", why.what), why.advice)],
    }
}

/// `sh agent.sh`: whether the script is there.
fn check_script(agent: &Agent, runtime: &CommandRuntime) -> Option<Finding> {
    let script = script_of(&runtime.command)?;
    let advice = "`cwd = \".\"` runs it in the project; `[runtime] command` names the script";
    let what = match &runtime.cwd {
        Some(cwd) if !cwd.join(script).exists() => format!("there is no {} in {}", script, cwd.display()),
        None if Path::new(script).is_relative() => format!("{script} is looked for in the run's own, empty folder"),
        None if !Path::new(script).exists() => format!("there is no {script}"),
        _ => return None,
    };
    Some(fail(CHECK, format!("agent `{}`: {what}", agent.name), advice))
}
