//! Senders that are described by the keys of their source.

use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::provider::generic::{Algorithm, Encoding, Generic, GenericOptions, Scheme};
use doorbell_core::provider::{InvalidKey, Provider};
use doorbell_core::secret::Secret;
use doorbell_core::source::Source;
use doorbell_core::verify::RejectionCode;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::{SECRET, as_json, delivery, flipped, read, refusal, signed, source, verify};

const TOKEN: &str = "t0ken";

fn built(options: GenericOptions) -> Generic {
    Generic::new(options).unwrap()
}

fn usual() -> Arc<Source> {
    source(built(GenericOptions::default()), &[SECRET])
}

fn bearer() -> GenericOptions {
    GenericOptions { scheme: Scheme::Bearer, ..GenericOptions::default() }
}

fn context(body: impl Into<bytes::Bytes>, change: impl FnOnce(&mut HeaderMap)) -> serde_json::Value {
    let source = usual();
    as_json(read(&source, &signed(&source, "any", body, change)).unwrap().context())
}

fn is_form(headers: &mut HeaderMap) {
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
}

#[test]
fn the_prefix_is_optional_until_it_is_configured() {
    let strict =
        source(built(GenericOptions { prefix: Some("sha256=".into()), ..GenericOptions::default() }), &[SECRET]);
    let with_prefix = signed(&usual(), "any", "{}", |_| {});
    let without = signed(&usual(), "any", "{}", |headers| {
        let digits = headers["x-webhook-signature"].to_str().unwrap().replace("sha256=", "").to_uppercase();
        headers.insert("x-webhook-signature", digits.parse().unwrap());
    });
    assert!(verify(&usual(), &with_prefix).is_ok() && verify(&usual(), &without).is_ok());
    assert!(verify(&strict, &with_prefix).is_ok());
    assert_eq!(refusal(&strict, &without), RejectionCode::SignatureMismatch);
}

#[test]
fn every_algorithm_and_encoding_verifies_itself_and_no_other() {
    let kinds = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]
        .map(|algorithm| [Encoding::Hex, Encoding::Base64].map(|encoding| (algorithm, encoding)));
    let sources: Vec<_> = kinds
        .as_flattened()
        .iter()
        .map(|(algorithm, encoding)| GenericOptions {
            algorithm: *algorithm,
            encoding: *encoding,
            ..Default::default()
        })
        .map(|options| source(built(options), &[SECRET]))
        .collect();
    for (index, signer) in sources.iter().enumerate() {
        let delivery = signed(signer, "any", "{}", |_| {});
        for (other, verifier) in sources.iter().enumerate() {
            assert_eq!(verify(verifier, &delivery).is_ok(), index == other);
        }
    }
}

#[test]
fn a_missing_signature_is_told_from_a_bad_one() {
    let source = usual();
    assert_eq!(refusal(&source, &delivery::<&str, &str>(&[], "{}")), RejectionCode::SignatureMissing);
    let name = "X-Webhook-Signature";
    assert_eq!(refusal(&source, &delivery(&[(name, "")], "{}")), RejectionCode::SignatureMissing);
    for bad in ["sha256=", "sha1=00", "00", "0", "zz", "é"] {
        assert_eq!(refusal(&source, &delivery(&[(name, bad)], "{}")), RejectionCode::SignatureMismatch, "{bad}");
    }
    let twice = signed(&source, "any", "{}", |headers| {
        let value = headers[name].clone();
        headers.append(name, value);
    });
    assert_eq!(refusal(&source, &twice), RejectionCode::SignatureMismatch);
}

#[test]
fn a_bearer_token_is_compared_whole_and_its_scheme_in_any_case() {
    let source = source(built(bearer()), &["other", TOKEN]);
    for good in ["Bearer t0ken", "bearer t0ken", "BEARER   t0ken"] {
        let verified = verify(&source, &delivery(&[("Authorization", good)], "x")).unwrap();
        assert_eq!(verified.key().unwrap().instance, "1", "{good}");
    }
    for bad in ["Bearer t0ke", "Bearer t0kenn", "Bearer T0ken", "t0ken", "Basic t0ken", "Bearer", "Bearer t0ken t0ken"]
    {
        let delivery = delivery(&[("Authorization", bad)], "x");
        assert_eq!(refusal(&source, &delivery), RejectionCode::SignatureMismatch, "{bad}");
    }
    assert_eq!(refusal(&source, &delivery::<&str, &str>(&[], "x")), RejectionCode::SignatureMissing);
}

#[test]
fn a_token_may_stand_in_a_header_of_its_own_which_is_then_secret() {
    let own = GenericOptions { header: Some("X-Shared-Token".into()), ..bearer() };
    let provider = built(own.clone());
    assert_eq!(provider.secret_headers(), ["x-shared-token"]);
    let source_of_own = source(provider, &[TOKEN]);
    assert!(verify(&source_of_own, &delivery(&[("x-shared-token", TOKEN)], "")).is_ok());
    let prefixed = source(built(GenericOptions { prefix: Some("Token ".into()), ..own }), &[TOKEN]);
    assert!(verify(&prefixed, &delivery(&[("x-shared-token", "Token t0ken")], "")).is_ok());
    assert_eq!(refusal(&prefixed, &delivery(&[("x-shared-token", TOKEN)], "")), RejectionCode::SignatureMismatch);
    for source in [source_of_own, prefixed, source(built(bearer()), &[TOKEN])] {
        assert!(verify(&source, &signed(&source, "any", "{}", |_| {})).is_ok());
    }
}

#[test]
fn secrets_that_could_verify_nothing_or_anything_are_refused() {
    for options in [GenericOptions::default(), bearer()] {
        assert_eq!(built(options).prepare(&Secret::new("\n")).unwrap_err(), InvalidKey::Blank);
    }
    assert!(matches!(built(bearer()).prepare(&Secret::new("a\n")), Err(InvalidKey::Malformed(_))));
}

#[test]
fn options_that_cannot_be_are_named() {
    let bad = |options| Generic::new(options).unwrap_err().to_string();
    let name = || Some("X Signature".to_owned());
    let problem = r#"is not the name of a header: "X Signature""#;
    assert_eq!(bad(GenericOptions { header: name(), ..Default::default() }), format!("`header` {problem}"));
    let id = GenericOptions { delivery_header: name(), ..Default::default() };
    assert_eq!(bad(id), format!("`delivery_header` {problem}"));
    let event = GenericOptions { event_header: name(), ..Default::default() };
    assert_eq!(bad(event), format!("`event_header` {problem}"));
    assert!(bad(GenericOptions { prefix: Some(" v1=".into()), ..Default::default() }).starts_with("`prefix`"));
}

#[test]
fn the_event_is_named_by_header_or_body_or_not_at_all() {
    let event = |options: GenericOptions, headers: &[(&'static str, &'static str)], body: &'static str| {
        let source = source(built(options), &[SECRET]);
        let delivery = signed(&source, "any", body, |map| {
            map.remove("x-event");
            map.extend(
                headers
                    .iter()
                    .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value))),
            );
        });
        read(&source, &delivery).unwrap().event_type()
    };
    let by_header = || GenericOptions { event_header: Some("X-Event".into()), ..Default::default() };
    let usual = GenericOptions::default;
    assert_eq!(event(by_header(), &[("x-event", "paid")], r#"{"event":"b","action":"c"}"#), "generic.paid.c");
    assert_eq!(event(by_header(), &[], r#"{"event":"b"}"#), "generic.b");
    assert_eq!(event(usual(), &[("x-event", "paid")], r#"{"type":"t"}"#), "generic.t");
    assert_eq!(event(usual(), &[], r#"{"event":{"a":1},"type":"t"}"#), "generic.t");
    assert_eq!(event(usual(), &[], r#"{"event":"a\u0000b","action":7}"#), "generic.event");
    for body in ["", "null", "[]", "not json", r#"{"event":"a"#, "{\"event\":\"\u{7f}\"}"] {
        assert_eq!(event(usual(), &[], body), "generic.event", "{body}");
    }
}

#[test]
fn scalars_of_the_top_level_become_context() {
    let long = "x".repeat(4_001);
    let body = json!({"event": "deploy", "action": "done", "ok": true, "count": 3, "ratio": 1.5, "none": null,
        "list": [1], "map": {"event": "no"}, "long": long, "note": "ü".repeat(4_000), "type": "t"});
    let context = context(body.to_string(), |_| {});
    let expected =
        json!({"event": "deploy", "action": "done", "ok": true, "count": 3, "note": "ü".repeat(4_000), "type": "t"});
    assert_eq!(context, expected);
}

#[test]
fn a_body_can_neither_overload_nor_override_the_context() {
    let many = (0..100).map(|index| (format!("f{index:02}"), json!(index))).collect::<serde_json::Map<_, _>>();
    assert_eq!(context(json!(many).to_string(), |_| {}).as_object().unwrap().len(), 33);
    assert_eq!(context(r#"{"event":7,"action":true,"":1,"a\nb":2}"#, |_| {}), json!({"event": "event"}));
}

#[test]
fn json_that_is_called_a_form_is_read_as_json() {
    for body in [r#"{"event":"quick","n":1}"#, " \n{\"event\":\"quick\",\"n\":1}"] {
        assert_eq!(context(body, is_form), json!({"event": "quick", "n": 1}), "as `curl -d` sends it");
    }
    assert_eq!(context("{a}=b&event=c", is_form), json!({"event": "c", "{a}": "b"}), "what is none stays a form");
}

#[test]
fn a_form_says_the_same_as_json_with_texts() {
    let fields = json!({"event": "signup", "action": "done", "plan": "pro & more", "note": "schön"});
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields.as_object().unwrap() {
        form.append_pair(name, value.as_str().unwrap());
    }
    assert_eq!(context(form.finish(), is_form), context(fields.to_string(), |_| {}));
}

#[test]
fn a_byte_order_mark_and_broken_text_do_no_harm() {
    assert_eq!(context("\u{feff}{\"event\":\"a\"}", |_| {})["event"], "a");
    assert_eq!(context(&b"{\"event\":\"\xff\"}"[..], |_| {}), json!({"event": "event"}));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert_eq!(context(format!(r#"{{"event":"a","deep":{deep}}}"#), |_| {}), json!({"event": "a"}));
}

#[test]
fn the_delivery_id_is_the_senders_own() {
    let id = |configured: Option<&str>, headers: &[(&str, &str)]| {
        let options = GenericOptions { delivery_header: configured.map(str::to_owned), ..Default::default() };
        built(options).read(&delivery(headers, "")).unwrap().remove(0).delivery_id
    };
    let both = [("Idempotency-Key", "a"), ("webhook-id", "b")];
    assert_eq!(id(None, &both).as_deref(), Some("a"));
    assert_eq!(id(None, &both[1..]).as_deref(), Some("b"));
    assert_eq!(id(Some("X-Id"), &[("X-Id", "c"), both[0]]).as_deref(), Some("c"));
    assert_eq!(id(Some("X-Id"), &both), None);
    assert_eq!(id(None, &[]), None);
}

#[test]
fn a_delivery_id_that_cannot_be_read_is_an_error() {
    let id = "idempotency-key";
    for headers in
        [&[(id, "dup7"), (id, "dup7")][..], &[("webhook-id", "1"), ("webhook-id", "2")], &[(id, "bestellung-ü")]]
    {
        let unreadable = built(GenericOptions::default()).read(&delivery(headers, "{}")).unwrap_err();
        let start = format!("the header {}, the delivery's id, is ", headers[0].0);
        assert!(unreadable.detail.starts_with(&start), "{unreadable:?}");
    }
}

#[test]
fn every_sample_reads_as_the_event_it_says() {
    let named = GenericOptions { event_header: Some("X-Event".into()), ..GenericOptions::default() };
    for options in [GenericOptions::default(), named, bearer()] {
        let source = source(built(options), &[TOKEN]);
        for sample in source.provider().samples() {
            let event = read(&source, &signed(&source, &sample.event, sample.body.to_string(), |_| {})).unwrap();
            assert_eq!(event.event_type(), format!("generic.{}", sample.event));
            assert_eq!(event.delivery_id(), Some("delivery-1"));
            assert!(event.context().text("url").is_some());
        }
    }
}

proptest! {
    #[test]
    fn a_signed_body_verifies_and_a_changed_one_does_not(body in prop::collection::vec(any::<u8>(), 1..300), bit: usize) {
        let source = usual();
        let good = signed(&source, "any", body.clone(), |_| {});
        prop_assert!(verify(&source, &good).is_ok());
        let changed = Arc::new(Delivery { body: flipped(&body, bit).into(), ..Delivery::clone(&good) });
        prop_assert_eq!(refusal(&source, &changed), RejectionCode::SignatureMismatch);
    }

    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, value: Vec<u8>, tokens: bool, form: bool) {
        let options = if tokens { bearer() } else { GenericOptions::default() };
        let source = source(built(options), &[TOKEN]);
        let mut headers = HeaderMap::new();
        for name in ["authorization", "x-webhook-signature", "idempotency-key", "content-type"] {
            headers.extend(HeaderValue::from_bytes(&value).ok().map(|value| (name.parse::<HeaderName>().unwrap(), value)));
        }
        if form {
            is_form(&mut headers);
        }
        let request = Delivery { headers, body: body.into(), ..Arc::unwrap_or_clone(delivery::<&str, &str>(&[], "")) };
        prop_assert!(source.provider().verify(source.keys(), &request).is_err());
        // Only an id that cannot be read is an error.
        let read = source.provider().read(&request);
        prop_assert!(read.as_ref().map_or_else(|why| why.detail.contains("the delivery's id"), |_| true), "{:?}", read);
    }
}
