//! Sending: one message to one receiver, and what it said.
//!
//! Why a run failed may quote what it was about. So it is read from the run when a message is sent, and stands in nothing
//! that is stored for sending: when an event is forgotten, nothing of it is left here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_client::Answer;
use doorbell_core::event::OWN;
use doorbell_core::provider::standard::sign_ours;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::message::Message;
use crate::app::App;
use crate::clock;
use crate::config::{Receiver, Topic};
use crate::dispatch::{Cause, Caused, Dispatcher};
use crate::runtime::{self, Guard};
use crate::store::Admission;

/// What sending needs.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) app: Arc<App>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) guard: Arc<Guard>,
    /// The allow-listed environment that commands inherit.
    pub(super) inherited: Vec<(String, OsString)>,
    /// Where commands run: the project's folder.
    pub(super) folder: PathBuf,
    pub(super) closing: CancellationToken,
}

impl Post {
    /// Sends a message, and answers what was said; a command or a URL may take as long as `patience`.
    ///
    /// # Errors
    /// Why it was not taken, in words for people.
    pub(super) async fn send(
        &self,
        message: &Message,
        receiver: &Receiver,
        patience: Duration,
    ) -> Result<String, String> {
        let message = &self.complete(message.clone()).await?;
        match receiver {
            Receiver::Command(command) => self.run(message, command, patience).await,
            Receiver::Url { url, secret } => tokio::select! {
                said = post(message, url, secret, clock::now()) => said,
                () = self.closing.cancelled() => Err("the gateway closes".to_owned()),
                () = tokio::time::sleep(patience) => Err(format!("no answer within {} s", patience.as_secs())),
            },
            Receiver::Agent(agent) => self.start(message, agent).await,
        }
    }

    /// Adds why the last of its dead letters is one, unless that is gone or forgotten.
    async fn complete(&self, mut message: Message) -> Result<Message, String> {
        let last = message.data.runs.last().filter(|_| message.data.on == Topic::DeadLetter);
        if let Some(run) = last.and_then(|run| run.parse().ok())
            && let Some((run, _)) = self.app.store.run(run).await.map_err(|error| error.with_causes())?
            && let Some(reason) = run.reason
        {
            message.data.text = format!("{}: {reason}", message.data.text);
        }
        Ok(message)
    }

    async fn run(&self, message: &Message, command: &[String], timeout: Duration) -> Result<String, String> {
        let errand = runtime::Errand {
            command: command.to_vec(),
            environment: self.inherited.clone(),
            variables: message.variables(),
            folder: self.folder.clone(),
            input: message.body(),
            timeout,
        };
        runtime::run_errand(errand, &self.guard, &self.closing).await
    }

    /// Stores the message as an event that starts the agent: once, however often it is tried.
    async fn start(&self, message: &Message, agent: &str) -> Result<String, String> {
        let in_force = self.app.current();
        let Some(configured) = in_force.config.agents.get(agent) else {
            return Err(format!("there is no agent `{agent}` any more"));
        };
        if configured.scale == 0 {
            // Stored as skipped it would stay so: later tries find what became of the first.
            return Err(format!("agent `{agent}` is disabled: `scale = 0`"));
        }
        let context = message.context();
        let cause = Cause {
            kind: OWN,
            event: message.data.on.as_str().to_owned(),
            action: context.text("action").map(ToOwned::to_owned),
            key: format!("notification:{}:{agent}", message.id),
            id: Some(message.id.clone()),
            context,
            body: message.body(),
            admission: Admission::Grow,
            attach: None,
        };
        let caused = self.dispatcher.start_agent(agent, cause).await.map_err(|error| error.with_causes())?;
        let Some(Caused { event, outcome: Some(outcome), .. }) = caused else {
            return Err("it was not started".to_owned());
        };
        match outcome.run {
            Some(run) => Ok(format!("{run} started by {event}")),
            None => Err(outcome.reason.unwrap_or("it was not started".to_owned())),
        }
    }
}

/// Posts a message, signed by the Standard Webhooks scheme
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
async fn post(message: &Message, url: &str, secret: &Secret, now: Timestamp) -> Result<String, String> {
    let body = message.body();
    let sender = doorbell_client::Sender::new(url).map_err(|_| "its URL cannot be used".to_owned())?;
    let proof = sign_ours(secret, &message.id, now, &body).map(|(name, value)| (name.to_owned(), value));
    let content_type = ("content-type".to_owned(), "application/json".to_owned());
    let headers: Vec<(String, String)> = std::iter::once(content_type).chain(proof).collect();
    // The URL may be a secret, so neither it nor an error that names it is said.
    let sent = sender.post(&headers, Bytes::from(body)).await.map_err(|error| match error {
        doorbell_client::Error::Unreachable { source, .. } => {
            let causes = std::iter::successors(Some(&source as &dyn std::error::Error), |error| error.source());
            format!("it cannot be reached: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
        }
        _ => "it cannot be asked".to_owned(),
    })?;
    let said = match &sent.answer {
        Answer::Other(text) if !text.is_empty() => format!("{}: {text}", sent.status),
        Answer::Problem(problem) => format!("{}: {}", sent.status, problem.detail),
        _ => sent.status.to_string(),
    };
    match sent.status {
        200..=299 => Ok(said),
        300..=399 => Err(format!("{said} (redirects are not followed: name the URL that they lead to)")),
        _ => Err(said),
    }
}
