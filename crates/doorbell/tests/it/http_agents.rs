//! Agents behind a URL: a real server that is asked, and what becomes of what it answers.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};

use doorbell_client::{Client, api};
use doorbell_core::provider::encode_base64;
use doorbell_core::provider::standard::sign_ours;
use doorbell_core::secret::Secret;
use doorbell_core::time::Timestamp;
use serde_json::{Value, json};

use crate::docs::{blocks, read};
use crate::support::{Background, Gateway, ONE_SOURCE, Project, read_request, sample, wait_for, wait_until};

mod edges;

const KEY: &[u8] = b"the key of an http agent";

/// What it was asked.
#[derive(Debug, Clone)]
struct Asked {
    headers: BTreeMap<String, String>,
    envelope: Value,
    /// Requests that came over this connection before.
    before: usize,
}

/// An agent's server: it answers with what it is told to, in this order, and with the last of it from then on.
struct Agent {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// While somebody has the other end and sends nothing, it keeps its answers back.
    hold: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Agent {
    fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/agents/secret-path", listener.local_addr().unwrap());
        let agent = Self { url, asked: Arc::default(), hold: Arc::default() };
        let (asked, hold) = (agent.asked.clone(), agent.hold.clone());
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, hold, answers) = (asked.clone(), hold.clone(), answers.clone());
                std::thread::spawn(move || serve(&stream, &asked, &hold, &answers));
            }
        });
        agent
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A project whose agent is this one.
    fn project(&self, config: &str) -> Project {
        let project = Project::new(ONE_SOURCE);
        project.credential("http_agent_secret", "acme", &format!("whsec_{}", encode_base64(KEY)));
        project.credential("agent_token", "acme", "hunter2-of-the-agent");
        let headers = "headers = { X-Team = \"platform\", Authorization = { credential = \"agent_token:acme\", prefix = \"Bearer \" } }";
        let runtime = format!("[runtime]\ntype = \"http\"\nurl = \"{}\"\ncredential = \"acme\"\n{headers}\n", self.url);
        project.write("agents/triage/config.toml", &format!("{config}\n[[webhooks]]\nsource = \"acme\"\n{runtime}"));
        project
    }
}

fn serve(
    stream: &TcpStream,
    asked: &Mutex<Vec<Asked>>,
    hold: &Mutex<Option<mpsc::Receiver<()>>>,
    answers: &[String],
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    for before in 0.. {
        let (headers, body) = read_request(&mut reader)?;
        let at = Timestamp::from_seconds(headers["webhook-timestamp"].parse().unwrap());
        let signed = sign_ours(&Secret::new(KEY), &headers["webhook-id"], at, &body);
        assert_eq!(headers["webhook-signature"], signed[2].1, "the signature is not the scheme's");
        let number = {
            let mut asked = asked.lock().unwrap();
            asked.push(Asked { headers, envelope: serde_json::from_slice(&body).unwrap(), before });
            asked.len()
        };
        let held = hold.lock().unwrap().take();
        if let Some(held) = held {
            let _ = held.recv();
        }
        let answer = answers.get(number - 1).or(answers.last())?;
        let (status, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        let (more, body) = rest.split_once('|').unwrap_or((rest, ""));
        let more = more.split(';').filter(|header| !header.is_empty()).map(|header| format!("{header}\r\n"));
        let more = more.collect::<String>();
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\n{more}content-length: {length}\r\n\r\n{body}");
        (&*stream).write_all(answer.as_bytes()).ok()?;
    }
    None
}

async fn ring(gateway: &Gateway) -> String {
    gateway.ring(sample("issues.opened")).await.runs.remove(0)
}

/// A client that shows the token of a callback.
fn callback(asked: &Asked) -> (Client, String) {
    let callback = &asked.envelope["callback"];
    let (base, run) = callback["url"].as_str().unwrap().rsplit_once("/v1/runs/").unwrap();
    (Client::new(base, callback["token"].as_str()).unwrap(), run.to_owned())
}

#[tokio::test]
async fn an_agent_behind_a_url_gets_the_signed_envelope_and_its_answer_is_the_result() {
    let agent =
        Agent::start(&["200 content-type: application/json|{\"labels\":[\"bug\"],\"token\":\"hunter2-of-the-agent\"}"]);
    let project = agent.project("");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 1));
    let result = done.run.result.unwrap();
    assert!(result["labels"] == json!(["bug"]) && !result.to_string().contains("hunter2"), "{result}");
    let asked = &agent.asked()[0];
    assert_eq!(asked.headers["webhook-id"], run);
    assert_eq!(asked.headers["authorization"], "Bearer hunter2-of-the-agent");
    assert_eq!(asked.headers["x-team"], "platform");
    let envelope = &asked.envelope;
    assert_eq!((&envelope["event_type"], &envelope["run_id"]), (&json!("github.issues.opened"), &json!(run)));
    assert_eq!((&envelope["attempt"], &envelope["agent"]), (&json!(1), &json!("triage")));
    assert!(envelope["callback"]["url"].as_str().unwrap().ends_with(&format!("/v1/runs/{run}")));
    assert!(envelope["callback"]["expiresAt"].is_string() && envelope["callback"]["token"].is_string());
    let agents = gateway.client.agents().await.unwrap().agents;
    assert_eq!(agents[0].runtime, "http");
    ring(&gateway).await;
    wait_for("the second request", || (agent.asked().len() == 2).then_some(()));
    assert_eq!(agent.asked()[1].before, 1, "the connection is used again");
    let config = String::from_utf8(project.run(&["config"]).stdout).unwrap();
    assert_eq!(gateway.terminate(), Some(0));
    let said = [project.read("gateway.log"), config].concat();
    assert!(!said.contains("hunter2") && !said.contains("secret-path"), "{said}");
}

#[tokio::test]
async fn a_503_is_tried_again_when_the_agent_said_so() {
    let agent = Agent::start(&["503 retry-after: 1|busy", "200"]);
    let project = agent.project("[retries.backoff]\ninitial = \"10m\"");
    let gateway = project.serve();
    let done = gateway.finished(&ring(&gateway).await).await;
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 2), "{done:?}");
    let first = done.attempts[0].reason.as_deref().unwrap();
    assert_eq!(first, "answered with 503: busy; try 2 of 5 follows");
    let time = |text: Option<&str>| text.unwrap().parse::<Timestamp>().unwrap();
    let waited = time(Some(&done.attempts[1].started_at)).since(time(done.attempts[0].ended_at.as_deref()));
    assert!(waited.as_secs() >= 1, "{waited:?}");
    let ids: Vec<String> = agent.asked().iter().map(|asked| asked.headers["webhook-id"].clone()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(agent.asked()[1].envelope["attempt"], 2);
}

#[tokio::test]
async fn what_the_agent_refuses_is_a_dead_letter_at_once() {
    for (answer, reason) in [
        ("422 |no such label", "answered with 422: no such label"),
        ("307 location: http://127.0.0.1:1/", "redirects are not followed"),
        ("410", "nobody is there any more"),
    ] {
        let agent = Agent::start(&[answer]);
        let project = agent.project("");
        let gateway = project.serve();
        let done = gateway.finished(&ring(&gateway).await).await;
        assert_eq!((done.run.state.as_str(), done.run.dead_letter, done.attempts.len()), ("failed", true, 1));
        assert!(done.run.reason.unwrap().contains(reason), "{answer}");
        assert_eq!(gateway.terminate(), Some(0));
        assert_eq!(project.read("gateway.log").contains("agent.gone"), answer == "410");
    }
}

#[tokio::test]
async fn an_agent_that_nobody_answers_for_is_tried_again() {
    let agent = Agent::start(&["200"]);
    let project = agent.project("[retries]\nattempts = 2\nbackoff = { initial = \"10ms\" }");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let file = project.read("agents/triage/config.toml");
    let there = agent.url.split('/').nth(2).unwrap();
    project.write("agents/triage/config.toml", &file.replace(there, &closed));
    let gateway = project.serve();
    let done = gateway.finished(&ring(&gateway).await).await;
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("failed", 2));
    let reason = done.run.reason.unwrap();
    assert!(reason.starts_with("no answer: ") && !reason.contains("secret-path"), "{reason}");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_in_time_is_not_waited_for() {
    let agent = Agent::start(&["200"]);
    let (_open, held) = mpsc::channel();
    *agent.hold.lock().unwrap() = Some(held);
    let project = agent.project("timeout = \"50ms\"\n[retries]\nattempts = 1");
    let gateway = project.serve();
    let done = gateway.finished(&ring(&gateway).await).await;
    assert_eq!(done.attempts[0].ended.as_deref(), Some("timed_out"));
    assert_eq!(done.run.reason.as_deref(), Some("timed out after 50ms"));
}

#[tokio::test]
async fn an_agent_that_takes_its_time_tells_by_its_callback_how_it_ended() {
    let agent = Agent::start(&["202"]);
    let project = agent.project("[retries]\nattempts = 1");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let taken = wait_until("the run to be taken", async || {
        let run = gateway.client.run(&run).await.unwrap().run;
        run.reason.is_some().then_some(run)
    })
    .await;
    assert_eq!((taken.state.as_str(), taken.finished_at), ("running", None));
    let next = ring(&gateway).await;
    let (client, id) = callback(&agent.asked()[0]);
    assert_eq!(id, run);
    assert_eq!(gateway.client.run(&next).await.unwrap().run.state, "queued", "its place is taken");
    let foreign = Client::new(client.base_url(), Some(&format!("dbl_{}", "0".repeat(32)))).unwrap();
    let end = api::RunEnd { result: Some(json!({"ok": true})), ..api::RunEnd::default() };
    assert_eq!(code(foreign.end_run(&run, &end).await), "lease_lost");
    assert_eq!(client.end_run(&run, &end).await.unwrap().state, "succeeded");
    assert_eq!(code(client.end_run(&run, &end).await), "lease_lost");
    let done = gateway.finished(&run).await;
    assert_eq!(done.run.result, Some(json!({"ok": true})));
    wait_for("the next one to be asked", || (agent.asked().len() == 2).then_some(()));
    let (client, id) = callback(&agent.asked()[1]);
    let end = api::RunEnd { error: Some(json!("no disk")), ..api::RunEnd::default() };
    assert_eq!(client.end_run(&id, &end).await.unwrap().state, "failed");
    assert_eq!(gateway.finished(&next).await.run.reason.as_deref(), Some("no disk"));
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(answer: Result<T, doorbell_client::Error>) -> String {
    match answer {
        Err(doorbell_client::Error::Api(problem)) => problem.code,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_run_that_was_taken_is_waited_for_by_the_next_start_too() {
    let agent = Agent::start(&["202"]);
    let project = agent.project("");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    wait_until("the run to be taken", async || {
        gateway.client.run(&run).await.unwrap().run.reason.is_some().then_some(())
    })
    .await;
    gateway.kill();
    let gateway = project.serve();
    assert_eq!(gateway.client.run(&run).await.unwrap().run.state, "running");
    let token = agent.asked()[0].envelope["callback"]["token"].as_str().unwrap().to_owned();
    let client = Client::new(&gateway.url, Some(&token)).unwrap();
    client.end_run(&run, &api::RunEnd::default()).await.unwrap();
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 1));
    assert_eq!(agent.asked().len(), 1);
}

#[tokio::test]
async fn a_run_that_was_taken_can_be_cancelled_and_does_not_outlive_its_time() {
    let agent = Agent::start(&["202"]);
    let project = agent.project("timeout = \"1s\"\nscale = 2\n[retries]\nattempts = 1");
    let gateway = project.serve();
    let (first, second) = (ring(&gateway).await, ring(&gateway).await);
    gateway.client.cancel_run(&first).await.unwrap();
    assert_eq!(gateway.finished(&first).await.run.state, "cancelled");
    let late = gateway.finished(&second).await;
    assert_eq!((late.run.state.as_str(), late.attempts[0].ended.as_deref()), ("failed", Some("timed_out")));
}

#[tokio::test]
async fn a_call_in_flight_when_the_gateway_is_killed_is_made_again_and_its_old_token_is_of_no_use() {
    let agent = Agent::start(&["200"]);
    let (open, held) = mpsc::channel::<()>();
    *agent.hold.lock().unwrap() = Some(held);
    let project = agent.project("");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    wait_for("the request", || (agent.asked().len() == 1).then_some(()));
    gateway.kill();
    let gateway = project.serve();
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 2));
    assert_eq!(done.attempts[0].ended.as_deref(), Some("lost"));
    let tokens: Vec<Value> = agent.asked().iter().map(|asked| asked.envelope["callback"]["token"].clone()).collect();
    assert_ne!(tokens[0], tokens[1]);
    let client = Client::new(&gateway.url, tokens[0].as_str()).unwrap();
    assert_eq!(code(client.end_run(&run, &api::RunEnd::default()).await), "lease_lost");
    drop(open);
}

#[tokio::test]
async fn the_agent_of_the_documentation_works_as_it_is_written() {
    let agent = Agent::start(&[]);
    let project = agent.project("");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &file.replace(agent.url.split('/').nth(2).unwrap(), &free.to_string()));
    project.write("agent.py", &blocks(&read("docs/http-agents.md"), "python")[0]);
    let mut command = project.prepare("python3", &["agent.py"]);
    command.env("PORT", free.port().to_string()).env("AGENT_SECRET", format!("whsec_{}", encode_base64(KEY)));
    let _running = Background::start(command);
    wait_for("the agent to listen", || TcpStream::connect(free).ok());
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let done = gateway.finished(&run).await;
    let result = done.run.result.unwrap_or_else(|| panic!("{:?}", done.run.reason));
    assert!(result["run"] == json!(run) && result["title"].is_string(), "{result}");
}

#[tokio::test]
async fn a_callback_is_taken_on_the_address_for_senders_where_no_key_is() {
    let agent = Agent::start(&["202"]);
    let project = agent.project("");
    let config = project.read("config.toml").replace("[gateway]", "[gateway]\nadmin_listen = \"127.0.0.1:0\"");
    project.write("config.toml", &config);
    let gateway = project.serve();
    let address: Value = serde_json::from_str(&project.read(".doorbell/gateway.json")).unwrap();
    let senders = address["ingest"].as_str().unwrap();
    let signed = sample("issues.opened");
    let sender = doorbell_client::Sender::new(&format!("{senders}/v1/webhooks/github/acme")).unwrap();
    let sent = sender.post(&signed.headers, signed.body).await.unwrap();
    assert_eq!(sent.status, 200);
    wait_for("the request", || (agent.asked().len() == 1).then_some(()));
    let (client, run) = callback(&agent.asked()[0]);
    assert_eq!(client.base_url(), senders);
    let token = agent.asked()[0].envelope["callback"]["token"].as_str().unwrap().to_owned();
    let end = api::RunEnd { lease: Some(api::ShownLease::Token(token)), ..api::RunEnd::default() };
    let with_key = Client::new(senders, Some(&gateway.key)).unwrap();
    assert_eq!(code(with_key.end_run(&run, &end).await), "not_found");
    assert_eq!(code(with_key.run(&run).await), "not_found");
    assert_eq!(client.put_step(&run, "plan", &json!(1)).await.unwrap(), json!(1));
    assert_eq!(client.run(&run).await.unwrap().steps[0].key, "plan");
    client.end_run(&run, &api::RunEnd::default()).await.unwrap();
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
}

#[tokio::test]
async fn a_url_that_fails_all_the_time_is_left_alone_and_its_runs_wait_until_it_answers() {
    let agent = Agent::start(&["503", "503", "503", "503", "503", "503", "200"]);
    let project = agent.project("[retries]\nattempts = 1");
    let told = "[[notifications]]\non = [\"breaker\"]\nevery = \"1s\"\nto = { command = [\"sh\", \"-c\", \"cat >> told; echo >> told\"] }\n";
    project.write("config.toml", &format!("{}{told}", project.read("config.toml")));
    let gateway = project.serve();
    let mut runs = Vec::new();
    for _ in 0..8 {
        runs.push(ring(&gateway).await);
    }
    assert_eq!(gateway.finished(&runs[4]).await.run.state, "failed");
    let why =
        wait_until("the breaker", async || gateway.client.agents().await.unwrap().agents[0].breaker.clone()).await;
    assert!(why.starts_with("its URL failed 5 times in a row") && why.ends_with("answered with 503"), "{why}");
    assert_eq!(gateway.client.run(&runs[5]).await.unwrap().run.state, "queued");
    let said = project.run(&["agents"]);
    assert!(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).contains("5 times in a row"));
    let doctor = String::from_utf8(project.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("the runs of `triage` wait: its URL failed 5 times in a row"), "{doctor}");
    // It is asked once more, in vain.
    assert_eq!(gateway.finished(&runs[5]).await.run.state, "failed");
    let again = gateway.client.agents().await.unwrap().agents.remove(0).breaker;
    assert!(again.is_some_and(|why| why.contains("failed 6 times")));
    let mut asked = None;
    for run in &runs[6..] {
        let run = gateway.finished(run).await;
        assert_eq!((run.run.state.as_str(), run.attempts.len()), ("succeeded", 1));
        asked = asked.or(run.run.started_at);
    }
    assert_eq!(gateway.client.agents().await.unwrap().agents[0].breaker, None);
    let told = wait_for("both messages", || {
        let told = std::fs::read_to_string(project.path("told")).ok()?;
        (told.lines().filter(|line| !line.is_empty()).count() >= 2).then_some(told)
    });
    let told: Vec<Value> =
        told.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["type"], &told[1]["type"]), (&json!("doorbell.breaker"), &json!("doorbell.breaker.resolved")));
    assert!(told[1]["timestamp"].as_str() >= asked.as_deref(), "not before it answered: {told:?} {asked:?}");
    assert_eq!((&told[0]["data"]["agent"], &told[0]["data"]["count"]), (&json!("triage"), &json!(1)));
    assert!(told[0]["data"]["text"].as_str().unwrap().ends_with("answered with 503"), "{told:?}");
}

#[tokio::test]
async fn an_agent_behind_a_url_sleeps_keeps_steps_and_calls_others_with_its_callback() {
    let agent = Agent::start(&["202", "200"]);
    let project = agent.project("may_call = [\"fixer\"]");
    project.agent("fixer", "", "true");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    wait_until("the run to be taken", async || {
        gateway.client.run(&run).await.unwrap().run.reason.is_some().then_some(())
    })
    .await;
    let (client, _) = callback(&agent.asked()[0]);
    client.put_step(&run, "plan", &json!([1])).await.unwrap();
    let child = client.run_agent("fixer", &api::NewRun::default(), None).await.unwrap().run_id;
    assert_eq!(client.run(&child).await.unwrap().run.agent, "fixer");
    let wait = api::NewWait { run: Some(child.clone()), ..api::NewWait::default() };
    client.wait_run(&run, &wait).await.unwrap();
    assert_eq!(code(client.wait_run(&run, &wait).await), "lease_lost");
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
    let envelope = &agent.asked()[1].envelope;
    assert_eq!((&envelope["attempt"], &envelope["resumed"]["state"]), (&json!(2), &json!("succeeded")));
    assert_eq!(gateway.client.step(&run, "plan").await.unwrap(), json!([1]));
}
