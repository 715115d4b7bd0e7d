//! Slack, Discord and X: what strangers may send, and what a right signature does not make readable.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::Key;
use doorbell_core::secret::Secret;
use doorbell_core::verify::{RejectionCode, verify};
use http::HeaderValue;
use proptest::prelude::*;

use super::super::{NOW, flipped, refusal};
use super::{SENDERS, Sender, changed};

#[test]
fn a_wrong_secret_and_a_changed_body_are_mismatches() {
    for sender in SENDERS {
        let (source, time) = (sender.source(), NOW.as_seconds().to_string());
        let body = sender.usual().as_bytes();
        let wrong = sender.sends_at(&sender.signing_key(true), &time, "application/json", body);
        assert_eq!(refusal(&source, &wrong), RejectionCode::SignatureMismatch, "{sender:?}");
        let good = sender.sends(body);
        for bit in 0..body.len() * 8 {
            let tampered = Arc::new(Delivery { body: flipped(body, bit).into(), ..Delivery::clone(&good) });
            assert_eq!(refusal(&source, &tampered), RejectionCode::SignatureMismatch, "{sender:?}");
        }
    }
}

#[test]
fn a_time_outside_of_the_window_is_refused_and_says_so_only_under_a_right_signature() {
    for sender in [Sender::Slack, Sender::Discord] {
        let source = sender.source();
        let (key, other) = (sender.signing_key(false), sender.signing_key(true));
        let window = i64::try_from(sender.provider().tolerance().unwrap().as_secs()).unwrap();
        let at = |key: &Key, time: String| sender.sends_at(key, &time, "application/json", sender.usual().as_bytes());
        for distance in [0, window, -window] {
            let time = (NOW.as_seconds() + distance).to_string();
            assert!(verify(&source, &at(&key, time)).is_ok(), "{sender:?} {distance}");
        }
        for distance in [window + 1, -window - 1, 86_400 * 365, -NOW.as_seconds()] {
            let time = (NOW.as_seconds() + distance).to_string();
            assert_eq!(refusal(&source, &at(&key, time.clone())), RejectionCode::TimestampOutOfRange, "{sender:?}");
            assert_eq!(refusal(&source, &at(&other, time)), RejectionCode::SignatureMismatch, "{sender:?}");
        }
        for odd in ["now", "1e9", "-5", "1790000000.0", "99999999999999999999"] {
            assert_eq!(refusal(&source, &at(&key, odd.to_owned())), RejectionCode::SignatureMismatch, "{odd}");
        }
        let wider = sender.provider().with_tolerance(Duration::from_secs(86_400)).unwrap();
        assert_eq!(wider.tolerance().unwrap().as_secs(), 86_400);
        assert!(wider.verify(source.keys(), &at(&key, (NOW.as_seconds() - 86_400).to_string())).is_ok());
    }
    assert!(Sender::Twitter.provider().tolerance().is_none());
}

#[test]
fn a_missing_header_is_a_missing_signature_and_a_doubled_one_a_mismatch() {
    for sender in SENDERS {
        let (source, good) = (sender.source(), sender.sends(sender.usual()));
        for name in [Some(sender.signature_header()), sender.time_header()].into_iter().flatten() {
            let without = changed(&good, |headers| drop(headers.remove(name)));
            assert_eq!(refusal(&source, &without), RejectionCode::SignatureMissing, "{sender:?} {name}");
            let empty = changed(&good, |headers| drop(headers.insert(name, HeaderValue::from_static(" "))));
            assert_eq!(refusal(&source, &empty), RejectionCode::SignatureMissing, "{sender:?} {name}");
            let twice = changed(&good, |headers| {
                let value = headers[name].clone();
                headers.append(name, value);
            });
            assert_eq!(refusal(&source, &twice), RejectionCode::SignatureMismatch, "{sender:?} {name}");
        }
    }
}

#[test]
fn a_malformed_signature_is_a_mismatch_and_the_case_of_hex_does_not_matter() {
    for sender in SENDERS {
        let (source, good) = (sender.source(), sender.sends(sender.usual()));
        let name = sender.signature_header();
        let right = good.headers[name].to_str().unwrap().to_owned();
        let (prefix, bare) = right.split_at(right.find('=').filter(|at| *at < 8).map_or(0, |at| at + 1));
        let with = |value: &[u8]| {
            changed(&good, |headers| drop(headers.insert(name, HeaderValue::from_bytes(value).unwrap())))
        };
        let mut bad: Vec<Vec<u8>> = vec![
            right[..right.len() - 1].into(),
            right[..right.len() - 2].into(),
            right[..right.len() / 2].into(),
            format!("{right}00").into(),
            format!("{right}, {right}").into(),
            format!("{right},{right}").into(),
            format!("{prefix}{prefix}{bare}x").into(),
            format!("{prefix}zz{}", &bare[2..]).into(),
            "0".repeat(right.len()).into(),
            "é".into(),
            b"\xff\xfe".to_vec(),
            b"=".to_vec(),
        ];
        if !prefix.is_empty() {
            bad.push(bare.into());
            bad.push(prefix.into());
            bad.push(format!("{prefix} {bare}").into());
            bad.push(right.to_uppercase().into());
        }
        for bad in bad {
            let shown = String::from_utf8_lossy(&bad).into_owned();
            assert_eq!(refusal(&source, &with(&bad)), RejectionCode::SignatureMismatch, "{sender:?} {shown}");
        }
        let upper = with(format!("{prefix}{}", bare.to_uppercase()).as_bytes());
        assert_eq!(verify(&source, &upper).is_ok(), sender != Sender::Twitter, "{sender:?}");
    }
}

#[test]
fn an_empty_secret_is_no_key() {
    for sender in SENDERS {
        for blank in ["", " ", "\n\t"] {
            assert!(sender.provider().prepare(&Secret::new(blank)).is_err(), "{sender:?}");
            assert!(sender.provider().prepare_signing(&Secret::new(blank)).is_err(), "{sender:?}");
        }
    }
}

#[test]
fn bodies_that_say_nothing_are_unreadable() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let deep_object = r#"{"a":"#.repeat(10_000) + "1" + &"}".repeat(10_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"7",
        b"\"text\"",
        b"{",
        b"{}{}",
        b"{\"type\":\"\xff\"}",
        b"payload=%7B%7D",
        deep.as_bytes(),
        b"\xef\xbb\xbf",
    ];
    for sender in SENDERS {
        for body in bodies {
            assert!(!sender.unreadable(&sender.sends(body)), "{sender:?} {}", String::from_utf8_lossy(body));
        }
        // An object that says nothing we know is an event of X, named as well as it can be.
        let unknown = Event::read(&verify(&sender.source(), &sender.sends(&deep_object)).unwrap());
        assert_eq!(unknown.is_ok(), sender == Sender::Twitter, "{sender:?}");
        let time = NOW.as_seconds().to_string();
        let text = sender.sends_at(&sender.signing_key(false), &time, "text/plain", sender.usual().as_bytes());
        assert!(sender.unreadable(&text), "{sender:?}");
        let form = sender.sends_form(sender.usual());
        assert!(sender.unreadable(&form), "{sender:?}");
    }
}

#[test]
fn a_byte_order_mark_or_a_deeply_nested_field_does_no_harm() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for sender in SENDERS {
        let usual = sender.event(sender.usual());
        let marked = sender.event(format!("\u{feff}{}", sender.usual()));
        assert_eq!((usual.context(), usual.delivery_id()), (marked.context(), marked.delivery_id()), "{sender:?}");
        for field in ["unknown", "event_time", "user", "member", "includes", "authorizations", "users"] {
            let body = sender.usual().replacen('{', &format!(r#"{{"{field}":{deep},"#), 1);
            assert_eq!(sender.event(body).event_type(), usual.event_type(), "{sender:?} {field}");
        }
        let time = NOW.as_seconds().to_string();
        let parameter = sender.sends_at(
            &sender.signing_key(false),
            &time,
            "application/json; charset=utf-8",
            sender.usual().as_bytes(),
        );
        assert!(Event::read(&verify(&sender.source(), &parameter).unwrap()).is_ok(), "{sender:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_them_panic(body: Vec<u8>, text in "[{}\\[\\]\",:a-z0-9 _.&=%]{0,80}", values in prop::collection::vec(any::<Vec<u8>>(), 3)) {
        for sender in SENDERS {
            let (source, provider) = (sender.source(), sender.provider());
            for body in [body.as_slice(), text.as_bytes()] {
                for signed in [sender.sends(body), sender.sends_form(body)] {
                    let Ok(events) = Event::read(&verify(&source, &signed).unwrap()) else { continue };
                    prop_assert!(!events.is_empty());
                    for event in events {
                        let _ = (provider.answer(&event, true), provider.answer(&event, false));
                    }
                }
                let mut strange = Delivery::clone(&sender.sends(body));
                let names = [Some(sender.signature_header()), sender.time_header(), Some("content-type")];
                for (name, value) in names.into_iter().flatten().zip(&values) {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        strange.headers.insert(name, value);
                    }
                }
                let _ = (provider.greet(source.keys(), &strange), provider.verify(source.keys(), &strange));
                let _ = provider.read(&strange);
            }
        }
    }
}
