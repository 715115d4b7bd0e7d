//! What lists can be narrowed down by.

use reqwest::Url;

/// Which events to list; what is `None` does not narrow the list down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// The source.
    pub source: Option<String>,
    /// The event (`issues`), event and action (`issues.opened`), or whole type (`github.issues.opened`).
    pub event: Option<String>,
    /// With an outcome of this kind: `started`, `absorbed`, `skipped`, `dropped`, `filter_error`.
    pub outcome: Option<String>,
    /// Received at this time or later, RFC 3339.
    pub since: Option<String>,
    /// Received before this time, RFC 3339.
    pub until: Option<String>,
    /// That say this in their name, source, delivery id or context: words, and phrases in quotation marks.
    pub q: Option<String>,
    /// Whether what `q` says may stand in their bodies, too.
    pub bodies: Option<bool>,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many, at most.
    pub limit: Option<u32>,
}

/// Which runs to list; what is `None` does not narrow the list down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// The agent.
    pub agent: Option<String>,
    /// The state, e.g. `failed`.
    pub state: Option<String>,
    /// Whether they are dead letters.
    pub dead_letter: Option<bool>,
    /// What they are about.
    pub key: Option<String>,
    /// The id of the event that caused them.
    pub event: Option<String>,
    /// The kind of their cause: `webhook`, `schedule`, `manual`, `agent`, `notification` or `replay`.
    pub trigger: Option<String>,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many, at most.
    pub limit: Option<u32>,
}

/// Which entries of the audit log to list; what is `None` does not narrow the list down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Whose: a key's or run's id, or its label or agent.
    pub who: Option<String>,
    /// Asked for at this time or later, RFC 3339.
    pub since: Option<String>,
    /// Asked for before this time, RFC 3339.
    pub until: Option<String>,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many, at most.
    pub limit: Option<u32>,
}

impl AuditQuery {
    pub(crate) fn append_to(&self, url: &mut Url) {
        append(url, "who", self.who.as_deref());
        append(url, "since", self.since.as_deref());
        append(url, "until", self.until.as_deref());
        append(url, "cursor", self.cursor.as_deref());
        append(url, "limit", self.limit);
    }
}

impl EventQuery {
    pub(crate) fn append_to(&self, url: &mut Url) {
        append(url, "source", self.source.as_deref());
        append(url, "event", self.event.as_deref());
        append(url, "outcome", self.outcome.as_deref());
        append(url, "since", self.since.as_deref());
        append(url, "until", self.until.as_deref());
        append(url, "q", self.q.as_deref());
        append(url, "bodies", self.bodies);
        append(url, "cursor", self.cursor.as_deref());
        append(url, "limit", self.limit);
    }
}

impl RunQuery {
    pub(crate) fn append_to(&self, url: &mut Url) {
        append(url, "agent", self.agent.as_deref());
        append(url, "state", self.state.as_deref());
        append(url, "deadLetter", self.dead_letter);
        append(url, "key", self.key.as_deref());
        append(url, "event", self.event.as_deref());
        append(url, "trigger", self.trigger.as_deref());
        append(url, "cursor", self.cursor.as_deref());
        append(url, "limit", self.limit);
    }
}

/// Adds a parameter, if there is a value.
pub(crate) fn append(url: &mut Url, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        url.query_pairs_mut().append_pair(name, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_set_is_asked_for() {
        let mut url = Url::parse("http://gateway/v1/events").unwrap();
        EventQuery::default().append_to(&mut url);
        assert_eq!(url.as_str(), "http://gateway/v1/events");
        let since = Some("2026-01-02T03:04:05+01:00".to_owned());
        EventQuery { source: Some("a&b".to_owned()), since, limit: Some(5), ..Default::default() }.append_to(&mut url);
        assert_eq!(url.query(), Some("source=a%26b&since=2026-01-02T03%3A04%3A05%2B01%3A00&limit=5"));
    }

    #[test]
    fn runs_are_asked_for_by_the_names_of_the_api() {
        let mut url = Url::parse("http://gateway/v1/runs").unwrap();
        RunQuery { dead_letter: Some(true), event: Some("evt_1".to_owned()), ..Default::default() }.append_to(&mut url);
        assert_eq!(url.query(), Some("deadLetter=true&event=evt_1"));
    }
}
