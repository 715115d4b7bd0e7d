//! Agents that the clock starts.

use doorbell_client::EventQuery;
use serde_json::Value;

use crate::support::{Gateway, ONE_SOURCE, Project, sample, wait_until};

const EVERY_SECOND: &str = "[[schedules]]\ncron = \"* * * * * *\"\n";
const EVERY_MINUTE: &str = "[[schedules]]\ncron = \"* * * * *\"\n";

async fn ticks(gateway: &Gateway) -> Vec<doorbell_client::api::Event> {
    let query = EventQuery { source: Some("schedule".to_owned()), limit: Some(500), ..EventQuery::default() };
    gateway.client.events(&query).await.unwrap().events
}

/// As if the schedules had not been looked at for so many milliseconds: the gateway must be down.
fn turn_back(project: &Project, millis: i64) {
    let database = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
    let change = "UPDATE notes SET value = CAST(value AS INTEGER) - ?1 WHERE key LIKE 'schedule/%'";
    assert_eq!(database.execute(change, [millis]).unwrap(), 1);
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
        wait_until("the schedule is known", async || {
            let database = rusqlite::Connection::open(project.path(".doorbell/doorbell.db")).unwrap();
            database.query_row("SELECT 1 FROM notes WHERE key LIKE 'schedule/%'", (), |_| Ok(())).ok()
        })
        .await;
        gateway.kill();
        // Three hours, and not a tick of this minute among them.
        turn_back(&project, 3 * 60 * 60 * 1000);
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
        turn_back(&project, millis);
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
