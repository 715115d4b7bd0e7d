//! Providers that are data: what the shipped definitions verify and read.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::{Event, Value};
use doorbell_core::provider::declared::{Declared, Definition, shipped};
use doorbell_core::provider::{Answer, Greeting, InvalidKey, Key, Provider, Unsent, built_in, visible_headers};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderValue, Method};

use super::{Fact, NOW, delivery, flipped, read, refusal, signed, source};

pub(super) const TEXT: &str = "a-secret-of-the-tests";
pub(super) const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(super) fn shipped_one(name: &str) -> Declared {
    let (_, text) = shipped().into_iter().find(|(known, _)| *known == name).unwrap();
    Declared::new(Definition::parse(text).unwrap())
}

/// A secret of the form that the provider wants.
pub(super) fn secret_for(provider: &dyn Provider) -> &'static str {
    let whsec = ["gitlab", "clerk", "resend", "svix"].contains(&provider.name());
    if whsec { WHSEC } else { TEXT }
}

fn source_of(name: &str) -> Arc<Source> {
    let provider = shipped_one(name);
    let secret = secret_for(&provider);
    source(provider, &[secret])
}

fn at(delivery: &Arc<Delivery>, received_at: Timestamp) -> Arc<Delivery> {
    Arc::new(Delivery { received_at, ..Delivery::clone(delivery) })
}

/// The first sample, as it is sent.
fn sample_of(source: &Source) -> Arc<Delivery> {
    let sample = source.provider().samples()[0].clone();
    signed(source, &sample.event, sample.body.into_owned(), |_| {})
}

#[test]
fn every_fact_about_the_protocols_holds() {
    let facts: Vec<Fact> = serde_json::from_str(include_str!("../vectors/declared.json")).unwrap();
    assert_eq!(facts.len(), 129);
    for fact in facts {
        let Fact { why, scheme, provider, .. } = &fact;
        let what = format!("{provider}, {scheme}: {why}");
        let known = built_in()
            .into_iter()
            .find(|known| known.name() == provider || known.aliases().iter().any(|a| a == provider));
        let known = known.unwrap();
        let key = match known.prepare(&Secret::new(fact.secret.as_str())) {
            Ok(key) => key,
            Err(error) => {
                let expected =
                    if fact.secret.is_empty() { error == InvalidKey::Blank } else { why == "secret_not_base64" };
                assert!(expected && !fact.valid, "{what}: {error}");
                continue;
            }
        };
        let keys = vec![NamedKey { instance: "acme".to_owned(), key }];
        let source = Arc::new(Source::new("facts", known, keys, false, Dedup::Id).unwrap());
        let headers: Vec<_> = fact.headers.iter().collect();
        let delivery = delivery(&headers, fact.body.clone());
        let delivery = at(&delivery, fact.now.map_or(NOW, Timestamp::from_seconds));
        let expected = match why.as_str() {
            _ if fact.valid => None,
            _ if why.contains("missing") || why.contains("token_empty") => Some(RejectionCode::SignatureMissing),
            _ if why.contains("stale") => Some(RejectionCode::TimestampOutOfRange),
            _ => Some(RejectionCode::SignatureMismatch),
        };
        assert_eq!(verify(&source, &delivery).err().map(|rejection| rejection.code), expected, "{what}");
    }
}

#[test]
fn every_shipped_definition_is_right_and_has_a_name_of_its_own() {
    let mut names = Vec::new();
    for (name, text) in shipped() {
        let definition = Definition::parse(text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        assert_eq!(definition.name(), name);
    }
    for provider in built_in() {
        names.push(provider.name().to_owned());
        names.extend(provider.aliases().iter().map(ToString::to_string));
        let guide = provider.guide();
        assert!(guide.setup.contains("{url}") && guide.setup.contains("{secret}"), "{}", provider.name());
        assert!(guide.identity.contains("sign"), "{}", provider.name());
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn every_sample_is_signed_verified_and_read_as_what_it_says() {
    for (name, _) in shipped() {
        let source = source_of(name);
        let samples = source.provider().samples();
        // Grafana, Typeform and CircleCI have no more kinds of events.
        let few = ["grafana", "typeform", "circleci"].contains(&name);
        assert!(samples.len() >= if few { 2 } else { 5 }, "{name}");
        for sample in samples {
            let send = || signed(&source, &sample.event, sample.body.to_string(), |_| {});
            let event = read(&source, &send()).unwrap_or_else(|error| panic!("{name} {}: {error}", sample.event));
            assert_eq!(event.event_type(), format!("{name}.{}", sample.event));
            let is_setup = ["ping", "test", "diagnostics.ping", "pagey.ping"].contains(&&*sample.event);
            assert_eq!(event.is_handshake(), is_setup, "{name} {}", sample.event);
            let fields = event.context().iter().filter(|(field, _)| !matches!(*field, "event" | "action")).count();
            assert!(fields >= 2 || is_setup, "{name} {}: {:?}", sample.event, event.context());
            assert!(!sample.about.is_empty());
            // Sent again, it is the same; sent as another one, it is another one.
            let again = read(&source, &at(&send(), NOW.after(Duration::from_secs(5)))).unwrap();
            assert_eq!(again.delivery_keys(), event.delivery_keys(), "{name} {}", sample.event);
            let key = source.keys().first().map(|named| &named.key);
            let later = NOW.after(Duration::from_secs(1));
            let unsent = Unsent::new(&sample.event, sample.body.to_string(), "delivery-2", later);
            let other = source.provider().sign(key, unsent);
            let other = read(&source, &at(&delivery(&other.headers, other.body), later)).unwrap();
            let is_fixed = (name, &*sample.event) == ("cloudflare", "test");
            assert_eq!(other.delivery_keys() == event.delivery_keys(), is_fixed, "{name} {}", sample.event);
        }
    }
}

#[test]
fn every_filter_is_held_against_a_field_that_some_sample_has() {
    let mut idle = Vec::new();
    for (name, _) in shipped() {
        let source = source_of(name);
        let samples = source.provider().samples();
        let send =
            |sample: &doorbell_core::provider::Sample| signed(&source, &sample.event, sample.body.to_string(), |_| {});
        let events: Vec<Event> = samples.iter().map(|sample| read(&source, &send(sample)).unwrap()).collect();
        for filter in source.provider().filters() {
            let there = |event: &Event| filter.context.iter().any(|field| event.context().get(field).is_some());
            // Telegram and Typeform have no actions.
            if filter.name != "actions" && !events.iter().any(there) {
                idle.push(format!("{name}: {}", filter.name));
            }
        }
    }
    assert!(idle.is_empty(), "{idle:#?}");
}

#[test]
fn what_strangers_send_is_refused_and_never_a_panic() {
    for (name, _) in shipped() {
        let source = source_of(name);
        let proof = proof_header(&source);
        let good = sample_of(&source);
        assert!(verify(&source, &good).is_ok(), "{name}");
        let with = |change: &dyn Fn(&mut http::HeaderMap)| {
            let mut changed = Delivery::clone(&good);
            change(&mut changed.headers);
            Arc::new(changed)
        };
        assert_eq!(
            refusal(&source, &with(&|headers| drop(headers.remove(&proof)))),
            RejectionCode::SignatureMissing,
            "{name}"
        );
        let value = good.headers[&proof].clone();
        let twice = with(&|headers| {
            headers.append(http::HeaderName::try_from(&proof).unwrap(), value.clone());
        });
        let text = value.to_str().unwrap();
        let cut = &text[..text.len() - 2];
        let bad = [
            cut.as_bytes(),
            b"x",
            b"=",
            b",",
            b"v1=",
            b"sha256=",
            b"t=1,v1=",
            "é".as_bytes(),
            b"v1,AAAA",
            &b"a".repeat(8000),
        ];
        for bad in bad {
            let changed = with(&|headers| {
                headers.insert(http::HeaderName::try_from(&proof).unwrap(), HeaderValue::from_bytes(bad).unwrap());
            });
            assert_eq!(
                refusal(&source, &changed),
                RejectionCode::SignatureMismatch,
                "{name}: {:?}",
                String::from_utf8_lossy(bad)
            );
        }
        assert_eq!(refusal(&source, &twice), RejectionCode::SignatureMismatch, "{name}");
    }
}

#[test]
fn a_body_that_no_provider_sends_is_refused_under_a_good_signature() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for (name, _) in shipped() {
        let source = source_of(name);
        for blank in ["", " \n"] {
            assert_eq!(source.provider().prepare(&Secret::new(blank)).unwrap_err(), InvalidKey::Blank, "{name}");
        }
        let bodies: [&[u8]; 9] = [
            b"",
            b"null",
            b"[]",
            b"7",
            b"{",
            deep.as_bytes(),
            b"{\"a\":\"\xff\"}",
            b"a=b&payload={}",
            b"\xef\xbb\xbf[]",
        ];
        for body in bodies {
            let delivery = signed(&source, "push", body.to_vec(), |_| {});
            let error = read(&source, &delivery).unwrap_err();
            assert!(!error.wrong_type, "{name}");
        }
        let nested = format!(r#"{{"a":{deep},"type":{deep},"event":{deep},"data":{deep}}}"#);
        let _ = Event::read(&verify(&source, &signed(&source, "push", nested, |_| {})).unwrap());
        let form = signed(&source, "push", "a=b", |headers| {
            headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        });
        assert!(read(&source, &form).unwrap_err().wrong_type, "{name}");
        let marked = format!(
            "\u{feff}{}",
            source.provider().samples()[0].body.replace("{now_milliseconds}", "1").replace("{now_seconds}", "1")
        );
        assert!(
            read(&source, &signed(&source, &source.provider().samples()[0].event, marked, |_| {})).is_ok(),
            "{name}"
        );
    }
}

/// The header that proves the sender: the one that is not there without a key.
fn proof_header(source: &Source) -> String {
    let sample = &source.provider().samples()[0];
    let unsent = || Unsent::new(&sample.event, sample.body.to_string(), "delivery-1", NOW);
    let with = source.provider().sign(Some(&source.keys()[0].key), unsent());
    let without = source.provider().sign(None, unsent());
    let header = with.headers.iter().find(|(name, _)| !without.headers.iter().any(|(known, _)| known == name));
    header.unwrap().0.clone()
}

#[test]
fn a_signature_holds_for_its_own_body_secret_and_time() {
    for (name, _) in shipped() {
        let source = source_of(name);
        if !matches!(source.keys()[0].key, Key::Hmac(_) | Key::Several(_)) || name == "datadog" {
            continue;
        }
        let good = sample_of(&source);
        for bit in [0, 77, good.body.len() * 8 - 1] {
            let changed = Delivery { body: flipped(&good.body, bit).into(), ..Delivery::clone(&good) };
            assert_eq!(refusal(&source, &Arc::new(changed)), RejectionCode::SignatureMismatch, "{name}");
        }
        let provider = shipped_one(name);
        let other = if secret_for(&provider) == WHSEC { "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD" } else { "another" };
        let both = super::source(provider, &[other, secret_for(&shipped_one(name))]);
        assert_eq!(verify(&both, &good).unwrap().key().unwrap().instance, "1", "{name}");
        assert_eq!(
            refusal(&super::source(shipped_one(name), &[other]), &good),
            RejectionCode::SignatureMismatch,
            "{name}"
        );
        let upper = {
            let proof = proof_header(&source);
            let mut changed = Delivery::clone(&good);
            let text = changed.headers[&proof].to_str().unwrap().to_owned();
            let digits = text.rsplit(['=', ',']).next().unwrap();
            let is_hex = digits.len() >= 40 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let value = if is_hex { text.replace(digits, &digits.to_uppercase()) } else { text };
            changed.headers.insert(http::HeaderName::try_from(proof).unwrap(), value.parse().unwrap());
            Arc::new(changed)
        };
        assert!(verify(&source, &upper).is_ok(), "{name}: hex in upper case is the same signature");
        let Some(tolerance) = source.provider().tolerance() else { continue };
        for (shift, fits) in [(0, true), (1, false)] {
            let late = at(&good, NOW.after(tolerance + Duration::from_secs(shift)));
            let early = at(&good, NOW.before(tolerance + Duration::from_secs(shift)));
            for moved in [late, early] {
                let code = verify(&source, &moved).err().map(|rejection| rejection.code);
                assert_eq!(code, (!fits).then_some(RejectionCode::TimestampOutOfRange), "{name}");
            }
        }
        let wide = source.provider().with_tolerance(Duration::from_secs(86_400)).unwrap();
        assert_eq!(wide.tolerance(), Some(Duration::from_secs(86_400)));
        let key = wide.prepare(&Secret::new(secret_for(&*wide))).unwrap();
        let keys = vec![NamedKey { instance: "a".to_owned(), key }];
        let wide = Arc::new(Source::new("wide", wide, keys, false, Dedup::Id).unwrap());
        assert!(verify(&wide, &at(&good, NOW.after(Duration::from_secs(80_000)))).is_ok(), "{name}");
    }
}

#[test]
fn a_bad_signature_is_never_made_good_by_a_token() {
    for (name, header, proof) in [
        ("gitlab", "x-gitlab-token", TEXT.to_owned()),
        ("buildkite", "x-buildkite-token", TEXT.to_owned()),
        ("grafana", "authorization", format!("Bearer {TEXT}")),
    ] {
        let secrets: &[&str] = if name == "gitlab" { &[WHSEC, TEXT] } else { &[TEXT] };
        let source = source(shipped_one(name), secrets);
        let good = sample_of(&source);
        let mut bad = Delivery::clone(&good);
        bad.body = [&good.body[..], b" "].concat().into();
        bad.headers.insert(http::HeaderName::try_from(header).unwrap(), proof.parse().unwrap());
        assert_eq!(refusal(&source, &Arc::new(bad.clone())), RejectionCode::SignatureMismatch, "{name}");
        // The same without the signature is what the token says.
        bad.headers.remove(proof_header(&source));
        assert!(verify(&source, &Arc::new(bad.clone())).is_ok(), "{name}");
        let visible = visible_headers(source.provider(), &bad.headers);
        assert!(!visible.contains_key(header), "{name}: tokens are not shown");
    }
}

#[test]
fn a_signature_of_grafana_over_time_and_body_is_none_over_an_event_without_the_time() {
    let source = source_of("grafana");
    let good = sample_of(&source);
    let mut stripped = Delivery::clone(&good);
    let time = stripped.headers.remove("x-grafana-alerting-timestamp").unwrap();
    assert_eq!(refusal(&source, &Arc::new(stripped.clone())), RejectionCode::SignatureMismatch);
    // Written into the body, it is what was signed, but no JSON.
    stripped.body = [time.as_bytes(), b":", &good.body].concat().into();
    assert!(read(&source, &Arc::new(stripped)).is_err());
}

#[test]
fn a_signing_secret_of_gitlab_is_no_token_and_a_token_no_signing_secret() {
    let signing = source(shipped_one("gitlab"), &[WHSEC]);
    assert!(matches!(signing.keys()[0].key, Key::Hmac(_)));
    let shown = delivery(&[("X-Gitlab-Token", WHSEC)], r#"{"object_kind":"push"}"#);
    assert_eq!(refusal(&signing, &shown), RejectionCode::SignatureMismatch);
    let token = source(shipped_one("gitlab"), &[TEXT]);
    assert!(matches!(token.keys()[0].key, Key::Token(_)));
    // GitLab sends both, and this source can judge one of them only.
    let mut both = Delivery::clone(&sample_of(&signing));
    // Only signed, it says which kind of secret is missing.
    let said = verify(&token, &Arc::new(both.clone())).unwrap_err().to_string();
    assert_eq!(said, "webhook-signature is a signature, and the secret of this source is of another kind");
    both.headers.insert("x-gitlab-token", TEXT.parse().unwrap());
    assert!(verify(&token, &Arc::new(both)).is_ok());
}

#[test]
fn datadog_proves_itself_in_any_of_three_ways() {
    use doorbell_core::provider::encode_base64;
    let body = r#"{"id":"1"}"#;
    let basic = |pair: &str| format!("Basic {}", encode_base64(pair.as_bytes()));
    let password = source(shipped_one("datadog"), &["pass word"]);
    let pair = source(shipped_one("datadog"), &["datadog:pass:word"]);
    let token = source(shipped_one("datadog"), &[TEXT]);
    for (source, header, value, good) in [
        (&token, "Authorization", format!("Bearer {TEXT}"), true),
        (&token, "Authorization", format!("bearer  {TEXT}"), true),
        (&token, "X-Doorbell-Token", TEXT.to_owned(), true),
        (&token, "Authorization", basic(&format!("anybody:{TEXT}")), true),
        (&password, "Authorization", basic("anybody:pass word"), true),
        (&password, "Authorization", basic("pass word:other"), false),
        (&password, "Authorization", basic("pass word"), false),
        (&pair, "Authorization", basic("datadog:pass:word"), true),
        (&pair, "Authorization", basic("somebody:pass:word"), false),
        (&pair, "Authorization", "Basic ???".to_owned(), false),
        (&token, "Authorization", TEXT.to_owned(), false),
    ] {
        let outcome = verify(source, &delivery(&[(header, value.as_str())], body));
        assert_eq!(outcome.is_ok(), good, "{value}");
        if let Err(rejection) = outcome {
            assert_eq!(rejection.code, RejectionCode::SignatureMismatch, "{value}");
        }
    }
    let whole = source(shipped_one("datadog"), &["Bearer written-down-whole"]);
    assert!(verify(&whole, &delivery(&[("Authorization", "Bearer written-down-whole")], body)).is_ok());
}

#[test]
fn notions_first_request_shows_the_secret_and_only_if_it_is_signed_with_it() {
    let notion = shipped_one("notion");
    let token = "secret_tMrlL1qK5vuQAh1b6cZG";
    let key = notion.prepare(&Secret::new(token)).unwrap();
    let body = format!(r#"{{"verification_token":"{token}"}}"#);
    let first = notion.sign(Some(&key), Unsent::new("page", body.clone(), "1", NOW));
    let first = delivery(&first.headers, first.body);
    let Ok(Some(Greeting::Secret { secret, answer })) = notion.greet(&[], &first) else { panic!("no secret") };
    assert!(secret.equals(token.as_bytes()));
    assert_eq!(answer, Answer::empty(http::StatusCode::OK));
    let own = [NamedKey { instance: "acme".to_owned(), key }];
    assert!(matches!(notion.greet(&own, &first), Ok(Some(Greeting::Answer(_)))), "it is known already");
    let forged = delivery(&[("X-Notion-Signature", "sha256=00")], body);
    assert!(notion.greet(&[], &forged).is_err());
    let long = format!(r#"{{"verification_token":"{token}","fill":"{}"}}"#, "x".repeat(20_000));
    assert!(matches!(notion.greet(&[], &delivery(&[("X-Notion-Signature", "sha256=00")], long)), Ok(None)));
    let usual = sample_of(&source_of("notion"));
    assert!(matches!(notion.greet(&[], &usual), Ok(None)));
    // What can be no secret is none: a number, and what is too short.
    for odd in ["1", "true", "\"\"", "\"short\""] {
        let shown = delivery(&[("X-None", "x")], format!(r#"{{"verification_token":{odd}}}"#));
        assert!(!matches!(notion.greet(&[], &shown), Ok(Some(_))), "{odd}");
    }
}

#[test]
fn what_several_authors_did_in_notion_is_ignored_only_if_all_of_them_are() {
    let source = source_of("notion");
    let ignored = |names: &[&str], authors: &str| {
        let body = format!(r#"{{"id":"1","type":"page.created","authors":{authors}}}"#);
        let reading = source.provider().read(&delivery(&[("X-None", "x")], body)).unwrap().remove(0);
        let source = Source::new("wiki", source.shared_provider(), Vec::new(), true, Dedup::Id).unwrap();
        let source = source.ignoring(names.iter().map(ToString::to_string).collect());
        source.ignored_sender(&reading.context).map(str::to_owned)
    };
    let both = r#"[{"id":"bot","type":"bot"},{"id":"kim","type":"person"}]"#;
    assert_eq!(ignored(&["bot"], r#"[{"id":"bot","type":"bot"}]"#).as_deref(), Some("bot"));
    assert_eq!(ignored(&["bot"], both), None, "a person did it, too");
    assert!(ignored(&["kim", "bot"], both).is_some());
    assert_eq!(ignored(&["bot"], "[]"), None);
}

#[test]
fn intercom_asks_for_the_url_without_a_body() {
    let intercom = shipped_one("intercom");
    assert_eq!(intercom.methods(), [Method::POST, Method::HEAD]);
    let asked = Delivery { method: Method::HEAD, ..Delivery::clone(&delivery::<&str, &str>(&[], "")) };
    assert!(matches!(intercom.greet(&[], &asked), Ok(Some(Greeting::Answer(_)))));
    let posted = Delivery { method: Method::POST, ..asked };
    assert!(matches!(intercom.greet(&[], &posted), Ok(None)));
}

#[test]
fn telegram_gets_an_empty_answer_and_others_the_usual_one() {
    for (name, empty) in [("telegram", true), ("gitlab", false), ("pagerduty", false)] {
        let source = source_of(name);
        for sample in source.provider().samples() {
            let event = read(&source, &signed(&source, &sample.event, sample.body.to_string(), |_| {})).unwrap();
            let answer = source.provider().answer(&event, true);
            assert_eq!(answer, empty.then(|| Answer::empty(http::StatusCode::OK)), "{name}");
        }
    }
}

#[test]
fn events_are_read_from_where_each_provider_names_them() {
    for (name, headers, body, expected) in [
        ("gitlab", vec![("x-gitlab-event", "Push Hook")], r#"{"a":1}"#, "push"),
        ("gitlab", vec![("x-gitlab-event", "Confidential Issue Hook")], r#"{"a":1}"#, "confidential_issue"),
        ("gitlab", vec![("x-gitlab-event", "System Hook")], r#"{"event_name":"group_create"}"#, "group_create"),
        ("gitlab", vec![], r#"{"object_kind":"build","build_status":"failed"}"#, "job"),
        ("bitbucket", vec![("x-event-key", "pr:comment:added")], "{}", "pr:comment.added"),
        ("telegram", vec![], r#"{"poll":{"id":"1"},"update_id":7}"#, "poll"),
        ("zendesk", vec![], r#"{"type":"question","ticket_id":1}"#, "trigger"),
        (
            "cloudflare",
            vec![],
            r#"{"alert_type":"dos_attack_l7","alert_event":"ALERT_STATE_EVENT_START"}"#,
            "dos_attack_l7.start",
        ),
        ("datadog", vec![], r#"{"event_type":"","transition":"No Data"}"#, "alert.no_data"),
        ("jira", vec![], r#"{"webhookEvent":"jira:issue_updated"}"#, "issue.updated"),
    ] {
        let source = source_of(name);
        let headers = &headers;
        let delivery = signed(&source, "other", body, |all| {
            ["x-gitlab-event", "x-event-key"].iter().for_each(|name| drop(all.remove(*name)));
            for (name, value) in headers {
                all.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
        });
        assert_eq!(read(&source, &delivery).unwrap().event_type(), format!("{name}.{expected}"));
    }
    let nameless = signed(&source_of("vercel"), "other", r#"{"type":7}"#, |_| {});
    assert_eq!(read(&source_of("vercel"), &nameless).unwrap().name(), "7");
    let nameless = signed(&source_of("vercel"), "other", r#"{"type":{}}"#, |_| {});
    assert!(read(&source_of("vercel"), &nameless).is_err());
}

#[test]
fn contexts_have_what_the_bodies_say() {
    let field = |name: &str, event: &str, field: &str| {
        let source = source_of(name);
        let sample = source.provider().samples().iter().find(|sample| sample.event == event).unwrap();
        let event = read(&source, &signed(&source, event, sample.body.to_string(), |_| {})).unwrap();
        event.context().get(field).cloned()
    };
    let text = |text: &str| Some(Value::from(text));
    assert_eq!(field("gitlab", "push", "branch"), text("main"));
    assert_eq!(field("gitlab", "tag_push", "tag"), text("v1.2.0"));
    assert_eq!(field("gitlab", "tag_push", "branch"), None);
    assert_eq!(field("gitlab", "job", "branch"), text("round-totals"));
    assert_eq!(field("gitlab", "job", "tag"), None);
    assert_eq!(field("gitlab", "pipeline", "branch"), text("round-totals"));
    assert_eq!(field("bitbucket", "repo.push", "branch"), text("main"));
    assert_eq!(field("gitlab", "merge_request.open", "number"), Some(Value::from(17)));
    assert_eq!(field("gitlab", "issue.open", "labels"), Some(Value::from(vec!["bug".to_owned()])));
    assert_eq!(field("bitbucket", "pr.opened", "repo"), text("ACME/app"));
    assert_eq!(field("jira", "issue.created", "labels"), Some(Value::from(vec!["cart".to_owned()])));
    assert_eq!(field("telegram", "callback_query", "channel"), Some(Value::from(-1_001_234_567_890)));
    assert_eq!(field("vercel", "deployment.succeeded", "repo"), text("acme/app"));
    assert_eq!(field("vercel", "deployment.succeeded", "url"), text("https://app-acme.vercel.app"));
    assert_eq!(field("circleci", "workflow.completed", "repo"), text("acme/app"));
    assert_eq!(field("shopify", "orders.create", "shop"), text("acme.myshopify.com"));
}

#[test]
fn a_reminder_of_grafana_is_the_same_event_and_a_new_state_is_not() {
    let source = source_of("grafana");
    let id = |status: &str, title: &str| {
        let body = format!(
            r#"{{"status":"{status}","groupKey":"g","title":"{title}","alerts":[{{"status":"{status}","fingerprint":"f","startsAt":"2026-01-01T00:00:00Z"}}]}}"#
        );
        read(&source, &signed(&source, "alert", body, |_| {})).unwrap().delivery_id().unwrap().to_owned()
    };
    assert_eq!(id("firing", "one"), id("firing", "two"));
    assert_ne!(id("firing", "one"), id("resolved", "one"));
}

#[test]
fn events_that_share_a_few_fields_are_not_taken_for_one() {
    let ids = |provider: &str, event: &str, bodies: &[&str]| {
        let source = source_of(provider);
        let id = |body: &&str| {
            let event = read(&source, &signed(&source, event, (*body).to_owned(), |_| {})).unwrap();
            event.delivery_id().unwrap().to_owned()
        };
        bodies.iter().map(id).collect::<std::collections::HashSet<_>>().len()
    };
    // Of another organization, another Grafana and another contact point, and with a payload of one's own.
    let alert = r#""status":"firing","groupKey":"g","alerts":[{"fingerprint":"f","startsAt":"2026-01-01T00:00:00Z"}]"#;
    let alerts = [
        format!(r#"{{"orgId":1,{alert}}}"#),
        format!(r#"{{"orgId":2,{alert}}}"#),
        format!(r#"{{"orgId":1,"externalURL":"https://other.example/",{alert}}}"#),
        format!(r#"{{"orgId":1,"receiver":"other",{alert}}}"#),
        r#"{"status":"firing","text":"one"}"#.to_owned(),
        r#"{"status":"firing","text":"two"}"#.to_owned(),
    ];
    assert_eq!(ids("grafana", "alert", &alerts.each_ref().map(String::as_str)), 6);
    let booked = r#"{"event":"invitee.created","created_at":"2026-01-01T00:00:00Z","payload":{"uri":"https://api.calendly.com/i/1","email":"kim@example.com"}}"#;
    assert_eq!(ids("calendly", "invitee.created", &[booked, booked]), 1);
    assert_eq!(ids("calendly", "invitee.created", &[booked, &booked.replace("kim@", "sam@")]), 2);
}
