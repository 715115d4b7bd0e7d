//! Redelivery: it never starts an agent twice, and always recovers one that was missed.

use crate::support::{ONE_SOURCE, Project, fresh_id, sample_as, sign};

const ANY: &str = "[[webhooks]]\nsource = \"acme\"";

#[tokio::test]
async fn a_redelivery_gives_the_same_ids_and_starts_nothing() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let id = fresh_id();
    let first = gateway.ring(sample_as("issues.opened", &id)).await;
    for _ in 0..3 {
        let again = gateway.ring(sample_as("issues.opened", &id)).await;
        assert!(again.duplicate);
        assert_eq!((&again.delivery_id, &again.runs), (&first.delivery_id, &first.runs));
    }
    assert_eq!(gateway.runs().await.len(), 1);
    let event = gateway.client.event(&first.delivery_id).await.unwrap().event;
    assert_eq!(event.duplicates, 3);
}

#[tokio::test]
async fn a_redelivery_survives_a_restart() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let id = fresh_id();
    let first = gateway.ring(sample_as("issues.opened", &id)).await;
    gateway.kill();
    let gateway = project.serve();
    let again = gateway.ring(sample_as("issues.opened", &id)).await;
    assert_eq!((again.duplicate, again.delivery_id, again.runs), (true, first.delivery_id, first.runs));
}

#[tokio::test]
async fn a_redelivery_after_a_trigger_was_added_starts_that_agent_only() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let id = fresh_id();
    let first = gateway.ring(sample_as("issues.opened", &id)).await;
    gateway.finished(&first.runs[0]).await;
    gateway.terminate();
    project.agent("late", ANY, "true");
    let gateway = project.serve();
    let again = gateway.ring(sample_as("issues.opened", &id)).await;
    assert!(again.duplicate);
    assert_eq!(again.delivery_id, first.delivery_id);
    let mut agents: Vec<_> = gateway.runs().await.into_iter().map(|run| run.agent).collect();
    agents.sort();
    assert_eq!(agents, ["late", "triage"]);
    // Whatever is configured later, both are explained by the triggers that started them.
    gateway.terminate();
    project.agent("late", "[[webhooks]]\nsource = \"acme\"\nevents = [\"push\"]", "true");
    std::fs::remove_dir_all(project.path("agents/triage")).unwrap();
    let gateway = project.serve();
    let why = gateway.client.explain(&first.delivery_id).await.unwrap();
    let said: Vec<_> = why.verdicts.iter().map(|verdict| (verdict.agent.as_str(), verdict.matched)).collect();
    assert_eq!(said, [("triage", true), ("late", true)], "the triggers that were in force, then the redelivery's");
    assert!(why.verdicts[1].reason.starts_with("when it was delivered again: "), "{:?}", why.verdicts[1]);
    let sets: Vec<_> = why.event.outcomes.iter().map(|outcome| outcome.trigger_set > why.trigger_set).collect();
    assert_eq!(sets, [true, false], "{:?}", why.event.outcomes);
}

#[tokio::test]
async fn many_senders_of_one_delivery_at_once_make_one_event() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let id = fresh_id();
    let receipts = futures_util::future::join_all((0..64).map(|_| gateway.ring(sample_as("issues.opened", &id)))).await;
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.delivery_id == receipts[0].delivery_id));
    assert_eq!(gateway.runs().await.len(), 1);
}

#[tokio::test]
async fn a_refused_delivery_claims_no_id() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let id = fresh_id();
    let mut forged = sample_as("issues.opened", &id);
    forged.body = b"{}".to_vec().into();
    assert!(!matches!(gateway.send("/webhooks/github", forged).await, doorbell_client::Answer::Receipt(_)));
    assert!(!gateway.ring(sample_as("issues.opened", &id)).await.duplicate);
}

#[tokio::test]
async fn the_same_body_under_another_id_is_the_same_event_where_the_source_says_so() {
    let project = Project::new("[webhooks.acme]\ntype = \"github\"\ncredential = \"acme\"\ndedup = \"id_or_body\"\n");
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let body = "{\"action\":\"opened\"}";
    let first = gateway.ring(sign("issues", body, &fresh_id())).await;
    let second = gateway.ring(sign("issues", body, &fresh_id())).await;
    assert!(!first.duplicate && second.duplicate);
    assert!(!gateway.ring(sign("issues", "{\"action\":\"closed\"}", &fresh_id())).await.duplicate);
}
