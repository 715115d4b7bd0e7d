//! Polls and streams.

use futures_util::StreamExt as _;

use super::*;

#[tokio::test]
async fn a_poll_goes_on_from_a_cursor_and_says_when_it_begins_later() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let poll = async |params: Value| {
        let mut all = json!({ "name": "acme" });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        ask(&gateway, "events/poll", all).await
    };
    let ids = |polled: &Value| -> Vec<Value> {
        polled["events"].as_array().unwrap().iter().map(|event| event["eventId"].clone()).collect()
    };
    let first = ring(&gateway).await;
    let begun = poll(json!({ "cursor": null })).await;
    assert_eq!((ids(&begun), &begun["truncated"], &begun["hasMore"]), (vec![], &json!(false), &json!(false)));
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(json!(ring(&gateway).await.delivery_id));
    }
    let two = poll(json!({ "cursor": begun["cursor"], "maxEvents": 2 })).await;
    assert_eq!((ids(&two), &two["hasMore"], &two["nextPollMs"]), (expected[..2].to_vec(), &json!(true), &json!(1000)));
    let rest = poll(json!({ "cursor": two["cursor"] })).await;
    assert_eq!((ids(&rest), &rest["hasMore"]), (expected[2..].to_vec(), &json!(false)));
    assert_eq!(ids(&poll(json!({ "cursor": rest["cursor"] })).await), Vec::<Value>::new());
    let chosen = poll(json!({ "cursor": "0", "arguments": { "events": ["push"] } })).await;
    assert_eq!((ids(&chosen), &chosen["truncated"]), (vec![], &json!(false)));
    assert_eq!(ids(&poll(json!({ "cursor": "0" })).await)[0], json!(first.delivery_id));
    let future = poll(json!({ "cursor": "1000000" })).await;
    assert_eq!((&future["truncated"], &future["cursor"]), (&json!(true), &rest["cursor"]));
    let young = poll(json!({ "cursor": "0", "maxAgeMs": 0 })).await;
    assert_eq!((ids(&young), &young["truncated"]), (vec![], &json!(true)));
    let old = poll(json!({ "cursor": "0", "maxAgeMs": 3_600_000 })).await;
    assert_eq!((ids(&old).len(), &old["truncated"]), (4, &json!(false)));
    gateway.client.forget_event(&first.delivery_id, true).await.unwrap();
    assert_eq!(ids(&poll(json!({ "cursor": "0" })).await), expected, "what is forgotten says nothing");
}

#[tokio::test]
async fn a_place_whose_events_were_removed_is_said_to_be_truncated() {
    let receiver = Receiver::start(&["200"]);
    let project = receiver.project("[store]\nretention = \"1s\"\n");
    let gateway = project.serve();
    let first = ring(&gateway).await;
    wait_until("the first event to be removed", async || {
        ring(&gateway).await;
        gateway.client.event(&first.delivery_id).await.is_err().then_some(())
    })
    .await;
    let polled = ask(&gateway, "events/poll", json!({ "name": "acme", "cursor": "0" })).await;
    assert_eq!(polled["truncated"], true, "{polled}");
    let mut wish = receiver.wish();
    wish["cursor"] = json!("0");
    let subscribed = ask(&gateway, "events/subscribe", wish).await;
    assert_eq!(subscribed["truncated"], true, "{subscribed}");
}

/// Messages of a stream.
struct Listening {
    rest: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    text: String,
}

impl Listening {
    async fn begin(gateway: &Gateway, key: &str, mut params: Value) -> Self {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": NEWEST,
            "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let request = reqwest::Client::builder().no_proxy().build().unwrap().post(format!("{}/mcp", gateway.url));
        let request = request.bearer_auth(key).header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", NEWEST).header("mcp-method", "events/stream");
        let response = request.json(&message("events/stream", params)).send().await.unwrap();
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        Self { rest: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        let next = async {
            loop {
                if let Some((frame, rest)) = self.text.split_once("\n\n") {
                    let data: String = frame.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                    let found = serde_json::from_str::<Value>(&data).ok();
                    self.text = rest.to_owned();
                    if let Some(found) = found {
                        return found;
                    }
                    continue;
                }
                let more = self.rest.next().await.expect("the stream goes on").unwrap();
                self.text.push_str(&String::from_utf8_lossy(&more).replace("\r\n", "\n"));
            }
        };
        tokio::time::timeout(crate::support::PATIENCE, next).await.expect("a message in time")
    }
}

#[tokio::test]
async fn a_stream_begins_with_where_it_is_and_brings_what_comes() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let before = ring(&gateway).await;
    let mut stream = Listening::begin(&gateway, &gateway.key, json!({ "name": "acme", "cursor": "0" })).await;
    let active = stream.next().await;
    assert_eq!(
        (&active["method"], &active["params"]["truncated"]),
        (&json!("notifications/events/active"), &json!(false))
    );
    assert_eq!(active["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1, "{active}");
    let first = stream.next().await;
    assert_eq!(first["method"], "notifications/events/event");
    assert_eq!(first["params"]["eventId"], json!(before.delivery_id), "what came since the cursor");
    let next = ring(&gateway).await;
    let second = stream.next().await;
    assert_eq!(second["params"]["eventId"], json!(next.delivery_id));
    assert_eq!(second["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1, "{second}");
    let cursor = &second["params"]["cursor"];
    let mut later = Listening::begin(&gateway, &gateway.key, json!({ "name": "acme", "cursor": cursor })).await;
    assert_eq!(&later.next().await["params"]["cursor"], cursor);
    let third = ring(&gateway).await;
    for stream in [&mut stream, &mut later] {
        assert_eq!(stream.next().await["params"]["eventId"], json!(third.delivery_id));
    }
    let beat = stream.next().await;
    assert_eq!(beat["method"], "notifications/events/heartbeat", "it is told that it goes on");
    assert!(beat["params"]["cursor"].is_string(), "{beat}");
    let unknown = json!({ "name": "nobody", "cursor": null });
    assert_eq!(refused(&gateway, &gateway.key, "events/stream", unknown).await.0, -32011);
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let wish = doorbell_client::api::NewKey {
        name: "v".to_owned(),
        role: "viewer".to_owned(),
        agent: None,
        expires: None,
        account: None,
    };
    let viewer = gateway.client.create_key(&wish).await.unwrap();
    let mut stream = Listening::begin(&gateway, &viewer.key, json!({ "name": "acme", "cursor": null })).await;
    stream.next().await;
    gateway.client.remove_key(&viewer.key_id).await.unwrap();
    let ended = stream.next().await;
    assert_eq!(ended["method"], "notifications/events/terminated", "{ended}");
    assert_eq!(ended["params"]["error"]["code"], -32012);
    let last = stream.next().await;
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(1), &json!("complete")), "{last}");
}
