//! X's challenge-response check, and why nobody can have an event signed by it.

use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::twitter::Twitter;
use doorbell_core::provider::{Greeting, Provider, Signed, Unsent};
use doorbell_core::source::Source;
use doorbell_core::verify::{Rejection, RejectionCode, verify};
use http::{HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use serde_json::Value;

use super::super::{NOW, SECRET, delivery, refusal, source};
use super::Sender;

const NONE: [(&str, &str); 0] = [];

fn check_at(source: &Source, query: &str) -> Result<String, Rejection> {
    let mut request = Arc::unwrap_or_clone(delivery(&NONE, ""));
    request.method = Method::GET;
    request.url = format!("https://hooks.example.com/webhooks/twitter{query}");
    let greeting = Twitter.greet(source.keys(), &request)?;
    let Some(Greeting::Answer(answer)) = greeting else { panic!("a GET request is always greeted or refused") };
    assert_eq!((answer.status, answer.content_type), (StatusCode::OK, Some("application/json")));
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    Ok(said["response_token"].as_str().unwrap().to_owned())
}

fn check(token: &str) -> Result<String, Rejection> {
    let query = form_urlencoded::Serializer::new("?".to_owned()).append_pair("crc_token", token).finish();
    check_at(&Sender::Twitter.source(), &query)
}

/// Sends `body` with the answer to a check as its signature.
fn replayed(body: &[u8], response: &str) -> Arc<Delivery> {
    delivery(&[("content-type", "application/json"), ("x-twitter-webhooks-signature", response)], body.to_vec())
}

#[test]
fn a_check_is_answered_with_the_first_secret() {
    let both = source(Twitter, &["consumerSecretConsumerSecretConsumerSecret123456789", SECRET]);
    let answer = check_at(&both, "?crc_token=challenge_string&nonce=x");
    assert_eq!(answer.unwrap(), "sha256=C4YsUgw2NPBWWajJWteYSeIE0nXYU/rngdwf3W1J8+k=");
    assert_eq!(
        check("challenge_string").unwrap(),
        check_at(&Sender::Twitter.source(), "?a=b&crc_token=challenge%5Fstring#c").unwrap()
    );
    assert_eq!(Twitter.methods(), [Method::POST, Method::GET]);
}

#[test]
fn a_get_request_that_is_no_check_is_refused() {
    let source = Sender::Twitter.source();
    for (query, code) in [
        ("", RejectionCode::SignatureMissing),
        ("?", RejectionCode::SignatureMissing),
        ("?crc=1", RejectionCode::SignatureMissing),
        ("?crc_token=", RejectionCode::SignatureMismatch),
        ("?crc_token=a&crc_token=a", RejectionCode::SignatureMismatch),
    ] {
        assert_eq!(check_at(&source, query).unwrap_err().code, code, "{query}");
    }
    assert!(check(&"a".repeat(1001)).is_err());
    let post = Sender::Twitter.sends(Sender::Twitter.usual());
    assert!(Twitter.greet(source.keys(), &post).unwrap().is_none(), "only GET requests are checks");
    let unsigned = Source::new("open", Arc::new(Twitter), vec![], true, Default::default()).unwrap();
    assert!(check_at(&unsigned, "?crc_token=a").is_err());
}

#[test]
fn an_event_cannot_be_signed_by_asking_for_a_check() {
    let event = Sender::Twitter.usual();
    // What an attacker wants would be a right signature, …
    let Signed { headers, body } =
        Twitter.sign(Some(&Sender::Twitter.signing_key(false)), Unsent::new("tweet_create_events", event, "1", NOW));
    assert!(verify(&Sender::Twitter.source(), &delivery(&headers, body)).is_ok());
    // … but none of these is answered: plain, behind white space, behind byte order marks, encoded in any way.
    for before in [
        "",
        " ",
        "\t\r\n ",
        "\u{feff}",
        "\u{feff} ",
        " \u{feff}",
        "\u{feff}\u{feff}",
        "\u{a0}",
        "\u{200b}",
        "\0",
        "\u{2028}",
        "\u{fffd}",
    ] {
        let refused = check(&format!("{before}{event}")).unwrap_err();
        assert_eq!(refused.code, RejectionCode::SignatureMismatch, "{before:?}");
    }
    for query in [
        "?crc_token=%7B%22a%22:1%7D",
        "?crc_token={}",
        "?crc_token=+%7b%7d",
        "?%63rc_token=%EF%BB%BF%7B%7D",
        "?crc_token=%ff%7B%7D",
    ] {
        assert!(check_at(&Sender::Twitter.source(), query).is_err(), "{query}");
    }
}

#[test]
fn what_a_check_signs_is_no_event() {
    for token in ["challenge_string", "[{\"a\":1}]", "null", "7", "\"{}\"", "payload={}", "%7B%7D", "a{}"] {
        let response = check(token).unwrap();
        let verified = verify(&Sender::Twitter.source(), &replayed(token.as_bytes(), &response));
        // By X's scheme the answer is a right signature of the token, so the body itself must not be an event.
        assert!(Event::read(&verified.unwrap()).is_err(), "{token}");
        assert_eq!(
            refusal(&Sender::Twitter.source(), &replayed(format!("{{}}{token}").as_bytes(), &response)),
            RejectionCode::SignatureMismatch
        );
    }
}

proptest! {
    #[test]
    fn no_text_is_both_answered_and_an_event(
        token in prop_oneof![any::<String>(), "[ \t\r\n\u{feff}\u{fffd}\u{b}]{0,3}[{\\[\"]?[}\\]\"a:1,{]{0,12}", "\u{feff}{0,2} ?\\{\"[a-z_]{1,8}\":1\\}"],
        form: bool,
    ) {
        let Ok(response) = check(&token) else { return Ok(()) };
        let mut request = Arc::unwrap_or_clone(replayed(token.as_bytes(), &response));
        if form {
            request.headers.insert("content-type", HeaderValue::from_static(super::FORM));
        }
        let verified = verify(&Sender::Twitter.source(), &Arc::new(Delivery { received_at: NOW, ..request })).unwrap();
        prop_assert!(Event::read(&verified).is_err());
    }
}
