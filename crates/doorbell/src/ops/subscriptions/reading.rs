//! Events from a place on, in the order of commits: for polls, streams and subscriptions alike.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::event::Context;
use doorbell_core::source::Source;
use doorbell_core::time::Timestamp;
use doorbell_core::trigger::{Candidate, Trigger};
use serde_json::{Map, Value};

use super::events;
use crate::app::subscriptions::{Subscriber, trigger_of};
use crate::app::{App, Caller, Snapshot};
use crate::clock;
use crate::ops::Error;
use crate::ops::pauses::may_see_source;
use crate::store::{EventQuery, StoredEvent};

/// Events that are read at once.
const STEP: usize = 500;
/// Bytes of arguments at most.
const LARGEST_ARGUMENTS: usize = 8 * 1024;
/// Events of one poll, if nobody says how many, and at most.
const POLLED: usize = 100;
const MOST_POLLED: usize = 500;
/// Steps of one poll: what is behind them is for the next one.
const MOST_STEPS: usize = 10;
/// Bytes of the contexts of one poll, about.
const LARGEST_POLL: usize = 1024 * 1024;

/// Which events: of one source, some of them, and only those that the caller may see.
#[derive(Debug, Clone)]
pub struct Scope {
    source: String,
    /// Who reads: what that may see is looked up at each reading.
    reader: Caller,
    trigger: Trigger,
}

/// A place to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The sequence of the last event before it.
    pub seq: i64,
    /// Whether it is later than was asked for.
    pub truncated: bool,
}

/// Some events, oldest first.
#[derive(Debug)]
pub struct Page {
    /// Those that are wanted.
    pub events: Vec<StoredEvent>,
    /// The sequence up to which events were looked at.
    pub reached: i64,
    /// Whether there may be more.
    pub more: bool,
}

/// What a poll has.
#[derive(Debug)]
pub struct Polled {
    /// The events.
    pub page: Page,
    /// Whether it begins later than was asked for.
    pub truncated: bool,
}

impl Scope {
    /// What a caller asks for.
    ///
    /// # Errors
    /// If there is no such source for it, or the arguments are not clear.
    pub fn of(app: &App, caller: &Caller, source: &str, arguments: &Map<String, Value>) -> Result<Self, Error> {
        let in_force = app.current();
        let found = in_force.config.sources.get(source).filter(|_| may_see_source(&in_force, caller, source));
        check(found.ok_or(Error::NotFound("event type"))?, arguments)?;
        let trigger = trigger_of(&in_force.config, source, arguments);
        let trigger = trigger.map_err(|what| Error::Invalid(format!("`arguments`: {what}")))?;
        Ok(Self { source: source.to_owned(), reader: caller.clone(), trigger })
    }

    /// What a subscription asks for; none while that means nothing, or its key is gone.
    pub(super) fn of_subscriber(app: &App, subscriber: &Subscriber) -> Option<Self> {
        let (subscription, trigger) = (&subscriber.subscription, subscriber.trigger.clone()?);
        let reader = app.access.caller_of(subscription.key)?;
        Some(Self { source: subscription.source.clone(), reader, trigger })
    }

    /// Where to begin: behind a cursor, and not with what is older than is wanted; without one, with what comes now.
    ///
    /// # Errors
    /// If the cursor is none, or the store is unavailable.
    pub async fn begin(&self, app: &App, cursor: Option<&str>, max_age: Option<Duration>) -> Result<Place, Error> {
        let newest = events::newest(app).await?;
        let Some(cursor) = cursor else { return Ok(Place { seq: newest, truncated: false }) };
        let asked = cursor.parse::<i64>().ok().filter(|seq| *seq >= 0);
        let asked = asked.ok_or_else(|| Error::Invalid("`cursor` must be one that was answered before".to_owned()))?;
        if asked > newest {
            // It is of a database that was put back by an older one.
            return Ok(Place { seq: newest, truncated: true });
        }
        let pruned = app.store.swept().await?.pruned_through;
        let mut place = Place { seq: asked.max(pruned), truncated: asked < pruned };
        if let Some(max_age) = max_age {
            let floor = clock::now().before(max_age);
            if self.first(app, place.seq, None).await?.is_some_and(|first| first.received_at < floor) {
                let first = self.first(app, place.seq, Some(floor)).await?;
                place = Place { seq: first.map_or(newest, |first| first.seq - 1), truncated: true };
            }
        }
        Ok(place)
    }

    async fn first(&self, app: &App, after: i64, since: Option<Timestamp>) -> Result<Option<StoredEvent>, Error> {
        let query = EventQuery { since, limit: 1, ..self.query(after) };
        Ok(app.store.events(query).await?.into_iter().next())
    }

    fn query(&self, after: i64) -> EventQuery {
        let (source, within) = (Some(self.source.clone()), self.reader.confined_to());
        EventQuery { source, within, after: Some(after), limit: STEP, ..EventQuery::default() }
    }

    /// Up to `most` events behind a place. What is said again is no news, and what is forgotten says nothing.
    ///
    /// # Errors
    /// If the store is unavailable.
    pub async fn page(&self, app: &App, after: i64, most: usize) -> Result<Page, Error> {
        // Before the events are read: what is committed until then is among them.
        let newest = events::newest(app).await?;
        let in_force = app.current();
        if !in_force.config.sources.contains_key(&self.source) {
            // It may come back: what is wanted of it cannot be told meanwhile, and is not passed over.
            return Ok(Page { events: Vec::new(), reached: after, more: false });
        }
        let found = app.store.events(self.query(after)).await?;
        let all = found.len() < STEP;
        let mut page = Page { events: Vec::new(), reached: after, more: !all };
        for event in found {
            if page.events.len() == most {
                return Ok(Page { more: true, ..page });
            }
            page.reached = event.seq;
            if self.wants(&in_force, &event) {
                page.events.push(event);
            }
        }
        if all {
            page.reached = page.reached.max(newest);
        }
        Ok(page)
    }

    fn wants(&self, in_force: &Snapshot, event: &StoredEvent) -> bool {
        if event.replay.is_some() || event.forgotten_at.is_some() {
            return false;
        }
        let Ok(context) = serde_json::from_str::<Context>(&event.context) else { return false };
        let candidate = Candidate { source: &event.source, handshake: event.handshake, context: &context };
        let source = in_force.config.sources.get(&event.source);
        self.trigger.matches(candidate) && source.is_some_and(|source| source.ignored_sender(&context).is_none())
    }

    /// What came since a place, as much as one answer has room for.
    ///
    /// # Errors
    /// If the cursor is none, or the store is unavailable.
    pub async fn poll(
        &self,
        app: &App,
        cursor: Option<&str>,
        max_age: Option<Duration>,
        most: Option<usize>,
    ) -> Result<Polled, Error> {
        let place = self.begin(app, cursor, max_age).await?;
        let most = most.unwrap_or(POLLED).clamp(1, MOST_POLLED);
        let mut polled = Page { events: Vec::new(), reached: place.seq, more: cursor.is_some() };
        let (mut steps, mut bytes) = (0, 0);
        while polled.more && steps < MOST_STEPS && polled.events.len() < most && bytes < LARGEST_POLL {
            steps += 1;
            let page = self.page(app, polled.reached, most - polled.events.len()).await?;
            (polled.reached, polled.more) = (page.reached, page.more);
            for event in page.events {
                bytes += event.context.len();
                polled.events.push(event);
            }
        }
        shorten(&mut polled);
        Ok(Polled { page: polled, truncated: place.truncated })
    }
}

/// Leaves for the next poll what would make this one too large; one event is always in it.
fn shorten(polled: &mut Page) {
    let mut bytes = 0;
    let fits = polled.events.iter().take_while(|event| {
        let before = bytes;
        bytes += event.context.len();
        before < LARGEST_POLL
    });
    let fits = fits.count();
    if fits < polled.events.len() {
        polled.events.truncate(fits);
        polled.reached = polled.events.last().map_or(polled.reached, |event| event.seq);
        polled.more = true;
    }
}

/// Refuses arguments that are no filters of the source.
fn check(source: &Arc<Source>, arguments: &Map<String, Value>) -> Result<(), Error> {
    let filters: Vec<&str> = source.provider().filters().iter().map(|field| field.name.as_ref()).collect();
    let invalid = |what: String| Err(Error::Invalid(what));
    if serde_json::to_string(arguments).unwrap_or_default().len() > LARGEST_ARGUMENTS {
        return invalid(format!("`arguments` may have {LARGEST_ARGUMENTS} bytes"));
    }
    for (name, value) in arguments {
        if !filters.contains(&name.as_str()) {
            return invalid(format!("`arguments` of this event type may have: {}", filters.join(", ")));
        }
        let texts = value.as_array().filter(|texts| !texts.is_empty() && texts.iter().all(Value::is_string));
        if texts.is_none() {
            return invalid(format!("`arguments.{name}` must be a list of strings, and not an empty one"));
        }
    }
    Ok(())
}
