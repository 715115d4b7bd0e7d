//! `doorbell demo`: the main job end to end, in a folder of its own, with nothing to set up.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use doorbell_client::api::{Activity, Run};
use doorbell_client::{Answer, Sender};
use doorbell_core::provider::{Provider, Unsent, find_sample};
use futures_util::{Stream, StreamExt};
use tokio::task::JoinHandle;

use super::context::Context;
use super::failure::Failure;
use super::live::Live;
use super::serve::{Told, close, load, start};
use super::{DemoArgs, dev, init, output};
use crate::clock;
use crate::config::{Credentials, Environment};
use crate::gateway::Gateway;
use crate::telemetry::{self, LogFormat};

/// How long the agent of the demo may take. It needs a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &Context, args: DemoArgs) -> anyhow::Result<ExitCode> {
    // The folder goes whatever ends the demo.
    let mut told = Told::new(true)?;
    let folder = tempfile::Builder::new().prefix("doorbell-demo-").tempdir().context("cannot make a folder")?;
    // The demo's secret goes where it is removed with the rest.
    let home = folder.path().join("home");
    let environment = Environment::read().with("HOME", Some(home.as_os_str())).with("DOORBELL_CREDENTIALS_DIR", None);
    telemetry::open_stdout(context.json);
    telemetry::start_logging(&environment, "error", LogFormat::Text).map_err(Failure::usage)?;
    let gateway = serve(context, &folder.path().join("project"), &environment, &mut told).await?;
    let shown = tokio::select! {
        shown = show(&gateway, context, &args, &home) => shown,
        () = told.wait() => {
            let code = close(gateway, &mut told).await;
            // Whoever asks for the one run did not get it.
            return Ok(if args.once { ExitCode::FAILURE } else { code });
        }
    };
    match shown {
        Ok(Shown::All(code)) => {
            gateway.close(GRACE).await;
            Ok(code)
        }
        Ok(Shown::Serving(watching)) => {
            told.wait().await;
            let code = close(gateway, &mut told).await;
            dev::ended(watching).await;
            Ok(code)
        }
        // Nobody may be there any more who is shown anything.
        Err(error) => {
            gateway.close(GRACE).await;
            Err(error)
        }
    }
}

/// How long what still runs may take when the demo is over.
const GRACE: Duration = Duration::from_secs(5);

/// Makes the project and serves it.
async fn serve(
    context: &Context,
    project: &Path,
    environment: &Environment,
    told: &mut Told,
) -> anyhow::Result<Gateway> {
    init::create(project, "shell", &Credentials::new(environment))?;
    output::remark(context.json, format!("made a project in {}:", project.display()))?;
    output::remark(context.json, "  config.toml               a source `github` with a generated secret")?;
    output::remark(context.json, "  agents/triage/config.toml an agent that wants new issues, and runs")?;
    output::remark(context.json, "                            agents/triage/agent.sh\n")?;
    let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    start(load(project, environment, Some(any_port))?, environment, told).await
}

/// What was shown.
enum Shown {
    /// All there is to show.
    All(ExitCode),
    /// The main job; the gateway serves on, and this says what comes.
    Serving(JoinHandle<()>),
}

async fn show(gateway: &Gateway, context: &Context, args: &DemoArgs, home: &Path) -> anyhow::Result<Shown> {
    let url = gateway.app.local_url();
    output::remark(
        context.json,
        format!("serving it on {url}; sending it a signed `issues.opened`,\nas GitHub would:\n"),
    )?;
    let run = ring_once(gateway, context.json).await?;
    let succeeded = run.state == "succeeded";
    if args.once || !succeeded {
        return Ok(Shown::All(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
    }
    suggest(gateway, &run, home, context.json)?;
    Ok(Shown::Serving(dev::watch(gateway, context.json).await?))
}

/// Sends one signed delivery over HTTP and shows what happens until its run is over.
async fn ring_once(gateway: &Gateway, json: bool) -> anyhow::Result<Run> {
    let client = dev::client(gateway)?;
    let mut activity = client.event_stream(None).await?;
    let in_force = gateway.app.current();
    let source = in_force.config.sources.get("github").context("the demo's source is missing")?;
    let provider: &dyn Provider = source.provider();
    let sample = find_sample(provider.samples(), "issues.opened").context("the demo's sample is missing")?;
    let id = clock::new_id::<doorbell_core::id::OfEvent>().to_string();
    let key = source.keys().first().map(|key| &key.key);
    let signed = provider.sign(key, Unsent::new(&sample.event, sample.body.to_string(), &id, clock::now()));
    let url = format!("{}/webhooks/github", gateway.app.local_url());
    let sent = Sender::new(&url)?.post(&signed.headers, signed.body).await?;
    let receipt = match sent.answer {
        Answer::Receipt(receipt) => receipt,
        other => bail!("the delivery was not accepted: {other:?}"),
    };
    let run = receipt.runs.first().context("the delivery started no run")?;
    tokio::time::timeout(PATIENCE, follow(Live::new(client, json), &mut activity, run))
        .await
        .context("the run did not end in time")?
}

async fn follow<S, E>(mut live: Live, activity: &mut S, run_id: &str) -> anyhow::Result<Run>
where
    S: Stream<Item = Result<Activity, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    while let Some(next) = activity.next().await {
        let next = next?;
        live.say(&next).await?;
        if let Activity::Run { run } = next
            && run.id == run_id
            && run.finished_at.is_some()
        {
            return Ok(run);
        }
    }
    bail!("the gateway ended its stream")
}

/// What to try next. The demo's secret is in a home folder of its own, which the other terminal must be told.
fn suggest(gateway: &Gateway, run: &Run, home: &Path, json: bool) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let [program, root, credentials] =
        [&program, &gateway.app.root, &home.join(".doorbell/credentials")].map(|path| init::quoted(path));
    output::remark(
        json,
        format!(
            "\nIt keeps serving; Ctrl-C ends it and removes the folder.\nIn another terminal, try:\n\
         \n  export DOORBELL_CREDENTIALS_DIR={credentials}\n\
         \x20 cd {root}\n\
         \x20 alias doorbell={program}\n\
         \x20 doorbell why {}\n\
         \x20 doorbell runs show {}\n\
         \x20 doorbell ring github pull_request\n\
         \x20 doorbell ring github issues --tamper\n\
         \x20 doorbell stat\n",
            run.event_id, run.id
        ),
    )?;
    Ok(())
}
