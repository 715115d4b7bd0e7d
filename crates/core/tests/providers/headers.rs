//! Which headers may be stored, and which sample is meant.

use doorbell_core::provider::generic::{Generic, GenericOptions, Scheme};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, find_sample, kept_headers, kept_headers_as_json, visible_headers};

use super::delivery;

#[test]
fn headers_with_a_secret_are_not_visible() {
    let options =
        GenericOptions { header: Some("X-Proof".into()), scheme: Scheme::Bearer, ..GenericOptions::default() };
    let request = delivery(
        &[
            ("Authorization", &b"Bearer x"[..]),
            ("Proxy-Authorization", b"x"),
            ("Cookie", b"x"),
            ("Set-Cookie", b"x"),
            ("X-Proof", b"x"),
            ("X-Hub-Signature-256", b"sha256=00"),
            ("Via", b"a"),
            ("Via", b"b\xff"),
        ],
        "",
    );
    let visible = visible_headers(&Generic::new(options).unwrap(), &request.headers);
    let visible: Vec<_> = visible.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(visible, [("via", "a, b\u{fffd}"), ("x-hub-signature-256", "sha256=00")]);
    assert!(visible_headers(&Github, &request.headers).contains_key("x-proof"));
}

#[test]
fn headers_are_stored_as_they_are_shown() {
    let headers =
        [("Via", &b"a \"b\""[..]), ("X-B", b"\xff"), ("Via", b"c"), ("Cookie", b"x"), ("A", b""), ("Via", b"d")];
    for (body, kept) in [("", 5), ("x", 3)] {
        let request = delivery(&headers, body);
        let json = kept_headers_as_json(&Github, &request);
        assert_eq!(json, serde_json::to_string(&kept_headers(&Github, &request)).unwrap());
        assert_eq!(json.matches("\":\"").count(), kept, "{json}");
    }
}

#[test]
fn shared_tokens_are_not_visible_whichever_source_they_are_sent_to() {
    let secret = [
        "X-Gitlab-Token",
        "X-Api-Key",
        "X-Auth-Token",
        "Cf-Access-Jwt-Assertion",
        "Cf-Access-Client-Secret",
        "X-Forwarded-Access-Token",
        "X-Goog-Channel-Token",
        "X-Goog-Iap-Jwt-Assertion",
        "X-Telegram-Bot-Api-Secret-Token",
        "X-Amz-Security-Token",
        "X-Amzn-Oidc-Accesstoken",
        "X-Amzn-Oidc-Data",
        "X-Forwarded-Authorization",
        "Ocp-Apim-Subscription-Key",
        "X-Functions-Key",
        "DD-APPLICATION-KEY",
        "X_API_KEY",
        "ApiKey",
        "Token",
        "X-Webhook-Secret",
        "X-Password",
    ];
    let request = delivery(&secret.map(|name| (name, &b"s3cret"[..])), "");
    assert_eq!(visible_headers(&Github, &request.headers).into_keys().collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn headers_that_only_name_something_stay_visible() {
    let plain = ["x-event-key", "idempotency-key", "i-twilio-idempotency-token", "x-github-event", "webhook-id", "key"];
    let request = delivery(&plain.map(|name| (name, &b"x"[..])), "");
    let visible = visible_headers(&Github, &request.headers);
    assert!(plain.iter().all(|name| visible.contains_key(*name)), "{visible:?}");
}

#[test]
fn a_sample_is_found_by_its_name_or_its_event() {
    let samples = Github.samples();
    assert_eq!(find_sample(samples, "issues.labeled").unwrap().event, "issues.labeled");
    assert_eq!(find_sample(samples, "issues").unwrap().event, "issues.opened");
    assert_eq!(find_sample(samples, "push").unwrap().event, "push");
    assert!(find_sample(samples, "issues.deleted").is_none() && find_sample(samples, "").is_none());
}
