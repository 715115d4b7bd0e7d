//! The indexer: has the store index what events say, so that they are found fast.
//!
//! Nothing waits for it: what is not indexed yet is found all the same. It takes small steps with pauses between them, newest
//! events first, and what it did is in the store with what it indexed, so that it goes on after a kill where it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::store::Error;

/// How often it is looked whether enough events came for another step.
const LOOK: Duration = Duration::from_secs(2);
/// How many times as long as a step the pause after it is.
const PAUSE: u32 = 2;

/// Indexes a gateway's store until `closing` is cancelled.
pub fn start(app: Arc<App>, closing: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        closing.run_until_cancelled(go_on(&app)).await;
    })
}

async fn go_on(app: &App) {
    loop {
        if let Err(error) = index_all(app).await {
            tracing::error!(
                error = error.with_causes(),
                "index.failed: it goes on later; until then searches take longer"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn index_all(app: &App) -> Result<(), Error> {
    loop {
        let begun = Instant::now();
        if !app.store.index().await? {
            return Ok(());
        }
        tokio::time::sleep(begun.elapsed() * PAUSE).await;
    }
}
