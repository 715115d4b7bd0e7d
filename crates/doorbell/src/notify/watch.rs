//! The watch: what happened since the last look, as reports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doorbell_core::event::OWN;
use doorbell_core::time::Timestamp;

use super::habit::Habit;
use super::message::Report;
use crate::app::{App, Arrivals};
use crate::config::Topic;
use crate::store::{DeadLetter, Error, EventQuery};

/// What the habits' keys in the store begin with, and the key of the time of the newest look.
const PREFIX: &str = "habit/";
const ALIVE: &str = "alive";

/// Characters that a message has of what is wrong with a configuration.
const MOST_SAID: usize = 2000;

/// No time at all.
const NEVER: Timestamp = Timestamp::from_millis(0);
/// How long habits may differ from what is stored of them.
const KEEP: Duration = Duration::from_secs(60);
/// A time without looks that is longer is one in which no gateway ran, or the machine slept.
const UNWATCHED: Duration = Duration::from_secs(120);
/// How long the store may take to say whether it works.
const PATIENCE: Duration = Duration::from_secs(3);
/// Looks in a row at which the store did not work, until that is told.
const DOWN: u32 = 2;
/// The newest events of a source that its habit is learnt from, and how many are read in one go.
const MOST_LEARNT: usize = 2000;
const PAGE: usize = 500;

/// What is known of the sources and of the store.
#[derive(Debug, Default)]
pub(super) struct Watch {
    habits: BTreeMap<String, Habit>,
    /// Sources that are not there any more, and whose habits are still stored.
    gone: BTreeSet<String>,
    /// When it was looked last; [`NEVER`]: that is not known.
    alive: Timestamp,
    /// When habits were stored last.
    kept: Timestamp,
    /// Looks in a row at which the store did not work.
    down: u32,
    /// Whether the newest saved configuration was refused, and that was reported.
    reload_failed: bool,
}

impl Watch {
    /// As it was stored.
    pub(super) fn load(notes: &[(String, String)]) -> Self {
        let habit = |(key, text): &(String, String)| {
            let source = key.strip_prefix(PREFIX)?;
            match serde_json::from_str(text) {
                Ok(habit) => Some((source.to_owned(), habit)),
                Err(error) => {
                    tracing::error!(source, %error, "habit.unreadable: it is learnt again");
                    None
                }
            }
        };
        let alive = notes.iter().find(|(key, _)| key == ALIVE).and_then(|(_, at)| at.parse().ok());
        Self { habits: notes.iter().filter_map(habit).collect(), alive: alive.unwrap_or(NEVER), ..Self::default() }
    }

    /// Learns the habits of sources that are new here from what is stored of them. Where nobody is told, nothing is read.
    pub(super) async fn learn(&mut self, app: &App, now: Timestamp) -> Result<(), Error> {
        let in_force = app.current();
        if in_force.config.notifications.is_empty() {
            return Ok(());
        }
        for source in in_force.config.sources.keys() {
            if !self.habits.contains_key(source) {
                let times = times_of(app, source).await?;
                self.habits.insert(source.clone(), Habit::learn(&times, now));
            }
        }
        Ok(())
    }

    /// What there is to tell of sources and of reloads.
    pub(super) fn look(&mut self, app: &App, now: Timestamp) -> Vec<Report> {
        let gap = now.since(self.alive);
        if self.alive != NEVER && gap > UNWATCHED {
            self.habits.values_mut().for_each(|habit| habit.was_unwatched(gap));
        }
        self.alive = now;
        let mut taken = app.signs.take();
        let mut reports = Vec::new();
        let in_force = app.current();
        let sources = &in_force.config.sources;
        let is_gone = |source: &&String| !sources.contains_key(*source);
        self.gone.extend(self.habits.keys().filter(is_gone).cloned());
        self.habits.retain(|source, _| sources.contains_key(source));
        for source in sources.keys() {
            let came: Arrivals = taken.arrivals.remove(source).unwrap_or_default();
            // One that is new is learnt as soon as the store says what it has of it.
            let Some(habit) = self.habits.get_mut(source) else { continue };
            for change in habit.look(source, &came, now) {
                let report = report(change.on, change.ended, change.text, now);
                reports.push(Report { source: Some(source.clone()), ..report });
            }
        }
        reports.extend(taken.breakers.into_iter().map(|(agent, why)| of_breaker(agent, why, now)));
        reports.extend(taken.reload.and_then(|outcome| self.look_at_reload(outcome, now)));
        reports
    }

    fn look_at_reload(&mut self, outcome: Result<(), String>, now: Timestamp) -> Option<Report> {
        let Err(why) = outcome else {
            let ended = std::mem::take(&mut self.reload_failed);
            return ended.then(|| report(Topic::Reload, true, "The saved configuration is taken over".to_owned(), now));
        };
        self.reload_failed = true;
        let why: String = why.chars().take(MOST_SAID).collect();
        let text = format!("The saved configuration is not taken over, the one before stays in force: {why}");
        Some(report(Topic::Reload, false, text, now))
    }

    /// Asks the store whether it takes writes, which costs it one; what there is to tell of that. Where nobody is told, it is
    /// not asked.
    ///
    /// # Errors
    /// If it does not: with what there is to tell.
    pub(super) async fn ask_the_store(&mut self, app: &App, now: Timestamp) -> Result<Vec<Report>, Vec<Report>> {
        if app.current().config.notifications.is_empty() {
            self.down = 0;
            return Ok(Vec::new());
        }
        let why = match tokio::time::timeout(PATIENCE, app.store.health(now)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.with_causes()),
            Err(_) => Some(format!("it does not answer within {} s", PATIENCE.as_secs())),
        };
        let Some(why) = why else {
            let ended = std::mem::take(&mut self.down) >= DOWN;
            let text = "The store takes writes again".to_owned();
            return Ok(ended.then(|| report(Topic::Store, true, text, now)).into_iter().collect());
        };
        self.down = self.down.saturating_add(1);
        let text = format!("Nothing can be stored, so senders get 503 and come again: {why}");
        Err((self.down == DOWN).then(|| report(Topic::Store, false, text, now)).into_iter().collect())
    }

    /// Whether the store took writes at the last look.
    pub(super) fn store_works(&self) -> bool {
        self.down == 0
    }

    /// Keys and values to store, and keys to forget; none if they were stored a moment ago, unless `all`.
    pub(super) fn changes(&self, now: Timestamp, all: bool) -> (Vec<(String, String)>, Vec<String>) {
        if self.alive == NEVER || !(all || now.since(self.kept) >= KEEP) {
            return (Vec::new(), Vec::new());
        }
        let habit = |(source, habit): (&String, &Habit)| {
            serde_json::to_string(habit).ok().map(|text| (format!("{PREFIX}{source}"), text))
        };
        let alive = (ALIVE.to_owned(), self.alive.to_string());
        let gone = self.gone.iter().filter(|source| !self.habits.contains_key(*source));
        let forgotten = gone.map(|source| format!("{PREFIX}{source}")).collect();
        (self.habits.iter().filter_map(habit).chain([alive]).collect(), forgotten)
    }

    /// The changes are stored.
    pub(super) fn stored(&mut self, now: Timestamp) {
        self.kept = now;
        self.gone.clear();
    }
}

/// The times of the newest events of a source, newest first.
async fn times_of(app: &App, source: &str) -> Result<Vec<Timestamp>, Error> {
    let (mut times, mut before) = (Vec::new(), None);
    while times.len() < MOST_LEARNT {
        let query = EventQuery { source: Some(source.to_owned()), before, limit: PAGE, ..EventQuery::default() };
        let page = app.store.events(query).await?;
        before = page.last().map(|event| event.seq);
        times.extend(page.iter().map(|event| event.received_at));
        if page.len() < PAGE {
            break;
        }
    }
    Ok(times)
}

/// A dead letter as it is told, but for the reason: see [`super::sending`].
pub(super) fn report_of(letter: &DeadLetter) -> Report {
    let run = &letter.run;
    let text = format!("{} of agent `{}` used up its tries", run.id, run.agent);
    let at = run.finished_at.unwrap_or(run.created_at);
    Report {
        agent: Some(run.agent.clone()),
        source: Some(letter.source.clone()),
        run: Some(run.id),
        of_notification: run.event_type.split('.').next() == Some(OWN),
        ..report(Topic::DeadLetter, false, text, at)
    }
}

/// What became of what keeps the runs of an agent waiting. The end of what nobody was told of, e.g. the first answer after a start, is no news.
fn of_breaker(agent: String, why: Option<String>, now: Timestamp) -> Report {
    let text = match &why {
        Some(why) => format!("The runs of agent `{agent}` wait: {why}"),
        None => format!("The runs of agent `{agent}` wait no more: it is reached again"),
    };
    Report { agent: Some(agent), ..report(Topic::Breaker, why.is_none(), text, now) }
}

fn report(on: Topic, ended: bool, text: String, at: Timestamp) -> Report {
    Report { on, ended, agent: None, source: None, run: None, text, at, of_notification: false }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Environment, load};

    #[tokio::test]
    async fn a_gateway_that_tells_nobody_writes_nothing_to_find_out_whether_it_can() {
        const RECEIVER: &str = "[[notifications]]\nto = { command = [\"true\"] }\n";
        for (text, writes) in [("", false), (RECEIVER, true)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.toml"), text).unwrap();
            let config = load(folder.path(), &Environment::default(), &[]).unwrap();
            let store = crate::store::open("sqlite:doorbell.db", folder.path()).await.unwrap();
            let app = App::new(config, store).await.unwrap();
            let before = app.store.space().await.unwrap().log;
            assert!(Watch::default().ask_the_store(&app, Timestamp::from_seconds(1)).await.is_ok());
            assert_eq!(app.store.space().await.unwrap().log != before, writes, "{text}");
        }
    }

    #[tokio::test]
    async fn the_habit_of_a_source_that_is_gone_is_forgotten_in_the_store_too() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), "").unwrap();
        let config = load(folder.path(), &Environment::default(), &[]).unwrap();
        let store = crate::store::open("sqlite:doorbell.db", folder.path()).await.unwrap();
        let app = App::new(config, store).await.unwrap();
        let now = Timestamp::from_seconds(1000);
        let mut watch = Watch { habits: [("gone".to_owned(), Habit::learn(&[], now))].into(), ..Watch::default() };
        watch.look(&app, now);
        let (kept, forgotten) = watch.changes(now, true);
        assert_eq!(forgotten, ["habit/gone"]);
        assert!(!kept.iter().any(|(key, _)| key == "habit/gone"));
        watch.stored(now);
        assert!(watch.changes(now, true).1.is_empty(), "once");
    }

    #[tokio::test]
    async fn habits_are_not_learnt_where_nobody_is_told() {
        const RECEIVER: &str = "[[notifications]]\nto = { command = [\"true\"] }\n";
        const SOURCE: &str = "[webhooks.acme]\ntype = \"generic\"\nallow_unsigned = true\n";
        for (text, learnt) in [(SOURCE.to_owned(), 0), (format!("{RECEIVER}{SOURCE}"), 1)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.toml"), &text).unwrap();
            let config = load(folder.path(), &Environment::default(), &[]).unwrap();
            let store = crate::store::open("sqlite:doorbell.db", folder.path()).await.unwrap();
            let app = App::new(config, store).await.unwrap();
            let mut watch = Watch::default();
            watch.learn(&app, Timestamp::from_seconds(1)).await.unwrap();
            assert_eq!(watch.habits.len(), learnt, "{text}");
        }
    }

    #[test]
    fn a_refused_configuration_is_reported_and_one_that_is_taken_over_ends_it() {
        let (mut watch, now) = (Watch::default(), Timestamp::from_seconds(1));
        assert!(watch.look_at_reload(Ok(()), now).is_none());
        let refused = watch.look_at_reload(Err(format!("line 3: {}", "x".repeat(9000))), now).map(|told| told.text);
        assert!(refused.is_some_and(|text| text.contains("line 3") && text.len() < 2200));
        assert_eq!(watch.look_at_reload(Ok(()), now).map(|told| told.ended), Some(true));
        assert!(watch.look_at_reload(Ok(()), now).is_none());
    }

    #[test]
    fn what_is_remembered_reads_back_and_what_cannot_be_read_is_learnt_again() {
        let watch = Watch {
            habits: [("acme".to_owned(), Habit::learn(&[], Timestamp::from_seconds(1)))].into(),
            alive: Timestamp::from_seconds(100),
            ..Watch::default()
        };
        let (mut notes, _) = watch.changes(Timestamp::from_seconds(100), true);
        notes.push(("habit/lab".to_owned(), "nonsense".to_owned()));
        let again = Watch::load(&notes);
        assert_eq!((again.habits, again.alive), (watch.habits, watch.alive));
    }
}
