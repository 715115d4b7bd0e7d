//! What a stranger, a broken proxy or a strange sender may send to these providers: never a panic, the right refusal.

use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::InvalidKey;
use doorbell_core::secret::Secret;
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::paid::{SIGNING, TOPIC, WEBHOOK, provider, sent, source_of, take};
use super::{NOW, flipped};

struct Case {
    name: &'static str,
    source: Arc<Source>,
    header: HeaderName,
    good: Delivery,
}

fn cases() -> Vec<Case> {
    let case = |(name, secret): (&'static str, &str)| {
        let source = source_of(provider(name), &[secret]);
        let sample = &source.provider().samples()[0];
        let good = sent(&source, &sample.event, sample.body.to_string());
        let header = match name {
            "stripe" => "stripe-signature",
            "linear" => "linear-signature",
            "sentry" => "sentry-hook-signature",
            "mintlify" => "x-mintlify-signature",
            "standard" => "webhook-signature",
            "twilio" => "x-twilio-signature",
            "hubspot" => "x-hubspot-signature-v3",
            _ => panic!("{name}"),
        };
        Case { name, header: HeaderName::from_static(header), good, source }
    };
    SIGNING.into_iter().map(case).collect()
}

fn code(source: &Arc<Source>, delivery: Delivery) -> Option<RejectionCode> {
    verify(source, &Arc::new(delivery)).err().map(|rejection| rejection.code)
}

impl Case {
    fn with(&self, bytes: &[u8]) -> Delivery {
        let mut changed = self.good.clone();
        changed.headers.insert(self.header.clone(), HeaderValue::from_bytes(bytes).unwrap());
        changed
    }

    fn refusal(&self, delivery: Delivery) -> Option<RejectionCode> {
        code(&self.source, delivery)
    }
}

#[test]
fn what_is_good_is_taken_by_any_of_several_secrets_and_by_no_other() {
    for (case, (name, secret)) in cases().iter().zip(SIGNING) {
        assert_eq!(case.refusal(case.good.clone()), None, "{name}");
        let other = match name {
            "standard" => "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "twilio" => "fedcba9876543210fedcba9876543210",
            _ => "another secret",
        };
        let stranger = source_of(provider(name), &[other]);
        assert_eq!(code(&stranger, case.good.clone()), Some(RejectionCode::SignatureMismatch), "{name}");
        let both = source_of(provider(name), &[other, secret]);
        let verified = verify(&both, &Arc::new(case.good.clone())).unwrap();
        assert_eq!(verified.key().unwrap().instance, "1", "{name}");
    }
}

#[test]
fn a_changed_body_is_a_mismatch() {
    for case in cases() {
        for bit in [0, 5, 801] {
            // Elsewhere in a form, a bit can be the case of an escape, which changes nothing.
            let bit = if case.name == "twilio" { bit % 8 } else { bit };
            let body = Bytes::from(flipped(&case.good.body, bit));
            let changed = Delivery { body, ..case.good.clone() };
            assert_eq!(case.refusal(changed), Some(RejectionCode::SignatureMismatch), "{} {bit}", case.name);
        }
        let longer = Delivery { body: [&*case.good.body, b"&x=y"].concat().into(), ..case.good.clone() };
        assert_eq!(case.refusal(longer), Some(RejectionCode::SignatureMismatch), "{}", case.name);
    }
}

#[test]
fn a_missing_doubled_truncated_or_foreign_signature_is_refused() {
    for case in cases() {
        let name = case.name;
        let value = case.good.headers[&case.header].to_str().unwrap().to_owned();
        for empty in [false, true] {
            let mut without = case.good.clone();
            without.headers.remove(&case.header);
            if empty {
                without.headers.insert(case.header.clone(), HeaderValue::from_static(""));
            }
            assert_eq!(case.refusal(without), Some(RejectionCode::SignatureMissing), "{name}");
        }
        let mut doubled = case.good.clone();
        doubled.headers.append(case.header.clone(), value.parse().unwrap());
        assert_eq!(case.refusal(doubled), Some(RejectionCode::SignatureMismatch), "{name}");
        for length in 1..value.len() {
            let refusal = case.refusal(case.with(&value.as_bytes()[..length]));
            assert_eq!(refusal, Some(RejectionCode::SignatureMismatch), "{name} {}", &value[..length]);
        }
        for bad in
            [format!("{value}00"), format!("{value}, {value}"), format!("x{value}"), "=".to_owned(), ",,,,".repeat(900)]
        {
            // These pass over what they do not know, and one of the two is whole.
            let passes = ["stripe", "standard"].contains(&name) && bad.contains(", ");
            let expected = (!passes).then_some(RejectionCode::SignatureMismatch);
            assert_eq!(case.refusal(case.with(bad.as_bytes())), expected, "{name} {bad}");
        }
        for bytes in [&b"\xff\xfe"[..], "é".as_bytes(), b"\x80"] {
            assert_eq!(case.refusal(case.with(bytes)), Some(RejectionCode::SignatureMismatch), "{name}");
        }
    }
}

#[test]
fn hex_in_upper_case_is_the_same_signature_and_base64_is_not() {
    for case in cases() {
        let value = case.good.headers[&case.header].to_str().unwrap().to_owned();
        let upper = match case.name {
            "stripe" => value.rsplit_once('=').map(|(t, hex)| format!("{t}={}", hex.to_uppercase())).unwrap(),
            "standard" => value.rsplit_once(',').map(|(v, base64)| format!("{v},{}", base64.to_uppercase())).unwrap(),
            _ => value.to_uppercase(),
        };
        let in_base64 = ["standard", "twilio", "hubspot"].contains(&case.name);
        let expected = in_base64.then_some(RejectionCode::SignatureMismatch);
        assert_eq!(case.refusal(case.with(upper.as_bytes())), expected, "{}", case.name);
    }
}

#[test]
fn a_signed_time_is_bound_on_both_sides_by_the_tolerance() {
    for case in cases() {
        let Some(tolerance) = case.source.provider().tolerance() else {
            assert!(["sentry", "mintlify", "twilio"].contains(&case.name), "{}", case.name);
            assert!(case.source.provider().with_tolerance(std::time::Duration::ZERO).is_none());
            continue;
        };
        let tolerated = i64::try_from(tolerance.as_secs()).unwrap();
        for (seconds, good) in [(tolerated, true), (tolerated + 1, false), (-tolerated, true), (-tolerated - 1, false)]
        {
            let received_at = Timestamp::from_seconds(NOW.as_seconds() + seconds);
            let outcome = case.refusal(Delivery { received_at, ..case.good.clone() });
            let expected = (!good).then_some(RejectionCode::TimestampOutOfRange);
            assert_eq!(outcome, expected, "{} {seconds}", case.name);
        }
        let other = case.source.provider().with_tolerance(tolerance * 2).unwrap();
        assert_eq!(other.tolerance(), Some(tolerance * 2));
    }
}

#[test]
fn an_empty_secret_is_no_key() {
    for name in SIGNING.map(|(name, _)| name).into_iter().chain(["sns", "paypal"]) {
        for blank in ["", " ", "\n"] {
            let error = provider(name).prepare(&Secret::new(blank)).unwrap_err();
            assert_eq!(error, InvalidKey::Blank, "{name} {blank:?}");
        }
    }
    for blank in ["HMAC_SHA256:", "HMAC_SHA1: "] {
        assert_eq!(provider("twilio").prepare(&Secret::new(blank)).unwrap_err(), InvalidKey::Blank);
    }
}

#[test]
fn bodies_that_are_no_event_are_unreadable_under_a_good_signature() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let bodies =
        [&b""[..], b"null", b"[]", b"7", b"\"x\"", b"{", b"{} {}", b"{\"type\":\"\xff\"}", b"Hello", deep.as_bytes()];
    for case in cases() {
        // Forms, and whatever a sender of Standard Webhooks likes, are read whatever they are.
        if ["twilio", "standard"].contains(&case.name) {
            continue;
        }
        for body in bodies {
            let delivery = sent(&case.source, "issue.created", body.to_vec());
            let verified = verify(&case.source, &Arc::new(delivery)).unwrap();
            let error = Event::read(&verified).unwrap_err();
            assert!(!error.wrong_type, "{} {}", case.name, error.detail);
        }
        let mut form = sent(&case.source, "issue.created", "a=b");
        form.headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let verified = verify(&case.source, &Arc::new(form)).unwrap();
        assert!(Event::read(&verified).unwrap_err().wrong_type, "{}", case.name);
    }
}

#[test]
fn nothing_that_is_signed_makes_reading_panic() {
    let deep = format!("{}null{}", r#"{"data":"#.repeat(10_000), "}".repeat(10_000));
    let odd =
        r#"{"type":"a.b","type":"c.d","data":{"object":7,"id":"cut \ud83d"},"livemode":"no","webhookTimestamp":1e999}"#;
    for case in cases() {
        for body in [deep.as_str(), odd, "{}", "[{}]", "[{\"subscriptionType\":\"a\"},7]", "%", "a=%ff&=&&", "\u{feff}"]
        {
            for method in [http::Method::POST, http::Method::GET] {
                let mut delivery = sent(&case.source, "issue.created", body.to_owned());
                delivery.method = method;
                if let Ok(verified) = verify(&case.source, &Arc::new(delivery)) {
                    let _ = Event::read(&verified);
                }
            }
        }
    }
}

#[test]
fn a_byte_order_mark_changes_nothing() {
    for case in cases() {
        if case.name == "twilio" {
            continue;
        }
        let sample = &case.source.provider().samples()[0];
        let delivery = sent(&case.source, &sample.event, format!("\u{feff}{}", sample.body));
        let verified = verify(&case.source, &Arc::new(delivery)).unwrap();
        let wanted = format!("{}.{}", case.name, sample.event);
        assert_eq!(Event::read(&verified).unwrap()[0].event_type(), wanted);
    }
}

#[test]
fn nothing_is_fetched_for_what_is_not_meant_for_the_source_or_is_broken() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let bodies = [
        &b""[..],
        b"null",
        b"[]",
        b"{",
        b"{}",
        b"\xff",
        b"a=b",
        deep.as_bytes(),
        b"{\"Signature\":7}",
        "\u{feff}{}".as_bytes(),
    ];
    for (name, credential) in [("sns", TOPIC), ("paypal", WEBHOOK)] {
        let source = source_of(provider(name), &[credential]);
        for body in bodies {
            let delivery = sent(&source, "any", body.to_vec());
            let refusal = take(&source, &delivery, Some("no certificate")).unwrap_err();
            assert_eq!(refusal.code, RejectionCode::SignatureMissing, "{name}");
        }
    }
}

proptest! {
    #[test]
    fn no_header_and_no_body_makes_it_panic(value in "(t=|v1=|v1a?,|[0-9a-fA-F]{2}|[A-Za-z0-9+/=, ]){0,12}", body: Vec<u8>) {
        for case in cases() {
            let changed = Delivery { body: body.clone().into(), ..case.with(value.as_bytes()) };
            prop_assert!(case.refusal(changed).is_some());
            let signed = sent(&case.source, "issue.created", body.clone());
            if let Ok(verified) = verify(&case.source, &Arc::new(signed)) {
                let _ = Event::read(&verified);
            }
        }
    }
}
