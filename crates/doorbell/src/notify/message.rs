//! What is told: the message that a receiver gets.

use std::time::Duration;

use doorbell_core::event::Context;
use doorbell_core::id::RunId;
use doorbell_core::pattern::Pattern;
use doorbell_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::{Notification, Receiver, Topic};

/// Runs that a message names.
const MOST_RUNS: usize = 10;

/// Something that happened, before it is known who is told.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) on: Topic,
    /// Whether it is the end of a problem.
    pub(super) ended: bool,
    pub(super) agent: Option<String>,
    pub(super) source: Option<String>,
    pub(super) run: Option<RunId>,
    pub(super) text: String,
    pub(super) at: Timestamp,
    /// Whether it happened to a run that a notification started.
    pub(super) of_notification: bool,
}

impl Report {
    /// What it is about: with the topic, the cause by which reports are told together.
    pub(super) fn subject(&self) -> &str {
        self.agent.as_deref().or(self.source.as_deref()).unwrap_or_default()
    }

    /// Whether it is for this receiver.
    pub(super) fn is_for(&self, notification: &Notification) -> bool {
        // An agent that is told of failures, fails, and is told of that, would go on for ever.
        let loops = self.of_notification && matches!(notification.receiver, Receiver::Agent(_));
        !loops && is_told(notification, self.on, self.agent.as_deref(), self.source.as_deref())
    }
}

/// Whether a receiver is told of this. What has no source or agent passes the filters of those.
pub(super) fn is_told(notification: &Notification, on: Topic, agent: Option<&str>, source: Option<&str>) -> bool {
    let passes = |patterns: &[Pattern], name: Option<&str>| {
        let Some(name) = name else { return true };
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
    };
    notification.on.contains(&on) && passes(&notification.agents, agent) && passes(&notification.sources, source)
}

/// Reports of one cause that were not told yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gathered {
    pub(super) count: u64,
    pub(super) ended: bool,
    pub(super) agent: Option<String>,
    pub(super) source: Option<String>,
    runs: Vec<String>,
    text: String,
    since: Timestamp,
    until: Timestamp,
}

impl Gathered {
    /// One more, after those before.
    pub(super) fn add(before: Option<Self>, report: &Report) -> Self {
        let mut all = before.unwrap_or_else(|| Self {
            count: 0,
            ended: false,
            agent: report.agent.clone(),
            source: report.source.clone(),
            runs: Vec::new(),
            text: String::new(),
            since: report.at,
            until: report.at,
        });
        all.count += u64::from(!report.ended);
        all.ended = report.ended;
        all.until = report.at;
        all.text.clone_from(&report.text);
        if all.source != report.source {
            all.source = None;
        }
        if let Some(run) = report.run {
            all.runs.truncate(MOST_RUNS - 1);
            all.runs.push(run.to_string());
        }
        all
    }

    /// Puts them into words.
    pub(super) fn into_message(self, on: Topic, gateway: &str, now: Timestamp) -> Message {
        let text = match (on, self.count, self.ended) {
            (Topic::DeadLetter, 2.., _) => {
                format!("{} runs used up their tries since {}; the last: {}", self.count, self.since, self.text)
            }
            (_, 1.., true) => format!("{} (it was over before it could be told)", self.text),
            _ => self.text,
        };
        let state = if self.ended { State::Resolved } else { State::Problem };
        let (agent, source) = (self.agent, self.source);
        let data = Data {
            on,
            state,
            agent,
            source,
            count: self.count,
            since: self.since,
            until: self.until,
            text,
            runs: self.runs,
            gateway: gateway.to_owned(),
            test: false,
        };
        Message::new(data, now)
    }
}

/// Whether there is a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// There is.
    Problem,
    /// It is over.
    Resolved,
}

/// A message as receivers get it; the same bytes at every try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    /// `ntf_…`: receivers know a message that comes twice by it.
    pub(super) id: String,
    /// `doorbell.dead_letter`, `doorbell.silent.resolved`, …
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) timestamp: Timestamp,
    pub(super) data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Data {
    pub(super) on: Topic,
    pub(super) state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    /// How often it happened since the last message.
    pub(super) count: u64,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    /// One sentence for people.
    pub(super) text: String,
    /// Some of the runs that it happened to: the first ones, and the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) runs: Vec<String>,
    /// Where senders reach the gateway.
    pub(super) gateway: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) test: bool,
}

impl Message {
    fn new(data: Data, now: Timestamp) -> Self {
        let kind = match data.state {
            State::Problem => format!("doorbell.{}", data.on.as_str()),
            State::Resolved => format!("doorbell.{}.resolved", data.on.as_str()),
        };
        let id = clock::new_id::<doorbell_core::id::OfNotification>().to_string();
        Self { id, kind, timestamp: now, data }
    }

    /// A sample.
    pub(super) fn sample(on: Topic, gateway: &str, now: Timestamp) -> Self {
        let data = Data {
            on,
            state: State::Problem,
            agent: matches!(on, Topic::DeadLetter | Topic::Breaker).then(|| "sample".to_owned()),
            source: matches!(on, Topic::Rejections | Topic::Silent).then(|| "sample".to_owned()),
            count: 1,
            since: now.before(Duration::from_secs(60)),
            until: now,
            text: "This is a test of Doorbell's notifications: nothing is wrong".to_owned(),
            runs: Vec::new(),
            gateway: gateway.to_owned(),
            test: true,
        };
        Self::new(data, now)
    }

    /// The bytes that are sent.
    pub(super) fn body(&self) -> Vec<u8> {
        // Nothing in it can fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What an agent's prompt and the lists of events show.
    pub(super) fn context(&self) -> Context {
        let data = &self.data;
        let mut context = Context::default();
        context.set("event", data.on.as_str());
        context.set_some("action", (data.state == State::Resolved).then_some("resolved"));
        context.set("text", data.text.as_str());
        context.set_some("agent", data.agent.as_deref());
        context.set_some("source", data.source.as_deref());
        context.set("count", i64::try_from(data.count).unwrap_or(i64::MAX));
        if !data.runs.is_empty() {
            context.set("runs", data.runs.clone());
        }
        if data.test {
            context.set("test", true);
        }
        context
    }

    /// The variables that a command gets beside the message itself.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let state = match self.data.state {
            State::Problem => "problem",
            State::Resolved => "resolved",
        };
        let data = &self.data;
        let all = [
            ("ID", self.id.clone()),
            ("TYPE", self.kind.clone()),
            ("ON", data.on.as_str().to_owned()),
            ("STATE", state.to_owned()),
            ("TEXT", data.text.replace('\0', "")),
            ("AGENT", data.agent.clone().unwrap_or_default()),
            ("SOURCE", data.source.clone().unwrap_or_default()),
            ("COUNT", data.count.to_string()),
        ];
        all.into_iter().map(|(name, value)| (format!("DOORBELL_NOTIFICATION_{name}"), value)).collect()
    }
}
