//! `where` and `key`: what they start, what they say, and that a slow one holds nobody up.

use std::time::{Duration, Instant};

use doorbell_client::{Answer, EventQuery, RunQuery, api};
use serde_json::{Value, json};

use crate::support::{Gateway, Project, fresh_id, issue, sample, sample_as, sign};

/// The time limit is not what these tests are about, and machines are shared.
const PATIENT: &str = "condition_timeout = \"60s\"\n[webhooks.acme]\ntype = \"github\"\ncredential = \"acme\"\n";

/// A trigger for issues with this condition and more keys.
fn trigger(condition: &str, more: &str) -> String {
    format!("[[webhooks]]\nsource = \"acme\"\nevents = [\"issues\"]\nwhere = '''{condition}'''\n{more}\n")
}

fn outcome<'a>(event: &'a api::Event, agent: &str) -> &'a api::Outcome {
    event.outcomes.iter().find(|outcome| outcome.agent == agent).unwrap()
}

async fn event_of(gateway: &Gateway, receipt: &api::Receipt) -> api::Event {
    gateway.client.event(&receipt.delivery_id).await.unwrap().event
}

async fn runs_with_key(gateway: &Gateway, key: &str) -> Vec<api::Run> {
    let query = RunQuery { key: Some(key.to_owned()), ..RunQuery::default() };
    gateway.client.runs(&query).await.unwrap().runs
}

#[tokio::test]
async fn a_condition_decides_and_a_key_stays_with_the_run() {
    let project = Project::new(PATIENT);
    let key = "key = 'event.context.repo + \"#\" + string(event.context.number)'";
    project.agent("urgent", &trigger("event.body.issue.title.startsWith('urgent')", key), "true");
    project.agent("calm", &trigger("!event.body.issue.title.startsWith('urgent')", ""), "true");
    let gateway = project.serve();
    let urgent = gateway.ring(issue("urgent: all is lost")).await;
    let calm = gateway.ring(issue("a typo")).await;
    let run = gateway.finished(&urgent.runs[0]).await.run;
    let event = event_of(&gateway, &urgent).await;
    let wanted = format!("{}#{}", event.context["repo"].as_str().unwrap(), event.context["number"]);
    assert_eq!((urgent.runs.len(), run.agent.as_str(), run.key.as_deref()), (1, "urgent", Some(wanted.as_str())));
    let run = gateway.finished(&calm.runs[0]).await.run;
    assert_eq!((calm.runs.len(), run.agent.as_str(), run.key.as_deref()), (1, "calm", None));
    let found = runs_with_key(&gateway, &wanted).await;
    assert_eq!(found.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), [urgent.runs[0].as_str()]);
    assert!(runs_with_key(&gateway, "another").await.is_empty());
    let listed = project.json(&["runs", "--with-key", &wanted]);
    assert_eq!(listed["runs"][0]["key"], wanted.as_str());
    let shown = String::from_utf8(project.run(&["runs", "show", &urgent.runs[0]]).stdout).unwrap();
    assert!(shown.contains(&wanted), "{shown}");
}

#[tokio::test]
async fn why_shows_the_expression_and_what_it_saw() {
    let project = Project::new(PATIENT);
    let condition = "event.body.issue.title == 'x' && size(event.context.labels) > 100";
    project.agent("triage", &trigger(condition, "key = 'event.context.number'"), "true");
    project.agent("all", &trigger("true", "key = 'event.context.action'"), "true");
    let gateway = project.serve();
    let receipt = gateway.ring(issue("hello")).await;
    let explanation = gateway.client.explain(&receipt.delivery_id).await.unwrap();
    let [all, triage] = explanation.verdicts.as_slice() else { panic!("{explanation:?}") };
    assert!(all.matched && !triage.matched);
    assert_eq!(
        (all.key.as_deref(), all.reason.as_str()),
        (Some("opened"), "its filters passed, and its `where` is true")
    );
    let last = triage.clauses.last().unwrap();
    assert_eq!((last.field.as_str(), last.wanted[0].as_str(), last.passed), ("where", condition, false));
    assert_eq!(last.actual.as_ref().unwrap()[0], "event.body.issue.title = \"hello\"");
    assert!(triage.reason.starts_with("`where` is false: event.body.issue.title = \"hello\""), "{}", triage.reason);
    let text = String::from_utf8(project.run(&["why", &receipt.delivery_id]).stdout).unwrap();
    assert!(text.contains(condition) && text.contains("event.body.issue.title = \"hello\""), "{text}");
}

#[tokio::test]
async fn a_condition_that_fails_is_a_filter_error_that_everybody_can_see() {
    let project = Project::new(PATIENT);
    project.agent("broken", &trigger("event.body.pull_request.draft", ""), "true");
    project.agent("nameless", &trigger("true", "key = 'event.body.issue.nothing'"), "true");
    project.agent("fine", &trigger("true", ""), "true");
    let gateway = project.serve();
    let receipt = gateway.ring(issue("hello")).await;
    assert_eq!(receipt.runs.len(), 1, "the others are not kept from starting");
    let event = event_of(&gateway, &receipt).await;
    let broken = outcome(&event, "broken");
    let why = "`where` failed: `event.body.pull_request` is missing";
    assert_eq!((broken.outcome.as_str(), broken.reason.as_deref()), ("filter_error", Some(why)));
    let why = "`key` failed: `event.body.issue.nothing` is missing";
    assert_eq!(outcome(&event, "nameless").reason.as_deref(), Some(why));
    let query = EventQuery { outcome: Some("filter_error".to_owned()), ..EventQuery::default() };
    assert_eq!(gateway.client.events(&query).await.unwrap().events.len(), 1);
    let explanation = gateway.client.explain(&receipt.delivery_id).await.unwrap();
    let verdict = explanation.verdicts.iter().find(|verdict| verdict.agent == "broken").unwrap();
    assert!(!verdict.matched && verdict.clauses.last().unwrap().error.is_some(), "{verdict:?}");
    assert_eq!(explanation.verdicts.len(), 3, "nothing is explained twice: {explanation:?}");
    let text = String::from_utf8(project.run(&["why", &receipt.delivery_id]).stdout).unwrap();
    assert!(text.contains("failed: `event.body.pull_request` is missing") && text.contains("filter_error"), "{text}");
    let listed = project.json(&["events", "--outcome", "filter_error"]);
    assert_eq!(listed["events"].as_array().unwrap().len(), 1);
    let metrics = reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("doorbell_outcomes_total{agent=\"broken\",outcome=\"filter_error\"} 1"), "{metrics}");
}

#[tokio::test]
async fn another_trigger_that_matches_wins_over_one_that_fails() {
    let project = Project::new(PATIENT);
    let triggers =
        trigger("event.body.nothing", "") + &trigger("event.context.action == 'opened'", "key = '\"second\"'");
    project.agent("triage", &triggers, "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let event = event_of(&gateway, &receipt).await;
    assert_eq!((outcome(&event, "triage").outcome.as_str(), outcome(&event, "triage").trigger), ("started", 1));
    assert_eq!(gateway.client.run(&receipt.runs[0]).await.unwrap().run.key.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_redelivery_asks_again_and_replaces_only_a_filter_error() {
    let project = Project::new(PATIENT);
    project.agent("triage", &trigger("event.body.nothing", ""), "true");
    project.agent("other", &trigger("true", ""), "true");
    let gateway = project.serve();
    let id = fresh_id();
    let first = gateway.ring(sample_as("issues.opened", &id)).await;
    let again = gateway.ring(sample_as("issues.opened", &id)).await;
    assert_eq!((again.duplicate, &again.runs), (true, &first.runs), "it fails again, and nothing starts twice");
    gateway.terminate();
    project.agent("triage", &trigger("has(event.body.issue)", "key = '\"mended\"'"), "true");
    let gateway = project.serve();
    let mended = gateway.ring(sample_as("issues.opened", &id)).await;
    assert_eq!((mended.duplicate, mended.runs.len(), &mended.delivery_id), (true, 2, &first.delivery_id));
    let event = event_of(&gateway, &mended).await;
    let started = outcome(&event, "triage");
    assert_eq!((started.outcome.as_str(), started.reason.as_deref()), ("started", None));
    let [run] = runs_with_key(&gateway, "mended").await.try_into().unwrap();
    assert_eq!(started.run_id.as_ref(), Some(&run.id));
    let query = EventQuery { outcome: Some("filter_error".to_owned()), ..EventQuery::default() };
    assert!(gateway.client.events(&query).await.unwrap().events.is_empty());
    let last = gateway.ring(sample_as("issues.opened", &id)).await;
    assert_eq!(last.runs.len(), 2, "what has started stays");
    assert_eq!(gateway.runs().await.len(), 2);
}

#[tokio::test]
async fn many_redeliveries_at_once_replace_a_filter_error_once() {
    let project = Project::new(PATIENT);
    project.agent("triage", &trigger("event.body.nothing", ""), "true");
    let gateway = project.serve();
    let id = fresh_id();
    gateway.ring(sample_as("issues.opened", &id)).await;
    gateway.terminate();
    project.agent("triage", &trigger("true", ""), "true");
    let gateway = project.serve();
    let receipts = futures_util::future::join_all((0..32).map(|_| gateway.ring(sample_as("issues.opened", &id)))).await;
    assert!(receipts.iter().all(|receipt| receipt.runs == receipts[0].runs && receipt.runs.len() == 1));
    assert_eq!(gateway.runs().await.len(), 1);
}

#[tokio::test]
async fn a_body_over_what_conditions_get_is_stored_and_only_those_that_read_it_fail() {
    let project = Project::new(PATIENT);
    project.agent("reads", &trigger("event.body.action == 'opened'", ""), "true");
    project.agent("does-not", &trigger("event.context.action == 'opened'", ""), "true");
    let gateway = project.serve();
    let body = json!({"action": "opened", "x": "x".repeat(2 << 20)}).to_string();
    let receipt = gateway.ring(sign("issues", body, &fresh_id())).await;
    let event = event_of(&gateway, &receipt).await;
    assert_eq!(outcome(&event, "does-not").outcome, "started");
    let reason = outcome(&event, "reads").reason.clone().unwrap();
    assert!(reason.contains("bytes, and expressions get 1048576 at most"), "{reason}");
}

#[test]
fn a_flaw_is_shown_in_its_line_with_all_others() {
    let project = Project::new(PATIENT);
    let agent = "[[webhooks]]\nsource = \"acme\"\nwhere = 'event.boddy.x == 1'\nkey = '[1]'\n\n\
                 [[webhooks]]\nsource = \"acme\"\nwhere = '''\nevent.body.a ==\n  event.body.b(1)'''\n\n\
                 [[webhooks]]\nsource = \"acme\"\nwhere = 7\n\n\
                 [[webhooks]]\nsource = \"acme\"\nwhere = \"\\\"a\\\" == 1\"\n";
    project.agent("triage", agent, "true");
    let output = project.run(&["config"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for shown in [
        "an event has no `boddy`",
        "agents/triage/config.toml:3:15",
        "what there is: event.body, event.context",
        "a key is a text or a number; this is a list",
        "agents/triage/config.toml:4:8",
        "there is no function `b`",
        "agents/triage/config.toml:10:15",
        "expected an expression such as",
        "a text is never equal to a whole number",
        "5 problems",
    ] {
        assert!(text.contains(shown), "{shown}:\n{text}");
    }
}

#[test]
fn two_hundred_thousand_brackets_are_a_clean_error() {
    let project = Project::new(PATIENT);
    let deep = format!("{}true{}", "(".repeat(200_000), ")".repeat(200_000));
    project.agent("triage", &trigger(&deep, ""), "true");
    let output = project.run(&["config"]);
    assert_eq!(output.status.code(), Some(1), "no abort");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("the expression has 400004 bytes, and 4096 are the most"),
        "{}",
        &text[..text.len().min(2000)]
    );
    project.agent("triage", &trigger(&deep[199_000..201_004], ""), "true");
    let text = String::from_utf8(project.run(&["config"]).stderr).unwrap();
    assert!(text.contains("brackets are nested deeper than 32"), "{}", &text[..text.len().min(2000)]);
}

/// Conditions that would take minutes over the body that they get, each for agents of its own.
const SLOW: [&str; 6] = [
    "event.body.a.exists(x, -1 in event.body.a)",
    "event.body.a.all(x, event.body.a == event.body.a)",
    "event.body.a.all(x, !event.body.text.matches('(x+x+)+y'))",
    "event.body.a.all(x, !event.body.text.contains('y'))",
    "size(event.body.a.map(x, event.body.text + event.body.text)) == 0",
    "event.body.a.all(x, size(event.body.a + event.body.a) > 0)",
];

fn slow_body() -> Vec<u8> {
    let numbers: Vec<u32> = (0..20_000).collect();
    json!({"action": "opened", "a": numbers, "text": "x".repeat(60_000)}).to_string().into()
}

/// How long deliveries of a quick source took to be answered, shortest first, while `busy` goes on.
async fn ring_quickly(gateway: &Gateway, busy: impl Future<Output = ()>) -> (Vec<Duration>, Vec<api::Receipt>) {
    let quick = async {
        let (mut took, mut receipts) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let signed = sample("issues.opened");
            let begun = Instant::now();
            match gateway.send("/v1/webhooks/github/quick", signed).await {
                Answer::Receipt(receipt) => receipts.push(receipt),
                other => panic!("not accepted: {other:?}"),
            }
            took.push(begun.elapsed());
        }
        took.sort();
        (took, receipts)
    };
    tokio::join!(quick, busy).0
}

#[tokio::test]
async fn slow_conditions_hold_up_no_other_source_and_lose_no_event() {
    let limit = Duration::from_millis(250);
    let mut config = "[webhooks.acme]\ntype = \"github\"\ncredential = \"acme\"\n".to_owned();
    config += "[webhooks.quick]\ntype = \"github\"\ncredential = \"acme\"\n";
    let project = Project::new(&config);
    for (n, condition) in SLOW.iter().enumerate() {
        project.agent(&format!("slow-{n}"), &trigger(condition, "").repeat(5), "true");
    }
    project.agent("plain", "[[webhooks]]\nsource = \"acme\"", "true");
    let quick = "[[webhooks]]\nsource = \"quick\"\nwhere = \"event.context.action == 'opened'\"\n";
    project.agent("quick", quick, "true");
    let gateway = project.serve();
    let busy = async {
        let deliveries = (0..12).map(|_| gateway.ring(sign("issues", slow_body(), &fresh_id())));
        let begun = Instant::now();
        let receipts = futures_util::future::join_all(deliveries).await;
        // Each of them waits for its own conditions, and for no one else's.
        assert!(begun.elapsed() < limit * 40, "{:?}", begun.elapsed());
        for receipt in &receipts {
            assert_eq!(receipt.runs.len(), 1, "the agent without a condition is started");
        }
        let event = event_of(&gateway, &receipts[0]).await;
        for n in 0..SLOW.len() {
            let slow = outcome(&event, &format!("slow-{n}"));
            let reason = slow.reason.as_deref().unwrap_or_default();
            let known = ["too much work", "took longer than 250 ms", "wait for their conditions"];
            assert_eq!(slow.outcome, "filter_error");
            assert!(known.iter().any(|why| reason.contains(why)), "{reason}");
        }
    };
    let (took, receipts) = ring_quickly(&gateway, busy).await;
    // That they wait for no condition of another source is shown without a clock where turns are taken (`conditions/pool`).
    // Here the whole gateway and the machine take time too: a condition that held them up would hold up most of them.
    assert!(took[took.len() / 2] < limit * 4, "{took:?}");
    assert!(took[took.len() - 1] < limit * 40, "{took:?}");
    let started = receipts.iter().filter(|receipt| receipt.runs.len() == 1).count();
    assert!(started * 2 > receipts.len(), "{started} of {} had an answer in time", receipts.len());
    assert_eq!(receipts.len(), 40, "and all are stored");
}

/// What `triggers test` says about a trigger.
async fn tested(gateway: &Gateway, trigger: Value) -> Result<api::TriggerTestResult, doorbell_client::Error> {
    let trigger = trigger.as_object().unwrap().clone();
    gateway.client.test_trigger(&api::TriggerTest { trigger, since: None, limit: Some(2) }).await
}

#[tokio::test]
async fn a_trigger_is_tested_against_stored_events() {
    let project = Project::new(PATIENT);
    let gateway = project.serve();
    for title in ["urgent: a", "urgent: b", "urgent: c", "calm"] {
        gateway.ring(issue(title)).await;
    }
    gateway.ring(sample("push")).await;
    let trigger = json!({"source": "acme", "events": ["issues", "push"],
        "where": "event.body.issue.title.startsWith('urgent')", "key": "event.body.issue.title"});
    let result = tested(&gateway, trigger).await.unwrap();
    assert_eq!((result.scanned, result.matched, result.not_matched, result.failed), (5, 3, 1, 1));
    assert!(result.complete);
    let keys: Vec<_> = result.events.iter().map(|event| event.key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["urgent: c", "urgent: b"], "the newest two, as asked");
    assert_eq!(result.misses[0].reason, "`where` is false: event.body.issue.title = \"calm\"");
    assert_eq!(result.failures[0].reason, "`where` failed: `event.body.issue` is missing");
    assert!(gateway.runs().await.is_empty(), "nothing is started");
    let wrong = tested(&gateway, json!({"source": "acme", "where": "event.body.x +"})).await.unwrap_err();
    assert!(wrong.to_string().contains("not CEL") && wrong.status() == Some(400), "{wrong}");
    let unknown = tested(&gateway, json!({"source": "acmee", "lables": ["x"]})).await.unwrap_err().to_string();
    assert!(unknown.contains("did you mean `acme`?"), "{unknown}");
}

#[tokio::test]
async fn triggers_are_tested_from_agents_files_and_standard_input() {
    let project = Project::new(PATIENT);
    let second = "[[webhooks]]\nsource = \"acme\"\nactions = [\"closed\"]\n";
    project.agent("triage", &(trigger("event.body.issue.title == 'one'", "") + second), "true");
    project.write("idea.toml", "source = \"acme\"\nkey = 'event.body.issue.title'\n");
    let gateway = project.serve();
    gateway.ring(issue("one")).await;
    gateway.ring(issue("two")).await;
    let matched = |args: &[&str]| project.json(&[&["triggers", "test"], args].concat())["matched"].as_u64();
    assert_eq!(matched(&["triage"]), Some(1));
    assert_eq!(matched(&["--agent", "triage", "--trigger", "2"]), Some(0));
    assert_eq!(matched(&["idea.toml", "--since", "1h"]), Some(2));
    let text = String::from_utf8(project.run(&["triggers", "test", "idea.toml"]).stdout).unwrap();
    assert!(text.contains("2 match, 0 do not") && text.contains("key two"), "{text}");
    let missing = project.run(&["triggers", "test", "nobody"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    let none = project.run(&["triggers", "test", "triage", "--trigger", "3"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    project.write("wrong.toml", "source = \"acme\"\nwhere = 'event.body.'\n");
    let wrong = project.run(&["triggers", "test", "wrong.toml"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("--> wrong.toml, trigger 1") && !said.contains("invalid_request"), "{said}");
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    let mut piped = project.doorbell(&["triggers", "test", "-", "--json"]);
    piped.stdin(std::fs::File::open(project.path("idea.toml")).unwrap());
    let piped: Value = serde_json::from_slice(&piped.output().unwrap().stdout).unwrap();
    assert_eq!(piped["matched"], 2);
}
