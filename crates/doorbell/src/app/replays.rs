//! The replays that go on in this gateway.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use doorbell_core::id::ReplayId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What goes on, and how it is ended.
#[derive(Debug, Default)]
pub struct Replays {
    running: Mutex<HashMap<ReplayId, CancellationToken>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Replays {
    /// Carries a replay out beside whoever calls it. `work` gets what tells that somebody ended it; when the gateway
    /// closes, it is left where it is.
    pub fn begin<F: Future<Output = ()> + Send + 'static>(
        &self,
        id: ReplayId,
        work: impl FnOnce(CancellationToken) -> F,
    ) {
        let ended = CancellationToken::new();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, ended.clone());
        let (closing, work) = (self.closing.clone(), work(ended));
        self.tasks.spawn(async move {
            closing.run_until_cancelled(work).await;
        });
    }

    /// Ends a replay; whether it went on here.
    pub fn end(&self, id: ReplayId) -> bool {
        let ended = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        ended.inspect(CancellationToken::cancel).is_some()
    }

    /// Leaves all where they are; the next start goes on with them.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
