//! What people see of pauses, waits, replays and those who changed something; and what they are told when they ask for nothing.

use doorbell_client::api::{self, NewReplay, NewResume, ReplayFilter};
use doorbell_client::{Client, Error};

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_until};

/// What a command says, on either stream, and its exit code.
fn said(project: &Project, args: &[&str]) -> (String, Option<i32>) {
    let output = project.run(args);
    (String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), output.status.code())
}

fn worker(config: &str) -> Project {
    let project = Project::new(ONE_SOURCE);
    let file = format!("{config}\n[[webhooks]]\nsource = \"acme\"\n{KEY}\n[runtime]\ntype = \"worker\"\n");
    project.write("agents/triage/config.toml", &file);
    project
}

const KEY: &str = "key = 'event.context.repo'";

async fn ring(gateway: &Gateway) -> String {
    gateway.ring(sample("issues.opened")).await.runs.remove(0)
}

#[tokio::test]
async fn an_agents_pause_is_seen_with_who_why_and_how_fast_it_ends() {
    let project = Project::with_triage("", "true");
    let gateway = project.serve();
    said(&project, &["pause", "triage", "--why", "deploying"]);
    let run = ring(&gateway).await;
    ring(&gateway).await;
    for command in [&["stat"][..], &["agents", "show", "triage"]] {
        let (text, _) = said(&project, command);
        assert!(text.contains("by local since") && text.contains(": deploying"), "{command:?}: {text}");
    }
    gateway.client.resume(Some("triage"), &NewResume { rate: Some("1/1h".to_owned()) }).await.unwrap();
    gateway.finished(&run).await;
    let (stat, _) = said(&project, &["stat"]);
    assert!(stat.contains("triage (resuming)") && stat.contains("what was held goes on at 1/1h"), "{stat}");
    let (agent, _) = said(&project, &["agents", "show", "triage"]);
    assert!(agent.contains("what was held goes on at 1/1h"), "{agent}");
    let held = gateway.runs().await.into_iter().find(|run| run.state == "held").unwrap();
    let reason = held.reason.unwrap();
    assert_eq!(reason, "paused by local: deploying; resumed since: what is held goes on at 1/1h");
}

#[tokio::test]
async fn who_released_a_run_or_had_it_tried_again_is_said_after_its_end() {
    let project = Project::with_triage("", "test -e $DOORBELL_EVENT_FILE.no");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    gateway.finished(&run).await;
    gateway.client.retry_run(&run).await.unwrap();
    wait_until("the second try", async || {
        let run = gateway.client.run(&run).await.unwrap().run;
        (run.attempt == 2 && run.state == "failed").then_some(())
    })
    .await;
    let moved = gateway.client.run(&run).await.unwrap().run.moved_on.unwrap();
    assert_eq!((moved.how.as_str(), moved.by.as_str()), ("retried", "local"));
    let (show, _) = said(&project, &["runs", "show", &run]);
    assert!(show.contains("Tried again by") && show.contains("local, "), "{show}");
}

#[tokio::test]
async fn an_agent_whose_runs_no_worker_fetches_says_so_until_one_asks() {
    let project = worker("");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let why = "no worker asked for its runs since the gateway started";
    assert_eq!(gateway.client.run(&run).await.unwrap().run.reason.as_deref(), Some(why));
    for command in [&["stat"][..], &["agents", "show", "triage"], &["runs"], &["doctor"]] {
        let (text, _) = said(&project, command);
        // Tables wrap.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("no worker asked for its runs"), "{command:?}: {text}");
    }
    let misspelt = api::Poll { agents: vec!["traige".to_owned()], ..api::Poll::default() };
    let told = |answer: Result<api::Polled, Error>| answer.unwrap_err().to_string();
    let owner = told(gateway.client.poll(&misspelt).await);
    assert!(owner.contains("there is no agent `traige`") && owner.contains("404"), "{owner}");
    let wish = api::NewKey {
        name: "one".to_owned(),
        role: "agent".to_owned(),
        agent: Some("triage".to_owned()),
        expires: None,
        account: None,
    };
    let key = gateway.client.create_key(&wish).await.unwrap().key;
    let own = Client::new(&gateway.url, Some(&key)).unwrap();
    project.agent("other", "", "true");
    wait_until("the other agent", async || {
        gateway.client.agents().await.unwrap().agents.iter().any(|agent| agent.name == "other").then_some(())
    })
    .await;
    let other = api::Poll { agents: vec!["other".to_owned()], ..api::Poll::default() };
    assert_eq!(told(own.poll(&other).await), owner.replace("traige", "other"));
    let wish = api::Poll { agents: vec!["triage".to_owned()], wait_seconds: Some(0), ..api::Poll::default() };
    assert_eq!(own.poll(&wish).await.unwrap().runs.len(), 1);
    assert_eq!(gateway.client.agent("triage").await.unwrap().agent.unasked, None);
}

#[tokio::test]
async fn a_run_that_asks_is_shown_as_the_holder_of_its_key() {
    let project = worker("");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    let wish = api::Poll { agents: vec!["triage".to_owned()], ..api::Poll::default() };
    let handed = gateway.client.poll(&wish).await.unwrap().runs.remove(0);
    let lease = Some(api::ShownLease::Token(handed.lease.token));
    let question = api::NewQuestion { lease, question: "Merge it?".to_owned(), ..api::NewQuestion::default() };
    gateway.client.ask_run(&run, &question).await.unwrap();
    let holders = gateway.client.stats().await.unwrap().agents.remove(0).holders;
    let holder = |holder: &api::Holder| (holder.key.clone(), holder.run_id.clone(), holder.state.clone());
    assert_eq!(holders.iter().map(holder).collect::<Vec<_>>(), [("acme/app".to_owned(), run, "waiting".to_owned())]);
}

#[tokio::test]
async fn a_replay_says_what_flow_control_makes_of_its_runs() {
    let project = Project::new(ONE_SOURCE);
    let flow = |flow: &str| format!("[[webhooks]]\nsource = \"acme\"\n{KEY}\n{flow}\n");
    project.agent("gathers", &flow("debounce = { window = \"1ms\" }"), "true");
    project.agent("replaces", &flow("when_busy = \"replace\""), "true");
    project.agent("plain", &flow(""), "true");
    let gateway = project.serve();
    ring(&gateway).await;
    let filter = ReplayFilter { source: Some("acme".to_owned()), ..ReplayFilter::default() };
    let wish = NewReplay { filter, ..NewReplay::default() };
    let preview = gateway.client.preview_replay(&NewReplay { dry_run: true, ..wish.clone() }).await.unwrap();
    let notes: Vec<&String> = preview.notes.iter().collect();
    assert!(notes.len() == 2 && notes[0].starts_with("gathers: `debounce`"), "{notes:?}");
    assert!(notes[1].starts_with("replaces: a replay replaces nothing"), "{notes:?}");
    let (dry, _) = said(&project, &["replay", "--source", "acme", "--dry-run"]);
    assert!(dry.contains("there may be fewer runs") && dry.contains("one after the other"), "{dry}");
    let (done, code) = said(&project, &["replay", "--source", "acme"]);
    assert!(done.contains("one after the other") && code == Some(0), "{done}");
}

#[tokio::test]
async fn commands_that_would_do_nothing_say_what_is_missing() {
    let project = Project::with_triage("", "true");
    let _gateway = project.serve();
    for (args, code, words) in [
        (&["runs", "cancel", "--agent", "triga"][..], 3, "did you mean `triage`?"),
        (&["ring", "acme", "--count", "300"], 2, "no EVENT says what"),
        (&["ring", "acme", "--tamper"], 2, "--tamper is about what is sent"),
        (&["replay", "--source", "acme", "--mode", "agent"], 2, "needs `--agent NAME`"),
    ] {
        let (text, exit) = said(&project, args);
        assert!(text.contains(words) && exit == Some(code), "{args:?}: {exit:?} {text}");
    }
    let (samples, code) = said(&project, &["ring", "acme"]);
    assert!(samples.contains("issues.opened") && code == Some(0), "{samples}");
    let (none, code) = said(&project, &["runs", "cancel", "--agent", "triage"]);
    assert!(none.contains("0 runs cancelled") && code == Some(0), "{none}");
}
