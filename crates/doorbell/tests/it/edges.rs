//! The edges: who is at the other end, which names the gateway answers to, and what is too much.

use doorbell_client::{Answer, api};
use doorbell_core::provider::{Signed, Unsent, built_in};
use doorbell_core::secret::Secret;

use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, sample, wait_until, with_header, without_header};

/// A delivery that nobody signed.
fn forged() -> Signed {
    without_header(sample("issues.opened"), "x-hub-signature-256")
}

/// The addresses that refused deliveries came from, newest first.
async fn refused_from(gateway: &Gateway) -> Vec<String> {
    let deliveries = gateway.client.deliveries("acme", None).await.unwrap().deliveries;
    deliveries.into_iter().filter_map(|delivery| delivery.remote).collect()
}

fn refusal(answer: Answer) -> api::Problem {
    match answer {
        Answer::Problem(problem) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_trusted_proxy_says_where_a_delivery_came_from_and_nobody_else_does() {
    let forwarded = with_header(forged(), "X-Forwarded-For", "198.51.100.7, 203.0.113.9");
    for (trusted, expected) in [("[]", "127.0.0.1"), ("[\"127.0.0.0/8\"]", "203.0.113.9")] {
        let project = Project::new(&format!("trusted_proxies = {trusted}\n{ONE_SOURCE}"));
        let gateway = project.serve();
        refusal(gateway.send("/webhooks/github", forwarded.clone()).await);
        assert_eq!(refused_from(&gateway).await, [expected], "{trusted}");
        project.log_with(&format!("remote={expected}"));
        let broken = with_header(forged(), "X-Forwarded-For", "203.0.113.9, <script>");
        refusal(gateway.send("/webhooks/github", broken).await);
        assert_eq!(refused_from(&gateway).await, ["127.0.0.1", expected]);
    }
}

#[tokio::test]
async fn the_url_that_a_provider_signs_is_as_a_trusted_proxy_says() {
    let project =
        Project::new("trusted_proxies = [\"127.0.0.1\"]\n[webhooks.calls]\ntype = \"twilio\"\ncredential = \"acme\"\n");
    project.write("credentials/twilio_webhook_secret/acme/secret", "12345");
    let gateway = project.serve();
    let providers = built_in();
    let twilio = providers.iter().find(|provider| provider.name() == "twilio").unwrap();
    let key = twilio.prepare(&Secret::new("12345")).unwrap();
    let sample = twilio.samples().first().unwrap();
    let url = "https://hooks.example.com/v1/webhooks/twilio/calls";
    let id = fresh_id();
    let unsent = Unsent::new(&sample.event, sample.body.to_string(), &id, doorbell::clock::now());
    let unsent = Unsent { url, ..unsent };
    let signed = twilio.sign(Some(&key), unsent);
    let path = "/v1/webhooks/twilio/calls";
    assert_eq!(refusal(gateway.send(path, signed.clone()).await).code, "signature_mismatch");
    let proxied =
        with_header(with_header(signed, "X-Forwarded-Proto", "https"), "X-Forwarded-Host", "hooks.example.com");
    // Its protocol wants another answer than the receipt.
    let answer = gateway.send(path, proxied).await;
    assert!(matches!(answer, Answer::Other(_)), "{answer:?}");
    assert_eq!(gateway.client.events(&doorbell_client::EventQuery::default()).await.unwrap().events.len(), 1);
}

/// The status, `Retry-After` and code of an answer to a GET with a key.
async fn ask(gateway: &Gateway, path: &str, key: &str) -> (u16, Option<u64>, String) {
    let asked = reqwest::Client::new().get(format!("{}{path}", gateway.url)).bearer_auth(key).send().await.unwrap();
    let retry_after = asked.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let status = asked.status().as_u16();
    let body: serde_json::Value = asked.json().await.unwrap();
    (status, retry_after, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_source_takes_as_many_verified_deliveries_as_its_rate_limit_says() {
    let project = Project::new(&format!("{ONE_SOURCE}rate_limit = \"3/1h\"\n"));
    let gateway = project.serve();
    // Strangers use nothing of it up.
    for _ in 0..5 {
        assert_eq!(refusal(gateway.send("/webhooks/github", forged()).await).status, 401);
    }
    for _ in 0..3 {
        gateway.ring(sample("issues.opened")).await;
    }
    let signed = sample("issues.opened");
    let sent = gateway.sender("/webhooks/github").post(&signed.headers, signed.body.clone()).await.unwrap();
    let refused = refusal(sent.answer);
    assert_eq!((refused.status, refused.code.as_str()), (429, "rate_limited"));
    let asked = reqwest::Client::new().post(format!("{}/webhooks/github", gateway.url)).body(signed.body);
    let asked = signed.headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value));
    let answer = asked.send().await.unwrap();
    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&seconds), "a third of an hour: {seconds}");
    let deliveries = gateway.client.deliveries("acme", None).await.unwrap().deliveries;
    let limited: Vec<_> = deliveries.iter().filter(|one| one.code.as_deref() == Some("rate_limited")).collect();
    assert_eq!(limited.len(), 2);
    assert!(limited[0].detail.as_ref().unwrap().contains("`rate_limit`"));
    assert_eq!(gateway.client.events(&doorbell_client::EventQuery::default()).await.unwrap().events.len(), 3);
    let metrics = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    let counted = "doorbell_deliveries_total{source=\"acme\",outcome=\"rejected\",code=\"rate_limited\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_webhook_that_was_made_at_run_time_takes_as_many_as_its_limit_says() {
    let project = Project::new("hook_rate_limit = \"2/1h\"\n");
    project.agent("triage", "", "true");
    let gateway = project.serve();
    let make = async || {
        let wish = api::NewWebhook { name: "pushes".to_owned(), provider: Some("github".to_owned()), secret: None };
        let made = gateway.client.create_webhook("triage", &wish).await.unwrap();
        (made.webhook_id, made.signing_secret.unwrap())
    };
    let (id, secret) = make().await;
    let path = format!("/v1/hooks/{id}");
    let signed = |secret: &str| {
        let providers = built_in();
        let github = providers.iter().find(|provider| provider.name() == "github").unwrap();
        let key = github.prepare(&Secret::new(secret)).unwrap();
        let sample = github.samples().first().unwrap();
        let body = sample.body.to_string();
        github.sign(Some(&key), Unsent::new(&sample.event, body, &fresh_id(), doorbell::clock::now()))
    };
    for _ in 0..3 {
        assert_eq!(refusal(gateway.send(&path, forged()).await).status, 401);
    }
    for _ in 0..2 {
        assert!(matches!(gateway.send(&path, signed(&secret)).await, Answer::Receipt(_)));
    }
    let refused = refusal(gateway.send(&path, signed(&secret)).await);
    assert_eq!((refused.status, refused.code.as_str()), (429, "rate_limited"));
    assert!(refused.detail.contains("`hook_rate_limit`"), "{refused:?}");
    let deliveries = gateway.client.webhook_deliveries("triage", &id, None).await.unwrap().deliveries;
    assert!(deliveries.iter().any(|one| one.code.as_deref() == Some("rate_limited")), "{deliveries:?}");
    let (other, its) = make().await;
    assert!(matches!(gateway.send(&format!("/v1/hooks/{other}"), signed(&its)).await, Answer::Receipt(_)));
    // Another limit holds at once, also for those that were made before.
    project.write("config.toml", "[gateway]\nlisten = \"127.0.0.1:0\"\nhook_rate_limit = \"off\"\n");
    wait_until("the limit to go", async || {
        matches!(gateway.send(&path, signed(&secret)).await, Answer::Receipt(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_told_so_and_locks_nobody_out() {
    let project = Project::new(&format!("failure_limit = \"4/1h\"\n{ONE_SOURCE}"));
    let gateway = project.serve();
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(refusal(gateway.send("/webhooks/github", forged()).await).code);
        codes.push(ask(&gateway, "/v1/stats", "dbk_wrong").await.2);
    }
    let (signature, key, many) = ("signature_missing", "key_invalid", "too_many_failures");
    assert_eq!(codes, [signature, key, signature, key, many, many]);
    let (status, retry_after, _) = ask(&gateway, "/v1/stats", "dbk_wrong").await;
    assert_eq!(status, 429);
    assert!(retry_after.is_some_and(|seconds| (800..=900).contains(&seconds)), "{retry_after:?}");
    // Many share an address with whoever that is: GitHub's, or a tunnel's.
    gateway.ring(sample("issues.opened")).await;
    assert_eq!(ask(&gateway, "/v1/stats", &gateway.key).await.0, 200);
    let deliveries = gateway.client.deliveries("acme", None).await.unwrap().deliveries;
    let told = deliveries.iter().find(|one| one.code.as_deref() == Some(many)).unwrap();
    assert!(told.detail.as_ref().unwrap().contains("this one for signature_missing"), "{told:?}");
}

#[tokio::test]
async fn what_does_not_fail_by_its_signature_counts_for_no_address() {
    let project = Project::new(&format!("failure_limit = \"1/1h\"\n{ONE_SOURCE}"));
    let gateway = project.serve();
    for _ in 0..3 {
        let broken = crate::support::sign("issues", "not json", &fresh_id());
        assert_eq!(refusal(gateway.send("/webhooks/github", broken).await).code, "body_unreadable");
        assert_eq!(reqwest::get(format!("{}/v1/stats", gateway.url)).await.unwrap().status(), 401);
        assert_eq!(ask(&gateway, "/v1/runs/run_00000000000000000000000000", &gateway.key).await.0, 404);
    }
    assert_eq!(refusal(gateway.send("/webhooks/github", forged()).await).status, 401);
    assert_eq!(refusal(gateway.send("/webhooks/github", forged()).await).status, 429);
}

#[tokio::test]
async fn a_key_has_so_many_requests_and_another_one_its_own() {
    let project = Project::new("key_rate_limit = \"5/1h\"\n");
    let gateway = project.serve();
    let wish = api::NewKey { name: "other".to_owned(), role: "viewer".to_owned(), ..api::NewKey::default() };
    let other = gateway.client.create_key(&wish).await.unwrap().key;
    for _ in 0..4 {
        assert_eq!(ask(&gateway, "/v1/stats", &gateway.key).await.0, 200);
    }
    let (status, retry_after, code) = ask(&gateway, "/v1/stats", &gateway.key).await;
    assert_eq!((status, code.as_str()), (429, "rate_limited"));
    assert!(retry_after.is_some_and(|seconds| (700..=720).contains(&seconds)), "{retry_after:?}");
    assert_eq!(ask(&gateway, "/v1/stats", &other).await.0, 200);
}

/// Sends a request as it is written, and answers all that comes back.
async fn send_raw(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get_as(gateway: &Gateway, host: &str, path: &str) -> String {
    let address = gateway.url.strip_prefix("http://").unwrap();
    let key = &gateway.key;
    send_raw(address, &format!("GET {path} HTTP/1.1\r\n{host}authorization: Bearer {key}\r\nconnection: close\r\n\r\n"))
        .await
}

#[tokio::test]
async fn management_answers_to_its_own_names_only() {
    let project = Project::new(
        "public_url = \"https://hooks.example.com\"\nallowed_hosts = [\"Doorbell.internal\"]\n[webhooks.acme]\ntype = \
         \"github\"\ncredential = \"acme\"\n",
    );
    let gateway = project.serve();
    for host in [
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:80",
        "192.168.1.7",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "hooks.example.com",
        "doorbell.internal:99",
    ] {
        for path in ["/v1/stats", "/metrics"] {
            let answer = get_as(&gateway, &format!("host: {host}\r\n"), path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{host} {path}: {answer}");
        }
    }
    for host in [
        "host: evil.example\r\n",
        "host: evil.example:8080\r\n",
        "host: localhost.evil.example\r\n",
        "host: 127.0.0.1.evil.example\r\n",
        "host: internal\r\n",
        "host: localhost\r\nhost: evil.example\r\n",
        "host: \r\n",
        "host: a b\r\n",
        "",
        // A page can send such a header, and speaks for nobody.
        "host: evil.example\r\nx-forwarded-host: localhost\r\n",
    ] {
        for path in ["/v1/stats", "/metrics", "/ui/", "/mcp", "/v1/nothing"] {
            let answer = get_as(&gateway, host, path).await;
            let refused = answer.starts_with("HTTP/1.1 421") && answer.contains("host_not_allowed");
            assert!(refused || answer.starts_with("HTTP/1.1 400"), "{host:?} {path}: {answer}");
        }
    }
    let named = get_as(&gateway, "host: evil.example\r\n", "/v1/stats").await;
    assert!(named.contains("evil.example") && named.contains("allowed_hosts"), "{named}");
    // Deliveries come under any name.
    for path in ["/healthz", "/readyz", "/v1/webhooks/github/acme"] {
        let answer = get_as(&gateway, "host: whatever.example\r\n", path).await;
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
    }
    let signed = with_header(sample("issues.opened"), "Host", "any.example");
    assert!(matches!(gateway.send("/webhooks/github", signed).await, Answer::Receipt(_)));
    let refusals = get_as(&gateway, "host: localhost\r\n", "/metrics").await;
    assert!(refusals.contains("doorbell_api_requests_refused_total{code=\"host_not_allowed\"}"), "{refusals}");
}

#[tokio::test]
async fn browsers_are_told_to_keep_and_frame_nothing_and_no_page_may_read_along() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let said = [
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        "cross-origin-resource-policy: same-origin",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ];
    let event = gateway.ring(sample("issues.opened")).await.delivery_id;
    let paths = ["/v1/stats", "/v1/keys", "/metrics", "/v1/runs/none", "/nothing", "/v1/worker/poll"];
    for path in paths.map(str::to_owned).into_iter().chain([format!("/v1/events/{event}/body")]) {
        for host in ["localhost", "evil.example"] {
            let answer = get_as(&gateway, &format!("host: {host}\r\norigin: https://evil.example\r\n"), &path).await;
            let head = answer.split("\r\n\r\n").next().unwrap().to_owned();
            for header in said {
                assert_eq!(head.matches(header).count(), 1, "{path} {host} {header}: {head}");
            }
            assert!(!head.contains("access-control") && !head.contains("strict-transport"), "{path}: {head}");
        }
    }
    let address = gateway.url.strip_prefix("http://").unwrap();
    let asked = "OPTIONS /v1/keys HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n\
                 access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    let preflight = send_raw(address, asked).await;
    assert!(preflight.starts_with("HTTP/1.1 405") && !preflight.contains("access-control"), "{preflight}");
}

#[tokio::test]
async fn browsers_are_told_to_come_by_https_only_where_the_name_is_the_gateways_alone() {
    for (public, told) in [("https://a.example", true), ("https://a.example:8443", false), ("http://a.example", false)]
    {
        let project = Project::new(&format!("public_url = \"{public}\"\n{ONE_SOURCE}"));
        let gateway = project.serve();
        let answer = get_as(&gateway, "host: a.example\r\n", "/v1/stats").await;
        assert_eq!(answer.contains("strict-transport-security: max-age="), told, "{public}: {answer}");
    }
}

/// A removed key that stayed let in could not be removed again: the store did not have it any more.
#[tokio::test]
async fn a_change_is_brought_to_its_end_when_its_caller_hangs_up() {
    use std::io::Write;
    let project = Project::new("");
    let gateway = project.serve();
    let address = gateway.url.trim_start_matches("http://");
    let mut keys = Vec::new();
    for n in 0..20 {
        let wish = api::NewKey { name: format!("k{n}"), role: "viewer".to_owned(), ..api::NewKey::default() };
        keys.push(gateway.client.create_key(&wish).await.unwrap());
    }
    for key in &keys {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        let head = format!("DELETE /v1/keys/{} HTTP/1.1\r\nhost: {address}", key.key_id);
        write!(connection, "{head}\r\nauthorization: Bearer {}\r\n\r\n", gateway.key).unwrap();
    }
    // Some requests were heard and some not. Whatever became of one, a key that is not listed is not let in.
    for key in &keys {
        let client = doorbell_client::Client::new(&gateway.url, Some(&key.key)).unwrap();
        wait_until("the key to be listed and let in, or neither", async || {
            let listed = gateway.client.keys().await.unwrap().keys.iter().any(|one| one.key_id == key.key_id);
            (client.stats().await.is_ok() == listed).then_some(())
        })
        .await;
        let _ = gateway.client.remove_key(&key.key_id).await;
        assert_eq!(client.stats().await.unwrap_err().status(), Some(401));
    }
}
