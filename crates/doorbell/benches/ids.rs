//! `cargo xtask bench ids`: whether time tells an id that is somebody else's, or a webhook that is not active, from one that
//! there is not.
//!
//! One keep-alive connection to a gateway that does nothing else; each question is asked some thousands of times for each
//! kind of id, the kinds interleaved at random, so that no kind has the better moments of the machine. Unknown ids are asked
//! for twice, as two kinds: how far those lie apart is noise. A difference can be used if it is more than [`USABLE`] and what noise
//! there is, even at the near end of its interval.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use support::{Connection, LOAD_CORE, Server, find_ids};

/// Requests of each kind (`--asked N` for fewer), and those before them that are not measured.
const ASKED: usize = 4000;
const WARM_UP: usize = 100;
/// Differences of medians below it, in µs, are lost in any network.
const USABLE: f64 = 5.0;
/// Drawings for the interval of a difference.
const DRAWN: usize = 400;
/// Slower ones are the machine's, not the id's: the share of both kinds that is left out for Welch's t.
const SLOWEST: f64 = 0.1;
/// Things of the other agent, and inactive webhooks.
const THINGS: usize = 64;
/// As many as one agent may have.
const HOOKS: usize = 64;

/// What is asked, with `{}` for the id.
struct Question {
    method: &'static str,
    path: &'static str,
    /// Whether a key is shown.
    keyed: bool,
    body: &'static str,
    /// The kinds of ids, by the name of each; the first two are unknown ones.
    kinds: Vec<(&'static str, Vec<String>)>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    support::pin(LOAD_CORE);
    let args: Vec<String> = std::env::args().collect();
    let given = args.iter().position(|arg| arg == "--asked").and_then(|at| args.get(at + 1)?.parse().ok());
    let count = given.unwrap_or(ASKED);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let project = folder.path().join("project");
    let gateway = start(&project);
    let mut connection = Connection::open(gateway.port).await;
    let owner = std::fs::read_to_string(project.join(".doorbell/key")).unwrap();
    let there = Things::make(&mut connection, owner.trim()).await;
    let (mut rows, mut figures, mut usable) = (Vec::new(), Vec::new(), 0);
    for question in there.questions() {
        let mut asked = ask(&mut connection, &question, &there.key, count).await;
        let unknown = asked.remove(0);
        let noise = apart(&unknown, &asked[0]);
        for (kind, times) in question.kinds[1..].iter().map(|(kind, _)| *kind).zip(&asked) {
            let found = apart(&unknown, times);
            let is_usable = found.is_usable(&noise);
            usable += usize::from(is_usable);
            rows.push(row(&question, kind, &unknown, times, &found, is_usable));
            figures.push(
                json!({"method": question.method, "path": question.path, "kind": kind, "p50": percentile(times, 50),
                "p99": percentile(times, 99), "unknownP50": percentile(&unknown, 50), "difference": found.medians,
                "from": found.from, "to": found.to, "t": found.t, "usable": is_usable}),
            );
        }
    }
    let titles = ["question", "id", "unknown p50", "p99", "p50", "p99", "difference (95 %)", "t", "usable"];
    support::print_table(&titles, &rows);
    support::write_json("ids", &json!(figures));
    assert_eq!(usable, 0, "time tells what is there from what is not");
}

fn start(project: &Path) -> Server {
    for agent in ["one", "other"] {
        let folder = project.join("agents").join(agent);
        std::fs::create_dir_all(&folder).unwrap();
        let config =
            format!("[[webhooks]]\nsource = \"bench\"\nevents = [\"{agent}\"]\n[runtime]\ntype = \"worker\"\n");
        std::fs::write(folder.join("config.toml"), config).unwrap();
    }
    let config = "[gateway]\nlisten = \"127.0.0.1:0\"\nkey_rate_limit = \"off\"\nhook_rate_limit = \"off\"\n[webhooks.bench]\ntype = \"generic\"\nallow_unsigned = true\n";
    std::fs::write(project.join("config.toml"), config).unwrap();
    Server::start_gateway(project)
}

/// What there is: of the agent that asks, and of the other one.
struct Things {
    /// The key of the agent that asks.
    key: String,
    runs: Vec<String>,
    events: Vec<String>,
    hooks: Vec<String>,
    inactive: Vec<String>,
}

impl Things {
    async fn make(connection: &mut Connection, owner: &str) -> Self {
        let body = json!({"name": "one", "role": "agent", "agent": "one"}).to_string();
        let made = post(connection, "/v1/keys", owner, &body).await;
        let key = made["key"].as_str().unwrap().to_owned();
        let (mut own_runs, mut runs, mut own_events, mut events) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let text = "x".repeat(8 << 10);
        for n in 0..THINGS {
            for (agent, runs, events) in [("one", &mut own_runs, &mut own_events), ("other", &mut runs, &mut events)] {
                let body = json!({"event": agent, "n": n, "text": text}).to_string();
                let (status, answer) = connection.post("/v1/webhooks/generic/bench", None, &body).await;
                assert_eq!(status, 200, "{answer}");
                runs.extend(find_ids(&answer, "run_").map(str::to_owned));
                events.extend(find_ids(&answer, "evt_").take(1).map(str::to_owned));
            }
        }
        let mut hooks = Vec::new();
        let mut inactive = Vec::new();
        for n in 0..HOOKS {
            let body = json!({"name": format!("hook {n}")}).to_string();
            for (agent, made) in [("one", &mut inactive), ("other", &mut hooks)] {
                let created = post(connection, &format!("/v1/agents/{agent}/webhooks"), owner, &body).await;
                made.push(created["webhookId"].as_str().unwrap().to_owned());
            }
            let (status, answer) = connection.delete(&format!("/v1/agents/one/webhooks/{}", inactive[n]), owner).await;
            assert_eq!(status, 200, "{answer}");
        }
        Self { key, runs, events, hooks, inactive }
    }

    fn questions(&self) -> Vec<Question> {
        let delivered = {
            let misshapen = self.hooks.iter().map(|id| id[..20].to_owned()).collect();
            let kinds = vec![("inactive", self.inactive.clone()), ("of another shape", misshapen)];
            Question {
                method: "POST",
                path: "/v1/hooks/{}",
                keyed: false,
                body: "{}",
                kinds: against(&self.hooks, kinds),
            }
        };
        let asked = |method, path, body, of: &[String]| {
            let kinds = against(of, vec![("another agent's", of.to_vec())]);
            Question { method, path, keyed: true, body, kinds }
        };
        let agents = |method, path, body| {
            let unknown: Vec<String> =
                (0..THINGS).map(|n| format!("othe{}", char::from(b'a' + (n % 17) as u8))).collect();
            let kinds = vec![
                ("unknown", unknown.clone()),
                ("unknown again", unknown),
                ("another agent's", vec!["other".to_owned(); THINGS]),
            ];
            Question { method, path, keyed: true, body, kinds }
        };
        vec![
            delivered,
            asked("GET", "/v1/runs/{}", "", &self.runs),
            asked("GET", "/v1/runs/{}/logs", "", &self.runs),
            asked("POST", "/v1/runs/{}/cancel", "", &self.runs),
            asked("POST", "/v1/runs/{}/retry", "", &self.runs),
            asked("GET", "/v1/events/{}", "", &self.events),
            asked("GET", "/v1/events/{}/body", "", &self.events),
            asked("GET", "/v1/events/{}/explain", "", &self.events),
            asked("GET", "/v1/agents/one/webhooks/{}/deliveries", "", &self.hooks),
            asked("POST", "/v1/agents/one/webhooks/{}/rotate", "{}", &self.hooks),
            asked("POST", "/v1/agents/one/webhooks/{}/test", "{}", &self.hooks),
            asked("GET", "/agents/one/executions/{}", "", &self.runs),
            agents("GET", "/v1/agents/{}", ""),
            agents("GET", "/v1/agents/{}/webhooks", ""),
            agents("POST", "/v1/agents/{}/run", "{}"),
        ]
    }
}

/// Twice ids that there are not, as alike to those that there are as can be, and then these kinds.
fn against(of: &[String], kinds: Vec<(&'static str, Vec<String>)>) -> Vec<(&'static str, Vec<String>)> {
    // The last characters are random: with others in their place, an id is as old, and nobody's.
    let unknown = |salt: &str| of.iter().map(|id| format!("{}{salt}", &id[..id.len() - salt.len()])).collect();
    let mut all = vec![("unknown", unknown("00ZZ00ZZ")), ("unknown again", unknown("ZZ00ZZ00"))];
    all.extend(kinds);
    all
}

async fn post(connection: &mut Connection, path: &str, key: &str, body: &str) -> Value {
    let (status, answer) = connection.post(path, Some(key), body).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// Microseconds of each request, by kind, sorted.
async fn ask(connection: &mut Connection, question: &Question, key: &str, count: usize) -> Vec<Vec<f64>> {
    let mut asked: Vec<Vec<f64>> = question.kinds.iter().map(|_| Vec::with_capacity(count)).collect();
    let key = question.keyed.then_some(key);
    let mut first: Option<String> = None;
    for n in 0..(WARM_UP + count) * question.kinds.len() {
        let [at, which] = doorbell::clock::random::<2>();
        let at = usize::from(at) % question.kinds.len();
        let ids = &question.kinds[at].1;
        let path = question.path.replace("{}", &ids[usize::from(which) % ids.len()]);
        let begun = Instant::now();
        let (status, answer) = match question.method {
            "GET" => connection.get(&path, key.unwrap_or_default()).await,
            _ => connection.post(&path, key, question.body).await,
        };
        let took = begun.elapsed();
        assert_eq!(status, 404, "{} {path}: {answer}", question.method);
        assert_eq!(*first.get_or_insert_with(|| answer.clone()), answer, "{} {path}", question.method);
        if n >= WARM_UP * question.kinds.len() {
            asked[at].push(took.as_secs_f64() * 1e6);
        }
    }
    asked.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    asked
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// How far two kinds lie apart.
struct Apart {
    /// The difference of the medians, in µs, and the interval in which it lies 95 times of 100.
    medians: f64,
    from: f64,
    to: f64,
    /// Welch's t of what is left without the slowest.
    t: f64,
}

impl Apart {
    /// Even the near end of the interval is beyond what can be used, and beyond noise.
    fn is_usable(&self, noise: &Self) -> bool {
        let near = if self.from > 0.0 { self.from } else { (-self.to).max(0.0) };
        near > USABLE.max(noise.from.abs().max(noise.to.abs()))
    }
}

fn apart(one: &[f64], other: &[f64]) -> Apart {
    let mut drawn: Vec<f64> = (0..DRAWN).map(|_| median_drawn(other) - median_drawn(one)).collect();
    drawn.sort_by(f64::total_cmp);
    let medians = percentile(other, 50) - percentile(one, 50);
    Apart { medians, from: drawn[DRAWN / 40], to: drawn[DRAWN - 1 - DRAWN / 40], t: welch(one, other) }
}

/// The median of as many as there are, drawn with putting back.
fn median_drawn(sorted: &[f64]) -> f64 {
    let mut drawn: Vec<f64> = (0..sorted.len() / 8)
        .flat_map(|_| doorbell::clock::random::<32>().as_chunks::<4>().0.to_vec())
        .map(|four| sorted[u32::from_be_bytes(four) as usize % sorted.len()])
        .collect();
    let middle = drawn.len() / 2;
    *drawn.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Welch's t, as in "dude, is my code constant time?", of what is faster than the slowest of both.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let mut both: Vec<f64> = one.iter().chain(other).copied().collect();
    both.sort_by(f64::total_cmp);
    let bound = both[((both.len() - 1) as f64 * (1.0 - SLOWEST)) as usize];
    let of = |times: &[f64]| {
        let kept: Vec<f64> = times.iter().copied().filter(|time| *time <= bound).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        (mean, kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0) / count)
    };
    let ((mean, error), (other_mean, other_error)) = (of(one), of(other));
    (other_mean - mean) / (error + other_error).sqrt()
}

fn row(question: &Question, kind: &str, unknown: &[f64], times: &[f64], found: &Apart, is_usable: bool) -> Vec<String> {
    let show = |sorted: &[f64], percent| format!("{:.0} µs", percentile(sorted, percent));
    vec![
        format!("`{} {}`", question.method, question.path.replace("{}", "{id}")),
        kind.to_owned(),
        show(unknown, 50),
        show(unknown, 99),
        show(times, 50),
        show(times, 99),
        format!("{:+.1} µs ({:+.1} to {:+.1})", found.medians, found.from, found.to),
        format!("{:+.1}", found.t),
        if is_usable { "yes" } else { "no" }.to_owned(),
    ]
}
