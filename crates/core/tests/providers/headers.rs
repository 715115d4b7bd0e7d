//! Which headers may be stored, and which sample is meant.

use doorbell_core::provider::generic::{Generic, GenericOptions, Scheme};
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, find_sample, visible_headers};

use super::delivery;

#[test]
fn headers_with_a_secret_are_not_visible() {
    let options =
        GenericOptions { header: Some("X-Token".into()), scheme: Scheme::Bearer, ..GenericOptions::default() };
    let request = delivery(
        &[
            ("Authorization", &b"Bearer x"[..]),
            ("Proxy-Authorization", b"x"),
            ("Cookie", b"x"),
            ("Set-Cookie", b"x"),
            ("X-Token", b"x"),
            ("X-Hub-Signature-256", b"sha256=00"),
            ("Via", b"a"),
            ("Via", b"b\xff"),
        ],
        "",
    );
    let visible = visible_headers(&Generic::new(options).unwrap(), &request.headers);
    let visible: Vec<_> = visible.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(visible, [("via", "a, b\u{fffd}"), ("x-hub-signature-256", "sha256=00")]);
    assert!(visible_headers(&Github, &request.headers).contains_key("x-token"));
}

#[test]
fn a_sample_is_found_by_its_name_or_its_event() {
    let samples = Github.samples();
    assert_eq!(find_sample(samples, "issues.labeled").unwrap().event, "issues.labeled");
    assert_eq!(find_sample(samples, "issues").unwrap().event, "issues.opened");
    assert_eq!(find_sample(samples, "push").unwrap().event, "push");
    assert!(find_sample(samples, "issues.deleted").is_none() && find_sample(samples, "").is_none());
}
