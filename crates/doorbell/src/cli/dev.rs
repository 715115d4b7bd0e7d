//! `doorbell dev`: the gateway, with what comes in shown as it happens.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_client::api::Activity;
use doorbell_client::{Client, EventQuery};
use futures_util::{Stream, StreamExt};
use tokio::task::JoinHandle;

use super::context::Context;
use super::failure::Failure;
use super::live::Live;
use super::output::escape_terminal;
use super::serve::{Told, close, load, start, whereabouts};
use super::{DevArgs, doctor, output};
use crate::app::Caller;
use crate::config::Environment;
use crate::gateway::{Gateway, key_file};
use crate::ops;
use crate::telemetry::{self, LogFormat};

/// Between a stream that ended and the next one.
const REOPEN: Duration = Duration::from_millis(500);

type Activities = Box<dyn Stream<Item = Result<Activity, doorbell_client::Error>> + Send + Unpin>;

pub(super) async fn run(context: &Context, args: DevArgs) -> anyhow::Result<ExitCode> {
    let environment = Environment::read();
    // What happens is shown in its own form; of the log, only what is wrong.
    telemetry::open_stdout(context.json);
    telemetry::start_logging(&environment, "error", LogFormat::Text).map_err(Failure::usage)?;
    let config = load(&context.root()?, &environment, args.listen)?;
    let mut told = Told::new(true)?;
    let gateway = start(config, &environment, &mut told).await?;
    introduce(&gateway, &environment, context.json)?;
    let watching = watch(&gateway, context.json).await?;
    told.wait().await;
    let code = close(gateway, &mut told).await;
    ended(watching).await;
    Ok(code)
}

fn introduce(gateway: &Gateway, environment: &Environment, json: bool) -> anyhow::Result<()> {
    output::remark(json, format!("doorbell listens on {}", whereabouts(gateway)))?;
    let owner = Caller::Owner { name: "local".to_owned() };
    for source in ops::agents::sources(&gateway.app, &owner).sources {
        output::remark(json, format!("  {:<16} POST {}", source.name, source.url))?;
    }
    for why in doctor::failing_commands(&gateway.app.current().config, environment.var_os("PATH")) {
        output::note(escape_terminal(&format!("warning: runs would fail now: {why}")));
    }
    output::remark(json, "ring it from another terminal: doorbell ring github issues.opened\n")?;
    Ok(())
}

/// Shows what happens in a gateway of this process, through its own API, for as long as the gateway runs.
pub(super) async fn watch(gateway: &Gateway, json: bool) -> anyhow::Result<JoinHandle<()>> {
    let client = client(gateway)?;
    let newest = client.events(&EventQuery { limit: Some(1), ..EventQuery::default() }).await?;
    let newest = newest.events.first().map_or(0, |event| event.seq);
    let activity = client.event_stream(Some(newest)).await?;
    let app = Arc::clone(&gateway.app);
    Ok(tokio::spawn(async move {
        let mut live = Live::new(client.clone(), json);
        let closing = || app.closing.load(Ordering::Relaxed);
        // Nobody reads any more if it fails.
        let _ = keep_saying(&client, activity, newest, &mut live, closing).await;
    }))
}

/// Waits until what happened is shown, once the gateway is closed; not for long.
pub(super) async fn ended(mut watching: JoinHandle<()>) {
    let _ = tokio::time::timeout(telemetry::LAST_WORDS, &mut watching).await;
    watching.abort();
}

/// Says what happens; where the stream ends or breaks, it goes on after the last event that was seen, unless that is
/// because the gateway closes.
async fn keep_saying<S>(
    client: &Client,
    activity: S,
    mut newest: i64,
    live: &mut Live,
    closing: impl Fn() -> bool,
) -> anyhow::Result<()>
where
    S: Stream<Item = Result<Activity, doorbell_client::Error>> + Send + Unpin + 'static,
{
    let mut activity: Activities = Box::new(activity);
    loop {
        let cause = loop {
            match activity.next().await {
                Some(Ok(next)) => {
                    if let Activity::Event { event } = &next {
                        newest = newest.max(event.seq);
                    }
                    live.say(&next).await?;
                }
                Some(Err(error)) => break error.to_string(),
                None => break "the gateway ended its stream".to_owned(),
            }
        };
        if closing() {
            return Ok(());
        }
        match reopen(client, newest, &cause).await {
            Some(again) => activity = again,
            None => return Ok(()),
        }
    }
}

/// Opens the stream again; none if the gateway is closing, which is when it takes no more connections.
async fn reopen(client: &Client, newest: i64, cause: &str) -> Option<Activities> {
    let mut warned = false;
    loop {
        match client.event_stream(Some(newest)).await {
            Err(error) if error.nobody_listens() => return None,
            // The key was removed.
            Err(error) if error.status() == Some(401) => {
                output::note(format!(
                    "warning: nothing more can be shown: {}",
                    output::escape_terminal(&error.to_string())
                ));
                return None;
            }
            opened => {
                if !warned {
                    let cause = output::escape_terminal(cause);
                    output::note(format!(
                        "warning: {cause}; going on after the last event, runs and lines may be missing"
                    ));
                    warned = true;
                }
                // Not at once: a stream that breaks each time must not keep the gateway busy.
                tokio::time::sleep(REOPEN).await;
                if let Ok(again) = opened {
                    return Some(Box::new(again));
                }
            }
        }
    }
}

/// A client of a gateway of this process.
pub(super) fn client(gateway: &Gateway) -> anyhow::Result<Client> {
    let key = std::fs::read_to_string(key_file(&gateway.app.root))?;
    Ok(Client::new(gateway.app.api_url(), Some(key.trim()))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_stream_of_a_gateway_that_closed_is_not_opened_again() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&format!("http://{free}"), None).unwrap();
        let mut live = Live::new(client.clone(), false);
        keep_saying(&client, futures_util::stream::empty(), 0, &mut live, || false).await.unwrap();
    }
}
