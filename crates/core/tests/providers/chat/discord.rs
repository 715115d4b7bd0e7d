//! Discord: what interactions and events say, and what Discord hears.

use std::time::Duration;

use doorbell_core::condition::Conditions;
use doorbell_core::event::Event;
use doorbell_core::pattern::Pattern;
use doorbell_core::provider::discord::Discord;
use doorbell_core::provider::{Answer, Ended, FollowUp, InvalidKey, Key, Provider, decode_hex, encode_hex};
use doorbell_core::secret::Secret;
use doorbell_core::trigger::{Candidate, Clause, Trigger};
use doorbell_core::verify::RejectionCode;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::super::{NOW, as_json, refusal};
use super::{SEED, Sender, changed};

fn context(event: &str) -> Value {
    as_json(Sender::Discord.of_sample(event).context())
}

fn interaction(kind: u8, more: &Value) -> String {
    let mut body = json!({
        "type": kind, "version": 1, "id": "7", "token": "aTokenOf-15_minutes", "application_id": "1100",
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn answer(body: &str, started: bool) -> Answer {
    Discord::default().answer(&Sender::Discord.event(body), started).unwrap()
}

fn said(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn follow_up(body: &str, text: &str) -> Option<FollowUp> {
    let ended = Ended { agent: "triage", succeeded: true, text, first: true };
    Discord::default().follow_up(&Sender::Discord.sends(body), &ended)
}

const EVENT: &str = r#"{"version":1,"application_id":"1","type":1,"event":{"type":"ENTITLEMENT_CREATE","timestamp":"2024-10-18T18:41:21.109604","data":{"user_id":"5","sku_id":"6"}}}"#;
const EVENTS_PING: &str = r#"{"version":1,"application_id":"1","type":0}"#;

#[test]
fn an_interaction_has_the_names_that_filters_and_prompts_use() {
    assert_eq!(
        context("application_command.deploy"),
        json!({
            "event": "application_command", "action": "deploy", "command": "deploy",
            "application": "1100000000000000001", "guild": "1100000000000000002", "channel": "1100000000000000003",
            "channel_name": "ops", "user": "80351110224678912", "sender": "80351110224678912", "sender_type": "user",
            "sender_name": "robin", "locale": "en-GB", "text": "environment: staging, force: false",
        })
    );
    let pressed = context("message_component.approve");
    assert_eq!((&pressed["custom_id"], &pressed["message"]), (&json!("approve"), &json!("1100000000000000032")));
    assert_eq!(pressed["message_text"], "Deploy 1.4.2 to production?");
    assert_eq!(context("modal_submit.incident")["text"], "what: Checkout answers 502, severity: high");
    assert_eq!(context("application_command.Summarize")["target"], "1100000000000000031");
    let direct =
        Sender::Discord.event(interaction(2, &json!({ "user": { "id": "9", "username": "sasha", "bot": true } })));
    assert_eq!(direct.context().text("sender"), Some("9"));
    assert_eq!(direct.context().text("sender_type"), Some("bot"));
}

#[test]
fn an_event_of_the_application_is_told_from_an_interaction_by_its_shape() {
    let event = Sender::Discord.event(EVENT);
    assert_eq!(event.event_type(), "discord.entitlement_create");
    assert_eq!((event.context().text("sender"), event.context().text("sku")), (Some("5"), Some("6")));
    // The same number means a PING in an interaction.
    assert_eq!(Sender::Discord.event(interaction(1, &json!({}))).name(), "ping");
    assert_eq!(Sender::Discord.event(EVENTS_PING).name(), "ping");
    assert_eq!(
        Sender::Discord.event(interaction(2, &json!({ "event": { "type": "X" } }))).name(),
        "application_command"
    );
    assert_eq!(Sender::Discord.event(interaction(9, &json!({}))).name(), "interaction");
    let authorized = context("application_authorized");
    assert_eq!((&authorized["guild"], &authorized["guild_name"]), (&json!("1100000000000000002"), &json!("Example")));
    assert_eq!(authorized["scopes"], json!(["applications.commands", "bot"]));
}

#[test]
fn an_event_that_is_sent_again_is_the_same_and_another_moment_is_another() {
    let id_of = |body: &str| Sender::Discord.event(body).delivery_id().unwrap().to_owned();
    assert_eq!(id_of(EVENT), id_of(EVENT));
    assert_ne!(id_of(EVENT), id_of(&EVENT.replace("109604", "109605")));
    assert_ne!(id_of(EVENT), id_of(&EVENT.replace(r#""application_id":"1""#, r#""application_id":"2""#)));
    assert_eq!(id_of(&interaction(2, &json!({}))), "7");
}

#[test]
fn the_token_stays_out_of_the_context() {
    for sample in Discord::default().samples() {
        let context = context(&sample.event).to_string();
        assert!(!context.contains("anExampleToken"), "{context}");
    }
}

#[test]
fn a_ping_is_answered_by_its_kind() {
    for started in [true, false] {
        let pong = answer(&interaction(1, &json!({})), started);
        assert_eq!((pong.status, pong.content_type), (StatusCode::OK, Some("application/json")));
        assert_eq!(said(&pong), json!({ "type": 1 }));
        let events = answer(EVENTS_PING, started);
        assert!(events.status == StatusCode::NO_CONTENT && events.body.is_empty());
        assert_eq!(answer(EVENT, started), Answer::empty(StatusCode::NO_CONTENT));
    }
    assert!(Sender::Discord.event(EVENTS_PING).is_handshake());
    assert!(Sender::Discord.event(interaction(1, &json!({}))).is_handshake());
}

#[test]
fn a_ping_under_a_wrong_signature_is_refused() {
    let header = Sender::Discord.signature_header();
    for body in [interaction(1, &json!({})), EVENTS_PING.to_owned()] {
        let wrong = changed(&Sender::Discord.sends(body), |headers| {
            headers.insert(header, HeaderValue::from_str(&"ab".repeat(64)).unwrap());
        });
        assert_eq!(refusal(&Sender::Discord.source(), &wrong), RejectionCode::SignatureMismatch);
        assert!(Discord::default().greet(Sender::Discord.source().keys(), &wrong).unwrap().is_none());
    }
}

#[test]
fn who_waits_is_told_at_once_whether_somebody_listens() {
    for (kind, deferred) in [(2, 5), (3, 6), (5, 5), (9, 5)] {
        let body = interaction(kind, &json!({ "data": { "name": "deploy", "custom_id": "approve" } }));
        assert_eq!(said(&answer(&body, true)), json!({ "type": deferred }), "{kind}");
        let nobody = said(&answer(&body, false));
        assert_eq!((&nobody["type"], &nobody["data"]["flags"]), (&json!(4), &json!(64)), "{kind}");
        assert_eq!(nobody["data"]["allowed_mentions"], json!({ "parse": [] }));
    }
    for started in [true, false] {
        let choices = said(&answer(&interaction(4, &json!({})), started));
        assert_eq!(choices, json!({ "type": 8, "data": { "choices": [] } }));
    }
}

#[test]
fn an_option_that_is_typed_is_answered_and_is_work_for_agents_that_name_it_only() {
    let typed = Sender::Discord.of_sample("autocomplete.deploy");
    assert!(typed.is_handshake());
    assert!(!Sender::Discord.of_sample("application_command.deploy").is_handshake());
    let commands = Clause {
        field: "commands".to_owned(),
        context: vec!["command".to_owned()],
        any_of: vec![Pattern::new("deploy").unwrap()],
        only_for: vec!["application_command".to_owned(), "autocomplete".to_owned()],
    };
    let conditions = Conditions::default();
    let (agent, source) = ("deploys".to_owned(), "bot".to_owned());
    let trigger = Trigger { agent, position: 0, source, clauses: vec![commands], conditions, flow: Default::default() };
    let candidate = |event| {
        let handshake = Event::is_handshake(event);
        Candidate { source: "bot", handshake, context: event.context() }
    };
    let sent = Sender::Discord.of_sample("application_command.deploy");
    assert!(trigger.matches(candidate(&sent)));
    assert!(!trigger.matches(candidate(&typed)), "the command was not sent yet");
}

#[test]
fn the_result_becomes_the_message_that_was_promised() {
    for kind in [2, 5] {
        let follow_up = follow_up(&interaction(kind, &json!({})), "Deployed @everyone").unwrap();
        assert_eq!(follow_up.method, Method::PATCH);
        assert_eq!(follow_up.url, "https://discord.com/api/v10/webhooks/1100/aTokenOf-15_minutes/messages/@original");
        assert_eq!(follow_up.until, NOW.after(Duration::from_secs(900)));
        let said: Value = serde_json::from_str(&follow_up.body).unwrap();
        assert_eq!(said, json!({ "content": "Deployed @everyone", "flags": 4, "allowed_mentions": { "parse": [] } }));
    }
}

#[test]
fn the_results_of_further_agents_are_messages_of_their_own() {
    for kind in [2, 3, 5] {
        let delivery = Sender::Discord.sends(interaction(kind, &json!({})));
        let ended = Ended { agent: "second", succeeded: true, text: "Deployed", first: false };
        let follow_up = Discord::default().follow_up(&delivery, &ended).unwrap();
        assert_eq!(follow_up.method, Method::POST, "{kind}");
        assert_eq!(follow_up.url, "https://discord.com/api/v10/webhooks/1100/aTokenOf-15_minutes");
    }
}

#[test]
fn the_result_of_a_button_is_a_message_of_its_own() {
    let follow_up = follow_up(&interaction(3, &json!({ "data": { "custom_id": "approve" } })), "Deployed").unwrap();
    assert_eq!(follow_up.method, Method::POST);
    assert_eq!(follow_up.url, "https://discord.com/api/v10/webhooks/1100/aTokenOf-15_minutes");
}

#[test]
fn nothing_follows_where_nobody_waits_or_the_token_is_none() {
    for body in [interaction(1, &json!({})), interaction(4, &json!({})), EVENT.to_owned(), EVENTS_PING.to_owned()] {
        assert!(follow_up(&body, "x").is_none(), "{body}");
    }
    for token in ["", "../../users/@me", "a/b", "a?b", "a#b", "a%2fb", "a.b", "é", &"a".repeat(1001)] {
        assert!(follow_up(&interaction(2, &json!({ "token": token })), "x").is_none(), "{token}");
    }
    for application in [json!(""), json!("1/2"), json!("a"), json!("1".repeat(21)), json!(null), json!(-1)] {
        assert!(follow_up(&interaction(2, &json!({ "application_id": application })), "x").is_none(), "{application}");
    }
}

#[test]
fn a_result_is_cut_to_what_a_message_holds() {
    let content = |text: &str| {
        let follow_up = follow_up(&interaction(2, &json!({})), text).unwrap();
        serde_json::from_str::<Value>(&follow_up.body).unwrap()["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(content(&"é".repeat(2000)).chars().count(), 2000);
    let cut = content(&"🔔".repeat(1001));
    assert!(cut.encode_utf16().count() <= 2000 && cut.ends_with('…'));
}

#[test]
fn a_public_key_is_64_hex_digits_and_none_with_which_anybody_can_sign() {
    let provider = Discord::default();
    let public = encode_hex(Key::ed25519_pair(&[7; 32]).unwrap().public().unwrap());
    for good in [public.clone(), public.to_uppercase(), format!(" {public}\n")] {
        assert!(provider.prepare(&Secret::new(good)).is_ok());
    }
    let point = format!("01{}", "00".repeat(31));
    for bad in [&public[..62], &public[1..], &format!("{public}00"), &"zz".repeat(32), "MTE1.bot.token", &point] {
        let error = provider.prepare(&Secret::new(bad)).unwrap_err();
        assert!(matches!(error, InvalidKey::Malformed(_)), "{bad}");
    }
    assert_eq!(provider.credential().field, "public_key");
    assert_eq!(provider.signing_field(), Some("private_key"));
    assert!(provider.prepare_signing(&Secret::new(SEED)).is_ok());
    assert!(provider.prepare_signing(&Secret::new("07")).is_err());
}

/// The order of the base point, in little endian (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a_signature_written_in_another_way_is_a_mismatch() {
    let header = Sender::Discord.signature_header();
    let good = Sender::Discord.sends(EVENT);
    let mut signature = decode_hex(good.headers[header].to_str().unwrap()).unwrap();
    let mut carry = 0;
    for (digit, more) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*digit) + u16::from(more) + carry;
        (*digit, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let other = changed(&good, |headers| drop(headers.insert(header, encode_hex(&signature).parse().unwrap())));
    assert_eq!(refusal(&Sender::Discord.source(), &other), RejectionCode::SignatureMismatch);
}

#[test]
fn a_key_that_only_verifies_signs_nothing() {
    let provider = Discord::default();
    let source = Sender::Discord.source();
    let unsent = doorbell_core::provider::Unsent::new("ping", "{}", "one", NOW);
    let signed = provider.sign(Some(&source.keys()[0].key), unsent);
    assert!(signed.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("x-signature-ed25519")));
}

#[test]
fn commands_restrict_commands_and_their_completion_only() {
    let provider = Discord::default();
    let names: Vec<_> = provider.filters().iter().map(|field| field.name.as_ref()).collect();
    assert_eq!(names, ["events", "guilds", "channels", "commands"]);
    let commands = &provider.filters()[3];
    assert_eq!(commands.only_for.as_ref(), ["application_command", "autocomplete"]);
    assert_eq!(provider.spelling("commands", "/deploy"), "deploy");
    assert_eq!(provider.spelling("events", "ENTITLEMENT_CREATE"), "entitlement_create");
    assert_eq!(provider.spelling("events", "application_command.Summarize"), "application_command.Summarize");
    for event in ["application_command.deploy", "autocomplete.deploy"] {
        assert_eq!(context(event)["command"], "deploy");
    }
    assert!(context("message_component.approve").get("command").is_none());
}

#[test]
fn a_body_without_a_kind_is_unreadable() {
    for body in ["{}", r#"{"type":"2"}"#, r#"{"type":1,"event":{}}"#, r#"{"type":1,"event":{"type":7}}"#] {
        assert!(!Sender::Discord.unreadable(&Sender::Discord.sends(body)), "{body}");
    }
    let _: Vec<Event> = Sender::Discord.says(r#"{"type":1}"#);
}
