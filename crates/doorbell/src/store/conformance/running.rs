//! Runs: claimed once, moved on only under their lease, ended for good.

use std::time::Duration;

use doorbell_core::flow::WhenBusy;

use super::flow::{busy, keyed, take};
use super::*;
use crate::store::{Attempt, Cancel, Holder, Process, WorkerLease};

every_store_keeps! {
    a_run_that_was_to_end_and_is_lost_for_the_last_time_is_no_dead_letter,
    a_claim_takes_the_oldest_and_opens_an_attempt,
    a_claim_takes_no_more_than_it_has_leases_for,
    a_claim_is_for_one_agent,
    claims_at_once_never_share_a_run,
    a_finished_run_has_its_end_and_its_result,
    a_run_that_is_tried_again_keeps_its_place,
    a_stale_lease_moves_nothing,
    who_may_be_taken_for_dead_ends_nothing_and_extends_nothing_once_its_lease_has_ended,
    a_lease_holds_until_it_is_extended_to,
    a_lease_is_never_shortened,
    a_run_that_is_handed_over_is_still_running_for_whoever_has_its_lease,
    no_more_are_claimed_than_may_be_running,
    a_run_that_a_worker_has_says_which_and_how_long_its_lease_is,
    a_marked_process_is_known_until_the_attempt_ends,
    a_run_that_does_not_run_is_cancelled_at_once,
    the_end_of_a_run_that_runs_is_asked_for,
    a_run_whose_end_was_asked_for_does_not_go_on,
    a_run_that_ended_or_never_was_is_not_cancelled,
    running_runs_are_found_whatever_their_agent,
}

async fn a_claim_takes_the_oldest_and_opens_an_attempt(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    accept(&*store, starting("triage", 2)).await;
    let claimed = claim(&*store, "triage", &[lease(7)]).await.remove(0);
    assert_eq!((claimed.run.id, claimed.lease, claimed.run.state), (run_id(1), lease(7), State::Running));
    assert_eq!((claimed.run.attempt, claimed.run.started_at), (1, Some(at(100))));
    assert_eq!((claimed.event.id, claimed.body.bytes), (event_id(1), event(1).body));
    let (stored, attempts) = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!(stored, claimed.run);
    let open = Attempt {
        number: 1,
        started_at: at(100),
        ended_at: None,
        ended: None,
        reason: None,
        exit_code: None,
        worker: None,
        resumed: None,
    };
    assert_eq!(attempts, [open]);
}

async fn a_claim_takes_no_more_than_it_has_leases_for(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, starting("triage", n)).await;
    }
    assert!(claim(&*store, "triage", &[]).await.is_empty());
    assert_eq!(claim(&*store, "triage", &[lease(1), lease(2)]).await.len(), 2);
    assert_eq!(claim(&*store, "triage", &[lease(3), lease(4)]).await.len(), 1);
    assert!(claim(&*store, "triage", &[lease(5)]).await.is_empty());
}

async fn a_lease_is_never_shortened(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(store.extend(vec![(run_id(1), lease(1))], at(200), None).await.unwrap().is_empty());
    assert_eq!(store.running_run(run_id(1)).await.unwrap().unwrap().until, at(600));
}

async fn a_run_that_is_handed_over_is_still_running_for_whoever_has_its_lease(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    assert!(store.running_run(run_id(1)).await.unwrap().is_none(), "it is queued");
    claim(&*store, "triage", &[lease(1)]).await;
    assert_eq!(store.running_run(run_id(1)).await.unwrap().unwrap().holder, Holder::Gateway);
    assert!(!store.hand_over(run_id(1), lease(2), at(900)).await.unwrap());
    assert!(store.hand_over(run_id(1), lease(1), at(900)).await.unwrap());
    let running = store.running_run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((running.holder, running.lease, running.until), (Holder::Callback, lease(1), at(900)));
    assert!(store.finish(finish(run_id(1), lease(1), State::Queued)).await.unwrap());
    claim(&*store, "triage", &[lease(3)]).await;
    assert_eq!(store.running_run(run_id(1)).await.unwrap().unwrap().holder, Holder::Gateway);
    assert!(store.running_run(run_id(2)).await.unwrap().is_none(), "there is none");
}

async fn no_more_are_claimed_than_may_be_running(store: Arc<dyn Store>) {
    for n in 1..=4 {
        accept(&*store, starting("triage", n)).await;
    }
    let claim = |n| {
        let (agent, leases) = ("triage".to_owned(), [n, n + 1, n + 2].map(lease).to_vec());
        store.claim(Claim { agent, leases, until: at(600), now: at(100), most_running: Some(2), worker: None })
    };
    assert_eq!(claim(1).await.unwrap().claimed.len(), 2);
    assert!(claim(10).await.unwrap().claimed.is_empty());
    assert!(store.finish(finish(run_id(1), lease(1), State::Succeeded)).await.unwrap());
    assert_eq!(claim(20).await.unwrap().claimed.remove(0).run.id, run_id(3));
}

async fn a_run_that_a_worker_has_says_which_and_how_long_its_lease_is(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    let lease_of = Duration::from_secs(7);
    let worker = Some(WorkerLease { worker: "host-1".to_owned(), lease: lease_of });
    let (agent, leases) = ("triage".to_owned(), vec![lease(1)]);
    let claim_it = Claim { agent, leases, until: at(107), now: at(100), most_running: None, worker };
    store.claim(claim_it).await.unwrap();
    let running = store.running().await.unwrap().remove(0);
    assert_eq!((running.holder, running.until), (Holder::Worker(lease_of), at(107)));
    assert_eq!(running.worker.as_deref(), Some("host-1"));
    assert!(store.finish(finish(run_id(1), lease(1), State::Queued)).await.unwrap());
    claim(&*store, "triage", &[lease(2)]).await;
    let running = store.running_run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((running.holder, running.worker), (Holder::Gateway, None), "the next try is not the worker's");
    let attempts = store.run(run_id(1)).await.unwrap().unwrap().1;
    assert_eq!(attempts.iter().map(|attempt| attempt.worker.as_deref()).collect::<Vec<_>>(), [Some("host-1"), None]);
}

async fn a_claim_is_for_one_agent(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    assert!(claim(&*store, "other", &[lease(1)]).await.is_empty());
}

async fn claims_at_once_never_share_a_run(store: Arc<dyn Store>) {
    for n in 1..=40 {
        accept(&*store, starting("triage", n)).await;
    }
    let claims = (0..20).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { claim(&*store, "triage", &[1, 2, 3].map(|k| lease(3 * n + k))).await })
    });
    let claimed = futures_util::future::join_all(claims).await;
    let mut runs: Vec<RunId> = claimed.into_iter().flat_map(Result::unwrap).map(|claimed| claimed.run.id).collect();
    runs.sort();
    assert_eq!(runs, (1..=40).map(run_id).collect::<Vec<_>>());
}

async fn a_finished_run_has_its_end_and_its_result(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let end = Finish { result: Some(r#"{"ok":false}"#.to_owned()), ..finish(run_id(1), lease(1), State::Failed) };
    assert!(store.finish(end).await.unwrap());
    let (run, attempts) = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((run.state, run.dead_letter, run.finished_at), (State::Failed, true, Some(at(200))));
    assert_eq!(run.progress, Progress { failures: 1, losses: 0 });
    assert_eq!((run.reason.as_deref(), run.result.as_deref()), (Some("exit 1"), Some(r#"{"ok":false}"#)));
    let attempt = &attempts[0];
    assert_eq!((attempt.ended_at, attempt.ended.as_deref()), (Some(at(200)), Some("failed")));
    assert_eq!((attempt.reason.as_deref(), attempt.exit_code), (Some("exit 1"), Some(1)));
    assert!(store.running().await.unwrap().is_empty());
}

async fn a_run_that_is_tried_again_keeps_its_place(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    accept(&*store, starting("triage", 2)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(store.finish(finish(run_id(1), lease(1), State::Queued)).await.unwrap());
    let again = claim(&*store, "triage", &[lease(2)]).await.remove(0).run;
    assert_eq!((again.id, again.attempt, again.finished_at, again.reason), (run_id(1), 2, None, None));
    assert_eq!(store.run(run_id(1)).await.unwrap().unwrap().1.len(), 2);
}

async fn a_stale_lease_moves_nothing(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let process = Process { pid: 7, started: 8, boot: "b".to_owned() };
    assert!(!store.finish(finish(run_id(1), lease(9), State::Succeeded)).await.unwrap());
    assert!(!store.mark_process(run_id(1), lease(9), process.clone()).await.unwrap());
    let both = vec![(run_id(1), lease(9)), (run_id(5), lease(1))];
    assert_eq!(store.extend(both, at(900), None).await.unwrap(), [run_id(1), run_id(5)]);
    let running = store.running().await.unwrap().remove(0);
    assert_eq!((running.lease, running.until, running.process), (lease(1), at(600), None));
    // The lease ends with the attempt.
    assert!(store.finish(finish(run_id(1), lease(1), State::Succeeded)).await.unwrap());
    assert!(!store.finish(finish(run_id(1), lease(1), State::Failed)).await.unwrap());
    assert!(!store.mark_process(run_id(1), lease(1), process).await.unwrap());
    assert_eq!(store.extend(vec![(run_id(1), lease(1))], at(900), None).await.unwrap(), [run_id(1)]);
    assert_eq!(state(&*store, 1).await, State::Succeeded);
}

async fn who_may_be_taken_for_dead_ends_nothing_and_extends_nothing_once_its_lease_has_ended(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let until = store.running().await.unwrap()[0].until;
    let late = until.after(Duration::from_millis(1));
    let ours = || vec![(run_id(1), lease(1))];
    assert!(store.extend(ours(), until, Some(until)).await.unwrap().is_empty(), "it holds until then");
    assert_eq!(store.extend(ours(), at(9000), Some(late)).await.unwrap(), [run_id(1)]);
    let end = |at, in_time| Finish { at, in_time, ..finish(run_id(1), lease(1), State::Succeeded) };
    assert!(!store.finish(end(late, true)).await.unwrap());
    assert_eq!(state(&*store, 1).await, State::Running);
    assert!(store.finish(end(late, false)).await.unwrap(), "whoever moves it on is not late");
}

async fn a_lease_holds_until_it_is_extended_to(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(store.extend(vec![(run_id(1), lease(1))], at(900), None).await.unwrap().is_empty());
    assert_eq!(store.running().await.unwrap()[0].until, at(900));
}

async fn a_marked_process_is_known_until_the_attempt_ends(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let process = Process { pid: 4711, started: 123_456, boot: "b00t".to_owned() };
    assert!(store.mark_process(run_id(1), lease(1), process.clone()).await.unwrap());
    assert_eq!(store.running().await.unwrap()[0].process, Some(process));
    assert!(store.finish(finish(run_id(1), lease(1), State::Queued)).await.unwrap());
    claim(&*store, "triage", &[lease(2)]).await;
    assert_eq!(store.running().await.unwrap()[0].process, None);
}

async fn a_run_that_does_not_run_is_cancelled_at_once(store: Arc<dyn Store>) {
    accept(&*store, starting("queued", 1)).await;
    accept(&*store, starting("held", 2)).await;
    accept(&*store, starting("waiting", 3)).await;
    store.settle_agents(active(&["queued", "waiting"]), at(4)).await.unwrap();
    claim(&*store, "waiting", &[lease(1)]).await;
    assert!(store.finish(finish(run_id(3), lease(1), State::Waiting)).await.unwrap());
    for n in 1..=3 {
        assert_eq!(store.cancel(run_id(n), "ann".to_owned(), at(9)).await.unwrap(), Cancel::Cancelled);
        let run = run(&*store, n).await;
        assert_eq!((run.state, run.finished_at, run.due), (State::Cancelled, Some(at(9)), None));
        assert_eq!(run.reason.as_deref(), Some("cancelled by ann"));
    }
    assert!(store.release_due(at(1000)).await.unwrap().agents.is_empty());
    assert!(claim(&*store, "queued", &[lease(1)]).await.is_empty());
}

async fn the_end_of_a_run_that_runs_is_asked_for(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert_eq!(store.cancel(run_id(1), "ann".to_owned(), at(9)).await.unwrap(), Cancel::Requested);
    assert_eq!(store.cancel(run_id(1), "bob".to_owned(), at(9)).await.unwrap(), Cancel::Requested);
    let running = store.running().await.unwrap().remove(0).run;
    assert_eq!((running.state, running.cancel_requested.as_deref()), (State::Running, Some("ann")));
}

async fn a_run_whose_end_was_asked_for_does_not_go_on(store: Arc<dyn Store>) {
    for (n, next) in [(1, State::Waiting), (2, State::Queued), (3, State::Succeeded)] {
        accept(&*store, starting("triage", n)).await;
        claim(&*store, "triage", &[lease(1)]).await;
        store.cancel(run_id(n), "ann".to_owned(), at(9)).await.unwrap();
        assert!(store.finish(finish(run_id(n), lease(1), next)).await.unwrap());
        let run = run(&*store, n).await;
        let expected = if next.is_final() { next } else { State::Cancelled };
        assert_eq!((run.state, run.due, run.finished_at), (expected, None, Some(at(200))));
    }
}

async fn a_run_that_ended_or_never_was_is_not_cancelled(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(store.finish(finish(run_id(1), lease(1), State::Succeeded)).await.unwrap());
    let cancelled = store.cancel(run_id(1), "ann".to_owned(), at(900)).await.unwrap();
    assert_eq!(cancelled, Cancel::AlreadyFinal(State::Succeeded));
    assert_eq!(run(&*store, 1).await.finished_at, Some(at(200)));
    assert_eq!(store.cancel(run_id(2), "ann".to_owned(), at(900)).await.unwrap(), Cancel::Unknown);
}

async fn running_runs_are_found_whatever_their_agent(store: Arc<dyn Store>) {
    for (n, agent) in (1..).zip(["b", "a", "c"]) {
        accept(&*store, starting(agent, n)).await;
        claim(&*store, agent, &[lease(1)]).await;
        accept(&*store, starting(agent, n + 10)).await;
    }
    let mut running: Vec<RunId> = store.running().await.unwrap().into_iter().map(|running| running.run.id).collect();
    running.sort();
    assert_eq!(running, [1, 2, 3].map(run_id));
}

async fn a_run_that_was_to_end_and_is_lost_for_the_last_time_is_no_dead_letter(store: Arc<dyn Store>) {
    let flow = busy(WhenBusy::Replace);
    for (n, key) in [(1, "a"), (2, "b")] {
        accept(&*store, keyed(key, n, flow)).await;
    }
    assert_eq!(take(&*store, 2).await, [1, 2]);
    store.cancel(run_id(1), "ann".to_owned(), at(150)).await.unwrap();
    accept(&*store, keyed("b", 3, flow)).await;
    for (n, by) in [(1, 1), (2, 2)] {
        let lost = Finish { ended: "lost".to_owned(), ..finish(run_id(n), lease(by), State::Failed) };
        assert!(store.finish(lost).await.unwrap());
    }
    let (cancelled, replaced) = (run(&*store, 1).await, run(&*store, 2).await);
    assert_eq!((cancelled.state, cancelled.reason.as_deref()), (State::Cancelled, Some("cancelled by ann")));
    assert_eq!(replaced.state, State::Superseded);
    assert!(!cancelled.dead_letter && !replaced.dead_letter);
    assert!(store.untold(9).await.unwrap().is_empty());
}
