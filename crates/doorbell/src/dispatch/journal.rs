//! The journal: a run's log lines on their way to the store, a batch at a time.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::id::RunId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Notice};
use crate::store::{Error, LogLine};

/// How long lines are gathered before they are stored together.
const GATHER: Duration = Duration::from_millis(40);
/// Lines stored in one go.
const MOST_LINES: usize = 1000;
/// How long to wait before trying again when the store is unavailable.
const RETRY: Duration = Duration::from_millis(500);

/// Stores what comes, until the sender is gone and everything is stored.
///
/// When the store is unavailable it waits, and the agent's pipes fill up behind it: lines are late, not lost, unless the
/// gateway closes meanwhile.
pub(super) async fn keep(app: Arc<App>, run: RunId, mut lines: mpsc::Receiver<LogLine>, closing: CancellationToken) {
    let mut batch = Vec::new();
    while lines.recv_many(&mut batch, MOST_LINES).await > 0 {
        if batch.len() < MOST_LINES && !lines.is_closed() {
            tokio::time::sleep(GATHER).await;
            while batch.len() < MOST_LINES
                && let Ok(line) = lines.try_recv()
            {
                batch.push(line);
            }
        }
        let stored = std::mem::take(&mut batch);
        loop {
            match app.store.append_log(run, stored.clone()).await {
                Ok(last) => {
                    let before = last.saturating_sub(stored.len() as u64);
                    app.activity.tell(|| Notice::Log { run, after: before, lines: stored.len() });
                    break;
                }
                Err(error) => {
                    tracing::error!(%run, error = error.with_causes(), lines = stored.len(), "log.append_failed");
                    if closing.is_cancelled() || matches!(error, Error::Corrupt(_)) {
                        break;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
