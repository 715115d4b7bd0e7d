//! `doorbell serve`: the gateway, until it is told to end.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::{LogFormatArg, ServeArgs, StepDownArgs, output};
use crate::config::{self, Config, Environment};
use crate::gateway::{Address, Gateway, Taken, address_file};
use crate::runtime;
use crate::telemetry::{self, LogFormat};

pub(super) async fn run(context: &Context, args: ServeArgs) -> anyhow::Result<ExitCode> {
    let environment = Environment::read();
    let format = match args.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    telemetry::start_logging(&environment, "info", format).map_err(Failure::usage)?;
    // The log says it, too, and what reads JSON cannot read notes.
    let notes = format == LogFormat::Text;
    let config = load_with(&context.root()?, &environment, args.listen, |warning| match notes {
        true => warn(warning),
        false => tracing::warn!(warning, "config.warning"),
    })?;
    let mut told = Told::new(notes)?;
    let gateway = start(config, &environment, &mut told).await?;
    if notes {
        output::note(format!("doorbell listens on {}", whereabouts(&gateway)));
    }
    told.wait().await;
    Ok(close(gateway, &mut told).await)
}

/// The configuration of a project, with the flags that all ways of running it have. Warnings are said at once.
pub(super) fn load(
    root: &Path,
    environment: &Environment,
    listen: Option<std::net::SocketAddr>,
) -> anyhow::Result<Config> {
    load_with(root, environment, listen, warn)
}

fn load_with(
    root: &Path,
    environment: &Environment,
    listen: Option<std::net::SocketAddr>,
    warn: impl Fn(&str),
) -> anyhow::Result<Config> {
    let flags = listen.map(|listen| ("gateway.listen".to_owned(), listen.to_string()));
    let config = config::load(root, environment, &flags.into_iter().collect::<Vec<_>>())?;
    config.warnings.iter().for_each(|warning| warn(warning));
    Ok(config)
}

fn warn(warning: &str) {
    output::note(format!("warning: {}", output::escape_terminal(warning)));
}

/// Where a gateway can be called from this machine, and from where else.
pub(super) fn whereabouts(gateway: &Gateway) -> String {
    let every = if gateway.address.ip().is_unspecified() { " and every other address of this machine" } else { "" };
    let api = gateway.app.admin_url.get().map(|url| format!("; its API on {url}")).unwrap_or_default();
    let local = gateway.app.local_url();
    match gateway.app.current().config.gateway.tls {
        None => format!("{local}{every}{api}"),
        Some(_) => format!("https on {}{every}, {local} for this machine{api}", gateway.address),
    }
}

/// Starts a gateway of this program. One that is told to end meanwhile (an upgrade of a large database takes its time) starts first,
/// so that it ends in order; told once more, it ends at once, as a kill would end it.
pub(super) async fn start(config: Config, environment: &Environment, told: &mut Told) -> anyhow::Result<Gateway> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let inherited = environment.inherited().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let root = config.root.clone();
    let starting = Gateway::start(config, &program, inherited);
    tokio::pin!(starting);
    let mut early = false;
    loop {
        tokio::select! {
            started = &mut starting => {
                told.early = early;
                return started.map_err(|error| tell_the_other(error, &root));
            }
            () = told.wait() => {
                ensure!(!early, "ended before it was started");
                early = true;
                told.note("it will end once it is started; once more to end it now");
            }
        }
    }
}

/// Says which gateway runs already, if that is what is wrong.
fn tell_the_other(error: anyhow::Error, root: &Path) -> anyhow::Error {
    let taken = error.is::<Taken>();
    let text = std::fs::read(address_file(root)).ok().filter(|_| taken);
    match text.and_then(|text| serde_json::from_slice::<Address>(&text).ok()) {
        Some(Address { url, pid, .. }) => {
            let message = format!("another gateway runs for this project (pid {pid}, {url})");
            Failure::new(Exit::Failed, message).hint("stop it first").into()
        }
        None => error,
    }
}

/// Closes a gateway that was told to end: running agents may go on until `drain_timeout`, or the second signal.
pub(super) async fn close(gateway: Gateway, told: &mut Told) -> ExitCode {
    let limit = gateway.app.current().config.gateway.drain_timeout;
    match gateway.running() {
        0 => told.note("closing"),
        n => told.note(&format!(
            "closing: running agents ({n}) have {} s to end; once more to end them now",
            limit.as_secs()
        )),
    }
    let mut again = false;
    let closing = gateway.close(limit);
    tokio::pin!(closing);
    tokio::select! {
        () = &mut closing => {}
        () = told.wait() => again = true,
    }
    if again {
        // The process that watches over the agents ends them when this one is gone; their runs are found at the
        // next start.
        told.note("ending now: runs that were not over are found at the next start");
    }
    if again { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The signals that end a gateway. SIGHUP asks for the configuration to be read again (see `reload`), unless it comes
/// because the terminal is gone that the gateway was started in.
pub(super) struct Told {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    in_terminal: bool,
    /// Whether one came that nobody acted upon yet.
    early: bool,
    /// Whether what follows from one is said on standard error: not where a program reads the log, which says it too.
    notes: bool,
}

impl Told {
    /// From now on they end nothing by themselves. `notes`: what follows from one is said on standard error.
    pub(super) fn new(notes: bool) -> anyhow::Result<Self> {
        Ok(Self {
            in_terminal: std::io::stdin().is_terminal(),
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            early: false,
            notes,
        })
    }

    fn note(&self, text: &str) {
        if self.notes {
            output::note(text);
        }
    }

    /// Waits for the next one.
    pub(super) async fn wait(&mut self) {
        if std::mem::take(&mut self.early) {
            return;
        }
        let lost_terminal = async {
            loop {
                self.hangup.recv().await;
                // One that was hung up is no terminal any more.
                if self.in_terminal && !std::io::stdin().is_terminal() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = lost_terminal => {}
        }
    }
}

/// `doorbell guard`: ends the agents' processes when the gateway that started it is gone.
pub(super) fn guard() -> ExitCode {
    runtime::watch(std::io::stdin());
    ExitCode::SUCCESS
}

/// `doorbell step-down`: becomes the user of an agent, and then its command.
pub(super) fn step_down(args: StepDownArgs) -> ExitCode {
    let StepDownArgs { uid, gid, groups, reach, cwd, report, command } = args;
    runtime::step_down(&runtime::Step { uid, gid, groups, reach, cwd, report, command })
}

/// Keeps this process, which is to be a gateway, from the eyes of agents.
pub(super) fn shield() {
    if let Err(error) = runtime::shield() {
        warn(&format!("agents of Doorbell's own user can read its memory: {error}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_gateway_that_runs_already_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |error: anyhow::Error| tell_the_other(error, folder.path()).to_string();
        let taken = || anyhow::Error::from(Taken("another gateway uses x".to_owned()));
        assert!(error(taken()).contains("another gateway uses x"), "there is no file");
        let file = address_file(folder.path());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, r#"{"url":"http://127.0.0.1:1","pid":7}"#).unwrap();
        let named = "another gateway runs for this project (pid 7, http://127.0.0.1:1)";
        assert_eq!(error(taken()), named);
        let other = "/another gateway uses this/doorbell.db cannot be opened";
        assert_eq!(error(anyhow::anyhow!(other)), other);
    }
}
