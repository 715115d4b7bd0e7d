//! Whether the agents' commands could start.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{Finding, Subject, fail, ok, warn};
use crate::config::{Agent, CommandRuntime, Config, script_of};
use crate::gateway::STATE_FOLDER;
use crate::runtime::{find_program, look_as};
use crate::users::{self, User};

const CHECK: &str = "commands";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Some(config) = subject.config() else { return Vec::new() };
    let (path, whose) = path(subject);
    let mut findings = Vec::new();
    let commands = config.agents.values().filter_map(|agent| Some((agent, agent.runtime.command()?)));
    for (agent, command) in commands.clone() {
        findings.extend(check_agent(agent, command, path.as_deref(), &subject.root));
    }
    if findings.is_empty() && commands.count() > 0 {
        findings.push(ok(CHECK, format!("every agent's program is there (by {whose} PATH)")));
    }
    for (agent, command) in agents_of_others(config) {
        let failed = findings.iter().any(|finding| finding.what.contains(&format!("agent `{}`", agent.name)));
        if let Some(user) = command.run_as.as_ref().filter(|_| !failed) {
            findings.push(ok("run_as", format!("agent `{}` can be run as the user `{}`", agent.name, user.name)));
        }
    }
    if agents_of_others(config).next().is_some() && !users::sees_others() {
        let what = "which processes belong to a run of another user cannot be seen (CAP_SYS_PTRACE): one that leaves its \
                    process group and loses its parent may outlive a gateway that is killed";
        findings.push(warn("run_as", what, "give the container that capability, too"));
    }
    findings
}

/// The agents that run as other users.
pub(super) fn agents_of_others(config: &Config) -> impl Iterator<Item = (&Agent, &CommandRuntime)> {
    let commands = config.agents.values().filter_map(|agent| Some((agent.as_ref(), agent.runtime.command()?.as_ref())));
    commands.filter(|(_, command)| command.run_as.is_some())
}

/// The `PATH` that commands get: that of the gateway, if it runs and can be asked.
fn path(subject: &Subject) -> (Option<OsString>, &'static str) {
    match subject.gateway.as_ref().and_then(|gateway| gateway.address.path.clone()) {
        Some(path) => (Some(path.into()), "the gateway's"),
        None => (subject.environment.var_os("PATH").map(OsString::from), "this shell's"),
    }
}

pub(super) fn check_agent(agent: &Agent, runtime: &CommandRuntime, path: Option<&OsStr>, root: &Path) -> Vec<Finding> {
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
    let path = own.map(OsStr::new).or(path);
    let Some(program) = runtime.command.first() else { return Vec::new() };
    match find_program(program, cwd, path) {
        Ok(file) => {
            let tried = runtime.run_as.as_ref().and_then(|user| check_user(agent, user, root, cwd, &file));
            tried.or_else(|| check_script(agent, runtime)).into_iter().collect()
        }
        Err(why) => vec![fail(CHECK, format!("agent `{name}`: {}", why.what), why.advice)],
    }
}

/// Whether the user gets where the agent is to run, and may start its program.
fn check_user(agent: &Agent, user: &User, root: &Path, cwd: Option<&Path>, file: &Path) -> Option<Finding> {
    // What there is of the project already.
    let reach = [root.join(STATE_FOLDER), root.join("config.toml")].into_iter().find(|path| path.exists())?;
    let why = look_as(user, &reach, cwd, file.as_os_str()).err()?;
    let advice = "open what is closed to it, or name another user in `[runtime] run_as`";
    Some(fail("run_as", format!("agent `{}`: {why}", agent.name), advice))
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
