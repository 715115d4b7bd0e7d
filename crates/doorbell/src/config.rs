//! Configuration: read from `config.toml`, `agents/`, credentials and the environment; checked whole; explained.
//!
//! Precedence: the embedded `default.toml` < `config.toml` < `DOORBELL_*` environment < flags. The only module that
//! reads the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::prompt::Template;
use doorbell_core::run::Policy;
use doorbell_core::secret::Secret;
use doorbell_core::source::Source;
use doorbell_core::trigger::Trigger;

mod agents;
mod credentials;
mod document;
mod environment;
mod files;
mod gateway;
mod layers;
mod names;
mod problem;
mod quantity;
mod retries;
mod runtime;
mod skill;
mod sources;
#[cfg(test)]
mod tests;
mod triggers;
mod values;

pub use credentials::{Credentials, Stored};
pub use environment::Environment;
pub use problem::Problems;
pub use sources::providers;

use problem::{Findings, Place, Problem};

/// The defaults as the program has them built in: also the reference of `config.toml`, every key with an explanation.
pub const DEFAULTS: &str = layers::DEFAULTS;

/// A whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The project folder, absolute.
    pub root: PathBuf,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[store] url`.
    pub store_url: String,
    /// `[webhooks.*]`, by name.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// `agents/*`, by name.
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// What was accepted and means nothing here, one sentence each.
    pub warnings: Vec<String>,
    /// Every value in force with where it came from, secrets hidden; what `doorbell config` prints.
    pub settings: Vec<Setting>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its path, e.g. `gateway.listen` or `agents.triage.timeout`.
    pub path: String,
    /// The value as TOML; secrets as `(hidden)`.
    pub value: String,
    /// `default`, `config.toml:12`, `agents/triage/config.toml:3`, `env DOORBELL_GATEWAY__LISTEN`, `flag --listen`.
    pub origin: String,
}

/// `[gateway]`.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it listens for everything but deliveries, if that is another address.
    pub admin_listen: Option<SocketAddr>,
    /// The URL that senders use, without a slash at the end.
    pub public_url: Option<String>,
    /// The largest body, in bytes.
    pub max_body: u64,
    /// How long running agents may go on after SIGTERM.
    pub drain_timeout: Duration,
}

/// `agents/<name>/`: what starts an agent, and how.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name: that of its folder.
    pub name: String,
    /// One line.
    pub description: Option<String>,
    /// Runs at once; 0: it is disabled.
    pub scale: u32,
    /// How long a try may take.
    pub timeout: Duration,
    /// Queued runs that never started, at most.
    pub work_queue_size: u64,
    /// What happens beyond that.
    pub when_full: WhenFull,
    /// Its triggers, in file order.
    pub triggers: Vec<Trigger>,
    /// How it is carried out.
    pub runtime: CommandRuntime,
    /// How it is tried.
    pub retries: Policy,
    /// The body of its SKILL.md as a template; none if there is no such file.
    pub instructions: Option<Template>,
    /// `params`: offered to the prompt template.
    pub params: serde_json::Value,
}

/// What happens when an agent's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest queued run that never started is dropped, visibly.
    DropOldest,
    /// The sender gets 429 if every matching agent rejects.
    Reject,
    /// The queue grows.
    Grow,
}

/// `[runtime] type = "command"`.
#[derive(Debug, Clone)]
pub struct CommandRuntime {
    /// The program and its arguments; never a shell string.
    pub command: Vec<String>,
    /// How the prompt gets there.
    pub prompt: PromptChannel,
    /// Where it runs, absolute; none: in the run's own folder.
    pub cwd: Option<PathBuf>,
    /// Further environment variables, as templates.
    pub env: BTreeMap<String, Template>,
    /// Credentials that it gets as environment variables: name and value.
    pub credentials: Vec<(String, Secret)>,
}

/// How a command gets its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptChannel {
    /// On standard input, which is then closed.
    Stdin,
    /// As the last argument.
    Arg,
    /// In a file whose path is the last argument.
    File,
}

/// Reads and checks the project in `root`. `flags` are values for paths of `config.toml`, e.g. `gateway.listen`.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(root: &Path, environment: &Environment, flags: &[(String, String)]) -> Result<Config, Problems> {
    let mut findings = Findings::default();
    match read(root, environment, flags, &mut findings) {
        Some(config) if findings.problems.is_empty() => {
            Ok(Config { warnings: findings.warnings, settings: findings.settings, ..config })
        }
        _ => Err(Problems::new(findings.problems)),
    }
}

fn read(root: &Path, environment: &Environment, flags: &[(String, String)], findings: &mut Findings) -> Option<Config> {
    let absolute = std::path::absolute(root);
    let root = findings.take(absolute.map_err(|error| Problem::anywhere(format!("no project folder: {error}"))))?;
    if !root.join("config.toml").exists() {
        let message = format!("no config.toml in {}: `doorbell init` makes a project", root.display());
        findings.problem(Problem::anywhere(message));
        return None;
    }
    let project = layers::read(&root, environment, flags, findings)?;
    let credentials = Credentials::new(environment);
    let around = runtime::Surroundings { root: &root, credentials: &credentials };
    let gateway = gateway::read(&project.gateway, findings);
    let store_url = gateway::read_store(&project.store, findings);
    agents::check_defaults(&project.defaults, around, findings);
    let sources = project.webhooks.map(|table| sources::read(table, &credentials, findings));
    let reader = agents::Reader { around, defaults: &project.defaults, sources: sources.as_ref() };
    let agents = agents::read(reader, findings);
    refuse_own_providers(&root, findings);
    Some(Config {
        gateway: gateway?,
        store_url: store_url?,
        sources: sources?.good,
        agents,
        warnings: Vec::new(),
        settings: Vec::new(),
        root,
    })
}

fn refuse_own_providers(root: &Path, findings: &mut Findings) {
    let names = findings.take(files::names_in(root, "providers")).unwrap_or_default();
    for name in names.iter().filter(|name| name.ends_with(".toml")) {
        let place = Place::path(format!("providers/{name}"));
        findings.problem(Problem::at(&place, "`providers/` is not supported yet"));
    }
}
