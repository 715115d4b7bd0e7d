//! `events/stream`: events as they come, for as long as the client listens.

use std::time::Duration;

use rmcp::model::{CustomNotification, ErrorData, ServerNotification};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Behind, FORBIDDEN, RESOURCE_EXHAUSTED, millis, occurrence_of, refuse, refused};
use crate::app::Notice;
use crate::app::subscriptions::{MOST_STREAMS_OF_ONE, tenant};
use crate::mcp::Desk;
use crate::ops::subscriptions::is_known;
use crate::ops::subscriptions::reading::Scope;

/// How often a client is told that the stream goes on.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that are read at once.
const STEP: usize = 100;
/// Where each message says which stream it is of.
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// Why a stream ends.
enum Over {
    /// Nobody listens, or the gateway closes.
    Closed,
    /// The key may not listen any more.
    Revoked,
    /// Events cannot be read.
    Failed(ErrorData),
}

/// Streams, and answers when it is over.
pub(super) async fn stream(desk: &Desk, wish: Behind, context: RequestContext<RoleServer>) -> Result<Value, ErrorData> {
    let scope = wish.scope(desk)?;
    let known = &desk.author.known;
    let Some(_place) = desk.app.listeners.streams.take(&tenant(known.account.as_deref(), &known.id)) else {
        let data = json!({ "limit": "streams", "max": MOST_STREAMS_OF_ONE });
        return Err(refuse(RESOURCE_EXHAUSTED, "too many streams are open: poll, or try again later", data));
    };
    let place = scope.begin(&desk.app, wish.cursor.as_deref(), millis(wish.max_age_ms)).await.map_err(refused)?;
    // Watching begins before the past is read, so that nothing falls between.
    let notices = desk.app.activity.watch();
    let id = json!(context.id);
    let mut stream = Stream { desk, scope, context, id: id.clone(), seq: place.seq };
    let over = stream.go_on(place.truncated, notices).await;
    match over {
        Over::Revoked => {
            let error = json!({ "code": FORBIDDEN, "message": "the key may not listen any more" });
            let _ = stream.send("terminated", json!({ "error": error })).await;
        }
        Over::Failed(error) => {
            let _ = stream.send("terminated", json!({ "error": error })).await;
        }
        Over::Closed => {}
    }
    Ok(json!({ "_meta": { SUBSCRIPTION: id } }))
}

struct Stream<'a> {
    desk: &'a Desk,
    scope: Scope,
    context: RequestContext<RoleServer>,
    /// The request's: the stream's name.
    id: Value,
    /// The sequence up to which events were looked at.
    seq: i64,
}

impl Stream<'_> {
    async fn go_on(&mut self, truncated: bool, mut notices: Receiver<Notice>) -> Over {
        let mut heart = tokio::time::interval(HEARTBEAT);
        heart.tick().await;
        let (gone, desk) = (self.context.ct.clone(), self.desk);
        let told = async {
            self.send("active", json!({ "cursor": self.seq.to_string(), "truncated": truncated })).await?;
            loop {
                self.send_all().await?;
                loop {
                    tokio::select! {
                        _ = heart.tick() => self.beat().await?,
                        notice = notices.recv() => match notice {
                            Ok(Notice::Event(_)) | Err(RecvError::Lagged(_)) => break,
                            Ok(_) => {}
                            Err(RecvError::Closed) => return Err(Over::Closed),
                        },
                    }
                }
            }
        };
        tokio::select! {
            told = told => match told {
                Err(over) => over,
                Ok(never) => never,
            },
            () = gone.cancelled() => Over::Closed,
            () = desk.removed.cancelled() => Over::Revoked,
            () = desk.closing.cancelled() => Over::Closed,
        }
    }

    /// Sends what came, in the order of commits.
    async fn send_all(&mut self) -> Result<(), Over> {
        loop {
            let pruned = self.pruned().await?;
            if self.seq < pruned {
                self.seq = pruned;
                self.send("active", json!({ "cursor": pruned.to_string(), "truncated": true })).await?;
            }
            let page = self.scope.page(&self.desk.app, self.seq, STEP).await.map_err(|e| Over::Failed(refused(e)))?;
            if !is_known(&self.desk.app, &self.desk.shown) {
                return Err(Over::Revoked);
            }
            for event in &page.events {
                let mut occurrence = occurrence_of(event);
                occurrence.cursor = Some(event.seq.to_string());
                self.send("event", json!(occurrence)).await?;
            }
            self.seq = page.reached;
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn pruned(&self) -> Result<i64, Over> {
        let swept = self.desk.app.store.swept().await;
        swept.map(|swept| swept.pruned_through).map_err(|error| Over::Failed(refused(error.into())))
    }

    /// A run's token dies with its try, and nobody tells.
    async fn beat(&self) -> Result<(), Over> {
        if !is_known(&self.desk.app, &self.desk.shown) {
            return Err(Over::Revoked);
        }
        self.send("heartbeat", json!({ "cursor": self.seq.to_string() })).await
    }

    async fn send(&self, kind: &str, mut params: Value) -> Result<(), Over> {
        params["_meta"] = json!({ SUBSCRIPTION: self.id });
        let notification = CustomNotification::new(format!("notifications/events/{kind}"), Some(params));
        let sent = self.context.peer.send_notification(ServerNotification::CustomNotification(notification)).await;
        sent.map_err(|_| Over::Closed)
    }
}
