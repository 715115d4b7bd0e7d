//! Agents: how they are started, limited, ended and believed.

use doorbell_client::{Answer, RunQuery};
use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{ANY, ONE_SOURCE, Project, processes_of, sample, wait_for, wait_until};

#[tokio::test]
async fn an_agent_gets_its_event_and_answers_with_a_result() {
    let script = "grep -c '\"event_type\":\"github.issues.opened\"' \"$DOORBELL_EVENT_FILE\"; \
                  printf '{\"run\":\"%s\",\"attempt\":%s,\"agent\":\"%s\"}' $DOORBELL_RUN_ID $DOORBELL_ATTEMPT $DOORBELL_AGENT > $DOORBELL_OUTPUT_FILE";
    let project = Project::with_triage("", script);
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await;
    assert_eq!(done.run.result, Some(json!({ "run": run, "attempt": 1, "agent": "triage" })));
    assert_eq!(done.attempts[0].exit_code, Some(0));
}

#[tokio::test]
async fn the_log_of_a_run_that_prints_its_secrets_shows_them_redacted() {
    let project = Project::new(ONE_SOURCE);
    project.credential("deploy_token", "acme", "very-secret-value");
    project.secrets.expect("deploy_token", "the agent writes it into a file of its own folder");
    project.agent("triage", ANY, "echo token=$DOORBELL_TOKEN; echo cred=$DEPLOY_TOKEN 1>&2; echo \"\\\"$DEPLOY_TOKEN\\\"\" > $DOORBELL_OUTPUT_FILE");
    let config = project.read("agents/triage/config.toml");
    project.write("agents/triage/config.toml", &format!("{config}credentials = [\"deploy_token:acme\"]\n"));
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await;
    assert_eq!(gateway.stdout(&run).await, "token=[redacted]");
    assert_eq!(gateway.lines(&run, "stderr").await, "cred=[redacted]");
    assert_eq!(done.run.result, Some(json!("[redacted]")));
}

#[tokio::test]
async fn an_agent_that_fails_is_a_dead_letter_with_its_exit_code() {
    let project = Project::with_triage("", "echo broken; exit 3");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.run.dead_letter), ("failed", true));
    assert_eq!(done.attempts[0].exit_code, Some(3));
    assert!(done.run.reason.unwrap().contains('3'));
    let dead = gateway.client.runs(&RunQuery { dead_letter: Some(true), ..RunQuery::default() }).await.unwrap().runs;
    assert_eq!(dead.len(), 1);
}

#[tokio::test]
async fn a_run_that_the_machine_cannot_start_uses_up_no_try_and_starts_once_it_can() {
    let project = Project::with_triage("scale = 1", "echo here");
    let gateway = project.serve();
    let runs = project.path(".doorbell/runs");
    std::fs::write(&runs, "no room for folders").unwrap();
    for _ in 0..3 {
        gateway.ring(sample("issues.opened")).await;
    }
    // Now and then one of them is tried: at the end of each pause.
    wait_until("them to say why they wait", async || {
        let reasons: Vec<String> = gateway.runs().await.into_iter().filter_map(|run| run.reason).collect();
        let says =
            |what: &str| reasons.iter().any(|reason| reason.contains(what) && reason.contains("the run's folder"));
        (says("no try is used up") && says("nothing of it is started until")).then_some(())
    })
    .await;
    let waits = gateway.client.agents().await.unwrap().agents[0].breaker.clone();
    assert!(waits.as_deref().is_some_and(|why| why.starts_with("this machine cannot start it")), "{waits:?}");
    project.log_with("agent.cannot_start");
    std::fs::remove_file(&runs).unwrap();
    for run in gateway.runs().await {
        let done = gateway.finished(&run.id).await;
        assert_eq!((done.run.state.as_str(), gateway.stdout(&run.id).await.as_str()), ("succeeded", "here"));
        assert!(done.attempts.iter().rev().skip(1).all(|one| one.ended.as_deref() == Some("not_started")), "{done:?}");
    }
    assert_eq!(gateway.client.agents().await.unwrap().agents[0].breaker, None);
}

#[tokio::test]
async fn a_failed_try_is_followed_by_the_next_one() {
    let config = "[retries]\nattempts = 3\nbackoff = { initial = \"10ms\", jitter = false }";
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", &format!("{ANY}\n{config}"), "echo try $DOORBELL_ATTEMPT; test $DOORBELL_ATTEMPT = 3");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 3));
    assert_eq!(gateway.stdout(&run).await, "try 1\ntry 2\ntry 3");
}

#[tokio::test]
async fn never_more_run_at_once_than_the_scale_and_all_run_in_the_end() {
    let script = "mkdir -p $HOME/live; : > $HOME/live/$DOORBELL_RUN_ID; ls $HOME/live | wc -l; \
                  while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done; rm $HOME/live/$DOORBELL_RUN_ID";
    let project = Project::with_triage("scale = 2", script);
    project.write("home/hold", "");
    let gateway = project.serve();
    for _ in 0..6 {
        gateway.ring(sample("issues.opened")).await;
    }
    wait_until("two runs to run", async || {
        let stats = gateway.client.stats().await.unwrap();
        (stats.agents[0].running == 2 && stats.agents[0].queued == 4).then_some(())
    })
    .await;
    std::fs::remove_file(project.path("home/hold")).unwrap();
    for run in gateway.runs().await {
        gateway.finished(&run.id).await;
        let live: u32 = gateway.stdout(&run.id).await.trim().parse().unwrap();
        assert!(live <= 2, "{live} at once");
    }
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_visibly() {
    let project = Project::with_triage("work_queue_size = 2", "sleep 1000");
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&first, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(gateway.ring(sample("issues.opened")).await);
    }
    let dropped = gateway.client.run(&waiting[0].runs[0]).await.unwrap().run;
    assert_eq!(dropped.state, "dropped");
    assert!(dropped.reason.unwrap().contains(&waiting[2].delivery_id));
    let outcome = gateway.client.event(&waiting[0].delivery_id).await.unwrap().event.outcomes.remove(0);
    assert_eq!(outcome.outcome, "dropped");
    assert_eq!(gateway.client.run(&waiting[1].runs[0]).await.unwrap().run.state, "queued");
}

#[tokio::test]
async fn a_full_queue_that_rejects_gives_429_and_the_sender_may_come_again() {
    let project = Project::with_triage(
        "work_queue_size = 1\nwhen_full = \"reject\"",
        "while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done",
    );
    project.write("home/hold", "");
    let gateway = project.serve();
    let first = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&first, "running").await;
    gateway.ring(sample("issues.opened")).await;
    let refused = sample("issues.opened");
    let Answer::Problem(problem) = gateway.send("/webhooks/github", refused.clone()).await else { panic!("taken") };
    assert_eq!((problem.status, problem.code.as_str()), (429, "queue_full"));
    std::fs::remove_file(project.path("home/hold")).unwrap();
    wait_until("the queue to be empty", async || {
        gateway.runs().await.iter().all(|run| run.finished_at.is_some()).then_some(())
    })
    .await;
    assert!(!gateway.ring(refused).await.duplicate, "the refused delivery claimed nothing");
}

#[tokio::test]
async fn a_disabled_agent_is_skipped_and_says_why() {
    let project = Project::with_triage("scale = 0", "true");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    assert!(receipt.runs.is_empty());
    let outcome = gateway.client.event(&receipt.delivery_id).await.unwrap().event.outcomes.remove(0);
    assert_eq!(outcome.outcome, "skipped");
    assert!(outcome.reason.unwrap().contains("scale = 0"));
}

#[tokio::test]
async fn a_timeout_leaves_nothing_behind() {
    let project = Project::with_triage(
        "timeout = \"300ms\"",
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000' & (sleep 1000 &); sleep 1000",
    );
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await;
    assert_eq!((done.run.state.as_str(), done.attempts[0].ended.as_deref()), ("failed", Some("timed_out")));
    assert_eq!(processes_of(&run), Vec::<i32>::new());
}

#[tokio::test]
async fn a_cancelled_run_ends_and_leaves_nothing_behind() {
    let project = Project::with_triage("", "sleep 1000 & sleep 1000");
    let gateway = project.serve();
    let running = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let queued = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    wait_for("its processes", || (processes_of(&running).len() >= 3).then_some(()));
    assert_eq!(gateway.client.cancel_run(&queued).await.unwrap().state, "cancelled");
    gateway.client.cancel_run(&running).await.unwrap();
    let done = gateway.finished(&running).await;
    assert_eq!(done.run.state, "cancelled");
    assert!(done.run.reason.unwrap().contains("local"), "by whom");
    assert_eq!(processes_of(&running), Vec::<i32>::new());
}

#[tokio::test]
async fn a_cancel_that_comes_while_a_run_is_being_started_is_heeded() {
    let project = Project::with_triage("scale = 50", "sleep 1000");
    let gateway = project.serve();
    let ring_and_cancel = (0..50).map(async |_| {
        let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
        gateway.client.cancel_run(&run).await.unwrap();
        assert_eq!(gateway.finished(&run).await.run.state, "cancelled");
    });
    futures_util::future::join_all(ring_and_cancel).await;
}

#[tokio::test]
async fn an_agent_that_ends_well_leaves_nothing_behind_either() {
    let project = Project::with_triage("", "setsid sleep 1000 & sleep 1000 & exit 0");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    assert_eq!(gateway.finished(&run).await.run.state, "succeeded");
    assert_eq!(processes_of(&run), Vec::<i32>::new());
}

#[tokio::test]
async fn sigterm_lets_a_running_agent_end() {
    let project = Project::with_triage("", "while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done; echo done");
    project.write("home/hold", "");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&run, "running").await;
    gateway.signal(Signal::SIGTERM);
    let refused = wait_until("the gateway to take no more", async || {
        match gateway.send("/webhooks/github", sample("issues.opened")).await {
            Answer::Problem(problem) => Some(problem),
            _ => None,
        }
    });
    assert_eq!(refused.await.code, "closing");
    let ready = reqwest::get(format!("{}/readyz", gateway.url)).await.unwrap();
    assert_eq!(ready.status(), 503, "nobody sends deliveries here any more");
    assert_eq!(gateway.client.run(&run).await.unwrap().run.state, "running", "the API is there for what still runs");
    std::fs::remove_file(project.path("home/hold")).unwrap();
    assert_eq!(gateway.ended(), Some(0));
    let gateway = project.serve();
    let done = gateway.client.run(&run).await.unwrap();
    assert_eq!((done.run.state.as_str(), done.attempts.len()), ("succeeded", 1));
}

#[tokio::test]
async fn sigterm_hands_back_what_does_not_end_in_time() {
    let project =
        Project::new("drain_timeout = \"100ms\"\n[webhooks.acme]\ntype = \"github\"\ncredential = \"acme\"\n");
    project.agent("triage", ANY, "test $DOORBELL_ATTEMPT = 2 || sleep 1000");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.in_state(&run, "running").await;
    assert_eq!(gateway.terminate(), Some(0));
    assert_eq!(processes_of(&run), Vec::<i32>::new());
    let gateway = project.serve();
    let done = gateway.finished(&run).await;
    let ended: Vec<_> = done.attempts.iter().map(|attempt| attempt.ended.clone().unwrap()).collect();
    assert_eq!(ended, ["handed_back", "succeeded"]);
}

#[tokio::test]
async fn a_run_waits_held_while_its_agent_is_gone() {
    let project = Project::with_triage("", "while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done");
    project.agent("other", ANY, "true");
    project.write("home/hold", "");
    let gateway = project.serve();
    let mut waiting = String::new();
    for _ in 0..2 {
        let receipt = gateway.ring(sample("issues.opened")).await;
        let runs = gateway.client.event(&receipt.delivery_id).await.unwrap().event.outcomes;
        waiting = runs.into_iter().find(|outcome| outcome.agent == "triage").unwrap().run_id.unwrap();
    }
    gateway.kill();
    std::fs::rename(project.path("agents/triage"), project.path("gone")).unwrap();
    let gateway = project.serve();
    gateway.in_state(&waiting, "held").await;
    gateway.kill();
    std::fs::remove_file(project.path("home/hold")).unwrap();
    std::fs::rename(project.path("gone"), project.path("agents/triage")).unwrap();
    let gateway = project.serve();
    assert_eq!(gateway.finished(&waiting).await.run.state, "succeeded");
}

#[tokio::test]
async fn a_slow_agent_holds_up_no_other() {
    let project = Project::with_triage("", "sleep 1000");
    project.agent("quick", ANY, "true");
    let gateway = project.serve();
    for _ in 0..5 {
        let receipt = gateway.ring(sample("issues.opened")).await;
        let outcomes = gateway.client.event(&receipt.delivery_id).await.unwrap().event.outcomes;
        let quick = outcomes.into_iter().find(|outcome| outcome.agent == "quick").unwrap().run_id.unwrap();
        gateway.finished(&quick).await;
    }
}

#[tokio::test]
async fn a_run_token_sees_its_own_agent_only_and_dies_with_the_attempt() {
    let script = "printf '\"%s\"' $(echo $DOORBELL_TOKEN | rev) > $DOORBELL_OUTPUT_FILE; \
                  while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done";
    let project = Project::with_triage("", script);
    project.agent("other", ANY, "true");
    project.write("home/hold", "");
    let gateway = project.serve();
    let receipt = gateway.ring(sample("issues.opened")).await;
    let outcomes = gateway.client.event(&receipt.delivery_id).await.unwrap().event.outcomes;
    let run_of = |agent: &str| outcomes.iter().find(|outcome| outcome.agent == agent).unwrap().run_id.clone().unwrap();
    let (own, foreign) = (run_of("triage"), run_of("other"));
    let output = project.path(&format!(".doorbell/runs/{own}"));
    // The token is written backwards, so that nothing redacts it.
    let token = wait_for("the token", || {
        let files = std::fs::read_dir(&output).ok()?.flatten();
        let found = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let token =
            found.filter_map(|text| Some(text.strip_prefix('"')?.strip_suffix('"')?.chars().rev().collect::<String>()));
        token.into_iter().find(|token| token.starts_with("dbr_"))
    });
    let client = doorbell_client::Client::new(&gateway.url, Some(&token)).unwrap();
    let mut stream = Box::pin(client.event_stream(None).await.unwrap());
    assert_eq!(client.run(&own).await.unwrap().run.agent, "triage");
    assert_eq!(client.event(&receipt.delivery_id).await.unwrap().event.outcomes.len(), 1);
    let status = |error: doorbell_client::Error| match error {
        doorbell_client::Error::Api(problem) => problem.status,
        other => panic!("{other}"),
    };
    assert_eq!(status(client.run(&foreign).await.unwrap_err()), 404);
    assert_eq!(status(client.cancel_run(&own).await.unwrap_err()), 403);
    let wish = doorbell_client::api::NewKey {
        name: "x".to_owned(),
        role: "owner".to_owned(),
        agent: None,
        expires: None,
        account: None,
    };
    assert_eq!(status(client.create_key(&wish).await.unwrap_err()), 403);
    std::fs::remove_file(project.path("home/hold")).unwrap();
    gateway.finished(&own).await;
    assert_eq!(status(client.run(&own).await.unwrap_err()), 401);
    // What it has open ends with it, too.
    let later = gateway.ring(sample("issues.opened")).await;
    while let Some(Ok(told)) = stream.next().await {
        assert!(!format!("{told:?}").contains(&later.delivery_id), "{told:?}");
    }
}

#[tokio::test]
async fn a_run_whose_result_was_ignored_says_so() {
    let project = Project::with_triage("", "echo nonsense > $DOORBELL_OUTPUT_FILE");
    let gateway = project.serve();
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    let done = gateway.finished(&run).await.run;
    assert_eq!((done.state.as_str(), &done.result), ("succeeded", &None));
    assert!(done.reason.unwrap().contains("DOORBELL_OUTPUT_FILE is not JSON"));
}
