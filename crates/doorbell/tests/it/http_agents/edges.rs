//! Agents behind a URL where something else happens at the same time: newer work, pauses, a URL that is another's too.

use super::*;

/// Waits until the agent took a run, and tells later.
async fn taken(gateway: &Gateway, run: &str) {
    wait_until("the run to be taken", async || {
        gateway.client.run(run).await.unwrap().run.reason.is_some().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_taken_is_replaced_at_once_and_counts_as_superseded_everywhere() {
    let agent = Agent::start(&["202", "200"]);
    let project = agent.project("");
    let file = project.read("agents/triage/config.toml");
    let flow = "source = \"acme\"\nwhen_busy = \"replace\"\n";
    project.write("agents/triage/config.toml", &file.replace("source = \"acme\"\n", flow));
    let gateway = project.serve();
    let old = ring(&gateway).await;
    taken(&gateway, &old).await;
    let new = ring(&gateway).await;
    assert_eq!(gateway.finished(&new).await.run.state, "succeeded");
    let old = gateway.finished(&old).await.run;
    assert_eq!((old.state.as_str(), old.reason), ("superseded", Some(format!("replaced by {new}"))));
    let stats = gateway.client.stats().await.unwrap().agents.remove(0);
    assert_eq!((stats.superseded, stats.cancelled, stats.succeeded), (1, 0, 1));
    let ended = wait_for("its line", || {
        let log = project.read("gateway.log");
        log.lines().find(|line| line.contains("run.finished") && line.contains(&old.id)).map(str::to_owned)
    });
    assert!(ended.contains("superseded") && ended.contains("replaced by"), "{ended}");
}

#[tokio::test]
async fn a_410_leaves_the_pause_of_a_person_as_it_is() {
    let agent = Agent::start(&["410"]);
    let (open, held) = mpsc::channel::<()>();
    *agent.hold.lock().unwrap() = Some(held);
    let project = agent.project("");
    let gateway = project.serve();
    let run = ring(&gateway).await;
    wait_for("the request", || (agent.asked().len() == 1).then_some(()));
    let why = api::NewPause { why: Some("maintenance".to_owned()) };
    gateway.client.pause(Some("triage"), &why).await.unwrap();
    drop(open);
    gateway.finished(&run).await;
    wait_for("the gateway to see it", || project.read("gateway.log").contains("agent.gone").then_some(()));
    let pause = gateway.client.agents().await.unwrap().agents[0].pause.clone().unwrap();
    assert_eq!(pause.why.as_deref(), Some("maintenance"));
}

#[tokio::test]
async fn who_shares_a_dead_url_is_not_asked_either_and_another_url_is_asked_at_once() {
    let agent = Agent::start(&["200"]);
    let project = agent.project("[retries]\nattempts = 1");
    let good = project.read("agents/triage/config.toml");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dead = good.replace(agent.url.split('/').nth(2).unwrap(), &closed);
    project.write("agents/triage/config.toml", &dead);
    let gateway = project.serve();
    for _ in 0..5 {
        let run = ring(&gateway).await;
        assert_eq!(gateway.finished(&run).await.run.state, "failed");
    }
    let of = async |name: &str| {
        let agents = gateway.client.agents().await.unwrap().agents;
        agents.into_iter().find(|agent| agent.name == name).map(|agent| agent.breaker)
    };
    wait_until("the breaker", async || of("triage").await.flatten()).await;
    project.write("agents/other/config.toml", &dead);
    wait_until("the other agent", async || of("other").await).await;
    let runs = gateway.ring(sample("issues.opened")).await.runs;
    assert_eq!(runs.len(), 2);
    assert!(of("other").await.flatten().is_some_and(|why| why.contains("5 times in a row")));
    for run in &runs {
        let run = gateway.client.run(run).await.unwrap().run;
        assert_eq!((run.state.as_str(), run.attempt), ("queued", 0));
        assert!(run.reason.unwrap().starts_with("waits for its agent: its URL failed 5 times in a row"));
    }
    project.write("agents/other/config.toml", &good);
    wait_for("the other to be asked", || (agent.asked().len() == 1).then_some(()));
    assert!(of("triage").await.flatten().is_some(), "it has the old URL");
}
