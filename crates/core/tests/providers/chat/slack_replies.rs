//! Slack: what it hears at once, and what is posted when a run has ended.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::slack::Slack;
use doorbell_core::provider::{Answer, Ended, FollowUp, Provider};
use doorbell_core::verify::verify;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::NOW;
use super::Sender;

fn form(fields: &[(&str, &str)]) -> Arc<Delivery> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Sender::Slack.sends_form(body)
}

fn command(response_url: &str) -> Arc<Delivery> {
    form(&[("command", "/deploy"), ("trigger_id", "1.2.a"), ("response_url", response_url)])
}

fn interaction(payload: &Value) -> Arc<Delivery> {
    form(&[("payload", &payload.to_string())])
}

fn answer(delivery: &Arc<Delivery>, started: bool) -> Answer {
    let event = Event::read(&verify(&Sender::Slack.source(), delivery).unwrap()).unwrap().remove(0);
    Slack::default().answer(&event, started).unwrap()
}

fn follow_up(delivery: &Delivery, text: &str) -> Option<FollowUp> {
    Slack::default().follow_up(delivery, &Ended { agent: "triage", succeeded: true, text, first: true })
}

fn text_of(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_is_acknowledged_to_whoever_typed_it() {
    for (started, words) in [(true, "is being worked on"), (false, "Nobody here listens")] {
        let answer = answer(&command("https://hooks.slack.com/commands/T1/2/x"), started);
        assert_eq!((answer.status, answer.content_type), (StatusCode::OK, Some("application/json")));
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(said["response_type"], "ephemeral");
        let text = said["text"].as_str().unwrap();
        assert!(text.contains(words) && text.contains("`/deploy`"), "{text}");
    }
}

#[test]
fn events_and_interactions_are_answered_with_nothing_and_a_menu_with_no_options() {
    for started in [true, false] {
        for sample in ["app_mention", "reaction_added", "block_actions.approve_deploy", "view_submission.incident_form"]
        {
            let answer = answer(&Sender::Slack.sample(sample, "one"), started);
            assert_eq!(answer, Answer::empty(StatusCode::OK), "{sample}");
        }
        let menu =
            answer(&interaction(&json!({ "type": "block_suggestion", "action_id": "who", "value": "ro" })), started);
        assert_eq!(&menu.body[..], br#"{"options":[]}"#);
    }
}

#[test]
fn a_menu_that_asks_for_its_options_is_no_work_for_agents_that_do_not_name_it() {
    let is_handshake = |kind: &str| {
        let delivery = interaction(&json!({ "type": kind, "action_id": "who", "value": "ro" }));
        Event::read(&verify(&Sender::Slack.source(), &delivery).unwrap()).unwrap()[0].is_handshake()
    };
    assert!(is_handshake("block_suggestion") && is_handshake("dialog_suggestion"));
    assert!(!is_handshake("block_actions") && !is_handshake("view_submission"));
}

#[test]
fn the_result_is_posted_to_the_response_url_for_half_an_hour() {
    let follow_up = follow_up(&command("https://hooks.slack.com/commands/T1/2/x"), "Deployed 1.4.2").unwrap();
    assert_eq!(follow_up.method, Method::POST);
    assert_eq!(follow_up.url, "https://hooks.slack.com/commands/T1/2/x");
    assert_eq!(follow_up.until, NOW.after(Duration::from_secs(1800)));
    let said: Value = serde_json::from_str(&follow_up.body).unwrap();
    assert_eq!(said, json!({ "response_type": "ephemeral", "replace_original": false, "text": "Deployed 1.4.2" }));
}

#[test]
fn an_interaction_is_followed_up_where_it_says_and_an_event_is_not() {
    let url = |payload: Value| follow_up(&interaction(&payload), "done").map(|follow_up| follow_up.url);
    let hook = "https://hooks.slack.com/actions/T1/2/x";
    assert_eq!(url(json!({ "type": "block_actions", "response_url": hook })).as_deref(), Some(hook));
    let modal = json!({ "type": "view_submission", "response_urls": [{ "response_url": hook }] });
    assert_eq!(url(modal).as_deref(), Some(hook));
    assert_eq!(url(json!({ "type": "view_submission", "response_urls": [] })), None);
    let event = json!({ "type": "event_callback", "event": { "type": "message" }, "response_url": hook }).to_string();
    assert!(follow_up(&Sender::Slack.sends(event), "done").is_none());
}

#[test]
fn nothing_is_posted_to_anybody_but_slack() {
    for good in [
        "https://hooks.slack.com/commands/T1/2/x",
        "https://hooks.slack-gov.com/commands/T1/2/x?a=b",
        "https://hooks.slack.com/app/a%2Fb",
    ] {
        assert_eq!(follow_up(&command(good), "x").unwrap().url, good);
    }
    for bad in [
        "http://hooks.slack.com/commands/x",
        "https://hooks.slack.com.example.com/commands/x",
        "https://evil.example.com/https://hooks.slack.com/x",
        "https://hooks.slack.com@evil.example.com/x",
        "https://hooks.slack.com:443@evil.example.com/x",
        "https://user@hooks.slack.com/x",
        "https://user:password@hooks.slack.com/x",
        "https://hooks.slack.com:8443/x",
        "https://hooks.slack.com:443/x",
        "https://hooks.slack.com:/x",
        "https://hooks.slack.com./x",
        "https://hooks.slack.com\\@evil.example.com/x",
        "https://evil.example.com\\@hooks.slack.com/x",
        "https://evil.example.com#@hooks.slack.com/x",
        "https://evil.example.com?@hooks.slack.com/x",
        "https:\\\\evil.example.com/hooks.slack.com/",
        "https:hooks.slack.com/x",
        "https:///hooks.slack.com/x",
        "//hooks.slack.com/x",
        "hooks.slack.com/x",
        "/x",
        "https://hooks.slack.com",
        "https://hooks.slack.com/",
        "https://slack.com/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://hooks.slack.com/x y",
        "https://hooks.slack.com/x\n",
        "https://hooks.slack.com/é",
        " https://hooks.slack.com/x",
        "https://hooks。slack.com/x",
        "file:///etc/passwd",
        "",
    ] {
        assert!(follow_up(&command(bad), "x").is_none(), "{bad:?}");
    }
}

#[test]
fn a_result_mentions_nobody_and_is_cut_where_slack_would_cut_it() {
    let hook = "https://hooks.slack.com/commands/T1/2/x";
    let said = |text: &str| text_of(&follow_up(&command(hook), text).unwrap().body);
    assert_eq!(said("<!channel> a < b && c"), "&lt;!channel&gt; a &lt; b &amp;&amp; c");
    assert_eq!(said(&"é".repeat(40_000)).chars().count(), 40_000);
    let long = said(&"a&".repeat(30_000));
    assert!(long.chars().count() <= 40_000 && long.ends_with('…') && !long.contains("&am…"));
}

#[test]
fn a_failure_names_the_agent() {
    let delivery = command("https://hooks.slack.com/commands/T1/2/x");
    let ended = Ended { agent: "triage", succeeded: false, text: "timed out", first: true };
    assert_eq!(text_of(&Slack::default().follow_up(&delivery, &ended).unwrap().body), "`triage` failed: timed out");
}
