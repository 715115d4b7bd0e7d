//! The replays that go on in this gateway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use doorbell_core::id::ReplayId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What goes on, and how it is ended.
#[derive(Debug, Default)]
pub struct Replays {
    running: Arc<Mutex<HashMap<ReplayId, Going>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Clone, Default)]
struct Going {
    ended: CancellationToken,
    over: CancellationToken,
}

impl Replays {
    /// Carries a replay out beside whoever calls it. `work` gets what tells that somebody ended it; when the gateway
    /// closes, it is left where it is.
    pub fn begin<F: Future<Output = ()> + Send + 'static>(
        &self,
        id: ReplayId,
        work: impl FnOnce(CancellationToken) -> F,
    ) {
        let going = Going::default();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, going.clone());
        let (closing, work, running) = (self.closing.clone(), work(going.ended), Arc::clone(&self.running));
        self.tasks.spawn(async move {
            let _over = going.over.drop_guard();
            closing.run_until_cancelled(work).await;
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }

    /// Ends a replay, and waits until it is over, and all of it is kept. False if it does not go on here.
    pub async fn end(&self, id: ReplayId) -> bool {
        let going = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let Some(Going { ended, over }) = going else { return false };
        ended.cancel();
        over.cancelled().await;
        true
    }

    /// Leaves all where they are; the next start goes on with them.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
