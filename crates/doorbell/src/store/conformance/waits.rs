//! Runs that wait, what they go on by, and what their steps came to.

use doorbell_core::flow::WhenBusy;
use doorbell_core::wait::{Resumed, Wait};
use serde_json::json;

use super::flow::{busy, end, keyed, take};
use super::*;
use crate::store::{Cancel, Forgetting, MOST_STEPS, NewStep, PAUSED, Release, Resume, StepKept, Waiting};

every_store_keeps! {
    a_run_that_sleeps_gives_its_lease_back_and_is_queued_when_its_time_comes,
    a_wait_uses_up_no_try_and_no_place,
    a_run_goes_on_once_by_what_comes_first,
    only_what_an_event_or_a_run_ends_is_looked_for,
    a_wait_that_nothing_ends_is_over_in_time,
    a_stale_lease_waits_for_nothing,
    a_run_whose_end_was_asked_for_does_not_wait,
    a_run_that_waits_is_cancelled_at_once,
    a_run_keeps_its_key_while_it_waits,
    a_key_goes_on_when_the_run_that_waits_with_it_ends,
    a_new_event_replaces_a_run_that_waits,
    a_run_that_is_held_while_it_waits_keeps_what_it_waited_for,
    a_run_goes_on_with_the_end_of_another_one_however_it_ended,
    a_run_whose_end_came_before_the_wait_is_not_waited_for,
    what_came_since_the_first_try_began_is_new_to_a_run_and_then_what_came_since_it_went_on,
    a_retry_is_told_what_the_wait_before_it_was_over_by,
    a_lease_is_found_by_whoever_shows_it,
    a_step_is_kept_once_and_only_under_the_lease,
    steps_are_bounded_and_go_with_their_run,
}

/// Run `n`, which has lease `by`, waits until second 300.
async fn wait(store: &dyn Store, n: u32, by: u8, wait: Wait) -> bool {
    let mut end = finish(run_id(n), lease(by), State::Waiting);
    end.ended = "waits".to_owned();
    end.transition.progress = Progress::default();
    end.transition.wait = Some(wait);
    store.finish(end).await.unwrap()
}

fn for_event(event: &str) -> Wait {
    Wait::Event { event: event.to_owned(), source: None, condition: None }
}

fn by_event(n: u32) -> Resumed {
    let event_type = "github.issues.opened".to_owned();
    Resumed::Event { event_id: event_id(n), event_type, timestamp: None, context: None }
}

async fn resume(store: &dyn Store, n: u32, attempt: u32, by: Resumed, heard: Option<i64>) -> bool {
    let resume = Resume { run: run_id(n), attempt, by, heard, now: at(210) };
    store.resume(resume).await.unwrap().inspect(|agent| assert_eq!(agent, "triage")).is_some()
}

async fn a_run_that_sleeps_gives_its_lease_back_and_is_queued_when_its_time_comes(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    let sleeping = run(&*store, 1).await;
    assert_eq!((sleeping.state, sleeping.due, sleeping.wait), (State::Waiting, Some(at(300)), Some(Wait::Sleep)));
    assert_eq!(sleeping.reason, Some(format!("sleeps until {}", at(300))));
    assert!(store.waiting().await.unwrap().is_empty(), "the time alone ends it");
    assert!(store.running().await.unwrap().is_empty());
    assert_eq!(store.release_due(at(299)).await.unwrap().next, Some(at(300)));
    assert_eq!(store.release_due(at(300)).await.unwrap().agents, ["triage"]);
    let awake = run(&*store, 1).await;
    assert_eq!((awake.state, awake.wait, awake.reason), (State::Queued, None, None));
    let claimed = claim(&*store, "triage", &[lease(2)]).await.remove(0);
    assert_eq!((claimed.run.attempt, claimed.run.resumed), (2, Some(Resumed::Sleep)));
    let attempts = store.run(run_id(1)).await.unwrap().unwrap().1;
    assert_eq!((attempts[0].ended.as_deref(), &attempts[0].resumed), (Some("waits"), &None));
    assert_eq!(attempts[1].resumed, Some(Resumed::Sleep));
}

async fn a_wait_uses_up_no_try_and_no_place(store: Arc<dyn Store>) {
    for n in 1..=2 {
        accept(&*store, starting("triage", n)).await;
    }
    let one = |by: u8| {
        let (agent, leases) = ("triage".to_owned(), vec![lease(by)]);
        store.claim(Claim { agent, leases, until: at(600), now: at(100), most_running: Some(1), worker: None })
    };
    assert_eq!(one(1).await.unwrap().claimed.remove(0).run.id, run_id(1));
    assert!(one(2).await.unwrap().claimed.is_empty());
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    assert_eq!(run(&*store, 1).await.progress, Progress::default());
    assert_eq!(one(3).await.unwrap().claimed.remove(0).run.id, run_id(2));
}

async fn a_run_goes_on_once_by_what_comes_first(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let question = Wait::Answer { question: "Merge it?".to_owned(), options: vec!["yes".to_owned()] };
    assert!(wait(&*store, 1, 1, question.clone()).await);
    assert_eq!(run(&*store, 1).await.wait, Some(question));
    let answer = Resumed::Answer { answer: json!("yes"), by: "ann".to_owned() };
    assert!(!resume(&*store, 1, 2, answer.clone(), None).await, "it is of another try");
    assert!(resume(&*store, 1, 1, answer.clone(), None).await);
    assert!(!resume(&*store, 1, 1, Resumed::Timeout, None).await);
    assert!(store.release_due(at(400)).await.unwrap().agents.is_empty());
    let claimed = claim(&*store, "triage", &[lease(2)]).await.remove(0);
    assert_eq!(claimed.run.resumed, Some(answer));
    assert!(store.waiting().await.unwrap().is_empty());
    assert!(!resume(&*store, 1, 2, Resumed::Timeout, None).await, "it runs");
}

async fn only_what_an_event_or_a_run_ends_is_looked_for(store: Arc<dyn Store>) {
    let answer = Wait::Answer { question: "Merge it?".to_owned(), options: Vec::new() };
    let waits = [Wait::Sleep, for_event("issues"), answer, Wait::Run { run: run_id(5) }];
    for n in 1..=5 {
        accept(&*store, starting("triage", n)).await;
    }
    claim(&*store, "triage", &[lease(1), lease(2), lease(3), lease(4)]).await;
    for (n, wish) in (1..).zip(waits) {
        assert!(wait(&*store, n, n as u8, wish).await);
    }
    let waiting: Vec<RunId> = store.waiting().await.unwrap().iter().map(|one| one.run.id).collect();
    assert_eq!(waiting, [run_id(2), run_id(4)]);
}

async fn a_wait_that_nothing_ends_is_over_in_time(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(wait(&*store, 1, 1, for_event("issues")).await);
    store.release_due(at(300)).await.unwrap();
    assert!(!resume(&*store, 1, 1, by_event(1), Some(9)).await);
    assert_eq!(claim(&*store, "triage", &[lease(2)]).await.remove(0).run.resumed, Some(Resumed::Timeout));
}

async fn a_stale_lease_waits_for_nothing(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(!wait(&*store, 1, 2, Wait::Sleep).await);
    assert_eq!(state(&*store, 1).await, State::Running);
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    assert!(!wait(&*store, 1, 1, for_event("issues")).await, "it was given back");
    assert_eq!(run(&*store, 1).await.wait, Some(Wait::Sleep));
}

async fn a_run_whose_end_was_asked_for_does_not_wait(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    store.cancel(run_id(1), "ann".to_owned(), at(150)).await.unwrap();
    assert!(wait(&*store, 1, 1, for_event("issues")).await);
    let cancelled = run(&*store, 1).await;
    assert_eq!((cancelled.state, cancelled.wait), (State::Cancelled, None));
    assert!(store.waiting().await.unwrap().is_empty());
}

async fn a_run_that_waits_is_cancelled_at_once(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(wait(&*store, 1, 1, for_event("issues")).await);
    assert_eq!(store.cancel(run_id(1), "ann".to_owned(), at(250)).await.unwrap(), Cancel::Cancelled);
    let cancelled = run(&*store, 1).await;
    assert_eq!((cancelled.state, cancelled.wait, cancelled.resumed), (State::Cancelled, None, None));
    assert!(store.waiting().await.unwrap().is_empty());
}

async fn a_run_keeps_its_key_while_it_waits(store: Arc<dyn Store>) {
    for (n, key) in [(1, "a"), (2, "a"), (3, "b")] {
        accept(&*store, keyed(key, n, busy(WhenBusy::Queue))).await;
    }
    assert_eq!(take(&*store, 3).await, [1, 3]);
    assert!(wait(&*store, 1, 1, for_event("issues")).await);
    accept(&*store, keyed("a", 4, busy(WhenBusy::Queue))).await;
    end(&*store, 3, 2, State::Succeeded).await;
    assert_eq!(take(&*store, 3).await, [0; 0], "the key is taken");
    assert!(resume(&*store, 1, 1, by_event(4), None).await);
    assert_eq!(take(&*store, 3).await, [1], "before those that came later");
    end(&*store, 1, 1, State::Succeeded).await;
    assert_eq!(take(&*store, 3).await, [2]);
    end(&*store, 2, 1, State::Succeeded).await;
    assert_eq!(take(&*store, 3).await, [4]);
}

async fn a_key_goes_on_when_the_run_that_waits_with_it_ends(store: Arc<dyn Store>) {
    for n in 1..=2 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Queue))).await;
    }
    assert_eq!(take(&*store, 3).await, [1]);
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    store.cancel(run_id(1), "ann".to_owned(), at(250)).await.unwrap();
    assert_eq!(take(&*store, 3).await, [2]);
}

async fn a_new_event_replaces_a_run_that_waits(store: Arc<dyn Store>) {
    accept(&*store, keyed("a", 1, busy(WhenBusy::Replace))).await;
    assert_eq!(take(&*store, 3).await, [1]);
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    accept(&*store, keyed("a", 2, busy(WhenBusy::Replace))).await;
    assert_eq!(state(&*store, 1).await, State::Superseded);
    assert_eq!(take(&*store, 3).await, [2]);
}

async fn a_run_that_is_held_while_it_waits_keeps_what_it_waited_for(store: Arc<dyn Store>) {
    for n in 1..=3 {
        accept(&*store, keyed("a", n, busy(WhenBusy::Queue))).await;
    }
    assert_eq!(take(&*store, 3).await, [1]);
    assert!(wait(&*store, 1, 1, for_event("issues")).await);
    let paused = Standing::Paused(format!("{PAUSED}ann"));
    store.settle_agents(vec![("triage".to_owned(), paused)], at(210)).await.unwrap();
    let held = run(&*store, 1).await;
    assert_eq!((held.state, held.wait.is_some(), held.reason), (State::Held, true, Some(format!("{PAUSED}ann"))));
    assert_eq!(store.waiting().await.unwrap().len(), 1);
    // What comes meanwhile is not missed, and starts nothing.
    assert!(resume(&*store, 1, 1, by_event(3), None).await);
    assert_eq!(state(&*store, 1).await, State::Held);
    store.settle_agents(active(&["triage"]), at(220)).await.unwrap();
    assert_eq!(take(&*store, 3).await, [1]);
    assert_eq!(run(&*store, 1).await.resumed, Some(by_event(3)));
    // One whose time has not come waits on.
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    store.settle_agents(Vec::new(), at(230)).await.unwrap();
    assert_eq!(
        store.release(run_id(1), "ann".to_owned(), at(240)).await.unwrap(),
        Release::Released("triage".to_owned())
    );
    assert_eq!(state(&*store, 1).await, State::Waiting);
}

async fn a_run_goes_on_with_the_end_of_another_one_however_it_ended(store: Arc<dyn Store>) {
    for (n, state) in [(1, State::Succeeded), (3, State::Failed)] {
        accept(&*store, starting("triage", n)).await;
        accept(&*store, starting("fixer", n + 1)).await;
        claim(&*store, "triage", &[lease(1)]).await;
        claim(&*store, "fixer", &[lease(2)]).await;
        assert!(wait(&*store, n, 1, Wait::Run { run: run_id(n + 1) }).await);
        assert!(store.finish(finish(run_id(n + 1), lease(2), State::Queued)).await.unwrap());
        assert!(store.release_due(at(220)).await.unwrap().agents.is_empty(), "it is not over");
        claim(&*store, "fixer", &[lease(3)]).await;
        assert!(store.finish(finish(run_id(n + 1), lease(3), state)).await.unwrap());
        assert_eq!(store.release_due(at(230)).await.unwrap().agents, ["triage"]);
        let claimed = claim(&*store, "triage", &[lease(4)]).await.remove(0);
        assert_eq!(claimed.run.resumed, Some(Resumed::Run { run_id: run_id(n + 1), state, result: None }));
    }
}

async fn a_run_whose_end_came_before_the_wait_is_not_waited_for(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    accept(&*store, starting("fixer", 2)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    store.cancel(run_id(2), "ann".to_owned(), at(150)).await.unwrap();
    assert!(wait(&*store, 1, 1, Wait::Run { run: run_id(2) }).await);
    let claimed = claim(&*store, "triage", &[lease(2)]).await.remove(0);
    assert_eq!(claimed.run.resumed, Some(Resumed::Run { run_id: run_id(2), state: State::Cancelled, result: None }));
    assert!(wait(&*store, 1, 2, Wait::Run { run: run_id(77) }).await);
    assert_eq!(state(&*store, 1).await, State::Queued, "one that was removed is over");
}

async fn what_came_since_the_first_try_began_is_new_to_a_run_and_then_what_came_since_it_went_on(
    store: Arc<dyn Store>,
) {
    let heard = async || store.waiting().await.unwrap().iter().map(|Waiting { heard, .. }| *heard).collect::<Vec<_>>();
    accept(&*store, starting("triage", 1)).await;
    accept(&*store, event(2)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    accept(&*store, event(3)).await;
    assert!(store.finish(finish(run_id(1), lease(1), State::Queued)).await.unwrap());
    claim(&*store, "triage", &[lease(2)]).await;
    assert!(wait(&*store, 1, 2, for_event("issues")).await);
    assert_eq!(heard().await, [2], "the third is new to it");
    assert!(resume(&*store, 1, 2, by_event(3), Some(3)).await);
    claim(&*store, "triage", &[lease(3)]).await;
    accept(&*store, event(4)).await;
    assert!(wait(&*store, 1, 3, for_event("issues")).await);
    assert_eq!(heard().await, [3]);
}

async fn a_retry_is_told_what_the_wait_before_it_was_over_by(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    assert!(wait(&*store, 1, 1, for_event("issues")).await);
    assert!(resume(&*store, 1, 1, by_event(1), Some(1)).await);
    claim(&*store, "triage", &[lease(2)]).await;
    assert!(store.finish(finish(run_id(1), lease(2), State::Waiting)).await.unwrap());
    let between = run(&*store, 1).await;
    assert_eq!((between.wait, between.reason.as_deref()), (None, Some("exit 1")));
    store.release_due(at(300)).await.unwrap();
    let again = claim(&*store, "triage", &[lease(3)]).await.remove(0);
    assert_eq!(again.run.resumed, Some(by_event(1)));
    assert!(wait(&*store, 1, 3, Wait::Sleep).await);
    assert_eq!(run(&*store, 1).await.resumed, None, "it waits anew");
}

async fn a_lease_is_found_by_whoever_shows_it(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    assert!(store.running_by_lease(lease(1)).await.unwrap().is_none());
    claim(&*store, "triage", &[lease(1)]).await;
    assert_eq!(store.running_by_lease(lease(1)).await.unwrap().unwrap().run.id, run_id(1));
    assert!(store.running_by_lease(lease(2)).await.unwrap().is_none());
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    assert!(store.running_by_lease(lease(1)).await.unwrap().is_none());
}

fn step(n: u32, by: u8, key: &str, value: &str) -> NewStep {
    NewStep { run: run_id(n), lease: lease(by), key: key.to_owned(), value: value.to_owned(), at: at(150) }
}

async fn a_step_is_kept_once_and_only_under_the_lease(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    assert_eq!(store.keep_step(step(1, 1, "plan", "1")).await.unwrap(), StepKept::Lost);
    claim(&*store, "triage", &[lease(1)]).await;
    assert_eq!(store.keep_step(step(1, 2, "plan", "1")).await.unwrap(), StepKept::Lost);
    assert_eq!(store.keep_step(step(1, 1, "plan", "1")).await.unwrap(), StepKept::Kept);
    assert_eq!(store.keep_step(step(1, 1, "plan", "2")).await.unwrap(), StepKept::There("1".to_owned()));
    assert!(wait(&*store, 1, 1, Wait::Sleep).await);
    store.release_due(at(300)).await.unwrap();
    claim(&*store, "triage", &[lease(2)]).await;
    assert_eq!(store.step(run_id(1), "plan".to_owned()).await.unwrap().as_deref(), Some("1"));
    assert_eq!(store.step(run_id(1), "other".to_owned()).await.unwrap(), None);
    assert_eq!(store.step(run_id(2), "plan".to_owned()).await.unwrap(), None);
    let steps = store.steps(run_id(1)).await.unwrap();
    assert_eq!(steps.iter().map(|step| (step.key.as_str(), step.bytes)).collect::<Vec<_>>(), [("plan", 1)]);
}

async fn steps_are_bounded_and_go_with_their_run(store: Arc<dyn Store>) {
    accept(&*store, starting("triage", 1)).await;
    claim(&*store, "triage", &[lease(1)]).await;
    let large = "1".repeat(1024 * 1024);
    for n in 0..8 {
        assert_eq!(store.keep_step(step(1, 1, &format!("large {n}"), &large)).await.unwrap(), StepKept::Kept);
    }
    assert_eq!(store.keep_step(step(1, 1, "one more", "1")).await.unwrap(), StepKept::Full);
    accept(&*store, starting("triage", 2)).await;
    claim(&*store, "triage", &[lease(2)]).await;
    for n in 0..MOST_STEPS {
        assert_eq!(store.keep_step(step(2, 2, &n.to_string(), "1")).await.unwrap(), StepKept::Kept);
    }
    assert_eq!(store.keep_step(step(2, 2, "one more", "1")).await.unwrap(), StepKept::Full);
    let answered = Resumed::Answer { answer: json!("a secret"), by: "ann".to_owned() };
    assert!(wait(&*store, 1, 1, Wait::Answer { question: "?".to_owned(), options: Vec::new() }).await);
    assert!(resume(&*store, 1, 1, answered, None).await);
    claim(&*store, "triage", &[lease(3)]).await;
    assert!(store.finish(finish(run_id(1), lease(3), State::Failed)).await.unwrap());
    assert!(matches!(store.forget(event_id(1), at(400)).await.unwrap(), Forgetting::Forgotten(_)));
    assert!(store.steps(run_id(1)).await.unwrap().is_empty());
    let (forgotten, attempts) = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((forgotten.resumed, attempts.into_iter().find_map(|attempt| attempt.resumed)), (None, None));
}
