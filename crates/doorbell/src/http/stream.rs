//! Server-sent events: what happens in the gateway, and a run's log as it grows.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use doorbell_client::api;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::api::{Named, read_query};
use super::auth::{Introduced, KeyRemoved};
use super::error::Failure;
use crate::app::{App, Caller, Notice, Share, Shares};
use crate::clock;
use crate::ops;

/// Messages on their way to one watcher.
const ON_THE_WAY: usize = 64;
/// Stored events or lines that are read in one go.
const BATCH: usize = 200;
/// How often a log is looked at without being told to.
const LOOK: Duration = Duration::from_secs(1);

/// The watcher is gone, or what it watches has ended.
struct Over;

/// Messages to one watcher, who may see them for as long as the key or token is known that was shown at the start.
struct Messages {
    sender: mpsc::Sender<Event>,
    app: Arc<App>,
    shown: Vec<u8>,
}

impl Messages {
    async fn send(&self, message: Event) -> Result<(), Over> {
        if !self.app.access.knows(&self.shown, clock::now()) {
            return Err(Over);
        }
        self.sender.send(message).await.map_err(|_| Over)
    }
}

/// The place that a watcher goes on from, by `Last-Event-ID`.
fn resumed<T: FromStr>(headers: &HeaderMap) -> Result<Option<T>, Failure> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let place = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    place.map(Some).ok_or_else(|| {
        let detail = "`Last-Event-ID` must be the id of a message of this stream: a number";
        Failure::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    })
}

/// What a stream of activity shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivityQuery {
    /// Log lines, too.
    #[serde(default)]
    logs: bool,
    /// Events after this place, first of all.
    after: Option<i64>,
}

/// What happens. With `Last-Event-ID` (an event's `seq`), events that came since are sent first.
pub(super) async fn stream_activity(
    State(shared): State<Shared>,
    introduced: Introduced,
    KeyRemoved(removed): KeyRemoved,
    headers: HeaderMap,
    query: Result<Query<ActivityQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = read_query(query)?;
    let after = resumed(&headers)?.or(query.after);
    ops::events::check_place(&shared.app, after.unwrap_or(0)).await?;
    let (place, caller) = (take_place(&shared, &introduced)?, introduced.known.caller);
    let watcher = Watcher { shown: introduced.hash, removed, place };
    Ok(send(shared.clone(), watcher, move |messages| async move {
        let _ = watch_activity(&shared, &caller, query.logs, after, &messages).await;
    }))
}

async fn watch_activity(
    shared: &Shared,
    caller: &Caller,
    logs: bool,
    after: Option<i64>,
    messages: &Messages,
) -> Result<(), Over> {
    // Watching begins before the past is read, so that nothing falls between.
    let mut notices = shared.app.activity.watch();
    let mut newest = match after {
        Some(after) => after,
        None => ops::events::newest(&shared.app).await.map_err(|_| Over)?,
    };
    loop {
        // Notices of events come in any order: they only say that there is something to read, in the order of commits.
        newest = send_events(shared, caller, newest, messages).await?;
        loop {
            let notice = match notices.recv().await {
                Ok(Notice::Event(_)) => break,
                Ok(notice) => notice,
                // Missed events are read; missed runs and lines are seen in their own lists.
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Err(Over),
            };
            for activity in tell(shared, caller, logs, notice).await {
                say(messages, &activity).await?;
            }
        }
    }
}

/// Sends the events after a place, in the order of commits; answers the place of the last one.
async fn send_events(shared: &Shared, caller: &Caller, after: i64, messages: &Messages) -> Result<i64, Over> {
    let mut newest = after;
    loop {
        let events = ops::events::since(&shared.app, caller, newest, BATCH).await.map_err(|_| Over)?;
        let last = events.len() < BATCH;
        for event in events {
            newest = event.seq;
            say(messages, &api::Activity::Event { event }).await?;
        }
        if last {
            return Ok(newest);
        }
    }
}

/// A notice as this caller may see it.
async fn tell(shared: &Shared, caller: &Caller, logs: bool, notice: Notice) -> Vec<api::Activity> {
    match notice {
        Notice::Duplicate(id) => {
            let event = ops::events::get(&shared.app, caller, &id.to_string()).await;
            event.map(|event| api::Activity::Duplicate { event }).into_iter().collect()
        }
        Notice::Rejected(rejection) if caller.has_source(&rejection.source) => {
            let delivery = ops::view_rejection(rejection.as_ref().clone());
            vec![api::Activity::Rejected { delivery }]
        }
        Notice::Run(run) if caller.may_see(&run.agent) => {
            vec![api::Activity::Run { run: ops::view_run(run.as_ref().clone()) }]
        }
        Notice::Log { run, after, lines } if logs => {
            let run_id = run.to_string();
            // Lines that cannot be read are seen in the run's log.
            let lines = ops::runs::log(&shared.app, caller, &run_id, after, lines).await.unwrap_or_default();
            lines.into_iter().map(|line| api::Activity::Log { run_id: run_id.clone(), line }).collect()
        }
        Notice::Config(reload) if caller.sees_all() => {
            vec![api::Activity::Config { reload: ops::view_reload(&reload) }]
        }
        Notice::Event(_) | Notice::Rejected(_) | Notice::Run(_) | Notice::Log { .. } | Notice::Config(_) => Vec::new(),
    }
}

async fn say(messages: &Messages, activity: &api::Activity) -> Result<(), Over> {
    let (name, id) = match activity {
        api::Activity::Event { event } => ("event", Some(event.seq)),
        api::Activity::Duplicate { .. } => ("duplicate", None),
        api::Activity::Rejected { .. } => ("rejected", None),
        api::Activity::Run { .. } => ("run", None),
        api::Activity::Log { .. } => ("log", None),
        api::Activity::Config { .. } => ("config", None),
    };
    let message = Event::default().event(name).json_data(activity).map_err(|_| Over)?;
    let message = match id {
        Some(id) => message.id(id.to_string()),
        None => message,
    };
    messages.send(message).await
}

/// Which lines of a log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// Lines after this one; 0: from the first.
    #[serde(default)]
    after: u64,
    /// How many; all of them if nothing is said.
    limit: Option<usize>,
    /// As it grows, to the end of the run.
    #[serde(default)]
    follow: bool,
}

/// What a stream of a run's log says: lines, and at its end the run.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum LogMessage {
    Line(api::LogLine),
    End(Box<api::Run>),
}

/// A run's log: as it is, or (`follow`, or `Accept: text/event-stream`) as it grows, to the end of the run.
pub(super) async fn run_log(
    State(shared): State<Shared>,
    introduced: Introduced,
    KeyRemoved(removed): KeyRemoved,
    Named(id): Named,
    headers: HeaderMap,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = read_query(query)?;
    let wants_stream = headers.get(ACCEPT).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let caller = &introduced.known.caller;
    if !query.follow && !wants_stream {
        let lines = ops::runs::log(&shared.app, caller, &id, query.after, query.limit.unwrap_or(usize::MAX)).await?;
        return Ok(Json(api::Log { lines }).into_response());
    }
    ops::runs::get(&shared.app, caller, &id).await?;
    let after = resumed(&headers)?.unwrap_or(query.after);
    let (place, caller) = (take_place(&shared, &introduced)?, introduced.known.caller);
    let watcher = Watcher { shown: introduced.hash, removed, place };
    Ok(send(shared.clone(), watcher, move |messages| async move {
        let _ = follow_log(&shared, &caller, &id, after, &messages).await;
    }))
}

async fn follow_log(
    shared: &Shared,
    caller: &Caller,
    id: &str,
    mut after: u64,
    messages: &Messages,
) -> Result<(), Over> {
    let mut notices = shared.app.activity.watch();
    loop {
        // The state is read before the lines: once it is final, no line comes after those that are read then.
        let run = ops::runs::get(&shared.app, caller, id).await.map_err(|_| Over)?.run;
        let over = run.finished_at.is_some();
        loop {
            let lines = ops::runs::log(&shared.app, caller, id, after, BATCH).await.map_err(|_| Over)?;
            let last = lines.len() < BATCH;
            for line in lines {
                after = line.n;
                let message = Event::default().event("line").id(line.n.to_string());
                let message = message.json_data(LogMessage::Line(line)).map_err(|_| Over)?;
                messages.send(message).await?;
            }
            if last {
                break;
            }
        }
        if over {
            let message = Event::default().event("end").json_data(LogMessage::End(Box::new(run))).map_err(|_| Over)?;
            return messages.send(message).await;
        }
        wait_for(&mut notices, id).await?;
    }
}

/// Waits for news of a run, or a while.
async fn wait_for(notices: &mut tokio::sync::broadcast::Receiver<Notice>, id: &str) -> Result<(), Over> {
    let news = async {
        loop {
            match notices.recv().await {
                Ok(Notice::Run(run)) if run.id.to_string() == id => return Ok(()),
                Ok(Notice::Log { run, .. }) if run.to_string() == id => return Ok(()),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => return Err(Over),
            }
        }
    };
    tokio::time::timeout(LOOK, news).await.unwrap_or(Ok(()))
}

/// The streams that are open at once, and how many of them one key has open, or one run.
const MOST_STREAMS: usize = 250;
const MOST_STREAMS_OF_ONE: usize = 50;
/// When it is worth while to try again if there are too many.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Places for streams.
pub(super) fn places() -> Arc<Shares> {
    Shares::new(MOST_STREAMS, MOST_STREAMS_OF_ONE)
}

fn take_place(shared: &Shared, introduced: &Introduced) -> Result<Share, Failure> {
    shared.streams.take(&introduced.known.id).ok_or_else(|| {
        let detail = format!("a key may have {MOST_STREAMS_OF_ONE} streams open, and all keys {MOST_STREAMS}");
        Failure::too_many("too_many_streams", detail, TRY_AGAIN)
    })
}

/// Who watches a stream.
struct Watcher {
    /// The hash of the key or token that was shown.
    shown: Vec<u8>,
    /// Is cancelled when the key is removed.
    removed: CancellationToken,
    place: Share,
}

/// Comes back when a key has ended, or a token is dead: nobody tells.
async fn end_of(app: &App, shown: &[u8]) {
    while app.access.knows(shown, clock::now()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// A stream of what `produce` sends, until it returns, the watcher goes, its key is removed or ends, its token dies or the gateway
/// closes.
fn send<P, F>(shared: Shared, Watcher { shown, removed, place }: Watcher, produce: P) -> Response
where
    P: FnOnce(Messages) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, received) = mpsc::channel(ON_THE_WAY);
    let gone = sender.clone();
    let producing = produce(Messages { sender, app: Arc::clone(&shared.app), shown: shown.clone() });
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            () = producing => {}
            () = gone.closed() => {}
            () = removed.cancelled() => {}
            () = end_of(&shared.app, &shown) => {}
            () = shared.closing.cancelled() => {}
        }
    });
    let stream = futures_util::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|message| (Ok::<_, Infallible>(message), received))
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}
