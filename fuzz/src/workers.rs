//! What workers, and agents that took a run, tell: polls, heartbeats, ends and lines, all of them JSON.

use doorbell::dispatch::Told;
use doorbell::ops::leases::{self, Ending};
use doorbell::ops::workers;
use doorbell::store::Lease;
use doorbell_client::api::{Heartbeat, Poll, RunEnd, RunLines};
use doorbell_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Any of it is understood or refused; what is understood reads back, and stays within bounds.
pub(crate) fn workers(data: &[u8]) {
    if let Some(poll) = reads_back::<Poll>(data)
        && let Ok(wish) = workers::understand(poll, "key".to_owned())
    {
        assert!(!wish.agents.is_empty() && wish.agents.is_sorted() && (1..=64).contains(&wish.most), "{wish:?}");
        assert!(wish.wait.as_secs() <= 120 && (1..=3600).contains(&wish.worker.lease.as_secs()), "{wish:?}");
        assert!(!wish.worker.worker.trim().is_empty() && !wish.worker.worker.contains('\n'), "{wish:?}");
    }
    if let Some(heartbeat) = reads_back::<Heartbeat>(data)
        && let Some(lease) = heartbeat.lease.as_ref().and_then(|lease| Lease::from_token(lease.token()))
    {
        assert_eq!(lease.to_token().expose_str().and_then(Lease::from_token), Some(lease));
    }
    if let Some(end) = reads_back::<RunEnd>(data) {
        for ending in [Ending::Complete, Ending::Fail, Ending::Either] {
            match leases::understand(ending, end.clone()) {
                Ok(Told::Completed(result)) => {
                    assert!(ending != Ending::Fail && end.error.is_none());
                    assert!(result.is_none_or(|result| result.len() <= 1024 * 1024));
                }
                Ok(Told::Failed { reason, retry, after }) => {
                    assert!(ending != Ending::Complete && end.result.is_none());
                    assert!(reason.chars().count() <= 1001 && (after.is_none() || retry.is_some()), "{reason}");
                }
                Err(refused) => assert!(!refused.to_string().is_empty()),
            }
        }
    }
    if let Some(lines) = reads_back::<RunLines>(data)
        && let Ok(kept) = workers::read_lines(lines.lines, Timestamp::from_seconds(1_790_000_000), 1)
    {
        assert!(kept.len() <= 1000);
        assert!(kept.iter().all(|line| line.text.len() <= 16 * 1024 * 3 && !line.text.contains(['\n', '\r', '\0'])));
    }
}

/// Not the same to the last bit: numbers with many digits are rounded.
fn reads_back<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let read = serde_json::from_slice::<T>(data).ok()?;
    let text = serde_json::to_string(&read).expect("what is said is JSON");
    assert!(serde_json::from_str::<T>(&text).is_ok(), "{text}");
    Some(read)
}
