//! The command line: arguments, dispatch, exit codes. What a command does stands in the file of its name.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 unreachable.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use doorbell_core::secret::Secret;

use self::context::Context;
use crate::telemetry;

mod agents;
mod audit;
mod backup;
mod completions;
mod consent;
mod context;
mod creds;
mod demo;
mod dev;
mod doctor;
mod events;
mod failure;
mod init;
mod keys;
mod known;
mod live;
mod logs;
mod man;
mod mcp;
mod notify;
mod output;
mod providers;
mod random;
mod reference;
mod replay;
mod ring;
mod run;
mod runs;
mod secrets;
mod serve;
mod settings;
mod sources;
mod stat;
mod time;
mod triggers;
mod webhooks;
mod why;

/// A self-hosted webhook gateway that starts agents.
///
/// A service posts an event; Doorbell proves who sent it, stores it, and starts the agents that asked for it.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version, max_term_width = 110, after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  doorbell init my-project && cd my-project && doorbell dev
  doorbell ring github issues.opened     in another terminal: send a signed sample
  doorbell why evt_01K…                  see which agents it started, and why not the others

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 unreachable";

/// What every command takes.
#[derive(Debug, Clone, ClapArgs)]
struct Global {
    /// The project's folder [default: the current folder, or the nearest one above it with a config.toml]
    #[arg(short, long, global = true, value_name = "DIR", help_heading = "Global options")]
    project: Option<PathBuf>,
    /// The gateway to ask [default: the one that runs for the project]
    #[arg(long, global = true, env = "DOORBELL_URL", value_name = "URL", help_heading = "Global options")]
    url: Option<String>,
    /// An API key of the gateway [default: the project's own, without --url]
    #[arg(
        long,
        global = true,
        env = "DOORBELL_TOKEN",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = |text: &str| Ok::<_, std::convert::Infallible>(Secret::new(text)),
        help_heading = "Global options"
    )]
    key: Option<Secret>,
    /// Print JSON, as the API has it
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Serve(ServeArgs),
    Dev(DevArgs),
    Demo(DemoArgs),
    Ring(ring::RingArgs),
    Events(events::EventsArgs),
    Why(why::WhyArgs),
    Runs(runs::RunsArgs),
    Run(run::RunArgs),
    Pause(run::PauseArgs),
    Resume(run::ResumeArgs),
    Replay(replay::ReplayArgs),
    Logs(logs::LogsArgs),
    Stat(stat::StatArgs),
    Doctor(doctor::DoctorArgs),
    Sources(sources::SourcesArgs),
    Webhooks(webhooks::WebhooksArgs),
    Providers(providers::ProvidersArgs),
    Agents(agents::AgentsArgs),
    Triggers(triggers::TriggersArgs),
    Config(settings::ConfigArgs),
    Creds(creds::CredsArgs),
    Keys(keys::KeysArgs),
    Secrets(secrets::SecretsArgs),
    Audit(audit::AuditArgs),
    Notify(notify::NotifyArgs),
    Backup(backup::BackupArgs),
    Mcp(mcp::McpArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
    /// End the agents' processes when the gateway is gone (the gateway starts this itself)
    #[command(hide = true, after_help = "Example:\n  doorbell guard")]
    Guard,
    #[command(hide = true)]
    StepDown(StepDownArgs),
}

/// Run the gateway: take deliveries and start agents, until it is told to end
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  doorbell serve --listen 0.0.0.0:8080\n  doorbell serve --log-format json")]
struct ServeArgs {
    /// Where to listen [default: `gateway.listen` of the configuration]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    listen: Option<SocketAddr>,
    /// How the log is written to standard error; `DOORBELL_LOG` says how much (`warn`, `info`, `debug`)
    #[arg(long, value_enum, default_value_t = LogFormatArg::Text)]
    log_format: LogFormatArg,
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
    text.parse().map_err(|_| {
        format!(
            "not an IP address and a port: 127.0.0.1:{port} is for this machine only, 0.0.0.0:{port} for every network"
        )
    })
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormatArg {
    /// For people
    Text,
    /// One object a line, for machines
    Json,
}

/// Become another user, and then a command (the gateway starts agents that have `run_as` so)
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  doorbell step-down --uid 1000 --gid 1000 --groups 1000 --reach / --cwd / -- id")]
struct StepDownArgs {
    /// The user
    #[arg(long)]
    uid: u32,
    /// Its primary group
    #[arg(long)]
    gid: u32,
    /// All its groups
    #[arg(long, value_delimiter = ',')]
    groups: Vec<u32>,
    /// What the user must get to
    #[arg(long)]
    reach: PathBuf,
    /// Where the command runs
    #[arg(long)]
    cwd: PathBuf,
    /// The file for what went wrong; without it, it is only looked whether the command could start
    #[arg(long)]
    report: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Run the gateway and show what comes in, and what the agents say, as it happens
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  doorbell dev\n  doorbell ring github issues.opened     in another terminal")]
struct DevArgs {
    /// Where to listen [default: `gateway.listen` of the configuration]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    listen: Option<SocketAddr>,
}

/// See it work: a gateway, an agent and a signed delivery, in a folder of its own that is removed afterwards
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  doorbell demo --once")]
struct DemoArgs {
    /// End when the agent has ended, instead of staying up
    #[arg(long)]
    once: bool,
}

/// Runs the command that the process was started with, and answers its exit code.
pub fn run() -> ExitCode {
    completions::answer_shell();
    let Args { global, command } = Args::try_parse().unwrap_or_else(|error| failure::refuse_arguments(&error));
    let command = match command {
        // Neither needs what follows; and who becomes somebody else does it alone, without threads.
        Command::Guard => return serve::guard(),
        Command::StepDown(args) => return serve::step_down(args),
        command => command,
    };
    if matches!(command, Command::Serve(_) | Command::Dev(_) | Command::Demo(_)) {
        serve::shield();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&error.into(), None),
    };
    let context = Context::new(global);
    let ended = runtime.block_on(dispatch(&context, command));
    let code = ended.unwrap_or_else(|error| failure::report(&error, Some(&context)));
    telemetry::drain(telemetry::LAST_WORDS);
    code
}

async fn dispatch(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(context, args)?,
        Command::Serve(args) => return serve::run(context, args).await,
        Command::Dev(args) => return dev::run(context, args).await,
        Command::Demo(args) => return demo::run(context, args).await,
        Command::Ring(args) => return ring::run(context, args).await,
        Command::Events(args) => events::run(context, args).await?,
        Command::Why(args) => why::run(context, args).await?,
        Command::Runs(args) => runs::run(context, args).await?,
        Command::Run(args) => run::run(context, args).await?,
        Command::Pause(args) => run::pause(context, args).await?,
        Command::Resume(args) => run::resume(context, args).await?,
        Command::Replay(args) => replay::run(context, args).await?,
        Command::Logs(args) => logs::run(context, args).await?,
        Command::Doctor(args) => return doctor::run(context, args).await,
        Command::Stat(args) => stat::run(context, args).await?,
        Command::Sources(args) => sources::run(context, args).await?,
        Command::Webhooks(args) => webhooks::run(context, args).await?,
        Command::Providers(args) => return providers::run(context, args),
        Command::Agents(args) => agents::run(context, args).await?,
        Command::Triggers(args) => triggers::run(context, args).await?,
        Command::Config(args) => settings::run(context, args)?,
        Command::Creds(args) => creds::run(context, args)?,
        Command::Keys(args) => keys::run(context, args).await?,
        Command::Secrets(args) => secrets::run(context, args).await?,
        Command::Audit(args) => audit::run(context, args).await?,
        Command::Notify(args) => return notify::run(context, args).await,
        Command::Backup(args) => backup::run(context, args).await?,
        Command::Mcp(args) => mcp::run(context, args).await?,
        Command::Completions(args) => completions::run(&args)?,
        Command::Man(args) => man::run(&args)?,
        Command::Reference(args) => reference::run(&args)?,
        Command::Guard => return Ok(serve::guard()),
        Command::StepDown(args) => return Ok(serve::step_down(args)),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example") && help.contains("doorbell "), "{path} shows no example");
                assert!(sub.get_about().is_some(), "{path} says nothing");
                check(sub, &path);
            }
        }
        check(&Args::command(), "doorbell");
    }

    #[test]
    fn examples_are_commands_that_can_be_given() {
        fn check(command: &clap::Command, seen: &mut usize) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                // What follows several spaces explains; a shell would split the rest.
                let line = line.trim().split("   ").next().unwrap();
                for part in line.split([';', '|', '>']).flat_map(|part| part.split("&&")) {
                    // What is in quotes is one word.
                    let words = part.split('"').enumerate().flat_map(|(n, piece)| match n % 2 {
                        0 => piece.split_whitespace().collect(),
                        _ => vec![piece],
                    });
                    let words: Vec<&str> = words.collect();
                    if words.first() == Some(&"doorbell") {
                        let parsed = Args::try_parse_from(&words);
                        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                        *seen += 1;
                    }
                }
            }
            command.get_subcommands().for_each(|sub| check(sub, seen));
        }
        let mut seen = 0;
        check(&Args::command(), &mut seen);
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let args = Args::try_parse_from(["doorbell", "stat", "--key", "dbk_secret"]).unwrap();
        assert!(!format!("{args:?}").contains("dbk_secret"));
    }

    #[test]
    fn options_of_all_commands_may_follow_the_command() {
        let args = Args::try_parse_from(["doorbell", "runs", "show", "run_1", "--json", "-p", "elsewhere"]).unwrap();
        assert!(args.global.json);
        assert_eq!(args.global.project, Some(PathBuf::from("elsewhere")));
    }
}
