//! What senders and strangers may send to any provider: the right answer, and never a 5xx.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use crate::senders::{self, Played, Request, announce, send};

/// What may come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Accepted,
    /// 401.
    Refused,
    /// Accepted, or a 4xx that is not 401: it was signed well, and says nothing of use or is broken. Where what is signed stands
    /// in the body or the URL (Linear's time, Twilio's digest), a body without it is not signed.
    ReadOrUnreadable,
    /// Accepted or 401: protocols differ in what they take, and none may be confused by it.
    AcceptedOrRefused,
}

const LIMIT: usize = 25 * 1024 * 1024;

/// Every case for one provider.
fn cases(played: &Played) -> Vec<(&'static str, Request, Expected)> {
    use Expected::{Accepted, AcceptedOrRefused, ReadOrUnreadable, Refused};
    let now = doorbell::clock::now();
    let (event, body) = played.sample();
    let key = played.key.as_ref();
    let with = |body: &[u8]| played.signed(key, &event, Bytes::copy_from_slice(body), now);
    let on_proofs = |change: &dyn Fn(&HeaderValue) -> Vec<HeaderValue>| {
        let mut request = played.genuine();
        for name in played.proofs() {
            let value = request.headers.remove(&name).unwrap();
            for changed in change(&value) {
                request.headers.append(&name, changed);
            }
        }
        request
    };
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let mut cases = vec![
        ("wrong secret", played.signed(played.strangers_key.as_ref(), &event, body.clone(), now), Refused),
        ("no signature", played.signed(None, &event, body.clone(), now), Refused),
    ];
    if played.proofs().is_empty() {
        // Only its maker can sign: nothing that anybody else sends is accepted, and nothing is fetched to find that out.
        cases.extend(forgeries(played).into_iter().map(|(what, request)| (what, request, Refused)));
        return cases;
    }
    let genuine = played.genuine();
    let tampered = Request { body: [&genuine.body[..], b" "].concat().into(), ..genuine };
    let doubled = on_proofs(&|value| vec![value.clone(), value.clone()]);
    let truncated = on_proofs(&|value| vec![text(value)[..value.len() - 1].parse().unwrap()]);
    let upper = on_proofs(&|value| vec![text(value).to_uppercase().parse().unwrap()]);
    let foreign =
        on_proofs(&|value| vec![HeaderValue::from_bytes(&[value.as_bytes(), "é".as_bytes()].concat()).unwrap()]);
    let empty = on_proofs(&|_| vec![HeaderValue::from_static("")]);
    let deep = format!("{}null{}", r#"{"a":["#.repeat(10_000), "]}".repeat(10_000));
    let mut large = br#"{"text":""#.to_vec();
    large.resize(LIMIT - 2, b'x');
    large.extend_from_slice(br#""}"#);
    cases.extend([
        ("genuine", played.genuine(), Accepted),
        ("tampered", tampered, if played.shows_a_token() { Accepted } else { Refused }),
        ("doubled signature", doubled, Refused),
        ("truncated signature", truncated, Refused),
        ("upper-case signature", upper, AcceptedOrRefused),
        ("signature that is not ASCII", foreign, Refused),
        ("empty signature", empty, Refused),
        ("empty body", with(b""), ReadOrUnreadable),
        ("null", with(b"null"), ReadOrUnreadable),
        ("deep JSON", with(deep.as_bytes()), ReadOrUnreadable),
        ("a body of the limit", with(&large), ReadOrUnreadable),
        ("invalid UTF-8", with(b"{\"text\":\"\xff\xfe\"}"), ReadOrUnreadable),
        ("half a surrogate pair", with(br#"{"text":"cut \ud83d"}"#), ReadOrUnreadable),
        ("byte order mark", with(&[b"\xef\xbb\xbf", &body[..]].concat()), ReadOrUnreadable),
        ("form instead of JSON", with(b"a=1&payload=%7B%7D&b=%ff"), ReadOrUnreadable),
    ]);
    if let Some(tolerance) = played.provider.tolerance() {
        let away = tolerance + Duration::from_secs(90);
        cases.push(("stale", played.signed(key, &event, body.clone(), now.before(away)), Refused));
        cases.push(("of the future", played.signed(key, &event, body, now.after(away)), Refused));
    }
    cases
}

/// What strangers may send where the maker signs with a certificate: each of it is to be refused before one is fetched.
fn forgeries(played: &Played) -> Vec<(&'static str, Request)> {
    let now = doorbell::clock::now();
    let (event, body) = played.sample();
    let unsigned = |body: &[u8]| played.signed(None, &event, Bytes::copy_from_slice(body), now);
    let deep = format!("{}null{}", r#"{"Signature":["#.repeat(10_000), "]}".repeat(10_000));
    let mut large = br#"{"Signature":""#.to_vec();
    large.resize(LIMIT - 2, b'x');
    large.extend_from_slice(br#""}"#);
    let mut forged = vec![
        ("empty body", unsigned(b"")),
        ("null", unsigned(b"null")),
        ("deep JSON", unsigned(deep.as_bytes())),
        ("a body of the limit", unsigned(&large)),
        ("invalid UTF-8", unsigned(b"{\"Signature\":\"\xff\xfe\"}")),
        ("byte order mark", unsigned(&[b"\xef\xbb\xbf", &body[..]].concat())),
        ("form instead of JSON", unsigned(b"Signature=1&TopicArn=%ff")),
    ];
    match played.name() {
        "sns" => forged.extend(forged_messages(played)),
        _ => forged.extend(forged_transmissions(played)),
    }
    forged
}

/// Messages of SNS that claim to be signed, each with one thing that is not as it should be.
fn forged_messages(played: &Played) -> Vec<(&'static str, Request)> {
    let now = doorbell::clock::now();
    let host = "https://sns.eu-central-1.amazonaws.com";
    let claim = serde_json::json!({
        "Type": "Notification", "MessageId": "m-1", "TopicArn": played.secret, "Message": "Hello",
        "Timestamp": now.to_string(), "SignatureVersion": "2", "Signature": "AAAA",
        "SigningCertURL": format!("{host}/SimpleNotificationService-00.pem"),
    });
    let old = now.before(Duration::from_secs(90_000)).to_string();
    let changes = [
        ("another topic", "TopicArn", "arn:aws:sns:eu-central-1:123456789012:invoices"),
        ("a certificate from elsewhere", "SigningCertURL", "https://evil.example/SimpleNotificationService-00.pem"),
        ("a certificate of this machine", "SigningCertURL", "https://127.0.0.1/SimpleNotificationService-00.pem"),
        ("another algorithm", "SignatureVersion", "3"),
        ("no base64", "Signature", "no base64"),
        ("another type", "Type", "Letter"),
        ("no time", "Timestamp", "yesterday"),
        ("stale", "Timestamp", old.as_str()),
    ];
    let changed = |(what, field, value): (&'static str, &str, &str)| {
        let mut claim = claim.clone();
        claim[field] = value.into();
        (what, played.signed(None, "notification", claim.to_string(), now))
    };
    changes.into_iter().map(changed).collect()
}

/// Transmissions of PayPal that claim to be signed, each with one thing that is not as it should be.
fn forged_transmissions(played: &Played) -> Vec<(&'static str, Request)> {
    let now = doorbell::clock::now();
    let (event, body) = played.sample();
    let changes: [(&str, &str, &[&str]); 8] = [
        ("a certificate from elsewhere", "paypal-cert-url", &["https://evil.example/v1/notifications/certs/CERT-1"]),
        ("a certificate of this machine", "paypal-cert-url", &["https://127.0.0.1/v1/notifications/certs/CERT-1"]),
        ("another algorithm", "paypal-auth-algo", &["SHA1withRSA"]),
        ("no base64", "paypal-transmission-sig", &["no base64"]),
        ("doubled signature", "paypal-transmission-sig", &["AAAA", "AAAA"]),
        ("empty signature", "paypal-transmission-sig", &[""]),
        ("no time", "paypal-transmission-time", &["yesterday"]),
        ("stale", "paypal-transmission-time", &["2020-01-01T00:00:00Z"]),
    ];
    let changed = |(what, name, values): (&'static str, &'static str, &[&'static str])| {
        let mut request = played.signed(None, &event, body.clone(), now);
        let certificate = HeaderValue::from_static("https://api.paypal.com/v1/notifications/certs/CERT-1");
        request.headers.insert("paypal-cert-url", certificate);
        request.headers.insert("paypal-transmission-sig", HeaderValue::from_static("AAAA"));
        request.headers.remove(name);
        for value in values {
            request.headers.append(name, HeaderValue::from_static(value));
        }
        (what, request)
    };
    changes.into_iter().map(changed).collect()
}

fn holds(played: &Played, expected: Expected, status: u16) -> bool {
    match expected {
        Expected::ReadOrUnreadable if matches!(played.name(), "linear" | "twilio") => status < 500,
        Expected::Accepted => (200..300).contains(&status),
        Expected::Refused => status == 401,
        Expected::ReadOrUnreadable => (200..300).contains(&status) || matches!(status, 400 | 415),
        Expected::AcceptedOrRefused => (200..300).contains(&status) || status == 401,
    }
}

#[tokio::test]
async fn every_provider_gives_the_right_answer_to_whatever_is_sent() {
    let all = senders::all();
    assert_eq!(all.len(), 35);
    let project = senders::project(&all);
    let gateway = project.serve();
    let mut wrong = Vec::new();
    for played in &all {
        assert_eq!(announce(&gateway, &played.path(), LIMIT + 1).await, 413, "{}", played.name());
        for (what, request, expected) in cases(played) {
            let (status, code) = send(&gateway, &played.path(), request).await;
            if !holds(played, expected, status) || (status >= 400 && code.is_none()) {
                wrong.push(format!("{}: {what}: {status} {code:?}, not {expected:?}", played.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn no_provider_is_served_with_an_empty_secret() {
    for played in senders::all() {
        for blank in ["", " \n"] {
            assert!(
                played.provider.prepare(&doorbell_core::secret::Secret::new(blank)).is_err(),
                "{} takes {blank:?}",
                played.name()
            );
        }
    }
}
