//! `doorbell completions`: what a shell needs to complete commands, and the live names that it offers.
//!
//! The shell's function asks this program (by the variable [`VARIABLE`]) what could follow. Names and ids come from the
//! project's gateway, if it answers at once, names else from its files; whatever fails offers nothing, and says nothing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use doorbell_client::{Client, EventQuery, RunQuery};
use doorbell_core::secret::Secret;

use super::context::{self, Context};
use super::providers::all_of;
use super::{Global, output};
use crate::config::{Config, Environment};

/// The variable by which a shell asks for completions.
const VARIABLE: &str = "DOORBELL_COMPLETE";
/// Nobody waits longer for a Tab.
const PATIENCE: Duration = Duration::from_millis(400);
/// Ids that are offered, newest first.
const NEWEST: u32 = 20;
/// Runs whose keys are looked at.
const MOST_LOOKED_AT: u32 = 200;

/// Print the function that completes commands, options and live names in a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell completions bash > ~/.local/share/bash-completion/completions/doorbell\n  \
    doorbell completions zsh > ~/.zfunc/_doorbell\n  \
    doorbell completions fish > ~/.config/fish/completions/doorbell.fish"
)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "doorbell", "doorbell", "doorbell", &mut script)?;
    Ok(std::io::stdout().lock().write_all(&script)?)
}

/// Answers a shell that asks what could follow, and ends the process; comes back if none asks.
pub(super) fn answer_shell() {
    CompleteEnv::with_factory(super::Args::command).var(VARIABLE).complete();
}

/// The agents: those that the gateway has, also declared ones; if it does not answer, those of the files.
pub(super) fn agents() -> ArgValueCandidates {
    ArgValueCandidates::new(|| match ask(async |client| client.agents().await.ok()) {
        Some(list) => in_order(list.agents.into_iter().map(|agent| named(&agent.name, agent.description))),
        None => {
            let config = config();
            let agents = config.iter().flat_map(|config| config.agents.values());
            agents.map(|agent| named(&agent.name, agent.description.clone())).collect()
        }
    })
}

/// The agents of the project, and the TOML files of this folder.
pub(super) fn agents_and_files() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let config = config();
        let agents = config.iter().flat_map(|config| config.agents.values());
        let agents = agents.map(|agent| named(&agent.name, agent.description.clone()));
        let entries = std::fs::read_dir(".").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        agents.chain(names.filter(|name| name.ends_with(".toml")).map(|name| named(&name, None))).collect()
    })
}

/// The sources: those that the gateway has, also webhooks made at run time; if it does not answer, those of the files.
pub(super) fn sources() -> ArgValueCandidates {
    ArgValueCandidates::new(|| match ask(async |client| client.sources().await.ok()) {
        Some(list) => in_order(list.sources.into_iter().map(|source| named(&source.name, Some(source.provider)))),
        None => {
            let config = config();
            let sources = config.iter().flat_map(|config| config.sources.values());
            sources.map(|source| named(source.name(), Some(source.provider().name().to_owned()))).collect()
        }
    })
}

/// The newest events.
pub(super) fn events() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let query = EventQuery { limit: Some(NEWEST), ..EventQuery::default() };
        let page = ask(async |client| client.events(&query).await.ok());
        let events = page.into_iter().flat_map(|page| page.events);
        in_order(events.map(|event| named(&event.id, Some(format!("{} {}", event.event_type, event.received_at)))))
    })
}

/// The newest runs.
pub(super) fn runs() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let query = RunQuery { limit: Some(NEWEST), ..RunQuery::default() };
        let page = ask(async |client| client.runs(&query).await.ok());
        let runs = page.into_iter().flat_map(|page| page.runs);
        in_order(runs.map(|run| named(&run.id, Some(format!("{} {} {}", run.agent, run.state, run.created_at)))))
    })
}

/// The keys of the newest runs.
pub(super) fn run_keys() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let query = RunQuery { limit: Some(MOST_LOOKED_AT), ..RunQuery::default() };
        let page = ask(async |client| client.runs(&query).await.ok());
        let mut seen: Vec<String> = Vec::new();
        for key in page.into_iter().flat_map(|page| page.runs).filter_map(|run| run.key) {
            if seen.len() < NEWEST as usize && !seen.contains(&key) {
                seen.push(key);
            }
        }
        in_order(seen.iter().map(|key| named(key, None)))
    })
}

/// The API keys' ids.
pub(super) fn keys() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let list = ask(async |client| client.keys().await.ok());
        let keys = list.into_iter().flat_map(|list| list.keys);
        in_order(keys.map(|key| named(&key.key_id, Some(format!("{} {} {}", key.name, key.role, key.created_at)))))
    })
}

/// The paths of the configuration: of values, and of what they stand in.
pub(super) fn settings() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let config = config();
        let mut paths = BTreeSet::new();
        for setting in config.iter().flat_map(|config| &config.settings) {
            let parts = setting.path.match_indices('.').map(|(dot, _)| setting.path[..dot].to_owned());
            paths.extend(parts.chain([setting.path.clone()]));
        }
        paths.iter().map(|path| named(path, None)).collect()
    })
}

/// The providers.
pub(super) fn provider_names() -> ArgValueCandidates {
    ArgValueCandidates::new(|| all_of(&context()).iter().map(|provider| named(provider.name(), None)).collect())
}

/// The samples of the provider that was named before, else of all.
pub(super) fn samples() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let (words, all) = (words(), all_of(&context()));
        let said = |name: &str| words.iter().any(|word| word == name);
        let chosen = all.iter().any(|provider| said(provider.name()));
        let meant = all.iter().filter(|provider| !chosen || said(provider.name()));
        meant.flat_map(|p| p.samples()).map(|s| named(&s.event, Some(s.about.to_string()))).collect()
    })
}

/// The credentials that are stored.
pub(super) fn credentials() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let stored = context::credentials().list().unwrap_or_default();
        stored.iter().map(|stored| named(&format!("{}:{}", stored.kind, stored.instance), None)).collect()
    })
}

fn named(name: &str, about: Option<String>) -> CompletionCandidate {
    let about = about.map(|about| output::escape_terminal(&about).into_owned().into());
    CompletionCandidate::new(name).help(about)
}

fn in_order(candidates: impl Iterator<Item = CompletionCandidate>) -> Vec<CompletionCandidate> {
    candidates.enumerate().map(|(n, candidate)| candidate.display_order(Some(n))).collect()
}

/// The words of the line that is completed: what follows `--`.
fn words() -> Vec<String> {
    let all = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    all.skip_while(|word| word != "--").skip(1).collect()
}

/// What the line so far says about where to look.
fn context() -> Context {
    let words = words();
    let follows = |option: &str| words.iter().position(|word| word == option).and_then(|at| words.get(at + 1));
    let project = follows("--project").or_else(|| follows("-p")).cloned();
    let joined = || words.iter().find_map(|word| word.strip_prefix("--project=")).map(str::to_owned);
    let environment = Environment::read();
    let variable = |name: &str| environment.var(name).map(str::to_owned);
    Context::new(Global {
        project: project.or_else(joined).map(PathBuf::from),
        url: variable("DOORBELL_URL"),
        key: variable("DOORBELL_TOKEN").map(Secret::new),
        json: false,
    })
}

fn config() -> Option<Config> {
    context().config().ok()
}

/// Asks the gateway, if there is one that answers at once.
fn ask<T>(question: impl AsyncFnOnce(&Client) -> Option<T>) -> Option<T> {
    let client = context().client().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question(&client)).await.ok()? })
}
