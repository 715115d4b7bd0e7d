//! A secret is changed while its senders send.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorbell_client::api::{self, NewPause, Rotation};
use doorbell_client::{Answer, Sender};
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{accepted, create, path, signed};
use crate::support::{Gateway, Project, wait_until};

/// As many connections, and deliveries on each of them.
const SENDERS: usize = 10;
const EACH: usize = 100;
/// Deliveries before the secret is changed.
const BEFORE: usize = 300;

fn rotation(overlap: &str) -> Rotation {
    Rotation { overlap: Some(overlap.to_owned()), secret: None }
}

async fn rotate(gateway: &Gateway, id: &str, overlap: &str) -> String {
    let rotated = gateway.client.rotate_webhook("quiet", id, &rotation(overlap)).await;
    rotated.unwrap().signing_secret.unwrap()
}

/// Signs with this secret; the status of the answer.
async fn send(sender: &Sender, secret: &str) -> u16 {
    let signed = signed(secret);
    sender.post(&signed.headers, signed.body).await.unwrap().status
}

#[tokio::test]
async fn a_rotation_under_load_refuses_nothing_within_the_overlap_and_all_after_it() {
    let project = Project::new("");
    project.agent("quiet", "scale = 1\nwhen_full = \"grow\"", "true");
    let gateway = project.serve();
    let (made, old) = create(&gateway.client, "quiet", "github").await;
    let id = made.webhook_id.as_str();
    gateway.client.pause(Some("quiet"), &NewPause { why: None }).await.unwrap();
    let senders: Vec<Sender> = (0..SENDERS).map(|_| gateway.sender(&path(id))).collect();
    let (answered, enough) = (AtomicUsize::new(0), Notify::new());
    // What a sender is told of the change, as soon as it is made.
    let newest = Mutex::new(old.clone());
    let (by_old, by_new) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let deliver = async |at: usize, sender: &Sender| {
        for n in 0..EACH {
            let told = newest.lock().unwrap().clone();
            // Every second one takes its time over it.
            let secret = if at.is_multiple_of(2) || n >= EACH - 10 { &told } else { &old };
            if told != old {
                let count = if *secret == old { &by_old } else { &by_new };
                count.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(send(sender, secret).await, 200, "delivery {n} of sender {at}");
            if answered.fetch_add(1, Ordering::Relaxed) + 1 == BEFORE {
                enough.notify_one();
            }
        }
    };
    let change = async {
        enough.notified().await;
        let new = rotate(&gateway, id, "1h").await;
        *newest.lock().unwrap() = new.clone();
        new
    };
    let load = join_all(senders.iter().enumerate().map(|(at, sender)| deliver(at, sender)));
    let (new, _) = futures_util::future::join(change, load).await;
    assert_eq!(answered.into_inner(), SENDERS * EACH);
    let (by_old, by_new) = (by_old.into_inner(), by_new.into_inner());
    assert!(
        new != old && by_old >= 50 && by_new >= 50,
        "after the change: {by_old} by the old one, {by_new} by the new"
    );
    let stored = gateway.client.stats().await.unwrap();
    let queued: u64 = stored.agents.iter().map(|agent| agent.held).sum();
    assert_eq!(queued, (SENDERS * EACH) as u64, "each of them is there: {stored:?}");

    let last = rotate(&gateway, id, "0s").await;
    for secret in [&old, &new] {
        let all = senders.iter().map(async |sender| {
            let mut statuses = Vec::new();
            for _ in 0..EACH / SENDERS {
                statuses.push(send(sender, secret).await);
            }
            statuses
        });
        let statuses = join_all(all).await.concat();
        assert_eq!(statuses, [401; EACH], "every earlier one has ended");
    }
    accepted(&gateway, id, signed(&last)).await;
}

#[tokio::test]
async fn an_overlap_ends_by_itself() {
    let project = Project::new("");
    project.agent("quiet", "when_full = \"grow\"", "true");
    let gateway = project.serve();
    let (made, old) = create(&gateway.client, "quiet", "github").await;
    let new = rotate(&gateway, &made.webhook_id, "300ms").await;
    wait_until("the overlap to end", async || {
        let answer = gateway.send(&path(&made.webhook_id), signed(&old)).await;
        matches!(answer, Answer::Problem(api::Problem { status: 401, .. })).then_some(())
    })
    .await;
    accepted(&gateway, &made.webhook_id, signed(&new)).await;
}
