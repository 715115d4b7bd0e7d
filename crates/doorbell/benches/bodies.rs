//! `cargo xtask bench bodies`: what bodies take on the disk, with a dictionary of their source's own against zstd alone, on the
//! payloads that GitHub publishes (npm `@octokit/webhooks-examples`, which `cargo xtask test` installs).

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::path::Path;

use doorbell_client::Sender;
use doorbell_core::provider::github::Github;
use doorbell_core::provider::{Provider, Unsent};
use doorbell_core::secret::Secret;
use serde_json::{Value, json};
use support::Server;

const SECRET: &str = "a secret of the benchmark";
/// The level that the store uses without a dictionary.
const PLAIN: i32 = 1;
/// Times that each payload is delivered: the dictionary is learnt on the way.
const TIMES: usize = 3;

/// Event names and payloads.
fn payloads() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("judges/node_modules/@octokit/webhooks-examples/api.github.com/index.json");
    let text = std::fs::read(&folder).expect("the payloads are installed: run `cargo xtask test` once");
    let hooks: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let of = |hook: &Value| {
        let name = hook["name"].as_str().unwrap().to_owned();
        let examples = hook["examples"].as_array().unwrap().clone();
        examples.into_iter().map(move |payload| (name.clone(), payload.to_string().into_bytes())).collect::<Vec<_>>()
    };
    hooks.iter().flat_map(of).collect()
}

fn start(project: &Path) -> Server {
    let credential = project.join("credentials/github_webhook_secret/bench");
    std::fs::create_dir_all(&credential).unwrap();
    std::fs::write(credential.join("secret"), SECRET).unwrap();
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\n[webhooks.bench]\ntype = \"github\"\ncredential = \"bench\"\n";
    std::fs::write(project.join("config.toml"), config).unwrap();
    Server::start_gateway(project)
}

async fn deliver(port: u16, payloads: &[(String, Vec<u8>)]) {
    let sender = Sender::new(&format!("http://127.0.0.1:{port}/v1/webhooks/github/bench")).unwrap();
    let key = Github.prepare(&Secret::new(SECRET)).unwrap();
    for round in 0..TIMES {
        for (index, (event, body)) in payloads.iter().enumerate() {
            let id = format!("{round}-{index}");
            let signed = Github.sign(Some(&key), Unsent::new(event, body.clone(), &id, doorbell::clock::now()));
            let sent = sender.post(&signed.headers, signed.body).await.unwrap();
            assert_eq!(sent.status, 200, "{event}");
        }
    }
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let payloads = payloads();
    let server = start(folder.path());
    tokio::runtime::Runtime::new().unwrap().block_on(deliver(server.port, &payloads));
    drop(server);
    let database = rusqlite::Connection::open(folder.path().join(".doorbell/doorbell.db")).unwrap();
    let sums =
        "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(length(data)), 0) FROM bodies WHERE encoding >= 2";
    let (count, size, taken): (u64, f64, f64) =
        database.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert!(count > 0, "no dictionary was learnt");
    let raw: usize = payloads.iter().map(|(_, body)| body.len()).sum();
    let plain: usize = payloads.iter().map(|(_, body)| zstd::bulk::compress(body, PLAIN).unwrap().len()).sum();
    let each = raw / payloads.len();
    println!("{} payloads of {each} B on average, each delivered {TIMES} times\n", payloads.len());
    let (alone, learnt) = (plain as f64 / raw as f64, taken / size);
    let rows = [
        vec!["zstd alone".to_owned(), payloads.len().to_string(), format!("{:.3}", alone)],
        vec!["with the source's dictionary".to_owned(), count.to_string(), format!("{:.3}", learnt)],
    ];
    support::print_table(&["how", "bodies", "bytes kept of each byte"], &rows);
    support::write_json("bodies", &json!({"zstdAlone": alone, "withDictionary": learnt, "bodies": count}));
}
