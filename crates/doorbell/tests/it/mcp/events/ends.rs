//! Failures, refreshes and ends: nothing is lost, and nothing is sent to who may not have it.

use super::*;

#[tokio::test]
async fn a_delivery_that_fails_is_tried_again_under_the_same_id_and_signed_anew() {
    let receiver = Receiver::start(&["503 retry-after: 1", "200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let subscribed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let receipt = ring(&gateway).await;
    let sent = receiver.was_sent(2);
    assert_eq!(sent[0].headers["webhook-id"], sent[1].headers["webhook-id"]);
    assert_eq!((&sent[0].body, &sent[0].body["eventId"]), (&sent[1].body, &json!(receipt.delivery_id)));
    assert_ne!(sent[0].headers["webhook-timestamp"], sent[1].headers["webhook-timestamp"]);
    assert!(sent.iter().all(|sent| sent.is_signed_with(KEY)));
    let run = wait_until("the delivery to be over", async || {
        deliveries(&gateway, &subscribed).await.into_iter().find(|run| run.state == "succeeded")
    })
    .await;
    let detail = gateway.client.run(&run.id).await.unwrap();
    assert_eq!(detail.attempts[0].reason.as_deref(), Some("answered with 503; try 2 of 5 follows"));
}

#[tokio::test]
async fn what_a_receiver_never_takes_is_a_dead_letter_that_can_be_tried_again() {
    let receiver = Receiver::start(&["410", "200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let subscribed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let first = ring(&gateway).await;
    let run = wait_until("the delivery to fail", async || {
        deliveries(&gateway, &subscribed).await.into_iter().find(|run| run.dead_letter)
    })
    .await;
    assert_eq!((run.state.as_str(), run.reason.as_deref()), ("failed", Some("answered with 410")));
    let refreshed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let status = &refreshed["deliveryStatus"];
    assert_eq!((&status["active"], &status["lastError"]), (&json!(true), &json!("http_4xx")), "{refreshed}");
    gateway.client.retry_run(&run.id).await.unwrap();
    assert_eq!(receiver.was_sent(2)[1].body["eventId"], json!(first.delivery_id));
    gateway.finished(&run.id).await;
    let refreshed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    assert_eq!(refreshed["deliveryStatus"]["lastError"], Value::Null, "{refreshed}");
    assert!(refreshed["deliveryStatus"]["lastDeliveryAt"].is_string(), "{refreshed}");
}

#[tokio::test]
async fn a_cursor_brings_what_came_before_also_to_who_comes_back() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let (first, second) = (ring(&gateway).await, ring(&gateway).await);
    let mut wish = receiver.wish();
    wish["cursor"] = json!("0");
    let subscribed = ask(&gateway, "events/subscribe", wish.clone()).await;
    assert_eq!((&subscribed["truncated"], &subscribed["cursor"]), (&json!(false), &json!("0")));
    let ids = |sent: Vec<Sent>| {
        let mut ids: Vec<String> = sent.iter().map(|sent| sent.body["eventId"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let expected = vec![first.delivery_id.clone(), second.delivery_id.clone()];
    assert_eq!(ids(receiver.was_sent(2)), expected);
    let refreshed = wait_until("both to be acknowledged", async || {
        let refreshed = ask(&gateway, "events/subscribe", wish.clone()).await;
        (refreshed["cursor"] != "0").then_some(refreshed)
    })
    .await;
    assert_eq!(refreshed["cursor"], "2", "a live one is where it is, whatever cursor comes with a refresh");
    let gone = json!({ "name": "acme", "delivery": { "url": receiver.url } });
    ask(&gateway, "events/unsubscribe", gone).await;
    ask(&gateway, "events/subscribe", wish).await;
    assert_eq!(ids(receiver.was_sent(4).split_off(2)), expected, "who comes back with an old cursor gets them again");
}

#[tokio::test]
async fn a_new_secret_signs_beside_the_old_one_for_a_while() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let first = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let mut wish = receiver.wish();
    wish["delivery"]["secret"] = json!(secret(OTHER_KEY));
    wish["ttlMs"] = json!(1e15);
    let second = ask(&gateway, "events/subscribe", wish).await;
    assert_eq!(first["id"], second["id"]);
    let ends: Timestamp = second["refreshBefore"].as_str().unwrap().parse().unwrap();
    assert!(ends.since(doorbell::clock::now()).as_secs() <= 24 * 3600, "{second}");
    let challenges = receiver.challenges.lock().unwrap().clone();
    assert!(challenges.len() == 2 && challenges[1].is_signed_with(OTHER_KEY), "the new secret is proved, too");
    ring(&gateway).await;
    let sent = receiver.was_sent(1).remove(0);
    assert!(sent.is_signed_with(KEY) && sent.is_signed_with(OTHER_KEY), "{sent:?}");
}

#[tokio::test]
async fn a_subscription_survives_a_kill_and_so_does_what_was_on_its_way() {
    let receiver = Receiver::start(&["200"]);
    let (open, held) = mpsc::channel::<()>();
    *receiver.hold.lock().unwrap() = Some(held);
    let project = receiver.project("");
    let gateway = project.serve();
    let subscribed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    let first = ring(&gateway).await;
    receiver.was_sent(1);
    gateway.kill();
    drop(open);
    let gateway = project.serve();
    let again = receiver.was_sent(2);
    assert_eq!(again[1].body, again[0].body, "it is delivered again, as nobody heard the answer");
    let second = ring(&gateway).await;
    assert_eq!(receiver.was_sent(3)[2].body["eventId"], json!(second.delivery_id));
    let runs = wait_until("both to be delivered", async || {
        let runs = deliveries(&gateway, &subscribed).await;
        runs.iter().all(|run| run.state == "succeeded").then_some(runs)
    })
    .await;
    let events: Vec<&str> = runs.iter().map(|run| run.event_id.as_str()).collect();
    assert_eq!(events, [&second.delivery_id, &first.delivery_id], "one run for each");
    let refreshed = ask(&gateway, "events/subscribe", receiver.wish()).await;
    assert_eq!(refreshed["id"], subscribed["id"]);
}

#[tokio::test]
async fn a_subscription_that_is_not_refreshed_ends_and_what_was_on_its_way_with_it() {
    let receiver = Receiver::start(&["503 retry-after: 600"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let mut wish = receiver.wish();
    wish["ttlMs"] = json!(1);
    let subscribed = ask(&gateway, "events/subscribe", wish).await;
    ring(&gateway).await;
    receiver.was_sent(1);
    let run = wait_until("the delivery to be cancelled", async || {
        deliveries(&gateway, &subscribed).await.into_iter().find(|run| run.state == "cancelled")
    })
    .await;
    assert!(run.reason.as_deref().unwrap().contains("the end of its subscription"), "{run:?}");
    let last = ring(&gateway).await;
    gateway.finished(&last.runs[0]).await;
    assert_eq!(deliveries(&gateway, &subscribed).await.len(), 1);
    assert_eq!(receiver.sent().len(), 1);
    project.log_with("subscription.expired");
}

#[tokio::test]
async fn who_comes_back_at_once_is_not_sent_what_was_on_its_way_before() {
    let receiver = Receiver::start(&["503 retry-after: 600", "200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let first = ask(&gateway, "events/subscribe", receiver.wish()).await;
    ring(&gateway).await;
    receiver.was_sent(1);
    let gone = json!({ "name": "acme", "delivery": { "url": receiver.url } });
    ask(&gateway, "events/unsubscribe", gone).await;
    let second = ask(&gateway, "events/subscribe", receiver.wish()).await;
    assert_eq!(first["id"], second["id"]);
    let next = ring(&gateway).await;
    assert_eq!(receiver.was_sent(2)[1].body["eventId"], json!(next.delivery_id));
    let runs = wait_until("both to be over", async || {
        let runs = deliveries(&gateway, &second).await;
        (runs.len() == 2 && runs.iter().all(|run| run.finished_at.is_some())).then_some(runs)
    })
    .await;
    let states: Vec<&str> = runs.iter().map(|run| run.state.as_str()).collect();
    assert_eq!(states, ["succeeded", "cancelled"]);
}

#[tokio::test]
async fn a_subscription_is_its_keys_alone_and_ends_with_it() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    project.agent("other", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]\n", "true");
    let gateway = project.serve();
    let wish = api::NewKey {
        name: "a".to_owned(),
        role: "agent".to_owned(),
        agent: Some("triage".to_owned()),
        expires: None,
        account: None,
    };
    let own = gateway.client.create_key(&wish).await.unwrap();
    let subscribed = ask_as(&gateway, &own.key, "events/subscribe", receiver.wish()).await["result"].clone();
    let gone = json!({ "name": "acme", "arguments": {}, "delivery": { "url": receiver.url } });
    ask(&gateway, "events/unsubscribe", gone).await;
    gateway.ring(sample("push")).await;
    let first = ring(&gateway).await;
    let sent = receiver.was_sent(1);
    assert_eq!(
        sent[0].body["eventId"],
        json!(first.delivery_id),
        "an agent's key has its agent's events, and no others"
    );
    let polled = ask_as(&gateway, &own.key, "events/poll", json!({ "name": "acme", "cursor": "0" })).await;
    assert_eq!(polled["result"]["events"].as_array().unwrap().len(), 1, "{polled}");
    gateway.client.remove_key(&own.key_id).await.unwrap();
    let told = receiver.was_sent(2).remove(1);
    assert_eq!((&told.body["type"], &told.body["error"]["code"]), (&json!("terminated"), &json!(-32012)));
    assert!(told.is_signed_with(KEY) && told.headers["webhook-id"].starts_with("msg_terminated_"));
    let last = ring(&gateway).await;
    gateway.finished(&last.runs[0]).await;
    assert_eq!((receiver.sent().len(), deliveries(&gateway, &subscribed).await.len()), (2, 1));
}

#[tokio::test]
async fn a_subscription_ends_with_a_key_that_ends_by_itself_and_who_made_it_is_on_record() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let expires = Some("5m".to_owned());
    let wish = api::NewKey { name: "short".to_owned(), role: "owner".to_owned(), agent: None, expires, account: None };
    let short = gateway.client.create_key(&wish).await.unwrap();
    let subscribed = ask_as(&gateway, &short.key, "events/subscribe", receiver.wish()).await["result"].clone();
    let ends: Timestamp = subscribed["refreshBefore"].as_str().unwrap().parse().unwrap();
    assert!(ends.since(doorbell::clock::now()).as_secs() <= 300, "{subscribed}");
    let record = String::from_utf8(project.run(&["audit", "--json"]).stdout).unwrap();
    assert!(record.contains("MCP events/subscribe") && record.contains(subscribed["id"].as_str().unwrap()), "{record}");
    assert!(!record.contains(&receiver.url), "a URL may be a secret");
}

#[tokio::test]
async fn a_key_that_is_removed_while_no_gateway_runs_takes_its_subscriptions_along() {
    let receiver = Receiver::start(&["503 retry-after: 600"]);
    let project = receiver.project("");
    let gateway = project.serve();
    let wish =
        api::NewKey { name: "o".to_owned(), role: "owner".to_owned(), agent: None, expires: None, account: None };
    let other = gateway.client.create_key(&wish).await.unwrap();
    let subscribed = ask_as(&gateway, &other.key, "events/subscribe", receiver.wish()).await["result"].clone();
    ring(&gateway).await;
    receiver.was_sent(1);
    gateway.kill();
    let removed = project.run(&["keys", "rm", &other.key_id]);
    assert!(removed.status.success(), "{removed:?}");
    let gateway = project.serve();
    wait_until("the delivery to be cancelled", async || {
        deliveries(&gateway, &subscribed).await.into_iter().find(|run| run.state == "cancelled")
    })
    .await;
}

#[tokio::test]
async fn the_secrets_of_subscriptions_are_sealed_and_follow_a_change_of_the_master_key() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("");
    let gateway = project.serve();
    ask(&gateway, "events/subscribe", receiver.wish()).await;
    let done = project.json(&["secrets", "rekey"]);
    assert_eq!((&done["resealed"], &done["unreadable"]), (&json!(1), &json!(0)));
    gateway.kill();
    let gateway = project.serve();
    ring(&gateway).await;
    assert!(receiver.was_sent(1)[0].is_signed_with(KEY));
    let stored = [".doorbell/doorbell.db", ".doorbell/doorbell.db-wal"].map(|file| {
        let bytes = std::fs::read(project.path(file)).unwrap_or_default();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
        holds(KEY) || holds(encode_base64(KEY).as_bytes())
    });
    assert_eq!(stored, [false, false], "the database holds the secret");
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!project.read("gateway.log").contains(&encode_base64(KEY)));
}
