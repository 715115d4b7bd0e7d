//! Slack: what its three products say.

use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::slack::Slack;
use doorbell_core::provider::{Greeting, Provider};
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::super::{as_json, delivery, refusal};
use super::{FORM, Sender, changed};

fn context(event: &str) -> Value {
    as_json(Sender::Slack.of_sample(event).context())
}

fn of_event(event: &Value) -> Value {
    let body = json!({ "type": "event_callback", "event_id": "Ev1", "team_id": "T1", "event": event });
    as_json(Sender::Slack.event(body.to_string()).context())
}

#[test]
fn an_event_has_the_names_that_filters_and_prompts_use() {
    assert_eq!(
        context("app_mention"),
        json!({
            "event": "app_mention", "team": "T0EXAMPLE1", "app": "A0DOORBELL", "channel": "C0BUILDS",
            "user": "U0ROBIN", "sender": "U0ROBIN", "sender_type": "user", "bot_user": "U0DOORBELL",
            "text": "<@U0DOORBELL> why does the nightly build fail?", "ts": "1790000000.000100",
        })
    );
    assert_eq!(
        context("message.message_changed"),
        json!({
            "event": "message", "action": "message_changed", "team": "T0EXAMPLE1", "app": "A0DOORBELL",
            "channel": "C0OPS", "channel_type": "channel", "author": "U0ROBIN", "sender": "U0ROBIN",
            "sender_type": "user", "bot_user": "U0DOORBELL", "text": "The staging deploy is broken since 9:40",
            "text_before": "The staging deploy is broken", "ts": "1790000090.000300",
        })
    );
    let reaction = context("reaction_added");
    assert_eq!((&reaction["reaction"], &reaction["channel"]), (&json!("eyes"), &json!("C0OPS")));
    assert_eq!((&reaction["sender"], &reaction["author"]), (&json!("U0SASHA"), &json!("U0ROBIN")));
}

#[test]
fn the_channel_of_an_event_is_found_wherever_it_stands() {
    for event in [
        json!({ "type": "x", "channel": "C1" }),
        json!({ "type": "x", "channel": { "id": "C1", "name": "new", "creator": "U1" } }),
        json!({ "type": "x", "channel_id": "C1" }),
        json!({ "type": "x", "item": { "channel": "C1", "ts": "1.2" } }),
        json!({ "type": "x", "assistant_thread": { "channel_id": "C1" } }),
    ] {
        assert_eq!(of_event(&event)["channel"], "C1", "{event}");
    }
}

#[test]
fn a_bot_is_known_by_its_id_even_where_it_edits_or_deletes() {
    let wrote = of_event(&json!({ "type": "message", "subtype": "bot_message", "bot_id": "B1", "text": "hi" }));
    assert_eq!(
        (&wrote["sender"], &wrote["bot_id"], &wrote["sender_type"]),
        (&json!("B1"), &json!("B1"), &json!("bot"))
    );
    let as_user = of_event(&json!({ "type": "message", "user": "UBOT", "bot_id": "B1", "text": "hi" }));
    assert_eq!((&as_user["sender"], &as_user["bot_id"]), (&json!("UBOT"), &json!("B1")));
    let edited = of_event(
        &json!({ "type": "message", "subtype": "message_changed", "message": { "bot_id": "B1", "user": "UBOT" } }),
    );
    assert_eq!((&edited["sender"], &edited["bot_id"]), (&json!("UBOT"), &json!("B1")));
    let deleted = of_event(
        &json!({ "type": "message", "subtype": "message_deleted", "previous_message": { "bot_id": "B1", "user": "UBOT" } }),
    );
    assert_eq!((&deleted["author"], &deleted["bot_id"]), (&json!("UBOT"), &json!("B1")));
    let other = of_event(&json!({ "type": "user_change", "user": { "id": "U1", "name": "robin" } }));
    assert_eq!(other["sender"], "U1");
}

#[test]
fn a_redelivery_has_the_same_id_whatever_its_headers_say() {
    let first = Sender::Slack.sample("app_mention", "one");
    let again = changed(&first, |headers| {
        headers.insert("x-slack-retry-num", HeaderValue::from_static("1"));
        headers.insert("x-slack-retry-reason", HeaderValue::from_static("http_timeout"));
    });
    let id_of = |delivery: &Arc<Delivery>| {
        let event = Event::read(&verify(&Sender::Slack.source(), delivery).unwrap()).unwrap().remove(0);
        event.delivery_keys().to_vec()
    };
    assert_eq!(id_of(&first), id_of(&again));
    assert!(id_of(&first)[0].starts_with("id:Ev"));
    let visible = doorbell_core::provider::visible_headers(&Slack::default(), &again.headers);
    assert_eq!(visible["x-slack-retry-reason"], "http_timeout");
    // A word for the log: nobody signs it.
    assert_eq!(Slack::default().retried(&again).as_deref(), Some("1 http_timeout"));
    let odd = changed(&first, |headers| drop(headers.insert("x-slack-retry-num", HeaderValue::from_static("a b=c"))));
    assert_eq!((Slack::default().retried(&first), Slack::default().retried(&odd)), (None, None));
}

#[test]
fn a_command_is_a_form_and_its_capabilities_stay_out_of_the_context() {
    let sent = Sender::Slack.sample("slash_command.deploy", "one");
    assert_eq!(sent.content_type(), FORM);
    assert!(sent.body.windows(18).any(|part| part == b"command=%2Fdeploy&"));
    assert_eq!(
        context("slash_command.deploy"),
        json!({
            "event": "slash_command", "action": "deploy", "command": "/deploy", "text": "staging",
            "team": "T0EXAMPLE1", "team_name": "example", "app": "A0DOORBELL", "channel": "C0OPS",
            "channel_name": "ops", "user": "U0ROBIN", "sender": "U0ROBIN", "sender_name": "robin",
            "sender_type": "user",
        })
    );
}

#[test]
fn an_interaction_is_json_in_a_form() {
    let sent = Sender::Slack.sample("block_actions.approve_deploy", "one");
    assert!(sent.is_form() && sent.body.starts_with(b"payload=%7B"));
    assert_eq!(
        context("block_actions.approve_deploy"),
        json!({
            "event": "block_actions", "action": "approve_deploy", "team": "T0EXAMPLE1", "team_name": "example",
            "app": "A0DOORBELL", "channel": "C0OPS", "channel_name": "ops", "user": "U0SASHA", "sender": "U0SASHA",
            "sender_name": "sasha", "sender_type": "user", "value": "1.4.2", "author": "U0DOORBELL",
            "text": "Deploy 1.4.2 to production?", "ts": "1790000200.000700",
        })
    );
    let submitted = context("view_submission.incident_form");
    assert_eq!((&submitted["callback"], &submitted["view"]), (&json!("incident_form"), &json!("V0INCIDENT")));
}

#[test]
fn without_a_trigger_the_whole_interaction_is_its_identity() {
    let id_of = |payload: Value| {
        let form =
            form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
        let verified = verify(&Sender::Slack.source(), &Sender::Slack.sends_form(form)).unwrap();
        Event::read(&verified).unwrap()[0].delivery_id().unwrap().to_owned()
    };
    let closed = |hash: &str| json!({ "type": "view_closed", "view": { "id": "V1", "hash": hash } });
    assert_eq!(id_of(closed("a")), id_of(closed("a")));
    assert_ne!(id_of(closed("a")), id_of(closed("b")));
    assert_eq!(id_of(json!({ "type": "shortcut", "trigger_id": "1.2.a" })), "1.2.a");
}

#[test]
fn what_is_no_event_is_unreadable_and_says_what_is_missing() {
    for (body, word) in [
        (r#"{"event":{"type":"message"}}"#, "`type`"),
        (r#"{"type":7}"#, "`type`"),
        (r#"{"type":"event_callback"}"#, "`event.type`"),
        (r#"{"type":"event_callback","event":{"type":"a\u0007b"}}"#, "`event.type`"),
    ] {
        let verified = verify(&Sender::Slack.source(), &Sender::Slack.sends(body)).unwrap();
        assert!(Event::read(&verified).unwrap_err().detail.contains(word), "{body}");
    }
    for (form, word) in
        [("a=b", "`command`"), ("command=", "`command`"), ("payload=x", "payload"), ("payload=%7B%7D", "`type`")]
    {
        let verified = verify(&Sender::Slack.source(), &Sender::Slack.sends_form(form)).unwrap();
        assert!(Event::read(&verified).unwrap_err().detail.contains(word), "{form}");
    }
}

#[test]
fn the_challenge_is_given_back_only_under_a_signature() {
    let event = Sender::Slack.of_sample("url_verification");
    assert!(event.is_handshake());
    let answer = Slack::default().answer(&event, false).unwrap();
    assert_eq!((answer.status, answer.content_type), (StatusCode::OK, Some("application/json")));
    assert_eq!(&answer.body[..], br#"{"challenge":"3eZexampleChallengeOfTheProjectsOwnMaking0001"}"#);
    let unsigned =
        changed(&Sender::Slack.sample("url_verification", "one"), |headers| drop(headers.remove("x-slack-signature")));
    assert!(Slack::default().greet(Sender::Slack.source().keys(), &unsigned).unwrap().is_none());
    assert_eq!(refusal(&Sender::Slack.source(), &unsigned), RejectionCode::SignatureMissing);
    // Nor is it given to an event that only looks like one.
    let posing = Sender::Slack.event(r#"{"type":"event_callback","challenge":"x","event":{"type":"message"}}"#);
    assert!(Slack::default().answer(&posing, false).unwrap().body.is_empty());
}

#[test]
fn a_certificate_probe_is_greeted_and_nothing_else_comes_of_it() {
    let source = Sender::Slack.source();
    let greet = |kind: &str, body: &str| {
        let request = delivery(&[("content-type", kind)], body.to_owned());
        Slack::default().greet(source.keys(), &request).unwrap()
    };
    for probe in [
        "ssl_check=1",
        "token=a&ssl_check=1",
        "ssl_check=1&payload=%7B%22type%22%3A%22block_actions%22%7D&command=%2Frm",
    ] {
        let Some(Greeting::Answer(answer)) = greet(FORM, probe) else { panic!("{probe}") };
        assert!(answer.status == StatusCode::OK && answer.body.is_empty(), "{probe}");
        let unsigned = delivery(&[("content-type", FORM)], probe);
        assert_eq!(refusal(&source, &unsigned), RejectionCode::SignatureMissing, "{probe}");
    }
    for other in ["", "ssl_check=0", "text=ssl_check%3D1", "xssl_check=1", "ssl_check=11", "command=%2Fssl_check=1"] {
        assert!(greet(FORM, other).is_none(), "{other}");
    }
    assert!(greet("application/json", "ssl_check=1").is_none());
    let get = Delivery { method: Method::GET, ..Delivery::clone(&delivery(&[("content-type", FORM)], "ssl_check=1")) };
    assert!(Slack::default().greet(source.keys(), &get).unwrap().is_none());
}

#[test]
fn filters_are_those_of_the_seeds_and_a_command_may_be_written_without_its_slash() {
    let provider = Slack::default();
    let names: Vec<_> = provider.filters().iter().map(|field| field.name.as_ref()).collect();
    assert_eq!(names, ["events", "channels", "team_ids", "commands"]);
    assert_eq!(provider.spelling("commands", "deploy"), "/deploy");
    assert_eq!(provider.spelling("commands", "/deploy"), "/deploy");
    assert_eq!(provider.spelling("channels", "ops"), "ops");
}
