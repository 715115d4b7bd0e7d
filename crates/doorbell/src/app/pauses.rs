//! What somebody paused: agents, or all of them, or sources. Kept in the store, so that a restart does not start what was stopped.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use doorbell_core::flow::Rate;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::store::{Admission, Error, Notes, PAUSED, Standing, Start, Store, Whose};

type All = BTreeMap<Paused, Pause>;

/// How the keys of pauses begin among the notes.
const PREFIX: &str = "pause/";

/// What is paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    /// Every agent.
    Project,
    /// One.
    Agent(String),
    /// What comes from a source.
    Source(String),
}

/// A pause, or the slow end of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, as they put it.
    pub why: Option<String>,
    /// It is over, and what was held goes on at this rate.
    pub resuming: Option<Rate>,
}

impl Pause {
    /// Why runs are held, as they say it themselves.
    pub fn reason(&self) -> String {
        match &self.why {
            Some(why) => format!("{PAUSED}{}: {why}", self.by),
            None => format!("{PAUSED}{}", self.by),
        }
    }
}

/// Everything that is paused.
#[derive(Debug, Default)]
pub struct Pauses {
    all: RwLock<All>,
    /// Held from a look to what is kept because of it: changes come to the store and to `all` in one order.
    changing: Mutex<()>,
}

impl Pauses {
    /// What the store remembers.
    pub fn load(notes: &[(String, String)]) -> Self {
        let read = |(key, text): &(String, String)| {
            let paused = match key.strip_prefix(PREFIX)?.split_once('/') {
                Some(("agent", name)) => Paused::Agent(name.to_owned()),
                Some(("source", name)) => Paused::Source(name.to_owned()),
                _ => Paused::Project,
            };
            Some((paused, serde_json::from_str(text).ok()?))
        };
        Self { all: RwLock::new(notes.iter().filter_map(read).collect()), changing: Mutex::default() }
    }

    fn all(&self) -> RwLockReadGuard<'_, All> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a pause, in place of an earlier one; durable when it answers.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn put(&self, store: &dyn Store, paused: Paused, pause: Pause) -> Result<(), Error> {
        self.put_if(store, paused, pause, |_| true).await.map(drop)
    }

    /// Keeps a pause if the one that there is, if any, is to be replaced; whether it was.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn put_if(
        &self,
        store: &dyn Store,
        paused: Paused,
        pause: Pause,
        replaces: impl FnOnce(Option<&Pause>) -> bool,
    ) -> Result<bool, Error> {
        let _changing = self.changing.lock().await;
        if !replaces(self.get(&paused).as_ref()) {
            return Ok(false);
        }
        // Nothing in it can fail to be JSON.
        let kept = vec![(key(&paused), serde_json::to_string(&pause).unwrap_or_default())];
        store.note(Notes { kept, ..Notes::default() }).await?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(paused, pause);
        Ok(true)
    }

    /// Ends a pause; whether there was one.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn remove(&self, store: &dyn Store, paused: &Paused) -> Result<bool, Error> {
        self.remove_if(store, paused, |_| true).await
    }

    /// Ends a pause if it is such a one; whether it was.
    ///
    /// # Errors
    /// If the store is unavailable; then nothing changed.
    pub async fn remove_if(
        &self,
        store: &dyn Store,
        paused: &Paused,
        ends: impl FnOnce(&Pause) -> bool,
    ) -> Result<bool, Error> {
        let _changing = self.changing.lock().await;
        if !self.get(paused).is_some_and(|pause| ends(&pause)) {
            return Ok(false);
        }
        store.note(Notes { dropped: vec![key(paused)], ..Notes::default() }).await?;
        Ok(self.all.write().unwrap_or_else(PoisonError::into_inner).remove(paused).is_some())
    }

    /// The pause of one thing.
    pub fn get(&self, paused: &Paused) -> Option<Pause> {
        self.all().get(paused).cloned()
    }

    /// The pause that holds an agent's runs: its own, or that of all; none if it is active or on its way back.
    pub fn holds(&self, agent: &str) -> Option<Pause> {
        let all = self.all();
        let found = [all.get(&Paused::Agent(agent.to_owned())), all.get(&Paused::Project)];
        found.into_iter().flatten().find(|pause| pause.resuming.is_none()).cloned()
    }

    /// Has what is to be started held, if its agent is paused.
    pub fn hold(&self, starts: &mut [Start]) {
        // Mostly nothing is.
        if self.all().is_empty() {
            return;
        }
        for start in starts {
            if let Some(pause) = self.holds(&start.agent)
                && !matches!(start.admission, Admission::Skip(_) | Admission::FilterError(_))
            {
                start.admission = Admission::Hold(pause.reason());
            }
        }
    }

    /// How an agent stands.
    pub fn standing(&self, agent: &str) -> Standing {
        match self.holds(agent) {
            Some(pause) => Standing::Paused(pause.reason()),
            None if self.get(&Paused::Agent(agent.to_owned())).is_some() => Standing::Resuming,
            None => Standing::Active,
        }
    }

    /// Why what comes from a source is held; none if it is not paused, or on its way back.
    pub fn of_source(&self, source: &str) -> Option<String> {
        let all = self.all();
        // Mostly nothing is.
        if all.is_empty() {
            return None;
        }
        let pause = all.get(&Paused::Source(source.to_owned())).filter(|pause| pause.resuming.is_none())?;
        Some(format!("its source `{source}` is {}", pause.reason()))
    }

    /// The sources that are paused or on their way back.
    pub fn sources(&self) -> Vec<String> {
        let all = self.all();
        let of = all.keys().filter_map(|paused| match paused {
            Paused::Source(source) => Some(source.clone()),
            Paused::Project | Paused::Agent(_) => None,
        });
        of.collect()
    }

    /// The agents and sources whose held runs go on little by little, and how fast.
    pub fn resuming(&self) -> Vec<(Whose, Rate)> {
        let all = self.all();
        if all.contains_key(&Paused::Project) {
            return Vec::new();
        }
        let slow = all.iter().filter_map(|(paused, pause)| match (paused, pause.resuming) {
            (Paused::Agent(agent), Some(rate)) => Some((Whose::Agent(agent.clone()), rate)),
            (Paused::Source(source), Some(rate)) => Some((Whose::Source(source.clone()), rate)),
            _ => None,
        });
        slow.collect()
    }
}

impl From<&Whose> for Paused {
    fn from(whose: &Whose) -> Self {
        match whose {
            Whose::Agent(agent) => Self::Agent(agent.clone()),
            Whose::Source(source) => Self::Source(source.clone()),
        }
    }
}

fn key(paused: &Paused) -> String {
    match paused {
        Paused::Project => format!("{PREFIX}project"),
        Paused::Agent(agent) => format!("{PREFIX}agent/{agent}"),
        Paused::Source(source) => format!("{PREFIX}source/{source}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn pause(by: &str, resuming: Option<Rate>) -> Pause {
        Pause { by: by.to_owned(), at: Timestamp::from_seconds(1), why: None, resuming }
    }

    #[tokio::test]
    async fn what_is_paused_stays_so_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::open("sqlite:doorbell.db", folder.path()).await.unwrap();
        let (one, all) = (Paused::Agent("one".to_owned()), Paused::Project);
        let pauses = Pauses::default();
        pauses.put(&*store, one.clone(), pause("ann", None)).await.unwrap();
        pauses.put(&*store, all.clone(), pause("bob", None)).await.unwrap();
        let again = Pauses::load(&store.notes(PREFIX).await.unwrap());
        assert_eq!(again.standing("one"), Standing::Paused("paused by ann".to_owned()));
        assert_eq!(again.standing("two"), Standing::Paused("paused by bob".to_owned()));
        assert!(again.remove(&*store, &all).await.unwrap());
        assert!(!again.remove(&*store, &all).await.unwrap());
        let rate = Rate { count: 2, window: Duration::from_secs(1) };
        again.put(&*store, one, pause("ann", Some(rate))).await.unwrap();
        let again = Pauses::load(&store.notes(PREFIX).await.unwrap());
        assert_eq!((again.standing("one"), again.standing("two")), (Standing::Resuming, Standing::Active));
        assert_eq!(again.resuming(), [(Whose::Agent("one".to_owned()), rate)]);
        again.put(&*store, Paused::Source("acme".to_owned()), pause("ann", None)).await.unwrap();
        let again = Pauses::load(&store.notes(PREFIX).await.unwrap());
        assert_eq!(again.of_source("acme").as_deref(), Some("its source `acme` is paused by ann"));
        assert_eq!((again.of_source("other"), again.standing("acme")), (None, Standing::Active));
    }

    #[tokio::test]
    async fn a_pause_that_came_meanwhile_does_not_end_with_the_slow_end_of_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::open("sqlite:doorbell.db", folder.path()).await.unwrap();
        let (one, pauses) = (Paused::Agent("one".to_owned()), Pauses::default());
        let slow = pause("ann", Some(Rate { count: 2, window: Duration::from_secs(1) }));
        pauses.put(&*store, one.clone(), slow.clone()).await.unwrap();
        pauses.put(&*store, one.clone(), pause("bob", None)).await.unwrap();
        assert!(!pauses.remove_if(&*store, &one, |pause| *pause == slow).await.unwrap());
        assert!(!pauses.put_if(&*store, one, pause("cid", None), |was| was.is_none()).await.unwrap());
        for pauses in [pauses, Pauses::load(&store.notes(PREFIX).await.unwrap())] {
            assert_eq!(pauses.standing("one"), Standing::Paused("paused by bob".to_owned()));
        }
    }
}
