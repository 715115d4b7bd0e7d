//! `doorbell doctor`: what is wrong with a project, its gateway and its machine, and what to do about it.
//!
//! A check is a function that looks at the [`Subject`] and answers findings. It changes nothing, and works with the
//! gateway running and stopped.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use doorbell_client::{Client, api, probe};
use doorbell_core::time::Timestamp;
use serde::Serialize;

use super::context::{Context, running};
use super::failure::{Exit, Failure};
use super::output::{self, Table};
use crate::clock;
use crate::config::{self, Config, Environment, Problems};
use crate::gateway::Address;
use crate::http::INSTANCE;

mod commands;
mod database;
mod gateway;
mod machine;
mod permissions;
mod project;
mod public;
mod secrets;
mod tls;

pub(super) use secrets::looks_cut;

/// Look for what is wrong with the project, its gateway and its machine, and say what to do
///
/// It changes nothing, and works while the gateway runs and when it does not. Exit code 0: nothing failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorbell doctor\n  doorbell doctor --json\n  \
    doorbell doctor --clock https://www.example.com     compare the clock with another server's")]
pub(super) struct DoctorArgs {
    /// A web server whose clock is right, to compare the time with [default: `public_url`]
    #[arg(long, value_name = "URL")]
    clock: Option<String>,
}

/// How long a gateway on this machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do where not everything may be read.
const AS_ITS_USER: &str = "run `doorbell doctor` as the user that runs the gateway";

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    /// What was found, in one sentence.
    what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Why agents' commands could not start with this `PATH`, and what to do: one sentence each.
pub(super) fn failing_commands(config: &Config, path: Option<&OsStr>) -> Vec<String> {
    let commands = config.agents.values().filter_map(|agent| Some((agent, agent.runtime.command()?)));
    let findings = commands.flat_map(|(agent, command)| commands::check_agent(agent, command, path, &config.root));
    let failing = findings.filter(|finding| finding.status == Status::Fail);
    failing.map(|finding| format!("{}: {}", finding.what, finding.advice.unwrap_or_default())).collect()
}

fn ok(check: &'static str, what: impl Into<String>) -> Finding {
    Finding { check, status: Status::Ok, what: what.into(), advice: None }
}

fn warn(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, status: Status::Warn, what: what.into(), advice: Some(advice.into()) }
}

fn fail(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, status: Status::Fail, what: what.into(), advice: Some(advice.into()) }
}

/// What the checks look at.
struct Subject {
    root: PathBuf,
    environment: Environment,
    config: Result<Config, Problems>,
    /// The gateway that runs for the project.
    gateway: Option<Running>,
    /// Why a gateway that may well run cannot be asked.
    unseen: Option<String>,
    now: Timestamp,
    /// What `--clock` names.
    clock: Option<String>,
}

/// A gateway that runs.
struct Running {
    address: Address,
    client: Client,
    /// What it has in force, which may be more than the files say; none if it does not tell.
    sources: Option<Vec<api::Source>>,
    /// See `sources`.
    agents: Option<Vec<api::Agent>>,
}

impl Running {
    async fn ask(address: Address, client: Client) -> Option<Self> {
        if !answers(&address).await {
            return None;
        }
        let asked = async { tokio::join!(client.sources(), client.agents()) };
        let (sources, agents) = match tokio::time::timeout(PATIENCE, asked).await {
            Ok((sources, agents)) => (sources.ok(), agents.ok()),
            Err(_) => (None, None),
        };
        let (sources, agents) = (sources.map(|list| list.sources), agents.map(|list| list.agents));
        Some(Self { address, client, sources, agents })
    }
}

impl Subject {
    async fn look(context: &Context, args: DoctorArgs) -> anyhow::Result<Self> {
        let root = context.root()?;
        let environment = Environment::read();
        let config = config::load(&root, &environment, &[]);
        let (mut gateway, mut unseen) = (None, None);
        match (running(&root), context.client()) {
            (Ok(address), Ok(client)) => gateway = Running::ask(address, client).await,
            (Ok(address), Err(error)) if is_forbidden(&error) && answers(&address).await => {
                unseen = Some(format!("runs ({}, pid {}), and cannot be asked: {error}", address.url, address.pid));
            }
            (Err(error), _) if is_forbidden(&error) => unseen = Some(format!("may run, and cannot be asked: {error}")),
            _ => {}
        }
        Ok(Self { root, environment, config, gateway, unseen, now: clock::now(), clock: args.clock })
    }

    /// Whether no gateway runs, as far as can be told.
    fn is_stopped(&self) -> bool {
        self.gateway.is_none() && self.unseen.is_none()
    }

    /// The configuration, if it can be used.
    fn config(&self) -> Option<&Config> {
        self.config.as_ref().ok()
    }

    /// The sources that the gateway has in force.
    fn running_sources(&self) -> &[api::Source] {
        self.gateway.as_ref().and_then(|gateway| gateway.sources.as_deref()).unwrap_or_default()
    }

    /// The agents that the gateway has in force.
    fn running_agents(&self) -> &[api::Agent] {
        self.gateway.as_ref().and_then(|gateway| gateway.agents.as_deref()).unwrap_or_default()
    }

    /// The gateway's process.
    fn pid(&self) -> Option<i32> {
        i32::try_from(self.gateway.as_ref()?.address.pid).ok()
    }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.exit == Exit::NotAllowed)
}

/// Whether it is this gateway that answers at its address: it may be gone, and another have the address since.
async fn answers(address: &Address) -> bool {
    let seen = probe(&format!("{}/healthz", address.url), INSTANCE, PATIENCE).await;
    seen.is_ok_and(|seen| seen.header.as_ref() == Some(&address.instance) || address.instance.is_empty())
}

pub(super) async fn run(context: &Context, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    if !context.asks_the_project() {
        let failure = Failure::usage("`doctor` looks at a project on this machine, not at a URL");
        return Err(failure.hint("leave out --url and DOORBELL_URL; --project names the project").into());
    }
    let subject = Subject::look(context, args).await?;
    let findings = examine(&subject).await;
    let failed = findings.iter().any(|finding| finding.status == Status::Fail);
    if context.json {
        output::json(&serde_json::json!({"ok": !failed, "findings": findings}))?;
    } else {
        print(&findings)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(subject: &Subject) -> Vec<Finding> {
    let mut findings = project::check_config(subject);
    findings.extend(project::check_sources(subject));
    findings.extend(project::check_agents(subject));
    findings.extend(commands::check(subject));
    findings.extend(secrets::check(subject));
    findings.extend(permissions::check(subject));
    findings.extend(tls::check(subject));
    findings.extend(gateway::check(subject).await);
    findings.extend(gateway::check_webhooks(subject).await);
    findings.extend(gateway::check_leftovers(subject).await);
    let inspected = database::inspect(subject).await;
    findings.extend(inspected.iter().flat_map(|inspected| database::check(subject, inspected)));
    // Both may have to wait.
    let (url, clock) = tokio::join!(public::check_url(subject), public::check_clock(subject));
    findings.extend(url.into_iter().chain(clock));
    let database = inspected.as_ref().and_then(|inspected| inspected.as_ref().ok()?.as_ref());
    findings.extend(machine::check_disk(subject, database));
    findings.extend(machine::check_files(subject));
    findings.extend(machine::check_watching(subject));
    findings
}

fn print(findings: &[Finding]) -> std::io::Result<()> {
    let mut table = Table::new(&[]).keeping_lines();
    for finding in findings {
        let word = match finding.status {
            Status::Ok => "ok",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        };
        let advice = finding.advice.as_ref().map(|advice| format!("\n→ {advice}")).unwrap_or_default();
        table.row([word, finding.check, &format!("{}{advice}", finding.what)]);
    }
    table.print()?;
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    output::line(format!("\n{} failed, {} to look at", count(Status::Fail), count(Status::Warn)))
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    match count {
        ..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", count / 1_000_000),
        _ => format!("{} GB", count / 1_000_000_000),
    }
}

/// Some names of many.
fn some(names: &[String]) -> String {
    const MOST: usize = 5;
    match names.len() {
        0..=MOST => names.join(", "),
        n => format!("{} and {} more", names[..MOST].join(", "), n - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..8).map(|n| format!("a{n}")).collect();
        assert_eq!(some(&names), "a0, a1, a2, a3, a4 and 3 more");
        assert_eq!(some(&names[..2]), "a0, a1");
    }

    #[test]
    fn sizes_are_told_in_units_that_can_be_read() {
        let told = [900, 20_000, 20_000_000, 20_000_000_000].map(bytes);
        assert_eq!(told, ["900 bytes", "20 kB", "20 MB", "20 GB"]);
    }
}
