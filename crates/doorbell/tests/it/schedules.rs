//! Agents that the clock starts.

use std::collections::{BTreeMap, BTreeSet};

use doorbell_client::EventQuery;
use doorbell_client::api::{NewPause, NewResume};
use serde_json::Value;

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_until};

const EVERY_SECOND: &str = "[[schedules]]\ncron = \"* * * * * *\"\n";
const EVERY_MINUTE: &str = "[[schedules]]\ncron = \"* * * * *\"\n";

async fn ticks(gateway: &Gateway) -> Vec<doorbell_client::api::Event> {
    let query = EventQuery { source: Some("schedule".to_owned()), limit: Some(500), ..EventQuery::default() };
    gateway.client.events(&query).await.unwrap().events
}

/// As if the schedules had not been looked at for so many milliseconds: the gateway must be down.
fn turn_back(project: &Project, millis: i64, schedules: usize) {
    let database = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    let change = "UPDATE notes SET value = CAST(value AS INTEGER) - ?1 WHERE key LIKE 'schedule/%'";
    assert_eq!(database.execute(change, [millis]).unwrap(), schedules);
}

/// Waits until so many schedules are remembered.
async fn known(project: &Project, schedules: i64) {
    wait_until("the schedules are known", async || {
        let database = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
        let count = "SELECT count(*) FROM notes WHERE key LIKE 'schedule/%'";
        let count = database.query_row(count, (), |row| row.get::<_, i64>(0)).ok()?;
        (count == schedules).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_clock_starts_an_agent_that_webhooks_start_too_and_it_can_tell_them_apart() {
    let project = Project::new(ONE_SOURCE);
    let config = format!("timezone = \"Europe/Berlin\"\nscale = 8\n{EVERY_SECOND}[[webhooks]]\nsource = \"acme\"\n");
    project.agent("both", &config, "cat; grep -o '\"_webhook\":[a-z]*' \"$DOORBELL_EVENT_FILE\"");
    let gateway = project.serve();
    let ticked = wait_until("a tick", async || ticks(&gateway).await.pop()).await;
    assert_eq!(ticked.event_type, "schedule.tick");
    let run = ticked.outcomes[0].run_id.clone().unwrap();
    gateway.finished(&run).await;
    let said = gateway.stdout(&run).await;
    assert!(
        said.contains("\"event_type\": \"schedule.tick\"") && said.contains("\"timezone\": \"Europe/Berlin\""),
        "{said}"
    );
    assert!(said.contains("\"_webhook\":false") && said.contains("\"scheduled_for\": \"20"), "{said}");
    let run = gateway.ring(sample("issues.opened")).await.runs.remove(0);
    gateway.finished(&run).await;
    let said = gateway.stdout(&run).await;
    assert!(said.contains("github.issues.opened") && said.contains("\"_webhook\":true"), "{said}");
    let why = project.doorbell(&["why", &ticked.id]).output().unwrap();
    let why = String::from_utf8(why.stdout).unwrap();
    assert!(why.contains("its schedule names this time"), "{why}");
}

#[tokio::test]
async fn each_tick_starts_its_agent_once_however_often_the_gateway_is_killed() {
    let project = Project::new(ONE_SOURCE);
    project.agent("often", &format!("scale = 8\n{EVERY_SECOND}"), "true");
    for _ in 0..3 {
        let gateway = project.serve();
        let before = ticks(&gateway).await.len();
        wait_until("another tick", async || (ticks(&gateway).await.len() > before).then_some(())).await;
        gateway.kill();
    }
    let gateway = project.serve();
    wait_until("a tick after the kills", async || (ticks(&gateway).await.len() > 3).then_some(())).await;
    let mut times = Vec::new();
    for tick in ticks(&gateway).await {
        let body = gateway.client.event_body(&tick.id).await.unwrap();
        times.push(serde_json::from_slice::<Value>(&body).unwrap()["scheduled_for"].to_string());
        assert_eq!(tick.outcomes.len(), 1);
    }
    let all = times.len();
    times.sort();
    times.dedup();
    assert_eq!(times.len(), all, "{times:?}");
}

#[tokio::test]
async fn ticks_that_passed_while_the_gateway_was_down_are_made_up_for_as_the_schedule_says() {
    for (missed, expected) in [("skip", 0..=0), ("once", 1..=1), ("all", 100..=100)] {
        let project = Project::new(ONE_SOURCE);
        let schedule = format!("scale = 8\nwhen_full = \"grow\"\n{EVERY_MINUTE}missed = \"{missed}\"\n");
        project.agent("daily", &schedule, "true");
        let gateway = project.serve();
        let kept = || project.json(&["agents"])["agents"][0]["schedules"][0]["nextAt"].clone();
        assert!(kept().is_string());
        known(&project, 1).await;
        gateway.kill();
        // Three hours, and not a tick of this minute among them.
        turn_back(&project, 3 * 60 * 60 * 1000, 1);
        let gateway = project.serve();
        // A tick of this very minute may come besides, with none missed before it.
        let made_up = wait_until("what was missed", async || {
            let all = ticks(&gateway).await;
            (all.len() >= *expected.start()).then_some(all.len())
        })
        .await;
        assert!(expected.contains(&made_up) || expected.contains(&(made_up - 1)), "{missed}: {made_up}");
        if missed == "once" {
            let oldest = ticks(&gateway).await.pop().unwrap();
            let body = gateway.client.event_body(&oldest.id).await.unwrap();
            let passed = serde_json::from_slice::<Value>(&body).unwrap()["missed"].as_u64().unwrap();
            assert!((177..=180).contains(&passed), "{passed}");
        }
    }
}

/// Which changes of the clocks lie in the time that is made up for depends on the day; those of a year are played in the core's tests.
#[tokio::test]
async fn months_of_downtime_are_made_up_for_day_by_day_in_every_zone() {
    const DAYS: i64 = 95;
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
    let project = Project::new(ONE_SOURCE);
    for (n, zone) in zones.iter().enumerate() {
        let schedule = format!(
            "scale = 4\nwhen_full = \"grow\"\n[[schedules]]\ncron = \"15 2 * * *\"\ntimezone = \"{zone}\"\nmissed = \"all\"\n"
        );
        project.agent(&format!("daily-{n}"), &schedule, "true");
    }
    let gateway = project.serve();
    known(&project, 3).await;
    gateway.kill();
    turn_back(&project, DAYS * 24 * 60 * 60 * 1000, zones.len());
    let gateway = project.serve();
    // One less where the clocks were changed since, by an hour that it is now.
    let enough = zones.len() * DAYS as usize;
    let made_up = wait_until("what was missed", async || {
        let all = ticks(&gateway).await;
        (all.len() >= enough - 1).then_some(all)
    })
    .await;
    let mut days: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let count = made_up.len();
    for tick in made_up {
        let body: Value = serde_json::from_slice(&gateway.client.event_body(&tick.id).await.unwrap()).unwrap();
        let at: jiff::Timestamp = body["scheduled_for"].as_str().unwrap().parse().unwrap();
        let zone = body["timezone"].as_str().unwrap();
        let local = at.in_tz(zone).unwrap();
        assert!(["02:15:00", "02:30:00", "03:00:00"].contains(&local.time().to_string().as_str()), "{local}");
        assert!(days.entry(zone.to_owned()).or_default().insert(local.date().to_string()), "{local} twice");
    }
    // One more if a tick came in this very minute.
    assert!(days.len() == 3 && count <= enough + 3, "{count}");
    assert!(days.values().all(|days| days.len() >= DAYS as usize - 2), "{days:?}");
}

#[tokio::test]
async fn ticks_of_a_paused_agent_gather_in_a_held_run_and_those_of_a_disabled_one_are_skipped_visibly() {
    let project = Project::new(ONE_SOURCE);
    project.agent("often", &format!("scale = 8\n{EVERY_SECOND}"), "true");
    project.agent("off", &format!("scale = 0\n{EVERY_SECOND}"), "true");
    let gateway = project.serve();
    gateway.client.pause(Some("often"), &NewPause::default()).await.unwrap();
    let held = wait_until("a held run with a further tick", async || {
        let runs = gateway.runs().await;
        runs.into_iter().find(|run| run.agent == "often" && run.state == "held" && run.absorbed > 0)
    })
    .await;
    assert!(held.reason.unwrap().starts_with("paused by "));
    let held_runs = gateway.runs().await.into_iter().filter(|run| run.state == "held").count();
    assert_eq!(held_runs, 1, "the others go with it");
    let off = wait_until("a tick of the disabled one", async || {
        let all = ticks(&gateway).await;
        all.into_iter().find(|tick| tick.outcomes.iter().any(|outcome| outcome.agent == "off"))
    })
    .await;
    assert_eq!((off.outcomes[0].outcome.as_str(), &off.outcomes[0].run_id), ("skipped", &None));
    assert!(off.outcomes[0].reason.as_ref().unwrap().contains("scale = 0"));
    gateway.client.resume(Some("often"), &NewResume::default()).await.unwrap();
    assert_eq!(gateway.finished(&held.id).await.run.state, "succeeded");
}

#[tokio::test]
async fn a_clock_that_was_ahead_silences_no_schedule_and_starts_no_tick_twice() {
    const YEAR: i64 = 365 * 24 * 60 * 60 * 1000;
    let project = Project::new(ONE_SOURCE);
    project.agent("often", &format!("scale = 8\n{EVERY_SECOND}"), "true");
    let gateway = project.serve();
    wait_until("a tick", async || ticks(&gateway).await.pop()).await;
    gateway.kill();
    // In the second round as when a time really comes at which the clock had been ahead: its ticks were started.
    for millis in [-YEAR, 5000] {
        turn_back(&project, millis, 1);
        let gateway = project.serve();
        let before = ticks(&gateway).await.len();
        wait_until("further ticks", async || (ticks(&gateway).await.len() > before + 1).then_some(())).await;
        gateway.kill();
    }
    let gateway = project.serve();
    let mut times = Vec::new();
    for tick in ticks(&gateway).await {
        let body = gateway.client.event_body(&tick.id).await.unwrap();
        times.push(serde_json::from_slice::<Value>(&body).unwrap()["scheduled_for"].to_string());
        assert_eq!(tick.outcomes.len(), 1);
    }
    let distinct: std::collections::BTreeSet<&String> = times.iter().collect();
    assert_eq!(distinct.len(), times.len(), "{times:?}");
}
