//! Notifications: real problems, told to a real server, a command and an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use doorbell::store::{self, NewEvent, Notes};
use doorbell_core::provider::{decode_base64, encode_base64};
use serde_json::Value;

use crate::support::{Gateway, ONE_SOURCE, Project, read_request, sample, wait_for, wait_until, with_header};

const KEY: &[u8] = b"a key of twenty-four byte";

/// A server that takes Standard Webhooks, and believes only what is signed with [`KEY`].
struct Server {
    url: String,
    /// What it answers.
    status: Arc<AtomicU16>,
    asked: Arc<Mutex<Vec<Value>>>,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hooks/secret-path", listener.local_addr().unwrap());
        let server =
            Self { url, status: Arc::new(AtomicU16::new(status)), asked: Arc::default(), taken: Arc::default() };
        let (status, asked, taken) = (server.status.clone(), server.asked.clone(), server.taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let message = read_signed(&stream);
                let status = status.load(Ordering::SeqCst);
                asked.lock().unwrap().push(message.clone());
                if status == 200 {
                    taken.lock().unwrap().push(message);
                }
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        server
    }

    fn project(&self, config: &str) -> Project {
        let to = format!("to = {{ url = \"{}\", credential = \"ops\" }}", self.url);
        let project = Project::new(&format!("{ONE_SOURCE}[[notifications]]\nevery = \"1s\"\n{to}\n{config}"));
        project.credential("notification_secret", "ops", &format!("whsec_{}", encode_base64(KEY)));
        project
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits for a message of this type.
    fn wait(&self, kind: &str) -> Value {
        wait_for(kind, || self.taken().into_iter().find(|message| message["type"] == kind))
    }

    /// How often it happened, by the ids of the messages that told it.
    fn count(&self) -> u64 {
        let by_id: BTreeMap<String, u64> = self
            .taken()
            .iter()
            .map(|told| (told["id"].as_str().unwrap().to_owned(), told["data"]["count"].as_u64().unwrap()))
            .collect();
        by_id.values().sum()
    }
}

fn read_signed(stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let (headers, body) = read_request(&mut reader).unwrap();
    let (id, at) = (&headers["webhook-id"], &headers["webhook-timestamp"]);
    let signature = decode_base64(headers["webhook-signature"].strip_prefix("v1,").unwrap()).unwrap();
    let signed = [id.as_bytes(), b".", at.as_bytes(), b".", &body].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &signed, &signature).unwrap();
    let age = doorbell::clock::now().as_seconds() - at.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
    let message: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(message["id"], *id);
    message
}

/// An agent that cannot start, which takes no process to find out.
fn add_broken_agent(project: &Project, name: &str) {
    let config = "scale = 4\nwhen_full = \"grow\"\n[[webhooks]]\nsource = \"acme\"\n\
                  [runtime]\ntype = \"command\"\ncommand = [\"/no/such/program\"]\n";
    project.write(&format!("agents/{name}/config.toml"), config);
}

async fn dead_letter(gateway: &Gateway) -> String {
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    assert!(gateway.finished(&run).await.run.dead_letter);
    run
}

#[tokio::test]
async fn five_hundred_dead_letters_are_told_in_a_few_messages() {
    let server = Server::start(200);
    let project = server.project("");
    add_broken_agent(&project, "broken");
    let gateway = project.serve();
    let begun = Instant::now();
    let mut runs = BTreeSet::new();
    for _ in 0..500 {
        runs.extend(gateway.ring(sample("issues.opened")).await.runs);
    }
    wait_for("all to be told", || (server.count() == 500).then_some(()));
    let told = server.taken();
    let most = begun.elapsed().as_secs() + 2;
    assert!(told.len() as u64 <= most, "{} messages", told.len());
    for message in &told {
        let data = &message["data"];
        assert_eq!((&message["type"], &data["agent"]), (&"doorbell.dead_letter".into(), &"broken".into()));
        let named: Vec<&str> = data["runs"].as_array().unwrap().iter().map(|run| run.as_str().unwrap()).collect();
        assert!((1..=10).contains(&named.len()) && named.iter().all(|run| runs.contains(*run)), "{data}");
        assert!(data["text"].as_str().unwrap().contains("/no/such/program"), "{data}");
    }
}

#[tokio::test]
async fn a_message_survives_a_receiver_that_is_down_and_a_gateway_that_is_killed() {
    let server = Server::start(503);
    let project = server.project("");
    add_broken_agent(&project, "broken");
    let gateway = project.serve();
    dead_letter(&gateway).await;
    wait_for("a try", || (!server.asked.lock().unwrap().is_empty()).then_some(()));
    let stat = wait_until("the failure to show", async || {
        let stat = gateway.client.stats().await.unwrap();
        (stat.notifications[0].failed > 0).then_some(stat)
    });
    let shown = stat.await.notifications.remove(0);
    assert_eq!((shown.waiting, shown.error.as_deref()), (1, Some("503")));
    assert!(!shown.receiver.contains("secret-path"), "{}", shown.receiver);
    gateway.kill();
    server.status.store(200, Ordering::SeqCst);
    let mut gateway = project.serve();
    let told = server.wait("doorbell.dead_letter");
    assert_eq!(told, server.asked.lock().unwrap()[0], "the same message under the same id");
    for _ in 0..3 {
        dead_letter(&gateway).await;
        // As soon as the run is over: nobody may have looked yet.
        gateway.kill();
        gateway = project.serve();
    }
    wait_for("each to be told", || (server.count() == 4).then_some(()));
}

#[tokio::test]
async fn a_wrong_secret_is_told_and_so_is_its_end() {
    let server = Server::start(200);
    let gateway_project = server.project("");
    let gateway = gateway_project.serve();
    for _ in 0..5 {
        let wrong = with_header(sample("issues.opened"), "x-hub-signature-256", &format!("sha256={}", "0".repeat(64)));
        gateway.send("/webhooks/github", wrong).await;
    }
    let told = server.wait("doorbell.rejections");
    assert_eq!((&told["data"]["state"], &told["data"]["source"]), (&"problem".into(), &"acme".into()));
    assert!(told["data"]["text"].as_str().unwrap().contains("signature_mismatch"), "{told}");
    gateway.ring(sample("issues.opened")).await;
    assert_eq!(server.wait("doorbell.rejections.resolved")["data"]["state"], "resolved");
}

#[tokio::test]
async fn a_source_that_fell_silent_and_one_that_never_rang_are_told() {
    let server = Server::start(200);
    let project = server.project("");
    let lab = "[webhooks.lab]\ntype = \"generic\"\nallow_unsigned = true\n";
    project.write("config.toml", &format!("{}{lab}", project.read("config.toml")));
    let now = doorbell::clock::now();
    let hours = |hours: u64| now.before(Duration::from_secs(hours * 3600));
    std::fs::create_dir_all(project.path(".doorbell")).unwrap();
    let stored = store::open("sqlite:.doorbell/doorbell.db", project.root()).await.unwrap();
    // Each hour for ten days, until a day ago.
    for n in (24..264).rev() {
        stored.accept(vec![event("acme", n, hours(n))]).await.unwrap();
    }
    let habit = serde_json::json!({"since": hours(2)}).to_string();
    stored.note(Notes { kept: vec![("habit/lab".to_owned(), habit)], ..Notes::default() }).await.unwrap();
    drop(stored);
    let gateway = project.serve();
    let silent = || server.taken().into_iter().filter(|told| told["type"] == "doorbell.silent");
    let told: BTreeMap<String, String> = wait_for("both", || {
        let text = |field: &Value| field.as_str().unwrap().to_owned();
        let told: BTreeMap<_, _> =
            silent().map(|told| (text(&told["data"]["source"]), text(&told["data"]["text"]))).collect();
        (told.len() == 2).then_some(told)
    });
    assert!(told["acme"].contains("nothing for 1d 0h") && told["acme"].contains("1h 0m was the longest"), "{told:?}");
    assert!(told["lab"].contains("has not received anything"), "{told:?}");
    gateway.ring(sample("issues.opened")).await;
    assert_eq!(server.wait("doorbell.silent.resolved")["data"]["source"], "acme");
    assert_eq!(silent().count(), 2, "once each");
}

fn event(source: &str, n: u64, received_at: doorbell_core::time::Timestamp) -> NewEvent {
    NewEvent {
        id: doorbell::clock::new_id(),
        source: source.to_owned(),
        provider: "github".to_owned(),
        event: "issues".to_owned(),
        action: None,
        delivery_keys: vec![format!("id:{n}")],
        delivery_id: None,
        verified_by: None,
        received_at,
        handshake: false,
        context: "{}".to_owned(),
        headers: "{}".to_owned(),
        body: "{}".into(),
        trigger_set: 1,
        trace: None,
        replay: None,
        only_missing: false,
        room: None,
        paused: None,
        starts: Vec::new(),
    }
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told_while_it_does_not_and_so_is_its_end() {
    let server = Server::start(200);
    let project = server.project("on = [\"store\"]\n");
    let _gateway = project.serve();
    let other = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    other.busy_timeout(Duration::from_secs(30)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = server.wait("doorbell.store");
    assert!(told["data"]["text"].as_str().unwrap().contains("Nothing can be stored"), "{told}");
    other.execute_batch("ROLLBACK").unwrap();
    server.wait("doorbell.store.resolved");
}

#[tokio::test]
async fn a_refused_configuration_is_told_and_so_is_its_end() {
    let server = Server::start(200);
    let project = server.project("");
    let _gateway = project.serve();
    let good = project.read("config.toml");
    project.write("config.toml", &format!("{good}[webhooks.lab]\ntype = \"nonsense\"\n"));
    let told = server.wait("doorbell.reload");
    assert_eq!((&told["data"]["on"], &told["data"]["state"]), (&"reload".into(), &"problem".into()));
    let text = told["data"]["text"].as_str().unwrap();
    assert!(text.contains("stays in force") && text.contains("nonsense"), "{text}");
    project.write("config.toml", &good);
    assert_eq!(server.wait("doorbell.reload.resolved")["data"]["state"], "resolved");
}

#[tokio::test]
async fn what_is_forgotten_is_not_told_and_stands_in_nothing_that_waits_to_be() {
    let server = Server::start(503);
    let project = server.project("");
    add_broken_agent(&project, "broken");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    for run in &receipt.runs {
        assert!(gateway.finished(run).await.run.dead_letter);
    }
    let event = receipt.delivery_id;
    let asked = |kind: &str| {
        let asked = server.asked.lock().unwrap().clone();
        asked.into_iter().find(|told| told["data"]["text"].as_str().unwrap().contains(kind)).map(drop)
    };
    wait_for("a try with the reason", || asked("/no/such/program"));
    let stored = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    let notes = || -> Vec<String> {
        let mut all = stored.prepare("SELECT value FROM notes WHERE key LIKE 'message/%'").unwrap();
        all.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert!(notes().iter().any(|note| note.contains("broken")), "it waits to be told");
    assert!(notes().iter().all(|note| !note.contains("/no/such/program")), "{:?}", notes());
    let output = project.run(&["events", "rm", &event, "--yes"]);
    assert!(output.status.success(), "{output:?}");
    server.status.store(200, Ordering::SeqCst);
    let told = wait_for("it", || server.taken().into_iter().find(|told| told["data"]["agent"] == "broken"));
    let text = told["data"]["text"].as_str().unwrap();
    assert!(text.ends_with("used up its tries"), "{text}");
}

/// One receiver is a command, the other an agent, which fails itself.
#[tokio::test]
async fn a_command_and_an_agent_are_told_and_an_agents_own_failure_never_starts_it_again() {
    let tell =
        "cat >> told; echo >> told; echo \"$DOORBELL_NOTIFICATION_ON $DOORBELL_NOTIFICATION_AGENT\" >> variables";
    let command = Value::from(vec!["sh", "-c", tell]);
    let project = Project::new(&format!(
        "{ONE_SOURCE}[[notifications]]\nevery = \"1s\"\non = [\"dead_letter\"]\nto = {{ command = {command} }}\n\
         [[notifications]]\nevery = \"1s\"\nto = {{ agent = \"ops\" }}\n"
    ));
    add_broken_agent(&project, "broken");
    project.agent("ops", "", "cat $DOORBELL_EVENT_FILE; exit 1");
    let gateway = project.serve();
    let told = |agent: &str, count: usize| {
        let read = std::fs::read_to_string(project.path("variables")).unwrap_or_default();
        (read.lines().filter(|line| *line == format!("dead_letter {agent}")).count() >= count).then_some(())
    };
    let ops = async || gateway.runs().await.into_iter().filter(|run| run.agent == "ops").collect::<Vec<_>>();
    for round in 1..=2 {
        dead_letter(&gateway).await;
        wait_for("the command to be told of both", || told("broken", round).and(told("ops", round)));
        let runs = wait_until("the agent", async || Some(ops().await).filter(|runs| runs.len() >= round)).await;
        assert_eq!(runs.len(), round, "its own dead letter does not start it");
    }
    for line in project.read("told").lines().filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_str(line).unwrap();
        assert_eq!(message["type"], "doorbell.dead_letter");
    }
    let run = ops().await.remove(0);
    let envelope: Value = serde_json::from_str(&gateway.stdout(&run.id).await).unwrap();
    assert_eq!((&envelope["_webhook"], &envelope["source"]), (&false.into(), &"doorbell".into()));
    assert_eq!(envelope["event_type"], "doorbell.dead_letter");
    assert_eq!(envelope["context"]["agent"], "broken");
    let why = gateway.client.explain(envelope["event_id"].as_str().unwrap()).await.unwrap();
    assert!(why.verdicts.len() == 1 && why.verdicts[0].reason.contains("[[notifications]]"), "{why:?}");
}

#[tokio::test]
async fn an_agent_that_was_disabled_when_it_was_to_be_told_is_told_once_it_is_enabled() {
    let project = Project::new(&format!("{ONE_SOURCE}[[notifications]]\nevery = \"1s\"\nto = {{ agent = \"ops\" }}\n"));
    add_broken_agent(&project, "broken");
    project.agent("ops", "scale = 0", "true");
    let gateway = project.serve();
    dead_letter(&gateway).await;
    let failed = wait_until("a try", async || {
        let stat = gateway.client.stats().await.unwrap();
        stat.notifications[0].error.clone()
    });
    assert_eq!(failed.await, "agent `ops` is disabled: `scale = 0`");
    project.agent("ops", "scale = 1", "true");
    wait_until("the agent to be told", async || gateway.runs().await.into_iter().find(|run| run.agent == "ops")).await;
}

#[tokio::test]
async fn what_waits_for_a_url_that_was_wrong_goes_to_the_one_that_corrects_it() {
    let (wrong, right) = (Server::start(500), Server::start(200));
    let project = wrong.project("");
    add_broken_agent(&project, "broken");
    let gateway = project.serve();
    let run = dead_letter(&gateway).await;
    wait_for("a try", || (!wrong.asked.lock().unwrap().is_empty()).then_some(()));
    project.write("config.toml", &project.read("config.toml").replace(&wrong.url, &right.url));
    let told = right.wait("doorbell.dead_letter");
    assert_eq!(told, wrong.asked.lock().unwrap()[0], "the same message under the same id");
    assert_eq!(told["data"]["runs"][0], run.as_str());
    wait_until("nothing to wait", async || {
        let stat = gateway.client.stats().await.unwrap();
        (stat.notifications[0].waiting == 0 && stat.notifications[0].delivered == 1).then_some(())
    })
    .await;
}

#[test]
fn a_test_shows_what_every_receiver_says() {
    let server = Server::start(200);
    let more = "[[notifications]]\non = [\"silent\"]\nto = { command = [\"sh\", \"-c\", \"echo no; exit 3\"] }\n\
                [[notifications]]\nto = { agent = \"ops\" }\n";
    let project = server.project(more);
    project.agent("ops", "", "true");
    let gateway = project.serve();
    let output = project.run(&["notify", "test", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [url, command, agent] = [0, 1, 2].map(|n| &answers["receivers"][n]);
    assert_eq!((&url["delivered"], &url["detail"]), (&true.into(), &"200".into()), "{answers}");
    assert_eq!((&command["delivered"], &command["detail"]), (&false.into(), &"exited with code 3: no".into()));
    assert!(agent["delivered"] == true && agent["detail"].as_str().unwrap().starts_with("run_"), "{answers}");
    assert_eq!(server.taken()[0]["data"]["test"], true);
    let output = project.run(&["notify", "test", "--on", "dead_letter"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.wait("doorbell.dead_letter")["data"]["on"], "dead_letter");
    drop(gateway);
}
