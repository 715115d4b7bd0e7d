//! Configuration: read from `config.toml`, `agents/`, credentials and the environment; checked whole; explained.
//!
//! Precedence: the embedded `default.toml` < `config.toml` < `DOORBELL_*` environment < flags. The only module that
//! reads the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::flow::{Flow, Rate};
use doorbell_core::pattern::Pattern;
use doorbell_core::prompt::Template;
use doorbell_core::provider::Provider;
use doorbell_core::run::Policy;
use doorbell_core::schedule::Schedule;
use doorbell_core::secret::Secret;
use doorbell_core::source::Source;
use doorbell_core::trigger::Trigger;
use ipnet::IpNet;

mod agents;
mod conditions;
mod credentials;
mod declared;
mod document;
mod environment;
mod files;
mod flow;
mod gateway;
mod gateway_acme;
mod gateway_tls;
mod http_runtime;
mod layers;
mod names;
mod notifications;
mod origin;
mod own;
mod presets;
mod problem;
mod quantity;
mod result;
mod retries;
mod runtime;
mod schedules;
mod skill;
mod sources;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod triggers;
mod types;
mod values;

pub use agents::idle_warning;
pub use credentials::{Credentials, Stored, without_line_end};
pub use declared::{ACCOUNT, Declaration, Declared};
pub use environment::Environment;
pub use gateway::origin_of;
pub use gateway_acme::{Acme, Validity};
pub use gateway_tls::{Shown, Tls};
pub use http_runtime::{HttpRuntime, Subscriber};
pub use names::{is_name, nearest};
pub use origin::{Origin, Survey};
pub use own::{OwnProvider, read_provider};
pub use presets::{PRESETS, Preset, presets};
pub use problem::{Flaw, Problems};
pub use quantity::{parse_duration, write_duration};
pub use runtime::{Runtime, script_of};
pub use sources::open_warning;
pub use types::{is_named, providers};

use crate::users::User;
use problem::{Findings, Problem};

/// The defaults as the program has them built in: also the reference of `config.toml`, every key with an explanation.
pub const DEFAULTS: &str = layers::DEFAULTS;

/// A whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The project folder, absolute.
    pub root: PathBuf,
    /// What it was read from.
    pub origin: Origin,
    /// How those files stood just before they were read.
    pub survey: Survey,
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[store] url`.
    pub store_url: String,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
    /// `[store] retention`: how long events and their runs are kept; none: for ever.
    pub retention: Option<Duration>,
    /// `[store] audit_retention`: how long the audit log is kept; none: for ever.
    pub audit_retention: Option<Duration>,
    /// `[webhooks.*]`, by name.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// `providers/*.toml`, by name.
    pub providers: BTreeMap<String, OwnProvider>,
    /// `agents/*`, and those that are declared, by name.
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// What was declared through the API, by the agent's name; also what is not in force.
    pub declared: BTreeMap<String, Declared>,
    /// `[[notifications]]`, in file order.
    pub notifications: Vec<Notification>,
    /// What was accepted and means nothing here, one sentence each.
    pub warnings: Vec<String>,
    /// Every value in force with where it came from, secrets hidden; what `doorbell config` prints.
    pub settings: Vec<Setting>,
    /// `[defaults]`, for what is declared.
    defaults: document::Table,
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
    /// Where subscriptions of MCP Events may lead although that is not https or not public: scheme, host and port.
    pub private_callbacks: Vec<String>,
    /// The certificate that is shown on `listen`, and on `admin_listen`; none: plain HTTP is spoken.
    pub tls: Option<Tls>,
    /// Whose `X-Forwarded-*` headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Names that management answers to, beside those that are known.
    pub allowed_hosts: Vec<String>,
    /// Connections to `listen` at once.
    pub max_connections: usize,
    /// Connections of one address at once.
    pub max_connections_per_address: usize,
    /// Requests with one API key or run token; none: any number.
    pub key_rate_limit: Option<Rate>,
    /// Verified deliveries of one webhook that was made at run time; none: any number.
    pub hook_rate_limit: Option<Rate>,
    /// Refused signatures and keys of one address; none: any number.
    pub failure_limit: Option<Rate>,
    /// The largest body, in bytes.
    pub max_body: u64,
    /// How long running agents may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// How long the conditions of one event may take.
    pub condition_timeout: Duration,
    /// Whether saved changes are taken over while the gateway runs.
    pub hot_reload: bool,
}

/// `[telemetry]` and the standard variables of OpenTelemetry.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// The URL that traces are sent to, by OTLP over HTTP; none: nothing is traced.
    pub traces_url: Option<String>,
}

/// `agents/<name>/`: what starts an agent, and how.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name: that of its folder.
    pub name: String,
    /// The account that it belongs to; none: it is the gateway's.
    pub account: Option<String>,
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
    /// When the clock starts it, in file order.
    pub schedules: Vec<Schedule>,
    /// The agents that its runs may start.
    pub may_call: Vec<String>,
    /// How it is carried out.
    pub runtime: Runtime,
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
    /// Who it runs as; none: as Doorbell's own user.
    pub run_as: Option<User>,
    /// Further environment variables, as templates.
    pub env: BTreeMap<String, Template>,
    /// Credentials that it gets as environment variables: name and value.
    pub credentials: Vec<(String, Secret)>,
    /// Where its result and its failure stand; none: the exit code says how it went.
    pub result: Option<ResultRule>,
}

/// `[runtime] result`: where a command's result and its failure stand. Pointers are JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRule {
    /// Where it is looked for.
    pub from: ResultPlace,
    /// How it is written.
    pub format: ResultFormat,
    /// The pointer to the result; none: it is the whole of it.
    pub path: Option<String>,
    /// Which lines have a result: pointers, and the values that must be there.
    pub only: Vec<(String, serde_json::Value)>,
    /// What says that it failed: a pointer to a value that is not null, false, 0 or empty; or how the result (in a
    /// text: a line) begins.
    pub failed: Vec<String>,
    /// Pointers to why it failed; the first that leads to a text counts.
    pub reason: Vec<String>,
    /// How a line of the text begins without which it failed.
    pub needs: Option<String>,
}

/// Where a result is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultPlace {
    /// On standard output.
    Stdout,
    /// In the file that `DOORBELL_OUTPUT_FILE` names.
    File,
}

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFormat {
    /// One JSON value, perhaps with other lines around it.
    Json,
    /// A JSON value a line; the last one that has something counts.
    JsonLines,
    /// Text.
    Text,
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

/// `[[notifications]]`: who is told of problems, and of which.
#[derive(Debug, Clone)]
pub struct Notification {
    /// What people know it by, e.g. `url https://ops.example.com`. Nothing in it is secret.
    pub name: String,
    /// What its state is kept by: the same as long as it has the same receiver.
    pub id: String,
    /// What is told.
    pub on: Vec<Topic>,
    /// Of which sources; empty: of all.
    pub sources: Vec<Pattern>,
    /// Of which agents; empty: of all.
    pub agents: Vec<Pattern>,
    /// To whom.
    pub receiver: Receiver,
    /// How often at most, for each cause.
    pub every: Duration,
}

/// Who is told.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// A program and its arguments; never a shell string.
    Command(Vec<String>),
    /// A URL that takes Standard Webhooks, and the secret they are signed with.
    Url {
        /// The URL.
        url: String,
        /// The key of the signature.
        secret: Secret,
    },
    /// An agent of this project.
    Agent(String),
}

/// What can be told. A further one needs a word here, and whoever notices it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A run ended with all its tries used up.
    DeadLetter,
    /// A source refuses more than it is used to.
    Rejections,
    /// A source has been quiet for longer than it is used to, or never received anything.
    Silent,
    /// A saved configuration was refused.
    Reload,
    /// The store does not take writes.
    Store,
    /// An agent's URL fails so often that it is not asked for a while.
    Breaker,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 6] =
        [Self::DeadLetter, Self::Rejections, Self::Silent, Self::Reload, Self::Store, Self::Breaker];

    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead_letter",
            Self::Rejections => "rejections",
            Self::Silent => "silent",
            Self::Reload => "reload",
            Self::Store => "store",
            Self::Breaker => "breaker",
        }
    }
}

/// Reads and checks the project in `root`. `flags` are values for paths of `config.toml`, e.g. `gateway.listen`.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(root: &Path, environment: &Environment, flags: &[(String, String)]) -> Result<Config, Problems> {
    let (environment, flags) = (environment.clone(), flags.to_vec());
    Origin { root: root.to_owned(), environment, flags, named: Vec::new() }.load()
}

fn load_from(origin: &Origin) -> Result<Config, Problems> {
    let mut findings = Findings::default();
    match read(origin, &mut findings) {
        Some(config) if findings.problems.is_empty() => {
            Ok(Config { warnings: findings.warnings, settings: findings.settings, ..config })
        }
        _ => Err(Problems::new(findings.problems)),
    }
}

fn read(origin: &Origin, findings: &mut Findings) -> Option<Config> {
    let Origin { root, environment, flags, .. } = origin;
    let mut survey = origin.survey();
    let absolute = std::path::absolute(root);
    let root = findings.take(absolute.map_err(|error| Problem::anywhere(format!("no project folder: {error}"))))?;
    if !root.join("config.toml").exists() {
        let message = format!("no config.toml in {}: `doorbell init` makes a project", root.display());
        findings.problem(Problem::anywhere(message));
        return None;
    }
    let project = layers::read(&root, environment, flags, findings)?;
    let credentials = Credentials::new(environment);
    let around = runtime::Surroundings { root: &root, credentials: &credentials, is_declared: false, account: None };
    let gateway = gateway::read(&root, &project.gateway, &mut survey, findings);
    let store = gateway::read_store(&project.store, findings);
    let telemetry = telemetry::read(&project.telemetry, environment, findings);
    agents::check_defaults(&project.defaults, around, findings);
    let own = own::read(&root, findings);
    let types = &own.types;
    let sources = project.webhooks.map(|table| sources::read(table, types, &credentials, findings));
    let notifications = notifications::read(project.notifications, sources.as_ref(), &credentials, findings);
    let told = &notifications.told;
    let reader = agents::Reader { around, defaults: &project.defaults, sources: sources.as_ref(), told };
    let agents = agents::read(reader, findings);
    notifications.check_agents(&files::names_in(&root, "agents").unwrap_or_default(), findings);
    let gateway::Kept { store_url, retention, audit_retention } = store?;
    let gateway = gateway?;
    let named = gateway.tls.iter().flat_map(|tls| [tls.certificate.clone(), tls.key.clone()]).collect();
    Some(Config {
        gateway,
        store_url,
        retention,
        audit_retention,
        telemetry,
        sources: sources?.good,
        providers: own.providers,
        agents,
        declared: BTreeMap::new(),
        defaults: project.defaults,
        notifications: notifications.good,
        warnings: Vec::new(),
        settings: Vec::new(),
        root,
        origin: Origin { named, ..origin.clone() },
        survey,
    })
}

impl Agent {
    /// Whether one of its triggers is for what comes from this source.
    pub fn listens_to(&self, source: &str) -> bool {
        self.triggers.iter().any(|trigger| trigger.source == source)
    }

    /// The flow control of one of its triggers; none if none of them has any, so that its runs need not be kept in lanes.
    ///
    /// A `key` alone is flow control: an agent serves its keys in turn.
    pub fn flow(&self, trigger: usize) -> Option<Flow> {
        self.flow_of_others()?;
        self.triggers.iter().find(|other| other.position == trigger).map(|trigger| trigger.flow)
    }

    /// The flow control of what no trigger starts: none is to be kept to, but if triggers have some, it has its turn with their
    /// runs.
    pub fn flow_of_others(&self) -> Option<Flow> {
        let controls = |trigger: &Trigger| !trigger.flow.is_default() || trigger.conditions.key.is_some();
        self.triggers.iter().any(controls).then(Flow::default)
    }

    /// Whether starts of its runs are limited in time.
    pub fn is_throttled(&self) -> bool {
        self.triggers.iter().any(|trigger| trigger.flow.throttle.is_some())
    }
}

impl Config {
    /// Every provider that a source of this project can have, as its type alone makes it.
    pub fn all_providers(&self) -> Vec<Arc<dyn Provider>> {
        providers().into_iter().chain(self.providers.values().map(|own| Arc::clone(&own.provider))).collect()
    }

    /// A trigger that is in no file, given as JSON; checked as those of agents are.
    ///
    /// # Errors
    /// Everything that is wrong with it, for people.
    pub fn read_trigger(
        &self,
        trigger: &serde_json::Map<String, serde_json::Value>,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Trigger, String> {
        let known = self.sources.iter().filter(|(name, _)| is_known(name));
        triggers::read_json(trigger, &known.map(|(name, one)| (name.clone(), Arc::clone(one))).collect())
    }
}
