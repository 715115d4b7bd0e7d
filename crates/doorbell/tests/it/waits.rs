//! Runs that wait, over real HTTP: for a time, an event, the end of another run, an answer; and the steps that they keep.

use doorbell_client::api::{self, HandedRun, ShownLease};
use doorbell_client::{Client, Error, RunQuery};
use serde_json::{Value, json};

use crate::docs::{blocks, read};
use crate::support::{Background, Gateway, ONE_SOURCE, Project, issue, sample, wait_until};

fn project(config: &str) -> Project {
    let project = Project::new(ONE_SOURCE);
    worker(&project, "triage", config, "events = [\"issues.opened\"]");
    project
}

fn worker(project: &Project, name: &str, config: &str, trigger: &str) {
    let file = format!("{config}\n[[webhooks]]\nsource = \"acme\"\n{trigger}\n[runtime]\ntype = \"worker\"\n");
    project.write(&format!("agents/{name}/config.toml"), &file);
}

async fn poll(client: &Client, seconds: u64) -> Option<HandedRun> {
    let wish = api::Poll {
        agents: vec!["triage".to_owned()],
        wait_seconds: Some(seconds),
        lease_seconds: Some(60),
        ..api::Poll::default()
    };
    client.poll(&wish).await.unwrap().runs.pop()
}

/// The next run, which has to come.
async fn fetch(client: &Client) -> HandedRun {
    poll(client, 60).await.unwrap()
}

async fn ring(gateway: &Gateway) -> String {
    gateway.ring(sample("issues.opened")).await.runs.remove(0)
}

fn shown(run: &HandedRun) -> Option<ShownLease> {
    Some(ShownLease::Token(run.lease.token.clone()))
}

/// A client that shows a lease as its token.
fn by_lease(gateway: &Gateway, run: &HandedRun) -> Client {
    Client::new(&gateway.url, Some(&run.lease.token)).unwrap()
}

fn seconds(seconds: f64) -> Option<api::Patience> {
    Some(api::Patience::Seconds(seconds))
}

fn for_event(run: &HandedRun, event: &str) -> api::NewWait {
    api::NewWait { lease: shown(run), event: Some(event.to_owned()), ..api::NewWait::default() }
}

fn nap(run: &HandedRun, millis: i64) -> api::NewSleep {
    let until = doorbell_core::time::Timestamp::from_millis(doorbell::clock::now().as_millis() + millis);
    api::NewSleep { lease: shown(run), until: until.to_string() }
}

fn question(run: &HandedRun, options: &[&str]) -> api::NewQuestion {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    api::NewQuestion { lease: shown(run), question: "Merge it?".to_owned(), options, ..api::NewQuestion::default() }
}

async fn complete(gateway: &Gateway, run: &HandedRun) {
    let end = api::RunEnd { lease: shown(run), result: Some(json!({"done": true})), ..api::RunEnd::default() };
    assert_eq!(gateway.client.end_run(&run.run_id, &end).await.unwrap().state, "succeeded");
}

fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Api(problem)) => problem.code,
        other => panic!("it was not refused: {other:?}"),
    }
}

fn detail<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Api(problem)) => problem.detail,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_run_sleeps_through_a_restart_and_uses_up_neither_a_try_nor_a_place() {
    let project = project("scale = 1\n[retries]\nattempts = 1");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let given = gateway.client.sleep_run(&id, &nap(&run, 6_000)).await.unwrap();
    assert_eq!((given.state.as_str(), given.due_at.is_some()), ("waiting", true));
    assert_eq!(code(gateway.client.sleep_run(&id, &nap(&run, 0)).await), "lease_lost", "it was given back");
    assert_eq!(code(gateway.client.heartbeat(&id, &api::Heartbeat { lease: shown(&run) }).await), "lease_lost");
    let seen = gateway.client.run(&id).await.unwrap().run;
    assert_eq!(seen.waits_for.unwrap().kind, "sleep");
    assert!(seen.reason.unwrap().starts_with("sleeps until "));
    let other = ring(&gateway).await;
    let second = fetch(&gateway.client).await;
    assert_eq!(second.run_id, other, "its place is free");
    complete(&gateway, &second).await;
    gateway.kill();
    let gateway = project.serve();
    let again = fetch(&gateway.client).await;
    assert_eq!((&again.run_id, &again.envelope["attempt"]), (&id, &json!(2)));
    assert_eq!(again.envelope["resumed"], json!({"kind": "sleep"}));
    assert_ne!(again.lease.token, run.lease.token);
    complete(&gateway, &again).await;
    let done = gateway.finished(&id).await;
    assert_eq!(done.attempts[0].ended.as_deref(), Some("waits"));
    assert_eq!(done.attempts[1].resumed_by.as_ref().unwrap().kind, "sleep");
}

#[tokio::test]
async fn a_run_goes_on_with_an_event_that_comes_while_it_waits_and_with_no_other_one() {
    let project = project("");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let wait = api::NewWait {
        source: Some("acme".to_owned()),
        condition: Some("event.body.ref.startsWith('refs/')".to_owned()),
        ..for_event(&run, "github.push")
    };
    assert_eq!(gateway.client.wait_run(&id, &wait).await.unwrap().state, "waiting");
    let seen = gateway.client.run(&id).await.unwrap().run;
    let waits = seen.waits_for.unwrap();
    assert_eq!((waits.kind.as_str(), waits.event.as_deref()), ("event", Some("github.push")));
    let listed = String::from_utf8(project.run(&["runs"]).stdout).unwrap();
    assert!(listed.contains("waits for event github.push"), "{listed}");
    let other = ring(&gateway).await;
    let second = fetch(&gateway.client).await;
    assert_eq!(second.run_id, other);
    complete(&gateway, &second).await;
    assert_eq!(gateway.client.run(&id).await.unwrap().run.state, "waiting");
    let event = gateway.ring(sample("push")).await;
    let again = fetch(&gateway.client).await;
    assert_eq!(again.run_id, id);
    let resumed = &again.envelope["resumed"];
    assert_eq!((&resumed["kind"], &resumed["event_id"]), (&json!("event"), &json!(event.delivery_id)));
    assert_eq!((&resumed["event_type"], &resumed["context"]["event"]), (&json!("github.push"), &json!("push")));
    let body = by_lease(&gateway, &again).event_body(&event.delivery_id).await.unwrap();
    assert!(serde_json::from_slice::<Value>(&body).unwrap()["ref"].is_string());
    let show = String::from_utf8(project.run(&["runs", "show", &id]).stdout).unwrap();
    assert!(show.contains("Went on by") && show.contains(&event.delivery_id), "{show}");
    // What it went on by is no news any more.
    let wait = api::NewWait { timeout: seconds(0.2), ..for_event(&again, "push") };
    gateway.client.wait_run(&id, &wait).await.unwrap();
    assert_eq!(fetch(&gateway.client).await.envelope["resumed"], json!({"kind": "timeout"}));
}

#[tokio::test]
async fn an_event_that_came_since_the_run_began_is_not_waited_for_and_an_older_one_is_of_no_use() {
    let project = project("");
    let gateway = project.serve();
    gateway.ring(sample("push")).await;
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let wait = api::NewWait { timeout: seconds(0.2), ..for_event(&run, "push") };
    gateway.client.wait_run(&id, &wait).await.unwrap();
    let run = fetch(&gateway.client).await;
    assert_eq!(run.envelope["resumed"], json!({"kind": "timeout"}), "it came before the run");
    let event = gateway.ring(sample("push")).await.delivery_id;
    gateway.kill();
    let gateway = project.serve();
    gateway.client.wait_run(&id, &for_event(&run, "push")).await.unwrap();
    let run = fetch(&gateway.client).await;
    assert_eq!(run.envelope["resumed"]["event_id"], json!(event));
}

#[tokio::test]
async fn no_event_that_was_answered_is_missed_when_the_gateway_is_killed_at_once() {
    let project = project("scale = 5");
    let mut gateway = project.serve();
    for n in 0..5 {
        let id = ring(&gateway).await;
        let run = fetch(&gateway.client).await;
        let wait = api::NewWait {
            condition: Some(format!("event.body.issue.title == 'number {n}'")),
            ..for_event(&run, "issues.opened")
        };
        gateway.client.wait_run(&id, &wait).await.unwrap();
        let event = gateway.ring(issue(&format!("number {n}"))).await;
        gateway.kill();
        gateway = project.serve();
        let runs = [fetch(&gateway.client).await, fetch(&gateway.client).await];
        let own = runs.iter().find(|run| run.run_id == id).unwrap();
        assert_eq!(own.envelope["resumed"]["event_id"], json!(event.delivery_id));
        for run in &runs {
            complete(&gateway, run).await;
        }
    }
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_refused_at_once_and_the_lease_stays() {
    let project = project("");
    worker(&project, "other", "", "events = [\"push\"]");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let client = &gateway.client;
    let none = api::NewWait { lease: shown(&run), ..api::NewWait::default() };
    let refused = [
        none.clone(),
        for_event(&run, ""),
        api::NewWait { condition: Some("event.nonsense ==".to_owned()), ..for_event(&run, "push") },
        api::NewWait { condition: Some("1".to_owned()), ..for_event(&run, "push") },
        api::NewWait { source: Some("elsewhere".to_owned()), ..for_event(&run, "push") },
        api::NewWait { timeout: Some(api::Patience::Text("soon".to_owned())), ..for_event(&run, "push") },
        api::NewWait { timeout: seconds(1e12), ..for_event(&run, "push") },
        api::NewWait { run: Some(id.clone()), ..none.clone() },
        api::NewWait { run: Some("run_nobody".to_owned()), ..none.clone() },
        api::NewWait { run: Some(id.clone()), ..for_event(&run, "push") },
    ];
    for wish in refused {
        assert_eq!(code(client.wait_run(&id, &wish).await), "invalid_request", "{wish:?}");
    }
    let flaw = api::NewWait { condition: Some("event.nonsense".to_owned()), ..for_event(&run, "push") };
    let said = detail(client.wait_run(&id, &flaw).await);
    assert!(said.contains("where") && said.contains("nonsense"), "{said}");
    let late = api::NewSleep { lease: shown(&run), until: "tomorrow".to_owned() };
    assert_eq!(code(client.sleep_run(&id, &late).await), "invalid_request");
    let silent = api::NewQuestion { question: " ".to_owned(), ..question(&run, &[]) };
    assert_eq!(code(client.ask_run(&id, &silent).await), "invalid_request");
    let stale = api::NewSleep { lease: Some(ShownLease::Token(format!("dbl_{}", "0".repeat(32)))), ..nap(&run, 0) };
    assert_eq!(code(client.sleep_run(&id, &stale).await), "lease_lost");
    let bearer = by_lease(&gateway, &run);
    assert_eq!(code(bearer.sleep_run(&id, &nap(&run, 0)).await), "not_allowed", "a worker shows its key");
    complete(&gateway, &run).await;
}

#[tokio::test]
async fn a_person_answers_what_a_run_asks() {
    let project = project("");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    assert_eq!(gateway.client.ask_run(&id, &question(&run, &["yes", "no"])).await.unwrap().state, "waiting");
    let listed = String::from_utf8(project.run(&["runs", "--state", "waiting"]).stdout).unwrap();
    assert!(listed.contains("asks \"Merge it?\" (yes, no)"), "{listed}");
    let show = String::from_utf8(project.run(&["runs", "show", &id]).stdout).unwrap();
    assert!(show.contains(&format!("doorbell runs answer {id} yes | no")), "{show}");
    gateway.kill();
    let gateway = project.serve();
    let wrong = project.run(&["runs", "answer", &id, "perhaps"]);
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("must be one of: yes, no"));
    let viewer =
        api::NewKey { name: "v".to_owned(), role: "viewer".to_owned(), agent: None, expires: None, account: None };
    let viewer = Client::new(&gateway.url, Some(&gateway.client.create_key(&viewer).await.unwrap().key)).unwrap();
    let yes = api::NewAnswer { answer: json!("yes") };
    assert_eq!(code(viewer.answer_run(&id, &yes).await), "not_allowed");
    let answered = project.json(&["runs", "answer", &id, "yes"]);
    assert_eq!(answered["state"], "queued");
    assert_eq!(code(gateway.client.answer_run(&id, &yes).await), "not_asking");
    let again = fetch(&gateway.client).await;
    assert_eq!(again.envelope["resumed"], json!({"kind": "answer", "answer": "yes", "by": "local"}));
    let free = api::NewQuestion { timeout: seconds(0.2), ..question(&again, &[]) };
    gateway.client.ask_run(&id, &free).await.unwrap();
    let again = fetch(&gateway.client).await;
    assert_eq!(again.envelope["resumed"], json!({"kind": "timeout"}));
    gateway.client.ask_run(&id, &question(&again, &[])).await.unwrap();
    gateway.client.answer_run(&id, &api::NewAnswer { answer: json!({"labels": ["bug"]}) }).await.unwrap();
    let again = fetch(&gateway.client).await;
    assert_eq!(again.envelope["resumed"]["answer"], json!({"labels": ["bug"]}));
    assert_eq!(code(gateway.client.answer_run(&id, &yes).await), "not_asking");
    assert_eq!(code(gateway.client.answer_run("run_nobody", &yes).await), "not_found");
}

#[tokio::test]
async fn a_run_that_waits_is_cancelled_at_once_and_its_key_goes_on() {
    let project = Project::new(ONE_SOURCE);
    worker(&project, "triage", "", "key = 'event.context.repo'\nwhen_busy = \"queue\"\nevents = [\"issues.opened\"]");
    let gateway = project.serve();
    let first = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    gateway.client.ask_run(&first, &question(&run, &[])).await.unwrap();
    let second = ring(&gateway).await;
    assert!(poll(&gateway.client, 0).await.is_none(), "the run that waits keeps its key");
    assert_eq!(gateway.client.cancel_run(&first).await.unwrap().state, "cancelled");
    let next = fetch(&gateway.client).await;
    assert_eq!(next.run_id, second);
    gateway.client.sleep_run(&second, &nap(&next, 3_600_000)).await.unwrap();
    assert_eq!(gateway.client.cancel_run(&second).await.unwrap().state, "cancelled");
    let third = ring(&gateway).await;
    let next = fetch(&gateway.client).await;
    gateway.client.cancel_run(&third).await.unwrap();
    let given = gateway.client.wait_run(&third, &for_event(&next, "push")).await.unwrap();
    assert_eq!(given.state, "cancelled", "somebody wanted its end");
}

#[tokio::test]
async fn what_comes_for_a_run_that_is_held_while_it_waits_is_told_when_its_agent_is_resumed() {
    let project = project("");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    gateway.client.wait_run(&id, &for_event(&run, "push")).await.unwrap();
    gateway.client.pause(Some("triage"), &api::NewPause::default()).await.unwrap();
    let held = gateway.in_state(&id, "held").await;
    assert_eq!(held.run.waits_for.unwrap().event.as_deref(), Some("push"));
    let event = gateway.ring(sample("push")).await.delivery_id;
    wait_until("the event to be taken", async || {
        gateway.client.run(&id).await.unwrap().run.resumed_by.is_some().then_some(())
    })
    .await;
    assert!(poll(&gateway.client, 0).await.is_none());
    gateway.client.resume(Some("triage"), &api::NewResume::default()).await.unwrap();
    assert_eq!(fetch(&gateway.client).await.envelope["resumed"]["event_id"], json!(event));
}

#[tokio::test]
async fn steps_are_kept_once_through_tries_and_sleeps_and_seen_by_who_may() {
    let project = project("[retries]\nattempts = 2\nbackoff = { initial = \"1ms\" }");
    worker(&project, "other", "", "events = [\"push\"]");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let own = by_lease(&gateway, &run);
    let plan = json!({"b": [1, 2], "a": "ä"});
    assert_eq!(code(own.step(&id, "plan").await), "not_found");
    assert_eq!(own.put_step(&id, "plan", &plan).await.unwrap(), plan);
    assert_eq!(own.put_step(&id, "plan", &json!({"a": "ä", "b": [1, 2]})).await.unwrap(), plan);
    assert_eq!(code(own.put_step(&id, "plan", &json!(2)).await), "step_differs");
    own.put_step(&id, "a/b c", &json!(null)).await.unwrap();
    assert_eq!(code(own.put_step(&id, &"k".repeat(201), &plan).await), "invalid_request");
    assert_eq!(code(own.put_step(&id, "large", &json!("x".repeat(300 * 1024))).await), "invalid_request");
    assert_eq!(code(gateway.client.put_step(&id, "mine", &plan).await), "not_allowed");
    let key = |role: &str, agent: Option<&str>| {
        let wish = api::NewKey {
            name: "k".to_owned(),
            role: role.to_owned(),
            agent: agent.map(str::to_owned),
            expires: None,
            account: None,
        };
        let (client, url) = (gateway.client.clone(), gateway.url.clone());
        async move { Client::new(&url, Some(&client.create_key(&wish).await.unwrap().key)).unwrap() }
    };
    assert_eq!(key("viewer", None).await.step(&id, "plan").await.unwrap(), plan);
    assert_eq!(code(key("agent", Some("other")).await.step(&id, "plan").await), "not_found");
    let failed = api::RunEnd { lease: shown(&run), error: Some(json!("broken")), ..api::RunEnd::default() };
    assert_eq!(gateway.client.end_run(&id, &failed).await.unwrap().state, "waiting");
    assert_eq!(code(own.step(&id, "plan").await), "lease_lost");
    assert_eq!(code(own.put_step(&id, "late", &plan).await), "lease_lost");
    let run = fetch(&gateway.client).await;
    let own = by_lease(&gateway, &run);
    assert_eq!(own.step(&id, "plan").await.unwrap(), plan);
    gateway.client.sleep_run(&id, &nap(&run, 0)).await.unwrap();
    let run = fetch(&gateway.client).await;
    assert_eq!(by_lease(&gateway, &run).step(&id, "a/b c").await.unwrap(), json!(null));
    let seen = gateway.client.run(&id).await.unwrap();
    assert_eq!(seen.steps.iter().map(|step| step.key.as_str()).collect::<Vec<_>>(), ["plan", "a/b c"]);
    complete(&gateway, &run).await;
    let show = String::from_utf8(project.run(&["runs", "show", &id]).stdout).unwrap();
    assert!(show.contains("STEP") && show.contains("a/b c"), "{show}");
    gateway.client.forget_event(&gateway.client.run(&id).await.unwrap().run.event_id, false).await.unwrap();
    assert_eq!(code(gateway.client.step(&id, "plan").await), "not_found");
}

#[tokio::test]
async fn a_worker_calls_another_agent_with_its_lease_and_waits_for_its_end() {
    let project = project("may_call = [\"fixer\"]");
    project.agent("fixer", "", "echo '{\"fixed\":true}' > $DOORBELL_OUTPUT_FILE");
    project.agent("stranger", "[[webhooks]]\nsource = \"acme\"\nevents = [\"release\"]", "true");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let own = by_lease(&gateway, &run);
    let wish = api::NewRun { prompt: Some("fix it".to_owned()), input: Value::Null };
    assert_eq!(code(own.run_agent("stranger", &wish, None).await), "not_found");
    let child = own.run_agent("fixer", &wish, Some("once")).await.unwrap().run_id;
    assert_eq!(own.run_agent("fixer", &wish, Some("once")).await.unwrap().run_id, child);
    let wait = api::NewWait { lease: shown(&run), run: Some(child.clone()), ..api::NewWait::default() };
    assert!(["waiting", "queued"].contains(&gateway.client.wait_run(&id, &wait).await.unwrap().state.as_str()));
    let again = fetch(&gateway.client).await;
    let told = json!({"kind": "run", "run_id": child, "state": "succeeded", "result": {"fixed": true}});
    assert_eq!(again.envelope["resumed"], told);
    // It is over by now.
    let wait = api::NewWait { lease: shown(&again), ..wait };
    assert_eq!(gateway.client.wait_run(&id, &wait).await.unwrap().state, "queued");
    let again = fetch(&gateway.client).await;
    let own = by_lease(&gateway, &again);
    assert_eq!(own.run(&child).await.unwrap().run.result, Some(json!({"fixed": true})));
    assert_eq!(own.run(&id).await.unwrap().run.state, "running");
    let event = own.run(&id).await.unwrap().run.event_id;
    assert_eq!(own.event(&event).await.unwrap().event.id, event);
    // And nothing else.
    let other = gateway.ring(sample("push")).await.delivery_id;
    assert_eq!(code(own.event(&other).await), "not_found");
    assert_eq!(code(own.runs(&RunQuery::default()).await), "not_found");
    assert_eq!(code(own.agents().await), "not_found");
    assert_eq!(code(own.cancel_run(&id).await), "not_found");
    let second = ring(&gateway).await;
    assert_eq!(code(own.run(&second).await), "not_found");
    complete(&gateway, &again).await;
    assert_eq!(code(own.run(&id).await), "lease_lost");
}

#[tokio::test]
async fn a_parent_goes_on_when_its_child_is_cancelled_after_a_restart() {
    let project = project("may_call = [\"fixer\"]");
    project.agent("fixer", "", "sleep 1000");
    let gateway = project.serve();
    let id = ring(&gateway).await;
    let run = fetch(&gateway.client).await;
    let child = by_lease(&gateway, &run).run_agent("fixer", &api::NewRun::default(), None).await.unwrap().run_id;
    let wait = api::NewWait { lease: shown(&run), run: Some(child.clone()), ..api::NewWait::default() };
    assert_eq!(gateway.client.wait_run(&id, &wait).await.unwrap().state, "waiting");
    gateway.kill();
    let gateway = project.serve();
    gateway.client.cancel_run(&child).await.unwrap();
    let again = fetch(&gateway.client).await;
    assert_eq!(again.envelope["resumed"], json!({"kind": "run", "run_id": child, "state": "cancelled"}));
}

/// What a command says with its token; `$1`: the verb, `$2`: the body.
const SAY: &str = "say() { curl -sS -X \"$1\" -H \"Authorization: Bearer $DOORBELL_TOKEN\" -H 'content-type: application/json' \
                   \"$DOORBELL_URL/v1/runs/$DOORBELL_RUN_ID/$2\" -d \"$3\"; echo; }\n";

#[tokio::test]
async fn a_command_waits_when_it_has_ended_and_goes_on_where_it_was() {
    let script = format!(
        "{SAY}if [ $DOORBELL_ATTEMPT = 1 ]; then say PUT steps/first '{{\"n\":1}}'; \
         say POST wait '{{\"event\":\"push\"}}'; say POST sleep '{{\"until\":\"2020-01-01T00:00:00Z\"}}'; \
         else say GET steps/first; cat \"$DOORBELL_EVENT_FILE\"; fi"
    );
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"\nevents = [\"issues.opened\"]", &script);
    let gateway = project.serve();
    let id = ring(&gateway).await;
    gateway.in_state(&id, "waiting").await;
    let said = gateway.stdout(&id).await;
    assert!(said.contains("\"state\":\"running\"") && said.contains("lease_lost"), "{said}");
    let event = gateway.ring(sample("push")).await.delivery_id;
    let done = gateway.finished(&id).await;
    assert_eq!((done.run.state.as_str(), done.attempts[0].ended.as_deref()), ("succeeded", Some("waits")));
    let said = gateway.stdout(&id).await;
    assert!(said.contains("{\"n\":1}") && said.contains(&format!("\"event_id\":\"{event}\"")), "{said}");
}

#[tokio::test]
async fn a_command_that_fails_after_it_asked_to_wait_has_failed() {
    let script = format!("{SAY}say POST ask '{{\"question\":\"Go on?\"}}'; exit 3");
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", "[[webhooks]]\nsource = \"acme\"", &script);
    let gateway = project.serve();
    let done = gateway.finished(&ring(&gateway).await).await;
    assert_eq!((done.run.state.as_str(), done.attempts[0].exit_code), ("failed", Some(3)));
    assert!(done.run.waits_for.is_none());
}

#[tokio::test]
async fn the_worker_of_the_docs_that_asks_and_sleeps_does_what_they_say() {
    let project = project("");
    let gateway = project.serve();
    let examples = blocks(&read("docs/workers.md"), "python");
    project.write("worker.py", examples.iter().find(|example| example.contains("give_back(\"ask\"")).unwrap());
    let mut command = project.prepare("python3", &["worker.py"]);
    command.env("DOORBELL_URL", &gateway.url).env("DOORBELL_TOKEN", &gateway.key);
    let _worker = Background::start(command);
    let id = ring(&gateway).await;
    gateway.in_state(&id, "waiting").await;
    project.json(&["runs", "answer", &id, "yes"]);
    let done = gateway.finished(&id).await;
    assert_eq!(done.run.result.unwrap()["done"], "closed it");
    let kinds = done.attempts.iter().map(|attempt| attempt.resumed_by.as_ref().map(|by| by.kind.as_str()));
    assert_eq!(kinds.collect::<Vec<_>>(), [None, Some("answer"), Some("sleep")]);
}
