//! The senders: a steady rate with bursts, on 64 connections, that come again until they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use doorbell_client::{Answer, Sender, api::Receipt};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Key, Provider, Signed, Unsent, find_sample};
use doorbell_core::secret::Secret;
use serde_json::{Value, json};

use crate::ledger::{Answered, Kind, count};
use crate::project::SECRET;
use crate::{Soak, pause};

pub const CONNECTIONS: u32 = 64;
/// Deliveries a second, but for the bursts, in which each connection sends as fast as it is answered.
pub const RATE: u32 = 200;
/// Issues a second: each starts two real processes, and so they are what a machine can carry.
const ISSUES: f64 = 2.0;
/// A burst of one second comes so often.
const BURST_EVERY: u64 = 6;
/// One delivery of so many is sent again on purpose.
const AGAIN: u64 = 16;

pub struct Load {
    soak: Arc<Soak>,
    key: Key,
    issues: AtomicU64,
    sent: AtomicU64,
}

impl Load {
    pub fn new(soak: Arc<Soak>) -> Self {
        let key = Github.prepare(&Secret::new(SECRET)).unwrap();
        Self { soak, key, issues: AtomicU64::new(0), sent: AtomicU64::new(0) }
    }

    /// Sends until it is over.
    pub async fn send(self) {
        let load = Arc::new(self);
        let lanes = (0..CONNECTIONS).map(|lane| tokio::spawn(Arc::clone(&load).send_on_one(lane)));
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.expect("a sender goes on to the end");
        }
    }

    async fn send_on_one(self: Arc<Self>, lane: u32) {
        let pause = Duration::from_secs(1) * CONNECTIONS / RATE;
        let mut next = Instant::now() + pause * lane / CONNECTIONS;
        while !self.soak.is_over() {
            let since = self.soak.begun.elapsed().as_secs();
            if since % BURST_EVERY != BURST_EVERY - 1 {
                next = next.max(Instant::now());
                tokio::time::sleep_until(next.into()).await;
                next += pause;
            }
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            if number % AGAIN == AGAIN - 1 {
                self.send_again().await;
            } else {
                self.send_new().await;
            }
        }
    }

    async fn send_new(&self) {
        let delivery = doorbell::clock::new_id::<doorbell_core::id::OfEvent>().to_string();
        let (kind, sent) = (self.next_kind(), Instant::now());
        let Some(receipt) = self.send_until_answered(kind, &delivery).await else { return };
        count(&self.soak.ledger.accepted);
        let right = receipt.runs.len() >= kind.agents().len();
        self.soak.ledger.check(right, || format!("{kind:?} {delivery} was answered with too few runs: {receipt:?}"));
        let answered = Answered { sent, answered: Instant::now(), kind, receipt };
        self.soak.ledger.known.lock().unwrap().insert(delivery, answered);
    }

    /// What was answered is recognised. Not for those that `third` may have come for since.
    async fn send_again(&self) {
        let Some((delivery, first)) = self.soak.ledger.any(self.soak.retention / 2) else { return };
        if first.kind == Kind::Job {
            return;
        }
        let Some(again) = self.send_until_answered(first.kind, &delivery).await else { return };
        count(&self.soak.ledger.again);
        let same =
            again.duplicate && (&again.delivery_id, &again.runs) == (&first.receipt.delivery_id, &first.receipt.runs);
        // Where the gateway was gone for long, its time may be over.
        self.soak.ledger.check(same || first.sent.elapsed() > self.soak.retention, || {
            format!("{delivery} came again and was answered {again:?}, first {:?}", first.receipt)
        });
    }

    fn next_kind(&self) -> Kind {
        let issues = (self.soak.begun.elapsed().as_secs_f64() * ISSUES) as u64;
        if self.issues.fetch_max(issues, Ordering::Relaxed) < issues {
            Kind::Issue
        } else if doorbell::clock::random::<1>()[0].is_multiple_of(2) {
            Kind::Push
        } else {
            Kind::Job
        }
    }

    /// As senders do: without a 2xx, the same comes again. None where it is over before.
    async fn send_until_answered(&self, kind: Kind, delivery: &str) -> Option<Receipt> {
        let signed = self.sign(kind, delivery);
        loop {
            let gateway = self.soak.gateway().await?;
            let to: &Sender = if kind == Kind::Job { &gateway.lab } else { &gateway.acme };
            let to = to.clone();
            drop(gateway);
            match to.post(&signed.headers, signed.body.clone()).await {
                Ok(sent) => match sent.answer {
                    Answer::Receipt(receipt) => return Some(receipt),
                    _ if sent.status == 503 => {}
                    other => {
                        self.soak.ledger.find(format!("a signed delivery was refused: {other:?}"));
                        return None;
                    }
                },
                Err(_) if self.soak.is_over() => return None,
                Err(_) => {}
            }
            count(&self.soak.ledger.unanswered);
            pause(Duration::from_millis(50)).await;
        }
    }

    fn sign(&self, kind: Kind, delivery: &str) -> Signed {
        if kind == Kind::Job {
            let body = json!({"type": "job", "delivered": delivery, "text": "As people write them. ".repeat(100)});
            let headers = [
                ("content-type", "application/json"),
                ("authorization", &format!("Bearer {SECRET}")),
                ("idempotency-key", delivery),
            ];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            return Signed { headers, body: body.to_string().into() };
        }
        let event = if kind == Kind::Issue { "issues.opened" } else { "push" };
        let sample = find_sample(Github.samples(), event).unwrap();
        let mut body: Value = serde_json::from_str(&sample.body).unwrap();
        body["delivered"] = json!(delivery);
        body["text"] = json!("As people write them. ".repeat(100));
        Github.sign(Some(&self.key), Unsent::new(&sample.event, body.to_string(), delivery, doorbell::clock::now()))
    }
}
