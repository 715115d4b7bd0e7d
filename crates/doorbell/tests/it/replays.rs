//! Stored events that are carried out once more.

use doorbell_client::api::{NewReplay, Replay, ReplayFilter, ReplayMode, ReplayWish};
use doorbell_client::{Client, EventQuery, RunQuery};

use crate::support::{Gateway, ONE_SOURCE, Project, issue, sample, wait_until};

const ANY: &str = "when_full = \"grow\"\nscale = 8\n[[webhooks]]\nsource = \"acme\"\n";

fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("{ANY}events = [\"issues\"]\n"), "cat \"$DOORBELL_EVENT_FILE\"");
    project
}

async fn ended(client: &Client, id: &str) -> Replay {
    wait_until("the replay is over", async || {
        let replay = client.replay(id).await.unwrap();
        (replay.state != "running").then_some(replay)
    })
    .await
}

async fn runs_of(gateway: &Gateway, agent: &str) -> usize {
    let query = RunQuery { agent: Some(agent.to_owned()), limit: Some(500), ..RunQuery::default() };
    gateway.client.runs(&query).await.unwrap().runs.len()
}

fn of_source(mode: ReplayMode) -> NewReplay {
    let filter = ReplayFilter { source: Some("acme".to_owned()), ..ReplayFilter::default() };
    NewReplay { filter, mode, ..NewReplay::default() }
}

#[tokio::test]
async fn an_event_is_replayed_as_a_cause_of_its_own_that_names_it() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(issue("first try")).await;
    gateway.finished(&receipt.runs[0]).await;
    let replayed = gateway.client.replay_event(&receipt.delivery_id, &ReplayWish::default()).await.unwrap();
    let run = replayed.outcomes[0].run_id.clone().unwrap();
    assert_ne!(run, receipt.runs[0]);
    gateway.finished(&run).await;
    let said = gateway.stdout(&run).await;
    assert!(said.contains("first try") && said.contains("\"integration_id\":\"acme\""), "{said}");
    let again = replayed.event_id.unwrap();
    let shown = gateway.client.event(&again).await.unwrap();
    assert_eq!(shown.event.replay.unwrap().event, receipt.delivery_id);
    let listed = project.doorbell(&["events", "show", &again]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains(&format!("replay of {}", receipt.delivery_id)));
    let missing = ReplayWish { mode: ReplayMode::Missing, agents: Vec::new() };
    assert_eq!(gateway.client.replay_event(&receipt.delivery_id, &missing).await.unwrap().event_id, None);
}

#[tokio::test]
async fn an_agent_that_came_later_gets_what_it_missed_and_a_named_one_whatever_it_wants() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let push = gateway.ring(sample("push")).await;
    project.agent("later", &format!("{ANY}events = [\"issues\"]\n"), "true");
    wait_until("it is taken over", async || {
        gateway.client.agents().await.unwrap().agents.iter().any(|agent| agent.name == "later").then_some(())
    })
    .await;
    let preview = gateway.client.preview_replay(&of_source(ReplayMode::Missing)).await.unwrap();
    assert_eq!((preview.events, preview.complete), (2, true));
    assert_eq!(preview.agents.into_iter().collect::<Vec<_>>(), [("later".to_owned(), 1)]);
    assert_eq!(runs_of(&gateway, "later").await, 0, "a preview starts nothing");
    let begun = gateway.client.start_replay(&of_source(ReplayMode::Missing)).await.unwrap();
    let done = ended(&gateway.client, &begun.id).await;
    assert_eq!((done.state.as_str(), done.looked_at, done.replayed, done.started), ("done", 2, 1, 1));
    assert_eq!((runs_of(&gateway, "later").await, runs_of(&gateway, "triage").await), (1, 1));
    let again = gateway.client.start_replay(&of_source(ReplayMode::Missing)).await.unwrap();
    assert_eq!(ended(&gateway.client, &again.id).await.started, 0, "it has one now");
    let named = ReplayWish { mode: ReplayMode::Agent, agents: vec!["later".to_owned()] };
    let replayed = gateway.client.replay_event(&push.delivery_id, &named).await.unwrap();
    let why = gateway.client.explain(&replayed.event_id.unwrap()).await.unwrap();
    let verdict = why.verdicts.iter().find(|verdict| verdict.agent == "later").unwrap();
    assert!(verdict.matched && verdict.reason.starts_with("the replay names it"), "{}", verdict.reason);
    let nobody = ReplayWish { mode: ReplayMode::Agent, agents: vec!["nobody".to_owned()] };
    let refused = gateway.client.replay_event(&receipt.delivery_id, &nobody).await.unwrap_err().to_string();
    assert!(refused.contains("there is no agent `nobody`"), "{refused}");
}

#[tokio::test]
async fn a_replay_by_a_condition_goes_on_through_a_kill_and_starts_nothing_twice() {
    let project = project();
    let gateway = project.serve();
    for n in 0..40 {
        gateway.ring(issue(if n % 2 == 0 { "even" } else { "odd" })).await;
    }
    wait_until("all ran", async || {
        let query = RunQuery { state: Some("succeeded".to_owned()), limit: Some(500), ..RunQuery::default() };
        (gateway.client.runs(&query).await.unwrap().runs.len() == 40).then_some(())
    })
    .await;
    let mut wish = of_source(ReplayMode::Now);
    wish.filter.condition = Some("event.body.issue.title == 'even'".to_owned());
    wish.rate = Some("50/1s".to_owned());
    let begun = gateway.client.start_replay(&wish).await.unwrap();
    wait_until("some are replayed", async || (runs_of(&gateway, "triage").await > 44).then_some(())).await;
    gateway.kill();
    let gateway = project.serve();
    let done = ended(&gateway.client, &begun.id).await;
    assert_eq!((done.state.as_str(), done.failed), ("done", 0));
    assert_eq!(runs_of(&gateway, "triage").await, 60);
    let listed = project.doorbell(&["replay", "ls"]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains(&begun.id));
}

#[tokio::test]
async fn a_replay_is_ended_by_hand_and_what_means_nothing_is_refused() {
    let project = project();
    let gateway = project.serve();
    for _ in 0..3 {
        gateway.ring(sample("issues.opened")).await;
    }
    let slow = NewReplay { rate: Some("1/1h".to_owned()), ..of_source(ReplayMode::Now) };
    let begun = gateway.client.start_replay(&slow).await.unwrap();
    wait_until("the first is replayed", async || (runs_of(&gateway, "triage").await == 4).then_some(())).await;
    let ended_by_hand = project.doorbell(&["replay", "cancel", &begun.id]).output().unwrap();
    assert!(ended_by_hand.status.success());
    assert_eq!(ended(&gateway.client, &begun.id).await.state, "cancelled");
    assert_eq!(runs_of(&gateway, "triage").await, 4);
    let over = gateway.client.cancel_replay(&begun.id).await.unwrap_err().to_string();
    assert!(over.contains("it is cancelled"), "{over}");
    for (wish, message) in [
        (NewReplay::default(), "say which events"),
        (NewReplay { rate: Some("often".to_owned()), ..of_source(ReplayMode::Now) }, "is no rate"),
        (of_source(ReplayMode::Agent), "needs `agents`"),
    ] {
        let refused = gateway.client.start_replay(&wish).await.unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
    let mut wish = of_source(ReplayMode::Now);
    wish.filter.condition = Some("event.body.issue.".to_owned());
    assert!(gateway.client.start_replay(&wish).await.unwrap_err().to_string().contains("`where`"));
    let followed = project.doorbell(&["replay", "--source", "acme", "--mode", "missing"]).output().unwrap();
    assert!(followed.status.success(), "{followed:?}");
}

#[tokio::test]
async fn what_is_forgotten_is_forgotten_of_its_replays_too() {
    let project = project();
    let gateway = project.serve();
    let receipt = gateway.ring(issue("a secret of somebody")).await;
    gateway.finished(&receipt.runs[0]).await;
    let replayed = gateway.client.replay_event(&receipt.delivery_id, &ReplayWish::default()).await.unwrap();
    gateway.finished(replayed.outcomes[0].run_id.as_ref().unwrap()).await;
    gateway.client.forget_event(&receipt.delivery_id, false).await.unwrap();
    let again = gateway.client.event(&replayed.event_id.unwrap()).await.unwrap();
    assert!(again.event.forgotten_at.is_some());
    let gone = gateway.client.replay_event(&receipt.delivery_id, &ReplayWish::default()).await.unwrap_err();
    assert_eq!(gone.status(), Some(410));
    let query = EventQuery { limit: Some(10), ..EventQuery::default() };
    assert_eq!(gateway.client.events(&query).await.unwrap().events.len(), 2);
}
