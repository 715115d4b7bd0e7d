//! Outside judges: the makers' own SDKs, which `cargo xtask test` installs, and GitHub's published payloads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use bytes::Bytes;
use doorbell_core::provider::built_in;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::senders::{PUBLIC_URL, Request, send};
use crate::support::{ONE_SOURCE, Project, fresh_id, sign};

/// A request that an SDK judged.
#[derive(Debug, Deserialize)]
struct Judged {
    provider: String,
    what: String,
    secret: String,
    headers: BTreeMap<String, String>,
    body: String,
    query: String,
    /// The SDK's word.
    valid: bool,
}

/// Where the SDKs are installed.
fn home() -> PathBuf {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("judges");
    assert!(home.join("requirements.txt.done").exists(), "the judges are not installed: run `cargo xtask test`");
    home
}

/// What a judge prints.
pub(crate) fn ask(program: &str, args: &[&str], script: &str, environment: &[(&str, &str)]) -> Vec<u8> {
    use std::io::Write;
    let home = home();
    let mut command = std::process::Command::new(program);
    command.args(args).current_dir(&home).envs(environment.iter().copied()).env("PYTHONPATH", home.join("python"));
    let mut judge = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    judge.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stdout));
    output.stdout
}

/// Requests that a judge prints.
fn judge(program: &str, args: &[&str], script: &str) -> Vec<Judged> {
    serde_json::from_slice(&ask(program, args, script, &[("PUBLIC_URL", PUBLIC_URL)])).unwrap()
}

#[tokio::test]
async fn the_gateway_and_the_makers_sdks_agree_on_every_request() {
    let mut judged = judge("node", &["--input-type=module", "-"], include_str!("../judges/judge.mjs"));
    judged.extend(judge("python3", &["-"], include_str!("../judges/judge.py")));
    let providers = built_in();
    let secrets: BTreeMap<&str, &str> = judged.iter().map(|request| (&*request.provider, &*request.secret)).collect();
    assert_eq!(secrets.len(), 12, "{secrets:?}");
    let sources = secrets.keys().map(|name| format!("[webhooks.{name}]\ntype = \"{name}\"\ncredential = \"judged\"\n"));
    let project = Project::new(&format!("public_url = \"{PUBLIC_URL}\"\n{}", sources.collect::<String>()));
    for (name, secret) in &secrets {
        let provider = providers.iter().find(|provider| provider.name() == *name).unwrap();
        let credential = provider.credential();
        project.write(&format!("credentials/{}/judged/{}", credential.name, credential.field), secret);
    }
    let gateway = project.serve();
    for request in &judged {
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let path = format!("/v1/webhooks/{0}/{0}{1}", request.provider, request.query);
        let sent = Request { headers, body: Bytes::from(request.body.clone()) };
        let (status, code) = send(&gateway, &path, sent).await;
        let agreed = if request.valid { (200..300).contains(&status) } else { status == 401 };
        assert!(agreed, "{} {}: {status} {code:?}, the SDK says {}", request.provider, request.what, request.valid);
        assert_eq!(request.valid, request.what == "genuine", "{} {}", request.provider, request.what);
    }
}

/// A hook of GitHub's published set, with its examples.
#[derive(Debug, Deserialize)]
struct Hook {
    name: String,
    examples: Vec<Value>,
}

fn published() -> Vec<Hook> {
    let folder = home().join("node_modules/@octokit/webhooks-examples");
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path().join("index.json"));
    let files = files.filter(|file| file.exists());
    files.flat_map(|file| serde_json::from_slice::<Vec<Hook>>(&std::fs::read(file).unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn every_payload_that_github_publishes_is_accepted_named_and_described() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    let hooks = published();
    let count: usize = hooks.iter().map(|hook| hook.examples.len()).sum();
    assert!(count > 600, "{count} payloads");
    for Hook { name, examples } in hooks {
        for payload in examples {
            let receipt = gateway.ring(sign(&name, payload.to_string(), &fresh_id())).await;
            let action = payload["action"].as_str().map(|action| format!(".{action}")).unwrap_or_default();
            assert_eq!(receipt.event, format!("github.{name}{action}"));
            let event = gateway.client.event(&receipt.delivery_id).await.unwrap().event;
            for (field, value) in expected(&payload) {
                assert_eq!(event.context.get(field), Some(value), "{name}{action}: {field}");
            }
        }
    }
}

/// What the context must have, because the payload has it.
fn expected(payload: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let subject = ["issue", "pull_request", "discussion"].into_iter().find(|part| payload[part].is_object());
    let subject = subject.map_or(&Value::Null, |part| &payload[part]);
    let fields = [
        ("action", &payload["action"]),
        ("repo", &payload["repository"]["full_name"]),
        ("sender", &payload["sender"]["login"]),
        ("org", &payload["organization"]["login"]),
        ("installation", &payload["installation"]["id"]),
        ("number", &subject["number"]),
        ("author", &subject["user"]["login"]),
        ("label", &payload["label"]["name"]),
    ];
    // Long texts are cut where events are listed.
    let listed = |value: &Value| value.is_i64() || value.as_str().is_some_and(|text| (1..400).contains(&text.len()));
    fields.into_iter().filter(move |(_, value)| listed(value))
}
