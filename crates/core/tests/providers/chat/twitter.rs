//! X: what its three products say.

use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::provider::Provider;
use doorbell_core::provider::twitter::Twitter;
use doorbell_core::source::Source;
use doorbell_core::verify::{RejectionCode, verify};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::super::{SECRET, as_json, refusal, source};
use super::{Sender, changed};

const OAUTH2: &str = "x-twitter-webhooks-signature-oauth2";

fn context(event: &str) -> Value {
    as_json(Sender::Twitter.of_sample(event).context())
}

fn ids(body: &Value) -> Vec<String> {
    let events = Sender::Twitter.says(body.to_string());
    events.iter().map(|event| event.delivery_id().unwrap().to_owned()).collect()
}

#[test]
fn an_event_has_the_names_that_filters_and_prompts_use() {
    let mut mention = context("tweet_create_events");
    let id = mention.as_object_mut().unwrap().remove("id").unwrap();
    let url = mention.as_object_mut().unwrap().remove("url").unwrap();
    assert_eq!(url.as_str().unwrap(), format!("https://x.com/robin_example/status/{}", id.as_str().unwrap()));
    assert_eq!(
        mention,
        json!({
            "event": "tweet_create_events", "user": "3000000000000000002", "sender": "3000000000000000001",
            "sender_name": "robin_example", "author": "robin_example",
            "text": "@doorbell_demo is the status page down for you as well?", "language": "en",
        })
    );
    let liked = context("favorite_events");
    assert_eq!((&liked["author"], &liked["sender_name"]), (&json!("doorbell_demo"), &json!("robin_example")));
    assert_eq!((&liked["text"], &liked["id"]), (&json!("Version 1.4.2 is out."), &json!("2090000000000000002")));
    let message = context("direct_message_events.message_create");
    assert_eq!(
        (&message["text"], &message["sender_name"]),
        (&json!("Can you resend my invoice?"), &json!("robin_example"))
    );
    let followed = context("follow_events.follow");
    assert_eq!(
        (&followed["sender"], &followed["target"]),
        (&json!("3000000000000000001"), &json!("3000000000000000002"))
    );
    assert_eq!(context("user_event.revoke")["user"], "3000000000000000002");
}

#[test]
fn the_other_two_products_are_told_by_their_shape() {
    let bio = Sender::Twitter.of_sample("profile.update.bio");
    assert_eq!((bio.name(), bio.action()), ("profile", Some("update.bio")));
    assert_eq!(context("profile.update.bio")["after"], "Rings doorbells");
    assert_eq!(context("profile.update.bio")["sender"], "3000000000000000001");
    assert_eq!(context("post.create")["text"], "The new release works for me.");
    let post = context("filtered_stream");
    assert_eq!((&post["user"], &post["tags"]), (&json!("3000000000000000001"), &json!(["doorbell"])));
    assert_eq!(
        ids(&json!({ "data": { "event_type": "dm.received", "event_uuid": 2_080_761_390_344_937_796_i64 } })),
        ["2080761390344937796"]
    );
    assert_eq!(ids(&json!({ "data": { "id": "9", "text": "hi" }, "matching_rules": [] })), ["post:9"]);
    let replay = Sender::Twitter.event(r#"{"replay_job_status":{"job_id":"1","job_state":"Complete"}}"#);
    assert_eq!((replay.name(), replay.context().text("state")), ("replay_job_status", Some("Complete")));
}

#[test]
fn every_element_of_every_list_is_an_event_of_its_own() {
    let body = json!({
        "for_user_id": "1",
        "tweet_create_events": [{ "id_str": "7", "text": "a" }, { "id_str": "8", "text": "b" }, { "id_str": "7" }],
        "favorite_events": [{ "id": "7", "user": { "id_str": "2" } }],
    });
    assert_eq!(ids(&body), ["1:favorite_events:7", "1:tweet_create_events:7", "1:tweet_create_events:8"]);
    let events = Sender::Twitter.says(body.to_string());
    let keys: std::collections::HashSet<_> = events.iter().flat_map(|event| event.delivery_keys()).collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(events[1].context().text("text"), Some("a"));
}

#[test]
fn an_element_is_the_same_in_another_batch_and_another_for_another_user() {
    let one = |user: &str, id: &str| json!({ "for_user_id": user, "direct_message_events": [{ "id": id, "type": "message_create" }] });
    let both = json!({ "for_user_id": "1", "direct_message_events": [{ "id": "8" }, { "id": "7", "type": "message_create" }] });
    assert_eq!(ids(&one("1", "7"))[0], ids(&both)[1]);
    assert_ne!(ids(&one("1", "7")), ids(&one("2", "7")));
}

#[test]
fn an_element_without_an_id_is_known_by_who_did_what_to_whom_and_when() {
    let follow = |kind: &str, at: &str, followers: u32| {
        ids(&json!({ "for_user_id": "1", "follow_events": [{
            "type": kind, "created_timestamp": at,
            "source": { "id": "2", "followers_count": followers }, "target": { "id": "1" } }] }))
    };
    assert_eq!(follow("follow", "15", 3), follow("follow", "15", 4), "what is counted beside it may have changed");
    assert_ne!(follow("follow", "15", 3), follow("unfollow", "15", 3));
    assert_ne!(follow("follow", "15", 3), follow("follow", "16", 3));
    let odd = |text: &str| ids(&json!({ "for_user_id": "1", "odd_events": [{ "what": text }] }));
    assert_eq!(odd("a"), odd("a"));
    assert_ne!(odd("a"), odd("b"));
}

#[test]
fn the_lists_are_named_as_x_names_them_and_their_types_are_actions() {
    for (list, kind) in [
        ("follow_events", "unfollow"),
        ("block_events", "unblock"),
        ("mute_events", "mute"),
        ("spaces_events", "start"),
    ] {
        let body = json!({ "for_user_id": "1", (list): [{ "type": kind, "source": { "id": "2" } }] });
        assert_eq!(Sender::Twitter.event(body.to_string()).event_type(), format!("twitter.{list}.{kind}"));
    }
    for list in ["tweet_delete_events", "direct_message_indicate_typing_events", "direct_message_mark_read_events"] {
        let body = json!({ "for_user_id": "1", (list): [{ "sender_id": "2", "created_timestamp": "5" }] });
        assert_eq!(Sender::Twitter.event(body.to_string()).event_type(), format!("twitter.{list}"));
    }
}

#[test]
fn the_whole_text_of_a_long_post_is_taken() {
    let body = json!({ "for_user_id": "1", "tweet_create_events": [{
        "id_str": "7", "text": "cut…", "extended_tweet": { "full_text": "cut nowhere" } }] });
    assert_eq!(Sender::Twitter.event(body.to_string()).context().text("text"), Some("cut nowhere"));
}

#[test]
fn lists_that_hold_nothing_are_unreadable() {
    for body in [
        r#"{"for_user_id":"1","tweet_create_events":[]}"#,
        r#"{"for_user_id":"1","tweet_create_events":{}}"#,
        r#"{"for_user_id":"1","tweet_create_events":null}"#,
    ] {
        assert!(!Sender::Twitter.unreadable(&Sender::Twitter.sends(body)), "{body}");
    }
}

fn moved(name: &'static str, value: HeaderValue) -> Arc<Delivery> {
    changed(&Sender::Twitter.sends(Sender::Twitter.usual()), |headers| {
        headers.remove("x-twitter-webhooks-signature");
        headers.insert(HeaderName::from_static(name), value);
    })
}

#[test]
fn either_header_proves_with_either_secret() {
    let usual = Sender::Twitter.sends(Sender::Twitter.usual());
    let right = usual.headers["x-twitter-webhooks-signature"].clone();
    let both: Arc<Source> = source(Twitter, &["client secret", SECRET]);
    let by = |delivery: &Arc<Delivery>| verify(&both, delivery).unwrap().key().unwrap().instance.clone();
    assert_eq!(by(&usual), "1");
    assert_eq!(by(&moved(OAUTH2, right)), "1");
    // During a migration both are sent, and only one of the secrets may be known here.
    let mut other = HeaderValue::from_static("sha256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    other.set_sensitive(true);
    let sent_both = changed(&usual, |headers| drop(headers.insert(OAUTH2, other.clone())));
    assert_eq!(by(&sent_both), "1");
    assert_eq!(refusal(&both, &moved(OAUTH2, other)), RejectionCode::SignatureMismatch);
    let odd = changed(&usual, |headers| drop(headers.insert(OAUTH2, HeaderValue::from_static("sha256=?"))));
    assert_eq!(refusal(&both, &odd), RejectionCode::SignatureMismatch);
}

#[test]
fn it_is_known_as_x_too_and_has_the_filters_of_the_seeds() {
    assert_eq!((Twitter.name(), Twitter.aliases()), ("twitter", &["x".into()][..]));
    let names: Vec<_> = Twitter.filters().iter().map(|field| field.name.as_ref()).collect();
    assert_eq!(names, ["events", "users"]);
    assert_eq!(Twitter.credential().name, "x_twitter_api");
    assert_eq!(Twitter.credential().field, "consumer_secret");
}
