//! Kills: the agents' processes die at any moment, beside a gateway that lives or together with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorbell_client::{Answer, Sender, api};
use futures_util::future::{join, join_all};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};
use tokio::sync::Semaphore;

use crate::crash::{CONNECTIONS, all_ended, all_events, check, redeliver};
use crate::support::{Gateway, ONE_SOURCE, Project, environment_of, fresh_id, pids, sample_as, wait_for, wait_until};

/// Tries of each run that may fail, and that may be lost.
const TRIES: usize = 3;
const LOSSES: usize = 3;
/// Processes that are killed; some of them may have ended just then, or be no loss for their run.
const KILLS: usize = 42;
/// Runs that may be queued before the senders wait: with more of them the test would only take longer.
const BACKLOG: u64 = 32;

/// Deliveries with what was answered, or none where no 2xx came.
type Known = BTreeMap<String, Option<api::Receipt>>;

/// Two agents of eight runs at once, each run of two or three real processes. All processes of a try hold one lock that
/// has the run's name: whoever finds it taken is a try that began while another one's process lived.
fn project() -> Project {
    let project = Project::new(ONE_SOURCE);
    let (locks, violations) = (project.path("locks"), project.path("violations"));
    std::fs::create_dir(&locks).unwrap();
    // A killed `flock` (137) knows nothing. One run of eight has a process outside its group.
    let script = format!(
        "exec 9>>{}/$DOORBELL_RUN_ID\n\
         flock -n 9 || test $? != 1 || echo $DOORBELL_RUN_ID $DOORBELL_ATTEMPT >> {}\n\
         case $DOORBELL_RUN_ID in *[08GR]) setsid sleep 1000 & esac\n\
         sleep 0.1 & wait $!",
        locks.display(),
        violations.display()
    );
    let config = format!(
        "scale = 8\nwhen_full = \"grow\"\n[[webhooks]]\nsource = \"acme\"\n\
         [retries]\nattempts = {TRIES}\nbackoff = {{ initial = \"1ms\", jitter = false }}"
    );
    for agent in ["one", "two"] {
        project.agent(agent, &config, &script);
    }
    project
}

/// A gateway under load.
struct Load<'a> {
    gateway: &'a Gateway,
    sender: Sender,
    root: &'a Path,
    /// Deliveries that may be sent; closed when it is over.
    permits: Semaphore,
    /// Deliveries that were accepted.
    taken: AtomicUsize,
}

impl<'a> Load<'a> {
    fn on(gateway: &'a Gateway, project: &'a Project) -> Self {
        let (permits, taken) = (Semaphore::new(CONNECTIONS), AtomicUsize::new(0));
        Self { gateway, sender: gateway.sender("/webhooks/github"), root: project.root(), permits, taken }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.permits.close();
    }

    fn is_over(&self) -> bool {
        self.permits.is_closed()
    }

    /// Signed deliveries from all connections, until it is over or the gateway is gone.
    async fn send(&self) -> Known {
        let lanes = join_all((0..CONNECTIONS).map(|_| self.send_on_one())).await;
        lanes.into_iter().flatten().collect()
    }

    async fn send_on_one(&self) -> Vec<(String, Option<api::Receipt>)> {
        let mut sent = Vec::new();
        while let Ok(permit) = self.permits.acquire().await {
            permit.forget();
            let id = fresh_id();
            let signed = sample_as("issues.opened", &id);
            let Ok(answered) = self.sender.post(&signed.headers, signed.body).await else {
                sent.push((id, None));
                break;
            };
            let Answer::Receipt(receipt) = answered.answer else { panic!("{id} is refused: {answered:?}") };
            sent.push((id, Some(receipt)));
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    async fn has_room(&self) -> bool {
        let stats = self.gateway.client.stats().await;
        stats.is_ok_and(|stats| stats.agents.iter().map(|agent| agent.queued).sum::<u64>() < BACKLOG)
    }

    /// Kills so many times while deliveries come: an agent's process, the group of one, or a child of one; a random one
    /// after a random number of deliveries.
    async fn kill_agents(&self, times: usize) {
        for time in 0..times {
            wait_until("room in the queue", async || (self.is_over() || self.has_room().await).then_some(())).await;
            let more = up_to(16);
            let enough = self.taken() + up_to(more);
            self.permits.add_permits(more);
            let come = || self.is_over() || self.taken() >= enough;
            wait_until("more deliveries", async || come().then_some(())).await;
            let victims = wait_until("a process to kill", async || {
                let found = victims(self.root, Target::of(time));
                (self.is_over() || !found.is_empty()).then_some(found)
            });
            let victims = victims.await;
            if self.is_over() {
                return;
            }
            // It may have ended by now.
            let _ = match (Target::of(time), victims[up_to(victims.len()) - 1]) {
                (Target::Group, pid) => killpg(pid, Signal::SIGKILL),
                (Target::First | Target::Child, pid) => kill(pid, Signal::SIGKILL),
            };
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The process that was started for a try.
    First,
    /// Its group.
    Group,
    /// Another one of its processes.
    Child,
}

impl Target {
    fn of(time: usize) -> Self {
        [Self::First, Self::Group, Self::Child][time % 3]
    }
}

/// From 1 to `most`, at random.
fn up_to(most: usize) -> usize {
    usize::from(u16::from_be_bytes(doorbell::clock::random())) % most + 1
}

/// The processes of the project's agents.
fn processes(root: &Path) -> Vec<Pid> {
    let marker = format!("DOORBELL_OUTPUT_FILE={}", root.display());
    let of_agent = |pid: &i32| environment_of(*pid).iter().any(|entry| entry.starts_with(marker.as_bytes()));
    pids().filter(of_agent).map(Pid::from_raw).collect()
}

fn victims(root: &Path, target: Target) -> Vec<Pid> {
    let leads = |pid: &Pid| getpgid(Some(*pid)) == Ok(*pid);
    processes(root).into_iter().filter(|pid| leads(pid) == (target != Target::Child)).collect()
}

/// Nothing of any run is left, and no run was carried out twice at once.
fn check_processes(project: &Project) {
    wait_for("the agents' processes to be gone", || processes(project.root()).is_empty().then_some(()));
    assert!(!project.path("violations").exists(), "two at once: {}", project.read("violations"));
    for lock in std::fs::read_dir(project.path("locks")).unwrap() {
        let lock = lock.unwrap().path();
        assert!(File::open(&lock).unwrap().try_lock().is_ok(), "a process of {} lives", lock.display());
    }
}

/// Every run has ended in one state, after the tries that its agent's rules give it. Answers how many tries were killed.
async fn check_runs(gateway: &Gateway) -> usize {
    all_ended(gateway).await;
    let events = all_events(gateway).await;
    let mut killed = 0;
    for run in events.iter().flat_map(|event| &event.outcomes) {
        killed += check_run(&gateway.client.run(run.run_id.as_ref().unwrap()).await.unwrap());
    }
    killed
}

fn check_run(detail: &api::RunDetail) -> usize {
    let tries: Vec<&str> = detail.attempts.iter().map(|attempt| attempt.ended.as_deref().unwrap()).collect();
    let count = |ended: &str| tries.iter().filter(|one| **one == ended).count();
    let (succeeded, failed, lost) = (count("succeeded"), count("failed"), count("lost"));
    assert_eq!(succeeded + failed + lost, tries.len(), "{detail:#?}");
    let numbers: Vec<u32> = detail.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (1..=detail.run.attempt).collect::<Vec<_>>(), "{detail:#?}");
    let last = *tries.last().unwrap();
    let by_the_rules = match detail.run.state.as_str() {
        "succeeded" => last == "succeeded" && succeeded == 1 && failed < TRIES && lost < LOSSES,
        "failed" => {
            let used_up = (last == "failed" && failed == TRIES) || (last == "lost" && lost == LOSSES);
            detail.run.dead_letter && succeeded == 0 && used_up
        }
        _ => false,
    };
    assert!(by_the_rules, "{detail:#?}");
    // They fail for no other reason than that they, or what they waited for, were killed.
    let reasons = detail.attempts.iter().filter(|attempt| attempt.ended.as_deref() == Some("failed"));
    let killed = reasons.map(|attempt| attempt.reason.as_deref().unwrap_or_default());
    killed.inspect(|why| assert!(why.contains("SIGKILL") || why.contains("code 137"), "{detail:#?}")).count()
}

/// Signed deliveries from 64 connections while the agents' processes are killed at random moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_accepted_is_carried_out_by_the_rules_while_agents_are_killed() {
    let project = project();
    let gateway = project.serve();
    let load = Load::on(&gateway, &project);
    let killing = async {
        load.kill_agents(KILLS).await;
        load.end();
    };
    let (known, ()) = join(load.send(), killing).await;
    assert!(known.len() >= KILLS && known.values().all(Option::is_some), "the gateway took everything");
    let killed = check_runs(&gateway).await;
    check(&gateway, &known).await;
    check_processes(&project);
    assert!(killed >= 20, "only {killed} tries were killed");
    redeliver(&gateway, &known).await;
    assert_eq!(all_events(&gateway).await.len(), known.len());
}

/// The same while the gateway is killed, too, at a random moment, ten times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_accepted_is_carried_out_by_the_rules_while_everything_is_killed() {
    let project = project();
    let mut known = Known::new();
    for _ in 0..10 {
        let gateway = project.serve();
        check(&gateway, &known).await;
        let load = Load::on(&gateway, &project);
        let enough = up_to(32);
        let killing = async {
            wait_until("deliveries", async || (load.taken() >= enough).then_some(())).await;
            gateway.signal(Signal::SIGKILL);
            load.end();
        };
        let (sent, ((), ())) = join(load.send(), join(load.kill_agents(usize::MAX), killing)).await;
        known.extend(sent);
        drop(load);
        gateway.kill();
    }
    let gateway = project.serve();
    check_runs(&gateway).await;
    check(&gateway, &known).await;
    check_processes(&project);
    redeliver(&gateway, &known).await;
}
