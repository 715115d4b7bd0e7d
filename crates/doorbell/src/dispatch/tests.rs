//! Tests of the module above.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use doorbell_core::run::State;
use tokio::sync::oneshot;

use super::*;
use crate::config::{Environment, load};
use crate::store::{self, Admission, Claim, NewEvent, Start};

const PROJECT: &str = "[webhooks.acme]\ntype = \"generic\"\nallow_unsigned = true\n";
const AGENT: &str = "[[webhooks]]\nsource = \"acme\"\n[runtime]\ntype = \"command\"\ncommand = [\"sleep\", \"1000\"]\n";
const LONG: Duration = Duration::from_secs(60);

/// A dispatcher of a project whose agent `triage` does not come to an end.
async fn dispatcher(folder: &std::path::Path) -> Arc<Dispatcher> {
    std::fs::create_dir_all(folder.join("agents/triage")).unwrap();
    std::fs::write(folder.join("config.toml"), PROJECT).unwrap();
    std::fs::write(folder.join("agents/triage/config.toml"), AGENT).unwrap();
    let config = load(folder, &Environment::default(), &[]).unwrap();
    let store = store::open("sqlite:doorbell.db", folder).await.unwrap();
    let app = Arc::new(App::new(config, store).await.unwrap());
    let inherited = vec![("PATH".to_owned(), "/usr/bin:/bin".into())];
    Dispatcher::new(app, Arc::new(Guard::for_tests()), folder.join("runs"), inherited)
}

fn event(run: RunId) -> NewEvent {
    NewEvent {
        id: clock::new_id(),
        source: "acme".to_owned(),
        provider: "generic".to_owned(),
        event: "event".to_owned(),
        action: None,
        delivery_keys: vec!["1".to_owned()],
        delivery_id: None,
        verified_by: None,
        received_at: clock::now(),
        handshake: false,
        context: "{}".to_owned(),
        headers: "{}".to_owned(),
        body: Bytes::from_static(b"{}"),
        trigger_set: 1,
        trace: None,
        replay: None,
        only_missing: false,
        room: None,
        paused: None,
        starts: vec![Start {
            agent: "triage".to_owned(),
            trigger: 0,
            run,
            key: None,
            flow: None,
            admission: Admission::Grow,
        }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_taken_is_cancelled_by_the_next_start_if_the_gateway_died_before_it_could() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(folder.path()).await;
    let (run, now, lease) = (clock::new_id(), clock::now(), Lease(clock::random()));
    let store = &dispatcher.app.store;
    store.accept(vec![event(run)]).await.unwrap();
    let agent = "triage".to_owned();
    let claim = Claim { agent, leases: vec![lease], until: now.after(LEASE), now, most_running: None, worker: None };
    store.claim(claim).await.unwrap();
    assert!(store.hand_over(run, lease, now.after(LONG)).await.unwrap());
    assert_eq!(store.cancel(run, "ann".to_owned(), now).await.unwrap(), Cancel::Requested);
    dispatcher.start();
    let ended = async {
        while store.run(run).await.unwrap().unwrap().0.state != State::Cancelled {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("it waits for an agent that nobody tells");
    dispatcher.close(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_lease_ended_while_no_gateway_ran_has_time_to_be_heard() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(folder.path()).await;
    let (run, lease) = (clock::new_id(), Lease(clock::random()));
    let now = clock::now().before(LONG);
    let store = &dispatcher.app.store;
    store.accept(vec![event(run)]).await.unwrap();
    let worker = store::WorkerLease { worker: "mole".to_owned(), lease: LEASE };
    let (agent, until) = ("triage".to_owned(), now.after(LEASE));
    let claim = Claim { agent, leases: vec![lease], until, now, most_running: None, worker: Some(worker) };
    store.claim(claim).await.unwrap();
    dispatcher.prepare().await.unwrap();
    dispatcher.recover_lost(Some(clock::now())).await.unwrap();
    let running = store.running_run(run).await.unwrap().expect("it is taken for lost");
    assert!(running.lease == lease && running.until > clock::now());
    dispatcher.close(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_claimed_and_not_yet_registered_when_the_rest_is_handed_back_is_handed_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(folder.path()).await;
    let (run, now) = (clock::new_id(), clock::now());
    dispatcher.app.store.accept(vec![event(run)]).await.unwrap();
    let leases = vec![Lease(clock::random())];
    let claim =
        Claim { agent: "triage".to_owned(), leases, until: now.after(LEASE), now, most_running: None, worker: None };
    let claimed = dispatcher.app.store.claim(claim).await.unwrap().claimed.remove(0);
    let agent = Arc::clone(&dispatcher.app.current().config.agents["triage"]);
    let (open, gate) = oneshot::channel();
    let carrying = Arc::clone(&dispatcher);
    dispatcher.carriers.spawn(async move {
        gate.await.unwrap();
        carrying.carry(agent, claimed).await;
    });
    let closing = Arc::clone(&dispatcher);
    let closed = tokio::spawn(async move { closing.close(Duration::ZERO).await });
    while !dispatcher.handing_back.is_cancelled() {
        tokio::task::yield_now().await;
    }
    open.send(()).unwrap();
    tokio::time::timeout(LONG, closed).await.expect("it waits for the whole run").unwrap();
    let (run, attempts) = dispatcher.app.store.run(run).await.unwrap().unwrap();
    assert_eq!((run.state, attempts[0].ended.as_deref()), (State::Queued, Some("handed_back")));
}
