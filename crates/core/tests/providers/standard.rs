//! Standard Webhooks: facts that the official libraries made, and what they say nothing about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::delivery::Delivery;
use doorbell_core::provider::standard::Standard;
use doorbell_core::provider::{InvalidKey, Provider};
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::{Fact, NOW, as_json, delivery, flipped, read, refusal, signed, source};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn at(delivery: &Arc<Delivery>, seconds: i64) -> Arc<Delivery> {
    Arc::new(Delivery { received_at: Timestamp::from_seconds(seconds), ..Delivery::clone(delivery) })
}

fn usual(secrets: &[&str]) -> Arc<doorbell_core::source::Source> {
    source(Standard::default(), secrets)
}

fn event(body: &str, change: impl FnOnce(&mut HeaderMap)) -> String {
    let source = usual(&[OLD]);
    let delivery = signed(&source, "any", body.to_owned(), |headers| {
        headers.remove("webhook-event");
        change(headers);
    });
    read(&source, &delivery).unwrap().event_type()
}

#[test]
fn what_the_official_libraries_sign_is_taken_and_what_they_refuse_is_not() {
    let facts: Vec<Fact> = serde_json::from_str(include_str!("../vectors/standard.json")).unwrap();
    assert_eq!(facts.len(), 59);
    let mut made_by: BTreeMap<String, usize> = BTreeMap::new();
    for fact in facts {
        let Fact { why, scheme, .. } = &fact;
        let what = format!("{scheme}: {why}");
        *made_by.entry(fact.provider.clone()).or_default() += 1;
        let key = Standard::default().prepare(&Secret::new(fact.secret.as_str()));
        if why.contains("secret_not_base64") || why.contains("empty_configured") {
            assert!(key.is_err() && !fact.valid, "{what}");
            continue;
        }
        let source = usual(&[&fact.secret]);
        let headers: Vec<_> = fact.headers.iter().collect();
        let outcome = verify(&source, &at(&delivery(&headers, fact.body.clone()), fact.now.unwrap()));
        let expected = match () {
            () if fact.valid => None,
            () if why.starts_with("missing") => Some(RejectionCode::SignatureMissing),
            () if why.contains("timestamp:") || why.contains("sig_stale") => Some(RejectionCode::TimestampOutOfRange),
            () => Some(RejectionCode::SignatureMismatch),
        };
        assert_eq!(outcome.err().map(|rejection| rejection.code), expected, "{what}");
    }
    assert_eq!(made_by.len(), 5, "{made_by:?}");
}

#[test]
fn one_part_without_the_others_is_a_missing_signature() {
    let source = usual(&[OLD]);
    for part in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let without = signed(&source, "any", "{}", |headers| drop(headers.remove(part)));
        assert_eq!(refusal(&source, &without), RejectionCode::SignatureMissing, "{part}");
        let empty = signed(&source, "any", "{}", |headers| {
            headers.insert(part, HeaderValue::from_static(""));
        });
        assert_eq!(refusal(&source, &empty), RejectionCode::SignatureMissing, "{part}");
        let twice = signed(&source, "any", "{}", |headers| {
            let value = headers[part].clone();
            headers.append(part, value);
        });
        assert_eq!(refusal(&source, &twice), RejectionCode::SignatureMismatch, "{part}");
    }
}

#[test]
fn whatever_is_malformed_is_a_mismatch() {
    let source = usual(&[OLD]);
    let good = signed(&source, "any", "{}", |_| {});
    let signature = good.headers["webhook-signature"].to_str().unwrap().to_owned();
    let bare = signature.trim_start_matches("v1,");
    for bad in [
        bare.to_owned(),
        format!("v1={bare}"),
        format!("V1,{bare}"),
        format!("v1a,{bare}"),
        format!("v1, {bare}"),
        format!("{signature},{bare}"),
        format!("{signature}="),
        signature.trim_end_matches('=').to_owned(),
        "v1,".to_owned(),
        ",".to_owned(),
        "v1,\u{e9}".to_owned(),
        "v1,AAAA ".repeat(2000),
    ] {
        let changed = signed(&source, "any", "{}", |headers| {
            headers.insert("webhook-signature", HeaderValue::from_bytes(bad.as_bytes()).unwrap());
        });
        assert_eq!(refusal(&source, &changed), RejectionCode::SignatureMismatch, "{bad}");
    }
    let several = signed(&source, "any", "{}", |headers| {
        let several = format!("v1,AAAA  v9,x nonsense {signature}");
        headers.insert("webhook-signature", several.parse().unwrap());
    });
    assert!(verify(&source, &several).is_ok());
}

#[test]
fn a_time_that_is_no_number_of_seconds_is_refused_under_a_good_signature() {
    let source = usual(&[OLD]);
    for bad in ["1790000000.0", "+1790000000", "-1", "0x6ab1", "1790000000s", "99999999999999999999", "١٧٩"] {
        let id = "msg_1";
        let mac = source.keys()[0].key.mac(&[id.as_bytes(), b".", bad.as_bytes(), b".", b"{}"]).unwrap();
        let proof = format!("v1,{}", doorbell_core::provider::encode_base64(mac.as_ref()));
        let headers = [("webhook-id", id), ("webhook-timestamp", bad), ("webhook-signature", &*proof)];
        assert_eq!(refusal(&source, &delivery(&headers, "{}")), RejectionCode::SignatureMismatch, "{bad}");
    }
}

#[test]
fn the_tolerance_of_the_source_holds_both_ways_and_only_under_a_good_signature() {
    let narrow = source(Standard { tolerance: Duration::from_secs(10) }, &[OLD]);
    let delivery = signed(&narrow, "any", "{}", |_| {});
    let now = NOW.as_seconds();
    for (second, good) in [(-11, false), (-10, true), (0, true), (10, true), (11, false)] {
        let outcome = verify(&narrow, &at(&delivery, now + second));
        assert_eq!(
            outcome.err().map(|rejection| rejection.code),
            (!good).then_some(RejectionCode::TimestampOutOfRange)
        );
    }
    let forged = usual(&[NEW]);
    assert_eq!(refusal(&forged, &at(&delivery, now + 100_000)), RejectionCode::SignatureMismatch);
    let old = verify(&narrow, &at(&delivery, now + 500)).unwrap_err().detail;
    assert!(old.contains("is 500 seconds old, and 10 are tolerated"), "{old}");
    let ahead = verify(&narrow, &at(&delivery, now - 500)).unwrap_err().detail;
    assert!(ahead.contains("is 500 seconds ahead of this machine's clock"), "{ahead}");
}

#[test]
fn during_a_change_of_secrets_either_one_verifies_and_is_named() {
    let both = usual(&[NEW, OLD]);
    for (secret, named) in [(OLD, "1"), (NEW, "0")] {
        let delivery = signed(&usual(&[secret]), "any", "{}", |_| {});
        assert_eq!(verify(&both, &delivery).unwrap().key().unwrap().instance, named);
    }
    // A sender that changes its own secret signs with both.
    let twice = signed(&usual(&[OLD]), "any", "{}", |headers| {
        let by_new = signed(&usual(&[NEW]), "any", "{}", |_| {}).headers["webhook-signature"].clone();
        let both = [headers["webhook-signature"].to_str().unwrap(), by_new.to_str().unwrap()].join(" ");
        headers.insert("webhook-signature", both.parse().unwrap());
    });
    assert_eq!(verify(&both, &twice).unwrap().key().unwrap().instance, "0", "the first one of the source");
}

#[test]
fn secrets_are_taken_as_they_are_pasted_and_others_said_to_be_wrong() {
    let standard = Standard::default();
    let bare = OLD.trim_start_matches("whsec_");
    let delivery = signed(&usual(&[OLD]), "any", "{}", |_| {});
    for pasted in [OLD.to_owned(), bare.to_owned(), format!("  {OLD}\n")] {
        assert!(verify(&usual(&[&pasted]), &delivery).is_ok(), "{pasted:?}");
    }
    assert!(standard.prepare(&Secret::new("whsec_YQ")).is_ok(), "without its padding");
    for blank in ["", " \n", "whsec_"] {
        assert_eq!(standard.prepare(&Secret::new(blank)).unwrap_err(), InvalidKey::Blank, "{blank:?}");
    }
    for wrong in ["whsec_***", "my secret", "whsec_YQ YQ", "whpk_1SiA4o9h", "whsk_6Xb/dCcH", "whsec_whsec_YQ=="] {
        let error = standard.prepare(&Secret::new(wrong)).unwrap_err();
        assert!(matches!(error, InvalidKey::Malformed(_)), "{wrong}");
        assert!(!error.to_string().contains(wrong), "the secret is not shown");
    }
    assert!(standard.prepare(&Secret::new(b"\xff\xfe".to_vec())).is_err());
}

#[test]
fn the_event_is_named_by_header_or_body_or_not_at_all() {
    let header = |name: &'static str| {
        move |headers: &mut HeaderMap| {
            headers.insert("webhook-event", HeaderValue::from_static(name));
        }
    };
    assert_eq!(event(r#"{"type":"user.created","event":"e","action":"a"}"#, |_| {}), "standard.user.created");
    assert_eq!(event(r#"{"type":"user.created"}"#, header("user.deleted")), "standard.user.deleted");
    assert_eq!(event(r#"{"type":"user.created"}"#, header("")), "standard.user.created");
    for body in ["", "[]", "not json", r#"{"type":7}"#, r#"{"type":""}"#, "{\"type\":\"a\\u0000\"}"] {
        assert_eq!(event(body, |_| {}), "standard.event", "{body}");
    }
    assert_eq!(event("\u{feff}{\"type\":\"a\"}", |_| {}), "standard.a");
}

#[test]
fn the_id_makes_a_delivery_the_same_in_either_family() {
    let source = usual(&[OLD]);
    let usual = signed(&source, "any", r#"{"type":"a","object":"event","data":{}}"#, |_| {});
    let svix = signed(&source, "any", r#"{"type":"a"}"#, |headers| {
        for part in ["id", "timestamp", "signature"] {
            let value = headers.remove(format!("webhook-{part}")).unwrap();
            headers.insert(http::HeaderName::try_from(format!("svix-{part}")).unwrap(), value);
        }
        // Not signed, so not believed.
        headers.insert("webhook-id", HeaderValue::from_static("msg_other"));
    });
    for delivery in [&usual, &svix] {
        let event = read(&source, delivery).unwrap();
        assert_eq!(event.delivery_id(), Some("msg_delivery-1"));
        assert_eq!(event.delivery_keys(), ["id:msg_delivery-1"]);
        assert!(!event.is_handshake());
    }
    let context = as_json(read(&source, &usual).unwrap().context());
    assert_eq!(context, json!({"event": "any", "type": "a", "object": "event"}));
}

#[test]
fn every_sample_says_its_own_name() {
    let source = usual(&[OLD]);
    for sample in Standard::default().samples() {
        let delivery =
            signed(&source, &sample.event, sample.body.to_string(), |headers| drop(headers.remove("webhook-event")));
        assert_eq!(read(&source, &delivery).unwrap().name(), sample.event);
    }
}

proptest! {
    #[test]
    fn one_other_bit_anywhere_is_a_mismatch(body in prop::collection::vec(any::<u8>(), 1..200), bit: usize) {
        let source = usual(&[OLD]);
        let good = signed(&source, "any", body.clone(), |_| {});
        prop_assert!(verify(&source, &good).is_ok());
        let changed = Delivery { body: flipped(&body, bit % (body.len() * 8)).into(), ..Delivery::clone(&good) };
        prop_assert_eq!(refusal(&source, &Arc::new(changed)), RejectionCode::SignatureMismatch);
    }

    #[test]
    fn no_header_makes_it_panic(id in ".{0,40}", timestamp in "[0-9.+-]{0,25}", signature in "(v1,|v1a,|[A-Za-z0-9+/=, ]){0,20}") {
        let headers = [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
        let headers: Vec<_> = headers.into_iter().filter(|(_, value)| HeaderValue::from_str(value).is_ok()).collect();
        let outcome = verify(&usual(&[OLD]), &delivery(&headers, "body"));
        prop_assert!(outcome.is_err());
    }
}
