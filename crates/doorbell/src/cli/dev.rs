//! `doorbell dev`: the gateway, with what comes in shown as it happens.

use std::process::ExitCode;

use doorbell_client::Client;
use futures_util::StreamExt;

use super::context::Context;
use super::live::Live;
use super::serve::{load, run_until_told, start};
use super::{DevArgs, output};
use crate::app::Caller;
use crate::config::Environment;
use crate::gateway::{Gateway, key_file};
use crate::ops;
use crate::telemetry::{self, LogFormat};

pub(super) async fn run(context: &Context, args: DevArgs) -> anyhow::Result<ExitCode> {
    let environment = Environment::read();
    // What happens is shown in its own form; of the log, only what is wrong.
    telemetry::start_logging(&environment, "error", LogFormat::Text);
    let config = load(&context.root()?, &environment, args.listen)?;
    let gateway = start(config, &environment).await?;
    introduce(&gateway)?;
    let watching = watch(&gateway).await?;
    let code = run_until_told(gateway, true).await;
    watching.abort();
    code
}

fn introduce(gateway: &Gateway) -> anyhow::Result<()> {
    output::line(format!("doorbell listens on {}", gateway.app.local_url()))?;
    let owner = Caller::Owner { name: "local".to_owned() };
    for source in ops::agents::sources(&gateway.app, &owner).sources {
        output::line(format!("  {:<16} POST {}", source.name, source.url))?;
    }
    output::line("ring it from another terminal: doorbell ring github issues.opened\n")?;
    Ok(())
}

/// Shows what happens in a gateway of this process, through its own API.
pub(super) async fn watch(gateway: &Gateway) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let client = client(gateway)?;
    let mut activity = client.event_stream(None).await?;
    Ok(tokio::spawn(async move {
        let mut live = Live::new(client);
        while let Some(Ok(activity)) = activity.next().await {
            if live.say(&activity).await.is_err() {
                return;
            }
        }
    }))
}

/// A client of a gateway of this process.
pub(super) fn client(gateway: &Gateway) -> anyhow::Result<Client> {
    let key = std::fs::read_to_string(key_file(&gateway.app.config.root))?;
    Ok(Client::new(gateway.app.local_url(), Some(key.trim()))?)
}
