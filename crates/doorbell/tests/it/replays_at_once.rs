//! Replays that meet each other, a kill, flow control or a slip of the pen.

use doorbell_client::api::{NewReplay, Replay, ReplayFilter, ReplayMode, ReplayWish};
use doorbell_client::{Client, RunQuery};
use futures_util::future::join_all;

use crate::support::{Gateway, ONE_SOURCE, Project, issue, sample, sample_as, wait_until};

const ANY: &str = "when_full = \"grow\"\nscale = 8\n[[webhooks]]\nsource = \"acme\"\n";

async fn ended(client: &Client, id: &str) -> Replay {
    wait_until("the replay is over", async || {
        let replay = client.replay(id).await.unwrap();
        (replay.state != "running").then_some(replay)
    })
    .await
}

async fn runs_of(gateway: &Gateway, agent: &str) -> Vec<doorbell_client::api::Run> {
    let query = RunQuery { agent: Some(agent.to_owned()), limit: Some(500), ..RunQuery::default() };
    gateway.client.runs(&query).await.unwrap().runs
}

fn of_source(mode: ReplayMode) -> NewReplay {
    let filter = ReplayFilter { source: Some("acme".to_owned()), ..ReplayFilter::default() };
    NewReplay { filter, mode, ..NewReplay::default() }
}

async fn add_agent(project: &Project, gateway: &Gateway, name: &str) {
    project.agent(name, ANY, "true");
    wait_until("it is taken over", async || {
        gateway.client.agents().await.unwrap().agents.iter().any(|agent| agent.name == name).then_some(())
    })
    .await;
}

#[tokio::test]
async fn eight_replays_for_agents_without_a_run_start_one_and_a_redelivery_none() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample_as("issues.opened", "missed-1")).await;
    for _ in 0..20 {
        gateway.ring(sample("issues.opened")).await;
    }
    add_agent(&project, &gateway, "later").await;
    let missing = ReplayWish { mode: ReplayMode::Missing, agents: Vec::new() };
    let replays = join_all((0..8).map(|_| gateway.client.replay_event(&receipt.delivery_id, &missing))).await;
    let started: Vec<_> = replays.into_iter().filter_map(|replayed| replayed.unwrap().event_id).collect();
    assert_eq!((started.len(), runs_of(&gateway, "later").await.len()), (1, 1));
    let again = gateway.ring(sample_as("issues.opened", "missed-1")).await;
    assert!(again.duplicate);
    assert_eq!(runs_of(&gateway, "later").await.len(), 1, "the redelivery finds the run of the replay");

    let wish = of_source(ReplayMode::Missing);
    let begun = join_all((0..2).map(|_| gateway.client.start_replay(&wish))).await;
    let mut runs = 0;
    for replay in begun {
        runs += ended(&gateway.client, &replay.unwrap().id).await.started;
    }
    assert_eq!((runs, runs_of(&gateway, "later").await.len()), (20, 21));
}

#[tokio::test]
async fn a_replay_that_is_cancelled_stays_so_after_a_kill() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    for _ in 0..5 {
        gateway.ring(sample("issues.opened")).await;
    }
    let slow = NewReplay { rate: Some("1/1h".to_owned()), ..of_source(ReplayMode::Now) };
    let begun = gateway.client.start_replay(&slow).await.unwrap();
    let told = gateway.client.cancel_replay(&begun.id).await.unwrap();
    gateway.kill();
    assert_eq!(told.state, "cancelled");
    let gateway = project.serve();
    assert_eq!(gateway.client.replay(&begun.id).await.unwrap().state, "cancelled");
}

#[tokio::test]
async fn a_rate_holds_for_events_that_are_gathered_too() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("{ANY}debounce = {{ window = \"1h\" }}\n"), "true");
    let gateway = project.serve();
    for _ in 0..4 {
        gateway.ring(sample("issues.opened")).await;
    }
    let slow = NewReplay { rate: Some("1/1h".to_owned()), ..of_source(ReplayMode::Now) };
    let begun = gateway.client.start_replay(&slow).await.unwrap();
    wait_until("one is replayed", async || {
        (gateway.client.replay(&begun.id).await.unwrap().replayed == 1).then_some(())
    })
    .await;
    assert_eq!(runs_of(&gateway, "triage").await.iter().map(|run| run.absorbed).sum::<u64>(), 4);
    let cancelled = gateway.client.cancel_replay(&begun.id).await.unwrap();
    assert_eq!((cancelled.replayed, cancelled.started), (1, 0), "it went with the run that gathers");
}

#[tokio::test]
async fn a_named_agent_keeps_the_key_and_the_flow_control_of_the_trigger_that_matches() {
    let project = Project::new(ONE_SOURCE);
    let flow = "key = 'event.context.repo'\nwhen_busy = \"queue\"\n";
    project.agent("triage", &format!("{ANY}events = [\"issues\"]\n{flow}"), "while ! test -e go; do sleep 0.05; done");
    let config = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &format!("{config}cwd = \".\"\n"));
    let gateway = project.serve();
    let receipt = gateway.ring(issue("one")).await;
    gateway.in_state(&receipt.runs[0], "running").await;
    let named = ReplayWish { mode: ReplayMode::Agent, agents: vec!["triage".to_owned()] };
    let replayed = gateway.client.replay_event(&receipt.delivery_id, &named).await.unwrap();
    let push = gateway.ring(sample("push")).await;
    let unkeyed = gateway.client.replay_event(&push.delivery_id, &named).await.unwrap();
    let [run, unkeyed] = [replayed, unkeyed].map(|replayed| replayed.outcomes[0].run_id.clone().unwrap());
    gateway.in_state(&unkeyed, "running").await;
    let run = gateway.client.run(&run).await.unwrap().run;
    let first = gateway.client.run(&receipt.runs[0]).await.unwrap().run;
    assert_eq!((run.state.as_str(), &run.key), ("queued", &first.key));
    assert!(run.key.is_some());
    project.write("go", "").write("agents/triage/go", "");
    gateway.finished(&run.id).await;
}

#[tokio::test]
async fn a_filter_that_can_find_nothing_is_refused_and_a_preview_says_what_fails() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    gateway.ring(issue("one")).await;
    gateway.ring(sample("push")).await;
    for (filter, message) in [
        (ReplayFilter { outcome: Some("bogus".to_owned()), ..ReplayFilter::default() }, "`outcome` must be"),
        (ReplayFilter { source: Some("acne".to_owned()), ..ReplayFilter::default() }, "there is no source `acne`"),
    ] {
        let wish = NewReplay { filter, ..NewReplay::default() };
        let refused = gateway.client.start_replay(&wish).await.unwrap_err();
        assert_eq!(refused.status(), Some(400));
        assert!(refused.to_string().contains(message), "{refused}");
        assert_eq!(gateway.client.preview_replay(&wish).await.unwrap_err().status(), Some(400));
    }
    let mut wish = of_source(ReplayMode::Now);
    wish.filter.condition = Some("event.body.issue.title == 'one'".to_owned());
    let preview = gateway.client.preview_replay(&wish).await.unwrap();
    assert_eq!((preview.events, preview.failed), (1, 1));
    assert!(preview.failure.unwrap().starts_with("evt_"));
}
