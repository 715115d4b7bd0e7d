//! Metrics: what is documented is there and the other way round, and every query of the dashboard and the alerts finds
//! what it asks for in a gateway to which everything happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::promql::{self, Matcher, Query};
use crate::support::{Gateway, ONE_SOURCE, Project, fresh_id, issue, processes_of, sample, sample_as, wait_until};

/// Deliveries that are refused: many more than are kept in the time that it takes to send them.
const FORGED: usize = 200;

const ANY: &str = "[[webhooks]]\nsource = \"acme\"\n";

/// Labels that Prometheus itself adds, and that of a histogram's buckets.
const ADDED: [&str; 3] = ["instance", "job", "le"];

fn repository(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
}

/// A scrape: kinds by name, and the samples.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

async fn scrape(gateway: &Gateway) -> Scrape {
    read(&reqwest::get(format!("{}/metrics", gateway.url)).await.unwrap().text().await.unwrap())
}

fn read(text: &str) -> Scrape {
    let mut scrape = Scrape::default();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(before, None, "{name} is there twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
            let labels = pairs.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()));
            let (name, value) = (name.to_owned(), value.parse().unwrap());
            scrape.samples.push(Sample { name, labels: labels.collect(), value });
        }
    }
    scrape
}

impl Scrape {
    /// The sum of what has these labels.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.samples.iter().filter(|sample| sample.name == name);
        let has = |sample: &&Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        };
        all.filter(has).map(|sample| sample.value).sum()
    }

    /// The kind of the metric that a series belongs to.
    fn kind_of(&self, series: &str) -> Option<&str> {
        let stem = |end: &str| self.kinds.get(series.strip_suffix(end)?).map(String::as_str);
        let histogram = ["_bucket", "_count", "_sum"].into_iter().find_map(stem).filter(|kind| *kind == "histogram");
        let counter = stem("_total").filter(|kind| *kind == "counter");
        let info = stem("_info").filter(|kind| *kind == "info");
        histogram.or(counter).or(info).or(self.kinds.get(series).map(String::as_str))
    }

    /// As `docs/metrics.md` has them: name, kind, labels.
    fn rows(&self) -> BTreeSet<(String, String, Vec<String>)> {
        let row = |(name, kind): (&String, &String)| {
            let end = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let own = |sample: &&Sample| {
                sample.name.strip_prefix(name.as_str()).is_some_and(|rest| ["", end, "_bucket"].contains(&rest))
            };
            let labels: BTreeSet<&String> = self.samples.iter().filter(own).flat_map(|s| s.labels.keys()).collect();
            let labels = labels.into_iter().filter(|label| *label != "le").cloned().collect();
            (format!("{name}{end}"), kind.clone(), labels)
        };
        self.kinds.iter().map(row).collect()
    }
}

/// A project in which everything that is counted happens, and its gateway after it did.
async fn eventful() -> (Project, Gateway) {
    let project = Project::new(ONE_SOURCE);
    project.agent("fails", ANY, "exit 1");
    project.agent("off", &format!("scale = 0\n{ANY}"), "true");
    project.agent("lost", &format!("{ANY}events = [\"release\"]\n"), "test $DOORBELL_ATTEMPT = 2 || sleep 1000");
    project.agent(
        "busy",
        &format!("work_queue_size = 1\n{ANY}events = [\"push\"]\n"),
        "while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done",
    );
    let retries = "[retries]\nattempts = 2\nbackoff = { initial = \"10m\" }\n";
    project.agent("waits", &format!("{ANY}events = [\"release\"]\n{retries}"), "exit 1");
    project.agent("gone", &format!("{ANY}events = [\"release\"]\n{retries}"), "exit 1");
    project.agent("slow", &format!("{ANY}events = [\"push\"]\nthrottle = \"1/1h\"\n"), "true");
    project.agent("loops", &format!("{ANY}events = [\"push\"]\nkey = '\"one\"'\nmax_per_key = \"1/1h\"\n"), "true");
    project.write("home/hold", "");
    let gateway = project.serve();
    let runs = gateway.ring(sample("release.published")).await.runs;
    for run in &runs {
        wait_until("the waiting ones to wait", async || {
            let run = gateway.client.run(run).await.unwrap().run;
            (run.state == "waiting" || !["waits", "gone"].contains(&run.agent.as_str())).then_some(())
        })
        .await;
    }
    wait_until("the try that will be lost", async || {
        let runs = gateway.runs().await;
        let lost = runs.iter().find(|run| run.agent == "lost" && run.state == "running")?;
        (!processes_of(&lost.id).is_empty()).then_some(())
    })
    .await;
    gateway.kill();
    std::fs::remove_dir_all(project.path("agents/gone")).unwrap();
    let gateway = project.serve();
    wait_until("the lost one to go on", async || {
        let runs = gateway.runs().await;
        runs.iter().any(|run| run.agent == "lost" && run.state == "succeeded").then_some(())
    })
    .await;
    (project, gateway)
}

#[tokio::test]
async fn everything_that_is_counted_is_documented_and_asked_for_rightly() {
    let (project, gateway) = eventful().await;
    let id = fresh_id();
    let first = gateway.ring(sample_as("issues.opened", &id)).await;
    gateway.ring(sample_as("issues.opened", &id)).await;
    for run in &first.runs {
        gateway.finished(run).await;
    }
    // One runs, one is queued, and each further one displaces that.
    let running = gateway.ring(sample("push")).await.runs;
    let busy =
        async |state: &str| gateway.runs().await.into_iter().find(|run| run.agent == "busy" && run.state == state);
    wait_until("one to run", async || busy("running").await).await;
    for _ in 0..3 {
        gateway.ring(sample("push")).await;
    }
    futures_util::future::join_all((0..FORGED).map(|_| {
        let mut forged = issue("forged");
        forged.body = b"{}".to_vec().into();
        gateway.send("/v1/webhooks/github/acme", forged)
    }))
    .await;
    gateway.send("/v1/webhooks/github/nobody", sample("push")).await;
    gateway.client.pause_source("acme", &doorbell_client::api::NewPause::default()).await.unwrap();
    let seen = wait_until("the failed tries to be counted", async || {
        let seen = scrape(&gateway).await;
        // Issue, release, four pushes.
        (seen.value("doorbell_dead_letters_total", &[("agent", "fails")]) >= 5.0).then_some(seen)
    })
    .await;
    assert_counts(&seen);
    let documented = documented();
    assert_eq!(seen.rows(), documented, "docs/metrics.md: run the tests once with UPDATE_DOCS=1");
    let mut queries = dashboard();
    queries.extend(alerts());
    for (place, text) in queries {
        let query = promql::parse(&text).unwrap_or_else(|error| panic!("{place}: {text}\n{error}"));
        assert_finds(&seen, &place, &query);
    }
    std::fs::remove_file(project.path("home/hold")).unwrap();
    for run in running {
        gateway.finished(&run).await;
    }
}

fn assert_counts(seen: &Scrape) {
    let acme = |outcome| seen.value("doorbell_deliveries_total", &[("source", "acme"), ("outcome", outcome)]);
    assert_eq!((acme("accepted"), acme("duplicate"), acme("rejected")), (5.0, 1.0, FORGED as f64));
    let kept = FORGED as f64 - seen.value("doorbell_rejections_suppressed_total", &[("source", "acme")]);
    assert!((50.0..FORGED as f64).contains(&kept), "{kept}");
    assert_eq!(seen.value("doorbell_requests_without_source_total", &[]), 1.0);
    assert_eq!(seen.value("doorbell_accept_seconds_count", &[("source", "acme")]), 6.0);
    let outcomes = |agent, outcome| seen.value("doorbell_outcomes_total", &[("agent", agent), ("outcome", outcome)]);
    assert_eq!((outcomes("off", "skipped"), outcomes("off", "started")), (5.0, 0.0));
    assert_eq!(outcomes("busy", "started"), 4.0);
    let busy = |name, state| seen.value(name, &[("agent", "busy"), ("state", state)]);
    assert_eq!((busy("doorbell_runs", "running"), busy("doorbell_runs", "queued")), (1.0, 1.0));
    assert_eq!(busy("doorbell_runs_ended_total", "dropped"), 2.0);
    assert!(seen.value("doorbell_oldest_queued_seconds", &[("agent", "busy")]) > 0.0);
    let held = |agent, cause| seen.value("doorbell_held_runs", &[("agent", agent), ("cause", cause)]);
    assert_eq!((held("loops", "key_limit"), held("gone", "agent_removed"), held("loops", "other")), (3.0, 1.0, 0.0));
    assert_eq!(seen.value("doorbell_throttled_runs", &[("agent", "slow")]), 3.0);
    assert!(seen.value("doorbell_throttled_seconds", &[("agent", "slow")]) > 3000.0);
    assert!(seen.value("doorbell_failing_runs", &[("agent", "fails")]) >= 5.0);
    assert_eq!(seen.value("doorbell_failing_runs", &[("agent", "lost")]), 0.0);
    assert_eq!(seen.value("doorbell_source_paused", &[("source", "acme")]), 1.0);
    assert_eq!(seen.value("doorbell_run_wait_seconds_count", &[("agent", "busy")]), 1.0);
    assert_eq!(seen.value("doorbell_attempts_ended_total", &[("agent", "lost"), ("ended", "lost")]), 1.0);
    assert_eq!(seen.value("doorbell_agent_scale", &[("agent", "off")]), 0.0);
    assert_eq!(seen.value("doorbell_store_up", &[]), 1.0);
    assert!(seen.value("doorbell_http_connections", &[]) >= 1.0);
    for something in [
        "doorbell_store_commit_seconds_count",
        "doorbell_store_sync_seconds_sum",
        "doorbell_store_commit_operations_sum",
        "doorbell_store_database_bytes",
        "doorbell_store_available_bytes",
        "doorbell_http_body_limit_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
    ] {
        assert!(seen.value(something, &[]) > 0.0, "{something}");
    }
}

/// The table of `docs/metrics.md`.
fn documented() -> BTreeSet<(String, String, Vec<String>)> {
    let rows = repository("docs/metrics.md");
    let rows = rows.lines().filter(|line| line.starts_with("| `"));
    let plain = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').splitn(4, '|').collect();
        let labels = cells[2].split(',').map(plain).filter(|label| !label.is_empty()).collect();
        (plain(cells[0]), plain(cells[1]), labels)
    })
    .collect()
}

/// Whether a query asks for what there is, in the way that its kind wants.
fn assert_finds(seen: &Scrape, place: &str, query: &Query) {
    let mut labels: BTreeSet<&str> = ADDED.into();
    for selector in &query.selectors {
        let metric = selector.metric.as_str();
        // Prometheus' own, for each target.
        if metric == "up" {
            continue;
        }
        let kind = seen.kind_of(metric).unwrap_or_else(|| panic!("{place}: there is no {metric}"));
        let rises = ["counter", "histogram"].contains(&kind);
        let of_rise = matches!(selector.within.as_deref(), Some("rate" | "increase"));
        assert_eq!(rises, of_rise, "{place}: {metric} is a {kind}");
        let ranged = of_rise || selector.within.as_deref() == Some("predict_linear");
        assert_eq!(selector.has_range, ranged, "{place}: {metric}");
        let series: Vec<&Sample> = seen.samples.iter().filter(|sample| sample.name == metric).collect();
        labels.extend(series.iter().flat_map(|sample| sample.labels.keys()).map(String::as_str));
        for Matcher { label, operator, value } in &selector.matchers {
            let there = ADDED.contains(&label.as_str()) || series.iter().any(|s| s.labels.contains_key(label));
            assert!(there, "{place}: {metric} has no label {label}");
            // What stands there word for word must have happened; a dashboard's variables begin with `$`.
            for word in value.split('|').filter(|word| !word.starts_with('$') && !ADDED.contains(&label.as_str())) {
                assert!(["=", "=~"].contains(&operator.as_str()), "{place}: {operator}");
                let found = series.iter().any(|sample| sample.labels.get(label).is_some_and(|value| value == word));
                assert!(found, "{place}: {metric} never has {label}=\"{word}\"");
            }
        }
    }
    for label in &query.grouped_by {
        assert!(labels.contains(label.as_str()), "{place}: nothing has a label {label}");
    }
}

/// The dashboard's queries, by panel.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&repository("deploy/grafana/doorbell.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            queries.push((format!("dashboard, {title}"), query));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap().iter().skip(1) {
        let values = variable["definition"].as_str().unwrap();
        let asked = values.strip_prefix("label_values(").and_then(|asked| asked.strip_suffix(')')).unwrap();
        let (metric, label) = asked.split_once(", ").unwrap();
        let (rate, end) = if metric.ends_with("_total") { ("rate(", "[5m])") } else { ("", "") };
        queries.push((format!("variable of {label}"), format!("sum by ({label}) ({rate}{metric}{end})")));
    }
    assert!(queries.len() > 40, "{}", queries.len());
    queries
}

/// The alerts' queries, by alert. Each alert says how bad it is, what happened, and what to do.
fn alerts() -> Vec<(String, String)> {
    let text = repository("deploy/prometheus/alerts.yml");
    let mut alerts = Vec::new();
    for rule in text.split("      - alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let mut lines = rule.lines().skip_while(|line| !line.starts_with("        expr: "));
        let first = lines.next().unwrap_or_else(|| panic!("{name} has no expr"));
        let first = first.trim().strip_prefix("expr: ").unwrap();
        let more = lines.take_while(|line| line.starts_with("          ")).map(str::trim);
        let query = std::iter::once(first).filter(|first| *first != ">-").chain(more).collect::<Vec<_>>().join(" ");
        for wanted in ["        labels: { severity: ", "          summary: \"", "          action: \""] {
            assert!(rule.lines().any(|line| line.starts_with(wanted)), "{name} has no {}", wanted.trim());
        }
        alerts.push((format!("alert {name}"), query));
    }
    assert!(alerts.len() > 10, "{}", alerts.len());
    alerts
}

#[test]
fn promtool_takes_the_alert_rules() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/alerts.yml");
    // It comes with Debian's `prometheus`; without it, the queries are still read by the other test.
    match Command::new("promtool").arg("check").arg("rules").arg(file).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}

#[tokio::test]
async fn series_are_there_before_anything_happens_and_no_sender_makes_any() {
    let project = Project::new(ONE_SOURCE);
    project.agent("triage", ANY, "true");
    let gateway = project.serve();
    let before = scrape(&gateway).await;
    let has = |name: &str, labels: &[(&str, &str)]| {
        before.samples.iter().any(|sample| {
            sample.name == name && labels.iter().all(|(l, value)| sample.labels.get(*l).is_some_and(|v| v == value))
        })
    };
    assert!(has("doorbell_deliveries_total", &[("source", "acme"), ("outcome", "accepted")]));
    assert!(has("doorbell_runs", &[("agent", "triage"), ("state", "queued")]));
    assert!(has("doorbell_dead_letters_total", &[("agent", "triage")]));
    for n in 0..20 {
        gateway.send(&format!("/webhooks/unknown-{n}"), sample("push")).await;
        gateway.send(&format!("/v1/webhooks/github/unknown-{n}"), sample("push")).await;
    }
    let after = scrape(&gateway).await;
    let series = |scrape: &Scrape| -> BTreeSet<String> {
        scrape.samples.iter().map(|sample| format!("{} {:?}", sample.name, sample.labels)).collect()
    };
    assert_eq!(series(&after), series(&before));
    assert_eq!(after.value("doorbell_requests_without_source_total", &[]), 40.0);
}

#[tokio::test]
async fn counts_of_runs_are_right_after_a_restart() {
    let project = Project::new(ONE_SOURCE);
    let slow = format!("work_queue_size = 10\n{ANY}");
    project.agent("slow", &slow, "while ls $HOME/hold >/dev/null 2>&1; do sleep 0.01; done");
    project.write("home/hold", "");
    let gateway = project.serve();
    for _ in 0..4 {
        gateway.ring(sample("push")).await;
    }
    wait_until("one to run", async || {
        (scrape(&gateway).await.value("doorbell_runs", &[("state", "running")]) == 1.0).then_some(())
    })
    .await;
    gateway.kill();
    let gateway = project.serve();
    let all = wait_until("the lost one to run again", async || {
        let seen = scrape(&gateway).await;
        let of = |state| seen.value("doorbell_runs", &[("agent", "slow"), ("state", state)]);
        (of("running") == 1.0).then(|| of("running") + of("queued"))
    })
    .await;
    assert_eq!(all, 4.0);
    std::fs::remove_file(project.path("home/hold")).unwrap();
    let ended = wait_until("all to end", async || {
        let seen = scrape(&gateway).await;
        (seen.value("doorbell_runs", &[("agent", "slow")]) == 0.0).then_some(seen)
    })
    .await;
    assert_eq!(ended.value("doorbell_runs_ended_total", &[("agent", "slow"), ("state", "succeeded")]), 4.0);
    assert_eq!(ended.value("doorbell_oldest_queued_seconds", &[("agent", "slow")]), 0.0);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_seen_and_the_rest_still_is() {
    let project = Project::new(ONE_SOURCE);
    let gateway = project.serve();
    gateway.ring(sample("push")).await;
    let locked = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let down = wait_until("the store to be down", async || {
        let seen = scrape(&gateway).await;
        (seen.value("doorbell_store_up", &[]) == 0.0).then_some(seen)
    })
    .await;
    assert_eq!(down.value("doorbell_deliveries_total", &[("outcome", "accepted")]), 1.0);
    assert!(down.value("doorbell_store_database_bytes", &[]) > 0.0);
    locked.execute_batch("ROLLBACK").unwrap();
    wait_until("the store to be up again", async || {
        (scrape(&gateway).await.value("doorbell_store_up", &[]) == 1.0).then_some(())
    })
    .await;
}
