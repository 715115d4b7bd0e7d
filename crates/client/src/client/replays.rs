//! Stored events that are carried out once more.

use super::{Client, encode};
use crate::api;
use crate::error::Error;

impl Client {
    /// Replays one event.
    ///
    /// # Errors
    /// 404 if there is no such event, 403 if the own key may not, 410 if what it said is forgotten.
    pub async fn replay_event(&self, id: &str, wish: &api::ReplayWish) -> Result<api::Replayed, Error> {
        self.post(self.url(&["v1", "events", id, "replay"])?, Some(encode(wish)?)).await
    }

    /// What the replay of many events would do.
    ///
    /// # Errors
    /// 400 if the filter says nothing, 403 if the own key may not.
    pub async fn preview_replay(&self, wish: &api::NewReplay) -> Result<api::ReplayPreview, Error> {
        let wish = api::NewReplay { dry_run: true, ..wish.clone() };
        self.post(self.url(&["v1", "replays"])?, Some(encode(&wish)?)).await
    }

    /// Begins to replay many events.
    ///
    /// # Errors
    /// 400 if the filter says nothing, 403 if the own key may not.
    pub async fn start_replay(&self, wish: &api::NewReplay) -> Result<api::Replay, Error> {
        let wish = api::NewReplay { dry_run: false, ..wish.clone() };
        self.post(self.url(&["v1", "replays"])?, Some(encode(&wish)?)).await
    }

    /// The newest replays.
    ///
    /// # Errors
    /// 403 if the own key may not.
    pub async fn replays(&self) -> Result<api::ReplayList, Error> {
        self.get(self.url(&["v1", "replays"])?).await
    }

    /// How a replay stands.
    ///
    /// # Errors
    /// 404 if there is no such replay.
    pub async fn replay(&self, id: &str) -> Result<api::Replay, Error> {
        self.get(self.url(&["v1", "replays", id])?).await
    }

    /// Ends a replay. What it started goes on.
    ///
    /// # Errors
    /// 404 if there is no such replay, 409 if it is over.
    pub async fn cancel_replay(&self, id: &str) -> Result<api::Replay, Error> {
        self.post(self.url(&["v1", "replays", id, "cancel"])?, None).await
    }
}
