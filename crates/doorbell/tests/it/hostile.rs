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
        // Only its maker can sign: nothing that anybody else sends is accepted.
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
