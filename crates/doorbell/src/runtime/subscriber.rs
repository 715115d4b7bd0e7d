//! What is posted to a subscription of MCP Events (SEP-3415): events, and the question whether its URL wants them. All of it is
//! signed by the Standard Webhooks scheme.
//!
//! Nothing that a receiver says is told to anybody: who subscribes could read with it what only this machine reaches. What is
//! told is one word of a list ([`fault_of`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_client::{Outbound, Posted, Unanswered};
use doorbell_core::id::SubscriptionId;
use doorbell_core::provider::standard::sign_ours;
use doorbell_core::run::Outcome;
use doorbell_core::secret::Secret;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::remote::Answered;
use super::{Ended, Stop};
use crate::clock;
use crate::config::{HttpRuntime, write_duration};

/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 16 * 1024;
/// The longest wait that a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// Names the subscription, so that its receiver finds the secret.
const SUBSCRIPTION: &str = "x-mcp-subscription-id";

/// One delivery of one event.
#[derive(Debug)]
pub struct Delivery {
    /// Where, and how it is signed.
    pub runtime: Arc<HttpRuntime>,
    /// Whose it is.
    pub subscription: SubscriptionId,
    /// How long the receiver may take.
    pub patience: Duration,
    /// The message's id: the event's, the same for every try.
    pub message: String,
    /// What is posted, the same for every try.
    pub body: Bytes,
}

/// Delivers. When `stop` comes first, nobody listens to the answer any more.
pub async fn deliver(delivery: Delivery, outbound: &Outbound, mut stop: watch::Receiver<Option<Stop>>) -> Answered {
    let patience = delivery.patience;
    tokio::select! {
        biased;
        stop = super::stopped(&mut stop) => Ended::without_process(stop.into()).into(),
        posted = post(&delivery, outbound) => judge(posted),
        () = tokio::time::sleep(patience) => {
            let outcome = Outcome::Failed(format!("timed out after {}", write_duration(patience)));
            Ended { ended: "timed_out", ..Ended::without_process(outcome) }.into()
        }
    }
}

/// Asks the receiver whether it wants what the subscription says: it proves that by a nonce, which it sends back.
///
/// # Errors
/// Why it does not, in one word.
pub async fn challenge(delivery: Delivery, nonce: &str, outbound: &Outbound) -> Result<(), &'static str> {
    let body = json!({ "type": "verification", "challenge": nonce }).to_string();
    let (patience, delivery) = (delivery.patience, Delivery { body: body.into(), ..delivery });
    let posted = match tokio::time::timeout(patience, post(&delivery, outbound)).await {
        Ok(Ok(posted)) => posted,
        Ok(Err(unanswered)) => return Err(fault_of(&reason(unanswered))),
        Err(_) => return Err("timeout"),
    };
    if !(200..300).contains(&posted.status) {
        return Err(fault_of(&answered_with(posted.status)));
    }
    let said = posted.body.and_then(|body| serde_json::from_slice::<Value>(&body).ok()).unwrap_or_default();
    let said = said["challenge"].as_str().unwrap_or_default();
    if Secret::new(nonce).equals(said.as_bytes()) { Ok(()) } else { Err("challenge_failed") }
}

/// Tells the receiver something about its subscription. Once: nothing depends on it.
pub async fn tell(delivery: Delivery, outbound: &Outbound) {
    let _ = tokio::time::timeout(delivery.patience, post(&delivery, outbound)).await;
}

async fn post(delivery: &Delivery, outbound: &Outbound) -> Result<Posted, Unanswered> {
    let runtime = &delivery.runtime;
    let headers = headers(delivery);
    let outbound = runtime.connections.as_deref().unwrap_or(outbound);
    outbound.post(&runtime.url, &headers, delivery.body.clone(), LARGEST_ANSWER).await
}

fn headers(delivery: &Delivery) -> Vec<(String, Vec<u8>)> {
    let (runtime, now) = (&delivery.runtime, clock::now());
    let sign = |secret: &Secret| sign_ours(secret, &delivery.message, now, &delivery.body);
    let [id, timestamp, (name, mut signatures)] = sign(&runtime.secret);
    for earlier in runtime.subscriber.iter().flat_map(|subscriber| &subscriber.earlier) {
        let [_, _, (_, signature)] = sign(earlier);
        signatures = format!("{signatures} {signature}");
    }
    let content = ("content-type", "application/json".to_owned());
    let subscription = (SUBSCRIPTION, delivery.subscription.to_string());
    let all = [content, subscription, id, timestamp, (name, signatures)];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect()
}

fn answered_with(status: u16) -> String {
    format!("answered with {status}")
}

fn reason(unanswered: Unanswered) -> String {
    match unanswered {
        Unanswered::Refused(why) => format!("not asked: {why}"),
        Unanswered::Failed(why) | Unanswered::Short(why) => format!("no answer: {why}"),
    }
}

/// What an answer means: every refusal may pass, but for those by which a receiver says that this event is of no use to it.
fn judge(posted: Result<Posted, Unanswered>) -> Answered {
    let posted = match posted {
        Ok(posted) => posted,
        Err(unanswered @ Unanswered::Refused(_)) => {
            return Ended::without_process(Outcome::Refused(reason(unanswered))).into();
        }
        // Nobody was asked, for want of something that this machine may have again.
        Err(Unanswered::Short(why)) => return Ended::without_process(Outcome::NotStarted(why)).into(),
        Err(unanswered) => return Ended::without_process(Outcome::Failed(reason(unanswered))).into(),
    };
    let said = answered_with(posted.status);
    match posted.status {
        200..=299 => Ended::without_process(Outcome::Succeeded).into(),
        410 | 413 => Ended::without_process(Outcome::Refused(said)).into(),
        429 | 500..=599 => Answered {
            ended: Some(Ended::without_process(Outcome::Failed(said))),
            wait: posted.retry_after.map(|wait| wait.min(LONGEST_WAIT)),
            gone: false,
        },
        300..=399 => Ended::without_process(Outcome::Failed(format!("{said}: redirects are not followed"))).into(),
        _ => Ended::without_process(Outcome::Failed(said)).into(),
    }
}

/// Why a delivery failed, in the word that subscribers are told; `reason` is its run's or its try's.
pub fn fault_of(reason: &str) -> &'static str {
    let status = reason.strip_prefix("answered with ").and_then(|rest| rest.as_bytes().first());
    match status {
        Some(b'4') => "http_4xx",
        Some(b'5') => "http_5xx",
        Some(_) => "challenge_failed",
        None if reason.starts_with("timed out") => "timeout",
        None if ["certificate", "tls", "TLS"].iter().any(|word| reason.contains(word)) => "tls_error",
        None => "connection_refused",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Subscriber;
    use doorbell_core::provider::decode_base64;
    use doorbell_core::time::Timestamp;

    fn outcome(status: u16) -> Answered {
        let retry_after = Some(Duration::from_secs(3600));
        judge(Ok(Posted { status, retry_after, content_type: None, body: None }))
    }

    #[test]
    fn what_a_receiver_refuses_for_good_is_not_tried_again_and_all_else_is() {
        for status in [410, 413] {
            assert!(matches!(outcome(status).ended.unwrap().outcome, Outcome::Refused(_)), "{status}");
            assert!(!outcome(status).gone, "the subscription stays");
        }
        for status in [301, 400, 401, 404, 425, 429, 500, 503] {
            assert!(matches!(outcome(status).ended.unwrap().outcome, Outcome::Failed(_)), "{status}");
        }
        assert_eq!(outcome(503).wait, Some(LONGEST_WAIT));
        assert_eq!(outcome(202).ended.unwrap().outcome, Outcome::Succeeded, "there is no callback");
        let short = judge(Err(Unanswered::Short("too many open files".to_owned())));
        assert!(matches!(short.ended.unwrap().outcome, Outcome::NotStarted(_)), "it was not asked");
    }

    #[test]
    fn what_is_told_of_a_failure_is_one_word() {
        for (reason, word) in [
            ("answered with 404", "http_4xx"),
            ("answered with 503", "http_5xx"),
            ("answered with 302: redirects are not followed", "challenge_failed"),
            ("timed out after 10 s", "timeout"),
            ("no answer: invalid peer certificate: UnknownIssuer", "tls_error"),
            ("no answer: tcp connect error", "connection_refused"),
            ("not asked: its address is not in the public internet", "connection_refused"),
        ] {
            assert_eq!(fault_of(reason), word, "{reason}");
        }
    }

    #[test]
    fn a_delivery_is_signed_with_the_secret_and_with_the_one_before_it() {
        let key = |text: &str| Secret::new(decode_base64(text).unwrap());
        let subscription = SubscriptionId::from_bytes([1; 16]);
        let earlier = vec![key("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")];
        let subscriber = Subscriber { id: subscription, earlier, expires_at: Timestamp::from_seconds(0) };
        let runtime = HttpRuntime {
            url: String::new(),
            secret: key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            headers: Vec::new(),
            credentials: Vec::new(),
            connections: None,
            subscriber: Some(subscriber),
        };
        let (runtime, patience) = (Arc::new(runtime), Duration::from_secs(1));
        let (message, body) = ("evt_1".to_owned(), Bytes::from_static(b"{}"));
        let headers = headers(&Delivery { runtime, subscription, patience, message, body });
        let of = |name: &str| {
            let found = headers.iter().find(|(other, _)| other == name).unwrap();
            String::from_utf8(found.1.clone()).unwrap()
        };
        assert_eq!((of("webhook-id"), of(SUBSCRIPTION)), ("evt_1".to_owned(), subscription.to_string()));
        let signatures = of("webhook-signature");
        let both: Vec<&str> = signatures.split(' ').collect();
        assert!(both.len() == 2 && both[0] != both[1] && both.iter().all(|one| one.starts_with("v1,")), "{both:?}");
    }
}
