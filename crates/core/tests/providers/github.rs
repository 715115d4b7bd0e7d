//! GitHub: signatures, headers, bodies.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::{Context, Event};
use doorbell_core::provider::Provider;
use doorbell_core::provider::github::Github;
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, Source};
use doorbell_core::verify::RejectionCode;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{SECRET, flipped, read, refusal, signed, source, verify};

const SIGNATURE: &str = "x-hub-signature-256";

fn github() -> Arc<Source> {
    source(Github, &[SECRET])
}

pub(super) fn event(name: &str, body: impl Into<Bytes>) -> Result<Event, String> {
    let source = github();
    read(&source, &signed(&source, name, body, |_| {})).map_err(|error| error.to_string())
}

fn with(change: impl FnOnce(&mut HeaderMap)) -> (Arc<Source>, Arc<Delivery>) {
    let source = github();
    let delivery = signed(&source, "issues", r#"{"action":"opened"}"#, change);
    (source, delivery)
}

fn form(payload: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("payload", payload).finish()
}

fn is_form(headers: &mut HeaderMap) {
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"));
}

#[test]
fn what_is_wrong_with_a_payload_is_told_without_the_payload() {
    let source = github();
    let said = |body: String| read(&source, &signed(&source, "issues", body, |_| {})).unwrap_err().detail;
    assert_eq!(
        said(format!("\"{}\"", "S".repeat(5000))),
        "the payload: JSON, but not an object, at line 1, column 5002"
    );
    assert_eq!(said("{\"SECRET\" SECRET}".to_owned()), "the payload: not JSON, at line 1, column 11");
}

#[test]
fn a_login_is_ignored_in_any_case_and_as_a_bot() {
    let ignored = |names: &[&str], login: &str| {
        let source = Source::new("hub", Arc::new(Github), Vec::new(), true, Dedup::Id).unwrap();
        let source = source.ignoring(names.iter().map(ToString::to_string).collect());
        let mut context = Context::default();
        context.set("sender", login);
        source.ignored_sender(&context).map(str::to_owned)
    };
    for login in ["my-bot", "My-Bot", "my-bot[bot]", "MY-BOT[Bot]"] {
        assert_eq!(ignored(&["somebody", "My-bot"], login).as_deref(), Some("My-bot"), "{login}");
    }
    for other in ["my-bots", "my-bot[bot]s", "my-bo", "[bot]", "my-bot-[bot]", "é"] {
        assert_eq!(ignored(&["my-bot"], other), None, "{other}");
    }
    assert_eq!(ignored(&["my-bot[bot]"], "my-bot"), None, "a person of that name is somebody else");
}

#[test]
fn a_signature_in_upper_case_is_the_same_signature() {
    let (source, delivery) = with(|headers| {
        let digits = headers[SIGNATURE].to_str().unwrap().replace("sha256=", "").to_uppercase();
        headers.insert(SIGNATURE, format!("sha256={digits}").parse().unwrap());
    });
    assert_eq!(verify(&source, &delivery).unwrap().key().unwrap().instance, "0");
}

#[test]
fn any_secret_of_the_source_verifies() {
    let source = source(Github, &["new", SECRET]);
    let delivery = signed(&github(), "push", "{}", |_| {});
    assert_eq!(verify(&source, &delivery).unwrap().key().unwrap().instance, "1");
}

#[test]
fn a_malformed_signature_is_a_mismatch() {
    let (_, good) = with(|_| {});
    let good = good.headers[SIGNATURE].to_str().unwrap().to_owned();
    let bare = good.replace("sha256=", "");
    let bad = [
        bare.clone(),
        format!("sha1={bare}"),
        format!("sha256={}", &bare[..62]),
        format!("sha256={}", &bare[..63]),
        format!("{good}00"),
        format!("sha256=sha256={bare}"),
        format!("{good}, {good}"),
        format!("sha256=zz{}", &bare[2..]),
        "sha256=".to_owned(),
        "é".to_owned(),
    ];
    for bad in bad {
        let (source, delivery) = with(|headers| {
            headers.insert(SIGNATURE, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
        });
        assert_eq!(refusal(&source, &delivery), RejectionCode::SignatureMismatch, "{bad}");
    }
}

#[test]
fn a_repeated_signature_is_a_mismatch_even_if_both_are_right() {
    let (source, delivery) = with(|headers| {
        let value = headers[SIGNATURE].clone();
        headers.append(SIGNATURE, value);
    });
    assert_eq!(refusal(&source, &delivery), RejectionCode::SignatureMismatch);
}

#[test]
fn no_signature_or_only_the_old_one_is_a_missing_signature() {
    for empty in [None, Some("")] {
        let (source, delivery) = with(|headers| {
            headers.remove(SIGNATURE);
            headers.insert("x-hub-signature", HeaderValue::from_static("sha1=00"));
            headers
                .extend(empty.map(|text| (SIGNATURE.parse::<HeaderName>().unwrap(), HeaderValue::from_static(text))));
        });
        assert_eq!(refusal(&source, &delivery), RejectionCode::SignatureMissing);
    }
}

#[test]
fn a_blank_secret_is_refused() {
    assert!(Github.prepare(&Secret::new(" \n")).is_err());
}

#[test]
fn a_delivery_without_an_id_is_the_same_event_when_it_comes_again() {
    let id_of = |name: &str, body: &str| {
        let source = github();
        let delivery = signed(&source, name, body.to_owned(), |headers| {
            headers.remove("x-github-delivery");
        });
        read(&source, &delivery).unwrap().delivery_id().unwrap().to_owned()
    };
    assert_eq!(id_of("push", "{}"), id_of("push", "{}"));
    assert_ne!(id_of("push", "{}"), id_of("push", "{ }"));
    assert_ne!(id_of("push", "{}"), id_of("fork", "{}"));
}

#[test]
fn what_is_no_event_is_unreadable_and_says_what_to_do() {
    for bad in ["Issues", "issues/x", "a b", &"x".repeat(101)] {
        let (source, delivery) = with(|headers| {
            headers.insert("x-github-event", bad.parse().unwrap());
        });
        assert!(read(&source, &delivery).unwrap_err().detail.contains("`pull_request`"), "{bad}");
    }
    let (source, delivery) = with(|headers| {
        headers.append("x-github-event", HeaderValue::from_static("issues"));
    });
    assert!(read(&source, &delivery).unwrap_err().detail.contains("more than once"));
    let (source, delivery) = with(|headers| {
        headers.remove("x-github-event");
    });
    assert!(read(&source, &delivery).unwrap_err().detail.contains("is missing"));
    let (source, delivery) = with(|headers| {
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
    });
    assert!(read(&source, &delivery).unwrap_err().detail.contains("application/json"));
}

#[test]
fn bodies_that_are_no_json_object_are_unreadable() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for bad in [&b""[..], b"null", b"[]", b"\"x\"", b"{", b"{} {}", b"{\"action\":\"\xff\"}", b"Hello", deep.as_bytes()]
    {
        assert!(event("issues", bad.to_vec()).is_err());
    }
    let source = github();
    assert!(read(&source, &signed(&source, "issues", "other=1", is_form)).unwrap_err().detail.contains("`payload`"));
}

#[test]
fn a_deeply_nested_field_does_no_harm() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for field in ["unknown", "issue", "branches", "ref", "number"] {
        let event = event("issues", format!(r#"{{"{field}":{deep},"action":"opened"}}"#)).unwrap();
        assert_eq!(event.action(), Some("opened"), "{field}");
    }
}

#[test]
fn a_byte_order_mark_is_signed_and_then_skipped() {
    assert_eq!(event("issues", "\u{feff}{\"action\":\"opened\"}").unwrap().action(), Some("opened"));
}

#[test]
fn a_missing_content_type_means_json() {
    let (source, delivery) = with(|headers| {
        headers.remove("content-type");
    });
    assert_eq!(read(&source, &delivery).unwrap().action(), Some("opened"));
}

#[test]
fn a_form_says_the_same_as_json() {
    let source = github();
    for sample in Github.samples() {
        let in_form = read(&source, &signed(&source, &sample.event, form(&sample.body), is_form)).unwrap();
        assert_eq!(in_form.context(), event(&sample.event, sample.body.as_ref()).unwrap().context());
    }
}

proptest! {
    #[test]
    fn a_signed_body_verifies_and_a_changed_one_does_not(body in prop::collection::vec(any::<u8>(), 1..300), bit: usize) {
        let source = github();
        let good = signed(&source, "push", body.clone(), |_| {});
        prop_assert!(verify(&source, &good).is_ok());
        let changed = Arc::new(Delivery { body: flipped(&body, bit).into(), ..Delivery::clone(&good) });
        prop_assert_eq!(refusal(&source, &changed), RejectionCode::SignatureMismatch);
    }

    #[test]
    fn no_bytes_make_it_panic(
        body: Vec<u8>,
        values in prop::collection::vec(("[ -~]{0,80}|sha256=[0-9a-fA-F]{60,66}", any::<Vec<u8>>()), 4),
        raw: bool,
        form: bool,
    ) {
        let mut headers = HeaderMap::new();
        for (name, (text, bytes)) in [SIGNATURE, "x-github-event", "x-github-delivery", "content-type"].iter().zip(values) {
            let value = if raw { HeaderValue::from_bytes(&bytes) } else { HeaderValue::from_str(&text) };
            headers.extend(value.ok().map(|value| (name.parse::<HeaderName>().unwrap(), value)));
        }
        if form {
            is_form(&mut headers);
        }
        let (source, delivery) = with(|_| {});
        let delivery = Delivery { headers, body: body.into(), ..Arc::unwrap_or_clone(delivery) };
        let _ = Github.read(&delivery);
        let _ = Github.verify(source.keys(), &delivery);
    }
}
