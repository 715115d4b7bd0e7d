//! The protocol: versions, what is offered, who is let in, and what makes no sense.

use serde_json::{Value, json};

use super::{NEWEST, call_as, key, message, post, project, refusal};
use crate::support::{ONE_SOURCE, Project, wait_until};

#[tokio::test]
async fn clients_of_every_version_of_the_protocol_are_greeted() {
    let project = Project::new("");
    let gateway = project.serve();
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let hello =
            json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let (status, answer) = post(&gateway, &gateway.key, &message("initialize", hello), &[]).await;
        let result = &answer["result"];
        assert_eq!(
            (status, &result["protocolVersion"], &result["serverInfo"]["name"]),
            (200, &json!(version), &json!("doorbell"))
        );
        assert!(
            result["capabilities"]["tools"].is_object() && result["capabilities"]["resources"].is_object(),
            "{result}"
        );
        assert!(result["instructions"].as_str().unwrap().contains("events_list"));
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(
            post(&gateway, &gateway.key, &ready, &[("mcp-protocol-version", version)]).await,
            (202, Value::Null)
        );
        let (status, listed) =
            post(&gateway, &gateway.key, &message("tools/list", json!({})), &[("mcp-protocol-version", version)]).await;
        assert_eq!(status, 200);
        assert_eq!(listed["result"].get("resultType"), None, "older clients know no such thing");
    }
    let future =
        json!({ "protocolVersion": "2999-01-01", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let (_, answer) = post(&gateway, &gateway.key, &message("initialize", future), &[]).await;
    assert!(answer["result"]["protocolVersion"].as_str().unwrap() < "2999", "{answer}");
}

#[tokio::test]
async fn the_newest_version_needs_no_greeting() {
    let project = Project::new("");
    let gateway = project.serve();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let headers = [("mcp-protocol-version", NEWEST), ("mcp-method", "server/discover")];
    let (status, found) =
        post(&gateway, &gateway.key, &message("server/discover", json!({ "_meta": meta })), &headers).await;
    assert_eq!(status, 200, "{found}");
    assert!(found["result"]["supportedVersions"].as_array().unwrap().contains(&json!(NEWEST)), "{found}");
    let params = json!({ "_meta": meta, "name": "stats", "arguments": {} });
    let headers = [("mcp-protocol-version", NEWEST), ("mcp-method", "tools/call"), ("mcp-name", "stats")];
    let (status, answer) = post(&gateway, &gateway.key, &message("tools/call", params.clone()), &headers).await;
    assert_eq!((status, &answer["result"]["isError"]), (200, &json!(false)), "{answer}");
    let lying = [("mcp-protocol-version", NEWEST), ("mcp-method", "tools/call"), ("mcp-name", "runs_cancel")];
    assert_eq!(
        post(&gateway, &gateway.key, &message("tools/call", params), &lying).await.0,
        400,
        "the header says something else"
    );
}

#[tokio::test]
async fn every_tool_of_the_contract_is_offered_with_what_it_takes_and_does() {
    let project = Project::new("");
    let gateway = project.serve();
    let (_, answer) = post(&gateway, &gateway.key, &message("tools/list", json!({})), &[]).await;
    let tools = answer["result"]["tools"].as_array().unwrap();
    let hints: Vec<String> = tools
        .iter()
        .map(|tool| {
            let hint = |name: &str| tool["annotations"][name].as_bool();
            let does =
                match (hint("readOnlyHint"), hint("destructiveHint"), hint("idempotentHint"), hint("openWorldHint")) {
                    (Some(true), None, None, Some(false)) => "reads",
                    (Some(false), Some(false), Some(true), Some(false)) => "sets",
                    (Some(false), Some(true), Some(true), Some(false)) => "ends",
                    (Some(false), Some(false), Some(false), Some(true)) => "starts",
                    (Some(false), Some(false), Some(false), Some(false)) => "makes",
                    (Some(false), Some(true), Some(false), Some(false)) => "replaces",
                    other => panic!("{other:?}"),
                };
            format!("{} {does}", tool["name"].as_str().unwrap())
        })
        .collect();
    let expected = [
        "events_list reads",
        "events_get reads",
        "events_explain reads",
        "events_replay starts",
        "triggers_test reads",
        "runs_list reads",
        "runs_get reads",
        "runs_logs reads",
        "runs_cancel ends",
        "runs_retry starts",
        "agents_list reads",
        "agents_get reads",
        "agents_run starts",
        "agents_pause sets",
        "agents_resume sets",
        "sources_list reads",
        "stats reads",
        "webhooks_create makes",
        "webhooks_list reads",
        "webhooks_rotate_secret replaces",
        "webhooks_delete ends",
        "webhooks_deliveries reads",
        "webhooks_test starts",
    ];
    assert_eq!(hints, expected);
    for tool in tools {
        let (name, input) = (&tool["name"], &tool["inputSchema"]);
        assert_eq!((&input["type"], &input["additionalProperties"]), (&json!("object"), &json!(false)), "{name}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{name}");
        assert!(tool["description"].as_str().unwrap().len() > 10 && tool["title"].is_string(), "{name}");
        for (field, schema) in input["properties"].as_object().unwrap() {
            assert!(schema["description"].is_string(), "{name}.{field} says nothing");
            assert!(!schema.to_string().contains("null"), "{name}.{field}: {schema}");
        }
        let text = tool.to_string();
        assert!(!text.contains("$ref") && !text.contains("uint"), "{name} speaks of Rust: {text}");
    }
    assert!(answer.to_string().len() < 64_000, "{}", answer.to_string().len());
}

#[tokio::test]
async fn wrong_arguments_are_explained_and_unknown_tools_refused() {
    let project = project("true");
    let gateway = project.serve();
    for (tool, arguments, says) in [
        ("events_get", json!({}), "missing field `id`. It takes `bodyLimit`?, `bodyOffset`?, `id`"),
        ("events_get", json!({ "id": 7 }), "invalid type: integer `7`"),
        ("events_list", json!({ "sourec": "x" }), "unknown field `sourec`"),
        ("events_list", json!({ "outcome": "great" }), "`outcome` must be started"),
        ("events_list", json!({ "since": "yesterday" }), "RFC 3339"),
        ("runs_list", json!({ "state": "asleep" }), "`state` must be one of"),
        ("events_replay", json!({ "id": "evt_x", "mode": "later" }), "unknown variant `later`"),
        ("stats", json!({ "please": true }), "It takes nothing"),
        ("runs_logs", json!({ "id": "run_x", "limit": 100000 }), "from 1 to 1000"),
        ("agents_run", json!({ "agent": "triage", "idempotencyKey": "" }), "1 to 200"),
        ("agents_run", json!({ "agent": "triage", "prompt": "x".repeat(1_100_000) }), "1048576 bytes"),
    ] {
        let (code, text) = refusal(&gateway, &gateway.key, tool, arguments).await;
        assert!(code == "invalid_request" && text.contains(says), "{tool}: {text}");
        assert!(text.len() < 1500, "{tool}");
    }
    let unknown =
        message("tools/call", json!({ "name": "events_burn".to_owned() + &"x".repeat(5000), "arguments": {} }));
    let (status, answer) = post(&gateway, &gateway.key, &unknown, &[]).await;
    assert_eq!((status, &answer["error"]["code"]), (200, &json!(-32602)), "{answer}");
    assert!(answer.to_string().len() < 500);
    for arguments in [json!([]), json!("x"), json!(7)] {
        let odd = message("tools/call", json!({ "name": "stats", "arguments": arguments }));
        let (_, answer) = post(&gateway, &gateway.key, &odd, &[]).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("`arguments`"), "{answer}");
    }
    let (_, answer) = post(&gateway, &gateway.key, &message("tools/burn", json!({})), &[]).await;
    assert_eq!(answer["error"]["code"], -32601);
    assert_eq!(call_as(&gateway, &gateway.key, "stats", Value::Null).await["isError"], false, "no arguments are none");
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_nothing_else_suffers() {
    let project = Project::new("");
    let gateway = project.serve();
    let send = async |body: Vec<u8>, content: &str, accept: &str| {
        let request = reqwest::Client::new().post(format!("{}/mcp", gateway.url)).bearer_auth(&gateway.key);
        let response =
            request.header("content-type", content).header("accept", accept).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
        let number = problem["error"]["code"].as_i64().map(|number| number.to_string());
        (status, number.unwrap_or_else(|| problem["code"].as_str().unwrap_or_default().to_owned()))
    };
    const BOTH: &str = "application/json, text/event-stream";
    let code = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(send(b"{".to_vec(), "application/json", BOTH).await, code(400, "-32700"));
    assert_eq!(send(b"[]".to_vec(), "application/json", BOTH).await, code(400, "-32600"));
    assert_eq!(send(b"{}".to_vec(), "application/json; charset=utf-8", BOTH).await, code(400, "-32600"));
    assert_eq!(send(Vec::new(), "application/json", BOTH).await, code(400, "-32700"));
    assert_eq!(send(vec![b'['; 100_000], "application/json", BOTH).await, code(400, "-32700"));
    assert_eq!(send(b"{}".to_vec(), "text/plain", BOTH).await, code(415, "content_type"));
    assert_eq!(send(b"{}".to_vec(), "application/json", "text/html").await, code(406, "not_acceptable"));
    assert_eq!(send(vec![b' '; 3 << 20], "application/json", BOTH).await, code(413, "body_too_large"));
    let get =
        reqwest::Client::new().get(format!("{}/mcp", gateway.url)).bearer_auth(&gateway.key).send().await.unwrap();
    assert_eq!((get.status().as_u16(), get.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(call_as(&gateway, &gateway.key, "stats", json!({})).await["isError"], false);
}

#[tokio::test]
async fn clients_that_are_refused_or_hang_up_do_not_fill_the_log() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let list = message("tools/list", json!({}));
    let (status, _) = post(&gateway, &gateway.key, &list, &[("origin", "https://evil.example")]).await;
    assert_eq!(status, 403);
    let http = reqwest::Client::new();
    let stream = message("events/stream", json!({ "name": "acme" }));
    let open = http.post(format!("{}/mcp", gateway.url)).bearer_auth(&gateway.key).json(&stream);
    let mut open = open.header("accept", "application/json, text/event-stream").send().await.unwrap();
    assert!(open.chunk().await.unwrap().is_some());
    drop((open, http));
    gateway.ring(crate::support::sample("push")).await;
    assert_eq!(gateway.terminate(), Some(0));
    let log = project.read("gateway.log");
    assert!(!log.contains(" WARN ") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn without_a_key_nothing_is_told() {
    let project = Project::new("");
    let gateway = project.serve();
    let list = message("tools/list", json!({}));
    let (status, answer) = post(&gateway, "dbk_wrong", &list, &[]).await;
    assert_eq!((status, &answer["code"]), (401, &json!("key_invalid")));
    for request in [
        reqwest::Client::new().get(format!("{}/mcp", gateway.url)),
        reqwest::Client::new().post(format!("{}/mcp", gateway.url)).json(&list),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["www-authenticate"].to_str().unwrap()),
            (401, "Bearer")
        );
    }
    let removed = key(&gateway, "viewer", None).await;
    assert_eq!(post(&gateway, &removed, &list, &[]).await.0, 200);
    let id = gateway.client.keys().await.unwrap().keys.into_iter().find(|key| key.role == "viewer").unwrap().key_id;
    gateway.client.remove_key(&id).await.unwrap();
    assert_eq!(post(&gateway, &removed, &list, &[]).await.0, 401);
}

#[tokio::test]
async fn a_page_in_a_browser_is_refused_whatever_name_it_lead_here_by() {
    let project = Project::new("public_url = \"https://hooks.example.com\"\n");
    let gateway = project.serve();
    let list = message("tools/list", json!({}));
    let status = async |headers: &[(&str, &str)]| post(&gateway, &gateway.key, &list, headers).await;
    for host in [
        "localhost",
        "localhost:1234",
        "127.0.0.1",
        "[::1]:8080",
        "10.1.2.3:8080",
        "hooks.example.com",
        "HOOKS.example.com:443",
    ] {
        assert_eq!(status(&[("host", host)]).await.0, 200, "{host}");
    }
    for host in
        ["evil.example", "hooks.example.com.evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example"]
    {
        let (code, answer) = status(&[("host", host)]).await;
        assert_eq!((code, &answer["code"]), (421, &json!("host_not_allowed")), "{host}");
        assert!(answer["detail"].as_str().unwrap().contains("public_url"), "{answer}");
    }
    assert_eq!(status(&[("origin", "https://hooks.example.com")]).await.0, 200);
    for origin in [
        "https://evil.example",
        "null",
        "http://hooks.example.com",
        "https://hooks.example.com:8443",
        "http://localhost:6274",
        "nonsense",
    ] {
        let refused = status(&[("origin", origin)]).await.0;
        assert!([400, 403].contains(&refused), "{origin}: {refused}");
    }
}

#[tokio::test]
async fn a_public_url_that_is_saved_counts_at_once() {
    let project = Project::new("");
    let gateway = project.serve();
    let list = message("tools/list", json!({}));
    assert_eq!(post(&gateway, &gateway.key, &list, &[("host", "hooks.example.com")]).await.0, 421);
    project.write("config.toml", "[gateway]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://hooks.example.com\"\n");
    wait_until("the public URL to be in force", async || {
        (post(&gateway, &gateway.key, &list, &[("host", "hooks.example.com")]).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_admin_listen_it_is_there_and_not_where_senders_are() {
    let project = Project::new(&format!("admin_listen = \"127.0.0.1:0\"\n{ONE_SOURCE}"));
    let gateway = project.serve();
    let list = message("tools/list", json!({}));
    assert_eq!(post(&gateway, &gateway.key, &list, &[]).await.0, 200);
    let address: Value = serde_json::from_str(&project.read(".doorbell/gateway.json")).unwrap();
    let senders = format!("{}/mcp", address["ingest"].as_str().unwrap());
    let response = reqwest::Client::new().post(senders).bearer_auth(&gateway.key).json(&list).send().await.unwrap();
    assert_eq!(response.status(), 404);
}
