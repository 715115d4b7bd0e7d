//! A gateway in this process, whose providers are the tests' own: what no provider that is built in does by itself.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod house;
mod talkative;

use std::time::Duration;

use bytes::Bytes;
use doorbell_client::{Answer, api};
use serde_json::json;

use crate::house::{House, Sign, wait_until};

/// A delivery of the tests' provider.
fn body(fields: &serde_json::Value) -> Bytes {
    Bytes::from(fields.to_string())
}

#[tokio::test]
async fn a_handshake_without_a_signature_is_answered_and_becomes_nothing() {
    let house = House::open("", "true").await;
    let answer = reqwest::get(format!("{}?challenge=abc", house.url())).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, "text/plain"));
    assert_eq!(answer.text().await.unwrap(), "abc");
    let refused = reqwest::get(house.url()).await.unwrap();
    assert_eq!(refused.status().as_u16(), 401, "without a challenge it is a delivery without a signature");
    assert!(house.client.events(&doorbell_client::EventQuery::default()).await.unwrap().events.is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_method_that_the_provider_does_not_have_is_refused_with_those_it_has() {
    let house = House::open("", "true").await;
    let answer = reqwest::Client::new().put(house.url()).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD, POST"));
    let head = reqwest::Client::new().head(format!("{}?challenge=abc", house.url())).send().await.unwrap();
    assert_eq!(head.status().as_u16(), 200);
    house.close().await;
}

#[tokio::test]
async fn a_secret_that_the_sender_shows_is_for_the_owner_only() {
    let house = House::open("", "true").await;
    for secret in ["first", "second"] {
        let shown = house.post(body(&json!({"secret": secret})), Sign::Not).await;
        assert_eq!(shown.0, 200);
    }
    let captured = house.client.captured_secret("talk").await.unwrap();
    assert_eq!((captured.secret.as_str(), captured.remote.as_str()), ("first", "127.0.0.1"));
    let later: Vec<&str> = captured.later.iter().map(|later| later.secret.as_str()).collect();
    assert_eq!(later, ["second"]);
    assert!(
        captured.command.ends_with("--secret --number N | doorbell creds add talk_secret:talk --stdin"),
        "{captured:?}"
    );
    assert!(!format!("{captured:?}").contains("first") && !format!("{captured:?}").contains("second"));
    let file = house.path(".doorbell/captured/talk.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let viewer =
        api::NewKey { name: "looker".to_owned(), role: "viewer".to_owned(), agent: None, expires: None, account: None };
    let key = house.client.create_key(&viewer).await.unwrap().key;
    let viewer = doorbell_client::Client::new(house.client.base_url(), Some(&key)).unwrap();
    assert_eq!(viewer.captured_secret("talk").await.unwrap_err().status(), Some(403));
    // It verifies nothing before it is a credential.
    let signed = house.post(body(&json!({"kind": "x", "id": "1"})), Sign::With("second")).await;
    assert_eq!(signed.0, 401);
    house.client.forget_captured_secret("talk").await.unwrap();
    assert_eq!(house.client.captured_secret("talk").await.unwrap_err().status(), Some(404));
    house.close().await;
}

#[tokio::test]
async fn a_secret_that_a_stranger_shows_later_pushes_out_no_earlier_one() {
    let house = House::open("", "true").await;
    assert_eq!(house.post(body(&json!({"secret": "the provider's"})), Sign::Not).await.0, 200);
    let mut refused = 0;
    for number in 0..30 {
        let (status, _) = house.post(body(&json!({"secret": format!("noise {number}")})), Sign::Not).await;
        refused += u32::from(status == 429);
    }
    assert!(refused >= 23, "{refused}");
    let captured = house.client.captured_secret("talk").await.unwrap();
    assert_eq!((captured.secret.as_str(), captured.later.len()), ("the provider's", 7));
    assert_eq!(std::fs::read_dir(house.path(".doorbell/captured")).unwrap().count(), 1, "one file a source");
    house.client.forget_captured_secret("talk").await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn each_event_of_one_body_starts_its_agent_once() {
    let house = House::open("", "true").await;
    let batch = body(&json!({"batch": [{"kind": "one", "id": "1"}, {"kind": "two", "id": "2"}]}));
    let (_, answer) = house.post(batch.clone(), Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    let types: Vec<&str> = receipt.deliveries.iter().map(|delivery| delivery.event.as_str()).collect();
    assert_eq!(types, ["talk.one", "talk.two"]);
    let runs: Vec<&String> = receipt.deliveries.iter().flat_map(|delivery| &delivery.runs).collect();
    assert!(runs.len() == 2 && runs[0] != runs[1], "{runs:?}");
    let (_, again) = house.post(batch, Sign::Well).await;
    let Answer::Receipt(again) = again else { panic!("{again:?}") };
    assert!(again.deliveries.iter().all(|delivery| delivery.duplicate));
    let all: Vec<&String> = again.deliveries.iter().flat_map(|delivery| &delivery.runs).collect();
    assert_eq!(all, runs);
    for (run, event) in runs.iter().zip(["one", "two"]) {
        let detail = house.finished(run).await;
        assert_eq!(detail.run.event_type, format!("talk.{event}"));
    }
    let (status, _) = house.post(body(&json!({"batch": []})), Sign::Well).await;
    assert_eq!(status, 400, "a batch of nothing is no event");
    house.close().await;
}

#[tokio::test]
async fn a_protocol_is_answered_in_its_own_words() {
    let house = House::open("", "true").await;
    let (status, answer) = house.post(body(&json!({"kind": "spoken", "id": "1"})), Sign::Well).await;
    assert_eq!((status, answer), (202, Answer::Other("started: true".to_owned())));
    let (_, again) = house.post(body(&json!({"kind": "spoken", "id": "1"})), Sign::Well).await;
    assert_eq!(again, Answer::Other("started: true".to_owned()), "also when it is delivered again");
    let nobody = House::open_with("", "events = [\"other\"]", "true").await;
    let (_, answer) = nobody.post(body(&json!({"kind": "spoken", "id": "1"})), Sign::Well).await;
    assert_eq!(answer, Answer::Other("started: false".to_owned()));
    house.close().await;
    nobody.close().await;
}

#[tokio::test]
async fn a_handshake_is_confirmed_after_it_is_stored_and_only_once() {
    let house = House::open("", "true").await;
    let confirm = body(&json!({"kind": "hello", "id": "1", "confirm": house.listener.url()}));
    let (status, _) = house.post(confirm.clone(), Sign::Well).await;
    assert_eq!(status, 200);
    // The first answer is an error, so it is asked again.
    wait_until(async || house.listener.asked().len() >= 2).await;
    for _ in 0..3 {
        assert_eq!(house.post(confirm.clone(), Sign::Well).await.0, 200);
    }
    assert!(house.listener.asked().iter().all(|asked| asked.starts_with("GET /here ")));
    assert_eq!(house.listener.asked().len(), 2);
    house.close().await;
}

#[tokio::test]
async fn who_waits_is_told_how_the_run_ended() {
    let script = "echo '{\"cost\":1,\"text\":\"It is a bug.\"}' > $DOORBELL_OUTPUT_FILE";
    let house = House::open("", script).await;
    let asks = body(&json!({"kind": "asks", "id": "1", "tell": house.listener.url()}));
    let (_, answer) = house.post(asks.clone(), Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    let told = house.told(&receipt.runs[0]).await;
    assert_eq!(told.error, None);
    // The first answer is an error.
    let asked = house.listener.asked();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[1].starts_with("PATCH /here ") && asked[1].ends_with(r#"{"triage":"It is a bug.","ok":true}"#),
        "{asked:?}"
    );
    assert_eq!(house.post(asks, Sign::Well).await.0, 200);
    house.close().await;
}

#[tokio::test]
async fn of_several_agents_of_one_event_only_the_first_that_ends_takes_the_message_that_was_promised() {
    let house = House::open_all(&["one", "two", "three"], "", "", "echo $DOORBELL_AGENT").await;
    let asks = body(&json!({"kind": "asks", "id": "1", "tell": house.listener.url()}));
    let (_, answer) = house.post(asks, Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    assert_eq!(receipt.runs.len(), 3);
    for run in &receipt.runs {
        assert_eq!(house.told(run).await.error, None);
    }
    // The first answer is an error, and nobody overtakes the one who asks again.
    let asked = house.listener.asked();
    let bodies: Vec<&str> = asked.iter().filter_map(|asked| Some(asked.split_once("\r\n\r\n")?.1)).collect();
    let later: Vec<bool> = bodies.iter().map(|body| body.contains(r#""later":true"#)).collect();
    assert_eq!(later, [false, false, true, true], "{bodies:?}");
    for agent in ["one", "two", "three"] {
        let said = format!(r#"{{"{agent}":"{agent}","ok":true"#);
        assert!(bodies.iter().any(|body| body.starts_with(&said)), "{agent}: {bodies:?}");
    }
    house.close().await;
}

#[tokio::test]
async fn who_waits_for_a_run_that_a_full_queue_dropped_is_told_so() {
    let house = House::open("work_queue_size = 1\nwhen_full = \"drop_oldest\"\n", "exec sleep 600").await;
    let ask = async |id: &str| {
        let asks = body(&json!({"kind": "asks", "id": id, "tell": house.listener.url()}));
        let (_, answer) = house.post(asks, Sign::Well).await;
        let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
        receipt.runs[0].clone()
    };
    let running = ask("1").await;
    wait_until(async || house.client.run(&running).await.unwrap().run.state == "running").await;
    let dropped = ask("2").await;
    ask("3").await;
    assert_eq!(house.told(&dropped).await.error, None);
    let asked = house.listener.asked().pop().unwrap();
    let wanted = format!(r#"{{"triage":"It was not started: too much waits already ({dropped}).","ok":false}}"#);
    assert!(asked.ends_with(&wanted), "{asked}");
    house.close().await;
}

#[tokio::test]
async fn a_failure_is_told_without_what_is_inside() {
    let house = House::open("retries = { attempts = 1 }\n", "echo token=hunter2 >&2; exit 3").await;
    let asks = body(&json!({"kind": "asks", "id": "1", "tell": house.listener.url()}));
    let (_, answer) = house.post(asks, Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    house.told(&receipt.runs[0]).await;
    let asked = house.listener.asked().pop().unwrap();
    let wanted = format!(r#"{{"triage":"It failed ({}).","ok":false}}"#, receipt.runs[0]);
    assert!(asked.ends_with(&wanted), "{asked}");
    house.close().await;
}

#[tokio::test]
async fn what_somebody_waits_for_no_longer_is_said_so() {
    let house = House::open("", "echo one; echo two").await;
    let late = json!({"kind": "asks", "id": "1", "tell": house.listener.url(), "until": 1000});
    let (_, answer) = house.post(body(&late), Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    let told = house.told(&receipt.runs[0]).await;
    assert!(told.error.unwrap().starts_with("too late"));
    assert!(house.listener.asked().is_empty());
    let printed = json!({"kind": "asks", "id": "2", "tell": house.listener.url()});
    let (_, answer) = house.post(body(&printed), Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    house.told(&receipt.runs[0]).await;
    assert!(house.listener.asked()[1].ends_with(r#"{"triage":"one\ntwo","ok":true}"#), "{:?}", house.listener.asked());
    house.close().await;
}

#[tokio::test]
async fn a_follow_up_that_was_not_sent_is_sent_by_the_next_start() {
    let mut house = House::open("", "true").await;
    house.listener.refuse(true);
    let asks = body(&json!({"kind": "asks", "id": "1", "tell": house.listener.url()}));
    let (_, answer) = house.post(asks, Sign::Well).await;
    let Answer::Receipt(receipt) = answer else { panic!("{answer:?}") };
    wait_until(async || !house.listener.asked().is_empty()).await;
    house.restart().await;
    house.listener.refuse(false);
    let told = house.told(&receipt.runs[0]).await;
    assert_eq!(told.error, None);
    house.close().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_had_is_no_refusal() {
    let house = House::open("", "true").await;
    for _ in 0..3 {
        let (status, answer) = house.post(body(&json!({"certificate": "http://127.0.0.1:1/"})), Sign::Well).await;
        assert!(matches!(answer, Answer::Problem(problem) if problem.code == "certificate_unavailable"));
        assert_eq!(status, 503);
    }
    let refused = house.client.deliveries("talk", None).await.unwrap().deliveries;
    assert!(refused[0].detail.as_ref().unwrap().contains("only https is asked"), "{refused:?}");
    house.close().await;
}

/// What tests wait for at most.
const PATIENCE: Duration = Duration::from_secs(60);
