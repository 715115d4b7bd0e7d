//! SNS and PayPal: what is signed by a certificate, signed here by one of our own.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaEncoding};
use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::{decode_base64, encode_base64};
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{Rejection, RejectionCode, Verified, verify};
use http::HeaderValue;
use serde_json::{Value, json};

use super::delivery;
use super::paid::{TOPIC, WEBHOOK, provider, source_of, take};

const SNS: &str = include_str!("../vectors/certificates/sns.pem");
const PAYPAL: &str = include_str!("../vectors/certificates/paypal.pem");
const STRANGER: &str = include_str!("../vectors/certificates/stranger.pem");
const ELLIPTIC: &str = include_str!("../vectors/certificates/elliptic.pem");
const THEN: Timestamp = Timestamp::from_seconds(1_900_000_000);
const LATER: i64 = 5_000_000_000;

fn rsa(algorithm: &'static dyn RsaEncoding, text: &str) -> String {
    let der = include_str!("../vectors/certificates/key.txt").split_whitespace().collect::<String>();
    let pair = KeyPair::from_pkcs8(&decode_base64(&der).unwrap()).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(algorithm, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    encode_base64(&signature)
}

fn at(mut delivery: Arc<Delivery>, received_at: Timestamp) -> Delivery {
    Arc::make_mut(&mut delivery).received_at = received_at;
    Arc::unwrap_or_clone(delivery)
}

fn message(kind: &str, change: impl FnOnce(&mut Value)) -> Delivery {
    let mut message = json!({
        "Type": kind,
        "MessageId": "m-1",
        "TopicArn": TOPIC,
        "Message": "Hello",
        "Timestamp": THEN.to_string(),
        "SignatureVersion": "2",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-00.pem",
    });
    if kind != "Notification" {
        message["Token"] = json!("t-1");
        message["SubscribeURL"] =
            json!("https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=a&Token=t-1");
    }
    change(&mut message);
    let names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
    let line = |name: &&str| Some(format!("{name}\n{}\n", message[*name].as_str()?));
    let text: String = names.iter().filter_map(line).collect();
    message["Signature"] = json!(rsa(&RSA_PKCS1_SHA256, &text));
    at(delivery(&[("content-type", "text/plain; charset=UTF-8")], message.to_string()), THEN)
}

fn sns() -> Arc<Source> {
    source_of(provider("sns"), &["arn:aws:sns:eu-central-1:123456789012:other", TOPIC])
}

fn event(taken: Result<Verified, Rejection>) -> Event {
    Event::read(&taken.unwrap()).unwrap().remove(0)
}

#[test]
fn a_message_of_the_topic_is_taken_and_a_later_one_is_not() {
    let source = sns();
    let good = message("Notification", |message| message["Subject"] = json!("News"));
    let taken = take(&source, &good, Some(SNS));
    assert_eq!(taken.as_ref().unwrap().key().unwrap().instance, "1");
    let event = event(taken);
    assert_eq!((event.delivery_id(), event.is_handshake()), (Some("m-1"), false));
    assert_eq!(event.context().text("title"), Some("News"));
    assert_eq!(event.context().text("topic_name"), Some("alarms"));
    for hours in [-3, 3] {
        let received_at = Timestamp::from_seconds(THEN.as_seconds() + hours * 3600);
        let refusal = take(&source, &Delivery { received_at, ..good.clone() }, Some(SNS)).unwrap_err();
        assert_eq!(refusal.code, RejectionCode::TimestampOutOfRange);
    }
    assert!(take(&source, &good, None).is_err(), "without its certificate");
}

#[test]
fn a_certificate_that_is_not_the_senders_or_not_in_force_is_refused() {
    let good = message("Notification", |_| {});
    for (pem, part) in [(STRANGER, "not one of the sender"), (ELLIPTIC, "RSA"), ("", "PEM"), ("-----BEGIN", "PEM")] {
        let refusal = take(&sns(), &good, Some(pem)).unwrap_err();
        assert_eq!(refusal.code, RejectionCode::SignatureMismatch);
        assert!(refusal.detail.contains(part), "{}", refusal.detail);
    }
    for cut in (0..SNS.len()).step_by(37) {
        assert!(take(&sns(), &good, Some(&SNS[..cut])).is_err());
    }
    for seconds in [1_000_000_000, LATER] {
        let old = Delivery { received_at: Timestamp::from_seconds(seconds), ..good.clone() };
        let certificate = Some(SNS.into());
        let refusal = verify(&sns(), &Arc::new(Delivery { certificate, ..old })).unwrap_err();
        assert_eq!(refusal.code, RejectionCode::SignatureMismatch);
        assert!(refusal.detail.contains("certificate"), "{}", refusal.detail);
    }
}

#[test]
fn nothing_is_fetched_from_elsewhere_or_for_another_topic() {
    for url in [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-00.pem",
        "https://sns.eu-central-1.amazonaws.com.example.com/SimpleNotificationService-00.pem",
        "https://sns.eu-central-1.amazonaws.com@example.com/SimpleNotificationService-00.pem",
        "https://sns.eu-central-1.amazonaws.com:444/SimpleNotificationService-00.pem",
        "https://example.com/sns.eu-central-1.amazonaws.com/SimpleNotificationService-00.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-00.pem?x=.pem",
        "https://sns.eu-central-1.amazonaws.com/a/../SimpleNotificationService-00.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-00/../x.pem",
        "https://bucket.s3.amazonaws.com/SimpleNotificationService-00.pem",
        "https://sns.amazonaws.com/SimpleNotificationService-00.pem",
        "https://sns.a.b.amazonaws.com/SimpleNotificationService-00.pem",
    ] {
        let bad = message("Notification", |message| message["SigningCertURL"] = json!(url));
        let source = sns();
        assert!(source.provider().certificate_url(source.keys(), &bad).is_err(), "{url}");
    }
    let source = sns();
    for topic in [json!("arn:aws:sns:eu-central-1:999999999999:alarms"), json!(""), json!(7), Value::Null] {
        let bad = message("Notification", |message| message["TopicArn"] = topic.clone());
        assert!(source.provider().certificate_url(source.keys(), &bad).is_err(), "{topic}");
    }
    let china = message("Notification", |message| {
        message["SigningCertURL"] = json!("https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-00.pem");
    });
    assert!(source.provider().certificate_url(source.keys(), &china).is_ok());
}

/// What would be refused with the right certificate, too, whatever that is.
#[test]
fn no_certificate_is_fetched_for_what_would_be_refused_anyway() {
    let refused = |source: &Arc<Source>, delivery: &Delivery| {
        source.provider().certificate_url(source.keys(), delivery).unwrap_err().code
    };
    let hours = |hours: i64| Timestamp::from_seconds(THEN.as_seconds() + hours * 3600);
    let (source, good) = (sns(), message("Notification", |_| {}));
    assert!(source.provider().certificate_url(source.keys(), &good).unwrap().is_some());
    for away in [-3, 3] {
        let old = Delivery { received_at: hours(away), ..good.clone() };
        assert_eq!(refused(&source, &old), RejectionCode::TimestampOutOfRange, "{away}");
    }
    for (field, value) in [
        ("SignatureVersion", json!("3")),
        ("Timestamp", json!("yesterday")),
        ("Type", json!("Letter")),
        ("Message", Value::Null),
        ("Signature", json!("no base64")),
    ] {
        let mut body: Value = serde_json::from_slice(&good.body).unwrap();
        body[field] = value;
        let bad = Delivery { body: body.to_string().into(), ..good.clone() };
        assert_eq!(refused(&source, &bad), RejectionCode::SignatureMismatch, "{field}");
    }
    let source = source_of(provider("paypal"), &[WEBHOOK]);
    let good = transmission(CERTIFICATE, "SHA256withRSA", BODY);
    assert!(source.provider().certificate_url(source.keys(), &good).unwrap().is_some());
    for away in [-5 * 24, 5 * 24] {
        let old = Delivery { received_at: hours(away), ..good.clone() };
        assert_eq!(refused(&source, &old), RejectionCode::TimestampOutOfRange, "{away}");
    }
    assert_eq!(refused(&source, &transmission(CERTIFICATE, "SHA1withRSA", BODY)), RejectionCode::SignatureMismatch);
    for (header, value, code) in [
        ("paypal-transmission-time", Some("yesterday"), RejectionCode::SignatureMismatch),
        ("paypal-transmission-sig", Some("no base64"), RejectionCode::SignatureMismatch),
        ("paypal-transmission-id", None, RejectionCode::SignatureMissing),
        ("paypal-transmission-time", None, RejectionCode::SignatureMissing),
        ("paypal-auth-algo", None, RejectionCode::SignatureMissing),
    ] {
        let mut bad = good.clone();
        match value {
            Some(value) => drop(bad.headers.insert(header, HeaderValue::from_static(value))),
            None => drop(bad.headers.remove(header)),
        }
        assert_eq!(refused(&source, &bad), code, "{header}");
    }
}

#[test]
fn what_is_signed_cannot_be_changed() {
    for field in ["Message", "MessageId", "Subject", "Timestamp", "Type"] {
        let good = message("Notification", |message| message["Subject"] = json!("News"));
        let mut body: Value = serde_json::from_slice(&good.body).unwrap();
        body[field] = json!("other");
        let changed = Delivery { body: body.to_string().into(), ..good };
        assert_eq!(take(&sns(), &changed, Some(SNS)).unwrap_err().code, RejectionCode::SignatureMismatch, "{field}");
    }
    for version in [json!("1"), json!("3"), Value::Null] {
        let other = message("Notification", |message| message["SignatureVersion"] = version.clone());
        assert_eq!(take(&sns(), &other, Some(SNS)).unwrap_err().code, RejectionCode::SignatureMismatch, "{version}");
    }
}

#[test]
fn a_subscription_is_confirmed_at_amazon_only_and_never_one_that_somebody_ended() {
    let source = sns();
    let confirmed = |delivery: &Delivery| {
        let event = event(take(&source, delivery, Some(SNS)));
        assert!(event.is_handshake());
        (event.name().to_owned(), source.provider().confirmation_url(&event))
    };
    let (name, url) = confirmed(&message("SubscriptionConfirmation", |_| {}));
    assert_eq!(name, "subscription_confirmation");
    assert!(url.unwrap().starts_with("https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&"));
    let (name, url) = confirmed(&message("UnsubscribeConfirmation", |_| {}));
    assert_eq!((name.as_str(), url), ("unsubscribe_confirmation", None));
    for elsewhere in [
        "https://169.254.169.254/?Action=ConfirmSubscription&a=b",
        "http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&a=b",
        "https://sns.eu-central-1.amazonaws.com/?Action=DeleteTopic&a=b",
    ] {
        let (_, url) =
            confirmed(&message("SubscriptionConfirmation", |message| message["SubscribeURL"] = json!(elsewhere)));
        assert_eq!(url, None, "{elsewhere}");
    }
}

#[test]
fn a_source_that_takes_everything_fetches_and_confirms_nothing() {
    let open = source_of(provider("sns"), &[]);
    let delivery = message("SubscriptionConfirmation", |_| {});
    assert_eq!(open.provider().certificate_url(open.keys(), &delivery), Ok(None));
    assert_eq!(open.provider().confirmation_url(&event(take(&open, &delivery, None))), None);
    let mut raw = delivery;
    raw.headers.insert("x-amz-sns-rawdelivery", HeaderValue::from_static("true"));
    assert!(take(&sns(), &raw, None).unwrap_err().detail.contains("raw message delivery"));
}

#[test]
fn json_in_a_message_gives_its_title() {
    let inner = json!({"AlarmName": "checkout-5xx", "NewStateValue": "ALARM"}).to_string();
    let event = event(take(&sns(), &message("Notification", |message| message["Message"] = json!(inner)), Some(SNS)));
    assert_eq!(event.event_type(), "sns.notification.ALARM");
    assert_eq!(event.context().text("title"), Some("checkout-5xx"));
    assert_eq!(event.context().text("body"), Some(inner.as_str()));
}

#[test]
fn the_arn_of_a_topic_is_the_credential_of_sns_and_an_id_that_of_paypal() {
    let sns = |text: &str| provider("sns").prepare(&doorbell_core::secret::Secret::new(text)).is_ok();
    assert!(sns(TOPIC) && sns(&format!(" {TOPIC}\n")) && sns("arn:aws-cn:sns:cn-north-1:1:a.fifo"));
    for bad in ["alarms", "arn:aws:sqs:eu-central-1:1:alarms", "arn:aws:sns:eu-central-1:1:", "arn:aws:sns:x:1:a:b"] {
        assert!(!sns(bad), "{bad}");
    }
    let paypal = |text: &str| provider("paypal").prepare(&doorbell_core::secret::Secret::new(text)).is_ok();
    assert!(paypal(WEBHOOK) && paypal("WEBHOOK-ID\n") && !paypal("a|b") && !paypal("a b"));
}

fn transmission(url: &str, algorithm: &str, body: &str) -> Delivery {
    let text = format!("t-1|2030-03-17T17:46:40Z|{WEBHOOK}|{CHECKSUM}");
    let headers = [
        ("PAYPAL-TRANSMISSION-ID", "t-1"),
        ("PAYPAL-TRANSMISSION-TIME", "2030-03-17T17:46:40Z"),
        ("PAYPAL-TRANSMISSION-SIG", &rsa(&RSA_PKCS1_SHA256, &text)),
        ("PAYPAL-CERT-URL", url),
        ("PAYPAL-AUTH-ALGO", algorithm),
    ];
    at(delivery(&headers, body.to_owned()), THEN)
}

const BODY: &str = r#"{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED"}"#;
/// As Python's zlib has it.
const CHECKSUM: u32 = 1_429_317_798;
const CERTIFICATE: &str = "https://api.paypal.com/v1/notifications/certs/CERT-1";

#[test]
fn a_transmission_of_paypal_is_taken_for_its_webhook_only() {
    let source = source_of(provider("paypal"), &["OTHER", WEBHOOK]);
    let good = transmission(CERTIFICATE, "SHA256withRSA", BODY);
    let taken = take(&source, &good, Some(PAYPAL));
    assert_eq!(taken.as_ref().unwrap().key().unwrap().instance, "1");
    let event = event(taken);
    assert_eq!((event.delivery_id(), event.event_type().as_str()), (Some("WH-1"), "paypal.PAYMENT.SALE.COMPLETED"));
    let refusal = |delivery: &Delivery, pem: &str| take(&source, delivery, Some(pem)).unwrap_err().code;
    for pem in [SNS, STRANGER, ELLIPTIC, ""] {
        assert_eq!(refusal(&good, pem), RejectionCode::SignatureMismatch);
    }
    for days in [5, -5] {
        let received_at = Timestamp::from_seconds(THEN.as_seconds() + days * 86_400);
        let kept = Delivery { received_at, ..good.clone() };
        assert_eq!(refusal(&kept, PAYPAL), RejectionCode::TimestampOutOfRange);
    }
    let foreign = source_of(provider("paypal"), &["OTHER"]);
    assert_eq!(take(&foreign, &good, Some(PAYPAL)).unwrap_err().code, RejectionCode::SignatureMismatch);
}

#[test]
fn a_certificate_from_elsewhere_another_algorithm_or_body_is_refused() {
    let source = source_of(provider("paypal"), &[WEBHOOK]);
    for url in [
        "https://example.com/v1/notifications/certs/CERT-1",
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://paypal.com.example.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@example.com/v1/notifications/certs/CERT-1",
        "https://notpaypal.com/v1/notifications/certs/CERT-1",
        "https://www.paypal.com/redirect?to=/v1/notifications/certs/CERT-1",
    ] {
        let bad = transmission(url, "SHA256withRSA", BODY);
        assert!(source.provider().certificate_url(source.keys(), &bad).is_err(), "{url}");
    }
    for bad in [transmission(CERTIFICATE, "SHA1withRSA", BODY), transmission(CERTIFICATE, "SHA256withRSA", "{}")] {
        assert_eq!(take(&source, &bad, Some(PAYPAL)).unwrap_err().code, RejectionCode::SignatureMismatch);
    }
    for part in ["id", "time", "sig"] {
        let mut without = transmission(CERTIFICATE, "SHA256withRSA", BODY);
        without.headers.remove(format!("paypal-transmission-{part}"));
        assert_eq!(take(&source, &without, Some(PAYPAL)).unwrap_err().code, RejectionCode::SignatureMissing, "{part}");
    }
}
