//! What is special about each of these protocols.

use std::sync::Arc;

use aws_lc_rs::digest;
use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::{Key, encode_base64, encode_hex, kept_headers};
use doorbell_core::secret::Secret;
use doorbell_core::source::{NamedKey, Source};
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderValue, Method};
use serde_json::json;

use super::paid::{URL, events_of, provider, sent, source_of};
use super::{NOW, as_json, delivery};

const SECRET: &str = "whsec_test_secret";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

fn hmac(secret: &str, algorithm: aws_lc_rs::hmac::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    Key::hmac(algorithm, &Secret::new(secret)).unwrap().mac(parts).unwrap().as_ref().to_vec()
}

fn outcome(source: &Arc<Source>, delivery: Delivery) -> Option<RejectionCode> {
    verify(source, &Arc::new(delivery)).err().map(|rejection| rejection.code)
}

fn stripe(header: &str) -> Option<RejectionCode> {
    outcome(
        &source_of(provider("stripe"), &[SECRET]),
        Arc::unwrap_or_clone(delivery(&[("stripe-signature", header)], "{}")),
    )
}

#[test]
fn stripe_takes_any_v1_passes_over_other_schemes_and_refuses_a_second_time() {
    let now = NOW.as_seconds();
    let of = |time: i64| {
        encode_hex(&hmac(SECRET, aws_lc_rs::hmac::HMAC_SHA256, &[time.to_string().as_bytes(), b".", b"{}"]))
    };
    let good = of(now);
    for header in [
        format!("t={now},v1={good}"),
        format!("v1={good},t={now}"),
        format!("t={now},v1=00,v1={good},v0=11"),
        format!("v2=x,t={now},junk,v1=zz,v1={good}"),
    ] {
        assert_eq!(stripe(&header), None, "{header}");
    }
    let old = of(now - 9999);
    for header in [
        format!("t={now},v0={good}"),
        format!("t={now},t={now},v1={good}"),
        format!("t={},v1={old},t={now}", now - 9999),
        format!("v1={good}"),
        format!("t={now}"),
        format!("t= {now},v1={good}"),
        format!("t={now};v1={good}"),
        format!("t={now},{}v1={good}", "v1=00,".repeat(16)),
    ] {
        assert_eq!(stripe(&header), Some(RejectionCode::SignatureMismatch), "{header}");
    }
    assert_eq!(stripe(&format!("t={},v1={old}", now - 9999)), Some(RejectionCode::TimestampOutOfRange));
}

#[test]
fn stripe_says_what_snapshots_and_thin_events_are_about() {
    let source = source_of(provider("stripe"), &[SECRET]);
    let context = |event: &str| {
        let sample = source.provider().samples().iter().find(|sample| sample.event == event).unwrap();
        as_json(events_of(&source, sent(&source, event, sample.body.to_string()))[0].context())
    };
    let paid = context("invoice.paid");
    assert_eq!((&paid["event"], &paid["action"], &paid["livemode"]), (&json!("invoice"), &json!("paid"), &json!(true)));
    assert_eq!((&paid["account"], &paid["amount"]), (&json!("acct_1Shop"), &json!(8700)));
    let thin = context("v1.billing.meter.error_report_triggered");
    assert_eq!((&thin["account"], &thin["object"]), (&json!("acct_1Shop"), &json!("billing.meter")));
    assert_eq!(thin["related_url"], "/v1/billing/meters/mtr_test_61R");
}

#[test]
fn linear_needs_the_time_in_the_body_and_knows_a_delivery_without_it() {
    let source = source_of(provider("linear"), &[SECRET]);
    let signed = |body: &str| {
        let signature = encode_hex(&hmac(SECRET, aws_lc_rs::hmac::HMAC_SHA256, &[body.as_bytes()]));
        let timed = ("linear-timestamp", NOW.as_millis().to_string());
        Arc::unwrap_or_clone(delivery(&[("linear-signature", signature), timed], body.to_owned()))
    };
    for time in
        ["", r#","webhookTimestamp":null"#, r#","webhookTimestamp":"1790000000000""#, r#","webhookTimestamp":1e999"#]
    {
        let body = format!(r#"{{"type":"Issue","action":"create"{time}}}"#);
        assert_eq!(outcome(&source, signed(&body)), Some(RejectionCode::SignatureMismatch), "{body}");
    }
    let id = |millis: i64, title: &str| {
        let body = format!(r#"{{"type":"Issue","webhookTimestamp":{millis},"data":{{"title":"{title}"}}}}"#);
        events_of(&source, signed(&body))[0].delivery_id().unwrap().to_owned()
    };
    let now = NOW.as_millis();
    assert_eq!(id(now, "a"), id(now + 30_000, "a"), "sent again later");
    assert_ne!(id(now, "a"), id(now, "b"));
}

#[test]
fn linear_has_the_names_people_and_labels_that_filters_want() {
    let source = source_of(provider("linear"), &[SECRET]);
    let context = |event: &str| {
        let sample = source.provider().samples().iter().find(|sample| sample.event == event).unwrap();
        as_json(events_of(&source, sent(&source, event, sample.body.to_string()))[0].context())
    };
    let issue = context("issues.update");
    assert_eq!((&issue["assignee"], &issue["author"]), (&json!("kim@example.com"), &json!("robin@example.com")));
    assert_eq!((&issue["labels"], &issue["workspace"]), (&json!(["bug"]), &json!("acme")));
    assert_eq!(
        (&issue["number"], &issue["team"], &issue["state"]),
        (&json!(142), &json!("ENG"), &json!("In Progress"))
    );
    let comment = context("issue_comment.create");
    assert_eq!(comment["title"], "Deploy fails when it is retried");
    assert_eq!(comment["sender"], "robin@example.com");
    assert!(comment["comment"].as_str().unwrap().starts_with("It also fails") && comment["body"].is_null());
}

#[test]
fn linear_filters_may_spell_events_as_linear_does() {
    let linear = provider("linear");
    for (field, value, spelled) in [
        ("events", "Issue", "issues"),
        ("events", "Comment", "issue_comment"),
        ("events", "IssueLabel", "issue_label"),
        ("events", "Issue.create", "issues.create"),
        ("events", "Comment.delete", "issue_comment.remove"),
        ("events", "issues.delete", "issues.remove"),
        ("events", "issues", "issues"),
        ("events", "*", "*"),
        ("actions", "delete", "remove"),
        ("actions", "create", "create"),
        ("labels", "delete", "delete"),
    ] {
        assert_eq!(linear.spelling(field, value), spelled, "{field} {value}");
    }
}

#[test]
fn sentry_knows_an_error_by_its_id_whatever_stands_in_the_headers() {
    let source = source_of(provider("sentry"), &[SECRET]);
    let sample = source.provider().samples().iter().find(|sample| sample.event == "event_alert.triggered").unwrap();
    let first = sent(&source, &sample.event, sample.body.to_string());
    let mut again = first.clone();
    again.headers.insert("request-id", HeaderValue::from_static("0"));
    again.headers.insert("sentry-hook-resource", HeaderValue::from_static("issue"));
    let (first, again) = (events_of(&source, first), events_of(&source, again));
    assert_eq!(first[0].delivery_keys(), again[0].delivery_keys());
    let context = as_json(first[0].context());
    assert_eq!((&context["org"], &context["project"]), (&json!("acme"), &json!("shop")));
    assert_eq!((&context["project_id"], &context["rule"]), (&json!("4505"), &json!("Errors in checkout")));
    let other = sample.body.replace("Errors in checkout", "All errors");
    let other = events_of(&source, sent(&source, &sample.event, other));
    assert_ne!(first[0].delivery_keys(), other[0].delivery_keys());
}

#[test]
fn requests_of_sentrys_ui_components_are_handshakes_even_without_a_body() {
    let source = source_of(provider("sentry"), &[SECRET]);
    let signed = |name: &'static str, body: &str| {
        let signature = encode_hex(&hmac(SECRET, aws_lc_rs::hmac::HMAC_SHA256, &[body.as_bytes()]));
        Arc::unwrap_or_clone(delivery(
            &[(name, signature.as_str()), ("content-type", "application/json")],
            body.to_owned(),
        ))
    };
    let asked = Delivery { method: Method::GET, ..signed("sentry-app-signature", "") };
    assert!(source.provider().methods().contains(&Method::GET));
    let choices = events_of(&source, asked).remove(0);
    assert!(choices.is_handshake() && choices.name() == "ui_component");
    assert_eq!(source.provider().answer(&choices, false).unwrap().body, "[]");
    let link = signed("sentry-app-signature", r#"{"issueId":7,"project":{"slug":"shop"},"actor":{"name":"Robin"}}"#);
    let link = events_of(&source, link).remove(0);
    assert!(link.is_handshake() && source.provider().answer(&link, false).is_none());
    assert_eq!((link.context().text("issue"), link.context().text("project")), (Some("7"), Some("shop")));
    let hook = verify(&source, &Arc::new(signed("sentry-hook-signature", ""))).unwrap();
    assert!(Event::read(&hook).is_err());
    let mut both = signed("sentry-app-signature", "{}");
    both.headers.insert("sentry-hook-signature", HeaderValue::from_static("00"));
    assert_eq!(outcome(&source, both), Some(RejectionCode::SignatureMismatch), "the one of an event counts");
}

#[test]
fn two_builds_that_say_the_same_are_two_events_unless_they_are_told_apart() {
    let source = source_of(provider("mintlify"), &[SECRET]);
    let keys = |body: &str| events_of(&source, sent(&source, "build", body.to_owned()))[0].delivery_keys().to_vec();
    assert!(keys(r#"{"status":"failed","project":"docs"}"#).is_empty());
    assert_eq!(keys(r#"{"status":"failed","commit":"4be1"}"#), keys(r#"{"status":"failed","commit":"4be1"}"#));
    let mut other = sent(&source, "build", r#"{"status":"failed"}"#);
    let value = other.headers.remove("x-mintlify-signature").unwrap();
    other.headers.insert("mintlify-signature", value.clone());
    assert_eq!(outcome(&source, other.clone()), None);
    other.headers.insert("x-mintlify-signature", value);
    assert_eq!(outcome(&source, other), Some(RejectionCode::SignatureMismatch));
}

fn twilio(secret: &str, algorithm: aws_lc_rs::hmac::Algorithm, signed: &str, url: &str, body: &str) -> Delivery {
    let signature = encode_base64(&hmac(secret, algorithm, &[signed.as_bytes()]));
    let kind = if body.starts_with(['{', '[']) { "application/json" } else { "application/x-www-form-urlencoded" };
    let delivery = delivery(&[("x-twilio-signature", signature.as_str()), ("content-type", kind)], body.to_owned());
    Delivery { url: url.to_owned(), ..Arc::unwrap_or_clone(delivery) }
}

#[test]
fn twilio_is_told_its_hash_by_the_key_and_never_by_a_header() {
    use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY as SHA1, HMAC_SHA256 as SHA256};
    let taken = |configured: &str, secret: &str, algorithm, settings: &str| {
        let mut delivery = twilio(secret, algorithm, &format!("{URL}a1"), URL, "a=1");
        delivery.headers.insert("x-twilio-webhooks-signature-settings", settings.parse().unwrap());
        outcome(&source_of(provider("twilio"), &[configured]), delivery).is_none()
    };
    for settings in ["key=a,algorithm=HMAC_SHA256", "key=a,algorithm=HMAC_SHA1", "junk"] {
        assert!(taken(TOKEN, TOKEN, SHA1, settings) && !taken(TOKEN, TOKEN, SHA256, settings));
        let shared = format!("HMAC_SHA256:{TOKEN}");
        assert!(taken(&shared, TOKEN, SHA256, settings) && !taken(&shared, TOKEN, SHA1, settings));
        assert!(
            taken("shared-key", "shared-key", SHA256, settings) && !taken("shared-key", "shared-key", SHA1, settings)
        );
        assert!(taken("HMAC_SHA1:shared-key", "shared-key", SHA1, settings));
    }
}

#[test]
fn twilio_signs_the_url_with_or_without_its_port_and_the_query_of_a_get() {
    let sha1 = aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let source = source_of(provider("twilio"), &[TOKEN]);
    let (bare, full) = ("https://hooks.example.com/t?a=b", "https://hooks.example.com:443/t?a=b");
    for (signed, url) in [(bare, full), (full, bare), (full, full)] {
        let signed = format!("{signed}CallSidCA1CallStatusringing");
        let delivery = twilio(TOKEN, sha1, &signed, url, "CallStatus=ringing&CallSid=CA1");
        assert_eq!(events_of(&source, delivery)[0].event_type(), "twilio.call.ringing");
    }
    let url = "https://hooks.example.com/t?MessageSid=SM1&SmsStatus=received&Body=Hi";
    let get = Delivery { method: Method::GET, ..twilio(TOKEN, sha1, url, url, "") };
    assert!(source.provider().methods().contains(&Method::GET));
    let event = events_of(&source, get).remove(0);
    assert_eq!((event.event_type().as_str(), event.context().text("body")), ("twilio.message.received", Some("Hi")));
    let answer = source.provider().answer(&event, true).unwrap();
    assert_eq!(answer.content_type, Some("text/xml"));
    assert!(answer.body.ends_with(b"<Response></Response>"));
}

#[test]
fn letters_moved_between_the_fields_of_twilio_do_not_make_another_event() {
    let sha1 = aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let source = source_of(provider("twilio"), &[TOKEN]);
    let id = |body: &str| {
        let delivery = twilio(TOKEN, sha1, &format!("{URL}BodyhelloMessageSidSM1"), URL, body);
        events_of(&source, delivery)[0].delivery_id().unwrap().to_owned()
    };
    assert_eq!(id("Body=hello&MessageSid=SM1"), id("Bodyhell=o&MessageSid=SM1"));
}

#[test]
fn twilios_json_is_covered_by_a_digest_in_the_url_whatever_its_type_says() {
    let sha1 = aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let source = source_of(provider("twilio"), &[TOKEN]);
    let body = r#"[{"id":"EZ1","type":"com.twilio.messaging.message.delivered","data":{"messageSid":"SM1"}},{"id":"EZ2","type":"com.twilio.voice.call.ended","data":{}},{"id":"EZ1","type":"x","data":{}}]"#;
    let url = format!("{URL}&bodySHA256={}", encode_hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref()));
    let good = twilio(TOKEN, sha1, &url, &url, body);
    let events = events_of(&source, good.clone());
    let told: Vec<_> = events.iter().map(|event| (event.event_type(), event.delivery_id().unwrap())).collect();
    assert_eq!(told[0], ("twilio.com.twilio.messaging.message.delivered".to_owned(), "EZ1"));
    assert_eq!((told.len(), told[1].1), (2, "EZ2"));
    let mut as_form = good.clone();
    as_form.headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
    assert_eq!(outcome(&source, as_form), None);
    let changed = Delivery { body: body.replace("SM1", "SM2").into(), ..good.clone() };
    assert_eq!(outcome(&source, changed), Some(RejectionCode::SignatureMismatch));
    let uncovered = twilio(TOKEN, sha1, URL, URL, body);
    assert_eq!(outcome(&source, uncovered), Some(RejectionCode::SignatureMismatch));
    let twice = format!("{url}&bodySHA256=00");
    assert_eq!(outcome(&source, twilio(TOKEN, sha1, &twice, &twice, body)), Some(RejectionCode::SignatureMismatch));
}

#[test]
fn a_delivery_of_hubspot_is_several_events_that_its_next_try_does_not_repeat() {
    let source = source_of(provider("hubspot"), &[SECRET]);
    let body = |attempt: u8| {
        let event = |id: u8| {
            format!(
                r#"{{"eventId":1,"subscriptionType":"deal.creation","portalId":62515,"objectId":{id},"attemptNumber":{attempt}}}"#
            )
        };
        format!("[{},{},{}]", event(1), event(2), event(2))
    };
    let keys = |attempt| {
        let events = events_of(&source, sent(&source, "deal.creation", body(attempt)));
        assert_eq!(events[0].context().text("portal"), Some("62515"));
        events.iter().map(|event| event.delivery_keys().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(keys(0).len(), 2, "the same event once");
    assert_eq!(keys(0), keys(3));
    assert_ne!(keys(0)[0], keys(0)[1]);
}

#[test]
fn hubspot_may_decode_the_uri_before_it_signs_and_older_signatures_open_nothing() {
    let source = source_of(provider("hubspot"), &[SECRET]);
    let time = NOW.as_millis().to_string();
    let signed = |uri: &str| {
        let parts = [b"POST", uri.as_bytes(), b"[]", time.as_bytes()];
        let signature = encode_base64(&hmac(SECRET, aws_lc_rs::hmac::HMAC_SHA256, &parts));
        let headers = [("x-hubspot-signature-v3", signature.as_str()), ("x-hubspot-request-timestamp", &time)];
        Delivery { url: URL.to_owned(), ..Arc::unwrap_or_clone(delivery(&headers, "[]")) }
    };
    assert_eq!(outcome(&source, signed(URL)), None);
    assert_eq!(outcome(&source, signed(&URL.replace("%40", "@"))), None);
    assert!(outcome(&source, signed(&URL.replace("%40", ""))).is_some());
    let old = |method: Method, body: &'static str, version: &str| {
        let text = [SECRET, method.as_str(), URL, body].concat();
        let signature = encode_hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        let headers = [("x-hubspot-signature", signature.as_str()), ("x-hubspot-signature-version", version)];
        Delivery { url: URL.to_owned(), method, ..Arc::unwrap_or_clone(delivery(&headers, body)) }
    };
    let get = old(Method::GET, "", "v2");
    assert_eq!(outcome(&source, get.clone()), None);
    let mut with_bad_v3 = get;
    with_bad_v3.headers.insert("x-hubspot-signature-v3", HeaderValue::from_static("AAAA"));
    with_bad_v3.headers.insert("x-hubspot-request-timestamp", HeaderValue::from_static("1"));
    assert_eq!(outcome(&source, with_bad_v3), Some(RejectionCode::SignatureMismatch));
    for (method, body, version) in
        [(Method::POST, "[]", "v2"), (Method::POST, "", "v2"), (Method::GET, "x", "v2"), (Method::GET, "", "v1")]
    {
        assert_eq!(
            outcome(&source, old(method, body, version)),
            Some(RejectionCode::SignatureMissing),
            "{body} {version}"
        );
    }
}

#[test]
fn spellings_of_one_url_that_hubspot_signed_are_one_event() {
    let source = source_of(provider("hubspot"), &[SECRET]);
    let time = NOW.as_millis().to_string();
    let event = |url: &str| {
        let signed = "https://hooks.example.com/h?portalId=62515&userEmail=kim@example.com&note=(a:b)";
        let parts = [b"GET", signed.as_bytes(), b"", time.as_bytes()];
        let signature = encode_base64(&hmac(SECRET, aws_lc_rs::hmac::HMAC_SHA256, &parts));
        let headers = [("x-hubspot-signature-v3", signature.as_str()), ("x-hubspot-request-timestamp", &time)];
        let delivery = Arc::unwrap_or_clone(delivery(&headers, ""));
        events_of(&source, Delivery { url: url.to_owned(), method: Method::GET, ..delivery }).remove(0)
    };
    let plain = event("https://hooks.example.com/h?portalId=62515&userEmail=kim@example.com&note=(a:b)");
    assert_eq!(plain.context().text("sender"), Some("kim@example.com"));
    for spelling in ["kim%40example.com&note=(a:b)", "kim@example.com&note=%28a%3ab)"] {
        let other = event(&format!("https://hooks.example.com/h?portalId=62515&userEmail={spelling}"));
        assert_eq!(other.delivery_keys(), plain.delivery_keys(), "{spelling}");
        assert_eq!(other.context(), plain.context(), "{spelling}");
    }
}

#[test]
fn a_request_that_says_everything_in_its_url_is_read_again_in_full() {
    let note = "long ".repeat(200);
    let query: String = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("MessageSid", "SM1"),
            ("SmsStatus", "received"),
            ("Body", note.as_str()),
            ("portalId", "62515"),
        ])
        .finish();
    for (name, method) in [("twilio", Method::GET), ("hubspot", Method::GET), ("twilio", Method::POST)] {
        let provider = provider(name);
        let url = format!("https://hooks.example.com/t?{query}");
        let bare = Arc::unwrap_or_clone(delivery(&[("user-agent", "x")], ""));
        let received = Delivery { url, method, ..bare };
        let kept = kept_headers(provider.as_ref(), &received);
        let again = Delivery::stored(&kept, received.body.clone(), received.received_at);
        let (first, second) = (provider.read(&received).unwrap(), provider.read(&again).unwrap());
        assert_eq!(first[0].context, second[0].context, "{name}");
        assert_eq!(first[0].delivery_id, second[0].delivery_id, "{name}");
    }
    let with_secrets = Delivery {
        url: "https://hooks.example.com/t?a=1&token=hunter2&API_key=hunter2&b=2".to_owned(),
        ..Arc::unwrap_or_clone(delivery(&[("user-agent", "x")], ""))
    };
    let kept = kept_headers(provider("twilio").as_ref(), &with_secrets);
    assert_eq!(kept[":url"], "https://hooks.example.com/t?a=1&b=2");
    let with_body = Arc::unwrap_or_clone(delivery(&[("user-agent", "x")], "a=1"));
    let kept: Vec<_> = kept_headers(provider("twilio").as_ref(), &with_body).into_keys().collect();
    assert_eq!(kept, ["user-agent"], "the URL of a form is the same each time");
}

#[test]
fn a_refusal_shows_no_query_of_a_url() {
    let url = "https://hooks.example.com/t?token=hunter2&bodySHA256=00";
    for (name, secret, headers) in [
        ("twilio", TOKEN, vec![("x-twilio-signature", "AAAA")]),
        ("hubspot", SECRET, vec![("x-hubspot-signature-v3", "AAAA"), ("x-hubspot-request-timestamp", "1")]),
        ("hubspot", SECRET, vec![("x-hubspot-signature", "00"), ("x-hubspot-signature-version", "v2")]),
    ] {
        let url = if name == "twilio" { url.replace("&bodySHA256=00", "") } else { url.to_owned() };
        let bad = Delivery { url, method: Method::GET, ..Arc::unwrap_or_clone(delivery(&headers, "")) };
        let refusal = verify(&source_of(provider(name), &[secret]), &Arc::new(bad)).unwrap_err();
        assert!(refusal.detail.contains("`https://hooks.example.com/t?…`"), "{}", refusal.detail);
        assert!(!refusal.detail.contains("hunter2"), "{}", refusal.detail);
    }
}

#[test]
fn an_asymmetric_key_of_standard_webhooks_signs_what_its_public_half_verifies() {
    let standard = provider("standard");
    let pair = standard.prepare_signing(&Secret::new(PAIR)).unwrap();
    assert_eq!(standard.signing_field(), Some("signing_key"));
    let ringer = Source::new(
        "ringer",
        provider("standard"),
        vec![NamedKey { instance: "0".to_owned(), key: pair }],
        false,
        doorbell_core::source::Dedup::Id,
    );
    let delivery = sent(&ringer.unwrap(), "user.created", "{}");
    let good = delivery.headers["webhook-signature"].to_str().unwrap().to_owned();
    assert!(good.starts_with("v1a,"));
    let source = source_of(provider("standard"), &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", PUBLIC]);
    assert_eq!(verify(&source, &Arc::new(delivery.clone())).unwrap().key().unwrap().instance, "1");
    let with = |value: String| {
        let mut changed = delivery.clone();
        changed.headers.insert("webhook-signature", value.parse().unwrap());
        outcome(&source, changed)
    };
    let wrong = format!("v1a,{}", encode_base64(&[7; 64]));
    assert_eq!(with(format!("v1,AAAA {wrong} v9,x {good}")), None, "one of several");
    assert_eq!(with(good.replace("v1a,", "v1,")), Some(RejectionCode::SignatureMismatch));
    assert_eq!(with(format!("{}{good}", format!("{wrong} ").repeat(4))), Some(RejectionCode::SignatureMismatch));
    let bytes = doorbell_core::provider::decode_base64(PUBLIC.trim_start_matches("whpk_")).unwrap();
    let forged = source_of(provider("standard"), &[&format!("whsec_{}", encode_base64(&bytes))]);
    let forged = sent(&forged, "user.created", "{}").headers["webhook-signature"].to_str().unwrap().to_owned();
    assert_eq!(with(forged), Some(RejectionCode::SignatureMismatch), "an HMAC with the public key");
}

#[test]
fn keys_of_standard_webhooks_that_cannot_be_right_are_refused() {
    let standard = provider("standard");
    let small = format!("whpk_{}", encode_base64(&[0; 32]));
    for bad in [PAIR, "whpk_", "whpk_AAAA", "whpk_***", &small] {
        assert!(standard.prepare(&Secret::new(bad)).is_err(), "{bad}");
    }
    let halves = format!("whsk_{}", encode_base64(&[7; 64]));
    for bad in ["whsk_", "whsk_AAAA", "whsk_***", &halves] {
        assert!(standard.prepare_signing(&Secret::new(bad)).is_err(), "{bad}");
    }
    assert!(standard.prepare_signing(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).is_ok());
}
