//! What a claim costs, however many runs wait.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use doorbell::clock;
use doorbell::store::{self, Acceptance, Admission, Claim, Finish, Lease, NewEvent, Start, Store};
use doorbell_core::flow::{Flow, WhenBusy};
use doorbell_core::id::{EventId, RunId};
use doorbell_core::run::{Progress, State, Transition};

/// Events stored together.
const WAVE: u64 = 500;
/// Keys of the agents that have them.
const KEYS: u64 = 1000;
/// Claims that are measured, and those before them that are not.
const CLAIMS: usize = 400;
const WARM_UP: usize = 50;

/// An agent: its name, and what its runs are kept in.
pub const AGENTS: [(&str, &str); 3] = [
    ("plain", "without flow control"),
    ("keyed", "1,000 keys in turn"),
    ("alone", "1,000 keys, one run each at a time"),
];

/// What claims took, sorted: how many runs waited, the agent, how long.
pub struct Claims {
    pub waiting: u64,
    pub agent: &'static str,
    pub times: Vec<Duration>,
}

impl Claims {
    pub fn percentile(&self, percent: usize) -> Duration {
        self.times[(self.times.len() - 1) * percent / 100]
    }
}

/// Fills a database through the store's own verbs, and claims one run at a time at each of these sizes. What is claimed
/// ends at once, so that nothing but the waiting ones is there.
pub async fn measure(folder: &Path, sizes: &[u64]) -> Vec<Claims> {
    let store = store::open("sqlite:doorbell.db", folder).await.unwrap();
    let (mut made, mut measured) = (0, Vec::new());
    for &waiting in sizes {
        while made < waiting {
            let count = WAVE.min(waiting - made);
            let wave = (made..made + count).map(|n| store.accept(vec![event(n)]));
            for answer in futures_util::future::join_all(wave).await {
                assert!(matches!(answer.unwrap(), Acceptance::Stored(_)));
            }
            made += count;
        }
        for (agent, _) in AGENTS {
            let mut times = Vec::with_capacity(CLAIMS);
            for n in 0..WARM_UP + CLAIMS {
                let took = claim_one(&store, agent).await;
                if n >= WARM_UP {
                    times.push(took);
                }
            }
            times.sort_unstable();
            measured.push(Claims { waiting, agent, times });
        }
        // So that the next size is what it says.
        made -= (WARM_UP + CLAIMS) as u64;
    }
    measured
}

async fn claim_one(store: &Arc<dyn Store>, agent: &str) -> Duration {
    let now = clock::now();
    let claim = Claim {
        agent: agent.to_owned(),
        leases: vec![Lease(clock::random())],
        until: now.after(Duration::from_secs(30)),
        now,
        most_running: Some(50),
        worker: None,
    };
    let begun = Instant::now();
    let mut claimed = store.claim(claim).await.unwrap().claimed;
    let took = begun.elapsed();
    let claimed = claimed.remove(0);
    let transition = Transition {
        state: State::Succeeded,
        due: None,
        dead_letter: false,
        progress: Progress::default(),
        reason: "exit code 0".to_owned(),
        wait: None,
    };
    let finish = Finish {
        run: claimed.run.id,
        lease: claimed.lease,
        at: now,
        ended: "succeeded".to_owned(),
        exit_code: Some(0),
        transition,
        result: None,
        in_time: false,
    };
    assert!(store.finish(finish).await.unwrap());
    took
}

/// An event that starts a run of each agent.
fn event(n: u64) -> NewEvent {
    let now = clock::now();
    let id = EventId::new(now, clock::random());
    let alone = Flow { when_busy: Some(WhenBusy::Queue), ..Flow::default() };
    let starts = [("plain", None), ("keyed", Some(Flow::default())), ("alone", Some(alone))];
    let start = |(agent, flow): (&str, Option<Flow>)| Start {
        agent: agent.to_owned(),
        trigger: 0,
        run: RunId::new(now, clock::random()),
        key: flow.map(|_| format!("acme/app#{}", n % KEYS)),
        flow,
        admission: Admission::Grow,
    };
    NewEvent {
        trace: None,
        replay: None,
        only_missing: false,
        room: None,
        paused: None,
        id,
        source: "bench".to_owned(),
        provider: "generic".to_owned(),
        event: "ring".to_owned(),
        action: None,
        delivery_keys: vec![format!("id:{id}")],
        headers: "{}".to_owned(),
        delivery_id: Some(id.to_string()),
        verified_by: None,
        received_at: now,
        handshake: false,
        context: "{\"event\":\"ring\"}".to_owned(),
        body: Bytes::from_static(b"{\"event\":\"ring\"}"),
        trigger_set: 1,
        starts: starts.map(start).into(),
    }
}
